"""Asking a replay server, for the tests of it: clients, requests and small suites."""

import http.client
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI

from langchain_slm.recording.interchange import Case, Response, Suite, read_suite
from langchain_slm.replay import ReplayServer
from langchain_slm.schema import Answer, Expected, ModelSpec

TINY = read_suite(Path(__file__).parents[1] / "data" / "tiny_suite")
CASES = {case.id: case for case in TINY.cases}

Chat = Callable[..., BaseChatModel]


def openai(server: ReplayServer, model: str = "big-1") -> ChatOpenAI:
    return ChatOpenAI(
        model=model, base_url=server.url, api_key="any", max_retries=0, stream_usage=True
    )


def nvidia(server: ReplayServer, model: str = "big-1") -> ChatNVIDIA:
    return ChatNVIDIA(model=model, base_url=server.url, api_key="any")


def connect(server: ReplayServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.url.split("/")[2], timeout=10)


def send(
    server: ReplayServer,
    body: object,
    *,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """Send one request; return status and JSON."""
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = connect(server)
    try:
        connection.request(method, path, raw, headers or {})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def get(server: ReplayServer, path: str) -> Any:
    status, value = send(server, None, path=path, method="GET")
    assert status == 200
    return value


def asked(case: Case, model: str = "big-1", **more: object) -> dict[str, Any]:
    """The body of a request for a case."""
    tools = {"tools": list(case.tools)} if case.tools else {}
    return {"model": model, "messages": list(case.messages), **tools, **more}


def a_case(case_id: str, *messages: dict, tools: Sequence[dict] = ()) -> Case:
    right = Expected(grader="exact_text", reference={})
    return Case(
        id=case_id,
        node="n",
        thread=case_id,
        messages=messages,
        tools=tuple(tools),
        expected=right,
    )


def said(text: str) -> Response:
    message = {"role": "assistant", "content": text}
    return Response(answer=Answer(message=message, finish_reason="stop"))


def a_suite(answers: dict[str, str | Response], *cases: Case, name: str = "own") -> Suite:
    """A suite in which the model big-1 gave these answers."""
    responses = {
        case_id: said(answer) if isinstance(answer, str) else answer
        for case_id, answer in answers.items()
    }
    spec = ModelSpec(name="big-1", provider="openai", model="big-1")
    return Suite(
        name=name, cases=cases, responses={"big-1": responses}, models={"big-1": spec}
    )


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


def bound(model: BaseChatModel, case: Case) -> Any:
    return model.bind_tools(list(case.tools)) if case.tools else model


def calls_of(message: AIMessage) -> list[tuple[str, dict, str | None]]:
    return [(call["name"], call["args"], call["id"]) for call in message.tool_calls]


def is_recorded(message: AIMessage, answer: Answer) -> bool:
    """Whether a client received exactly the recorded text and tool calls."""
    recorded = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"])
        for call in answer.message.get("tool_calls") or []
    ]
    return message.content == answer.text and calls_of(message) == recorded
