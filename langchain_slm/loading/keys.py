"""Keys that an app's import asks for: which one is missing, and what stands in for it.

A placeholder lets a client be constructed, never used: while placeholders may be set,
connections beyond this machine are refused. Values of variables are never shown.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_slm.errors import GraphLoadError

PLACEHOLDER = "placeholder-for-inspection"
# What clients that are used with LangChain read from the environment.
KEY_NAMES = (
    "OPENAI_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "NVIDIA_API_KEY",
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "CO_API_KEY",
    "COHERE_API_KEY",
    "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY",
    "TOGETHER_API_KEY",
    "OPENROUTER_API_KEY",
    "PPLX_API_KEY",
    "PERPLEXITY_API_KEY",
    "XAI_API_KEY",
    "CEREBRAS_API_KEY",
    "AI21_API_KEY",
    "DASHSCOPE_API_KEY",
    "HUGGINGFACEHUB_API_TOKEN",
    "HF_TOKEN",
    "VOYAGE_API_KEY",
    "TAVILY_API_KEY",
    "EXA_API_KEY",
    "SERPER_API_KEY",
    "SERPAPI_API_KEY",
    "BRAVE_SEARCH_API_KEY",
    "FIRECRAWL_API_KEY",
    "PINECONE_API_KEY",
    "LANGSMITH_API_KEY",
    "LANGCHAIN_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "OPENAI_API_VERSION",
)
# What must have the form of an address or of a version.
_FORMS = {
    "AZURE_OPENAI_ENDPOINT": "https://placeholder.invalid",
    "OPENAI_API_VERSION": "2024-10-21",
}
# Clients whose message does not name the variable.
_BY_PACKAGE = {"google.genai": "GOOGLE_API_KEY"}
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_SECRET = re.compile(r"(?i)KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|_URL|_URI|_DSN")
SHORTEST = 6  # characters; a shorter value would be found in any text
_REFUSED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
_LOCAL = ("127.", "::1", "localhost")


def message_of(error: BaseException) -> str:
    """Return the text of an app's error, whose own code makes it and may fail."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever the app's code raises
        return "(its message cannot be made)"


def missing_key(error: BaseException) -> str | None:
    """Return the environment variable whose absence an error is about; None for none.

    Either one that well-known clients read, or any that a `KeyError` names.
    """
    for each in _chain(error):
        text = message_of(each)
        names: list[str] = _VARIABLE.findall(text)
        known = [name for name in KEY_NAMES if name in names and not os.environ.get(name)]
        if known:
            return known[0]
        if isinstance(each, KeyError) and names and names[0] not in os.environ:
            return names[0]
        if "API key" in text and (name := _name_by_package(each)):
            return name
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:  # `raise error from error`
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _name_by_package(error: BaseException) -> str | None:
    frames = error.__traceback__
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        for package, name in _BY_PACKAGE.items():
            if module.startswith(package) and not os.environ.get(name):
                return name
        frames = frames.tb_next
    return None


def without_secrets(text: str, more: Mapping[str, str] | None = None) -> str:
    """Return `text` with the values of environment variables replaced by their names.

    Args:
        text: An app's own message, which may quote anything.
        more: Variables whose values are all secret, whatever they are called.
    """
    values = {k: v for k, v in os.environ.items() if _SECRET.search(k)} | dict(more or {})
    longest_first = sorted(values.items(), key=lambda item: -len(item[1]))
    for name, value in longest_first:
        if len(value) >= SHORTEST:
            text = text.replace(value, f"<value of {name}>")
    return text


class Placeholders:
    """Sets a placeholder for each key that turns out to be missing, and takes it back.

    Attributes:
        names: The variables set so far.
    """

    def __init__(self) -> None:
        self.names: list[str] = []

    def stand_in(self, error: GraphLoadError) -> bool:
        """Set the variable that `error` misses; False if it misses none that may be."""
        name = error.fields.get("missing_key")
        if not isinstance(name, str) or name not in KEY_NAMES or name in self.names:
            return False
        os.environ[name] = _FORMS.get(name, PLACEHOLDER)
        self.names.append(name)
        return True

    def remove(self) -> None:
        """Take the placeholders out of the environment."""
        for name in self.names:
            if os.environ.get(name) == _FORMS.get(name, PLACEHOLDER):
                del os.environ[name]


class _Guard:
    """Refuses connections while it is active; idle otherwise. One in a process."""

    def __init__(self) -> None:
        self._placed = False
        self._active = 0

    def enter(self) -> None:
        if not self._placed:
            sys.addaudithook(self._refuse)  # which nothing can remove
            self._placed = True
        self._active += 1

    def leave(self) -> None:
        self._active -= 1

    def _refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active or event not in _REFUSED:
            return
        host = arguments[0]
        if event == "socket.connect":
            connected, address = arguments
            internet = connected.family in (socket.AF_INET, socket.AF_INET6)
            host = address[0] if internet else None
        if host and not str(host).startswith(_LOCAL):
            msg = f"no connection to {host}: placeholders stand for keys"
            raise ConnectionRefusedError(msg)


_guard = _Guard()


@contextmanager
def offline() -> Iterator[None]:
    """Refuse connections beyond this machine meanwhile, in every thread.

    Raises:
        ConnectionRefusedError: Where one is tried, inside.
    """
    _guard.enter()
    try:
        yield
    finally:
        _guard.leave()
