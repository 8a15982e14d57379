"""How a graph looks, and what it is made of: without running it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from integration_tests.parity.normal import Names, normal
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel
from langgraph.pregel._read import PregelNode

from langchain_slm.rewriting.node_cache import GuidedCache
from langchain_slm.rewriting.scoped import ScopedRunnable

# What a copy has of its own: what its nodes run, and the keys of its cache.
OF_GRAPH = ("nodes", "builder", "cache", "cache_policy")
OF_NODE = ("bound", "writers", "subgraphs", "cache_policy")
OF_BUILDER = ("nodes", "branches", "_node_defaults")
KEPT_FOR_LATER = ("flat_writers", "node", "input_cache_key")  # by LangGraph, of a node


def appearance(graph: Any) -> dict[str, Any]:
    """Return how a graph looks: its drawings, its schemas and its parts by name."""
    names = Names(told_apart=True)
    told: dict[str, Any] = {
        "type": type(graph).__name__,
        "name": graph.name,
        "nodes": list(graph.nodes),
        "subgraphs": [name for name, _ in graph.get_subgraphs(recurse=True)],
        "config": normal(graph.config, names),
    }
    for xray in (False, True):
        told[f"mermaid {xray}"] = _told(
            lambda x=xray: graph.get_graph(xray=x).draw_mermaid()
        )
        told[f"json {xray}"] = _told(lambda x=xray: graph.get_graph(xray=x).to_json())
    for schema in ("input", "output", "context"):
        told[schema] = _told(getattr(graph, f"get_{schema}_jsonschema"))
    return {key: normal(value, names) for key, value in told.items()}


def _told(tell: Callable[[], Any]) -> Any:
    try:
        return tell()
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return error


def lost(original: Any, copied: Any, at: str = "graph") -> Iterator[str]:
    """Yield what a copy does not have in common with its original."""
    if type(original) is not type(copied):
        yield f"{at}: {type(original).__name__} against {type(copied).__name__}"
        return
    yield from _attributes(vars(original), vars(copied), OF_GRAPH, at)
    if list(original.nodes) != list(copied.nodes):
        yield f"{at}.nodes: {list(original.nodes)} against {list(copied.nodes)}"
        return
    for name, node in original.nodes.items():
        yield from _node(node, copied.nodes[name], f"{at}.nodes[{name!r}]")
    yield from _cache(original.cache, copied.cache, f"{at}.cache")
    yield from _policy(original.cache_policy, copied.cache_policy, f"{at}.cache_policy")
    if isinstance(getattr(original, "builder", None), StateGraph):
        yield from lost_of_builder(original.builder, copied.builder, f"{at}.builder")


def _attributes(
    one: Mapping[str, Any], other: Mapping[str, Any], own: tuple[str, ...], at: str
) -> Iterator[str]:
    for name in dict.fromkeys([*one, *other]):
        if name in own or name in KEPT_FOR_LATER:
            continue
        if name not in one or name not in other:
            yield f"{at}.{name}: only one has it"
        elif one[name] is not other[name] and one[name] != other[name]:
            yield f"{at}.{name}: {one[name]!r} against {other[name]!r}"


def _node(one: PregelNode, other: PregelNode, at: str) -> Iterator[str]:
    yield from _attributes(vars(one), vars(other), OF_NODE, at)
    yield from _policy(one.cache_policy, other.cache_policy, f"{at}.cache_policy")
    kinds = [[type(writer) for writer in each.writers] for each in (one, other)]
    if kinds[0] != kinds[1]:
        yield f"{at}.writers: {kinds[0]} against {kinds[1]}"
    yield from _bound(one.bound, other.bound, f"{at}.bound")
    if len(one.subgraphs) != len(other.subgraphs):
        yield f"{at}.subgraphs: {one.subgraphs} against {other.subgraphs}"


def _bound(one: Any, other: Any, at: str) -> Iterator[str]:
    if isinstance(one, Pregel):
        yield from lost(one, other, at)
    elif isinstance(other, ScopedRunnable):
        if other.bound is not one and not isinstance(one, ScopedRunnable):
            yield f"{at}: another runnable"
    elif type(one) is not type(other):
        yield f"{at}: {type(one).__name__} against {type(other).__name__}"
    elif one.name != other.name:
        yield f"{at}.name: {one.name!r} against {other.name!r}"


def _cache(one: Any, other: Any, at: str) -> Iterator[str]:
    if (other.cache if isinstance(other, GuidedCache) else other) is not one:
        yield f"{at}: another cache"


def _policy(one: Any, other: Any, at: str) -> Iterator[str]:
    if (one is None) is not (other is None) or (one and one.ttl != other.ttl):
        yield f"{at}: {one} against {other}"


def lost_of_builder(one: Any, other: Any, at: str = "builder") -> Iterator[str]:
    """Yield what the copy of a builder does not have in common with its original."""
    yield from _attributes(vars(one), vars(other), OF_BUILDER, at)
    for name, value in vars(one).items():
        shared = vars(other)[name] is value
        if shared and isinstance(value, dict | list | set):
            yield f"{at}.{name}: shared, so that adding to the copy changes the original"
    for name, spec in one.nodes.items():
        copied = other.nodes[name]
        for field in type(spec).__slots__:
            before, after = getattr(spec, field), getattr(copied, field)
            if field == "cache_policy":
                yield from _policy(before, after, f"{at}.nodes[{name!r}].{field}")
            elif field != "runnable" and before != after:
                yield f"{at}.nodes[{name!r}].{field}: {before!r} against {after!r}"
    if list(one.nodes) != list(other.nodes):
        yield f"{at}.nodes: {list(one.nodes)} against {list(other.nodes)}"
    for start, branches in one.branches.items():
        ends = {name: branch[1:] for name, branch in branches.items()}
        copied = {n: branch[1:] for n, branch in other.branches.get(start, {}).items()}
        if ends != copied:
            yield f"{at}.branches[{start!r}]: {ends} against {copied}"
