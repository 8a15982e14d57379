"""Agents that a tool invokes: one site for all, or one each by their names."""

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import Watching

from langchain_slm import record, rewrite
from langchain_slm.recording.store import open_store

ASK = {"messages": [("user", "go")]}


def said(text):
    return FakeChat(model_name=text, reply=lambda _: text)


def lead(messages):
    """Call both agents, then end."""
    if messages[-1].type == "tool":
        return "done"
    calls = [
        {"name": "ask", "args": {"who": name}, "id": name}
        for name in ("researcher", "writer")
    ]
    return AIMessage("", tool_calls=calls)


def _app(*, name=None):
    models = {who: said(who) for who in ("researcher", "writer")}
    agents = {who: create_agent(models[who], [], name=who) for who in models}

    @tool
    def ask(who: str) -> str:
        """Ask an agent."""
        return agents[who].invoke({"messages": [("user", "x")]})["messages"][-1].text

    main = FakeChat(model_name="main", reply=lead)
    return create_agent(main, [ask], name=name), {"main": main, **models}


@pytest.mark.parametrize("name", [None, "supervisor"])
def test_each_agent_is_a_site_by_its_name(name):
    graph, _ = _app(name=name)
    watching = Watching()
    watching.on(graph).invoke(ASK)
    assert sorted(watching.sites) == [
        "model",
        "model",
        "tools/model:researcher",
        "tools/model:writer",
    ]


def test_each_agent_is_bound_by_its_name():
    graph, models = _app()
    targets = {
        "model": FakeChat(model_name="boss", reply=lead),
        "tools/model:researcher": said("r"),
        "tools/model:writer": said("w"),
    }
    result = rewrite(graph, targets).invoke(ASK)
    answers = [m.content for m in result["messages"] if m.type == "tool"]
    assert answers == ["r", "w"]
    assert all(model.asked == [] for model in models.values())


async def test_one_entry_binds_all_agents_of_a_tool_but_those_named():
    graph, models = _app()
    targets = {"tools/model": said("any"), "tools/model:writer": said("w")}
    result = await rewrite(graph, targets).ainvoke(ASK)
    answers = [m.content for m in result["messages"] if m.type == "tool"]
    assert answers == ["any", "w"]
    assert len(models["main"].asked) == 2
    assert models["researcher"].asked == models["writer"].asked == []


def test_agents_are_recorded_apart(tmp_path):
    graph, _ = _app(name="supervisor")
    with open_store(f"sqlite:///{tmp_path}/slm.db") as store:
        record(graph, store).invoke(ASK)
        assert {each.site: each.calls for each in store.sites()} == {
            "model": 2,
            "tools/model:researcher": 1,
            "tools/model:writer": 1,
        }


def test_an_agent_that_is_a_node_needs_no_name_in_its_site():
    agent = create_agent(said("math"), [], name="math_agent")
    builder = StateGraph(MessagesState)
    builder.add_node("math", agent)
    builder.add_edge(START, "math")
    watching = Watching()
    watching.on(builder.compile()).invoke(ASK)
    assert watching.sites == ["math/model"]


def test_a_tool_loop_of_a_named_agent_stays_with_its_model():
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    def looks(messages):
        if messages[-1].type == "tool":
            return "ended"
        return AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])

    own = FakeChat(model_name="own", reply=looks)
    inner = create_agent(own, [look], name="looker")

    @tool
    def ask(who: str) -> str:
        """Ask an agent."""
        return inner.invoke({"messages": [("user", "x")]})["messages"][-1].text

    graph = create_agent(FakeChat(model_name="main", reply=lead), [ask])
    slm = FakeChat(model_name="slm", reply=looks)
    rewrite(graph, {"tools/model": slm}).invoke(ASK)
    assert own.asked == []
    assert len(slm.asked) == 4  # two agents of two calls each
