"""Rewritten graphs, feature by feature of LangGraph: each site bound, else the same."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import pytest
from integration_tests.features import (
    failing,
    fanning_out,
    injecting,
    pausing,
    prebuilt,
    shaping,
)
from integration_tests.features.running import (
    WAYS,
    Make,
    Models,
    checkpoints,
    in_order,
    new_thread,
    states,
    whoever,
)

from langchain_slm.rewriting.graphs import rewrite

APPS: list[Make] = [
    fanning_out.sends,
    fanning_out.sends_in_a_subgraph,
    fanning_out.commands,
    fanning_out.parents_of_parents,
    fanning_out.gathered,
    fanning_out.two_parents,
    fanning_out.endless,
    fanning_out.endless_subgraph,
    fanning_out.remaining_steps,
    shaping.pydantic_states,
    shaping.dataclass_states,
    shaping.pydantic_refusals,
    shaping.other_schemas,
    shaping.reducers,
    failing.error_handlers,
    failing.handled_subgraphs,
    failing.default_error_handlers,
    failing.retries,
    failing.retried_subgraphs,
    failing.failures,
    pausing.interrupts,
    pausing.breakpoints,
    pausing.paused_subgraphs,
    pausing.parallel_interrupts,
    pausing.memories,
    pausing.own_threads,
    injecting.injection,
    injecting.injected_tools,
    injecting.replaced_metadata,
]
PREBUILT: list[Make] = [
    prebuilt.supervisors,
    prebuilt.structured_supervisors,
    prebuilt.supervised_teams,
    prebuilt.swarms,
    prebuilt.tool_fallbacks,
    prebuilt.subagents,
    prebuilt.paused_tools,
    prebuilt.paused_subagents,
]
# Prebuilt nodes are sync and async by themselves.
ONCE = ("invoke", "stream", "ainvoke", "astream")
# These tell all that a graph does.
TOLD = ("stream", "astream", "astream_events")


def _cases(*ways: str, prebuilt: tuple[str, ...] = ()) -> Any:
    pairs = [(make, way) for make in APPS for way in ways]
    pairs += [(make, way) for make in PREBUILT for way in prebuilt or ways]
    ids = [f"{make.__name__}-{way}" for make, way in pairs]
    return pytest.mark.parametrize(("make", "way"), pairs, ids=ids)


# LangGraph's own: it has moved to LangChain, and works as before.
pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


class Expected(NamedTuple):
    """What came of an original, and how often a model was asked at each site."""

    outcome: list[Any]
    whoever: list[Any]
    states: Any
    checkpoints: Any
    asked: Counter[str]


@cache
def expected(make: Make, way: str) -> Expected:
    models, thread = Models(), new_thread()
    app = models.app(make, WAYS[way].node)
    runs = WAYS[way].run(app, app.graph, thread)
    return Expected(
        in_order(runs),
        in_order(runs, whoever),
        states(app.graph, thread),
        checkpoints(app.graph, thread),
        Counter(site for _, site in models.asked().elements()),
    )


@_cases(*WAYS, prebuilt=ONCE)
def test_each_call_goes_to_the_model_of_its_site(make, way):
    asked = expected(make, way).asked
    models, thread = Models(), new_thread()
    app = models.app(make, WAYS[way].node)
    copied = rewrite(app.graph, models.bind(asked))
    runs = WAYS[way].run(app, copied, thread)
    assert models.asked() == {(site, site): times for site, times in asked.items()}
    assert in_order(runs, whoever) == expected(make, way).whoever


@_cases(*TOLD, prebuilt=("stream", "astream"))
def test_an_empty_plan_changes_nothing(make, way):
    models, thread = Models(), new_thread()
    app = models.app(make, WAYS[way].node)
    copied = rewrite(app.graph, {})
    runs = WAYS[way].run(app, copied, thread)
    original = expected(make, way)
    assert in_order(runs) == original.outcome
    assert states(copied, thread) == original.states
    assert checkpoints(copied, thread) == original.checkpoints
    assert models.asked() == {
        ("reference", site): times for site, times in original.asked.items()
    }


@_cases("stream", "ainvoke", prebuilt=("batch", "ainvoke"))
def test_the_original_runs_as_before_beside_its_copies(make, way):
    models = Models()
    app = models.app(make, WAYS[way].node)
    asked = expected(make, way).asked
    copied = rewrite(app.graph, models.bind(asked))
    graphs = [app.graph, copied] * 2
    with ThreadPoolExecutor(len(graphs)) as pool:
        threads = [new_thread() for _ in graphs]
        runs = list(pool.map(WAYS[way].run, [app] * len(graphs), graphs, threads))
    told = [in_order(run, whoever) for run in runs]
    assert told == [expected(make, way).whoever] * len(graphs)
    assert models.asked() == {
        **{("reference", site): 2 * times for site, times in asked.items()},
        **{(site, site): 2 * times for site, times in asked.items()},
    }
