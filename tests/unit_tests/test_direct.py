from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import BaseModel
from unit_tests.endpoint import Endpoint
from unit_tests.fake_chat import FakeChat
from unit_tests.routed import BOOK

from langchain_slm.routing import direct
from langchain_slm.routing.direct import Question
from langchain_slm.routing.turn import merged

HELLO = [HumanMessage("Where to?")]
CALL = {"name": "book", "args": {"city": "Rome"}, "id": "call_0", "type": "tool_call"}


class Trip(BaseModel):
    city: str


class Turnstile(BaseRateLimiter):
    """Counts who goes through."""

    def __init__(self) -> None:
        self.passed = []

    def acquire(self, *, blocking=True):
        self.passed.append(f"sync, blocking={blocking}")
        return True

    async def aacquire(self, *, blocking=True):
        self.passed.append(f"async, blocking={blocking}")
        return True


class Whole(FakeChat):
    """Says things about its answer where clients do; does not stream."""

    outputs: dict[str, str] | None = None
    info: dict[str, str] | None = None

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = self._answer(messages, kwargs)
        found = ChatGeneration(message=message, generation_info=self.info)
        return ChatResult(generations=[found], llm_output=self.outputs)

    def _should_stream(self, **kwargs):
        return False


class Simple(SimpleChatModel):
    """Implements no more than it must."""

    @property
    def _llm_type(self):
        return "simple"

    def _call(self, messages, stop=None, run_manager=None, **kwargs):
        return "Rome"


def asked(model, stop=None, **options):
    return Question(model, HELLO, stop, options)


async def answer(question, mode):
    """The message that a model gives in one of the four modes, and in how many parts."""
    if mode == "generate":
        return direct.generate(question).generations[0].message
    if mode == "agenerate":
        return (await direct.agenerate(question)).generations[0].message
    if mode == "stream":
        return merged(list(direct.stream(question)))
    return merged([chunk async for chunk in direct.astream(question)])


MODES = pytest.mark.parametrize("mode", ["generate", "agenerate", "stream", "astream"])


@MODES
async def test_the_model_gives_its_answer(mode):
    model = FakeChat(reply=lambda messages: "Rome is far")
    message = await answer(asked(model, seed=1), mode)
    assert message.content == "Rome is far"
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.usage_metadata["output_tokens"] == 3
    assert model.asked == [HELLO]
    assert model.options == [{"seed": 1}]


@MODES
async def test_a_model_that_only_answers_whole_can_be_asked_in_each_way(mode):
    assert (await answer(asked(Simple()), mode)).content == "Rome"


@MODES
async def test_it_has_no_run_of_its_own(mode):
    class Listener(BaseCallbackHandler):
        def __init__(self):
            self.heard = []

        def on_chat_model_start(self, *args, **kwargs):
            self.heard.append("start")

        def on_llm_new_token(self, *args, **kwargs):
            self.heard.append("token")

    listener = Listener()
    await answer(asked(FakeChat(callbacks=[listener])), mode)
    assert listener.heard == []


@MODES
async def test_the_models_rate_limiter_is_asked_once(mode):
    limiter = Turnstile()
    await answer(asked(FakeChat(rate_limiter=limiter)), mode)
    kind = "async" if mode.startswith("a") else "sync"
    assert limiter.passed == [f"{kind}, blocking=True"]


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_the_rate_limiter_is_asked_once_where_nothing_is_streamed(mode):
    limiter = Turnstile()
    await answer(asked(Whole(rate_limiter=limiter)), mode)
    assert len(limiter.passed) == 1


@MODES
async def test_what_a_client_says_beside_the_message_gets_into_it(mode):
    model = Whole(
        outputs={"system_fingerprint": "fp", "model_name": "of the output"},
        info={"logprobs": "some"},
    )
    message = await answer(asked(model), mode)
    # The message's own word goes before what stands beside it.
    assert message.response_metadata == {
        "system_fingerprint": "fp",
        "logprobs": "some",
        "model_name": "fake",
        "finish_reason": "stop",
    }


@MODES
async def test_an_error_of_the_model_is_raised(mode):
    def reply(messages):
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await answer(asked(FakeChat(reply=reply)), mode)


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_no_answer_is_an_error_in_a_stream(mode):
    class Empty(Whole):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return ChatResult(generations=[])

    with pytest.raises(ValueError, match="unpack"):
        await answer(asked(Empty()), mode)


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_a_whole_answer_in_a_stream_is_its_last_chunk_and_loses_nothing(mode):
    said = AIMessage(
        "Booked.",
        id="msg_1",
        name="ann",
        tool_calls=[CALL],
        invalid_tool_calls=[{"name": "book", "args": "{", "id": "b", "error": None}],
        additional_kwargs={"refusal": None},
        usage_metadata={"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
    )
    message = await answer(asked(Whole(reply=lambda messages: said)), mode)
    assert isinstance(message, AIMessageChunk)
    assert message.chunk_position == "last"
    assert (message.content, message.id, message.name) == ("Booked.", "msg_1", "ann")
    assert message.tool_calls == [CALL]
    assert message.invalid_tool_calls[0]["args"] == "{"
    assert message.usage_metadata["total_tokens"] == 4
    assert message.additional_kwargs == {"refusal": None}


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_an_object_that_a_client_parsed_stays_one(mode):
    trip = Trip(city="Rome")
    said = AIMessage('{"city": "Rome"}', additional_kwargs={"parsed": trip})
    message = await answer(asked(Whole(reply=lambda messages: said)), mode)
    assert message.additional_kwargs["parsed"] is trip


def test_a_stream_comes_word_by_word():
    model = FakeChat(reply=lambda messages: "Rome is far")
    texts = [chunk.content for chunk in direct.stream(asked(model))]
    assert texts == ["Rome", " is", " far", ""]


@pytest.mark.parametrize(
    ("disabled", "options", "parts"),
    [
        (True, {}, 1),
        ("tool_calling", {"tools": [BOOK]}, 1),
        ("tool_calling", {}, 4),
        (False, {"tools": [BOOK]}, 4),
    ],
)
async def test_a_model_that_is_told_not_to_stream_does_not(disabled, options, parts):
    model = FakeChat(reply=lambda messages: "Rome is far", disable_streaming=disabled)
    question = asked(model, **options)
    assert len(list(direct.stream(question))) == parts
    assert len([chunk async for chunk in direct.astream(question)]) == parts


class Closable:
    """Chunks of a client that is no generator."""

    def __init__(self) -> None:
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        return ChatGenerationChunk(message=AIMessageChunk("more"))

    def close(self) -> None:
        self.closed = True

    def __aiter__(self):
        return self

    async def __anext__(self):
        return next(self)

    async def aclose(self) -> None:
        self.close()


class Endless(FakeChat):
    chunks: Any

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        return self.chunks

    def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        return self.chunks


def test_a_stream_that_is_left_is_closed():
    chunks = Closable()
    stream = direct.stream(asked(Endless(chunks=chunks)))
    next(stream)
    stream.close()
    assert chunks.closed


async def test_an_asynchronous_stream_that_is_left_is_closed():
    chunks = Closable()
    stream = direct.astream(asked(Endless(chunks=chunks)))
    await anext(stream)
    await stream.aclose()
    assert chunks.closed


@MODES
@pytest.mark.parametrize("provider", ["openai", "nvidia"])
async def test_real_clients_say_as_much_as_when_they_are_called(provider, mode):
    with Endpoint("Rome is far") as endpoint:
        model = getattr(endpoint, provider)()
        said = await answer(asked(model), mode)
        if mode == "generate":
            usual = model.invoke(HELLO)
        elif mode == "agenerate":
            usual = await model.ainvoke(HELLO)
        elif mode == "stream":
            usual = merged(list(model.stream(HELLO)))
        else:
            usual = merged([chunk async for chunk in model.astream(HELLO)])
    assert said.content == usual.content == "Rome is far"
    assert said.usage_metadata == usual.usage_metadata
    assert said.response_metadata == usual.response_metadata
    assert said.response_metadata["finish_reason"] == "stop"


@MODES
async def test_stop_words_and_options_reach_the_client(mode):
    with Endpoint("Rome") as endpoint:
        question = asked(endpoint.openai(), stop=["END"], seed=3, temperature=0)
        await answer(question, mode)
    (body,) = endpoint.asked
    assert (body["stop"], body["seed"], body["temperature"]) == (["END"], 3, 0)


@MODES
async def test_what_is_for_traces_only_reaches_no_model(mode):
    model = FakeChat()
    told = {"kwargs": {"method": "json_mode"}, "schema": Trip}
    await answer(asked(model, ls_structured_output_format=told), mode)
    assert model.options == [{}]
