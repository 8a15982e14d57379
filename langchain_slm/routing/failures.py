"""What a failed call means: whether another try may help, when, and how it is named.

Calls nothing. Knows the clients' exceptions by the names of their classes, so that none
of them has to be imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from langchain_slm.errors import DeadlineExceededError, IncompleteAnswerError

HTTP_STATUS = range(100, 600)
# A time-out, a conflict, "too early", too many requests; besides 500 and above.
TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
SERVER_ERROR = 500
# Connections that break, and those that cannot be made.
TRANSIENT_ERRORS = frozenset(
    {
        "APIConnectionError",  # openai, anthropic
        "TransportError",  # httpx
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",  # aiohttp
        "ConnectionError",  # Python, requests, botocore
        "HTTPClientError",  # botocore
    }
)
# `requests` calls each of its exceptions an OSError; those about addresses and bodies
# are ValueErrors too, and so is a certificate that is refused.
_LASTING = (ValueError, FileNotFoundError, PermissionError)
_LASTING_NAMES = frozenset({"TooManyRedirects"})
# The request's own fault: it says nothing against the endpoint.
CALLERS_FAULT = frozenset({400, 413, 422})
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # as the clients of OpenAI and Anthropic wait
LONGEST_TOLD_S = 1e9  # 30 years: a header may say more than a process can sleep
# The header of OpenAI and Azure goes before HTTP's, which has whole seconds.
_RETRY_AFTER = {"retry-after-ms": 0.001, "retry-after": 1.0}
# Where the exceptions of clients that let anything through come from.
_UNTYPED = frozenset({"builtins", "json", "pydantic", "pydantic_core", "jsonschema"})
# openai, anthropic, ollama; aiohttp; Google's, urllib; botocore.
_STATUS_NAMES = ("status_code", "status", "code", "HTTPStatusCode")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a client's exception reports."""
    if type(error).__name__ == "ClientResponseError" and error.__cause__ is not None:
        return None  # aiohttp calls a response that it cannot read a 400
    response = getattr(error, "response", None)  # requests, httpx
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata")
    for teller in (error, response):
        for name in _STATUS_NAMES:
            status = _value(teller, name)
            if isinstance(status, int):
                return int(status) if status in HTTP_STATUS else None
    # ChatNVIDIA raises plain exceptions that begin with "[404] Not Found".
    text = error.args[0] if error.args else None
    if isinstance(text, str) and (found := re.match(r"\[([1-5]\d\d)\]", text, re.ASCII)):
        return int(found.group(1))
    return None


def _value(holder: object, name: str) -> object:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def named(error: BaseException) -> str:
    """Return the kind of a failure: never its text, which may quote a message."""
    name, status = type(error).__name__, status_of(error)
    return name if status is None else f"{name} (HTTP {status})"


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT_STATUS or status >= SERVER_ERROR
    if isinstance(error, DeadlineExceededError):
        return False  # the time is used up
    if isinstance(error, IncompleteAnswerError):
        return True  # a connection that broke looks like that
    names = {base.__name__ for base in type(error).__mro__}
    if isinstance(error, _LASTING) or not _LASTING_NAMES.isdisjoint(names):
        return False
    return isinstance(error, OSError) or not TRANSIENT_ERRORS.isdisjoint(names)


def is_callers_fault(error: BaseException) -> bool:
    """Whether the request itself was refused, which says nothing of the endpoint."""
    return status_of(error) in CALLERS_FAULT


def is_typed(error: BaseException) -> bool:
    """Whether an exception is a client's own, which apps may wait for by its type."""
    return type(error).__module__.partition(".")[0] not in _UNTYPED


def wait_s(error: BaseException | None, retries: int, *, spread: float) -> float:
    """Return how long to wait before another try, in seconds, at most 1e9.

    Args:
        error: What the last try failed with. Its Retry-After header decides, if any.
        retries: How many tries were retries, at least 0.
        spread: In [0, 1): keeps many callers from coming back at once.
    """
    told = _retry_after_s(error)
    if told is not None:
        return min(max(0.0, told), LONGEST_TOLD_S)
    doubled = 2.0 ** min(retries, 10)  # beyond, the longest is reached anyway
    return min(FIRST_WAIT_S * doubled, LONGEST_WAIT_S) * (1 - 0.25 * spread)


def _retry_after_s(error: BaseException | None) -> float | None:
    response = getattr(error, "response", None)  # false where `requests` has a 4xx
    headers = getattr(error if response is None else response, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    told = ""
    for name, unit_s in _RETRY_AFTER.items():
        told = str(headers.get(name) or "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", told, re.ASCII):
            return float(told) * unit_s
    try:
        when = parsedate_to_datetime(told)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - datetime.now(tz=UTC)).total_seconds()
