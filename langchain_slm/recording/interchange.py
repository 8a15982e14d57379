"""Recorded suites: reading them, and seeing them as recorded calls.

A suite is a folder with `cases.jsonl`, `responses/<model>.jsonl` and `models.json`:
recorded answers of several models to the same inputs, with what a right answer is.
Reads the whole suite or refuses it, naming file and line; repairs nothing and grades
nothing.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool, ValidationError, field_validator

from langchain_slm.errors import SuiteError
from langchain_slm.schema import (
    Answer,
    Call,
    Expected,
    Frozen,
    JsonObject,
    ModelSpec,
    Request,
    Usage,
)

_CASE_FIELDS = ("id", "suite", "node", "messages", "reference", "grader")


def _duration(value: object) -> float | None:
    """Return `value` where it is a possible duration in seconds, else None: unknown."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


class Case(Frozen):
    """One input of an agent's step, and what a right answer to it is.

    Attributes:
        id: Unique in the suite.
        node: The step that the case stands for.
        thread: The conversation that it belongs to; by default one of its own.
        messages: OpenAI chat messages that the step receives, at least one.
        tools: OpenAI function tools offered, in order.
        tool_choice: As in the OpenAI API; None where the step sets none.
        response_format: As in the OpenAI API; None where the step sets none.
        expected: What a right answer is.
    """

    id: str
    node: str
    thread: str
    messages: tuple[JsonObject, ...] = Field(min_length=1, repr=False)
    tools: tuple[JsonObject, ...] = Field(default=(), repr=False)
    tool_choice: str | JsonObject | None = None
    response_format: JsonObject | None = Field(default=None, repr=False)
    expected: Expected

    @field_validator("messages")
    @classmethod
    def _has_roles(cls, messages: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
        without = [
            i for i, m in enumerate(messages) if not isinstance(m.get("role"), str)
        ]
        if without:
            msg = f"message {without[0]} has no `role`"
            raise ValueError(msg)
        return messages

    @property
    def request(self) -> Request:
        """What a model is asked in this case."""
        return Request(
            messages=self.messages,
            tools=self.tools,
            tool_choice=self.tool_choice,
            response_format=self.response_format,
        )


class Response(Frozen):
    """What one model answered to one case.

    Attributes:
        answer: The recorded answer; None where the call failed.
        passed: The recorded pass flag; None where the source published none.
        latency_s: Seconds to the complete answer; None where not published.
        error: Why the call failed, or a remark of the source on an answer it did get.
    """

    answer: Answer | None
    passed: StrictBool | None = None
    latency_s: Annotated[float | None, BeforeValidator(_duration)] = None
    error: str | None = Field(default=None, repr=False)


class Suite(Frozen):
    """Recorded answers of several models to the same cases.

    Attributes:
        name: The name that its cases give it.
        cases: In the order of the file.
        responses: Per model, per case id, what it answered.
        models: Per model with responses, its name and prices.
        reference: The model that the others are measured against; None where
            `models.json` marks none that has responses.
    """

    name: str
    cases: tuple[Case, ...] = Field(repr=False)
    responses: dict[str, dict[str, Response]] = Field(repr=False)
    models: dict[str, ModelSpec]
    reference: str | None = None

    def missing(self, model: str) -> tuple[str, ...]:
        """Return the ids of the cases that `model` has no response to, in their order.

        Raises:
            SuiteError: If the suite has no responses of `model`.
        """
        answered = _responses_of(self, model)
        return tuple(case.id for case in self.cases if case.id not in answered)


def read_suite(folder: Path | str) -> Suite:
    """Return the recorded suite in `folder`.

    Raises:
        SuiteError: If a file is missing or a line cannot be used; it names file and
            line, what was seen and what to do.
    """
    root = Path(folder)
    if not root.is_dir():
        msg = f"{root}: no such folder; a suite is a folder with cases.jsonl in it"
        raise SuiteError(msg, file=str(root))
    name, cases = _read_cases(root / "cases.jsonl")
    responses = _read_responses(root / "responses", {case.id for case in cases})
    models, reference = _read_models(root / "models.json", tuple(responses))
    return Suite(
        name=name, cases=cases, responses=responses, models=models, reference=reference
    )


def suite_calls(suite: Suite, model: str) -> Iterator[Call]:
    """Yield the suite as recorded calls of `model`, as a store would hold them.

    The site of a call is the node of its case, the graph is the suite. Cases that
    `model` has no response to are left out.

    Raises:
        SuiteError: If the suite has no responses of `model`.
    """
    responses = _responses_of(suite, model)
    spec = suite.models[model]
    for sequence, case in enumerate(suite.cases):
        response = responses.get(case.id)
        if response is None:
            continue
        yield Call(
            call_id=f"{suite.name}/{case.id}",
            trace_id=case.thread,
            thread_id=case.thread,
            graph=suite.name,
            site=case.node,
            sequence=sequence,
            model=model,
            provider=spec.provider,
            request=case.request,
            answer=response.answer,
            error=None if response.answer else response.error,
            latency_s=response.latency_s or 0.0,
        )


def _responses_of(suite: Suite, model: str) -> dict[str, Response]:
    if model not in suite.responses:
        known = ", ".join(sorted(suite.responses))
        msg = f"suite {suite.name}: no responses of model {model!r}; it has {known}"
        raise SuiteError(msg, suite=suite.name, model=model)
    return suite.responses[model]


def _read_cases(path: Path) -> tuple[str, tuple[Case, ...]]:
    """Return the suite's name and its cases."""
    cases: dict[str, Case] = {}
    name = None
    for line, row in _rows(path, _CASE_FIELDS):
        name = row["suite"] if name is None else name
        if not isinstance(name, str) or row["suite"] != name:
            seen = f"`suite` {row['suite']!r} where the first case has {name!r}"
            raise _refused(path, line, seen, "keep one suite, named by text, in a folder")
        case = _case(path, line, row)
        if case.id in cases:
            raise _refused(path, line, f"case {case.id!r} twice", "give it its own id")
        cases[case.id] = case
    if name is None:
        raise _refused(path, 1, "no cases", "record at least one")
    return name, tuple(cases.values())


def _case(path: Path, line: int, row: JsonObject) -> Case:
    thread = row.get("thread")
    fields = {
        "id": row["id"],
        "node": row["node"],
        "thread": row["id"] if thread is None else thread,
        "messages": row["messages"],
        "tools": row.get("tools") or (),
        "tool_choice": row.get("tool_choice"),
        "response_format": row.get("response_format"),
        "expected": {"grader": row["grader"], "reference": row["reference"]},
    }
    try:
        return Case.model_validate(fields)
    except ValidationError as error:
        raise _refused(path, line, _first_fault(error), "correct the case") from None


def _read_responses(folder: Path, known: set[str]) -> dict[str, dict[str, Response]]:
    """Return the responses per model, in the order of the file names."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        msg = f"{folder}: no recorded answers; put one <model>.jsonl per model there"
        raise SuiteError(msg, file=str(folder))
    return {path.stem: _read_model_responses(path, known) for path in files}


def _read_model_responses(path: Path, known: set[str]) -> dict[str, Response]:
    responses: dict[str, Response] = {}
    for line, row in _rows(path, ("id",)):
        case_id = row["id"]
        if not isinstance(case_id, str) or case_id not in known:
            seen = f"an answer to case {case_id!r}, which cases.jsonl does not have"
            raise _refused(path, line, seen, "add the case or drop the answer")
        if case_id in responses:
            seen = f"a second answer to case {case_id!r}"
            raise _refused(path, line, seen, "keep one of them")
        responses[case_id] = _response(path, line, row)
    return responses


def _response(path: Path, line: int, row: JsonObject) -> Response:
    error = row.get("error")
    try:
        return Response(
            answer=_answer(row),
            passed=row.get("passed"),
            latency_s=row.get("latency_s"),
            error=error if error is None or isinstance(error, str) else json.dumps(error),
        )
    except ValidationError as fault:
        raise _refused(path, line, _first_fault(fault), "correct the answer") from None
    except _FaultError as fault:
        raise _refused(path, line, str(fault), "correct the answer") from None


def _answer(row: JsonObject) -> Answer | None:
    """Return the answer of one line; None where it holds but an error."""
    message = row.get("message")
    if message is None:
        if row.get("error") is None:
            msg = "no `message` and no `error`"
            raise _FaultError(msg)
        return None
    _check_message(message)
    return Answer(
        message=message,
        finish_reason="tool_calls" if message.get("tool_calls") else "stop",
        usage=Usage(
            input_tokens=row.get("input_tokens", row.get("input_tokens_est")),
            output_tokens=row.get("output_tokens", row.get("output_tokens_est")),
        ),
    )


def _check_message(message: object) -> None:
    """Refuse what is not an OpenAI assistant message."""
    if not isinstance(message, dict):
        msg = f"a `message` that is {_kind(message)}, not an object"
        raise _FaultError(msg)
    content = message.get("content")
    if not isinstance(content, str | list | None):
        msg = f"`content` that is {_kind(content)}, not text"
        raise _FaultError(msg)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(map(_is_tool_call, calls)):
        msg = "`tool_calls` without a `function` of `name` and `arguments`, both text"
        raise _FaultError(msg)


def _is_tool_call(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and all(
        isinstance(function.get(key), str) for key in ("name", "arguments")
    )


def _read_models(
    path: Path, recorded: Sequence[str]
) -> tuple[dict[str, ModelSpec], str | None]:
    """Return the models that have responses, and which of them is the reference."""
    try:
        entries = _object(_read(path))
    except _FaultError as fault:
        raise _refused(path, fault.line, str(fault), "correct the file") from None
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            seen = f"model {name!r} is {_kind(entry)}, not an object"
            raise _refused(path, 1, seen, "correct the entry")
    # A model that nobody priced is still a model: its price is unknown.
    priced = {name: entries.get(name, {}) for name in recorded}
    marked = [name for name in priced if priced[name].get("reference") is True]
    if len(marked) > 1:
        seen = f"{len(marked)} reference models, {', '.join(marked)}"
        raise _refused(path, 1, seen, "mark one")
    models = {name: _model(path, name, entry) for name, entry in priced.items()}
    return models, marked[0] if marked else None


def _model(path: Path, name: str, entry: JsonObject) -> ModelSpec:
    try:
        return ModelSpec(
            name=name,
            provider="openai",
            model=name,
            usd_per_million_input_tokens=entry.get("input_usd_per_1m"),
            usd_per_million_output_tokens=entry.get("output_usd_per_1m"),
        )
    except ValidationError as fault:
        seen = f"model {name!r}: {_first_fault(fault)}"
        raise _refused(path, 1, seen, "give dollars as numbers, or null") from None


def _rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, JsonObject]]:
    """Yield number and object of each line of `path` that is not blank."""
    # Not `splitlines`: U+2028 and its like may stand in JSON strings.
    for line, text in enumerate(_read(path).split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            row = _object(text)
        except _FaultError as fault:
            raise _refused(path, line, str(fault), "correct the line") from None
        absent = [f"`{field}`" for field in required if field not in row]
        if absent:
            raise _refused(path, line, f"no {', '.join(absent)}", "add what is missing")
        yield line, row


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        msg = f"{path}: {error.strerror}; a suite has cases.jsonl, responses, models.json"
        raise SuiteError(msg, file=str(path)) from error


def _object(text: bytes) -> JsonObject:
    """Return the JSON object in `text`, or raise a `_FaultError` without its content."""
    try:
        value = json.loads(text.decode())
    except UnicodeDecodeError as error:
        msg = f"invalid UTF-8 at byte {error.start + 1}"
        raise _FaultError(msg, line=text.count(b"\n", 0, error.start) + 1) from None
    except json.JSONDecodeError as error:
        msg = f"invalid JSON at column {error.colno}: {error.msg}"
        raise _FaultError(msg, line=error.lineno) from None
    except (ValueError, RecursionError):
        msg = "invalid JSON: a number or a nesting beyond what can be read"
        raise _FaultError(msg) from None
    if not isinstance(value, dict):
        msg = f"{_kind(value)}, not an object"
        raise _FaultError(msg)
    return value


class _FaultError(Exception):
    """What is wrong with a text, and in which line of it."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def _refused(path: Path, line: int, seen: str, remedy: str) -> SuiteError:
    return SuiteError(f"{path}:{line}: {seen}; {remedy}", file=str(path), line=line)


def _first_fault(error: ValidationError) -> str:
    """Return where and why a field was refused, without its value."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"


_KINDS = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}


def _kind(value: object) -> str:
    """Return what JSON calls the type of `value`."""
    return "null" if value is None else _KINDS.get(type(value), "a number")
