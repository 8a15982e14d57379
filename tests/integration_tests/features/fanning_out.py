"""Graphs that fan out, join, hand over, loop and share their parts."""

import asyncio
import operator
from typing import Annotated, Any

from integration_tests.features.app import App, Function, State, asks, at, one
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.types import Command, Send
from typing_extensions import TypedDict


class Word(TypedDict, total=False):
    word: str
    log: Annotated[list[str], operator.add]


def _sub(steps: Any) -> Any:
    builder = StateGraph(Word)
    builder.add_node("ask", steps)
    builder.add_edge(START, "ask")
    return builder.compile()


def sends(model: Any, node: Function) -> App:
    """A model decides whom to send what, and a deferred node joins uneven branches."""

    def route(state: State) -> Any:
        said = yield model, at("__start__#route", state["text"])
        words = said.text.split()[-3:]
        alone = [Send("ask", {"text": word}) for word in words]
        return [*alone, *(Send("sub", {"word": word}) for word in words[:2])]

    def join(state: State) -> Any:
        said = yield model, at("join", len(state["log"]))
        return {"log": [said.text]}

    def ask(state: Word) -> Any:
        said = yield model, at("sub/ask", state["word"])
        return {"log": [said.text]}

    builder = StateGraph(State)
    builder.add_node("ask", node(asks(model, "ask")))
    builder.add_node("again", lambda state: {"log": ["again"]})
    builder.add_node("sub", _sub(node(ask)))
    builder.add_node("join", node(join), defer=True)
    builder.add_conditional_edges(START, node(route), ["ask", "sub"])
    builder.add_edge("ask", "again")
    builder.add_edge("again", "join")
    builder.add_edge("sub", "join")
    return App(builder.compile(), [{"text": "a b c"}])


def sends_in_a_subgraph(model: Any, node: Function) -> App:
    """A graph that is sent to sends in turn."""

    def route(state: Word) -> Any:
        return [Send("ask", {"text": letter}) for letter in state["word"]]

    inner = StateGraph(Word)
    inner.add_node("ask", node(asks(model, "sub/ask")), input_schema=State)
    inner.add_conditional_edges(START, route, ["ask"])
    outer = StateGraph(State)
    outer.add_node("sub", inner.compile())
    outer.add_conditional_edges(
        START, lambda state: [Send("sub", {"word": word}) for word in ("ab", "c")]
    )
    return App(outer.compile())


def commands(model: Any, node: Function) -> App:
    """Nodes go to others, update the state, send, and leave a subgraph for the parent."""

    def first(state: State) -> Any:
        said = yield model, at("first", state["text"])
        return Command(goto="sub", update={"log": [said.text], "text": "second"})

    def inner(state: State) -> Any:
        said = yield model, at("sub/inner", state["text"])
        to = [Send("last", {"text": "third"}), Send("last", {"text": "fourth"})]
        return Command(goto=to, update={"log": [said.text]}, graph=Command.PARENT)

    sub = one(node(inner), name="inner")
    sub.add_node("skipped", node(asks(model, "sub/skipped")))
    sub.add_edge("inner", "skipped")
    builder = one(node(first), name="first", destinations=("sub",))
    builder.add_node("sub", sub.compile(), destinations=("last",))
    builder.add_node("last", node(asks(model, "last")))
    return App(builder.compile())


def parents_of_parents(model: Any, node: Function) -> App:
    """A subgraph two graphs down hands over to the one above, which goes on."""

    def deep(state: State) -> Any:
        said = yield model, at("middle/deep/ask", state["text"])
        update = {"log": [said.text]}
        return Command(goto="next", update=update, graph=Command.PARENT)

    inner = one(node(deep), name="ask").compile()
    middle = one(inner, name="deep", destinations=("next",))
    middle.add_node("next", node(asks(model, "middle/next")))
    outer = one(middle.compile(), name="middle")
    outer.add_node("end", node(asks(model, "end")))
    outer.add_edge("middle", "end")
    return App(outer.compile())


def gathered(model: Any, node: Function) -> App:
    """A node runs the same graph several times at once, beside the model."""
    inner = one(node(asks(model, "node/ask")), name="ask").compile()
    texts = [{"text": text} for text in ("a", "b", "c")]

    def run(state: State) -> Any:
        said = model.batch([at("node", state["text"])] * 2)
        outs = inner.batch(texts)
        return {"log": [*(out["log"][0] for out in outs), *(m.text for m in said)]}

    async def arun(state: State) -> Any:
        tasks = [asyncio.create_task(inner.ainvoke(text)) for text in texts]
        prompts = [at("node", state["text"])] * 2
        said = await asyncio.gather(*map(model.ainvoke, prompts))
        outs = await asyncio.gather(*tasks)
        return {"log": [*(out["log"][0] for out in outs), *(m.text for m in said)]}

    return App(one(RunnableLambda(run, arun)).compile())


def two_parents(model: Any, node: Function) -> App:
    """One graph and one function are used in several places."""

    def ask(state: State) -> Any:
        said = yield model, at(state["where"], state["text"])
        return {"log": [said.text]}

    both = node(ask)
    inner = one(both, name="ask").compile()

    def invokes(state: State) -> Any:
        out = yield inner, {"text": state["text"], "where": "invokes/ask"}
        return {"log": out["log"]}

    used = {"a": inner, "b": inner, "invokes": node(invokes), "c": both, "d": both}
    where = {"a": "a/ask", "b": "b/ask"}
    builder = StateGraph(State)
    before = START
    for name, what in used.items():
        update = {"where": where.get(name, name)}
        builder.add_node(f"to_{name}", lambda state, update=update: update)
        builder.add_node(name, what)
        builder.add_edge(before, f"to_{name}")
        builder.add_edge(f"to_{name}", name)
        before = name
    return App(builder.compile())


def endless(model: Any, node: Function) -> App:
    builder = one(node(asks(model, "node")))
    builder.add_edge("node", "node")
    graph = builder.compile().with_config(recursion_limit=4)
    return App(graph, raises=(GraphRecursionError,))


def endless_subgraph(model: Any, node: Function) -> App:
    """A node invokes a graph that never ends, and goes on when it is stopped."""
    inner = one(node(asks(model, "node/ask")), name="ask")
    inner.add_edge("ask", "ask")
    limited = inner.compile().with_config(recursion_limit=3)

    def steps(state: State) -> Any:
        try:
            yield limited, {"text": state["text"]}
        except GraphRecursionError as error:
            return {"log": [str(error)]}

    return App(one(node(steps)).compile())


class Counted(State, total=False):
    remaining_steps: RemainingSteps
    is_last_step: IsLastStep


def remaining_steps(model: Any, node: Function) -> App:
    """A loop ends itself before LangGraph does."""

    def steps(state: Counted) -> Any:
        left = state["remaining_steps"], state["is_last_step"]
        said = yield model, at("node", left)
        return {"log": [said.text]}

    def route(state: Counted) -> str:
        return END if state["remaining_steps"] < 2 else "node"

    builder = one(node(steps), schema=Counted)
    builder.add_conditional_edges("node", route, ["node", END])
    return App(builder.compile().with_config(recursion_limit=5))
