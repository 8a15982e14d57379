"""Every way in which a graph holds its models, against an endpoint that counts.

The ways are small apps in the folder `ways`; each is run, invoked, streamed and batched,
as it is and rewritten.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import pytest
from integration_tests.ways import calling, choosing, holding, nesting, prebuilt
from integration_tests.ways.edge import Asked, Edge
from integration_tests.ways.way import Way
from langchain_core.messages import BaseMessage
from pydantic import BaseModel
from unit_tests import planned

from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.router import Router
from langchain_slm.schema import Binding, Decision

pytestmark = [
    # LangChain dumps the answers that OpenAI's client parsed, and adds up missing counts.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore:Unexpected type for token usage"),
]

Make = Callable[[], Way]
WAYS: list[Make] = [
    make
    for module in (holding, choosing, calling, nesting, prebuilt)
    for make in module.WAYS
]
NOT_SYNCHRONOUS = (TypeError, NotImplementedError, RuntimeError)
NO_MODEL = ""  # a message that a node made itself
SINGLE_MODES = ["invoke", "ainvoke", "stream", "astream"]
MODES = [*SINGLE_MODES, "batch", "abatch"]
SYNC_MODES = ["invoke", "stream", "batch"]


@dataclass
class Seen:
    """What one run of a graph came to.

    Attributes:
        asked: The requests that the endpoint got, by site and model.
        results: Final states, or the error.
        streamed: Each message that was streamed: the model that the metadata names, its
            text and the number of its chunks with text.
    """

    asked: Asked
    results: list[Any]
    streamed: list[tuple[str, str, int]]


def _plain(value: Any) -> Any:
    """Return what was said, without ids, counts of tokens and the number of the run."""
    if isinstance(value, BaseMessage):
        calls = [(c["name"], c["args"]) for c in getattr(value, "tool_calls", ())]
        return _plain([value.type, value.text, calls])
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return re.sub(r"(?i)(bergen) \d+", r"\1", value) if isinstance(value, str) else value


_MODEL = re.compile(r"(gpt|down)-\w+|slm\w*\[\S+?\]", re.IGNORECASE)


def anonymous(value: Any) -> Any:
    """Return `value` without the names of models."""
    if isinstance(value, dict):
        return {key: anonymous(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [anonymous(each) for each in value]
    return _MODEL.sub("MODEL", value) if isinstance(value, str) else value


def _streamed(events: list[Any]) -> list[tuple[str, str, int]]:
    """Return the messages among the events of a stream, each whole."""
    found: dict[Any, tuple[str, list[str]]] = {}
    for _, mode, event in events:
        if mode == "messages":
            chunk, metadata = event
            model = metadata.get("ls_model_name", NO_MODEL)
            found.setdefault((chunk.id, model), (model, []))[1].append(chunk.text)
    whole = [
        (model, _plain("".join(texts)), sum(map(bool, texts)))
        for model, texts in found.values()
    ]
    return sorted(whole)


async def _ask(mode: str, graph: Any, value: Any, **how: Any) -> tuple[list[Any], Any]:
    modes = {"stream_mode": ["messages", "values"], "subgraphs": True}
    if mode == "invoke":
        return [graph.invoke(value, **how)], []
    if mode == "ainvoke":
        return [await graph.ainvoke(value, **how)], []
    if mode == "batch":
        return graph.batch([value, value], **how), []
    if mode == "abatch":
        return await graph.abatch([value, value], **how), []
    if mode == "stream":
        events = list(graph.stream(value, **how, **modes))
    else:
        events = [event async for event in graph.astream(value, **how, **modes)]
    last = [event for path, kind, event in events if kind == "values" and not path]
    return last[-1:], _streamed(events)


async def arun(mode: str, way: Way, graph: Any, edge: Edge) -> Seen:
    """Ask a graph in one of the modes."""
    number, question = edge.question()
    how: dict[str, Any] = {"config": {**way.config}, "context": way.context}
    try:
        results, streamed = await _ask(mode, graph, way.ask(question), **how)
    except NOT_SYNCHRONOUS as error:
        if not (way.is_async and mode in SYNC_MODES):
            raise
        results, streamed = [(type(error), str(error))], []
    return Seen(edge.asked_in(number), [_plain(each) for each in results], streamed)


def run(mode: str, way: Way, graph: Any, edge: Edge) -> Seen:
    """Ask a graph in one of the modes; in a synchronous one without a loop."""
    coming = arun(mode, way, graph, edge)
    return _without_a_loop(coming) if mode in SYNC_MODES else asyncio.run(coming)


def _without_a_loop(coming: Any) -> Any:
    try:
        coming.send(None)
    except StopIteration as ended:
        return ended.value
    msg = "a synchronous mode waits for something"
    raise AssertionError(msg)


def by_site(site: str, model: str = "", copy: str = "") -> str:
    """Return the name of a target: of a site, or of one model that is called there."""
    return f"slm{copy}[{site}|{model}]" if model else f"slm{copy}[{site}]"


class Made:
    """A way, and what it did before there were any copies of it."""

    def __init__(self, make: Make, edge: Edge) -> None:
        self.edge, self.way = edge, make()
        self.before = self.run(self.way.graph)

    def run(self, graph: Any, modes: Sequence[str] = MODES) -> dict[str, Seen]:
        """Ask a graph in each of the modes."""
        return {mode: run(mode, self.way, graph, self.edge) for mode in modes}


def mapped(way: Way, edge: Edge, copy: str = "", **how: Any) -> Any:
    """Return a copy in which a mapping binds each site to a target of its own."""
    mapping = {site: edge.openai(by_site(site, copy=copy)) for site in way.calls}
    return rewrite(way.graph, mapping, **how)


Calls = tuple[tuple[str, str], ...]


def calls_of(way: Way) -> Calls:
    """Return the site and the model of all calls that a way makes."""
    return tuple((site, model) for site, models in way.calls.items() for model in models)


def decided(site: str, model: str, edge: Edge, target: str = "", **how: Any) -> Decision:
    """Return the decision that binds a model of a site to a target."""
    spec = planned.spec(target or by_site(site, model), base_url=edge.url)
    binding = Binding(model=spec, **how)
    return planned.decision(site, spec.name, reference=model, binding=binding)


@cache  # a client of its own takes a while
def planned_router(calls: Calls, edge: Edge) -> Router:
    """Return what a plan says that binds each of these models of these sites."""
    decisions = [decided(site, m, edge, escalation="never") for site, m in calls]
    return Router(planned.plan(*decisions))


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with pytest.MonkeyPatch.context() as patch, Edge() as endpoint:
        for provider in ("OPENAI", "NVIDIA"):
            patch.setenv(f"{provider}_BASE_URL", endpoint.url)
            patch.setenv(f"{provider}_API_KEY", "any")
        yield endpoint
        assert endpoint.asked_in(0) == {}  # all requests are accounted for


@pytest.fixture(scope="module", params=WAYS, ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest, edge: Edge) -> Made:
    return Made(request.param, edge)


@pytest.fixture(scope="module")
def after(made: Made, edge: Edge) -> dict[str, Seen]:
    """What a copy does in which each site has a target of its own."""
    return made.run(mapped(made.way, edge))


def asked(runs: dict[str, Seen]) -> dict[str, Asked]:
    return {mode: seen.asked for mode, seen in runs.items()}


def said(runs: dict[str, Seen]) -> dict[str, Any]:
    return {mode: anonymous(seen.results) for mode, seen in runs.items()}


def renamed(asked: Asked, name: Callable[[str, str], str]) -> Asked:
    """Return the requests, as asked of other models."""
    found: Asked = Counter()
    for (site, model), times in asked.items():
        found[site, name(site, model)] += times
    return found


def expected(made: Made, name: Callable[[str, str], str]) -> dict[str, Asked]:
    """Return the requests of the original, as asked of other models."""
    return {mode: renamed(seen.asked, name) for mode, seen in made.before.items()}


def test_an_app_calls_the_models_that_it_is_said_to_call(made: Made):
    for mode, seen in made.before.items():
        if made.way.is_async and mode in SYNC_MODES:
            assert seen.results[0][0] in NOT_SYNCHRONOUS
        else:
            assert set(seen.asked) == set(calls_of(made.way))


def test_each_site_calls_its_target_and_nothing_else(made: Made, after: dict[str, Seen]):
    assert asked(after) == expected(made, lambda site, _: by_site(site))
    assert said(after) == said(made.before)


def test_tokens_are_those_of_the_target(made: Made, after: dict[str, Seen]):
    targets = {by_site(site) for site in made.way.calls}
    for mode in ("stream", "astream"):
        streamed = after[mode].streamed
        before = made.before[mode].streamed
        assert sorted(anonymous(streamed)) == sorted(anonymous(before))
        assert {name for name, _, _ in streamed} <= {*targets, NO_MODEL}
        for name, text, _ in streamed:
            signed = re.match(r"(\S+) says: ", text)
            assert name in (NO_MODEL, signed[1] if signed else name)


def test_the_original_does_as_before(made: Made, after: dict[str, Seen]):
    for mode, seen in made.run(made.way.graph, ["invoke", "astream"]).items():
        assert seen == made.before[mode]


def test_a_plan_binds_each_model_of_a_site(made: Made, edge: Edge):
    router = planned_router(calls_of(made.way), edge)
    runs = made.run(rewrite(made.way.graph, router))
    assert asked(runs) == expected(made, by_site)
    assert said(runs) == said(made.before)


def test_an_empty_plan_changes_nothing(made: Made):
    copy = rewrite(made.way.graph, planned.plan())
    for mode, seen in made.run(copy, SINGLE_MODES).items():
        assert seen == made.before[mode]


@pytest.mark.parametrize(
    "make",
    [
        holding.closure,
        holding.closure_of_nvidia_async,
        holding.structured_output,
        choosing.init_chat_model_with_a_queued_schema,
        calling.generator_node_async,
        prebuilt.agent_with_tools,
        prebuilt.agent_that_reports_by_a_tool,
        prebuilt.agent_that_reports_by_its_provider,
    ],
)
def test_a_target_may_be_a_model_of_nvidia(make: Make, edge: Edge):
    made = Made(make, edge)
    mapping = {site: edge.nvidia(by_site(site)) for site in made.way.calls}
    runs = made.run(rewrite(made.way.graph, mapping))
    assert asked(runs) == expected(made, lambda site, _: by_site(site))
    assert said(runs) == said(made.before)


def test_a_target_may_be_named(edge: Edge):
    graph = rewrite(holding.closure().graph, {"node": "openai:slm"})
    assert run("invoke", holding.closure(), graph, edge).asked == {("node", "slm"): 1}


# A plan and what it does not decide on.


@pytest.mark.parametrize(
    "make",
    [
        holding.several_models_in_one_node,
        choosing.named_by_the_config,
        choosing.named_by_the_context,
        choosing.init_chat_model_with_another_than_the_default,
        choosing.configurable_alternatives,
        choosing.named_by_the_call,
        prebuilt.agent_with_a_model_of_its_middleware,
        prebuilt.agent_with_another_model_for_the_results_of_tools,
        prebuilt.agent_that_selects_its_tools,
        prebuilt.react_agent_with_a_callable_model,
    ],
)
def test_a_plan_leaves_a_model_alone_that_it_did_not_decide_on(make: Make, edge: Edge):
    made = Made(make, edge)
    only = tuple((site, "gpt-large") for site in made.way.calls)
    runs = made.run(rewrite(made.way.graph, planned_router(only, edge)))

    def name(site: str, model: str) -> str:
        return by_site(site, model) if model == "gpt-large" else model

    assert asked(runs) == expected(made, name)


FALLING_BACK = [*calling.FALLING_BACK, *prebuilt.FALLING_BACK]


@pytest.mark.parametrize("mode", SINGLE_MODES)
@pytest.mark.parametrize("make", FALLING_BACK)
def test_a_backup_is_not_rerouted_by_a_plan(make: Make, mode: str, edge: Edge):
    way = make()
    (site,) = way.calls
    before = run(mode, way, way.graph, edge)
    assert before.asked == {(site, "down-large"): 1, (site, "gpt-spare"): 1}
    good = rewrite(way.graph, planned.plan(decided(site, "down-large", edge)))
    assert run(mode, way, good, edge).asked == {(site, by_site(site, "down-large")): 1}
    bad = rewrite(
        way.graph, planned.plan(decided(site, "down-large", edge, target="down-slm"))
    )
    found = run(mode, way, bad, edge)
    assert found.asked == {(site, "down-slm"): 1, **before.asked}
    assert found.results == before.results


# Out of reach.


@pytest.mark.parametrize("make", calling.OUT_OF_REACH)
def test_a_call_out_of_reach_keeps_its_model(make: Make, edge: Edge):
    made = Made(make, edge)
    assert set(made.before["ainvoke"].asked) == set(calls_of(made.way))
    assert made.run(mapped(made.way, edge)) == made.before


@pytest.mark.parametrize("make", calling.OUT_OF_REACH)
def test_hooks_that_are_asked_for_reach_further(make: Make, edge: Edge):
    made = Made(make, edge)
    runs = made.run(mapped(made.way, edge, hooks=("openai_sdk", "threads")))
    assert asked(runs) == expected(made, lambda site, _: by_site(site))


# At the same time.


@dataclass
class Job:
    """A graph that is run among others."""

    way: Way
    graph: Any
    copy: str | None

    def expected(self, original: Seen) -> tuple[Asked, Any]:
        asked = original.asked
        if self.copy is not None:
            asked = renamed(asked, lambda site, _: by_site(site, copy=self.copy or ""))
        return asked, anonymous(original.results)


def _jobs(edge: Edge, makes: list[Make]) -> list[list[Job]]:
    """Return each way with two rewritten copies."""
    ways = [make() for make in makes]
    return [
        [
            Job(way, way.graph, None),
            Job(way, mapped(way, edge, "A"), "A"),
            Job(way, mapped(way, edge, "B"), "B"),
        ]
        for way in ways
    ]


def _shuffled(jobs: list[list[Job]]) -> list[Job]:
    every = [job for each in jobs for job in each]
    Random(7).shuffle(every)  # noqa: S311 - no secret is drawn
    return every


def _without_cross_talk(jobs: list[list[Job]], seen: dict[int, Seen]) -> None:
    for each in jobs:
        original = seen[id(each[0])]
        assert original.asked
        for job in each:
            found = seen[id(job)]
            assert (found.asked, anonymous(found.results)) == job.expected(original)


def test_originals_and_copies_run_at_once_in_threads(edge: Edge):
    jobs = _jobs(edge, WAYS)

    def do(job: Job) -> tuple[int, Seen]:
        mode = "ainvoke" if job.way.is_async else "invoke"
        return id(job), run(mode, job.way, job.graph, edge)

    with ThreadPoolExecutor(12) as pool:
        _without_cross_talk(jobs, dict(pool.map(do, _shuffled(jobs))))


async def test_originals_and_copies_run_at_once_in_one_loop(edge: Edge):
    jobs = _jobs(edge, WAYS[::3])
    few = asyncio.Semaphore(12)

    async def do(job: Job) -> tuple[int, Seen]:
        async with few:
            return id(job), await arun("ainvoke", job.way, job.graph, edge)

    found = await asyncio.gather(*map(do, _shuffled(jobs)))
    _without_cross_talk(jobs, dict(found))
