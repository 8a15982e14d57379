"""What is the same question, whichever client asks it. Pure: no I/O.

Clients differ in what they send for the same OpenAI messages: null or empty content,
text or a list of text parts, system or developer, `name` or none, blanks in arguments,
`strict` or none. Ignores sampling parameters, `tool_choice` and `response_format`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress

from langchain_slm.schema import JsonObject, canonical_json

_COMPARED_CHARACTERS = 100_000  # keeps the search for the nearest question short


class QuestionError(ValueError):
    """Messages or tools that are not in the form of the OpenAI API.

    Attributes:
        param: Which part, as in `messages[2].tool_calls`.
    """

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


def normal_form(messages: object, tools: object) -> JsonObject:
    """Return messages and tools in a form that is equal for the same question.

    Ids of tool calls become numbers in order of appearance: they only link a result to
    its call.

    Raises:
        QuestionError: If one is not in the form of the OpenAI API.
    """
    numbers: dict[str, int] = {}
    return {
        "messages": [
            _normal_message(message, f"messages[{index}]", numbers)
            for index, message in enumerate(_objects(messages, "messages"))
        ],
        "tools": [_normal_tool(tool) for tool in _objects(tools or [], "tools")],
    }


def has_lost_tool_calls(form: JsonObject) -> bool:
    """Return whether a normal form has a tool's result without the call of it.

    ChatNVIDIA 1.5 sends the tool calls of an earlier message only where it received them
    itself; of any other message it sends the empty content alone.
    """
    messages = form["messages"]
    made = {call["id"] for message in messages for call in message.get("tool_calls", ())}
    return any(message.get("tool_call_id") not in {None, *made} for message in messages)


def without_tool_calls(form: JsonObject) -> JsonObject:
    """Return a normal form without tool calls and without their ids."""
    kept = [{k: m[k] for k in ("role", "content")} for m in form["messages"]]
    return {**form, "messages": kept}


def tool_calls_agree(asked: JsonObject, recorded: JsonObject) -> bool:
    """Return whether such tool calls as `asked` has are those of `recorded`.

    Both are normal forms that are equal without their tool calls.
    """
    pairs = zip(asked["messages"], recorded["messages"], strict=True)
    return all(_calls(mine) in ("[]", _calls(other)) for mine, other in pairs)


def words(form: JsonObject) -> frozenset[str]:
    """Return the different words of a normal form, for `similarity`."""
    text = json.dumps(form, ensure_ascii=False)[:_COMPARED_CHARACTERS]
    return frozenset(re.findall(r"\w+", text.replace("\\n", " ")))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the Dice coefficient of two sets of words, in [0, 1].

    Source:
        Dice (1945), Ecology 26: 297-302.
    """
    return 2 * len(one & other) / (len(one) + len(other))


def difference(asked: object, recorded: object, path: str = "") -> str | None:
    """Return where two normal forms first differ, without what stands there.

    Returns:
        Such as `messages[0].content, character 31`; None where they are equal.
    """
    # `==` alone takes 1, 1.0 and true for the same.
    if asked == recorded and canonical_json(asked) == canonical_json(recorded):
        return None
    if isinstance(asked, dict) and isinstance(recorded, dict):
        pairs = [(f".{k}", asked.get(k), recorded.get(k)) for k in {**recorded, **asked}]
    elif isinstance(asked, list) and isinstance(recorded, list):
        both = zip(asked, recorded, strict=False)
        pairs = [(f"[{index}]", mine, other) for index, (mine, other) in enumerate(both)]
    else:
        return (path + _first_character(asked, recorded)).removeprefix(".")
    inner = (difference(mine, other, path + step) for step, mine, other in pairs)
    found = next((place for place in inner if place), f"{path} has another length")
    return found.removeprefix(".")


def _first_character(asked: object, recorded: object) -> str:
    if not isinstance(asked, str) or not isinstance(recorded, str):
        return ""
    pairs = enumerate(zip(asked, recorded, strict=False))
    shorter = min(len(asked), len(recorded))
    place = next((index for index, (a, b) in pairs if a != b), shorter)
    return f", character {place + 1}"


def _objects(value: object, param: str) -> list[JsonObject]:
    if isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value):
        return list(value)
    msg = f"`{param}` must be a list of objects"
    raise QuestionError(msg, param=param)


def _normal_message(
    message: JsonObject, param: str, numbers: dict[str, int]
) -> JsonObject:
    role = message.get("role")
    form: JsonObject = {
        "role": "system" if role == "developer" else role,
        "content": _normal_content(message.get("content")),
    }
    calls = _objects(message.get("tool_calls") or [], f"{param}.tool_calls")
    if calls:
        form["tool_calls"] = [_normal_call(call, numbers) for call in calls]
    if message.get("tool_call_id") is not None:
        form["tool_call_id"] = _number(message["tool_call_id"], numbers)
    if message.get("function_call"):
        form["function_call"] = message["function_call"]
    return form


def _normal_content(content: object) -> object:
    if not isinstance(content, list):
        return content or ""
    parts = [_normal_part(part) for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else parts


def _normal_part(part: object) -> object:
    """Return a text part as its text, any other as it is."""
    if isinstance(part, dict) and part.get("type") == "text":
        return part.get("text") or ""
    return part


def _normal_call(call: JsonObject, numbers: dict[str, int]) -> JsonObject:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # what is not JSON stays as it is
            arguments = json.loads(arguments)
    return {
        "id": _number(call.get("id"), numbers),
        "name": function.get("name"),
        "arguments": arguments,
    }


def _number(call_id: object, numbers: dict[str, int]) -> int:
    return numbers.setdefault(str(call_id), len(numbers))


def _calls(message: JsonObject) -> str:
    calls = message.get("tool_calls", ())
    return canonical_json([(call["name"], call["arguments"]) for call in calls])


def _normal_tool(tool: JsonObject) -> JsonObject:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool  # built into the provider
    parameters = function.get("parameters") or {}
    if isinstance(parameters, dict) and not parameters.get("properties"):
        # A tool without parameters is declared by none, or by an object of none.
        kept = ("type", "properties", "required")
        parameters = {k: v for k, v in parameters.items() if k not in kept}
    return {
        "name": function.get("name"),
        "description": function.get("description") or "",
        "parameters": parameters,
    }
