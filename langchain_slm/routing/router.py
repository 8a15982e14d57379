"""What answers where, with all that requests share: the one engine behind every face.

A `Router` serves `rewrite`, `ChatRouter` and `RouterMiddleware`. A plan file is looked at
now and then, and a changed one is loaded in the background: each call uses one whole
plan, the old one or the new one, and a file that cannot be used changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from typing_extensions import override

from langchain_slm.errors import CatalogError, SLMError
from langchain_slm.routing import dialect
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.binding import POLICIES, MappingGuide, PlanGuide, guide_of
from langchain_slm.routing.counters import Counted
from langchain_slm.routing.engine import Engine, Listener, Prices
from langchain_slm.routing.limits import Limits
from langchain_slm.routing.places import without_agent
from langchain_slm.routing.policy import NeverEscalate, Policy
from langchain_slm.routing.route import Route
from langchain_slm.schema import Decision, Plan

logger = logging.getLogger(__name__)
PlanLike: TypeAlias = Plan | str | Path | Mapping[str, BaseChatModel | str]
Signature: TypeAlias = tuple[int, int, int]
RELOAD_S = 1.0
MOST_UNBOUND = 1000  # sites whose route is kept; an app that makes up sites has more


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a router does at a site, and why.

    Attributes:
        site: Where.
        plan: Id of the plan.
        models: Name of what answers, by task; "" for a site that is one task. A task or
            site that is not in it calls the reference.
        reasons: A line for people for each of them, kept ones included.
        circuits: State of the breaker of each bound model: "closed", "open" or
            "half-open".
    """

    site: str
    plan: str
    models: Mapping[str, str]
    reasons: Sequence[str]
    circuits: Mapping[str, str]

    def __str__(self) -> str:
        head = f"site {self.site!r} (plan {self.plan})"
        lines = self.reasons or ("nothing is bound: the reference answers",)
        troubled = [
            f"circuit of {name}: {state}"
            for name, state in self.circuits.items()
            if state != "closed"
        ]
        return "\n  ".join([head, *lines, *troubled])


class Router:
    """What a plan binds, under limits, counted.

    Args:
        plan: A plan, the path of a plan file, or `{site: chat model or
            "provider:model"}`.
        limits: What one request may use, and what all may.
        policy: When the reference is asked, in the place of what the plan says.
        prices: Dollars per million (input, output) tokens, by the name of the model.
        listeners: Called with a `Decided` when a request has ended.
        allowed_hosts: Hosts that a plan may name as `base_url`; by default this machine
            and the providers' own.
        reload_s: How often a plan file is looked at, in seconds.

    Raises:
        PlanError: If the plan cannot be used; `PlanEditedError` if edited by hand.
        CatalogError: If the key of a bound model is not in the environment, or a limit
            of dollars is set and a bound model has no price.
        MissingExtraError: If a bound model needs a package that is not installed.
        ValueError: If a price is not two numbers of dollars, at least 0.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> small = FakeListChatModel(responses=["billing"])
        >>> print(Router({"triage": small}).explain("triage").models[""])
        FakeListChatModel
    """

    def __init__(
        self,
        plan: PlanLike,
        *,
        limits: Limits | None = None,
        policy: Policy | None = None,
        prices: Prices | None = None,
        listeners: Sequence[Listener] = (),
        allowed_hosts: frozenset[str] | None = None,
        reload_s: float = RELOAD_S,
    ) -> None:
        self._given = partial(
            Router,
            plan,
            limits=limits,
            policy=policy,
            prices=prices,
            listeners=listeners,
            allowed_hosts=allowed_hosts,
            reload_s=reload_s,
        )
        self.engine = Engine(limits, prices=prices, listeners=listeners)
        self._policy = policy
        self._allowed_hosts = allowed_hosts
        self._file = Path(plan) if isinstance(plan, str | Path) else None
        self._reload_s = reload_s
        self._unbound: dict[tuple[str, str], Route] = {}
        self._loading = threading.Lock()
        self._next_look = time.monotonic() + reload_s
        self._signature = self._signed()
        self._before: PlanGuide | MappingGuide | None = None
        self._guide = self._guided(plan)
        self._check_prices()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._given, ()  # another process counts for itself

    def __copy__(self) -> Router:
        return self

    def __deepcopy__(self, memo: Any) -> Router:
        # Copies of what holds it share its limits and counters.
        return self

    def _guided(self, plan: PlanLike) -> PlanGuide | MappingGuide:
        now = getattr(self, "_guide", None)
        return guide_of(
            plan,
            allowed_hosts=self._allowed_hosts,
            engine=self.engine,
            policy=self._policy,
            known=now.targets if isinstance(now, PlanGuide) else None,
        )

    def _check_prices(self) -> None:
        unpriced = self.engine.unpriced()
        if unpriced:
            msg = (
                f"a limit of dollars is set, but the price of {', '.join(unpriced)} is "
                f"not known; give it, as in prices={{'{unpriced[0]}': (0.1, 0.4)}}"
            )
            raise CatalogError(msg, models=unpriced)

    @property
    def plan_id(self) -> str:
        """Equal only where every call would be answered alike."""
        return self._guide.plan_id

    @property
    def fingerprint(self) -> str | None:
        """Of the graph that the plan was made for; None if unknown."""
        return self._guide.fingerprint

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""
        return self._guide.sites

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers a call at `site`; None for the model that was called."""
        if self._file is not None:
            self._look()
        guide = self._guide  # one whole plan, whatever is loaded meanwhile
        route = guide.route(site, ask)
        messages = ask.messages
        if messages and messages[-1].type == "tool":
            return self._staying(site, ask, route, guide.plan_id)
        return route

    def bound_name(self, site: str) -> str | None:
        """Return the name of a model that is bound at `site`; None for none."""
        return self._guide.bound_name(site)

    def unbound(self, site: str, rule: str = "default") -> Route:
        """Return the route by which the reference answers for itself."""
        plan = self._guide.plan_id
        known = self._unbound.get((site, rule))
        if known is not None and known.plan == plan:
            return known
        route = Route(
            site=site,
            target=None,
            name=None,
            rule=rule,
            policy=NeverEscalate(),
            engine=self.engine,
            plan=plan,
        )
        if len(self._unbound) < MOST_UNBOUND:
            self._unbound[site, rule] = route
        return route

    def _staying(
        self, site: str, ask: Ask, route: Route | None, plan: str
    ) -> Route | None:
        """Return what goes on with a tool loop: the model that began it."""
        model = _model_of_loop(site, ask)
        if model is None or (route is not None and model == route.name):
            return route
        source = dialect.model_name(ask.source, ask.options)
        if model == source:
            return None if route is None else self.unbound(site, "tool_loop")
        known = self.engine.bound_by_name(model)
        if known is None or not self._stands_in(model, source, site):
            return route  # a plan of long ago, or the app calls another model now
        return Route(
            site=site,
            target=known.source,
            name=model,
            rule="tool_loop",
            policy=route.policy if route else self._policy or POLICIES["on_invalid"],
            engine=self.engine,
            spec=known.spec,
            plan=plan,
        )

    def _stands_in(self, model: str, source: str, site: str) -> bool:
        guides = (self._guide, self._before or self._guide)
        return any(guide.binds(model, source, site) for guide in guides)

    def explain(self, site: str) -> Explanation:
        """Return what happens at a site, and why."""
        guide = self._guide
        if isinstance(guide, MappingGuide):
            found = guide.bound_name(site)
            names = {} if found is None else {"": found}
            reasons = [f"{name}: given by the app's mapping" for name in names.values()]
        else:
            sites = {decision.site for decision in guide.plan.decisions}
            found = site if site in sites else without_agent(site)
            decided = [d for d in guide.plan.decisions if d.site == found]
            active = [d for d in guide.plan.active if d.site == found]
            names = {d.task.task_id if d.task else "": d.model for d in active}
            reasons = [_reason(d) for d in decided]
        return Explanation(
            site=site,
            plan=guide.plan_id,
            models=names,
            reasons=tuple(reasons),
            circuits=self.engine.circuits(names.values()),
        )

    def counters(self) -> tuple[Counted, ...]:
        """Return what was counted so far, by site and model."""
        return self.engine.counters.read()

    # A plan file that changes

    def _signed(self) -> Signature | None:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + self._reload_s
        if self._signed() not in (None, self._signature):
            # Not here: reading it may import a provider's client, for a second.
            thread = threading.Thread(
                target=self.refresh, name="langchain-slm-reload", daemon=True
            )
            with suppress(RuntimeError):  # no thread to be had: at the next look
                thread.start()

    def refresh(self) -> None:
        """Load the plan file now if it has changed; keep the plan where it is no good."""
        with self._loading:
            # Before it is read: a change while it is read is seen at the next look.
            signature = self._signed()
            if self._file is None or signature in (None, self._signature):
                return
            self._signature = signature
            try:
                guide = self._guided(self._file)
                self._check_prices()
            except Exception as error:  # noqa: BLE001 - a file may hold anything
                told = error if isinstance(error, SLMError) else type(error).__name__
                logger.warning("the plan stays as it is: %s", told)
            else:
                if guide.plan_id != self._guide.plan_id:
                    self._before, self._guide = self._guide, guide
                logger.info("plan %s loaded from %s", guide.plan_id, self._file.name)
            kept = [self._guide, self._before or self._guide]
            self.engine.keep(model for guide in kept for model in guide.models)


class OwnRouter(Router):
    """The router of one ChatRouter and of its copies, which may have other settings."""

    def __init__(
        self,
        plan: PlanLike,
        limits: Limits | None,
        policy: Policy | None,
        prices: Prices,
    ) -> None:
        super().__init__(plan, limits=limits, policy=policy, prices=prices)
        self.settings = (plan, limits, policy, prices)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return OwnRouter, self.settings


def _model_of_loop(site: str, ask: Ask) -> str | None:
    """Return the model that called the tools whose results end the conversation.

    None where that was not this site: an agent that is handed a conversation sees the
    hand-over's result, too.
    """
    asked = _asking_message(ask.messages)
    if asked is None:
        return None
    told = asked.response_metadata.get(dialect.METADATA_KEY)
    if told:
        known = told.get("site") in (site, without_agent(site))
        return told.get("model") if known else None
    # Nobody marked it: the app's own model, if it offers the same tools again.
    offered = {
        tool.get("function", {}).get("name")
        for tool in dialect.tools_of(dialect.stated(ask.source, ask.options))
    }
    called = {call["name"] for call in asked.tool_calls}
    own = bool(called) and called <= offered
    return dialect.model_name(ask.source, ask.options) if own else None


def _asking_message(messages: Sequence[BaseMessage]) -> AIMessage | None:
    for message in reversed(messages):
        if message.type != "tool":
            calls = isinstance(message, AIMessage) and message.tool_calls
            return message if calls else None  # type: ignore[return-value]
    return None


def _reason(decision: Decision) -> str:
    task = decision.task.task_id if decision.task else decision.site
    evidence = decision.chosen
    seen = ""
    if evidence is not None and decision.binding is not None:
        seen = (
            f" ({evidence.candidate_pass_rate:.3f} against "
            f"{evidence.reference_pass_rate:.3f}, n={evidence.n}, "
            f"E {evidence.e_value:.4g} of {decision.threshold:.4g})"
        )
    what = f"{decision.reference} -> {decision.model}"
    if decision.binding is None:
        what = f"{decision.reference} kept"
    return f"{task}: {what}, {decision.decision}: {decision.reason}{seen}"
