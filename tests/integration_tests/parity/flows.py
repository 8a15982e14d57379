"""Apps of the functional API: an `@entrypoint` and its tasks."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from integration_tests.parity.bodies import node_body
from integration_tests.parity.calling import Call, Core, Kit, adrive, drive
from integration_tests.parity.forms import afunction_of, function_of
from integration_tests.parity.graphs import Building
from integration_tests.parity.policies import (
    Sites,
    options_of,
    retry_policy,
    sites_invoked,
    sites_of,
)
from integration_tests.parity.recipes import ASYNC_FORMS, Flow, Step
from integration_tests.parity.schemas import Context, value_of
from langgraph.func import entrypoint, task
from langgraph.types import CachePolicy, interrupt


def flow_of(kit: Kit, flow: Flow, shared: dict[str, Any]) -> tuple[Any, Sites]:
    sites: Sites = defaultdict(set)
    named = [
        replace(step, name=f"{step.name} {index}")
        for index, step in enumerate(flow.tasks)
    ]
    tasks = [_task(kit, step, sites) for step in named]
    nested = Building(kit, flow.nested) if flow.nested else None
    graph = nested.compiling()(nested.builder) if nested else None
    for site, models in sites_invoked("flow", nested.sites if nested else {}):
        sites[site] |= models

    body = partial(_body, flow, tasks, graph)
    options: dict[str, Any] = {**shared, "context_schema": Context}
    if flow.attempts:
        options["retry_policy"] = retry_policy(flow.attempts, "all")
    if flow.cached:
        options["cache_policy"] = CachePolicy()
    return entrypoint(**options)(_entry(kit, body)), sites


def _entry(kit: Kit, body: Callable[[str, Any], Core]) -> Callable[..., Any]:
    if kit.recipe.asynchronous:

        async def flow(text: str, *, previous: Any = None) -> Any:
            return await adrive(body(text, previous))
    else:

        def flow(text: str, *, previous: Any = None) -> Any:
            return drive(body(text, previous))

    return flow


async def _awaited(future: Any) -> Any:
    return await future


def _task(kit: Kit, step: Step, sites: Sites) -> Any:
    tag = kit.tag()
    whole = replace(step, gives="update", form="function")
    body = node_body(kit, whole, tag, "typed")
    is_async = step.form in ASYNC_FORMS and kit.recipe.asynchronous
    function = (afunction_of if is_async else function_of)(body)
    # LangGraph keeps the cached results of tasks apart by the function's name.
    function.__qualname__ = tag
    for site, models in sites_of(f"flow/{step.name}", whole).items():
        sites[site] |= models
    options = options_of(replace(whole, metadata="", timeout=False))
    return task(name=step.name, **options)(function)


def _body(flow: Flow, tasks: list[Any], graph: Any, text: str, previous: Any) -> Core:
    said = yield from _results(flow, tasks, text, previous)
    if graph is not None:
        asked = {"text": text}
        result = yield Call(partial(graph.invoke, asked), partial(graph.ainvoke, asked))
        said.append(value_of(result, "log", []))
    said += [interrupt({"flow": index}) for index in range(flow.pauses)]
    if flow.fails:
        msg = f"the flow fails after {len(said)}"
        raise ValueError(msg)
    value = {"said": [str(each) for each in said]}
    return entrypoint.final(value=value, save=len(said)) if flow.previous else value


def _results(flow: Flow, tasks: list[Any], text: str, previous: Any) -> Core:
    """Call the tasks at once or one after another; return their results."""
    given = {"text": text, "log": [str(previous)[:40]]}
    said: list[Any] = []
    started = [each(given) for each in tasks] if flow.at_once else []
    for index, each in enumerate(tasks):
        future = (
            started[index]
            if flow.at_once
            else each({**given, "log": [f"{index} before"]})
        )
        result = yield Call(future.result, partial(_awaited, future))
        said.append(result)
    return said
