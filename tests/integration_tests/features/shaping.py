"""Graphs whose states are no plain dicts, or differ from graph to graph."""

from dataclasses import dataclass, field
from operator import add
from typing import Annotated, Any, Literal

from integration_tests.features.app import App, Function, State, at, one
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict


class Person(BaseModel):
    text: str
    age: int = 0
    log: Annotated[list[str], add] = []


@dataclass
class Desk:
    text: str
    log: Annotated[list[str], add] = field(default_factory=list)


def _ask(model: Any, site: str) -> Function:
    def steps(state: Any) -> Any:
        said = yield model, at(site, f"{type(state).__name__} {state.text}")
        return {"log": [said.text]}

    return steps


def _shaped(model: Any, node: Function, schema: type) -> App:
    def route(state: Any) -> Any:
        yield model, at("node#route", f"{type(state).__name__} {state.text}")
        return "sub"

    sub = one(node(_ask(model, "sub/inner")), name="inner", schema=schema)
    builder = one(node(_ask(model, "node")), schema=schema)
    builder.add_node("sub", sub.compile())
    builder.add_conditional_edges("node", node(route), ["sub"])
    return App(builder.compile())


def pydantic_states(model: Any, node: Function) -> App:
    return _shaped(model, node, Person)


def dataclass_states(model: Any, node: Function) -> App:
    return _shaped(model, node, Desk)


def pydantic_refusals(model: Any, node: Function) -> App:
    """An update that the next node's state refuses, and an input that the first does."""

    def old(state: Person) -> Any:
        said = yield model, at("node", state.text)
        return {"age": said.text}

    builder = one(node(old), schema=Person)
    builder.add_node("after", node(_ask(model, "after")))
    builder.add_edge("node", "after")
    inputs = [{"text": "hello"}, {"age": 1}]
    return App(builder.compile(), inputs, raises=(ValidationError,))


class Question(TypedDict, total=False):
    question: str
    notes: list[str]


class Answer(TypedDict, total=False):
    question: str
    answer: str


class Both(TypedDict, total=False):
    question: str
    answer: str
    secret: str


class Secret(TypedDict, total=False):
    secret: str


def other_schemas(model: Any, node: Function) -> App:
    """A subgraph of another state, input, output and private states."""

    def research(state: Question) -> Any:
        said = yield model, at("invokes/research", state["question"])
        return {"notes": [said.text]}

    inner = one(node(research), name="research", schema=Question).compile()

    def invokes(state: Both) -> Any:
        out = yield inner, {"question": state["question"]}
        return {"secret": out["notes"][0]}

    def tells(state: Secret) -> Any:
        said = yield model, at("tells", sorted(state.items()))
        return {"answer": said.text}

    def shared(state: Question) -> Any:
        said = yield model, at("shares/ask", sorted(state))
        return {"question": said.text}

    shares = one(node(shared), name="ask", schema=Question).compile()
    builder = StateGraph(Both, input_schema=Question, output_schema=Answer)
    builder.add_node("invokes", node(invokes))
    builder.add_node("tells", node(tells), input_schema=Secret)
    builder.add_node("shares", shares)
    for start, end in ((START, "invokes"), ("invokes", "tells"), ("tells", "shares")):
        builder.add_edge(start, end)
    return App(builder.compile(), [{"question": "why"}])


def reducers(model: Any, node: Function) -> App:
    """Nodes that run at once, whose updates meet in a reducer."""

    def steps(name: str) -> Function:
        def ask(state: State) -> Any:
            said = yield model, at(name, state["text"])
            return {"log": [said.text]}

        return node(ask)

    def route(state: State) -> Literal["__end__"]:
        assert [text.split()[1] for text in state["log"]] == ["[a]", "[b]", "[c]"]
        return END

    builder = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, steps(name))
        builder.add_edge(START, name)
    builder.add_node("join", lambda state: None)
    builder.add_edge(["a", "b", "c"], "join")
    builder.add_conditional_edges("join", route)
    return App(builder.compile())
