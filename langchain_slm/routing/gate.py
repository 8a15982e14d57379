"""How many calls of a model run at a time, and how many begin in a second."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, wait
from contextlib import closing
from typing import TypeAlias

from langchain_slm.errors import DeadlineExceededError
from langchain_slm.routing.limits import ModelLimits

Ticket: TypeAlias = Future[None]
# What to wait for, and for how long in seconds; None: for nothing but the time.
Step: TypeAlias = tuple[Ticket | None, float]


class Gate:
    """Lets calls in, in the order of their coming, as far as the limits allow.

    Threads and event loops wait in the same line. Each one in line is woken when a place
    is its own; with a rate, one at a time then waits for the moment to begin. Whoever
    is cancelled or late on the way leaves no place taken.

    Args:
        limits: What to keep to.
        clock: Returns seconds that never go back.
        sleep: Waits for some seconds, in a thread.
        asleep: Waits for some seconds, in an event loop.

    Example:
        >>> gate = Gate(ModelLimits(max_in_flight=1))
        >>> gate.enter(None)
        >>> gate.leave()
    """

    def __init__(
        self,
        limits: ModelLimits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._most = limits.max_in_flight or math.inf
        self._pace = _Pace(limits.requests_per_second)
        self._clock = clock
        self._sleep = sleep
        self._asleep = asleep
        # Reentrant: the garbage collector may end a call in the midst of another one.
        self._lock = threading.RLock()
        self._inside = 0
        self._pacing = False  # somebody inside waits for the moment to begin
        self._line: OrderedDict[Ticket, None] = OrderedDict()

    def enter(self, deadline: float | None) -> None:
        """Wait until a call may begin; `leave` when it has ended.

        Args:
            deadline: In seconds of the clock; None for none.

        Raises:
            DeadlineExceededError: If the call may not begin before the deadline.
        """
        with closing(self._steps(deadline)) as steps:
            for ticket, wait_s in steps:
                if ticket is None:
                    self._sleep(wait_s)
                else:
                    wait([ticket], wait_s)

    async def aenter(self, deadline: float | None) -> None:
        """Wait until a call may begin; asynchronous `enter`.

        Raises:
            DeadlineExceededError: If the call may not begin before the deadline.
        """
        with closing(self._steps(deadline)) as steps:
            for ticket, wait_s in steps:
                if ticket is None:
                    await self._asleep(wait_s)
                else:
                    await asyncio.wait([asyncio.wrap_future(ticket)], timeout=wait_s)

    def leave(self) -> None:
        """Free the place of a call that had entered."""
        with self._lock:
            self._inside -= 1
            self._wake()

    def _steps(self, deadline: float | None) -> Generator[Step]:
        """Yield what to wait for until the call may begin."""
        end = math.inf if deadline is None else deadline
        ticket = self._join()
        try:
            while ticket is not None and not ticket.done():
                yield ticket, self._time_left(end)
            while (wait_s := self._pace.wait_s(self._clock())) > 0:
                self._time_left(end, for_s=wait_s)
                yield None, wait_s
            self._time_left(end)
            self._begin()
        except BaseException:
            self._give_up(ticket)
            raise

    def _time_left(self, end: float, *, for_s: float = 0.0) -> float:
        """Return the seconds until `end`; an error where `for_s` does not fit in."""
        left = min(end - self._clock(), threading.TIMEOUT_MAX)
        if left <= for_s:
            msg = (
                f"no place for the call before its deadline ({self._inside} in flight, "
                f"{len(self._line)} in line): raise max_in_flight, requests_per_second "
                "or deadline_s, or send fewer calls"
            )
            raise DeadlineExceededError(msg)
        return left

    # Under the lock nothing is called between a look at the state and its change, for
    # there the garbage collector could end a call.

    def _join(self) -> Ticket | None:
        """Take a place, or else one in the line."""
        with self._lock:
            # Never while others wait: they were given every place.
            if self._inside < self._most and not self._pacing:
                self._inside += 1
                self._pacing = self._pace.is_limited
                return None
            ticket: Ticket = Future()
            self._line[ticket] = None
            self._wake()  # a place may have become free meanwhile
            return ticket

    def _wake(self) -> None:
        """Give the free places to the first in line."""
        while self._line and self._inside < self._most and not self._pacing:
            self._inside += 1
            self._pacing = self._pace.is_limited
            ticket, _ = self._line.popitem(last=False)
            ticket.set_result(None)

    def _begin(self) -> None:
        """Take the moment, and let the next one wait for theirs."""
        if self._pace.is_limited:
            self._pace.take(self._clock())
            with self._lock:
                self._pacing = False
                self._wake()

    def _give_up(self, ticket: Ticket | None) -> None:
        """Leave the line, or the place that it led to."""
        with self._lock:
            if ticket is not None and ticket in self._line:
                del self._line[ticket]
                return
            self._inside -= 1
            self._pacing = False
            self._wake()


class _Pace:
    """A token bucket, told as the moment when the next token is there.

    It holds the tokens of one second, at least one, and is full at first.
    """

    def __init__(self, per_second: float | None) -> None:
        self.is_limited = per_second is not None
        self._interval_s = 1 / per_second if per_second else 0.0
        self._ahead_s = max(0.0, 1.0 - self._interval_s) if per_second else 0.0
        self._due_s = -math.inf

    def wait_s(self, now: float) -> float:
        """Return how long to wait for a token; not above 0 for not at all."""
        return self._due_s - self._ahead_s - now

    def take(self, now: float) -> None:
        """Take a token."""
        self._due_s = max(self._due_s, now) + self._interval_s
