"""What is compared of a run: plain values, without what differs from run to run.

Allowed differences between a graph and its rewritten copy, each with its reason:

- `response_metadata["langchain_slm"]`: a bound model's message says who answered.
- Notes of an exception beyond LangGraph's own: where the bound model failed before the
  app's own model did, a note says so. Type and message are compared.

Nothing else. `EXPECTED` of `observing` says which *order* is compared.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import PregelTask, Send
from pydantic import BaseModel

from langchain_slm.routing.dialect import METADATA_KEY

TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?")
ID = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # runs, tasks, checkpoints, messages
    r"|\b[0-9a-f]{32}\b"  # interrupts
    r"|\b0x[0-9a-f]+\b"  # places in memory
)
SHORTEST = 12  # of what is replaced
VERSION = re.compile(r"\b(\d{32})\.\d+(?:\.\d+)?(?:e-\d+)?")  # of a channel: a random end


class Names:
    """Gives each id a name in the order of appearance, or all of them the same one."""

    def __init__(self, *, told_apart: bool) -> None:
        self._known: dict[str, str] = {}
        self._told_apart = told_apart

    def __call__(self, found: re.Match[str]) -> str:
        if not self._told_apart:
            return "*"
        return self._known.setdefault(found.group(), f"*{len(self._known)}")


def _version(found: re.Match[str]) -> str:
    return f"v{int(found.group(1))}"


def normal(value: Any, names: Names) -> Any:
    """Return `value` in dicts, lists and text, without what differs from run to run."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value, names)
    if isinstance(value, Mapping):
        return {
            normal(key, names): normal(each, names)
            for key, each in value.items()
            if key != METADATA_KEY
        }
    if isinstance(value, list | tuple) and not hasattr(value, "_asdict"):
        return [normal(each, names) for each in value]
    return _object(value, names)


def _text(value: str, names: Names) -> str:
    if len(value) < SHORTEST:
        return value
    text = VERSION.sub(_version, TIME.sub("TIME", value))
    return ID.sub(names, text)


def _task(task: PregelTask, names: Names) -> dict[str, Any]:
    whole = task._replace(result=None)._asdict()
    return {**normal(whole, names), "result": written(task.result)}


def written(value: Any) -> Any:
    """Return a normal value that was read from the writes of a task.

    LangGraph stores them while it gives ids to the messages in them: whether a stored
    one has its id is a matter of luck.
    """
    return _without_ids(normal(value, Names(told_apart=False)))


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = {"id"} if "additional_kwargs" in value else set()
        return {k: _without_ids(v) for k, v in value.items() if k not in hidden}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def _object(value: Any, names: Names) -> Any:
    kind = type(value).__name__
    if isinstance(value, PregelTask):
        told: Any = _task(value, names)
    elif isinstance(value, tuple):
        told = normal(value._asdict(), names)  # type: ignore[attr-defined]
    elif isinstance(value, AbstractSet):
        told = sorted((normal(each, names) for each in value), key=repr)
    elif isinstance(value, BaseMessage | BaseModel):
        told = normal(dict(value), names)
    elif isinstance(value, BaseException):
        told = normal(str(value), names)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        told = normal(parts, names)
    elif isinstance(value, Send):
        told = normal([value.node, value.arg], names)
    else:
        return _text(repr(value), names)
    return [kind, told]


def differences(one: Any, other: Any, at: str = "") -> Iterator[str]:
    """Yield where two normal values differ, and both values."""
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other:
                side = "only here" if key in one else "only there"
                yield f"{at}.{key}: {side}: {_short(one.get(key, other.get(key)))}"
            else:
                yield from differences(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        yield from _of_lists(one, other, at)
    elif one != other:
        yield f"{at}: {_short(one)} against {_short(other)}"


def _of_lists(one: list[Any], other: list[Any], at: str) -> Iterator[str]:
    """Yield the differences of what is not in both lists; else of their order."""
    here, there = _rest(one, other), _rest(other, one)
    for (index, mine), (_, others) in zip(here, there, strict=False):
        yield from differences(mine, others, f"{at}[{index}]")
    for index, mine in here[len(there) :]:
        yield f"{at}[{index}]: only here: {_short(mine)}"
    for index, others in there[len(here) :]:
        yield f"{at}[{index}]: only there: {_short(others)}"
    if one != other and not here and not there:
        index = next(i for i, each in enumerate(one) if each != other[i])
        yield f"{at}[{index}]: in another order: {_short(one[index])}"


def _rest(one: list[Any], other: list[Any]) -> list[tuple[int, Any]]:
    known = Counter(map(repr, other))
    found = []
    for index, each in enumerate(one):
        if known[repr(each)]:
            known[repr(each)] -= 1
        else:
            found.append((index, each))
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}..."
