"""Finds the graphs of a checkout: those of its langgraph.json, or those named."""

import ast
import asyncio
import builtins
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.loading.graphs import load

_SKIPPED = {".git", "node_modules", ".venv", "__pycache__"}


class Named(NamedTuple):
    """A graph by its name, and where it is: PATH.py or module, and an expression."""

    name: str
    file: str
    expression: str


def named_graphs(checkout: Path, wanted: Sequence[str]) -> Iterator[Named]:
    """Yield the graphs: those `wanted`, else all of the checkout's langgraph.json.

    What is wanted is the name of a graph in langgraph.json, or PATH.py:EXPRESSION.
    """
    known = dict(_of_langgraph_json(checkout))
    for name in wanted or known:
        file, colon, expression = name.partition(":")
        if name in known:
            file, _, expression = known[name].rpartition(":")
        elif not colon:
            msg = f"{name!r} is neither PATH.py:EXPRESSION nor one of {sorted(known)}"
            raise SystemExit(msg)
        yield Named(name, file, expression)


def _of_langgraph_json(checkout: Path) -> Iterator[tuple[str, str]]:
    file = checkout / "langgraph.json"
    graphs = json.loads(file.read_text()).get("graphs", {}) if file.is_file() else {}
    for name, where in graphs.items():
        yield name, where["path"] if isinstance(where, dict) else where


def prepare(checkout: Path) -> None:
    """Make the checkout the working directory, and its packages importable."""
    os.chdir(checkout)
    file = checkout / "langgraph.json"
    stated = json.loads(file.read_text()) if file.is_file() else {}
    for each in stated.get("dependencies", ["."]):
        folder = (checkout / each).resolve()
        for path in (folder, folder / "src"):
            if path.is_dir() and str(path) not in sys.path:
                sys.path.insert(0, str(path))


def loaded(named: Named, runner: asyncio.Runner) -> Any:
    """Import a graph; a factory is called, and an uncompiled graph compiled."""
    found = runner.run(_made(_value(named)))
    if isinstance(found, StateGraph):
        found = found.compile()
    if not isinstance(found, Pregel):
        msg = f"{named.name}: a {type(found).__name__} is no LangGraph graph"
        raise TypeError(msg)
    return found


def _value(named: Named) -> Any:
    """Return the value of the expression, in the module that the file is."""
    names = [
        n.id for n in ast.walk(ast.parse(named.expression)) if isinstance(n, ast.Name)
    ]
    [first, *_] = [name for name in names if not hasattr(builtins, name)]
    path = Path(named.file)
    if path.suffix != ".py":
        module = import_module(named.file)
    elif named.expression == first:
        return load(f"{named.file}:{first}")
    else:
        load(f"{named.file}:{first}")
        module = next(m for m in list(sys.modules.values()) if _is_of(m, path))
    return eval(named.expression, dict(vars(module)))  # noqa: S307 - the app's code is run anyway


def _is_of(module: Any, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(file).resolve() == path.resolve()


async def _made(found: Any) -> Any:
    """Return what a factory makes; a context manager is entered for good."""
    if callable(found) and not isinstance(found, StateGraph | Pregel):
        takes = inspect.signature(found).parameters
        found = found({}) if takes else found()
    if inspect.isawaitable(found):
        found = await found
    if hasattr(found, "__aenter__"):
        return await found.__aenter__()
    return found.__enter__() if hasattr(found, "__enter__") else found


class Tree:
    """The files of a checkout; apps write some of them by themselves."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._before = _hashes(checkout)
        self.own: set[str] = set()

    @contextmanager
    def left_to_the_app(self) -> Iterator[None]:
        """Take what changes meanwhile for the app's own doing."""
        before = _hashes(self._checkout)
        yield
        self.own.update(_unlike(before, _hashes(self._checkout)))

    def changed(self) -> Iterator[str]:
        """Yield what has changed beyond that."""
        for name in _unlike(self._before, _hashes(self._checkout)):
            if name not in self.own:
                yield f"{name} was changed or deleted"


def _unlike(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name, value in before.items() if now.get(name) != value]


def _hashes(checkout: Path) -> dict[str, str]:
    found = {}
    for path in sorted(checkout.rglob("*")):
        if path.is_file() and not _SKIPPED & set(path.parts):
            with suppress(OSError):
                name = str(path.relative_to(checkout))
                found[name] = sha256(path.read_bytes()).hexdigest()
    return found
