"""The JSON schema of a request to OpenAI's chat API: nothing else may be in it.

The endpoint refuses what it does not know, so a leftover of another provider's dialect
is an error, however harmless. Pure.
"""

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]


def _object(properties: Schema, *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _part(kind: str, content: Schema) -> Schema:
    return _object({"type": {"const": kind}, kind: content}, "type", kind)


_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_URL = {"type": "string", "pattern": "^(https?://|data:[a-z]+/[a-z0-9.+-]+;base64,)"}
_TEXT_PART = _part("text", _TEXT)
_USER_PARTS = [
    _TEXT_PART,
    _part("image_url", _object({"url": _URL, "detail": _TEXT}, "url")),
    _part("input_audio", _object({"data": _TEXT, "format": {"enum": ["wav", "mp3"]}})),
    _part("file", _object({"filename": _TEXT, "file_data": _URL}, "file_data")),
]
_CALL = _object(
    {
        "id": {"type": "string", "minLength": 1},
        "type": {"const": "function"},
        "function": _object({"name": _TEXT, "arguments": _TEXT}, "name", "arguments"),
    },
    *("id", "type", "function"),
)


def _content(*parts: Schema) -> Schema:
    return {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": {"anyOf": parts}}]}


def _message(role: str, content: Schema, **more: Schema) -> Schema:
    fields = {"role": {"const": role}, "content": content, **more}
    return _object(fields, "role", "content")


_MESSAGES = [
    _message("system", _content(_TEXT_PART)),
    _message("user", _content(*_USER_PARTS), name=_TEXT),
    _message(
        "assistant",
        {"anyOf": [{"type": "null"}, _content(_TEXT_PART)]},
        tool_calls={"type": "array", "minItems": 1, "items": _CALL},
    ),
    _message("tool", _content(_TEXT_PART), tool_call_id=_TEXT),
]
_TOOL = _part(
    "function",
    _object(
        {
            "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
            "description": _TEXT,
            "parameters": {"type": "object"},
            "strict": {"type": "boolean"},
        },
        *("name", "parameters"),
    ),
)
_FORMAT = _part(
    "json_schema",
    _object(
        {
            "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
            "schema": {"type": "object", "required": ["type"]},
            "strict": {"type": "boolean"},
        },
        *("name", "schema"),
    ),
)
_REQUEST = _object(
    {
        "model": _TEXT,
        "messages": {"type": "array", "minItems": 1, "items": {"anyOf": _MESSAGES}},
        "tools": {"type": "array", "minItems": 1, "items": _TOOL},
        "tool_choice": {
            "anyOf": [
                {"enum": ["none", "auto", "required"]},
                _part("function", _object({"name": _TEXT}, "name")),
            ]
        },
        "parallel_tool_calls": {"type": "boolean"},
        "response_format": {
            "anyOf": [_FORMAT, _object({"type": {"const": "json_object"}})]
        },
        "stop": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 4},
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "frequency_penalty": _NUMBER,
        "presence_penalty": _NUMBER,
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "seed": {"type": "integer"},
        "n": {"const": 1},
        "stream": {"type": "boolean"},
        "stream_options": _object({"include_usage": {"type": "boolean"}}),
    },
    *("model", "messages"),
)
_VALIDATOR = Draft202012Validator(_REQUEST)


def leftovers(asked: Schema) -> Iterator[str]:
    """Yield what in a request OpenAI's chat API does not know."""
    for error in _VALIDATOR.iter_errors(asked):
        deepest = max(error.context or [error], key=lambda each: len(each.absolute_path))
        yield f"{deepest.json_path}: {deepest.message}"[:500]
