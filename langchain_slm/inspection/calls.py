"""What a call means, in the code of an app. Runs nothing.

Functions of the app are read in turn, to a bounded depth and number; those of libraries
are known by name (`libraries`) or not followed. What calls a model is handed to
`invoked`, and what cannot be seen to `noted`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from types import FunctionType, MethodType
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool
from langgraph.func import _TaskFunction

from langchain_slm.inspection.attributes import (
    SELF,
    Attributes,
    is_container,
    is_runnable,
)
from langchain_slm.inspection.code_reading import Arguments, Body, Spot
from langchain_slm.inspection.functions import defaults_of, names_around, parameters
from langchain_slm.inspection.libraries import (
    CALLING,
    CALLING_FOR_SURE,
    CONTAINERS,
    DERIVING,
    GIVING_BACK,
    HARMLESS_PACKAGES,
    NO_REQUESTS,
    RUNNING,
    THREAD_REASON,
    sdk_of,
)
from langchain_slm.inspection.peeking import (
    MISSING,
    attribute,
    closure_of,
    full_name,
    function_of,
    is_a,
    package_of_module,
)
from langchain_slm.inspection.sources import Sources
from langchain_slm.inspection.values import (
    EACH,
    NOTHING,
    Calling,
    Given,
    How,
    Instance,
    Items,
    Known,
    Lookup,
    Method,
    Options,
    Sdk,
    Thing,
    Unloaded,
    Value,
    Written,
    bound,
    constant,
    joined,
    known,
)

MOST_DEPTH = 12  # functions inside functions; deeper is recursion or a framework
MOST_BODIES = 400  # read for one node; an app's node needs a few dozen


@dataclass(frozen=True, slots=True)
class Context:
    """What holds where code is read.

    Attributes:
        inner: Nodes and tasks below the node that is read.
        agent: Name of the innermost graph that is invoked there.
        how: Begins each `how` that is found there.
        unbound: Why a binding does not reach calls there; None where it does.
        guess: Why it is not certain that what is found there is called.
        hook: Whether it is a middleware's method, around a model call.
    """

    inner: tuple[str, ...] = ()
    agent: str | None = None
    how: How = ()
    unbound: str | None = None
    guess: str | None = None
    hook: bool = False


class Calls(Attributes, ABC):
    """Reads what a node runs; implements `code_reading.Meaning`."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources
        self._active: list[object] = []
        self._left = MOST_BODIES
        self._packages: set[str] = set()
        self.context = Context()

    @abstractmethod
    def invoked(self, value: Value, spot: Spot) -> None:
        """Take note that a runnable is called."""

    @abstractmethod
    def raw_call(self, package: str, spot: Spot) -> None:
        """Take note that a provider or a server is called below LangChain."""

    @abstractmethod
    def noted(self, text: str, spot: Spot) -> None:
        """Take note of a call that cannot be followed."""

    @abstractmethod
    def passed_on(self, value: Value, to: str, spot: Spot) -> Value:
        """Take note that models are given to code that is not read; return its result."""

    @abstractmethod
    def derived(self, thing: Thing, name: str, given: Arguments) -> Value:
        """Return the runnable that a method such as `bind_tools` gives."""

    @abstractmethod
    def made(self, maker: object, given: Arguments, spot: Spot) -> Value | None:
        """Return the model or agent that a call makes; None where it makes none."""

    @abstractmethod
    def holds_model(self, thing: Thing) -> bool:
        """Whether calling a thing may call a model."""

    @contextmanager
    def within(self, **changes: Any) -> Iterator[None]:
        """Read in another context."""
        before, self.context = self.context, replace(self.context, **changes)
        try:
            yield
        finally:
            self.context = before

    @contextmanager
    def _once(self, key: object) -> Iterator[bool]:
        """Tell whether something may be read: not inside itself, not without end."""
        if key in self._active or len(self._active) >= MOST_DEPTH or self._left <= 0:
            yield False
            return
        self._active.append(key)
        self._left -= 1
        try:
            yield True
        finally:
            self._active.pop()

    @property
    def exhausted(self) -> bool:
        """Whether there was more code than is read for one node."""
        return self._left <= 0

    # Calls

    def called(self, callee: Value, given: Arguments, spot: Spot) -> Value:
        """Return what a call gives."""
        if not callee:
            return self._unfollowed(spot.text, given, spot)
        return joined(*(self.apply(each, given, spot) for each in callee))

    def apply(self, thing: Thing, given: Arguments, spot: Spot) -> Value:
        """Return what a call of one thing gives."""
        match thing:
            case Known():
                return self._apply_object(thing, given, spot)
            case Written():
                return self._read_written(thing, given)
            case Method():
                arguments = (*thing.arguments, *given.positional)
                keywords = {**thing.keywords, **given.keywords}
                return self.apply(thing.function, Arguments(arguments, keywords), spot)
            case Calling():
                asked = Options(model=constant(given.get(None, "model"), str))
                self.invoked(bound(thing.target, asked), spot)
            case Instance():
                return self.called(
                    self.attribute((thing,), "__call__", spot), given, spot
                )
            case Sdk():
                self.raw_call(thing.package, spot)
            case Unloaded():
                return self._apply_unloaded(thing, given, spot)
        return NOTHING

    def _apply_object(self, thing: Known, given: Arguments, spot: Spot) -> Value:
        obj = thing.obj
        if (made := self.made(obj, given, spot)) is not None:
            return made
        if is_a(obj, type):
            return self._construct(obj, given, spot)
        if is_a(obj, _TaskFunction):
            return self._task(obj, given, spot)
        if (function := function_of(obj)) is not None:
            return self._apply_function(function, given, spot)
        if (method := as_method(obj)) is not None:
            return self.apply(method, given, spot)
        return self._known_function(full_name(obj), given, spot)

    def _apply_function(
        self, function: FunctionType, given: Arguments, spot: Spot
    ) -> Value:
        name = full_name(function)
        if name in GIVING_BACK or name in RUNNING or not self.follows(function):
            inner = attribute(function, "__wrapped__")
            if inner is not MISSING:
                return self.apply(Known(inner), given, spot)
            return self._known_function(name, given, spot)
        return self.read_function(function, given)

    def _known_function(self, name: str, given: Arguments, spot: Spot) -> Value:
        if name == "builtins.getattr":
            attribute_name = constant(given.get(1), str)
            found = self.attribute(given.get(0), attribute_name or "", spot)
            return joined(found, given.get(2))
        if name in ("builtins.enumerate", "builtins.zip"):
            return self._paired(name, given)
        if name in GIVING_BACK:
            at = 1 if name == "typing.cast" else 0
            return given.get(at)
        if name in RUNNING:
            at = RUNNING[name]
            rest = tuple(self.elements(each) for each in given.positional[at + 1 :])
            return self.called(given.get(at), Arguments(rest), spot)
        return self._unfollowed(name, given, spot)

    def _paired(self, name: str, given: Arguments) -> Value:
        parts = [self.elements(each) for each in given.positional]
        if name == "builtins.enumerate":
            parts.insert(0, NOTHING)
        pair = Items()
        pair.entries.update(enumerate(parts))
        return (Items({EACH: (pair,)}),)

    def _unfollowed(self, name: str, given: Arguments, spot: Spot) -> Value:
        """Return what may come of a call of code that is not read."""
        package = sdk_of(name)
        if package is not None:
            if name.rpartition(".")[2] not in NO_REQUESTS:
                self.raw_call(package, spot)
            return NOTHING
        flat = self.flat(given.all)
        for each in flat:
            if isinstance(each, Written | Method | Calling) or self._is_function(each):
                with self.within(guess=f"in a function that is passed on to {name}"):
                    self.apply(each, Arguments(), spot)
        carried = tuple(each for each in flat if self.holds_model(each))
        if not carried or package_of_module(name) in HARMLESS_PACKAGES:
            return NOTHING
        return self.passed_on(carried, name, spot)

    def _is_function(self, thing: Thing) -> bool:
        if not isinstance(thing, Known):
            return False
        function = function_of(thing.obj)
        return function is not None and self.follows(function)

    def _apply_unloaded(self, thing: Unloaded, given: Arguments, spot: Spot) -> Value:
        if (made := self.made(thing, given, spot)) is not None:
            return made
        package = sdk_of(thing.name)
        if package is None:
            self.noted(f"{thing.name} is imported only when the code runs", spot)
            return self._unfollowed(thing.name, given, spot)
        if thing.name.rpartition(".")[2][:1].isupper():
            return (Sdk(package),)
        return self._unfollowed(thing.name, given, spot)

    def _construct(self, cls: type, given: Arguments, spot: Spot) -> Value:
        functions = _functions_of(cls, given)
        if functions:
            return functions
        if issubclass(cls, Thread):
            self._in_thread(given.get(1, "target"), (), spot)
        if cls in CONTAINERS:
            return self._container(given)
        if cls.__module__ == "builtins":  # `map` and `enumerate` are classes
            return self._known_function(full_name(cls), given, spot)
        package = sdk_of(cls.__module__)
        if package is not None and not issubclass(cls, Runnable | BaseException):
            return (Sdk(package),)
        return self._instance(cls, given)

    def _container(self, given: Arguments) -> Value:
        if given.positional:
            return given.positional[0]
        made = Items()
        made.entries.update(given.keywords)
        return (made,)

    def _instance(self, cls: type, given: Arguments) -> Value:
        init = attribute(cls, "__init__")
        if is_a(init, FunctionType) and self._is_written(init):
            made = Instance(cls)
            receiver: Value = (made,)
            self.read_function(
                init, Arguments((receiver, *given.positional), given.keywords)
            )
            return receiver
        made = Instance(cls, dict(given.keywords), inside=self._carried(given))
        names = attribute(cls, "__match_args__")
        if type(names) is tuple:
            made.attributes.update(zip(names, given.positional, strict=False))
        after = attribute(cls, "__post_init__")
        if is_a(after, FunctionType) and self._is_written(after):
            self.read_function(after, Arguments(((made,),)))
        return (made,)

    def _is_written(self, function: FunctionType) -> bool:
        # A dataclass's `__init__` has no text.
        has_text = not function.__code__.co_filename.startswith("<")
        return has_text and self.follows(function)

    def _carried(self, given: Arguments) -> Value:
        return tuple(each for each in self.flat(given.all) if self.holds_model(each))

    def _task(self, task: Any, given: Arguments, spot: Spot) -> Value:
        function = attribute(task, "func")
        name = attribute(function, "__name__")
        with self.within(
            inner=(*self.context.inner, str(name)), how=(*self.context.how, "task")
        ):
            return self.called(known(function), given, spot)

    # Functions

    def follows(self, function: FunctionType) -> bool:
        """Whether a function is read: it is the app's, or of the package of a node."""
        # Not its `__module__`, which a decorator copies from what it wraps.
        if package_of(function) in self._packages:
            return True
        return not self._is_library(function)

    def _is_library(self, function: FunctionType) -> bool:
        return self._sources.is_library(function.__code__.co_filename)

    def entered(self, function: FunctionType) -> None:
        """Let functions of a node's package be read, too."""
        package = package_of(function)
        if package not in ("langchain_core", "langgraph"):
            self._packages.add(package)

    def read_function(self, function: FunctionType, given: Arguments) -> Value:
        """Return what a function may return; what it calls is noted."""
        code = function.__code__
        with self._once(code) as may:
            if not may:
                return NOTHING
            node = self._sources.function(code)
            around = names_around(function)
            if node is None:
                return self._by_names(function, around)
            names = parameters(node, given, defaults_of(function))
            return Body(code.co_filename, around, self, names).read(node)

    def _read_written(self, thing: Written, given: Arguments) -> Value:
        with self._once(id(thing.node)) as may:
            if not may:
                return NOTHING
            names = parameters(thing.node, given, {})
            return Body(thing.file, thing.around, self, names).read(thing.node)

    def _by_names(self, function: FunctionType, around: Lookup) -> Value:
        """Take the models that a function's code names for called: its text is gone."""
        code = function.__code__
        named = (*closure_of(function), *code.co_names)
        value = joined(*(around(name) for name in named))
        spot = Spot(code.co_filename, code.co_firstlineno, code.co_name)
        with self.within(guess="the source is not at hand, so that no call is seen"):
            self.invoked(tuple(each for each in value if self.holds_model(each)), spot)
        return NOTHING

    # Methods

    def method(self, receiver: Value, name: str, given: Arguments, spot: Spot) -> Value:
        """Return what a method's call gives."""
        if not receiver:
            return self._unknown_method(name, given, spot)
        return joined(*(self._method_of(each, name, given, spot) for each in receiver))

    def _unknown_method(self, name: str, given: Arguments, spot: Spot) -> Value:
        if name == "run_in_executor":
            return self._in_thread(given.get(1), given.positional[2:], spot)
        if name in CALLING_FOR_SURE:
            self.noted(f"what {spot.text}() calls cannot be seen", spot)
        return self._unfollowed(spot.text, given, spot)

    def _in_thread(self, function: Value, rest: tuple[Value, ...], spot: Spot) -> Value:
        with self.within(unbound=THREAD_REASON):
            self.called(function, Arguments(rest), spot)
        return NOTHING

    def _method_of(self, thing: Thing, name: str, given: Arguments, spot: Spot) -> Value:
        if isinstance(thing, Sdk | Given):
            return self._method_outside(thing, name, spot)
        if is_container(thing):
            return self._method_of_container(thing, name, given)
        if _is_executor(thing) and name in ("submit", "map"):
            return self._submitted(given, spot)
        if is_runnable(thing) and name in (*DERIVING, "add_node"):
            return self.derived(thing, name, given)
        if found := self.attribute((thing,), name, spot):
            return self.called(found, given, spot)
        return self._unknown_method(name, given, spot)

    def _method_outside(self, thing: Sdk | Given, name: str, spot: Spot) -> Value:
        if isinstance(thing, Given):
            if name in CALLING_FOR_SURE:
                self.invoked((thing,), spot)
            return (thing,)
        if name not in NO_REQUESTS:
            self.raw_call(thing.package, spot)
        return NOTHING

    def _submitted(self, given: Arguments, spot: Spot) -> Value:
        function = given.get(0, "fn")
        if function:
            return self._in_thread(function, given.positional[1:], spot)
        # `submit(context.run, function, ...)` takes the context along.
        return self.called(given.get(1), Arguments(given.positional[2:]), spot)

    def _method_of_container(self, thing: Thing, name: str, given: Arguments) -> Value:
        if name in ("get", "pop", "setdefault"):
            return joined(self.item((thing,), given.get(0)), given.get(1))
        if name == "items":
            pair = Items()
            pair.entries.update({0: NOTHING, 1: self.elements((thing,), values=True)})
            return (Items({EACH: (pair,)}),)
        if name == "values":
            return (Items({EACH: self.elements((thing,), values=True)}),)
        if isinstance(thing, Items) and name in ("append", "add", "insert", "extend"):
            more = given.get(1 if name == "insert" else 0)
            more = self.elements(more) if name == "extend" else more
            thing.entries[f"added {len(thing.entries)}"] = more
        return (thing,) if name == "copy" else NOTHING


def package_of(function: FunctionType) -> str:
    """Return the top-level package whose code a function is."""
    name = function.__globals__.get("__name__")
    return package_of_module(name if type(name) is str else None)


def _is_executor(thing: Thing) -> bool:
    kind = type(thing.obj) if isinstance(thing, Known) else None
    if isinstance(thing, Instance):
        kind = thing.cls
    # LangChain's own takes the context along.
    return kind is not None and issubclass(kind, Executor) and not _is_langchains(kind)


def _is_langchains(kind: type) -> bool:
    return kind.__module__.startswith("langchain_core")


def as_method(obj: Any) -> Method | Calling | None:
    """Return a bound method, a partial or a callable object as what it runs."""
    if is_a(obj, MethodType):
        own = known(obj.__self__, *SELF)
        if is_runnable(own[0]) and obj.__func__.__name__ in CALLING:
            return Calling(known(obj.__self__))
        return Method(Known(obj.__func__), (own,))
    if is_a(obj, partial):
        arguments = tuple(known(each, "partial") for each in obj.args)
        keywords = {k: known(value, "partial") for k, value in obj.keywords.items()}
        return Method(Known(obj.func), arguments, keywords)
    call = attribute(type(obj), "__call__")
    if is_a(call, FunctionType):
        return Method(Known(call), (known(obj, *SELF),))
    return None


def _functions_of(cls: type, given: Arguments) -> Value:
    """Return the functions that an object of a class runs, if that is all it does."""
    if issubclass(cls, partial):
        rest, keywords = given.positional[1:], dict(given.keywords)
        return tuple(Method(each, rest, keywords) for each in given.get(0))
    if issubclass(cls, RunnableLambda):
        return joined(given.get(0, "func"), given.get(1, "afunc"))
    if issubclass(cls, BaseTool):
        return joined(given.get(None, "func"), given.get(None, "coroutine"))
    return NOTHING
