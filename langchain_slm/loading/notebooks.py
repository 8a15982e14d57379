"""A notebook's cells as Python. Reads `.ipynb` files and runs their cells; writes none.

A magic (`%matplotlib inline`, `!pip install`) is skipped: it needs IPython. Cells in
other languages (`%%bash`) are skipped whole, and `display(...)` and `Image(...)`: nobody
looks, and what it shows of a graph is often drawn by a service of the web.
"""

from __future__ import annotations

import ast
import asyncio
import json
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import CO_COROUTINE
from pathlib import Path
from types import CodeType, ModuleType

from langchain_slm.errors import GraphLoadError

MAGIC = ("%", "!", "?")
# Magics of a whole cell after which Python follows.
PYTHON_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun")


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell.

    Attributes:
        number: From 1, counted among all cells, as an editor shows them.
        source: Python: in the place of each magic stands `pass`.
        file: What a traceback calls it.
    """

    number: int
    source: str
    file: str


def read_cells(path: Path) -> list[Cell]:
    """Return the code cells of a notebook, in order.

    Raises:
        GraphLoadError: If it cannot be read, or holds no cells.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
        cells = [(n, cell) for n, cell in enumerate(said["cells"], start=1)]
        code = [(n, cell["source"]) for n, cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path}: cannot be read as a notebook ({type(error).__name__})"
        raise GraphLoadError(msg, path=str(path)) from error
    return [
        Cell(number, without_magics("".join(source)), f"{path}#cell-{number}")
        for number, source in code
    ]


def without_magics(source: str) -> str:
    """Return a cell's source with `pass` in the place of each magic.

    Only a line that is no Python is taken for one: a text may begin a line with `%`.
    """
    first = source.lstrip().split(None, 1)[0] if source.strip() else ""
    if first.startswith("%%") and first not in PYTHON_CELLS:
        return ""
    lines = source.split("\n")
    for _ in lines:
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            number = (error.lineno or 0) - 1
            if not (0 <= number < len(lines) and _is_magic(lines[number])):
                break
            line = lines[number]
            lines[number] = f"{line[: len(line) - len(line.lstrip())]}pass"
        except ValueError:  # a NUL character
            break
        else:
            break
    return "\n".join(lines)


def _is_magic(line: str) -> bool:
    text = line.strip()
    _, equals, value = text.partition("=")
    return text.startswith(MAGIC) or text.endswith("?") or _starts_shell(equals, value)


def _starts_shell(equals: str, value: str) -> bool:
    return bool(equals) and value.lstrip().startswith(("!", "%"))


def needed_cells(cells: list[Cell], variable: str) -> list[Cell]:
    """Return the cells up to the last that gives `variable` a value; all if none does.

    What follows usually shows the graph at work, and may call models.
    """
    last = max((c.number for c in cells if variable in _assigned(c.source)), default=None)
    return cells if last is None else [cell for cell in cells if cell.number <= last]


def _assigned(source: str) -> set[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    return set(_bound_names(tree))


def _bound_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]


def run_cells(cells: list[Cell], module: ModuleType) -> None:
    """Run `cells` in a module's namespace; a cell may await at its top level.

    Statements that only display something are left out.

    Raises:
        Exception: Whatever a cell raises.
    """
    for cell in cells:
        # For `inspect.getsource` and tracebacks.
        lines = cell.source.splitlines(keepends=True)
        linecache.cache[cell.file] = (len(cell.source), None, lines, cell.file)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        only_tree = flags | ast.PyCF_ONLY_AST
        tree = compile(cell.source, cell.file, "exec", only_tree, dont_inherit=True)
        tree.body = [each for each in tree.body if not _displays(each)]
        _run(compile(tree, cell.file, "exec", flags, dont_inherit=True), module)


def _displays(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id="display" | "Image"))):
            return True
    return False


def _run(code: CodeType, module: ModuleType) -> None:
    result = eval(code, vars(module))  # noqa: S307 - the app is run because its user says so
    if code.co_flags & CO_COROUTINE:
        asyncio.run(result)
