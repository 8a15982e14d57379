from collections.abc import Callable

import pytest
from pydantic import ValidationError
from unit_tests.judged import called, example_of, said

from langchain_slm.errors import SLMError
from langchain_slm.evaluation.evaluators import (
    ClosedSetLabel,
    ExactText,
    JsonAnswer,
    StructuredFields,
    UserFunction,
    Verdict,
)
from langchain_slm.schema import Answer, Example, Expected, JsonObject

# JSON answers: the rule of zeroeval


def json_passes(kind: str, wanted: object, content: str) -> bool:
    expected = Expected(grader=f"json_answer_{kind}", reference={"answer": wanted})
    return JsonAnswer().evaluate(example_of(expected), said(content)).passed


@pytest.mark.parametrize(
    "content",
    [
        '{"reasoning": "...", "answer": "42"}',
        'Sure:\n```json\n{\n"answer":\n 42\n}\n```\nDone {"answer": 7}',
        '{"answer": "$42.00 in all, not 7"}',
        '{"answer": "84/2"}',
        '{"answer": "42/0"}',
        '{"reasoning": "a "quoted" word", "answer": "42"}',
        '{"reasoning": "cut {", "answer" : 42, "more": 1}',
        '{"wrong": 1} then "answer": 42',
        "The total is $\\boxed{42}$.",
    ],
)
def test_the_number_is_found(content: str):
    assert json_passes("number", "42", content)


@pytest.mark.parametrize(
    "content",
    [
        '{"answer": "-42"}',
        '{"answer": "forty-two"}',
        '{"answer": "1 or 42"}',
        "42",
        "\\boxed{42} is what it would be if all of them came to the party.",
        "$\\boxed{-42}$",
        "$\\boxed{40 + 2}$",
        '{"answer": ""} \\boxed{42}',
    ],
)
def test_no_other_number_is_taken(content: str):
    assert not json_passes("number", "42", content)


def test_numbers_are_compared_exactly():
    assert json_passes("number", "1,234.50", '{"answer": 1234.5}')
    assert json_passes("number", 0.5, '{"answer": "1/2"}')
    assert not json_passes("number", "1/3", '{"answer": "0.3333333333333333"}')
    assert not json_passes("number", "1" * 400, '{"answer": "' + "1" * 401 + '"}')


def test_a_line_break_inside_a_word_of_the_object_is_removed():
    assert json_passes("literal", "'ab'", '{"answer": "\'a\nb\'"}')


@pytest.mark.parametrize(
    ("wanted", "content", "passes"),
    [
        ("[(4, 1)]", '{"answer": "[(4, 1)]"}', True),
        ("'abc'", '{"answer": "abc"}', True),
        ("''", '{"answer": ""}', True),
        ("True", '{"answer": true}', True),
        ("None", '{"answer": null}', True),
        ("[1, 2]", '{"answer": [1,2]}', True),
        ("abc", '{"answer": "ABC"}', False),
        ("[1, 2]", '{"answer": "[1,2]"}', False),
        ("['a']", '{"answer": "[\'a\']" oops', True),
    ],
)
def test_a_literal_is_equal_but_for_quotes_around_it(
    *, wanted: str, content: str, passes: bool
):
    assert json_passes("literal", wanted, content) is passes


# Labels


@pytest.mark.parametrize(
    "content",
    ["Billing", " billing.\n", '"BILLING"', "'billing.'", "«billing»!", "billing:"],
)
def test_a_label_is_compared_without_its_trimmings(content: str):
    expected = Expected(grader="label", reference={"label": "billing"})
    assert ClosedSetLabel().evaluate(example_of(expected), said(content)).passed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Refund", 'another label: "refund", "billing" wanted'),
        ("It is billing", '"it is billing" is outside the closed set'),
        ("...", "no label: the text is empty"),
    ],
)
def test_a_wrong_label_says_whether_it_is_in_the_closed_set(content: str, reason: str):
    reference = {"label": "billing", "labels": ["billing", "refund"]}
    expected = Expected(grader="label", reference=reference)
    verdict = ClosedSetLabel().evaluate(example_of(expected), said(content))
    assert (verdict.passed, verdict.reason) == (False, reason)


def test_the_closed_set_may_come_from_the_task():
    expected = Expected(grader="label", reference={"label": "billing"})
    evaluator = ClosedSetLabel(("billing", "refund"))
    verdict = evaluator.evaluate(example_of(expected), said("sales"))
    assert verdict.reason == '"sales" is outside the closed set'
    unknown = ClosedSetLabel().evaluate(example_of(expected), said("sales"))
    assert unknown.reason == 'another label: "sales", "billing" wanted'


def test_a_text_that_also_calls_a_tool_fails():
    expected = Expected(grader="label", reference={"label": "billing"})
    message = called(("f", {})).message | {"content": "billing"}
    verdict = ClosedSetLabel().evaluate(example_of(expected), Answer(message=message))
    assert verdict.reason == "calls a tool where text was wanted"


# Structured fields


def fields_verdict(fields: JsonObject, answer: Answer, schema: object = None) -> Verdict:
    expected = Expected(grader="fields", reference={"fields": fields})
    return StructuredFields().evaluate(example_of(expected, schema=schema), answer)


@pytest.mark.parametrize(
    "answer",
    [
        said('{"city": " rome", "nights": 2.0}'),
        said('```json\n{"city": "Rome", "nights": 2}\n```\n'),
        said('```\n{"city": "Rome", "nights": 2}\n```'),
        called(("Booking", {"city": "Rome", "nights": 2})),
    ],
)
def test_the_object_is_read_from_text_fence_or_tool_call(answer: Answer):
    assert fields_verdict({"city": "Rome", "nights": 2}, answer).passed


def test_the_score_is_the_share_of_equal_fields():
    found = said('{"city": "Rome", "nights": 3, "note": null}')
    verdict = fields_verdict({"city": "Rome", "nights": 2, "guest": None}, found)
    assert verdict.score == 0.5
    assert verdict.reason == '2 field(s) differ: "nights", "note"'
    assert not verdict.passed


@pytest.mark.parametrize(
    ("wanted", "found", "equal"),
    [
        (1, "1.0", True),
        (1, "true", False),
        (True, "true", True),
        (False, "0", False),
        (1, '"1"', False),
        ("Straße ", '" STRASSE"', True),
        (["a", "b"], '["A", "b"]', True),
        (["a", "b"], '["b", "a"]', False),
        (["a"], '["a", "a"]', False),
        ({"b": {"c": 1}}, '{"b": {"c": 1.0}}', True),
        ({"b": {"c": 1}}, '{"b": {"c": 2}}', False),
        ({"b": None}, "{}", True),
        ({}, '{"b": 1}', False),
        ({"b": 1}, "[1]", False),
        ([1], "1", False),
        (None, "null", True),
        (0, "null", False),
    ],
)
def test_a_field_is_compared_by_its_type(*, wanted: object, found: str, equal: bool):
    assert fields_verdict({"a": wanted}, said(f'{{"a": {found}}}')).passed is equal


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said("Rome"), "malformed: no JSON at character 0"),
        (said("[1]"), "malformed: JSON, but no object"),
        (said('{"a": 1} {"a": 1}'), "malformed: no JSON at character 9"),
        (said(""), "malformed: no text, and 0 tool calls instead of one"),
        (
            called(("f", {"a": 1}), ("f", {"a": 1})),
            "malformed: no text, and 2 tool calls instead of one",
        ),
    ],
)
def test_what_is_no_single_object_says_so(answer: Answer, reason: str):
    assert fields_verdict({"a": 1}, answer).reason == reason


def test_an_object_that_breaks_the_response_schema_fails_without_comparison():
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
        "$defs": {"n": {"type": "integer", "multipleOf": 0.5}},
    }
    fields = {"items": [1, "b"]}
    verdict = fields_verdict(fields, said('{"items": [1, "b"]}'), schema)
    assert verdict.reason == 'breaks the response schema: $.items[1] breaks "type"'
    assert verdict.score == 0.0
    huge = fields_verdict(fields, said('{"items": [1' + "0" * 400 + "]}"), schema)
    assert huge.reason == "breaks the response schema: a number is out of range"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}},
        7,
    ],
)
def test_an_unusable_schema_is_the_examples_fault_and_nothing_is_fetched(schema: object):
    with pytest.raises(SLMError, match=r"example ex-7 .* response schema is unusable"):
        fields_verdict({"a": 1}, said('{"a": 1}'), schema)


def test_a_response_format_without_a_schema_checks_none():
    expected = Expected(grader="fields", reference={"fields": {"a": 1}})
    example = example_of(expected)
    for response_format in ({"type": "json_object"}, {"json_schema": {"name": "x"}}):
        request = example.request.model_copy(update={"response_format": response_format})
        free = example.model_copy(update={"request": request})
        assert StructuredFields().evaluate(free, said('{"a": 1}')).passed


# Text


def test_exact_text_ignores_how_blanks_are_spread():
    example = example_of(Expected(grader="exact_text", reference={"text": "Good  day."}))
    assert ExactText().evaluate(example, said("\nGood\tday. ")).passed
    assert not ExactText().evaluate(example, said("good day.")).passed


# A user's function


@pytest.mark.parametrize(
    ("returned", "passed", "score", "reason"),
    [
        (True, True, 1.0, "mine returned True"),
        (False, False, 0.0, "mine returned False"),
        (0.8, True, 0.8, "mine scored 0.8, 0.8 passes"),
        (0.79, False, 0.79, "mine scored 0.79, 0.8 passes"),
        (1, True, 1.0, "mine scored 1, 0.8 passes"),
        (Verdict(passed=False, score=0.9, reason="no"), False, 0.9, "no"),
    ],
)
def test_a_user_function_may_return_a_bool_a_score_or_a_verdict(
    *, returned: Verdict | bool | float, passed: bool, score: float, reason: str
):
    mine = UserFunction(lambda example, answer: returned, name="mine", passing=0.8)
    verdict = mine.evaluate(example_of(), said("x"))
    assert verdict == Verdict(passed=passed, score=score, reason=reason)


def failing(example: Example, answer: Answer) -> bool:
    raise KeyError(answer.text)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (failing, "it raised KeyError"),
        (lambda example, answer: None, "it returned NoneType"),
        (lambda example, answer: float("nan"), r"its score is not in \[0, 1\]"),
        (lambda example, answer: 1.01, r"its score is not in \[0, 1\]"),
        (lambda example, answer: -1, r"its score is not in \[0, 1\]"),
    ],
)
def test_a_user_function_that_fails_is_an_error_without_content(
    function: Callable[[Example, Answer], bool], what: str
):
    expected = f"^evaluator mine, example ex-7: {what}$"
    with pytest.raises(SLMError, match=expected) as caught:
        UserFunction(function, name="mine").evaluate(example_of(), said("s3cret"))
    assert caught.value.fields == {"evaluator": "mine", "example_id": "ex-7"}
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def asynchronous(example: Example, answer: Answer) -> bool:
    return True


def test_a_user_function_is_checked_when_it_is_wrapped():
    with pytest.raises(ValueError, match=r"passing is 1\.5"):
        UserFunction(lambda example, answer: True, name="mine", passing=1.5)
    with pytest.raises(ValueError, match="async"):
        UserFunction(asynchronous, name="mine")  # type: ignore[arg-type]


# Verdicts


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.1])
def test_a_verdict_has_a_score_between_nothing_and_all(score: float):
    with pytest.raises(ValidationError):
        Verdict(passed=False, score=score, reason="why")


def test_a_verdict_has_a_reason_that_can_be_stored():
    assert Verdict(passed=False, score=0, reason="\ud800").reason == "\\ud800"
    assert len(Verdict(passed=False, score=0, reason="x" * 9999).reason) == 400
    for reason in ("", None):
        with pytest.raises(ValidationError):
            Verdict(passed=False, score=0, reason=reason)  # type: ignore[arg-type]
