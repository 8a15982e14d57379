"""Ways to run an app, what came of it without ids and times, and who was asked."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple
from uuid import uuid4

from integration_tests.features.app import App, Function, async_node, site_of, sync_node
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.types import Send
from pydantic import BaseModel
from unit_tests.fake_chat import FakeChat

from langchain_slm.routing.dialect import METADATA_KEY

MODES = ["values", "updates", "messages", "custom", "tasks", "checkpoints"]
# What differs between two runs of one graph: ids, times, places in memory.
_VARIES = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.+]+"
    r"|0x[0-9a-f]+"
)
INTERRUPT = "__interrupt__"
# What an answer says of who gave it.
_WHO = ("model_name", "ls_model_name", METADATA_KEY)
SHORT = 10  # characters; less than any id, time or place
Make = Callable[[Any, Function], App]


class Models:
    """The model of an app, and those to bind: they say the same, and count.

    Attributes:
        source: What the app calls.
        targets: What is bound, by site.
    """

    def __init__(self) -> None:
        self.source = self.model("reference")
        self.targets: dict[str, Any] = {}

    def model(self, name: str) -> Any:
        """Return a new model of this name, which asks this object what to say."""
        return FakeChat(model_name=name, reply=lambda messages: self.reply(messages))  # noqa: PLW0108 - it changes

    @staticmethod
    def reply(messages: list[BaseMessage]) -> AIMessage | str:
        """Return what all models say, unless an app brings its own."""
        return f"echo {messages[-1].text}"

    def app(self, make: Make, node: Function) -> App:
        """Return a new app that calls `source`."""
        app = make(self.source, node)
        if app.reply is not None:
            self.reply = app.reply
        return app

    def bind(self, sites: Collection[str]) -> dict[str, Any]:
        """Return a target for each of `sites`, always the same."""
        for site in sites:
            if site not in self.targets:
                self.targets[site] = self.model(site)
        return {site: self.targets[site] for site in sites}

    def asked(self) -> Counter[tuple[str, str]]:
        """Return how often which model was asked at which site, as the prompts say."""
        models = [self.source, *self.targets.values()]
        return Counter(
            (model.model_name, site_of(messages))
            for model in models
            for messages in model.asked
        )


class Way(NamedTuple):
    """A way to run a graph: how its nodes are written, and what runs them."""

    node: Function
    run: Callable[[App, Any, str], list[Any]]


def normal(value: Any, *, but: Collection[str] = ()) -> Any:
    """Return `value` without what varies from run to run, and without the keys `but`."""
    if isinstance(value, str):
        return value if len(value) < SHORT else _VARIES.sub("*", value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict):
        items = {key: each for key, each in value.items() if key not in but}
        if isinstance(found := items.get(INTERRUPT), list | tuple):
            items[INTERRUPT] = sorted(found, key=repr)  # of nodes that run at once
        return {normal(key): normal(each, but=but) for key, each in items.items()}
    if isinstance(value, list | tuple):
        return [normal(each, but=but) for each in value]
    is_record = is_dataclass(value) and not isinstance(value, type)
    if isinstance(value, Send | BaseModel) or is_record:
        return type(value).__name__, normal(_fields(value), but=but)
    return _VARIES.sub("*", repr(value))


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseMessage):
        # LangGraph gives ids in place, maybe before a checkpoint is written.
        return {**vars(value), "id": value.id or "*"}
    if isinstance(value, Send):
        return {"node": value.node, "arg": value.arg}
    is_model = isinstance(value, BaseModel)
    names = type(value).model_fields if is_model else [f.name for f in fields(value)]
    return {name: getattr(value, name) for name in names}


def whoever(value: Any) -> Any:
    """Return what came of a run without who answered."""
    return normal(value, but=_WHO)


def new_thread() -> str:
    return str(uuid4())


def config_of(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}, "tags": ["run"], "run_name": "run"}


def _given(value: Any, graph: Any, thread: str) -> Any:
    return value(graph.get_state(config_of(thread))) if callable(value) else value


def in_a_loop(coming: Coroutine[Any, Any, Any]) -> Any:
    """Run in a new loop, without what `asyncio.run` spends on signals."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coming)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _each(app: App, run: Callable[[Any], Any]) -> list[Any]:
    found: list[Any] = []
    for value in app.inputs:
        try:
            found.append(run(value))
        except app.raises as error:
            found.append(error)  # the next input goes on from there
    return [_told(each) for each in found]


def _told(found: Any) -> Any:
    if isinstance(found, list):
        return [_told(each) for each in found]
    if isinstance(found, Exception):
        return type(found).__name__, str(found), str(getattr(found, "__notes__", ""))
    return found


def invoke(app: App, graph: Any, thread: str) -> list[Any]:
    def run(value: Any) -> Any:
        value = _given(value, graph, thread)
        return graph.invoke(value, config_of(thread), context=app.context)

    return _each(app, run)


def ainvoke(app: App, graph: Any, thread: str) -> list[Any]:
    def run(value: Any) -> Any:
        value = _given(value, graph, thread)
        coming = graph.ainvoke(value, config_of(thread), context=app.context)
        return in_a_loop(coming)

    return _each(app, run)


def _batched(app: App, graph: Any, thread: str) -> Callable[[Any], dict[str, Any]]:
    threads = [f"{thread}-{index}" for index in range(2)]
    return lambda value: {
        "inputs": [_given(value, graph, each) for each in threads],
        "config": [config_of(each) for each in threads],
        "context": app.context,
        "return_exceptions": True,
    }


def batch(app: App, graph: Any, thread: str) -> list[Any]:
    how = _batched(app, graph, thread)
    return _each(app, lambda value: graph.batch(**how(value)))


def abatch(app: App, graph: Any, thread: str) -> list[Any]:
    how = _batched(app, graph, thread)
    return _each(app, lambda value: in_a_loop(graph.abatch(**how(value))))


def _streamed(app: App, graph: Any, thread: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {
        "input": _given(value, graph, thread),
        "config": config_of(thread),
        "context": app.context,
    }


def stream(app: App, graph: Any, thread: str) -> list[Any]:
    how = _streamed(app, graph, thread)

    def run(value: Any) -> list[Any]:
        events: list[Any] = []
        try:
            events.extend(graph.stream(**how(value), stream_mode=MODES, subgraphs=True))
        except app.raises as error:
            events.append(error)
        return events

    return _each(app, run)


def _gathering(app: App, start: Callable[[Any], AsyncIterator[Any]]) -> list[Any]:
    async def run(value: Any) -> list[Any]:
        events: list[Any] = []
        try:
            async for event in start(value):
                events.append(event)  # noqa: PERF401 - kept also where it fails
        except app.raises as error:
            events.append(error)
        return events

    return _each(app, lambda value: in_a_loop(run(value)))


def astream(app: App, graph: Any, thread: str) -> list[Any]:
    how = _streamed(app, graph, thread)
    modes: dict[str, Any] = {"stream_mode": MODES, "subgraphs": True}
    return _gathering(app, lambda value: graph.astream(**how(value), **modes))


def aevents(app: App, graph: Any, thread: str) -> list[Any]:
    how = _streamed(app, graph, thread)
    start = graph.astream_events
    return _gathering(app, lambda value: start(**how(value), version="v2"))


WAYS = {
    "invoke": Way(sync_node, invoke),
    "stream": Way(sync_node, stream),
    "batch": Way(sync_node, batch),
    "ainvoke": Way(async_node, ainvoke),
    "astream": Way(async_node, astream),
    "abatch": Way(async_node, abatch),
    "sync nodes in a loop": Way(sync_node, ainvoke),
    "astream_events": Way(async_node, aevents),
}


def in_order(runs: list[Any], how: Callable[[Any], Any] = normal) -> list[Any]:
    """Return what came of runs; nodes that run at once report in any order."""
    told = [how(each) for each in runs]
    return [sorted(each, key=repr) if isinstance(each, list) else each for each in told]


def states(graph: Any, thread: str, how: Callable[[Any], Any] = normal) -> Any:
    """Return a thread's states, newest first, with those of its subgraphs."""
    if not getattr(graph, "checkpointer", None):
        return None
    config = {"configurable": {"thread_id": thread}}
    latest = graph.get_state(config, subgraphs=True)
    return how([latest, list(graph.get_state_history(config))])


def checkpoints(graph: Any, thread: str, how: Callable[[Any], Any] = normal) -> Any:
    """Return what the checkpointer keeps of a thread and its subgraphs, in any order."""
    if not getattr(graph, "checkpointer", None):
        return None
    kept = graph.checkpointer.list({"configurable": {"thread_id": thread}})
    return sorted((_kept(each, how) for each in kept), key=repr)


def _kept(saved: Any, how: Callable[[Any], Any]) -> list[Any]:
    namespace = saved.config["configurable"]["checkpoint_ns"]
    values = saved.checkpoint["channel_values"]
    writes = [how(write[1:]) for write in saved.pending_writes or ()]
    return [*how([namespace, values, saved.metadata]), sorted(writes, key=repr)]
