"""Load a graph, or a function, named `path.py:variable`. Runs the file: it is the app's.

Refuses what is not there, and names what is.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.errors import GraphLoadError
from langchain_slm.rewriting.sites import Graph


def load_graph(name: str) -> Graph:
    """Return the graph that `name` ("path.py:variable") stands for.

    Raises:
        GraphLoadError: If the file cannot be imported or holds no such graph.
    """
    found = load(name)
    if isinstance(found, StateGraph | Pregel):
        return found
    hint = "; call the factory in the file and name its result" if callable(found) else ""
    msg = f"{name} is of type {type(found).__name__}, not a LangGraph graph{hint}"
    raise GraphLoadError(msg, name=name)


def load(name: str) -> Any:
    """Return the object that `name` ("path.py:variable") stands for.

    A file in a package (its folder has an `__init__.py`) is imported as a part of it, so
    that its relative imports work.

    Raises:
        GraphLoadError: If the file cannot be imported or has no such variable.
    """
    file, colon, variable = name.rpartition(":")
    if not colon or not file or not variable:
        msg = f"{name!r} is not PATH.py:VARIABLE, as in app/graph.py:graph"
        raise GraphLoadError(msg, name=name)
    path = Path(file)
    if not path.is_file():
        msg = f"{file}: no such file; give the path of the Python file with the graph"
        raise GraphLoadError(msg, name=name)
    module = _imported(path)
    if not hasattr(module, variable):
        graphs = [
            k for k, v in vars(module).items() if isinstance(v, StateGraph | Pregel)
        ]
        known = f"its graphs are: {', '.join(graphs)}" if graphs else "it has no graph"
        msg = f"{file}: no variable {variable!r}; {known}"
        raise GraphLoadError(msg, name=name)
    return getattr(module, variable)


def _imported(path: Path) -> ModuleType:
    root, parts = path.resolve().parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    # Imports beside the file work as when Python runs it.
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        if len(parts) == 1:
            return _executed(path)
        module = import_module(".".join(parts))
    except GraphLoadError:
        raise
    except (Exception, SystemExit) as error:
        msg = (
            f"{path}: importing it failed with {type(error).__name__}{_at(error, path)}: "
            f"{error}; run `python {path}` to see it alone"
        )
        raise GraphLoadError(msg, path=str(path)) from error
    if module.__file__ and not path.samefile(module.__file__):
        msg = (
            f"{path}: another module is imported as {module.__name__!r} already: "
            f"{module.__file__}; rename one of the two packages"
        )
        raise GraphLoadError(msg, path=str(path))
    return module


def _executed(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{path}: not a Python file"
        raise GraphLoadError(msg, path=str(path))
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if known is None:
            sys.modules.pop(path.stem, None)
        else:
            sys.modules[path.stem] = known
        raise
    return module


def _at(error: BaseException, path: Path) -> str:
    """Return the position of an error, where it is one in a file of the app."""
    if isinstance(error, SyntaxError):
        here = error.filename in (None, str(path), str(path.resolve()))
        return f" at line {error.lineno}" if here else f" in {error.filename}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename) in (path, path.resolve())]
    return f" at line {lines[-1]}" if lines else ""
