"""The endpoint that the standard suites ask: it answers as OpenAI's would."""

import json
from functools import cache
from typing import Any

import httpx
import pytest
from integration_tests.schema_filling import Filling
from integration_tests.schema_server import SchemaServer
from jsonschema import Draft202012Validator

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = {"name": "get_weather", "description": "Get the weather.", "parameters": CITY}
ZONE = {"name": "get_timezone", "description": "Get the timezone.", "parameters": CITY}
TOOLS = [{"type": "function", "function": each} for each in (WEATHER, ZONE)]
PARIS = "What are weather and timezone in Paris?"


@pytest.fixture(scope="module")
def server():
    with SchemaServer(clumsy={"small"}) as running:
        yield running


@cache
def client() -> httpx.Client:
    return httpx.Client()


def post(server: SchemaServer, prompt: Any, **more: Any) -> httpx.Response:
    messages = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    )
    body = {"model": "big", "messages": messages, **more}
    return client().post(f"{server.url}/chat/completions", json=body)


def choice(server: SchemaServer, prompt: Any, **more: Any) -> dict[str, Any]:
    reply = post(server, prompt, **more)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


def events(server: SchemaServer, prompt: str, **more: Any) -> list[dict[str, Any]]:
    lines = post(server, prompt, stream=True, **more).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def calls(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    functions = [call["function"] for call in answer["message"].get("tool_calls") or ()]
    return [(each["name"], json.loads(each["arguments"])) for each in functions]


@pytest.mark.parametrize(
    ("schema", "prompt", "value"),
    [
        ({"type": "integer"}, "What is magic(3)?", 3),
        ({"type": "integer", "minimum": 5}, "Take 3 or 7.", 7),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9}, "Any.", 1),
        ({"type": "number"}, "It is -2.5 degrees.", -2.5),
        ({"type": "string"}, "Call 'こんにちは' now.", "こんにちは"),
        ({"type": "string"}, "What about San Francisco, CA?", "San Francisco, CA"),
        ({"type": "string", "maxLength": 3}, "Call 'Alice' now.", "Ali"),
        ({"enum": ["red", "blue"]}, "The blue one.", "blue"),
        ({"const": 4}, "Any.", 4),
        ({"type": ["null", "integer"]}, "Take 3.", 3),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, "2, 5", [2, 5]),
        ({"allOf": [{"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "integer"}}}, "8", 8),
        (
            {
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a"],
            },
            "1 and 2",
            {"a": 1},
        ),
        (
            {
                "properties": {"end": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                "required": ["end"],
            },
            "A joke, no end.",
            {"end": None},
        ),
        ({"properties": {"polite": {"type": "boolean"}}}, "Be polite.", {"polite": True}),
    ],
)
def test_values_come_from_the_prompt_and_satisfy_the_schema(schema, prompt, value):
    assert Filling(prompt).fill(schema) == value
    Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize(
    ("more", "called"),
    [
        ({}, ["get_weather", "get_timezone"]),
        ({"parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": {"type": "function", "function": ZONE}}, ["get_timezone"]),
    ],
)
def test_the_tools_that_the_prompt_is_about_are_called(server, more, called):
    answer = choice(server, PARIS, tools=TOOLS, **more)
    assert calls(answer) == [(name, {"city": "Paris"}) for name in called]
    assert answer["finish_reason"] == ("tool_calls" if called else "stop")


def test_a_tool_is_called_for_nothing_only_where_one_is_required(server):
    assert calls(choice(server, "Hello!", tools=TOOLS)) == []
    required = choice(server, "Hello!", tools=TOOLS, tool_choice="required")
    assert [name for name, _ in calls(required)] == ["get_weather"]


def test_the_result_of_a_tool_ends_the_loop(server):
    asked = {"role": "user", "content": PARIS}
    made = choice(server, [asked], tools=TOOLS[:1])["message"]
    result = {"role": "tool", "tool_call_id": "call_0", "content": "sunny"}
    answer = choice(server, [asked, made, result], tools=TOOLS[:1])
    assert answer["message"]["content"] == "The tool says: sunny"


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": CITY}}},
        {"guided_json": CITY},
        {"nvext": {"guided_json": CITY}},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_each_way_to_ask_for_json_gives_it(server, more):
    prompt = "Where is 'Zürich'? Answer in JSON with 'city' keys."
    answer = choice(server, prompt, **more)["message"]["content"]
    assert json.loads(answer) == {"city": "Zürich"}


def test_a_guided_choice_is_one_of_the_choices(server):
    guided = {"guided_choice": ["yes", "no"]}
    assert choice(server, "Say no.", nvext=guided)["message"]["content"] == "no"


def test_text_ends_at_a_stop_word_and_at_the_limit(server):
    stopped = choice(server, "Hello", stop=["said"])
    assert stopped["message"]["content"] == "You "
    assert stopped["finish_reason"] == "stop"
    cut = choice(server, "Hello", max_tokens=2)
    assert (cut["message"]["content"], cut["finish_reason"]) == ("You said", "length")


def test_a_stream_adds_up_to_the_whole_answer(server):
    whole = choice(server, PARIS, tools=TOOLS)["message"]["tool_calls"]
    deltas = [
        event["choices"][0]["delta"] for event in events(server, PARIS, tools=TOOLS)
    ]
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    for index, call in enumerate(whole):
        of_one = [part["function"] for part in parts if part["index"] == index]
        assert of_one[0]["name"] == call["function"]["name"]
        arguments = "".join(part["arguments"] for part in of_one)
        assert arguments == call["function"]["arguments"]


def test_a_stream_tells_its_usage_to_those_who_ask(server):
    plain = events(server, "Hello")
    assert plain[-1]["choices"][0]["finish_reason"] == "stop"
    told = events(server, "Hello", stream_options={"include_usage": True})
    assert [event for event in told if "usage" in event] == told[-1:]
    assert told[-1]["usage"] == post(server, "Hello").json()["usage"]


def test_the_model_that_is_asked_is_named(server):
    assert post(server, "Hello", model="other").json()["model"] == "other"


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        ([], {}),
        ([{"role": "human", "content": "x"}], {}),
        ([{"role": "user", "content": None}], {}),
        ([{"role": "user", "content": []}], {}),
        ([{"role": "user", "content": [{"type": "tool_use"}]}], {}),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], {}),
        ([{"role": "tool", "tool_call_id": "a", "content": "x"}], {}),
        ([ASSISTANT, {"role": "user", "content": "x"}], {}),
        ("Hello", {"model": ""}),
        ("Hello", {"tool_choice": "auto"}),
        ("Hello", {"tools": TOOLS, "tool_choice": "any"}),
        ("Hello", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
        ("Hello", {"response_format": {"type": "json_object"}}),
    ],
)
def test_what_openai_refuses_is_refused(server, messages, more):
    assert post(server, messages, **more).status_code == 400


def test_a_clumsy_model_errs_in_every_way_and_always_in_the_same(server):
    def outcome(number: int) -> str:
        tools = {"tools": TOOLS, "tool_choice": "required"}
        reply = post(server, f"Weather number {number}", model="small", **tools)
        if reply.status_code == 500:
            return "refused"
        answer = reply.json()["choices"][0]
        made = answer["message"].get("tool_calls") or [{"function": {"name": "none"}}]
        return f"{made[0]['function']['name']} {answer['finish_reason']}"

    first = [outcome(number) for number in range(40)]
    assert set(first) == {
        "refused",
        "none stop",
        "wrong_tool tool_calls",
        "get_weather tool_calls",
        "get_weather length",
        "get_weather None",
    }
    assert [outcome(number) for number in range(3)] == first[:3]
