"""One budget of HTTP calls through every layer that repeats a call."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from itertools import count
from typing import Any, TypedDict

import openai
import pytest
import pytest_asyncio
from integration_tests.clients import close_clients
from integration_tests.faults import (
    FAULTS,
    GOOD,
    HEALTHY,
    KEY,
    TEXT,
    FaultyEndpoint,
)
from integration_tests.misbehaving import Misbehaving
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from langchain_slm.errors import SLMError
from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.limits import Limits

# LangChain's clients are shared, and keep their connections in the loop of the first.
pytestmark = pytest.mark.asyncio(loop_scope="module")
Model = Runnable[Any, Any]
MODES = ("invoke", "ainvoke", "stream", "astream")
# Refused at once for ever; the last asks for longer and longer waits.
BUSY = ("429_zero", "503")
TYPED = (SLMError, openai.OpenAIError)
_numbers = count()


class State(TypedDict, total=False):
    question: str
    answers: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint():
    with FaultyEndpoint() as endpoint:
        yield endpoint
        await close_clients(router(endpoint, HEALTHY).default)


def question() -> str:
    return f"question {next(_numbers)}"


def router(endpoint: Misbehaving, fault: str) -> ChatRouter:
    """A bound model and a reference, both with retries of their own."""
    url = endpoint.url.replace("/v1", "/of-layers/v1")  # no other test's clients
    settings = {"base_url": url, "api_key": KEY, "max_retries": 2}
    return ChatRouter(
        default=ChatOpenAI(model=fault, **settings),
        plan={"desk": ChatOpenAI(model=fault, **settings)},
        site="desk",
        limits=Limits(deadline_s=30.0),
    )


def retried(model: Model) -> Model:
    return model.with_retry(wait_exponential_jitter=False, stop_after_attempt=3)


def prompted(model: Model) -> Model:
    return ChatPromptTemplate.from_messages([("user", "{question}")]) | model


# What an app puts around its model, given how to make one.
LAYERS: dict[str, Callable[[Callable[[], Model]], Model]] = {
    "nothing": lambda made: made(),
    "retry": lambda made: retried(made()),
    "fallback": lambda made: made().with_fallbacks([made()]),
    "retry_of_fallback": lambda made: retried(made().with_fallbacks([made()])),
    "fallback_of_retries": lambda made: retried(made()).with_fallbacks([retried(made())]),
    "retry_of_retry": lambda made: retried(retried(made())),
    "retry_of_chain": lambda made: retried(prompted(made())),
}


async def asked(model: Model, mode: str, question: Any) -> str:
    if mode == "invoke":
        return (await asyncio.to_thread(model.invoke, question)).text
    if mode == "ainvoke":
        return (await model.ainvoke(question)).text
    if mode == "stream":
        chunks = await asyncio.to_thread(lambda: [*model.stream(question)])
        return "".join(chunk.text for chunk in chunks)
    return "".join([chunk.text async for chunk in model.astream(question)])


def graph_of(model: Model, mode: str, *, of_chain: bool = False) -> Runnable[Any, Any]:
    """One node, which LangGraph runs up to three times."""

    def given(state: State) -> Any:
        return {"question": state["question"]} if of_chain else state["question"]

    def answer(state: State) -> State:
        if mode == "invoke":
            return {"answers": [model.invoke(given(state)).text]}
        with closing(model.stream(given(state))) as chunks:
            return {"answers": ["".join(chunk.text for chunk in chunks)]}

    async def aanswer(state: State) -> State:
        return {"answers": [await asked(model, mode, given(state))]}

    policy = RetryPolicy(
        initial_interval=0.001, jitter=False, max_attempts=3, retry_on=Exception
    )
    graph = StateGraph(State)
    graph.add_node(
        "answer", aanswer if mode.startswith("a") else answer, retry_policy=policy
    )
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


async def run(graph: Runnable[Any, Any], mode: str, question: str) -> list[str]:
    state = {"question": question}
    if mode.startswith("a"):
        return (await graph.ainvoke(state))["answers"]
    return (await asyncio.to_thread(graph.invoke, state))["answers"]


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("fault", BUSY)
@pytest.mark.parametrize("mode", MODES)
async def test_a_node_makes_four_http_calls_whatever_repeats_it(
    endpoint, mode, fault, layers
):
    model = LAYERS[layers](lambda: router(endpoint, fault))
    graph = graph_of(model, mode, of_chain=layers.endswith("chain"))
    words = question()
    with pytest.raises(TYPED):
        await run(graph, mode, words)
    assert endpoint.requests_of(words) == 4


@pytest.mark.parametrize("layers", ["nothing", "retry", "fallback"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_layer_outside_of_graphs_adds_none(endpoint, mode, layers):
    model = LAYERS[layers](lambda: router(endpoint, "429_zero"))
    words = question()
    with pytest.raises(TYPED):
        await asked(model, mode, words)
    assert endpoint.requests_of(words) == 4


async def test_a_server_error_is_repeated_no_more_often_than_a_busy_one(endpoint):
    words = question()
    graph = graph_of(retried(router(endpoint, "500")), "ainvoke")
    with pytest.raises(TYPED):
        await run(graph, "ainvoke", words)
    assert endpoint.requests_of(words) == 4


@pytest.mark.parametrize("mode", MODES)
async def test_the_next_request_has_a_budget_of_its_own(endpoint, mode):
    words = question()
    model = router(endpoint, "429_zero")
    graph = graph_of(model, mode)
    for _ in range(2):
        with pytest.raises(TYPED):
            await run(graph, mode, words)
        with pytest.raises(TYPED):
            await asked(model, mode, words)
    assert endpoint.requests_of(words) == 16


@pytest.mark.parametrize("mode", MODES)
async def test_the_same_question_may_be_asked_again_after_an_answer(endpoint, mode):
    words = question()
    model = router(endpoint, HEALTHY)

    async def ask_seven_times(state: State) -> State:
        return {"answers": [await asked(model, mode, words) for _ in range(7)]}

    graph = StateGraph(State).add_node(ask_seven_times)
    graph.add_edge(START, "ask_seven_times")
    state = await graph.compile().ainvoke({})
    assert state["answers"] == [TEXT] * 7
    assert endpoint.requests_of(words) == 7


@pytest.mark.parametrize("mode", MODES)
async def test_equal_questions_at_the_same_time_do_not_share_a_budget(mode):
    def busy_at_first(number: int, body: dict[str, Any]):
        fault = FAULTS["429_zero"] if number <= 5 else GOOD
        return fault.stream if body.get("stream") else fault.whole

    with Misbehaving(busy_at_first) as endpoint:
        model = router(endpoint, "small")

        async def ask_five(state: State) -> State:
            calls = (asked(model, mode, state["question"]) for _ in range(5))
            return {"answers": [*await asyncio.gather(*calls)]}

        graph = StateGraph(State).add_node(ask_five).add_edge(START, "ask_five")
        state = await graph.compile().ainvoke({"question": question()})
        await close_clients(model.default)
    assert state["answers"] == [TEXT] * 5
    assert len(endpoint.asked) == 10
