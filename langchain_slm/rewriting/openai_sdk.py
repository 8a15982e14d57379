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
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache, partial, wraps
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from typing_extensions import override

from langchain_slm.rewriting.patching import Method, Patching
from langchain_slm.rewriting.scopes import SCOPE
from langchain_slm.routing import dialect

logger = logging.getLogger(__name__)
# Arguments about the request, not the answer: they stay with the app's own client.
_OF_THE_CLIENT = (
    "extra_headers",
    "extra_query",
    "extra_body",
    "timeout",
    "stream",
    "stream_options",
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
        raw: The package's own answer, once there is one.
    """

    model_name: str
    ask: Any
    raw: list[Any] = []  # noqa: RUF012 - pydantic copies it

    @property
    @override
    def _llm_type(self) -> str:
        return "openai"

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
            for chunk in chunks:
                if (read := _read(chunk)) is not None:
                    yield read

    @override
    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with await self.ask() as chunks:
            async for chunk in chunks:
                if (read := _read(chunk)) is not None:
                    yield read


@cache
def _reader() -> ChatOpenAI:
    return ChatOpenAI(model="none", api_key="none")


def _read(chunk: ChatCompletionChunk) -> ChatGenerationChunk | None:
    reader = _reader()
    return reader._convert_chunk_to_generation_chunk(  # noqa: SLF001 - see above
        chunk.model_dump(), AIMessageChunk, None
    )


def _hooked_create(original: Method) -> Method:
    @wraps(original)
    def create(self: Completions, **given: Any) -> Any:
        asked = _asked(lambda: original(self, **given), given)
        if asked is None:
            return original(self, **given)
        model, messages, options = asked
        if given.get("stream"):
            chunks = model.stream(messages, UNSEEN, **options)
            return _Stream(chunks, model.model_name, counted=_is_counted(given))
        answer = model.invoke(messages, UNSEEN, **options)
        return model.raw[-1] if model.raw else _completion(answer)

    return create


def _hooked_acreate(original: Method) -> Method:
    @wraps(original)
    async def create(self: AsyncCompletions, **given: Any) -> Any:
        asked = _asked(lambda: original(self, **given), given)
        if asked is None:
            return await original(self, **given)
        model, messages, options = asked
        if given.get("stream"):
            coming = model.astream(messages, UNSEEN, **options)
            return _AsyncStream(coming, model.model_name, counted=_is_counted(given))
        answer = await model.ainvoke(messages, UNSEEN, **options)
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


def _asked(
    ask: Method, given: Mapping[str, Any]
) -> tuple[SDKModel, list[BaseMessage], dict[str, Any]] | None:
    """Return a raw call as one of a chat model; None for one that must stay raw."""
    if not _is_reached(given):
        return None
    try:
        messages = convert_to_messages([_plain(each) for each in given["messages"]])
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        # Newer than what LangChain knows, or wrong: the package says so itself.
        logger.info("a raw call stays as it is (%s)", type(error).__name__)
        return None
    options = {
        name: value
        for name, value in given.items()
        # The package's marks of an argument that is not given are no JSON values.
        if name not in ("messages", "model", *_OF_THE_CLIENT) and _is_given(value)
    }
    model = SDKModel(model_name=str(given["model"]), ask=ask, raw=[])
    return model, [_told(message) for message in messages], options


def _remember(message: BaseMessage) -> None:
    """Keep who called a tool: the package's messages cannot say it."""
    told = message.response_metadata.get(dialect.METADATA_KEY)
    calls = getattr(message, "tool_calls", ())
    with _lock:
        for call in calls if told else ():
            _callers[call["id"]] = told
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
    return dump(exclude_none=True) if dump else message


def _is_given(value: object) -> bool:
    return value is not None and type(value).__module__ != "openai._types"


def _is_counted(given: Mapping[str, Any]) -> bool:
    options = given.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def _completion(message: BaseMessage) -> ChatCompletion:
    _remember(message)
    answer = dialect.answer_of(message)
    calls = answer.message.get("tool_calls")
    reason = "tool_calls" if calls else answer.finish_reason or "stop"
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


def _chunks(chunk: BaseMessage, model: str, *, counted: bool) -> list[Any]:
    """Return a chunk in the package's own type; nothing for one that says nothing."""
    delta: dict[str, Any] = {"role": "assistant", "content": str(chunk.text)}
    pieces = getattr(chunk, "tool_call_chunks", ())
    if pieces:
        delta["tool_calls"] = [_piece(piece) for piece in pieces]
        _remember(chunk)
    reason = dialect.finish_reason(chunk.response_metadata)
    usage = _usage(chunk) if counted else None
    says = bool(chunk.text or pieces or reason)
    if not says and usage is None:
        return []
    # As the API ends a stream whose tokens are asked for.
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}] if says else []
    body = {
        "id": chunk.id or "",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": _model_of(chunk) or model,
        "choices": choices,
        "usage": usage,
    }
    return [ChatCompletionChunk.model_validate(body)]


def _piece(piece: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": piece["index"] or 0,
        "id": piece["id"],
        "type": "function",
        "function": {"name": piece["name"], "arguments": piece["args"]},
    }


class _Stream:
    """Chunks in the package's own type; read and closed as its `Stream` is."""

    def __init__(
        self, chunks: Iterator[BaseMessage], model: str, *, counted: bool
    ) -> None:
        self._chunks = chunks
        self._read = partial(_chunks, model=model, counted=counted)

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        for chunk in self._chunks:
            yield from self._read(chunk)

    def __next__(self) -> ChatCompletionChunk:
        return next(iter(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream."""
        if (close := getattr(self._chunks, "close", None)) is not None:
            close()


class _AsyncStream:
    """Chunks in the package's own type; read and closed as its `AsyncStream` is."""

    def __init__(
        self, chunks: AsyncIterator[BaseMessage], model: str, *, counted: bool
    ) -> None:
        self._chunks = chunks
        self._read = partial(_chunks, model=model, counted=counted)

    async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        async for chunk in self._chunks:
            for read in self._read(chunk):
                yield read

    async def __anext__(self) -> ChatCompletionChunk:
        return await anext(aiter(self))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the stream."""
        if (close := getattr(self._chunks, "aclose", None)) is not None:
            await close()
