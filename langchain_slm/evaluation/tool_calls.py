"""Tool calls compared with those wanted. Pure: no I/O.

Knows the rule of `evaluators.ToolCallMatch` alone; which tools suit the question it
cannot say without a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_slm.evaluation.answers import ToolCall
from langchain_slm.evaluation.json_values import same_scalar
from langchain_slm.schema import JsonObject, Request

_TYPE_NAMES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
_SPELLING = str.maketrans({"'": '"'} | dict.fromkeys(" ,./-_*^", ""))


@dataclass(frozen=True, slots=True)
class WantedCall:
    """One call of a reference: for each parameter the values that are accepted.

    `""` among them lets the parameter be absent.
    """

    name: str
    arguments: Mapping[str, Sequence[object]]


def accepting(call: ToolCall) -> JsonObject:
    """Return the call as a reference that accepts its own values only."""
    return {"name": call.name, "arguments": _accepting(call.arguments)}


def _accepting(value: object) -> object:
    """An object accepts a list of values per key, at every depth."""
    if isinstance(value, dict):
        return {key: [_accepting(item)] for key, item in value.items()}
    if isinstance(value, list):
        return [_accepting(item) for item in value]
    return value


def first_mismatch(
    wanted: Sequence[WantedCall], made: Sequence[ToolCall], request: Request
) -> str | None:
    """Return what the first unmatched call of `wanted` lacks, None if all match.

    Each wanted call, in order, takes the first call of `made` that matches and is not
    taken yet.

    Args:
        wanted: The reference's calls.
        made: The answer's calls, as many.
        request: Offers the tools whose schemas the calls must keep to.
    """
    schemas = _parameter_schemas(request)
    free = list(made)
    for want in wanted:
        reasons = []
        for index, call in enumerate(free):
            reason = _mismatch(want, call, schemas.get(want.name))
            if reason is None:
                del free[index]
                break
            reasons.append((call.name != want.name, reason))
        else:
            # A call of the right name says more than one of another tool.
            return min(reasons, key=lambda reason: reason[0])[1]
    return None


def _parameter_schemas(request: Request) -> dict[str, JsonObject]:
    """Return the schema of each offered tool's parameters, by the tool's name."""
    schemas: dict[str, JsonObject] = {}
    for tool in request.tools:
        function = tool.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            known = parameters if isinstance(parameters, dict) else {}
            schemas.setdefault(function["name"], known)
    return schemas


def _mismatch(want: WantedCall, call: ToolCall, schema: JsonObject | None) -> str | None:
    """Return the first of the rule's five points that the call breaks."""
    if call.name != want.name:
        return f'calls "{call.name}", "{want.name}" wanted'
    if schema is None:
        return f'"{call.name}" is not offered'
    for name in _required(schema):
        if name not in call.arguments:
            return f'"{call.name}" lacks the required "{name}"'
    for name, value in call.arguments.items():
        reason = _argument_mismatch(name, value, want, schema)
        if reason is not None:
            return f'"{call.name}": "{name}" {reason}'
    for name, accepted in want.arguments.items():
        if name not in call.arguments and "" not in accepted:
            return f'"{call.name}" lacks "{name}"'
    return None


def _required(schema: JsonObject) -> list[str]:
    names = schema.get("required")
    listed = names if isinstance(names, list) else []
    return [name for name in listed if isinstance(name, str)]


def _argument_mismatch(
    name: str, value: object, want: WantedCall, schema: JsonObject
) -> str | None:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or name not in properties:
        return "is no parameter of the tool"
    if name not in want.arguments:
        return "is not wanted"
    accepted = want.arguments[name]
    if not _type_fits(value, properties[name], accepted):
        return "has another type"
    return None if _is_accepted(value, accepted) else "has another value"


def _type_fits(value: object, declared: object, accepted: Sequence[object]) -> bool:
    named = declared.get("type") if isinstance(declared, dict) else None
    if named is None:  # anyOf, $ref, enum: the accepted values alone decide
        return True
    names = named if isinstance(named, list) else [named]
    names = names + [_TYPE_NAMES.get(type(item)) for item in accepted if item != ""][:1]
    found = _TYPE_NAMES.get(type(value))
    return found in names or (found == "integer" and "number" in names)


def _is_accepted(value: object, accepted: Sequence[object]) -> bool:
    return any(_matches(value, option) for option in accepted)


def _matches(value: object, accepted: object) -> bool:
    if isinstance(accepted, dict):
        return isinstance(value, dict) and _object_matches(value, accepted)
    if isinstance(accepted, list):
        return (
            isinstance(value, list)
            and len(value) == len(accepted)
            and all(map(_matches, value, accepted))
        )
    if isinstance(accepted, str):
        return isinstance(value, str) and _spelling(value) == _spelling(accepted)
    return same_scalar(accepted, value)


def _object_matches(value: JsonObject, accepted: JsonObject) -> bool:
    return all(
        key in accepted and _is_accepted(item, _options(accepted[key]))
        for key, item in value.items()
    ) and all(
        "" in _options(options) for key, options in accepted.items() if key not in value
    )


def _options(accepted: object) -> list[object]:
    """A hand-written reference may give a key's only value without its list."""
    return accepted if isinstance(accepted, list) else [accepted]


def _spelling(text: str) -> str:
    """Return what is compared of a string: the leaderboard's normal form."""
    return text.lower().translate(_SPELLING)
