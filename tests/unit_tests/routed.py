"""Asking a route in each of its four modes, for the tests of the cascade."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import reduce
from operator import add
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from unit_tests.fake_chat import FakeChat

from langchain_slm.routing.asking import Ask
from langchain_slm.routing.dialect import METADATA_KEY
from langchain_slm.routing.policy import EscalateOnInvalid, Policy
from langchain_slm.routing.route import Route

MODES = ("generate", "agenerate", "stream", "astream")
STREAMS = ("stream", "astream")
BOOK_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
    "required": ["city"],
}
BOOK = {
    "type": "function",
    "function": {"name": "book", "description": "Book.", "parameters": BOOK_SCHEMA},
}
CONFIG = {"callbacks": None, "tags": None, "metadata": {}, "run_name": None}


class Scripted(FakeChat):
    """Streams its script: messages of chunks, or an exception to raise there."""

    script: list[Any] = []  # noqa: RUF012 - pydantic copies it

    def _chunks(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        self.options.append(kwargs)
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            chunk = AIMessageChunk(step) if isinstance(step, str) else step
            yield ChatGenerationChunk(message=chunk.model_copy(deep=True))


def ended(finish: str | None = "stop", **more: Any) -> AIMessageChunk:
    """The last chunk of a stream."""
    metadata = {} if finish is None else {"finish_reason": finish}
    return AIMessageChunk("", response_metadata=metadata, **more)


def fake(reply: Any = "small", name: str = "slm", **settings: Any) -> FakeChat:
    """A model that says, returns or raises `reply`."""

    def answer(messages: list[BaseMessage]) -> Any:
        if isinstance(reply, Exception):
            raise reply
        return reply(messages) if callable(reply) else reply

    return FakeChat(model_name=name, reply=answer, **settings)


def route_to(
    target: BaseChatModel, policy: Policy | None = None, **settings: Any
) -> Route:
    return Route(
        site=settings.pop("site", "node"),
        target=target,
        name=settings.pop("name", "slm"),
        rule="proven",
        policy=policy or EscalateOnInvalid(),
        **settings,
    )


def ask_of(
    source: BaseChatModel | None = None,
    *messages: BaseMessage,
    config: dict[str, Any] | None = None,
    stop: list[str] | None = None,
    **options: Any,
) -> Ask:
    return Ask(
        source=source or fake("large", "ref"),
        messages=list(messages) or [HumanMessage("Where to?")],
        stop=stop,
        config={**CONFIG, "run_id": None, **(config or {})},
        options=options,
    )


def original(ask: Ask) -> LLMResult:
    return ask.source.generate([ask.messages], ask.stop, **ask.config, **ask.options)


async def aoriginal(ask: Ask) -> LLMResult:
    return await ask.source.agenerate(
        [ask.messages], ask.stop, **ask.config, **ask.options
    )


def _stream_arguments(ask: Ask) -> dict[str, Any]:
    config = {key: value for key, value in ask.config.items() if value is not None}
    return {"config": config, "stop": ask.stop, **ask.options}


def original_stream(ask: Ask) -> Iterator[BaseMessage]:
    return ask.source.stream(ask.messages, **_stream_arguments(ask))


def original_astream(ask: Ask) -> AsyncIterator[BaseMessage]:
    return ask.source.astream(ask.messages, **_stream_arguments(ask))


def chunks_of(mode: str, route: Route, ask: Ask) -> list[Any]:
    """What the app receives: the chunks of a stream, or one message."""
    if mode == "generate":
        return [route.generate(ask, original).generations[0][0].message]
    if mode == "agenerate":
        result = asyncio.run(route.agenerate(ask, aoriginal))
        return [result.generations[0][0].message]
    if mode == "stream":
        return list(route.stream(ask, original_stream))

    async def collect() -> list[Any]:
        return [chunk async for chunk in route.astream(ask, original_astream)]

    return asyncio.run(collect())


def answer(mode: str, route: Route, ask: Ask | None = None) -> AIMessage:
    """What the app makes of it, adding chunks as LangChain does, one by one."""
    return reduce(add, chunks_of(mode, route, ask or ask_of()))


def about(message: BaseMessage) -> dict[str, Any]:
    """What the message says of who answered."""
    told: dict[str, Any] = message.response_metadata[METADATA_KEY]
    return told


def calling(name: str = "book", **arguments: Any) -> AIMessage:
    """A message that calls a tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "call_0"}])
