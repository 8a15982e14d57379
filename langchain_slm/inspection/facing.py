"""Whether a human reads what a model says at a site: a guess from the graph's shape.

It is a heuristic, and says why it thinks so:

- no: the model chooses an edge, answers inside a tool, fills a schema or must call a
  tool, or its node writes no message and other nodes follow it;
- yes: its node writes messages and may be the last one before the end, before a node
  that interrupts, or before a break (`interrupt_before`, `interrupt_after`), or the node
  asks a human itself (`interrupt`);
- unknown: anything else. A last node that writes another key may or may not be shown,
  and what an app does with a state, a stream or a recorded message is not in its graph.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, NamedTuple

from langgraph.channels.binop import BinaryOperatorAggregate
from langgraph.constants import END
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.inspection.findings import Holding
from langchain_slm.inspection.libraries import AGENT_MODULES
from langchain_slm.inspection.peeking import attribute
from langchain_slm.inspection.runnables import innermost, is_executor_twin, parts_of
from langchain_slm.inspection.sources import Sources
from langchain_slm.rewriting.sites import Graph, builder_of

Answer = Literal["yes", "no", "unknown"]
# Hooks of a middleware that run as nodes of their own.
HOOK_NODES = (".before_model", ".after_model", ".before_agent", ".after_agent")


class Facing(NamedTuple):
    """Whether a human reads what a site says, and why that is thought."""

    answer: Answer
    why: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where a node stands in its graph.

    Attributes:
        name: Of the node.
        keys: What its code writes into the state; None where that cannot be seen.
        messages: The keys that hold messages.
        may_end: Whether it may be the last node.
        stops: Why a human may look after it; None for no such reason.
        outer: The position of the graph's own node in the graph around; None outside.
    """

    name: str
    keys: frozenset[str] | None
    messages: frozenset[str]
    may_end: bool
    stops: str | None
    outer: Position | None = None

    @property
    def may_end_run(self) -> bool:
        """Whether it may be the last node of the whole run."""
        return self.may_end and (self.outer is None or self.outer.may_end_run)


def facing(position: Position, holding: Holding, branch: str | None = None) -> Facing:
    """Return whether a human reads what a model says."""
    inside = [each for each in holding.inner if "#" in each]
    if branch is not None or inside:
        return Facing("no", "it decides where to go next")
    if "tool" in holding.how:
        return Facing("no", "it answers inside a tool")
    if holding.options.response_format is not None:
        return Facing("no", f"it fills the schema {holding.options.response_format}")
    if holding.options.forced:
        return Facing("no", "it must call a tool")
    if position.name.endswith(HOOK_NODES):
        return Facing("no", "it is a middleware's own call")
    return _by_position(position, is_deeper=bool(holding.inner))


def _by_position(position: Position, *, is_deeper: bool) -> Facing:
    if position.stops is not None:
        return Facing("yes", position.stops)
    if is_deeper:
        return Facing("unknown", "its answer goes to the code of the node")
    if position.keys is None:
        return Facing("unknown", "what its node writes cannot be seen")
    if position.keys & position.messages:
        if position.may_end_run:
            return Facing("yes", "its node writes a message and may be the last")
        return Facing("unknown", "its node writes a message, and other nodes follow")
    written = ", ".join(sorted(position.keys)) or "nothing"
    return (
        Facing("unknown", f"its node may be the last, and writes {written}")
        if position.may_end_run
        else Facing("no", f"its node writes {written}, for the nodes that follow")
    )


def overall(found: Collection[Facing]) -> Facing:
    """Return the answer for a site with several models: a yes, else what is unknown."""
    for answer in ("yes", "unknown", "no"):
        for each in found:
            if each.answer == answer:
                return each
    return Facing("unknown", "nothing is known of its calls")


class Positions:
    """The positions of the nodes of one graph.

    Args:
        graph: The graph.
        sources: Where the code of its nodes is read.
        interrupting: Names of the nodes whose code asks a human.
        outer: The position of the graph's own node in the graph around.
    """

    def __init__(
        self,
        graph: Graph,
        sources: Sources,
        interrupting: Collection[str],
        outer: Position | None = None,
    ) -> None:
        self._builder = builder_of(graph)
        self._sources = sources
        self._interrupting = interrupting
        self._outer = outer
        self._before = _names(graph, "interrupt_before_nodes")
        self._after = _names(graph, "interrupt_after_nodes")
        self._messages = _message_keys(self._builder)

    def of(self, name: str, runnable: object) -> Position:
        """Return the position of a node."""
        followers = set(self._followers(name))
        return Position(
            name=name,
            keys=written_keys(runnable, self._sources),
            messages=self._messages,
            may_end=END in followers or not followers,
            stops=self._stops(name, followers),
            outer=self._outer,
        )

    def _followers(self, name: str) -> Iterator[str]:
        builder = self._builder
        if builder is None:
            return
        yield from (end for start, end in builder.edges if start == name)
        yield from (end for starts, end in builder.waiting_edges if name in starts)
        for branch in builder.branches.get(name, {}).values():
            yield from branch.ends.values() if branch.ends else (END, *builder.nodes)
        spec: Any = builder.nodes.get(name)
        ends: Collection[str] | Mapping[str, str] = getattr(spec, "ends", None) or ()
        yield from ends

    def _stops(self, name: str, followers: set[str]) -> str | None:
        if name in self._interrupting:
            return "its node asks a human (interrupt)"
        if "*" in self._after or name in self._after:
            return "the graph stops after its node (interrupt_after)"
        for follower in sorted(followers):
            if follower in self._interrupting:
                return "a node that follows asks a human (interrupt)"
            if follower != END and (follower in self._before or "*" in self._before):
                return "the graph stops before a node that follows (interrupt_before)"
        return None


def _names(graph: Graph, attribute_name: str) -> Collection[str]:
    found = attribute(graph, attribute_name)
    if isinstance(found, str):
        return (found,)
    return found if isinstance(found, list | tuple) else ()


def _message_keys(builder: StateGraph[Any, Any, Any, Any] | None) -> frozenset[str]:
    channels = builder.channels if builder is not None else {}
    return frozenset(
        name
        for name, channel in channels.items()
        if name == "messages" or _adds_messages(channel)
    )


def _adds_messages(channel: object) -> bool:
    if not isinstance(channel, BinaryOperatorAggregate):
        return False
    operator = attribute(channel, "operator")
    operator = (
        attribute(operator, "func") if type(operator).__name__ == "partial" else operator
    )
    return "add_messages" in str(attribute(operator, "__name__"))


def written_keys(runnable: object, sources: Sources) -> frozenset[str] | None:
    """Return what a node's code writes into the state; None where that is not plain."""
    if isinstance(runnable, Pregel):
        return None
    functions = list(_functions(runnable))
    if not functions:
        return None
    keys: set[str] = set()
    for function in functions:
        if function.__module__ in AGENT_MODULES:
            keys.add("messages")
            continue
        own = _returned_keys(function, sources)
        if own is None:
            return None
        keys |= own
    return frozenset(keys)


def _functions(runnable: object) -> Iterator[FunctionType]:
    parts = list(parts_of(runnable))
    if parts and parts[-1].how is not None:  # of a chain, the last step
        yield from _functions(parts[-1].what)
        return
    for part in parts or ():
        function = None if is_executor_twin(part.what) else innermost(part.what)
        if function is not None:
            yield function
    if not parts and isinstance(runnable, FunctionType):
        yield runnable


def _returned_keys(function: FunctionType, sources: Sources) -> set[str] | None:
    node = sources.function(function.__code__)
    if node is None:
        return None
    if isinstance(node, ast.Lambda):
        return _keys_of(node.body, {})
    assigned = {
        target.id: each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    keys: set[str] = set()
    for each in _own_statements(node):
        if isinstance(each, ast.Return) and each.value is not None:
            own = _keys_of(each.value, assigned)
            if own is None:
                return None
            keys |= own
    return keys


def _own_statements(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own_statements(child)


def _keys_of(node: ast.expr, assigned: Mapping[str, ast.expr]) -> set[str] | None:
    if isinstance(node, ast.Name) and node.id in assigned:
        return _keys_of(assigned[node.id], {})
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        return {str(key) for key in keys} if None not in keys else None
    if isinstance(node, ast.Call):
        given = {each.arg: each.value for each in node.keywords}
        name = ast.unparse(node.func)
        if name.endswith("Command"):
            update = given.get("update")
            return set() if update is None else _keys_of(update, assigned)
        return {str(each) for each in given} if name == "dict" else None
    if isinstance(node, ast.Constant) and node.value is None:
        return set()
    return None
