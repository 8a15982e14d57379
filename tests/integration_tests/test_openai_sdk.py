"""The opt-in for calls of the `openai` package itself, over HTTP."""

import asyncio
import gc
from collections import Counter
from functools import partial

import openai
import pytest
from integration_tests.schema_server import SchemaServer
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
)
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import Watching, one_node

from langchain_slm import Router, open_store, record, rewrite
from langchain_slm.rewriting.graphs import instrument
from langchain_slm.rewriting.scopes import Scope
from langchain_slm.routing.policy import NeverEscalate

HELLO = [{"role": "user", "content": "Say hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather of the city Paris?"}]
HOOKS = ["openai_sdk"]


@pytest.fixture
def server():
    with SchemaServer() as serving:
        yield serving


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as made:
        yield made


def models_asked(server):
    return Counter(asked["model"] for asked in server.asked)


def run(function, plan, hooks=HOOKS):
    """Return what `function` gives in a node of a rewritten graph."""
    found = []
    graph = one_node(lambda state: found.append(function())).compile()
    rewrite(graph, plan, hooks=hooks).invoke({"text": ""})
    return found[0]


def test_a_raw_call_is_answered_by_what_is_bound(server, client):
    ask = lambda: client.chat.completions.create(model="big", messages=HELLO)  # noqa: E731
    answer = run(ask, {"node": server.openai("small")})
    assert isinstance(answer, ChatCompletion)
    assert answer.model == "small"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert models_asked(server) == {"small": 1}


def test_without_the_opt_in_it_keeps_its_model(server, client):
    ask = lambda: client.chat.completions.create(model="big", messages=HELLO)  # noqa: E731
    answer = run(ask, {"node": server.openai("small")}, hooks=())
    assert answer.model == "big"
    assert models_asked(server) == {"big": 1}


def test_tool_calls_come_back_in_the_packages_types(server, client):
    def loop():
        messages = list(ASK_WEATHER)
        first = client.chat.completions.create(
            model="big", messages=messages, tools=[WEATHER], temperature=0
        )
        message = first.choices[0].message
        messages.append(message)  # as the package's own examples do
        messages.append(
            {
                "role": "tool",
                "tool_call_id": message.tool_calls[0].id,
                "content": "sunny",
            }
        )
        return first, client.chat.completions.create(
            model="big", messages=messages, tools=[WEATHER]
        )

    first, second = run(loop, {"node": server.openai("small")})
    call = first.choices[0].message.tool_calls[0]
    assert (first.choices[0].finish_reason, call.type) == ("tool_calls", "function")
    assert call.function.name == "get_weather"
    assert '"city"' in call.function.arguments
    assert "sunny" in second.choices[0].message.content
    assert models_asked(server) == {"small": 2}
    assert server.asked[0]["temperature"] == 0


def test_a_stream_comes_back_in_chunks(server, client):
    def stream():
        chunks = client.chat.completions.create(
            model="big",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        return list(chunks)

    chunks = run(stream, {"node": server.openai("small")})
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert [c.usage for c in chunks if c.usage][-1].total_tokens > 0
    ended = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    assert [chunk.model for chunk in ended] == ["small"]  # said at the end, and then
    assert models_asked(server) == {"small": 1}


def test_a_stream_without_usage_has_a_choice_in_every_chunk(server, client):
    def stream():
        with client.chat.completions.create(
            model="big", messages=HELLO, stream=True
        ) as chunks:
            return [chunk.choices[0].delta.content for chunk in chunks]

    assert "".join(run(stream, {"node": server.openai("small")}))


def test_streamed_tool_calls_add_up(server, client):
    def stream():
        chunks = client.chat.completions.create(
            model="big", messages=ASK_WEATHER, tools=[WEATHER], stream=True
        )
        deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or ()]
        names = [d.function.name for d in deltas if d.function.name]
        return names, "".join(d.function.arguments or "" for d in deltas)

    names, arguments = run(stream, {"node": server.openai("small")})
    assert names == ["get_weather"]
    assert arguments.startswith("{")
    assert arguments.endswith("}")
    assert models_asked(server) == {"small": 1}


def test_what_escalates_is_asked_as_the_app_asked_it():
    with (
        SchemaServer(clumsy=["small"]) as serving,
        openai.OpenAI(base_url=serving.url, api_key="any") as client,
    ):

        def ask():
            return client.chat.completions.create(
                model="big", messages=ASK_WEATHER, tools=[WEATHER], user="u1"
            )

        answers = [run(ask, {"node": serving.openai("small")}) for _ in range(3)]
        asked = [each for each in serving.asked if each["model"] == "big"]
    assert asked
    assert all(each["user"] == "u1" for each in asked)
    native = [answer for answer in answers if answer.model == "big"]
    assert len(native) == len(asked)


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"logprobs": True}, {"extra_headers": {"X-Stainless-Raw-Response": "1"}}],
)
def test_what_only_a_raw_call_can_ask_for_is_left_alone(server, client, more):
    ask = lambda: client.chat.completions.create(  # noqa: E731
        model="big", messages=HELLO, **more
    )
    run(ask, {"node": server.openai("small")})
    assert models_asked(server) == {"big": 1}


def test_raw_responses_are_left_alone(server, client):
    raw = client.chat.completions.with_raw_response
    ask = lambda: raw.create(model="big", messages=HELLO)  # noqa: E731
    answer = run(ask, {"node": server.openai("small")})
    assert answer.parse().model == "big"


def test_with_an_empty_plan_the_answer_is_the_packages_own(server, client):
    def ask():
        return client.chat.completions.create(model="big", messages=HELLO)

    answer = run(ask, {})
    assert answer.choices == ask().choices
    assert server.asked[0] == server.asked[1]


def test_an_error_is_the_packages_own(server, client):
    def ask():
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="big", messages=[{"role": "user"}])
        return True

    assert run(ask, {})


async def test_async_clients_are_reached(server):
    async with openai.AsyncOpenAI(base_url=server.url, api_key="any") as client:
        found = []

        async def node(state):
            create = client.chat.completions.create
            found.append(await create(model="big", messages=HELLO))
            async with await create(model="big", messages=HELLO, stream=True) as chunks:
                found.append([chunk async for chunk in chunks])

        small = server.openai("small")
        graph = rewrite(one_node(node).compile(), {"node": small}, hooks=HOOKS)
        await graph.ainvoke({"text": ""})
        await small.root_async_client.close()
    answer, chunks = found
    assert answer.model == "small"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.choices[0].message.content
    assert models_asked(server) == {"small": 2}


def test_raw_calls_are_recorded(server, client, tmp_path):
    def node(state):
        client.chat.completions.create(model="big", messages=HELLO)
        list(client.chat.completions.create(model="big", messages=HELLO, stream=True))

    url = f"sqlite:///{tmp_path}/slm.db"
    record(one_node(node).compile(), url, hooks=HOOKS).invoke({"text": ""})
    with open_store(url) as store:
        calls = list(store.calls())
    assert [(call.site, call.model) for call in calls] == [("node", "big")] * 2
    assert calls[0].answer.text == calls[1].answer.text
    assert models_asked(server) == {"big": 2}


def test_a_raw_call_stays_out_of_message_streams(server, client):
    def node(state):
        client.chat.completions.create(model="big", messages=HELLO)

    graph = rewrite(
        one_node(node).compile(), {"node": server.openai("small")}, hooks=HOOKS
    )
    assert list(graph.stream({"text": ""}, stream_mode="messages")) == []


def test_the_package_is_as_it_was_when_the_last_copy_has_gone():
    gc.collect()
    before = Completions.create, AsyncCompletions.create
    copy = rewrite(one_node(lambda state: None).compile(), {}, hooks=HOOKS)
    assert Completions.create is not before[0]
    del copy
    gc.collect()
    assert (Completions.create, AsyncCompletions.create) == before


def test_raw_calls_of_many_runs_do_not_mix(server, client):
    def node(state):
        answer = client.chat.completions.create(
            model="big", messages=[{"role": "user", "content": state["text"]}]
        )
        return {"log": [answer.model]}

    original = one_node(node).compile()
    one = rewrite(original, {"node": server.openai("one")}, hooks=HOOKS)
    two = rewrite(original, {"node": server.openai("two")}, hooks=HOOKS)

    async def all_at_once():
        runs = [
            asyncio.to_thread(graph.invoke, {"text": "hello"})
            for graph in (original, one, two) * 5
        ]
        return await asyncio.gather(*runs)

    answered = [state["log"][0] for state in asyncio.run(all_at_once())]
    assert answered == ["big", "one", "two"] * 5


def fake(finish="stop"):
    message = AIMessage("slm says so", response_metadata={"finish_reason": finish})
    return FakeChat(model_name="slm", reply=lambda _: message.model_copy(deep=True))


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "more",
    [{"metadata": {"a": "b"}, "store": True}, {"stop": "x"}, {"timeout": 3, "user": "u"}],
)
def test_arguments_about_the_request_change_no_answer(server, client, more, stream):
    def ask():
        return client.chat.completions.create(
            model="big", messages=HELLO, stream=stream, **more
        )

    def text():
        answer = ask()
        return text_of(answer) if stream else answer.choices[0].message.content

    assert run(text, {"node": fake()}) == "slm says so"
    run(text, {})
    text()
    assert server.asked[0] == server.asked[1]


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "x"}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "developer", "content": "be nice"}, *HELLO],
        [*HELLO, {"role": "assistant", "tool_calls": [CALL]}, RESULT],
        [*HELLO, ChatCompletionMessage(role="assistant", tool_calls=[CALL]), RESULT],
        iter(HELLO),
    ],
)
def test_messages_of_any_form_are_reached(client, messages):
    def ask():
        answer = client.chat.completions.create(model="big", messages=messages)
        return answer.choices[0].message.content

    assert run(ask, {"node": fake()}) == "slm says so"


def test_messages_that_can_be_read_once_reach_the_server_whole(server, client):
    run(lambda: client.chat.completions.create(model="big", messages=iter(HELLO)), {})
    assert server.asked[0]["messages"] == HELLO


def test_a_call_without_a_model_fails_as_the_packages_own(client):
    def ask():
        with pytest.raises(TypeError, match="Missing required arguments"):
            client.chat.completions.create(messages=HELLO)
        return True

    assert run(ask, {"node": fake()})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("told", "said"),
    [("end_turn", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter")],
)
def test_why_an_answer_ended_is_said_in_the_packages_words(client, told, said, stream):
    def ask():
        answer = client.chat.completions.create(
            model="big", messages=HELLO, stream=stream
        )
        return (list(answer)[-1] if stream else answer).choices[0].finish_reason

    router = Router({"node": fake(told)}, policy=NeverEscalate())
    assert run(ask, router) == said


def test_with_an_empty_plan_chunks_are_the_packages_own(client):
    def ask():
        chunks = client.chat.completions.create(model="big", messages=HELLO, stream=True)
        status = chunks.response.status_code
        return status, [c.model_dump(exclude={"id", "created"}) for c in chunks]

    assert run(ask, {}) == ask()


def test_a_stream_that_cannot_begin_fails_where_it_is_asked_for():
    with openai.OpenAI(base_url="http://127.0.0.1:9", api_key="any", max_retries=0) as no:

        def ask():
            with pytest.raises(openai.APIConnectionError):
                no.chat.completions.create(model="big", messages=HELLO, stream=True)
            return True

        assert run(ask, {})


def test_a_stream_is_read_as_the_packages_own(client):
    def ask():
        stream = client.chat.completions.create(model="big", messages=HELLO, stream=True)
        assert isinstance(stream, openai.Stream)
        chunks = [next(stream), next(stream), *stream]
        assert list(stream) == []
        stream.close()
        return chunks

    chunks = run(ask, {"node": fake()})
    assert text_of(chunks) == "slm says so"
    roles = [chunk.choices[0].delta.role for chunk in chunks]
    assert roles == ["assistant", *[None] * (len(chunks) - 1)]


def test_a_streamed_tool_loop_stays_with_its_model(server, client):
    def loop():
        chunks = client.chat.completions.create(
            model="big", messages=ASK_WEATHER, tools=[WEATHER], stream=True
        )
        deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or ()]
        call_id = "".join(d.id or "" for d in deltas)
        arguments = "".join(d.function.arguments or "" for d in deltas)
        function = {"name": "get_weather", "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        said = {"role": "assistant", "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call_id, "content": "sunny"}
        messages = [*ASK_WEATHER, said, result]
        client.chat.completions.create(model="big", messages=messages, tools=[WEATHER])

    run(loop, {"node": server.openai("small")})
    assert models_asked(server) == {"small": 2}


def test_langchains_cache_keeps_no_raw_calls(server, client):
    def ask():
        return [
            client.chat.completions.create(model=model, messages=HELLO).model
            for model in ("big", "other", "big")
        ]

    set_llm_cache(InMemoryCache())
    try:
        assert run(ask, {}) == ["big", "other", "big"]
    finally:
        set_llm_cache(None)
    assert models_asked(server) == {"big": 2, "other": 1}


def test_an_answer_that_langchain_cannot_read_reaches_the_app(client, monkeypatch):
    odd = ChatCompletion.model_construct(id="1", choices=None, model="big")
    monkeypatch.setattr(client.chat.completions, "_post", lambda *_, **__: odd)
    ask = lambda: client.chat.completions.create(model="big", messages=HELLO)  # noqa: E731
    assert run(ask, {}) is odd


def test_the_apps_own_body_counts_as_options(client):
    watching = Watching()
    schema = {"title": "grade", "type": "object"}

    def node(state):
        client.chat.completions.create(
            model="big", messages=HELLO, extra_body={"guided_json": schema}
        )

    scope = Scope(watcher=watching, hooks=frozenset(HOOKS))
    instrument(one_node(node).compile(), scope).invoke({"text": ""})
    (call,) = watching
    assert call.ask.options == {"guided_json": schema}


@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
def test_a_chat_models_own_raw_call_for_its_events_is_not_another_one(server):
    big = server.openai("big")

    def node(state):
        return {"log": [big.stream_events("hi", version="v3").output.text]}

    graph = rewrite(
        one_node(node).compile(), {"node": server.openai("small")}, hooks=HOOKS
    )
    graph.invoke({"text": ""})
    watching = Watching()
    scope = Scope(watcher=watching, hooks=frozenset(HOOKS))
    instrument(one_node(node).compile(), scope).invoke({"text": ""})
    assert watching.sites == ["node"]
    assert models_asked(server) == {"small": 1, "big": 1}


async def test_asynchronous_streams_that_are_closed_are_watched(server):
    watching, found = Watching(), []
    async with openai.AsyncOpenAI(base_url=server.url, api_key="any") as client:

        async def node(state):
            create = partial(client.chat.completions.create, model="big", messages=HELLO)
            first = await create(stream=True)
            found.extend([await anext(first), await anext(first)])
            await first.aclose()
            second = await create(stream=True)
            async for _ in second:
                break
            await second.close()
            third = await create(stream=True)
            found.append([chunk async for chunk in third])
            found.append([chunk async for chunk in third])

        scope = Scope(watcher=watching, hooks=frozenset(HOOKS))
        await instrument(one_node(node).compile(), scope).ainvoke({"text": ""})
    assert [type(call.error) for call in watching] == [
        GeneratorExit,
        GeneratorExit,
        type(None),
    ]
    assert found[-2]
    assert found[-1] == []
