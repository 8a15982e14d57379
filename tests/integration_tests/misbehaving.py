"""A chat-completions endpoint on loopback that keeps connections and misbehaves."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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


class Raw(NamedTuple):
    """What is sent byte for byte; a step that is no bytes does it itself.

    The connection is closed afterwards, unless it is one that `keeps`.
    """

    steps: "Sequence[bytes | Callable[[Connection], None]]"
    keeps: bool = False


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
    """Answers each request with what `reply` says of its number and body.

    `asked`, `keys`, `heads`, `paths` and `times_s` hold one entry for each request.
    """

    def __init__(self, reply: Callable[[int, Body], Reply | Raw]) -> None:
        self.reply = reply
        self.asked: list[Body] = []
        self.keys: list[str | None] = []
        self.heads: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times_s: list[float] = []
        self.connections = 0
        self.in_flight: list[Body] = []  # being answered, or waited upon in silence
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._http = _Server(("127.0.0.1", 0), self._handler())
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
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _connected(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)

    def _disconnected(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def _taken(self, request: "Connection") -> int:
        with self._lock:
            self.asked.append(request.asked)
            self.keys.append(request.headers["Authorization"])
            self.heads.append(dict(request.headers))
            self.paths.append(request.path)
            self.times_s.append(time.monotonic())
            self.in_flight.append(request.asked)
            self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
            return len(self.asked)

    def _done(self, request: "Connection") -> None:
        with self._lock:
            self.in_flight.remove(request.asked)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (Connection,), {"endpoint": self})


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # one may wait for a client that was killed
    request_queue_size = 128


class Connection(BaseHTTPRequestHandler):
    """One client's connection, and what can be done to it."""

    endpoint: Misbehaving
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.endpoint._connected(self.connection)

    def handle(self) -> None:
        with suppress(OSError):  # the client went away, or was thrown out
            super().handle()

    def finish(self) -> None:
        self.endpoint._disconnected(self.connection)
        with suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.asked: Body = json.loads(self.rfile.read(length) or "{}")
        number = self.endpoint._taken(self)
        try:
            reply = self.endpoint.reply(number, self.asked)
            if isinstance(reply, Raw):
                self._send_raw(reply)
            else:
                self._send(reply)
        finally:
            self.endpoint._done(self)

    do_GET = do_POST  # noqa: N815 - the base's; some redirects make it of a POST

    def wait_until_left(self) -> None:
        """Say nothing until the client closes its end."""
        while self.connection.recv(1024):
            pass

    def reset(self) -> None:
        """Throw the client out: what it has not read yet is lost to it."""
        at_once = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.close_connection = True
        self.connection.close()

    def _send_raw(self, raw: Raw) -> None:
        self.close_connection = not raw.keeps
        for step in raw.steps:
            if isinstance(step, bytes):
                self.wfile.write(step)
            else:
                step(self)

    def _send(self, reply: Reply) -> None:
        if reply.body is None:
            self.reset()
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
