"""The same question in other words is the same question to a replay, and no other is."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from integration_tests.replaying import (
    CASES,
    TINY,
    Chat,
    a_case,
    a_suite,
    asked,
    bound,
    nvidia,
    openai,
    send,
    user,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_slm.recording.interchange import Case
from langchain_slm.replay import ReplayServer


@pytest.fixture(scope="module")
def running() -> Iterator[ReplayServer]:
    with ReplayServer([TINY]) as started:
        yield started


@pytest.fixture
def server(running: ReplayServer) -> ReplayServer:
    running.requests.clear()
    return running


@pytest.fixture(params=[openai, nvidia])
def chat(request) -> Chat:
    return request.param


WEATHER = CASES["lookup-1"].tools[0]
LOOP = CASES["lookup-2"]


def loop(**changes: object) -> list[dict[str, Any]]:
    """The messages of the tool loop, with changes to the assistant's."""
    question, assistant, first, second = (dict(message) for message in LOOP.messages)
    return [question, {**assistant, **changes}, first, second]


def recalled(change: Callable[[dict], dict]) -> list[dict[str, Any]]:
    """The messages of the tool loop, with each tool call changed."""
    return loop(tool_calls=[change(call) for call in LOOP.messages[1]["tool_calls"]])


@pytest.mark.parametrize(
    "messages",
    [
        loop(content=""),
        loop(content=[]),
        loop(refusal=None, audio=None, annotations=[], function_call=None, name="bot"),
        [{k: v for k, v in m.items() if v is not None} for m in LOOP.messages],
        [{"name": "ada", **message} for message in LOOP.messages],
        recalled(lambda c: {"id": c["id"], "function": c["function"], "index": 0}),
        recalled(
            lambda c: {
                **c,
                "function": {
                    "name": "get_weather",
                    "arguments": json.dumps(
                        dict(reversed(json.loads(c["function"]["arguments"]).items())),
                        indent=2,
                    ),
                },
            }
        ),
        recalled(
            lambda c: {
                **c,
                "function": {
                    **c["function"],
                    "arguments": json.loads(c["function"]["arguments"]),
                },
            }
        ),
    ],
    ids=[
        "empty content",
        "no parts",
        "empty fields",
        "omitted fields",
        "names",
        "omitted type",
        "arguments in another form",
        "arguments as an object",
    ],
)
def test_the_form_of_a_message_does_not_matter(server, messages):
    status, reply = send(server, {**asked(LOOP), "messages": messages})
    assert (status, server.requests) == (200, [("big-1", "lookup-2")]), reply


def test_ids_of_tool_calls_only_link_results_to_calls(server):
    text = json.dumps(asked(LOOP)).replace("call_a1", "x").replace("call_b2", "y")
    assert send(server, text.encode())[0] == 200
    crossed = json.loads(json.dumps(asked(LOOP)))
    crossed["messages"][2]["tool_call_id"] = "call_b2"
    crossed["messages"][3]["tool_call_id"] = "call_a1"
    assert send(server, crossed)[0] == 404


def test_text_may_come_in_parts_and_the_system_be_a_developer(server):
    texts = ["You greet custo", "mers in one sentence."]
    parts = [{"type": "text", "text": text} for text in texts]
    messages = [
        {"role": "developer", "content": parts},
        user([{"type": "text", "text": "Hi, I am Ada."}]),
    ]
    assert send(server, {"model": "big-1", "messages": messages})[0] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"strict": True},
        {"strict": False, "description": WEATHER["function"]["description"]},
        {"parameters": dict(reversed(WEATHER["function"]["parameters"].items()))},
    ],
)
def test_the_form_of_a_tool_does_not_matter(server, changes):
    case = CASES["lookup-1"]
    tools = [{"function": {**WEATHER["function"], **changes}, "type": "function"}]
    body = {**asked(case), "tools": [*tools, case.tools[1]]}
    assert send(server, body)[0] == 200


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}])
def test_a_tool_without_parameters_may_leave_them_out(server, parameters):
    case = CASES["lookup-1"]
    now = json.loads(json.dumps(case.tools[1]))
    now["function"]["parameters"] = parameters
    assert send(server, {**asked(case), "tools": [case.tools[0], now]})[0] == 200


@pytest.mark.parametrize("tools", [None, []])
def test_no_tools_is_the_same_as_an_empty_list(server, tools):
    assert send(server, asked(CASES["greet-1"], tools=tools))[0] == 200


def test_sampling_parameters_do_not_matter(server):
    body = asked(CASES["greet-1"], temperature=1, max_tokens=5, seed=3, stop=["."], n=1)
    assert send(server, body)[0] == 200


@pytest.mark.parametrize(
    ("case_id", "edit", "place"),
    [
        ("greet-1", lambda b: b["messages"].pop(0), "messages[0].role, character 1"),
        (
            "greet-1",
            lambda b: b["messages"].append(user("Bye")),
            "messages has another length",
        ),
        (
            "greet-1",
            lambda b: b["messages"][1].update(content="Hi, I am Ada!"),
            "messages[1].content, character 13",
        ),
        (
            "lookup-1",
            lambda b: b["tools"].reverse(),
            "tools[0].name, character 1",
        ),
        (
            "lookup-1",
            lambda b: b["tools"][0]["function"]["parameters"].update(required=[]),
            "tools[0].parameters.required has another length",
        ),
        (
            "lookup-2",
            lambda b: b["messages"][1]["tool_calls"][0]["function"].update(
                arguments='{"city": "Rome", "unit": "celsius"}'
            ),
            "messages[1].tool_calls[0].arguments.city, character 1",
        ),
        (
            "lookup-2",
            lambda b: b["messages"][1]["tool_calls"][0]["function"].update(
                arguments='{"city": "Oslo", "unit": 1}'
            ),
            "messages[1].tool_calls[0].arguments.unit",
        ),
    ],
)
def test_another_question_is_not_answered(server, case_id, edit, place):
    body = json.loads(json.dumps(asked(CASES[case_id])))
    edit(body)
    status, reply = send(server, body)
    assert status == 404
    assert reply["error"]["nearest"]["id"] == case_id
    assert reply["error"]["nearest"]["difference"] == place
    assert server.requests == [("big-1", None)]


def test_numbers_that_python_calls_equal_are_told_apart():
    call = {"id": "1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    case = a_case("one", user("?"), {"role": "assistant", "tool_calls": [call]})
    with ReplayServer([a_suite({"one": "yes"}, case)]) as server:
        body = json.dumps(asked(case)).replace("1}", "true}")
        status, reply = send(server, body.encode())
    assert status == 404
    assert reply["error"]["nearest"]["difference"] == (
        "messages[1].tool_calls[0].arguments.x"
    )


def test_images_are_part_of_the_question():
    def with_image(data: str) -> dict[str, object]:
        image = {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{data}"},
        }
        return user([{"type": "text", "text": "What is it?"}, image])

    case = a_case("cat", with_image("AAAA"))
    with ReplayServer([a_suite({"cat": "A cat."}, case)]) as server:
        assert send(server, asked(case))[0] == 200
        assert send(server, {**asked(case), "messages": [with_image("BBBB")]})[0] == 404
        for chat in (openai, nvidia):
            said = chat(server).invoke([HumanMessage(with_image("AAAA")["content"])])
            assert said.content == "A cat."


def test_a_tool_loop_of_langchain_messages_is_recognised(server, chat):
    calls = [
        {"name": "get_weather", "args": {"city": c, "unit": "celsius"}, "id": f"id-{c}"}
        for c in ("Oslo", "Łódź")
    ]
    messages = [
        HumanMessage(LOOP.messages[0]["content"]),
        AIMessage("", tool_calls=calls),
        ToolMessage("7", tool_call_id="id-Oslo", name="get_weather"),
        ToolMessage([{"type": "text", "text": "11"}], tool_call_id="id-Łódź"),
    ]
    message = bound(chat(server), LOOP).invoke(messages)
    assert message.content == "It is warmer in Łódź: 11 against 7 degrees."


def test_a_tool_loop_is_recognised_when_the_client_answers_itself(server, chat):
    case = CASES["lookup-1"]
    model = bound(chat(server), case)
    first = model.invoke(list(case.messages))
    results = [
        ToolMessage(text, tool_call_id=call["id"])
        for text, call in zip(["7", "11"], first.tool_calls, strict=True)
    ]
    second = model.invoke([*case.messages, first, *results])
    assert second.content == "It is warmer in Łódź: 11 against 7 degrees."
    assert server.requests == [("big-1", "lookup-1"), ("big-1", "lookup-2")]


def test_langchain_messages_with_names_and_parts_are_recognised(server, chat):
    messages = [
        SystemMessage("You greet customers in one sentence."),
        HumanMessage([{"type": "text", "text": "Hi, I am Ada."}], name="ada"),
    ]
    said = chat(server).invoke(messages)
    assert said.content == "Hello Ada, how can we help you today?"


def looked_up(case_id: str, city: str) -> Case:
    """A case whose history holds a tool call for `city`, with the same result."""
    function = {"name": "find", "arguments": json.dumps({"city": city})}
    call = {"id": "1", "type": "function", "function": function}
    history = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "1", "content": "found"}
    return a_case(case_id, user("?"), history, result)


def test_lost_tool_calls_are_not_guessed():
    oslo, rome = looked_up("oslo", "Oslo"), looked_up("rome", "Rome")
    lost = [user("?"), {"role": "assistant", "content": ""}, dict(oslo.messages[2])]
    with ReplayServer([a_suite({"oslo": "In Oslo."}, oslo)]) as server:
        assert send(server, {**asked(oslo), "messages": lost})[0] == 200
        assert send(server, asked(rome))[0] == 404
    both = a_suite({"oslo": "In Oslo.", "rome": "In Rome."}, oslo, rome)
    with ReplayServer([both]) as server:
        assert send(server, {**asked(oslo), "messages": lost})[0] == 404
        assert send(server, asked(rome))[0] == 200


def test_arguments_that_are_not_json_are_compared_as_text():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{x"}}
    case = a_case("bad", user("?"), {"role": "assistant", "tool_calls": [call]})
    with ReplayServer([a_suite({"bad": "Sorry."}, case)]) as server:
        assert send(server, asked(case))[0] == 200
