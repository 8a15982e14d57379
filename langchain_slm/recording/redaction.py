"""Replaces personal data and secrets in a call by placeholders. Pure: text in, text out.

The default finds what has a form: e-mail addresses, phone numbers, cards, IBANs, IP
addresses, keys and tokens. It finds no names, postal addresses, record numbers or
passwords: do not call a store free of personal data because of it. The identifiers of a
call (graph, site, trace, thread, model) are not content and are left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from langchain_slm.recording import patterns
from langchain_slm.schema import Call


class Finding(NamedTuple):
    """A stretch of a text that must not be stored.

    Attributes:
        start: Index of its first character.
        end: Index after its last character; greater than `start`.
        kind: What it is, the name in the placeholder: words of capital letters joined
            by `_`, at most 20 characters ("EMAIL", "RECORD_NUMBER").
        value: What it means without its spelling, so that "+49 171 2345678" and
            "+491712345678" share a placeholder; empty means the text itself.
    """

    start: int
    end: int
    kind: str
    value: str = ""


class Redactor(Protocol):
    """Finds what must not be stored; `redact_call` and `redact_text` replace it.

    Findings may overlap: the one that starts first wins. A redactor never sees a
    placeholder, only the text on either side, and it may run on many threads at once.
    """

    def find(self, text: str) -> Iterable[Finding]:
        """Return the findings in `text`, in any order."""
        ...


class PatternRedactor:
    """The default: EMAIL, PHONE, CARD, IBAN, IP, KEY and TOKEN, by form.

    Linear in the length of the text. A phone number is one with a leading `+`, or
    grouped as it is written nationally: `(555) 123-4567`, `555-123-4567`,
    `0171 2345678`.

    Example:
        >>> redact_text("Mail ada@example.org, not 10452.", PatternRedactor())
        'Mail <EMAIL_1>, not 10452.'
    """

    def find(self, text: str) -> list[Finding]:
        """Return the findings in `text`, those of one kind in order."""
        return [Finding(*found) for found in patterns.find(text)]


DEFAULT_REDACTOR = PatternRedactor()


def redact_text(text: str, redactor: Redactor) -> str:
    """Return `text` with every finding replaced, numbered from 1 for each kind.

    Args:
        text: Anything; where it is a JSON object or array it stays one.
        redactor: What finds.

    Raises:
        ValueError: If a finding lies outside the text or has no usable kind.
    """
    return _Numbering(redactor, text).text(text)


def redact_call(call: Call, redactor: Redactor) -> Call:
    """Return `call` with every finding in its content replaced by a placeholder.

    Equal values get equal placeholders throughout the call (`<EMAIL_1>`), so that an
    argument that the model copied out of its prompt can still be recognised as copied.
    Placeholders that are there already are kept and their numbers not given again, and
    redacting twice is redacting once. Arguments of tool calls stay valid JSON: a number
    that must go becomes a string.

    Args:
        call: What was recorded; it is not changed.
        redactor: What finds.

    Returns:
        A redacted copy, or `call` itself where nothing was found.

    Raises:
        TypeError: If the content is not JSON.
        ValueError: If it is circular, or a finding lies outside its text.
    """
    request, answer = call.request, call.answer
    parts = {
        "messages": request.messages,
        "answer": answer.message if answer else None,
        "error": call.error,
        "response_format": request.response_format,
        "parameters": request.parameters,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
    }
    written = _written(parts)
    # A subclass may find more than the patterns do, and must then see every text.
    screened = type(redactor) is PatternRedactor
    if screened and not patterns.may_match(written):
        return call
    numbering = _Numbering(redactor, written)
    new = {}
    for name, part in parts.items():
        clean = not part or (screened and not patterns.may_match(_written(part)))
        new[name] = part if clean else numbering.value(part)
    if new == parts:
        return call
    names = ("messages", "response_format", "parameters", "tools", "tool_choice")
    return call.model_copy(
        update={
            "request": request.model_copy(update={name: new[name] for name in names}),
            "answer": answer and answer.model_copy(update={"message": new["answer"]}),
            "error": new["error"],
        }
    )


_written = json.JSONEncoder(ensure_ascii=False).encode

_KIND = re.compile(r"(?=.{1,20}\Z)[A-Z]+(?:_[A-Z]+)*")
_PLACEHOLDER = re.compile(r"(<[A-Z]+(?:_[A-Z]+)*_[1-9][0-9]{0,5}>)")
# JSON inside JSON may spell the brackets as escapes.
_TAKEN = re.compile(
    r"(?:<|\\+u003[cC])([A-Z]+(?:_[A-Z]+)*_[1-9][0-9]{0,5})(?:>|\\+u003[eE])"
)
# What the form of a message or schema needs ("role": "user"): never content.
_FORM_WORD = re.compile(r"[a-z_]{1,20}")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*', re.DOTALL)


class _Numbering:
    """Gives the placeholders of one call."""

    def __init__(self, redactor: Redactor, written: str) -> None:
        self._find = redactor.find
        self._taken = set(_TAKEN.findall(written))
        self._names: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}

    def value(self, value: Any) -> Any:
        """Return JSON `value` with its strings, keys and whole numbers redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._key(key): self._item(key, value[key]) for key in value}
        if isinstance(value, list | tuple):
            return type(value)(self.value(item) for item in value)
        if isinstance(value, int) and not isinstance(value, bool):
            digits = str(value)
            new = self.text(digits)
            return value if new == digits else new
        return value

    def _key(self, key: Any) -> Any:
        is_form = not isinstance(key, str) or _FORM_WORD.fullmatch(key)
        return key if is_form else self.text(key)

    def _item(self, key: str, value: Any) -> Any:
        is_form = key in ("role", "type") and isinstance(value, str)
        return value if is_form and _FORM_WORD.fullmatch(value) else self.value(value)

    def text(self, text: str) -> str:
        """Redact `text`, until nothing is found any more.

        A replacement takes its neighbours' context away, so they are looked at again.
        It ends: every round turns some text into placeholders, which are not looked at.
        """
        while (new := self._once(text)) != text:
            text = new
        return text

    def _once(self, text: str) -> str:
        """Redact `text`, token by token where it is a JSON object or array."""
        if text.lstrip()[:1] in ("{", "[") and _is_json(text):
            return _JSON_TOKEN.sub(self._json_token, text)
        pieces = _PLACEHOLDER.split(text)
        pieces[::2] = [self._piece(piece) for piece in pieces[::2]]
        return "".join(pieces)

    def _json_token(self, match: re.Match[str]) -> str:
        token = match[0]
        old = json.loads(token) if token.startswith('"') else token
        new = self.text(old)
        return token if new == old else json.dumps(new, ensure_ascii=token.isascii())

    def _piece(self, text: str) -> str:
        if not text:
            return text
        pieces, position = [], 0
        for finding in sorted(self._find(text), key=_start):
            _refuse_impossible(finding, text)
            if finding.start >= position:
                pieces += [text[position : finding.start], self._name(finding, text)]
                position = finding.end
        return "".join([*pieces, text[position:]])

    def _name(self, finding: Finding, text: str) -> str:
        value = finding.value or text[finding.start : finding.end]
        identity = finding.kind, value
        if identity not in self._names:
            self._names[identity] = self._next(finding.kind)
        return self._names[identity]

    def _next(self, kind: str) -> str:
        while True:
            self._last[kind] = self._last.get(kind, 0) + 1
            name = f"{kind}_{self._last[kind]}"
            if name not in self._taken:
                return f"<{name}>"


def _start(finding: Finding) -> int:
    return finding.start


def _refuse_impossible(finding: Finding, text: str) -> None:
    start, end, kind, _ = finding
    if not 0 <= start < end <= len(text) or not _KIND.fullmatch(kind):
        message = f"a finding [{start}, {end}) of {len(text)} characters, kind {kind!r}"
        raise ValueError(message)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
