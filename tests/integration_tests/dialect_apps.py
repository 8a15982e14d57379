"""Small apps on models of other providers: what they bind, and graphs that call it."""

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Annotated, Any

from integration_tests.chat_schema import leftovers
from integration_tests.provider_server import ProviderServer, transcript
from integration_tests.schema_server import Said, SchemaServer
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_slm.rewriting.graphs import rewrite

MODES = ("invoke", "ainvoke", "stream", "astream")
TARGETS = ("openai", "nvidia")
BOOK_ROME = "Please book a hotel in 'Rome' for 3 nights."
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "nights": {"type": "integer", "default": 1},
    },
    "required": ["city"],
}
BOOK = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a hotel.",
        "parameters": PARAMETERS,
    },
}
NAMED_BOOK = {"type": "function", "function": {"name": "book"}}
# A picture of one pixel.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
    "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA_URL = f"data:image/png;base64,{PNG}"


class Trip(BaseModel):
    """A trip."""

    city: str
    month: str = "any"


class TripDict(TypedDict):
    """A trip."""

    city: str
    month: str


TRIP_SCHEMA = {
    "title": "trip",
    "description": "A trip.",
    "type": "object",
    "properties": {"city": {"type": "string"}, "month": {"type": "string"}},
    "required": ["city", "month"],
}


@tool
def book(city: str, nights: int = 1) -> str:
    """Book a hotel."""
    return f"booked {nights} nights in {city}"


@tool
def find_train(city: str) -> str:
    """Search railway connections."""
    return f"a train goes to {city} at noon"


class State(TypedDict, total=False):
    messages: Annotated[list[BaseMessage], add_messages]
    out: Any


def asks(runnable: Any, mode: str) -> StateGraph:
    """Return a graph whose node `ask` calls `runnable` in one of the four ways."""

    def node(state: State) -> State:
        if mode == "invoke":
            return {"out": runnable.invoke(state["messages"])}
        return {"out": _whole(runnable.stream(state["messages"]))}

    async def anode(state: State) -> State:
        if mode == "ainvoke":
            return {"out": await runnable.ainvoke(state["messages"])}
        return {"out": await _awhole(runnable.astream(state["messages"]))}

    builder = StateGraph(State)
    builder.add_node("ask", anode if mode.startswith("a") else node)
    builder.add_edge(START, "ask")
    return builder.compile()


def _whole(chunks: Iterator[Any]) -> Any:
    """Return what a stream adds up to; of partial objects the last."""
    parts = list(chunks)
    try:
        return reduce(operator.add, parts)
    except TypeError:
        return parts[-1]


async def _awhole(chunks: AsyncIterator[Any]) -> Any:
    return _whole(iter([chunk async for chunk in chunks]))


def run(graph: Any, mode: str, messages: Sequence[Any], **config: Any) -> Any:
    """Return what the node of a graph of `asks` got."""
    given = {"messages": list(messages)}
    if mode.startswith("a"):
        return asyncio.run(graph.ainvoke(given, config or None))["out"]
    return graph.invoke(given, config or None)["out"]


class Desk:
    """An app whose source talks to its provider, and whose target to another.

    Attributes:
        provider: The source's endpoint.
        endpoint: The target's.
    """

    def __init__(self, provider: ProviderServer, endpoint: SchemaServer) -> None:
        self.provider = provider
        self.endpoint = endpoint
        self._made: dict[str, BaseChatModel] = {}  # to make a client takes a while

    def source(self, provider: str, **settings: Any) -> BaseChatModel:
        key = f"{provider} {settings}"
        if key not in self._made:
            self._made[key] = self.provider.source(provider, **settings)
        return self._made[key]

    def target(self, kind: str) -> BaseChatModel:
        if kind not in self._made:
            self._made[kind] = getattr(self.endpoint, kind)("small")
        return self._made[kind]

    def bound(self, runnable: Any, kind: str, mode: str) -> Any:
        """Return the app with its node bound to a target of a kind."""
        return rewrite(asks(runnable, mode), {"ask": self.target(kind)})

    def says(self, text: str = "Hello.", *calls: tuple[str, str]) -> None:
        """Tell the provider what its models say from now on."""
        self.provider.said = Said(text, calls)

    @contextmanager
    def reached(self) -> Iterator[list[dict[str, Any]]]:
        """Give the requests that the target gets in the block: valid ones, and no other.

        The provider must get none.
        """
        before, elsewhere = len(self.endpoint.asked), len(self.provider.asked)
        found: list[dict[str, Any]] = []
        yield found
        found += self.endpoint.asked[before:]
        assert found
        for asked in found:
            assert list(leftovers(asked)) == []
        assert self.provider.paths[elsewhere:] == []

    @contextmanager
    def pinned(self) -> Iterator[list[dict[str, Any]]]:
        """Give the requests that the provider gets in the block; the target gets none."""
        before, elsewhere = len(self.provider.asked), len(self.endpoint.asked)
        found: list[dict[str, Any]] = []
        yield found
        found += self.provider.asked[before:]
        assert found
        assert self.endpoint.asked[elsewhere:] == []


@contextmanager
def opened(*, clumsy: Sequence[str] = ()) -> Iterator[Desk]:
    """Open the endpoints of an app."""
    with ProviderServer() as provider, SchemaServer(clumsy=clumsy) as endpoint:
        yield Desk(provider, endpoint)


# A conversation that a source had with its own provider

BOOK_OSLO = '{"city": "Oslo", "nights": 2}'
OWN_LINES = [
    "system: Be brief.",
    "user: To Oslo.",
    "assistant: I book.",
    f"assistant: book({BOOK_OSLO})",
    "tool: booked 2 nights in Oslo",
    "assistant: Booked.",
    f"user: {BOOK_ROME}",
]


def own_turns(desk: Desk, app: Any, mode: str) -> list[BaseMessage]:
    """A conversation that the source had with its own provider."""
    graph = asks(app, mode)
    messages: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("To Oslo.")]
    desk.says("I book.", ("book", BOOK_OSLO))
    messages.append(run(graph, mode, messages))
    messages += results_of(messages[-1])
    desk.says("Booked.")
    return [*messages, run(graph, mode, messages), HumanMessage(BOOK_ROME)]


def results_of(message: AIMessage) -> list[ToolMessage]:
    tools = {"book": book, "find_train": find_train}
    return [tools[call["name"]].invoke(call) for call in message.tool_calls]


def lines_of(desk: Desk) -> list[str]:
    """What the provider was asked last."""
    return transcript(desk.provider.paths[-1], desk.provider.asked[-1])


def chat_lines(asked: dict[str, Any]) -> list[str]:
    """What the target was asked."""
    return transcript("chat", asked)
