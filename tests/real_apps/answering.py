"""What a model answers to an app that it knows nothing of. Pure.

It calls each tool that it is offered once in a conversation, fills each schema, and ends
with a text, so that every app comes to an end and as much as possible of it runs.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any
from zlib import crc32

from integration_tests.chat_requests import Body, text_of
from integration_tests.schema_filling import Filling, Schema
from integration_tests.schema_server import Said

MOST_CALLS = 6  # an app may offer a hundred tools, and stops at its recursion limit

_FORMATS = {
    "date": "2030-01-02",
    "date-time": "2030-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "ann@example.com",
    "uri": "https://example.com/page",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class Guided(Filling):
    """A filling in which some fields have values that were given, by their names."""

    def __init__(self, prompt: str, given: Mapping[str, Any]) -> None:
        super().__init__(prompt)
        self._given = given

    def _value(self, schema: Schema, root: Schema, name: str) -> Any:
        return (
            self._given[name] if name in self._given else self._filled(schema, root, name)
        )

    def _filled(self, schema: Schema, root: Schema, name: str) -> Any:
        return super()._value(schema, root, name)

    def _text(self, schema: Schema, root: Schema, name: str) -> str:
        return _FORMATS.get(schema.get("format", "")) or super()._text(schema, root, name)

    def _is_unwanted(self, name: str) -> bool:
        return False


def answer(asked: Body, given: Mapping[str, Any], avoided: Collection[str] = ()) -> Said:
    """Return what a model answers to a request in the form of OpenAI's chat API.

    Args:
        asked: The request.
        given: Values of fields, wherever a schema or a tool has one of the name.
        avoided: Tools that are called only where they must be.
    """
    prompt = _prompt(asked)
    if tool := _tool_to_call(asked, avoided):
        schema = {"type": "object", **(tool.get("parameters") or {})}
        arguments = json.dumps(Guided(prompt, given).fill(schema))
        return Said(calls=((tool["name"], arguments),), finish="tool_calls")
    wanted = asked.get("response_format") or {}
    if schema := (wanted.get("json_schema") or {}).get("schema"):
        return Said(json.dumps(Guided(prompt, given).fill(schema)))
    if wanted.get("type") == "json_object":
        return Said(json.dumps(given or {"answer": "yes"}))
    said = given.get("text", f"An answer of {len(asked['messages'])} messages")
    return Said(f"{said} ({crc32(prompt.encode()) % 1000})")


def _prompt(asked: Body) -> str:
    """Return what the user said last."""
    said = [text_of(each) for each in asked["messages"] if each["role"] == "user"]
    return said[-1] if said else ""


def _tool_to_call(asked: Body, avoided: Collection[str]) -> Schema | None:
    """Return the function that is forced, else the next that was not called yet."""
    offered = [tool["function"] for tool in asked.get("tools") or ()]
    choice = asked.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        return next((each for each in offered if each["name"] == name), None)
    called = [
        call["function"]["name"]
        for message in asked["messages"]
        for call in message.get("tool_calls") or ()
    ]
    new = [each for each in offered if each["name"] not in {*called, *avoided}]
    new.sort(key=_says_little)
    if choice == "required":
        return (new or offered[-1:])[0] if offered else None
    may_call = choice != "none" and len(called) < MOST_CALLS
    return new[0] if new and may_call else None


def _says_little(function: Schema) -> bool:
    """Whether a tool takes no more than a yes: such a one often ends everything."""
    schema = function.get("parameters") or {}
    properties = schema.get("properties") or {}
    required = [properties.get(name) or {} for name in schema.get("required") or ()]
    return all(each.get("type") == "boolean" for each in required)
