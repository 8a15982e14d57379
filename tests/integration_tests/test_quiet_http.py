import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from threading import Event, Thread, current_thread
from typing import Any

import openai
import pytest
from integration_tests.faults import (
    CHUNKED,
    EVENTS,
    RIGHT,
    RIGHT_EVENTS,
    RIGHT_JSON,
    TEXT,
    answer,
    chunk,
    delta,
    endless,
    event,
    events,
    head,
    question_of,
)
from integration_tests.misbehaving import (
    Connection,
    Misbehaving,
    Raw,
    Reply,
    completion,
    refusal,
)
from langchain_core.language_models import BaseChatModel
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from langchain_slm.errors import DeadlineExceededError
from langchain_slm.routing.calling import call, iterate
from langchain_slm.routing.quiet import quiet

WATCHDOG_S = 30.0  # nothing here takes longer, unless it hangs
WAYS = ["invoke", "ainvoke", "stream", "astream"]
# The clients take it as their time to wait, in seconds.
HASTE = {"retry_after_ms": "1"}


def chat_openai(endpoint: Misbehaving, **settings: Any) -> BaseChatModel:
    return ChatOpenAI(
        model="any", base_url=endpoint.url, api_key="any", max_retries=2, **settings
    )


def responses(endpoint: Misbehaving, **settings: Any) -> BaseChatModel:
    return chat_openai(endpoint, use_responses_api=True, **settings)


def azure(endpoint: Misbehaving, **settings: Any) -> BaseChatModel:
    return AzureChatOpenAI(
        azure_endpoint=endpoint.url.removesuffix("/v1"),
        azure_deployment="any",
        api_version="2024-10-21",
        api_key="any",
        max_retries=2,
        **settings,
    )


def nvidia(endpoint: Misbehaving) -> BaseChatModel:
    return ChatNVIDIA(model="any", base_url=endpoint.url, api_key="any")


Make = Callable[..., BaseChatModel]


@asynccontextmanager
async def asking(make: Make, endpoint: Misbehaving) -> AsyncIterator[BaseChatModel]:
    """A model with connections of its own: by default all of a URL have the same ones.

    Another endpoint may get the port, and with it the URL, of one that has ended.
    """
    with openai.DefaultHttpxClient() as http:
        async with openai.DefaultAsyncHttpxClient() as ahttp:
            yield make(endpoint, http_client=http, http_async_client=ahttp)


async def calls(endpoint: Misbehaving, model: BaseChatModel, way: str) -> int:
    """Return how many HTTP calls one call of the model makes."""
    before = len(endpoint.asked)
    with suppress(openai.APIStatusError):
        match way:
            case "invoke":
                model.invoke("hello")
            case "ainvoke":
                await model.ainvoke("hello")
            case "stream":
                list(model.stream("hello"))
            case _:
                [chunk async for chunk in model.astream("hello")]
    return len(endpoint.asked) - before


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [chat_openai, responses, azure])
async def test_a_quiet_model_asks_once_and_the_original_as_before(
    make: Make, way: str, status: int
):
    refused = refusal(status, **HASTE)
    with Misbehaving(lambda number, body: refused) as endpoint:
        async with asking(make, endpoint) as model:
            made = quiet(model)
            assert await calls(endpoint, made, way) == 1
            assert await calls(endpoint, model, way) == 3
            assert await calls(endpoint, made, way) == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_quiet_model_uses_the_connections_of_the_original(way: str):
    refused = refusal(400)
    with Misbehaving(lambda number, body: refused) as endpoint:
        async with asking(chat_openai, endpoint) as model:
            for asked in (model, quiet(model), model, quiet(model)):
                assert await calls(endpoint, asked, way) == 1
            assert endpoint.connections == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_quiet_model_sends_what_the_original_sends(way: str):
    def make(endpoint: Misbehaving, **settings: Any) -> BaseChatModel:
        return ChatOpenAI(
            model="any",
            base_url=endpoint.url,
            api_key=lambda: "from-a-function",
            default_headers={"X-Team": "desk"},
            default_query={"tenant": "7"},
            extra_body={"top_k": 3},
            max_retries=1,
            **settings,
        )

    refused = refusal(500, **HASTE)
    with Misbehaving(lambda number, body: refused) as endpoint:
        async with asking(make, endpoint) as model:
            await calls(endpoint, model, way)
            await calls(endpoint, quiet(model), way)
        first, _, last = zip(endpoint.asked, endpoint.keys, endpoint.paths, strict=True)
        assert first == last
        assert endpoint.heads[2]["x-team"] == "desk"
        assert endpoint.keys[2] == "Bearer from-a-function"


def test_chat_nvidia_asks_once_by_itself():
    with Misbehaving(lambda number, body: refusal(500)) as endpoint:
        model = nvidia(endpoint)
        for ask in (model.invoke, quiet(model).invoke):
            before = len(endpoint.asked)
            with pytest.raises(Exception, match="500"):
                ask("hello")
            assert len(endpoint.asked) - before == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [chat_openai, responses, azure])
async def test_a_quiet_model_follows_no_redirect_and_the_original_does(
    make: Make, way: str
):
    def reply(number: int, body: dict[str, Any]) -> Reply:
        moved = Reply("", 307, {"Location": f"{endpoint.url}/moved"})
        return moved if number != 3 else refusal(400)

    with Misbehaving(reply) as endpoint:
        async with asking(make, endpoint) as model:
            assert await calls(endpoint, quiet(model), way) == 1
            assert await calls(endpoint, model, way) == 2
            assert await calls(endpoint, quiet(model), way) == 1


# Calls that are given up


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + WATCHDOG_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def in_time() -> float:
    """A deadline that is never reached."""
    return time.monotonic() + WATCHDOG_S


class Hanging:
    """An answer that never ends; knows whether it began, and when its reader left."""

    def __init__(self, body: bytes, *, drips: bool, lines: Sequence[str] = ()) -> None:
        self.body = body
        self.drips = drips
        self.lines = lines
        self.begun, self.left = Event(), Event()

    def __call__(self, number: int, body: dict[str, Any]) -> Raw:
        return Raw([head(CHUNKED, *self.lines, kind=EVENTS), self.body, self.hang])

    def hang(self, connection: Connection) -> None:
        try:
            self.begun.set()
            if self.drips:
                endless(self.body)(connection)
            connection.wait_until_left()
        finally:
            self.left.set()


class Call:
    """A call of a model in a worker that is left when the answer hangs."""

    def __init__(self, model: BaseChatModel, way: str) -> None:
        self.model = model
        self.way = way
        self.worker: Thread | None = None

    def __iter__(self) -> Iterator[object]:
        self.worker = current_thread()
        yield "begun"
        if self.way == "invoke":
            yield self.model.invoke("hello")
        else:
            yield from self.model.stream("hello")

    def leave_when(self, hangs: Event) -> None:
        calls = iterate(lambda: iter(self), in_time())
        next(calls)
        assert hangs.wait(WATCHDOG_S)
        time.sleep(0.02)  # the client reads the head, or does so after it is given up
        calls.close()

    def has_ended(self) -> bool:
        return self.worker is not None and not self.worker.is_alive()


NOTHING_YET = {"invoke": chunk(b" "), "stream": chunk(b": still here\n\n")}
BEGUN_YET = {
    "invoke": chunk(b'{"id": '),
    "stream": chunk(event(delta({"role": "assistant", "content": "far "}))),
}
CLOSES = "Connection: close"


@pytest.mark.parametrize("lines", [(), (CLOSES,)], ids=["kept", "for one answer"])
@pytest.mark.parametrize("drips", [False, True], ids=["silence", "drip"])
@pytest.mark.parametrize("body", [NOTHING_YET, BEGUN_YET], ids=["nothing", "begun"])
@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("make", [chat_openai, responses, nvidia])
def test_the_connection_of_a_call_that_is_given_up_is_closed(
    make: Make,
    way: str,
    body: dict[str, bytes],
    drips: bool,  # noqa: FBT001 - a parameter
    lines: Sequence[str],
):
    hanging = Hanging(body[way], drips=drips, lines=lines)
    with Misbehaving(hanging) as endpoint:
        left = Call(quiet(make(endpoint)), way)
        left.leave_when(hanging.begun)
        assert hanging.left.wait(WATCHDOG_S)
        until(left.has_ended)


@pytest.mark.parametrize("make", [chat_openai, nvidia])
def test_the_connection_of_a_late_call_is_closed(
    make: Make,
):
    hanging = Hanging(chunk(b" "), drips=True)
    with Misbehaving(hanging) as endpoint:
        model = quiet(make(endpoint))
        with pytest.raises(DeadlineExceededError):
            call(lambda: model.invoke("hello"), time.monotonic() + 1)
        assert hanging.left.wait(WATCHDOG_S)


def test_a_connection_that_was_given_back_is_not_shut_with_the_call():
    half, go_on, left = Event(), Event(), Event()

    def wait(connection: Connection) -> None:
        half.set()
        go_on.wait(WATCHDOG_S)

    def reply(number: int, body: dict[str, Any]) -> Raw:
        top = head(f"Content-Length: {len(RIGHT_JSON)}")
        steps = [top, RIGHT_JSON[:9], wait, RIGHT_JSON[9:]]
        return Raw(steps, keeps=True) if number == 2 else answer(RIGHT)

    def ask() -> str:
        return str(model.invoke("hello").content)

    def earlier() -> Iterator[str]:
        yield ask()
        left.wait(WATCHDOG_S)

    with Misbehaving(reply) as endpoint, ThreadPoolExecutor(1) as other:
        model = quiet(chat_openai(endpoint))
        first = iterate(earlier, in_time())
        assert next(first) == TEXT
        second = other.submit(call, ask, in_time())
        assert half.wait(WATCHDOG_S)
        first.close()  # while the other call uses the connection
        go_on.set()
        left.set()
        assert second.result(WATCHDOG_S) == TEXT
        assert call(ask, in_time()) == TEXT
        assert endpoint.connections == 1


def test_calls_of_the_original_outside_of_a_router_are_as_before():
    hanging = Hanging(BEGUN_YET["stream"], drips=True)
    replies = {"hang": hanging, "refuse": lambda *asked: refusal(500, **HASTE)}

    def reply(number: int, body: dict[str, Any]) -> Reply | Raw:
        asked = replies.get(question_of(body))
        return completion() if asked is None else asked(number, body)

    with Misbehaving(reply) as endpoint:
        model = chat_openai(endpoint)
        made = quiet(model)
        assert model.root_client._client is made.root_client._client
        chunks = model.stream("hang")
        assert next(chunks).content == "far "
        # A call of the same client that is given up meanwhile.
        with pytest.raises(DeadlineExceededError):
            call(lambda: made.invoke("hang"), time.monotonic() + 0.5)
        assert hanging.left.wait(WATCHDOG_S)
        hanging.left.clear()
        assert [next(chunks).content for _ in range(3)] == ["far "] * 3
        chunks.close()
        assert hanging.left.wait(WATCHDOG_S)
        before = len(endpoint.asked)
        with pytest.raises(openai.InternalServerError):
            model.invoke("refuse")
        assert len(endpoint.asked) - before == 3
        before = endpoint.connections
        assert {model.invoke("hello").content for _ in range(3)} == {"yes"}
        assert endpoint.connections == before


def test_a_shared_pool_is_not_stuck_after_many_calls_that_were_given_up():
    """Of fewer connections than callers: one that was lost would block the others."""
    draw = random.Random(7)  # noqa: S311 - no secret
    turns = [[draw.random() for _ in range(3)] for _ in range(320)]

    def reply(number: int, body: dict[str, Any]) -> Reply | Raw:
        if question_of(body) == "answer":
            return events(*RIGHT_EVENTS) if body.get("stream") else answer(RIGHT)
        way = "stream" if body.get("stream") else "invoke"
        return Hanging(NOTHING_YET[way], drips=True)(number, body)

    def ask(question: str, *, streamed: bool, deadline: float) -> str:
        if streamed:
            pieces = iterate(lambda: model.stream(question), deadline)
            return "".join(str(piece.content) for piece in pieces)
        return str(call(lambda: model.invoke(question), deadline).content)

    def make_a_call(turn: list[float]) -> None:
        question = "hang" if turn[0] < 0.5 else "answer"
        deadline = time.monotonic() + turn[2] / 10
        with suppress(DeadlineExceededError):
            assert ask(question, streamed=turn[1] < 0.5, deadline=deadline) == TEXT

    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=8)
    pool = openai.DefaultHttpxClient(limits=limits)
    with Misbehaving(reply) as endpoint, pool as http:
        model = quiet(chat_openai(endpoint, http_client=http))
        with ThreadPoolExecutor(16) as callers:
            list(callers.map(make_a_call, turns))
        for streamed in (False, True):
            assert ask("answer", streamed=streamed, deadline=in_time()) == TEXT
        until(lambda: not endpoint.in_flight)
