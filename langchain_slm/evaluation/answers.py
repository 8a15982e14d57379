"""What an answer says: its tool calls, its JSON, its label. Pure: no I/O.

Refuses tool calls that an app could not run (no name, arguments that are no JSON object,
an id that occurs twice). Every scan of an answer's text is linear in its length.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from langchain_slm.evaluation.json_values import MalformedError, read_object
from langchain_slm.schema import Answer, JsonObject

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_BLANKS = string.whitespace + "\u00a0"
_CLOSING_MARKS = ".,;:!?"

_BRACES = re.compile(r"[{}]")
_QUOTED_ANSWER = re.compile(r'"answer"\s*:\s*"([^"]*)"')
_BARE_ANSWER = re.compile(r'"answer"\s*:\s*([^,\s]*)')
_BOXED_WORD = re.compile(r"\\boxed\{(\w+)\}")
# ZeroEval takes a box as closing when it begins in the last 30 characters, `\` aside.
_CLOSING_CHARACTERS = 31


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the app would run it."""

    name: str
    arguments: JsonObject


def raw_tool_calls(answer: Answer) -> list[object]:
    """Return the tool calls of an answer as the message holds them.

    Raises:
        MalformedError: If they are no list.
    """
    calls = answer.message.get("tool_calls") or []
    if not isinstance(calls, list):
        msg = "tool_calls is no list"
        raise MalformedError(msg)
    return calls


def read_tool_calls(answer: Answer) -> list[ToolCall]:
    """Return the tool calls of an answer with their arguments parsed.

    Raises:
        MalformedError: If an app could not run them all.
    """
    raw = raw_tool_calls(answer)
    ids = [call.get("id") for call in raw if isinstance(call, dict)]
    named = [call_id for call_id in ids if isinstance(call_id, str)]
    if len(set(named)) != len(named):
        msg = "a tool call id occurs twice"
        raise MalformedError(msg)
    return [_read(call, f"tool call {number}") for number, call in enumerate(raw, 1)]


def _read(call: object, which: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        msg = f"{which} names no function"
        raise MalformedError(msg)
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        return ToolCall(name, {})  # as LangChain reads a call without arguments
    if not isinstance(arguments, str):
        msg = f"arguments of {which}: no text"
        raise MalformedError(msg)
    try:
        return ToolCall(name, read_object(arguments))
    except MalformedError as error:
        msg = f"arguments of {which}: {error}"
        raise MalformedError(msg) from None


def json_answer(text: str) -> str | None:
    """Return the `answer` that a text gives in JSON, as Python writes the value.

    The rule of `evaluators.JsonAnswer`; None where there is no answer.
    """
    try:
        found = read_object(_first_balanced(text).replace("\n", ""))
    except MalformedError:
        found = {}
    if "answer" in found:
        return str(found["answer"])
    match = _QUOTED_ANSWER.search(text) or _BARE_ANSWER.search(text)
    if match is not None:
        return match[1]
    boxes: list[str] = _BOXED_WORD.findall(text[-_CLOSING_CHARACTERS:])
    return boxes[-1] if boxes else None


def _first_balanced(text: str) -> str:
    """Return the text from the first `{` to the `}` that closes it, or nothing."""
    depth = 0
    start = text.find("{")
    if start < 0:
        return ""
    for brace in _BRACES.finditer(text, start, text.rfind("}") + 1):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : brace.end()]
    return ""


def bare_label(text: str) -> str:
    """Return a label without case, surrounding blanks and quotes, closing marks."""
    around = _BLANKS + _QUOTES
    return text.lstrip(around).rstrip(around + _CLOSING_MARKS).casefold()


def structured_object(answer: Answer) -> JsonObject:
    """Return the JSON object that an answer gives.

    Its text, a ```json fence aside; where there is no text, the arguments of its only
    tool call.

    Raises:
        MalformedError: If there is no such object, or more than one.
    """
    text = answer.text.strip()
    if text:
        return read_object(_unfenced(text))
    calls = read_tool_calls(answer)
    if len(calls) != 1:
        msg = f"no text, and {len(calls)} tool calls instead of one"
        raise MalformedError(msg)
    return calls[0].arguments


def _unfenced(text: str) -> str:
    """Return what stands inside a ```json fence, or the text if it is not fenced."""
    if not (text.startswith("```") and text.endswith("```")):
        return text
    return text.strip("`").removeprefix("json")
