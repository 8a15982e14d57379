"""Looks into objects without running their code: no properties, no `__getattr__`.

An attribute of an app's object may raise, call a server, or make a model. What is found
here is what the object holds already; a property comes back as the property.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

MISSING: Any = object()
MOST_ITEMS = 100  # of one container; an app's models are fewer
_NAMES = ("__module__", "__name__", "__qualname__")  # of a class, its metaclass has
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether `value` is of a type, whatever its `__class__` pretends."""
    return issubclass(type(value), kind)


def is_there(value: object) -> bool:
    """Whether a value is neither missing nor None; asks no `__eq__`."""
    return value is not None and value is not MISSING


def attribute(value: object, name: str) -> Any:
    """Return what `value` holds under a name, or `MISSING`.

    A property or another descriptor of its class comes back as it is, unread.
    """
    if is_a(value, types.ModuleType):
        return vars(value).get(name, MISSING)
    if is_a(value, type) and name in _NAMES:
        return type.__getattribute__(value, name)
    try:
        found = inspect.getattr_static(value, name)
    except (AttributeError, TypeError):
        return _private(value, name)
    if is_a(found, _SLOTS) and not is_a(value, type):
        return _slot(found, value)
    return found


def _slot(slot: Any, value: object) -> Any:
    try:
        return slot.__get__(value)
    except (AttributeError, TypeError):  # empty, or of another class
        return MISSING


def _private(value: object, name: str) -> Any:
    """Return a private attribute of a pydantic object, which has a dict for them."""
    if name == "__pydantic_private__" or not name.startswith("_"):
        return MISSING
    private = attribute(value, "__pydantic_private__")
    return private.get(name, MISSING) if type(private) is dict else MISSING


def fields(value: object) -> dict[str, Any]:
    """Return what an object holds by name; nothing for one without a dict."""
    held = attribute(value, "__dict__")
    if is_a(held, types.GetSetDescriptorType) or type(held) is not dict:
        held = {}
    private = _pydantic_private(value)
    return {**held, **private}


def _pydantic_private(value: object) -> dict[str, Any]:
    private = attribute(value, "__pydantic_private__")
    return private if type(private) is dict else {}


def items(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield the first items of a plain container, by key or index; else nothing."""
    if is_a(value, dict):
        pairs: Any = dict.items(value)  # type: ignore[arg-type]  # it is one
    elif is_a(value, list):
        pairs = enumerate(list.__iter__(value))  # type: ignore[arg-type]  # it is one
    elif is_a(value, tuple):
        pairs = enumerate(tuple.__iter__(value))  # type: ignore[arg-type]  # it is one
    elif type(value) in (set, frozenset):
        pairs = enumerate(value)  # type: ignore[arg-type]  # it is one
    else:
        pairs = ()
    for index, pair in enumerate(pairs):
        if index == MOST_ITEMS:
            return
        yield pair


def function_of(value: object) -> types.FunctionType | None:
    """Return the Python function below decorators of libraries and caches, if any."""
    for _ in range(MOST_ITEMS):
        if type(value) is types.FunctionType:
            return value
        value = attribute(value, "__wrapped__")
        if value is MISSING:
            break
    return None


def closure_of(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function's closure holds, by name; empty cells left out."""
    names = function.__code__.co_freevars
    cells = zip(names, function.__closure__ or (), strict=False)
    return {name: value for name, cell in cells if (value := _cell(cell)) is not MISSING}


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def package_of_module(module: str | None) -> str:
    """Return the top-level package of a module's name; empty for none."""
    return (module or "").partition(".")[0]


def full_name(value: object) -> str:
    """Return the dotted name of a function or a class; of another object its class's."""
    module, name = attribute(value, "__module__"), attribute(value, "__qualname__")
    if isinstance(module, str) and isinstance(name, str):
        return f"{module}.{name}"
    own = attribute(value, "__name__")  # of a builtin
    kind = type(value)
    return f"{kind.__module__}.{own if is_a(own, str) else kind.__qualname__}"


def has_class_attribute(value: object, name: str) -> bool:
    """Whether the class of an object, rather than the object alone, has a name."""
    return any(name in vars(base) for base in type(value).__mro__)


def pydantic_default(cls: type, name: str) -> Any:
    """Return the plain default of a field of a pydantic class, or `MISSING`."""
    declared = attribute(cls, "__pydantic_fields__")
    field = declared.get(name) if type(declared) is dict else None
    default = MISSING if field is None else attribute(field, "default")
    return default if is_a(default, (str, int, float, bool)) else MISSING
