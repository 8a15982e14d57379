"""A rewritten graph is the same graph in every respect but the models.

Random apps are made of what LangGraph offers (`parity/drawing.py` draws their recipes,
`parity/building.py` makes them), with models that follow a script. Every site is bound
to a twin of its model, which says the same, or nothing is bound at all. Then everything
that can be seen of a run is compared with the original's (`parity/observing.py`). What
may differ is said, with its reason, in `parity/normal.py`, and where failures are meant
to end otherwise in `parity/checking.py`.

The examples are the same in each run of the suite. A long search draws others each time:

    SLM_PARITY_EXAMPLES=2000 nice pytest -q tests/integration_tests/test_parity.py

tries 2,000 apps in the first property and fewer in the others, in proportion. What fails
is made smaller and printed as a recipe, to be pasted into a call of `check`.
"""

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration_tests.parity.building import make
from integration_tests.parity.checking import (
    Rewriting,
    check,
    check_at_once,
    check_in_turns,
    check_looks,
)
from integration_tests.parity.drawing import recipes
from integration_tests.parity.mistakes import LOOKS, MISTAKES
from integration_tests.parity.observing import MODES, Way, observe
from integration_tests.parity.recipes import (
    ALWAYS,
    Ask,
    Edge,
    Graph,
    Loop,
    Nested,
    Recipe,
    Single,
    Step,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, StateGraph
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import State, one_node

from langchain_slm.rewriting.graphs import rewrite

EXAMPLES = int(os.environ.get("SLM_PARITY_EXAMPLES", "0"))
THREAD = {"configurable": {"thread_id": "t1"}}
USUAL = 80  # apps of the first property: about a quarter of a second each

WAYS = st.builds(
    Way,
    asynchronous=st.booleans(),
    modes=st.sampled_from([None, MODES, MODES, ("messages", "updates"), *MODES]),
    subgraphs=st.booleans(),
    version=st.sampled_from(["v1", "v1", "v2"]),
)
REWRITINGS = st.builds(
    Rewriting,
    plan=st.sampled_from(["empty", "mapping", "strict"]),
    through=st.sampled_from(["compiled", "compiled", "builder", "again"]),
    copy_first=st.booleans(),
)


def searching(share: float) -> Any:
    """Return the settings of a property that tries a share of the apps."""
    return settings(
        max_examples=max(1, round((EXAMPLES or USUAL) * share)),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),  # an example is a whole app
        print_blob=bool(EXAMPLES),
    )


def _able(recipe: Recipe, way: Way) -> Way:
    """Return the way in which an app can be run."""
    return replace(way, asynchronous=way.asynchronous or recipe.asynchronous)


@searching(1)
@given(recipes(), WAYS, REWRITINGS)
def test_a_rewritten_graph_does_the_same(recipe, way, rewriting):
    check(recipe, _able(recipe, way), rewriting)


@searching(0.5)
@given(recipes(), REWRITINGS)
def test_a_rewritten_graph_looks_the_same_and_its_original_is_untouched(
    recipe, rewriting
):
    check_looks(recipe, rewriting)


@searching(0.2)
@given(recipes(), WAYS, REWRITINGS)
def test_a_graph_and_its_copy_run_at_once_in_threads(recipe, way, rewriting):
    check_at_once(recipe, _able(recipe, way), rewriting)


@searching(0.2)
@given(recipes(), WAYS, REWRITINGS)
def test_a_thread_goes_on_in_turns_on_a_graph_and_its_copy(recipe, way, rewriting):
    check_in_turns(recipe, _able(recipe, way), rewriting)


# The properties can fail.

RIGHT = Rewriting("strict")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name, asynchronous):
    mistake, way = MISTAKES[name], Way(asynchronous)
    check(mistake.recipe, way, RIGHT)
    with pytest.raises(AssertionError) as caught:
        check(mistake.recipe, way, RIGHT, mistake.rewrite_it)
    assert mistake.told in str(caught.value)


@pytest.mark.parametrize("name", LOOKS)
def test_a_mistake_is_seen_without_running_the_graph(name):
    mistake = LOOKS[name]
    check_looks(mistake.recipe, RIGHT)
    with pytest.raises(AssertionError) as caught:
        check_looks(mistake.recipe, RIGHT, mistake.rewrite_it)
    assert mistake.told in str(caught.value)


# What the search has found, by name.


def _graph(*stages: Any, **more: Any) -> Recipe:
    return Recipe(Graph(tuple(stages)), **more)


@pytest.mark.parametrize("form", ["parallel", "bound", "retrying", "falling_back"])
def test_a_node_that_is_a_runnable_is_drawn_as_what_it_is(form):
    made = make(_graph(Single(Step(form=form))))
    drawn = made.graph.get_graph().to_json()
    assert rewrite(made.graph, made.twins()).get_graph().to_json() == drawn
    assert "ScopedRunnable" not in str(drawn)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("graph", "site"),
    [
        (
            Graph((Single(Step(asks=(), fails=ALWAYS, handler="asks")),)),
            "sub/__error_handler__node",
        ),
        (
            Graph((Single(Step(asks=(), fails=ALWAYS)),), defaults=("handler",)),
            "sub/__default_error_handler__",
        ),
    ],
)
def test_an_error_handler_of_a_subgraph_is_a_site(graph, site, asynchronous):
    made = make(_graph(Nested("sub", graph)))
    seen = observe(made, rewrite(made.graph, made.twins()), Way(asynchronous))
    assert [call.twin for call in seen.run.calls] == [site]


def test_a_subgraph_with_a_memory_is_a_site_where_its_node_is_called_by_a_number():
    made = make(_graph(Nested("1", Graph((Single(Step()),)), memory=True)))
    seen = observe(made, rewrite(made.graph, made.twins()), Way())
    assert [call.twin for call in seen.run.calls] == ["1/node"]


def test_an_edge_of_a_graph_that_a_function_invokes_belongs_to_its_node():
    loop = Loop(Step(asks=()), Edge(asks=(Ask(),)), times=1)
    made = make(_graph(Nested("sub", Graph((loop,)), way="function")))
    seen = observe(made, rewrite(made.graph, made.twins()), Way())
    assert [call.twin for call in seen.run.calls] == ["sub/node"] * 2


def _asking_edge(model: FakeChat) -> StateGraph:
    def route(state: State) -> str:
        model.invoke(state["text"])
        return END

    builder = one_node(lambda state: None)
    builder.add_conditional_edges("node", route, [END])
    return builder


def test_a_model_in_an_edge_is_bound_where_a_state_is_updated():
    reference, slm = FakeChat(), FakeChat()
    graph = _asking_edge(reference).compile(checkpointer=InMemorySaver())
    copied = rewrite(graph, {"node#route": slm})
    copied.update_state(THREAD, {"text": "edited"}, as_node="node")
    assert (len(reference.asked), len(slm.asked)) == (0, 1)


async def test_a_model_in_an_edge_is_bound_where_the_state_of_a_subgraph_is_updated():
    reference, slm = FakeChat(), FakeChat()
    inner = _asking_edge(reference).compile(interrupt_before=["node"])
    graph = one_node(inner, name="sub").compile(checkpointer=InMemorySaver())
    copied = rewrite(graph, {"sub/node#route": slm})
    await copied.ainvoke({"text": "hello"}, THREAD)
    state = await copied.aget_state(THREAD, subgraphs=True)
    at = state.tasks[0].state.config
    await copied.aupdate_state(at, {"text": "edited"}, as_node="node")
    assert (len(reference.asked), len(slm.asked)) == (0, 1)
