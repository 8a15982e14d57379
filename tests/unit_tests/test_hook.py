import asyncio
import functools
import gc
import inspect
import logging
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import StateGraph
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import Watching, one_node

from langchain_slm.rewriting import hook
from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.rewriting.hook import activate
from langchain_slm.rewriting.scoped import ScopedRunnable, scoped_function
from langchain_slm.rewriting.scopes import SCOPE, Layer, Scope, entered
from langchain_slm.routing.asking import Ask

HELLO = [HumanMessage("hello")]


@pytest.fixture
def watching():
    return Watching()


@pytest.fixture
def model():
    return FakeChat(model_name="m", reply=lambda messages: "one two three")


@pytest.fixture
def inside(watching):
    """Return a decorator that runs a function in the scope of `watching`."""
    scope = Scope(watcher=watching)
    activate(scope)
    return lambda function: scoped_function(function, Layer(scope))


def _failing(messages):
    msg = "no answer"
    raise ConnectionError(msg)


# Whole answers.


def test_a_call_is_watched_with_all_that_it_was_asked(watching, inside, model):
    bound = model.bind(temperature=0.5)
    answer = inside(bound.invoke)("hello", {"tags": ["t"]}, stop=["."])
    (call,) = watching
    assert call.message == answer
    assert call.error is None
    assert call.ask.source is model
    assert call.ask.messages == HELLO
    assert call.ask.stop == ["."]
    assert call.ask.options == {"temperature": 0.5}
    assert call.ask.config["tags"] == ["t"]
    assert call.latency_s > 0


async def test_an_async_call_is_watched(watching, inside, model):
    answer = await inside(model.ainvoke)("hello")
    assert [call.message for call in watching] == [answer]


def test_outside_a_scope_nothing_is_watched(watching, inside, model):
    model.invoke("hello")
    list(model.stream("hello"))
    inside(lambda: None)()
    asyncio.run(model.ainvoke("hello"))
    assert watching.calls == []
    assert len(model.asked) == 3


def test_the_watcher_knows_before_the_app(watching, inside, model):
    seen = []

    def node():
        model.invoke("hello")
        seen.append(len(watching.calls))

    inside(node)()
    assert seen == [1]


@pytest.mark.parametrize("error", [ConnectionError("no"), KeyboardInterrupt()])
def test_a_failed_call_is_watched_and_its_error_unchanged(watching, inside, error):
    def fails(messages):
        raise error

    with pytest.raises(type(error)) as caught:
        inside(FakeChat(reply=fails).invoke)("hello")
    assert caught.value is error
    (call,) = watching
    assert call.error is error
    assert call.message is None
    assert SCOPE.get() is None


async def test_a_failed_async_call_is_watched(watching, inside):
    with pytest.raises(ConnectionError):
        await inside(FakeChat(reply=_failing).ainvoke)("hello")
    assert [type(call.error) for call in watching] == [ConnectionError]


class Slow(FakeChat):
    async def _agenerate(self, *args, **kwargs):
        await asyncio.sleep(60)

    async def _astream(self, *args, **kwargs):
        for chunk in self._chunks(args[0], {}):
            yield chunk
            await asyncio.sleep(60)


async def test_a_cancelled_call_is_watched(watching, inside):
    task = asyncio.create_task(inside(Slow().ainvoke)("hello"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(call.error) for call in watching] == [asyncio.CancelledError]


async def test_a_call_cancelled_while_it_waits_to_be_stored_is_stored(watching, inside):
    asked, go_on = asyncio.Event(), threading.Event()

    class Asked(FakeChat):
        async def _agenerate(self, *args, **kwargs):
            asked.set()
            return self._generate(*args)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    busy = asyncio.create_task(asyncio.to_thread(go_on.wait, 5))
    await asyncio.sleep(0)
    task = asyncio.create_task(inside(Asked().ainvoke)("hello"))
    await asked.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await busy
    await asyncio.to_thread(lambda: None)
    assert [call.message.text for call in watching] == ["echo hello"]


async def test_the_event_loop_does_not_wait_for_a_watcher(model):
    main, seen = threading.get_ident(), []

    class Here:
        def watch(self, answered):
            seen.append(threading.get_ident())

    scope = Scope(watcher=Here())
    activate(scope)
    await scoped_function(model.ainvoke, Layer(scope))("hello")
    assert seen != [main]


class Runs(BaseCallbackHandler):
    """Keeps the events of model runs."""

    def __init__(self):
        self.events = []

    def on_chat_model_start(self, serialized, messages, *, run_id, **kwargs):
        self.events.append(("start", run_id))

    def on_llm_end(self, response, *, run_id, **kwargs):
        self.events.append(("end", run_id))

    def on_llm_error(self, error, *, run_id, **kwargs):
        self.events.append(("error", run_id))


def _config(runs, run_id):
    return {"callbacks": [runs], "run_id": run_id, "metadata": {"k": 1}, "tags": ["t"]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_stays_one_run_with_its_own_id(inside, model, stream):
    runs, run_id = Runs(), uuid4()
    config = _config(runs, run_id)
    call = (
        (lambda: list(model.stream("hi", config)))
        if stream
        else (lambda: model.invoke("hi", config))
    )
    inside(call)()
    assert runs.events == [("start", run_id), ("end", run_id)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_bound_call_stays_one_run_with_its_own_id(model, stream):
    runs, run_id, slm = Runs(), uuid4(), FakeChat(model_name="slm")
    config = _config(runs, run_id)

    def node(state):
        if stream:
            list(model.stream("hi", config))
        else:
            model.invoke("hi", config)

    rewrite(one_node(node).compile(), {"node": slm}).invoke({"text": ""})
    assert runs.events == [("start", run_id), ("end", run_id)]
    assert (len(slm.asked), model.asked) == (1, [])


# Several prompts in one call.


@pytest.mark.parametrize("is_async", [False, True])
def test_several_prompts_are_several_calls(watching, inside, is_async):
    model = FakeChat()
    prompts = [[HumanMessage(text)] for text in ("a", "b", "c")]
    runs, run_id = Runs(), uuid4()

    def node():
        more = {"callbacks": [runs], "run_id": run_id}
        if is_async:
            return asyncio.run(model.agenerate(prompts, **more))
        return model.generate(prompts, **more)

    result = inside(node)()
    texts = [generations[0].text for generations in result.generations]
    assert texts == ["echo a", "echo b", "echo c"]
    assert sorted(call.message.text for call in watching) == texts
    ids = [run.run_id for run in result.run]
    assert ids[0] == run_id
    assert len(set(ids)) == 3
    assert all(isinstance(each, UUID) for each in ids)


def test_no_prompts_are_no_calls(watching, inside, model):
    assert inside(model.generate)([]).generations == []
    assert asyncio.run(inside(model.agenerate)([])).generations == []
    assert watching.calls == []


async def test_several_prompts_are_answered_at_once(watching, inside):
    here = 0
    most = 0

    class Counting(FakeChat):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            nonlocal here, most
            here += 1
            most = max(most, here)
            await asyncio.sleep(0.01)
            here -= 1
            if messages[0].content == "bad":
                return _failing(messages)
            message = AIMessage("ok")
            return ChatResult(generations=[ChatGeneration(message=message)])

    prompts = [[HumanMessage(text)] for text in ("bad", "good", "bad")]
    with pytest.raises(ConnectionError):
        await inside(Counting().agenerate)(prompts)
    assert most == 3
    assert sorted(call.error is None for call in watching) == [False, False, True]


# Streams.


def test_a_streamed_answer_is_watched_whole_and_with_usage(watching, inside, model):
    chunks = inside(lambda: list(model.stream("hello")))()
    (call,) = watching
    assert len(chunks) > 3
    assert list(call.parts) == chunks
    assert call.message.text == "one two three"
    assert call.message.usage_metadata["output_tokens"] == 3
    assert call.error is None


async def test_an_async_streamed_answer_is_watched_whole(watching, inside, model):
    async def node():
        return [chunk async for chunk in model.astream("hello")]

    chunks = await inside(node)()
    (call,) = watching
    assert list(call.parts) == chunks
    assert call.message.text == "one two three"


def test_an_abandoned_stream_is_watched_as_failed(watching, inside, model):
    def node():
        return next(model.stream("hello"))

    assert inside(node)().text == "one"
    (call,) = watching
    assert isinstance(call.error, GeneratorExit)
    assert call.message is None


def test_an_abandoned_stream_is_closed_at_once(watching, model):
    chunks = (AIMessageChunk(text) for text in "abc")
    scope = entered([Layer(Scope(watcher=watching))])
    ask = Ask(model, HELLO)
    stream = hook._answer_stream(scope, lambda: ask, lambda: chunks, model.stream)
    assert next(stream).text == "a"
    stream.close()
    assert list(chunks) == []


async def test_an_abandoned_async_stream_is_watched_as_failed(watching, inside, model):
    async def node():
        stream = model.astream("hello")
        await anext(stream)
        await stream.aclose()

    await inside(node)()
    assert [type(call.error) for call in watching] == [GeneratorExit]


async def test_an_abandoned_async_stream_is_closed_at_once(watching, model):
    async def letters():
        for text in "abc":
            yield AIMessageChunk(text)

    chunks = letters()
    scope = entered([Layer(Scope(watcher=watching))])
    ask = Ask(model, HELLO)
    stream = hook._aanswer_stream(scope, lambda: ask, lambda: chunks, model.astream)
    assert (await anext(stream)).text == "a"
    await stream.aclose()
    assert await anext(chunks, None) is None


async def test_a_cancelled_stream_is_watched_as_failed(watching, inside):
    async def node():
        async for _ in Slow().astream("hello"):
            pass

    task = asyncio.create_task(inside(node)())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(call.error) for call in watching] == [asyncio.CancelledError]


class Breaks(FakeChat):
    def _chunks(self, messages, kwargs):
        yield ChatGenerationChunk(message=AIMessageChunk("one"))
        _failing(messages)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_broken_stream_is_watched_and_its_error_unchanged(watching, inside, is_async):
    async def astream():
        async for _ in Breaks().astream("hello"):
            pass

    def node():
        asyncio.run(astream()) if is_async else list(Breaks().stream("hello"))

    with pytest.raises(ConnectionError, match="no answer"):
        inside(node)()
    (call,) = watching
    assert isinstance(call.error, ConnectionError)
    assert call.message is None
    assert len(call.parts) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_model_that_cannot_stream_is_watched_once(watching, inside, is_async):
    class Whole(BaseChatModel):
        _llm_type = "whole"

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            message = AIMessage("whole")
            return ChatResult(generations=[ChatGeneration(message=message)])

    async def astream():
        return [chunk async for chunk in Whole().astream("hello")]

    def node():
        return asyncio.run(astream()) if is_async else list(Whole().stream("hello"))

    assert [chunk.text for chunk in inside(node)()] == ["whole"]
    assert [call.message.text for call in watching] == ["whole"]


def test_a_stream_that_nobody_reads_is_no_call(watching, inside, model):
    inside(lambda: model.stream("hello"))()
    assert (watching.calls, model.asked) == ([], [])


def test_a_stream_read_outside_its_node_is_watched(watching, inside, model):
    stream = inside(lambda: model.stream("hello"))()
    assert len(list(stream)) > 3
    assert len(watching.calls) == 1


def test_two_streams_read_in_turns_do_not_mix(watching, inside):
    one = FakeChat(reply=lambda _: "a b c")
    two = FakeChat(reply=lambda _: "x y z")
    inside(lambda: list(zip(one.stream("1"), two.stream("2"), strict=True)))()
    assert sorted(call.message.text for call in watching) == ["a b c", "x y z"]


def test_a_wrong_prompt_fails_as_without_the_hook(inside, model):
    with pytest.raises(ValueError, match="Invalid input type") as plain:
        list(model.stream(3))
    with pytest.raises(ValueError, match="Invalid input type") as hooked:
        inside(lambda: list(model.stream(3)))()
    assert str(hooked.value) == str(plain.value)


# Calls inside calls.


def test_a_model_that_calls_a_model_is_one_call(watching, inside, model):
    outer = FakeChat(reply=lambda messages: model.invoke(messages).text)
    inside(outer.invoke)("hello")
    assert [call.ask.source for call in watching] == [outer]


def test_every_watcher_learns_of_a_call_once(model):
    one, two = Watching(), Watching()
    graph = one_node(lambda state: {"log": [model.invoke("x").text]}).compile()
    one.on(two.on(one.on(graph))).invoke({"text": ""})
    assert (len(one.calls), len(two.calls)) == (1, 1)


def test_a_guide_that_fails_leaves_the_call_to_the_app(model, caplog):
    class Guide:
        plan_id = "p"
        fingerprint = None
        sites = ("node",)

        def route(self, site, ask):
            raise ValueError(ask.messages[0].content)

    scope = Scope(guide=Guide())
    activate(scope)
    run = scoped_function(model.invoke, Layer(scope))
    with caplog.at_level(logging.WARNING):
        assert run("secret").text == "one two three"
    assert "no route for a call (ValueError)" in caplog.text
    assert "secret" not in caplog.text


# Functions.


def test_kinds_of_functions_stay_what_they_are(inside):
    def sync(state, *, config): ...
    async def coroutine(state): ...
    def generator(state):
        yield 1

    async def async_generator(state):
        yield 1

    for function, kind in [
        (sync, inspect.isfunction),
        (coroutine, inspect.iscoroutinefunction),
        (generator, inspect.isgeneratorfunction),
        (async_generator, inspect.isasyncgenfunction),
    ]:
        scoped = inside(function)
        assert kind(scoped)
        assert inspect.signature(scoped) == inspect.signature(function)
        assert scoped.__name__ == function.__name__
        assert scoped.__qualname__ == function.__qualname__
        assert scoped.__module__ == function.__module__


def test_generators_are_watched_and_hold_no_scope(watching, inside, model):
    def generator():
        yield model.invoke("a").text
        yield model.invoke("b").text

    for text in inside(generator)():
        assert text == "one two three"
        assert SCOPE.get() is None
    assert len(watching.calls) == 2


def test_a_stream_that_is_left_is_closed(inside, watching):
    class Source(RunnableLambda):
        def stream(self, *args, **kwargs):
            return items

    items = (letter for letter in "abc")
    scope = Scope(watcher=watching)
    stream = ScopedRunnable(bound=Source(len), layers=(Layer(scope),)).stream("x")
    assert next(stream) == "a"
    stream.close()
    assert list(items) == []


async def test_async_generators_are_watched_and_closed(watching, inside, model):
    closed = []

    async def generator():
        try:
            yield (await model.ainvoke("a")).text
            yield (await model.ainvoke("b")).text
        finally:
            closed.append(True)

    items = inside(generator)()
    assert await anext(items) == "one two three"
    assert SCOPE.get() is None
    await items.aclose()
    assert closed == [True]
    assert len(watching.calls) == 1


def test_a_decorator_around_a_wrapper_is_kept():
    model, slm = FakeChat(model_name="m"), FakeChat(model_name="slm")

    def shout(function):
        @functools.wraps(function)
        def run(state):
            return {"log": [text.upper() for text in function(state)["log"]]}

        return run

    watching = Watching()
    scope = Scope(watcher=watching)
    activate(scope)
    node = scoped_function(lambda state: {"log": [model.invoke("x").text]}, Layer(scope))
    graph = rewrite(one_node(shout(node)).compile(), {"node": slm})
    assert graph.invoke({"text": ""})["log"] == ["ECHO X"]
    assert watching.sites == ["node"]


# In place, and gone.


def test_a_scope_ends_with_the_last_copy_of_its_graph(model):
    gc.collect()
    before = hook.CHAT_MODELS.alive
    graph = one_node(lambda state: None).compile()
    copies = [rewrite(graph, {"node": model})]
    copies += [copies[0].with_config(tags=["t"])]
    for alive in (1, 1, 0):
        gc.collect()
        assert hook.CHAT_MODELS.alive == before + alive
        if copies:
            copies.pop()


def test_the_collector_may_end_a_scope_while_another_begins():
    """A finalizer runs wherever memory is taken: here, with the lock held."""
    gc.collect()
    before = hook.CHAT_MODELS.alive
    kept, gone = Scope(), Scope()
    activate(gone)
    weakref.finalize(gone, lambda: None)
    with hook.CHAT_MODELS.lock:
        activate(kept)
        del gone
        gc.collect()
    assert hook.CHAT_MODELS.alive == before + 1


ALONE = """
import gc
from langchain_core.language_models import BaseChatModel
NAMES = ("generate", "agenerate", "stream", "astream")
def methods():
    return [getattr(BaseChatModel, name) for name in NAMES]
originals = methods()
from langchain_slm.rewriting.graphs import rewrite
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import one_node
assert methods() == originals, "importing changes nothing"
model, slm = FakeChat(reply=lambda m: "model"), FakeChat(reply=lambda m: "slm")
graph = one_node(lambda state: {"log": [model.invoke("x").text]}).compile()
def answer(graph):
    return graph.invoke({"text": ""})["log"][0]
one, two = rewrite(graph, {"node": slm}), rewrite(graph, {"node": slm})
hooked = methods()
assert not set(hooked) & set(originals), "all are hooked"
del one; gc.collect()
assert methods() == hooked, "one copy is left"
assert answer(two) == "slm"
del two; gc.collect()
assert methods() == originals, "the last has gone"
for _ in range(3):
    copy = rewrite(graph, {"node": slm})
    assert answer(copy) == "slm"
    del copy; gc.collect()
    assert methods() == originals

# Another hook on top of ours is left alone, and ours below it goes idle.
copy = rewrite(graph, {"node": slm})
below, seen = BaseChatModel.generate, []
def theirs(self, *args, **kwargs):
    seen.append(1)
    return below(self, *args, **kwargs)
BaseChatModel.generate = theirs
assert answer(copy) == "slm"
del copy; gc.collect()
assert BaseChatModel.generate is theirs
assert answer(graph) == "model"
copy = rewrite(graph, {"node": slm})
assert answer(copy) == "slm"
del copy; gc.collect()
assert BaseChatModel.generate is theirs
assert seen

# A hook that is taken out in the wrong order is put back.
BaseChatModel.generate = originals[0]
copy = rewrite(graph, {"node": slm})
BaseChatModel.generate = originals[0]
second = rewrite(graph, {"node": slm})
assert answer(copy) == answer(second) == "slm"
del copy, second; gc.collect()
assert methods() == originals
print("as it was")
"""


def test_the_hook_is_in_place_only_while_a_graph_needs_it():
    root = __file__.rpartition("/tests/")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{root}:{root}/tests", "PATH": ""},
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("as it was\n", "")


def test_two_graphs_begin_and_end_in_threads():
    model, slm = FakeChat(), FakeChat(reply=lambda _: "slm")
    graph = one_node(lambda state: {"log": [model.invoke("x").text]}).compile()
    answers = []

    def often():
        for _ in range(20):
            answers.extend(rewrite(graph, {"node": slm}).invoke({"text": ""})["log"])

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {"slm"}
    assert isinstance(graph.builder, StateGraph)
