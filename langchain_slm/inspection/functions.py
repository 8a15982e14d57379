"""Names in a function: its parameters, its closure, its module. Runs nothing."""

from __future__ import annotations

import ast
import builtins
from types import FunctionType

from langchain_slm.inspection.code_reading import Arguments
from langchain_slm.inspection.libraries import GIVEN_NAMES, GIVEN_TYPES
from langchain_slm.inspection.peeking import MISSING, closure_of
from langchain_slm.inspection.sources import Function
from langchain_slm.inspection.values import (
    NOTHING,
    Given,
    Items,
    Lookup,
    Value,
    joined,
    known,
)


def names_around(function: FunctionType) -> Lookup:
    """Return what the free and global names of a function stand for."""
    cells = closure_of(function)
    module = function.__globals__

    def lookup(name: str) -> Value:
        if name in cells:
            return known(cells[name], "closure")
        if name in module:
            return known(module[name], "module global")
        found = vars(builtins).get(name, MISSING)
        return NOTHING if found is MISSING else known(found)

    return lookup


def defaults_of(function: FunctionType) -> dict[str, Value]:
    """Return the default of each parameter that has one."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    with_default = names[len(names) - len(values) :]
    found = dict(zip(with_default, values, strict=True)) | (function.__kwdefaults__ or {})
    return {name: known(value, "default argument") for name, value in found.items()}


def parameters(
    function: Function, given: Arguments, defaults: dict[str, Value]
) -> dict[str, Value]:
    """Return what the parameters of a function stand for in one call.

    What LangGraph injects, a config or a runtime, is known as such by the name or the
    annotation.
    """
    names: dict[str, Value] = {}
    arguments = function.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    for index, parameter in enumerate([*ordered, *arguments.kwonlyargs]):
        at = index if index < len(ordered) else None
        value = given.get(at, parameter.arg)
        if not value:
            value = joined(_injected(parameter), defaults.get(parameter.arg, NOTHING))
        names[parameter.arg] = value
    if arguments.vararg:
        more = Items()
        more.entries.update(enumerate(given.positional[len(ordered) :]))
        names[arguments.vararg.arg] = (more,)
    if arguments.kwarg:
        rest = Items()
        rest.entries.update({k: v for k, v in given.keywords.items() if k not in names})
        names[arguments.kwarg.arg] = (rest,)
    return names


def _injected(parameter: ast.arg) -> Value:
    how = GIVEN_NAMES.get(parameter.arg)
    if parameter.annotation is not None:
        annotated = ast.unparse(parameter.annotation)
        for name, meant in GIVEN_TYPES.items():
            if name in annotated:
                how = meant
    return NOTHING if how is None else (Given(how=(how,)),)
