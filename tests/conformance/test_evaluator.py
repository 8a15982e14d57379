"""What every evaluator owes: run on each of ours, on agreement and on a user's function.

A new evaluator earns its place by a row in `SUBJECTS`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit_tests.judged import called, example_of, said

from langchain_slm.evaluation.evaluators import (
    Agreement,
    ClosedSetLabel,
    Evaluator,
    ExactText,
    JsonAnswer,
    StructuredFields,
    ToolCallMatch,
    UserFunction,
    Verdict,
)
from langchain_slm.schema import Answer, Example, Expected, JsonObject

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "book", "parameters": SCHEMA}}
STAY = {"city": "Rome", "nights": 2}
BOOK_ROME = {"name": "book", "arguments": '{"city": "Rome", "nights": 2}'}


@dataclass(frozen=True)
class Subject:
    evaluator: Evaluator
    right: Answer
    grader: str | None = None
    reference: JsonObject | None = None

    @property
    def example(self) -> Example:
        expected = None
        if self.grader is not None:
            expected = Expected(grader=self.grader, reference=self.reference or {})
        return example_of(expected, answer=self.right, tools=[TOOL], schema=SCHEMA)

    def judge(self, answer: Answer) -> Verdict:
        return self.evaluator.evaluate(self.example, answer)


def polite(_: Example, answer: Answer) -> float:
    return 1.0 if "please" in answer.text else 0.25


HOT = said("hot")
TEA = said("Tea, please")
LABELS = ("hot", "cold")
WANTED = {"calls": [{"name": "book", "arguments": {"city": ["Rome"], "nights": [2]}}]}
OBJECT = said('{"city": "Rome", "nights": 2}')
ANSWER = said('{"reasoning": "6 * 7", "answer": "42"}')
SUBJECTS = {
    "tool call": Subject(ToolCallMatch(), called(("book", STAY)), "bfcl_ast", WANTED),
    "abstention": Subject(ToolCallMatch(), said("No tool fits."), "relevance", {}),
    "number": Subject(JsonAnswer(), ANSWER, "json_answer_number", {"answer": "42"}),
    "literal": Subject(JsonAnswer(), ANSWER, "json_answer_literal", {"answer": "42"}),
    "label": Subject(ClosedSetLabel(LABELS), HOT, "label", {"label": "hot"}),
    "fields": Subject(StructuredFields(), OBJECT, "fields", {"fields": STAY}),
    "text": Subject(ExactText(), said("Good day."), "exact_text", {"text": "Good day."}),
    "agreement on calls": Subject(Agreement("tool_call"), called(("book", STAY))),
    "agreement on a label": Subject(Agreement("label", labels=LABELS), HOT),
    "agreement on fields": Subject(Agreement("structured"), OBJECT),
    "agreement on JSON": Subject(Agreement("json"), ANSWER),
    "a user's function": Subject(UserFunction(polite, name="polite"), TEA),
}


@pytest.fixture(params=SUBJECTS.values(), ids=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return request.param


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
NEARLY_TOO_DEEP = '{"city": ' + "[" * 300 + "]" * 300 + "}"
HOSTILE_CONTENTS = {
    "nothing": None,
    "empty": "",
    "blanks": " \n\t\u00a0",
    "a number": 7,
    "parts": [{"type": "text", "text": "who"}, "stray", None, {"type": "image_url"}],
    "an object": {"text": "who"},
    "a list": "[1, 2]",
    "NaN": '{"answer": NaN, "city": NaN, "label": NaN}',
    "an infinite number": '{"answer": 1e999, "city": -1e999}',
    "a long integer": '{"answer": ' + "9" * 5000 + ', "nights": ' + "9" * 5000 + "}",
    "a number divided by nothing": '{"answer": "7/0"}',
    "not closed": '{"answer": {"city": "Rome"',
    "closed twice": '}}{{}"answer": }}',
    "deep": DEEP,
    "nearly too deep": NEARLY_TOO_DEEP,
    "only braces": "{" * 50_000 + "}" * 49_999,
    "a lone surrogate": '{"answer": "\ud800", "\ud800": 1}',
    "NUL": "\x00",
    "a fence without an inside": "``````",
    "10 MB": "x" * 10_000_000,
    "10 MB of digits": '{"answer": "0.' + "1" * 10_000_000 + '"}',
}
HOSTILE_CALLS = {
    "no list": {"0": "call"},
    "a true value": True,
    "no objects": ["call", None, 3],
    "no function": [{"id": "a"}],
    "a function that is text": [{"id": "a", "function": "book"}],
    "null name": [{"id": "a", "function": {"name": None, "arguments": "{}"}}],
    "no arguments": [{"id": "a", "function": {"name": "book"}}],
    "null arguments": [{"id": "a", "function": {"name": "book", "arguments": None}}],
    "an object for arguments": [
        {"id": "a", "function": {"name": "book", "arguments": {"city": "Rome"}}}
    ],
    "an unhashable id": [{"id": ["a"], "function": {"name": "book", "arguments": "[]"}}],
    "duplicate ids": [
        {"id": "a", "function": BOOK_ROME},
        {"id": "a", "function": BOOK_ROME},
    ],
    "unknown tool": [
        {"id": "a", "function": {"name": "\ud800" * 999, "arguments": "{}"}}
    ],
}
HOSTILE_TEXTS = {
    name: content
    for name, content in HOSTILE_CONTENTS.items()
    if isinstance(content, str)
}


def holds(verdict: Verdict, *, passed: bool) -> None:
    assert isinstance(verdict, Verdict)
    assert verdict.passed is passed
    assert 0 <= verdict.score <= 1
    assert verdict.reason.strip()
    assert len(verdict.reason) <= 400
    verdict.reason.encode()  # can be written anywhere: no lone surrogate


def test_the_right_answer_passes_with_full_score_and_a_reason(subject: Subject):
    verdict = subject.judge(subject.right)
    holds(verdict, passed=True)
    assert verdict.score == 1.0


@pytest.mark.parametrize("content", HOSTILE_CONTENTS.values(), ids=HOSTILE_CONTENTS)
def test_a_hostile_text_fails_with_a_reason(subject: Subject, content: object):
    # Whatever is said without a call, no tool was called.
    holds(subject.judge(said(content)), passed=subject.grader == "relevance")


@pytest.mark.parametrize("made", HOSTILE_CALLS.values(), ids=HOSTILE_CALLS)
def test_hostile_tool_calls_fail_with_a_reason(subject: Subject, made: object):
    message = {"role": "assistant", "content": None, "tool_calls": made}
    holds(subject.judge(Answer(message=message)), passed=False)


@pytest.mark.parametrize("arguments", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_hostile_arguments_fail_with_a_reason(subject: Subject, arguments: str):
    holds(subject.judge(called(("book", arguments))), passed=False)


def test_an_answer_without_any_key_gets_a_verdict(subject: Subject):
    holds(subject.judge(Answer(message={})), passed=subject.grader == "relevance")


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
def test_a_truncated_answer_fails_even_if_it_is_right(subject: Subject, reason: str):
    cut = subject.right.model_copy(update={"finish_reason": reason})
    holds(subject.judge(cut), passed=False)


def test_a_model_that_declined_to_answer_fails(subject: Subject):
    declined = subject.right.model_copy(update={"abstained": True})
    holds(subject.judge(declined), passed=False)


def test_the_author_makes_no_difference(subject: Subject):
    other = subject.example.model_copy(
        update={"model": "Llama-3.1", "provider": "nvidia"}
    )
    assert subject.evaluator.evaluate(other, subject.right) == subject.judge(
        subject.right
    )


def test_example_and_answer_are_left_as_they_were(subject: Subject):
    given_example, answer = subject.example, subject.right.model_copy(deep=True)
    before = copy.deepcopy((given_example, answer))
    subject.evaluator.evaluate(given_example, answer)
    assert (given_example, answer) == before


def test_the_reason_stays_out_of_the_repr(subject: Subject):
    verdict = subject.judge(said("a secret"))
    assert verdict.reason not in repr(verdict)


def test_it_has_a_name(subject: Subject):
    assert subject.evaluator.name.strip()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "function", "name", "arguments", "text", "type", "answer", "city"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)
JSON_PIECES = ["{", "}", "[", "]", ":", ",", '"', '{"answer":', '"city": "Rome"', "NaN"]
TEXT_PIECES = ["42", "-", "/", "hot", "book", "\\boxed{", "```json", " ", "\n", "\ud800"]
fragments = st.lists(st.sampled_from([*JSON_PIECES, *TEXT_PIECES]), max_size=12).map(
    "".join
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": json_values | fragments,
        "tool_calls": json_values
        | st.lists(
            st.fixed_dictionaries(
                {"id": st.sampled_from(["a", "b", None])},
                optional={
                    "function": st.fixed_dictionaries(
                        {},
                        optional={
                            "name": st.sampled_from(["book", "", None]),
                            "arguments": fragments | json_values,
                        },
                    )
                },
            ),
            max_size=2,
        ),
    },
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(message=messages)
def test_any_message_gets_a_verdict(subject: Subject, message: JsonObject):
    verdict = subject.judge(Answer(message=message))
    holds(verdict, passed=verdict.passed)
