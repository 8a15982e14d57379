"""What one request costs, thrown-away answers included. The unknown is never 0."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from langchain_slm.routing import dialect
from langchain_slm.routing.allowance import Allowance
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.engine import Engine
from langchain_slm.routing.failures import status_of
from langchain_slm.routing.turn import Turn


class Bill:
    """The cost of one request.

    Attributes:
        usd: Dollars of all tries; None if that of any is unknown.
        failed_usd: The part that bought no answer; None if unknown.
        usage: Tokens of the last answer.
    """

    __slots__ = (
        "_allowance",
        "_ask",
        "_bought_usd",
        "_engine",
        "failed_usd",
        "usage",
        "usd",
    )

    def __init__(self, engine: Engine, ask: Ask, left: Allowance) -> None:
        self._engine, self._ask, self._allowance = engine, ask, left
        self.usd: float | None = 0.0
        self.failed_usd: float | None = 0.0
        self.usage = dialect.UNKNOWN_USAGE
        self._bought_usd: float | None = 0.0  # of the last answer, if it is good

    def charge(self, turn: Turn, message: AIMessage) -> None:
        """Count an answer, which may turn out to be wasted."""
        turn.charged = True
        self.usage = dialect.usage_of(message)
        self._bought_usd = turn.callee.usd(self.usage)
        self._spend(turn, self._bought_usd)

    def waste(self, turn: Turn, error: BaseException | None = None) -> None:
        """Count a try that bought no answer: a refusal is free, the rest is unknown."""
        if turn.charged:
            usd, self._bought_usd = self._bought_usd, 0.0
        else:
            refused = error is not None and status_of(error) is not None
            usd = 0.0 if refused or not turn.callee.is_remote else None
            self._spend(turn, usd)
        self.failed_usd = _sum(self.failed_usd, usd)

    def _spend(self, turn: Turn, usd: float | None) -> None:
        self.usd = _sum(self.usd, usd)
        self._allowance.usd += self._engine.charge(turn.callee, self._ask, usd)


def _sum(total: float | None, more: float | None) -> float | None:
    return None if total is None or more is None else total + more
