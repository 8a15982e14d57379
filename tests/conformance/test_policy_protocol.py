"""What every policy owes: run on ours and on a user's own.

A new policy earns its place by a row in `POLICIES`.
"""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from unit_tests.fake_chat import FakeChat
from unit_tests.routed import (
    BOOK,
    MODES,
    about,
    answer,
    ask_of,
    calling,
    fake,
    route_to,
)

from langchain_slm.routing.policy import (
    Contract,
    EscalateBelowConfidence,
    EscalateOnInvalid,
    NeverEscalate,
    Policy,
    contract_of,
)
from langchain_slm.schema import Answer

CANARY = "canary-7f3a"


def sure(confidence: float) -> FakeChat:
    """A model that says how sure it is of its answer."""
    about = {"confidence": confidence}
    return fake(lambda _: AIMessage("Rome", response_metadata=dict(about)))


class AtMostWords(Policy):
    """A user's own: asks the reference when the answer rambles."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def objection(self, answer: Answer, contract: Contract) -> str | None:
        """Return why the answer is too long."""
        words = len(answer.text.split())
        return f"{words} words, {self.limit} allowed" if words > self.limit else None


POLICIES = {
    "on_invalid": EscalateOnInvalid(),
    "below_confidence": EscalateBelowConfidence(0.75),
    "never": NeverEscalate(),
    "users_own": AtMostWords(3),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
every_mode = pytest.mark.parametrize("mode", MODES)

texts = st.sampled_from(["", " ", "Rome", f"{CANARY} in Rome is far", "{", '{"city": 1}'])
functions = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["book", CANARY, ""]),
        "arguments": st.sampled_from(["", "{}", '{"city": "a"}', "[", f'"{CANARY}"']),
    }
)
calls = st.fixed_dictionaries({"function": functions})
messages = st.fixed_dictionaries(
    {"content": st.one_of(texts, st.none(), st.just([{"type": "text", "text": CANARY}]))},
    optional={"tool_calls": st.one_of(st.none(), st.lists(calls, max_size=2))},
)
answers = st.builds(
    Answer,
    message=messages,
    finish_reason=st.sampled_from([None, "stop", "length", "content_filter", CANARY]),
    abstained=st.booleans(),
    confidence=st.sampled_from([None, 0.0, 0.5, 0.75, 1.0, float("nan"), CANARY]),
)
contracts = st.builds(
    contract_of,
    st.sampled_from([[], [BOOK]]),
    st.sampled_from([None, "auto", "none", "required", "book"]),
    st.sampled_from([None, {"type": "text"}, {"type": "json_object"}]),
    labels=st.sampled_from([(), ("Rome",)]),
    finish_reason_required=st.booleans(),
)


@every_policy
def test_a_policy_says_whether_it_escalates(policy):
    assert isinstance(policy.escalates, bool)


@every_policy
@settings(deadline=None)  # the machine may be busy
@given(answer=answers, contract=contracts)
def test_a_judgement_is_a_reason_or_none_and_the_same_each_time(policy, answer, contract):
    before = copy.deepcopy((answer, contract))
    first = policy.objection(answer, contract)
    assert first is None or (isinstance(first, str) and first)
    assert policy.objection(answer, contract) == first
    assert (answer, contract) == before
    assert isinstance(policy.waits(contract), bool)


@every_policy
@settings(deadline=None)  # the machine may be busy
@given(answer=answers, contract=contracts)
def test_a_reason_quotes_no_content(policy, answer, contract):
    assert CANARY not in (policy.objection(answer, contract) or "")


@every_policy
@every_mode
def test_a_good_answer_is_taken(policy, mode):
    message = answer(mode, route_to(sure(0.75), policy))
    assert message.content == "Rome"
    assert (about(message)["escalated"], about(message)["reason"]) == (False, None)


@every_policy
@every_mode
def test_what_a_policy_objects_to_is_answered_by_the_reference(policy, mode):
    objectionable = {
        "AtMostWords": (fake("one two three four"), {}, "4 words, 3 allowed"),
        "EscalateBelowConfidence": (sure(0.5), {}, "low confidence: 0.5, 0.75 required"),
        "EscalateOnInvalid": (
            fake(lambda _: calling("book")),
            {"tools": [BOOK]},
            "arguments of tool book: outside its schema",
        ),
        "NeverEscalate": (fake("Rome"), {"tools": [BOOK], "tool_choice": "any"}, None),
    }
    target, options, reason = objectionable[type(policy).__name__]
    source = fake("large", "ref")
    message = answer(mode, route_to(target, policy), ask_of(source, **options))
    assert about(message)["reason"] == reason
    assert about(message)["escalated"] is (reason is not None)
    assert len(source.asked) == (reason is not None)


@every_policy
@every_mode
def test_a_failure_is_the_references_to_answer_or_the_apps_to_see(policy, mode):
    failure = OSError(CANARY)
    route = route_to(fake(failure), policy)
    if policy.escalates:
        assert about(answer(mode, route))["reason"] == "OSError"
    else:
        with pytest.raises(OSError, match=CANARY) as raised:
            answer(mode, route)
        assert raised.value is failure
