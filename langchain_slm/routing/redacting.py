"""Keeps what a chat model was configured with to itself: keys, headers, passwords.

LangChain hides fields of type `SecretStr` only. Headers, query parameters, extra bodies
and the user names of URLs show in `repr`, dumps and traces, and an endpoint that echoes
a request puts any of them into the text of an exception.

What counts as a secret of a model:

- every `SecretStr`, wherever it is nested;
- every header and query parameter, but for a few that never hold one;
- a string under a name such as `api_key`, `auth_token` or `password`, user name and
  password of a URL, and the environment variables that a class names in `lc_secrets`;
- in `extra_body` and `model_kwargs`, strings that look like a key. Not all strings: they
  hold labels and JSON schemas too, and an error without the words "object" and "string"
  would not say any more what is wrong.
"""

from __future__ import annotations

import copy
import json
import os
import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from pydantic import BaseModel, SecretBytes, SecretStr

HIDDEN = "***"
SHORTEST = 6  # characters; anything shorter would be found everywhere
# Words of a name, as in `api_key`, `X-Auth-Token` or `clientSecret`.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "key",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "secret",
        "signature",
        "token",
    }
)
_HEADER_WORDS = frozenset({"cookies", "header", "headers"})
_QUERIES = frozenset({"_custom_query", "default_query", "extra_query"})
_FREE_FORM = frozenset({"extra_body", "model_kwargs"})
_HARMLESS = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "anthropic-version",
        "api-version",
        "content-type",
        "user-agent",
        "x-billing-source",
    }
)
_KEY_LIKE = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z])[\w\-.~+=:]{16,}")
_SCHEMES = frozenset({"apikey", "basic", "bearer", "token"})
_MASKED = "*****"  # as clients show a key
_USERINFO = re.compile(r"://[^/?#\s]*@")
# What the clients of the providers keep beside the settings of the model.
_CLIENT_ATTRIBUTES = (
    "api_key",
    "admin_api_key",
    "auth_token",
    "_azure_ad_token",
    "_custom_headers",
    "_custom_query",
    "_base_url",
    "_client",
)
# Of Python's own exceptions, which keep them outside of `vars`.
_NATIVE_ATTRIBUTES = ("filename", "filename2", "object", "reason", "strerror")
_MODEL_NAMES = frozenset({"model", "model_name"})


def secrets_of(model: BaseChatModel) -> tuple[str, ...]:
    """Return every value of `model` that may be a secret, the longest first.

    Each has at least `SHORTEST` characters. A key that a function gives is not among
    them: `scrub_error` finds it in the request.
    """
    search = _Search()
    with suppress(Exception):  # another package's class raises anything
        search.look(model)
    return _longest_first(search.found)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with each secret replaced by "***", also where it is encoded.

    Example:
        >>> scrub("refused: sk/one, sk%2Fone", ["sk/one"])
        'refused: ***, ***'
    """
    return Scrubber(secrets).text(text)


def scrub_error(error: BaseException, secrets: Iterable[str]) -> BaseException:
    """Remove secrets from an exception and those that it came from; never raises.

    In place: texts, attributes, notes, and copies of its HTTP request and response,
    without the credentials in their headers.

    Returns:
        `error`, or what to raise instead of one that cannot be changed, such as
        pydantic's ValidationError.
    """
    try:
        return Scrubber([*secrets, *_sent(error)]).error(error)
    except Exception:  # noqa: BLE001 - an exception's own methods raise anything
        return RuntimeError(type(error).__name__)


def public_dump(model: BaseChatModel) -> dict[str, Any]:
    """Return what `langchain_core.load.dumpd` does, without anything secret.

    Keys become the names of their variables; headers, queries, extra bodies and what
    cannot be loaded again are left out. A class that LangChain cannot load is only named.
    """
    kind = type(model)
    with suppress(Exception):
        if model.is_lc_serializable():
            dumped: dict[str, Any] = dumpd(model)
            scrubber = Scrubber(secrets_of(model))
            return {**dumped, "kwargs": _public(dumped["kwargs"], scrubber)}
    named = [*kind.__module__.split("."), kind.__name__]
    return {"lc": 1, "type": "not_implemented", "id": named, "repr": None}


def public_metadata(model: BaseChatModel) -> dict[str, Any]:
    """Return the metadata that `model` gives its runs, without anything secret."""
    if not model.metadata:
        return {}
    clean: dict[str, Any] = Scrubber(secrets_of(model)).value(model.metadata)
    return clean


def _longest_first(texts: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=lambda text: (-len(text), text)))


def _names_secret(name: object) -> bool:
    words = _WORD.findall(name) if isinstance(name, str) else []
    return any(word.lower() in _SECRET_WORDS for word in words)


def _names_headers(name: object) -> bool:
    words = _WORD.findall(name) if isinstance(name, str) else []
    return name in _QUERIES or any(word.lower() in _HEADER_WORDS for word in words)


class _Search:
    """Walks through a model, its private attributes and its clients."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        # By identity, and kept: its id must not be given to another one.
        self._seen: dict[int, Any] = {}

    def look(self, value: Any, name: object = "", *, within: str = "") -> None:
        """Find the secrets in `value`.

        Args:
            value: Anything.
            name: Of the field or key that holds it.
            within: "headers" where all strings are secret, "free" where some are.
        """
        if _names_headers(name):
            within = "headers"
        elif name in _FREE_FORM:
            within = within or "free"
        if isinstance(value, SecretStr | SecretBytes):
            self._look_at_text(value.get_secret_value(), "secret", "")
        elif isinstance(value, str | bytes):
            self._look_at_text(value, name, within)
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            for key, item in _parts(value, name):
                with suppress(Exception):
                    self.look(item, key, within=within)

    def _look_at_text(self, value: str | bytes, name: object, within: str) -> None:
        text = value if isinstance(value, str) else value.decode(errors="replace")
        for key, part in _url_parts(text):
            if _names_secret(key):
                self._add(part)
        is_header = within == "headers" and str(name).lower() not in _HARMLESS
        is_key_like = within == "free" and _KEY_LIKE.fullmatch(text)
        if is_header or is_key_like or _names_secret(name):
            self._add(text)

    def _add(self, text: str) -> None:
        scheme, _, rest = text.strip().partition(" ")
        parts = [text.strip()]
        if scheme.lower() in _SCHEMES:
            parts.append(rest.strip())
        for part in parts:
            if len(part) >= SHORTEST and not part.endswith(_MASKED):
                self.found.add(part)


def _parts(value: Any, name: object) -> Iterator[tuple[object, Any]]:
    """Yield what `value` consists of, by name."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((name, item) for item in value)
    elif isinstance(value, BaseModel):
        yield from vars(value).items()
        yield from (value.__pydantic_private__ or {}).items()
        yield from (value.__pydantic_extra__ or {}).items()
        for variable in getattr(value, "lc_secrets", {}).values():
            yield "secret", os.environ.get(variable, "")
    elif type(value).__name__ == "URL":
        yield name, str(value)
    else:
        held = getattr(value, "__dict__", {})
        yield from ((key, held[key]) for key in _CLIENT_ATTRIBUTES if key in held)


def _url_parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield user name, password and query parameters of a URL; nothing of other text."""
    if "://" not in text:
        return
    try:
        parts = urlsplit(text)
    except ValueError:
        return
    user, password = parts.username or "", parts.password or ""
    for part in (user, password):
        yield "secret", part
        yield "secret", unquote(part)
    # As clients send them.
    basic = f"{unquote(user)}:{unquote(password)}".encode()
    if user or password:
        yield "secret", b64encode(basic).decode()
    yield from parse_qsl(parts.query)


class Scrubber:
    """Replaces secrets in whatever it is given."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = (_spellings(secret) for secret in secrets if secret)
        self._hidden = _longest_first({text for texts in spellings for text in texts})
        # By identity, with the original, which is kept for the same reason.
        self._done: dict[int, tuple[Any, Any]] = {}

    def text(self, text: str) -> str:
        """Return `text` without secrets."""
        for hidden in self._hidden:
            text = text.replace(hidden, HIDDEN)
        return text

    def error(self, error: BaseException) -> BaseException:
        """Scrub an exception in place; return it, or what stands for it."""
        if (known := self._done.get(id(error))) is not None:
            stand_in: BaseException = known[1]
            return stand_in
        self._done[id(error)] = error, error
        self._scrub_attributes(error)
        suppressed = error.__suppress_context__
        if error.__cause__ is not None:
            error.__cause__ = self.error(error.__cause__)
        if error.__context__ is not None:
            error.__context__ = self.error(error.__context__)
        error.__suppress_context__ = suppressed
        shown = _shown(error)
        if self.text(shown) == shown:
            return error
        stand_in = _stand_in(error, self.text(str(error)))
        self._done[id(error)] = error, stand_in
        return stand_in

    def _scrub_attributes(self, error: BaseException) -> None:
        with suppress(Exception):
            error.args = self.value(error.args)
        self._scrub_held(error)
        for name in _NATIVE_ATTRIBUTES:
            with suppress(Exception):
                item = getattr(error, name)
                clean = self.value(item)
                if clean != item:
                    setattr(error, name, clean)

    def _scrub_held(self, holder: Any) -> None:
        held = vars(holder)
        for name, item in list(held.items()):
            try:
                held[name] = self.value(item, name)
            except Exception:  # noqa: BLE001 - another package's object raises anything
                held[name] = None

    def value(self, value: Any, name: str = "") -> Any:
        """Return `value` without secrets; new objects, but for exceptions."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            is_plain = type(value) is dict and not _names_headers(name)
            return self._dict(value) if is_plain else self._headers(value)
        if isinstance(value, list | tuple | set | frozenset):
            items = [self.value(item) for item in value]
            return getattr(type(value), "_make", type(value))(items)
        if isinstance(value, BaseException):
            return self.error(value)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, bytes):
            for hidden in self._hidden:
                value = value.replace(hidden.encode(errors="replace"), HIDDEN.encode())
            return value
        if type(value).__name__ == "URL":
            return self._url(value)
        held = getattr(value, "__dict__", {})
        is_message = "headers" in held and ("url" in held or "status_code" in held)
        return self._message(value) if is_message else value

    def _dict(self, value: Mapping[Any, Any]) -> dict[Any, Any]:
        return {self.value(key): self.value(item) for key, item in value.items()}

    def _headers(self, headers: Mapping[Any, Any]) -> Any:
        clean = {
            name: HIDDEN if _names_secret(name) else self.value(item)
            for name, item in headers.items()
        }
        with suppress(Exception):  # of the same type, where it can be changed
            same: Any = headers.copy()  # type: ignore[attr-defined]
            for name, item in clean.items():
                if same[name] != item:
                    same[name] = item
            return same
        return clean

    def _url(self, url: Any) -> Any:
        clean = self.text(str(url))
        return url if clean == str(url) else type(url)(clean)

    def _message(self, message: Any) -> Any:
        """Return a copy of an HTTP request or response; None where there is none."""
        if (known := self._done.get(id(message))) is None:
            made = None
            with suppress(Exception):
                made = copy.copy(message)
                self._scrub_held(made)
            known = self._done[id(message)] = message, made
        return known[1]


def _spellings(secret: str) -> set[str]:
    """Return a secret as it is written in text, URLs, JSON and Python."""
    return {
        secret,
        quote(secret, errors="replace"),
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }


def _shown(error: BaseException) -> str:
    with suppress(Exception):
        return f"{error!s}\n{error!r}"
    return ""  # what cannot be shown shows nothing


def _stand_in(error: BaseException, text: str) -> RuntimeError:
    made = RuntimeError(f"{type(error).__name__}: {text}")
    made.__cause__, made.__context__ = error.__cause__, error.__context__
    made.__suppress_context__ = error.__suppress_context__
    return made.with_traceback(error.__traceback__)


def _sent(error: BaseException) -> set[str]:
    """Return the credentials in the headers that an exception's request was sent with."""
    search = _Search()
    for one in _chain(error):
        for item in list(vars(one).values()):
            with suppress(Exception):  # an app's own object raises anything
                held = getattr(item, "__dict__", {})
                for message in (item, held.get("request"), held.get("_request")):
                    # As they are stored: a property may raise.
                    headers = getattr(message, "__dict__", {}).get("headers", {})
                    search.look({k: v for k, v in headers.items() if _names_secret(k)})
    return search.found


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and all that it came from."""
    chain = [error]
    for one in chain:
        for before in (one.__cause__, one.__context__):
            if before is not None and not any(before is known for known in chain):
                chain.append(before)
    return chain


def _public(value: Any, scrubber: Scrubber, name: object = "") -> Any:
    """Return a dump without what must not be shown."""
    if isinstance(value, dict):
        return {
            key: _public(item, scrubber, key)
            for key, item in value.items()
            if not _is_left_out(key, item)
        }
    if isinstance(value, list):
        return [_public(item, scrubber, name) for item in value if not _is_opaque(item)]
    if isinstance(value, str) and name not in _MODEL_NAMES:
        return scrubber.text(_USERINFO.sub("://", value))
    return value


def _is_left_out(name: object, value: Any) -> bool:
    if name == "extra_body" or _names_headers(name) or _is_opaque(value):
        return True
    return _names_secret(name) and isinstance(value, str | list)


def _is_opaque(value: Any) -> bool:
    """Whether it is only a `repr`, which shows everything and cannot be loaded."""
    return isinstance(value, dict) and value.get("type") == "not_implemented"
