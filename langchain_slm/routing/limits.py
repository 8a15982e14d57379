"""What a router's requests may use: calls, time, money, and each model's capacity.

Pure: no I/O, no clock. `spending`, `gate` and `breaker` keep to what is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MOST = 1e9  # of seconds, dollars, calls a second: 30 years; beyond is a mistake


def _check_count(name: str, value: object, way_out: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name} must be a whole number of at least 1 ({way_out}), not {value!r}"
        raise ValueError(msg)


def _check_amount(name: str, value: object, way_out: str) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= MOST
    ):
        msg = f"{name} must be a number in (0, {MOST:g}] ({way_out}), not {value!r}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What one model's endpoint takes, from all requests of a router together.

    Attributes:
        max_in_flight: Calls at the same time, at least 1; None for any number.
        requests_per_second: Calls begun in a second on average, in (0, 1e9]; None for
            any number. After a pause, those of one second (at least one) may begin at
            once.

    Raises:
        ValueError: If a value is outside its range.
    """

    max_in_flight: int | None = None
    requests_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.max_in_flight is not None:
            _check_count("max_in_flight", self.max_in_flight, "None for any number")
        if self.requests_per_second is not None:
            _check_amount(
                "requests_per_second", self.requests_per_second, "None for any number"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLimit:
    """A bound on dollars.

    It is looked at before each call, with an estimate of what the call will cost. Calls
    in flight are not known to it: many at a time can overshoot it by what they cost.

    Attributes:
        usd: Dollars, in [0, 1e9]; 0 lets only free models answer.
        per: What they are for: one request, all requests of one run of a graph, or a
            period of that many seconds, in (0, 1e9]. A period begins with the first
            cost after the last one has ended.
        at_limit: "refuse": no further call, `BudgetExceededError`. "bound_only": the
            bound model still answers, the reference is not asked any more.

    Raises:
        ValueError: If a value is outside its range.
    """

    usd: float
    per: Literal["request", "run"] | float = "request"
    at_limit: Literal["refuse", "bound_only"] = "refuse"

    def __post_init__(self) -> None:
        if self.usd != 0 or isinstance(self.usd, bool):
            _check_amount("usd", self.usd, "0 for free models only")
        if self.per not in ("request", "run"):
            _check_amount("per", self.per, '"request" or "run" for no period')
        if self.at_limit not in ("refuse", "bound_only"):
            msg = f'at_limit must be "refuse" or "bound_only", not {self.at_limit!r}'
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a model that fails is left alone, and for how long.

    Attributes:
        failures: Failed calls in a row until then, at least 1.
        open_s: Seconds until it is tried again, in (0, 1e9].

    Raises:
        ValueError: If a value is outside its range.
    """

    failures: int = 5
    open_s: float = 30.0

    def __post_init__(self) -> None:
        way_out = "Limits(breaker=None) for no breaker"
        _check_count("failures", self.failures, way_out)
        _check_amount("open_s", self.open_s, way_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a router's requests may use.

    Attributes:
        max_attempts: HTTP calls of one request in all, at least 1.
        deadline_s: Seconds of one request in all, in (0, 1e9]; None for no deadline.
        spend: Bounds on dollars; all of them hold.
        per_model: Capacity by model name.
        breaker: When a failing model is left alone; None for never.
        max_chunks: Chunks of one streamed answer, at least 1.

    Raises:
        ValueError: If a value is outside its range.

    Example:
        >>> daily = SpendLimit(usd=20, per=86_400, at_limit="bound_only")
        >>> Limits(spend=(SpendLimit(usd=0.05), daily)).deadline_s
        600.0
    """

    max_attempts: int = 4
    deadline_s: float | None = 600.0
    spend: tuple[SpendLimit, ...] = ()
    per_model: Mapping[str, ModelLimits] = field(default_factory=dict, hash=False)
    breaker: BreakerSettings | None = BreakerSettings()
    max_chunks: int = 500_000

    def __post_init__(self) -> None:
        _check_count("max_attempts", self.max_attempts, "1 for no second try")
        if self.deadline_s is not None:
            _check_amount("deadline_s", self.deadline_s, "None for no deadline")
        _check_count("max_chunks", self.max_chunks, "leave it out for 500,000")
        _check_kinds(self)
        # A copy: what was checked must not change.
        object.__setattr__(self, "per_model", dict(self.per_model))


def _check_kinds(limits: Limits) -> None:
    spend, models, breaker = limits.spend, limits.per_model, limits.breaker
    if not (isinstance(spend, tuple) and all(isinstance(s, SpendLimit) for s in spend)):
        msg = f"spend must be a tuple, as in (SpendLimit(usd=1),), not {spend!r}"
        raise ValueError(msg)
    if not isinstance(models, Mapping) or not all(
        isinstance(name, str) and isinstance(of_it, ModelLimits)
        for name, of_it in models.items()
    ):
        msg = f'per_model must be as in {{"gpt": ModelLimits()}}, not {models!r}'
        raise ValueError(msg)
    if not (breaker is None or isinstance(breaker, BreakerSettings)):
        msg = f"breaker must be BreakerSettings(), or None for none, not {breaker!r}"
        raise ValueError(msg)
