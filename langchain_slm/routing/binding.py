"""From a plan to what answers at each site.

Targets are made with the guide: a missing key or file must fail `rewrite`, not the
first request of a customer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_slm.clustering import task_of
from langchain_slm.errors import PlanError
from langchain_slm.routing import dialect
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.engine import Engine
from langchain_slm.routing.places import without_agent
from langchain_slm.routing.plan_file import read_plan
from langchain_slm.routing.policy import EscalateOnInvalid, NeverEscalate, Policy
from langchain_slm.routing.route import Route
from langchain_slm.routing.targets import by_name, chat_model, check_host
from langchain_slm.schema import (
    Artefact,
    Binding,
    Decision,
    ModelSpec,
    Plan,
    Request,
    Task,
)

logger = logging.getLogger(__name__)
ANY_BRANCH = "branch"  # `node#branch`: every conditional edge of the node
POLICIES: Mapping[str, Policy] = {
    "on_invalid": EscalateOnInvalid(),
    "never": NeverEscalate(),
}
_INSTRUCTIONS = ("system", "developer")
MOST_TOLD = 100  # warnings of a site; a model's name may be made up at run time
Targets: TypeAlias = dict[tuple[ModelSpec, Artefact | None], BaseChatModel]


def any_branch(site: str) -> Iterator[str]:
    """Yield the sites that stand for every edge of the node of the edge at `site`.

    More than one where the name of the node or the edge has a `#`, too.

    Example:
        >>> list(any_branch("triage#route"))
        ['triage#branch']
    """
    parts = site.split("#")
    for end in range(len(parts) - 1, 0, -1):
        yield f"{'#'.join(parts[:end])}#{ANY_BRANCH}"


class Guide(Protocol):
    """Says what answers a call."""

    @property
    def plan_id(self) -> str:
        """Equal only where every call would be answered alike."""

    @property
    def fingerprint(self) -> str | None:
        """Of the graph that it was made for; None if unknown."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers at `site`, or None for the model that the app called."""


@dataclass(frozen=True, slots=True)
class _Site:
    """What was decided at a site.

    Attributes:
        site: Where.
        tasks: All of them, also those that keep their reference.
        routes: By task, None for a site that is one task, and by reference model.
        references: All of the models that were decided on, also those that are kept.
        told: What was warned of.
    """

    site: str
    tasks: tuple[Task, ...]
    routes: Mapping[tuple[str | None, str], Route]
    references: frozenset[str]
    told: set[str] = field(default_factory=set)

    def route(self, ask: Ask) -> Route | None:
        # A backup model of the app's own `with_fallbacks` is not the one decided on.
        source = dialect.model_name(ask.source, ask.options)
        if source not in self.references:
            self._warn(f"calls {source!r}, which the plan did not decide on")
            return None
        if not self.tasks:
            return self.routes.get((None, source))
        task = _task_id(self.site, ask, self.tasks)
        if task is None:
            self._warn("has another prompt template, other tools or another schema now")
            return None
        return self.routes.get((task, source))

    def _warn(self, what: str) -> None:
        """Say once that calls are none of those that were tested."""
        if what not in self.told and len(self.told) < MOST_TOLD:
            self.told.add(what)
            logger.warning(
                "site %r %s: the reference answers; convert again", self.site, what
            )


class PlanGuide:
    """What a plan says, by site, source model and task.

    Args:
        plan: The plan; only its active decisions bind.
        folder: Where the files of its artefacts lie.
        allowed_hosts: Hosts that it may name; None for the default.
        engine: What the requests share; None for one of its own.
        policy: When the reference is asked, in the place of what the plan says.
        known: Targets that exist already, of an earlier plan.

    Attributes:
        plan: The plan.
        targets: One chat model for each model and artefact that it binds.

    Raises:
        CatalogError: If the key of a bound model is not in the environment.
        MissingExtraError: If a bound model needs a package that is not installed.
        PlanError: If a host is not allowed, or an artefact is missing or changed.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        folder: Path,
        allowed_hosts: frozenset[str] | None = None,
        engine: Engine | None = None,
        policy: Policy | None = None,
        known: Targets | None = None,
    ) -> None:
        self.plan = plan
        self.plan_id = plan.computed_hash()[:12]
        self.fingerprint = plan.fingerprint
        bindings = [d.binding for d in plan.active if d.binding is not None]
        for binding in bindings:
            check_host(binding.model, allowed_hosts)
        # One instance per model: clients keep their connections.
        once = {(binding.model, binding.artefact): binding for binding in bindings}
        known = known or {}
        self.targets: Targets = {
            key: known.get(key) or bound_model(binding, folder)
            for key, binding in once.items()
        }
        self._engine, self._policy = engine or Engine(), policy
        active = dict.fromkeys(decision.site for decision in plan.active)
        self._sites = {site: self._site(site) for site in active}

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""
        return tuple(self._sites)

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers a call at `site`; None for the model that was called."""
        decided = self._decided(site)
        return None if decided is None else decided.route(ask)

    @property
    def models(self) -> list[BaseChatModel]:
        """The bound models."""
        return list(self.targets.values())

    def bound_name(self, site: str) -> str | None:
        """Return the name of a model that is bound at `site`; None for none."""
        decided = self._decided(site)
        routes = iter(() if decided is None else decided.routes.values())
        first = next(routes, None)
        return None if first is None else first.name

    def binds(self, model: str, source: str, site: str) -> bool:
        """Whether `model` is bound at `site` in the place of `source`, for some task."""
        decided = self._decided(site)
        routes = {} if decided is None else decided.routes
        return any(
            route.name == model and reference == source
            for (_, reference), route in routes.items()
        )

    def _decided(self, site: str) -> _Site | None:
        return self._sites.get(site) or self._sites.get(without_agent(site))

    def _site(self, site: str) -> _Site:
        # Also the tasks that are kept: a call of theirs must not pass for another's.
        decisions = [d for d in self.plan.decisions if d.site == site]
        active = [d for d in self.plan.active if d.site == site]
        routes = {
            (d.task.task_id if d.task else None, d.reference): self._route(d, d.binding)
            for d in active
            if d.binding is not None
        }
        tasks = tuple(d.task for d in decisions if d.task is not None)
        references = frozenset(decision.reference for decision in decisions)
        return _Site(site, tasks, routes, references)

    def _route(self, decision: Decision, binding: Binding) -> Route:
        return Route(
            site=decision.site,
            target=self.targets[binding.model, binding.artefact],
            name=binding.model.name,
            rule=decision.decision,
            policy=self._policy or POLICIES[binding.escalation],
            labels=binding.labels,
            engine=self._engine,
            spec=binding.model,
            task=decision.task.task_id if decision.task else None,
            plan=self.plan_id,
        )


def _task_id(site: str, ask: Ask, tasks: tuple[Task, ...]) -> str | None:
    """Return the task of a call, from what is known before its answer."""
    options = dialect.stated(ask.source, ask.options)
    try:
        # Only what tells tasks apart: converting a conversation takes a while.
        request = Request(
            messages=tuple(
                dialect.openai_messages(
                    [message for message in ask.messages if _instructs(message)]
                )
            ),
            tools=tuple(dialect.tools_of(options)),
            response_format=dialect.response_format_of(options),
        )
        found = task_of(request, site, tasks)
    except Exception as error:  # noqa: BLE001 - another provider's options hold anything
        # What cannot be read was not tested either: the model that was called answers.
        logger.info("site %r: a call of no task (%s)", site, type(error).__name__)
        return None
    return None if found is None else found.task_id


def _instructs(message: BaseMessage) -> bool:
    return message.type == "system" or getattr(message, "role", None) in _INSTRUCTIONS


def bound_model(binding: Binding, folder: Path) -> BaseChatModel:
    """Return the chat model of a binding; artefacts lie in `folder`.

    Raises:
        CatalogError: If the key of the model is not in the environment.
        MissingExtraError: If the model needs a package that is not installed.
        PlanError: If the artefact is missing, changed or outside `folder`.
    """
    artefact = binding.artefact
    if artefact is None:
        if binding.model.provider == "head":
            msg = f"model {binding.model.name!r}: the plan names no file of the head"
            raise PlanError(msg, model=binding.model.name)
        return chat_model(binding.model)
    from langchain_slm.specialization.heads import (  # noqa: PLC0415 - not every plan has one
        HeadChatModel,
        load_head,
    )

    head = load_head(_inside(folder, artefact), artefact.sha256)
    return HeadChatModel(head=head, name=binding.model.name)


def _inside(folder: Path, artefact: Artefact) -> Path:
    """Return the path of an artefact, which a plan may not place outside its folder."""
    path = folder / artefact.path
    if not path.resolve().is_relative_to(folder.resolve()):
        msg = f"{artefact.path}: the plan names a file outside its folder {folder}"
        raise PlanError(msg, path=artefact.path)
    return path


class MappingGuide:
    """A user's own `{site: model}`, without evidence: any model called at a site.

    Raises:
        CatalogError: If the key of a model is not in the environment.
        MissingExtraError: If a model needs a package that is not installed.
        PlanError: If a value is neither a chat model nor "provider:model".
    """

    fingerprint: str | None = None

    def __init__(
        self,
        mapping: Mapping[str, BaseChatModel | str],
        *,
        engine: Engine | None = None,
        policy: Policy | None = None,
    ) -> None:
        # Never equal to another's: nothing says that two mappings answer alike.
        self.plan_id = uuid4().hex[:12]
        self._engine, self._policy = engine or Engine(), policy
        self._routes = {site: self._mapped(site, to) for site, to in mapping.items()}

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""
        return tuple(self._routes)

    @property
    def models(self) -> list[BaseChatModel]:
        """The bound models."""
        return [route.target for route in self._routes.values() if route.target]

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers a call at `site`; None for the model that was called."""
        del ask
        return self._bound(site)

    def bound_name(self, site: str) -> str | None:
        """Return the name of the model that is bound at `site`; None for none."""
        found = self._bound(site)
        return None if found is None else found.name

    def binds(self, model: str, source: str, site: str) -> bool:
        """Whether `model` is bound at `site`; a mapping tells no sources apart."""
        del source
        return self.bound_name(site) == model

    def _bound(self, site: str) -> Route | None:
        found = self._routes.get(site) or self._routes.get(without_agent(site))
        if found is None:
            known = (self._routes.get(each) for each in any_branch(site))
            found = next((route for route in known if route is not None), None)
        return found

    def _mapped(self, site: str, model: BaseChatModel | str) -> Route:
        if not isinstance(site, str):
            msg = f"a mapping binds sites by their path, not by a {type(site).__name__}"
            raise PlanError(msg, site=site)
        target = by_name(model) if isinstance(model, str) else model
        if not isinstance(target, BaseChatModel):
            msg = (
                f"site {site!r}: {type(model).__name__} is neither a chat model nor "
                '"provider:model"'
            )
            raise PlanError(msg, site=site)
        return Route(
            site=site,
            target=target,
            name=dialect.model_name(target),
            rule="mapping",
            policy=self._policy or POLICIES["on_invalid"],
            engine=self._engine,
            plan=self.plan_id,
        )


def guide_of(
    plan: Plan | str | Path | Mapping[str, BaseChatModel | str],
    *,
    allowed_hosts: frozenset[str] | None = None,
    engine: Engine | None = None,
    policy: Policy | None = None,
    known: Targets | None = None,
) -> PlanGuide | MappingGuide:
    """Return what a plan, a plan file or a mapping says of each call.

    Raises:
        CatalogError: If the key of a bound model is not in the environment.
        MissingExtraError: If a bound model needs a package that is not installed.
        PlanError: If it cannot be used, or names a host that is not allowed.
    """
    if isinstance(plan, Mapping):
        return MappingGuide(plan, engine=engine, policy=policy)
    if isinstance(plan, str | Path):
        path = Path(plan)
        plan, folder = read_plan(path), path.parent
    elif isinstance(plan, Plan):
        folder = Path()
    else:
        msg = f"a plan is a Plan, a path or a mapping, not a {type(plan).__name__}"
        raise PlanError(msg, type=type(plan).__name__)
    return PlanGuide(
        plan,
        folder=folder,
        allowed_hosts=allowed_hosts,
        engine=engine,
        policy=policy,
        known=known,
    )
