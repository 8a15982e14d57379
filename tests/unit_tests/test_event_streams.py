"""A model's own `stream_events(version="v3")` and `astream_events` inside a node."""

import gc
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGenerationChunk
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import Watching, one_node

from langchain_slm import record, rewrite
from langchain_slm.recording.store import open_store

# LangChain warns that its version 3 of event streams is new.
pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
HELLO = {"text": "hello"}


def said(text):
    return FakeChat(model_name=text.split()[0], reply=lambda _: text)


def _output(llm):
    def node(state):
        return {"log": [llm.stream_events(state["text"], version="v3").output.text]}

    return node


def _deltas(llm):
    def node(state):
        return {"log": ["".join(llm.stream_events(state["text"], version="v3").text)]}

    return node


def _async_output(llm):
    async def node(state):
        stream = await llm.astream_events(state["text"], version="v3")
        return {"log": [(await stream.output).text]}

    return node


def _async_deltas(llm):
    async def node(state):
        stream = await llm.astream_events(state["text"], version="v3")
        return {"log": ["".join([text async for text in stream.text])]}

    return node


def _version_2(llm):
    async def node(state):
        events = llm.astream_events(state["text"], version="v2")
        texts = [e["data"]["chunk"].text async for e in events if "chunk" in e["data"]]
        return {"log": ["".join(texts)]}

    return node


WAYS = [_output, _deltas, _async_output, _async_deltas, _version_2]


@pytest.mark.parametrize("way", WAYS)
async def test_events_come_from_the_bound_model(way):
    reference, slm = said("reference says"), said("slm says so")
    graph = one_node(way(reference)).compile()
    found = await rewrite(graph, {"node": slm}).ainvoke(HELLO)
    assert found["log"] == ["slm says so"]
    assert (len(reference.asked), len(slm.asked)) == (0, 1)
    assert (await graph.ainvoke(HELLO))["log"] == ["reference says"]
    assert (await rewrite(graph, {}).ainvoke(HELLO))["log"] == ["reference says"]
    assert len(slm.asked) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_in_events_is_watched_once(way):
    watching = Watching()
    graph = watching.on(one_node(way(said("reference says"))).compile())
    await graph.ainvoke(HELLO)
    assert watching.sites == ["node"]
    (call,) = watching
    assert call.message.text == "reference says"
    assert call.ask.messages[-1].content == "hello"


@pytest.mark.parametrize("way", [_output, _async_output])
async def test_a_bound_call_in_events_is_recorded_with_who_answered(way, tmp_path):
    graph = rewrite(one_node(way(said("reference"))).compile(), {"node": said("slm")})
    with open_store(f"sqlite:///{tmp_path}/slm.db") as store:
        await record(graph, store).ainvoke(HELLO)
        (call,) = store.calls()
    assert (call.site, call.answer.text) == ("node", "slm")


@pytest.mark.parametrize("way", [_output, _async_output])
async def test_what_fails_in_events_escalates(way):
    def fails(messages):
        msg = "down"
        raise RuntimeError(msg)

    reference, slm = said("reference"), FakeChat(model_name="slm", reply=fails)
    graph = rewrite(one_node(way(reference)).compile(), {"node": slm})
    assert (await graph.ainvoke(HELLO))["log"] == ["reference"]


async def test_a_failure_in_events_is_watched():
    def fails(messages):
        msg = "down"
        raise RuntimeError(msg)

    watching = Watching()
    node = _output(FakeChat(reply=fails))
    with pytest.raises(RuntimeError, match="down"):
        watching.on(one_node(node).compile()).invoke(HELLO)
    (call,) = watching
    assert isinstance(call.error, RuntimeError)


class Runs(BaseCallbackHandler):
    run_inline = True

    def __init__(self):
        self.started, self.ended = [], []

    def on_chat_model_start(self, serialized, messages, *, run_id, **kwargs):
        self.started.append(run_id)

    def on_llm_end(self, response, *, run_id, **kwargs):
        self.ended.append(run_id)


def test_a_bound_call_in_events_is_one_run():
    graph = rewrite(one_node(_output(said("reference"))).compile(), {"node": said("slm")})
    runs = Runs()
    graph.invoke(HELLO, {"callbacks": [runs]})
    assert len(runs.started) == 1
    assert runs.started == runs.ended


def test_tools_bound_to_the_source_reach_the_bound_model_in_events():
    def calls(messages):
        return AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])

    def look():
        """Look."""

    reference, slm = said("reference"), FakeChat(model_name="slm", reply=calls)
    with_tools = reference.bind_tools([look])

    def node(state):
        message = with_tools.stream_events(state["text"], version="v3").output
        return {"log": [message.tool_calls[0]["name"]]}

    graph = rewrite(one_node(node).compile(), {"node": slm})
    assert graph.invoke(HELLO)["log"] == ["look"]
    (options,) = slm.options
    assert [tool["function"]["name"] for tool in options["tools"]] == ["look"]


def test_outside_a_node_events_are_as_they_were():
    kept = rewrite(one_node(_output(said("x"))).compile(), {"node": said("slm")})
    assert said("alone").stream_events("x", version="v3").output.text == "alone"
    assert kept is not None


async def test_a_watched_call_in_events_is_told_to_the_callbacks_around():
    reference = said("reference")
    for way in (_output, _async_output):
        runs = Runs()
        graph = Watching().on(one_node(way(reference)).compile())
        await graph.ainvoke(HELLO, {"callbacks": [runs]})
        assert len(runs.started) == 1
        assert runs.started == runs.ended


def test_events_that_nobody_reads_on_are_watched():
    watching, reference = Watching(), said("reference says so")

    def node(state):
        next(iter(reference.stream_events(state["text"], version="v3").text))
        reference.stream_events(state["text"], version="v3")  # never asked

    watching.on(one_node(node).compile()).invoke(HELLO)
    gc.collect()
    (call,) = watching
    assert isinstance(call.error, GeneratorExit)
    assert len(reference.asked) == 1


async def test_asynchronous_events_that_are_closed_are_watched():
    watching, reference = Watching(), said("reference says so")

    async def node(state):
        async with await reference.astream_events(state["text"], version="v3") as stream:
            await anext(aiter(stream.text))

    await watching.on(one_node(node).compile()).ainvoke(HELLO)
    assert watching.sites == ["node"]


class Wrapping(FakeChat):
    """A model that asks another chat model."""

    inner: Any = None

    def _stream(self, messages, *_, **__):
        for chunk in self.inner.stream(messages):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(self, messages, *_, **__):
        async for chunk in self.inner.astream(messages):
            yield ChatGenerationChunk(message=chunk)


@pytest.mark.parametrize("way", [_output, _async_output])
async def test_what_a_model_asks_for_its_events_is_no_call_of_the_apps(way):
    watching = Watching()
    model = Wrapping(model_name="wrapping", inner=said("inner"))
    await watching.on(one_node(way(model)).compile()).ainvoke(HELLO)
    assert watching.sites == ["node"]
    bound = rewrite(one_node(way(said("reference"))).compile(), {"node": model})
    assert (await bound.ainvoke(HELLO))["log"] == ["inner"]
    assert len(model.inner.asked) == 2
