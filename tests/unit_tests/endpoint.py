"""A chat-completions endpoint on loopback that says one thing, and can misbehave."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class Endpoint:
    """Answers every request with `message`; `asked` holds their bodies.

    A `finish` of None leaves the finish_reason out; with a `status` it refuses.
    """

    def __init__(
        self, text: str = "", *, calls: list[dict[str, str]] | None = None, **how: Any
    ) -> None:
        self.text = text
        self.calls = calls or []
        self.finish = how.get("finish", "tool_calls" if calls else "stop")
        self.status: int = how.get("status", 200)
        self.asked: list[dict[str, Any]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def openai(self, model: str = "small", **settings: Any) -> ChatOpenAI:
        settings = {"stream_usage": True, "max_retries": 0, **settings}
        return ChatOpenAI(model=model, base_url=self.url, api_key="any", **settings)

    def nvidia(self, model: str = "small", **settings: Any) -> BaseChatModel:
        return ChatNVIDIA(model=model, base_url=self.url, api_key="any", **settings)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                endpoint.asked.append(body)
                kind, data = endpoint.reply(body)
                self.send_response(endpoint.status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's
                pass

        return Handler

    def reply(self, asked: dict[str, Any]) -> tuple[str, bytes]:
        if self.status != 200:
            error = {"error": {"message": "refused: secret-canary", "type": "error"}}
            return "application/json", json.dumps(error).encode()
        if asked.get("stream"):
            events = [f"data: {json.dumps(event)}\n\n" for event in self._events(asked)]
            return "text/event-stream", "".join([*events, "data: [DONE]\n\n"]).encode()
        message = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = self._tool_calls()
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        whole = {**_head(asked, "chat.completion"), "choices": [choice], "usage": USAGE}
        return "application/json", json.dumps(whole).encode()

    def _tool_calls(self) -> list[dict[str, Any]]:
        return [
            {"index": i, "id": f"call_{i}", "type": "function", "function": call}
            for i, call in enumerate(self.calls)
        ]

    def _events(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        head = _head(asked, "chat.completion.chunk")
        words = self.text.split(" ") if self.text else []
        deltas: list[dict[str, Any]] = [
            {"content": word if index == 0 else f" {word}"}
            for index, word in enumerate(words)
        ]
        deltas += [{"tool_calls": [call]} for call in self._tool_calls()]
        for delta in [{"role": "assistant", "content": ""}, *deltas]:
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            yield {**head, "choices": [choice]}
        if self.finish is not None:
            choice = {"index": 0, "delta": {}, "finish_reason": self.finish}
            yield {**head, "choices": [choice]}
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield {**head, "choices": [], "usage": USAGE}


def _head(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": asked["model"]}
