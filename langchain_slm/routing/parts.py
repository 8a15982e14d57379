"""Parts of messages, from any provider's form into that of OpenAI's chat API.

No I/O, no decisions. What has no place in that form is `None` here; who leaves it out,
and who does not ask at all because of it, is decided elsewhere.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.block_translators.openai import convert_to_openai_data_block
from langchain_core.messages.utils import convert_to_openai_messages

from langchain_slm.schema import JsonObject

Part: TypeAlias = str | dict[str, Any]
PDF = "application/pdf"
_SOUNDS: Mapping[str, str] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
}
_REACHED_BY_ALL = ("data:", "https://", "http://")


def chat_part(part: Part) -> JsonObject | None:
    """Return a part of a message as OpenAI's chat API has it.

    Only what the API knows is kept: no cache markers, no ids, no citations.

    Returns:
        The part; None for what has no place there, such as a file that lies at one
        provider's, reasoning, or a call of a tool (a message has a field for those).
    """
    if isinstance(part, str):
        return {"type": "text", "text": part}
    convert = _CONVERTERS.get(str(part.get("type")))
    return None if convert is None else convert(part)


def _text(part: JsonObject) -> JsonObject | None:
    text = part.get("text")
    return {"type": "text", "text": text} if isinstance(text, str) else None


def _as_it_is(name: str) -> Callable[[JsonObject], JsonObject | None]:
    def kept(part: JsonObject) -> JsonObject | None:
        return {"type": name, name: part[name]} if part.get(name) else None

    return kept


def _image_url(part: JsonObject) -> JsonObject | None:
    given = part.get("image_url")
    image = given if isinstance(given, dict) else {"url": given}  # Google's, Ollama's
    url = image.get("url")
    if not isinstance(url, str) or not url.startswith(_REACHED_BY_ALL):
        return None  # gs://..., or base64 of a type that nobody says
    told = {name: image[name] for name in ("url", "detail") if image.get(name)}
    return {"type": "image_url", "image_url": told}


def _image(part: JsonObject) -> JsonObject | None:
    source = part.get("source")
    if not isinstance(source, dict):
        return _standard(part)
    if source.get("type") == "url":  # Anthropic's
        return _image_url({"image_url": source.get("url")})
    return _sourced(source, "")


def _document(part: JsonObject) -> JsonObject | None:
    """Return Anthropic's document; None where the answer shall cite it."""
    source = part.get("source")
    if not isinstance(source, dict) or (part.get("citations") or {}).get("enabled"):
        return None
    return _sourced(source, str(part.get("title") or ""))


def _sourced(source: JsonObject, title: str) -> JsonObject | None:
    kind, mime_type = source.get("type"), str(source.get("media_type") or "")
    if kind == "text" and isinstance(source.get("data"), str):
        text = source["data"]
        return {"type": "text", "text": f"{title}\n\n{text}" if title else text}
    if kind == "base64" and source.get("data"):
        return _inline(mime_type, source["data"], title)
    return None


def _inline(mime_type: str, data: Any, name: str = "") -> JsonObject | None:
    """Return bytes (or their base64) of a type as a part; None for other types."""
    encoded = b64encode(data).decode() if isinstance(data, bytes) else str(data)
    url = f"data:{mime_type};base64,{encoded}"
    if mime_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if mime_type in _SOUNDS:
        sound = {"data": encoded, "format": _SOUNDS[mime_type]}
        return {"type": "input_audio", "input_audio": sound}
    if mime_type == PDF:
        file = {"filename": name or "document.pdf", "file_data": url}
        return {"type": "file", "file": file}
    return None


def _media(part: JsonObject) -> JsonObject | None:
    """Return Google's inline data; a `file_uri` lies at Google's."""
    data = part.get("data")
    return _inline(str(part.get("mime_type") or ""), data) if data else None


def _standard(part: JsonObject) -> JsonObject | None:
    """Return LangChain's own image, sound or file."""
    if part.get("source_type") == "text":
        return _text(part)
    data = part.get("base64") or (part.get("data") if "source_type" in part else None)
    if data and part.get("mime_type"):
        return _inline(str(part["mime_type"]), data, _name_of(part))
    if part.get("type") != "image":
        return None
    try:
        return _image_url(convert_to_openai_data_block(part))
    except (ValueError, KeyError):
        return None  # it lies at a provider's


def _name_of(part: JsonObject) -> str:
    told = (part, part.get("extras") or {}, part.get("metadata") or {})
    return next((str(each["filename"]) for each in told if each.get("filename")), "")


def _file(part: JsonObject) -> JsonObject | None:
    file = part.get("file")
    if not isinstance(file, dict):
        return _standard(part)
    return {"type": "file", "file": file} if file.get("file_data") else None


def _json(part: JsonObject) -> JsonObject | None:
    """Return what a tool gave in Bedrock's form."""
    text = json.dumps(part.get("json"), ensure_ascii=False)
    return {"type": "text", "text": text}


_CONVERTERS: Mapping[str, Callable[[JsonObject], JsonObject | None]] = {
    "text": _text,
    "text-plain": _text,
    "image_url": _image_url,
    "image": _image,
    "document": _document,
    "media": _media,
    "audio": _standard,
    "file": _file,
    "json": _json,
    "input_audio": _as_it_is("input_audio"),
    "video_url": _as_it_is("video_url"),  # of vLLM and NVIDIA
    "refusal": _as_it_is("refusal"),
}


def in_parts(message: BaseMessage, content: Sequence[Part]) -> list[JsonObject]:
    """Return a message whose content is in parts in OpenAI's form.

    A model's loses what has no place there: it is the model's own. A person's or a
    tool's keeps it as it is.

    Returns:
        Results of tools that lie in it, in Anthropic's form, then the message.

    Raises:
        ValueError: If a call of a tool, or its result, is malformed.
    """
    inside = [part for part in content if _is_call(part)]
    rest = [part for part in content if not _is_call(part)]
    if isinstance(message, AIMessage):
        said = [chat for part in rest if (chat := chat_part(part)) is not None]
        return [{**_without_parts(message, inside), "content": _joined(said)}]
    results = convert_to_openai_messages([HumanMessage(inside)]) if inside else []
    if inside and not rest:
        return results
    parts = [chat_part(part) or part for part in rest]
    return [*results, {**_without_parts(message, []), "content": _joined(parts)}]


def _is_call(part: Part) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return kind in ("tool_use", "tool_result")


def _without_parts(message: BaseMessage, calls: list[Part]) -> JsonObject:
    (plain,) = convert_to_openai_messages([message.model_copy(update={"content": calls})])
    return plain


def _joined(parts: Sequence[Part]) -> str | list[Part]:
    texts = [
        str(part["text"])
        for part in parts
        if isinstance(part, dict) and part.get("type") == "text"
    ]
    return "\n".join(texts) if len(texts) == len(parts) else list(parts)
