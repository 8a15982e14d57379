"""What a runnable of LangChain or LangGraph is made of. Calls nothing.

Relies on the fields named in `parts_of`, on the closures of the functions that
`create_agent` and `create_react_agent` make, and on `Pregel.config`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.config import run_in_executor
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
)
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.runnables.router import RouterRunnable
from langchain_core.tools import BaseTool
from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol

from langchain_slm.inspection.describing import bound_options
from langchain_slm.inspection.peeking import (
    MISSING,
    attribute,
    closure_of,
    full_name,
    function_of,
    is_a,
    items,
)
from langchain_slm.inspection.values import NO_OPTIONS, Options
from langchain_slm.rewriting.scoped import ScopedRunnable
from langchain_slm.routing.places import AGENT_KEY

CONFIGURABLE_MODEL = "langchain.chat_models.base._ConfigurableModel"
MIDDLEWARE = "langchain.agents.middleware.types.AgentMiddleware"
CHAIN = "step of a chain"
MOST_WALKED = 200  # runnables of one; an app's chain has a few


class Part(NamedTuple):
    """One of the runnables, or functions, that a runnable runs.

    Attributes:
        what: The part.
        how: How it is held there; None where that adds nothing.
        options: What is bound to it there.
    """

    what: Any
    how: str | None = None
    options: Options = NO_OPTIONS


def parts_of(runnable: Any) -> Iterator[Part]:
    """Yield what a runnable runs; nothing for one that is not known to run any.

    An attribute is read as the object holds it: `RunnableWithFallbacks` has others.
    """
    for kind, names, how in _FIELDS:
        if is_a(runnable, kind):
            for name in names:
                yield from _of_field(attribute(runnable, name), how)
            break
    if is_a(runnable, RunnableWithFallbacks):
        yield Part(attribute(runnable, "runnable"))
        yield from _of_field(attribute(runnable, "fallbacks"), "fallback")
    elif is_a(runnable, RunnableBindingBase):
        kwargs = attribute(runnable, "kwargs")
        options = bound_options(kwargs) if type(kwargs) is dict and kwargs else NO_OPTIONS
        yield Part(attribute(runnable, "bound"), None, options)
    elif is_a(runnable, RunnableBranch):
        for _, pair in items(attribute(runnable, "branches")):
            yield from (Part(each, CHAIN) for _, each in items(pair))
        yield Part(attribute(runnable, "default"), CHAIN)


# Kinds of runnables, the fields with what they run, and how it is held there.
_FIELDS: tuple[tuple[type, tuple[str, ...], str | None], ...] = (
    (ScopedRunnable, ("bound",), None),
    (RunnableSequence, ("first", "middle", "last"), CHAIN),
    (RunnableSeq, ("steps",), CHAIN),
    (RunnableParallel, ("steps__",), CHAIN),
    (RunnableAssign, ("mapper",), CHAIN),
    (RunnableEachBase, ("bound",), None),
    (RouterRunnable, ("runnables",), CHAIN),
    (RunnableConfigurableAlternatives, ("default", "alternatives"), "configurable"),
    (DynamicRunnable, ("default",), "configurable"),
    (RunnableLambda, ("func", "afunc"), None),
    (RunnableGenerator, ("_transform", "_atransform"), None),
    (RunnableCallable, ("func", "afunc"), None),
)


def _of_field(value: Any, how: str | None) -> Iterator[Part]:
    if value is MISSING or value is None:
        return
    if is_a(value, (dict, list, tuple)):
        yield from (Part(each, how) for _, each in items(value))
    else:
        yield Part(value, how)


def calls_something(runnable: object) -> bool:
    """Whether a runnable may call a model, as far as its parts show without reading."""
    found = [runnable]
    for index in range(MOST_WALKED):
        if index == len(found):
            return False
        if is_a(found[index], _CALLABLE) or full_name(type(found[index])) == (
            CONFIGURABLE_MODEL
        ):
            return True
        found += [part.what for part in parts_of(found[index])]
    return True


_CALLABLE = (BaseLanguageModel, Pregel, PregelProtocol, StateGraph, BaseTool)


def agent_name(graph: object) -> str | None:
    """Return the name that LangChain gives to what runs in an agent's graph."""
    config = attribute(graph, "config")
    metadata = config.get("metadata") if type(config) is dict else None
    name = metadata.get(AGENT_KEY) if type(metadata) is dict else None
    return name if isinstance(name, str) else None


def innermost(value: Any) -> FunctionType | None:
    """Return the Python function that calling a thing runs, if it is one."""
    while is_a(value, (MethodType, partial)):
        value = value.__func__ if is_a(value, MethodType) else value.func
    function = function_of(value)
    if function is None and not is_a(value, (Runnable, type)):
        call = attribute(type(value), "__call__")
        function = call if type(call) is FunctionType else None
    return function


def method_below(value: Any) -> MethodType | None:
    """Return a bound method, below a decorator that traces it if there is one."""
    if type(value) is FunctionType:
        value = attribute(value, "__wrapped__")
    return value if type(value) is MethodType else None


def is_executor_twin(value: Any) -> bool:
    """Whether a function is another one, run in a thread for an event loop."""
    return attribute(value, "func") is run_in_executor


def is_middleware(value: object) -> bool:
    """Whether an object is a middleware of an agent."""
    return any(full_name(base) == MIDDLEWARE for base in type(value).__mro__)


def deep_closure(function: FunctionType) -> dict[str, Any]:
    """Return what a function's closure holds, with those of its module's functions."""
    found: dict[str, Any] = {}
    left, seen = [function], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        for name, value in closure_of(each).items():
            if "wrap_tool_call" in name:
                continue  # asked only whether there is one; `ToolNode` runs it
            if type(value) is FunctionType and value.__module__ == function.__module__:
                left.append(value)
            else:
                found.setdefault(name, value)
    return found
