import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import BaseMessage
from unit_tests.fake_chat import FakeChat
from unit_tests.held_out import (
    REFERENCE,
    TASK,
    Memory,
    answering,
    candidate,
    dataset,
    example,
    examples,
    number_of,
)

from langchain_slm.evaluation.evaluators import Evaluator, evaluator_for
from langchain_slm.evaluation.experiment import Candidate, Experiment, Settings
from langchain_slm.evaluation.trial import SCREEN_PAIRS, Rule, Trial
from langchain_slm.schema import Example, Task
from langchain_slm.selection import FUTILITY_LIMIT, is_look, look
from langchain_slm.stats import futility

RULE = Rule(margin=0.05, alpha=0.05, sites=1)
EVERYTHING = Rule(margin=0.05, alpha=0.05, sites=1, stops_early=False)
VALIDATION = 10_000  # numbers of validation examples start here


def judge(each: Example) -> Evaluator | None:
    return evaluator_for(each, TASK)


def trial(
    candidates: Sequence[Candidate],
    *,
    test: int = 0,
    validation: int = 0,
    more: Iterable[Example] = (),
    **fields: Any,
) -> Trial:
    held_out = [
        *examples(validation, split="validation", first=VALIDATION),
        *examples(test),
        *more,
    ]
    given = {
        "task": TASK,
        "reference": REFERENCE,
        "dataset": dataset(held_out),
        "candidates": candidates,
        "evaluator_of": judge,
        "experiment": Experiment(Memory(), Settings(first_wait_s=0, rate_limit_wait_s=0)),
    }
    return Trial(**(given | fields))


def asked(each: Candidate, *, on_test: bool) -> int:
    assert isinstance(each.model, FakeChat)
    numbers = [number_of(messages) for messages in each.model.asked]
    return sum((number < VALIDATION) == on_test for number in numbers)


def rarely(share: int) -> Callable[[int], bool]:
    """Wrong once in `share` questions."""
    return lambda number: number % share == 0


# Screening


async def test_the_cheapest_and_the_best_on_validation_reach_the_test_split():
    cheap = candidate(answering(wrong=rarely(33)), "cheap", usd=0.1)
    middle = candidate(answering(wrong=rarely(34)), "middle", usd=0.2)
    best = candidate(answering(), "best", usd=0.3)
    decision = await trial([best, middle, cheap], validation=100, test=300).run(RULE)
    assert [asked(each, on_test=False) for each in (cheap, middle, best)] == [100] * 3
    assert asked(middle, on_test=True) == 0
    assert asked(cheap, on_test=True) > 0
    assert decision.threshold == 40  # two finalists, one task
    verdicts = {each.candidate: each.verdict for each in decision.others}
    assert verdicts["middle"].startswith(
        "screened out on the validation split: others were cheaper or better"
    )


async def test_the_union_bound_counts_finalists_fixed_before_the_first_test_pair():
    """The second is not even asked, and yet the first is held against two."""
    cheap = candidate(answering(wrong=rarely(50)), "cheap", usd=0.1)
    best = candidate(answering(), "best", usd=0.3)
    decision = await trial([cheap, best], validation=100, test=900).run(
        Rule(margin=0.05, alpha=0.05, sites=3)
    )
    assert decision.threshold == pytest.approx(2 * 3 / 0.05)
    assert (decision.decision, decision.model) == ("proven", "cheap")
    assert asked(best, on_test=True) == 0
    (other,) = decision.others
    assert other.verdict.startswith(
        "promising on the validation split; another was proven first"
    )
    assert other.n == 100


async def test_one_finalist_that_is_cheapest_and_best_stands_alone():
    decision = await trial(
        [candidate(answering(), name, usd=usd) for name, usd in (("a", 1), ("b", 2))],
        validation=50,
        test=100,
    ).run(RULE)
    assert decision.threshold == 20
    assert (decision.decision, decision.model) == ("proven", "a")


async def test_at_most_so_many_validation_pairs_are_paid_for():
    one = candidate(answering())
    await trial([one], validation=SCREEN_PAIRS + 50, test=20).run(RULE)
    assert asked(one, on_test=False) == SCREEN_PAIRS == 200


async def test_a_futile_candidate_is_not_screened_to_the_end():
    one = candidate(answering(wrong=rarely(2)))
    decision = await trial([one], validation=100, test=100).run(RULE)
    assert (asked(one, on_test=False), asked(one, on_test=True)) == (20, 0)
    assert (decision.decision, decision.model, decision.binding) == ("kept", "ref", None)
    assert decision.reason.startswith(
        "screened out on the validation split; slm: inferior: n=20, b=10, c=0"
    )


async def test_a_candidate_that_more_pairs_would_prove_survives_the_screening():
    """The fifth pair is lost at 161: futile by F alone, though 1,000 would prove it."""
    one = candidate(
        answering(wrong=lambda number: number in range(VALIDATION, 20_000, 40))
    )
    assert futility(170, 5, 0) > FUTILITY_LIMIT
    decision = await trial([one], validation=200, test=200).run(RULE)
    assert asked(one, on_test=False) == 200
    assert decision.decision == "proven"


@pytest.mark.parametrize("rule", [RULE, EVERYTHING])
async def test_candidates_are_asked_at_the_same_time(rule):
    """Each waits for the other, so that one after the other would never end."""
    meeting = asyncio.Barrier(2)

    class Meeting(FakeChat):
        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            await meeting.wait()
            return self._generate(messages)

    met = [candidate(Meeting(reply=lambda _: "yes"), name) for name in ("a", "b")]
    async with asyncio.timeout(30):
        await trial(met, validation=20, test=20).run(rule)
    assert len(met[0].model.asked) == len(met[1].model.asked) == 20


@pytest.mark.parametrize(
    ("usd", "reference", "why"),
    [
        (None, REFERENCE, "unknown cost of the candidate"),
        (99.0, REFERENCE, "not cheaper"),
        (
            0.1,
            REFERENCE.model_copy(update={"usd_per_million_input_tokens": None}),
            "unknown cost of the reference",
        ),
    ],
)
async def test_what_could_not_be_bound_meets_no_test_pair(usd, reference, why):
    one = candidate(answering(), usd=usd)
    decision = await trial([one], validation=20, test=99, reference=reference).run(RULE)
    assert asked(one, on_test=True) == 0
    assert decision.decision == "kept"
    assert decision.reason.startswith("screened out on the validation split; slm: ")
    assert why in decision.reason


async def test_the_objection_to_a_screened_candidate_is_in_the_plan():
    good = candidate(answering(), "good", usd=0.2)
    others = [
        candidate(answering(), "dear", usd=99),
        candidate(answering(), "unpriced", usd=None),
        candidate(answering(wrong=rarely(10)), "worse", usd=0.1),
    ]
    decision = await trial([good, *others], validation=40, test=200).run(RULE)
    assert decision.model == "good"
    assert {each.candidate: each.verdict for each in decision.others} == {
        "dear": "screened out on the validation split: not cheaper",
        "unpriced": "screened out on the validation split: unknown cost of the candidate",
        "worse": "screened out on the validation split: its pass rate is worse by the "
        "margin",
    }


async def test_without_a_validation_split_all_candidates_are_confirmed():
    tried = [candidate(answering(wrong=rarely(2)), f"c{n}", usd=n) for n in (3, 1, 2)]
    decision = await trial(tried, test=60).run(RULE)
    assert [asked(each, on_test=True) for each in tried] == [20, 20, 20]
    assert decision.threshold == pytest.approx(60)
    assert decision.decision == "kept"
    assert len(decision.others) == 2


async def test_without_a_validation_split_the_cheapest_by_list_price_is_asked_first():
    order: list[str] = []
    tried = [
        candidate(answering(), "b", usd=2),
        candidate(answering(), "unpriced", usd=None),
        candidate(answering(), "a", usd=1),
    ]
    decision = await trial(
        tried, test=300, progress=lambda name, *_: order.append(name)
    ).run(RULE)
    assert (decision.decision, decision.model) == ("proven", "a")
    assert set(order) == {"a"}


# Confirming


async def test_no_test_pair_is_paid_for_after_the_evidence_decides():
    one = candidate(answering())
    decision = await trial([one], test=900).run(RULE)
    assert decision.chosen is not None
    assert decision.chosen.n == asked(one, on_test=True) == 100
    assert decision.chosen.e_value >= decision.threshold == 20


@settings(max_examples=15, deadline=None)
@given(
    lost=st.sets(st.integers(0, 299), max_size=40),
    sites=st.sampled_from([1, 4]),
    count=st.integers(1, 300),
)
def test_a_candidate_is_asked_exactly_to_the_look_that_decides(lost, sites, count):
    rule = Rule(margin=0.05, alpha=0.05, sites=sites)
    one = candidate(answering(wrong=lost.__contains__))
    decision = asyncio.run(trial([one], test=count).run(rule))

    def is_open(n: int) -> bool:
        seen = sum(number < n for number in lost)
        return look(n, seen, 0, margin=0.05, threshold=sites / 0.05) == "open"

    ends = [n for n in range(count) if is_look(n) and not is_open(n)]
    assert decision.chosen is not None
    assert decision.chosen.n == min([*ends, count])


async def test_evaluate_all_asks_every_candidate_every_test_example_and_screens_none():
    tried = [
        candidate(answering(wrong=rarely(share)), f"c{share}", usd=share)
        for share in (2, 50, 1000)
    ]
    decision = await trial(tried, validation=50, test=300).run(EVERYTHING)
    assert [asked(each, on_test=True) for each in tried] == [300] * 3
    assert [asked(each, on_test=False) for each in tried] == [0] * 3
    assert decision.threshold == pytest.approx(60)
    assert decision.chosen is not None
    assert {each.n for each in (decision.chosen, *decision.others)} == {300}


async def test_a_thread_is_one_pair_however_many_calls_it_has():
    same = [example(number, thread="one") for number in range(500, 540)]
    one = candidate(answering())
    decision = await trial([one], test=20, more=same).run(EVERYTHING)
    assert decision.chosen is not None
    assert decision.chosen.n == 21


async def test_only_answers_of_the_reference_are_evidence():
    others = [example(number, model="backup") for number in range(500, 540)]
    of_another_task = example(600).model_copy(update={"task": "other"})
    one = candidate(answering())
    decision = await trial([one], test=20, more=[*others, of_another_task]).run(
        EVERYTHING
    )
    assert decision.chosen is not None
    assert decision.chosen.n == 20


async def test_an_abstaining_candidate_never_loses_a_pair_and_costs_both():
    class Silent(FakeChat):
        def _answer(self, messages: list[BaseMessage], kwargs: Any) -> Any:
            message = super()._answer(messages, kwargs)
            message.response_metadata["abstained"] = True
            return message

    one = candidate(Silent())
    decision = await trial([one], test=30).run(EVERYTHING)
    assert decision.chosen is not None
    assert (decision.chosen.escalations, decision.chosen.candidate_pass_rate) == (30, 1)
    assert decision.decision == "kept"
    assert "not cheaper" in decision.reason


# What cannot be tested


async def test_free_text_is_kept_with_what_to_do():
    text = Task(task_id="triage", site="reply", shape="text")
    one = candidate(answering())
    decision = await trial(
        [one], test=30, validation=30, task=text, evaluator_of=lambda _: None
    ).run(RULE)
    assert decision.decision == "kept"
    assert decision.reason == (
        "not testable: free text has no automatic evaluator; give your own (--evaluator "
        "reply=PATH.py:FUNCTION) or right answers (--truth)"
    )
    assert one.model.asked == []


async def test_a_task_without_held_out_examples_is_kept_and_says_so():
    train = examples(30, split="train")
    decision = await trial([candidate(answering())], more=train).run(RULE)
    assert decision.reason == "not testable: no held-out example; record more threads"


async def test_a_task_whose_reference_breaks_its_own_rule_is_kept_and_says_so():
    decision = await trial(
        [candidate(answering())], test=30, evaluator_of=lambda _: None
    ).run(RULE)
    assert decision.reason == (
        "not testable: no recorded answer of the reference can be judged by its own rule"
    )


async def test_a_task_without_a_candidate_is_kept():
    decision = await trial([], test=30, validation=30).run(RULE)
    assert (decision.decision, decision.reason) == ("kept", "no candidate was tried")


# Cheating


def test_a_candidate_built_from_test_threads_is_refused():
    cheat = candidate(answering())
    cheat = Candidate(cheat.name, cheat.binding, cheat.model, frozenset({"t3", "x"}))
    with pytest.raises(ValueError, match="'slm' was built from 1 of the 30 threads that"):
        trial([cheat], test=30)
    trial([Candidate("slm", cheat.binding, cheat.model, frozenset({"x"}))], test=30)


async def test_screening_asks_nothing_of_the_test_split():
    one = candidate(answering(wrong=rarely(2)))
    await trial([one], validation=60, test=60).run(RULE)
    assert asked(one, on_test=True) == 0


# What went wrong


async def test_a_failure_that_most_share_is_named_in_plan_and_reason():
    class NotFoundError(Exception):
        status_code = 404

    def reply(messages: list[BaseMessage]) -> str:
        if number_of(messages) % 10:
            message = f"secret question {messages[-1].content}"
            raise NotFoundError(message)
        return "no"

    one = candidate(FakeChat(reply=reply))
    decision = await trial([one], test=30).run(RULE)
    assert decision.chosen is not None
    assert decision.chosen.verdict.endswith(
        "; 18 of 18 failures: HTTP 404 (NotFoundError)"
    )
    assert decision.reason.endswith("; 18 of 18 failures: HTTP 404 (NotFoundError)")
    assert "secret" not in decision.model_dump_json()


async def test_pairs_lost_to_the_endpoint_are_counted_apart():
    class BusyError(Exception):
        status_code = 503

    def reply(messages: list[BaseMessage]) -> str:
        if number_of(messages) < 3:
            raise BusyError
        return "yes" if number_of(messages) % 2 else "no"

    one = candidate(FakeChat(reply=reply))
    decision = await trial([one], test=60).run(EVERYTHING)
    assert decision.chosen is not None
    assert (decision.chosen.reference_only, decision.chosen.infrastructure_errors) == (
        3,
        3,
    )
    assert "pairs lost to its endpoint: 3" in decision.reason
    assert "3 of 3 failures: HTTP 503 (BusyError)" in decision.reason


async def test_reasons_of_evaluators_which_may_quote_answers_are_not_repeated():
    one = candidate(FakeChat(reply=lambda _: "my secret"))
    decision = await trial([one], test=30).run(RULE)
    assert decision.decision == "kept"
    assert "secret" not in decision.model_dump_json()


# Work


async def test_each_example_is_looked_at_once_for_all_candidates():
    looked: list[str] = []

    def counting(each: Example) -> Evaluator | None:
        looked.append(each.example_id)
        return judge(each)

    tried = trial([], test=30, validation=20, evaluator_of=counting)
    assert tried.is_testable
    await tried.run(RULE)
    tried.pairs("test")
    assert len(looked) == 50
