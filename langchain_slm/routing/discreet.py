"""Chat models that show callbacks, traces and logs nothing secret of their settings.

LangChain tells callbacks what a model dumps, what it is called with and what it raises;
HTTP libraries log URLs as they are.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial, wraps
from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_slm.routing.redacting import Scrubber, public_dump, scrub_error

MOST_HIDDEN = 256  # secrets in logs; an app that makes up keys at run time has more
_HTTP_LOGGERS = ("httpx", "httpx2", "openai._base_client", "urllib3.connectionpool")
Secrets = tuple[str, ...]
Method = Callable[..., Any]


def discreet(model: BaseChatModel, secrets: Secrets) -> BaseChatModel:
    """Return `model` as a copy that tells callbacks and traces nothing secret.

    Args:
        model: The chat model.
        secrets: Its secrets, as `secrets_of` returns them; without any it is returned.
    """
    if not secrets:
        return model
    copied = model.model_copy()
    # Past pydantic: these are no fields, and an instance may hide methods.
    held = copied.__dict__
    held["_serialized"] = public_dump(model)
    held["metadata"] = Scrubber(secrets).value(model.metadata)
    # By a weak reference: a cycle would keep connections until it is collected.
    itself = weakref.ref(copied)
    for name, wrap in _WRAPS.items():
        original = held.get(name) or partial(_of_class, itself, name)
        held[name] = wraps(getattr(type(model), name))(wrap(original, secrets))
    return copied


def _of_class(
    itself: weakref.ref[BaseChatModel], name: str, *args: Any, **kw: Any
) -> Any:
    model = itself()
    return getattr(type(model), name)(model, *args, **kw)


def _told(original: Method, secrets: Secrets) -> Method:
    def told(*args: Any, **options: Any) -> Any:
        return Scrubber(secrets).value(original(*args, **options))

    return told


def _generate(original: Method, secrets: Secrets) -> Method:
    def generate(*args: Any, **options: Any) -> Any:
        try:
            return original(*args, **options)
        except Exception as error:  # noqa: BLE001 - of any client
            raised = scrub_error(error, secrets)
        raise raised

    return generate


def _agenerate(original: Method, secrets: Secrets) -> Method:
    async def agenerate(*args: Any, **options: Any) -> Any:
        try:
            return await original(*args, **options)
        except Exception as error:  # noqa: BLE001 - of any client
            raised = scrub_error(error, secrets)
        raise raised

    return agenerate


def _stream(original: Method, secrets: Secrets) -> Method:
    def stream(*args: Any, **options: Any) -> Iterator[Any]:
        try:
            yield from original(*args, **options)
        except Exception as error:  # noqa: BLE001 - of any client
            raised = scrub_error(error, secrets)
        else:
            return
        raise raised

    return stream


def _astream(original: Method, secrets: Secrets) -> Method:
    async def astream(*args: Any, **options: Any) -> AsyncIterator[Any]:
        chunks = original(*args, **options)
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:  # noqa: BLE001 - of any client
            raised = scrub_error(error, secrets)
        else:
            return
        finally:
            await chunks.aclose()
        raise raised

    return astream


_WRAPS: dict[str, Callable[[Method, Secrets], Method]] = {
    "_get_invocation_params": _told,
    "_generate": _generate,
    "_agenerate": _agenerate,
    "_stream": _stream,
    "_astream": _astream,
}


class _LogFilter(logging.Filter):
    """Hides the passwords of URLs, which HTTP libraries log as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._hidden: list[str] = []
        self._scrubber = Scrubber(())

    def hide(self, secrets: Iterable[str]) -> None:
        new = [secret for secret in secrets if secret not in self._hidden]
        if new:
            self._hidden = [*self._hidden, *new][-MOST_HIDDEN:]
            self._scrubber = Scrubber(self._hidden)

    def filter(self, record: logging.LogRecord) -> bool:
        told = record.getMessage()
        if (clean := self._scrubber.text(told)) != told:
            record.msg, record.args = clean, ()
        return True


_log_filter = _LogFilter()


def hide_in_logs(secrets: Iterable[str]) -> None:
    """Keep secrets out of what the HTTP libraries log of each request."""
    _log_filter.hide(secrets)
    for name in _HTTP_LOGGERS:
        logging.getLogger(name).addFilter(_log_filter)  # once, however often
