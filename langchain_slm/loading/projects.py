"""Which graphs a target names, and what a `langgraph.json` says of them. Imports no app.

A target is `PATH.py:VARIABLE`, `PATH.ipynb:VARIABLE`, `PATH/langgraph.json` for all of
its graphs, or `PATH/langgraph.json:NAME`. The file is read as LangGraph's own server
does: keys that are not known are ignored, paths are relative to the file, a value
without a slash is the name of a module. Graphs in other languages are refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from langchain_slm.errors import GraphLoadError, MissingExtraError

PYTHON_SUFFIXES = (".py", ".ipynb")
OTHER_LANGUAGES = (".ts", ".mts", ".cts", ".js", ".mjs", ".cjs")
# What marks the folder from which a project is installed or run.
ROOT_MARKS = ("langgraph.json", "pyproject.toml", "setup.py", "setup.cfg")
FORMS = (
    "PATH.py:VARIABLE, PATH.ipynb:VARIABLE, PATH/langgraph.json or "
    "PATH/langgraph.json:NAME, as in app/graph.py:graph"
)


@dataclass(frozen=True, slots=True)
class Project:
    """What a `langgraph.json` says.

    Attributes:
        path: The file.
        graphs: By name: file or module, a colon, and a variable.
        env: Path of a file with environment variables, or the variables themselves.
        dependencies: Packages, and folders that go on the import path.
    """

    path: Path
    graphs: Mapping[str, str]
    env: str | Mapping[str, str] = field(default="", repr=False)
    dependencies: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that its paths are relative to."""
        return self.path.resolve().parent

    @property
    def env_file(self) -> Path | None:
        """The file with environment variables; None where it names none."""
        return self.folder / self.env if self.env and isinstance(self.env, str) else None

    def import_roots(self) -> list[Path]:
        """Return the folders that go on the import path, the most important first.

        For a folder that its server would install as a package, `src` counts, too.
        """
        folders = [self.folder]
        folders += [self.folder / each for each in self.dependencies if each[:1] in "./"]
        return [each for folder in folders for each in _with_src(folder)]

    def environment(self) -> dict[str, str]:
        """Return the environment variables that the file gives to its graphs.

        A file of variables that is not there gives none, as in LangGraph's server.

        Raises:
            GraphLoadError: If the file of variables cannot be read.
            MissingExtraError: If python-dotenv is not installed.
        """
        if not isinstance(self.env, str):
            return dict(self.env)
        file = self.env_file
        return _read_env_file(file) if file is not None and file.exists() else {}


@dataclass(frozen=True, slots=True)
class NamedGraph:
    """A graph by name: where its source is, without having imported it.

    Attributes:
        name: Its key in `langgraph.json`; None where it is named by its file.
        file: The file that defines the variable.
        variable: Name of the graph, or of its factory, in the file.
        module: Dotted name, where `langgraph.json` gives one instead of a path.
        project: What the `langgraph.json` says, where one names the graph.
    """

    name: str | None
    file: Path
    variable: str
    module: str | None = None
    project: Project | None = None

    @property
    def target(self) -> str:
        """What names this graph alone."""
        if self.name is not None and self.project is not None:
            return f"{self.project.path}:{self.name}"
        return f"{self.file}:{self.variable}"


def find_graphs(target: str) -> list[NamedGraph]:
    """Return the graphs that `target` names, without importing anything.

    Args:
        target: As the module's docstring says.

    Returns:
        One graph, or all those of a `langgraph.json` in its order.

    Raises:
        GraphLoadError: If the target has another form, a file is not there, or a
            `langgraph.json` is malformed; names the place.
    """
    path, json_suffix, name = _split_project(target)
    if json_suffix:
        project = read_project(path)
        names = [name] if name else list(project.graphs)
        return [_graph_of(project, each) for each in names]
    file, colon, variable = target.rpartition(":")
    if not colon or not file or not variable:
        msg = f"{target!r} is not {FORMS}"
        raise GraphLoadError(msg, name=target)
    if not Path(file).is_file():
        msg = f"{file}: no such file; give the path of the Python file with the graph"
        raise GraphLoadError(msg, name=target)
    return [NamedGraph(name=None, file=Path(file), variable=variable)]


def find_graph(target: str) -> NamedGraph:
    """Return the one graph that `target` names.

    Raises:
        GraphLoadError: As `find_graphs`, and if the target names several or none.
    """
    graphs = find_graphs(target)
    if len(graphs) == 1:
        return graphs[0]
    names = ", ".join(str(graph.name) for graph in graphs)
    msg = f"{target} has {len(graphs)} graphs ({names}); name one, as in {target}:NAME"
    raise GraphLoadError(msg, name=target)


def _split_project(target: str) -> tuple[Path, bool, str]:
    """Return the path of a `langgraph.json`, whether it is one, and a graph's name."""
    path, found, name = target.partition(".json:")
    if found:
        return Path(f"{path}.json"), True, name
    return Path(target), target.endswith(".json"), ""


def read_project(path: Path) -> Project:
    """Return what a `langgraph.json` says.

    Raises:
        GraphLoadError: If it cannot be read or is malformed; names the place.
    """
    said = _read_json(path)
    graphs = said.get("graphs")
    if not isinstance(graphs, dict) or not graphs:
        msg = f'{path}: "graphs" must be an object of PATH:VARIABLE by name'
        raise GraphLoadError(msg, path=str(path))
    env = said.get("env", "")
    if isinstance(env, dict):
        env = {str(name): str(value) for name, value in env.items()}
    elif not isinstance(env, str):
        msg = f'{path}: "env" must be the path of a file, or an object of variables'
        raise GraphLoadError(msg, path=str(path))
    return Project(
        path=path,
        graphs={name: _graph_value(path, name, value) for name, value in graphs.items()},
        env=env,
        dependencies=_dependencies(path, said.get("dependencies", [])),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read ({type(error).__name__})"
        raise GraphLoadError(msg, path=str(path)) from error
    except json.JSONDecodeError as error:
        msg = f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg})"
        raise GraphLoadError(msg, path=str(path), line=error.lineno) from error
    except RecursionError as error:
        msg = f"{path}: nested too deeply to be read"
        raise GraphLoadError(msg, path=str(path)) from error
    if not isinstance(said, dict):
        msg = f"{path}: must hold one JSON object, not {type(said).__name__}"
        raise GraphLoadError(msg, path=str(path))
    return said


def _graph_value(path: Path, name: str, value: object) -> str:
    said = value.get("path") if isinstance(value, dict) else value
    if isinstance(said, str) and all(said.rpartition(":")):
        return said
    msg = (
        f'{path}: "graphs" / {name!r} must be "PATH.py:VARIABLE" or an object with such '
        f'a "path"'
    )
    raise GraphLoadError(msg, path=str(path), graph=name)


def _dependencies(path: Path, given: object) -> tuple[str, ...]:
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return tuple(given)
    msg = f'{path}: "dependencies" must be an array of texts'
    raise GraphLoadError(msg, path=str(path))


def _graph_of(project: Project, name: str) -> NamedGraph:
    if name not in project.graphs:
        known = ", ".join(project.graphs)
        msg = f"{project.path}: no graph {name!r}; its graphs are: {known}"
        raise GraphLoadError(msg, path=str(project.path), graph=name)
    where, _, variable = project.graphs[name].rpartition(":")
    if where.endswith(OTHER_LANGUAGES):
        msg = f"{project.path}: graph {name!r} is {where}; only Python graphs can be read"
        raise GraphLoadError(msg, path=str(project.path), graph=name)
    module = None if "/" in where or where.endswith(PYTHON_SUFFIXES) else where
    file = (
        _module_file(module, project.import_roots())
        if module
        else project.path.parent / where
    )
    if file is None or not file.is_file():
        msg = f"{project.path}: graph {name!r}: {where} is not there"
        raise GraphLoadError(msg, path=str(project.path), graph=name)
    if file.is_relative_to(project.folder):  # a path in the form of the given one
        file = project.path.parent / file.relative_to(project.folder)
    return NamedGraph(name, file, variable, module, project)


def _module_file(module: str, roots: Sequence[Path]) -> Path | None:
    """Return the source of a module; nothing is imported, its packages neither."""
    where = [*map(str, roots), *sys.path]
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, where) if part else None
        if spec is None:
            return None
        where = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin else None


def package_of(path: Path) -> tuple[Path, list[str]]:
    """Return the folder from which a file is imported, and the parts of its name."""
    root, parts = path.resolve().parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return root, parts


def project_roots(file: Path) -> list[Path]:
    """Return the folders from which the project around `file` may be run.

    They are the nearest folder above with a `pyproject.toml` or the like, and its
    `src`: an app that is not installed can be imported all the same.
    """
    for folder in file.resolve().parents:
        if any((folder / mark).is_file() for mark in ROOT_MARKS):
            return list(_with_src(folder))
    return []


def _with_src(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield folder.resolve()
        if (folder / "src").is_dir():
            yield (folder / "src").resolve()


def _read_env_file(file: Path) -> dict[str, str]:
    try:
        from dotenv import dotenv_values  # noqa: PLC0415 - in an extra
    except ImportError as error:
        msg = f"{file} needs python-dotenv: pip install 'langchain-slm[convert]'"
        raise MissingExtraError(msg) from error
    try:
        values = dotenv_values(file, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: cannot be read ({type(error).__name__})"
        raise GraphLoadError(msg, path=str(file)) from None  # its text may be a secret
    return {name: value for name, value in values.items() if value is not None}
