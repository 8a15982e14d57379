"""From a function to the syntax tree of its source. Imports and runs nothing."""

from __future__ import annotations

import ast
import linecache
import site
import sysconfig
from collections import defaultdict
from pathlib import Path
from types import CodeType
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_Index = dict[int, list[Function]]


class Sources:
    """The syntax trees of files, each read once."""

    def __init__(self) -> None:
        self._files: dict[str, _Index] = {}
        self._libraries = _library_folders()

    def function(self, code: CodeType) -> Function | None:
        """Return the definition that `code` was compiled from; None if it is not there.

        Two lambdas of one line are told apart by the columns of their code.
        """
        found = [
            each
            for each in self._index(code.co_filename).get(code.co_firstlineno, ())
            if _name(each) == code.co_name
        ]
        if len(found) > 1:
            found = [each for each in found if _holds(each, code)]
        return found[0] if len(found) == 1 else None

    def is_library(self, file: str) -> bool:
        """Whether a file is of an installed package or of Python itself."""
        return file.startswith(("<", *self._libraries))

    def _index(self, file: str) -> _Index:
        if file not in self._files:
            linecache.checkcache(file)
            self._files[file] = _by_line("".join(linecache.getlines(file)))
        return self._files[file]


def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found.add(str(Path(__file__).parents[1]))  # our own wrappers are no app's code
    found |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(f"{Path(each).resolve()}/" for each in found) + tuple(
        f"{each}/" for each in found
    )


def _by_line(source: str) -> _Index:
    index: _Index = defaultdict(list)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return index
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            index[_first_line(node)].append(node)
    return index


def _first_line(node: Function) -> int:
    """Return the line that a code object calls its first: that of a decorator, too."""
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(each.lineno for each in decorators)])


def _name(node: Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _holds(node: Function, code: CodeType) -> bool:
    body = node.body if isinstance(node, ast.Lambda) else node.body[0]
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    places = [
        (line, column)
        for line, _, column, _ in code.co_positions()
        if line is not None and column is not None and (line, column) >= _begin(node)
    ]
    return bool(places) and all(start <= place <= end for place in places[-1:])


def _begin(node: Function) -> tuple[int, int]:
    return node.lineno, node.col_offset
