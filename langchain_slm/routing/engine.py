"""What the requests of one router share: limits, money, counts, and models to call.

Nothing here decides what answers a call; `binding` does, and `cascade` carries it out.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_slm.catalog import price_from_genai_prices
from langchain_slm.economics import call_usd
from langchain_slm.routing import dialect
from langchain_slm.routing.breaker import Breaker
from langchain_slm.routing.counters import Counters, Decided
from langchain_slm.routing.discreet import discreet, hide_in_logs
from langchain_slm.routing.gate import Gate
from langchain_slm.routing.limits import Limits, SpendLimit
from langchain_slm.routing.quiet import own_retries, quiet
from langchain_slm.routing.redacting import secrets_of
from langchain_slm.routing.spending import Spending
from langchain_slm.schema import ModelSpec, Usage

if TYPE_CHECKING:
    from langchain_slm.routing.asking import Ask

logger = logging.getLogger(__name__)
Prices: TypeAlias = Mapping[str, tuple[float, float]]
Listener: TypeAlias = Callable[[Decided], None]
# Models of these packages answer within the process: nothing of theirs can hang.
IN_PROCESS = frozenset({"langchain_core", "langchain_slm"})
CHARACTERS_PER_TOKEN = 4  # as `count_tokens_approximately` has it; an estimate
HEAD_TYPE = "langchain-slm-head"  # costs nothing: it answers within the process
_ONE_TOKEN = Usage(input_tokens=1, output_tokens=1)
MOST_REFERENCES = 64  # models that an app makes at run time; the oldest is made again


class Callee:
    """A chat model as requests call it.

    Attributes:
        source: The model as it was given.
        name: Its name in metadata, counters and limits.
        provider: LangChain's name of its provider.
        spec: Its prices; None if they are unknown.
        is_remote: Whether its calls leave the process.
        is_router: Whether it is a `ChatRouter`, with limits of its own.
        breaker: Keeps requests from it while it fails; None for one that always tries.
        gate: Its own limits of concurrency and rate; None for none.
    """

    def __init__(self, source: BaseChatModel, name: str, engine: Engine) -> None:
        self.source = source
        self.name = name
        self.provider = dialect.provider_name(source)
        self.is_remote = type(source).__module__.partition(".")[0] not in IN_PROCESS
        self.is_router = dialect.is_router(source)
        self.states_finish = self.provider in dialect.REPORTS_FINISH_REASON
        self.spec: ModelSpec | None = None
        self.breaker: Breaker | None = None
        self.gate: Gate | None = engine.gate(name)
        self.model = source
        # What must not appear in traces, logs and errors of its.
        self.secrets: tuple[str, ...] = ()
        if self.is_remote:
            self.secrets = secrets_of(source)
            hide_in_logs(self.secrets)
            # The engine counts every call: the client must not repeat one by itself.
            self.model = discreet(quiet(source), self.secrets)

    @cached_property
    def unstreamed(self) -> BaseChatModel:
        """The model, for an app that has switched off the streams of its own."""
        return self.model.model_copy(update={"disable_streaming": True})

    @cached_property
    def tries(self) -> int:
        """How often it is asked where the app's own client would repeat."""
        return 1 + own_retries(self.source)

    def usd(self, usage: Usage) -> float | None:
        """Return the cost of an answer in dollars; None if unknown."""
        return None if self.spec is None else call_usd(self.spec, usage)

    def least_usd(self, messages: Sequence[BaseMessage]) -> float | None:
        """Return about what a question costs before it is answered; None if unknown."""
        characters = sum(len(str(message.content)) for message in messages)
        tokens = characters // CHARACTERS_PER_TOKEN
        return self.usd(Usage(input_tokens=tokens, output_tokens=0))


class Engine:
    """The state behind routes; threads and event loops share it.

    Args:
        limits: What one request may use, and what all of them may.
        prices: Dollars per million (input, output) tokens, by the name of the model;
            they go before a plan's and those that genai-prices lists.
        listeners: Told of each request when it has ended.

    Raises:
        ValueError: If a price is not two numbers of dollars, at least 0.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        prices: Prices | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self.spending = Spending(self.limits.spend) if self.limits.spend else None
        self._prices = {name: _priced(name, of) for name, of in (prices or {}).items()}
        self._listeners = tuple(listeners)
        self._lock = threading.RLock()
        self._bound: dict[tuple[int, str], Callee] = {}
        self._references: OrderedDict[tuple[int, str | None], Callee] = OrderedDict()
        # By name and endpoint: a plan that is loaded again keeps them.
        self._breakers: dict[tuple[str, str | None], Breaker] = {}
        self._gates: dict[str, Gate] = {}

    def gate(self, name: str) -> Gate | None:
        """Return the gate of the model of that name; None where it has no limits."""
        limits = self.limits.per_model.get(name)
        if limits is None:
            return None
        with self._lock:
            return self._gates.setdefault(name, Gate(limits))

    def bound(
        self, model: BaseChatModel, name: str, spec: ModelSpec | None = None
    ) -> Callee:
        """Return how a bound model is called: behind a breaker."""
        key = id(model), name
        with self._lock:
            if (known := self._bound.get(key)) is not None:
                return known
        callee = Callee(model, name, self)
        callee.spec = self._prices.get(name) or spec or _listed(model, callee.provider)
        with self._lock:
            if callee.is_remote and self.limits.breaker is not None:
                breaker = Breaker(self.limits.breaker)
                place = name, _endpoint_of(model)
                callee.breaker = self._breakers.setdefault(place, breaker)
            return self._bound.setdefault(key, callee)

    def bound_by_name(self, name: str) -> Callee | None:
        """Return how the bound model of that name is called; None if there is none."""
        with self._lock:
            found = [c for c in self._bound.values() if c.name == name]
        return found[-1] if found else None

    def unpriced(self) -> list[str]:
        """Return the bound models that have no price although dollars are limited."""
        if not self.limits.spend:
            return []
        callees = self._bound.values()
        return [c.name for c in callees if c.spec is None or c.usd(_ONE_TOKEN) is None]

    def circuits(self, names: Iterable[str]) -> dict[str, str]:
        """Return the state of the breakers of these models.

        Of one name at several endpoints, that of the one in trouble.
        """
        wanted, states = set(names), dict[str, str]()
        with self._lock:
            breakers = list(self._breakers.items())
        for (name, _), breaker in breakers:
            if name in wanted and states.get(name, "closed") == "closed":
                states[name] = breaker.state
        return states

    def keep(self, models: Iterable[BaseChatModel]) -> None:
        """Forget all bound models but these: plans have changed."""
        kept = {id(model) for model in models}
        with self._lock:
            for key in [key for key in self._bound if key[0] not in kept]:
                del self._bound[key]

    def reference(self, model: BaseChatModel, stated: str | None = None) -> Callee:
        """Return how the app's own model is called: whatever happened before.

        Args:
            model: The model.
            stated: The name of another one that a call asks it for, if any.
        """
        key = id(model), stated
        known = self._references.get(key)
        if known is not None and known.source is model:
            return known
        callee = Callee(model, stated or dialect.model_name(model), self)
        listed = _listed(model, callee.provider)
        callee.spec = self._prices.get(callee.name) or listed
        with self._lock:
            self._references[key] = callee
            while len(self._references) > MOST_REFERENCES:
                self._references.popitem(last=False)
        return callee

    def forbids(self, callee: Callee, ask: Ask, usd: float) -> SpendLimit | None:
        """Return the limit of dollars that another call would exceed, if any.

        A model of unknown price may exceed any of them: it counts as doing so.

        Args:
            callee: The model that would be called.
            ask: The request.
            usd: What the request has cost so far.
        """
        if self.spending is None:
            return None
        coming = callee.least_usd(ask.messages)
        return self.spending.exceeded(
            ask.run, usd, math.inf if coming is None else coming
        )

    def charge(self, callee: Callee, ask: Ask, usd: float | None) -> float:
        """Count what a call cost against the limits of dollars; return that.

        Args:
            callee: The model that was called.
            ask: The request.
            usd: What it cost; if unknown, it is counted as what the question costs.
        """
        if self.spending is None:
            return 0.0
        charged = usd if usd is not None else callee.least_usd(ask.messages) or 0.0
        self.spending.charge(ask.run, charged)
        return charged

    def ended(self, decided: Decided) -> None:
        """Count a request, and tell the listeners of it."""
        self.counters.add(decided)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "site %r: %s %s (rule %s, %d HTTP calls, %.3f s)",
                decided.site,
                decided.model,
                "answered" if decided.error is None else f"failed: {decided.error}",
                decided.rule,
                decided.attempts,
                decided.latency_s,
            )
        for listener in self._listeners:
            try:
                listener(decided)
            except Exception as error:  # noqa: BLE001 - an app's own; the answer is there
                logger.warning("a listener failed (%s)", type(error).__name__)


def _priced(name: str, price: object) -> ModelSpec:
    fields = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
    pair = price if isinstance(price, tuple | list) else ()
    usd = [
        each for each in pair if isinstance(each, int | float) and 0 <= each < math.inf
    ]
    if len(usd) != len(fields) or len(pair) != len(fields):
        msg = (
            f"the price of {name!r} must be two numbers, dollars per million input and "
            f"output tokens, as in (0.1, 0.4), not {price!r}"
        )
        raise ValueError(msg)
    prices = dict(zip(fields, usd, strict=True))
    return ModelSpec(name=name, provider="", model=name, **prices)


def _listed(model: BaseChatModel, provider: str) -> ModelSpec | None:
    """Return the listed prices of a model; None where none are known."""
    if model._llm_type == HEAD_TYPE:  # noqa: SLF001 - the name that every model has
        free = {"usd_per_million_input_tokens": 0, "usd_per_million_output_tokens": 0}
        return ModelSpec(name="head", provider="head", model="head", **free)
    package = type(model).__module__.partition(".")[0]
    if package == "langchain_core" or not package.startswith("langchain_"):
        return None
    name = dialect.model_name(model)
    found = price_from_genai_prices(provider, name, base_url=_endpoint_of(model))
    if found is None:
        return None
    return ModelSpec(
        name=name,
        provider=provider,
        model=name,
        usd_per_million_input_tokens=found[0],
        usd_per_million_output_tokens=found[1],
    )


def _endpoint_of(model: BaseChatModel) -> str | None:
    """Return the URL that a model was given; None for its provider's own."""
    for field in ("openai_api_base", "base_url", "endpoint"):
        if isinstance(url := getattr(model, field, None), str):
            return url
    return None
