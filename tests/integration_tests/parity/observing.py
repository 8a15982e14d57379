"""Runs an app to its end and tells all that can be seen of it.

In which order events are compared: exactly as they came, where a graph runs one node at
a time. Where nodes or calls run at once, their events are sorted by the task they belong
to, and keep their order within it. The same where the app reads a model's stream under a
deadline: a stream is then read ahead (docs/routing.md, "Time"), so that the tokens of
`stream_mode="messages"` may come before what the node wrote on reading an earlier one.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from integration_tests.parity.building import Made
from integration_tests.parity.hearing import Ear
from integration_tests.parity.normal import Names, normal, written
from integration_tests.parity.recipes import Flow
from integration_tests.parity.scripts import RUN, Run
from langgraph.types import Command, StateSnapshot

MODES = ("values", "updates", "messages", "custom", "checkpoints", "tasks", "debug")
MOST_SEGMENTS = 8  # of one run: a start, and what goes on after pauses and errors
INPUTS = ("Hello", "Once more")
PAUSES = ("interrupts", "__interrupt__")


@dataclass(frozen=True)
class Way:
    """How a graph is run.

    Attributes:
        asynchronous: In an event loop.
        modes: Of the stream: one, several, or None for `invoke`.
        subgraphs: Whether their events are streamed.
        version: Of the stream's parts.
    """

    asynchronous: bool = False
    modes: str | tuple[str, ...] | None = MODES
    subgraphs: bool = True
    version: str = "v1"


@dataclass
class Seen:
    """What was seen of a run.

    Attributes:
        normal: All that is compared.
        run: What was counted.
    """

    normal: dict[str, Any]
    run: Run


def observe(
    made: Made,
    graph: Any,
    way: Way,
    *,
    in_order: bool | None = None,
    next_graph: Any = None,
) -> Seen:
    """Run `graph`, an app made as `made`, and return what was seen.

    Args:
        made: The app; `graph` may be a copy of its graph.
        graph: What to run.
        way: How.
        in_order: Whether events come in one order; None to see by the recipe.
        next_graph: What runs every second segment, in the place of `graph`.
    """
    made.cache.clear()
    run = Run()
    graphs = [graph, next_graph or graph]
    session = _Session(made, graphs, way)

    def all_of_it() -> None:
        RUN.set(run)
        if way.asynchronous:
            asyncio.run(session.arun())
        else:
            session.run()

    copy_context().run(all_of_it)
    ordered = not made.recipe.races if in_order is None else in_order
    return Seen(_told(session, run, ordered=ordered), run)


class _Session:
    """One thread of conversation with an app."""

    def __init__(self, made: Made, graphs: list[Any], way: Way) -> None:
        self.made, self.graphs, self.way = made, graphs, way
        self.thread = str(uuid.uuid4())
        self.segments: list[dict[str, Any]] = []
        self.history: Any = None
        self.latest: Any = None
        self.ear = Ear()

    @property
    def graph(self) -> Any:
        return self.graphs[len(self.segments) % 2]

    def _config(self, at: Any = None) -> dict[str, Any]:
        """Return the config of the thread, or of one of its checkpoints."""
        found = (at or {}).get("configurable", {})
        return {
            "configurable": {"thread_id": self.thread, **found},
            "recursion_limit": self.made.recipe.recursion_limit,
            "callbacks": [self.ear],
        }

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"context": {"user": "ada"}}
        if self.made.saver is not None:
            options["durability"] = self.made.recipe.durability
        if self.way.version == "v2":
            options["version"] = "v2"
        if self.way.modes is not None:
            modes = self.way.modes
            options["stream_mode"] = modes if isinstance(modes, str) else list(modes)
            options["subgraphs"] = self.way.subgraphs
        return options

    def run(self) -> None:
        """Run the app to its end, and then its past again."""
        for given in self._inputs():
            self._play(given)
        if self.made.saver is not None:
            get = partial(self.graph.get_state_history, self._config())
            self.history = _tried(lambda: list(get()))
            for at, edit in self._forks():
                edited = _tried(lambda at=at, e=edit: self.graph.update_state(at, e))
                self._play(None, edited if isinstance(edited, dict) else at)

    def _play(self, given: Any, at: Any = None) -> None:
        events: list[Any] = []
        error, state, config = None, None, self._config(at)
        try:
            if self.way.modes is None:
                events.append(self.graph.invoke(given, config, **self._options()))
            else:
                events.extend(self.graph.stream(given, config, **self._options()))
        except Exception as raised:  # noqa: BLE001 - it is what is compared
            error = raised
        if self.made.saver is not None:
            get = partial(self.graph.get_state, self._config(), subgraphs=True)
            state = _tried(get)
        self._took(given, events, error, state)

    async def arun(self) -> None:
        """Run the app to its end, and then its past again."""
        for given in self._inputs():
            await self._aplay(given)
        if self.made.saver is not None:
            self.history = await _atried(self._ahistory())
            for at, edit in self._forks():
                edited = await _atried(self.graph.aupdate_state(at, edit))
                await self._aplay(None, edited if isinstance(edited, dict) else at)

    async def _ahistory(self) -> list[Any]:
        found = self.graph.aget_state_history(self._config())
        return [state async for state in found]

    async def _aplay(self, given: Any, at: Any = None) -> None:
        events: list[Any] = []
        error, state, config = None, None, self._config(at)
        try:
            if self.way.modes is None:
                done = await self.graph.ainvoke(given, config, **self._options())
                events.append(done)
            else:
                stream = self.graph.astream(given, config, **self._options())
                async for event in stream:
                    events.append(event)  # noqa: PERF401 - what came before an error counts
        except Exception as raised:  # noqa: BLE001 - it is what is compared
            error = raised
        if self.made.saver is not None:
            get = self.graph.aget_state(self._config(), subgraphs=True)
            state = await _atried(get)
        self._took(given, events, error, state)

    def _took(self, given: Any, events: list[Any], error: Any, state: Any) -> None:
        self.latest = state
        segment = {"input": given, "events": events, "error": error, "state": state}
        self.segments.append(segment)

    def _inputs(self) -> Iterator[Any]:
        """Yield the first input, then what goes on: answers, nothing, the next turn."""
        recipe, errors = self.made.recipe, 0
        for index in range(recipe.turns):
            text = INPUTS[0 if recipe.repeats else index]
            yield self._input(text)
            for _ in range(MOST_SEGMENTS):
                failed = self.segments[-1]["error"] is not None
                errors += failed
                if not isinstance(self.latest, StateSnapshot) or not self.latest.next:
                    break
                if failed and (errors > 1 or not recipe.goes_on):
                    break
                yield self._resumption(self.latest)

    def _forks(self) -> Iterator[tuple[Any, Any]]:
        """Yield a checkpoint of the past, and what to change there."""
        recipe = self.made.recipe
        # Of nodes at once the past can have some done: then another one may fail.
        if recipe.races or not recipe.forks or not isinstance(self.history, list):
            return
        going_on = [state for state in self.history if state.next]
        if going_on:
            yield going_on[len(going_on) // 2].config, {"text": "Edited"}

    def _input(self, text: str) -> Any:
        if isinstance(self.made.recipe.graph, Flow):
            return text
        return {"text": text, "log": []}

    def _resumption(self, state: Any) -> Any:
        pending = state.interrupts
        if not pending:
            return None
        if len(pending) == 1:
            return Command(resume=f"yes to {pending[0].value}")
        return Command(resume={each.id: f"yes to {each.value}" for each in pending})


def _told(session: _Session, run: Run, *, ordered: bool) -> dict[str, Any]:
    names = Names(told_apart=ordered)
    events = [
        _events(segment["events"], session.way, names, ordered=ordered)
        for segment in session.segments
    ]
    calls = [[call.voice, call.prompt, call.options] for call in run.calls]
    told: dict[str, Any] = {
        "inputs": normal([each["input"] for each in session.segments], names),
        "events": events,
        "errors": [_error(each["error"], names) for each in session.segments],
        "states": normal([each["state"] for each in session.segments], names),
        "history": normal(session.history, names),
        "checkpoints": [_checkpoint(each, names) for each in _checkpoints(session)],
        "attempts": list(map(list, run.attempts)),
        "calls": normal(calls, names),
        "store": normal(_stored(session), names),
        "heard": _heard(session, names, ordered=ordered),
    }
    if not ordered:
        for name in ("attempts", "calls", "store", "checkpoints"):
            told[name] = sorted(told[name], key=repr)
        # Ids that cannot be told apart are keys of resumptions.
        told["inputs"] = sorted(map(repr, told["inputs"]))
        return {name: _in_any_order(part) for name, part in told.items()}
    return told


def _heard(session: _Session, names: Names, *, ordered: bool) -> list[Any]:
    heard = session.ear.heard
    if ordered and not session.made.recipe.branches:
        told: list[Any] = normal(heard, names)
        return told
    # Where one branch of a RunnableParallel fails, another may have ended before.
    kinds = ("chain ends", "chain fails") if session.made.recipe.branches else ()
    kept = [event for event in heard if event[0] not in kinds]
    return sorted(normal(kept, Names(told_apart=False)), key=repr)


def _in_any_order(value: Any, key: Any = None) -> Any:
    """Return a normal value with its interrupts sorted: nodes at once pause by luck."""
    if isinstance(value, dict):
        return {name: _in_any_order(each, name) for name, each in value.items()}
    if isinstance(value, list):
        parts = [_in_any_order(each) for each in value]
        return sorted(parts, key=repr) if key in PAUSES else parts
    return value


def _error(error: BaseException | None, names: Names) -> Any:
    return None if error is None else [type(error).__name__, normal(str(error), names)]


def _events(events: list[Any], way: Way, names: Names, *, ordered: bool) -> list[Any]:
    if ordered or way.modes is None:
        return [normal(event, names) for event in events]
    groups: dict[Any, list[Any]] = {}
    for index, event in enumerate(events):
        key = _task_of(event, way) or index
        groups.setdefault(key, []).append(normal(event, names))
    return sorted(groups.values(), key=repr)


def _task_of(event: Any, way: Way) -> Any:
    """Return what the events of one task have in common; None for one on its own."""
    if way.version == "v2":
        space, mode, data = event["ns"], event["type"], event["data"]
    else:
        several = not isinstance(way.modes, str)
        parts = event if several or way.subgraphs else (event,)
        space = parts[0] if way.subgraphs else ()
        mode = parts[-2] if several else way.modes
        data = parts[-1]
    if mode == "messages":
        message, metadata = data
        return space, mode, metadata.get("langgraph_checkpoint_ns"), message.id
    if mode == "tasks":
        return space, mode, data["id"]
    if mode == "debug" and "id" in data["payload"]:
        return space, mode, data["payload"]["id"]
    paused = isinstance(data, dict) and "__interrupt__" in data
    if mode == "values" and (paused or way.version == "v2"):
        return None  # nodes at once pause in any order
    return (space, mode) if mode in ("values", "checkpoints", "debug") else None


def _checkpoints(session: _Session) -> list[Any]:
    """Return what the checkpointer holds, of subgraphs too."""
    saver = session.made.saver
    if saver is None:
        return []
    return list(saver.list({"configurable": {"thread_id": session.thread}}))


def _checkpoint(found: Any, names: Names) -> Any:
    told = found._asdict()
    writes: dict[str, list[Any]] = {}
    for task, channel, value in told.pop("pending_writes") or ():
        writes.setdefault(task, []).append([channel, written(value)])
    # By content: the ids of tasks are different each time. And a builder holds its edges
    # in a set, so that the order of those of one node is different in a copy of it.
    by_task = [sorted(each, key=_is_edge) for each in writes.values()]
    return {**normal(told, names), "writes": sorted(by_task, key=repr)}


def _is_edge(write: list[Any]) -> str:
    return write[0] if write[0].startswith("branch:to:") else ""


def _stored(session: _Session) -> list[Any]:
    store = session.made.store
    if store is None:
        return []
    spaces = [("seen", session.thread), ("seen", "none")]
    found = [item for space in spaces for item in store.search(space, limit=1000)]
    for item in store.search(("seen", "none"), limit=1000):
        store.delete(item.namespace, item.key)  # what a run without a thread left
    return [[item.namespace, item.key, item.value] for item in found]


def _tried(tell: Callable[[], Any]) -> Any:
    try:
        return tell()
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return error


async def _atried(coming: Awaitable[Any]) -> Any:
    try:
        return await coming
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return error
