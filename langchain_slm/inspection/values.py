"""What an expression of an app's code may stand for, as far as reading shows. Pure.

A value is a tuple of alternatives; an empty one is not known. Two runs of a function may
take different branches: whatever either gives is an alternative.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

How: TypeAlias = tuple[str, ...]
Value: TypeAlias = "tuple[Thing, ...]"
Lookup: TypeAlias = "Callable[[str], Value]"
NOTHING: Value = ()
EACH = "each"  # the key of elements whose own keys are not known
MOST = 64  # alternatives of one value; more come only from data


@dataclass(frozen=True, slots=True)
class Options:
    """What is bound to a model before it is called.

    Attributes:
        tools: Names of the tools.
        response_format: Name of the schema of a structured output.
        forced: Whether it must call a tool.
        pinned: Why only its own provider can answer; None if others can.
        model: The name that each call asks for instead of the model's own.
    """

    tools: tuple[str, ...] = ()
    response_format: str | None = None
    forced: bool = False
    pinned: str | None = None
    model: str | None = None

    def over(self, other: Options) -> Options:
        """Return these options, and those of `other` that they leave open."""
        return Options(
            tools=self.tools or other.tools,
            response_format=self.response_format or other.response_format,
            forced=self.forced or other.forced,
            pinned=self.pinned or other.pinned,
            model=self.model or other.model,
        )


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Thing:
    """One alternative.

    Attributes:
        how: How the code comes by it, the outermost first.
        options: What is bound to it.
    """

    how: How = ()
    options: Options = NO_OPTIONS


@dataclass(frozen=True, slots=True, eq=False)
class Known(Thing):
    """An object that exists already, `obj`; never an attribute that would have to run."""

    obj: Any = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Made(Thing):
    """A chat model that the code makes when it runs.

    Attributes:
        class_name: Name of its class, or of the function that makes it.
        model: The provider's name of it; None where only a run knows.
        provider: LangChain's name of its provider; None likewise.
        where: File and line.
    """

    class_name: str
    model: str | None
    provider: str | None
    where: str


@dataclass(frozen=True, slots=True, eq=False)
class Agent(Thing):
    """A prebuilt agent that the code makes when it runs.

    Attributes:
        node: The node in which it calls its model.
        models: Its model.
        tools: Its tools.
        hooks: Its middleware.
        name: Its name, which tells apart the agents of one node; None without one.
    """

    node: str
    models: Value
    tools: Value = NOTHING
    hooks: Value = NOTHING
    name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Instance(Thing):
    """An object of a class that the code makes when it runs, and its attributes.

    `inside` is what it was made with, where what it does with that cannot be read.
    """

    cls: type
    attributes: dict[str, Value] = field(default_factory=dict)
    inside: Value = NOTHING


@dataclass(frozen=True, slots=True, eq=False)
class Items(Thing):
    """A list, tuple, set or dict that the code writes, by index or key."""

    entries: dict[Hashable, Value] = field(default_factory=dict)

    @property
    def all(self) -> Value:
        """All elements."""
        return joined(*self.entries.values())


@dataclass(frozen=True, slots=True, eq=False)
class Written(Thing):
    """A function that the code defines when it runs, with the names around it."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    around: Lookup
    file: str


@dataclass(frozen=True, slots=True, eq=False)
class Method(Thing):
    """A function and its first arguments: a bound method, a partial."""

    function: Thing
    arguments: tuple[Value, ...] = ()
    keywords: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Parent(Thing):
    """What `super()` gives: an object as one of the classes above `below`."""

    own: Thing
    below: type


@dataclass(frozen=True, slots=True, eq=False)
class Calling(Thing):
    """A method that calls what it belongs to, as in `pool.map(model.invoke, texts)`."""

    target: Value


@dataclass(frozen=True, slots=True, eq=False)
class Sdk(Thing):
    """A client of a provider, or of any server, below LangChain."""

    package: str


@dataclass(frozen=True, slots=True, eq=False)
class Given(Thing):
    """What a run gives: its config or its runtime, or a part of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Unloaded(Thing):
    """A module, or a name of one, that is imported only when the code runs."""

    name: str


def joined(*values: Value) -> Value:
    """Return the alternatives of several values, each once."""
    found: dict[Hashable, Thing] = {}
    for value in values:
        for thing in value:
            found.setdefault(_identity(thing), thing)
    return tuple(found.values())[:MOST]


def _identity(thing: Thing) -> Hashable:
    if isinstance(thing, Known):
        return id(thing.obj), thing.options
    return id(thing)


def held(value: Value, *how: str) -> Value:
    """Return a value that the code comes by in a further way."""
    return tuple(replace(thing, how=_with(thing.how, how)) for thing in value)


def _with(known: How, more: How) -> How:
    return (*known, *(each for each in more if each not in known))


def bound(value: Value, options: Options) -> Value:
    """Return a value with more options bound to it."""
    return tuple(replace(each, options=options.over(each.options)) for each in value)


def known(obj: Any, *how: str) -> Value:
    """Return the value of an object that exists."""
    return (Known(obj, how=how),)


def constant(value: Value, kind: type) -> Any:
    """Return the only alternative of a value if it is an object of `kind`; else None."""
    if len(value) == 1 and isinstance(value[0], Known) and type(value[0].obj) is kind:
        return value[0].obj
    return None
