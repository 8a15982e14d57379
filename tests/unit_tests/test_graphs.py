import asyncio
import functools
import gc
import inspect
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langgraph._internal._constants import CONFIG_KEY_CACHE
from langgraph.cache.memory import InMemoryCache
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import CachePolicy
from pydantic import BaseModel
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import State, Watching, one_node

from langchain_slm.errors import PlanError, RewriteError
from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.rewriting.scopes import SCOPE
from langchain_slm.rewriting.sites import fingerprint
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.router import Router
from langchain_slm.schema import Binding, Decision, ModelSpec, Plan

HELLO = {"text": "hello"}


class Verdict(BaseModel):
    """A verdict."""

    label: str


def verdict(messages):
    call = {"name": "Verdict", "args": {"label": "good"}, "id": "1"}
    return AIMessage("", tool_calls=[call])


def said(model):
    return FakeChat(model_name=model, reply=lambda messages: model)


# Ways in which a node holds its model: each takes it and returns a node that logs what
# the model said.


def _function(llm):
    def node(state):
        return {"log": [llm.invoke(state["text"]).text]}

    return node


def _async_function(llm):
    async def node(state):
        return {"log": [(await llm.ainvoke(state["text"])).text]}

    return node


def _method(llm):
    class Agent:
        def node(self, state):
            return {"log": [llm.invoke(state["text"]).text]}

    return Agent().node


def _partial(llm):
    def node(state, *, model):
        return {"log": [model.invoke(state["text"]).text]}

    return functools.partial(node, model=llm)


class _Callable:
    def __init__(self, llm):
        self.llm = llm

    def __call__(self, state):
        return {"log": [self.llm.invoke(state["text"]).text]}


class _AsyncCallable(_Callable):
    async def __call__(self, state):
        return {"log": [(await self.llm.ainvoke(state["text"])).text]}


class _Unhashable(_Callable):
    __hash__ = None


def _decorated(llm):
    def decorate(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function(*args, **kwargs)

        return run

    return decorate(_function(llm))


def _lambda(llm):
    return lambda state: {"log": [llm.invoke(state["text"]).text]}


def _created_at_run_time(llm):
    def node(state):
        made = FakeChat(model_name=llm.model_name, reply=llm.reply, asked=llm.asked)
        return {"log": [made.invoke(state["text"]).text]}

    return node


def _logged(message):
    return {"log": [message.text]}


def _chain(llm):
    return ChatPromptTemplate.from_template("{text}") | llm | _logged


def _runnable_lambda(llm):
    return RunnableLambda(_function(llm))


def _async_runnable_lambda(llm):
    return RunnableLambda(_async_function(llm))


def _parallel(llm):
    return RunnableParallel(log=_chain(llm) | (lambda made: made["log"]))


def _retrying(llm):
    return _chain(llm).with_retry(stop_after_attempt=2)


def _with_fallbacks(llm):
    return _chain(llm).with_fallbacks([RunnableLambda(_function(llm))])


def _generator(llm):
    def node(state):
        yield {"log": [chunk.text for chunk in llm.stream(state["text"])][:1]}

    return node


def _async_generator(llm):
    async def node(state):
        chunks = [chunk.text async for chunk in llm.astream(state["text"])]
        yield {"log": chunks[:1]}

    return node


def _returns_a_runnable(llm):
    return lambda state: _chain(llm)


def _async_returns_a_runnable(llm):
    async def node(state):
        return _chain(llm)

    return node


def _lambda_returns_a_runnable(llm):
    return RunnableLambda(lambda state: _chain(llm))


def _subgraph_invoked(llm):
    inner = one_node(_function(llm), name="agent").compile()
    return lambda state: {"log": inner.invoke(state)["log"]}


def _subgraph_of_its_own_thread(llm):
    inner = one_node(_function(llm), name="agent").compile()
    config = {"configurable": {"thread_id": "its own"}}
    return lambda state: {"log": inner.invoke(state, config)["log"]}


def _subgraph_in_a_decorated_function(llm):
    inner = one_node(_function(llm), name="agent").compile()

    def node(state):
        return {"log": inner.invoke(state)["log"]}

    @functools.wraps(node)
    def run(state):
        return node(state)

    return run


def _subgraph(llm):
    return one_node(_function(llm), name="agent").compile()


def _subgraph_of_a_chain(llm):
    return one_node(_chain(llm), name="agent").compile()


def _chain_with_a_subgraph(llm):
    inner = one_node(_function(llm), name="agent").compile()
    return RunnableLambda(lambda state: state) | inner | (lambda s: {"log": s["log"]})


def _calls_a_task(llm):
    @task
    def ask(text):
        return llm.invoke(text).text

    return lambda state: {"log": [ask(state["text"]).result()]}


def _batch(llm):
    return lambda state: {"log": [m.text for m in llm.batch([state["text"]] * 2)][:1]}


def _gather(llm):
    async def node(state):
        tasks = [asyncio.create_task(llm.ainvoke(state["text"])) for _ in range(2)]
        return {"log": [message.text for message in await asyncio.gather(*tasks)][:1]}

    return node


def _generate(llm):
    def node(state):
        prompts = llm._convert_input(state["text"]).to_messages()
        found = llm.generate([prompts, prompts])
        return {"log": [found.generations[1][0].text]}

    return node


def _agenerate(llm):
    async def node(state):
        prompts = llm._convert_input(state["text"]).to_messages()
        found = await llm.agenerate([prompts, prompts])
        return {"log": [found.generations[1][0].text]}

    return node


def _replaces_metadata(llm):
    def node(state):
        return {"log": [llm.invoke(state["text"], {"metadata": {"mine": 1}}).text]}

    return node


def _chain_replaces_metadata(llm):
    def node(state):
        return _chain(llm).invoke(state, {"metadata": {"mine": 1}})

    return node


def _passes_the_config(llm):
    def node(state, config):
        return {"log": [llm.invoke(state["text"], config).text]}

    return node


def _thread_with_the_config(llm):
    def node(state, config):
        answers = []

        def ask():
            answers.append(llm.invoke(state["text"], config).text)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return {"log": answers}

    return node


WAYS = {
    "node": [
        _function,
        _method,
        _partial,
        _Callable,
        _Unhashable,
        _decorated,
        _lambda,
        _created_at_run_time,
        _chain,
        _runnable_lambda,
        _parallel,
        _retrying,
        _with_fallbacks,
        _generator,
        _returns_a_runnable,
        _lambda_returns_a_runnable,
        _batch,
        _generate,
        _replaces_metadata,
        _chain_replaces_metadata,
        _passes_the_config,
        _thread_with_the_config,
    ],
    "node/agent": [
        _subgraph,
        _subgraph_of_a_chain,
        _subgraph_invoked,
        _subgraph_in_a_decorated_function,
        _subgraph_of_its_own_thread,
        _chain_with_a_subgraph,
    ],
    "node/ask": [_calls_a_task],
}
ASYNC_WAYS = [
    _async_function,
    _AsyncCallable,
    _async_runnable_lambda,
    _async_generator,
    _async_returns_a_runnable,
    _gather,
    _agenerate,
]


def _invoke(graph):
    return graph.invoke(HELLO)["log"]


def _stream(graph):
    return list(graph.stream(HELLO, stream_mode=["messages", "values"]))[-1][1]["log"]


def _batched(graph):
    return graph.batch([HELLO, HELLO])[1]["log"]


def _ainvoke(graph):
    return asyncio.run(graph.ainvoke(HELLO))["log"]


def _abatch(graph):
    return asyncio.run(graph.abatch([HELLO, HELLO]))[1]["log"]


def _astream(graph):
    async def stream():
        modes = ["messages", "custom", "values"]
        return [event async for event in graph.astream(HELLO, stream_mode=modes)]

    return asyncio.run(stream())[-1][1]["log"]


ASYNC_MODES = [_ainvoke, _astream, _abatch]
MODES = [_invoke, _stream, _batched, *ASYNC_MODES]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("way", "site"), [(way, site) for site, ways in WAYS.items() for way in ways]
)
def test_a_site_is_bound_however_its_node_holds_the_model(way, site, mode):
    reference, slm = said("reference"), said("slm")
    graph = one_node(way(reference)).compile()
    assert mode(rewrite(graph, {site: slm})) == ["slm"]
    assert reference.asked == []
    asked = len(slm.asked)
    assert mode(graph) == ["reference"]  # the input is untouched
    assert len(slm.asked) == asked


@pytest.mark.parametrize("mode", ASYNC_MODES)
@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_a_site_is_bound_however_its_async_node_holds_the_model(way, mode):
    reference, slm = said("reference"), said("slm")
    graph = one_node(way(reference)).compile()
    assert mode(rewrite(graph, {"node": slm})) == ["slm"]
    assert reference.asked == []
    assert mode(graph) == ["reference"]


@pytest.mark.parametrize("mode", [_invoke, _ainvoke])
@pytest.mark.parametrize(
    ("way", "site"),
    [(way, site) for site, ways in WAYS.items() for way in ways],
)
def test_a_rewritten_builder_compiles_to_a_rewritten_graph(way, site, mode):
    reference, slm = said("reference"), said("slm")
    builder = one_node(way(reference))
    assert mode(rewrite(builder, {site: slm}).compile()) == ["slm"]
    assert mode(builder.compile()) == ["reference"]


def test_a_model_is_a_node_itself():
    reference, slm = said("reference"), said("slm")
    builder = StateGraph(list)
    builder.add_node("model", reference)
    builder.add_edge(START, "model")
    graph = rewrite(builder.compile(), {"model": slm})
    assert graph.invoke([("user", "hello")]).text == "slm"
    assert reference.asked == []


@pytest.mark.parametrize("mode", MODES)
def test_tools_and_structured_output_of_the_source_stay(mode):
    reference = FakeChat(model_name="reference", reply=verdict)
    slm = FakeChat(model_name="slm", reply=verdict)

    def tools(state):
        message = reference.bind_tools([Verdict]).invoke(state["text"])
        return {"log": [message.tool_calls[0]["args"]["label"]]}

    def structured(state):
        found = reference.with_structured_output(Verdict).invoke(state["text"])
        return {"log": [found.label]}

    builder = one_node(tools, name="tools")
    builder.add_node("structured", structured)
    builder.add_edge("tools", "structured")
    graph = rewrite(builder.compile(), {"tools": slm, "structured": slm})
    assert mode(graph) == ["good", "good"]
    assert reference.asked == []
    names = [[tool["function"]["name"] for tool in o["tools"]] for o in slm.options]
    assert set(map(tuple, names)) == {("Verdict",)}


def _edges(reference, edge):
    builder = one_node(_function(reference))
    builder.add_node("after", lambda state: {"log": ["after"]})
    builder.add_conditional_edges("node", edge, ["after", END])
    return builder


def _edge(reference):
    def route(state):
        return "after" if reference.invoke("which?").text == "slm" else END

    return route


def _edge_returns_a_chain(reference):
    chain = (lambda state: "which?") | reference | (lambda message: message.text)

    def route(state):
        return chain | (lambda text: "after" if text == "slm" else END)

    return route


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("site", ["node#route", "node#branch"])
@pytest.mark.parametrize("edge", [_edge, _edge_returns_a_chain])
def test_a_conditional_edge_is_a_site_of_its_own(edge, site, mode):
    reference, slm = said("reference"), said("slm")
    graph = _edges(reference, edge(reference)).compile()
    assert mode(rewrite(graph, {site: slm})) == ["reference", "after"]
    assert mode(graph) == ["reference"]


def test_a_conditional_edge_that_is_a_chain_is_bound():
    reference, slm = said("reference"), said("slm")
    chain = (lambda state: "which?") | reference | (lambda message: END)
    graph = rewrite(_edges(reference, chain).compile(), {"node#branch": slm})
    assert _invoke(graph) == ["reference"]
    assert len(slm.asked) == 1


def test_the_name_of_a_nameless_edge_survives_a_second_copy():
    reference, slm = said("reference"), said("slm")
    graph = _edges(reference, lambda state: _edge(reference)(state)).compile()  # noqa: PLW0108 - it has no name
    watching = Watching()
    twice = rewrite(watching.on(graph), {"node#condition": slm})
    assert _invoke(twice) == ["reference", "after"]
    assert watching.sites == ["node", "node#condition"]


def test_an_edge_from_the_start_is_a_site():
    reference, slm = said("reference"), said("slm")
    builder = StateGraph(State)
    builder.add_node("after", lambda state: {"log": ["after"]})
    builder.add_conditional_edges(START, _edge(reference), ["after", END])
    graph = rewrite(builder.compile(), {"__start__#route": slm})
    assert _invoke(graph) == ["after"]


def test_each_site_calls_its_own_model():
    reference, one, two = said("reference"), said("one"), said("two")
    builder = one_node(_function(reference), name="a")
    for before, name in (("a", "b"), ("b", "c")):
        builder.add_node(name, _function(reference))
        builder.add_edge(before, name)
    graph = rewrite(builder.compile(), {"a": one, "b": two})
    assert _invoke(graph) == ["one", "two", "reference"]


def test_a_function_used_by_two_nodes_is_two_sites():
    reference, slm = said("reference"), said("slm")
    node = _function(reference)
    builder = one_node(node, name="a")
    builder.add_node("b", node)
    builder.add_edge("a", "b")
    assert _invoke(rewrite(builder.compile(), {"b": slm})) == ["reference", "slm"]


def test_one_subgraph_in_two_nodes_is_two_sites():
    reference, slm = said("reference"), said("slm")
    inner = one_node(_function(reference), name="agent").compile()
    builder = one_node(inner, name="a")
    builder.add_node("b", lambda state: {"log": inner.invoke({"text": "x"})["log"]})
    builder.add_edge("a", "b")
    graph = rewrite(builder.compile(), {"b/agent": slm})
    assert _invoke(graph) == ["reference", "slm"]


def test_one_function_at_two_depths_keeps_its_sites_as_a_part_of_another_graph():
    reference, top, deep = said("reference"), said("top"), said("deep")
    node = RunnableLambda(lambda state: {"log": [reference.invoke("x").text]})
    builder = one_node(node, name="a")
    builder.add_node("sub", one_node(node, name="b").compile())
    builder.add_edge("a", "sub")
    part = rewrite(builder.compile(), {"a": top, "sub/b": deep})
    whole = one_node(part, name="team").compile()
    assert set(_invoke(whole)) == {"top", "deep"}
    assert reference.asked == []


def test_one_runnable_as_node_and_edge_is_two_sites():
    reference, slm = said("after"), said("slm")
    both = RunnableLambda(lambda state: reference.invoke("x").text, name="route")
    builder = one_node(both | (lambda text: {"log": [text]}))
    builder.add_node("after", lambda state: {"log": ["end"]})
    builder.add_conditional_edges("node", both, {"after": "after", "slm": END})
    graph = builder.compile()
    assert _invoke(rewrite(graph, {"node": slm})) == ["slm", "end"]
    assert _invoke(rewrite(graph, {"node#route": slm})) == ["after"]


def test_a_functional_graph_and_its_tasks_are_bound():
    reference, slm = said("reference"), said("slm")

    @task
    def ask(text):
        return reference.invoke(text).text

    @entrypoint()
    def flow(text):
        return [ask(text).result(), reference.invoke(text).text]

    assert rewrite(flow, {"flow/ask": slm}).invoke("hello") == ["slm", "reference"]
    assert rewrite(flow, {"flow": slm}).invoke("hello") == ["reference", "slm"]
    assert flow.invoke("hello") == ["reference", "reference"]


def test_a_thread_without_context_or_config_keeps_the_original_model():
    reference, slm = said("reference"), said("slm")

    def node(state):
        with ThreadPoolExecutor(1) as pool:
            return {"log": [pool.submit(reference.invoke, "hello").result().text]}

    assert _invoke(rewrite(one_node(node).compile(), {"node": slm})) == ["reference"]


def test_a_scope_ends_with_its_node():
    reference, slm = said("reference"), said("slm")
    graph = rewrite(one_node(_function(reference)).compile(), {"node": slm})
    for mode in MODES:
        mode(graph)
        assert SCOPE.get() is None
        assert reference.invoke("hello").text == "reference"


def test_a_node_that_fails_leaves_no_scope_behind():
    reference, slm = said("reference"), said("slm")

    def node(state):
        reference.invoke("hello")
        msg = "mine"
        raise KeyError(msg)

    graph = rewrite(one_node(node).compile(), {"node": slm})
    with pytest.raises(KeyError, match="mine"):
        graph.invoke(HELLO)
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(graph.ainvoke(HELLO))
    assert reference.invoke("hello").text == "reference"


def test_an_answer_says_who_gave_it_and_why():
    reference, slm = said("reference"), said("slm")
    messages = []

    def node(state):
        messages.append(reference.invoke(state["text"]))

    router = Router({"node": slm})
    rewrite(one_node(node).compile(), router).invoke(HELLO)
    assert messages[0].response_metadata["langchain_slm"] == {
        "site": "node",
        "task": None,
        "model": "slm",
        "provider": "fake-chat",
        "bound": "slm",
        "rule": "mapping",
        "plan": router.plan_id,
        "escalated": False,
        "reason": None,
        "attempts": 1,
        "usd": None,
        "failed_usd": 0.0,
    }


def test_a_bound_model_that_fails_escalates_to_the_original():
    def fails(messages):
        raise ConnectionError

    reference, slm = said("reference"), FakeChat(model_name="slm", reply=fails)
    graph = rewrite(one_node(_function(reference)).compile(), {"node": slm})
    for mode in MODES:
        assert mode(graph) == ["reference"]


# Copies of copies.


def test_a_plan_takes_the_place_of_an_earlier_one():
    reference, one = said("reference"), said("one")
    builder = _edges(reference, _edge(reference))
    for way in [_chain, _subgraph, _generator, _parallel, _returns_a_runnable]:
        builder.add_node(way.__name__, way(reference))
        builder.add_edge("after", way.__name__)
    sites = ["node", "node#route", "_subgraph/agent"]
    sites += ["_chain", "_generator", "_parallel", "_returns_a_runnable"]
    for compiled in (False, True):
        graph = builder.compile() if compiled else builder
        first = rewrite(graph, dict.fromkeys(sites, one))
        second = rewrite(first, {"node#route": said("slm")})
        reference.asked.clear()
        assert set(_invoke(second if compiled else second.compile())) == {
            "reference",
            "after",
        }
        assert (len(reference.asked), one.asked) == (6, [])


def test_a_plan_takes_the_place_of_the_one_below_a_recording():
    reference, one, two = said("reference"), said("one"), said("two")
    graph = one_node(_thread_with_the_config(reference)).compile()
    inner, outer = Watching(), Watching()
    first = outer.on(rewrite(inner.on(graph), {"node": one}))
    assert _invoke(rewrite(first, {"node": two})) == ["two"]
    assert _invoke(first) == ["one"]
    assert (len(inner.calls), len(outer.calls)) == (2, 2)


@pytest.mark.parametrize("way", [way for ways in WAYS.values() for way in ways])
def test_a_recording_and_a_rewriting_hold_in_either_order(way):
    reference, slm = said("reference"), said("slm")
    site = next(site for site, ways in WAYS.items() if way in ways)
    graph = one_node(way(reference)).compile()
    one, two = Watching(), Watching()
    assert _invoke(rewrite(one.on(graph), {site: slm})) == ["slm"]
    assert _invoke(two.on(rewrite(graph, {site: slm}))) == ["slm"]
    assert set(one.sites) == set(two.sites) == {site}
    assert {call.message.text for call in (*one, *two)} == {"slm"}


def test_wrappers_do_not_pile_up():
    depths = []

    def node(state):
        depths.append(len(inspect.stack(0)))

    graph = one_node(node).compile()
    for _ in range(5):
        graph = rewrite(graph, {"node": said("slm")})
        graph.invoke(HELLO)
    assert len(set(depths)) == 1


def test_a_rewritten_graph_keeps_its_sites_as_a_part_of_another():
    reference, slm = said("reference"), said("slm")
    agent = rewrite(
        one_node(_subgraph(reference), name="math").compile(), {"math/agent": slm}
    )
    watching = Watching()
    builder = one_node(agent, name="team")
    builder.add_node("calls", lambda state: {"log": agent.invoke(HELLO)["log"]})
    builder.add_edge("team", "calls")
    graph = watching.on(builder.compile())
    assert _invoke(graph) == ["slm", "slm"]
    assert watching.sites == ["team/math/agent", "calls/math/agent"]
    inside = Watching()
    whole = one_node(inside.on(agent), name="team").compile()
    assert _invoke(whole) == ["slm"]
    assert inside.sites == ["math/agent"]


def test_the_inner_plan_decides():
    reference, one, two = said("reference"), said("one"), said("two")
    agent = rewrite(one_node(_function(reference), name="a").compile(), {"a": one})
    builder = one_node(lambda state: {"log": agent.invoke(HELLO)["log"]})
    assert _invoke(rewrite(builder.compile(), {"node/a": two})) == ["one"]


def test_copies_of_a_rewritten_graph_keep_routing():
    reference, slm = said("reference"), said("slm")
    graph = one_node(_thread_with_the_config(reference)).compile()
    rewritten = rewrite(graph, {"node": slm})
    copies = [
        rewritten.with_config(tags=["copy"]),
        rewritten.with_config({"metadata": {"mine": 1}}),
        rewritten.copy(),
    ]
    recompiled = rewrite(one_node(_function(reference)), {"node": slm}).compile()
    del rewritten
    gc.collect()
    for each in [*copies, recompiled]:
        assert _invoke(each) == ["slm"]


def test_a_copy_lives_as_long_as_its_hook_even_below_a_stream():
    reference, slm = said("reference"), said("slm")
    stream = rewrite(one_node(_function(reference)).compile(), {"node": slm}).stream(
        HELLO, stream_mode="values"
    )
    gc.collect()
    assert list(stream)[-1]["log"] == ["slm"]


def test_equal_plans_do_not_end_each_other():
    reference, slm = said("reference"), said("slm")
    graph = one_node(_thread_with_the_config(reference)).compile()
    kept, gone = rewrite(graph, {"node": slm}), rewrite(graph, {"node": slm})
    del gone
    gc.collect()
    assert _invoke(kept) == ["slm"]


# What is not a copy's business.


def _everything(reference):
    inner = one_node(_function(reference), name="agent").compile()
    builder = one_node(_function(reference), cache_policy=CachePolicy())
    builder.add_node("sub", inner)
    builder.add_node("chain", _chain(reference))
    builder.add_node("lambda", RunnableLambda(_function(reference)))
    builder.add_node("generator", _generator(reference))
    builder.add_edge("node", "sub")
    builder.add_conditional_edges("sub", _edge(reference), {"after": "chain", END: END})
    builder.set_node_defaults(error_handler=lambda state: None)
    return builder


def _deep_vars(graph):
    """Return the attributes of a graph and of what it holds, by path."""
    found = {f".{name}": value for name, value in vars(graph).items()}
    for name, spec in graph.nodes.items():
        slots = getattr(type(spec), "__slots__", None) or vars(spec)
        found |= {f".nodes.{name}.{key}": getattr(spec, key) for key in slots}
        for part in ("runnable", "bound"):
            held = getattr(spec, part, None)
            found |= (
                {
                    f".nodes.{name}.{part}.{key}": value
                    for key, value in vars(held).items()
                }
                if held is not None
                else {}
            )
    return found


def _same(before, after):
    assert before.keys() == after.keys()
    changed = [key for key in before if before[key] is not after[key]]
    assert [key for key in changed if before[key] != after[key]] == []


@pytest.mark.parametrize("compiled", [False, True])
def test_the_input_is_untouched(compiled):
    reference = said("reference")
    graph = _everything(reference).compile() if compiled else _everything(reference)
    graphs = [graph, graph.builder] if compiled else [graph]
    before = [_deep_vars(each) for each in graphs]
    shallow = [
        {key: copy_of(value) for key, value in vars(each).items()} for each in graphs
    ]
    rewritten = rewrite(graph, {"node": said("slm")})
    (rewritten if compiled else rewritten.compile()).invoke(HELLO)
    for each, old, old_shallow in zip(graphs, before, shallow, strict=True):
        _same(old, _deep_vars(each))
        assert {key: copy_of(value) for key, value in vars(each).items()} == old_shallow


def copy_of(value):
    return value.copy() if isinstance(value, dict | set | list) else value


def test_a_copy_of_a_builder_grows_alone():
    builder = one_node(_function(said("reference")))
    copied = rewrite(builder, {"node": said("slm")})
    copied.add_node("more", lambda state: None)
    copied.add_edge("node", "more")
    copied.add_conditional_edges("more", lambda state: END, [END])
    copied.set_node_defaults(error_handler=lambda state: None)
    assert list(builder.nodes) == ["node"]
    assert builder.edges == {(START, "node")}
    assert dict(builder.branches) == {}
    assert builder._node_defaults.error_handler is None


def test_a_graph_in_another_process_is_left_as_it_is():
    remote = RemoteGraph("assistant", url="http://127.0.0.1:9")
    graph = one_node(remote).compile()
    assert rewrite(graph, {}).nodes["node"].bound is remote


def test_the_subgraphs_of_a_copy_are_the_copied_ones():
    graph = one_node(_subgraph(said("reference")), name="sub").compile()
    copied = rewrite(graph, {})
    found = dict(copied.get_subgraphs())["sub"]
    assert found is copied.nodes["sub"].bound
    assert found is not graph.nodes["sub"].bound


@pytest.mark.parametrize("way", [_subgraph_invoked, _subgraph_in_a_decorated_function])
def test_subgraphs_that_a_function_invokes_are_found_in_the_compiled_copy(way):
    builder = one_node(way(said("reference")))
    found = list(dict(builder.compile().get_subgraphs()))
    twice = Watching().on(rewrite(builder, {}))
    assert list(dict(twice.compile().get_subgraphs())) == found == ["node"]


def test_a_node_that_is_only_sync_is_still_known_as_such():
    graph = one_node(_function(said("reference"))).compile()
    before, after = graph.nodes["node"].bound, rewrite(graph, {}).nodes["node"].bound
    assert vars(after.afunc) == vars(before.afunc)
    assert after.afunc.func is before.afunc.func
    assert after.afunc.args == (None, after.func)


def test_a_default_error_handler_is_bound_and_compiles_again():
    reference, slm = said("reference"), said("slm")

    def fails(state):
        raise KeyError

    def handler(state):
        return {"log": [reference.invoke("help").text]}

    builder = one_node(fails).set_node_defaults(error_handler=handler)
    plan = {"__default_error_handler__": slm}
    assert _invoke(rewrite(builder, plan).compile()) == ["slm"]
    compiled = builder.compile()
    assert _invoke(rewrite(compiled, plan)) == ["slm"]
    assert _invoke(rewrite(compiled, plan).builder.compile()) == ["slm"]
    assert _invoke(compiled) == ["reference"]


@pytest.mark.parametrize("thing", [object(), "graph", lambda: None, StateGraph, None])
def test_only_langgraph_graphs_are_rewritten(thing):
    with pytest.raises(RewriteError, match="give a StateGraph or a compiled graph"):
        rewrite(thing, {})


def test_a_plan_must_be_one():
    graph = one_node(_function(said("reference")))
    with pytest.raises(PlanError, match="not a int"):
        rewrite(graph, 3)
    with pytest.raises(PlanError, match="neither a chat model"):
        rewrite(graph, {"node": 3})


def test_sites_that_a_graph_does_not_have_are_warned_of():
    graph = one_node(_function(said("reference"))).compile()
    with pytest.warns(UserWarning, match="binds site 'nobody'") as caught:
        rewrite(graph, {"nobody": said("slm"), "node": said("slm")})
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_sites_that_may_exist_are_not_warned_of():
    graph = _edges(said("reference"), lambda state: END).compile()
    sites = ["node", "node/inner", "node#branch", "node#condition", "after"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rewrite(graph, dict.fromkeys(sites, said("slm")))
    assert caught == []


# Plans as files.


def _decided(site, reference, port):
    spec = ModelSpec(
        name="slm", provider="openai", model="slm", base_url=f"http://127.0.0.1:{port}/v1"
    )
    return Decision(
        site=site,
        reference=reference,
        decision="proven",
        model="slm",
        reason="made for a test",
        threshold=20.0,
        binding=Binding(model=spec),
    )


def _plan(graph, **more):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        decision = _decided("node", "reference", held.getsockname()[1])
    kept = Decision(
        site="after",
        reference="reference",
        decision="kept",
        model="reference",
        reason="made for a test",
        threshold=20.0,
    )
    return Plan(
        graph="g",
        created="2026-01-01T00:00:00+00:00",
        margin=0.05,
        alpha=0.05,
        decisions=(decision, kept),
        **{"fingerprint": fingerprint(graph), **more},
    )


def test_a_plan_file_binds_the_model_that_it_was_made_for(tmp_path):
    reference, other = said("reference"), said("other")
    answers = []

    def node(state):
        answers.extend(model.invoke("hello") for model in (reference, other))

    graph = one_node(node).compile()
    write_plan(_plan(graph), tmp_path / "slm-plan.json")
    rewrite(graph, tmp_path / "slm-plan.json").invoke(HELLO)
    bound, backup = answers
    assert bound.text == "reference"  # nobody listens: escalated
    about = bound.response_metadata["langchain_slm"]
    assert (about["bound"], about["escalated"]) == ("slm", True)
    assert about["reason"]
    assert "langchain_slm" not in backup.response_metadata


def test_a_plan_of_another_version_of_the_graph_is_warned_of():
    graph = one_node(_function(said("reference")))
    with pytest.warns(UserWarning, match="another version of this graph"):
        rewrite(graph, _plan(graph, fingerprint="0" * 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rewrite(graph, _plan(graph, fingerprint=None))
        rewrite(graph.compile(), _plan(graph))


NAMES = ["<script>", "../../x", "a/b", "a#b", "1", " ", "\n", "\x00", "é" * 10_000, ""]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:10]))
def test_any_name_of_a_node_is_a_site(name):
    reference, slm = said("reference"), said("slm")
    graph = one_node(_function(reference), name=name).compile()
    watching = Watching()
    assert _invoke(watching.on(rewrite(graph, {name: slm}))) == ["slm"]
    assert watching.sites == [name]


# Together.


def test_an_original_and_two_copies_run_at_once_in_threads():
    reference = said("reference")
    graph = one_node(_chain(reference)).compile()
    builder = one_node(graph, name="sub").compile()
    graphs = {
        "reference": builder,
        "one": rewrite(builder, {"sub/node": said("one")}),
        "two": rewrite(builder, {"sub/node": said("two")}),
    }
    jobs = list(graphs) * 30
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda name: _invoke(graphs[name]), jobs))
    assert answers == [[name] for name in jobs]


async def test_an_original_and_two_copies_run_at_once_in_one_loop():
    reference = said("reference")

    async def node(state):
        await asyncio.sleep(0)
        answers = await asyncio.gather(*(reference.ainvoke("x") for _ in range(3)))
        await asyncio.sleep(0)
        return {"log": [answers[2].text]}

    graph = one_node(node).compile()
    graphs = {
        "reference": graph,
        "one": rewrite(graph, {"node": said("one")}),
        "two": rewrite(graph, {"node": said("two")}),
    }
    jobs = list(graphs) * 10
    states = await asyncio.gather(*(graphs[name].ainvoke(HELLO) for name in jobs))
    assert [state["log"] for state in states] == [[name] for name in jobs]


def test_a_background_task_of_a_node_stays_in_its_scope():
    reference, slm = said("reference"), said("slm")
    started = []

    async def node(state):
        started.append(asyncio.create_task(reference.ainvoke("later")))

    async def run():
        graph = rewrite(one_node(node).compile(), {"node": slm})
        await graph.ainvoke(HELLO)
        return await started[0]

    assert asyncio.run(run()).text == "slm"


# Caches shared with the original.


def _cached(reference, cache, way):
    node = way(reference)
    return one_node(node, cache_policy=CachePolicy()).compile(cache=cache)


CACHED_WAYS = [_function, _chain, _runnable_lambda, _subgraph, _parallel, _generator]


@pytest.mark.parametrize("way", [*CACHED_WAYS, _async_function, _AsyncCallable])
def test_a_cache_never_gives_the_answer_of_another_model(way):
    reference = said("reference")
    graph = _cached(reference, InMemoryCache(), way)
    site = "node/agent" if way is _subgraph else "node"
    one, two = said("one"), said("two")
    for plan in ({}, {site: one}, {site: two}):
        copied = rewrite(graph, plan)
        expected = [plan[site].model_name] if plan else ["reference"]
        assert _ainvoke(copied) == _ainvoke(copied) == expected
    assert (len(one.asked), len(two.asked)) == (1, 1)
    assert _ainvoke(graph) == ["reference"]


def test_a_cache_given_to_a_rewritten_builder_is_shared_safely():
    reference, slm, cache = said("reference"), said("slm"), InMemoryCache()
    builder = one_node(_function(reference), cache_policy=CachePolicy())
    assert _invoke(builder.compile(cache=cache)) == ["reference"]
    assert _invoke(rewrite(builder, {"node": slm}).compile(cache=cache)) == ["slm"]


def test_default_and_own_cache_keys_are_kept_apart_too():
    reference, slm, cache = said("reference"), said("slm"), InMemoryCache()
    builder = one_node(_function(reference))
    builder.set_node_defaults(cache_policy=CachePolicy(key_func=lambda state: "one"))
    copied = rewrite(builder, {"node": slm})
    assert _invoke(builder.compile(cache=cache)) == ["reference"]
    assert _invoke(copied.compile(cache=cache)) == ["slm"]


def test_a_cache_that_comes_with_the_config_is_shared_safely():
    reference, slm = said("reference"), said("slm")
    node = one_node(_function(reference), cache_policy=CachePolicy()).compile()

    @entrypoint(cache_policy=CachePolicy())
    def flow(state):
        return {"log": [reference.invoke(state["text"]).text]}

    # As LangGraph's server does.
    config = {"configurable": {CONFIG_KEY_CACHE: InMemoryCache()}}
    for graph, site in ((node, "node"), (flow, "flow")):
        for each, answer in ((graph, "reference"), (rewrite(graph, {site: slm}), "slm")):
            for _ in range(2):
                assert each.invoke(HELLO, config)["log"] == [answer]
    assert (len(reference.asked), len(slm.asked)) == (2, 2)


def test_caches_do_not_pile_up():
    cache = InMemoryCache()
    graph = _cached(said("reference"), cache, _function)
    twice = rewrite(rewrite(graph, {}), {})
    assert twice.cache.cache is cache
    assert graph.cache is cache


def test_a_cached_task_never_gives_the_answer_of_another_model():
    reference = said("reference")

    @task(cache_policy=CachePolicy())
    def ask(text):
        return reference.invoke(text).text

    @entrypoint(cache=InMemoryCache())
    def flow(text):
        return ask(text).result()

    assert flow.invoke("hello") == "reference"
    for name in ("one", "two"):
        model = said(name)
        copied = rewrite(rewrite(flow, {}), {"flow/ask": model})
        assert copied.invoke("hello") == asyncio.run(copied.ainvoke("hello")) == name
        assert len(model.asked) == 1
    assert len(reference.asked) == 1


def test_a_recording_shares_the_cache():
    reference = said("reference")
    graph = _cached(reference, InMemoryCache(), _function)
    graph.invoke(HELLO)
    assert _invoke(Watching().on(graph)) == ["reference"]
    assert len(reference.asked) == 1


async def test_the_cache_of_a_copy_can_be_cleared():
    reference, slm = said("reference"), said("slm")
    graph = rewrite(_cached(reference, InMemoryCache(), _function), {"node": slm})
    for clear in (graph.clear_cache, graph.aclear_cache):
        graph.invoke(HELLO)
        graph.invoke(HELLO)
        cleared = clear()
        if cleared is not None:
            await cleared
    graph.invoke(HELLO)
    assert len(slm.asked) == 3
