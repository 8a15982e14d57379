"""Connections to a replay: clients that leave, start and stop, addresses."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from integration_tests.replaying import (
    CASES,
    TINY,
    a_case,
    a_suite,
    asked,
    connect,
    get,
    openai,
    send,
    user,
)

from langchain_slm.errors import SLMError, SuiteError
from langchain_slm.replay import ReplayServer


@pytest.fixture(scope="module")
def running() -> Iterator[ReplayServer]:
    with ReplayServer([TINY]) as started:
        yield started


@pytest.fixture
def server(running: ReplayServer) -> ReplayServer:
    running.requests.clear()
    return running


def test_a_client_that_leaves_is_not_an_error(capfd, caplog):
    suite = a_suite({"long": "x" * 8_000_000}, a_case("long", user("Go on")))
    body = json.dumps({"model": "big-1", "messages": [user("Go on")], "stream": True})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with ReplayServer([suite]) as server:
        host, port = server.url.split("/")[2].split(":")
        for data in (head + body, head + body[:9], head[:9], ""):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(data.encode())
                if data == head + body:
                    connection.recv(1_000)
        assert get(server, "/v1/models")["data"][0]["id"] == "big-1"
    assert capfd.readouterr().err == ""
    assert caplog.records == []


def test_a_fault_of_the_server_is_an_error_to_the_client(capfd, caplog):
    with ReplayServer([TINY]) as server:
        server._http.endpoint._library = None
        status, reply = send(server, asked(CASES["greet-1"]))
    assert (status, reply["error"]["message"]) == (500, "Internal Server Error")
    assert [record.getMessage() for record in caplog.records] == [
        "AttributeError in the replay server"
    ]
    assert "Traceback" not in capfd.readouterr().err


def test_a_stop_closes_idle_connections_and_ends_all_threads():
    before = set(threading.enumerate())
    with ReplayServer([TINY]) as server:
        connections = [connect(server) for _ in range(3)]
        for connection in connections:
            connection.request("GET", "/v1/models")
            connection.getresponse().read()
    for connection in connections:
        assert connection.sock.recv(1) == b""
        connection.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_a_stop_does_not_wait_for_a_client_that_does_not_read():
    suite = a_suite({"long": "x" * 8_000_000}, a_case("long", user("Go on")))
    body = json.dumps({"model": "big-1", "messages": [user("Go on")]})
    server = ReplayServer([suite])
    with server:
        connection = connect(server)
        connection.request("POST", "/v1/chat/completions", body)
        connection.sock.recv(1)
    connection.close()
    assert server._http._open == set()


def test_a_server_that_never_served_can_be_closed_and_closed_again():
    server = ReplayServer([TINY])
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        connect(server).connect()


def test_it_serves_in_the_foreground_until_it_is_closed():
    server = ReplayServer([TINY])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert send(server, asked(CASES["greet-1"]))[0] == 200
    server.close()
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_it_listens_on_loopback(host):
    with ReplayServer([TINY], host=host) as server:
        assert send(server, asked(CASES["greet-1"]))[0] == 200
    assert server.url.startswith("http://127.0.0.")


def test_it_listens_on_ipv6_loopback():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = ReplayServer([TINY], host="::1")
    except SLMError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        assert server.url.startswith("http://[::1]:")
        message = openai(server).invoke(list(CASES["greet-1"].messages))
    assert message.content == "Hello Ada, how can we help you today?"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", ""])  # noqa: S104 - refused
def test_it_refuses_to_serve_a_network(host):
    with pytest.raises(ValueError, match="is not loopback: a replay asks for no key"):
        ReplayServer([TINY], host=host)


def test_a_port_that_is_taken_is_said_to_be(server):
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(SLMError, match=f"cannot listen on 127.0.0.1:{port}: .* pass 0"):
        ReplayServer([TINY], port=port)


def test_a_port_that_cannot_be_is_refused():
    with pytest.raises(SLMError, match=r"cannot listen on .*:70000: .* pass 0"):
        ReplayServer([TINY], port=70_000)


def test_nothing_to_serve_is_refused():
    with pytest.raises(ValueError, match="no suites"):
        ReplayServer([])


def test_a_case_that_no_client_could_ask_is_refused():
    case = a_case("odd", {"role": "assistant", "tool_calls": [7]})
    with pytest.raises(SuiteError) as caught:
        ReplayServer([a_suite({}, case)])
    assert str(caught.value) == (
        "suite own: case 'odd': `messages[0].tool_calls` must be a list of objects; "
        "correct the case"
    )
