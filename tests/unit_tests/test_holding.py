from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    CallbackManager,
)
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers._streaming import (
    _StreamingCallbackHandler,
    _V2StreamingCallbackHandler,
)
from langgraph.graph import START, StateGraph
from unit_tests.routed import (
    BOOK,
    MODES,
    Scripted,
    about,
    answer,
    aoriginal,
    ask_of,
    calling,
    chunks_of,
    ended,
    fake,
    original,
    route_to,
)

from langchain_slm.routing.engine import Engine
from langchain_slm.routing.holding import hold
from langchain_slm.routing.limits import Limits
from langchain_slm.routing.policy import NeverEscalate

all_modes = pytest.mark.parametrize("mode", MODES)


class Plain(BaseCallbackHandler):
    """Any handler that is no live listener."""

    run_inline = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_chat_model_start(self, *_args: Any, **_kwargs: Any) -> None:
        self.heard.append("start")

    def on_llm_new_token(self, token: str, **_kwargs: Any) -> None:
        self.heard.append(token)

    def on_stream_event(self, event: Any, **_kwargs: Any) -> None:
        self.heard.append(event["event"])

    def on_llm_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.heard.append("end")

    def on_llm_error(self, error: BaseException, **_kwargs: Any) -> None:
        self.heard.append(type(error).__name__)


class Live(Plain, _StreamingCallbackHandler[Any]):
    """Shows tokens as they come, like LangGraph's `stream_mode="messages"`."""

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        return output


class LiveEvents(Plain, _V2StreamingCallbackHandler):
    """Shows events of content blocks."""


class LiveAsync(AsyncCallbackHandler, _StreamingCallbackHandler[Any]):
    """Tells runs apart, like `astream_events`."""

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        return output


def listen(mode, handler, target, source=None, **options):
    ask = ask_of(source, config={"callbacks": [handler]}, **options)
    return answer(mode, route_to(target), ask)


@all_modes
def test_a_listener_hears_an_accepted_answer_once(mode):
    live = Live()
    listen(mode, live, fake("Rome is"))
    assert live.heard == ["start", "Rome", " is", "", "", "end"]


@all_modes
def test_a_listener_hears_nothing_of_a_rejected_answer(mode):
    live = Live()
    listen(
        mode, live, fake("Rome is"), fake("large", "ref"), tools=[BOOK], tool_choice="any"
    )
    assert live.heard == ["start", "large", "", "", "end"]


@all_modes
def test_a_listener_hears_nothing_of_a_target_that_fails(mode):
    live = Live()
    listen(mode, live, fake(ValueError("small")), fake("large", "ref"))
    assert live.heard == ["start", "large", "", "", "end"]


@all_modes
def test_another_handler_sees_both_runs(mode):
    plain = Plain()
    listen(mode, plain, fake(ValueError("small")), fake("large", "ref"))
    assert plain.heard.count("start") == 2
    assert "ValueError" in plain.heard


def test_a_listener_hears_plain_text_before_the_stream_ends():
    live = Live()
    ask = ask_of(config={"callbacks": [live]})
    # With a deadline the stream is read ahead, in another thread.
    engine = Engine(Limits(deadline_s=None))
    route = route_to(Scripted(script=["Rome", " is", ended()]), engine=engine)
    chunks = route.stream(ask, lambda _: iter(()))
    next(chunks)
    assert live.heard == ["start", "Rome"]
    next(chunks)
    assert live.heard == ["start", "Rome", " is"]


@all_modes
def test_a_listener_of_events_hears_only_the_accepted_answer(mode):
    live = LiveEvents()
    listen(mode, live, fake(ValueError("small")), fake("large", "ref"))
    assert live.heard.count("start") == 1
    assert "ValueError" not in live.heard


@pytest.mark.parametrize("mode", ["generate", "agenerate"])
def test_a_listener_of_events_hears_an_accepted_answer_once(mode):
    live = LiveEvents()
    message = listen(mode, live, fake("Rome is"))
    assert live.heard.count("message-start") == live.heard.count("end") == 1
    assert live.heard[0] == "start"
    assert about(message)["escalated"] is False


@all_modes
def test_nothing_is_held_where_nobody_else_may_answer(mode):
    live = Live()
    ask = ask_of(config={"callbacks": [live]})
    with pytest.raises(ValueError, match="small"):
        chunks_of(mode, route_to(fake(ValueError("small")), NeverEscalate()), ask)
    assert live.heard == ["start", "ValueError"]


@pytest.mark.parametrize("mode", ["generate", "agenerate"])
def test_tool_arguments_that_a_listener_made_langchain_repair_still_escalate(mode):
    piece = {"name": "book", "args": '{"city": "Ro', "id": "a", "index": 0}
    script = [AIMessageChunk("", tool_call_chunks=[piece]), ended("tool_calls")]
    message = listen(mode, Live(), Scripted(script=script), tools=[BOOK])
    assert about(message)["reason"] == "arguments of tool book: not JSON"


@pytest.mark.parametrize("mode", ["generate", "agenerate"])
def test_good_tool_arguments_pass_with_a_listener(mode):
    target = fake(lambda _: calling("book", city="Rome"))
    message = listen(mode, Live(), target, tools=[BOOK])
    assert about(message)["escalated"] is False
    assert message.tool_calls[0]["args"] == {"city": "Rome"}


@all_modes
def test_a_listener_that_fails_fails_nobody_else(mode):
    class Failing(Live):
        def on_llm_new_token(self, token: str, **_kwargs: Any) -> None:
            raise RuntimeError(token)

    failing, live = Failing(), Live()
    ask = ask_of(config={"callbacks": [failing, live]})
    message = answer(mode, route_to(fake("Rome")), ask)
    assert about(message)["escalated"] is False
    assert live.heard == ["start", "Rome", "", "", "end"]


def test_a_listener_that_ignores_models_stays_deaf():
    class Deaf(Live):
        ignore_llm = True
        ignore_chat_model = True

    deaf = Deaf()
    listen("stream", deaf, fake("Rome"))
    assert deaf.heard == []


def test_callbacks_without_a_live_listener_are_passed_as_they_are():
    handlers = [Plain(), LiveAsync()]
    manager = CallbackManager(handlers=handlers)
    assert hold(handlers, active=True).callbacks is handlers
    assert hold(manager, active=True).callbacks is manager
    assert hold(None, active=True).callbacks is None
    assert hold([Live()], active=False).chunks() == []


def test_a_manager_keeps_all_but_its_live_listeners():
    plain, live = Plain(), Live()
    manager = CallbackManager(
        handlers=[plain, live],
        inheritable_handlers=[live],
        parent_run_id=uuid4(),
        tags=["a"],
        inheritable_metadata={"b": 1},
    )
    held = hold(manager, active=True)
    swapped = held.callbacks
    assert swapped.handlers[0] is plain
    assert swapped.handlers[1] is swapped.inheritable_handlers[0]
    assert swapped.handlers[1] is not live
    assert swapped.parent_run_id == manager.parent_run_id
    assert (swapped.tags, swapped.inheritable_metadata) == (["a"], {"b": 1})
    assert manager.handlers == [plain, live]


def test_what_is_held_is_told_in_order_and_once():
    live = Live()
    held = hold([live], active=True)
    (holder,) = held.callbacks
    chunk = ChatGenerationChunk(message=AIMessageChunk("a"))
    holder.on_chat_model_start({}, [[]], run_id=uuid4())
    holder.on_llm_new_token("a", chunk=chunk, run_id=uuid4())
    assert live.heard == []
    assert held.chunks() == [chunk.message]
    held.release()
    holder.on_llm_new_token("b", run_id=uuid4())
    held.release()
    assert live.heard == ["start", "a", "b"]


class State(TypedDict, total=False):
    reply: AIMessage


@pytest.mark.parametrize("is_async", [False, True])
async def test_langgraphs_message_stream_shows_one_answer(is_async):
    good, bad = fake("Rome is"), fake("Paris was")
    source = fake("large one", "ref")
    options = {"tools": [BOOK], "tool_choice": "any"}

    def ask_in(config: RunnableConfig, **more: Any) -> Any:
        told = {"callbacks": config["callbacks"], "metadata": config["metadata"]}
        return ask_of(source, HumanMessage("Where?"), config=told, **more)

    def node(state: State, config: RunnableConfig) -> State:
        route_to(good).generate(ask_in(config), original)
        route_to(bad).generate(ask_in(config, **options), original)
        return {}

    async def anode(state: State, config: RunnableConfig) -> State:
        await route_to(good).agenerate(ask_in(config), aoriginal)
        await route_to(bad).agenerate(ask_in(config, **options), aoriginal)
        return {}

    builder = StateGraph(State)
    builder.add_node("node", anode if is_async else node)
    builder.add_edge(START, "node")
    graph = builder.compile()
    if is_async:
        shown = [chunk async for chunk, _ in graph.astream({}, stream_mode="messages")]
    else:
        shown = [chunk for chunk, _ in graph.stream({}, stream_mode="messages")]
    assert "".join(chunk.content for chunk in shown) == "Rome islarge one"
