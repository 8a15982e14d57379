import json
from typing import Annotated, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph, add_messages
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from unit_tests.fake_chat import FakeChat

from langchain_slm.inspection.overview import Edge, inspect_graph, with_traces
from langchain_slm.recording.store import SiteCalls
from langchain_slm.rewriting.graphs import rewrite

big = FakeChat(model_name="big")
small = FakeChat(model_name="small")


class Verdict(BaseModel):
    good: bool


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    talk: Annotated[list, add_messages]
    answer: str


@tool
def ask_small(question: str) -> str:
    """Ask."""
    return small.invoke(question).content


def says(state):
    return {"messages": [big.invoke(state["messages"])]}


def talks(state):
    return {"talk": big.invoke(state["messages"])}


def writes(state):
    return {"answer": big.invoke("x").content}


def judges(state):
    return {"messages": [big.with_structured_output(Verdict).invoke("x")]}


def uses_tools(state):
    return {"messages": big.bind_tools([ask_small], tool_choice="any").invoke("x")}


def asks_a_human(state):
    return {"answer": interrupt(big.invoke("x").content)}


def commands(state) -> Command[Literal["quiet"]]:
    return Command(goto="quiet", update={"messages": [big.invoke("x")]})


def elsewhere(state):
    return make_update(state)


def make_update(state):
    return {"answer": big.invoke("x").content}


def assigns(state):
    update = {"messages": [big.invoke("x")]}
    return update  # noqa: RET504 - as apps do


def quiet(state):
    return None


def stops(state):
    return {"answer": interrupt("look")}


def route(state):
    return big.invoke("x").content


def graph(*nodes, compiled=True, **how):
    builder = StateGraph(State)
    before = START
    for node in nodes:
        builder.add_node(node.__name__, node)
        builder.add_edge(before, node.__name__)
        before = node.__name__
    return builder.compile(**how) if compiled else builder


def models(found):
    return {
        (site.path, each.model, each.confidence)
        for site in found.sites
        for each in site.models
    }


def facing(found):
    return {site.path: site.faces_human for site in found.sites}


def test_nodes_edges_and_sites_are_listed():
    builder = graph(says, compiled=False)
    builder.add_node("done", quiet, defer=True)
    builder.add_node("agent", create_agent(big, [ask_small]))
    builder.add_conditional_edges("says", route, {"a": "done", "b": "agent"})
    builder.add_edge(["done", "agent"], END)
    found = inspect_graph(builder.compile())
    assert [(node.path, node.kind) for node in found.nodes] == [
        ("says", "function"),
        ("done", "function"),
        ("agent", "graph"),
        ("agent/model", "function"),
        ("agent/tools", "tools"),
    ]
    assert found.nodes[0].where.endswith("test_inspection.py:40")
    assert set(found.edges) == {
        Edge("__start__", "says", "edge"),
        Edge("says", "done", "conditional", "route"),
        Edge("says", "agent", "conditional", "route"),
        Edge("done", "__end__", "waiting"),
        Edge("agent", "__end__", "waiting"),
        Edge("agent/__start__", "agent/model", "edge"),
        Edge("agent/model", "agent/tools", "conditional", "model_to_tools"),
        Edge("agent/model", "agent/__end__", "conditional", "model_to_tools"),
        Edge("agent/tools", "agent/model", "conditional", "tools_to_model"),
    }
    assert models(found) == {
        ("says", "big", "certain"),
        ("says#route", "big", "certain"),
        ("agent/model", "big", "certain"),
        ("agent/tools", "small", "certain"),
    }
    held = {site.path: site.models[0].how for site in found.sites}
    assert held["says#route"] == ("conditional edge", "module global")


def test_a_builder_is_inspected_as_what_it_compiles_to():
    builder = graph(commands, quiet, compiled=False)
    assert inspect_graph(builder) == inspect_graph(builder.compile())
    assert Edge("commands", "quiet", "command") in inspect_graph(builder).edges


def test_an_entrypoint_is_inspected():
    @entrypoint()
    def flow(text):
        return big.invoke(text)

    found = inspect_graph(flow)
    assert [tuple(edge) for edge in found.edges] == [
        ("__start__", "flow", "edge", None),
        ("flow", "__end__", "edge", None),
    ]
    assert models(found) == {("flow", "big", "certain")}


def test_an_error_handler_is_a_node():
    builder = graph(quiet, compiled=False)
    builder.set_node_defaults(error_handler=says)
    assert ("__default_error_handler__", "big", "certain") in models(
        inspect_graph(builder.compile())
    )


def test_a_rewritten_graph_shows_the_apps_models():
    plain = graph(says, writes)
    rewritten = rewrite(plain, {"says": small})
    assert models(inspect_graph(rewritten)) == models(inspect_graph(plain))


def test_the_same_graph_below_two_nodes_has_two_sites():
    inner = graph(says)
    builder = StateGraph(State)
    builder.add_node("one", inner)
    builder.add_node("two", inner)
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    assert models(inspect_graph(builder.compile())) == {
        ("one/says", "big", "certain"),
        ("two/says", "big", "certain"),
    }


@pytest.mark.parametrize(
    ("nodes", "site", "answer", "why"),
    [
        ([says], "says", "yes", "its node writes a message and may be the last"),
        ([talks], "talks", "yes", "its node writes a message and may be the last"),
        ([assigns], "assigns", "yes", "its node writes a message and may be the last"),
        ([says, quiet], "says", "unknown", "its node writes a message, and other nodes"),
        ([says, stops], "says", "yes", "a node that follows asks a human (interrupt)"),
        ([writes, stops], "writes", "yes", "a node that follows asks a human"),
        ([asks_a_human, quiet], "asks_a_human", "yes", "its node asks a human"),
        ([writes], "writes", "unknown", "its node may be the last, and writes answer"),
        ([writes, says], "writes", "no", "its node writes answer, for the nodes that"),
        ([judges], "judges", "no", "it fills the schema Verdict"),
        ([uses_tools], "uses_tools", "no", "it must call a tool"),
        ([elsewhere], "elsewhere", "unknown", "what its node writes cannot be seen"),
        (
            [commands, quiet],
            "commands",
            "unknown",
            "its node writes a message, and other",
        ),
    ],
)
def test_whether_a_site_faces_a_human_is_guessed_with_the_reason(
    nodes, site, answer, why
):
    found = facing(inspect_graph(graph(*nodes)))[site]
    assert found.answer == answer
    assert why in found.why


def test_a_stop_of_the_graph_shows_a_message_to_a_human():
    before = inspect_graph(graph(writes, quiet, interrupt_before=["quiet"]))
    after = inspect_graph(graph(writes, quiet, interrupt_after="*"))
    assert facing(before)["writes"].answer == "yes"
    assert facing(after)["writes"].answer == "yes"


def test_an_agents_answer_faces_a_human_only_at_the_end():
    agent = create_agent(big, [ask_small])
    alone = facing(inspect_graph(agent))
    assert (alone["model"].answer, alone["tools"].answer) == ("yes", "no")
    structured = create_agent(big, [], response_format=Verdict)
    assert facing(inspect_graph(structured))["model"].answer == "no"
    builder = graph(quiet, compiled=False)
    builder.add_node("agent", agent)
    builder.add_edge("quiet", "agent")
    assert facing(inspect_graph(builder.compile()))["agent/model"].answer == "yes"
    builder.add_node("last", quiet)
    builder.add_edge("agent", "last")
    assert facing(inspect_graph(builder.compile()))["agent/model"].answer == "unknown"


def test_a_conditional_edge_faces_nobody():
    builder = graph(quiet, compiled=False)
    builder.add_conditional_edges("quiet", route)
    found = inspect_graph(builder.compile())
    assert facing(found)["quiet#route"] == ("no", "it decides where to go next")
    assert Edge("quiet", "*", "conditional", "route") in found.edges


def test_recorded_calls_add_what_reading_does_not_show():
    def hidden(state):
        return {"answer": state["llm"].invoke("x")}

    found = inspect_graph(graph(says, hidden))
    assert models(found) == {("says", "big", "certain")}
    assert len(found.notes) == 1
    calls = [
        SiteCalls("g", "says", "big", "fake-chat", 3)[1:],
        SiteCalls("g", "says", "other", "fake-chat", 2)[1:],
        SiteCalls("g", "hidden", "gpt", "openai", 1)[1:],
    ]
    traced = with_traces(found, calls)
    assert models(traced) == {
        ("says", "big", "certain"),
        ("says", "other", "seen in traces only"),
        ("hidden", "gpt", "seen in traces only"),
    }
    counted = {each.model: each.calls for site in traced.sites for each in site.models}
    assert counted == {"big": 3, "other": 2, "gpt": 1}
    assert facing(traced)["hidden"].answer == "unknown"


def test_a_recorded_model_whose_name_only_a_run_knows_is_no_new_one():
    def node(state, config):
        return {"messages": [FakeChat(model_name=config["x"]).invoke("x")]}

    found = inspect_graph(graph(node))
    traced = with_traces(found, [("node", "anything", "fake-chat", 2)])
    assert [(each.model, each.calls) for each in traced.sites[0].models] == [(None, 2)]


def test_it_is_strict_json():
    found = inspect_graph(graph(says, judges, asks_a_human))
    text = json.dumps(found.as_json(), allow_nan=False)
    site = json.loads(text)["sites"][1]
    assert site["models"] == [
        {
            "class": "FakeChat",
            "model": "big",
            "provider": "fake-chat",
            "held": ["module global"],
            "confidence": "certain",
            "reason": None,
            "tools": [],
            "response_format": "Verdict",
            "where": site["models"][0]["where"],
            "calls": None,
        }
    ]
    assert (site["site"], site["faces_human"]) == ("judges", "no")
    assert site["faces_human_because"] == "it fills the schema Verdict"


NAMES = st.text(min_size=0, max_size=20).filter(
    lambda name: not name.startswith("__") and not set(name) & set(":|")
)


@given(st.lists(NAMES, min_size=1, max_size=3, unique=True))
@settings(max_examples=30, deadline=None)
def test_any_names_of_nodes_are_inspected(names):
    builder = StateGraph(State)
    for name in names:
        builder.add_node(name, says)
    builder.add_edge(START, names[0])
    found = inspect_graph(builder.compile())
    assert [site.path for site in found.sites] == names
    json.dumps(found.as_json(), allow_nan=False)


def test_nothing_of_the_graph_runs():
    def node(state):
        raise AssertionError

    class Counting(FakeChat):
        def _generate(self, *args, **kwargs):
            raise AssertionError

    llm = Counting(model_name="counting")

    def calls(state):
        return {"messages": llm.invoke([HumanMessage("x")])}

    assert models(inspect_graph(graph(node, calls))) == {("calls", "counting", "certain")}


def test_a_graph_is_as_it_was_afterwards():
    builder = graph(says, compiled=False)
    before = dict(builder.nodes), {name: id(s) for name, s in builder.nodes.items()}
    inspect_graph(builder)
    after = dict(builder.nodes), {name: id(s) for name, s in builder.nodes.items()}
    assert after == before


def test_messages_state_is_a_state_with_messages():
    builder = StateGraph(MessagesState)
    builder.add_node("says", says)
    builder.add_edge(START, "says")
    assert facing(inspect_graph(builder))["says"].answer == "yes"
