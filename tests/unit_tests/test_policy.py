import pytest

from langchain_slm.routing.policy import (
    Contract,
    EscalateBelowConfidence,
    EscalateOnInvalid,
    NeverEscalate,
    contract_of,
    fits,
    is_truncated,
)
from langchain_slm.schema import Answer

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "book", "parameters": SCHEMA}}
BARE = {"type": "function", "function": {"name": "bare"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
OFFERED = contract_of([TOOL, BARE], None, None)
STRUCTURED = contract_of([], None, FORMAT)
ANYTHING = Contract()
LABELLED = Contract(labels=("billing", "shipping"))


def said(text: object, **facts: object) -> Answer:
    return Answer(message={"role": "assistant", "content": text}, **facts)


def called(name: str, arguments: str, *, text: str = "") -> Answer:
    call = {"id": "c", "type": "function", "function": {"name": name}}
    call["function"]["arguments"] = arguments
    return Answer(message={"role": "assistant", "content": text, "tool_calls": [call]})


def objection(answer: Answer, contract: Contract = ANYTHING) -> str | None:
    return EscalateOnInvalid().objection(answer, contract)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", "truncated (finish_reason length)"),
        ("max_tokens", "truncated (finish_reason max_tokens)"),
        ("MAX_TOKENS", "truncated (finish_reason max_tokens)"),
        ("incomplete", "truncated (finish_reason incomplete)"),
        ("content_filter", "filtered (finish_reason content_filter)"),
        ("refusal", "filtered (finish_reason refusal)"),
        ("SAFETY", "filtered (finish_reason safety)"),
        ("stop", None),
        ("end_turn", None),
        ("STOP", None),
        ("completed", None),
        (None, None),
    ],
)
def test_an_answer_that_the_provider_cut_short_is_objected_to(finish, reason):
    assert objection(said("Rome", finish_reason=finish)) == reason


def test_a_missing_finish_reason_is_objected_to_where_the_provider_states_one():
    contract = Contract(finish_reason_required=True)
    assert objection(said("Rome"), contract) == "incomplete (no finish_reason)"
    assert objection(said("Rome", finish_reason="stop"), contract) is None


def test_an_abstention_is_objected_to_whatever_else_is_said():
    assert objection(said("billing", abstained=True), LABELLED) == "abstained"


@pytest.mark.parametrize("text", ["", "  \n", None, [], [{"type": "image_url"}]])
def test_an_answer_without_text_or_tool_calls_is_empty(text):
    assert objection(said(text)) == "empty answer"


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("book", '{"city": "Rome"}', None),
        ("book", '{"city": "Rome", "nights": 2}', None),
        ("book", '{"city": 3}', "arguments of tool book: outside its schema"),
        ("book", "{}", "arguments of tool book: outside its schema"),
        ("book", "", "arguments of tool book: outside its schema"),
        ("book", '{"city": "Ro', "arguments of tool book: not JSON"),
        ("book", '["Rome"]', "arguments of tool book: not a JSON object"),
        ("book", "[" * 100_000, "arguments of tool book: not JSON"),
        ("bare", "", None),
        ("bare", '{"any": 1}', None),
        ("bare", "7", "arguments of tool bare: not a JSON object"),
        ("other", "{}", "unknown tool"),
        ("", "{}", "unknown tool"),
    ],
)
def test_tool_calls_must_be_of_a_known_tool_and_fit_its_schema(name, arguments, reason):
    assert objection(called(name, arguments), OFFERED) == reason


def test_each_of_several_tool_calls_is_judged():
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("bare", "?")]
    answer = Answer(message={"role": "assistant", "tool_calls": calls})
    assert objection(answer, OFFERED) == "unknown tool"


def test_a_tool_call_where_no_tool_was_offered_is_unknown():
    assert objection(called("book", "{}")) == "unknown tool"


@pytest.mark.parametrize(
    ("choice", "answer", "reason"),
    [
        (None, said("No."), None),
        ("auto", said("No."), None),
        ("none", said("No."), None),
        ("none", called("book", '{"city": "Rome"}'), "unknown tool"),
        ("required", said("No."), "no tool call where one is required"),
        ("required", called("bare", "{}"), None),
        (
            {"type": "function", "function": {"name": "book"}},
            called("bare", "{}"),
            "another tool than the required one",
        ),
        (
            {"type": "function", "function": {"name": "book"}},
            called("book", '{"city": "Rome"}'),
            None,
        ),
        ("book", said("No."), "no tool call where one is required"),
        ({"type": "allowed_tools"}, said("No."), "no tool call where one is required"),
    ],
)
def test_the_tool_choice_is_kept(choice, answer, reason):
    assert objection(answer, contract_of([TOOL, BARE], choice, None)) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"city": "Rome"}', None),
        (' {"city": "Rome", "nights": 2}\n', None),
        ('{"nights": 2}', "outside its schema"),
        ('{"city": "Rome"', "not JSON"),
        ("Rome", "not JSON"),
        ('```json\n{"city": "Rome"}\n```', "not JSON"),
        ('["Rome"]', "not a JSON object"),
        ("null", "not a JSON object"),
    ],
)
def test_structured_text_must_fit_the_response_schema(text, reason):
    assert objection(said(text), STRUCTURED) == reason


def test_json_mode_asks_for_any_json_object():
    contract = contract_of([], None, {"type": "json_object"})
    assert objection(said('{"a": 1}'), contract) is None
    assert objection(said("7"), contract) == "not a JSON object"


def test_a_schema_may_ask_for_a_list():
    listed = {"json_schema": {"schema": {"type": "array"}}, "type": "json_schema"}
    contract = contract_of([], None, listed)
    assert objection(said("[1]"), contract) is None
    assert objection(said("{}"), contract) == "outside its schema"


def test_text_format_asks_for_nothing():
    assert contract_of([], None, {"type": "text"}) == Contract()


def test_a_tool_call_takes_the_place_of_structured_text():
    contract = contract_of([BARE], None, FORMAT)
    assert objection(called("bare", "{}"), contract) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("billing", None),
        (" shipping\n", "label outside the closed set"),
        ("Billing", "label outside the closed set"),
        ("billing.", "label outside the closed set"),
    ],
)
def test_a_label_must_belong_to_the_closed_set(text, reason):
    assert objection(said(text), LABELLED) == reason


def test_labels_that_are_whole_json_texts_must_fit_the_schema_too():
    contract = contract_of([], None, FORMAT, labels=('{"city": "Rome"}', '{"town": 1}'))
    assert objection(said('{"city": "Rome"}'), contract) is None
    assert objection(said('{"city":"Rome"}'), contract) == "label outside the closed set"
    assert objection(said('{"town": 1}'), contract) == "outside its schema"


@pytest.mark.parametrize(
    ("schema", "valid"),
    [
        ({}, True),
        ({"type": "nonsense"}, True),  # invalid: the provider did not enforce it either
        ({"$ref": "https://example.invalid/never-fetched"}, True),
        ({"$ref": "#/$defs/missing"}, True),
        ({"pattern": r"\p{L}+"}, True),  # not of Python's regular expressions
        ({"$ref": "#"}, True),  # without an end
        ({"type": "string"}, True),
        ({"type": "integer"}, False),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": "Rome"}}}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": "Oslo"}}}, False),
    ],
)
def test_what_a_schema_cannot_say_it_does_not_forbid(schema, valid):
    assert fits("Rome", schema) is valid


def test_tools_without_a_name_are_no_part_of_a_contract():
    assert contract_of([{"type": "function"}], None, None) == Contract()


@pytest.mark.parametrize(
    ("contract", "waits"),
    [
        (Contract(), False),
        (Contract(finish_reason_required=True), False),
        (OFFERED, True),
        (STRUCTURED, True),
        (LABELLED, True),
    ],
)
def test_only_plain_text_may_be_shown_before_it_is_complete(contract, waits):
    assert EscalateOnInvalid().waits(contract) is waits
    assert NeverEscalate().waits(contract) is False


def test_never_escalating_takes_every_answer():
    policy = NeverEscalate()
    assert policy.escalates is False
    assert policy.objection(said("", abstained=True), OFFERED) is None


def test_only_limits_of_length_truncate():
    assert is_truncated(said("Rome", finish_reason="LENGTH"))
    assert not is_truncated(said("Rome", finish_reason="content_filter"))
    assert not is_truncated(said("Rome"))


# Confidence


@pytest.mark.parametrize(
    ("confidence", "reason"),
    [
        (0.5, "low confidence: 0.5, 0.75 required"),
        (0.0, "low confidence: 0, 0.75 required"),
        (1 / 3, "low confidence: 0.333, 0.75 required"),
        (0.75, None),
        (1.0, None),
        (None, "no confidence"),
        (float("nan"), "no confidence"),
        (1.5, "no confidence"),  # no probability
        (-0.5, "no confidence"),
        (True, "no confidence"),
        ("0.9", "no confidence"),
    ],
)
def test_an_answer_must_be_sure_enough(confidence, reason):
    policy = EscalateBelowConfidence(0.75)
    assert policy.objection(said("Rome", confidence=confidence), ANYTHING) == reason


@pytest.mark.parametrize(
    ("answer", "contract", "reason"),
    [
        (said("", confidence=1.0), ANYTHING, "empty answer"),
        (said("Rome", confidence=1.0, abstained=True), ANYTHING, "abstained"),
        (said("a", confidence=1.0), LABELLED, "label outside the closed set"),
        (said("a", confidence=0.0), LABELLED, "label outside the closed set"),
        (called("bare", "{}"), OFFERED, "no confidence"),
    ],
)
def test_an_answer_that_is_sure_must_be_valid_too(answer, contract, reason):
    assert EscalateBelowConfidence(0.75).objection(answer, contract) == reason


@pytest.mark.parametrize("contract", [ANYTHING, LABELLED])
def test_how_sure_an_answer_is_shows_at_its_end(contract):
    assert EscalateBelowConfidence(0.75).waits(contract) is True


def test_any_confidence_may_be_enough():
    assert EscalateBelowConfidence(0).objection(said("a", confidence=0), ANYTHING) is None


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(ValueError, match=r"threshold must be a number in \[0, 1\]"):
        EscalateBelowConfidence(threshold)


def test_how_sure_a_model_was_is_not_stored():
    answer = said("Rome", confidence=0.5)
    assert list(answer.model_dump()) == ["message", "finish_reason", "usage", "abstained"]
    assert "confidence" not in answer.model_dump_json()
