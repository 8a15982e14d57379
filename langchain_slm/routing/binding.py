"""From a plan to what answers at each site.

Targets are made with the guide: a missing key or file must fail `rewrite`, not the
first request of a customer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_slm.clustering import task_of
from langchain_slm.errors import PlanError
from langchain_slm.routing import dialect
from langchain_slm.routing.cascade import Ask, Route
from langchain_slm.routing.plan_file import read_plan
from langchain_slm.routing.policy import EscalateOnInvalid, NeverEscalate, Policy
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
_Targets: TypeAlias = Mapping[tuple[ModelSpec, Artefact | None], BaseChatModel]


class Guide(Protocol):
    """Says what answers a call.

    Attributes:
        plan_id: Equal only where every call would be answered alike.
        fingerprint: Of the graph that it was made for; None if unknown.
    """

    plan_id: str
    fingerprint: str | None

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers at `site`, or None for the model that the app called."""


@dataclass(frozen=True, slots=True)
class _Site:
    """What was decided at a site.

    Attributes:
        tasks: All of them, also those that keep their reference.
        routes: By task, None for a site that is one task, and by reference model.
    """

    tasks: tuple[Task, ...]
    routes: Mapping[tuple[str | None, str], Route]

    def route(self, site: str, ask: Ask) -> Route | None:
        # A backup model of the app's own `with_fallbacks` is not the one decided on.
        source = dialect.model_name(ask.source, ask.options)
        if not any(reference == source for _, reference in self.routes):
            return None
        if not self.tasks:
            return self.routes.get((None, source))
        task = _task_id(site, ask, self.tasks)
        return None if task is None else self.routes.get((task, source))


class PlanGuide:
    """What a plan says, by site, source model and task.

    Args:
        plan: The plan; only its active decisions bind.
        folder: Where the files of its artefacts lie.
        allowed_hosts: Hosts that it may name; None for the default.

    Raises:
        CatalogError: If the key of a bound model is not in the environment.
        MissingExtraError: If a bound model needs a package that is not installed.
        PlanError: If a host is not allowed, or an artefact is missing or changed.
    """

    def __init__(
        self, plan: Plan, *, folder: Path, allowed_hosts: frozenset[str] | None = None
    ) -> None:
        self.plan_id = plan.computed_hash()[:12]
        self.fingerprint = plan.fingerprint
        bindings = [d.binding for d in plan.active if d.binding is not None]
        for binding in bindings:
            check_host(binding.model, allowed_hosts)
        # One instance per model: clients keep their connections.
        once = {(binding.model, binding.artefact): binding for binding in bindings}
        targets = {key: bound_model(binding, folder) for key, binding in once.items()}
        active = dict.fromkeys(decision.site for decision in plan.active)
        self._sites = {site: _site(site, plan, targets) for site in active}

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""
        return tuple(self._sites)

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers a call at `site`; None for the model that was called."""
        decided = self._sites.get(site)
        return None if decided is None else decided.route(site, ask)


def _site(site: str, plan: Plan, targets: _Targets) -> _Site:
    # Also the tasks that are kept: a call of theirs must not pass for another's.
    tasks = tuple(d.task for d in plan.decisions if d.site == site and d.task is not None)
    routes = {
        (d.task.task_id if d.task else None, d.reference): _route(d, d.binding, targets)
        for d in plan.active
        if d.site == site and d.binding is not None
    }
    return _Site(tasks, routes)


def _route(decision: Decision, binding: Binding, targets: _Targets) -> Route:
    return Route(
        site=decision.site,
        target=targets[binding.model, binding.artefact],
        name=binding.model.name,
        rule=decision.decision,
        policy=POLICIES[binding.escalation],
        labels=binding.labels,
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

    def __init__(self, mapping: Mapping[str, BaseChatModel | str]) -> None:
        # Never equal to another's: nothing says that two mappings answer alike.
        self.plan_id = uuid4().hex[:12]
        self._routes = {site: _mapped(site, model) for site, model in mapping.items()}

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that have a binding."""
        return tuple(self._routes)

    def route(self, site: str, ask: Ask) -> Route | None:
        """Return what answers a call at `site`; None for the model that was called."""
        del ask
        found = self._routes.get(site)
        if found is None and "#" in site:
            found = self._routes.get(f"{site.partition('#')[0]}#{ANY_BRANCH}")
        return found


def _mapped(site: str, model: BaseChatModel | str) -> Route:
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
    name = dialect.model_name(target)
    return Route(site, target, name, rule="mapping", policy=POLICIES["on_invalid"])


def guide_of(
    plan: Plan | str | Path | Mapping[str, BaseChatModel | str],
    *,
    allowed_hosts: frozenset[str] | None = None,
) -> Guide:
    """Return what a plan, a plan file or a mapping says of each call.

    Raises:
        CatalogError: If the key of a bound model is not in the environment.
        MissingExtraError: If a bound model needs a package that is not installed.
        PlanError: If it cannot be used, or names a host that is not allowed.
    """
    if isinstance(plan, str | Path):
        path = Path(plan)
        return PlanGuide(read_plan(path), folder=path.parent, allowed_hosts=allowed_hosts)
    if isinstance(plan, Plan):
        return PlanGuide(plan, folder=Path(), allowed_hosts=allowed_hosts)
    if isinstance(plan, Mapping):
        return MappingGuide(plan)
    msg = f"a plan is a Plan, a path or a mapping, not a {type(plan).__name__}"
    raise PlanError(msg, type=type(plan).__name__)
