"""The one endpoint of a try, on loopback: every model of every provider, and the web.

It logs each request with the model it names. Whatever is no model's endpoint is answered
as a search engine or a web page would, so that tools go on.
"""

import itertools
import json
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from integration_tests.chat_requests import Body
from integration_tests.misbehaving import Connection, Misbehaving, Reply
from real_apps.answering import answer
from real_apps.protocols import protocol_of
from typing_extensions import override

AWAY = "/away/"  # paths of requests that would have left the machine: /away/HOST/PATH
_CLOSE = {"Connection": "close"}  # no event loop must find the connections of another
_DIMENSIONS = 1536


class Requested(NamedTuple):
    """One request to a model.

    Attributes:
        model: The model that it names.
        protocol: In which it was asked.
        host: To which it was sent; empty for this endpoint itself.
        caller: Who sent it: "chat model" or "raw client"; empty where not known.
    """

    model: str
    protocol: str
    host: str
    caller: str = ""


class Endpoint(Misbehaving):
    """Answers models and the web.

    `given` are values of fields, by name; tools that are `avoided` are not called.
    """

    def __init__(self, given: Mapping[str, Any], avoided: Collection[str] = ()) -> None:
        super().__init__(lambda *_: Reply())
        self._given = given
        self._avoided = avoided
        self._numbers = itertools.count(1)
        self._logging = threading.Lock()
        self._requests: list[Requested] = []
        self.web: list[str] = []

    def taken(self) -> list[Requested]:
        """Return the requests since the last time."""
        with self._logging:
            taken, self._requests = self._requests, []
        return taken

    def _handler(self) -> type[Connection]:
        return type("Handler", (_Request,), {"endpoint": self})

    def answered(self, path: str, raw: bytes, caller: str) -> Reply:
        """Return the reply to a request."""
        path = (
            urlsplit(path)._replace(scheme="", netloc="").geturl()
        )  # we are a proxy, too
        host, _, rest = path.removeprefix(AWAY).partition("/")
        host, path = (host, f"/{rest}") if path.startswith(AWAY) else ("", path)
        body: Any = {}
        with suppress(ValueError):
            body = json.loads(raw or b"{}")
        protocol = protocol_of(path)
        if protocol is None or not isinstance(body, dict):
            return self._of_the_web(host, path, body)
        asked = protocol.asked(path, body)
        said = answer(asked, self._given, self._avoided)
        fresh = f"{next(self._numbers):06}"
        with self._logging:
            one = Requested(str(asked["model"]), protocol.name, host, caller)
            self._requests.append(one)
        if asked.get("stream"):
            events = "".join(protocol.events(asked, said, fresh))
            return Reply(events, headers={"Content-Type": "text/event-stream", **_CLOSE})
        return Reply(protocol.whole(asked, said, fresh), headers=_CLOSE)

    def _of_the_web(self, host: str, path: str, body: Any) -> Reply:
        plain = path.partition("?")[0]
        if plain.endswith("/embeddings") and isinstance(body, dict):
            return Reply(_embeddings(body), headers=_CLOSE)
        if plain.endswith("/models"):
            return Reply({"object": "list", "data": []}, headers=_CLOSE)
        self.web.append(f"{host}{plain}")
        return Reply(_found(host), headers=_CLOSE)


class _Request(Connection):
    @override
    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        caller = self.headers.get("X-Caller") or ""
        try:
            reply = self.endpoint.answered(self.path, raw, caller)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - the app must hear of it, whatever it is
            problem = {"message": f"endpoint: {type(error).__name__}: {error}"}
            reply = Reply({"error": problem}, 400, _CLOSE)
        self._send(reply)

    do_GET = do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815 - the base's names

    def do_HEAD(self) -> None:  # noqa: N802 - the base's way to name it
        self._send(Reply("", headers=_CLOSE))

    def do_CONNECT(self) -> None:  # noqa: N802 - the base's way to name it
        """Refuse a tunnel: a client that we cannot look into stays on this machine."""
        self._send(Reply("no network in a try", 403, _CLOSE))


def _embeddings(body: Body) -> Body:
    texts = body.get("input") or []
    count = 1 if isinstance(texts, str) else len(texts)
    size = body.get("dimensions") or _DIMENSIONS
    vector = [1.0, *[0.0] * (size - 1)]
    data = [
        {"object": "embedding", "index": i, "embedding": vector} for i in range(count)
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def _found(host: str) -> Body:
    """Return what a search engine found, under the names that many give it."""
    url = f"https://example.com/{host or 'page'}"
    text = "What a search on the web would have found."
    one = {"title": "A page", "url": url, "link": url, "content": text, "text": text}
    more = {"raw_content": text, "snippet": text, "body": text, "score": 0.5}
    found = [{**one, **more}]
    lists = dict.fromkeys(("results", "data", "items", "organic", "hits"), found)
    return {"query": "what was asked", "answer": text, "images": [], **lists}
