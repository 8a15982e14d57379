"""Leaves a model alone that fails again and again, and tries it now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from langchain_slm.routing.limits import BreakerSettings


class Breaker:
    """Counts failures in a row; past their limit, lets one probe at a time through.

    Every call that `allows` let through reports `succeeded`, `failed` or `abandoned`,
    once. Whatever succeeds closes the breaker. While it is open, failures of calls that
    began before are old news; while a probe runs, they count as the probe's own.

    One object serves all threads and event loops, and nothing in it waits.

    Args:
        settings: When it opens, and for how long.
        clock: Returns seconds that never go back.

    Example:
        >>> breaker = Breaker(BreakerSettings(failures=1), clock=lambda: 0.0)
        >>> breaker.failed()
        >>> breaker.allows(), breaker.state
        (False, 'open')
    """

    def __init__(
        self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        # Reentrant: the garbage collector may end a call in the midst of another one.
        self._lock = threading.RLock()
        self._failures = 0
        self._probe_from: float | None = None  # None while closed
        self._probing = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Return "half-open" from when a probe may run until its result."""
        probe_from = self._probe_from
        if probe_from is None:
            return "closed"
        return "open" if self._clock() < probe_from else "half-open"

    def allows(self) -> bool:
        """Whether the model may be called; while half-open, True makes it the probe."""
        if self._probe_from is None:
            return True
        now = self._clock()
        with self._lock:
            if self._probe_from is None:
                return True
            if self._probing or now < self._probe_from:
                return False
            self._probing = True
            return True

    def succeeded(self) -> None:
        """Report that the model answered."""
        if self._failures:
            with self._lock:
                self._failures = 0
                self._probe_from = None

    def failed(self) -> None:
        """Report that the model did not answer, for reasons of its own."""
        now = self._clock()
        with self._lock:
            if self._probe_from is None:
                self._failures += 1
                opens = self._failures >= self._settings.failures
            else:
                opens = now >= self._probe_from
            if opens:
                self._probe_from = now + self._settings.open_s
                self._probing = False

    def abandoned(self) -> None:
        """Report that a call ended without saying anything about the model.

        It was cancelled, or refused for the request's own fault. A probe's place is free
        again; nothing is counted.
        """
        if self._probing:
            with self._lock:
                self._probing = False
