"""Copies of graphs against their originals, feature by feature of LangGraph."""

import asyncio
import operator
import re
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError, NodeError, NodeTimeoutError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, RetryPolicy, Send, StreamWriter, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import Watching

from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.dialect import METADATA_KEY

MODES = ["values", "updates", "messages", "custom", "tasks", "checkpoints", "debug"]


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


@dataclass
class Case:
    """A graph that uses a feature, what to run it on, and the sites of its models.

    Attributes:
        graph: Compiled, for a model.
        inputs: Given one after another to the same thread.
        sites: Where it calls the model.
        context: Its run-scoped context.
    """

    graph: Any
    inputs: list[Any] = field(default_factory=lambda: [{"text": "hello"}])
    sites: tuple[str, ...] = ("node",)
    context: Any = None


def _one(node: Any, schema: Any = State, **more: Any) -> StateGraph:
    builder = StateGraph(schema)
    builder.add_node("node", node, **more)
    builder.add_edge(START, "node")
    return builder


def _ask(model: FakeChat) -> Any:
    return lambda state: {"log": [model.invoke(state["text"]).text]}


def checkpoints(model: FakeChat) -> Case:
    graph = _one(_ask(model)).compile(checkpointer=InMemorySaver())
    return Case(graph, [{"text": "one"}, {"text": "two"}])


def injection(model: FakeChat) -> Case:
    class Context(TypedDict):
        user: str

    def node(
        state: State,
        config: RunnableConfig,
        *,
        runtime: Runtime[Context],
        store: BaseStore,
        writer: StreamWriter,
    ) -> State:
        writer({"progress": 1})
        get_stream_writer()({"progress": 2})
        seen = store.get(("users",), runtime.context["user"])
        store.put(("users",), runtime.context["user"], {"seen": True})
        said = model.invoke(f"{state['text']} {runtime.context['user']} {bool(seen)}")
        return {"log": [said.text, config["configurable"]["thread_id"]]}

    builder = StateGraph(State, context_schema=Context)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = builder.compile(store=InMemoryStore(), checkpointer=InMemorySaver())
    return Case(graph, [{"text": "a"}, {"text": "b"}], context={"user": "ada"})


def interrupts(model: FakeChat) -> Case:
    def node(state: State) -> State:
        said = model.invoke(state["text"]).text
        return {"log": [said, interrupt({"said": said})]}

    graph = _one(node).compile(checkpointer=InMemorySaver())
    return Case(graph, [{"text": "hello"}, Command(resume="yes")])


def breakpoints(model: FakeChat) -> Case:
    builder = _one(_ask(model))
    builder.add_node("after", _ask(model))
    builder.add_edge("node", "after")
    graph = builder.compile(
        checkpointer=InMemorySaver(), interrupt_before=["node"], interrupt_after=["node"]
    )
    return Case(graph, [{"text": "hello"}, None, None], ("node", "after"))


def subgraphs(model: FakeChat) -> Case:
    def pauses(state: State) -> State:
        return {"log": [interrupt("go on?")]}

    inner = _one(_ask(model))
    inner.add_node("pauses", pauses)
    inner.add_edge("node", "pauses")
    middle = StateGraph(State)
    middle.add_node("inner", inner.compile())
    middle.add_edge(START, "inner")
    outer = StateGraph(State)
    outer.add_node("middle", middle.compile())
    outer.add_node("node", _ask(model))
    outer.add_edge(START, "middle")
    outer.add_edge("middle", "node")
    graph = outer.compile(checkpointer=InMemorySaver())
    inputs = [{"text": "hello"}, Command(resume="yes")]
    return Case(graph, inputs, ("middle/inner/node", "node"))


def subgraph_in_a_function(model: FakeChat) -> Case:
    inner = _one(_ask(model)).compile()

    def node(state: State) -> State:
        return {"log": inner.invoke({"text": state["text"]})["log"]}

    return Case(_one(node).compile(checkpointer=InMemorySaver()), sites=("node/node",))


def subgraphs_with_a_memory(model: FakeChat) -> Case:
    def logs(message: BaseMessage) -> State:
        return {"log": [message.text]}

    agent = ChatPromptTemplate.from_template("{text} {log}") | model | logs
    inner = StateGraph(State)
    inner.add_node("agent", agent)
    inner.add_edge(START, "agent")
    remembers = inner.compile(checkpointer=True)

    def node(state: State) -> State:
        return {"log": remembers.invoke({"text": state["text"]})["log"]}

    builder = _one(node)
    builder.add_node("sub", inner.compile(checkpointer=True))
    builder.add_edge("node", "sub")
    graph = builder.compile(checkpointer=InMemorySaver())
    return Case(graph, [{"text": "one"}, {"text": "two"}], ("node/agent", "sub/agent"))


def sends(model: FakeChat) -> Case:
    def route(state: State) -> list[Send]:
        return [Send("node", {"text": text}) for text in state["text"].split()]

    def join(state: State) -> State:
        return {"log": [model.invoke(" ".join(sorted(state["log"]))).text]}

    builder = StateGraph(State)
    builder.add_node("node", _ask(model))
    builder.add_node("join", join, defer=True)
    builder.add_conditional_edges(START, route, ["node"])
    builder.add_edge("node", "join")
    return Case(builder.compile(), [{"text": "a b c"}], ("node", "join"))


def commands(model: FakeChat) -> Case:
    def inner_node(state: State) -> Command:
        said = model.invoke(state["text"]).text
        return Command(goto="after", update={"log": [said]}, graph=Command.PARENT)

    inner = StateGraph(State)
    inner.add_node("inner", inner_node)
    inner.add_edge(START, "inner")

    def node(state: State) -> Command[Literal["sub"]]:
        return Command(goto="sub", update={"log": [model.invoke("node").text]})

    builder = _one(node)
    builder.add_node("sub", inner.compile())
    builder.add_node("after", _ask(model))
    return Case(builder.compile(), sites=("node", "sub/inner", "after"))


def waiting_edges(model: FakeChat) -> Case:
    builder = StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, lambda state: None)
        builder.add_edge(START, name)
    builder.add_node("node", _ask(model), metadata={"mine": 1})
    builder.add_edge(["a", "b"], "node")
    return Case(builder.compile(name="waiting"))


def retries(model: FakeChat) -> Case:
    def node(state: State, runtime: Runtime) -> State:
        said = model.invoke(state["text"]).text
        if runtime.execution_info.node_attempt < 3:
            raise ConnectionError
        return {"log": [said]}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False)
    return Case(_one(node, retry_policy=policy).compile())


def _fails_and_is_handled(model: FakeChat) -> tuple[Any, Any]:
    def fails(state: State) -> State:
        raise KeyError(model.invoke(state["text"]).text)

    def handler(state: State, error: NodeError) -> State:
        return {"log": [model.invoke(f"{error.node} {error.error!r}").text]}

    return fails, handler


def error_handlers(model: FakeChat) -> Case:
    fails, handler = _fails_and_is_handled(model)
    graph = _one(fails, error_handler=handler).compile()
    return Case(graph, sites=("node", "__error_handler__node"))


def default_error_handlers(model: FakeChat) -> Case:
    fails, handler = _fails_and_is_handled(model)
    graph = _one(fails).set_node_defaults(error_handler=handler).compile()
    return Case(graph, sites=("node", "__default_error_handler__"))


class Person(BaseModel):
    text: str
    log: Annotated[list[str], operator.add] = []


def pydantic_state(model: FakeChat) -> Case:
    def node(state: Person) -> dict[str, Any]:
        assert isinstance(state, Person)
        return {"log": [model.invoke(state.text).text]}

    def route(state: Person) -> Literal["__end__"]:
        model.invoke(type(state).__name__)
        return END

    builder = _one(node, Person)
    builder.add_conditional_edges("node", route)
    return Case(builder.compile(), sites=("node", "node#route"))


@dataclass
class Desk:
    text: str
    log: Annotated[list[str], operator.add] = field(default_factory=list)


class Narrow(TypedDict):
    text: str


def schemas(model: FakeChat) -> Case:
    def node(state: Desk) -> dict[str, Any]:
        return {"log": [model.invoke(state.text).text]}

    builder = StateGraph(Desk, input_schema=Narrow, output_schema=Desk)
    builder.add_node("node", node)
    builder.add_node("narrow", lambda state: None, input_schema=Narrow)
    builder.add_edge(START, "node")
    builder.add_edge("node", "narrow")
    return Case(builder.compile())


def generators(model: FakeChat) -> Case:
    def node(state: State) -> Any:
        yield {"log": ["".join(chunk.text for chunk in model.stream(state["text"]))]}

    builder = _one(node)
    builder.add_node("lambda", RunnableLambda(_ask(model)))
    builder.add_edge("node", "lambda")
    return Case(builder.compile(), sites=("node", "lambda"))


def chains(model: FakeChat) -> Case:
    chain = ChatPromptTemplate.from_template("say {text}") | model
    node = chain | (lambda message: {"log": [message.text]})
    builder = _one(node)
    builder.add_node(
        "streams", lambda state: {"log": [c.text for c in chain.stream(state)]}
    )
    builder.add_edge("node", "streams")
    return Case(builder.compile(), sites=("node", "streams"))


def cycles(model: FakeChat) -> Case:
    def again(state: State) -> str:
        return END if len(state["log"]) > 2 else "node"

    builder = _one(_ask(model))
    builder.add_conditional_edges("node", again, {"node": "node", END: END})
    return Case(builder.compile())


def too_many_steps(model: FakeChat) -> Case:
    builder = _one(_ask(model))
    builder.add_edge("node", "node")
    graph = builder.compile()
    graph.config = {"recursion_limit": 3}
    return Case(graph)


def exceptions(model: FakeChat) -> Case:
    def node(state: State) -> State:
        raise KeyError(model.invoke(state["text"]).text)

    return Case(_one(node).compile(checkpointer=InMemorySaver()))


def parsed_answers(model: FakeChat) -> Case:
    def node(state: State) -> State:
        return {"log": [int(model.invoke(state["text"]).text)]}  # an echo is no number

    return Case(_one(node).compile())


@tool
def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sunny in {city}"


def calls_weather(messages: list[BaseMessage]) -> AIMessage | str:
    if isinstance(messages[-1], ToolMessage):
        return f"It is {messages[-1].content}."
    call = {"name": "weather", "args": {"city": "Bergen"}, "id": "call_1"}
    return AIMessage("", tool_calls=[call])


def tool_nodes(model: FakeChat) -> Case:
    model.reply = calls_weather
    bound = model.bind_tools([weather])
    builder = StateGraph(MessagesState)
    builder.add_node(
        "node", lambda state: {"messages": [bound.invoke(state["messages"])]}
    )
    builder.add_node("tools", ToolNode([weather]))
    builder.add_edge(START, "node")
    builder.add_conditional_edges("node", tools_condition)
    builder.add_edge("tools", "node")
    return Case(builder.compile(), [{"messages": [("user", "weather?")]}])


def tools_that_call_models(model: FakeChat) -> Case:
    agent = _one(_ask(model)).compile()
    asks = FakeChat(reply=calls_research)

    @tool
    def research(question: str) -> str:
        """Find out."""
        return agent.invoke({"text": question})["log"][0]

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [asks.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_node("tools", ToolNode([research]))
    builder.add_edge(START, "node")
    builder.add_edge("node", "tools")
    inputs = [{"messages": [("user", "what?")]}]
    return Case(builder.compile(), inputs, ("tools/node",))


def calls_research(messages: list[BaseMessage]) -> AIMessage:
    call = {"name": "research", "args": {"question": "why"}, "id": "call_1"}
    return AIMessage("", tool_calls=[call])


def prebuilt_agent(model: FakeChat) -> Case:
    create_agent = pytest.importorskip("langchain.agents").create_agent
    model.reply = calls_weather
    graph = create_agent(model, [weather], system_prompt="Be brief.", name="desk")
    return Case(graph, [{"messages": [("user", "weather?")]}], ("model",))


def prebuilt_agent_as_a_node(model: FakeChat) -> Case:
    case = prebuilt_agent(model)
    builder = StateGraph(MessagesState)
    builder.add_node("desk", case.graph)
    builder.add_edge(START, "desk")
    return Case(
        builder.compile(checkpointer=InMemorySaver()), case.inputs, ("desk/model",)
    )


def react_agent(model: FakeChat) -> Case:
    model.reply = calls_weather
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has moved to langchain
        graph = create_react_agent(model, [weather])
    return Case(graph, [{"messages": [("user", "weather?")]}], ("agent",))


def functional(model: FakeChat) -> Case:
    @task
    def ask(text: str) -> str:
        return model.invoke(text).text

    @entrypoint(checkpointer=InMemorySaver(), store=InMemoryStore())
    def flow(text: str, *, previous: Any = None) -> Any:
        said = [each.result() for each in [ask(text), ask(text * 2)]]
        answer = interrupt("go on?")
        return entrypoint.final(value=[*said, answer, previous], save=said)

    inputs = ["a", Command(resume="yes"), "b", Command(resume="no")]
    return Case(flow, inputs, ("flow/ask",))


CASES = [
    checkpoints,
    injection,
    interrupts,
    breakpoints,
    subgraphs,
    subgraph_in_a_function,
    subgraphs_with_a_memory,
    sends,
    commands,
    waiting_edges,
    retries,
    error_handlers,
    default_error_handlers,
    pydantic_state,
    schemas,
    generators,
    chains,
    cycles,
    too_many_steps,
    exceptions,
    parsed_answers,
    tool_nodes,
    tools_that_call_models,
    prebuilt_agent,
    prebuilt_agent_as_a_node,
    react_agent,
    functional,
]
CONFIG = {"configurable": {"thread_id": "t1"}}

# What differs between two runs of one graph: ids, times, places in memory.
VARIES = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.+]+"
    r"|0x[0-9a-f]+"
)


def normal(value: Any) -> Any:
    """Return `value` without what varies, and without what an answer says of itself."""
    if isinstance(value, dict):
        return {normal(k): normal(v) for k, v in value.items() if k != METADATA_KEY}
    if isinstance(value, BaseMessage):
        return type(value).__name__, normal(value.model_dump())
    if isinstance(value, list | tuple):
        return [normal(each) for each in value]
    if isinstance(value, int | float | None):
        return value
    text = repr(value) if not isinstance(value, str) else value
    return VARIES.sub("*", text)


def _in_order(events: list[Any]) -> list[Any]:
    """Nodes that run at once report in any order."""
    return sorted((normal(event) for event in events), key=repr)


def _raised(error: Exception) -> tuple[str, str]:
    return type(error).__name__, normal(str(error))


def streamed(case: Case, graph: Any) -> list[Any]:
    """Return what a graph streams in all modes, and its failures."""
    found = []
    for value in case.inputs:
        events: list[Any] = []
        try:
            stream = graph.stream(
                value, CONFIG, context=case.context, stream_mode=MODES, subgraphs=True
            )
            events.extend(stream)
        except (KeyError, ValueError, GraphRecursionError) as error:
            events.append(_raised(error))
        found.append(_in_order(events))
    return found


async def astreamed(case: Case, graph: Any) -> list[Any]:
    """Return what a graph streams in all modes, and its failures."""
    found = []
    for value in case.inputs:
        events: list[Any] = []
        try:
            stream = graph.astream(
                value, CONFIG, context=case.context, stream_mode=MODES, subgraphs=True
            )
            events += [event async for event in stream]
        except (KeyError, ValueError, GraphRecursionError) as error:
            events.append(_raised(error))
        found.append(_in_order(events))
    return found


def invoked(case: Case, graph: Any, version: Literal["v1", "v2"] = "v1") -> list[Any]:
    """Return a graph's outputs, or its failures."""
    found: list[Any] = []
    for value in case.inputs:
        try:
            out = graph.invoke(value, CONFIG, context=case.context, version=version)
            found.append(normal(out))
        except (KeyError, ValueError, GraphRecursionError) as error:
            found.append(_raised(error))
    return found


def states(graph: Any) -> Any:
    """Return a graph's states, newest first, with those of its subgraphs."""
    if not getattr(graph, "checkpointer", None):
        return None
    latest = graph.get_state(CONFIG, subgraphs=True)
    return normal([latest, list(graph.get_state_history(CONFIG))])


def _pair(make: Any) -> tuple[Case, Case, FakeChat, FakeChat]:
    """Return a case and the same again, its copies' model, and the bound model."""
    model, slm = FakeChat(), FakeChat()
    one, other = make(FakeChat()), make(model)
    slm.reply = model.reply
    return one, other, model, slm


@pytest.mark.parametrize("make", CASES)
def test_a_recorded_graph_does_and_streams_the_same(make):
    for run in (streamed, invoked):
        one, other, model, _ = _pair(make)
        watching = Watching()
        copied = watching.on(other.graph)
        assert run(other, copied) == run(one, one.graph)
        assert states(copied) == states(one.graph)
        asked = {str(messages) for messages in model.asked}
        assert {str(call.ask.messages) for call in watching} >= asked
        assert set(watching.sites) - {"node"} == set(other.sites) - {"node"}


@pytest.mark.parametrize("make", CASES)
async def test_a_recorded_graph_streams_the_same_in_a_loop(make):
    one, other, model, _ = _pair(make)
    watching = Watching()
    copied = watching.on(other.graph)
    assert await astreamed(other, copied) == await astreamed(one, one.graph)
    assert states(copied) == states(one.graph)
    assert len(watching.calls) >= len(model.asked)


@pytest.mark.parametrize("make", CASES)
def test_a_rewritten_graph_does_the_same_with_another_model(make):
    one, other, model, slm = _pair(make)
    copied = rewrite(other.graph, dict.fromkeys(other.sites, slm))
    expected, got = invoked(one, one.graph), invoked(other, copied)
    assert got == expected
    assert model.asked == []
    assert slm.asked


@pytest.mark.parametrize("make", CASES)
async def test_a_rewritten_graph_streams_the_same_steps(make):
    one, other, model, slm = _pair(make)
    copied = rewrite(other.graph, dict.fromkeys(other.sites, slm))
    expected, got = await astreamed(one, one.graph), await astreamed(other, copied)
    assert got == expected
    assert model.asked == []


@pytest.mark.parametrize("make", CASES)
def test_a_copy_looks_the_same(make):
    one, other, _, slm = _pair(make)
    for graph in (
        Watching().on(other.graph),
        rewrite(other.graph, dict.fromkeys(other.sites, slm)),
    ):
        for xray in (False, True):
            drawn = graph.get_graph(xray=xray)
            original = one.graph.get_graph(xray=xray)
            assert drawn.draw_mermaid() == original.draw_mermaid()
            assert normal(drawn.to_json()) == normal(original.to_json())
        for schema in ("input", "output", "context"):
            get = f"get_{schema}_jsonschema"
            assert getattr(graph, get)() == getattr(one.graph, get)()
        names = [name for name, _ in graph.get_subgraphs(recurse=True)]
        assert names == [name for name, _ in one.graph.get_subgraphs(recurse=True)]
        assert type(graph) is type(one.graph)
        assert graph.name == one.graph.name
        assert list(graph.nodes) == list(one.graph.nodes)


@pytest.mark.parametrize("make", CASES)
def test_a_copy_of_the_builder_compiles_to_the_same(make):
    one, other, model, slm = _pair(make)
    if not hasattr(other.graph, "builder"):
        return  # the functional API has none
    saver, store = other.graph.checkpointer, other.graph.store
    compiled = rewrite(other.graph, dict.fromkeys(other.sites, slm)).builder.compile(
        checkpointer=saver,
        store=store,
        interrupt_before=other.graph.interrupt_before_nodes,
        interrupt_after=other.graph.interrupt_after_nodes,
        name=other.graph.name,
    )
    compiled.config = other.graph.config
    expected, got = invoked(one, one.graph), invoked(other, compiled)
    assert got == expected
    assert model.asked == []
    drawn = compiled.get_graph(xray=True).draw_mermaid()
    assert drawn == one.graph.get_graph(xray=True).draw_mermaid()


@pytest.mark.parametrize("make", [pydantic_state, schemas, subgraphs, interrupts])
def test_version_2_outputs_keep_their_types(make):
    one, other, _, slm = _pair(make)
    expected = invoked(one, one.graph, "v2")
    copied = rewrite(other.graph, dict.fromkeys(other.sites, slm))
    assert invoked(other, copied, "v2") == expected
    one, other, _, slm = _pair(make)
    assert invoked(other, Watching().on(other.graph), "v2") == expected


# One thread on the original and on copies.


@pytest.mark.parametrize("make", [interrupts, breakpoints, subgraphs, functional])
@pytest.mark.parametrize("start_with_the_copy", [False, True])
def test_a_run_goes_on_on_the_copy_and_back(make, start_with_the_copy):
    one, other, model, slm = _pair(make)
    expected = invoked(one, one.graph)
    copied = rewrite(other.graph, dict.fromkeys(other.sites, slm))
    graphs = [copied, other.graph] if start_with_the_copy else [other.graph, copied]
    got = []
    for index, value in enumerate(other.inputs):
        got.append(normal(graphs[index % 2].invoke(value, CONFIG)))
    assert got == expected
    assert slm.asked or not start_with_the_copy
    assert model.asked or start_with_the_copy


def test_the_past_can_be_run_again_on_the_copy():
    case, slm = checkpoints(FakeChat()), FakeChat(reply=lambda _: "slm")
    invoked(case, case.graph)
    copied = rewrite(case.graph, {"node": slm})
    before = next(s for s in copied.get_state_history(CONFIG) if s.next == ("node",))
    assert copied.invoke(None, before.config)["log"] == ["echo one", "slm"]
    edited = copied.update_state(before.config, {"text": "other"})
    assert copied.invoke(None, edited)["log"] == ["echo one", "slm"]
    assert str(slm.asked[-1][0].content) == "other"


def test_what_a_graph_was_compiled_with_is_kept():
    saver, store = InMemorySaver(), InMemoryStore()
    graph = _one(_ask(FakeChat())).compile(
        checkpointer=saver, store=store, interrupt_before=["node"], debug=False, name="n"
    )
    graph.step_timeout = 5.0
    graph = graph.with_config(tags=["mine"], metadata={"k": 1})
    copied = rewrite(graph, {})
    changed = {
        name
        for name, value in vars(graph).items()
        if value is not vars(copied)[name] and value != vars(copied)[name]
    }
    assert changed == {"nodes", "builder"}
    assert copied.checkpointer is saver


# Events.


@pytest.mark.parametrize("make", [subgraphs, chains, tool_nodes, sends, commands])
async def test_events_are_the_same(make):
    async def events(case: Case, graph: Any) -> list[Any]:
        stream = graph.astream_events(case.inputs[0], CONFIG, version="v2")
        found = [event async for event in stream]
        return _in_order([_without_parents(event) for event in found])

    one, other, _, _ = _pair(make)
    got = await events(other, Watching().on(other.graph))
    assert got == await events(one, one.graph)


def _without_parents(event: Any) -> Any:
    return {key: value for key, value in event.items() if key != "parent_ids"}


@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
def test_version_3_events_reach_the_bound_model():
    outputs: list[Any] = []
    for make in (checkpoints, chains, tool_nodes):
        one, other, model, slm = _pair(make)
        copied = rewrite(other.graph, dict.fromkeys(other.sites, slm))
        for case, graph in ((one, one.graph), (other, copied)):
            with graph.stream_events(case.inputs[0], CONFIG, version="v3") as run:
                outputs.append(normal(run.output))
        assert outputs.pop() == outputs.pop()
        assert model.asked == []
        assert slm.asked


def test_messages_name_the_model_that_spoke():
    model, slm = FakeChat(model_name="model"), FakeChat(model_name="slm")
    case = chains(model)
    copied = rewrite(case.graph, {"streams": slm})
    spoke = {
        (metadata["langgraph_node"], message.response_metadata.get("model_name"))
        for message, metadata in copied.stream(case.inputs[0], stream_mode="messages")
        if message.response_metadata.get("model_name")
    }
    assert spoke == {("node", "model"), ("streams", "slm")}


# Time-outs: LangGraph knows an async node by its function.


async def test_time_outs_are_kept():
    async def node(state: State) -> State:
        await asyncio.sleep(60)
        return {}

    graph = _one(node, timeout=timedelta(milliseconds=20)).compile()
    for copied in (Watching().on(graph), rewrite(graph, {}).builder.compile()):
        with pytest.raises(NodeTimeoutError):
            await copied.ainvoke({"text": ""})


def test_a_sync_node_may_still_not_have_a_time_out():
    builder = _one(_ask(FakeChat()), timeout=1.0)
    for each in (builder, rewrite(builder, {})):
        with pytest.raises(ValueError, match="timeout"):
            each.compile()
