"""Models that refuse, hang and never end, for the tests of what a request may use."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import reduce
from operator import add
from types import SimpleNamespace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field
from unit_tests.fake_chat import FakeChat

from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.counters import Decided
from langchain_slm.routing.limits import Limits
from langchain_slm.routing.router import Router

QUESTION = "Where to?"


class Refusal(Exception):  # noqa: N818 - as a provider's client names its own
    """A status of an endpoint; by default it says to come back at once."""

    def __init__(self, status: int, retry_after: str | None = "0") -> None:
        super().__init__(f"refused with {status}")
        self.status_code = status
        told = {} if retry_after is None else {"retry-after": retry_after}
        self.response = SimpleNamespace(headers=told)


class APIConnectionError(Exception):
    """As the client of OpenAI calls a connection that broke."""

    def __init__(self) -> None:
        super().__init__("gone")
        self.response = SimpleNamespace(headers={"retry-after": "0"})


def in_turn(*steps: Any) -> Callable[[list[BaseMessage]], Any]:
    """Return a reply that says or raises each step once, and the last for ever."""
    left = list(steps)

    def reply(_: list[BaseMessage]) -> Any:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, Exception):
            raise step
        return step(_) if callable(step) else step

    return reply


class Retrying(FakeChat):
    """A model whose client repeats by itself, as the app has set it."""

    max_retries: int = 2


class Hanging(FakeChat):
    """Answers once `released`; until then it hangs, from its first chunk on."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    released: threading.Event = Field(default_factory=threading.Event)
    entered: threading.Event = Field(default_factory=threading.Event)

    async def begun(self) -> None:
        """Wait until it was asked."""
        await asyncio.to_thread(self.entered.wait, 30)

    def _hang(self) -> None:
        self.entered.set()
        self.released.wait(30)

    async def _ahang(self) -> None:
        self.entered.set()
        while not self.released.is_set():  # noqa: ASYNC110 - threads set it, too
            await asyncio.sleep(0.001)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self._hang()
        return super()._generate(*args, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        await self._ahang()
        return FakeChat._generate(self, messages, stop, None, **kwargs)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self._hang()
        yield from super()._stream(*args, **kwargs)

    async def _astream(
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        await self._ahang()
        async for chunk in super()._astream(*args, **kwargs):
            yield chunk


class Endless(FakeChat):
    """Streams the same chunk for ever."""

    chunk: str = "a "

    def _chunks(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        while True:
            yield ChatGenerationChunk(message=AIMessageChunk(self.chunk))


class Clock:
    """A clock that only those who sleep by it move on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Told(list[Decided]):
    """A listener that keeps what it is told."""

    def __call__(self, decided: Decided) -> None:
        self.append(decided)


def routed(
    bound: Any, reference: Any, limits: Limits | None = None, **settings: Any
) -> ChatRouter:
    """Return a router with `bound` at the site "node", none where it is None."""
    plan = {} if bound is None else {"node": bound}
    router = Router(plan, limits=limits, **settings)
    return ChatRouter(default=reference, router=router, site="node")


def said(mode: str, chat: ChatRouter, question: Any = QUESTION) -> AIMessage:
    """What the app gets of a router when it calls it in one of the four ways."""
    if mode == "generate":
        return chat.invoke(question)
    if mode == "agenerate":
        return asyncio.run(chat.ainvoke(question))
    if mode == "stream":
        return reduce(add, chat.stream(question))

    async def collect() -> list[AIMessageChunk]:
        return [chunk async for chunk in chat.astream(question)]

    return reduce(add, asyncio.run(collect()))
