"""Keep a bound model's tokens from live listeners until its answer is accepted.

LangGraph's `stream_mode="messages"` shows a model's tokens as callbacks report them,
before anybody has judged the answer. A listener must never see a rejected answer
followed by another one.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.callbacks.base import Callbacks
from langchain_core.callbacks.manager import handle_event
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tracers._streaming import (
    _StreamingCallbackHandler,
    _V2StreamingCallbackHandler,
)


class Held:
    """The callbacks to call a model with, and what live listeners have not seen yet."""

    def __init__(self, callbacks: Callbacks, holders: list[_Holder]) -> None:
        self.callbacks = callbacks
        self._holders = holders

    def release(self) -> None:
        """Show the listeners everything held, and everything to come at once."""
        for holder in self._holders:
            holder.release()

    def chunks(self) -> list[BaseMessage]:
        """Return the chunks of the model's answer that are held back."""
        return self._holders[0].chunks() if self._holders else []


NOTHING_HELD = Held(None, [])


def hold(callbacks: Callbacks, *, active: bool) -> Held:
    """Return `callbacks` with each live listener behind a holder.

    Without a live listener, or when `active` is False, they are passed as they are.
    """
    if not active or not callbacks:
        return Held(callbacks, [])
    listening = callbacks if isinstance(callbacks, list) else callbacks.handlers
    holders = {id(h): _holder(h) for h in listening if _is_live(h)}
    if not holders:
        return Held(callbacks, [])
    swapped: Callbacks
    if isinstance(callbacks, BaseCallbackManager):
        swapped = callbacks.copy()
        swapped.handlers = [holders.get(id(h), h) for h in callbacks.handlers]
        swapped.inheritable_handlers = [
            holders.get(id(h), h) for h in callbacks.inheritable_handlers
        ]
    else:
        swapped = [holders.get(id(h), h) for h in callbacks]
    return Held(swapped, list(holders.values()))


def _is_live(handler: BaseCallbackHandler) -> bool:
    # An async handler (astream_events) tells runs apart by their id; it needs no holding.
    live = isinstance(handler, _StreamingCallbackHandler | _V2StreamingCallbackHandler)
    return live and getattr(handler, "run_inline", False)


def _holder(handler: BaseCallbackHandler) -> _Holder:
    if isinstance(handler, _V2StreamingCallbackHandler):
        return _V2Holder(handler)
    return _V1Holder(handler)


class _Holder(BaseCallbackHandler):
    """Stands for a listener: keeps the events of one model run until released."""

    run_inline = True

    def __init__(self, listener: BaseCallbackHandler) -> None:
        self._listener = listener
        self.raise_error = listener.raise_error
        self._events: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = []
        self._open = False

    def release(self) -> None:
        self._open = True
        events, self._events = self._events, []
        for name, ignored, args, kwargs in events:
            self._tell(name, ignored, args, kwargs)

    def chunks(self) -> list[BaseMessage]:
        given = [kwargs.get("chunk") for _, _, _, kwargs in self._events]
        return [c.message for c in given if isinstance(c, ChatGenerationChunk)]

    def _hear(self, name: str, ignored: str, args: Any, kwargs: Any) -> None:
        if self._open:
            self._tell(name, ignored, args, kwargs)
        else:
            self._events.append((name, ignored, args, kwargs))

    def _tell(self, name: str, ignored: str, args: Any, kwargs: Any) -> None:
        # LangChain's own way: a listener that fails is logged and fails nobody else.
        handle_event([self._listener], name, ignored, *args, **kwargs)

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self._hear("on_chat_model_start", "ignore_chat_model", args, kwargs)

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self._hear("on_llm_new_token", "ignore_llm", args, kwargs)

    def on_stream_event(self, *args: Any, **kwargs: Any) -> None:
        self._hear("on_stream_event", "ignore_llm", args, kwargs)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self._hear("on_llm_end", "ignore_llm", args, kwargs)

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self._hear("on_llm_error", "ignore_llm", args, kwargs)


class _V1Holder(_Holder, _StreamingCallbackHandler[Any]):
    """A holder to which models stream tokens."""

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        del run_id
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        del run_id
        return output


class _V2Holder(_Holder, _V2StreamingCallbackHandler):
    """A holder to which models stream content-block events."""
