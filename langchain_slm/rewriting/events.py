"""A model's own streams of events, version 3: pulled in no scope, and heard to the end.

The app pulls the answer out of such a stream after the call has returned: as in any other
call, what the model itself asks meanwhile is no call of the app's.

Relies on these names of the streams: `_request_more`, `_ensure_started`.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_model_stream import (
    AsyncChatModelStream,
    ChatModelStream,
)
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from langchain_slm.rewriting.scopes import ANSWERING, SCOPE

if TYPE_CHECKING:
    from langchain_slm.rewriting.hook import Visit


class Heard(BaseCallbackHandler):
    """Hears what a run came to: its events are the app's to read."""

    # Before the app goes on: it has the answer as soon as the task waits for anything.
    run_inline = True

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    @override
    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self._visit.keep(first_message(response))
        self._visit.done()

    @override
    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self._visit.done(error)


def opened(ask: Callable[[], ChatModelStream], visit: Visit) -> ChatModelStream:
    """Return a stream of events that is pulled as any answer is awaited."""
    stream = ask()
    pull: Any = stream._request_more  # noqa: SLF001 - as langgraph replaces it, too

    def pull_more() -> bool:
        visit.is_begun = True
        token = SCOPE.set(ANSWERING)
        try:
            more: bool = pull()
        finally:
            SCOPE.reset(token)
        return more

    stream.set_request_more(pull_more)
    if visit.is_watched:
        weakref.finalize(stream, visit.abandoned).atexit = False
    return stream


async def aopened(
    ask: Callable[[], Awaitable[AsyncChatModelStream]], _: Visit
) -> AsyncChatModelStream:
    """Return a stream of events whose task runs as any answer is awaited."""
    stream = await ask()
    start: Any = stream._ensure_started  # noqa: SLF001 - it makes the task

    async def started() -> None:
        token = SCOPE.set(ANSWERING)
        try:
            await start()
        finally:
            SCOPE.reset(token)

    stream.set_start(started)
    return stream


def first_message(result: LLMResult) -> BaseMessage | None:
    """Return what a model answered; None where it is nothing."""
    generations: Sequence[Any] = result.generations[0] if result.generations else []
    return getattr(generations[0], "message", None) if generations else None
