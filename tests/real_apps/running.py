"""Runs a graph to its end, whatever it asks of a human, and notes what happened."""

import asyncio
import copy
import random
import signal
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from real_apps.endpoint import Endpoint, Requested
from real_apps.observing import Probe, Started, node_path, plain

WAYS = ("async", "sync", "streamed")
MOST_RESUMES = 8
SEEN = ("values", "updates", "custom")
_STREAMED = ("values", "messages")  # the mode for which models stream their tokens


@dataclass(frozen=True)
class Settings:
    """What every run of a graph is given.

    Attributes:
        given: Its input.
        config: Added to the config of each run.
        context: The run's context; None for none.
        resume: What a human answers to each interrupt.
        timeout_s: Seconds after which a run is given up.
    """

    given: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    resume: Any = "ok"
    timeout_s: float = 120.0


@dataclass(frozen=True)
class Run:
    """What a run did, without ids and times.

    Attributes:
        state: The values at the end.
        events: What was streamed: path, mode and value; sorted, since branches race.
        interrupts: What it asked of a human.
        error: What it failed with; None if it did not.
        started: Its calls of chat models.
        requested: The requests that reached the endpoint.
    """

    state: Any
    events: list[Any]
    interrupts: list[Any]
    error: str | None
    started: list[Started]
    requested: list[Requested]

    def outcome(self) -> dict[str, Any]:
        """Return what must be equal where the same models answer."""
        return {
            "state": self.state,
            "interrupts": self.interrupts,
            "error": self.error,
            "calls": sorted(map(list, self.started)),
            "requests": sorted([r.model, r.protocol, r.host] for r in self.requested),
            "events": self.events,
        }


class Runs:
    """Runs graphs in one event loop: clients that an app keeps are bound to it."""

    def __init__(
        self, endpoint: Endpoint, settings: Settings, runner: asyncio.Runner
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._runner = runner

    def run(self, graph: Any, way: str) -> Run:
        """Run `graph`, with a checkpointer and a store of its own if it has none."""
        graph = _served(graph)
        probe, noted = Probe(), _Noted()
        self._endpoint.taken()
        random.seed(0)  # for apps that draw
        config = self._config(probe)
        error = None
        try:
            with _at_most(self._settings.timeout_s):
                if way == "sync":
                    self._sync(graph, config, noted)
                else:
                    self._runner.run(self._async(graph, config, way, noted))
        except Exception as raised:  # noqa: BLE001 - an app may raise anything, also alike
            error = plain(f"{type(raised).__name__}: {raised}{_place(raised)}")
        requested = self._endpoint.taken()
        return noted.run(error, probe.started, requested)

    def _config(self, probe: Probe) -> dict[str, Any]:
        given = dict(self._settings.config)
        configurable = {"thread_id": str(uuid4()), **given.pop("configurable", {})}
        return {
            "recursion_limit": 60,
            **given,
            "configurable": configurable,
            "callbacks": [probe],
        }

    def _options(self, way: str) -> dict[str, Any]:
        modes = list(_STREAMED if way == "streamed" else SEEN)
        context = self._settings.context
        more = {} if context is None else {"context": context}
        return {"stream_mode": modes, "subgraphs": True, **more}

    def _sync(self, graph: Any, config: Any, noted: "_Noted") -> None:
        payload = copy.deepcopy(self._settings.given)
        for _ in range(MOST_RESUMES):
            for event in graph.stream(payload, config, **self._options("sync")):
                noted.take(*event)
            payload = noted.reply(self._settings.resume)
            if payload is None:
                return

    async def _async(self, graph: Any, config: Any, way: str, noted: "_Noted") -> None:
        payload = copy.deepcopy(self._settings.given)
        for _ in range(MOST_RESUMES):
            events: AsyncIterator[Any] = graph.astream(
                payload, config, **self._options(way)
            )
            async for event in events:
                noted.take(*event)
            payload = noted.reply(self._settings.resume)
            if payload is None:
                return


def _place(error: BaseException) -> str:
    """Return where in the app's own code an error was raised."""
    here = str(Path.cwd())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if here in f.filename]
    return f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _served(graph: Any) -> Any:
    """Return the graph as a server would run it, the one given untouched."""
    clone = copy.copy(graph)
    if clone.checkpointer in (None, True):
        clone.checkpointer = InMemorySaver()
    if clone.store is None:
        clone.store = _AnyValue()
    return clone


class _AnyValue(InMemoryStore):
    """Takes any value, not only dicts: as stores did when many apps were written."""

    def _apply_put_ops(self, put_ops: Any) -> None:
        bare = {at: op for at, op in put_ops.items() if isinstance(op.value, str)}
        held = {at: op._replace(value={"": op.value}) for at, op in bare.items()}
        super()._apply_put_ops({**put_ops, **held})
        for (namespace, key), op in bare.items():
            self._data[namespace][key].value = op.value


class _Noted:
    """What a run has streamed so far."""

    def __init__(self) -> None:
        self._state: Any = None
        self._events: list[Any] = []
        self._tokens: dict[str, str] = {}
        self._interrupts: list[Any] = []
        self._open: dict[str, Any] = {}

    def take(self, namespace: tuple[str, ...], mode: str, value: Any) -> None:
        path = node_path("|".join(namespace))
        if mode == "messages":
            message, about = value
            where = f"{path}:{(about or {}).get('langgraph_node')}"
            if "AIMessage" in type(message).__name__:
                self._tokens[where] = self._tokens.get(where, "") + str(message.text)
            return
        if mode == "values" and not namespace:
            self._state = plain(value)
        found = value.get("__interrupt__", ()) if isinstance(value, dict) else ()
        self._open |= {each.id: each for each in found}
        self._events.append([path, mode, plain(value)])

    def reply(self, answer: Any) -> Command[Any] | None:
        """Return what answers all interrupts since the last time; None for none."""
        if not self._open:
            return None
        asked, self._open = self._open, {}
        self._interrupts += [plain(each.value) for each in asked.values()]
        return Command(resume=dict.fromkeys(asked, answer))

    def run(self, error: str | None, started: Any, requested: Any) -> Run:
        tokens = [[path, "messages", plain(said)] for path, said in self._tokens.items()]
        events = sorted([*self._events, *tokens], key=str)
        interrupts = sorted(self._interrupts, key=str)
        return Run(self._state, events, interrupts, error, started, requested)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise a TimeoutError in the main thread after `seconds`."""

    def late(*_: object) -> None:
        msg = f"not done after {seconds:g} s"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def first(found: Iterator[Any], most: int = 8) -> list[str]:
    """Return the first few of what was found, as text."""
    return [str(each) for each in islice(found, most)]
