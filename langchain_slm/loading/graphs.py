"""Load a graph, or a function, by name. Runs the file that has it: it is the app's.

A graph is named as `projects` says: by a Python file or a notebook and a variable, or by
a `langgraph.json`, whose environment and import path then hold for the process. The
variable may be a factory. Refuses what is not there, and names what is. A value of an
environment variable is never shown.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.errors import GraphLoadError
from langchain_slm.loading.factories import made_by
from langchain_slm.loading.keys import (
    KEY_NAMES,
    Placeholders,
    message_of,
    missing_key,
    without_secrets,
)
from langchain_slm.loading.notebooks import needed_cells, read_cells, run_cells
from langchain_slm.loading.projects import (
    NamedGraph,
    find_graph,
    project_roots,
)
from langchain_slm.loading.projects import (
    package_of as package_of,  # noqa: PLC0414 - offered here, too
)
from langchain_slm.rewriting.sites import Graph

# Keeps open what `load_graph` opened: its graphs are used as long as the process lives.
_opened = ExitStack()
atexit.register(_opened.close)


def load_graph(name: str) -> Graph:
    """Return the graph that `name` stands for.

    A factory is called with an empty config. A context manager that it returns stays
    open until the process ends.

    Raises:
        GraphLoadError: If the file cannot be imported or holds no such graph, or if its
            factory fails.
        MissingExtraError: If an environment file needs python-dotenv.
    """
    return _opened.enter_context(open_graph(find_graph(name)))


@contextmanager
def open_graph(named: NamedGraph) -> Iterator[Graph]:
    """Yield a graph; what its factory opened is closed at the end.

    Raises:
        GraphLoadError: As `load_graph`, and if closing fails.
        MissingExtraError: As `load_graph`.
    """
    found = _variable_of(named)
    label = f"{named.file}:{named.variable}"
    stack = ExitStack()
    with _reported(label, "calling the factory", named):
        made = stack.enter_context(made_by(found, label))
    try:
        yield _checked(made, found, label)
    finally:
        with _reported(label, "closing what the factory opened", named):
            stack.close()


@contextmanager
def open_with_placeholders(
    named: NamedGraph, placeholders: Placeholders
) -> Iterator[Graph]:
    """Yield a graph as `open_graph` does; what misses a key is tried again with one.

    Raises:
        GraphLoadError: As `open_graph`, for what no placeholder mends.
        MissingExtraError: As `open_graph`.
    """
    with ExitStack() as stack:
        while True:
            try:
                graph = stack.enter_context(open_graph(named))
            except GraphLoadError as error:
                if not placeholders.stand_in(error):
                    raise
            else:
                break
        yield graph


def _checked(made: object, found: object, label: str) -> Graph:
    if isinstance(made, StateGraph | Pregel):
        return made
    what = f"{label} is" if made is found else f"{label} is a factory; it returned one"
    msg = f"{what} of type {type(made).__name__}, not a LangGraph graph"
    raise GraphLoadError(msg, name=label)


def load(name: str) -> Any:
    """Return the object that `name` ("path.py:variable") stands for.

    A file in a package (its folder has an `__init__.py`) is imported as a part of it, so
    that its relative imports work.

    Raises:
        GraphLoadError: If the file cannot be imported or has no such variable.
    """
    return _variable_of(find_graph(name))


def _variable_of(named: NamedGraph) -> Any:
    prepare(named)
    module = _module_of(named)
    if named.variable in vars(module):
        return vars(module)[named.variable]
    if hasattr(module, named.variable):  # of a module's own `__getattr__`
        return getattr(module, named.variable)
    graphs = [k for k, v in vars(module).items() if isinstance(v, StateGraph | Pregel)]
    known = f"its graphs are: {', '.join(graphs)}" if graphs else "it has no graph"
    msg = f"{named.file}: no variable {named.variable!r}; {known}"
    raise GraphLoadError(msg, name=named.target)


def prepare(named: NamedGraph) -> None:
    """Let the process import a graph: environment variables and import path.

    As LangGraph's server does, a `langgraph.json` goes before the environment, and its
    folders after the import path.

    Raises:
        GraphLoadError: If a file of environment variables cannot be read.
        MissingExtraError: If reading it needs python-dotenv.
    """
    given = named.project.environment() if named.project is not None else {}
    for variable, value in given.items():
        if value or variable not in os.environ:  # `KEY=` is a form to be filled in
            os.environ[variable] = value
    for folder in import_roots(named):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def import_roots(named: NamedGraph) -> list[Path]:
    """Return the folders whose modules the app imports as its own, beside its file's."""
    declared = named.project.import_roots() if named.project else []
    return list(dict.fromkeys([*declared, *project_roots(named.file), Path.cwd()]))


def _module_of(named: NamedGraph) -> ModuleType:
    path = named.file
    with _reported(str(path), "importing it", named):
        if named.module is not None:
            return import_module(named.module)
        if path.suffix == ".ipynb":
            return _notebook(path, named.variable)
        return _imported(path)


@contextmanager
def _reported(label: str, doing: str, named: NamedGraph) -> Iterator[None]:
    """Say of a failure of the app what failed, where, and what to do."""
    try:
        yield
    except GraphLoadError:
        raise
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise _failure(error, label, doing, named) from error


def _failure(
    error: BaseException, label: str, doing: str, named: NamedGraph
) -> GraphLoadError:
    given: Mapping[str, str] = named.project.environment() if named.project else {}
    said = without_secrets(message_of(error), given)
    missing = missing_key(error)
    msg = (
        f"{label}: {doing} failed with {type(error).__name__}{_at(error, named.file)}: "
        f"{said}; {_remedy(missing, said, named.file)}"
    )
    return GraphLoadError(msg, path=str(named.file), missing_key=missing)


def _remedy(missing: str | None, said: str, file: Path) -> str:
    if missing in KEY_NAMES:
        return (
            f"set {missing}, or inspect with --placeholder-keys: it sets a placeholder "
            "and makes no call"
        )
    if missing is not None:
        return f"set the environment variable {missing}"
    if "api key" in said.casefold().replace("_", " "):
        return "set the key that it misses; --placeholder-keys knows no name for it"
    if file.suffix == ".ipynb":
        return "run the notebook to see it alone"
    return f"run `python {file}` to see it alone"


def _imported(path: Path) -> ModuleType:
    root, parts = package_of(path)
    # Imports beside the file work as when Python runs it.
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if len(parts) == 1:
        return _executed(path)
    module = import_module(".".join(parts))
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
    with _known_as(path.stem, module):
        spec.loader.exec_module(module)
    return module


def _notebook(path: Path, variable: str) -> ModuleType:
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = ModuleType(path.stem)
    with _known_as(path.stem, module):
        run_cells(needed_cells(read_cells(path), variable), module)
    return module


@contextmanager
def _known_as(name: str, module: ModuleType) -> Iterator[None]:
    """Import `module` under a name; a module that had it has it again on a failure."""
    known = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    except BaseException:
        if known is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = known
        raise


def _at(error: BaseException, path: Path) -> str:
    """Return the position of an error, where it is one in a file of the app."""
    mine = (str(path), str(path.resolve()))
    if isinstance(error, SyntaxError):
        here = error.filename in (None, *mine)
        return f" at line {error.lineno}" if here else f" in {error.filename}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name, _, cell = frame.filename.partition("#cell-")
        if name in mine:
            return f" at line {frame.lineno}" + (f" of cell {cell}" if cell else "")
    return ""
