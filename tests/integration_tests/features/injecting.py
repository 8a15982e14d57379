"""Graphs whose nodes and tools are given things, and change what they pass on."""

from typing import Annotated, Any

from integration_tests.features.app import App, Function, State, at, one
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_store, get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, StreamWriter
from typing_extensions import TypedDict


class Context(TypedDict):
    user: str


def injection(model: Any, node: Function) -> App:
    """Config, runtime, store and writer, as arguments and by function."""

    def steps(
        state: State,
        config: RunnableConfig,
        *,
        runtime: Runtime[Context],
        store: BaseStore,
        writer: StreamWriter,
    ) -> Any:
        thread = config["configurable"]["thread_id"]
        assert get_config()["configurable"]["thread_id"] == thread
        assert get_store() is store is runtime.store
        writer({"progress": 1})
        get_stream_writer()({"progress": 2})
        runtime.stream_writer({"progress": 3})
        seen = store.get(("users", thread), runtime.context["user"])
        said = yield model, at("node", f"{runtime.context['user']} {bool(seen)}")
        store.put(("users", thread), runtime.context["user"], {"said": said.text})
        return {"log": [said.text]}

    builder = StateGraph(State, context_schema=Context)
    builder.add_node("node", node(steps))
    builder.add_edge(START, "node")
    graph = builder.compile(store=InMemoryStore(), checkpointer=InMemorySaver())
    return App(graph, [{"text": "a"}, {"text": "b"}], {"user": "ada"})


def injected_tools(model: Any, node: Function) -> App:
    """Tools are given the state, the store and the runtime, and call a model."""

    async def aget(
        key: str,
        state: Annotated[dict[str, Any], InjectedState],
        store: Annotated[BaseStore, InjectedStore()],
        config: RunnableConfig,
    ) -> str:
        thread = config["configurable"]["thread_id"]
        await store.aput(("notes", thread), key, {"n": len(state["messages"])})
        said = await model.ainvoke(at("tools", state["messages"][0].text))
        return said.text

    @tool
    def get(
        key: str,
        state: Annotated[dict[str, Any], InjectedState],
        store: Annotated[BaseStore, InjectedStore()],
        config: RunnableConfig,
    ) -> str:
        """Get a note."""
        thread = config["configurable"]["thread_id"]
        store.put(("notes", thread), key, {"n": len(state["messages"])})
        return model.invoke(at("tools", state["messages"][0].text)).text

    @tool
    def hand_over(
        key: str,
        runtime: ToolRuntime,
        tool_call_id: Annotated[str, InjectedToolCallId],
    ) -> Command:
        """Hand over."""
        assert runtime.tool_call_id == tool_call_id
        found = runtime.store.search(
            ("notes", runtime.config["configurable"]["thread_id"])
        )
        text = f"{key} {len(found)} {len(runtime.state['messages'])}"
        message = ToolMessage(text, tool_call_id=tool_call_id)
        return Command(goto="last", update={"messages": [message]})

    get.coroutine = aget

    bound = model.bind_tools([get, hand_over])

    def agent(state: MessagesState) -> Any:
        said = yield bound, [("system", at("agent", "")), *state["messages"]]
        return {"messages": [said]}

    def last(state: MessagesState) -> Any:
        said = yield model, [("system", at("last", "")), *state["messages"]]
        return {"messages": [said]}

    def script(messages: list[BaseMessage]) -> AIMessage | str:
        called = sum(isinstance(message, ToolMessage) for message in messages)
        names = ("get", "hand_over")
        if len(messages) == 1 or called == len(names):
            return f"{len(messages)} messages"
        call = {"name": names[called], "args": {"key": "k"}, "id": f"call_{called}"}
        return AIMessage("", tool_calls=[call])

    builder = StateGraph(MessagesState)
    builder.add_node("agent", node(agent))
    builder.add_node("tools", ToolNode([get, hand_over]), destinations=("last",))
    builder.add_node("last", node(last))
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "tools")
    builder.add_conditional_edges("tools", _goes_on, ["agent", "__end__"])
    graph = builder.compile(store=InMemoryStore(), checkpointer=InMemorySaver())
    asked = {"messages": [{"role": "user", "content": "hi", "id": "1"}]}
    return App(graph, [asked], reply=script)


def _goes_on(state: MessagesState) -> str:
    called = sum(isinstance(message, ToolMessage) for message in state["messages"])
    return "agent" if called == 1 else "__end__"


MINE = {"metadata": {"mine": 1}, "tags": ["my-tag"], "run_name": "my run"}


def replaced_metadata(model: Any, node: Function) -> App:
    """Nodes and an edge put their own metadata in the place of LangGraph's."""

    def ask(site: str) -> Function:
        def steps(state: State) -> Any:
            chain = model | (lambda message: message.text)
            said = yield model, at(site, state["text"]), MINE
            again = yield chain.with_config(MINE), at(site, "chain"), MINE
            streamed = "".join(
                chunk.text for chunk in model.stream(at(site, "streamed"), MINE)
            )
            return {"log": [said.text, again, streamed]}

        return node(steps)

    def route(state: State) -> Any:
        yield model, at("sub#route", state["text"]), {"metadata": {}}
        return "after"

    def after(state: State, config: RunnableConfig) -> Any:
        kept = {"metadata": {**config["metadata"], "mine": 2}, "tags": ["kept"]}
        said = yield model, at("after", state["text"]), kept
        passed = yield model, at("after", state["text"]), config
        return {"log": [said.text, passed.text]}

    inner = one(ask("invokes/inner"), name="inner").compile()

    def invokes(state: State) -> Any:
        out = yield inner, {"text": state["text"]}, MINE
        return {"log": out["log"]}

    builder = one(one(ask("sub/inner"), name="inner").compile(), name="sub")
    builder.add_node("after", node(after))
    builder.add_node("invokes", node(invokes))
    builder.add_conditional_edges("sub", node(route), ["after"])
    builder.add_edge("after", "invokes")
    return App(builder.compile())
