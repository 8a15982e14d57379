"""What the small apps have in common: each prompt says at which site it is asked."""

import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.messages import BaseMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict
from unit_tests.fake_chat import Reply

Function = Callable[..., Any]
_SITE = re.compile(r"\[([^\]]*)\]")


class State(TypedDict, total=False):
    text: str
    where: str
    log: Annotated[list[str], operator.add]


@dataclass
class App:
    """A graph that uses a feature, and what to run it on.

    Attributes:
        graph: Compiled.
        inputs: Given one after another to the same thread. A function makes one of the
            thread's state.
        context: The run-scoped context.
        raises: What its runs may fail with.
        reply: What its models say to messages; None for an echo.
    """

    graph: Any
    inputs: list[Any] = field(default_factory=lambda: [{"text": "hello"}])
    context: Any = None
    raises: tuple[type[Exception], ...] = ()
    reply: Reply | None = None


def at(site: str, text: object) -> str:
    """Return a prompt that says at which site it is asked."""
    return f"[{site}] {text}"


def site_of(messages: list[BaseMessage]) -> str:
    """Return the site that a prompt names."""
    found = _SITE.match(messages[0].text)
    assert found, messages
    return found[1]


def sync_node(steps: Function) -> Function:
    """Make a node of a generator that yields what to invoke: `(runnable, *arguments)`."""

    @functools.wraps(steps)
    def node(*args: Any, **kwargs: Any) -> Any:
        running = steps(*args, **kwargs)
        step = running.send
        got: Any = None
        try:
            while True:
                runnable, *asked = step(got)
                try:
                    step, got = running.send, runnable.invoke(*asked)
                except Exception as error:  # noqa: BLE001 - the node's own to handle
                    step, got = running.throw, error
        except StopIteration as done:
            return done.value

    return node


def async_node(steps: Function) -> Function:
    """Make the same node, which invokes asynchronously."""

    @functools.wraps(steps)
    async def node(*args: Any, **kwargs: Any) -> Any:
        running = steps(*args, **kwargs)
        step = running.send
        got: Any = None
        try:
            while True:
                runnable, *asked = step(got)
                try:
                    step, got = running.send, await runnable.ainvoke(*asked)
                except Exception as error:  # noqa: BLE001 - the node's own to handle
                    step, got = running.throw, error
        except StopIteration as done:
            return done.value

    return node


def asks(model: Any, site: str) -> Function:
    """Return the steps of a node that asks one model and logs what it says."""

    def steps(state: Mapping[str, Any]) -> Any:
        said = yield model, at(site, state["text"])
        return {"log": [said.text]}

    return steps


def one(node: Any, *, name: str = "node", schema: Any = State, **more: Any) -> StateGraph:
    """Return a graph that only runs `node`."""
    builder = StateGraph(schema)
    builder.add_node(name, node, **more)
    builder.add_edge(START, name)
    return builder


@tool
def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sunny in {city}"
