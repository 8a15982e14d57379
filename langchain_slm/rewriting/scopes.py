"""What holds while a node runs: who watches its model calls, who answers, and where.

A context variable says it, so that concurrent runs never see each other's. A thread
that was started without the context but calls with the run's config finds it by the
namespace in the run's metadata, as long as the node runs. Nothing is added to a config.

Relies on langchain-core's `var_child_runnable_config` and on these names of LangGraph:
the run metadata `langgraph_checkpoint_ns`, the configurables `thread_id`,
`checkpoint_ns` and `__pregel_runtime`, and `Runtime.control`, of which each graph run
has one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeAlias, get_args

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import var_child_runnable_config

from langchain_slm.routing.asking import Ask
from langchain_slm.routing.binding import Guide
from langchain_slm.routing.places import (
    AGENT_KEY,
    AGENT_MARK,
    CONFIGURED_NAMESPACE_KEY,
    NAMESPACE_KEY,
    node_names,
    run_of,
)
from langchain_slm.routing.turn import merged

HookName: TypeAlias = Literal["openai_sdk", "threads"]


def hook_names(names: Collection[HookName]) -> frozenset[HookName]:
    """Return the names of hooks, checked.

    Raises:
        ValueError: If there is no such hook.
    """
    known = get_args(HookName)
    if isinstance(names, str) or not set(names) <= set(known):
        msg = f"hooks are a collection of {known}, not {names!r}"
        raise ValueError(msg)
    return frozenset(names)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a watcher learns of one call.

    Attributes:
        ask: What the app asked.
        site: Where.
        namespace: LangGraph's namespace of the node run; the same again on a resume.
        thread_id: LangGraph's id of the conversation; None where the run has none.
        run: Stands for the graph run: the same object for all its calls, those of
            subgraphs included. None where it is not known.
        parts: What the app got: one message, or the chunks of a stream.
        error: What the call failed with; None when it succeeded.
        latency_s: Seconds until the answer was complete.
    """

    ask: Ask
    site: str
    namespace: str
    thread_id: str | None
    run: object | None
    parts: Sequence[BaseMessage]
    error: BaseException | None
    latency_s: float

    @property
    def message(self) -> AIMessage | None:
        """The whole answer; None when the call failed, even if after some chunks."""
        return merged(list(self.parts)) if self.parts and self.error is None else None


class Watcher(Protocol):
    """Learns of every call in its scope; must not raise."""

    def watch(self, answered: Answered) -> None:
        """Take note of one call, before the app goes on."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Scope:
    """One instrumentation: who watches, or who answers. Its wrappers keep it alive.

    Attributes:
        watcher: Learns of every call.
        guide: Says what answers.
        hooks: Further ways by which calls are reached.
    """

    watcher: Watcher | None = None
    guide: Guide | None = None
    hooks: frozenset[HookName] = frozenset()


class Layer(NamedTuple):
    """A scope as seen from one of its wrappers.

    Attributes:
        scope: The scope.
        depth: Nodes from the instrumented graph down to the wrapped one, at least 1;
            0 where there is no such graph. A graph's sites stay the same when it
            becomes a part of another one.
        node: Name of the wrapped node, or of the node before a wrapped edge.
    """

    scope: Scope
    depth: int = 0
    node: str = ""


class Place(NamedTuple):
    """Where a call is made.

    Attributes:
        path: Names of the nodes, from the outermost graph inwards.
        namespace: LangGraph's namespace of the innermost node run.
        branch: Name of the conditional edge; None in the node itself.
        agent: Name of the agent that a function or a tool of the node invokes: the
            agents of one `tools` node are told apart by nothing else.
    """

    path: tuple[str, ...] = ()
    namespace: str = ""
    branch: str | None = None
    agent: str | None = None

    def site(self, above: int = 0) -> str:
        """Return the site, without the `above` outermost nodes."""
        path = "/".join(self.path[above:])
        if self.agent is not None:
            path = f"{path}{AGENT_MARK}{self.agent}"
        return path if self.branch is None else f"{path}#{self.branch}"

    def inner(self, namespace: str) -> Place:
        """Return where `namespace` is, as seen from here."""
        if not namespace or namespace == self.namespace:
            return self
        if _below(namespace, self.namespace):
            return self  # the config of a node around it is still about
        # Else a graph run of its own: one invoked with another thread id, or a @task.
        below = _below(self.namespace, namespace)
        names = node_names(below, is_end=True) if below else node_names(namespace)
        return Place(self.path + names, namespace)


def _below(outer: str, inner: str) -> str:
    """Return the part of `inner` below `outer`; empty where it is not below."""
    above, parts = outer.split("|"), inner.split("|")
    # LangGraph leaves out the ids above a subgraph with `checkpointer=True`.
    same = all(
        part in (each, each.partition(":")[0])
        for each, part in zip(above, parts, strict=False)
    )
    return "|".join(parts[len(above) :]) if same else ""


class Running(NamedTuple):
    """What holds while a wrapped node runs.

    Attributes:
        watchers: Who learns of each call, and how many outer nodes are not theirs.
        guide: Who says what answers, and the same number; None for nobody.
        place: Where.
        config: Of the outermost node run that was wrapped.
        agent: Name of the agent that the node belongs to, if it has one.
        hooks: Further ways by which calls are reached.
    """

    watchers: tuple[tuple[Watcher, int], ...] = ()
    guide: tuple[Guide, int] | None = None
    place: Place = Place()
    config: Mapping[str, Any] = {}
    agent: str | None = None
    hooks: frozenset[HookName] = frozenset()

    def where(self, passed: Mapping[str, Any] | None) -> Place:
        """Return where a call is made now.

        Args:
            passed: Metadata of the call. An app's own replaces LangGraph's, also for
                the steps of a chain, and a step may run in the context of the node
                around: the deepest place that is named is right.
        """
        around = var_child_runnable_config.get() or {}
        metadata = around.get("metadata") or {}
        configured = around.get("configurable") or {}
        passed = passed or {}
        found = (
            metadata.get(NAMESPACE_KEY),
            configured.get(CONFIGURED_NAMESPACE_KEY),
            passed.get(NAMESPACE_KEY),
        )
        own = self.place.namespace
        if not any(namespace and namespace != own for namespace in found):
            return self.place  # most calls; a third of the time
        places = [self.place.inner(namespace or "") for namespace in found]
        place = max(places, key=lambda place: len(place.path))
        if len(place.path) == len(self.place.path):
            return place
        agent = metadata.get(AGENT_KEY) or passed.get(AGENT_KEY)
        return place if agent == self.agent else place._replace(agent=agent)

    @property
    def thread_id(self) -> str | None:
        """The id of the conversation, if the run has one."""
        found = (self.config.get("configurable") or {}).get("thread_id")
        return None if found is None else str(found)

    @property
    def run(self) -> object | None:
        """The one object of this graph run that its subgraphs share."""
        return run_of(self.config)


SCOPE: ContextVar[Running | None] = ContextVar("langchain_slm_scope", default=None)
# The hook stands aside while a call is being answered: a target is never redirected.
ANSWERING = Running()
_by_namespace: dict[str, Running] = {}


class Listed:
    """Lets a thread without the context find what holds, by a config's namespace."""

    def __init__(self, scope: Running) -> None:
        self._scope = scope
        self._listed = False

    def __enter__(self) -> Self:
        if namespace := self._scope.place.namespace:
            listed = _by_namespace.setdefault(namespace, self._scope)
            self._listed = listed is self._scope
        return self

    def __exit__(self, *error: object) -> None:
        if self._listed:
            del _by_namespace[self._scope.place.namespace]


class Inside(Listed):
    """Lets what runs in this context find what holds. Not across a `yield`."""

    _token: Token[Running | None]

    def __enter__(self) -> Self:
        self._token = SCOPE.set(self._scope)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        SCOPE.reset(self._token)


def entered(
    layers: Sequence[Layer],
    branch: str | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    name: str = "",
) -> Running:
    """Return what holds while a node, or its conditional edge, runs.

    What held around it goes on, so that a recorded graph inside a rewritten one is both.
    The innermost guide decides.

    Args:
        layers: The scopes of the wrapper.
        branch: Name of the conditional edge.
        config: Of the node's run; by default the surrounding one.
        name: What to call the place outside any graph, if no layer names it.
    """
    around = SCOPE.get() or ANSWERING
    config = config or var_child_runnable_config.get() or {}
    namespace = (config.get("metadata") or {}).get(NAMESPACE_KEY)
    place = around.place.inner(namespace or "")
    if not place.path:
        place = _outside(layers, config, name)
    place = place._replace(branch=branch or place.branch)
    watchers, guide = around.watchers, around.guide
    for scope, depth, _ in layers:
        above = max(0, len(place.path) - depth) if depth else 0
        if scope.guide is not None:
            guide = (scope.guide, above)
        watcher = scope.watcher
        if watcher is not None and all(watcher is not known for known, _ in watchers):
            watchers = (*watchers, (watcher, above))
    agent = (config.get("metadata") or {}).get(AGENT_KEY)
    hooks = around.hooks.union(*(layer.scope.hooks for layer in layers))
    return Running(watchers, guide, place, around.config or config, agent, hooks)


def _outside(layers: Sequence[Layer], config: Mapping[str, Any], name: str) -> Place:
    """Return where a node is that no graph runs: `update_state` runs its edges."""
    namespace = (config.get("configurable") or {}).get(CONFIGURED_NAMESPACE_KEY) or ""
    named = (layers[-1].node if layers else "") or name
    path = node_names(namespace)
    return Place((*path, named) if named else path, namespace)


def running(metadata: Mapping[str, Any] | None) -> Running | None:
    """Return what holds for a call with this metadata; None where nothing does."""
    around = SCOPE.get()
    if around is not None:
        return None if around is ANSWERING else around
    if not (_by_namespace and metadata):
        return None
    namespace = metadata.get(NAMESPACE_KEY) or ""
    while namespace and namespace not in _by_namespace:
        namespace = namespace.rpartition("|")[0]  # a subgraph that the node invokes
    return _by_namespace.get(namespace)
