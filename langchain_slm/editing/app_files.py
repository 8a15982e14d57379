"""Which files of an app a file imports, as far as its text says. Imports nothing.

Followed are relative imports, and absolute ones that are found in the app's own folders;
never an installed package, and nothing outside the project.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import libcst as cst
from typing_extensions import override

from langchain_slm.editing.names import is_type_checking
from langchain_slm.editing.syntax import Parsed, dotted, module_of

_INSTALLED = frozenset(
    {"site-packages", "dist-packages", "node_modules", "__pypackages__"}
)


def imported_files(
    parsed: Parsed, file: Path, *, roots: Sequence[Path], project: Path
) -> list[Path]:
    """Return the files of an app that one of its files imports, in order.

    Args:
        parsed: The file's text.
        file: Where it is.
        roots: Folders whose modules the app imports as its own.
        project: The folder that holds the app; files outside it are not its own.
    """
    visitor = _Imports()
    parsed.visit(visitor)
    found: dict[Path, None] = {}
    for level, name in visitor.found:
        folders = file.parents[level - 1 : level] if level else roots
        for path in _files(name, folders):
            if path != file and is_own(path, project):
                found[path] = None
    return list(found)


def is_own(path: Path, project: Path) -> bool:
    """Whether a file belongs to a project, and is not installed in it."""
    inside = path.resolve().is_relative_to(project.resolve())
    return inside and not is_installed(path, project)


def is_installed(path: Path, project: Path) -> bool:
    """Whether a file is of a package that was installed, in the project or elsewhere."""
    path = path.resolve()
    environments = [each for each in path.parents if (each / "pyvenv.cfg").is_file()]
    inside = [each for each in environments if each != project.resolve()]
    return bool(inside or _INSTALLED & set(path.parts))


def _files(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the file of a module and those of the packages around it."""
    parts = name.split(".") if name else []
    for folder in folders:
        packages = [
            folder.joinpath(*parts[:n]) / "__init__.py" for n in range(len(parts))
        ]
        inits = [each for each in packages[1:] if each.is_file()]
        place = folder.joinpath(*parts)
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if parts and file.is_file():
                return [*inits, file]
        if parts and place.is_dir():
            return inits
    return []


class _Imports(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    @override
    def on_visit(self, node: cst.CSTNode) -> bool:
        match node:
            case cst.If() if is_type_checking(node):
                return False
            case cst.Import():
                self.found += [(0, dotted(alias.name) or "") for alias in node.names]
            case cst.ImportFrom():
                self.found += _modules(node)
        return True


def _modules(node: cst.ImportFrom) -> Iterator[tuple[int, str]]:
    """Yield the modules that a `from` may import: what it names may be one, too."""
    level, base = len(node.relative), module_of(node).lstrip(".")
    yield level, base
    if not isinstance(node.names, cst.ImportStar):
        for alias in node.names:
            name = dotted(alias.name) or ""
            yield level, f"{base}.{name}" if base else name


def reached(start: Path, imported: Callable[[Path], Sequence[Path]]) -> list[Path]:
    """Return a file and those of its app that it imports, directly or not.

    Args:
        start: The file.
        imported: Returns the files of the app that a file imports.
    """
    first = [start, *_packages(start)]
    queue, seen = deque(first), dict.fromkeys(first)
    while queue:
        for each in imported(queue.popleft()):
            for known in (each, *_packages(each)):
                if known not in seen:
                    seen[known] = None
                    queue.append(known)
    return list(seen)


def _packages(file: Path) -> Iterator[Path]:
    """Yield the files of the packages around a file: they are imported before it."""
    for folder in file.parents:
        init = folder / "__init__.py"
        if not init.is_file():
            return
        if init != file:
            yield init
