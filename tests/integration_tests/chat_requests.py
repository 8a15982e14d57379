"""What a strict chat-completions endpoint refuses, as OpenAI's does. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PARTS = {
    "system": {"text"},
    "developer": {"text"},
    "user": {"text", "image_url", "input_audio", "file"},
    "assistant": {"text", "refusal"},
    "tool": {"text", "image_url"},  # images as vLLM takes them
}


def objections(asked: Body) -> Iterator[str]:
    """Yield what is wrong with a request."""
    if not isinstance(asked.get("model"), str) or not asked["model"]:
        yield "you must provide a model parameter"
    messages = asked.get("messages")
    if not messages or not isinstance(messages, list):
        yield "messages must be a list with at least one message"
        return
    for index, message in enumerate(messages):
        yield from (f"messages[{index}]: {why}" for why in _of_message(message))
    yield from _of_tool_results(messages)
    yield from _of_tools(asked)
    if (asked.get("response_format") or {}).get("type") == "json_object":
        texts = " ".join(text_of(message) for message in messages)
        if "json" not in texts.lower():
            yield "messages must contain the word 'json' to use json_object"


def _of_message(message: Body) -> Iterator[str]:
    role = message.get("role")
    if role not in _PARTS:
        yield f"unknown role {role!r}"
        return
    content = message.get("content")
    if isinstance(content, list):
        yield from () if content else ["content must not be an empty list"]
        for part in content:
            yield from _of_part(part, _PARTS[role])
    elif content is None:
        if role != "assistant" or not message.get("tool_calls"):
            yield "content is missing"
    elif not isinstance(content, str):
        yield "content must be a string or a list of parts"
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        if not call.get("id") or call.get("type") != "function":
            yield "a tool call needs an id and the type 'function'"
        if not function.get("name") or not isinstance(function.get("arguments"), str):
            yield "a tool call needs a name and its arguments as a string"


def _of_part(part: Any, allowed: set[str]) -> Iterator[str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in allowed:
        yield f"content of type {kind!r}, where {sorted(allowed)} are supported"
    elif kind == "text" and not isinstance(part.get("text"), str):
        yield "a text part needs a text"
    elif kind in _MEDIA and media_of(part) is None:
        yield f"a part of type {kind!r} holds nothing that can be read"


def media_of(part: Body) -> tuple[str, bytes] | None:
    """Return the type and the bytes of an image, a sound or a file; None of the rest."""
    kind = part.get("type")
    if kind not in _MEDIA:
        return None
    inner = part.get(kind) or {}
    data = inner.get(_MEDIA[kind])
    if kind == "image_url" and str(data).startswith("https://"):
        return "image", b""  # a real endpoint would fetch it
    if kind == "input_audio":
        data = f"data:audio/{inner.get('format')};base64,{data}"
    found = re.fullmatch(r"data:([\w/]+);base64,(.+)", data or "", re.DOTALL)
    try:
        return (found[1], base64.b64decode(found[2], validate=True)) if found else None
    except binascii.Error:
        return None


_MEDIA = {"image_url": "url", "input_audio": "data", "file": "file_data"}


def _of_tool_results(messages: list[Body]) -> Iterator[str]:
    """Yield results without a call, and calls without a result."""
    due: list[str] = []
    for message in messages:
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in due:
                yield "a tool message must follow a message with its tool call"
                return
            due.remove(message["tool_call_id"])
            continue
        if due:
            break
        due = [call.get("id") for call in message.get("tool_calls") or ()]
    if due:
        yield f"tool calls without a result: {due}"


def _of_tools(asked: Body) -> Iterator[str]:
    functions = [tool.get("function") or {} for tool in asked.get("tools") or ()]
    names = [function.get("name") for function in functions]
    for name in names:
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            yield f"{name!r} is no name of a function"
    choice = asked.get("tool_choice")
    if choice is not None and not names:
        yield "tool_choice is only allowed when tools are specified"
    elif isinstance(choice, dict):
        if (choice.get("function") or {}).get("name") not in names:
            yield "tool_choice names a tool that is not among the tools"
    elif choice not in (None, "auto", "none", "required"):
        yield f"tool_choice {choice!r} is unknown"


def text_of(message: Body) -> str:
    """Return the text of a message."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part.get("type") == "text")
