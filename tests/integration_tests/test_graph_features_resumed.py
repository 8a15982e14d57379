"""Threads that go from a graph to its rewritten copy and back, and into their past."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from integration_tests.features import failing, pausing, prebuilt
from integration_tests.features.app import App, async_node, sync_node
from integration_tests.features.running import (
    WAYS,
    Make,
    Models,
    checkpoints,
    config_of,
    in_a_loop,
    in_order,
    new_thread,
    states,
    whoever,
)
from langgraph.types import StateUpdate

from langchain_slm.rewriting.graphs import rewrite

PAUSING: list[Make] = [
    pausing.interrupts,
    pausing.breakpoints,
    pausing.paused_subgraphs,
    pausing.parallel_interrupts,
    pausing.memories,
]
Asked = Counter[tuple[str, str]]


class Steps(NamedTuple):
    """What came of each input of an app, and who was asked meanwhile."""

    outcomes: list[Any]
    asked: list[Asked]
    states: Any
    checkpoints: Any


def _steps(
    way: str, thread: str, models: Models, graphs: Iterable[tuple[App, Any]]
) -> Steps:
    """Run one input after the other, each on the next graph."""
    outcomes: list[Any] = []
    asked = [Counter(models.asked())]
    kept: Any = None
    for index, (app, graph) in enumerate(graphs):
        step = replace(app, inputs=app.inputs[index : index + 1])
        outcomes += in_order(WAYS[way].run(step, graph, thread), whoever)
        asked.append(models.asked())
        if index == len(app.inputs) - 1:
            kept = states(graph, thread, whoever), checkpoints(graph, thread, whoever)
    during = [after - before for before, after in pairwise(asked)]
    return Steps(outcomes, during, *kept)


@cache
def _original(make: Make, way: str) -> Steps:
    models = Models()
    app = models.app(make, WAYS[way].node)
    return _steps(way, new_thread(), models, [(app, app.graph)] * len(app.inputs))


def _sites(steps: Steps) -> set[str]:
    return {site for each in steps.asked for _, site in each}


def _turns(steps: Steps, *, copy_first: bool) -> list[bool]:
    """Return which steps are run on the copy: every other one."""
    return [bool(index % 2) != copy_first for index in range(len(steps.outcomes))]


def _asked(steps: Steps, on_copy: list[bool]) -> list[Asked]:
    """Return who is to be asked at each step."""
    return [
        Counter({(site if on else "reference", site): n for (_, site), n in step.items()})
        for on, step in zip(on_copy, steps.asked, strict=True)
    ]


either_first = pytest.mark.parametrize("copy_first", [False, True])


@either_first
@pytest.mark.parametrize("way", ["stream", "ainvoke"])
@pytest.mark.parametrize("make", [*PAUSING, failing.failures, pausing.own_threads])
def test_a_thread_goes_on_on_the_copy_and_back(make, way, copy_first):
    original, models = _original(make, way), Models()
    app = models.app(make, WAYS[way].node)
    copied = rewrite(app.graph, models.bind(_sites(original)))
    on_copy = _turns(original, copy_first=copy_first)
    graphs = [(app, copied if each else app.graph) for each in on_copy]
    got = _steps(way, new_thread(), models, graphs)
    assert got == original._replace(asked=_asked(original, on_copy))


def _from_file(
    make: Make, models: Models, on_copy: list[bool], path: Path, sites: set[str]
) -> Iterator[tuple[App, Any]]:
    """Yield for each step what another process has: all is made again but the file."""
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    for each in on_copy:
        with sqlite.SqliteSaver.from_conn_string(str(path)) as saver:
            app = models.app(make, sync_node)
            app.graph.checkpointer = saver
            yield app, rewrite(app.graph, models.bind(sites)) if each else app.graph


@either_first
@pytest.mark.parametrize("make", PAUSING)
def test_a_thread_in_a_file_goes_on_in_another_process(make, copy_first, tmp_path):
    original, models = _original(make, "stream"), Models()
    on_copy = _turns(original, copy_first=copy_first)
    path, sites = tmp_path / "threads.db", _sites(original)
    graphs = _from_file(make, models, on_copy, path, sites)
    got = _steps("stream", new_thread(), models, graphs)
    assert got.outcomes == original.outcomes
    assert got.states == original.states
    assert got.asked == _asked(original, on_copy)


@either_first
def test_a_thread_in_a_file_goes_on_in_a_loop(copy_first, tmp_path):
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite.aio")
    original, models = _original(pausing.interrupts, "ainvoke"), Models()
    on_copy, thread = _turns(original, copy_first=copy_first), new_thread()

    async def step(index: int) -> Any:
        path = str(tmp_path / "threads.db")
        async with sqlite.AsyncSqliteSaver.from_conn_string(path) as saver:
            app = models.app(pausing.interrupts, async_node)
            app.graph.checkpointer = saver
            copied = rewrite(app.graph, models.bind(_sites(original)))
            graph = copied if on_copy[index] else app.graph
            return await graph.ainvoke(app.inputs[index], config_of(thread))

    outcomes = [in_a_loop(step(index)) for index in range(len(on_copy))]
    assert in_order(outcomes, whoever) == original.outcomes
    assert models.asked() == sum(_asked(original, on_copy), Counter())


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
async def test_breakpoints_that_are_given_with_a_run_hold_on_the_copy(where):
    models = Models()
    app = models.app(pausing.breakpoints, sync_node)
    app.graph.interrupt_before_nodes = app.graph.interrupt_after_nodes = ()
    told = []
    for graph in (app.graph, rewrite(app.graph, models.bind(["node", "after"]))):
        config, how = config_of(new_thread()), {where: ["after"]}
        runs = [graph.invoke(app.inputs[0], config, **how)]
        runs.append(await graph.ainvoke(None, config, **how))
        told.append((whoever(runs), graph.get_state(config).next))
    assert told[0] == told[1]
    assert models.asked() == {
        ("reference", "node"): 1,
        ("reference", "after"): 1,
        ("node", "node"): 1,
        ("after", "after"): 1,
    }


# The model that began a loop of tool calls ends it.


@pytest.mark.parametrize("way", ["invoke", "astream"])
@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (
            prebuilt.paused_tools,
            {("reference", "desk/model"): 1, ("desk/tools", "desk/tools"): 1},
        ),
        (
            prebuilt.paused_subagents,
            {("reference", "model"): 1, ("reference", "tools/model:travel"): 1},
        ),
    ],
)
def test_a_loop_of_tool_calls_ends_on_the_model_that_began_it(make, asked, way):
    original, models = _original(make, way), Models()
    app = models.app(make, WAYS[way].node)
    copied = rewrite(app.graph, models.bind(_sites(original)))
    got = _steps(way, new_thread(), models, [(app, app.graph), (app, copied)])
    assert got.outcomes == original.outcomes
    assert got.asked[1] == asked


@pytest.mark.parametrize("way", ["invoke", "astream"])
@pytest.mark.parametrize("make", [prebuilt.paused_tools, prebuilt.paused_subagents])
def test_a_loop_of_tool_calls_that_the_copy_began_goes_on_on_the_original(make, way):
    original, models = _original(make, way), Models()
    app = models.app(make, WAYS[way].node)
    copied = rewrite(app.graph, models.bind(_sites(original)))
    got = _steps(way, new_thread(), models, [(app, copied), (app, app.graph)])
    assert got == original._replace(asked=_asked(original, [True, False]))


# The past.


def _past(graph: Any, thread: str) -> list[Any]:
    """Return where a thread has been, subgraphs included, newest first."""
    found = []
    for state in graph.get_state_history(config_of(thread)):
        found.append(state.config)
        inner = graph.get_state(state.config, subgraphs=True).tasks
        found += [task.state.config for task in inner if hasattr(task.state, "config")]
    return found


def _again(graph: Any, config: Any, way: str) -> Any:
    if way == "invoke":
        return graph.invoke(None, config)
    return in_a_loop(graph.ainvoke(None, config))


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("make", [*PAUSING, failing.failures])
def test_a_copy_runs_again_from_any_point_of_the_past(make, way):
    told = []
    for is_copy in (False, True):
        models, thread = Models(), new_thread()
        app = models.app(make, WAYS[way].node)
        WAYS[way].run(app, app.graph, thread)
        sites = {site for _, site in models.asked()}
        past, before = _past(app.graph, thread), models.asked()
        graph = rewrite(app.graph, models.bind(sites)) if is_copy else app.graph
        assert past == _past(graph, thread)
        runs = [whoever(_again(graph, config, way)) for config in past]
        asked = models.asked() - before
        told.append((runs, sorted(asked.values()), whoever(states(graph, thread))))
        expected = {(site if is_copy else "reference", site) for site in sites}
        assert set(asked) == expected
    assert told[0] == told[1]


@pytest.mark.parametrize("as_node", [None, "node", "__start__"])
def test_a_state_is_edited_on_the_copy_as_on_the_original(as_node):
    told = []
    for is_copy in (False, True):
        models, thread = Models(), new_thread()
        app = models.app(pausing.breakpoints, sync_node)
        WAYS["invoke"].run(app, app.graph, thread)
        graph = rewrite(app.graph, models.bind(["node", "after"]))
        graph = graph if is_copy else app.graph
        past = [state.config for state in graph.get_state_history(config_of(thread))]
        runs = []
        for config in past:
            edited = graph.update_state(config, {"text": "edited"}, as_node=as_node)
            runs.append(graph.invoke(None, edited))
        told.append((whoever(runs), whoever(states(graph, thread))))
    assert told[0] == told[1]


async def test_many_edits_are_made_on_the_copy_as_on_the_original():
    told = []
    for is_copy in (False, True):
        models, thread = Models(), new_thread()
        app = models.app(pausing.memories, async_node)
        graph = rewrite(app.graph, {}) if is_copy else app.graph
        updates = [
            [StateUpdate({"text": "one", "log": ["a"]}, "sub")],
            [StateUpdate({"log": ["b"]}, "sub"), StateUpdate({"log": ["c"]}, "invokes")],
        ]
        edited = await graph.abulk_update_state(config_of(thread), updates)
        ran = await graph.ainvoke({"text": "two"}, edited)
        told.append((whoever(ran), whoever(states(graph, thread)), models.asked()))
    assert told[0] == told[1]
