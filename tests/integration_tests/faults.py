"""What can go wrong at a chat-completions endpoint, by name; served byte for byte.

A request names its fault as its model. No faulty endpoint ever sends the whole of
`TEXT`, except where a client may well understand it: whatever else arrives is wrong.
"""

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, Self
from urllib.parse import quote

from integration_tests.misbehaving import Connection, Misbehaving, Raw

Step = bytes | Callable[[Connection], None]

KEY = "sk-canary-0123456789"
HEALTHY = "healthy"
TEXT = "The parcel left Rome on Monday."
BEGUN = "The parcel left "
PARAMETERS = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "find_parcel",
        "description": "Find a parcel.",
        "parameters": {"type": "object", **PARAMETERS},
    },
}
DEEP = "[" * 200_000 + "]" * 200_000  # deeper than a parser's recursion limit
MANY = b"x" * 4_000_000
PAGE = b"<html><body><h1>It works!</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is sent to a whole and to a streamed request, and what is right of it.

    Attributes:
        whole: Sent where the answer is asked for in one piece.
        stream: Sent where it is asked for as a stream.
        tools: The request brings `TOOL`.
        text: The one text that a client may read from it.
        finish: The finish reason that such an answer states.
        calls: The (name, arguments) of the tool calls that it may hold.
    """

    whole: Raw
    stream: Raw
    tools: bool = False
    text: str = TEXT
    finish: str | None = "stop"
    calls: tuple[tuple[str, object], ...] = ()


# --- HTTP ---------------------------------------------------------------------------

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"
CHUNKED, GZIP = "Transfer-Encoding: chunked", "Content-Encoding: gzip"
NO_MORE = b"0\r\n\r\n"


def head(*lines: str, kind: str = JSON, status: str = "200 OK") -> bytes:
    all_lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *lines, "", ""]
    return "\r\n".join(all_lines).encode()


def sized(body: bytes, *lines: str, kind: str = JSON, status: str = "200 OK") -> Raw:
    top = head(f"Content-Length: {len(body)}", *lines, kind=kind, status=status)
    return Raw([top + body], keeps=True)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer(body: object) -> Raw:
    return sized(json.dumps(body).encode())


def event(data: object) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\n\n".encode()


def begin_stream(*data: object) -> bytes:
    top = head(CHUNKED, kind=EVENTS)
    return top + b"".join(chunk(event(one)) for one in data)


def events(*data: object, more: tuple[Step, ...] = (NO_MORE,)) -> Raw:
    """A stream of events: complete, unless `more` says how it goes on."""
    return Raw([begin_stream(*data), *more], keeps=more == (NO_MORE,))


def both(raw: Raw) -> Fault:
    return Fault(raw, raw)


# --- Steps --------------------------------------------------------------------------

silence = Connection.wait_until_left
reset = Connection.reset


def drip(data: bytes, pause_s: float = 0.05) -> Step:
    def send(connection: Connection) -> None:
        for byte in data:
            connection.wfile.write(bytes([byte]))
            time.sleep(pause_s)

    return send


def endless(piece: bytes, pause_s: float = 0.002) -> Step:
    def send(connection: Connection) -> None:
        while True:
            connection.wfile.write(piece)
            time.sleep(pause_s)

    return send


def retry_after_date(seconds: int) -> Step:
    def send(connection: Connection) -> None:
        when = formatdate(time.time() + seconds, usegmt=True)
        connection.wfile.write(f"Retry-After: {when}\r\n\r\n".encode())

    return send


def redirect(status: str, *, to_self: bool = False) -> Fault:
    """The path says what was asked, as some redirects leave the body behind."""

    def send(connection: Connection) -> None:
        host = connection.headers["Host"] if to_self else elsewhere_of(connection)
        where = f"Location: http://{host}/{quote(question_of(connection.asked))}"
        connection.wfile.write(head(where, "Content-Length: 0", status=status))

    return both(Raw([send], keeps=True))


def question_of(asked: Mapping[str, Any]) -> str:
    return str(asked["messages"][-1]["content"]) if asked else ""


def elsewhere_of(connection: Connection) -> str:
    endpoint = connection.endpoint
    assert isinstance(endpoint, FaultyEndpoint)
    return endpoint.elsewhere.url.split("/")[2]


# --- Chat completions ---------------------------------------------------------------

GOOD_CALL = ("find_parcel", {"city": "Rome"})
USAGE = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}


def call(name: object = "find_parcel", arguments: object = '{"city": "Rome"}', at=0):
    function = {"name": name, "arguments": arguments}
    return {"index": at, "id": f"call_{at}", "type": "function", "function": function}


def message(content: object = TEXT, **fields: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def completion(said: object, finish: str | None = "stop", **changed: object):
    choice = {"index": 0, "message": said, "finish_reason": finish}
    top = {"id": "c1", "object": "chat.completion", "created": 1, "model": "served"}
    return {**top, "choices": [choice], "usage": USAGE, **changed}


def delta(said: object, finish: str | None = None, **changed: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": said, "finish_reason": finish}
    top = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    return {**top, "choices": [choice], "usage": None, **changed}


def words(text: str) -> list[dict[str, Any]]:
    """The deltas of a text, the role before it."""
    pieces = text.split(" ")
    pieces = [*(f"{word} " for word in pieces[:-1]), pieces[-1]]
    return [delta({"role": "assistant", "content": ""})] + [
        delta({"content": piece}) for piece in pieces if piece
    ]


def ended(finish: str | None = "stop", usage: object = USAGE) -> tuple[object, ...]:
    """The last deltas of a stream that ends as it should."""
    return delta({}, finish), delta({}, choices=[], usage=usage), "[DONE]"


OPENED = words(BEGUN)
RIGHT = completion(message())
RIGHT_JSON = json.dumps(RIGHT).encode()
RIGHT_EVENTS = [*words(TEXT), *ended()]
RIGHT_STREAM = b"".join(map(event, RIGHT_EVENTS))
ERROR = {"error": {"message": f"refused: {KEY}", "type": "server_error", "code": None}}
NIM_ERROR = {"error": {**ERROR["error"], "object": "error"}}


def body(whole: object, *streamed: object) -> Fault:
    """A body with status 200; streamed, the same one or `streamed` as events."""
    return Fault(answer(whole), events(*(streamed or (whole, "[DONE]"))))


def changed(**fields: object) -> Fault:
    return body({**RIGHT, **fields}, {**delta({}), **fields}, "[DONE]")


def cut(*more: Step) -> Fault:
    """Both break off after the answer has begun; `more` says how."""
    begun = RIGHT_JSON[: RIGHT_JSON.index(b" Monday")]
    whole = Raw([head(CHUNKED), chunk(begun), *more])
    return Fault(whole, events(*OPENED, more=more))


def said(content: object, finish: str | None = "stop", usage: object = USAGE) -> Fault:
    whole = completion(message(content), finish, usage=usage)
    is_text = isinstance(content, str)
    deltas = words(content) if is_text else [delta(message(content))]
    fault = body(whole, *deltas, *ended(finish, usage))
    return replace(fault, text=content if is_text else "", finish=finish)


def called(*calls: dict[str, Any], legible: tuple[tuple[str, object], ...] = ()) -> Fault:
    """Tool calls, of which a client may make no more than the `legible` ones."""
    whole = completion(message(None, tool_calls=calls), "tool_calls")
    deltas = [delta(message(None, tool_calls=[one])) for one in calls]
    fault = body(whole, *deltas, *ended("tool_calls"))
    return replace(fault, tools=True, text="", finish="tool_calls", calls=legible)


def refused(status: str, *lines: str, kind: str = JSON, text: bytes = b"") -> Fault:
    """An error that quotes the key, as OpenAI's does."""
    return both(
        sized(text or json.dumps(ERROR).encode(), *lines, kind=kind, status=status)
    )


def busy(*lines: str, more: tuple[Step, ...] = (b"\r\n",)) -> Fault:
    top = head("Content-Length: 2", *lines, status="429 Too Many Requests")[:-2]
    return both(Raw([top, *more, b"{}"], keeps=True))


def headed(*lines: str, status: str = "200 OK", charset: str = "") -> Fault:
    """The right answer under headers that do not fit it."""
    return Fault(
        Raw([head(*lines, kind=JSON + charset, status=status), RIGHT_JSON]),
        Raw([head(*lines, kind=EVENTS + charset, status=status), RIGHT_STREAM]),
    )


def before(*steps: Step) -> Fault:
    """The same to both, before anything of an answer."""
    return both(Raw(steps))


FAULTS: Mapping[str, Fault] = {
    # Bodies that are no completion, with status 200.
    "html_200": both(sized(PAGE, kind=HTML)),
    "empty_body": both(sized(b"")),
    "null_body": body(None),
    "list_body": body([RIGHT], [delta({})]),
    "text_body": body("busy", '"busy"'),
    "empty_object": body({}),
    "no_choices": changed(choices=[]),
    "null_choices": changed(choices=None),
    "choices_of_null": changed(choices=[None]),
    "choices_as_object": changed(choices={"0": "yes"}),
    "null_message": replace(body(completion(None), delta(None), *ended()), text=""),
    "error_in_200": body(ERROR),
    "nim_error_in_200": body(NIM_ERROR),
    "wrong_role": body(completion(message(role="user")), delta(message(role="user"))),
    "cut_json": Fault(sized(RIGHT_JSON[:-150]), events(json.dumps(OPENED[1])[:-40])),
    "not_json": Fault(sized(b"{busy}"), events("{busy}", "[DONE]")),
    "not_json_later": Fault(sized(RIGHT_JSON + b"}"), events(*OPENED, "{busy}")),
    "deeply_nested": Fault(sized(DEEP.encode()), events(DEEP, "[DONE]")),
    "deeply_nested_later": Fault(sized(DEEP.encode()), events(*OPENED, DEEP)),
    "invalid_utf8": Fault(
        sized(RIGHT_JSON.replace(b"Rome", b"R\xf6me")),
        Raw([head(kind=EVENTS), RIGHT_STREAM.replace(b"Rome", b"R\xf6me")]),
    ),
    "huge_body": Fault(
        sized(RIGHT_JSON + b" " * len(MANY)),
        events(*RIGHT_EVENTS[:-1], delta({}, padding=MANY.decode()), "[DONE]"),
    ),
    "huge_garbage": both(sized(MANY, kind="text/plain")),
    "whole_for_stream": Fault(sized(RIGHT_STREAM, kind=EVENTS), sized(RIGHT_JSON)),
    "wrong_content_type": Fault(
        sized(RIGHT_JSON, kind="text/plain"), sized(RIGHT_STREAM, kind=JSON)
    ),
    # Answers that are no good, or say so.
    "empty_text": said(""),
    "blank_text": said(" \n"),
    "null_text": said(None),
    "number_as_text": said(42),
    "object_as_text": said({"answer": TEXT}),
    "finish_length": said(BEGUN, "length"),
    "finish_content_filter": said(BEGUN, "content_filter"),
    "no_finish": said(BEGUN, None),
    "usage_nan": said(TEXT, usage=USAGE | {"completion_tokens": float("nan")}),
    "usage_negative": said(TEXT, usage=USAGE | {"completion_tokens": -6}),
    "usage_of_strings": said(TEXT, usage=dict.fromkeys(USAGE, "many")),
    "usage_of_null": said(TEXT, usage=dict.fromkeys(USAGE)),
    "usage_huge": said(TEXT, usage=dict.fromkeys(USAGE, 10**12)),
    "usage_as_list": said(TEXT, usage=[10, 6, 16]),
    # Tool calls.
    "tool_json_malformed": called(call(arguments='{"city": "Ro')),
    "tool_json_no_object": called(call(arguments='["Rome"]')),
    "tool_json_deep": called(call(arguments=DEEP)),
    "tool_json_null": called(call(arguments=None), legible=(("find_parcel", {}),)),
    "tool_outside_schema": called(
        call(arguments='{"city": 7}'), legible=(("find_parcel", {"city": 7}),)
    ),
    "tool_unknown": called(call("lose"), legible=(("lose", {"city": "Rome"}),)),
    "tool_name_null": called(call(None), legible=(("", {"city": "Rome"}),)),
    "tool_ids_duplicate": called(
        call(), call(at=1) | {"id": "call_0"}, legible=(GOOD_CALL, GOOD_CALL)
    ),
    "tool_without_function": called({"index": 0, "id": "call_0", "type": "function"}),
    # Streams that break.
    "truncated": cut(NO_MORE),
    "truncated_but_done": Fault(
        answer(completion(message(BEGUN), None)), events(*OPENED, "[DONE]")
    ),
    "reset_in_chunk": cut(b"400\r\ndata: {", reset),
    "closed_in_chunk": cut(b"400\r\ndata: {"),
    "closed_in_body": cut(),
    "bad_chunk_size": cut(b"zz\r\n"),
    "error_event": Fault(answer(ERROR), events(*OPENED, ERROR, "[DONE]")),
    "error_event_first": Fault(answer(ERROR), events(ERROR, "[DONE]")),
    "second_answer": Fault(
        sized(RIGHT_JSON + RIGHT_JSON), events(*RIGHT_EVENTS, *RIGHT_EVENTS)
    ),
    # Endpoints that never end.
    "silence": before(silence),
    "silence_after_headers": before(head(CHUNKED, kind=EVENTS), silence),
    "silence_in_answer": cut(silence),
    "drip_headers": before(drip(head("X-Padding: " + "x" * 4000))),
    "drip_body": Fault(
        Raw([head(f"Content-Length: {len(RIGHT_JSON)}"), drip(RIGHT_JSON)]),
        Raw([head(kind=EVENTS), drip(RIGHT_STREAM)]),
    ),
    "endless_headers": before(b"HTTP/1.1 200 OK\r\n", endless(b"X: y\r\n")),
    "endless_continue": before(endless(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "endless_body": Fault(
        Raw([head(CHUNKED), endless(chunk(b" " * 100))]),
        events(*OPENED, more=(endless(chunk(event(delta({"content": "far "})))),)),
    ),
    "endless_comments": Fault(
        Raw([head(CHUNKED), endless(chunk(b"\n"))]),
        events(more=(endless(chunk(b": still here\n\n")),)),
    ),
    "endless_nothing": Fault(
        Raw([head(CHUNKED), endless(chunk(b"\n"))]),
        events(more=(endless(chunk(event(delta(None)))),)),
    ),
    # Connections that break. (A refused one needs no endpoint: see `refusing`.)
    "closed_at_once": before(),
    "reset_at_once": before(reset),
    "closed_in_headers": before(b"HTTP/1.1 200 OK\r\nContent-Type: appl"),
    "reset_after_headers": before(head(CHUNKED, kind=EVENTS), reset),
    # HTTP that is none.
    "no_http": before(b"\x16\x03\x03 busy \x00\x01\r\n\r\n"),
    "no_headers": before(RIGHT_JSON),
    "bad_status_line": before(b"HTTP/1.1 fine OK\r\n\r\n"),
    "unknown_status": headed("Content-Length: 0", status="999 Strange"),
    "bad_header": headed("a line without a colon"),
    "huge_header": before(head("X-Padding: " + MANY.decode())),
    "length_too_short": headed("Content-Length: 20"),
    "length_too_long": headed("Content-Length: 99999"),
    "length_negative": headed("Content-Length: -5"),
    "length_no_number": headed("Content-Length: many"),
    "length_and_chunked": headed("Content-Length: 20", CHUNKED),
    "unknown_charset": headed(charset="; charset=martian"),
    "gzip_garbage": headed(GZIP),
    "gzip_cut": Fault(
        sized(gzip.compress(RIGHT_JSON)[:-99], GZIP),
        sized(gzip.compress(RIGHT_STREAM)[:-99], GZIP, kind=EVENTS),
    ),
    "unknown_encoding": headed("Content-Encoding: martian"),
    "early_hints": Fault(
        Raw([b"HTTP/1.1 103 Early Hints\r\n\r\n", *answer(RIGHT).steps]),
        Raw([b"HTTP/1.1 103 Early Hints\r\n\r\n", *events(*RIGHT_EVENTS).steps]),
    ),
    "switching_protocols": headed("Upgrade: h2c", status="101 Switching Protocols"),
    "202_accepted": refused("202 Accepted"),
    "204_no_content": before(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "205_reset_content": before(head(status="205 Reset Content")),
    "206_partial": Fault(
        sized(RIGHT_JSON[:-150], "Content-Range: bytes 0-99/9", status="206 Partial"),
        Raw([head(kind=EVENTS, status="206 Partial"), *map(event, OPENED)]),
    ),
    "304_not_modified": before(head(status="304 Not Modified")),
    # Refusals.
    "301_elsewhere": redirect("301 Moved Permanently"),
    "302_elsewhere": redirect("302 Found"),
    "307_elsewhere": redirect("307 Temporary Redirect"),
    "308_in_circles": redirect("308 Permanent Redirect", to_self=True),
    "307_nowhere": refused("307 Temporary Redirect"),
    "400": refused("400 Bad Request"),
    "401": refused("401 Unauthorized"),
    "402": refused("402 Payment Required"),
    "403": refused("403 Forbidden"),
    "404": refused("404 Not Found"),
    "404_html": refused("404 Not Found", kind=HTML, text=PAGE),
    "408": refused("408 Request Timeout"),
    "409": refused("409 Conflict"),
    "413": refused("413 Content Too Large"),
    "422": refused("422 Unprocessable Content"),
    "500": refused("500 Internal Server Error"),
    "500_huge": refused("500 Internal Server Error", kind=HTML, text=MANY),
    "500_not_json": refused("500 Internal Server Error", text=b"{busy"),
    "500_null": refused("500 Internal Server Error", text=b"null"),
    "502_html": refused("502 Bad Gateway", kind=HTML, text=PAGE),
    "503": refused("503 Service Unavailable", "Retry-After: 0.1"),
    "529": refused("529 Overloaded"),
    "429": busy(),
    "429_zero": busy("Retry-After: 0"),
    "429_soon": busy("Retry-After: 0.1"),
    "429_soon_ms": busy("Retry-After-Ms: 100"),
    "429_huge": busy("Retry-After: 86400"),
    "429_overflow": busy("Retry-After: 1" + "0" * 400),
    "429_date": busy(more=(retry_after_date(1),)),
    "429_date_past": busy(more=(retry_after_date(-3600),)),
    "429_date_far": busy(more=(retry_after_date(86400),)),
    "429_negative": busy("Retry-After: -5"),
    "429_nan": busy("Retry-After: nan"),
    "429_infinite": busy("Retry-After: inf"),
    "429_words": busy("Retry-After: later, please"),
}
# What a healthy endpoint says, without and with tools.
GOOD = said(TEXT)
GOOD_TOOLS = called(call(), legible=(GOOD_CALL,))


def reply(number: int, asked: Mapping[str, Any]) -> Raw:
    """Return what the model that was asked sends: its fault, or what is right."""
    good = GOOD_TOOLS if asked.get("tools") else GOOD
    fault = FAULTS.get(asked.get("model", HEALTHY), good)
    return fault.stream if asked.get("stream") else fault.whole


class FaultyEndpoint(Misbehaving):
    """An endpoint of all `FAULTS` beside a healthy one, and where it redirects to."""

    def __init__(self) -> None:
        super().__init__(reply)
        self.elsewhere = Misbehaving(lambda _, asked: reply(0, {**asked, "model": ""}))

    def __enter__(self) -> Self:
        self.elsewhere.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.elsewhere.__exit__(*error)

    def requests_of(self, question: str) -> int:
        """How many HTTP requests brought `question`, at both endpoints."""
        return len(self.times_of(question))

    def in_flight_of(self, question: str) -> int:
        """How many of them wait for more at this moment."""
        return sum(question_of(asked) == question for asked in [*self.in_flight])

    def times_of(self, question: str) -> list[float]:
        """When they came, in seconds of `time.monotonic`."""
        redirected = f"/{quote(question)}"
        return [
            time_s
            for each in (self, self.elsewhere)
            for asked, path, time_s in zip(
                each.asked, each.paths, each.times_s, strict=False
            )
            if question_of(asked) == question or path == redirected
        ]


@contextmanager
def refusing() -> Iterator[str]:
    """Yield the host and port of an endpoint that refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
