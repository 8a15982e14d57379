"""Recipes at random: what hypothesis draws.

Deterministic by construction: what would differ between two runs of one and the same
graph is not drawn. Where nodes run at once none fails for good (which of the others are
cancelled is a matter of luck), and models that count their calls are asked by one node at
a time.
"""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from integration_tests.parity.recipes import (
    AGENT_TOOLS,
    ALWAYS,
    ASYNC_FORMS,
    AT_ONCE,
    EDGE_FORMS,
    EXTRAS,
    NAMES,
    SYNC_FORMS,
    TOOLS,
    WAYS,
    Agent,
    Ask,
    Choice,
    Edge,
    Fan,
    Flow,
    Graph,
    Loop,
    Nested,
    Recipe,
    Single,
    Spread,
    Stage,
    Step,
    Tools,
    parts_of,
    renamed,
    uncached,
)
from integration_tests.parity.scripts import ERRORS, Voice


@dataclass(frozen=True)
class Scene:
    """What may be drawn here.

    Attributes:
        models: How many models there are; the last one may fail.
        asynchronous: Parts that need an event loop are allowed.
        racing: Other nodes run at the same time.
        saver: There is a checkpointer.
        depth: Of the graph, at least 1.
        schema: Of its state.
    """

    models: int
    failing: bool
    asynchronous: bool
    saver: bool
    counts: bool = False
    racing: bool = False
    depth: int = 1
    schema: str = "typed"


def seldom(draw: Any, one_in: int = 5) -> bool:
    return draw(st.integers(0, one_in - 1)) == one_in - 1


def asks(scene: Scene, at_most: int = 2) -> st.SearchStrategy[tuple[Ask, ...]]:
    safe = scene.models - 1 if scene.failing and scene.racing else scene.models
    # Where one of several calls at once fails, the others may be made or not.
    ways = [way for way in WAYS if not (scene.failing and way in AT_ONCE)]
    if scene.asynchronous and not scene.failing:
        ways.append("gather")
    each = st.builds(Ask, st.integers(0, max(0, safe - 1)), st.sampled_from(ways))
    return st.lists(each, max_size=at_most).map(tuple)


@st.composite
def steps(draw: Any, scene: Scene) -> Step:
    forms = [*SYNC_FORMS, *(ASYNC_FORMS if scene.asynchronous else ())]
    form = draw(st.sampled_from(forms))
    gives = ["update", "update", "messages", "none", "command", "last"]
    if scene.racing:
        gives.remove("last")  # plain channels take one value per step
    else:
        gives += ["overwrite"] if scene.schema == "typed" else ["overwrite", "object"]
    attempts = draw(st.integers(2, 4)) if seldom(draw, 4) else 0
    fails = draw(st.sampled_from([0, 0, 0, 0, 1, 2, ALWAYS]))
    if scene.racing and fails >= attempts:
        fails = 0
    return Step(
        name=draw(st.sampled_from(NAMES)),
        form=form,
        asks=draw(asks(scene)),
        gives=draw(st.sampled_from(gives)),
        extras=tuple(draw(st.lists(st.sampled_from(EXTRAS), max_size=3, unique=True))),
        takes=draw(st.sampled_from(["state", "config", "runtime", "all"])),
        pauses=draw(st.integers(1, 2)) if scene.saver and seldom(draw, 6) else 0,
        fails=fails,
        error="connection" if scene.racing else draw(st.sampled_from([*ERRORS])),
        catches=draw(st.booleans()),
        attempts=attempts,
        retries="all" if scene.racing else draw(st.sampled_from(["all", "value", "own"])),
        cached=seldom(draw, 4),
        handler=draw(
            st.sampled_from(["", "", "", "update", "asks", "goto"])
            if not scene.racing
            else st.just("")
        ),
        metadata=draw(st.sampled_from(["", "", "says", "replaces"])),
        narrow=seldom(draw, 5),
        timeout=form in ASYNC_FORMS and seldom(draw, 3),
    )


@st.composite
def edges(draw: Any, scene: Scene) -> Edge:
    forms = [*EDGE_FORMS, *(["async_function"] if scene.asynchronous else ())]
    return Edge(
        name=draw(st.sampled_from(["route", "a<b", "x/y", "", "1", "é#"])),
        form=draw(st.sampled_from(forms)),
        asks=tuple(ask for ask in draw(asks(scene, at_most=1)) if ask.way != "task"),
        ends=draw(st.sampled_from(["list", "dict", "literal", "free"])),
    )


def _racing(scene: Scene) -> Scene:
    return replace(scene, racing=True)


@st.composite
def fans(draw: Any, scene: Scene) -> Fan:
    way = draw(st.sampled_from(["waiting", "deferred", "plain"]))
    # A plain join would run beside what is left of a longer chain.
    longest = 1 if way == "plain" else 2
    chain = st.lists(steps(_racing(scene)), min_size=1, max_size=longest).map(tuple)
    return Fan(
        chains=tuple(draw(st.lists(chain, min_size=2, max_size=3))),
        join=draw(steps(scene)),
        way=way,
        clash=seldom(draw, 10) and not scene.racing,
    )


@st.composite
def spreads(draw: Any, scene: Scene) -> Spread:
    return Spread(
        worker=draw(steps(_racing(scene))),
        count=draw(st.integers(0, 3)),
        join=draw(steps(scene)),
        way=draw(st.sampled_from(["edge", "command"])),
        deferred=draw(st.booleans()),
    )


@st.composite
def tool_stages(draw: Any, scene: Scene) -> Tools:
    kinds = st.lists(st.sampled_from(TOOLS), min_size=1, max_size=3, unique=True)
    safe = scene.models - 1 if scene.failing and scene.racing else scene.models
    return Tools(
        name=draw(st.sampled_from(NAMES)),
        kinds=tuple(draw(kinds)),
        model=draw(st.integers(0, max(0, safe - 1))),
        handles=scene.racing or draw(st.booleans()),
        falls_back=seldom(draw, 4),
        asynchronous=scene.asynchronous and draw(st.booleans()),
    )


def _invoking(scene: Scene) -> list[str]:
    found = ["function", "streams"]
    return [*found, "async_function", "async_streams"] if scene.asynchronous else found


@st.composite
def agents(draw: Any, scene: Scene) -> Agent:
    kinds = st.lists(st.sampled_from(AGENT_TOOLS), max_size=2, unique=True)
    safe = scene.models - 1 if scene.failing and scene.racing else scene.models
    return Agent(
        name=draw(st.sampled_from(NAMES)),
        kinds=tuple(draw(kinds)),
        model=draw(st.integers(0, max(0, safe - 1))),
        way=draw(st.sampled_from(["node", "node", *_invoking(scene)])),
        structured=draw(st.booleans()),
        called=draw(st.sampled_from([None, "researcher"])),
    )


@st.composite
def nestings(draw: Any, scene: Scene) -> Nested:
    way = draw(st.sampled_from(["node", "node", *_invoking(scene)]))
    memory = draw(st.sampled_from([None, None, True, False])) if scene.saver else None
    twice = draw(st.sampled_from(["", "", "after", "beside"]))
    if twice == "beside" and scene.counts:
        twice = "after"
    inner = replace(
        scene,
        depth=scene.depth + 1,
        asynchronous=scene.asynchronous and way not in ("function", "streams"),
        saver=scene.saver and memory is not False,
        racing=scene.racing or twice == "beside",
    )
    graph = uncached(draw(graphs(inner)))
    if twice == "beside":
        # Both would write the plain channels.
        graph = replace(graph, narrow_output=True)
    names = [name for name in NAMES if name not in ("1", "")] if memory else NAMES
    return Nested(
        # LangGraph names the checkpoints of a graph with a memory by its node alone: of
        # "" nothing is left, and "1" looks like the number of a call.
        name=draw(st.sampled_from(names)),
        graph=graph,
        way=way,
        twice=twice,
        memory=memory,
        leaves=way == "node" and seldom(draw, 4),
        handler=draw(st.sampled_from(["", "", "update"])) if not scene.racing else "",
    )


def stages(scene: Scene) -> st.SearchStrategy[Stage]:
    edge = edges(scene)
    kinds: list[st.SearchStrategy[Any]] = [
        st.builds(Single, steps(scene)),
        choices(scene),
        st.builds(Loop, steps(scene), edge, st.integers(1, 3), _endless(scene)),
        tool_stages(scene),
        agents(scene),
    ]
    if not scene.counts:
        kinds += [fans(scene), spreads(scene)]
    if scene.depth < 3:
        kinds += [nestings(scene)] * 2
    return st.one_of(kinds)


@st.composite
def choices(draw: Any, scene: Scene) -> Choice:
    ways = ["edge", "edge", "command", *([] if scene.counts else ["parallel_command"])]
    way = draw(st.sampled_from(ways))
    inner = _racing(scene) if way == "parallel_command" else scene
    options = st.tuples(steps(inner), steps(inner))
    return Choice(draw(edges(scene)), draw(options), way)


def _endless(scene: Scene) -> st.SearchStrategy[bool]:
    return st.integers(0, 7).map(lambda n: n == 7 and not scene.racing)


@st.composite
def graphs(draw: Any, scene: Scene) -> Graph:
    schema = draw(st.sampled_from(["typed", "typed", "pydantic", "dataclass"]))
    scene = replace(scene, schema=schema)
    most = {1: 3, 2: 2, 3: 1}[scene.depth]
    found = draw(st.lists(stages(scene), min_size=1, max_size=most))
    places = st.lists(st.integers(0, 5), max_size=2, unique=True).map(tuple)
    stops = scene.saver and seldom(draw, 4)
    defaults = ["retry", "cache"] if scene.racing else ["retry", "cache", "handler"]
    graph = Graph(
        stages=tuple(found),
        schema=schema,
        narrow_input=seldom(draw, 4),
        narrow_output=seldom(draw, 4),
        before=draw(places) if stops else (),
        after=draw(places) if stops else (),
        everywhere=stops and seldom(draw, 4),
        defaults=tuple(draw(st.lists(st.sampled_from(defaults), max_size=2, unique=True)))
        if seldom(draw, 3)
        else (),
        name=draw(st.sampled_from([None, None, "desk", "<b>"])),
    )
    # LangGraph writes to a cache in the background: whether a node that is run again at
    # once finds its result is a matter of luck. What it finds in the next turn is not.
    again = any(isinstance(stage, Loop) for stage in found)
    return uncached(graph) if again else graph


@st.composite
def flows(draw: Any, scene: Scene) -> Flow:
    at_once = draw(st.booleans()) and not scene.counts
    inner = _racing(scene) if at_once else scene
    nested = replace(scene, depth=3)
    flow = Flow(
        tasks=tuple(draw(st.lists(steps(inner), min_size=1, max_size=3))),
        at_once=at_once,
        previous=draw(st.booleans()),
        pauses=draw(st.integers(0, 1)) if scene.saver else 0,
        fails=seldom(draw, 6),
        attempts=draw(st.sampled_from([0, 2])),
        cached=seldom(draw, 3),
        nested=uncached(draw(graphs(nested))) if seldom(draw, 3) else None,
    )
    return uncached(flow) if flow.attempts else flow


@st.composite
def voices(draw: Any, count: int, *, failing: bool, counts: bool) -> tuple[Voice, ...]:
    style = st.sampled_from(["words", "letters", "blocks"])
    found = [Voice(index, draw(style)) for index in range(count)]
    if failing:
        fails = ["first", "nth"] if counts else ["prompt"]
        found[-1] = Voice(
            count - 1,
            style=draw(style),
            fails=draw(st.sampled_from(fails)),
            every=draw(st.integers(1, 3)),
            error=draw(st.sampled_from([*ERRORS])),
            breaks=draw(st.booleans()),
        )
    return tuple(found)


@st.composite
def recipes(draw: Any) -> Recipe:
    """Draw the recipe of an app."""
    failing = seldom(draw, 3)
    counts = failing and draw(st.booleans())
    scene = Scene(
        models=draw(st.integers(2 if failing else 1, 3)),
        failing=failing,
        counts=counts,
        asynchronous=draw(st.booleans()),
        saver=seldom(draw, 4) is False,
    )
    graph = draw(flows(scene) if seldom(draw, 5) else graphs(scene))
    if any(isinstance(part, Agent) and part.called for part in parts_of(graph)):
        # "#" is also what begins an edge in a site, ":" what begins an agent.
        graph = renamed(graph, "a#b", "a-b")
    beside = any(isinstance(p, Nested) and p.twice == "beside" for p in parts_of(graph))
    return Recipe(
        graph=graph,
        voices=draw(voices(scene.models, failing=failing, counts=counts)),
        asynchronous=scene.asynchronous,
        streams=not seldom(draw, 6),
        saver=scene.saver,
        store=not seldom(draw, 4),
        turns=draw(st.integers(1, 2)),
        repeats=draw(st.booleans()),
        goes_on=draw(st.booleans()),
        recursion_limit=40 if beside else draw(st.sampled_from([40, 40, 40, 6])),
        config=seldom(draw, 4),
        durability=draw(st.sampled_from(["async", "sync", "exit"])),
        forks=draw(st.booleans()),
    )
