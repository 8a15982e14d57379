"""Chat models that follow a script: the same answer to the same prompt, always.

What is counted (calls, attempts) belongs to a run, held by a context variable: two runs
at once never share it, and a run is repeated exactly by giving it a fresh `Run`.
"""

import json
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import Field
from unit_tests.fake_chat import FakeChat

MODEL_NAMES = ("small", "large", "other")
WORDS = ("a", "bee", "saw", "the", "dunes", "at", "noon")
MOST_TOOL_TURNS = 2


class ScriptError(Exception):
    """A model's own failure: not one that any client or LangGraph knows."""


ERRORS: dict[str, type[Exception]] = {
    "script": ScriptError,
    "value": ValueError,
    "connection": ConnectionError,
}


@dataclass(frozen=True)
class Voice:
    """One script.

    Attributes:
        index: Which model of the graph follows it.
        style: How it streams, and whether its content is text or blocks.
        fails: On which calls: "prompt", every `every`-th prompt, always; "first", the
            first `every` calls of each prompt; "nth", the `every`-th call of the run.
        every: See `fails`.
        error: What it fails with.
        breaks: It fails in the midst of a stream, not before.
    """

    index: int
    style: Literal["words", "letters", "blocks"] = "words"
    fails: Literal["never", "prompt", "first", "nth"] = "never"
    every: int = 1
    error: str = "script"
    breaks: bool = False


@dataclass
class Called:
    """One call as a model saw it.

    Attributes:
        voice: Index of the script.
        by_twin: Whether a twin was asked, not the graph's own model.
        twin: The site that the twin is bound to.
        prompt: Text of all messages.
        options: Names of the options, and the tools.
    """

    voice: int
    by_twin: bool
    twin: str | None
    prompt: str
    options: str


@dataclass
class Run:
    """What is counted while a graph runs.

    Attributes:
        calls: Of models, as they came.
        attempts: Of nodes: their tag and LangGraph's number of the attempt.
        counts: Of calls, for scripts that count.
    """

    calls: list[Called] = field(default_factory=list)
    attempts: list[tuple[str, int]] = field(default_factory=list)
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, voice: int, what: str) -> int:
        with self.lock:
            self.counts[voice, what] += 1
            return self.counts[voice, what]


RUN: ContextVar[Run] = ContextVar("parity_run")


def number(*parts: object) -> int:
    """Return a number that looks random and is always the same."""
    return zlib.crc32(json.dumps([str(part) for part in parts]).encode())


def text_of(messages: list[BaseMessage]) -> str:
    """Return a prompt as a script reads it."""
    return " / ".join(f"{m.type}: {m.text} {_calls_of(m)}".strip() for m in messages)


def _calls_of(message: BaseMessage) -> str:
    calls = getattr(message, "tool_calls", None) or []
    return json.dumps([[c["name"], c["args"]] for c in calls]) if calls else ""


class Scripted(FakeChat):
    """Follows its script; a twin that stands for several models follows each of theirs.

    A prompt that holds `<m1>` is meant for the model of index 1.
    """

    voices: tuple[Voice, ...] = ()
    twin: str | None = None
    lock: Any = Field(default_factory=threading.Lock, exclude=True, repr=False)

    def _voice(self, prompt: str) -> Voice:
        meant = re.findall(r"<m(\d)>", prompt)
        if len(self.voices) > 1 and meant:
            return next(v for v in self.voices if v.index == int(meant[-1]))
        return self.voices[0]

    def _answer(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        prompt = text_of(messages)
        voice = self._voice(prompt)
        self._note(voice, prompt, kwargs)
        if not voice.breaks and (why := _failure(voice, prompt)):
            raise why
        return self._said(voice, prompt, messages, kwargs)

    def _note(self, voice: Voice, prompt: str, kwargs: dict[str, Any]) -> None:
        told = {key: _option(value) for key, value in kwargs.items()}
        options = json.dumps(told, sort_keys=True, default=repr)
        called = Called(voice.index, self.twin is not None, self.twin, prompt, options)
        run = RUN.get()
        with run.lock:
            run.calls.append(called)

    def _said(
        self,
        voice: Voice,
        prompt: str,
        messages: list[BaseMessage],
        kwargs: dict[str, Any],
    ) -> AIMessage:
        chance = number(voice.index, prompt)
        calls = _tool_calls(chance, messages, kwargs)
        words = [WORDS[(chance >> shift) % len(WORDS)] for shift in range(chance % 4)]
        content: Any = " ".join([f"m{voice.index}-{chance % 1000}", *words])
        if calls:
            content = ""
        elif voice.style == "blocks":
            content = [{"type": "text", "text": content}]
        return AIMessage(
            content,
            tool_calls=calls,
            response_metadata={
                "model_name": self.model_name,
                "finish_reason": "tool_calls" if calls else "stop",
            },
            usage_metadata={
                "input_tokens": len(prompt.split()),
                "output_tokens": 3,
                "total_tokens": len(prompt.split()) + 3,
            },
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Any:
        result = super()._generate(messages, stop, run_manager, **kwargs)
        prompt = text_of(messages)
        if self._voice(prompt).breaks and (why := _failure(self._voice(prompt), prompt)):
            raise why
        return result

    def _chunks(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        message = self._answer(messages, kwargs)
        prompt = text_of(messages)
        voice = self._voice(prompt)
        parts = list(_parts(message, voice))
        why = _failure(voice, prompt) if voice.breaks else None
        for index, part in enumerate(parts):
            if why is not None and index == min(1, len(parts) - 1):
                raise why
            yield ChatGenerationChunk(message=part)
        last = AIMessageChunk(
            "" if isinstance(message.content, str) else [],
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
        )
        yield ChatGenerationChunk(message=last)


def _option(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _option(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_option(each) for each in value]
    return value.__name__ if isinstance(value, type) else value


def _failure(voice: Voice, prompt: str) -> Exception | None:
    chance = number(voice.index, prompt)
    fails = False
    if voice.fails == "prompt":
        fails = chance % voice.every == 0
    elif voice.fails == "first":
        fails = RUN.get().count(voice.index, prompt) <= voice.every
    elif voice.fails == "nth":
        fails = RUN.get().count(voice.index, "") == voice.every
    return ERRORS[voice.error](f"m{voice.index} fails on {chance}") if fails else None


def _tool_calls(
    chance: int, messages: list[BaseMessage], kwargs: dict[str, Any]
) -> list[Any]:
    tools = kwargs.get("tools") or []
    if not tools:
        return []
    done = sum(message.type == "tool" for message in messages)
    forced = kwargs.get("tool_choice") not in (None, "auto")
    if not forced and (done >= MOST_TOOL_TURNS or (done and chance % 2)):
        return []
    chosen = -1 if done >= MOST_TOOL_TURNS else chance % len(tools)
    tool = tools[chosen]["function"]  # the last one is that of a structured answer
    fields = tool.get("parameters", {}).get("properties", {})
    args = {name: _value(of, chance) for name, of in fields.items()}
    return [{"name": tool["name"], "args": args, "id": f"call-{done}-{chance:08x}"}]


def _value(of: dict[str, Any], chance: int) -> Any:
    return chance % 10 if of.get("type") == "integer" else f"key {chance % 100}"


def _parts(message: AIMessage, voice: Voice) -> Iterator[AIMessageChunk]:
    size = 1 if voice.style == "letters" else 4
    if message.tool_calls:
        for index, call in enumerate(message.tool_calls):
            told = json.dumps(call["args"])
            for at in range(0, len(told), 8 * size):
                first = at == 0
                yield AIMessageChunk(
                    "",
                    tool_call_chunks=[
                        {
                            "name": call["name"] if first else None,
                            "args": told[at : at + 8 * size],
                            "id": call["id"] if first else None,
                            "index": index,
                        }
                    ],
                )
        return
    text = message.text
    for at in range(0, len(text), 2 * size):
        piece = text[at : at + 2 * size]
        blocks: list[Any] = [{"type": "text", "text": piece, "index": 0}]
        yield AIMessageChunk(blocks if voice.style == "blocks" else piece)
