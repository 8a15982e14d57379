"""States of one shape in three kinds, at module level: a cache pickles them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue, Topic, UntrackedValue
from langgraph.graph.message import add_messages
from langgraph.managed import IsLastStep, RemainingSteps
from pydantic import BaseModel
from typing_extensions import TypedDict

MOST_LOGGED = 8  # a subgraph gives back what it got: without a bound logs would double


def joined(old: list[str], new: list[str]) -> list[str]:
    """Return the newest entries of both logs."""
    return [*old, *new][-MOST_LOGGED:]


def capped(old: int, new: int) -> int:
    """Return the sum, as long as it is small."""
    return min(old + new, 1000)


class Typed(TypedDict, total=False):
    text: str
    log: Annotated[list[str], joined]
    messages: Annotated[list[AnyMessage], add_messages]
    steps: Annotated[int, capped]
    last: str
    topic: Annotated[Sequence[str], Topic(str)]
    fresh: Annotated[str, EphemeralValue(str, guard=False)]
    untracked: Annotated[str, UntrackedValue(str, guard=False)]
    remaining: RemainingSteps
    is_last: IsLastStep


class NarrowTyped(TypedDict, total=False):
    text: str
    log: Annotated[list[str], joined]


class OutTyped(TypedDict, total=False):
    log: Annotated[list[str], joined]
    messages: Annotated[list[AnyMessage], add_messages]
    steps: Annotated[int, capped]


class Model(BaseModel):
    text: str = ""
    log: Annotated[list[str], joined] = []
    messages: Annotated[list[AnyMessage], add_messages] = []
    steps: Annotated[int, capped] = 0
    last: str = ""


class NarrowModel(BaseModel):
    text: str = ""
    log: Annotated[list[str], joined] = []


class OutModel(BaseModel):
    log: Annotated[list[str], joined] = []
    messages: Annotated[list[AnyMessage], add_messages] = []
    steps: Annotated[int, capped] = 0


@dataclass
class Desk:
    text: str = ""
    log: Annotated[list[str], joined] = field(default_factory=list)
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    steps: Annotated[int, capped] = 0
    last: str = ""


@dataclass
class NarrowDesk:
    text: str = ""
    log: Annotated[list[str], joined] = field(default_factory=list)


@dataclass
class OutDesk:
    log: Annotated[list[str], joined] = field(default_factory=list)
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    steps: Annotated[int, capped] = 0


class Context(TypedDict, total=False):
    user: str


class Plan(BaseModel):
    """What structured output is asked for."""

    title: str
    size: int


SCHEMAS: dict[str, tuple[Any, Any, Any]] = {
    "typed": (Typed, NarrowTyped, OutTyped),
    "pydantic": (Model, NarrowModel, OutModel),
    "dataclass": (Desk, NarrowDesk, OutDesk),
}


def value_of(state: Any, name: str, default: Any) -> Any:
    """Return a value of a state of any kind."""
    found = state.get(name) if isinstance(state, dict) else getattr(state, name, None)
    return default if found is None else found
