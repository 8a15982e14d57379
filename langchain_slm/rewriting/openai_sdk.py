"""Opt-in: chat completions that a node asks for with the `openai` package itself.

In a scope that asks for it, `client.chat.completions.create(...)` becomes a call of a
chat model, so that it is watched, and answered by what is bound at its site. The app
gets the package's own types back. What only a raw call can ask for (`n` above 1,
log-probabilities, audio, raw responses, the `parse` and `stream` helpers, the Responses
API) is left as it is.

Relies on these names of the `openai` package: `Completions.create`,
`AsyncCompletions.create`, the header `X-Stainless-Raw-Response`; and of `ChatOpenAI`:
`_create_chat_result`, `_convert_chunk_to_generation_chunk`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial, wraps
from itertools import chain, islice
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from openai import AsyncStream, Stream
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from typing_extensions import override

from langchain_slm.rewriting.patching import Method, Patching
from langchain_slm.rewriting.scopes import SCOPE
from langchain_slm.routing import dialect
from langchain_slm.routing.policy import FILTERED, TRUNCATED

logger = logging.getLogger(__name__)
# Arguments that are no options of a chat model: those about the request stay with the
# app's own client, and a few names mean something else to LangChain.
_NO_OPTIONS = (
    *("messages", "model", "stream", "stream_options", "timeout", "metadata"),
    *("extra_headers", "extra_query", "extra_body"),
    *("input", "config", "callbacks", "tags", "run_name", "run_id"),
)
MOST_REMEMBERED = 10_000  # tool calls; a loop goes on within a few
_callers: OrderedDict[str, Any] = OrderedDict()  # who made a tool call, by its id
_lock = threading.Lock()
# A raw call shows in no trace and in no stream of the graph, and goes on like that.
UNSEEN: RunnableConfig = {"callbacks": []}


class SDKModel(BaseChatModel):
    """The model of one raw call, asked exactly as the app asked it.

    Attributes:
        model_name: As the call names it.
        ask: Makes the call; with whatever the app passed.
        raw: The package's own answer, or its stream, once there is one.
        chunks: The package's own chunks that were not read yet, each with the message
            made of it, by the message's `id()`.
    """

    model_name: str
    ask: Any
    raw: list[Any] = []  # noqa: RUF012 - pydantic copies it
    chunks: dict[int, Any] = {}  # noqa: RUF012 - pydantic copies it

    @property
    @override
    def _llm_type(self) -> str:
        return "openai"

    def own_chunk(self, message: BaseMessage) -> ChatCompletionChunk | None:
        """Return the chunk that a message was made of; None for another model's."""
        own: ChatCompletionChunk | None = self.chunks.pop(id(message), (None, None))[1]
        return own

    def _read(self, chunk: ChatCompletionChunk) -> ChatGenerationChunk:
        try:
            read = _reader()._convert_chunk_to_generation_chunk(  # noqa: SLF001 - see above
                chunk.model_dump(), AIMessageChunk, None
            )
        except Exception as error:  # noqa: BLE001 - the app perhaps can read it
            logger.info("a chunk that cannot be read (%s)", type(error).__name__)
            read = None
        read = read or ChatGenerationChunk(message=AIMessageChunk(content=""))
        self.chunks[id(read.message)] = read.message, chunk
        return read

    @override
    def _generate(
        self, messages: Any, stop: Any = None, *_: Any, **__: Any
    ) -> ChatResult:
        self.raw.append(self.ask())
        return _reader()._create_chat_result(self.raw[-1])  # noqa: SLF001 - see above

    @override
    async def _agenerate(
        self, messages: Any, stop: Any = None, *_: Any, **__: Any
    ) -> ChatResult:
        self.raw.append(await self.ask())
        return _reader()._create_chat_result(self.raw[-1])  # noqa: SLF001 - see above

    @override
    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        with self.ask() as chunks:
            self.raw.append(chunks)
            for chunk in chunks:
                yield self._read(chunk)

    @override
    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with await self.ask() as chunks:
            self.raw.append(chunks)
            async for chunk in chunks:
                yield self._read(chunk)


@cache
def _reader() -> ChatOpenAI:
    return ChatOpenAI(model="none", api_key="none")


def _hooked_create(original: Method) -> Method:
    @wraps(original)
    def create(self: Completions, **given: Any) -> Any:
        if not _is_reached(given):
            return original(self, **given)
        given = _kept(given)
        asked = _asked(partial(original, self, **given), given)
        if asked is None:
            return original(self, **given)
        model, messages, options = asked
        if given.get("stream"):
            writer = _Writer(model, counted=_is_counted(given))
            return _Stream(model.stream(messages, UNSEEN, **options), writer)
        try:
            answer = model.invoke(messages, UNSEEN, **options)
        except Exception:
            if not model.raw:
                raise
            return model.raw[-1]  # LangChain cannot read it; the app perhaps can
        return model.raw[-1] if model.raw else _completion(answer)

    return create


def _hooked_acreate(original: Method) -> Method:
    @wraps(original)
    async def create(self: AsyncCompletions, **given: Any) -> Any:
        if not _is_reached(given):
            return await original(self, **given)
        given = _kept(given)
        asked = _asked(partial(original, self, **given), given)
        if asked is None:
            return await original(self, **given)
        model, messages, options = asked
        if given.get("stream"):
            writer = _Writer(model, counted=_is_counted(given))
            coming = model.astream(messages, UNSEEN, **options)
            return await _AsyncStream(coming, writer).begun()
        try:
            answer = await model.ainvoke(messages, UNSEEN, **options)
        except Exception:
            if not model.raw:
                raise
            return model.raw[-1]  # LangChain cannot read it; the app perhaps can
        return model.raw[-1] if model.raw else _completion(answer)

    return create


OPENAI_SDK = Patching(
    {
        (Completions, "create"): _hooked_create,
        (AsyncCompletions, "create"): _hooked_acreate,
    }
)


def _is_reached(given: Mapping[str, Any]) -> bool:
    scope = SCOPE.get()
    if scope is None or "openai_sdk" not in scope.hooks:
        return False
    headers = given.get("extra_headers") or {}
    helped = any(name.lower().startswith("x-stainless") for name in headers)
    return not (
        helped
        or (given.get("n") or 1) != 1
        or any(given.get(name) for name in dialect.PINNING)
    )


def _kept(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that can be read more than once; the package takes iterators."""
    return {k: list(v) if isinstance(v, Iterator) else v for k, v in given.items()}


def _asked(
    ask: Method, given: Mapping[str, Any]
) -> tuple[SDKModel, list[BaseMessage], dict[str, Any]] | None:
    """Return a raw call as one of a chat model; None for one that must stay raw."""
    try:
        name, told = str(given["model"]), given["messages"]
        messages = convert_to_messages([_plain(each) for each in told])
    except Exception as error:  # noqa: BLE001 - newer than LangChain, or wrong: the package says so itself
        logger.info("a raw call stays as it is (%s)", type(error).__name__)
        return None
    body = given.get("extra_body")
    stated = {**body, **given} if isinstance(body, Mapping) else given
    options = {
        name: value
        for name, value in stated.items()
        # The package's marks of an argument that is not given are no JSON values.
        if name not in _NO_OPTIONS and _is_given(value)
    }
    # What the app did not ask for stays away: LangChain's cache, its forms of content.
    model = SDKModel(model_name=name, ask=ask, cache=False, output_version="v0")
    return model, [_told(message) for message in messages], options


def _remember(told: Any, calls: Iterable[str | None]) -> None:
    """Keep who made tool calls: the package's messages cannot say it."""
    with _lock:
        for call in calls:
            if told and call:
                _callers[call] = told
        while len(_callers) > MOST_REMEMBERED:
            _callers.popitem(last=False)


def _told(message: BaseMessage) -> BaseMessage:
    """Return a message of the app's with who said it, where that is remembered."""
    calls = getattr(message, "tool_calls", ())
    told = _callers.get(calls[0]["id"]) if calls else None
    if told is not None:
        message.response_metadata[dialect.METADATA_KEY] = told
    return message


def _plain(message: Any) -> Any:
    """Return a message as a dict; apps put the package's answers back as they came."""
    dump = getattr(message, "model_dump", None)
    plain = dump(exclude_none=True) if dump else message
    # Only LangChain insists on it: messages that call tools often have none.
    return {"content": "", **plain} if isinstance(plain, Mapping) else plain


def _is_given(value: object) -> bool:
    return value is not None and type(value).__module__ != "openai._types"


def _is_counted(given: Mapping[str, Any]) -> bool:
    options = given.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def _finish(reason: str | None, *, calls: bool) -> str:
    """Return why an answer ended, in one of the package's words."""
    reason = (reason or "").lower()
    if reason in TRUNCATED:
        return "length"
    if reason in FILTERED:
        return "content_filter"
    return "tool_calls" if calls else "stop"


def _completion(message: AIMessage) -> ChatCompletion:
    about = message.response_metadata.get(dialect.METADATA_KEY)
    _remember(about, [call["id"] for call in message.tool_calls])
    answer = dialect.answer_of(message)
    reason = _finish(answer.finish_reason, calls="tool_calls" in answer.message)
    body: dict[str, Any] = {
        "id": message.id or "",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": _model_of(message),
        "choices": [{"index": 0, "finish_reason": reason, "message": answer.message}],
    }
    return ChatCompletion.model_validate({**body, "usage": _usage(message)})


def _usage(message: BaseMessage) -> dict[str, int] | None:
    usage = dialect.usage_of(message)
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _model_of(message: BaseMessage) -> str:
    about = message.response_metadata
    told = about.get(dialect.METADATA_KEY) or {}
    return str(told.get("model") or about.get("model_name") or "")


class _Writer:
    """Writes a stream in the package's own type; the app's own model's as it came."""

    def __init__(self, model: SDKModel, *, counted: bool) -> None:
        self.model = model
        self._counted = counted
        self._is_begun = False
        self._about: dict[str, Any] = {}  # who answers; it comes with any chunk
        self._calls: list[str | None] = []

    def chunks(self, chunk: BaseMessage) -> list[ChatCompletionChunk]:
        """Return a chunk in the package's type; nothing for one that says nothing."""
        own = self.model.own_chunk(chunk)
        return [own] if own is not None else self._written(chunk)

    def _written(self, chunk: BaseMessage) -> list[ChatCompletionChunk]:
        pieces = getattr(chunk, "tool_call_chunks", ())
        self._about |= chunk.response_metadata.get(dialect.METADATA_KEY) or {}
        self._calls += [piece["id"] for piece in pieces]
        _remember(self._about, self._calls)
        reason = dialect.finish_reason(chunk.response_metadata)
        usage = _usage(chunk) if self._counted else None
        says = bool(chunk.text or pieces or reason)
        if not says and usage is None:
            return []
        delta = self._delta(str(chunk.text), pieces)
        finish = _finish(reason, calls=bool(self._calls)) if reason else None
        # As the API ends a stream whose tokens are asked for.
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if says else []
        body = {
            "id": chunk.id or "",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": _model_of(chunk) or self.model.model_name,
            "choices": choices,
            "usage": usage,
        }
        return [ChatCompletionChunk.model_validate(body)]

    def _delta(self, text: str, pieces: Sequence[Any]) -> dict[str, Any]:
        # The role comes once: who adds chunks up adds up texts.
        delta: dict[str, Any] = {} if self._is_begun else {"role": "assistant"}
        self._is_begun = True
        delta["content"] = text
        if pieces:
            delta["tool_calls"] = [_piece(piece) for piece in pieces]
        return delta


def _piece(piece: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": piece["index"] or 0,
        "id": piece["id"],
        "type": "function",
        "function": {"name": piece["name"], "arguments": piece["args"]},
    }


def _response_of(model: SDKModel) -> Any:
    if model.raw:
        return model.raw[-1].response
    msg = "the stream of a bound model has no HTTP response of the app's own client"
    raise AttributeError(msg)


class _Stream(Stream[ChatCompletionChunk]):
    """A stream of the package, of what a chat model says."""

    def __init__(self, chunks: Iterator[BaseMessage], writer: _Writer) -> None:
        self._chunks, self._writer = chunks, writer
        first = list(islice(chunks, 1))  # what fails fails here, as the package's own
        self._iterator = self._written(first)

    def _written(self, first: list[BaseMessage]) -> Iterator[ChatCompletionChunk]:
        for chunk in chain(first, self._chunks):
            yield from self._writer.chunks(chunk)

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute of theirs
        return _response_of(self._writer.model)

    @override
    def close(self) -> None:
        if (close := getattr(self._chunks, "close", None)) is not None:
            close()


class _AsyncStream(AsyncStream[ChatCompletionChunk]):
    """An asynchronous stream of the package, of what a chat model says."""

    def __init__(self, chunks: AsyncIterator[BaseMessage], writer: _Writer) -> None:
        self._chunks, self._writer = chunks, writer

    async def begun(self) -> Self:
        first = await anext(self._chunks, None)
        self._iterator = self._written([] if first is None else [first])
        return self

    async def _written(
        self, first: list[BaseMessage]
    ) -> AsyncIterator[ChatCompletionChunk]:
        for chunk in first:
            for written in self._writer.chunks(chunk):
                yield written
        async for chunk in self._chunks:
            for written in self._writer.chunks(chunk):
                yield written

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute of theirs
        return _response_of(self._writer.model)

    @override
    async def close(self) -> None:
        if (close := getattr(self._chunks, "aclose", None)) is not None:
            await close()
