"""A chat-completions endpoint on loopback that keeps connections and misbehaves."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

Body = dict[str, Any]


class Reply(NamedTuple):
    """What is sent; a `body` of None resets the connection, `cut` ends it midway."""

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = {}
    cut: bool = False


def completion(text: str = "yes", **changed: object) -> Reply:
    message = {"role": "assistant", "content": text}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "slm",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
    }
    return Reply({**body, **changed})


def refusal(status: int, code: str | None = None, **headers: str) -> Reply:
    """An error that quotes the key, as OpenAI's does."""
    error = {"message": "refused: sk-canary", "type": "error", "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": error}, status, named)


class Misbehaving:
    """Answers each request with what `reply` says of its number and body."""

    def __init__(self, reply: Callable[[int, Body], Reply]) -> None:
        self.reply = reply
        self.asked: list[Body] = []
        self.keys: list[str] = []
        self.connections = 0
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True  # one may wait for a client that was killed
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _taken(self, body: Body, key: str) -> int:
        with self._lock:
            self.asked.append(body)
            self.keys.append(key)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            return len(self.asked)

    def _done(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"endpoint": self})


class _Handler(BaseHTTPRequestHandler):
    endpoint: Misbehaving
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.endpoint.connections += 1

    def handle(self) -> None:
        with suppress(OSError):  # the client went away, or was thrown out
            super().handle()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = self.endpoint._taken(body, self.headers["Authorization"])
        try:
            self._send(self.endpoint.reply(number, body))
        finally:
            self.endpoint._done()

    def _send(self, reply: Reply) -> None:
        if reply.body is None:
            at_once = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            self.close_connection = True
            self.connection.close()
            return
        is_text = isinstance(reply.body, str)
        raw = str(reply.body) if is_text else json.dumps(reply.body)
        self.send_response(reply.status)
        kind = "text/html" if is_text else "application/json"
        for name, value in {"Content-Type": kind, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw) + reply.cut))
        self.end_headers()
        self.wfile.write(raw.encode())
        self.close_connection = self.close_connection or reply.cut

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's
        pass


def one_after_the_other(*replies: Reply) -> Callable[[int, Body], Reply]:
    """Return what says each of `replies` once, and the last for ever."""
    return lambda number, _: replies[min(number, len(replies)) - 1]
