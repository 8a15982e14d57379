import asyncio
import doctest
import gc
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import State, one_node

from langchain_slm.errors import NoExamplesError, RewriteError, SLMError, StoreError
from langchain_slm.recording import recorder
from langchain_slm.recording.recorder import record, recorded_node
from langchain_slm.recording.runs import read_inputs, record_runs
from langchain_slm.recording.store import open_store
from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.rewriting.scopes import Answered
from langchain_slm.routing.asking import Ask

HELLO = {"text": "hello"}


class Weather(BaseModel):
    """Tell the weather."""

    city: str = Field(description="Where.")


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/calls.db") as opened:
        yield opened


def _asks(model):
    return one_node(lambda state: {"log": [model.invoke(state["text"]).text]})


def _weather(messages):
    call = {"name": "Weather", "args": {"city": "Bergen"}, "id": "call_1"}
    return AIMessage("", tool_calls=[call])


# What is stored.


def test_a_call_is_stored_with_all_that_was_asked_and_answered(store):
    model = FakeChat(model_name="ref", reply=_weather)
    bound = model.bind_tools([Weather], tool_choice="any").bind(
        temperature=0.3, response_format={"type": "json_object"}
    )

    def node(state):
        prompt = [("system", "Be brief."), ("user", state["text"])]
        bound.invoke(prompt, stop=["END"])

    graph = one_node(node).compile(name="desk")
    record(graph, store).invoke(HELLO, {"configurable": {"thread_id": "t1"}})
    (call,) = store.calls()
    assert (call.graph, call.site, call.thread_id) == ("desk", "node", "t1")
    assert (call.model, call.provider, call.error) == ("ref", "fake-chat", None)
    assert call.sequence == 1
    assert call.latency_s > 0
    assert call.attempt.startswith("node:")
    assert call.request.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    )
    (tool,) = call.request.tools
    assert tool["function"]["name"] == "Weather"
    assert call.request.tool_choice == "required"
    assert call.request.response_format == {"type": "json_object"}
    assert call.request.parameters == {"temperature": 0.3, "stop": ["END"]}
    (answered,) = call.answer.tool_calls
    assert answered["name"] == "Weather"
    assert json.loads(answered["arguments"]) == {"city": "Bergen"}
    assert call.answer.finish_reason == "stop"
    assert call.answer.usage.input_tokens == 3


def test_a_response_schema_is_stored_as_json(store):
    model = FakeChat(reply=lambda _: '{"city": "Bergen"}').bind(response_format=Weather)
    record(_asks(model), store).compile().invoke(HELLO)
    (call,) = store.calls()
    schema = call.request.response_format["json_schema"]
    assert schema["name"] == "Weather"
    assert schema["schema"]["required"] == ["city"]


def test_a_failed_call_is_stored_with_its_error(store):
    def fails(messages):
        msg = "quota of ada@example.com"
        raise ConnectionError(msg)

    with pytest.raises(ConnectionError, match=r"ada@example\.com"):
        record(_asks(FakeChat(reply=fails)), store).compile().invoke(HELLO)
    (call,) = store.calls()
    assert call.answer is None
    assert call.error.startswith("ConnectionError: quota of ")
    assert "ada" not in call.error  # redacted as everything is


def test_messages_are_redacted_before_they_are_stored(store):
    graph = record(_asks(FakeChat()), store).compile()
    state = graph.invoke({"text": "I am ada@example.com"})
    assert state["log"] == ["echo I am ada@example.com"]
    (call,) = store.calls()
    assert "ada@example.com" not in call.model_dump_json()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_streamed_call_is_stored_whole_with_its_usage(store, is_async):
    model = FakeChat(reply=lambda _: "one two three")

    def node(state):
        return {"log": [chunk.text for chunk in model.stream(state["text"])]}

    async def anode(state):
        return {"log": [chunk.text async for chunk in model.astream(state["text"])]}

    graph = record(one_node(anode if is_async else node), store).compile()
    state = asyncio.run(graph.ainvoke(HELLO)) if is_async else graph.invoke(HELLO)
    assert "".join(state["log"]) == "one two three"
    (call,) = store.calls()
    assert call.answer.text == "one two three"
    assert call.answer.usage.output_tokens == 3
    assert call.answer.finish_reason == "stop"


def test_a_streamed_tool_call_is_stored_whole(store):
    model = FakeChat(reply=_weather)
    node = one_node(lambda state: {"log": [c.text for c in model.stream("hello")]})
    record(node, store).compile().invoke(HELLO)
    (call,) = store.calls()
    assert call.answer.tool_calls == [
        {"name": "Weather", "arguments": '{"city": "Bergen"}'}
    ]


def test_a_stream_abandoned_half_way_is_stored_as_failed(store):
    model = FakeChat(reply=lambda _: "one two three")
    node = one_node(lambda state: {"log": [next(model.stream("hello")).text]})
    assert record(node, store).compile().invoke(HELLO)["log"] == ["one"]
    (call,) = store.calls()
    assert call.error.startswith("GeneratorExit")
    assert call.answer is None


async def test_a_cancelled_call_is_stored_as_failed(store):
    class Slow(FakeChat):
        async def _agenerate(self, *args, **kwargs):
            await asyncio.sleep(60)

    async def node(state):
        await Slow().ainvoke("hello")

    graph = record(one_node(node), store).compile()
    run = asyncio.create_task(graph.ainvoke(HELLO))
    await asyncio.sleep(0.1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    (call,) = store.calls()
    assert call.error.startswith("CancelledError")


def test_a_call_is_stored_before_its_answer_reaches_the_app(store):
    model, counts = FakeChat(), []

    def node(state):
        model.invoke("one")
        counts.append(store.count())
        list(model.stream("two"))
        counts.append(store.count())

    record(one_node(node), store).compile().invoke(HELLO)
    assert counts == [1, 2]


def test_calls_are_stored_in_order_with_ids_of_their_own(store):
    model = FakeChat()

    def node(state):
        for text in ("one", "two", "three"):
            model.invoke(text)

    record(one_node(node), store).compile().invoke(HELLO)
    calls = list(store.calls())
    assert [call.answer.text for call in calls] == ["echo one", "echo two", "echo three"]
    assert [call.sequence for call in calls] == [1, 2, 3]
    assert len({call.call_id for call in calls}) == 3
    assert len({call.attempt for call in calls}) == 1


def test_calls_of_edges_subgraphs_and_batches_are_stored_at_their_sites(store):
    model = FakeChat()

    def route(state) -> Literal["batch"]:
        return "batch" if model.invoke("which?") else END

    builder = one_node(_asks(model).compile(), name="sub")
    builder.add_node("batch", lambda state: {"log": [len(model.batch(["a", "b"]))]})
    builder.add_conditional_edges("sub", route)
    record(builder.compile(), store).invoke(HELLO)
    sites = [call.site for call in store.calls()]
    assert sites == ["sub/node", "sub#route", "batch", "batch"]


@pytest.mark.parametrize("name", ["<script>", "../../x", "", "\x00", "é" * 10_000])
def test_any_name_of_a_node_is_stored(store, name):
    graph = one_node(lambda state: {"log": [FakeChat().invoke("x").text]}, name=name)
    record(graph, store).compile().invoke(HELLO)
    assert [call.site for call in store.calls()] == [name]


def test_a_graph_has_a_name_in_the_store(store):
    record(_asks(FakeChat()), store).compile().invoke(HELLO)
    record(_asks(FakeChat()).compile(name="own"), store).invoke(HELLO)
    record(_asks(FakeChat()).compile(name="own"), store, name="given").invoke(HELLO)
    assert [call.graph for call in store.calls()] == ["LangGraph", "own", "given"]


def test_only_graphs_are_recorded(store):
    with pytest.raises(RewriteError):
        record(FakeChat(), store)


# Who answered.


@pytest.mark.parametrize("outer", ["record", "rewrite"])
def test_a_rewritten_call_is_stored_under_the_model_that_answered(store, outer):
    reference, slm = FakeChat(model_name="ref"), FakeChat(model_name="slm")
    graph = _asks(reference).compile()
    if outer == "record":
        both = record(rewrite(graph, {"node": slm}), store)
    else:
        both = rewrite(record(graph, store), {"node": slm})
    assert both.invoke(HELLO)["log"] == ["echo hello"]
    (call,) = store.calls()
    assert (call.model, len(slm.asked), reference.asked) == ("slm", 1, [])


def test_an_escalated_call_is_stored_once_under_the_reference(store):
    def fails(messages):
        raise ConnectionError

    reference = FakeChat(model_name="ref")
    plan = {"node": FakeChat(model_name="slm", reply=fails)}
    record(rewrite(_asks(reference), plan), store).compile().invoke(HELLO)
    assert [(call.model, call.error) for call in store.calls()] == [("ref", None)]


# Traces and threads.


def test_each_run_is_a_trace_and_subgraphs_are_in_it(store):
    model = FakeChat()
    inner = _asks(model).compile()
    alone = {"configurable": {"thread_id": "its own"}}

    def node(state):
        inner.invoke(state)
        inner.invoke(state, alone)
        model.invoke("x")

    builder = one_node(inner, name="sub")
    builder.add_node("function", node)
    builder.add_edge("sub", "function")
    graph = record(builder.compile(), store)
    graph.batch([HELLO, HELLO])
    traces = [call.trace_id for call in store.calls()]
    assert sorted(traces.count(trace) for trace in set(traces)) == [4, 4]
    assert all(call.thread_id == call.trace_id for call in store.calls())
    sites = {call.site for call in store.calls()}
    assert sites == {"sub/node", "function/node", "function"}


async def test_runs_at_once_are_traces_of_their_own(store):
    model = FakeChat()

    async def node(state):
        await asyncio.gather(*(model.ainvoke(state["text"]) for _ in range(3)))

    graph = record(one_node(node), store).compile()
    await asyncio.gather(*(graph.ainvoke({"text": str(i)}) for i in range(5)))
    asked = {(call.trace_id, call.answer.text) for call in store.calls()}
    assert len(asked) == len({trace for trace, _ in asked}) == 5
    assert store.count() == 15


def test_a_recorded_graph_inside_another_is_in_the_trace_of_that(store):
    inner = record(_asks(FakeChat()).compile(), store, name="inner")
    alone = {"configurable": {"thread_id": "its own"}}

    def node(state):
        inner.invoke(state, alone)

    outer = record(one_node(node).compile(), store, name="outer")
    outer.invoke(HELLO, {"configurable": {"thread_id": "t1"}})
    calls = {call.graph: call for call in store.calls()}
    assert {name: call.site for name, call in calls.items()} == {
        "inner": "node",
        "outer": "node/node",
    }
    assert [call.thread_id for call in calls.values()] == ["t1", "t1"]


def test_runs_of_a_conversation_share_its_thread(store):
    graph = record(_asks(FakeChat()), store).compile(checkpointer=InMemorySaver())
    for _ in range(2):
        graph.invoke(HELLO, {"configurable": {"thread_id": "t1"}})
    one, two = store.calls()
    assert (one.thread_id, two.thread_id) == ("t1", "t1")
    assert one.trace_id != two.trace_id
    assert one.attempt != two.attempt


def test_a_run_id_of_the_app_does_not_split_its_trace(store):
    model = FakeChat()
    builder = one_node(_asks(model).compile(), name="sub")
    builder.add_node("after", lambda state: {"log": [model.invoke("x").text]})
    builder.add_edge("sub", "after")
    config = {"run_id": "0199aaaa-0000-7000-8000-000000000000"}
    record(builder.compile(), store).invoke(HELLO, config)
    assert len({call.trace_id for call in store.calls()}) == 1


def test_a_resumed_node_repeats_its_calls_under_the_same_attempt(store):
    model = FakeChat()

    def node(state):
        asked = model.invoke("before").text
        return {"log": [asked, interrupt("go on?")]}

    graph = one_node(node).compile(checkpointer=InMemorySaver())
    graph = record(graph, store)
    config = {"configurable": {"thread_id": "t1"}}
    graph.invoke(HELLO, config)
    assert graph.invoke(Command(resume="yes"), config)["log"] == ["echo before", "yes"]
    first, again = store.calls()
    assert first.attempt == again.attempt
    assert first.thread_id == again.thread_id == "t1"
    assert first.trace_id != again.trace_id


def test_threads_with_the_config_stay_in_one_trace(store):
    model = FakeChat()

    def node(state, config):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda text: model.invoke(text, config), ["a", "b"]))

    graph = record(one_node(node).compile(), store)
    graph.invoke(HELLO)
    graph.invoke(HELLO, {"configurable": {"thread_id": "t1"}})
    calls = list(store.calls())
    assert [call.site for call in calls] == ["node"] * 4
    assert len({call.trace_id for call in calls[:2]}) == 1
    assert len({call.trace_id for call in calls}) == 2
    assert [call.thread_id for call in calls[2:]] == ["t1", "t1"]


def test_a_long_run_keeps_its_trace_while_many_come_and_go(store, monkeypatch):
    monkeypatch.setattr(recorder, "_REMEMBERED_RUNS", 3)
    model, watcher = FakeChat(), recorder.Recorder(store, graph="g")
    ask = one_node(lambda state: model.invoke("x") and None, name="short")
    short = watcher.copy_of(ask).compile()

    def node(state):
        for _ in range(6):
            model.invoke("still here")
            thread = threading.Thread(target=short.invoke, args=(HELLO,))
            thread.start()
            thread.join()

    watcher.copy_of(one_node(node, name="long")).compile().invoke(HELLO)
    assert len({call.trace_id for call in store.calls(site="long")}) == 1
    assert len({call.trace_id for call in store.calls(site="short")}) == 6


# A store that fails.


@pytest.mark.parametrize("is_async", [False, True])
def test_a_store_that_fails_never_fails_the_app(store, caplog, is_async):
    model = FakeChat()

    async def anode(state):
        return {"log": [(await model.ainvoke("my secret")).text]}

    node = one_node(lambda state: {"log": [model.invoke("my secret").text]})
    watcher = recorder.Recorder(store, graph="g")
    graph = watcher.copy_of(one_node(anode) if is_async else node).compile()
    store.close()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            run = graph.ainvoke(HELLO) if is_async else None
            state = asyncio.run(run) if is_async else graph.invoke(HELLO)
            assert state["log"] == ["echo my secret"]
    assert (watcher.stored.total(), watcher.dropped) == (0, 3)
    assert len(caplog.records) == 2
    assert "at site 'node' was not stored (StoreError); 2 lost so far" in caplog.text
    assert "secret" not in caplog.text


def test_a_redactor_that_raises_loses_the_call_and_not_the_app(tmp_path, caplog):
    class Raises:
        def redact(self, text):
            raise ValueError(text)

        __call__ = redact

    with open_store(f"sqlite:///{tmp_path}/c.db", redact=Raises()) as opened:
        state = record(_asks(FakeChat()), opened).compile().invoke({"text": "secret"})
        assert state["log"] == ["echo secret"]
        assert opened.count() == 0
    assert "1 lost so far" in caplog.text
    assert "secret" not in caplog.text


def test_chunks_that_do_not_add_up_lose_the_call_and_not_the_app(store, caplog):
    chunks = [AIMessageChunk("secret", additional_kwargs={"k": k}) for k in (1.5, "x")]
    watcher = recorder.Recorder(store, graph="g")
    watcher.watch(
        Answered(
            ask=Ask(FakeChat(), []),
            site="node",
            namespace="",
            thread_id=None,
            run=None,
            parts=chunks,
            error=None,
            latency_s=0.1,
        )
    )
    assert watcher.dropped == 1
    assert "was not stored (TypeError)" in caplog.text
    assert "secret" not in caplog.text


def test_many_threads_lose_nothing(store):
    graph = record(_asks(FakeChat()), store).compile()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(graph.invoke, [HELLO] * 80))
    assert store.count() == 80


def test_a_store_opened_by_its_url_is_closed_with_the_graph(tmp_path):
    url = f"sqlite:///{tmp_path}/calls.db"
    watcher = recorder.Recorder.on(url, graph="g")
    opened = watcher._store
    graph = watcher.copy_of(_asks(FakeChat())).compile()
    del watcher
    gc.collect()
    graph.invoke(HELLO)
    assert opened.count() == 1
    del graph
    gc.collect()
    with pytest.raises(StoreError, match="the store is closed"):
        opened.count()


def test_a_store_given_stays_open(store):
    record(_asks(FakeChat()), store).compile().invoke(HELLO)
    gc.collect()
    assert store.count() == 1


def test_a_store_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(StoreError):
        record(_asks(FakeChat()), f"sqlite:///{tmp_path}/missing/calls.db")


# recorded_node.


def test_a_recorded_node_is_stored_in_a_graph_and_alone(store):
    model = FakeChat()

    @recorded_node(store, graph="mine")
    def triage(state: State, config: RunnableConfig) -> dict:
        """Say which queue."""
        return {"log": [model.invoke(state["text"]).text, config["tags"][0]]}

    graph = one_node(triage, name="first").compile()
    config = {"configurable": {"thread_id": "t1"}, "tags": ["tag"]}
    assert graph.invoke(HELLO, config)["log"] == ["echo hello", "tag"]
    assert triage(HELLO, {"tags": ["x"]})["log"] == ["echo hello", "x"]
    assert triage.__doc__ == "Say which queue."
    first, alone = store.calls()
    assert (first.graph, first.site, first.thread_id) == ("mine", "first", "t1")
    assert (alone.graph, alone.site) == ("mine", "triage")
    assert alone.thread_id == alone.trace_id != first.trace_id


async def test_a_recorded_node_may_be_async_or_a_generator(store):
    model = FakeChat()

    @recorded_node(store)
    async def asks(state):
        return {"log": [(await model.ainvoke("async")).text]}

    class Calls:
        async def __call__(self, state):
            return {"log": [(await model.ainvoke("object")).text]}

    @recorded_node(store)
    def yields(state):
        yield {"log": [model.invoke("generator").text]}

    @recorded_node(store)
    async def ayields(state):
        yield {"log": [(await model.ainvoke("both")).text]}

    builder = one_node(asks, name="asks")
    calls = recorded_node(store)(Calls())
    nodes = [("yields", yields), ("ayields", ayields), ("calls", calls)]
    builder.add_sequence(nodes)
    builder.add_edge("asks", "yields")
    state = await builder.compile().ainvoke(HELLO)
    assert state["log"] == ["echo async", "echo generator", "echo both", "echo object"]
    sites = [call.site for call in store.calls()]
    assert sites == ["asks", "yields", "ayields", "calls"]


def test_a_recorded_node_may_be_a_method(store):
    class Desk:
        model = FakeChat()

        @recorded_node(store)
        def node(self, state):
            return {"log": [self.model.invoke(state["text"]).text]}

    one_node(Desk().node, name="desk").compile().invoke(HELLO)
    assert [call.site for call in store.calls()] == ["desk"]


def test_a_recorded_node_is_recorded_in_a_rewritten_graph(store):
    reference, slm = FakeChat(model_name="ref"), FakeChat(model_name="slm")

    @recorded_node(store)
    def node(state):
        return {"log": [reference.invoke(state["text"]).text]}

    inner = one_node(node).compile()
    rewrite(one_node(inner, name="sub").compile(), {"sub/node": slm}).invoke(HELLO)
    assert [(call.site, call.model) for call in store.calls()] == [("sub/node", "slm")]


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(recorder).attempted == 4
    assert doctest.testmod(recorder).failed == 0


# Runs on a file of inputs.


def test_inputs_are_read_line_by_line(tmp_path):
    path = tmp_path / "inputs.jsonl"
    text = '\ufeff{"text": "a\u2028b"}\r\n\n  \n["x", 1]\n"end"'
    path.write_text(text, encoding="utf-8", newline="")
    assert read_inputs(path) == [{"text": "a\u2028b"}, ["x", 1], "end"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no inputs"),
        (b"\n \n", "no inputs"),
        (b'{"a": 1}\n{"a": \n', r"inputs\.jsonl:2: not JSON"),
        (b"\xff\xfe", "cannot be read as UTF-8"),
        (b"[" * 100_000, ":1: not JSON"),
    ],
)
def test_inputs_that_cannot_be_read_say_where(tmp_path, content, message):
    path = tmp_path / "inputs.jsonl"
    path.write_bytes(content)
    with pytest.raises(SLMError, match=message):
        read_inputs(path)


def test_missing_inputs_say_so(tmp_path):
    with pytest.raises(SLMError, match=r"FileNotFoundError"):
        read_inputs(tmp_path / "missing.jsonl")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_is_run_on_every_input(store, compiled):
    model = FakeChat()

    def node(state):
        if state["text"] == "bad":
            raise KeyError
        return {"log": [model.invoke(state["text"]).text]}

    graph = one_node(node).compile() if compiled else one_node(node)
    inputs = [{"text": text} for text in ("a", "bad", "b")]
    ended = []
    runs = {"store": store, "name": "desk", "progress": ended.append}
    assert record_runs(graph, inputs, **runs) == {
        "runs": 3,
        "failed": 1,
        "calls": 2,
        "lost": 0,
        "sites": {"node": 2},
    }
    assert ended == [1, 2, 3]
    assert record_runs(graph, inputs[:1], **runs)["sites"] == {"node": 1}
    assert len({call.thread_id for call in store.calls(graph="desk")}) == 3


def test_runs_keep_to_their_number_at_a_time(store):
    here, most = [], []

    async def node(state):
        here.append(1)
        most.append(len(here))
        await FakeChat().ainvoke("x")
        await asyncio.sleep(0.01)
        here.pop()

    record_runs(one_node(node), [HELLO] * 6, store=store, name="g", concurrency=2)
    assert max(most) == 2


def test_a_checkpointer_without_async_is_run_in_threads(store):
    class OnlySync(InMemorySaver):
        """As SqliteSaver: the async methods are those of the base class."""

    for name in ("aget_tuple", "alist", "aput", "aput_writes"):
        setattr(OnlySync, name, getattr(InMemorySaver.__base__, name))
    graph = _asks(FakeChat()).compile(checkpointer=OnlySync())
    done = record_runs(graph, [HELLO] * 3, store=store, name="g")
    assert (done["calls"], done["failed"]) == (3, 0)


def test_a_graph_without_models_says_so(store):
    graph = one_node(lambda state: {"log": ["no model"]})
    with pytest.raises(NoExamplesError, match="2 runs, 0 failed; no call of a"):
        record_runs(graph, [HELLO] * 2, store=store, name="g")


def test_runs_that_all_fail_say_with_what_and_where(store, caplog):
    def node(state):
        raise KeyError(state["text"])

    said = r"5 failed \(the first with KeyError at test_recorder\.py:\d+\)"
    with pytest.raises(NoExamplesError, match=said):
        record_runs(one_node(node), [HELLO] * 5, store=store, name="g")
    assert [record.args[1] for record in caplog.records] == [1, 2, 4]
    assert "hello" not in caplog.text


def test_runs_of_which_nothing_could_be_stored_say_so(store):
    store.close()
    with pytest.raises(StoreError, match="none of its 2 model calls could be stored"):
        record_runs(_asks(FakeChat()), [HELLO] * 2, store=store, name="g")


def test_an_edge_from_the_start_is_recorded(store):
    builder = StateGraph(State)
    builder.add_node("after", lambda state: None)
    model = FakeChat()
    builder.add_conditional_edges(
        START, lambda state: "after" if model.invoke("x") else END, ["after", END]
    )
    record(builder.compile(), store).invoke(HELLO)
    assert [call.site for call in store.calls()] == ["__start__#condition"]
