"""Graphs, nodes and edges of any name, rewritten."""

import asyncio
from typing import Any

import pytest
from integration_tests.features.app import State, one
from integration_tests.features.running import MODES, in_order, normal
from langgraph.graph import END, START, StateGraph
from unit_tests.fake_chat import FakeChat

from langchain_slm.rewriting.graphs import rewrite

HELLO = {"text": "hello"}
NAMES = [
    "<script>alert(1)</script>",
    "../../x",
    "",
    " ",
    "é" * 10_000,
    "a/b",
    "/",
    "a#b",
    "#",
    "node#branch",
    "a@b",
    "@",
    "123",
    "0",
    "\n",
    "\x00",
    "%s {name} $x",
    "__error_handler__x",
]
any_name = pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))


def _named(model: Any, name: str, text: str) -> Any:
    """A graph whose node, edge and subgraph's node and edge ask, all of one name."""

    def edge(site: str) -> Any:
        def route(state: State) -> Any:
            model.invoke(f"{site} edge")
            return END if site == "inner" else "sub"

        return route

    def ask(site: str) -> Any:
        return lambda state: {"log": [model.invoke(f"{site} node").text]}

    inner = one(ask("inner"), name=name)
    inner.add_conditional_edges(name, edge("inner"), [END])
    builder = one(ask("outer"), name=name)
    builder.add_node("sub", inner.compile(name=name))
    builder.add_conditional_edges(name, edge("outer"), ["sub"])
    return builder.compile(name=name)


@any_name
@pytest.mark.parametrize("edge", ["route", "branch"])
def test_nodes_and_edges_of_any_name_are_bound(name, edge):
    reference = FakeChat(model_name="reference")
    graph = _named(reference, name, "x")
    sites = {
        name: "outer node",
        f"{name}#{edge}": "outer edge",
        f"sub/{name}": "inner node",
        f"sub/{name}#{edge}": "inner edge",
    }
    targets = {site: FakeChat(model_name=site) for site in sites}
    copied = rewrite(graph, targets)
    for run in (copied.invoke, lambda given: asyncio.run(copied.ainvoke(given))):
        assert run(HELLO) == graph.invoke(HELLO)
    asked = {site: {m[0].text for m in model.asked} for site, model in targets.items()}
    assert asked == {site: {text} for site, text in sites.items()}
    assert [len(model.asked) for model in targets.values()] == [2] * 4


def _drawn(graph: Any, *, xray: bool) -> Any:
    try:
        drawn = graph.get_graph(xray=xray)
    except KeyError as error:
        return repr(error)  # LangGraph's: it takes an empty name for none
    return drawn.draw_mermaid(), normal(drawn.to_json())


@any_name
def test_graphs_of_any_name_are_drawn_and_streamed_alike(name):
    graph = _named(FakeChat(), name, "x")
    copied = rewrite(graph, {})
    assert copied.name == graph.name == (name or "LangGraph")
    assert copied.get_name() == graph.get_name()
    for xray in (False, True):
        assert _drawn(copied, xray=xray) == _drawn(graph, xray=xray)
    streams = [
        in_order([list(each.stream(HELLO, stream_mode=MODES, subgraphs=True))])
        for each in (copied, graph)
    ]
    assert streams[0] == streams[1]


@any_name
def test_a_graph_that_is_added_without_a_name_keeps_its_own(name):
    reference, slm = FakeChat(), FakeChat()
    inner = one(lambda state: {"log": [reference.invoke("x").text]}).compile(name=name)
    builder = StateGraph(State)
    builder.add_node(inner)
    builder.add_edge(START, name or "LangGraph")
    rewrite(builder.compile(), {f"{name or 'LangGraph'}/node": slm}).invoke(HELLO)
    assert (len(reference.asked), len(slm.asked)) == (0, 1)


def test_a_name_that_langgraph_cannot_run_fails_as_before():
    graph = _named(FakeChat(), "\ud800", "x")
    errors = []
    for each in (graph, rewrite(graph, {}), rewrite(graph, {"\ud800": FakeChat()})):
        with pytest.raises(UnicodeEncodeError) as caught:
            each.invoke(HELLO)
        errors.append(str(caught.value))
    assert len(set(errors)) == 1
