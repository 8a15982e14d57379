"""Evaluators: each judges one output, whoever wrote it. Pure: no I/O, no model calls.

Rules that compare with a reference, or a user's own function. Refuses what needs a
judge: free text without a reference has no evaluator here.

An evaluator is total over answers: whatever a model sends gets a verdict with a reason,
never an exception. An *example* that cannot be judged (its reference does not fit its
grader, its response schema is unusable) raises `SLMError` instead of failing: two
models that both fail on a broken example would count as evidence that they are equal.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol

from pydantic import Field, field_validator

from langchain_slm.errors import SLMError
from langchain_slm.evaluation.answers import (
    bare_label,
    json_answer,
    raw_tool_calls,
    read_tool_calls,
    structured_object,
)
from langchain_slm.evaluation.json_values import (
    MalformedError,
    different_fields,
    first_number,
)
from langchain_slm.evaluation.references import (
    as_reference,
    reference_of,
    reference_part,
    refuse,
    response_schema_violation,
    wanted_calls,
)
from langchain_slm.evaluation.tool_calls import first_mismatch
from langchain_slm.schema import (
    Answer,
    Example,
    Expected,
    Frozen,
    Shape,
    Task,
)

AGREEMENT = "agreement"
# What providers call an answer that ran into its limit: OpenAI; Anthropic and Google.
_TRUNCATED = frozenset({"length", "max_tokens"})
_REASON_CHARACTERS = 400  # a few lines of a report
_SHOWN_CHARACTERS = 60  # of a value in a reason: enough to recognise it in a table


class Verdict(Frozen):
    """What an evaluator says of one output.

    Attributes:
        passed: Whether the output is good enough to stand in for the reference's.
        score: In [0, 1]; 1 where everything that was wanted is there.
        reason: For people, never empty, cut after 400 characters. May quote the output;
            lone surrogates are escaped.
    """

    passed: bool
    score: float = Field(ge=0, le=1, allow_inf_nan=False)
    reason: str = Field(min_length=1, repr=False)

    @field_validator("reason", mode="before")
    @classmethod
    def _can_be_stored(cls, value: object) -> object:
        """A lone surrogate would make pydantic, SQLite and every UTF-8 encoder raise."""
        if not isinstance(value, str):
            return value
        short = value[:_REASON_CHARACTERS]
        return short.encode("utf-8", "backslashreplace").decode()[:_REASON_CHARACTERS]


class Evaluator(Protocol):
    """Judges one output. It is told the example and the answer, never the author."""

    @property
    def name(self) -> str:
        """Name for reports."""

    def evaluate(self, example: Example, answer: Answer) -> Verdict:
        """Judge `answer`, whatever it holds, as an answer to `example`.

        Raises:
            SLMError: If the example, or a user's function, is at fault; never because
                of the answer.
        """


class _Graded(ABC):
    """A rule that compares an answer with the reference of `example.expected`."""

    name: ClassVar[str]
    graders: ClassVar[tuple[str, ...]]
    takes_calls: ClassVar[bool] = False

    def evaluate(self, example: Example, answer: Answer) -> Verdict:
        """Judge `answer` by the reference of `example`.

        An answer that the model broke off or declined to give fails, and so does one
        that calls a tool where text was wanted: the app would run the tool.

        Raises:
            SLMError: If the example has no reference of this rule, or its response
                schema is unusable; never because of the answer.
        """
        if example.expected is None or example.expected.grader not in self.graders:
            wanted = " or ".join(self.graders)
            refuse(example, f"{self.name} needs a reference of grader {wanted}")
        if (verdict := _unfinished(answer)) is not None:
            return verdict
        if not self.takes_calls and answer.message.get("tool_calls"):
            return _failed("calls a tool where text was wanted")
        try:
            return self._judge(example, answer)
        except MalformedError as error:
            return _failed(f"malformed: {error}")
        except RecursionError:
            return _failed("malformed: nested too deeply to be judged")

    @abstractmethod
    def _judge(self, example: Example, answer: Answer) -> Verdict: ...


class ToolCallMatch(_Graded):
    """The tool calls that were wanted, or none where none was wanted.

    Rule "bfcl_ast", reference `{"calls": [{"name", "arguments": {parameter: [accepted
    values]}}]}`: as many calls as the reference has and, for each of its calls in
    order, one not yet used that matches:

    1. the same function name;
    2. every `required` parameter of the tool's schema, none outside the schema, none
       outside the reference;
    3. a parameter of the reference may be absent only if `""` is accepted for it;
    4. the JSON type of the schema (an integer is a number, a boolean is neither), or
       the type of the first accepted value that is not `""`;
    5. an accepted value. Strings, at any depth, are compared in lower case, without
       blanks and `, . / - _ * ^`, and with `'` as `"`. An array equals an accepted
       array in order; each key's value of an object is among those accepted for it.

    Rule "relevance": passes when there is no tool call.

    Ids that occur twice fail: the tools' results could not be told apart.

    Source:
        Berkeley Function Calling Leaderboard v1, its AST checker.
    """

    name = "tool_call_match"
    graders = ("bfcl_ast", "relevance")
    takes_calls = True

    def _judge(self, example: Example, answer: Answer) -> Verdict:
        wanted = wanted_calls(example)
        made = len(raw_tool_calls(answer))
        if not wanted:
            if made:
                return _failed(f"over-calling: {made} tool call(s), none wanted")
            return _passed("no tool call, as wanted")
        if not made:
            return _failed(f"under-calling: no tool call, {len(wanted)} wanted")
        calls = read_tool_calls(answer)
        if made != len(wanted):
            return _failed(f"{made} tool call(s), {len(wanted)} wanted")
        mismatch = first_mismatch(wanted, calls, example.request)
        return _passed("all calls match") if mismatch is None else _failed(mismatch)


class JsonAnswer(_Graded):
    r"""The `answer` of a JSON object somewhere in the text.

    Read from the first balanced `{...}`; if that is no JSON object with an `answer`,
    what follows `"answer":` (quoted text, else up to the next comma or blank); if there
    is none, a closing `\boxed{...}` around one bare word or number, whoever wrote it.

    Rule "json_answer_number", reference `{"answer": ...}`: without `$` and `,`, the
    first number of both is equal; `a/b` is one number.
    Rule "json_answer_literal": equal without surrounding quotes.

    Source:
        WildEval/ZeroEval, src/evaluation (first complete JSON, closing box).
    """

    name = "json_answer"
    graders = ("json_answer_number", "json_answer_literal")

    def _judge(self, example: Example, answer: Answer) -> Verdict:
        wanted = str(reference_part(example, "answer", object))
        found = json_answer(answer.text)
        if found is None:
            return _failed("no JSON answer in the text")
        if example.expected and example.expected.grader == "json_answer_number":
            return self._compare_numbers(example, found, wanted)
        if found.strip("\"'") == wanted.strip("\"'"):
            return _passed("the same answer")
        return _failed(f"answers {_shown(found)}, {_shown(wanted)} wanted")

    def _compare_numbers(self, example: Example, found: str, wanted: str) -> Verdict:
        right = first_number(wanted)
        if right is None:
            refuse(example, "its reference answer holds no number")
        number = first_number(found)
        if number is None:
            return _failed(f"no number in the answer {_shown(found)}")
        if number == right:
            return _passed("the same number")
        return _failed(f"answers {_shown(found)}, {_shown(wanted)} wanted")


class ClosedSetLabel(_Graded):
    """One label, compared without case, surrounding blanks and quotes, closing marks.

    Rule "label", reference `{"label": ...}` and optionally `{"labels": [...]}`.

    Args:
        labels: The closed set where the reference names none; only the reason of a
            failure depends on it.
    """

    name = "closed_set_label"
    graders = ("label",)

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)

    def _judge(self, example: Example, answer: Answer) -> Verdict:
        wanted = reference_part(example, "label", str)
        found = bare_label(answer.text)
        if not found:
            return _failed("no label: the text is empty")
        if found == bare_label(wanted):
            return _passed("the same label")
        labels = self._closed_set(example)
        if labels and found not in {bare_label(label) for label in labels}:
            return _failed(f"{_shown(found)} is outside the closed set")
        return _failed(f"another label: {_shown(found)}, {_shown(wanted)} wanted")

    def _closed_set(self, example: Example) -> Sequence[str]:
        if "labels" not in reference_of(example):
            return self.labels
        labels = reference_part(example, "labels", list)
        if not all(isinstance(label, str) for label in labels):
            refuse(example, 'its reference\'s "labels" are no strings')
        return labels


class StructuredFields(_Graded):
    """One JSON object, valid under the request's response schema, field by field.

    The object is the text (a ```json fence is allowed) or, where there is no text, the
    arguments of the only tool call.

    Rule "fields", reference `{"fields": {...}}`. Strings are compared trimmed and
    without case, numbers as numbers (1 equals 1.0, a boolean is no number), lists in
    order, objects field by field. A field that the answer lacks equals null; a field
    that the reference lacks is a difference. The score is the share of equal fields.
    """

    name = "structured_fields"
    graders = ("fields",)
    takes_calls = True

    def _judge(self, example: Example, answer: Answer) -> Verdict:
        wanted = reference_part(example, "fields", dict)
        found = structured_object(answer)
        if (violation := response_schema_violation(example, found)) is not None:
            return _failed(f"breaks the response schema: {violation}")
        different = different_fields(wanted, found)
        if not different:
            return _passed("all fields are equal")
        fields = len(wanted.keys() | found.keys())
        score = (fields - len(different)) / fields
        names = ", ".join(map(_shown, different[:5]))
        return _failed(f"{len(different)} field(s) differ: {names}", score=score)


class ExactText(_Graded):
    """The text itself; runs of blanks count as one blank.

    Rule "exact_text", reference `{"text": ...}`.
    """

    name = "exact_text"
    graders = ("exact_text",)

    def _judge(self, example: Example, answer: Answer) -> Verdict:
        wanted = reference_part(example, "text", str)
        if answer.text.split() == wanted.split():
            return _passed("the same text")
        return _failed("another text")


class Agreement:
    """Agreement with the reference model: its own recorded answer is the right one.

    Args:
        shape: What kind of answer the task has; decides the rule.
        labels: The closed set of a task of shape "label".
    """

    name = AGREEMENT

    def __init__(self, shape: Shape, *, labels: Sequence[str] = ()) -> None:
        self.shape: Shape = shape
        self.labels = tuple(labels)

    def evaluate(self, example: Example, answer: Answer) -> Verdict:
        """Judge `answer` by the answer recorded in `example`.

        Raises:
            SLMError: If the recorded answer gives no reference of this shape.
        """
        expected = expected_from_answer(example, self.shape, labels=self.labels)
        if expected is None:
            refuse(example, f"its recorded answer is no {self.shape} reference")
        return _judge_by(expected, example, answer)


class UserFunction:
    """An evaluator made of a user's function.

    The function gets the example and the answer and returns a `Verdict`, a bool, or a
    score in [0, 1]. It is not asked about an answer that the model broke off or
    declined to give: that fails.

    Args:
        function: Called synchronously.
        name: Name for reports.
        passing: The least score that passes, in [0, 1].

    Raises:
        ValueError: If `passing` is outside its range or the function is async.

    Example:
        >>> def polite(example: Example, answer: Answer) -> bool:
        ...     return "please" in answer.text
        >>> UserFunction(polite, name="polite").name
        'polite'
    """

    def __init__(
        self,
        function: Callable[[Example, Answer], Verdict | bool | float],
        *,
        name: str,
        passing: float = 1.0,
    ) -> None:
        if not 0 <= passing <= 1:
            msg = f"passing is {passing}; it is a score in [0, 1]"
            raise ValueError(msg)
        if inspect.iscoroutinefunction(function):
            msg = f"evaluator {name}: the function is async; give a synchronous one"
            raise ValueError(msg)
        self.name = name
        self.passing = passing
        self._function = function

    def evaluate(self, example: Example, answer: Answer) -> Verdict:
        """Return what the function says of `answer`.

        Raises:
            SLMError: If the function raises, or returns no verdict, bool or score in
                [0, 1].
        """
        if (verdict := _unfinished(answer)) is not None:
            return verdict
        try:
            result = self._function(example, answer)
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            # `from None`: the traceback of the user's error may quote content.
            raise self._error(example, f"it raised {type(error).__name__}") from None
        return self._verdict(example, result)

    def _verdict(self, example: Example, result: object) -> Verdict:
        if isinstance(result, Verdict):
            return result
        if isinstance(result, bool):
            reason = f"{self.name} returned {result}"
            return Verdict(passed=result, score=float(result), reason=reason)
        if not isinstance(result, int | float):
            raise self._error(example, f"it returned {type(result).__name__}")
        if not 0 <= result <= 1:
            raise self._error(example, "its score is not in [0, 1]")
        reason = f"{self.name} scored {result:g}, {self.passing:g} passes"
        return Verdict(passed=result >= self.passing, score=result, reason=reason)

    def _error(self, example: Example, what: str) -> SLMError:
        msg = f"evaluator {self.name}, example {example.example_id}: {what}"
        return SLMError(msg, evaluator=self.name, example_id=example.example_id)


_GRADED: tuple[_Graded, ...] = (
    ToolCallMatch(),
    JsonAnswer(),
    ClosedSetLabel(),
    StructuredFields(),
    ExactText(),
)
EVALUATORS: Mapping[str, Evaluator] = MappingProxyType(
    {grader: evaluator for evaluator in _GRADED for grader in evaluator.graders}
)
"""The evaluator of each grading rule, by the grader's name."""


def evaluator_for(example: Example, task: Task | None) -> Evaluator | None:
    """Return the evaluator that judges answers to `example`.

    An example with a reference of its own is judged by that; any other, or one of
    grader "agreement", by agreement with its recorded answer under its task's shape.

    Returns:
        None where nothing can be tested automatically: free text without a reference,
        no task to tell the shape, or a recorded answer that is no reference (malformed,
        truncated, outside the closed set, under an unusable schema).

    Raises:
        SLMError: If no evaluator knows the example's grader.
    """
    grader = example.expected.grader if example.expected else AGREEMENT
    if grader == AGREEMENT:
        return _agreement(example, task)
    if grader not in EVALUATORS:
        known = ", ".join([*EVALUATORS, AGREEMENT])
        refuse(example, f'unknown grader "{grader}"; known are {known}')
    if grader == "label" and task is not None:
        return ClosedSetLabel(task.labels)
    return EVALUATORS[grader]


def _agreement(example: Example, task: Task | None) -> Evaluator | None:
    if task is None:
        return None
    if expected_from_answer(example, task.shape, labels=task.labels) is None:
        return None
    return Agreement(task.shape, labels=task.labels)


def expected_from_answer(
    example: Example, shape: Shape, *, labels: Sequence[str] = ()
) -> Expected | None:
    """Return what agrees with the answer that the reference model gave.

    Args:
        example: Its `answer` is taken as the right one; its `expected` is not looked at.
        shape: What kind of answer the task has.
        labels: The closed set of a task of shape "label".

    Returns:
        None for free text, where the recorded answer would fail its own rule (one that
        breaks the response schema is no reference), and where that schema is unusable.
    """
    try:
        expected = as_reference(example.answer, shape, labels)
        if expected and _judge_by(expected, example, example.answer).passed:
            return expected
    except (MalformedError, RecursionError, SLMError):
        return None
    return None


def _judge_by(expected: Expected, example: Example, answer: Answer) -> Verdict:
    known = example.model_copy(update={"expected": expected})
    return EVALUATORS[expected.grader].evaluate(known, answer)


def _unfinished(answer: Answer) -> Verdict | None:
    if answer.abstained:
        return _failed("the model abstained")
    if (answer.finish_reason or "").casefold() in _TRUNCATED:
        return _failed(f'truncated: finish_reason is "{answer.finish_reason}"')
    return None


def _passed(reason: str) -> Verdict:
    return Verdict(passed=True, score=1.0, reason=reason)


def _failed(reason: str, *, score: float = 0.0) -> Verdict:
    return Verdict(passed=False, score=score, reason=reason)


def _shown(text: str) -> str:
    cut = text[:_SHOWN_CHARACTERS] + ("..." if len(text) > _SHOWN_CHARACTERS else "")
    return json.dumps(cut, ensure_ascii=False)
