"""Fills JSON schemas with what a prompt says, as a model would. Pure.

Knows what the chat APIs of models accept as a schema; no patterns and no formats.
"""

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_QUOTED = re.compile(r"(?<!\w)(['\"])(.+?)\1(?!\w)")
# A capital that does not begin a sentence: "San Francisco, CA".
_NAMED = re.compile(r"(?<!^)(?<![.!?] )\b[A-Z]\w*(?:,? [A-Z]\w*)*")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_TOPIC = re.compile(r"\babout (\w+)")
_NO_NAMES = {"I", "JSON"}


class Filling:
    """What one prompt holds; each value is given away once."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        keys = keys_asked_for(prompt)
        quoted = [match[1] for match in _QUOTED.findall(prompt)]
        named = [name for name in _NAMED.findall(prompt) if name not in _NO_NAMES]
        self._texts = [text for text in (*quoted, *named) if text not in keys]
        self._numbers = [float(number) for number in _NUMBER.findall(prompt)]
        topic = _TOPIC.search(prompt)
        self._topic = topic[1] if topic else "it"

    def fill(self, schema: Schema) -> Any:
        """Return a value that satisfies `schema`."""
        return self._value(schema, schema, "value")

    def _value(self, schema: Schema, root: Schema, name: str) -> Any:
        schema = _settled(schema, root)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.choose(schema["enum"])
        make = {
            "object": self._object,
            "array": self._array,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda *_: not self._is_unwanted(name),
            "null": lambda *_: None,
        }
        return make.get(_kind(schema), self._text)(schema, root, name)

    def _object(self, schema: Schema, root: Schema, _: str) -> Schema:
        return dict(self._properties(schema, root))

    def _array(self, schema: Schema, root: Schema, name: str) -> list[Any]:
        items = schema.get("items") or {"type": "string"}
        count = max(1, schema.get("minItems", 1))
        return [self._value(items, root, name) for _ in range(count)]

    def _properties(self, schema: Schema, root: Schema) -> Iterator[tuple[str, Any]]:
        """Yield what is required, and what else the prompt mentions."""
        required = schema.get("required", ())
        for name, inner in (schema.get("properties") or {}).items():
            if self._is_unwanted(name) and _takes_null(inner):
                if name in required:
                    yield name, None
            elif name in required or self._mentions(name):
                yield name, self._value(inner, root, name)

    def choose(self, options: list[Any]) -> Any:
        """Return the option that the prompt mentions, else the first."""
        mentioned = (each for each in options if self._mentions(str(each)))
        return next(mentioned, options[0])

    def _mentions(self, name: str) -> bool:
        spelt = re.escape(name).replace("_", "[_ ]")
        return re.search(rf"\b{spelt}\b", self.prompt, re.IGNORECASE) is not None

    def _is_unwanted(self, name: str) -> bool:
        return self._mentions(f"no {name}") or self._mentions(f"without {name}")

    def _integer(self, schema: Schema, root: Schema, name: str) -> int:
        return int(self._number({"multipleOf": 1, **schema}, root, name))

    def _number(self, schema: Schema, _: Schema, __: str) -> float:
        for number in self._numbers:
            if _is_within(number, schema):
                self._numbers.remove(number)
                return number
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 2) - 1)
        return min(max(low, 0), high)

    def _text(self, schema: Schema, _: Schema, name: str) -> str:
        if self._texts:
            text = self._texts.pop(0)
        else:
            what = schema.get("description") or name.replace("_", " ")
            text = f"{what} about {self._topic}"
        return text[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")


def keys_asked_for(prompt: str) -> list[str]:
    """Return the keys of "... as a JSON with 'setup' and 'punchline' keys"."""
    listed = re.search(r"((?:['\"]\w+['\"](?:, | and |, and )?)+) keys?\b", prompt)
    return re.findall(r"\w+", listed[1].replace(" and ", " ")) if listed else []


def _settled(schema: Schema, root: Schema) -> Schema:
    """Return a schema without references and alternatives: the first that is not null."""
    while True:
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**_referenced(schema["$ref"], root), **rest}
        elif options := schema.get("anyOf") or schema.get("oneOf"):
            schema = next((o for o in options if o.get("type") != "null"), options[0])
        elif parts := schema.get("allOf"):
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            schema = {**rest, **_settled(parts[0], root)}
        else:
            return schema


def _referenced(reference: str, root: Schema) -> Schema:
    found = root
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def _kind(schema: Schema) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        return next((each for each in kind if each != "null"), "null")
    return str(kind)


def _takes_null(schema: Schema) -> bool:
    kinds = [schema.get("type"), *(o.get("type") for o in schema.get("anyOf", ()))]
    return any(kind == "null" or "null" in (kind or ()) for kind in kinds)


def _is_within(number: float, schema: Schema) -> bool:
    low, high = schema.get("minimum", number), schema.get("maximum", number)
    above = schema.get("exclusiveMinimum", number - 1)
    below = schema.get("exclusiveMaximum", number + 1)
    fits = low <= number <= high and above < number < below
    return fits and not number % schema.get("multipleOf", number or 1)
