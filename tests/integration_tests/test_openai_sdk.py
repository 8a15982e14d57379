"""The opt-in for calls of the `openai` package itself, over HTTP."""

import asyncio
import gc
from collections import Counter

import openai
import pytest
from integration_tests.schema_server import SchemaServer
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from unit_tests.watching import one_node

from langchain_slm import open_store, record, rewrite

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
