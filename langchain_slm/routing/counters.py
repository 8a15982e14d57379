"""How often each model answered at each site, why not, and what it cost.

Pure: no I/O, no clock. Knows no content: `Decided` has no place for it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

N = TypeVar("N", int, float)
# A site or a reason that somebody made of an id or of an answer must not fill the
# memory: what is new beyond these is counted under OTHER.
MOST_ROWS = 10_000
MOST_KINDS = 100  # of reasons, and of errors, in a row
OTHER = "(other)"
AT_ONCE = 256  # requests that are counted together; so many are kept meanwhile


class Decided(NamedTuple):
    """One request, when it has ended.

    Attributes:
        site: Where it was made.
        task: The task it was assigned to; None if unknown.
        model: The model that answered, or was asked last.
        provider: Its provider.
        bound: The model that the plan binds; None where nothing is bound.
        rule: What chose: "proven", "provisional", "mapping", "default", "tool_loop" or
            "model_option".
        plan: Id of the plan that was used.
        escalated: The reference was asked.
        reason: Why it escalated, or what it failed with; never content. A class and,
            behind a colon, its details.
        error: Name of the type of what reached the caller; None when answered.
        asked: HTTP calls made, by the name of the model.
        usd: Cost of the whole request; None if unknown.
        failed_usd: The part of it that bought no answer; None if unknown.
        input_tokens: Of the answer; None if unknown.
        output_tokens: Of the answer; None if unknown.
        started_s: When it began, in seconds since 1970.
        latency_s: Seconds from there to its end.
        streamed: Answered in chunks.
    """

    site: str
    task: str | None
    model: str
    provider: str
    bound: str | None
    rule: str
    plan: str
    escalated: bool
    reason: str | None
    error: str | None
    asked: Mapping[str, int]
    usd: float | None
    failed_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    started_s: float
    latency_s: float
    streamed: bool

    @property
    def attempts(self) -> int:
        """HTTP calls made."""
        return sum(self.asked.values())


@dataclass(frozen=True, slots=True)
class Counted:
    """The requests that one model answered, or was asked last, at one site.

    All but `attempts`, which counts the model's own HTTP calls: also those of requests
    that another model answered in the end.

    Attributes:
        site: Where; `OTHER` for sites beyond `MOST_ROWS`.
        model: Which.
        calls: Requests, failed ones included.
        escalations: How many were escalated, by class of the reason.
        errors: How many ended in an error, by the name of its type.
        attempts: HTTP calls of this model.
        usd: Dollars of the requests of known cost.
        unpriced: Requests of unknown cost.
        input_tokens: Sum of those known.
        output_tokens: Sum of those known.
        latency_s: Sum over the requests, in seconds.
        slowest_s: The longest request, in seconds.
    """

    site: str
    model: str
    calls: int
    escalations: Mapping[str, int]
    errors: Mapping[str, int]
    attempts: int
    usd: float
    unpriced: int
    input_tokens: int
    output_tokens: int
    latency_s: float
    slowest_s: float


def kind(reason: str | None) -> str:
    """Return the class of a reason: what stands before its first colon.

    Example:
        >>> kind("arguments of tool search: not JSON")
        'arguments of tool search'
    """
    return (reason or "").partition(":")[0].strip() or "unknown"


def known(amount: N | None) -> N | None:
    """Return what can be summed; None for nothing, and what an endpoint made up.

    Example:
        >>> known(12), known(-1), known(math.nan)
        (12, None, None)
    """
    return amount if amount is not None and 0 <= amount < math.inf else None


class Counters:
    """Counts requests by site and by the model that answered.

    Exact under threads, and where a request ends in the midst of counting another one
    of the same thread: a stream that the garbage collector finds and closes.
    """

    def __init__(self) -> None:
        # Reentrant, for the garbage collector runs wherever it likes.
        self._lock = threading.RLock()
        self._busy = False
        self._waiting: deque[Decided] = deque()
        self._rows: dict[tuple[str, str], _Row] = {}

    def add(self, decided: Decided) -> None:
        """Count one request: now or, as many at once take less time, with others."""
        self._waiting.append(decided)
        if len(self._waiting) >= AT_ONCE:
            with self._lock:
                if not self._busy:
                    self._count()

    def read(self) -> tuple[Counted, ...]:
        """Return what was counted so far, by site and model."""
        with self._lock:
            self._count()
            self._busy = True
            try:
                rows = sorted(self._rows.items(), key=lambda row: row[0])
                return tuple(row.counted(*key) for key, row in rows)
            finally:
                self._busy = False

    def _count(self) -> None:
        self._busy = True
        try:
            while self._waiting:
                decided = self._waiting.popleft()
                self._row(decided.site, decided.model).add(decided)
                for model, attempts in decided.asked.items():
                    self._row(decided.site, model).attempts += attempts
        finally:
            self._busy = False

    def _row(self, site: str, model: str) -> _Row:
        row = self._rows.get((site, model))
        if row is not None:
            return row
        full = len(self._rows) >= MOST_ROWS
        key = (OTHER, OTHER) if full else (site, model)
        return self._rows.setdefault(key, _Row())


@dataclass(slots=True)
class _Row:
    """The sums of `Counted`, while they grow."""

    calls: int = 0
    escalations: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    usd: float = 0.0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_s: float = 0.0
    slowest_s: float = 0.0

    def add(self, decided: Decided) -> None:
        self.calls += 1
        usd = known(decided.usd)
        if usd is None:
            self.unpriced += 1
        else:
            self.usd += usd
        self.input_tokens += known(decided.input_tokens) or 0
        self.output_tokens += known(decided.output_tokens) or 0
        self.latency_s += decided.latency_s
        self.slowest_s = max(self.slowest_s, decided.latency_s)
        if decided.escalated:
            _increment(self.escalations, kind(decided.reason))
        if decided.error is not None:
            _increment(self.errors, decided.error)

    def counted(self, site: str, model: str) -> Counted:
        return Counted(
            site=site,
            model=model,
            calls=self.calls,
            escalations=dict(self.escalations),
            errors=dict(self.errors),
            attempts=self.attempts,
            usd=self.usd,
            unpriced=self.unpriced,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            latency_s=self.latency_s,
            slowest_s=self.slowest_s,
        )


def _increment(counts: dict[str, int], name: str) -> None:
    if name not in counts and len(counts) >= MOST_KINDS:
        name = OTHER
    counts[name] = counts.get(name, 0) + 1
