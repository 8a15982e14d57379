"""`apply_plan`: one line in an app's own source."""

import asyncio
import inspect
import warnings
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import get_type_hints

import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from unit_tests.fake_chat import FakeChat
from unit_tests.planned import decision, plan
from unit_tests.watching import one_node

from langchain_slm import Router, apply_plan
from langchain_slm.errors import PlanError, PlanOutdatedError, RewriteError
from langchain_slm.routing.plan_file import write_plan


def said(text):
    return FakeChat(model_name=text, reply=lambda _: text)


@pytest.fixture
def built():
    model = said("reference")
    return one_node(lambda state: {"log": [model.invoke(state["text"]).text]})


SLM = {"node": said("slm")}


def answer(graph):
    return graph.invoke({"text": "x"})["log"]


def test_a_graph_or_a_builder_is_rewritten(built):
    assert answer(apply_plan(built.compile(), SLM)) == ["slm"]
    assert answer(apply_plan(built, SLM).compile()) == ["slm"]
    assert answer(built.compile()) == ["reference"]


def test_a_factory_makes_rewritten_graphs_and_keeps_its_signature(built):
    seen = []

    def make_graph(config: RunnableConfig):
        seen.append(config)
        return built.compile()

    made = apply_plan(make_graph, SLM)
    assert answer(made({"tags": ["t"]})) == ["slm"]
    assert seen == [{"tags": ["t"]}]
    assert inspect.signature(made) == inspect.signature(make_graph)
    assert made.__name__ == "make_graph"
    assert answer(make_graph({})) == ["reference"]


async def test_an_async_factory_stays_one(built):
    async def make_graph(config: RunnableConfig):
        return built.compile()

    made = apply_plan(make_graph, SLM)
    assert inspect.iscoroutinefunction(made)
    graph = await made({})
    assert (await graph.ainvoke({"text": "x"}))["log"] == ["slm"]


def test_a_factory_may_return_an_awaitable(built):
    async def later():
        return built.compile()

    made = apply_plan(partial(later), SLM)
    assert answer(asyncio.run(made())) == ["slm"]


def test_context_managers_are_entered_and_left(built):
    steps = []

    @contextmanager
    def make_graph():
        steps.append("entered")
        try:
            yield built.compile()
        except ZeroDivisionError:
            steps.append("failed")
        steps.append("left")

    made = apply_plan(make_graph, SLM)
    with made() as graph:
        assert answer(graph) == ["slm"]
    with made():
        _ = 1 / 0
    assert steps == ["entered", "left", "entered", "failed", "left"]


async def test_async_context_managers_are_entered_and_left(built):
    steps = []

    @asynccontextmanager
    async def make_graph(config):
        steps.append("entered")
        yield built.compile()
        steps.append("left")

    async with apply_plan(make_graph, SLM)({}) as graph:
        assert (await graph.ainvoke({"text": "x"}))["log"] == ["slm"]
    assert steps == ["entered", "left"]


def test_the_graphs_of_a_factory_share_one_router(built):
    router = Router(SLM)
    made = apply_plan(built.compile, router)
    for _ in range(3):
        assert answer(made()) == ["slm"]
    assert [counted.calls for counted in router.counters()] == [3]


def test_an_app_that_starts_without_its_graph_still_does(caplog):
    with pytest.warns(UserWarning, match="there is no graph, but None"):
        assert apply_plan(None, SLM) is None
    assert "there is no graph" in caplog.text
    with pytest.raises(RewriteError, match="not a NoneType"):
        apply_plan(None, SLM, strict=True)


@pytest.mark.parametrize("thing", [5, "graph", RunnableLambda(lambda x: x)])
def test_what_makes_no_graph_is_refused(thing):
    with pytest.raises(RewriteError, match="a graph, or a function that makes one"):
        apply_plan(thing, SLM)


def test_a_factory_of_something_else_runs_as_it_is(built, caplog):
    chain = built.compile() | RunnableLambda(lambda state: state["log"])
    made = apply_plan(lambda: chain, SLM)
    with pytest.warns(UserWarning, match="no plan is applied.*RunnableSequence"):
        assert made() is chain
    assert "no plan is applied" in caplog.text
    with pytest.raises(RewriteError, match="RunnableSequence"):
        apply_plan(lambda: chain, SLM, strict=True)()


def test_the_app_starts_without_a_plan_that_cannot_be_used(built, tmp_path, caplog):
    graph = built.compile()
    missing = tmp_path / "slm-plan.json"
    with pytest.warns(UserWarning, match="calls the app's own model: .*no plan") as told:
        assert apply_plan(graph, missing) is graph
    assert told[0].filename == __file__
    assert "no plan is applied" in caplog.text
    with pytest.raises(PlanError):
        apply_plan(graph, missing, strict=True)


MODULE = """
from langchain_slm import apply_plan
from unit_tests.test_applying import one_node, said

model = said("ref")
graph = one_node(lambda state: {"log": [model.invoke("x").text]}).compile()
graph = apply_plan(graph, "slm-plan.json")
"""


def test_a_plan_beside_the_file_is_found_from_any_folder(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write_plan(plan(decision("node"), decision("gone")), tmp_path / "slm-plan.json")
    found = {"__file__": str(tmp_path / "app.py"), "__name__": "app"}
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with pytest.warns(UserWarning, match="binds site 'gone'"):
        exec(compile(MODULE, "app.py", "exec"), found)  # noqa: S102 - as an app would run


def test_else_it_is_looked_for_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    write_plan(plan(decision("node")), tmp_path / "slm-plan.json")
    found = {"__file__": str(tmp_path / "src" / "app.py"), "__name__": "app"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(MODULE, "app.py", "exec"), found)  # noqa: S102 - as an app would run


def test_a_plan_of_another_version_is_refused_where_that_is_asked_for(built):
    graph = built.compile()
    with pytest.raises(PlanOutdatedError, match=r"site 'gone'.*convert again") as caught:
        apply_plan(graph, {**SLM, "gone": said("slm")}, strict=True)
    (difference,) = caught.value.fields["differences"]
    assert "site 'gone', which this graph does not have" in difference
    with pytest.warns(UserWarning, match="site 'gone'"):
        found = apply_plan(graph, {**SLM, "gone": said("slm")})
    assert answer(found) == ["slm"]


def test_an_app_that_raises_warnings_starts_all_the_same(built, tmp_path, caplog):
    graph = built.compile()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert apply_plan(graph, tmp_path / "none.json") is graph
        assert answer(apply_plan(graph, {**SLM, "gone": said("slm")})) == ["slm"]
    assert "no plan is applied" in caplog.text
    assert "site 'gone'" in caplog.text


def test_generators_of_a_graph_stay_generators(built):
    steps = []

    def dependency(config):
        try:
            yield built.compile()
        except ZeroDivisionError:
            steps.append("failed")
        steps.append("left")

    made = apply_plan(dependency, SLM)
    assert inspect.isgeneratorfunction(made)
    graphs = made({})
    assert answer(next(graphs)) == ["slm"]
    assert list(graphs) == []
    with contextmanager(made)({}):
        _ = 1 / 0
    assert steps == ["left", "failed", "left"]


async def test_async_generators_of_a_graph_stay_async_generators(built):
    async def dependency():
        yield built.compile()

    made = apply_plan(dependency, SLM)
    assert inspect.isasyncgenfunction(made)
    (graph,) = [graph async for graph in made()]
    assert (await graph.ainvoke({"text": "x"}))["log"] == ["slm"]


def test_a_context_manager_is_left_where_its_graph_is_refused(built):
    steps = []

    @contextmanager
    def make_graph():
        try:
            yield built.compile()
        finally:
            steps.append("left")

    made = apply_plan(make_graph, {"gone": said("slm")}, strict=True)
    with pytest.raises(PlanOutdatedError), made():
        steps.append("entered")
    assert steps == ["left"]


def test_a_wrong_hook_is_refused_before_a_factory_is_called(built):
    with pytest.raises(ValueError, match="hooks are a collection of"):
        apply_plan(built.compile, SLM, hooks=("thread",))


class Maker:
    def __init__(self, built):
        self._built = built

    def __call__(self, config: RunnableConfig):
        return self._built.compile()

    async def later(self, config: RunnableConfig):
        return self._built.compile()


def test_methods_and_callable_objects_are_factories(built):
    maker = Maker(built)
    assert answer(apply_plan(maker, SLM)({})) == ["slm"]
    later = apply_plan(maker.later, SLM)
    assert get_type_hints(later) == {"config": RunnableConfig}
    assert answer(asyncio.run(later(config={}))) == ["slm"]
