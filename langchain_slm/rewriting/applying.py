"""A plan in an app's own source: one line behind the graph, whatever made the graph.

    graph = apply_plan(graph, "slm-plan.json")

The app starts in any case: where the plan cannot be used, it runs as it is, and says so.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.errors import RewriteError, SLMError
from langchain_slm.rewriting.graphs import rewritten
from langchain_slm.rewriting.scopes import HookName, hook_names
from langchain_slm.routing.router import PlanLike, Router

logger = logging.getLogger(__name__)
Found = TypeVar("Found")
Finish = Callable[[Any], Any]


def apply_plan(
    graph: Found,
    plan: Router | PlanLike,
    *,
    strict: bool = False,
    hooks: tuple[HookName, ...] = (),
    allowed_hosts: frozenset[str] | None = None,
) -> Found:
    """Return `graph`, or what makes it, with each site bound as `plan` says.

    Args:
        graph: A `StateGraph`, a compiled graph, or a factory of one: a function with any
            arguments, sync or async, that returns a graph or a context manager of one.
            All graphs of a factory share one router: its limits and its counters.
        plan: As for `rewrite`. A relative path is looked for beside the file that calls
            this, then in the working directory.
        strict: Whether a plan that cannot be used, or that was made for another version
            of the graph, is an error. If not, it is warned of, and what it does not
            cover calls what it called.
        hooks: As for `rewrite`.
        allowed_hosts: As for `rewrite`.

    Returns:
        The same kind of thing, with the same signature.

    Raises:
        RewriteError: If `graph` is neither a graph nor callable; None is warned of.
        SLMError: If `strict`, and the plan cannot be used.
        ValueError: If there is no hook of that name.

    Warns:
        UserWarning: If the plan cannot be used, or was made for another version of the
            graph.
    """
    if graph is None and not strict:  # an app's own way to start without its graph
        _warn("no plan is applied: there is no graph, but None")
        return graph
    if not isinstance(graph, StateGraph | Pregel) and not callable(graph):
        msg = (
            f"apply_plan needs a graph, or a function that makes one, not a "
            f"{type(graph).__name__}"
        )
        raise RewriteError(msg, type=type(graph).__name__)
    if isinstance(plan, str | Path):
        plan = _beside(Path(plan), sys._getframe(1).f_globals.get("__file__"))  # noqa: SLF001 - the documented way to a caller
    hook_names(hooks)  # a wrong one now, not when a factory is called
    try:
        router = (
            plan
            if isinstance(plan, Router)
            else Router(plan, allowed_hosts=allowed_hosts)
        )
    except Exception as error:  # a plan may lead to anything
        if strict:
            raise
        _warn(_unapplied(error))
        return graph
    finish = partial(_rewritten, router=router, strict=strict, hooks=hooks)
    return cast("Found", _applied(graph, finish))


def _unapplied(error: Exception) -> str:
    # Of another's error the type only: its words may quote a key.
    told = error if isinstance(error, SLMError) else type(error).__name__
    return f"no plan is applied, every site calls the app's own model: {told}"


def _warn(what: str) -> None:
    logger.warning("%s", what)  # a server may show no warnings
    with suppress(UserWarning):  # and an app may raise them
        warnings.warn(what, stacklevel=3)


def _rewritten(
    graph: Any, *, router: Router, strict: bool, hooks: tuple[HookName, ...]
) -> Any:
    try:
        copied, found = rewritten(graph, router, strict=strict, hooks=hooks)
    except Exception as error:  # a factory may return anything
        if strict:
            raise
        _warn(_unapplied(error))
        return graph
    for each in found:
        _warn(each)
    return copied


def _beside(plan: Path, file: str | None) -> Path:
    """Return the path of a plan that a module names; `file` is None in a notebook."""
    if plan.is_absolute() or file is None:
        return plan
    beside = Path(file).parent / plan
    return beside if beside.exists() or not plan.exists() else plan


def _applied(made: Any, finish: Finish) -> Any:
    """Return a graph rewritten, and what leads to one so that it leads to that."""
    if isinstance(made, StateGraph | Pregel):
        return finish(made)
    if inspect.isawaitable(made):
        return _awaited(made, finish)
    if isinstance(made, AbstractAsyncContextManager):
        return _amanaged(made, finish)
    if isinstance(made, AbstractContextManager):
        return _managed(made, finish)
    for is_kind, wrapped in _KINDS.items():
        if is_kind(made):
            return wrapped(made, finish)
    return _function(made, finish) if callable(made) else finish(made)


def _function(factory: Callable[..., Any], finish: Finish) -> Callable[..., Any]:
    @wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        return _applied(factory(*args, **kwargs), finish)

    return make


def _coroutine_function(
    factory: Callable[..., Awaitable[Any]], finish: Finish
) -> Callable[..., Awaitable[Any]]:
    # Servers look whether a factory is one before they call it.
    @wraps(factory)
    async def make(*args: Any, **kwargs: Any) -> Any:
        return _applied(await factory(*args, **kwargs), finish)

    return make


def _generator_function(
    factory: Callable[..., Iterator[Any]], finish: Finish
) -> Callable[..., Iterator[Any]]:
    # A dependency of a web framework: one graph, and what follows its use.
    @wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with contextmanager(factory)(*args, **kwargs) as made:
            yield _applied(made, finish)

    return make


def _async_generator_function(
    factory: Callable[..., AsyncIterator[Any]], finish: Finish
) -> Callable[..., AsyncIterator[Any]]:
    @wraps(factory)
    async def make(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with asynccontextmanager(factory)(*args, **kwargs) as made:
            yield _applied(made, finish)

    return make


_KINDS: Mapping[Callable[[Any], bool], Callable[[Any, Finish], Any]] = {
    inspect.iscoroutinefunction: _coroutine_function,
    inspect.isgeneratorfunction: _generator_function,
    inspect.isasyncgenfunction: _async_generator_function,
}


async def _awaited(made: Awaitable[Any], finish: Finish) -> Any:
    return _applied(await made, finish)


@contextmanager
def _managed(made: AbstractContextManager[Any], finish: Finish) -> Iterator[Any]:
    with made as graph:
        yield _applied(graph, finish)


@asynccontextmanager
async def _amanaged(
    made: AbstractAsyncContextManager[Any], finish: Finish
) -> AsyncIterator[Any]:
    async with made as graph:
        yield _applied(graph, finish)
