"""What a model may see of a conversation that other models had a part in.

No I/O, no decisions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_slm.routing import dialect
from langchain_slm.routing.parts import chat_part
from langchain_slm.schema import JsonObject

# Providers whose models call them otherwise than their package is called.
PACKAGES: Mapping[str, str] = {
    "azure": "openai",
    "azure_openai": "openai",
    "bedrock": "aws",
    "bedrock_converse": "aws",
}
# What every provider's messages may hold.
COMMON_PARTS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "image_url": ("image_url",),
    "image": ("url", "base64", "data", "source"),
}
# Other parts ChatNVIDIA leaves out without a word.
SENT_BY_NVIDIA = ("text", "image_url", "video_url")
_IMAGE_FORM = ("source_type", "mime_type")
_MODEL_TYPES = ("ai", "AIMessageChunk")


def portable(
    messages: list[BaseMessage], provider: str, source: str | None = None
) -> list[BaseMessage]:
    """Return a conversation as a model of `provider` may see it.

    What another provider said keeps its text, images and tool calls. Reasoning,
    signatures and ids that only its own provider understands stay behind.

    Args:
        messages: The conversation.
        provider: Of the model that is asked.
        source: Of the model that the app called, in whose form the app wrote the
            conversation; None where that is the model that is asked. A message that does
            not say where it comes from is taken for its, and is left as it is if None.
    """
    # By name: `isinstance` of a pydantic class takes twenty times as long.
    spoken = [message for message in messages if message.type in _MODEL_TYPES]
    if any(_is_foreign(message, provider, source) for message in spoken):
        messages = [
            _without_state(message)
            if message.type in _MODEL_TYPES and _is_foreign(message, provider, source)
            else message
            for message in messages
        ]
    if source is not None and not _is_same(source, provider):
        messages = [_in_chat_form(message) for message in messages]
    if provider == "nvidia":
        return [_for_nvidia(message) for message in messages]
    return messages


def unreadable(messages: list[BaseMessage], source: str, provider: str) -> str | None:
    """Return why only the app's own provider can read a conversation, if that is so.

    Args:
        messages: The conversation.
        source: Provider of the model that the app called.
        provider: Of the model that would be asked.
    """
    if _is_same(source, provider):
        return None
    for message in messages:
        if isinstance(message.content, str) or message.type in _MODEL_TYPES:
            continue
        for part in message.content:
            chat = chat_part(part)
            if chat is None or (
                provider == "nvidia" and chat["type"] not in SENT_BY_NVIDIA
            ):
                return f"a part of type {_kind(part)} pins the call to its provider"
    return None


def _kind(part: str | dict[str, Any]) -> str:
    """Return the type of a part, unless it is none that may be shown."""
    kind = part.get("type") if isinstance(part, dict) else "text"
    return str(kind) if re.fullmatch(r"[a-z_-]{1,40}", str(kind)) else "unknown"


def _in_chat_form(message: BaseMessage) -> BaseMessage:
    content = message.content
    if isinstance(content, str) or message.type in _MODEL_TYPES:
        return message
    parts = [chat_part(part) or part for part in content]
    return message.model_copy(update={"content": parts})


def _for_nvidia(message: BaseMessage) -> BaseMessage:
    """Return a message so that ChatNVIDIA sends all of it.

    By itself it sends only such tool calls as it received itself, and Anthropic's images
    as they are.
    """
    changed: JsonObject = {}
    more, content = message.additional_kwargs, message.content
    calls = [] if "tool_calls" in more else dialect.tool_calls_of(message)
    if message.type in _MODEL_TYPES and calls:
        changed["additional_kwargs"] = {**more, "tool_calls": calls}
    if isinstance(content, list) and any(_is_sourced_image(part) for part in content):
        changed["content"] = [chat_part(part) or part for part in content]
    return message.model_copy(update=changed) if changed else message


def _is_sourced_image(part: object) -> bool:
    """Whether a part is an image in Anthropic's form."""
    return isinstance(part, dict) and part.get("type") == "image" and "source" in part


def _is_foreign(message: BaseMessage, provider: str, source: str | None) -> bool:
    about = message.response_metadata
    spoken = (about.get(dialect.METADATA_KEY) or {}).get("provider") or about.get(
        "model_provider", source
    )
    return isinstance(spoken, str) and not _is_same(spoken, provider)


def _is_same(provider: str, other: str) -> bool:
    return PACKAGES.get(provider, provider) == PACKAGES.get(other, other)


def _without_state(message: BaseMessage) -> BaseMessage:
    content = message.content
    if isinstance(content, list):
        kept = [part for part in map(_common, content) if part is not None]
        texts = all(isinstance(part, str) or part["type"] == "text" for part in kept)
        content = str(message.text) if texts else kept
    return message.model_copy(
        update={
            "content": content,
            "additional_kwargs": {},
            "response_metadata": {},
            "id": None,
        }
    )


def _common(part: str | dict[str, Any]) -> str | dict[str, Any] | None:
    """Return what any provider understands of a part; None where that is nothing.

    Without ids, signatures and citations; a file that lies at a provider's is nothing.
    """
    if isinstance(part, str):
        return part
    kind = part.get("type")
    told = [name for name in COMMON_PARTS.get(str(kind), ()) if part.get(name)]
    source = part.get("source")
    if not told or (isinstance(source, dict) and source.get("type") == "file"):
        return None
    form = _IMAGE_FORM if kind == "image" else ()
    return {name: part[name] for name in ("type", *told, *form) if name in part}
