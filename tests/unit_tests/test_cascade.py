import asyncio
import logging
import math
from functools import reduce
from operator import or_

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import LLMResult
from pydantic import BaseModel, Field
from unit_tests.endpoint import Endpoint
from unit_tests.fake_chat import FakeChat
from unit_tests.routed import (
    BOOK,
    MODES,
    STREAMS,
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
    original_astream,
    original_stream,
    route_to,
)

from langchain_slm.errors import BrokenStreamError
from langchain_slm.routing.dialect import METADATA_KEY
from langchain_slm.routing.failures import named
from langchain_slm.routing.policy import EscalateOnInvalid, NeverEscalate, Policy
from langchain_slm.routing.turn import merged
from langchain_slm.specialization.heads import Head, HeadChatModel

all_modes = pytest.mark.parametrize("mode", MODES)
all_streams = pytest.mark.parametrize("mode", STREAMS)
# Not ours: ChatOpenAI dumps the chunks of a stream with a pydantic object in them.
dumps_objects = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


class Trip(BaseModel):
    """A trip."""

    city: str
    nights: int = Field(default=1, ge=1)


class Priority(BaseModel):
    """A priority."""

    priority: str


# Who answered, and why


@all_modes
def test_a_good_answer_is_the_targets_and_says_so(mode):
    source, target = fake("large", "ref"), fake("a small answer")
    message = answer(mode, route_to(target), ask_of(source))
    assert message.content == "a small answer"
    assert about(message) == {
        "site": "node",
        "model": "slm",
        "task": None,
        "provider": "fake-chat",
        "bound": "slm",
        "rule": "proven",
        "plan": "",
        "escalated": False,
        "reason": None,
        "attempts": 1,
        "usd": None,
        "failed_usd": 0.0,
    }
    assert (len(target.asked), len(source.asked)) == (1, 0)


@all_modes
def test_a_target_that_raises_escalates(mode):
    source = fake("a large answer", "ref")
    message = answer(mode, route_to(fake(IndexError("choices"))), ask_of(source))
    assert message.content == "a large answer"
    assert about(message) == {
        "site": "node",
        "model": "ref",
        "task": None,
        "provider": "fake-chat",
        "bound": "slm",
        "rule": "proven",
        "plan": "",
        "escalated": True,
        "reason": "IndexError",
        "attempts": 2,
        "usd": None,
        "failed_usd": None,  # what it cost until it failed is not known
    }
    assert len(source.asked) == 1


def invalid(*, args: str) -> AIMessage:
    call = {"name": "book", "args": args, "id": "a", "error": None}
    return AIMessage("", invalid_tool_calls=[call])


def finished(reason: str | None) -> AIMessage:
    return AIMessage("Rome", response_metadata={"finish_reason": reason})


BOOK_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "b", "schema": BOOK["function"]["parameters"]},
}
INVALID = [
    ("", {}, "empty answer"),
    ("   ", {}, "empty answer"),
    (calling("cancel"), {"tools": [BOOK]}, "unknown tool"),
    (
        calling("book", city=3),
        {"tools": [BOOK]},
        "arguments of tool book: outside its schema",
    ),
    (
        "No.",
        {"tools": [BOOK], "tool_choice": "any"},
        "no tool call where one is required",
    ),
    ('{"town": 1}', {"response_format": BOOK_FORMAT}, "outside its schema"),
    ("Rome", {"response_format": BOOK_FORMAT}, "not JSON"),
    ("Rome", {"response_format": {"type": "json_object"}}, "not JSON"),
    ('{"city": "Rome", "nights": 0}', {"response_format": Trip}, "outside its schema"),
]


@all_modes
@pytest.mark.parametrize(("reply", "options", "reason"), INVALID)
def test_an_answer_that_breaks_its_contract_escalates(mode, reply, options, reason):
    target = fake(reply)
    if isinstance(reply, AIMessage):
        target = fake(lambda _: reply.model_copy(deep=True))
    source = fake("a large answer", "ref")
    message = answer(mode, route_to(target), ask_of(source, **options))
    assert message.content == "a large answer"
    assert about(message)["model"] == "ref"
    assert about(message)["escalated"] is True
    assert about(message)["reason"] == reason


whole_modes = pytest.mark.parametrize("mode", ["generate", "agenerate"])


@whole_modes
@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", "truncated (finish_reason length)"),
        ("content_filter", "filtered (finish_reason content_filter)"),
    ],
)
def test_an_answer_that_was_cut_short_escalates(mode, finish, reason):
    message = answer(mode, route_to(fake(lambda _: finished(finish))))
    assert (message.content, about(message)["reason"]) == ("large", reason)


@whole_modes
def test_unparsable_tool_arguments_escalate(mode):
    target = fake(lambda _: invalid(args='{"city": "Ro'))
    message = answer(mode, route_to(target), ask_of(tools=[BOOK]))
    assert about(message)["reason"] == "arguments of tool book: not JSON"


@all_streams
def test_streamed_tool_arguments_that_are_cut_escalate(mode):
    pieces = [
        {"name": "book", "args": '{"city":', "id": "a", "index": 0},
        {"name": None, "args": ' "Ro', "id": None, "index": 0},
    ]
    chunks = [AIMessageChunk("", tool_call_chunks=[piece]) for piece in pieces]
    target = Scripted(script=[*chunks, ended("tool_calls")])
    message = answer(mode, route_to(target), ask_of(tools=[BOOK]))
    assert about(message)["reason"] == "arguments of tool book: not JSON"
    assert message.tool_calls == []


@all_modes
def test_a_label_outside_the_closed_set_escalates(mode):
    labels = ("billing", "shipping")
    good = answer(mode, route_to(fake("billing"), labels=labels))
    bad = answer(mode, route_to(fake("Billing!"), labels=labels))
    assert (good.content, about(good)["reason"]) == ("billing", None)
    assert (bad.content, about(bad)["reason"]) == (
        "large",
        "label outside the closed set",
    )


@all_modes
def test_valid_tool_calls_reach_the_app(mode):
    target = fake(lambda _: calling("book", city="Rome"))
    message = answer(mode, route_to(target), ask_of(tools=[BOOK], tool_choice="book"))
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [
        ("book", {"city": "Rome"})
    ]
    assert about(message)["escalated"] is False


@all_modes
def test_an_object_that_breaks_a_rule_of_its_class_escalates(mode):
    class Even(BaseModel):
        n: int

        def model_post_init(self, _context: object) -> None:
            if self.n % 2:
                raise ValueError(self.n)

    ask = ask_of(fake('{"n": 2}', "ref"), response_format=Even)
    message = answer(mode, route_to(fake('{"n": 3}')), ask)
    assert message.content == '{"n": 2}'
    assert about(message)["reason"] == "ValidationError"


@all_modes
def test_a_reference_that_fails_too_fails_as_it_always_did(mode):
    source = fake(KeyError("large"), "ref")
    with pytest.raises(KeyError, match="large") as raised:
        answer(mode, route_to(fake(ValueError("small"))), ask_of(source))
    assert raised.value.__context__ is None


@whole_modes
def test_a_target_that_gives_no_message_escalates(mode):
    class Silent(FakeChat):
        def generate(self, *_args, **_kwargs):
            return LLMResult(generations=[[]])

        async def agenerate(self, *_args, **_kwargs):
            return LLMResult(generations=[])

    assert about(answer(mode, route_to(Silent())))["reason"] == "no answer"


@all_streams
def test_a_stream_without_chunks_escalates(mode):
    class Silent(FakeChat):
        def stream(self, *_args, **_kwargs):
            yield from ()

        async def astream(self, *_args, **_kwargs):
            for chunk in ():
                yield chunk

    assert about(answer(mode, route_to(Silent())))["reason"] == "no answer"


def test_escalations_are_logged_without_content(caplog):
    caplog.set_level(logging.INFO)
    answer("generate", route_to(fake(ValueError("secret-canary"))))
    answer("generate", route_to(fake("secret-canary"), labels=("a",)))
    answer("generate", route_to(fake("secret-canary")), ask_of(tools=[BOOK]))
    assert [record.getMessage() for record in caplog.records] == [
        "site 'node': slm escalated: ValueError",
        "site 'node': slm escalated: label outside the closed set",
    ]


# Streams


@all_streams
def test_plain_text_is_streamed_as_it_comes(mode):
    script = ["", "Rome", " is", " a city.", ended()]
    received = []

    class Noting(Scripted):
        def _chunks(self, messages, kwargs):
            for chunk in super()._chunks(messages, kwargs):
                yield chunk
                received.append(len(received))

    chunks = chunks_of(mode, route_to(Noting(script=script)), ask_of())
    assert "".join(c.content for c in chunks) == "Rome is a city."
    assert [c.content for c in chunks][:4] == ["", "Rome", " is", " a city."]


def test_the_first_text_of_a_stream_does_not_wait_for_the_rest():
    target = Scripted(script=["Rome", ValueError("later")])
    chunks = route_to(target).stream(ask_of(), original_stream)
    assert next(chunks).content == "Rome"


@all_streams
@pytest.mark.parametrize("n", [1, 2, 30])
def test_the_metadata_of_a_stream_adds_up_to_one_mark(mode, n):
    target = Scripted(model_name="slm", script=[*["ab "] * n, ended()])
    chunks = chunks_of(mode, route_to(target), ask_of())
    assert sum(METADATA_KEY in c.response_metadata for c in chunks) == 1
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert about(whole)["site"] == "node"
    assert about(whole) == about(merged(chunks))
    assert whole.content == "ab " * n


@all_streams
def test_the_metadata_of_an_escalated_stream_adds_up_to_one_mark(mode):
    source = fake("one two three", "ref")
    chunks = chunks_of(mode, route_to(fake(ValueError())), ask_of(source))
    assert len(chunks) > 3
    assert sum(METADATA_KEY in c.response_metadata for c in chunks) == 1
    assert about(merged(chunks))["reason"] == "ValueError"


@all_streams
def test_a_failure_before_the_first_text_escalates(mode):
    reasoning = AIMessageChunk("", additional_kwargs={"reasoning_content": "Hm."})
    target = Scripted(script=["", reasoning, " ", ConnectionError("secret-canary")])
    chunks = chunks_of(mode, route_to(target), ask_of())
    assert "".join(chunk.content for chunk in chunks) == "large"
    assert about(merged(chunks))["reason"] == "ConnectionError"


@all_streams
def test_a_failure_after_a_chunk_is_a_broken_stream(mode):
    target = Scripted(script=["Rome is", ConnectionError("secret-canary")])
    source = fake("large", "ref")
    with pytest.raises(BrokenStreamError) as raised:
        chunks_of(mode, route_to(target), ask_of(source))
    assert str(raised.value) == (
        "site 'node': the stream of slm failed after chunks had been released: "
        "ConnectionError; retry the call"
    )
    assert raised.value.fields == {
        "site": "node",
        "model": "slm",
        "reason": "ConnectionError",
    }
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert source.asked == []  # no mixed output


@all_streams
@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (ended("content_filter"), "filtered (finish_reason content_filter)"),
        (
            AIMessageChunk(
                "",
                tool_call_chunks=[{"name": "?", "args": "{}", "id": "a", "index": 0}],
            ),
            "unknown tool",
        ),
    ],
)
def test_an_answer_that_turns_bad_after_a_chunk_is_a_broken_stream(mode, last, reason):
    target = Scripted(script=["Rome", last])
    with pytest.raises(BrokenStreamError) as raised:
        chunks_of(mode, route_to(target), ask_of())
    assert raised.value.fields["reason"] == reason


@all_streams
def test_a_stream_that_ends_at_a_limit_stays_and_says_so(mode):
    target = Scripted(model_name="slm", script=["Rome", " is", ended("length")])
    source = fake("large", "ref")
    message = answer(mode, route_to(target), ask_of(source))
    assert message.content == "Rome is"
    assert message.response_metadata["finish_reason"] == "length"
    assert about(message)["escalated"] is False
    assert about(message)["reason"] == "truncated (finish_reason length)"
    assert about(message)["model"] == "slm"
    assert source.asked == []


@all_streams
@pytest.mark.parametrize(
    ("options", "script"),
    [
        ({"tools": [BOOK]}, ["I can", " not", ValueError()]),
        ({"response_format": {"type": "json_object"}}, ['{"a"', ValueError()]),
    ],
)
def test_an_answer_with_a_contract_is_shown_only_when_it_is_whole(mode, options, script):
    chunks = chunks_of(mode, route_to(Scripted(script=script)), ask_of(**options))
    assert "".join(chunk.content for chunk in chunks) == "large"


@all_streams
def test_a_target_that_cannot_stream_answers_whole(mode):
    target = fake("a small answer", disable_streaming=True)
    chunks = chunks_of(mode, route_to(target), ask_of())
    assert [type(chunk) for chunk in chunks] == [AIMessage]
    assert chunks[0].content == "a small answer"
    assert about(chunks[0])["escalated"] is False


@all_streams
def test_a_target_that_cannot_stream_is_judged_before_it_is_shown(mode):
    target = fake(lambda _: finished("length"), disable_streaming=True)
    message = answer(mode, route_to(target))
    assert about(message)["reason"] == "truncated (finish_reason length)"
    assert message.content == "large"


@all_streams
def test_a_target_that_cannot_stream_gives_the_sources_parser_its_object(mode):
    target = fake('{"city": "Rome"}', disable_streaming=True)
    message = answer(mode, route_to(target), ask_of(response_format=Trip))
    assert message.additional_kwargs == {"parsed": Trip(city="Rome")}


@all_streams
def test_a_source_that_cannot_stream_answers_whole(mode):
    source = fake("a large answer", "ref", disable_streaming=True)
    chunks = chunks_of(mode, route_to(fake(ValueError())), ask_of(source))
    assert [chunk.content for chunk in chunks] == ["a large answer"]
    assert about(chunks[0])["escalated"] is True


def test_an_app_that_leaves_a_stream_early_closes_the_targets():
    closed = []

    class Closing(FakeChat):
        def stream(self, *_args, **_kwargs):
            try:
                yield AIMessageChunk("Rome")
                yield AIMessageChunk(" is")
            finally:
                closed.append("sync")

        async def astream(self, *_args, **_kwargs):
            try:
                yield AIMessageChunk("Rome")
                yield AIMessageChunk(" is")
            finally:
                closed.append("async")

    async def leave() -> None:
        chunks = route_to(Closing()).astream(ask_of(), original_astream)
        await anext(chunks)
        await chunks.aclose()

    chunks = route_to(Closing()).stream(ask_of(), original_stream)
    next(chunks)
    chunks.close()
    asyncio.run(leave())
    assert closed == ["sync", "async"]


def test_a_cancelled_call_does_not_escalate():
    source = fake("large", "ref")

    async def cancel() -> None:
        started = asyncio.Event()

        class Waiting(FakeChat):
            async def _agenerate(self, *_args, **_kwargs):
                started.set()
                await asyncio.Event().wait()

        call = route_to(Waiting()).agenerate(ask_of(source), aoriginal)
        task = asyncio.create_task(call)
        await started.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert source.asked == []


# Merging


def test_merging_at_once_equals_adding_one_by_one():
    call = {"name": "book", "args": "{", "id": "a", "index": 0}
    chunks = [
        AIMessageChunk("a", id="lc_1", response_metadata={"n": 1}),
        AIMessageChunk("", tool_call_chunks=[call], id="run-2"),
        AIMessageChunk("b", tool_call_chunks=[{**call, "name": None, "args": "}"}]),
        ended(usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    ]
    one_by_one = chunks[0]
    for chunk in chunks[1:]:
        one_by_one += chunk
    assert merged(chunks) == one_by_one


def test_what_is_no_message_of_a_model_adds_up_to_nothing():
    with pytest.raises(TypeError, match="no message of a model"):
        merged([HumanMessage("a")])


# Policies


@all_modes
def test_never_escalating_lets_the_failure_through(mode):
    source = fake("large", "ref")
    failure = IndexError("choices")
    with pytest.raises(IndexError) as raised:
        answer(mode, route_to(fake(failure), NeverEscalate()), ask_of(source))
    assert raised.value is failure
    assert source.asked == []


@all_streams
def test_never_escalating_lets_a_late_failure_through(mode):
    failure = ConnectionError("late")
    route = route_to(Scripted(script=["Rome", failure]), NeverEscalate())
    with pytest.raises(ConnectionError) as raised:
        chunks_of(mode, route, ask_of())
    assert raised.value is failure


@all_modes
def test_never_escalating_takes_a_broken_answer(mode):
    message = answer(
        mode,
        route_to(fake("Rome"), NeverEscalate()),
        ask_of(tools=[BOOK], tool_choice="any"),
    )
    assert message.content == "Rome"
    assert about(message)["escalated"] is False


@all_streams
def test_never_escalating_shows_each_chunk_at_once(mode):
    script = ["", '{"city":', ' "Rome"}', ended()]
    route = route_to(Scripted(script=script), NeverEscalate())
    chunks = chunks_of(mode, route, ask_of(response_format=Trip))
    assert merged(chunks).content == '{"city": "Rome"}'
    assert merged(chunks).additional_kwargs == {"parsed": Trip(city="Rome")}
    assert METADATA_KEY in chunks[0].response_metadata


def test_never_escalating_takes_even_no_answer():
    class Silent(FakeChat):
        def generate(self, *_args, **_kwargs):
            return LLMResult(generations=[[]])

        def stream(self, *_args, **_kwargs):
            yield from ()

    route = route_to(Silent(), NeverEscalate())
    assert route.generate(ask_of(), original).generations == [[]]
    assert list(route.stream(ask_of(), original_stream)) == []


class Unsure(Policy):
    """A user's own."""

    def objection(self, answer, contract):
        return "unsure" if "perhaps" in answer.text else None


@all_modes
def test_a_policy_of_ones_own_decides(mode):
    assert about(answer(mode, route_to(fake("perhaps Rome"), Unsure())))["reason"] == (
        "unsure"
    )
    assert about(answer(mode, route_to(fake("Rome"), Unsure())))["reason"] is None


@all_modes
def test_a_policy_that_fails_escalates(mode):
    class Failing(Policy):
        def objection(self, answer, contract):
            raise ZeroDivisionError

    message = answer(mode, route_to(fake("Rome"), Failing()))
    assert about(message)["reason"] == "ZeroDivisionError"


@all_modes
def test_a_policy_that_does_not_escalate_is_not_asked(mode):
    class Inert(Unsure):
        escalates = False

    message = answer(mode, route_to(fake("perhaps"), Inert()))
    assert message.content == "perhaps"


# What only the source can do


@all_modes
@pytest.mark.parametrize("policy", [EscalateOnInvalid(), NeverEscalate()])
def test_built_in_tools_pin_the_call_to_the_source(mode, policy):
    source, target = fake("large", "ref"), fake("small")
    ask = ask_of(source, tools=[BOOK, {"type": "web_search"}])
    message = answer(mode, route_to(target, policy), ask)
    assert message.content == "large"
    assert about(message)["reason"] == "the provider's own tools pin the call to it"
    assert target.asked == []


@all_modes
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tools": [object()]}, "ValueError"),
        ({"tools": [{"type": "function", "function": None}]}, "TypeError"),
        ({"tool_choice": {"type": "tool"}}, "KeyError"),
        (
            {"response_format": {"type": "json_schema", "json_schema": 7}},
            "AttributeError",
        ),
    ],
)
def test_options_that_cannot_be_read_pin_the_call_to_the_source(mode, options, error):
    target = fake("small")
    message = answer(mode, route_to(target), ask_of(**options))
    assert message.content == "large"
    assert about(message)["reason"] == f"its options cannot be translated ({error})"
    assert target.asked == []


# What the target is asked


@all_modes
def test_the_target_is_asked_what_the_source_would_be(mode):
    source = FakeChat(model_name="ref")
    object.__setattr__(source, "model_kwargs", {"seed": 4})
    target = fake("small")
    asked = [HumanMessage("Where to?")]
    ask = ask_of(source, *asked, stop=["END"], temperature=0, model="gpt-other")
    answer(mode, route_to(target), ask)
    assert target.asked == [asked]
    assert target.options[0] == {"temperature": 0, "seed": 4}


@all_modes
def test_stop_words_of_call_and_source_travel(mode):
    with Endpoint("Rome") as endpoint:
        target, source = endpoint.openai(), endpoint.openai("gpt-ref", stop=["\n"])
        answer(mode, route_to(target), ask_of(source))
        answer(mode, route_to(target), ask_of(source, stop=["END"]))
    assert [body["stop"] for body in endpoint.asked] == [["\n"], ["END"]]


@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_sampling_travels_to_a_real_client_and_the_models_name_does_not(mode, kind):
    with Endpoint("Rome") as endpoint:
        source = endpoint.openai("gpt-ref", temperature=0, max_completion_tokens=9)
        ask = ask_of(source, model="gpt-other", extra_headers={"X-Secret": "a"})
        answer(mode, route_to(getattr(endpoint, kind)("slm")), ask)
    (body,) = endpoint.asked
    assert body["model"] == "slm"
    assert body["temperature"] == 0
    assert body.get("max_tokens", body.get("max_completion_tokens")) == 9
    assert body["messages"] == [{"role": "user", "content": "Where to?"}]


@all_modes
def test_a_run_id_is_given_away_once(mode):
    seen = []

    class Starts(BaseCallbackHandler):
        run_inline = True

        def on_chat_model_start(self, *_args, run_id, **_kwargs):
            seen.append(str(run_id))

    run_id = "00000000-0000-0000-0000-000000000001"
    config = {"run_id": run_id, "callbacks": [Starts()]}
    answer(mode, route_to(fake(ValueError())), ask_of(config=config))
    assert seen[0] == run_id
    assert seen[1] not in (run_id, "None")


@all_modes
def test_usage_is_counted_once(mode):
    counter = UsageMetadataCallbackHandler()
    config = {"callbacks": [counter]}
    message = answer(mode, route_to(fake("one two")), ask_of(config=config))
    assert message.usage_metadata["output_tokens"] == 2
    assert counter.usage_metadata["slm"]["output_tokens"] == 2
    assert list(counter.usage_metadata) == ["slm"]


# Real clients


@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_a_refusal_of_the_endpoint_escalates_with_its_status(mode, kind):
    with Endpoint(status=401) as endpoint:
        message = answer(mode, route_to(getattr(endpoint, kind)()))
    assert message.content == "large"
    assert about(message)["reason"].endswith("(HTTP 401)")
    assert "canary" not in str(about(message))


@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_an_answer_without_finish_reason_is_no_good(mode, kind):
    with Endpoint("Rome is", finish=None) as endpoint:
        route = route_to(getattr(endpoint, kind)())
        if mode in STREAMS:
            with pytest.raises(BrokenStreamError, match="no finish_reason"):
                answer(mode, route)
        else:
            message = answer(mode, route)
            assert about(message)["reason"] == "incomplete (no finish_reason)"


@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_cut_tool_arguments_of_a_real_client_escalate(mode, kind):
    calls = [{"name": "book", "arguments": '{"city": "Ro'}]
    with Endpoint(calls=calls) as endpoint:
        route = route_to(getattr(endpoint, kind)())
        message = answer(mode, route, ask_of(tools=[BOOK]))
    assert about(message)["escalated"] is True
    assert about(message)["reason"] == "arguments of tool book: not JSON"


@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_tool_calls_of_a_real_client_reach_the_app_once(mode, kind):
    calls = [{"name": "book", "arguments": '{"city": "Rome"}'}]
    with Endpoint(calls=calls) as endpoint:
        source = endpoint.openai("gpt-ref")
        options = source.bind_tools([BOOK], tool_choice="book").kwargs
        route = route_to(getattr(endpoint, kind)("slm"))
        message = answer(mode, route, ask_of(source, **options))
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [
        ("book", {"city": "Rome"})
    ]
    assert endpoint.asked[0]["tools"] == [BOOK]
    assert endpoint.asked[0]["tool_choice"]["function"] == {"name": "book"}
    assert message.usage_metadata["total_tokens"] == 10


TRIP_TEXT = '{"city": "Rome", "nights": 2}'
TRIP_CALL = [{"name": "Trip", "arguments": TRIP_TEXT}]
METHODS = [
    ("json_schema", Trip, {"text": TRIP_TEXT}, Trip(city="Rome", nights=2)),
    (
        "json_schema",
        Trip.model_json_schema(),
        {"text": TRIP_TEXT},
        {"city": "Rome", "nights": 2},
    ),
    ("function_calling", Trip, {"calls": TRIP_CALL}, Trip(city="Rome", nights=2)),
    (
        "function_calling",
        Trip.model_json_schema(),
        {"calls": TRIP_CALL},
        {"city": "Rome", "nights": 2},
    ),
    ("json_mode", Trip, {"text": TRIP_TEXT}, Trip(city="Rome", nights=2)),
]


@dumps_objects
@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia", "fake"])
@pytest.mark.parametrize(("method", "schema", "reply", "expected"), METHODS)
def test_structured_output_of_the_source_reads_the_targets_answer(
    mode, kind, method, schema, reply, expected
):
    with Endpoint(**reply) as endpoint:
        source = endpoint.openai("gpt-ref", temperature=0)
        chain = source.with_structured_output(schema, method=method)
        # Newer clients check for a refusal before they parse.
        bound, parser = chain.first, reduce(or_, chain.steps[1:])
        if kind == "fake":
            arguments = {"city": "Rome", "nights": 2}
            target = fake(
                lambda _: calling("Trip", **arguments) if "calls" in reply else TRIP_TEXT
            )
        else:
            target = getattr(endpoint, kind)("slm")
        message = answer(mode, route_to(target), ask_of(source, **bound.kwargs))
    assert about(message) == {**about(message), "escalated": False, "reason": None}
    assert parser.invoke(message) == expected
    assert all(body["model"] == "slm" for body in endpoint.asked)


@dumps_objects
@all_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_structured_output_with_the_raw_message_reads_the_targets_answer(mode, kind):
    with Endpoint(TRIP_TEXT) as endpoint:
        source = endpoint.openai("gpt-ref")
        chain = source.with_structured_output(Trip, include_raw=True)
        options = chain.first.steps__["raw"].kwargs
        route = route_to(getattr(endpoint, kind)("slm"))
        message = answer(mode, route, ask_of(source, **options))
        result = chain.last.invoke({"raw": message})
    assert result["parsed"] == Trip(city="Rome", nights=2)
    assert result["parsing_error"] is None
    assert about(result["raw"])["model"] == "slm"


@all_modes
def test_structured_output_that_fails_is_the_references(mode):
    with Endpoint("Rome, two nights") as endpoint:
        source = fake(TRIP_TEXT, "ref")
        route = route_to(endpoint.nvidia())
        message = answer(mode, route, ask_of(source, response_format=Trip))
    assert message.content == TRIP_TEXT
    assert about(message)["reason"] == "not JSON"


# Heads


def head_model(labels=("billing", "shipping")):
    """Knows "invoice" and "parcel"; abstains on anything else."""
    head = Head(
        labels=labels,
        vocabulary=("invoice", "parcel"),
        idf=(1.0, 1.0),
        weights=((9.0, -9.0), (-9.0, 9.0)),
        bias=(0.0, 0.0),
        threshold=0.9,
        trained_on=2,
        training_hash="0",
    )
    return HeadChatModel(head=head, name="head")


@all_modes
def test_a_head_answers_with_its_label(mode):
    route = route_to(head_model(), name="head", labels=("billing", "shipping"))
    message = answer(mode, route, ask_of(None, HumanMessage("My invoice")))
    assert message.content == "billing"
    assert about(message)["provider"] == "head"
    assert message.response_metadata["confidence"] == pytest.approx(
        1 / (1 + math.exp(-18)), abs=1e-9
    )


@all_modes
def test_a_head_that_abstains_escalates(mode):
    route = route_to(head_model(), name="head", labels=("billing", "shipping"))
    message = answer(mode, route, ask_of(None, HumanMessage("Hello")))
    assert message.content == "large"
    assert about(message)["reason"] == "abstained"


@dumps_objects
@all_modes
def test_a_head_gives_the_sources_parser_its_object(mode):
    labels = ('{"priority": "high"}', '{"priority": "low"}')
    with Endpoint() as endpoint:
        source = endpoint.openai("gpt-ref")
        chain = source.with_structured_output(Priority)
        ask = ask_of(source, HumanMessage("My parcel"), **chain.first.kwargs)
        message = answer(mode, route_to(head_model(labels), labels=labels), ask)
    assert reduce(or_, chain.steps[1:]).invoke(message) == Priority(priority="low")
    assert endpoint.asked == []


@all_modes
def test_a_head_cannot_call_tools(mode):
    ask = ask_of(None, HumanMessage("My invoice"), tools=[BOOK], tool_choice="any")
    message = answer(mode, route_to(head_model()), ask)
    assert about(message)["reason"] == "no tool call where one is required"


# Names of failures


class StatusError(Exception):
    def __init__(self, status: object) -> None:
        super().__init__("secret-canary")
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("secret-canary"), "ValueError"),
        (StatusError(429), "StatusError (HTTP 429)"),
        (StatusError("429"), "StatusError"),
        (OSError("[401] Unauthorized: secret-canary"), "OSError (HTTP 401)"),
        (OSError("secret [401]"), "OSError"),
    ],
)
def test_a_failure_is_named_without_its_text(error, name):
    assert named(error) == name
