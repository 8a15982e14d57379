"""Graphs whose nodes fail: handled, retried, stopped, or not at all."""

from collections import Counter
from typing import Any

from integration_tests.features.app import App, Function, State, asks, at, one
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.graph import START
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy

AT_ONCE = {"initial_interval": 0.0, "jitter": False}


def _fails(model: Any, site: str = "node") -> Function:
    def steps(state: State) -> Any:
        said = yield model, at(site, state["text"])
        raise KeyError(said.text)

    return steps


def error_handlers(model: Any, node: Function) -> App:
    """A node's own handler asks a model, and goes elsewhere."""

    def handler(state: State, error: NodeError) -> Any:
        said = yield model, at("__error_handler__node", f"{error.node} {error.error!r}")
        return Command(goto="after", update={"log": [said.text]})

    builder = one(node(_fails(model)), error_handler=node(handler))
    builder.add_node("after", node(asks(model, "after")))
    return App(builder.compile())


def handled_subgraphs(model: Any, node: Function) -> App:
    """The handler of a node that is a graph."""

    def handler(state: State, error: NodeError) -> Any:
        said = yield model, at("__error_handler__sub", error.node)
        return {"log": [said.text]}

    inner = one(node(_fails(model, "sub/inner")), name="inner").compile()
    return App(one(inner, name="sub", error_handler=node(handler)).compile())


def default_error_handlers(model: Any, node: Function) -> App:
    def handler(state: State, error: NodeError) -> Any:
        said = yield model, at("__default_error_handler__", error.node)
        return {"log": [said.text]}

    builder = one(node(_fails(model, "a")), name="a")
    builder.add_node("b", node(_fails(model, "b")))
    builder.add_edge(START, "b")
    return App(builder.set_node_defaults(error_handler=node(handler)).compile())


def retries(model: Any, node: Function) -> App:
    """A node asks again each time that it is retried, and gives up at last."""

    def steps(state: State, runtime: Runtime) -> Any:
        attempt = runtime.execution_info.node_attempt
        said = yield model, at("node", attempt)
        if attempt < 3:
            raise ConnectionError
        return {"log": [said.text]}

    def never(state: State, runtime: Runtime) -> Any:
        said = yield model, at("never", runtime.execution_info.node_attempt)
        raise ValueError(said.text)

    policies = [
        RetryPolicy(max_attempts=3, retry_on=ConnectionError, **AT_ONCE),
        RetryPolicy(max_attempts=2, retry_on=ValueError, **AT_ONCE),
    ]
    builder = one(node(steps), retry_policy=policies)
    builder.add_node("never", node(never))
    builder.add_edge("node", "never")
    graph = builder.set_node_defaults(retry_policy=policies[1]).compile()
    return App(graph, raises=(ValueError,))


def retried_subgraphs(model: Any, node: Function) -> App:
    """A node that is a graph is retried as a whole."""
    runs: Counter[str] = Counter()

    def flaky(state: State, config: RunnableConfig) -> Any:
        said = yield model, at("sub/flaky", state["text"])
        thread = config["configurable"]["thread_id"]
        runs[thread] += 1
        if runs[thread] % 3:
            raise ConnectionError
        return {"log": [said.text]}

    inner = one(node(asks(model, "sub/first")), name="first")
    inner.add_node("flaky", node(flaky))
    inner.add_edge("first", "flaky")
    policy = RetryPolicy(max_attempts=3, retry_on=ConnectionError, **AT_ONCE)
    return App(one(inner.compile(), name="sub", retry_policy=policy).compile())


def failures(model: Any, node: Function) -> App:
    """A run fails, and only what failed runs again when it goes on."""
    runs: Counter[str] = Counter()

    def fails_once(state: State, config: RunnableConfig) -> Any:
        said = yield model, at("fails", state["text"])
        thread = config["configurable"]["thread_id"]
        runs[thread] += 1
        if runs[thread] == 1:
            raise KeyError(said.text)
        return {"log": [said.text]}

    builder = one(node(asks(model, "works")), name="works")
    builder.add_node("fails", node(fails_once))
    builder.add_node("after", node(asks(model, "after")))
    builder.add_edge("works", "fails")
    builder.add_edge("fails", "after")
    graph = builder.compile(checkpointer=InMemorySaver())
    return App(graph, [{"text": "hello"}, None], raises=(KeyError,))
