"""A fingerprint of all that a graph is made of, to see whether anything was changed."""

import pickle
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    MethodType,
    ModuleType,
    UnionType,
)
from typing import Any

from langgraph.cache.base import BaseCache
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore
from pydantic import BaseModel

PLAIN = (str, bytes, int, float, bool, type(None))
# Runs write to them: who they are is all that counts.
OPAQUE = (
    BaseCache,
    BaseCheckpointSaver,
    BaseStore,
    BuiltinFunctionType,
    ContextVar,
    GenericAlias,
    UnionType,
    ModuleType,
    threading.Thread,
    type,
    type(threading.Lock()),
    type(threading.RLock()),
)
OF_FUNCTION = (
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "__annotations__",
    "__name__",
    "__qualname__",
    "__module__",
    "__doc__",
    "__dict__",
)


class Fingerprint:
    """The identity and the value of each part of a thing, by the path to it."""

    def __init__(self, thing: Any) -> None:
        self.parts: dict[str, Any] = {}
        self._held: dict[int, tuple[str, Any]] = {}  # alive: an id must not be used again
        self._walk(thing, "graph")
        # Afterwards: looking at the attributes of a partial makes it have some.
        for path, held in self._held.values():
            if (pickled := _pickled(held)) is not None:
                self.parts[f"{path} pickled"] = pickled

    def changes(self, since: "Fingerprint") -> list[str]:
        """Return the paths of the parts that are not what they were."""
        paths = dict.fromkeys([*since.parts, *self.parts])
        missing = object()
        return [
            path
            for path in paths
            if self.parts.get(path, missing) != since.parts.get(path, missing)
        ]

    def _walk(self, thing: Any, path: str) -> None:
        if isinstance(thing, PLAIN):
            self.parts[path] = type(thing), thing
            return
        self.parts[path] = id(thing), type(thing)
        if id(thing) in self._held:
            return
        self._held[id(thing)] = path, thing
        for step, part in _inside(thing):
            self._walk(part, f"{path}{step}")


def _pickled(thing: Any) -> bytes | None:
    if not isinstance(thing, dict | set | frozenset | list | tuple):
        return None
    try:
        return pickle.dumps(thing)
    except Exception:  # noqa: BLE001 - whatever cannot be pickled is walked all the same
        return None


def _inside(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, OPAQUE) or type(thing).__module__ in ("typing", "types"):
        return
    if isinstance(thing, dict):
        yield ".keys()", "\n".join(map(repr, thing))
        yield from ((f"[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, list | tuple):
        yield from ((f"[{index}]", value) for index, value in enumerate(thing))
    elif isinstance(thing, set | frozenset):
        yield "{}", "\n".join(sorted(map(repr, thing)))
    elif isinstance(thing, FunctionType):
        yield from ((f".{name}", getattr(thing, name)) for name in OF_FUNCTION)
        for index, cell in enumerate(thing.__closure__ or ()):
            yield f".cell[{index}]", _contents(cell)
    elif isinstance(thing, MethodType):
        yield from ((".self", thing.__self__), (".func", thing.__func__))
    elif isinstance(thing, partial):
        yield from ((".func", thing.func), (".args", thing.args))
        yield from ((".keywords", thing.keywords), (".__dict__", vars(thing)))
    else:
        yield from _attributes(thing)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    if (held := getattr(thing, "__dict__", None)) is not None:
        yield ".__dict__", held
    for base in type(thing).__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield f".{name}", getattr(thing, name)
    if isinstance(thing, BaseModel):
        yield ".set", thing.__pydantic_fields_set__
        yield ".private", thing.__pydantic_private__
