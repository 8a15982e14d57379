"""What a failed call says of the endpoint: ask again, give up on it, or its own fault.

The clients share no exceptions. ChatOpenAI's have a status, a code and headers;
ChatNVIDIA raises plain exceptions that begin with the status in brackets, or with
"[###]" where the body was no JSON: the page of a gateway, whose status is lost. Of an
exception only its class and status are shown, for a server may echo the key or the
question. Asks nothing itself.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from langchain_slm.errors import EndpointError
from langchain_slm.schema import ModelSpec

UNAUTHORIZED, PAYMENT_REQUIRED, FORBIDDEN, NOT_FOUND, TOO_MANY = 401, 402, 403, 404, 429
REFUSED = frozenset({UNAUTHORIZED, PAYMENT_REQUIRED, FORBIDDEN})
TRANSIENT = frozenset({408, 409, 425, TOO_MANY})
SERVER_ERROR = 500

_STATUS = re.compile(r"\[(\d{3})\]")
_PAGE = "[###]"
# Of httpx and of aiohttp. The others of a connection are of one call only: a reset, or
# an answer that broke off.
_NO_CONNECTION = frozenset({"ConnectError", "ConnectTimeout", "ClientConnectorError"})
_CLIENT_ERRORS = frozenset({"APIConnectionError", "ClientError", "TransportError"})
_NO_CREDIT = "insufficient_quota"
_NO_MODEL = ("model_not_found", "DeploymentNotFound")
# A 404 may be of one question (the replay server's) or one kind of request. It is of the
# model, or of the path, where it speaks of the model, or of nothing.
_ONE_QUESTION = "_not_recorded"
_HOPELESS_404 = re.compile(
    r"\bmodel\b[^{]{0,200}(does not exist|not found)"
    r"|^Error code: 404$|^\[404\] (Unknown Error|Not Found)",
    re.IGNORECASE,
)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of a client reports."""
    for name in ("status_code", "status"):
        if isinstance(status := getattr(error, name, None), int):
            return status
    found = _STATUS.match(str(error))
    return int(found.group(1)) if found else None


def is_transient(error: BaseException) -> bool:
    """Whether the endpoint may answer if asked again."""
    if (status := status_of(error)) is not None:
        return status in TRANSIENT or status >= SERVER_ERROR
    if isinstance(error, OSError) or _class_names(error) & _CLIENT_ERRORS:
        return True
    return str(error).startswith(_PAGE)


def retry_after_s(error: BaseException) -> float | None:
    """Return the seconds that the endpoint asks to wait, at least 0; None if it does not.

    ChatNVIDIA does not pass it on.
    """
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = str(headers.get("retry-after", ""))
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(asked) - datetime.now(UTC)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None
    return max(0.0, until.total_seconds())


def shown(error: BaseException) -> str:
    """Return class and status of an exception, and nothing that a server wrote."""
    name, status = type(error).__name__, status_of(error)
    if status is not None:
        return f"HTTP {status} ({name})"
    return f"HTTP error page ({name})" if str(error).startswith(_PAGE) else name


def hopeless(error: BaseException, spec: ModelSpec) -> EndpointError | None:
    """Return what ends an experiment: no other call could fare better.

    None where the failure is of one call, or may pass.

    Args:
        error: What the client raised, after its last try.
        spec: The model that was asked.
    """
    status = status_of(error)
    key = spec.api_key_env
    if _is_unknown_model(error):
        why = (
            f"does not know the model {spec.model!r}, or nothing is served at that path; "
            "check model and base_url in the catalogue"
        )
    elif status in REFUSED or (status == TOO_MANY and _NO_CREDIT in str(error)):
        remedy = f"check the key in {key}" if key else "name its variable as api_key_env"
        why = f"refuses the key or has no credit for it; {remedy}"
    elif _is_unreachable(error):
        why = "cannot be reached; start the endpoint or correct base_url"
    else:
        return None
    msg = f"{spec.name}: {_where(spec)} {why} ({shown(error)}). Answers so far are kept."
    return EndpointError(msg, candidate=spec.name, status=status)


def _is_unknown_model(error: BaseException) -> bool:
    said = f"{getattr(error, 'code', '')}: {error}"
    if any(code in said for code in _NO_MODEL):
        return True
    if status_of(error) != NOT_FOUND or _ONE_QUESTION in said:
        return False
    return _HOPELESS_404.search(str(error)) is not None


def _where(spec: ModelSpec) -> str:
    """Return the endpoint without user name, password and query: they may be secrets."""
    if spec.base_url is None:
        return f"the endpoint of {spec.provider}"
    parts = urlsplit(spec.base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _class_names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _is_unreachable(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if _class_names(cause) & _NO_CONNECTION:
            return True
        cause = cause.__cause__
    return False
