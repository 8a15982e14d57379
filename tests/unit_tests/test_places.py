import asyncio
from typing import TypedDict

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, Send

from langchain_slm.routing.places import NOWHERE, SITE_KEY, around, node_names, run_of


class State(TypedDict, total=False):
    text: str


class Noting:
    """A node that notes what surrounds it."""

    def __init__(self) -> None:
        self.seen = []

    def __call__(self, state):
        self.seen.append(around())
        return {}

    @property
    def sites(self):
        return [found.site for found in self.seen]


def graph_of(node, name="agent", **more):
    builder = StateGraph(State)
    builder.add_node(name, node, **more)
    builder.add_edge(START, name)
    return builder


# The site


def test_outside_of_a_graph_there_is_nothing_around():
    assert around() == NOWHERE
    assert around({}) == NOWHERE
    assert around({"metadata": None, "configurable": None}) == (None, False, None, None)


def test_in_a_node_the_site_is_its_name():
    noting = Noting()
    graph_of(noting).compile().invoke({})
    assert noting.sites == ["agent"]
    assert not noting.seen[0].is_named


@pytest.mark.parametrize("checkpointer", [None, True])
def test_in_nested_subgraphs_the_site_is_the_path(checkpointer):
    noting = Noting()
    inner = graph_of(noting, "leaf").compile(checkpointer=checkpointer)
    middle = graph_of(inner, "middle").compile(checkpointer=checkpointer)
    outer = graph_of(middle, "outer").compile(checkpointer=InMemorySaver())
    outer.invoke({}, {"configurable": {"thread_id": "1"}})
    assert noting.sites == ["outer/middle/leaf"]


def test_a_graph_that_a_node_invokes_lies_below_the_node():
    noting = Noting()
    inner = graph_of(noting, "leaf").compile()
    graph_of(lambda state: inner.invoke({}), "outer").compile().invoke({})
    assert noting.sites == ["outer/leaf"]


def test_a_graph_that_a_node_invokes_twice_has_one_site():
    noting = Noting()
    inner = graph_of(noting, "leaf").compile()

    def node(state):
        inner.invoke(state)
        return inner.invoke(state)

    graph_of(node, "outer").compile().invoke({})
    assert noting.sites == ["outer/leaf", "outer/leaf"]


def test_in_an_asynchronous_node_the_site_is_its_name():
    noting = Noting()

    async def node(state):
        await asyncio.sleep(0)
        return noting(state)

    asyncio.run(graph_of(node).compile().ainvoke({}))
    assert noting.sites == ["agent"]


def test_nodes_that_are_sent_to_have_one_site():
    noting = Noting()
    builder = StateGraph(State)
    builder.add_node("worker", noting)
    builder.add_conditional_edges(
        START, lambda state: [Send("worker", {})] * 3, ["worker"]
    )
    builder.compile().invoke({})
    assert noting.sites == ["worker", "worker", "worker"]
    assert len({found.place for found in noting.seen}) == 3


def test_in_a_conditional_edge_the_site_is_the_node_before():
    seen = []

    def choose(state):
        seen.append(around().site)
        return END

    builder = graph_of(lambda state: {})
    builder.add_conditional_edges("agent", choose, [END])
    builder.compile().invoke({})
    assert seen == ["agent"]


def test_in_a_task_the_site_is_below_its_workflow():
    seen = []

    @task
    def step(text):
        seen.append(around().site)
        return text

    @entrypoint()
    def workflow(text):
        seen.append(around().site)
        return step(text).result()

    workflow.invoke("hi")
    assert seen == ["workflow", "workflow/step"]


def test_a_chain_within_a_node_has_the_nodes_site():
    noting = Noting()
    chain = RunnableLambda(lambda state: state) | RunnableLambda(noting)
    graph_of(lambda state: chain.invoke({})).compile().invoke({})
    assert noting.sites == ["agent"]


def test_a_thread_without_the_context_has_the_site_in_its_config():
    seen = []

    def node(state, config):
        token = var_child_runnable_config.set(None)  # as a thread of the app's own
        try:
            seen.append((around().site, around(config).site))
        finally:
            var_child_runnable_config.reset(token)
        return {}

    graph_of(node).compile().invoke({})
    assert seen == [(None, "agent")]


# A name of its own


@pytest.mark.parametrize("key", ["configurable", "metadata"])
def test_a_config_may_name_the_site(key):
    found = around({key: {SITE_KEY: "triage"}})
    assert (found.site, found.is_named) == ("triage", True)


def test_configurable_goes_before_metadata():
    config = {"metadata": {SITE_KEY: "b"}, "configurable": {SITE_KEY: "a"}}
    assert around(config).site == "a"


@pytest.mark.parametrize("key", ["configurable", "metadata"])
def test_an_empty_name_is_none(key):
    found = around({key: {SITE_KEY: ""}})
    assert (found.site, found.is_named) == (None, False)


@pytest.mark.parametrize("key", ["configurable", "metadata"])
def test_the_config_of_a_graph_run_names_the_site_of_all_its_calls(key):
    noting = Noting()
    inner = graph_of(noting, "leaf").compile()
    graph_of(inner, "outer").compile().invoke({}, {key: {SITE_KEY: "triage"}})
    assert noting.sites == ["triage"]
    assert noting.seen[0].is_named


@pytest.mark.parametrize("key", ["configurable", "metadata"])
def test_a_name_given_with_the_call_goes_before_the_node(key):
    seen = []

    def node(state):
        seen.append(around({key: {SITE_KEY: "triage"}}))
        return {}

    graph_of(node).compile().invoke({}, {"configurable": {SITE_KEY: "of the run"}})
    assert seen[0].site == "triage"
    assert seen[0].place[0].startswith("agent:")


# The place that a repeated call has in common, and the run


def test_what_a_nodes_retry_policy_repeats_has_one_place():
    seen = []

    def node(state):
        seen.append(around())
        if len(seen) < 3:
            raise ConnectionError
        return {}

    policy = RetryPolicy(initial_interval=0.001, jitter=False)
    graph_of(node, retry_policy=policy).compile().invoke({})
    assert len(seen) == 3
    assert len({found.place for found in seen}) == 1


def test_a_run_that_is_resumed_is_another_place():
    # Or what a failed run had left would be all that the next one may use.
    noting = Noting()

    def node(state):
        noting(state)
        raise LookupError

    graph = graph_of(node).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for given in ({"text": "hi"}, None):
        with pytest.raises(LookupError):
            graph.invoke(given, config)
    first, second = noting.seen
    assert first.place[0] == second.place[0]  # LangGraph's namespace
    assert first.place != second.place


def test_what_with_retry_repeats_outside_of_a_graph_has_one_place():
    seen = []

    class Model(FakeListChatModel):
        def invoke(self, input, config=None, **kwargs):  # noqa: A002 - the base's
            seen.append(around(config).place)
            if len(seen) < 3:
                raise ConnectionError
            return super().invoke(input, config, **kwargs)

    model = Model(responses=["Rome"])
    retried = model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    retried.invoke("hi")
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0] is not None


def test_two_runs_of_a_graph_are_two_runs_and_places():
    noting = Noting()
    graph = graph_of(noting).compile()
    graph.invoke({})
    graph.invoke({})
    first, second = noting.seen
    assert first.run is not second.run
    assert first.place != second.place


def test_a_subgraph_belongs_to_the_run_of_its_graph():
    outer, inner = Noting(), Noting()
    builder = graph_of(outer, "first")
    builder.add_node("second", graph_of(inner, "leaf").compile())
    builder.add_edge("first", "second")
    builder.compile().invoke({})
    assert outer.seen[0].run is inner.seen[0].run is not None


def test_outside_of_a_graph_there_is_no_run():
    assert run_of({}) is None
    assert run_of({"configurable": None}) is None
    assert around({"metadata": {"a": "b"}}).run is None


def test_a_place_can_be_a_key():
    noting = Noting()
    graph_of(noting).compile().invoke({})
    assert hash(noting.seen[0].place) == hash(noting.seen[0].place)


@pytest.mark.parametrize(
    ("namespace", "names"),
    [
        ("a|b", ("a", "b")),
        ("a:1:2", ("a",)),
        ("a:1|2|b:3|4", ("a", "b")),
        ("ünï:1", ("ünï",)),
    ],
)
def test_odd_namespaces_give_names_too(namespace, names):
    assert node_names(namespace) == names


@pytest.mark.parametrize("place", ["configurable", "metadata"])
def test_a_site_that_is_no_text_is_refused(place):
    with pytest.raises(ValueError, match="names a site by its path"):
        around({place: {"slm_site": 3}})
