"""Every fault of an endpoint, however it is asked, with and without a fallback.

The cases run beside each other, as most of their time is waiting; each test looks at
what became of its own.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise, product
from math import isfinite
from operator import add
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest
import requests
from integration_tests.clients import close_clients
from integration_tests.faults import (
    FAULTS,
    GOOD,
    GOOD_TOOLS,
    HEALTHY,
    KEY,
    TEXT,
    TOOL,
    FaultyEndpoint,
    refusing,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI

from langchain_slm.errors import BrokenStreamError, SLMError
from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.limits import Limits

# ChatNVIDIA leaves the closing of connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning",
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning",
)
MODES = ("invoke", "ainvoke", "stream", "astream")
REFUSED = "connection_refused"
# One of each kind, and what only the other client falls for.
WITH_NVIDIA = (
    *("html_200", "empty_body", "null_body", "no_choices", "null_choices", "no_finish"),
    *("null_message", "error_in_200", "nim_error_in_200", "not_json", "not_json_later"),
    *("cut_json", "deeply_nested", "finish_length", "finish_content_filter"),
    *("number_as_text", "usage_nan", "usage_of_strings", "tool_json_malformed"),
    *("tool_unknown", "tool_json_null", "truncated", "reset_in_chunk", "error_event"),
    *("bad_chunk_size", "silence", "silence_in_answer", "drip_body", "endless_body"),
    *("endless_continue", "endless_comments", "closed_at_once", "closed_in_headers"),
    *("no_http", "length_too_short", "length_too_long", "gzip_garbage", "202_accepted"),
    *("204_no_content", "307_elsewhere", "308_in_circles", "400", "401", "404"),
    *("500", "500_not_json", "500_null", "502_html", "429", "429_huge", REFUSED),
)
# About a second; where the bound model may stall for half of it and the reference has
# to answer in the rest, enough of it for a busy machine.
DEADLINE_S = 1.0
DEADLINE_WITH_FALLBACK_S = 4.0
WATCHDOG_S = 30.0  # what is not over by then hangs
TOGETHER = 12
TYPED = (SLMError, openai.OpenAIError, requests.RequestException, aiohttp.ClientError)


class Case(NamedTuple):
    """One call of a router; its name is also its question."""

    provider: str
    fault: str
    mode: str
    fallback: bool

    @property
    def name(self) -> str:
        behind = "fallback" if self.fallback else "alone"
        return f"{self.provider}-{self.fault}-{self.mode}-{behind}"

    @property
    def counts_its_calls(self) -> bool:
        """Whether each attempt is one HTTP request: no redirect, no refusal before it."""
        return self.fault != REFUSED and not self.fault.startswith("30")


CASES = [
    *(Case("openai", *rest) for rest in product((*FAULTS, REFUSED), MODES, (0, 1))),
    *(Case("nvidia", *rest) for rest in product(WITH_NVIDIA, MODES, (0, 1))),
]


@dataclass
class Outcome:
    """What became of a case: the answer or its chunks, or an error, or nothing yet."""

    ended: bool = False
    error: BaseException | None = None
    messages: list[BaseMessage] = field(default_factory=list)

    @property
    def answer(self) -> AIMessage:
        answer = reduce(add, self.messages)
        assert isinstance(answer, AIMessage)
        return answer

    @property
    def shown(self) -> str:
        return "".join(str(message.text) for message in self.messages)


async def asked(model: Runnable[Any, Any], mode: str, question: str) -> Outcome:
    outcome = Outcome()

    def read() -> None:
        for message in model.stream(question):
            outcome.messages.append(message)

    async def call() -> None:
        if mode == "invoke":
            outcome.messages.append(await asyncio.to_thread(model.invoke, question))
        elif mode == "ainvoke":
            outcome.messages.append(await model.ainvoke(question))
        elif mode == "stream":
            await asyncio.to_thread(read)
        else:
            async for message in model.astream(question):
                outcome.messages.append(message)

    task = asyncio.ensure_future(call())
    await asyncio.wait([task], timeout=WATCHDOG_S)
    outcome.ended = task.done()
    if outcome.ended:
        outcome.error = task.exception()
    else:
        task.cancel()
    return outcome


@dataclass
class Site:
    """The endpoints, and a loop in which models are called."""

    endpoint: FaultyEndpoint
    closed: str
    loop: asyncio.AbstractEventLoop

    def model(self, provider: str, name: str, **settings: Any) -> BaseChatModel:
        host = self.closed if name == REFUSED else self.endpoint.url.split("/")[2]
        url = f"http://{host}/of-faults/v1"  # no other test's clients
        settings = {"base_url": url, "api_key": KEY, **settings}
        if provider == "nvidia":
            return ChatNVIDIA(model=name, **settings)
        return ChatOpenAI(model=name, **settings)  # and its retries are on

    def router(
        self, provider: str, fault: str, *, fallback: bool, deadline_s: float
    ) -> Runnable[Any, Any]:
        model = self.model(provider, fault)
        router = ChatRouter(
            default=self.model(provider, HEALTHY) if fallback else model,
            plan={"desk": model} if fallback else {},
            site="desk",
            limits=Limits(deadline_s=deadline_s),
            prices=dict.fromkeys((fault, HEALTHY), (1.0, 1.0)),
        )
        tools = fault in FAULTS and FAULTS[fault].tools
        return router.bind_tools([TOOL]) if tools else router

    def run(self, coming: Coroutine[Any, Any, Outcome]) -> Future[Outcome]:
        return asyncio.run_coroutine_threadsafe(coming, self.loop)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(100))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        # What hangs ends with its endpoint.
        with FaultyEndpoint() as endpoint, refusing() as closed:
            site = Site(endpoint, closed, loop)
            yield site
        for name in (HEALTHY, REFUSED):
            closing = close_clients(site.model("openai", name))
            asyncio.run_coroutine_threadsafe(closing, loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        gc.collect()  # here, not in the next test


@pytest.fixture(scope="module")
def outcomes(site: Site, request: pytest.FixtureRequest) -> dict[Case, Future[Outcome]]:
    """What becomes of the chosen cases, in the order of the tests."""
    room = asyncio.Semaphore(TOGETHER)

    async def run(case: Case) -> Outcome:
        async with room:
            deadline_s = DEADLINE_WITH_FALLBACK_S if case.fallback else DEADLINE_S
            router = site.router(
                case.provider, case.fault, fallback=case.fallback, deadline_s=deadline_s
            )
            return await asked(router, case.mode, case.name)

    chosen = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.path == request.path and "case" in item.callspec.params
    ]
    return {case: site.run(run(case)) for case in chosen}


def complaints(case: Case, outcome: Outcome, requests: int) -> Iterator[str]:
    """Say what must not be, whatever the fault."""
    if not outcome.ended:
        yield "it hangs"
    if requests > 4:
        yield f"{requests} HTTP requests for one call"
    if case.fallback and case.counts_its_calls and requests > 2:
        yield f"{requests} HTTP requests, though the bound model is asked once"
    if outcome.error is not None:
        yield from complaints_of_error(case, outcome, outcome.error)
    elif outcome.ended:
        yield from complaints_of_answer(case, outcome.answer, requests)


def complaints_of_error(
    case: Case, outcome: Outcome, error: BaseException
) -> Iterator[str]:
    if not isinstance(error, TYPED):
        yield f"an untyped {type(error).__name__}"
    if KEY in f"{error} {error!r} {error.__cause__} {error.__context__}":
        yield f"the key is in the {type(error).__name__}"
    if not TEXT.startswith(outcome.shown) and not case.fault.startswith("endless"):
        yield f"mixed text: {outcome.shown!r}"
    if outcome.shown and not isinstance(error, BrokenStreamError):
        yield f"{type(error).__name__} after text was shown"
    if case.fallback and not outcome.shown:
        yield f"{type(error).__name__} though a fallback was there"


def complaints_of_answer(case: Case, answer: AIMessage, requests: int) -> Iterator[str]:
    told = answer.response_metadata["langchain_slm"]
    fault = FAULTS.get(case.fault, GOOD)
    good = GOOD_TOOLS if fault.tools else GOOD
    read = legible(answer)
    finish = str(answer.response_metadata.get("finish_reason"))
    says_so = finish in ("length", "content_filter") and finish == fault.finish
    if read != (good.text, good.calls) and (
        read != (fault.text, fault.calls)
        or finish != fault.finish
        or (case.fallback and not (says_so and case.mode.endswith("stream")))
    ):
        yield f"not the right answer: {read}, {finish}"
    if case.fallback and told["escalated"] is not (told["model"] == HEALTHY):
        yield f"escalated: {told['escalated']}, but {told['model']} answered"
    if told["escalated"] and not told["reason"]:
        yield "escalated without a reason"
    if told["usd"] is not None and not (isfinite(told["usd"]) and told["usd"] >= 0):
        yield f"it cost {told['usd']}"
    # One more may have found its kept connection closed.
    if case.counts_its_calls and not requests <= told["attempts"] <= 4:
        yield f"{told['attempts']} attempts told, {requests} HTTP requests made"


def legible(answer: AIMessage) -> tuple[str, tuple[tuple[str, object], ...]]:
    """The text of an answer and its tool calls."""
    calls = tuple((call["name"], call["args"]) for call in answer.tool_calls)
    return str(answer.text), calls


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_ends_in_the_right_answer_or_a_typed_error(case, site, outcomes):
    outcome = outcomes[case].result()
    requests = site.endpoint.requests_of(case.name)
    assert "; ".join(complaints(case, outcome, requests)) == ""


def alone(site: Site, fault: str, mode: str, provider: str = "openai") -> Outcome:
    """Ask a faulty endpoint that has no other behind it, with time to spare."""
    router = site.router(provider, fault, fallback=False, deadline_s=60.0)
    return site.run(asked(router, mode, f"{fault} {mode} {provider}")).result()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fault", ["400", "401", "402", "403", "404", "404_html", "413", "422"]
)
def test_what_another_try_cannot_mend_is_asked_once(site, fault, mode):
    assert alone(site, fault, mode).error is not None
    assert site.endpoint.requests_of(f"{fault} {mode} openai") == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fault", "pause_s"),
    [("429_zero", 0.0), ("429_soon", 0.1), ("429_soon_ms", 0.1), ("503", 0.1)],
)
def test_a_busy_endpoint_is_asked_four_times_when_it_says(site, fault, pause_s, mode):
    error = alone(site, fault, mode).error
    assert isinstance(error, openai.APIStatusError)
    times_s = site.endpoint.times_of(f"{fault} {mode} openai")
    assert len(times_s) == 4
    assert all(later - earlier >= pause_s for earlier, later in pairwise(times_s))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["429_huge", "429_overflow", "429_date_far"])
def test_a_wait_beyond_the_deadline_is_not_begun(site, fault, mode):
    assert isinstance(alone(site, fault, mode).error, openai.RateLimitError)
    assert site.endpoint.requests_of(f"{fault} {mode} openai") == 1


@pytest.mark.parametrize("provider", ["openai", "nvidia"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["301_elsewhere", "302_elsewhere", "307_elsewhere"])
def test_no_redirect_is_sent_the_key(site, fault, mode, provider):
    headers = {"X-Api-Key": KEY}
    model = site.model(provider, fault, default_headers=headers)
    router = ChatRouter(default=model, plan={})
    site.run(asked(router, mode, f"{fault} {mode} {provider} with headers")).result()
    there = site.endpoint.elsewhere
    assert KEY not in str([there.heads, there.asked, there.paths])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fault", ["silence", "silence_in_answer", "drip_body", "endless_body"]
)
def test_the_connection_of_what_is_given_up_is_closed(site, fault, mode):
    router = site.router("openai", fault, fallback=False, deadline_s=0.2)
    question = f"{fault} {mode} given up"
    assert site.run(asked(router, mode, question)).result().error is not None
    until_s = time.monotonic() + 10.0
    while (left := site.endpoint.in_flight_of(question)) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert left == 0
