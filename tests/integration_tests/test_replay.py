"""The replay of recorded suites, over real HTTP, through the clients that will ask it."""

import asyncio
import json
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from integration_tests.clients import close_clients
from integration_tests.replaying import (
    CASES,
    TINY,
    Chat,
    a_case,
    a_suite,
    asked,
    bound,
    calls_of,
    connect,
    get,
    is_recorded,
    nvidia,
    openai,
    send,
    user,
)
from langchain_core.messages import (
    AIMessageChunk,
)
from pydantic import BaseModel, Field

from langchain_slm.recording.interchange import Response, Suite, read_suite
from langchain_slm.replay import ReplayServer
from langchain_slm.schema import Answer, Usage

BFCL = Path(__file__).parents[2].parent / "shared" / "data" / "bfcl_v1"

# ChatOpenAI keeps one async pool per URL for the whole process, and a pool does not
# outlive the event loop that it was first used in.
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def running() -> Iterator[ReplayServer]:
    with ReplayServer([TINY]) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def closed_clients(running: ReplayServer) -> AsyncIterator[None]:
    """Leave no connection to be collected in the midst of a later test."""
    yield
    await close_clients(openai(running))


@pytest.fixture
def server(running: ReplayServer) -> ReplayServer:
    running.requests.clear()
    return running


@pytest.fixture(params=[openai, nvidia])
def chat(request) -> Chat:
    return request.param


# --- Recorded answers through the clients ------------------------------------------


@pytest.mark.parametrize("model", ["big-1", "small-1"])
@pytest.mark.parametrize("case", TINY.cases, ids=lambda case: case.id)
def test_a_client_receives_the_recorded_answer(server, chat, case, model):
    message = bound(chat(server, model), case).invoke(list(case.messages))
    answer = TINY.responses[model][case.id].answer
    assert is_recorded(message, answer)
    assert message.response_metadata["finish_reason"] == answer.finish_reason
    assert message.response_metadata["model_name"] == model
    assert server.requests == [(model, case.id)]


@pytest.mark.parametrize("case", TINY.cases, ids=lambda case: case.id)
@in_one_loop
async def test_an_async_client_receives_the_recorded_answer(server, chat, case):
    message = await bound(chat(server), case).ainvoke(list(case.messages))
    assert is_recorded(message, TINY.responses["big-1"][case.id].answer)


@pytest.mark.parametrize("model", ["big-1", "small-1"])
@pytest.mark.parametrize("case", TINY.cases, ids=lambda case: case.id)
def test_a_stream_adds_up_to_the_recorded_answer(server, chat, case, model):
    chunks = list(bound(chat(server, model), case).stream(list(case.messages)))
    message = sum(chunks[1:], chunks[0])
    answer = TINY.responses[model][case.id].answer
    assert isinstance(message, AIMessageChunk)
    assert is_recorded(message, answer)
    assert message.response_metadata["finish_reason"] == answer.finish_reason
    assert message.usage_metadata["input_tokens"] == answer.usage.input_tokens
    assert message.usage_metadata["output_tokens"] == answer.usage.output_tokens


@in_one_loop
async def test_an_async_stream_adds_up_to_the_recorded_answer(server, chat):
    case = CASES["lookup-1"]
    model = bound(chat(server), case)
    chunks = [chunk async for chunk in model.astream(list(case.messages))]
    assert is_recorded(
        sum(chunks[1:], chunks[0]), TINY.responses["big-1"]["lookup-1"].answer
    )


def test_a_stream_comes_in_several_pieces(server, chat):
    texts = [
        chunk.content
        for chunk in chat(server).stream(list(CASES["greet-1"].messages))
        if chunk.content
    ]
    assert texts == ["Hello Ada,", " how can w", "e help you", " today?"]


def test_arguments_are_streamed_in_several_pieces(server, chat):
    case = CASES["lookup-1"]
    chunks = list(bound(chat(server), case).stream(list(case.messages)))
    pieces = [call["args"] for chunk in chunks for call in chunk.tool_call_chunks]
    assert [piece for piece in pieces if piece][:4] == [
        '{"city": ',
        '"Oslo", "',
        'unit": "c',
        'elsius"}',
    ]


def test_the_recorded_tokens_are_the_usage(server, chat):
    message = chat(server).invoke(list(CASES["greet-1"].messages))
    usage = message.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"]) == (24, 10)
    assert usage["total_tokens"] == 34


def test_unknown_tokens_are_not_zero(server, chat):
    model = chat(server, "partial-1")
    message = model.invoke(list(CASES["triage-1"].messages))
    assert message.usage_metadata is None
    chunks = list(model.stream(list(CASES["triage-1"].messages)))
    assert sum(chunks[1:], chunks[0]).usage_metadata is None


def test_a_model_with_structured_output_gets_its_recording(server, chat):
    class Triage(BaseModel):
        """What a ticket is about."""

        answer: str = Field(description="billing, technical or other")

    with warnings.catch_warnings():
        # ChatNVIDIA warns of every model that it does not know by name.
        warnings.filterwarnings("ignore", message="Model 'big-1' is not known to support")
        triage = chat(server).with_structured_output(Triage)
    assert triage.invoke(list(CASES["triage-1"].messages)) == Triage(answer="billing")


def test_clients_in_many_threads_receive_their_own_answers(server):
    def ask(index: int) -> bool:
        chat, model = (openai, nvidia)[index % 2], ("big-1", "small-1")[index // 2 % 2]
        case = TINY.cases[index % len(TINY.cases)]
        message = bound(chat(server, model), case).invoke(list(case.messages))
        return is_recorded(message, TINY.responses[model][case.id].answer)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(40)))
    assert len(server.requests) == 40


@in_one_loop
async def test_many_async_clients_are_answered_at_once(server, chat):
    case = CASES["greet-1"]
    model = chat(server)
    messages = await asyncio.gather(
        *(model.ainvoke(list(case.messages)) for _ in range(32))
    )
    assert {message.content for message in messages} == {
        "Hello Ada, how can we help you today?"
    }


@pytest.mark.parametrize("size", [9_000, 400_000])
@in_one_loop
async def test_a_long_answer_is_streamed_in_lines_that_clients_take(chat, size):
    text = "😀\n" * (size // 2)
    suite = a_suite({"long": text}, a_case("long", user("Go on")))
    with ReplayServer([suite]) as server:
        chunks = [chunk async for chunk in chat(server).astream("Go on")]
        await close_clients(openai(server))
    assert "".join(chunk.content for chunk in chunks) == text


# --- Several suites ----------------------------------------------------------------


def test_a_model_of_two_suites_answers_the_cases_of_both():
    one = a_suite({"a": "A."}, a_case("a", user("a?")), name="one")
    two = a_suite({"b": "B."}, a_case("b", user("b?")), name="two")
    with ReplayServer([one, two, TINY]) as server:
        assert openai(server).invoke("a?").content == "A."
        assert openai(server).invoke("b?").content == "B."
        models = get(server, "/v1/models")["data"]
    assert [model["id"] for model in models] == ["big-1", "partial-1", "small-1"]


def test_of_two_answers_to_a_question_the_first_is_served_and_said(caplog):
    first = a_case("first", user("a?"))
    again = a_case("again", user([{"type": "text", "text": "a?"}]))
    suite = a_suite({"first": "A.", "again": "B."}, first, again)
    with ReplayServer([suite]) as server:
        assert openai(server).invoke("a?").content == "A."
    (record,) = caplog.records
    assert record.getMessage() == (
        "suite own: 1 answers are to a question that has another answer already; "
        "the first answer is served"
    )


def test_the_same_answer_twice_is_nothing_to_say(caplog):
    with ReplayServer([TINY, TINY]) as server:
        assert send(server, asked(CASES["greet-1"]))[0] == 200
    assert caplog.records == []


def test_a_failed_call_does_not_hide_an_answer():
    failed = Response(answer=None, error="TimeoutError")
    cases = a_case("a", user("?")), a_case("b", user("?"))
    suite = a_suite({"a": failed, "b": "B."}, *cases)
    with ReplayServer([suite]) as server:
        assert openai(server).invoke("?").content == "B."


# --- What it says in its own words -------------------------------------------------


def test_a_completion_has_the_form_of_openai(server):
    status, reply = send(server, asked(CASES["lookup-1"], "small-1"))
    assert status == 200
    assert reply == {
        "id": "chatcmpl-ecdbf81f67d04eb5a5997f5f",
        "object": "chat.completion",
        "created": 0,
        "model": "small-1",
        "choices": [
            {
                "index": 0,
                "message": TINY.responses["small-1"]["lookup-1"].answer.message,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 118, "completion_tokens": 31, "total_tokens": 149},
    }


def test_what_clients_need_and_a_recording_left_out_is_added():
    case = a_case("a", user("?"))
    bare = {"tool_calls": [{"function": {"name": "now", "arguments": "{}"}}]}
    suite = a_suite({"a": Response(answer=Answer(message=bare))}, case)
    with ReplayServer([suite]) as server:
        _, reply = send(server, asked(case))
        chunks = list(openai(server).stream("?"))
    assert reply["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_0",
                "type": "function",
                "function": {"name": "now", "arguments": "{}"},
            }
        ],
    }
    assert calls_of(sum(chunks[1:], chunks[0])) == [("now", {}, "call_0")]


def events(server: ReplayServer, body: dict[str, Any]) -> list[Any]:
    """The events of a stream; the last one is text."""
    connection = connect(server)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        assert reply.getheader("Content-Type") == "text/event-stream"
        *lines, end = reply.read().decode().split("\n\n")
    finally:
        connection.close()
    assert end == ""
    data = [line.removeprefix("data: ") for line in lines]
    return [*map(json.loads, data[:-1]), data[-1]]


def test_a_stream_has_the_form_of_openai(server):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, end = events(server, asked(CASES["lookup-1"], "small-1", **options))
    assert end == "[DONE]"
    assert {(c["id"], c["object"], c["created"], c["model"]) for c in chunks} == {
        ("chatcmpl-ecdbf81f67d04eb5a5997f5f", "chat.completion.chunk", 0, "small-1")
    }
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "I lo"},
        {"content": "ok b"},
        {"content": "oth "},
        {"content": "up."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"ci'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'ty":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Osl'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'o"}'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "now", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 13 + ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert [chunk["usage"] for chunk in chunks] == [None] * 14 + [
        {"prompt_tokens": 118, "completion_tokens": 31, "total_tokens": 149}
    ]


def test_zero_tokens_and_a_truncated_answer_are_told_as_recorded():
    case = a_case("a", user("?"))
    answer = Answer(
        message={"role": "assistant", "content": "A."},
        finish_reason="length",
        usage=Usage(input_tokens=0, output_tokens=0),
    )
    with ReplayServer([a_suite({"a": Response(answer=answer)}, case)]) as server:
        _, reply = send(server, asked(case))
    assert reply["usage"]["total_tokens"] == 0
    assert reply["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, "odd"])
def test_a_stream_has_no_usage_unless_asked(server, options):
    body = asked(CASES["greet-1"], stream=True, stream_options=options)
    *chunks, _ = events(server, body)
    assert not any("usage" in chunk for chunk in chunks)


def test_the_same_request_has_the_same_reply(server):
    body = asked(CASES["greet-1"])
    assert send(server, body) == send(server, body)


def test_the_models_are_listed(server):
    assert get(server, "/v1/models") == {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "replay"}
            for name in ("big-1", "partial-1", "small-1")
        ],
    }
    assert {model.id for model in nvidia(server).available_models} >= {"big-1"}


def test_requests_are_counted(server):
    send(server, asked(CASES["greet-1"]))
    send(server, asked(CASES["greet-1"], "small-1"))
    send(server, asked(CASES["greet-1"], "partial-1"))
    send(server, {"model": "big-1", "messages": [user("Who?")]})
    send(server, {"model": "huge-1", "messages": [user("Who?")]})
    send(server, b"{")
    assert server.requests == [
        ("big-1", "greet-1"),
        ("small-1", "greet-1"),
        ("partial-1", "greet-1"),
        ("big-1", None),
        ("huge-1", None),
    ]
    assert get(server, "/v1/replay/requests") == {
        "requests": 5,
        "by_model": {"big-1": 2, "small-1": 1, "partial-1": 1, "huge-1": 1},
        "unknown": 2,
    }
    server.requests.clear()
    assert get(server, "/v1/replay/requests")["requests"] == 0


# --- A recorded suite --------------------------------------------------------------


@pytest.fixture(scope="module")
def bfcl() -> Iterator[tuple[Suite, ReplayServer]]:
    if not BFCL.is_dir():
        pytest.skip("the recorded suite bfcl_v1 is not beside this repository")
    suite = read_suite(BFCL)
    with ReplayServer([suite]) as started:
        yield suite, started


def test_every_recorded_case_is_found(bfcl):
    suite, server = bfcl
    model = "meetkai_functionary-small-v3.2-FC"
    connection = connect(server)
    for case in suite.cases:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked(case, model)))
        reply = json.loads(connection.getresponse().read())
        answer = suite.responses[model][case.id].answer
        assert reply["choices"][0]["message"] == answer.message
        assert reply["usage"]["completion_tokens"] == answer.usage.output_tokens
    connection.close()
    assert Counter(server.requests) == Counter((model, case.id) for case in suite.cases)


def test_clients_find_recorded_cases_of_every_node(bfcl, chat):
    suite, server = bfcl
    model = chat(server, "gpt-4o-2024-08-06-FC")
    for case in suite.cases[::31]:
        message = bound(model, case).invoke(list(case.messages))
        assert is_recorded(message, suite.responses[suite.reference][case.id].answer)
