"""What one request may still use, through every layer that repeats it.

An app's `with_retry`, its `with_fallbacks` and a node's retry policy make the same call
again: one request, which must not multiply into a hundred HTTP calls. A request that has
failed leaves what is left of its allowance behind, and the same question from the same
place goes on with that until a little after its deadline. One that succeeds leaves
nothing.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TypeAlias

from langchain_core.messages import BaseMessage

from langchain_slm.routing.limits import Limits

Key: TypeAlias = tuple[Hashable, int]
MOST_UNFINISHED = 4096  # failed requests that may be made again
# How long a failed request is remembered where it has no deadline.
REMEMBERED_S = 600.0
# And after its deadline: as long as a layer above waits before it tries again.
LINGERS_S = 30.0

_lock = threading.Lock()
_unfinished: OrderedDict[Key, Allowance] = OrderedDict()


class Allowance:
    """What is left for one request.

    Attributes:
        attempts: HTTP calls that it may still make.
        deadline: In seconds of `time.monotonic`; None for none.
        usd: Dollars that it has cost so far, as far as is known.
        failure: What it failed with; None until it does.
    """

    __slots__ = ("attempts", "deadline", "failure", "remembered_until", "usd")

    def __init__(self, limits: Limits, now: float) -> None:
        self.attempts = limits.max_attempts
        self.deadline = None if limits.deadline_s is None else now + limits.deadline_s
        # Settled now: failing again must not make it longer, or it might never end.
        self.remembered_until = (
            now + REMEMBERED_S if self.deadline is None else self.deadline + LINGERS_S
        )
        self.usd = 0.0
        self.failure: str | None = None


def key_of(place: Hashable, messages: Sequence[BaseMessage]) -> Key | None:
    """Return what the same request has in common wherever it is repeated.

    Args:
        place: The node run or the parent run; None where nothing repeats it.
        messages: The question.
    """
    if place is None:
        return None
    return place, hash(
        tuple((message.type, repr(message.content)) for message in messages)
    )


def take(
    limits: Limits, place: Hashable, messages: Sequence[BaseMessage], now: float
) -> Allowance:
    """Return what a request may use: all of `limits`, or what its last try left."""
    if _unfinished and (key := key_of(place, messages)) is not None:
        with _lock:
            left = _unfinished.pop(key, None)
        if left is not None and now < left.remembered_until:
            return left
    return Allowance(limits, now)


def leave(allowance: Allowance, place: Hashable, messages: Sequence[BaseMessage]) -> None:
    """Keep what a failed request has left, for when it is made again."""
    key = key_of(place, messages)
    if key is None:
        return
    now = time.monotonic()
    with _lock:
        _unfinished[key] = allowance
        while _unfinished:
            oldest = next(iter(_unfinished.values()))
            if len(_unfinished) <= MOST_UNFINISHED and now < oldest.remembered_until:
                break
            _unfinished.popitem(last=False)
