"""Where a model is called. Reads LangGraph's names; changes nothing.

A site is the path of the running node without ids (`parent/child`), and for a model
called in a conditional edge `#` and the name of the branch (`node#route`).

Relies on these LangGraph attributes: `StateGraph.nodes`, `.edges`, `.waiting_edges`,
`.branches`, `._node_defaults.error_handler`; `StateNodeSpec.runnable`;
`BranchSpec.ends`; `Pregel.nodes`; `PregelNode.bound`; `CompiledStateGraph.builder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langgraph.constants import START
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.routing.binding import any_branch
from langchain_slm.routing.places import DEFAULT_HANDLER
from langchain_slm.schema import JsonObject, content_hash

Graph = StateGraph[Any, Any, Any, Any] | Pregel[Any, Any, Any, Any]


def nodes_of(graph: Graph) -> Mapping[str, Any]:
    """Return what each node runs, by name."""
    if not isinstance(graph, StateGraph):
        return {name: node.bound for name, node in graph.nodes.items() if name != START}
    nodes = {name: spec.runnable for name, spec in graph.nodes.items()}
    handler = graph._node_defaults.error_handler  # noqa: SLF001 - LangGraph has no other way
    return nodes if handler is None else {DEFAULT_HANDLER: handler, **nodes}


def builder_of(graph: Graph) -> StateGraph[Any, Any, Any, Any] | None:
    """Return the builder of a compiled graph; None for an `@entrypoint`."""
    builder = graph if isinstance(graph, StateGraph) else getattr(graph, "builder", None)
    return builder if isinstance(builder, StateGraph) else None


def node_paths(graph: Graph, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the path of each node that can be found without running the graph.

    With it comes whether it is a leaf: below a plain function may be a graph that it
    invokes, which shows only at run time; below a compiled graph is nothing else.
    """
    for name, runnable in nodes_of(graph).items():
        path = f"{prefix}{name}"
        is_graph = isinstance(runnable, Pregel)
        yield path, not is_graph
        if is_graph:
            yield from node_paths(runnable, f"{path}/")


def branch_sites(graph: Graph, prefix: str = "") -> Iterator[str]:
    """Yield the site of each conditional edge that can be found without running."""
    builder = builder_of(graph)
    for start, branches in builder.branches.items() if builder else ():
        for name in branches:
            yield f"{prefix}{start}#{name}"
    for name, runnable in nodes_of(graph).items():
        if isinstance(runnable, Pregel):
            yield from branch_sites(runnable, f"{prefix}{name}/")


def unknown_sites(sites: tuple[str, ...], graph: Graph) -> list[str]:
    """Return those of `sites` that `graph` cannot have."""
    nodes = dict(node_paths(graph))
    branches = set(branch_sites(graph))
    known = branches | {each for site in branches for each in any_branch(site)}
    known |= set(nodes)
    leaves = {path for path, is_leaf in nodes.items() if is_leaf}
    # What is no node has an edge all the same, and the edge may invoke a graph: START.
    leaves |= {site.partition("#")[0] for site in branches} - set(nodes)
    below = tuple(f"{path}/" for path in leaves)
    return [site for site in sites if site not in known and not site.startswith(below)]


def fingerprint(graph: Graph) -> str:
    """Return a hash of the graph's nodes and edges, those of subgraphs included."""
    return content_hash(_shape(graph))


def _shape(graph: Graph) -> JsonObject:
    shape: JsonObject = {
        name: _shape(runnable) if isinstance(runnable, Pregel) else None
        for name, runnable in nodes_of(graph).items()
    }
    builder = builder_of(graph)
    if builder is None:
        return {"nodes": shape}
    waiting = [[sorted(starts), end] for starts, end in builder.waiting_edges]
    branches = [
        [start, name, sorted(map(str, branch.ends.values())) if branch.ends else None]
        for start, found in builder.branches.items()
        for name, branch in found.items()
    ]
    return {
        "nodes": shape,
        "edges": sorted(map(list, builder.edges)),
        "waiting_edges": sorted(waiting),
        "branches": sorted(branches, key=str),
    }
