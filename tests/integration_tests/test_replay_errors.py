"""Requests that a replay has no answer to."""

import json
import logging
import socket
from collections.abc import Iterator

import pytest
from integration_tests.replaying import (
    CASES,
    TINY,
    asked,
    connect,
    nvidia,
    openai,
    send,
    user,
)

from langchain_slm.replay import ReplayServer


@pytest.fixture(scope="module")
def running() -> Iterator[ReplayServer]:
    with ReplayServer([TINY]) as started:
        yield started


@pytest.fixture
def server(running: ReplayServer) -> ReplayServer:
    running.requests.clear()
    return running


def test_an_unknown_model_gets_the_known_ones(server):
    status, reply = send(server, asked(CASES["greet-1"], "huge-1"))
    assert status == 404
    assert reply == {
        "error": {
            "message": "no recordings of model 'huge-1'; "
            "there are big-1, partial-1, small-1",
            "type": "invalid_request_error",
            "code": "model_not_found",
            "param": "model",
        }
    }


def test_an_unknown_question_gets_the_nearest_case(server):
    messages = [CASES["greet-1"].messages[0], user("Hi, I am Bob.")]
    status, reply = send(server, {"model": "big-1", "messages": messages})
    assert status == 404
    assert reply == {
        "error": {
            "message": "no recording of these messages and tools; the nearest case is "
            "'greet-1' of suite 'tiny' (similarity 0.938), first difference: "
            "messages[1].content, character 10",
            "type": "invalid_request_error",
            "code": "question_not_recorded",
            "param": "messages",
            "nearest": {
                "suite": "tiny",
                "id": "greet-1",
                "similarity": 0.938,
                "difference": "messages[1].content, character 10",
            },
        }
    }


@pytest.mark.parametrize(
    ("case_id", "why"),
    [("lookup-1", "its recorded call failed"), ("greet-1", "it was not asked")],
)
def test_a_case_without_an_answer_is_said_to_have_none(server, case_id, why):
    status, reply = send(server, asked(CASES[case_id], "partial-1"))
    assert status == 404
    assert reply["error"]["code"] == "answer_not_recorded"
    assert reply["error"]["message"] == (
        f"model 'partial-1' has no recorded answer to case '{case_id}' of suite 'tiny': "
        f"{why}"
    )
    assert server.requests == [("partial-1", case_id)]


@pytest.mark.parametrize("chat", [openai, nvidia])
def test_a_client_sees_the_nearest_case_in_its_error(server, chat):
    with pytest.raises(Exception, match="greet-1"):
        chat(server).invoke("Hi, I am Ada")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON: Expecting value at character 1"),
        (b'{"model": ', "the body is not JSON: Expecting value at character 11"),
        (b'{"model": "\xff"}', "the body is not UTF-8 at byte 12"),
        (b"[" * 200_000, "the body has a number or a nesting beyond what can be read"),
        (b"1" * 5_000, "the body has a number or a nesting beyond what can be read"),
        ([1], "the body must be a JSON object"),
        ({}, "`model` must be the name of a recorded model"),
        ({"model": ["big-1"]}, "`model` must be the name of a recorded model"),
        ({"model": "big-1"}, "`messages` must be a list of at least one message"),
        (
            {"model": "big-1", "messages": []},
            "`messages` must be a list of at least one message",
        ),
        ({"model": "big-1", "messages": "Hi"}, "`messages` must be a list of objects"),
        ({"model": "big-1", "messages": ["Hi"]}, "`messages` must be a list of objects"),
        (
            {"model": "big-1", "messages": [{"tool_calls": "x"}]},
            "`messages[0].tool_calls` must be a list of objects",
        ),
        (
            {"model": "big-1", "messages": [{}], "tools": ["now"]},
            "`tools` must be a list of objects",
        ),
        (
            {"model": "big-1", "messages": [{}], "stream": "yes"},
            "`stream` must be a boolean",
        ),
        (
            {"model": "big-1", "messages": [{}], "n": 2},
            "`n` must be 1: one answer is recorded",
        ),
    ],
)
def test_a_malformed_request_is_refused(server, body, message):
    status, reply = send(server, body)
    assert (status, reply["error"]["message"]) == (400, message)
    assert reply["error"]["code"] == "bad_request"
    assert server.requests == []


@pytest.mark.parametrize(
    "body",
    [
        {"model": "big-1", "messages": [{}]},
        {"model": "big-1", "messages": [{"role": 7, "content": {"x": [None]}}]},
        {"model": "big-1", "messages": [{"tool_calls": [{}], "tool_call_id": [1]}]},
        {"model": "big-1", "messages": [{"tool_calls": [{"function": "f"}]}]},
        {"model": "big-1", "messages": [{"content": [None, 1, {"type": "text"}]}]},
        {"model": "big-1", "messages": [{}], "tools": [{}, {"function": {}}]},
        {"model": "big-1", "messages": [{}], "tools": [{"function": {"parameters": 7}}]},
        {"model": "big-1", "messages": [user("\ud800\u2028😀")]},
        {"model": "\ud800", "messages": [{}]},
    ],
)
def test_an_odd_question_is_only_unknown(server, body):
    status, reply = send(server, body)
    assert (status, reply["error"]["type"]) == (404, "invalid_request_error")


def test_a_deep_question_is_answered_with_an_error(server):
    deep = f'{{"model": "big-1", "messages": [{{"content": {"[" * 900}{"]" * 900}}}]}}'
    assert send(server, deep.encode())[0] in (400, 404)


def test_a_wrong_path_gets_the_right_ones(server):
    status, reply = send(server, {}, path="/v1/completions")
    assert (status, reply["error"]["message"]) == (
        404,
        "no such path; there are /v1/chat/completions, /v1/models, /v1/replay/requests",
    )


def test_a_query_does_not_change_the_path(server):
    path = "/v1/chat/completions?api-version=1"
    assert send(server, asked(CASES["greet-1"]), path=path)[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_a_wrong_method_gets_the_right_one(server, method):
    connection = connect(server)
    connection.request(method, "/v1/chat/completions")
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("Allow")) == (405, "POST")
    assert json.loads(reply.read())["error"]["type"] == "invalid_request_error"
    connection.close()


def test_a_head_request_gets_no_body(server):
    connection = connect(server)
    connection.request("HEAD", "/v1/models")
    refused = connection.getresponse()
    assert (refused.status, refused.read()) == (405, b"")
    connection.request("GET", "/v1/models")
    listed = connection.getresponse()
    assert (listed.status, len(json.loads(listed.read())["data"])) == (200, 3)
    connection.close()


def raw(server: ReplayServer, data: bytes) -> bytes:
    """Send bytes; return all that comes back until the server closes."""
    host, port = server.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /v1/models HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
    ],
)
def test_broken_http_gets_a_json_error(server, capfd, data, status):
    head, _, body = raw(server, data).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert b"Connection: close" in head
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("length", [33_554_433, 10**30])
def test_a_body_that_will_be_too_long_is_refused_before_it_is_sent(server, length):
    connection = connect(server)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.loads(reply.read())["error"] == {
        "message": "the body is over 33554432 bytes",
        "type": "invalid_request_error",
        "code": "body_too_large",
        "param": None,
    }
    connection.close()


def test_a_client_that_sends_too_long_a_body_reads_the_refusal(server):
    status, reply = send(server, b" " * 33_554_433)
    assert (status, reply["error"]["code"]) == (413, "body_too_large")


def test_a_connection_serves_on_after_an_error(server):
    connection = connect(server)
    seen = []
    for body in (b"{", json.dumps(asked(CASES["greet-1"])), b"[]"):
        connection.request("POST", "/v1/chat/completions", body)
        reply = connection.getresponse()
        reply.read()
        seen.append((reply.status, connection.sock))
    connection.close()
    assert [status for status, _ in seen] == [400, 200, 400]
    assert len({id(sock) for _, sock in seen}) == 1


def test_the_key_is_neither_asked_for_nor_repeated(server, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    canary = {"Authorization": "Bearer sk-canary-4711", "X-Api-Key": "sk-canary-4711"}
    for body in (asked(CASES["greet-1"]), asked(CASES["greet-1"], "huge-1"), b"{"):
        assert "canary" not in json.dumps(send(server, body, headers=canary))
    assert send(server, asked(CASES["greet-1"]))[0] == 200
    raw(server, b"nonsense sk-canary-4711\r\n\r\n")
    assert "canary" not in caplog.text + "".join(capfd.readouterr())
