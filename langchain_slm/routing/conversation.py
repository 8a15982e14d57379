"""What a model may see of a conversation that other models had a part in.

No I/O, no decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.utils import convert_to_openai_messages

from langchain_slm.routing import dialect
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
_IMAGE_FORM = ("source_type", "mime_type")
_MODEL_TYPES = ("ai", "AIMessageChunk")


def portable(messages: list[BaseMessage], provider: str) -> list[BaseMessage]:
    """Return a conversation as a model of `provider` may see it.

    What another provider said keeps its text, images and tool calls. Reasoning,
    signatures and ids that only its own provider understands stay behind. A message that
    does not say where it comes from is left as it is.
    """
    # By name: `isinstance` of a pydantic class takes twenty times as long.
    spoken = [message for message in messages if message.type in _MODEL_TYPES]
    if any(_is_foreign(message, provider) for message in spoken):
        messages = [
            _without_state(message)
            if message.type in _MODEL_TYPES and _is_foreign(message, provider)
            else message
            for message in messages
        ]
    if provider == "nvidia":
        return [_for_nvidia(message) for message in messages]
    return messages


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
        (plain,) = convert_to_openai_messages([HumanMessage(content)])
        changed["content"] = plain["content"]
    return message.model_copy(update=changed) if changed else message


def _is_sourced_image(part: object) -> bool:
    """Whether a part is an image in Anthropic's form."""
    return isinstance(part, dict) and part.get("type") == "image" and "source" in part


def _is_foreign(message: BaseMessage, provider: str) -> bool:
    about = message.response_metadata
    spoken = (about.get(dialect.METADATA_KEY) or {}).get("provider") or about.get(
        "model_provider"
    )
    if not isinstance(spoken, str):
        return False
    return PACKAGES.get(spoken, spoken) != PACKAGES.get(provider, provider)


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
