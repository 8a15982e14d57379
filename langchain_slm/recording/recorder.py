"""Store every model call of a graph, before the app gets its answer.

Recording never fails the app: a call that cannot be stored is counted and logged.
It does not see raw SDK calls, nor calls in threads that carry neither the context nor
the run's config.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from typing import Any, TypeVar
from uuid import uuid4

from langchain_slm.recording.store import Store, open_store
from langchain_slm.rewriting.graphs import instrument
from langchain_slm.rewriting.hook import activate
from langchain_slm.rewriting.scoped import scoped_function
from langchain_slm.rewriting.scopes import Answered, HookName, Layer, Scope, hook_names
from langchain_slm.routing import dialect
from langchain_slm.routing.dialect import METADATA_KEY
from langchain_slm.schema import Call

logger = logging.getLogger(__name__)
GraphT = TypeVar("GraphT")
NodeT = TypeVar("NodeT", bound=Callable[..., Any])
# Graph runs whose trace id is remembered; far more than run at the same time.
_REMEMBERED_RUNS = 4096


def record(
    graph: GraphT,
    store: Store | str,
    *,
    name: str | None = None,
    hooks: Collection[HookName] = (),
) -> GraphT:
    """Return a copy of `graph` that behaves the same and stores every model call.

    Each call is durable in the store before its answer reaches the app, redacted by
    the store's redactor. Sync, async, streamed and batched calls are stored alike,
    wherever they are made: in a node's function or chain, a subgraph, a conditional
    edge.

    Args:
        graph: A `StateGraph` or a compiled graph.
        store: A store, or its URL (`sqlite:///slm.db`).
        name: Name of the graph in the store; by default the graph's own.
        hooks: Further ways by which calls are reached, as for `rewrite`.

    Returns:
        A graph of the same type.

    Raises:
        RewriteError: If `graph` is not a LangGraph graph.
        StoreError: If the store cannot be opened.
        ValueError: If there is no hook of that name.
    """
    graph_name = name or getattr(graph, "name", None) or "LangGraph"
    return Recorder.on(store, graph=graph_name).copy_of(graph, hooks)


def recorded_node(
    store: Store | str, *, graph: str = "LangGraph"
) -> Callable[[NodeT], NodeT]:
    """Return a decorator that stores every model call of a node's function.

    For people who build their graph themselves and want some of its nodes recorded.

    Args:
        store: A store, or its URL.
        graph: Name of the graph in the store.

    Raises:
        StoreError: If the store cannot be opened.

    Example:
        >>> from langchain_slm import open_store, recorded_node
        >>> @recorded_node("sqlite:///calls.db")
        ... def triage(state: dict) -> dict:
        ...     return {"label": "billing"}
        >>> triage({})
        {'label': 'billing'}
        >>> with open_store("sqlite:///calls.db") as store:
        ...     store.count()
        0
    """
    scope = Scope(watcher=Recorder.on(store, graph=graph))
    activate(scope)

    def decorate(function: NodeT) -> NodeT:
        return scoped_function(function, Layer(scope))  # type: ignore[return-value]  # keeps its signature

    return decorate


class Recorder:
    """Turns answered calls into stored ones.

    Attributes:
        stored: Calls stored so far, by site.
        dropped: Calls that could not be stored; the app went on without them.
    """

    def __init__(self, store: Store, *, graph: str) -> None:
        self._store = store
        self._graph = graph
        # Reentrant: a stream that is collected while it is held ends here, too.
        self._lock = threading.RLock()
        self._traces: OrderedDict[int, tuple[object, str]] = OrderedDict()
        self.stored: Counter[str] = Counter()
        self.dropped = 0

    @classmethod
    def on(cls, store: Store | str, *, graph: str) -> Recorder:
        """Return a recorder; a store opened here is closed when nobody uses it.

        Raises:
            StoreError: If the store cannot be opened.
        """
        if not isinstance(store, str):
            return cls(store, graph=graph)
        opened = open_store(store)
        recorder = cls(opened, graph=graph)
        weakref.finalize(recorder, opened.close)
        return recorder

    def copy_of(self, graph: GraphT, hooks: Collection[HookName] = ()) -> GraphT:
        """Return a copy of `graph` whose model calls are stored.

        Raises:
            RewriteError: If `graph` is not a LangGraph graph.
        """
        return instrument(graph, Scope(watcher=self, hooks=hook_names(hooks)))

    def watch(self, answered: Answered) -> None:
        """Store one call; on failure count it and say so in the log, at 1, 2, 4, ..."""
        try:
            self._store.add(self._call(answered))
        except Exception as error:  # noqa: BLE001 - recording never fails the app
            with self._lock:
                self.dropped += 1
                lost = self.dropped
            # Ever more rarely: a store that is full fails at every call.
            if lost & (lost - 1) == 0:
                logger.warning(
                    "a call at site %r was not stored (%s); %d lost so far",
                    answered.site,
                    # The type only: another exception's text may quote a message.
                    type(error).__name__,
                    lost,
                )
        else:
            with self._lock:
                self.stored[answered.site] += 1

    def _call(self, answered: Answered) -> Call:
        ask, message, error = answered.ask, answered.message, answered.error
        trace_id = self._trace_of(answered)
        options = ask.options if ask.stop is None else {**ask.options, "stop": ask.stop}
        about = message.response_metadata.get(METADATA_KEY, {}) if message else {}
        return Call(
            call_id=uuid4().hex,
            trace_id=trace_id,
            thread_id=answered.thread_id or trace_id,
            graph=self._graph,
            site=answered.site,
            # Of a rewritten graph's call: the model that answered.
            model=about.get("model") or dialect.model_name(ask.source, ask.options),
            provider=about.get("provider") or dialect.provider_name(ask.source),
            request=dialect.request_of(ask.source, ask.messages, options),
            answer=None if message is None else dialect.answer_of(message),
            error=None if error is None else f"{type(error).__name__}: {error}",
            latency_s=answered.latency_s,
            attempt=answered.namespace,
        )

    def _trace_of(self, answered: Answered) -> str:
        """Return the id of the graph run that a call belongs to."""
        run = answered.run
        if run is None:
            return uuid4().hex
        with self._lock:
            # The run is kept, so that its id is not used again meanwhile.
            _, trace_id = self._traces.setdefault(id(run), (run, uuid4().hex))
            self._traces.move_to_end(id(run))
            if len(self._traces) > _REMEMBERED_RUNS:
                self._traces.popitem(last=False)
        return trace_id
