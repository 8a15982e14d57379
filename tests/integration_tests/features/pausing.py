"""Graphs that wait for people, and graphs that remember."""

from typing import Any

from integration_tests.features.app import App, Function, State, asks, at, one
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

HELLO = {"text": "hello"}


def interrupts(model: Any, node: Function) -> App:
    """A node asks a model before and after it asks a person, twice."""

    def steps(state: State) -> Any:
        draft = yield model, at("node", f"draft {state['text']}")
        first = interrupt({"draft": draft.text})
        second = interrupt("sure?")
        said = yield model, at("node", f"{first} {second}")
        return {"log": [said.text]}

    builder = one(node(steps))
    builder.add_node("after", node(asks(model, "after")))
    builder.add_edge("node", "after")
    graph = builder.compile(checkpointer=InMemorySaver())
    return App(graph, [HELLO, Command(resume="yes"), Command(resume="no")])


def breakpoints(model: Any, node: Function) -> App:
    builder = one(node(asks(model, "node")))
    builder.add_node("after", node(asks(model, "after")))
    builder.add_edge("node", "after")
    graph = builder.compile(
        checkpointer=InMemorySaver(), interrupt_before=["node"], interrupt_after=["node"]
    )
    return App(graph, [HELLO, None, None])


def paused_subgraphs(model: Any, node: Function) -> App:
    """A person is asked two graphs down, and in a graph that a function invokes."""

    def pauses(site: str) -> Function:
        def steps(state: State) -> Any:
            said = yield model, at(site, state["text"])
            return {"log": [said.text, interrupt(site)]}

        return node(steps)

    def sub(site: str) -> Any:
        inner = one(node(asks(model, f"{site}/first")), name="first")
        inner.add_node("pauses", pauses(f"{site}/pauses"))
        inner.add_edge("first", "pauses")
        return inner.compile()

    invoked = sub("invokes")

    def invokes(state: State) -> Any:
        yield model, at("invokes", state["text"])
        out = yield invoked, {"text": state["text"]}
        return {"log": out["log"]}

    middle = one(sub("middle/inner"), name="inner").compile()
    builder = one(middle, name="middle")
    builder.add_node("invokes", node(invokes))
    builder.add_edge("middle", "invokes")
    graph = builder.compile(checkpointer=InMemorySaver())
    return App(graph, [HELLO, Command(resume="yes"), Command(resume="no")])


def _answers(state: Any) -> Command:
    asked = sorted((each.value, each.id) for each in state.interrupts)
    return Command(resume={key: f"to {value}" for value, key in asked})


def parallel_interrupts(model: Any, node: Function) -> App:
    """Several people are asked at once, and answer at once."""

    def asking(name: str) -> Function:
        def steps(state: State) -> Any:
            draft = yield model, at(name, state["text"])
            said = yield model, at(name, interrupt(name))
            return {"log": [draft.text, said.text]}

        return node(steps)

    builder = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, asking(name))
        builder.add_edge(START, name)
    return App(builder.compile(checkpointer=InMemorySaver()), [HELLO, _answers])


def memories(model: Any, node: Function) -> App:
    """Subgraphs that remember earlier runs of their thread."""

    def remembers(site: str) -> Any:
        def steps(state: State) -> Any:
            said = yield model, at(site, len(state.get("log", ())))
            return {"log": [said.text]}

        return one(node(steps), name="ask").compile(checkpointer=True)

    invoked = remembers("invokes/ask")

    def invokes(state: State) -> Any:
        out = yield invoked, {"text": state["text"]}
        return {"log": [f"{len(out['log'])} so far"]}

    builder = one(remembers("sub/ask"), name="sub")
    builder.add_node("invokes", node(invokes))
    builder.add_edge("sub", "invokes")
    return App(builder.compile(checkpointer=InMemorySaver()), [HELLO] * 3)


def own_threads(model: Any, node: Function) -> App:
    """A graph with a checkpointer and threads of its own, run in a node."""

    def remembers(state: State) -> Any:
        said = yield model, at("node/ask", len(state.get("log", ())))
        return {"log": [said.text]}

    inner = one(node(remembers), name="ask").compile(checkpointer=InMemorySaver())

    def steps(state: State, config: RunnableConfig) -> Any:
        thread = f"own {config['configurable']['thread_id']}"
        out = yield inner, {"text": "x"}, {"configurable": {"thread_id": thread}}
        return {"log": out["log"][-1:]}

    graph = one(node(steps)).compile(checkpointer=InMemorySaver())
    return App(graph, [HELLO] * 2)
