"""Tools of agents: what LangGraph lets a tool do."""

from collections.abc import Callable
from typing import Annotated, Any

from integration_tests.parity.calling import Kit, told
from integration_tests.parity.schemas import Typed, value_of
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import InjectedState
from langgraph.types import Command


def _plain(kit: Kit, tag: str) -> BaseTool:
    def plain(key: str) -> str:
        """Say it again."""
        return f"plain {key}"

    return StructuredTool.from_function(plain)


def _asks(kit: Kit, tag: str) -> BaseTool:
    model = kit.models[0]

    def asks(key: str) -> str:
        """Ask a model."""
        return told(model.invoke(f"<m0> {tag} {key}"))

    async def aasks(key: str) -> str:
        """Ask a model."""
        return told(await model.ainvoke(f"<m0> {tag} {key}"))

    return StructuredTool.from_function(asks, aasks)


def _writes(kit: Kit, tag: str) -> BaseTool:
    def writes(key: str) -> str:
        """Write to the stream."""
        get_stream_writer()({"tool": tag, "key": key})
        return f"wrote {key}"

    return StructuredTool.from_function(writes)


def _state(kit: Kit, tag: str) -> BaseTool:
    def reads(key: str, state: Annotated[Any, InjectedState]) -> str:
        """Read the state."""
        return f"{key} {len(value_of(state, 'messages', []))}"

    return StructuredTool.from_function(reads)


def _command(kit: Kit, tag: str) -> BaseTool:
    def commands(key: str, call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Update the state."""
        done = ToolMessage(f"done {key}", tool_call_id=call_id, name="commands")
        return Command(update={"log": [f"tool {key}"], "messages": [done]})

    return StructuredTool.from_function(commands)


def _fails(kit: Kit, tag: str) -> BaseTool:
    def fails(key: str) -> str:
        """Fail."""
        msg = f"tool fails on {key}"
        raise ValueError(msg)

    return StructuredTool.from_function(fails)


def _graph(kit: Kit, tag: str) -> BaseTool:
    model = kit.models[0]

    def inner(state: Typed) -> Any:
        return {"log": [told(model.invoke(f"<m0> {tag} {state['text']}"))]}

    builder = StateGraph(Typed)
    builder.add_node("inner", inner)
    builder.add_edge(START, "inner")
    compiled = builder.compile()

    def graph(key: str) -> str:
        """Ask another agent."""
        return str(compiled.invoke({"text": key})["log"])

    return StructuredTool.from_function(graph)


TOOLS_BY_KIND: dict[str, Callable[[Kit, str], BaseTool]] = {
    "plain": _plain,
    "asks": _asks,
    "writes": _writes,
    "state": _state,
    "command": _command,
    "fails": _fails,
    "graph": _graph,
}
