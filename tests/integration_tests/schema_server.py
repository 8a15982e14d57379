"""An OpenAI-compatible endpoint on loopback that answers as a model would.

It calls the tools that a prompt is about, fills schemas from the prompt, and reports the
results of tools. It refuses what OpenAI's endpoint refuses. A clumsy model gets every
other request wrong, in each of the ways that can be verified.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import Any
from zlib import crc32

from integration_tests.chat_requests import Body, media_of, objections, text_of
from integration_tests.misbehaving import Misbehaving, Reply
from integration_tests.schema_filling import Filling, Schema, keys_asked_for
from langchain_core.language_models import BaseChatModel
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI

# The async tests have an event loop each: none must find the connections of another.
_CLOSE = {"Connection": "close"}
_SHORT = 4  # letters: shorter words of a tool's description do not say what it is for


@dataclass(frozen=True)
class Said:
    """An answer: a text, or calls of tools by name and arguments."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str | None = "stop"


class SchemaServer(Misbehaving):
    """Serves a good model under every name but those in `clumsy`."""

    def __init__(self, *, clumsy: Collection[str] = ()) -> None:
        super().__init__(self._reply_to)
        self.clumsy = clumsy

    def openai(self, model: str = "big", **settings: Any) -> ChatOpenAI:
        settings = {"stream_usage": True, "api_key": "any", **settings}
        return ChatOpenAI(model=model, base_url=self.url, **settings)

    def nvidia(self, model: str = "big", **settings: Any) -> BaseChatModel:
        return ChatNVIDIA(model=model, base_url=self.url, api_key="any", **settings)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_WithModels, super()._handler()), {})

    def _reply_to(self, _: int, asked: Body) -> Reply:
        for why in objections(asked):
            return _refused(400, why)
        said = self._answer(asked)
        if asked["model"] in self.clumsy:
            flaw = flaw_for(asked)
            if flaw is None:
                return _refused(500, "out of memory")
            said = flaw(said)
        if asked.get("stream"):
            events = [f"data: {json.dumps(event)}\n\n" for event in _events(asked, said)]
            headers = {"Content-Type": "text/event-stream", **_CLOSE}
            return Reply("".join([*events, "data: [DONE]\n\n"]), headers=headers)
        return Reply(_completion(asked, said), headers=_CLOSE)

    def _answer(self, asked: Body) -> Said:
        return answer(asked)


class _WithModels(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """List the models, as ChatNVIDIA asks for."""
        self._send(Reply({"object": "list", "data": [{"id": "big", "object": "model"}]}))


def _refused(status: int, why: str) -> Reply:
    error = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    return Reply({"error": error}, status, _CLOSE)


def answer(asked: Body) -> Said:
    """Return what a good model answers."""
    prompt = _prompt(asked)
    if tools := _tools_to_call(asked, prompt):
        calls = tuple((tool["name"], _arguments(tool, prompt)) for tool in tools)
        return Said(calls=calls, finish="tool_calls")
    return _within_limits(Said(_text(asked, Filling(prompt))), asked)


def _prompt(asked: Body) -> str:
    """Return what the user said last."""
    said = [text_of(each) for each in asked["messages"] if each["role"] == "user"]
    return said[-1] if said else ""


def _tools_to_call(asked: Body, prompt: str) -> list[Schema]:
    """Return the functions to call: those required, else those the prompt is about."""
    functions = [tool["function"] for tool in asked.get("tools") or ()]
    choice = asked.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        wanted = choice["function"]["name"]
        return [each for each in functions if each["name"] == wanted]
    is_answered = asked["messages"][-1]["role"] == "tool"
    if choice == "none" or (choice == "auto" and is_answered):
        return []
    meant = [each for each in functions if _is_about(each, prompt)]
    if choice == "required":
        due = [each for each in functions if each["name"] not in _called(asked)]
        meant = [each for each in meant if each in due] or due[:1] or functions[:1]
    return meant if asked.get("parallel_tool_calls", True) else meant[:1]


def _called(asked: Body) -> set[str]:
    """Return the functions that were called, and have answered, for the last question."""
    roles = [message["role"] for message in asked["messages"]]
    since = roles[::-1].index("user") if "user" in roles else len(roles)
    calls = (m.get("tool_calls") or () for m in asked["messages"][len(roles) - since :])
    return {call["function"]["name"] for each in calls for call in each}


def _is_about(function: Schema, prompt: str) -> bool:
    if function["name"] in prompt:
        return True
    described = f"{function['name']} {function.get('description', '')}".lower()
    words = re.findall(r"[^\W_]+", described)
    asked = set(re.findall(r"[^\W_]+", prompt.lower()))
    return any(word in asked for word in words if len(word) > _SHORT)


def _arguments(function: Schema, prompt: str) -> str:
    schema = {"type": "object", **(function.get("parameters") or {})}
    return _json(Filling(prompt).fill(schema))


def _text(asked: Body, filling: Filling) -> str:
    guided = {**asked, **(asked.get("nvext") or {})}
    wanted = asked.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema") or guided.get("guided_json")
    if schema:
        return _json(filling.fill(schema))
    if wanted.get("type") == "json_object":
        keys = keys_asked_for(filling.prompt) or ["answer"]
        properties = {key: {"type": "string"} for key in keys}
        return _json(filling.fill({"required": keys, "properties": properties}))
    if choices := guided.get("guided_choice"):
        return str(filling.choose(choices))
    last = asked["messages"][-1]
    if last["role"] == "tool":
        return f"The tool says: {text_of(last) or _seen(last)}"
    return f'You said "{filling.prompt}". {_seen(last)}What would you like to know?'


def _seen(message: Body) -> str:
    """Describe the images, sounds and files of a message."""
    parts = message["content"] if isinstance(message["content"], list) else []
    media = [found for part in parts if (found := media_of(part))]
    return "".join(f"I see {kind} of {len(data)} bytes. " for kind, data in media)


def _within_limits(said: Said, asked: Body) -> Said:
    stop = asked.get("stop") or []
    for word in [stop] if isinstance(stop, str) else stop:
        said = replace(said, text=said.text.partition(word)[0])
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    tokens = _tokens(said.text)
    if limit is None or len(tokens) <= limit:
        return said
    return replace(said, text="".join(tokens[:limit]), finish="length")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


# What a clumsy model does to an answer; None: the endpoint fails.
Flaw = Callable[[Said], Said] | None


def flaw_for(asked: Body) -> Flaw:
    """Return what goes wrong with a request: the same whenever it is asked."""
    is_plain = not (asked.get("tools") or asked.get("response_format"))
    # Once text was streamed nobody else can answer: what is wrong must come first.
    flaws = _EARLY_FLAWS
    if not (is_plain and asked.get("stream")):
        flaws += _LATE_FLAWS
    return flaws[crc32(json.dumps(asked, sort_keys=True).encode()) % len(flaws)]


def _good(said: Said) -> Said:
    return said


def _empty(_: Said) -> Said:
    return Said()


def _cut(said: Said) -> Said:
    calls = tuple((name, arguments[:-1]) for name, arguments in said.calls)
    return Said(said.text[: len(said.text) // 2], calls, finish="length")


def _unfinished(said: Said) -> Said:
    return replace(said, finish=None)


def _garbled(said: Said) -> Said:
    """Unknown arguments of an unknown tool, or JSON outside every schema."""
    if said.calls:
        return replace(said, calls=(("wrong_tool", '{"wrong": 1}'),))
    is_json = said.text.startswith("{")
    return replace(said, text='{"wrong": 1}') if is_json else Said()


_EARLY_FLAWS: tuple[Flaw, ...] = (_good, _empty, _good, None)
_LATE_FLAWS: tuple[Flaw, ...] = (_cut, _unfinished, _good, _garbled)


def _completion(asked: Body, said: Said) -> Body:
    message = {"role": "assistant", "content": said.text or None}
    if said.calls:
        message["tool_calls"] = [_call(*each) for each in enumerate(said.calls)]
    choice = {"index": 0, "message": message, "finish_reason": said.finish}
    head = _head(asked, "chat.completion")
    return {**head, "choices": [choice], "usage": _usage(asked, said)}


def _call(index: int, call: tuple[str, str]) -> Body:
    name, arguments = call
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{index}", "type": "function", "function": function}


def _events(asked: Body, said: Said) -> Iterator[Body]:
    head = _head(asked, "chat.completion.chunk")
    for delta in _deltas(said):
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield {**head, "choices": [choice]}
    if said.finish is not None:
        choice = {"index": 0, "delta": {}, "finish_reason": said.finish}
        yield {**head, "choices": [choice]}
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": _usage(asked, said)}


def _deltas(said: Said) -> Iterator[Body]:
    """Yield the answer word by word, the arguments of tools in two halves."""
    yield {"role": "assistant", "content": ""}
    yield from ({"content": token} for token in _tokens(said.text))
    for index, call in enumerate(said.calls):
        arguments = call[1]
        half = len(arguments) // 2
        begun = {**_call(index, (call[0], arguments[:half])), "index": index}
        rest = {"index": index, "function": {"arguments": arguments[half:]}}
        yield {"tool_calls": [begun]}
        yield {"tool_calls": [rest]}


def _head(asked: Body, kind: str) -> Body:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": asked["model"]}


def _usage(asked: Body, said: Said) -> Body:
    read = sum(len(_tokens(text_of(message))) for message in asked["messages"])
    wrote = len(_tokens(said.text)) + sum(len(call[1]) for call in said.calls)
    return {
        "prompt_tokens": read,
        "completion_tokens": wrote,
        "total_tokens": read + wrote,
        "prompt_tokens_details": {"cached_tokens": read // 2},
        "completion_tokens_details": {"reasoning_tokens": wrote // 2},
    }
