"""The HTTP side of a replay: routes, connections, start and stop.

Refuses every address but loopback: it asks for no key and serves all that it has read.
Ignores the key that a client sends. Writes nothing to stderr.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, SHUT_RD, SHUT_RDWR, socket
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from langchain_slm.errors import SLMError
from langchain_slm.recording.interchange import Suite
from langchain_slm.replay.questions import QuestionError
from langchain_slm.replay.recordings import Library, Recording, RefusedError
from langchain_slm.schema import JsonObject

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 1024 * 1024  # several times the longest context of any model
_DRAINED_BYTES = 8 * MAX_BODY_BYTES  # of a body that is refused for its length
_DRAIN_S = 2.0  # without a byte: the client waits for the answer, or is gone
_GRACE_S = 1.0  # for replies that are under way when the server stops
_POLL_S = 0.05  # how soon a stop is noticed

_UNREADABLE = "the body has a number or a nesting beyond what can be read"

_ROUTES = {
    "/v1/chat/completions": "POST",
    "/v1/models": "GET",
    "/v1/replay/requests": "GET",
}


class ReplayServer:
    """Serves recorded suites over HTTP, on loopback.

    As a context manager it serves in a thread of its own.

    Attributes:
        requests: Model and case id of every question so far, in order of arrival; the
            case is None where no recorded case matches. Clear it to count anew.

    Args:
        suites: What to serve. A model of several suites answers the cases of all.
        host: A loopback address, or "localhost".
        port: 0 takes any free one.

    Raises:
        ValueError: If there are no suites, or `host` is not loopback.
        SuiteError: If a case is not in the form of the OpenAI API.
        SLMError: If the port cannot be had.

    Example:
        >>> with ReplayServer([suite]) as server:  # doctest: +SKIP
        ...     model = ChatOpenAI(model="slm-8b", base_url=server.url, api_key="any")
    """

    def __init__(
        self, suites: Sequence[Suite], *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        address = _loopback(host)
        self.requests: list[tuple[str, str | None]] = []
        self._thread: threading.Thread | None = None
        self._started = False
        library = Library(suites)
        try:
            self._http = _Connections(address, port, Endpoint(library, self.requests))
        except (OSError, OverflowError) as error:
            msg = f"cannot listen on {host}:{port}: {error}; pass 0 for any free port"
            raise SLMError(msg, host=host, port=port) from error

    @property
    def url(self) -> str:
        """The `base_url` for clients, `/v1` included."""
        host, port = self._http.server_address[:2]
        name = f"[{host!s}]" if self._http.address_family == AF_INET6 else host
        return f"http://{name!s}:{port}/v1"

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted, or until `close` in another one."""
        self._started = True
        self._http.serve_forever(poll_interval=_POLL_S)

    def close(self) -> None:
        """Stop: let replies under way finish, then close every connection."""
        if self._started:
            self._http.shutdown()
        self._http.server_close()
        self._http.hang_up()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self._started = True
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _loopback(host: str) -> str:
    """Return `host` as a loopback address, without asking a resolver."""
    address = "127.0.0.1" if host == "localhost" else host
    with suppress(ValueError):
        if ipaddress.ip_address(address).is_loopback:
            return address
    msg = (
        f"host {host!r} is not loopback: a replay asks for no key and would serve the "
        "recordings to the whole network; listen on 127.0.0.1"
    )
    raise ValueError(msg)


class Endpoint:
    """Answers requests, whatever carries them."""

    def __init__(self, library: Library, seen: list[tuple[str, str | None]]) -> None:
        self._library = library
        self._seen = seen

    def answer(self, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        """Return content type and body of the answer.

        Raises:
            RefusedError: If there is none.
        """
        route = path.partition("?")[0]
        allowed = _ROUTES.get(route)
        if allowed is None:
            message = f"no such path; there are {', '.join(_ROUTES)}"
            raise RefusedError(HTTPStatus.NOT_FOUND, message, code="unknown_path")
        if method != allowed:
            message = f"{method} is not allowed here, {allowed} is"
            status = HTTPStatus.METHOD_NOT_ALLOWED
            raise RefusedError(status, message, code="method_not_allowed")
        if route == "/v1/models":
            return _json(self._models())
        if route == "/v1/replay/requests":
            return _json(self._counts())
        return self._chat(_parsed(body))

    def _chat(self, asked: JsonObject) -> tuple[str, bytes]:
        model = _checked(asked)
        try:
            recording = self._library.find(model, asked["messages"], asked.get("tools"))
        except QuestionError as error:
            raise _bad_request(str(error), param=error.param) from None
        except RecursionError:
            raise _bad_request(_UNREADABLE) from None
        except RefusedError as refused:
            self._seen.append((model, refused.case_id))
            raise
        self._seen.append(recording.seen)
        return _body(recording, asked)

    def _models(self) -> JsonObject:
        owner = {"object": "model", "created": 0, "owned_by": "replay"}
        data = [{"id": name, **owner} for name in self._library.models]
        return {"object": "list", "data": data}

    def _counts(self) -> JsonObject:
        seen = list(self._seen)  # a copy: other threads append
        return {
            "requests": len(seen),
            "by_model": dict(Counter(model for model, _ in seen)),
            "unknown": sum(case_id is None for _, case_id in seen),
        }


def _json(value: JsonObject) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _body(recording: Recording, asked: JsonObject) -> tuple[str, bytes]:
    if not asked.get("stream"):
        return "application/json", recording.completion
    options = asked.get("stream_options") or {}
    with_usage = isinstance(options, dict) and options.get("include_usage")
    events = recording.events_with_usage if with_usage else recording.events
    return "text/event-stream", events


def _parsed(body: bytes) -> JsonObject:
    try:
        asked = json.loads(body)
    except json.JSONDecodeError as error:
        message = f"the body is not JSON: {error.msg} at character {error.pos + 1}"
        raise _bad_request(message) from None
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 at byte {error.start + 1}"
        raise _bad_request(message) from None
    except (ValueError, RecursionError):
        raise _bad_request(_UNREADABLE) from None
    if not isinstance(asked, dict):
        message = "the body must be a JSON object"
        raise _bad_request(message)
    return asked


def _checked(asked: JsonObject) -> str:
    """Return the model asked for, once the request is one that can be answered."""
    model = asked.get("model")
    if not isinstance(model, str):
        message = "`model` must be the name of a recorded model"
        raise _bad_request(message, param="model")
    if not asked.get("messages"):
        message = "`messages` must be a list of at least one message"
        raise _bad_request(message, param="messages")
    if asked.get("stream") not in (None, False, True):
        message = "`stream` must be a boolean"
        raise _bad_request(message, param="stream")
    if asked.get("n") not in (None, 1):
        message = "`n` must be 1: one answer is recorded"
        raise _bad_request(message, param="n")
    return model


def _bad_request(message: str, *, param: str | None = None) -> RefusedError:
    status = HTTPStatus.BAD_REQUEST
    return RefusedError(status, message, code="bad_request", param=param)


def _log_fault(error: BaseException) -> None:
    """Name a fault of this module; its message or traceback may quote a request."""
    logger.error("%s in the replay server", type(error).__name__)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, writes replies, until either side closes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Connections

    def handle_one_request(self) -> None:
        self._unread = 0
        super().handle_one_request()
        if self._unread:
            self._drain()
        if self.server.stopping:
            self.close_connection = True

    def _serve(self) -> None:
        try:
            body = self._read_body()
            kind, reply = self.server.endpoint.answer(self.command, self.path, body)
        except RefusedError as refused:
            self._write(refused.status, *_json(refused.body))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault here is not a dead endpoint
            _log_fault(error)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            self._write(HTTPStatus.OK, kind, reply)

    do_GET = do_HEAD = do_POST = _serve  # noqa: N815 - names of the base class
    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815 - as above

    def send_error(
        self,
        code: int,
        message: str | None = None,  # noqa: ARG002 - may quote the request
        explain: str | None = None,  # noqa: ARG002 - as above
    ) -> None:
        """Refuse a request in OpenAI's form, where the base class would send HTML."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:  # a method of no `do_...`
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        refused = RefusedError(status, status.phrase, code="bad_request")
        self._write(status, *_json(refused.body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: the base class writes to stderr."""

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            message = "send the body with its Content-Length"
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, message, code="no_length")
        declared = self.headers.get("Content-Length", "0")
        if not declared.isdecimal():
            self.close_connection = True
            message = "Content-Length is not a number"
            raise _bad_request(message)
        # Twenty digits are too many bytes, and int() refuses thousands of them.
        size = int(declared[:20])
        if size > MAX_BODY_BYTES:
            self.close_connection = True
            self._unread = size
            message = f"the body is over {MAX_BODY_BYTES} bytes"
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise RefusedError(status, message, code="body_too_large")
        body = self.rfile.read(size)
        if len(body) < size:
            msg = "the client left in the middle of its request"
            raise ConnectionAbortedError(msg)
        return body

    def _write(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            head.append(f"Allow: {_ROUTES.get(self.path.partition('?')[0], 'GET, POST')}")
        if self.close_connection:
            head.append("Connection: close")
        # One write is one packet: a second would wait for the first to be acknowledged.
        sent = b"" if self.command == "HEAD" else body
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + sent)

    def _drain(self) -> None:
        """Read a refused body on, or the client would meet a reset before the refusal."""
        self.connection.settimeout(_DRAIN_S)
        left = min(self._unread, _DRAINED_BYTES)
        with suppress(TimeoutError):
            while left > 0 and (chunk := self.rfile.read1(min(left, 1 << 16))):
                left -= len(chunk)


class _Connections(ThreadingHTTPServer):
    """The listening socket, and the connections that are open."""

    request_queue_size = 128  # of clients that connect at the same time; 5 by default

    def __init__(self, host: str, port: int, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.stopping = False
        self._open: set[socket] = set()
        self._changed = threading.Condition()
        if ":" in host:
            self.address_family = AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind as TCPServer does: HTTPServer also asks a resolver for the host's name."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - of the base
        """Stay silent about clients that left; the base class prints a traceback."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            _log_fault(error)

    def hang_up(self) -> None:
        """End every connection, and wait until each is closed."""
        self.stopping = True
        with self._changed:
            for how in (SHUT_RD, SHUT_RDWR):
                for connection in self._open:
                    with suppress(OSError):
                        connection.shutdown(how)
                if self._changed.wait_for(lambda: not self._open, timeout=_GRACE_S):
                    return
