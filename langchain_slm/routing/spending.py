"""What was spent, by run of a graph and by period, beside the limits on it."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from langchain_slm.routing.limits import SpendLimit

MOST_RUNS = 10_000  # whose end cannot be seen; beyond, the oldest are forgotten
# Ten calls of 0.1 may use up 1.0, though their sum is not quite that.
ROUNDING = 1e-9


class Spending:
    """Sums up dollars, and says when a limit would be exceeded.

    A limit is looked at before a call and charged after it: calls in flight at the same
    time can overshoot it by what they cost. A period begins with the first charge after
    the last one has ended, so that twice its dollars can fall around a boundary.

    One object serves all threads and event loops, and nothing in it waits.

    Args:
        limits: What to keep to.
        clock: Returns seconds that never go back.

    Example:
        >>> spending = Spending((SpendLimit(usd=1, per=3600),), clock=lambda: 0.0)
        >>> spending.charge(None, 0.75)
        >>> spending.exceeded(None, 0.0, 0.5)
        SpendLimit(usd=1, per=3600, at_limit='refuse')
    """

    def __init__(
        self,
        limits: tuple[SpendLimit, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = sorted(limits, key=lambda limit: limit.at_limit != "refuse")
        self._clock = clock
        # Reentrant: the garbage collector may end a call in the midst of another one.
        self._lock = threading.RLock()
        self._periods = {
            limit.per: _Sum() for limit in limits if not isinstance(limit.per, str)
        }
        self._has_runs = any(limit.per == "run" for limit in limits)
        self._runs: WeakKeyDictionary[Hashable, _Sum] = WeakKeyDictionary()
        self._other_runs: OrderedDict[Hashable, _Sum] = OrderedDict()

    def exceeded(
        self, run: object | None, request_usd: float, coming_usd: float
    ) -> SpendLimit | None:
        """Return the limit that the next call would exceed, None where there is none.

        Args:
            run: The run of the graph that the request belongs to: an object that lives
                as long as the run, for its sum goes with it. None for none, when the
                request is a run of its own.
            request_usd: What the request has cost so far, in dollars.
            coming_usd: What the call is expected to cost, in dollars; 0 if unknown.

        Returns:
            Of several, one that refuses before one that does not.
        """
        for limit in self._limits:
            spent = self._spent(limit, run, request_usd)
            # Put like this, for what is not a number has exceeded.
            if not spent + coming_usd <= limit.usd * (1 + ROUNDING):
                return limit
        return None

    def charge(self, run: object | None, usd: float) -> None:
        """Add what a call has cost to its run and to the periods.

        Args:
            run: As in `exceeded`.
            usd: Dollars; what is no amount (negative, infinite, NaN) is not counted.
        """
        if not 0 < usd < math.inf:
            return
        now = self._clock() if self._periods else 0.0
        with self._lock:
            if self._has_runs and run is not None:
                self._run(run).usd += usd
            for period_s, period in self._periods.items():
                if now >= period.began_s + period_s:
                    period.began_s, period.usd = now, 0.0
                period.usd += usd

    def _spent(self, limit: SpendLimit, run: object | None, request_usd: float) -> float:
        if isinstance(limit.per, str):
            if limit.per == "request" or run is None:
                return request_usd
            with self._lock:
                return self._run(run).usd
        now = self._clock()
        with self._lock:
            period = self._periods[limit.per]
            return period.usd if now < period.began_s + limit.per else 0.0

    def _run(self, run: object) -> _Sum:
        try:
            return self._runs.setdefault(run, _Sum())
        except TypeError:  # it cannot be referred to weakly, or has no hash
            pass
        key = _key(run)
        spent = self._other_runs[key] = self._other_runs.pop(key, _Sum())
        if len(self._other_runs) > MOST_RUNS:
            self._other_runs.popitem(last=False)
        return spent


class _Sum:
    """Dollars, since when."""

    __slots__ = ("began_s", "usd")

    def __init__(self) -> None:
        self.began_s = -math.inf
        self.usd = 0.0


class _Same:
    """Stands for an object without a hash; holding it keeps its id from being reused."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def _key(run: object) -> Hashable:
    try:
        hash(run)
    except TypeError:
        return _Same(run)
    return run
