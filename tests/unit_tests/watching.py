"""A watcher that keeps what it learns, and graphs of one node."""

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from langchain_slm.rewriting.graphs import instrument
from langchain_slm.rewriting.scopes import Answered, Scope


class Watching:
    """Keeps every call, in order."""

    def __init__(self) -> None:
        self.calls: list[Answered] = []

    def watch(self, answered: Answered) -> None:
        self.calls.append(answered)

    def __iter__(self) -> Iterator[Answered]:
        return iter(self.calls)

    @property
    def sites(self) -> list[str]:
        return [call.site for call in self.calls]

    def on(self, graph: Any) -> Any:
        """Return a copy of `graph` that is watched."""
        return instrument(graph, Scope(watcher=self))


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


def one_node(node: Any, *, name: str = "node", **more: Any) -> StateGraph:
    """Return a graph that only runs `node`."""
    builder = StateGraph(State)
    builder.add_node(name, node, **more)
    builder.add_edge(START, name)
    return builder
