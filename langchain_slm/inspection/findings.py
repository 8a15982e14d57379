"""What is said of a model that was found: what it is, how sure that is, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from langchain_core.language_models import BaseChatModel

from langchain_slm.inspection.calls import Context
from langchain_slm.inspection.code_reading import Spot
from langchain_slm.inspection.describing import (
    model_name,
    named,
    overridden,
    provider_name,
    queued_options,
)
from langchain_slm.inspection.libraries import raw_reason
from langchain_slm.inspection.peeking import attribute, is_a, items
from langchain_slm.inspection.values import NO_OPTIONS, How, Known, Made, Options, Thing

PACKAGES = "site-packages"
Confidence = Literal["certain", "probable", "opaque", "seen in traces only"]


@dataclass(frozen=True, slots=True)
class Holding:
    """A model that a node calls, and how it comes by it.

    Attributes:
        inner: Nodes and tasks between the node that was read and the call.
        agent: Name of the agent that the node invokes there; None for none of its own.
        how: How the code comes by the model, the outermost first.
        confidence: `certain`: the object exists, and code that calls it was read;
            `probable`: it is made when the code runs, or its call is out of sight;
            `opaque`: it is called where no binding reaches;
            `seen in traces only`: it was recorded, and is not found by reading.
        reason: Why it is not certain; None where it is.
        class_name: The model's class; None where it cannot be seen.
        model: The provider's name of it; None where only a run knows.
        provider: LangChain's name of its provider; None likewise.
        options: What is bound to it.
        where: Files and lines of its calls; none where no code of the app makes one.
        calls: How often it was recorded; None where no store was asked.
    """

    inner: tuple[str, ...]
    agent: str | None
    how: How
    confidence: Confidence
    reason: str | None
    class_name: str | None
    model: str | None
    provider: str | None
    options: Options
    where: tuple[str, ...]
    calls: int | None = None


def merged(found: Iterable[Holding]) -> list[Holding]:
    """Return holdings that differ only in their places as one, with all of them."""
    places: dict[Holding, list[str]] = {}
    for each in found:
        places.setdefault(replace(each, where=()), []).extend(each.where)
    return [
        replace(holding, where=tuple(dict.fromkeys(where)))
        for holding, where in places.items()
    ]


def plain_holding(thing: Thing, context: Context, spot: Spot) -> Holding:
    """Return what the context alone says of a thing that is called."""
    return Holding(
        inner=context.inner,
        agent=context.agent,
        how=tuple(dict.fromkeys((*context.how, *thing.how))),
        confidence="certain" if context.guess is None else "probable",
        reason=context.guess,
        class_name=None,
        model=None,
        provider=None,
        options=thing.options,
        where=() if (place := place_of(spot)) is None else (place,),
    )


def of_model(thing: Known, context: Context, spot: Spot) -> Holding:
    """Return what is said of a chat model that exists."""
    model: BaseChatModel = thing.obj
    found = replace(
        plain_holding(thing, context, spot),
        class_name=type(model).__name__,
        model=thing.options.model or model_name(model),
        provider=provider_name(model),
    )
    return _reached(found, overridden(type(model)) or context.unbound)


def of_made(thing: Made, context: Context, spot: Spot) -> Holding:
    """Return what is said of a chat model that the code makes when it runs."""
    found = replace(
        plain_holding(thing, context, spot),
        confidence="probable",
        reason=context.guess or "made when the code runs",
        class_name=thing.class_name,
        model=thing.options.model or thing.model,
        provider=thing.provider,
    )
    return _reached(found, context.unbound)


def of_configurable(thing: Known, context: Context, spot: Spot) -> Holding:
    """Return what is said of a model that a run's config chooses: its default."""
    default = attribute(thing.obj, "_default_config")
    default = default if type(default) is dict else {}
    options = thing.options
    for _, operation in items(attribute(thing.obj, "_queued_declarative_operations")):
        options = queued_options(operation).over(options)
    thing = replace(thing, how=(*thing.how, "configurable"), options=options)
    model, provider = named(
        _text(default.get("model")), _text(default.get("model_provider"))
    )
    found = replace(
        plain_holding(thing, context, spot),
        class_name="init_chat_model",
        model=model,
        provider=provider,
    )
    return _reached(found, context.unbound)


def of_given(thing: Thing, context: Context, spot: Spot) -> Holding:
    """Return what is said of what a run gives and the code calls."""
    reason = "it comes with a run, so that its class cannot be seen"
    found = plain_holding(thing, context, spot)
    return replace(found, confidence="probable", reason=reason)


def opaque(thing: Known, context: Context, spot: Spot, reason: str) -> Holding:
    """Return what is said of an object that no binding reaches."""
    found = plain_holding(thing, context, spot)
    name = type(thing.obj).__name__
    return replace(found, confidence="opaque", reason=reason, class_name=name)


def raw(package: str, context: Context, spot: Spot) -> Holding:
    """Return what is said of a call below LangChain."""
    found = plain_holding(Thing(how=("raw SDK",)), context, spot)
    reason = raw_reason(package)
    return replace(found, confidence="opaque", reason=reason, class_name=package)


def traced(model: str, provider: str, calls: int) -> Holding:
    """Return what is said of a model of which only recorded calls are known."""
    return Holding(
        inner=(),
        agent=None,
        how=(),
        confidence="seen in traces only",
        reason="its calls are recorded; reading the graph does not show them",
        class_name=None,
        model=model,
        provider=provider,
        options=NO_OPTIONS,
        where=(),
        calls=calls,
    )


def _reached(holding: Holding, unreached: str | None) -> Holding:
    reason = unreached or holding.options.pinned
    return (
        holding
        if reason is None
        else replace(holding, confidence="opaque", reason=reason)
    )


def place_of(spot: Spot) -> str | None:
    """Return file and line, relative to the working folder where that is above.

    A library's file is relative to the folder of packages.
    """
    if not spot.file:
        return None
    path = Path(spot.file)
    if PACKAGES in path.parts:
        at = len(path.parts) - path.parts[::-1].index(PACKAGES)
        return f"{Path(*path.parts[at:])}:{spot.line}"
    here = Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path
    return f"{here}:{spot.line}"


def _text(value: object) -> str | None:
    return str(value) if is_a(value, str) else None
