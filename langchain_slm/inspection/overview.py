"""What a graph holds: its nodes, its edges, and the sites where it calls models.

Nothing of the graph runs. `Inspection.as_json` has the format of `inspect --json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from langgraph.constants import END, START
from langgraph.graph.state import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from langchain_slm.inspection.code_reading import Spot
from langchain_slm.inspection.facing import (
    Facing,
    Position,
    Positions,
    facing,
    overall,
)
from langchain_slm.inspection.findings import Holding, place_of, traced
from langchain_slm.inspection.holdings import Holdings
from langchain_slm.inspection.libraries import GIVEN_NAMES
from langchain_slm.inspection.peeking import is_a
from langchain_slm.inspection.runnables import (
    agent_name,
    innermost,
    is_executor_twin,
    parts_of,
)
from langchain_slm.inspection.sources import Sources
from langchain_slm.rewriting.sites import Graph, builder_of, nodes_of
from langchain_slm.routing.places import AGENT_MARK
from langchain_slm.schema import JsonObject

EdgeKind = Literal["edge", "conditional", "waiting", "command"]
# How a model is held whose name a run may choose.
_OPEN = ("configurable", *GIVEN_NAMES.values())
ANYWHERE = "*"  # a conditional edge that does not say where it may lead


class Node(NamedTuple):
    """A node.

    Attributes:
        path: Its path, as in a site.
        kind: What it runs: "function", "graph", "tools", "chain", or a class's name.
        where: File and line of its function; None without one.
    """

    path: str
    kind: str
    where: str | None


class Edge(NamedTuple):
    """An edge.

    Attributes:
        source: Path of the node that it leaves, or of its graph's `__start__`.
        target: Path of the node that it leads to, or of its graph's `__end__`; `*` where
            a conditional edge does not say where it may lead.
        kind: "edge", "conditional", "waiting" for all of its sources, or "command".
        branch: Name of the conditional edge; None for another.
    """

    source: str
    target: str
    kind: EdgeKind
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A place where models are called.

    Attributes:
        path: As in a plan.
        models: What is called there.
        faces_human: Whether a human reads the answers: a guess, with its reason.
    """

    path: str
    models: tuple[Holding, ...]
    faces_human: Facing

    def as_json(self) -> JsonObject:
        """Return the site as JSON values."""
        return {
            "site": self.path,
            "models": [_model_as_json(each) for each in self.models],
            "faces_human": self.faces_human.answer,
            "faces_human_because": self.faces_human.why,
        }


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a graph holds.

    Attributes:
        nodes: Every node that can be found without running, those of subgraphs below
            their own.
        edges: Every edge, conditional ones with each of their ends.
        sites: Every site that was found.
        notes: Calls that could not be followed: what may be missing.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    sites: tuple[Site, ...]
    notes: tuple[str, ...]

    def as_json(self) -> JsonObject:
        """Return it as JSON values.

        `nodes`: objects of `path`, `kind`, `where`. `edges`: objects of `source`,
        `target`, `kind`, `branch`. `sites`: objects of `site`, `faces_human`,
        `faces_human_because` and `models`; of a model `class`, `model`, `provider`,
        `held` (an array, the outermost first), `confidence`, `reason`, `tools`,
        `response_format`, `where` (an array) and `calls`, null where not known.
        `notes`: texts.
        """
        return {
            "nodes": [node._asdict() for node in self.nodes],
            "edges": [edge._asdict() for edge in self.edges],
            "sites": [site.as_json() for site in self.sites],
            "notes": list(self.notes),
        }


def _model_as_json(holding: Holding) -> JsonObject:
    return {
        "class": holding.class_name,
        "model": holding.model,
        "provider": holding.provider,
        "held": list(holding.how),
        "confidence": holding.confidence,
        "reason": holding.reason,
        "tools": list(holding.options.tools),
        "response_format": holding.options.response_format,
        "where": list(holding.where),
        "calls": holding.calls,
    }


def inspect_graph(graph: Graph) -> Inspection:
    """Return what `graph` holds. Runs nothing of it, and calls no model."""
    return _Inspector().inspect(graph)


def with_traces(
    found: Inspection, calls: Iterable[tuple[str, str, str, int]]
) -> Inspection:
    """Return an inspection with what recorded calls add to it.

    Args:
        found: The inspection.
        calls: Site, model, provider and number, one for each site and model.
    """
    sites = {site.path: site for site in found.sites}
    for path, model, provider, number in calls:
        site = sites.get(path)
        models = site.models if site else ()
        known = [each for each in models if _may_be(each, model)]
        if known:
            counted = replace(known[0], calls=(known[0].calls or 0) + number)
            models = tuple(counted if each is known[0] else each for each in models)
        else:
            models = (*models, traced(model, provider, number))
        why = site.faces_human if site else Facing("unknown", "only its calls are known")
        sites[path] = Site(path, models, why)
    return replace(found, sites=tuple(sites.values()))


def _may_be(holding: Holding, model: str) -> bool:
    """Whether a recorded call may be of a model that was found."""
    open_ = holding.model is None or any(how in _OPEN for how in holding.how)
    return open_ or model in (holding.model, holding.class_name)


class _Inspector:
    def __init__(self) -> None:
        self._sources = Sources()
        self._nodes: list[Node] = []
        self._edges: list[Edge] = []
        self._sites: dict[str, list[tuple[Holding, Facing]]] = {}
        self._notes: list[str] = []
        self._inside: list[int] = []

    def inspect(self, graph: Graph) -> Inspection:
        self._graph(graph, "", agent_name(graph), None)
        sites = [
            Site(
                path,
                tuple(dict.fromkeys(holding for holding, _ in found)),
                overall([why for _, why in found]),
            )
            for path, found in self._sites.items()
        ]
        notes = dict.fromkeys(self._notes)
        return Inspection(
            tuple(self._nodes), tuple(self._edges), tuple(sites), tuple(notes)
        )

    def _graph(
        self, graph: Graph, prefix: str, agent: str | None, outer: Position | None
    ) -> None:
        if id(graph) in self._inside:
            return  # it has itself as a node
        self._inside.append(id(graph))
        runnables = nodes_of(graph)
        readers = {
            name: self._read(runnable)
            for name, runnable in runnables.items()
            if not is_a(runnable, Pregel)
        }
        interrupting = [name for name, reader in readers.items() if reader.interrupts]
        positions = Positions(graph, self._sources, interrupting, outer)
        for name, runnable in runnables.items():
            path, position = f"{prefix}{name}", positions.of(name, runnable)
            self._nodes.append(Node(path, _kind(runnable), _where(runnable)))
            if name in readers:
                self._keep(path, readers[name], position, agent)
            else:
                own = agent_name(runnable) or agent
                self._graph(runnable, f"{path}/", own, position)
        self._branches(graph, prefix, positions, agent)
        self._edges += _edges(graph, prefix)
        self._inside.pop()

    def _branches(
        self, graph: Graph, prefix: str, positions: Positions, agent: str | None
    ) -> None:
        builder = builder_of(graph)
        for start, branches in builder.branches.items() if builder else ():
            for name, branch in branches.items():
                reader = self._read(branch.path)
                position = positions.of(start, branch.path)
                path = f"{prefix}{start}#{name}"
                self._keep(path, reader, position, agent, branch=name)

    def _read(self, runnable: object) -> Holdings:
        reader = Holdings(self._sources)
        reader.read(runnable)
        return reader

    def _keep(
        self,
        path: str,
        reader: Holdings,
        position: Position,
        agent: str | None,
        *,
        branch: str | None = None,
    ) -> None:
        for holding in reader.found:
            site = _site(path, holding, agent)
            shown = holding
            if branch is not None:
                shown = replace(holding, how=("conditional edge", *holding.how))
            why = facing(position, holding, branch)
            self._sites.setdefault(site, []).append((shown, why))
        self._notes += reader.notes
        if reader.exhausted:
            self._notes.append(f"{path}: more code than is read for one node")


def _site(path: str, holding: Holding, agent: str | None) -> str:
    """Return the site of a call below a node, as it is recorded."""
    inner = "/".join((path, *holding.inner))
    if holding.agent in (None, agent) or not holding.inner:
        return inner
    before, mark, branch = inner.partition("#")
    return f"{before}{AGENT_MARK}{holding.agent}{mark}{branch}"


def _kind(runnable: object) -> str:
    if is_a(runnable, (Pregel, StateGraph)):
        return "graph"
    if is_a(runnable, ToolNode):
        return "tools"
    parts = list(parts_of(runnable))
    if parts and parts[0].how is not None:
        return "chain"
    if any(innermost(part.what) is not None for part in parts):
        return "function"
    return "function" if innermost(runnable) is not None else type(runnable).__name__


def _where(runnable: object) -> str | None:
    for part in parts_of(runnable):
        function = None if is_executor_twin(part.what) else innermost(part.what)
        if function is not None:
            code = function.__code__
            return place_of(Spot(code.co_filename, code.co_firstlineno, ""))
    return None


def _edges(graph: Graph, prefix: str) -> Iterator[Edge]:
    builder = builder_of(graph)
    if builder is None:
        for name in nodes_of(graph):
            yield Edge(f"{prefix}{START}", f"{prefix}{name}", "edge")
            yield Edge(f"{prefix}{name}", f"{prefix}{END}", "edge")
        return
    for start, end in sorted(builder.edges):
        yield Edge(f"{prefix}{start}", f"{prefix}{end}", "edge")
    for starts, end in sorted(builder.waiting_edges):
        for start in starts:
            yield Edge(f"{prefix}{start}", f"{prefix}{end}", "waiting")
    for start, branches in builder.branches.items():
        for name, branch in branches.items():
            for end in dict.fromkeys((branch.ends or {ANYWHERE: ANYWHERE}).values()):
                target = end if end == ANYWHERE else f"{prefix}{end}"
                yield Edge(f"{prefix}{start}", target, "conditional", name)
    yield from _command_edges(builder.nodes, prefix)


def _command_edges(nodes: Mapping[str, Any], prefix: str) -> Iterator[Edge]:
    for name, spec in nodes.items():
        for end in getattr(spec, "ends", None) or ():
            yield Edge(f"{prefix}{name}", f"{prefix}{end}", "command")
