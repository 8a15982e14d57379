"""What else a rewrite keeps: node caches, streams, configs, time-outs, factories."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from integration_tests.features import fanning_out, injecting, pausing, prebuilt, shaping
from integration_tests.features.app import (
    App,
    State,
    asks,
    async_node,
    at,
    one,
    sync_node,
)
from integration_tests.features.running import (
    MODES,
    Make,
    Models,
    config_of,
    in_order,
    new_thread,
    normal,
    whoever,
)
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.cache.memory import InMemoryCache
from langgraph.errors import GraphRecursionError, NodeError, NodeTimeoutError
from langgraph.graph import START
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy, RetryPolicy, Send, TimeoutPolicy
from unit_tests.fake_chat import FakeChat

from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.chat_router import ChatRouter

HELLO = {"text": "hello"}
# LangGraph's own: it has moved to LangChain, and works as before.
pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


def _says(name: str) -> FakeChat:
    return FakeChat(model_name=name, reply=lambda _: name)


# Node caches that are shared with the original.


def _cached(model: Any, cache: Any) -> Any:
    """A graph whose node, whose subgraph and whose sent tasks are cached."""

    def sent(state: State) -> State:
        return {"log": [model.invoke(at("sent", state["text"])).text]}

    def route(state: State) -> list[Send]:
        return [Send("sent", {"text": text}) for text in ("a", "b")]

    def by_text(state: State) -> str:
        return state["text"]

    sub = one(sync_node(asks(model, "sub/ask")), name="ask").compile()
    policy = CachePolicy(key_func=by_text)
    builder = one(sync_node(asks(model, "node")), cache_policy=CachePolicy(ttl=60))
    builder.add_node("sub", sub, cache_policy=policy)
    builder.add_node("sent", sent, cache_policy=policy, defer=True)
    builder.add_edge("node", "sub")
    builder.add_conditional_edges("sub", route, ["sent"])
    return builder.compile(cache=cache)


CACHED_SITES = ("node", "sub/ask", "sent")


def _invoke(graph: Any) -> Any:
    return graph.invoke(HELLO)["log"]


def _ainvoke(graph: Any) -> Any:
    return asyncio.run(graph.ainvoke(HELLO))["log"]


def _updates(graph: Any) -> Any:
    return in_order([list(graph.stream(HELLO, stream_mode=["updates", "tasks"]))])


@pytest.mark.parametrize("run", [_invoke, _ainvoke])
def test_a_hit_stays_a_hit_and_is_never_another_models(run):
    reference = _says("reference")
    graph = _cached(reference, InMemoryCache())
    models = {name: _says(name) for name in ("one", "two")}
    copies = {
        name: rewrite(graph, dict.fromkeys(CACHED_SITES, model))
        for name, model in models.items()
    }
    for name in ("reference", "one", "two", "one", "reference", "two"):
        assert run(copies.get(name, graph)) == [name] * 5
    asked = [len(model.asked) for model in (reference, *models.values())]
    assert asked == [4, 4, 4]


@pytest.mark.parametrize("copy_first", [False, True])
@pytest.mark.parametrize("run", [_invoke, _ainvoke, _updates])
def test_a_copy_that_binds_nothing_has_the_hits_of_the_original(run, copy_first):
    reference = FakeChat()
    graph = _cached(reference, InMemoryCache())
    graphs = [rewrite(graph, {}), graph] if copy_first else [graph, rewrite(graph, {})]
    first = run(graphs[0])
    asked = len(reference.asked)
    hit = run(graphs[0])
    assert run(graphs[1]) == hit
    assert len(reference.asked) == asked
    assert (hit == first) is (run is not _updates)  # an update says that it is a hit


def test_a_cache_in_a_file_is_shared_safely(tmp_path):
    sqlite = pytest.importorskip("langgraph.cache.sqlite")
    reference, slm = _says("reference"), _says("slm")
    cache = sqlite.SqliteCache(path=str(tmp_path / "cache.db"))
    graph = _cached(reference, cache)
    copied = rewrite(graph, dict.fromkeys(CACHED_SITES, slm))
    for each, name in ((graph, "reference"), (copied, "slm")) * 2:
        assert _invoke(each) == [name] * 5
    cache._conn.close()


# Streams.

STREAMED: list[Make] = [
    fanning_out.commands,
    pausing.paused_subgraphs,
    injecting.injection,
]
TIMES = ("timestamp", "seq")  # `seq` counts the events of nodes that run at once, too


def _both(make: Make, node: Any) -> Iterator[tuple[App, Any]]:
    """Yield an app with its graph, and the same again with a copy that binds nothing."""
    for is_copy in (False, True):
        app = Models().app(make, node)
        yield app, rewrite(app.graph, {}) if is_copy else app.graph


def _streams(app: App, graph: Any, **how: Any) -> list[Any]:
    config = config_of(new_thread())
    return [
        list(graph.stream(given, config, context=app.context, **how))
        for given in app.inputs
    ]


async def _astreams(app: App, graph: Any, **how: Any) -> list[Any]:
    config = config_of(new_thread())
    found = []
    for given in app.inputs:
        stream = graph.astream(given, config, context=app.context, **how)
        found.append([event async for event in stream])
    return found


@pytest.mark.parametrize("mode", [*MODES, "debug", ["updates", "custom"]], ids=str)
@pytest.mark.parametrize("make", STREAMED)
async def test_each_mode_streams_the_same(make, mode):
    one, other = [
        in_order(_streams(app, graph, stream_mode=mode))
        for app, graph in _both(make, sync_node)
    ]
    assert one == other
    one, other = [
        in_order(
            await _astreams(app, graph, stream_mode=mode, subgraphs=True, version="v2")
        )
        for app, graph in _both(make, async_node)
    ]
    assert one == other


@pytest.mark.parametrize("make", [*STREAMED, shaping.pydantic_states])
def test_version_2_gives_the_same_outputs_of_the_same_types(make):
    told = []
    for app, graph in _both(make, sync_node):
        config = config_of(new_thread())
        how = {"context": app.context, "version": "v2"}
        outputs = [graph.invoke(given, config, **how) for given in app.inputs]
        told.append((normal(outputs), [type(each.value) for each in outputs]))
    assert told[0] == told[1]


def _told(events: list[Any]) -> list[Any]:
    return in_order([events], lambda each: normal(each, but=TIMES))


@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
@pytest.mark.parametrize("make", [*STREAMED, prebuilt.paused_tools])
async def test_version_3_gives_the_same_events(make):
    told: list[Any] = []
    for app, graph in _both(make, sync_node):
        config = config_of(new_thread())
        for given in app.inputs:
            how = {"context": app.context, "version": "v3"}
            with graph.stream_events(given, config, **how) as run:
                told.append((_told(list(run)), normal([run.output, run.interrupts])))
    half = len(told) // 2
    assert told[:half] == told[half:]


@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
@pytest.mark.parametrize("make", [*STREAMED, prebuilt.paused_tools])
async def test_version_3_gives_the_same_events_in_a_loop(make):
    told: list[Any] = []
    for app, graph in _both(make, async_node):
        config = config_of(new_thread())
        for given in app.inputs:
            how = {"context": app.context, "version": "v3"}
            async with await graph.astream_events(given, config, **how) as run:
                events = [event async for event in run]
                told.append((_told(events), normal(await run.output())))
    half = len(told) // 2
    assert told[:half] == told[half:]


# Configs.


class Starts(BaseCallbackHandler):
    """Keeps what each run is started with."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def _start(self, *args: Any, **kwargs: Any) -> None:
        names = ("name", "tags", "metadata")
        self.runs.append({name: kwargs.get(name) for name in names})

    on_chain_start = on_chat_model_start = on_tool_start = _start


CONFIGURED: list[Make] = [
    injecting.replaced_metadata,
    injecting.injected_tools,
    fanning_out.gathered,
    prebuilt.supervisors,
]


def _started(app: App, graph: Any, how: Any) -> list[Any]:
    starts = Starts()
    config = {
        **config_of(new_thread()),
        "callbacks": [starts],
        "metadata": {"mine": 1},
        "max_concurrency": 1,
    }
    configured = graph.with_config(tags=["on the graph"], metadata={"graph": 1})
    configured.invoke(app.inputs[0], config, context=app.context)
    return in_order([starts.runs], how)


@pytest.mark.parametrize("make", CONFIGURED)
def test_names_tags_and_metadata_of_all_runs_are_kept(make):
    models = Models()
    app = models.app(make, sync_node)
    original = _started(app, app.graph, normal)
    assert _started(app, rewrite(app.graph, {}), normal) == original
    bound = models.bind({site for _, site in models.asked()})
    assert _started(app, rewrite(app.graph, bound), whoever) == whoever(original)
    assert all(model.asked for model in bound.values())


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_a_run_stops_after_as_many_steps(limit):
    models = Models()
    app = models.app(fanning_out.endless, sync_node)
    graphs = app.graph, rewrite(app.graph, models.bind(["node"]))
    told = []
    for graph in graphs:
        states, config = [], {"recursion_limit": limit}
        with pytest.raises(GraphRecursionError) as caught:
            states.extend(graph.stream(HELLO, config, stream_mode="values"))
        told.append((states, str(caught.value)))
    assert told[0] == told[1]
    assert models.asked() == {("reference", "node"): limit, ("node", "node"): limit}


def test_a_router_knows_its_site_also_where_metadata_is_replaced():
    reference, slm = _says("reference"), _says("slm")
    router = ChatRouter(default=reference, plan={"node": slm})
    chain = router | (lambda message: message.text)
    mine = {"metadata": {"mine": 1}}

    def node(state: State) -> State:
        return {"log": [router.invoke("x", mine).text, chain.invoke("x", mine)]}

    assert _invoke(one(node).compile()) == ["slm", "slm"]


# Time-outs: long enough for a loaded machine to reach the model before they end.

TIMEOUT_S = 2.0


def _stuck(model: Any) -> Any:
    """A graph of a node that answers at the second attempt, and one that never does."""

    async def slow(state: State, runtime: Runtime) -> State:
        said = await model.ainvoke(at("slow", state["text"]))
        if runtime.execution_info.node_attempt == 1:
            await asyncio.sleep(60)
        return {"log": [said.text]}

    async def never(state: State, runtime: Runtime) -> State:
        await model.ainvoke(at("never", state["text"]))
        runtime.heartbeat()
        await asyncio.sleep(60)
        return {}

    async def handler(state: State, error: NodeError) -> State:
        kind = type(error.error).__name__  # its text says how long it took
        said = await model.ainvoke(at("__error_handler__never", kind))
        return {"log": [said.text]}

    again = RetryPolicy(max_attempts=2, retry_on=NodeTimeoutError, initial_interval=0.0)
    idle = TimeoutPolicy(idle_timeout=TIMEOUT_S, refresh_on="heartbeat")
    builder = one(slow, name="slow", timeout=TIMEOUT_S, retry_policy=again)
    builder.add_node("never", never, timeout=idle, error_handler=handler)
    builder.add_edge(START, "never")
    return builder.compile()


async def test_nodes_time_out_as_before():
    models = Models()
    graph = _stuck(models.source)
    asked = {"slow": 2, "never": 1, "__error_handler__never": 1}
    copied = rewrite(graph, models.bind(asked))
    coming = [each.ainvoke(HELLO) for each in (graph, copied)]
    one, other = await asyncio.gather(*coming)
    assert sorted(one["log"]) == sorted(other["log"])
    assert "echo [__error_handler__never] NodeTimeoutError" in one["log"]
    assert models.asked() == {
        **{("reference", site): times for site, times in asked.items()},
        **{(site, site): times for site, times in asked.items()},
    }


# At once, in one loop.


@pytest.mark.parametrize(
    "make",
    [
        fanning_out.sends,
        fanning_out.gathered,
        fanning_out.two_parents,
        injecting.replaced_metadata,
        prebuilt.subagents,
    ],
)
async def test_an_original_and_its_copies_run_at_once_in_one_loop(make):
    models = Models()
    app = models.app(make, async_node)
    given, context = app.inputs[0], app.context
    alone = whoever(await app.graph.ainvoke(given, context=context))
    asked = models.asked()
    copied = rewrite(app.graph, models.bind({site for _, site in asked}))
    graphs = [app.graph, copied, rewrite(app.graph, {})] * 3
    coming = [graph.ainvoke(given, context=context) for graph in graphs]
    assert [whoever(out) for out in await asyncio.gather(*coming)] == [alone] * 9
    assert models.asked() == {
        **{("reference", site): 7 * times for (_, site), times in asked.items()},
        **{(site, site): 3 * times for (_, site), times in asked.items()},
    }


# Factories.


def make_graph(config: RunnableConfig) -> Any:
    """Return a graph whose model and shape depend on the config, as servers ask it."""
    configurable = config["configurable"]
    model = _says(configurable["model"])
    builder = one(sync_node(asks(model, "node")))
    if configurable.get("twice"):
        builder.add_node("again", sync_node(asks(model, "again")))
        builder.add_edge("node", "again")
    return builder.compile(name=configurable["model"])


def test_what_a_factory_returns_is_rewritten_each_time():
    slm = _says("slm")
    configs = [{"model": "a"}, {"model": "b", "twice": True}]
    graphs = [make_graph({"configurable": config}) for config in configs]
    copies = [rewrite(graph, {"node": slm}) for graph in graphs]
    assert [_invoke(copied) for copied in copies] == [["slm"], ["slm", "b"]]
    assert [copied.name for copied in copies] == ["a", "b"]
    assert [_invoke(graph) for graph in graphs] == [["a"], ["b", "b"]]
