"""A chat model's own answer, without a run of its own.

A `ChatRouter` is one run: callbacks, tracing, cache and token counts belong to it. The
model that answers is asked by its protected methods, with what `BaseChatModel` itself
does around them: the rate limiter, and the finish reason in the message.

Relies on these names of `BaseChatModel`: `_generate`, `_agenerate`, `_stream`,
`_astream`, `_should_stream`; without a run manager they tell no callback.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_slm.routing import dialect

# For traces only: `BaseChatModel` takes it out of a call before a model is asked.
FORMAT_KEY = "ls_structured_output_format"
LEAST_S = 0.001  # a time-out of 0 is an error to some clients


class Question(NamedTuple):
    """What a model is asked.

    Attributes:
        model: Which.
        messages: The conversation.
        stop: Stop words.
        options: Everything else, in the model's dialect.
        limit: When it must be answered, in seconds of `time.monotonic`.
    """

    model: BaseChatModel
    messages: list[BaseMessage]
    stop: list[str] | None
    options: Mapping[str, Any]
    limit: float | None = None


def generate(question: Question) -> ChatResult:
    """Return the model's whole answer."""
    model, messages, stop, *_ = question
    options = timed(model, _sent(question), question.limit)
    if model.rate_limiter:
        model.rate_limiter.acquire(blocking=True)
    return _told(model._generate(messages, stop=stop, **options), question)  # noqa: SLF001 - see above


async def agenerate(question: Question) -> ChatResult:
    """Return the model's whole answer; asynchronous `generate`."""
    model, messages, stop, *_ = question
    options = _sent(question)
    if model.rate_limiter:
        await model.rate_limiter.aacquire(blocking=True)
    return _told(await model._agenerate(messages, stop=stop, **options), question)  # noqa: SLF001 - see above


def stream(question: Question) -> Iterator[BaseMessage]:
    """Yield the model's answer in chunks; whole where it does not stream."""
    model, messages, stop, *_ = question
    options = timed(model, _sent(question), question.limit)
    if not _streams(model, options, async_api=False):
        yield _message(generate(question))
        return
    if model.rate_limiter:
        model.rate_limiter.acquire(blocking=True)
    chunks = model._stream(messages, stop=stop, **options)  # noqa: SLF001 - see above
    try:
        for chunk in chunks:
            _tell(chunk, question)
            yield chunk.message
    finally:
        if (close := getattr(chunks, "close", None)) is not None:
            close()


async def astream(question: Question) -> AsyncIterator[BaseMessage]:
    """Yield the model's answer in chunks; asynchronous `stream`."""
    model, messages, stop, *_ = question
    options = _sent(question)
    if not _streams(model, options, async_api=True):
        yield _message(await agenerate(question))
        return
    if model.rate_limiter:
        await model.rate_limiter.aacquire(blocking=True)
    chunks = model._astream(messages, stop=stop, **options)  # noqa: SLF001 - see above
    try:
        async for chunk in chunks:
            _tell(chunk, question)
            yield chunk.message
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


def timed(model: BaseChatModel, options: Mapping[str, Any], limit: float | None) -> Any:
    """Return the options with the time that is left, for clients that take one.

    A thread that waits for a silent endpoint cannot be ended by anybody else.

    Args:
        model: Which is asked.
        options: In its dialect.
        limit: When it must have answered, in seconds of `time.monotonic`.
    """
    if limit is None or not hasattr(model, "root_client"):
        return options
    left_s = max(limit - time.monotonic(), LEAST_S)
    own_s = getattr(model, "request_timeout", None)
    if isinstance(own_s, int | float):
        left_s = min(own_s, left_s)
    elif own_s is not None:
        return options  # its own, in parts: connect, read, write
    return {"timeout": left_s, **options}


def _sent(question: Question) -> dict[str, Any]:
    return {k: v for k, v in question.options.items() if k != FORMAT_KEY}


def _streams(
    model: BaseChatModel, options: Mapping[str, Any], *, async_api: bool
) -> bool:
    asked = {**options, "stream": True}
    return model._should_stream(async_api=async_api, **asked)  # noqa: SLF001 - see above


def _told(result: ChatResult, question: Question) -> ChatResult:
    for generation in result.generations:
        _tell(generation, question)
    if result.llm_output and len(result.generations) == 1:
        message = result.generations[0].message
        message.response_metadata = {**result.llm_output, **message.response_metadata}
    return result


def _tell(generation: ChatGeneration, question: Question) -> None:
    message = generation.message
    if info := generation.generation_info:
        message.response_metadata = {**info, **message.response_metadata}
    # ChatNVIDIA names itself, whatever model it was told to ask.
    asked, named = question.options.get("model"), message.response_metadata
    if asked and named.get("model_name") == dialect.model_name(question.model):
        message.response_metadata = {**named, "model_name": asked}


def _message(result: ChatResult) -> BaseMessage:
    (generation,) = result.generations[:1]
    message = generation.message
    # Not `model_dump`: what a parser of the provider's left in it stays an object.
    fields = {name: value for name, value in message if name != "type"}
    return AIMessageChunk(**{**fields, "chunk_position": "last"})
