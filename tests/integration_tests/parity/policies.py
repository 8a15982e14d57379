"""The sites and the policies of a node, as its recipe says."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from integration_tests.parity.recipes import Edge, Step
from langgraph.types import CachePolicy, RetryPolicy

HOUR_S = 3600.0
# By the path of the node, and the name of the conditional edge if it is one.
Sites = dict[tuple[str, str | None], set[int]]


def sites_invoked(name: str, inner: Sites) -> Iterator[tuple[tuple[str, None], set[int]]]:
    """Yield the sites of a graph that a function invokes.

    It is not copied, so that calls of its conditional edges are those of their nodes.
    """
    for (path, _), models in inner.items():
        yield (f"{name}/{path}", None), models


def models_of(part: Step | Edge) -> set[int]:
    if isinstance(part, Step) and part.form == "chain":
        return {part.asks[0].model if part.asks else 0}
    found = {ask.model for ask in part.asks}
    return found | {0} if any(ask.way == "fallback" for ask in part.asks) else found


def sites_of(path: str, step: Step) -> Sites:
    """Return the sites of a node: a task that it calls has its own."""
    tasks = tuple(ask for ask in step.asks if ask.way == "task")
    others = tuple(ask for ask in step.asks if ask.way != "task")
    if not tasks or step.form == "chain":
        return {(path, None): models_of(step)}
    return {
        (path, None): models_of(replace(step, asks=others)),
        (f"{path}/asks", None): {ask.model for ask in tasks},
    }


def _keys(edge: Edge, ends: list[str]) -> list[str]:
    return [f"to {index}" for index in range(len(ends))] if edge.ends == "dict" else ends


def options_of(step: Step) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if step.attempts:
        policy = retry_policy(step.attempts, step.retries)
        options["retry_policy"] = [policy] if step.retries == "own" else policy
    if step.cached:
        options["cache_policy"] = CachePolicy()
    if step.metadata == "says":
        options["metadata"] = {"mine": {"k": [1]}}
    if step.timeout:
        options["timeout"] = HOUR_S
    return options


def retry_policy(attempts: int, retries: str) -> RetryPolicy:
    on: Any = {"all": Exception, "value": [ValueError], "own": _fails_twice}[retries]
    return RetryPolicy(
        initial_interval=0, max_attempts=attempts, jitter=False, retry_on=on
    )


def _fails_twice(error: Exception) -> bool:
    return "fails" in str(error)
