"""Functions and runnables that run in a scope. Wrapping twice never nests.

A wrapper keeps the signature of what it wraps (LangGraph injects `config`, `runtime`,
`store` and `writer` by name), and what kind of function it is: sync, async, generator
or async generator. A Runnable that a node returns runs in the scope, too. No context
variable is held across a `yield`.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from contextlib import aclosing, closing
from functools import partial, wraps
from types import FunctionType
from typing import Any, NamedTuple

from langchain_core.load.serializable import to_json_not_implemented
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSerializable

from langchain_slm.rewriting.scopes import (
    SCOPE,
    Inside,
    Layer,
    Listed,
    Running,
    entered,
)

Function = Callable[..., Any]
Enter = Callable[[], Running]


class _Made(NamedTuple):
    function: Function
    layers: tuple[Layer, ...]


# A mark on the function would be copied by an app's own `functools.wraps`.
_made: weakref.WeakKeyDictionary[FunctionType, _Made] = weakref.WeakKeyDictionary()


def scoped_function(
    function: Function,
    layer: Layer,
    branch: str | None = None,
    *,
    awaited: bool | None = None,
) -> Function:
    """Return `function`, running in the scope of `layer` and those it runs in already.

    Args:
        function: A node's function, or that of a conditional edge.
        layer: What is added. A guide takes the place of an earlier one.
        branch: Name of the conditional edge.
        awaited: Whether its result is awaited; None where `function` shows it.
    """
    old = _made.get(function) if isinstance(function, FunctionType) else None
    function, layers = old or _Made(function, ())
    layers = joined(layers, layer)
    name = getattr(function, "__name__", type(function).__name__)
    enter = partial(entered, layers, branch, name=name)
    finish = partial(_finished, layers, branch)
    scoped = _kind(function, awaited=awaited)(function, enter, finish)
    if hasattr(function, "__wrapped__"):
        # LangGraph looks exactly one level deep for the subgraphs that it invokes.
        scoped.__wrapped__ = function.__wrapped__  # type: ignore[attr-defined]
    _made[scoped] = _Made(function, layers)
    return scoped


def joined(layers: tuple[Layer, ...], layer: Layer) -> tuple[Layer, ...]:
    """Return `layers` and `layer`; a guide takes the place of an earlier one."""
    kept = (each for each in layers if not (layer.scope.guide and each.scope.guide))
    return (*kept, layer)


def _finished(layers: tuple[Layer, ...], branch: str | None, result: Any) -> Any:
    if isinstance(result, Runnable):
        return ScopedRunnable(bound=result, layers=layers, branch=branch)
    return result


def _kind(
    function: Function, *, awaited: bool | None
) -> Callable[[Function, Enter, Function], FunctionType]:
    call = getattr(function, "__call__", None)  # noqa: B004 - an async __call__ is meant
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(call):
        return _async_generator
    if inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(call):
        return _generator
    if awaited is None:
        is_async = inspect.iscoroutinefunction
        awaited = is_async(function) or is_async(call)
    return _async if awaited else _sync


def _sync(function: Function, enter: Enter, finish: Function) -> FunctionType:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with Inside(enter()):
            return finish(function(*args, **kwargs))

    return run  # type: ignore[return-value]  # a plain function


def _async(
    function: Callable[..., Awaitable[Any]], enter: Enter, finish: Function
) -> FunctionType:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        with Inside(enter()):
            return finish(await function(*args, **kwargs))

    return run  # type: ignore[return-value]  # a plain function


def _generator(
    function: Callable[..., Iterator[Any]], enter: Enter, finish: Function
) -> FunctionType:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with closing(_each(function(*args, **kwargs), enter())) as items:
            for item in items:
                yield finish(item)

    return run  # type: ignore[return-value]  # a plain function


def _async_generator(
    function: Callable[..., AsyncIterator[Any]], enter: Enter, finish: Function
) -> FunctionType:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with aclosing(_aeach(function(*args, **kwargs), enter())) as items:
            async for item in items:
                yield finish(item)

    return run  # type: ignore[return-value]  # a plain function


def _each(items: Iterator[Any], scope: Running) -> Generator[Any]:
    end = object()
    try:
        with Listed(scope):
            while (item := _next(items, end, scope)) is not end:
                yield item
    finally:
        if isinstance(items, Generator):
            items.close()


def _next(items: Iterator[Any], end: object, scope: Running) -> Any:
    token = SCOPE.set(scope)
    try:
        return next(items, end)
    finally:
        SCOPE.reset(token)


async def _aeach(items: AsyncIterator[Any], scope: Running) -> AsyncGenerator[Any]:
    end = object()
    try:
        with Listed(scope):
            while (item := await _anext(items, end, scope)) is not end:
                yield item
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


async def _anext(items: AsyncIterator[Any], end: object, scope: Running) -> Any:
    token = SCOPE.set(scope)
    try:
        return await anext(items, end)
    finally:
        SCOPE.reset(token)


def _drawn_id(runnable: Runnable[Any, Any]) -> list[str]:
    if isinstance(runnable, RunnableSerializable):
        return runnable.lc_id()
    return to_json_not_implemented(runnable)["id"]


class ScopedRunnable(RunnableBinding[Any, Any]):  # type: ignore[no-redef]  # pydantic's plugin takes the field `kwargs` for **kwargs
    """Any other runnable, running in scopes.

    Configs go through untouched: a binding's own way to merge them would add the tags
    and the parent run of the step before.
    """

    # Any: pydantic would copy what it knows, and the identity of a scope matters.
    layers: Any = ()
    branch: str | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Let a drawing call it what it calls the runnable."""
        super().model_post_init(context)
        # Past pydantic: LangChain asks the object, by a method of the class.
        self.__dict__["lc_id"] = partial(_drawn_id, self.bound)

    def joined(self, layer: Layer) -> ScopedRunnable:
        """Return the same runnable, in the scope of `layer` as well."""
        layers = joined(self.layers, layer)
        return ScopedRunnable(bound=self.bound, layers=layers, branch=self.branch)

    def _enter(self, config: Any) -> Running:
        # The config given comes first: only the first step of a chain runs in a context
        # of its own, so the surrounding one may be that of the graph around.
        return entered(self.layers, self.branch, config)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - LangChain's name
        """Invoke the runnable in the scope."""
        with Inside(self._enter(config)):
            return self.bound.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - LangChain's name
        """Invoke the runnable in the scope."""
        with Inside(self._enter(config)):
            return await self.bound.ainvoke(input, config, **kwargs)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002 - LangChain's name
        """Stream the runnable in the scope."""
        return _each(self.bound.stream(input, config, **kwargs), self._enter(config))

    def astream(
        self,
        input: Any,  # noqa: A002 - LangChain's name
        config: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Stream the runnable in the scope."""
        return _aeach(self.bound.astream(input, config, **kwargs), self._enter(config))

    def transform(
        self,
        input: Iterator[Any],  # noqa: A002 - LangChain's name
        config: Any = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Transform a stream in the scope."""
        return _each(self.bound.transform(input, config, **kwargs), self._enter(config))

    def atransform(
        self,
        input: AsyncIterator[Any],  # noqa: A002 - LangChain's name
        config: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Transform a stream in the scope."""
        return _aeach(self.bound.atransform(input, config, **kwargs), self._enter(config))
