import pytest
from unit_tests.watching import Watching

from langchain_slm.rewriting.scoped import joined
from langchain_slm.rewriting.scopes import (
    ANSWERING,
    SCOPE,
    Inside,
    Layer,
    Listed,
    Place,
    Scope,
    entered,
    running,
)

HERE = Place(("a", "b"), "a:1|b:2", "route")


class Guide:
    plan_id = "p"
    fingerprint = None
    sites = ()

    def route(self, site, ask):
        return None


def _config(namespace, **more):
    return {"metadata": {"langgraph_checkpoint_ns": namespace, **more}}


@pytest.mark.parametrize(
    ("namespace", "path", "branch"),
    [
        ("a:1|b:2", ("a", "b"), "route"),
        ("", ("a", "b"), "route"),
        ("a:1", ("a", "b"), "route"),  # the config of the graph around is still about
        ("a:1|b:2|c:3", ("a", "b", "c"), None),
        ("a:1|b:2|1|c:3", ("a", "b", "c"), None),
        ("a|b|c:3", ("a", "b", "c"), None),  # a subgraph with `checkpointer=True`
        ("a|b|1|c:3", ("a", "b", "c"), None),
        ("a|x|c:3", ("a", "b", "a", "x", "c"), None),
        ("a:1|b:22", ("a", "b", "a", "b"), None),  # another run, not below this one
        ("x:9|y:8", ("a", "b", "x", "y"), None),  # a run with a thread of its own
    ],
)
def test_a_namespace_is_placed_as_seen_from_the_node(namespace, path, branch):
    place = HERE.inner(namespace)
    assert (place.path, place.branch) == (path, branch)


@pytest.mark.parametrize("around", ["sub:1", "sub", "sub:1|1", "sub|1"])
def test_the_config_of_a_node_around_does_not_lead_astray(around):
    here = Place(("sub", "agent"), "sub|1|agent:9")
    assert here.inner(around) is here


def test_sites_are_paths_below_the_instrumented_graph():
    assert HERE.site() == "a/b#route"
    assert HERE.site(1) == "b#route"
    assert Place(("a", "b"), "a:1|b:2").site(0) == "a/b"


def test_a_layer_counts_the_nodes_above_its_graph():
    watching, guide = Watching(), Guide()
    layers = [Layer(Scope(watcher=watching), 1), Layer(Scope(guide=guide), 2)]
    scope = entered(layers, None, _config("team:1|math:2|agent:3"))
    assert scope.watchers == ((watching, 2),)
    assert scope.guide == (guide, 1)


def test_the_deeper_of_two_namespaces_says_where_a_call_is():
    scope = entered([], None, _config("a:1"))
    assert scope.where({"langgraph_checkpoint_ns": "a:1|b:2"}).path == ("a", "b")
    assert scope.where({"mine": 1}).path == ("a",)
    assert scope.where(None).path == ("a",)


def test_outside_a_graph_the_function_names_the_place():
    assert entered([], name="triage").place.site() == "triage"


def test_an_edge_of_a_node_is_remembered_in_what_it_calls():
    with Inside(entered([], "route", _config("a:1"))):
        assert entered([], None, _config("a:1")).place.site() == "a#route"
        assert entered([], None, _config("a:1|b:2")).place.site() == "a/b"


def test_a_namespace_finds_what_holds_while_its_node_runs():
    outer = entered([Layer(Scope(watcher=Watching()))], None, _config("a:1"))
    inner = entered([Layer(Scope(watcher=Watching()))], None, _config("a:1"))

    def found(namespace):
        return running({"langgraph_checkpoint_ns": namespace})

    with Listed(outer):
        with Listed(inner):
            assert found("a:1") is outer
        assert found("a:1") is outer
        assert found("a:1|b:2|1|c:3") is outer  # a subgraph that the node invokes
        assert found("a:11") is None
        assert found("") is None
    assert found("a:1") is None


@pytest.mark.parametrize("metadata", [None, {}, {"k": 1}])
def test_nothing_holds_without_a_scope(metadata):
    with Listed(entered([], None, _config("a:1"))):
        assert running(metadata) is None


def test_nothing_holds_while_a_call_is_answered():
    scope = entered([], None, _config("a:1"))
    with Inside(scope):
        assert running({}) is scope
        with Inside(ANSWERING):
            assert running(_config("a:1")["metadata"]) is None
        assert running({}) is scope
    assert SCOPE.get() is None


def test_a_guide_takes_the_place_of_another():
    watcher = Layer(Scope(watcher=Watching()))
    old, new = Layer(Scope(guide=Guide())), Layer(Scope(guide=Guide()))
    assert joined((old, watcher), new) == (watcher, new)
    assert joined((old,), watcher) == (old, watcher)
