from functools import partial

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from unit_tests.watching import State, one_node

from langchain_slm.rewriting.sites import (
    branch_sites,
    fingerprint,
    node_paths,
    unknown_sites,
)
from langchain_slm.routing.places import node_names


def _step(state):
    return {"log": ["step"]}


def _route(state):
    return END


def _nested():
    inner = one_node(_step, name="agent")
    inner.add_conditional_edges("agent", _route, [END])
    outer = StateGraph(State)
    outer.add_node("math", inner.compile())
    outer.add_node("reply", _step)
    outer.add_conditional_edges(START, partial(_route), ["math", END])
    outer.add_conditional_edges("math", _route, ["reply", END])
    return outer


@pytest.mark.parametrize(
    ("namespace", "names"),
    [
        ("", ()),
        ("agent:4f1c", ("agent",)),
        ("math:4f1c|agent:77aa", ("math", "agent")),
        ("math:4f1c|1|agent:77aa", ("math", "agent")),
        ("math|1|agent:77aa", ("math", "agent")),
        ("1:4f1c", ("1",)),
        (":4f1c", ("",)),
        ("a/b:4f1c", ("a/b",)),
    ],
)
def test_a_namespace_gives_the_names_of_its_nodes(namespace, names):
    assert node_names(namespace) == names


@pytest.mark.parametrize("compiled", [False, True])
def test_nodes_of_subgraphs_are_found_and_compiled_graphs_are_no_leaves(compiled):
    graph = _nested().compile() if compiled else _nested()
    assert dict(node_paths(graph)) == {"math": False, "math/agent": True, "reply": True}


@pytest.mark.parametrize("compiled", [False, True])
def test_conditional_edges_have_sites_even_at_the_start(compiled):
    graph = _nested().compile() if compiled else _nested()
    assert set(branch_sites(graph)) == {
        "__start__#condition",
        "math#_route",
        "math/agent#_route",
    }


def test_only_sites_that_cannot_be_reached_are_unknown():
    sites = (
        "math/agent",
        "reply",
        "reply/invoked-inside",  # below a function may be anything
        "math#_route",
        "math#branch",  # any of its branches
        "__start__#condition",
        "nobody",
        "math/typo",  # below a compiled graph is nothing else
        "reply#_route",  # no such edge
        "mathematics",
    )
    unknown = ["nobody", "math/typo", "reply#_route", "mathematics"]
    assert unknown_sites(sites, _nested().compile()) == unknown


def test_a_default_error_handler_is_a_site_before_and_after_compiling():
    builder = one_node(_step).set_node_defaults(error_handler=_step)
    before = dict(node_paths(builder)), fingerprint(builder)
    compiled = builder.compile()
    assert before[0] == {"__default_error_handler__": True, "node": True}
    assert (dict(node_paths(compiled)), fingerprint(compiled)) == before


def test_the_functional_api_has_sites():
    @task
    def ask(question):
        return question

    @entrypoint()
    def flow(question):
        return ask(question).result()

    assert dict(node_paths(flow)) == {"flow": True}
    assert unknown_sites(("flow", "flow/ask", "ask"), flow) == ["ask"]
    assert len(fingerprint(flow)) == 64


def test_a_fingerprint_is_that_of_the_compiled_graph():
    assert fingerprint(_nested()) == fingerprint(_nested().compile())


def _renamed_inner_node():
    outer = StateGraph(State)
    outer.add_node("math", one_node(_step, name="other").compile())
    outer.add_node("reply", _step)
    return outer


def _with_edge(*edge):
    graph = _nested()
    graph.add_edge(*edge)
    return graph


def _with_branch():
    graph = _nested()
    graph.add_conditional_edges("reply", _route, [END])
    return graph


def _with_inner_edge():
    inner = one_node(_step, name="agent")
    inner.add_edge("agent", END)
    outer = StateGraph(State)
    outer.add_node("math", inner.compile())
    return outer


def _inner():
    outer = StateGraph(State)
    outer.add_node("math", one_node(_step, name="agent").compile())
    return outer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_nested(), _renamed_inner_node()),
        (_nested(), _with_edge("reply", END)),
        (_nested(), _with_edge(["math", "reply"], END)),
        (_nested(), _with_branch()),
        (_inner(), _with_inner_edge()),
    ],
    ids=["inner node", "edge", "waiting edge", "branch", "inner edge"],
)
def test_a_fingerprint_changes_with_nodes_edges_and_branches(one, other):
    assert fingerprint(one) != fingerprint(other)
