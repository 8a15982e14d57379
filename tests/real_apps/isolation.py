"""Keeps an app on this machine: placeholder keys, no sockets but loopback.

HTTP requests go to the endpoint of the try, whatever library sends them and whereto.
What cannot be redirected (gRPC, tunnels) fails at once.
"""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from real_apps.endpoint import AWAY

PLACEHOLDER = "placeholder"
LOOPBACK = ("127.", "localhost", "::1")
# Names under which apps and clients look for their keys.
_KEY = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|KEY|TOKEN|SECRET)\b")
_USUAL = (
    "OPENAI",
    "ANTHROPIC",
    "GOOGLE",
    "GEMINI",
    "GROQ",
    "FIREWORKS",
    "TAVILY",
    "NVIDIA",
)
_QUIET = {
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_SKIPPED = {".git", "node_modules", ".venv"}


def set_environment(checkout: Path, given: Mapping[str, str], url: str) -> None:
    """Give the app a home, placeholder keys, and a proxy that leads nowhere.

    The keys are those that its files name: what nobody reads does no harm.
    """
    files = [
        *checkout.rglob("*.py"),
        *checkout.rglob(".env.*"),
        *checkout.rglob("*.example"),
    ]
    named = {f"{name}_API_KEY" for name in _USUAL}
    for file in files:
        if file.is_file() and not _SKIPPED & set(file.parts):
            named.update(_KEY.findall(file.read_text(errors="replace")))
    named.update(name for name in os.environ if _KEY.fullmatch(name))  # no real ones
    os.environ |= dict.fromkeys(named, PLACEHOLDER)
    os.environ |= {**_QUIET, "HOME": tempfile.mkdtemp(prefix="try-app-")}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ |= {name: url, name.lower(): url}
    os.environ |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    for name, value in given.items():
        os.environ.pop(name, None) if value == "" else os.environ.update({name: value})
    sys.dont_write_bytecode = True


def close_the_network() -> None:
    """Refuse every connection but to loopback, for as long as the process lives."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "localhost"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0] or "localhost"
    else:
        return
    if not _is_here(host.decode() if isinstance(host, bytes) else str(host)):
        msg = f"no network in a try: {event} to {host}"
        raise ConnectionRefusedError(msg)


def _is_here(host: str) -> bool:
    return host.startswith(LOOPBACK)


def redirect(url: str) -> None:
    """Send all HTTP requests to `url`, the address of the endpoint."""
    for name in ("httpx", "httpx2"):
        _redirect_httpx(name, url)
    _redirect_method("requests", "Session", "send", _of_requests, url)
    _redirect_method("aiohttp", "ClientSession", "_request", _of_aiohttp, url)
    for owner in ("Session", "AsyncSession"):
        _redirect_method("curl_cffi.requests", owner, "request", _of_aiohttp, url)


def _moved(target: str, url: str) -> str | None:
    """Return where a request to `target` is sent; None where it may stay as it is.

    A server that the app expects on this machine is not there either.
    """
    parts = urlsplit(target)
    if parts.netloc in ("", urlsplit(url).netloc):
        return None
    query = f"?{parts.query}" if parts.query else ""
    return f"{url}{AWAY}{parts.hostname}{parts.path or '/'}{query}"


def _redirect_httpx(library: str, url: str) -> None:
    module = _imported(library)
    if module is None:
        return

    def moved(request: Any) -> Any:
        target = _moved(str(request.url), url)
        if target is not None:
            request.url = module.URL(target)
            request.headers["Host"] = urlsplit(url).netloc
        request.headers["X-Caller"] = _caller()
        return request

    sync, other = module.HTTPTransport, module.AsyncHTTPTransport
    for kind, name in ((sync, "handle_request"), (other, "handle_async_request")):
        _patch(kind, name, lambda _, request: ((moved(request),), {}))


def _of_requests(url: str, request: Any, **options: Any) -> Any:
    request.url = _moved(request.url, url) or request.url
    request.headers["X-Caller"] = _caller()
    return (request,), options


def _of_aiohttp(url: str, method: str, target: Any, **options: Any) -> Any:
    moved = _moved(str(target), url)
    # A request that is sent from our own patch of another library keeps its caller.
    headers = {"X-Caller": _caller(), **dict(options.get("headers") or {})}
    return (method, moved or target), {**options, "headers": headers}


def _redirect_method(
    library: str, owner: str, name: str, change: Callable[..., Any], url: str
) -> None:
    module = _imported(library)
    if module is not None:
        changed = lambda _, *args, **options: change(url, *args, **options)  # noqa: E731 - a name would say the same
        _patch(getattr(module, owner), name, changed)


def _patch(owner: type, name: str, change: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def patched(self: Any, *args: Any, **options: Any) -> Any:
        args, options = change(self, *args, **options)
        return original(self, *args, **options)

    setattr(owner, name, patched)


def _imported(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError:
        return None  # then nobody uses it


def _caller() -> str:
    """Say whether a chat model of LangChain sends what is being sent."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(
            "langchain_core/language_models/chat_models.py"
        ):
            return "chat model"
        frame = frame.f_back  # type: ignore[assignment]  # it ends with None
    return "raw client"
