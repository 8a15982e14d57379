"""The recordings of suites, found by model and question, and their response bodies.

Answers what was recorded or raises `RefusedError`; makes nothing up.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus

from langchain_slm.errors import SuiteError
from langchain_slm.recording.interchange import Case, Suite
from langchain_slm.replay.questions import (
    QuestionError,
    difference,
    has_lost_tool_calls,
    normal_form,
    similarity,
    tool_calls_agree,
    without_tool_calls,
    words,
)
from langchain_slm.schema import Answer, JsonObject, content_hash

logger = logging.getLogger(__name__)

_PIECES = 4  # of a streamed text: enough that a client must join them
# At most 12 bytes each as JSON escapes: aiohttp refuses lines of over 128 KiB.
_MAX_PIECE_CHARACTERS = 8_000
_CREATED = 0  # a replay says the same at any time


class RefusedError(Exception):
    """A request that gets an error in OpenAI's form instead of an answer.

    Attributes:
        status: Of the HTTP response.
        body: Its JSON.
        case_id: The case that was asked for, where it is known.
    """

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        code: str,
        param: str | None = None,
        nearest: JsonObject | None = None,
        case_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.case_id = case_id
        error: JsonObject = {
            "message": message,
            "type": "invalid_request_error",
            "code": code,
            "param": param,
        }
        self.body: JsonObject = {
            "error": error | ({"nearest": nearest} if nearest else {})
        }


@dataclass(frozen=True)
class Recording:
    """What one model answered to one case; `answer` is None where its call failed."""

    model: str
    case_id: str
    answer: Answer | None

    @cached_property
    def seen(self) -> tuple[str, str]:
        """Model and case, one object however often it is noted."""
        return self.model, self.case_id

    @cached_property
    def completion(self) -> bytes:
        """The body of a response in one piece, as JSON."""
        choice = {"index": 0, "message": self._message, "finish_reason": self._finish}
        usage = {"usage": self._usage} if self._usage else {}
        body = {**self._head("chat.completion"), "choices": [choice], **usage}
        return json.dumps(body).encode()

    @cached_property
    def events(self) -> bytes:
        """The body of a streamed response, as server-sent events."""
        return _events(self._chunks())

    @cached_property
    def events_with_usage(self) -> bytes:
        """The same with the usage in a chunk of its own."""
        chunks: list[JsonObject] = [{**chunk, "usage": None} for chunk in self._chunks()]
        if self._usage:
            head = self._head("chat.completion.chunk")
            chunks.append({**head, "choices": [], "usage": self._usage})
        return _events(chunks)

    @cached_property
    def _message(self) -> JsonObject:
        """The recorded message, with what clients need and recordings may leave out."""
        recorded = self.answer.message if self.answer else {}
        message = {"role": "assistant", "content": None, **recorded}
        if calls := recorded.get("tool_calls"):
            message["tool_calls"] = [
                {"id": f"call_{index}", "type": "function", **call}
                for index, call in enumerate(calls)
            ]
        return message

    @property
    def _finish(self) -> str | None:
        return self.answer.finish_reason if self.answer else None

    @property
    def _usage(self) -> JsonObject | None:
        """Tokens in OpenAI's form; None unless both are known."""
        usage = self.answer.usage if self.answer else None
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        return {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }

    def _head(self, kind: str) -> JsonObject:
        digest = hashlib.sha256(f"{self.model}\n{self.case_id}".encode()).hexdigest()
        return {
            "id": f"chatcmpl-{digest[:24]}",
            "object": kind,
            "created": _CREATED,
            "model": self.model,
        }

    def _chunks(self) -> Iterator[JsonObject]:
        head = self._head("chat.completion.chunk")
        for delta in self._deltas():
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            yield {**head, "choices": [choice]}
        last = {"index": 0, "delta": {}, "finish_reason": self._finish}
        yield {**head, "choices": [last]}

    def _deltas(self) -> Iterator[JsonObject]:
        yield {"role": "assistant", "content": "" if self._text else None}
        for piece in _pieces(self._text):
            yield {"content": piece}
        for index, call in enumerate(self._message.get("tool_calls") or ()):
            function = call["function"]
            start = {"name": function["name"], "arguments": ""}
            yield {"tool_calls": [{**call, "index": index, "function": start}]}
            for piece in _pieces(function["arguments"]):
                part = {"index": index, "function": {"arguments": piece}}
                yield {"tool_calls": [part]}

    @property
    def _text(self) -> str:
        return self.answer.text if self.answer else ""


def _pieces(text: str) -> Iterator[str]:
    size = min(-(-len(text) // _PIECES), _MAX_PIECE_CHARACTERS)
    for start in range(0, len(text), size or 1):
        yield text[start : start + size]


def _events(chunks: Iterator[JsonObject] | Sequence[JsonObject]) -> bytes:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


@dataclass(frozen=True)
class _Question:
    """What a recorded case asks, in normal form."""

    suite: str
    case_id: str
    form: JsonObject

    @cached_property
    def words(self) -> frozenset[str]:
        return words(self.form)


class Library:
    """The recordings of all suites, found by model and question.

    A question that two cases share is answered by the first that the model answered.

    Raises:
        ValueError: If there are no suites.
        SuiteError: If a case is not in the form of the OpenAI API.
    """

    def __init__(self, suites: Sequence[Suite]) -> None:
        if not suites:
            msg = "no suites: there is nothing to serve"
            raise ValueError(msg)
        self._questions: dict[str, _Question] = {}
        self._keys_without_calls: defaultdict[str, list[str]] = defaultdict(list)
        self._recordings: dict[str, dict[str, Recording]] = {}
        for suite in suites:
            self._add(suite)

    @property
    def models(self) -> list[str]:
        """Names of the recorded models, sorted."""
        return sorted(self._recordings)

    def find(self, model: str, messages: object, tools: object) -> Recording:
        """Return the recording of `model` for a question.

        Raises:
            RefusedError: If there is none.
            QuestionError: If the question is not in the form of the OpenAI API.
        """
        recordings = self._recordings.get(model)
        if recordings is None:
            raise self._unknown_model(model)
        form = normal_form(messages, tools)
        key = content_hash(form)
        recording = recordings.get(key)
        if key not in self._questions and has_lost_tool_calls(form):
            key = self._key_without_calls(form)
            recording = recordings.get(key)
        if key not in self._questions:
            raise self._unknown_question(model, form)
        if recording is None:
            raise _unanswered(model, self._questions[key], "it was not asked")
        if recording.answer is None:
            raise _unanswered(model, self._questions[key], "its recorded call failed")
        return recording

    def _add(self, suite: Suite) -> None:
        repeated = 0
        for model in suite.responses:
            self._recordings.setdefault(model, {})
        for case in suite.cases:
            key = self._add_question(suite, case)
            for model, responses in suite.responses.items():
                if response := responses.get(case.id):
                    recording = Recording(model, case.id, response.answer)
                    repeated += self._add_recording(key, recording)
        if repeated:
            # Messages and tools do not say which of them is meant.
            logger.warning(
                "suite %s: %d answers are to a question that has another answer already; "
                "the first answer is served",
                suite.name,
                repeated,
            )

    def _add_recording(self, key: str, recording: Recording) -> bool:
        """Keep the first answer to a question; return whether another is hidden by it."""
        known = self._recordings[recording.model].get(key)
        if known is None or known.answer is None:
            self._recordings[recording.model][key] = recording
            return False
        return recording.answer not in (None, known.answer)

    def _add_question(self, suite: Suite, case: Case) -> str:
        try:
            form = normal_form(case.messages, case.tools)
        except (QuestionError, RecursionError) as error:
            msg = f"suite {suite.name}: case {case.id!r}: {error}; correct the case"
            raise SuiteError(msg, suite=suite.name, case=case.id) from None
        key = content_hash(form)
        if key not in self._questions:
            self._questions[key] = _Question(suite.name, case.id, form)
            if any("tool_calls" in message for message in form["messages"]):
                self._keys_without_calls[content_hash(without_tool_calls(form))].append(
                    key
                )
        return key

    def _key_without_calls(self, form: JsonObject) -> str:
        """Return the one question that `form` is but for lost tool calls, or ""."""
        keys = self._keys_without_calls.get(content_hash(without_tool_calls(form)), [])
        agreed = [k for k in keys if tool_calls_agree(form, self._questions[k].form)]
        return agreed[0] if len(agreed) == 1 else ""

    def _unknown_model(self, model: str) -> RefusedError:
        return RefusedError(
            HTTPStatus.NOT_FOUND,
            f"no recordings of model {model!r}; there are {', '.join(self.models)}",
            code="model_not_found",
            param="model",
        )

    def _unknown_question(self, model: str, form: JsonObject) -> RefusedError:
        nearest = self._nearest(model, form)
        message = (
            f"no recording of these messages and tools; the nearest case is "
            f"{nearest['id']!r} of suite {nearest['suite']!r} (similarity "
            f"{nearest['similarity']}), first difference: {nearest['difference']}"
        )
        return RefusedError(
            HTTPStatus.NOT_FOUND,
            message,
            code="question_not_recorded",
            param="messages",
            nearest=nearest,
        )

    def _nearest(self, model: str, form: JsonObject) -> JsonObject:
        """Return the recorded question of `model` that shares the most words."""
        asked = words(form)
        keys = self._recordings[model] or self._questions
        ranked = ((similarity(asked, self._questions[k].words), k) for k in keys)
        score, key = max(ranked, key=lambda pair: pair[0])
        question = self._questions[key]
        return {
            "suite": question.suite,
            "id": question.case_id,
            "similarity": round(score, 3),
            "difference": difference(form, question.form),
        }


def _unanswered(model: str, question: _Question, why: str) -> RefusedError:
    return RefusedError(
        HTTPStatus.NOT_FOUND,
        f"model {model!r} has no recorded answer to case {question.case_id!r} of suite "
        f"{question.suite!r}: {why}",
        code="answer_not_recorded",
        case_id=question.case_id,
    )
