"""What a way of holding a model is: a small app, and which models it calls where.

The apps read their keys and their endpoint from the environment, as real ones do. Each
prompt says its site, and each question a place that only its run asks about, so that an
endpoint can tell who asked.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph


def as_message(question: str) -> dict[str, Any]:
    """Return the input of a graph whose state is a conversation."""
    return {"messages": [HumanMessage(question)]}


@dataclass(frozen=True)
class Way:
    """An app.

    Attributes:
        graph: Compiled.
        calls: The models that it calls, by site.
        is_async: Whether it has no synchronous form.
        ask: Makes the graph's input of a question.
        config: Of each run.
        context: Of each run.
    """

    graph: Any
    calls: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"node": ("gpt-large",)}
    )
    is_async: bool = False
    ask: Callable[[str], Any] = as_message
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None


def at(site: str) -> str:
    """Return a system prompt that says where it is used."""
    return f"Site <{site}>. Be brief."


def prompt(state: MessagesState, site: str = "node") -> list[BaseMessage]:
    """Return what a node asks its model."""
    return [SystemMessage(at(site)), *state["messages"]]


def one_node(node: Any, **more: Any) -> Any:
    """Return a graph that runs `node` once."""
    builder = StateGraph(MessagesState, **more)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile()


def one_method(method: Any) -> Any:
    """Return a graph that runs a method of a Runnable: LangGraph dislikes its types."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return one_node(method)


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"
