"""A chat-completions endpoint in a process of its own, that counts and may misbehave.

    python -m integration_tests.loopback --faults 0.01

In a process of its own its CPU is not the caller's, and its count is nobody else's. It
prints its port, and ends with its standard input or after `AT_MOST_S`.
"""

import argparse
import asyncio
import json
import random
import re
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, Self

from integration_tests.misbehaving import Body, Reply, completion, refusal

AT_MOST_S = 1800
KINDS = ("500", "429", "reset", "cut", "truncated", "malformed", "empty")
JSON_ANSWER = json.dumps({"answer": "yes"})
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Counts(NamedTuple):
    """What an endpoint was asked: requests by model, and faults by kind."""

    requests: dict[str, int]
    faults: dict[str, int]


class Loopback:
    """Starts the endpoint; `text` is what it says, word by word where it streams.

    Of all requests the share `faults` goes wrong. An answer takes `delay_s`, and each
    further chunk of a stream `gap_s`. Who asks for JSON gets a JSON object.
    """

    def __init__(self, text: str = "yes", **settings: float) -> None:
        named = [f"--{name.replace('_', '-')}={n}" for name, n in settings.items()]
        module = Loopback.__module__
        self._command = [sys.executable, "-m", module, f"--text={text}", *named]

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        folder = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            self._command, cwd=folder, stdin=pipe, stdout=pipe
        )
        self._address = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"http://{self._address}/v1"
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def openai(self, model: str, **settings: Any) -> Any:
        from langchain_openai import ChatOpenAI  # noqa: PLC0415 - the server needs none

        settings = {"stream_usage": True, "max_retries": 0, **settings}
        return ChatOpenAI(model=model, base_url=self.url, api_key="any", **settings)

    def counts(self) -> Counts:
        connection = HTTPConnection(self._address, timeout=10)
        connection.request("GET", "/counts")
        counted = Counts(*json.load(connection.getresponse()))
        connection.close()
        return counted


class _Endpoint:
    """What all connections share."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._draw = random.Random(settings.seed)  # noqa: S311 - no secret is drawn

    def fault(self) -> str | None:
        if self._draw.random() >= self.settings.faults:
            return None
        kind = self._draw.choice(KINDS)
        self.faults[kind] += 1
        return kind


class _Connection(asyncio.Protocol):
    """Answers one request after the other, and keeps the connection."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(stated[1]) if (stated := _LENGTH.search(head)) else 0
        if not found or len(rest) < length:
            return
        self._buffer = b""
        if head.startswith(b"GET"):
            counted = (self._endpoint.requests, self._endpoint.faults)
            self._send(Reply(counted))
        else:
            self._asked(json.loads(rest))

    def _asked(self, body: Body) -> None:
        self._endpoint.requests[body["model"]] += 1
        answer = self._stream if body.get("stream") else self._whole
        delay_s = self._endpoint.settings.delay_s
        self._loop.call_later(delay_s, answer, body, self._endpoint.fault())

    def _whole(self, body: Body, fault: str | None) -> None:
        if fault == "reset":
            return self._reset()
        whole = completion(self._text(body), model=body["model"])
        return self._send(_replies(whole).get(fault, whole))

    def _send(self, reply: Reply) -> None:
        is_text = isinstance(reply.body, str)
        data = reply.body.encode() if is_text else json.dumps(reply.body).encode()
        fields = {
            "Content-Type": "application/json",
            "Content-Length": len(data) + reply.cut,
            **reply.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        status = f"HTTP/1.1 {reply.status} Said\r\n"
        self._transport.write(f"{status}{head}\r\n".encode() + data)
        if reply.cut:
            self._transport.close()

    def _stream(self, body: Body, fault: str | None) -> None:
        if fault in ("500", "429", "reset"):
            return self._whole(body, fault)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        self._transport.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        return self._feed(_events(body, self._text(body), fault), fault == "cut")

    def _feed(self, events: Iterator[str], cut: bool) -> None:  # noqa: FBT001 - of `call_later`
        data = next(events, "").encode()
        if cut and not data:
            self._transport.close()
        if self._transport.is_closing():
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        if data:
            gap_s = self._endpoint.settings.gap_s
            self._loop.call_later(gap_s, self._feed, events, cut)

    def _text(self, body: Body) -> str:
        is_json = bool(body.get("response_format"))
        return JSON_ANSWER if is_json else self._endpoint.settings.text

    def _reset(self) -> None:
        at_once = struct.pack("ii", 1, 0)
        connected = self._transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self._transport.abort()


def _replies(whole: Reply) -> dict[str | None, Reply]:
    """Return what is sent instead of `whole`, by fault."""
    [choice] = whole.body["choices"]
    return {
        "500": refusal(500),
        "429": refusal(429, Retry_After="1"),
        "cut": whole._replace(cut=True),
        "truncated": completion(choices=[{**choice, "finish_reason": None}]),
        "malformed": whole._replace(body=json.dumps(whole.body)[:-30]),
        "empty": completion(choices=[]),
    }


def _events(body: Body, text: str, fault: str | None) -> Iterator[str]:
    """Yield the events of a stream; a cut or truncated one ends in its midst."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1}
    head["model"] = body["model"]
    parts = [] if fault == "empty" else re.findall(r"\s?\S+", text)
    if fault in ("cut", "truncated"):
        parts = parts[: (len(parts) + 1) // 2]
    for part in parts:
        delta = {"role": "assistant", "content": part}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        event = json.dumps({**head, "choices": [choice]})
        if fault == "malformed":
            yield f"data: {event[:-9]}\n\n"
            return
        yield f"data: {event}\n\n"
    if fault is None:
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    if fault is None and (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n"
    if fault in (None, "empty"):
        yield "data: [DONE]\n\n"


async def _serve(settings: argparse.Namespace) -> None:
    endpoint, loop = _Endpoint(settings), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(endpoint), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - whoever started it waits for it
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)  # nothing is ever written there
    with suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), AT_MOST_S)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", default="yes")
    for name in ("faults", "delay-s", "gap-s", "seed"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
