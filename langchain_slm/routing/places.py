"""Where a call is made, as LangGraph says it. Reads its names; changes nothing.

Relies on the run metadata `langgraph_checkpoint_ns` and its form, on the configurables
`checkpoint_ns` and `__pregel_runtime`, on `Runtime.control`, of which each graph run has
one, and on langchain-core's `var_child_runnable_config`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from langchain_core.runnables.config import var_child_runnable_config

NAMESPACE_KEY = "langgraph_checkpoint_ns"
# The same among the configurables: an app that replaces the metadata leaves it.
CONFIGURED_NAMESPACE_KEY = "checkpoint_ns"
RUNTIME_KEY = "__pregel_runtime"
# Key of a config's `configurable` or `metadata` that names the site itself.
SITE_KEY = "slm_site"
# The node that `compile` makes of `set_node_defaults(error_handler=...)`, and what
# `add_node` calls that of `error_handler=...`, before the name of the node.
DEFAULT_HANDLER = "__default_error_handler__"
HANDLER = "__error_handler__"
# LangChain's name of an agent, in the metadata of all that runs in it.
AGENT_KEY = "lc_agent_name"
# Between a site and the name of an agent that a function or a tool of a node invokes:
# LangGraph allows it in no name of a node.
AGENT_MARK = ":"


def node_names(namespace: str, *, is_end: bool = False) -> tuple[str, ...]:
    """Return the names of the nodes in a checkpoint namespace, without its ids.

    LangGraph runs the error handler of a node below that node, although both are nodes
    of one graph: the node is left out.

    Args:
        namespace: The namespace.
        is_end: Whether it is the end of one only, below a node.

    Example:
        >>> node_names("math:4f1c|agent:77aa")
        ('math', 'agent')
        >>> node_names("math|1|agent:77aa")
        ('math', 'agent')
        >>> node_names("math:4f1c|agent:77aa|__error_handler__agent:3e08")
        ('math', '__error_handler__agent')
    """
    names: list[str] = []
    for part in filter(None, namespace.split("|")):
        name, has_id, _ = part.partition(":")
        # A bare number below a node counts the calls of one subgraph; any other part is
        # a node, also without an id (a subgraph with `checkpointer=True`).
        if not has_id and name.isdigit() and (names or is_end):
            continue
        if names and name in (f"{HANDLER}{names[-1]}", DEFAULT_HANDLER):
            names.pop()
        names.append(name)
    return tuple(names)


def without_agent(site: str) -> str:
    """Return the site of all the agents that a node invokes.

    Example:
        >>> without_agent("tools/model:researcher")
        'tools/model'
    """
    path = site.partition(AGENT_MARK)[0]
    return site if "#" in path else path  # the name of an edge may hold anything


def run_of(config: Mapping[str, Any]) -> object | None:
    """Return what stands for a graph run; the same for its subgraphs."""
    configurable = config.get("configurable") or {}
    return getattr(configurable.get(RUNTIME_KEY), "control", None)


def place_of(namespace: str | None, run: object | None) -> Hashable:
    """Return what a node run and its retries have in common, and a resumed one has not.

    It runs again under the same namespace, but in another graph run. None where there is
    no node.
    """
    return (namespace, run) if namespace else None


class Around(NamedTuple):
    """What surrounds a call.

    Attributes:
        site: Named by a config, else the path of the running node; None outside.
        is_named: Whether a config names it.
        place: The same where a layer above repeats the call; None where none does.
        run: Stands for the graph run; None outside of one.
    """

    site: str | None = None
    is_named: bool = False
    place: Hashable = None
    run: object | None = None


NOWHERE = Around()


def around(config: Mapping[str, Any] | None = None) -> Around:
    """Return what surrounds a call.

    Args:
        config: Given with the call; it goes before what runs around it.

    Raises:
        ValueError: If a config names a site by something that is not a text.
    """
    ambient: Mapping[str, Any] | None = var_child_runnable_config.get()
    if not (ambient or config):
        return NOWHERE
    named, namespace, place = None, None, None
    for one in (config, ambient):
        if not one:
            continue
        metadata = one.get("metadata") or {}
        configurable = one.get("configurable") or {}
        named = named or configurable.get(SITE_KEY) or metadata.get(SITE_KEY)
        configured = configurable.get(CONFIGURED_NAMESPACE_KEY)
        namespace = namespace or metadata.get(NAMESPACE_KEY) or configured
        place = place or getattr(one.get("callbacks"), "parent_run_id", None)
    if named and not isinstance(named, str):
        msg = f'{SITE_KEY} names a site by its path, as in "triage", not by {named!r}'
        raise ValueError(msg)
    site = named or ("/".join(node_names(namespace)) if namespace else None)
    run = run_of(config or {}) or run_of(ambient or {})
    return Around(site, bool(named), place_of(namespace, run) or place, run)
