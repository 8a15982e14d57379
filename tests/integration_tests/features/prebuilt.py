"""Supervisors, swarms, agents and tool nodes as the prebuilt packages make them."""

from collections.abc import Mapping
from typing import Any

from integration_tests.features.app import App, Function, at, site_of, weather
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.types import Command, interrupt
from langgraph_supervisor import create_supervisor
from langgraph_supervisor.handoff import create_forward_message_tool
from langgraph_swarm import create_handoff_tool, create_swarm
from pydantic import BaseModel
from unit_tests.fake_chat import Reply

Said = AIMessage | str
QUESTION = {"messages": [{"role": "user", "content": "weather?", "id": "question"}]}


def calls(name: str, *, id: str = "call_1", **arguments: Any) -> AIMessage:  # noqa: A002 - its name
    """Return a message that calls a tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": id}])


def by_site(scripts: Mapping[str, Reply]) -> Reply:
    """Return what says at each site what its script says."""
    return lambda messages: scripts[site_of(messages)](messages)


def asks_weather(messages: list[BaseMessage]) -> Said:
    if isinstance(messages[-1], ToolMessage) and "sunny" in messages[-1].text:
        return f"It is {messages[-1].text}."
    return calls("weather", id=f"call_{len(messages)}", city="Bergen")


def hands_to(*names: str) -> Reply:
    """Return a script that hands over to one after the other, then ends."""

    def script(messages: list[BaseMessage]) -> Said:
        asked = [m for m in messages if isinstance(m, AIMessage)]
        done = {call["name"] for message in asked for call in message.tool_calls}
        left = [name for name in names if name not in done]
        if not left:
            return f"done after {len(messages)}"
        return calls(left[0], id=f"hand_{len(messages)}")

    return script


def react(model: Any, site: str, **more: Any) -> Any:
    return create_react_agent(model, [weather], prompt=at(site, "Help."), **more)


def agent(model: Any, site: str, **more: Any) -> Any:
    more = {"tools": [weather], **more}
    return create_agent(model, system_prompt=at(site, "Help."), **more)


def supervisors(model: Any, node: Function) -> App:
    """A supervisor of two agents, each of another package."""
    handing = hands_to("transfer_to_math", "transfer_to_research")
    reply = by_site(
        {
            "supervisor/agent": handing,
            "math/agent": asks_weather,
            "research/model": asks_weather,
        }
    )
    agents = [
        react(model, "math/agent", name="math"),
        agent(model, "research/model", name="research"),
    ]
    builder = create_supervisor(
        agents,
        model=model,
        prompt=at("supervisor/agent", "Lead."),
        output_mode="full_history",
    )
    return App(builder.compile(checkpointer=InMemorySaver()), [QUESTION], reply=reply)


class Summary(BaseModel):
    """A summary."""

    text: str


def structured_supervisors(model: Any, node: Function) -> App:
    """A supervisor with names in the text, hooks, tools and a structured answer."""

    def before(state: Any) -> Any:
        yield model, at("supervisor/pre_model_hook", len(state["messages"]))
        return {"llm_input_messages": state["messages"]}

    def after(state: Any) -> Any:
        yield model, at("supervisor/post_model_hook", len(state["messages"]))
        return {}

    def leads(messages: list[BaseMessage]) -> Said:
        text = " ".join(message.text for message in messages)
        if "It is sunny" not in text:
            return calls("transfer_to_math", id=f"hand_{len(messages)}")
        return "<name>supervisor</name><content>All said.</content>"

    reply = by_site(
        {
            "supervisor/agent": leads,
            "supervisor/pre_model_hook": lambda _: "before",
            "supervisor/post_model_hook": lambda _: "after",
            "supervisor/generate_structured_response": lambda messages: calls(
                "Summary", text=f"{len(messages)} messages"
            ),
            "math/agent": asks_weather,
        }
    )
    builder = create_supervisor(
        [react(model, "math/agent", name="math")],
        model=model,
        prompt=at("supervisor/agent", "Lead."),
        tools=[create_forward_message_tool()],
        response_format=(
            at("supervisor/generate_structured_response", "Sum up."),
            Summary,
        ),
        pre_model_hook=node(before),
        post_model_hook=node(after),
        include_agent_name="inline",
    )
    return App(builder.compile(), [QUESTION], reply=reply)


def supervised_teams(model: Any, node: Function) -> App:
    """A supervisor of a supervisor, who hands to two agents at once."""

    def leads(messages: list[BaseMessage]) -> Said:
        if any(isinstance(message, ToolMessage) for message in messages):
            return f"done after {len(messages)}"
        both = [calls(f"transfer_to_{name}", id=name) for name in ("a", "b")]
        return AIMessage("", tool_calls=[call.tool_calls[0] for call in both])

    reply = by_site(
        {
            "supervisor/agent": hands_to("transfer_to_team"),
            "team/lead/agent": leads,
            "team/a/agent": asks_weather,
            "team/b/model": asks_weather,
        }
    )
    team = create_supervisor(
        [react(model, "team/a/agent", name="a"), agent(model, "team/b/model", name="b")],
        model=model,
        prompt=at("team/lead/agent", "Lead."),
        supervisor_name="lead",
    )
    top = create_supervisor(
        [team.compile(name="team")],
        model=model,
        prompt=at("supervisor/agent", "Lead."),
    )
    return App(top.compile(), [QUESTION], reply=reply)


def swarms(model: Any, node: Function) -> App:
    """Agents hand over to each other, and the active one is asked the next time."""
    reply = by_site(
        {"alice/model": hands_to("transfer_to_bob"), "bob/agent": asks_weather}
    )
    alice = agent(
        model,
        "alice/model",
        tools=[create_handoff_tool(agent_name="bob")],
        name="alice",
    )
    bob = create_react_agent(
        model,
        [weather, create_handoff_tool(agent_name="alice")],
        prompt=at("bob/agent", "Help."),
        name="bob",
    )
    swarm = create_swarm([alice, bob], default_active_agent="alice")
    again = {"messages": [{"role": "user", "content": "and now?", "id": "again"}]}
    return App(
        swarm.compile(checkpointer=InMemorySaver()), [QUESTION, again], reply=reply
    )


def tool_fallbacks(model: Any, node: Function) -> App:
    """A tool node fails, and another takes its place; both ask a model."""

    def asking(text: str, error: type[Exception] | None = None) -> Any:
        async def arun(city: str) -> str:
            said = await model.ainvoke(at("tools", f"{text} {city}"))
            return _unless(error, said.text)

        @tool(text)
        def run(city: str) -> str:
            """Tell the weather."""
            return _unless(error, model.invoke(at("tools", f"{text} {city}")).text)

        run.coroutine = arun
        run.name = "weather"
        return run

    def script(messages: list[BaseMessage]) -> Said:
        return f"{messages[-1].text}!"

    reply = by_site({"agent": asks_weather, "tools": script})
    fails = ToolNode([asking("first", ConnectionError)], handle_tool_errors=False)
    works = ToolNode([asking("second")])
    builder = StateGraph(MessagesState)
    builder.add_node("agent", node(_talks(model.bind_tools([weather]), "agent")))
    builder.add_node("tools", fails.with_fallbacks([works]))
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "tools")
    return App(builder.compile(), [QUESTION], reply=reply)


def _unless(error: type[Exception] | None, text: str) -> str:
    if error is not None:
        raise error
    return text


def _talks(model: Any, site: str) -> Function:
    def steps(state: MessagesState) -> Any:
        said = yield model, [("system", at(site, "Talk.")), *state["messages"]]
        return {"messages": [said]}

    return steps


def _as_tool(agent: Any) -> Any:
    async def arun(question: str) -> str:
        out = await agent.ainvoke({"messages": [("user", question)]})
        return out["messages"][-1].text

    @tool(agent.name)
    def run(question: str) -> str:
        """Ask a colleague."""
        return agent.invoke({"messages": [("user", question)]})["messages"][-1].text

    run.coroutine = arun
    return run


def subagents(model: Any, node: Function) -> App:
    """Two agents, each behind a tool of one node, told apart by their names."""

    def leads(messages: list[BaseMessage]) -> Said:
        if isinstance(messages[-1], ToolMessage):
            return f"done after {len(messages)}"
        both = [calls(name, id=name, question="what?") for name in ("math", "research")]
        return AIMessage("", tool_calls=[call.tool_calls[0] for call in both])

    reply = by_site(
        {
            "model": leads,
            "tools/model:math": asks_weather,
            "tools/model:research": asks_weather,
        }
    )
    agents = [
        agent(model, f"tools/model:{name}", name=name) for name in ("math", "research")
    ]
    lead = agent(model, "model", tools=[_as_tool(each) for each in agents], name="lead")
    return App(lead, [QUESTION], reply=reply)


def paused_tools(model: Any, node: Function) -> App:
    """A tool asks a person between two calls of a model."""

    def text(draft: AIMessage, answer: str) -> str:
        return f"{draft.text} {answer}"

    async def abook(city: str) -> str:
        draft = await model.ainvoke(at("desk/tools", city))
        return text(draft, interrupt({"book": city}))

    @tool
    def book(city: str) -> str:
        """Book a trip."""
        draft = model.invoke(at("desk/tools", city))
        return text(draft, interrupt({"book": city}))

    def books(messages: list[BaseMessage]) -> Said:
        if isinstance(messages[-1], ToolMessage):
            return f"booked: {messages[-1].text}"
        return calls("book", id=f"call_{len(messages)}", city="Bergen")

    book.coroutine = abook
    reply = by_site({"desk/model": books, "desk/tools": lambda _: "drafted"})
    desk = agent(model, "desk/model", tools=[book], name="desk")
    builder = StateGraph(MessagesState)
    builder.add_node("desk", desk)
    builder.add_edge(START, "desk")
    graph = builder.compile(checkpointer=InMemorySaver())
    return App(graph, [QUESTION, Command(resume="yes")], reply=reply)


def paused_subagents(model: Any, node: Function) -> App:
    """A tool of an agent behind a tool asks a person."""

    @tool
    def book(city: str) -> str:
        """Book a trip."""
        return f"{city} {interrupt({'book': city})}"

    def books(messages: list[BaseMessage]) -> Said:
        if isinstance(messages[-1], ToolMessage):
            return f"booked: {messages[-1].text}"
        return calls("book", city="Bergen")

    def leads(messages: list[BaseMessage]) -> Said:
        if isinstance(messages[-1], ToolMessage):
            return f"done after {len(messages)}"
        return calls("travel", question="where?")

    reply = by_site({"model": leads, "tools/model:travel": books})
    travel = agent(model, "tools/model:travel", tools=[book], name="travel")
    lead = agent(model, "model", tools=[_as_tool(travel)], checkpointer=InMemorySaver())
    return App(lead, [QUESTION, Command(resume="yes")], reply=reply)
