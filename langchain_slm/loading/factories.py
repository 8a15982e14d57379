"""What makes a graph: called with an empty config, awaited, entered, and held open.

LangGraph's server takes a function with no argument, with a config, with a
`ServerRuntime` or with both, sync or async, that returns a graph or a context manager of
one. Here it is called as the server does to show a graph: nothing is to be run.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.memory import InMemoryStore

from langchain_slm.errors import GraphLoadError

Result = TypeVar("Result")
_FILLED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


@contextmanager
def made_by(factory: Any, name: str) -> Iterator[object]:
    """Yield what `factory` makes; a context manager is entered, and left at the end.

    Args:
        factory: A function, or what a function returned.
        name: What to call it in a message.

    Raises:
        GraphLoadError: If it asks for arguments that are not known.
    """
    if isinstance(factory, StateGraph | Pregel):
        yield factory
    elif inspect.isawaitable(factory):
        with made_by(awaited(factory), name) as made:
            yield made
    elif isinstance(factory, AbstractContextManager):
        with factory as entered, made_by(entered, name) as made:
            yield made
    elif isinstance(factory, AbstractAsyncContextManager):
        with _held_open(factory) as entered, made_by(entered, name) as made:
            yield made
    elif callable(factory) and not inspect.isclass(factory):
        with made_by(_called(factory, name), name) as made:
            yield made
    else:
        yield factory


def _called(factory: Callable[..., Any], name: str) -> Any:
    given: dict[str, Any] = {}
    positional: list[Any] = []
    parameters = [p for p in _parameters(factory) if p.kind in _FILLED]
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    for parameter in parameters:
        value = _argument(parameter, alone=needed == [parameter])
        if value is None and parameter in needed:
            msg = (
                f"{name} is a factory that needs {parameter.name!r}; only a config and a "
                "runtime are known: give it a default"
            )
            raise GraphLoadError(msg, name=name, parameter=parameter.name)
        if value is None:
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            given[parameter.name] = value
    return factory(*positional, **given)


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # of a builtin
        return []


def _argument(parameter: inspect.Parameter, *, alone: bool) -> Any:
    """Return what is given for a parameter; None where its default stays."""
    annotated = str(parameter.annotation)
    if parameter.name == "config" or "RunnableConfig" in annotated:
        return RunnableConfig(tags=[], metadata={}, configurable={})
    has_default = parameter.default is not inspect.Parameter.empty
    if "ServerRuntime" in annotated or _is_runtime(parameter.annotation):
        return None if has_default else _runtime()
    if has_default:
        return None
    if parameter.name == "runtime":
        return _runtime()
    # The server gives a config to whatever takes one argument.
    return RunnableConfig(tags=[], metadata={}, configurable={}) if alone else None


def _is_runtime(annotation: object) -> bool:
    return getattr(annotation, "__module__", None) == "langgraph_sdk.runtime"


def _runtime() -> Any:
    """Return the runtime with which the server asks for a graph only to show it."""
    from langgraph_sdk.runtime import _ReadRuntime  # noqa: PLC0415 - it has no public constructor

    return _ReadRuntime(
        access_context="assistants.read", user=None, store=InMemoryStore()
    )


def awaited(coming: Any) -> Any:
    """Return the result of an awaitable, whether or not an event loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_result(coming))
    result: Future[Any] = Future()
    thread = threading.Thread(target=_run_into, args=(result, _result(coming)))
    thread.start()
    thread.join()
    return result.result()


async def _result(coming: Any) -> Any:
    return await coming


def _run_into(result: Future[Result], coming: Coroutine[Any, Any, Result]) -> None:
    try:
        result.set_result(asyncio.run(coming))
    except BaseException as error:  # noqa: BLE001 - raised again by who waits
        result.set_exception(error)


@contextmanager
def _held_open(manager: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
    """Yield what an async context manager gives; one task enters and leaves it.

    Its event loop runs in a thread of its own until then, for what it started there.
    """
    entered: Future[Any] = Future()
    loop_and_end: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def hold() -> None:
        end = asyncio.Event()
        loop_and_end.append((asyncio.get_running_loop(), end))
        async with manager as value:
            entered.set_result(value)
            await end.wait()

    ended: Future[None] = Future()
    thread = threading.Thread(target=_hold_into, args=(entered, ended, hold), daemon=True)
    thread.start()
    try:
        yield entered.result()
    finally:
        loop, end = loop_and_end[0]
        if not ended.done():
            loop.call_soon_threadsafe(end.set)
            ended.result()
        thread.join()


def _hold_into(
    entered: Future[Any],
    ended: Future[None],
    hold: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    try:
        asyncio.run(hold())
    except BaseException as error:  # noqa: BLE001 - raised again by who waits
        (ended if entered.done() else entered).set_exception(error)
    if not ended.done():
        ended.set_result(None)
