"""What an attribute, an element or an import gives, in the code of an app. Runs nothing.

A property is read, never executed; an object's attribute is what it holds.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.graph.state import StateGraph

from langchain_slm.inspection.code_reading import Arguments, Spot
from langchain_slm.inspection.libraries import CALLING, sdk_of
from langchain_slm.inspection.peeking import (
    MISSING,
    attribute,
    function_of,
    has_class_attribute,
    is_a,
    items,
    pydantic_default,
)
from langchain_slm.inspection.values import (
    EACH,
    NOTHING,
    Agent,
    Calling,
    Given,
    How,
    Instance,
    Items,
    Known,
    Made,
    Method,
    Parent,
    Sdk,
    Thing,
    Unloaded,
    Value,
    Written,
    held,
    joined,
    known,
)

# How a method comes by its own object.
SELF: How = ("self",)
OF_SELF = "attribute of self"


class Attributes(ABC):
    """The part of `code_reading.Meaning` that is about what things hold."""

    def __init__(self) -> None:
        self._assigned: dict[tuple[int, str], Value] = {}

    @abstractmethod
    def apply(self, thing: Thing, given: Arguments, spot: Spot) -> Value:
        """Return what a call of one thing gives."""

    def attribute(self, receiver: Value, name: str, spot: Spot) -> Value:
        """Return an attribute that is not called."""
        return joined(*(self._attribute_of(each, name, spot) for each in receiver))

    def _attribute_of(self, thing: Thing, name: str, spot: Spot) -> Value:
        if isinstance(thing, Given | Sdk):
            return (thing,)
        if isinstance(thing, Unloaded):
            return (Unloaded(f"{thing.name}.{name}"),)
        if name in CALLING and is_runnable(thing):
            return (Calling((thing,)),)
        readers: dict[type[Thing], Callable[[Any, str, Spot], Value]] = {
            Instance: self._attribute_of_instance,
            Parent: self._attribute_of_parent,
            Known: self._attribute_of_object,
        }
        read = readers.get(type(thing))
        return NOTHING if read is None else read(thing, name, spot)

    def _attribute_of_parent(self, thing: Parent, name: str, spot: Spot) -> Value:
        mro = class_of(thing.own).__mro__
        above = mro[mro.index(thing.below) + 1 :] if thing.below in mro else ()
        for base in above:
            if name in vars(base):
                return self._of_class(thing.own, vars(base)[name], spot)
        return NOTHING

    def _attribute_of_instance(self, thing: Instance, name: str, spot: Spot) -> Value:
        if name in thing.attributes:
            return thing.attributes[name]
        found = attribute(thing.cls, name)
        if name == "__call__" and not is_a(found, FunctionType):
            return NOTHING  # calling an object is not calling its class
        if found is MISSING:
            found = pydantic_default(thing.cls, name)
        if found is MISSING:
            return NOTHING
        # Made with options that only a run knows: then this is the default of one.
        given = thing.attributes.get(EACH, NOTHING)
        hows = [how for each in given if isinstance(each, Given) for how in each.how]
        return held(self._of_class(thing, found, spot), *hows)

    def _attribute_of_object(self, thing: Known, name: str, spot: Spot) -> Value:
        obj = thing.obj
        found = attribute(obj, name)
        if is_a(obj, ModuleType):
            return NOTHING if found is MISSING else known(found, "module global")
        if package := sdk_of(type(obj).__module__):
            return (Sdk(package),)
        written = self._assigned.get((id(obj), name), NOTHING)
        if found is MISSING:
            return written
        bound = is_a(found, (staticmethod, classmethod))
        if bound or (not is_a(obj, type) and has_class_attribute(obj, name)):
            return joined(written, self._of_class(thing, found, spot))
        return joined(written, known(found, *_how_of(thing)))

    def _of_class(self, thing: Thing, found: Any, spot: Spot) -> Value:
        """Return what an attribute of a class gives for one of its objects."""
        receiver = (replace(thing, how=SELF),)
        if is_a(found, (property, cached_property)):
            getter = found.fget if is_a(found, property) else found.func
            bound = Method(Known(getter), (receiver,))
            return held(self.apply(bound, Arguments(), spot), *_how_of(thing))
        if is_a(found, staticmethod):
            return known(found.__func__)
        if is_a(found, classmethod):
            return (Method(Known(found.__func__), (known(class_of(thing)),)),)
        if function_of(found) is not None and not is_a(found, type):
            return (Method(Known(found), (receiver,)),)
        return known(found, *_how_of(thing))

    def assigned(self, receiver: Value, name: str, value: Value) -> None:
        """Take note that an attribute is assigned."""
        value = held(value, OF_SELF)
        for each in receiver:
            if isinstance(each, Instance):
                before = each.attributes.get(name, NOTHING)
                each.attributes[name] = joined(before, value)
            elif isinstance(each, Known):
                key = id(each.obj), name
                before = self._assigned.get(key, NOTHING)
                self._assigned[key] = joined(before, value)

    def item(self, container: Value, key: Value) -> Value:
        """Return an element; any of them where the key is not known."""
        return joined(*(self._item_of(each, key) for each in container))

    def _item_of(self, thing: Thing, key: Value) -> Value:
        name = key[0].obj if len(key) == 1 and isinstance(key[0], Known) else MISSING
        is_plain = type(name) in (str, int)
        if isinstance(thing, Items):
            exact = thing.entries.get(name) if is_plain else None
            return thing.all if exact is None else exact
        if isinstance(thing, Known):
            found = dict(items(thing.obj))
            if is_plain and name in found:
                return known(found[name], *thing.how)
            return joined(*(known(each, *thing.how) for each in found.values()))
        return (thing,) if isinstance(thing, Given) else NOTHING

    def elements(self, container: Value, *, values: bool = False) -> Value:
        """Return what iteration gives; of a dict its `values` rather than its keys."""
        found = []
        for each in container:
            if isinstance(each, Items):
                found.append(each.all)
            elif isinstance(each, Known) and (values or not is_a(each.obj, dict)):
                inside = [known(one, *each.how) for _, one in items(each.obj)]
                found.append(joined(*inside))
            elif isinstance(each, Given):
                found.append((each,))
        return joined(*found)

    def flat(self, value: Value) -> Value:
        """Return the alternatives of a value, and the elements of those with any."""
        plain = tuple(each for each in value if not is_container(each))
        inside = tuple(each for each in value if is_container(each))
        return joined(plain, self.elements(inside, values=True))

    def imported(self, module: str, name: str | None) -> Value:
        """Return a module, or a name of one, without importing it."""
        whole = module if name is None else f"{module}.{name}"
        loaded = sys.modules.get(module, MISSING)
        found = loaded if name is None or loaded is MISSING else attribute(loaded, name)
        if found is MISSING:
            found = sys.modules.get(whole, MISSING)
        if found is MISSING:
            return (Unloaded(whole),)
        return known(found) if name is None else known(found, "module global")


def is_runnable(thing: Thing) -> bool:
    """Whether a thing has the methods of a runnable, as far as is known."""
    if isinstance(thing, Known):
        return is_a(thing.obj, (Runnable, StateGraph))
    if isinstance(thing, Instance):
        return bool(thing.inside) or issubclass(thing.cls, (Runnable, StateGraph))
    return isinstance(thing, Made | Agent | Written | Method)


def is_container(thing: Thing) -> bool:
    """Whether a thing is a plain container."""
    plain = isinstance(thing, Known) and is_a(thing.obj, (dict, list, tuple))
    return plain or isinstance(thing, Items)


def _how_of(thing: Thing) -> How:
    return (OF_SELF,) if thing.how[:1] == SELF else thing.how


def class_of(thing: Thing) -> type:
    """Return the class of a thing; of one that is a class, itself."""
    if isinstance(thing, Instance):
        return thing.cls
    obj: Any = thing.obj if isinstance(thing, Known) else None
    return obj if is_a(obj, type) else type(obj)
