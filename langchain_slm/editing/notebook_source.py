"""The text of a notebook, edited in the sources of its cells alone. Pure.

What the file holds besides - outputs, ids, the order of keys, indentation, escapes -
stays byte for byte: an edit of a cell is made in the JSON text.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from langchain_slm.editing.syntax import NEWLINE, Edit, edited
from langchain_slm.errors import SourceError
from langchain_slm.loading.notebooks import without_magics

FORMAT = 4  # of nbformat; older ones keep their cells elsewhere
_SPACE = " \t\r\n"
# A character of a JSON string as it is written; a pair of surrogates is one.
_UNIT = re.compile(
    r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|[^\\]",
    re.DOTALL,
)
_LINE_END = "\\n"  # as a unit
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class SourceCell:
    """A code cell.

    Attributes:
        number: From 1, counted among all cells.
        source: Its text.
        start: Where it starts in the joined text of all code cells.
        shown: What of it is Python, in the same lines.
        error: Why it is not Python; None where it is.
    """

    number: int
    source: str
    start: int
    shown: str
    error: str | None


class _Part(NamedTuple):
    """One of the strings that a cell's source is made of.

    Attributes:
        offset: Where it starts in the joined text.
        start: Where it starts in the notebook's text.
        end: Where it ends there.
        units: Its characters, as they are written.
        separator: What stands between two of them; None where there is but one.
    """

    offset: int
    start: int
    end: int
    units: list[str]
    separator: str | None


class NotebookSource:
    """A notebook's code as one text, and what edits of it make of the notebook.

    Args:
        text: The notebook's text.
        name: What messages call it.

    Attributes:
        cells: The code cells.
        code: Their sources, joined by newlines.
        shown: The same lines, as far as they are Python.
        starts: Where each cell starts in `code`; 0 at least.

    Raises:
        SourceError: If it is not a notebook of Python in a format that is known.
    """

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._parts: list[_Part] = []
        self.cells: list[SourceCell] = []
        for number, at in self._read():
            self._add(number, at)
        self.code = "\n".join(cell.source for cell in self.cells)
        self.shown = "\n".join(cell.shown for cell in self.cells)
        self.starts = [cell.start for cell in self.cells] or [0]

    def _read(self) -> list[tuple[int, int]]:
        """Return the number of each code cell, and where its source starts."""
        try:
            said = json.loads(self._text)
            _check(said)
            place = _members(self._text, _skip(self._text, 0))["cells"]
            places = [at for at, _ in _elements(self._text, place)]
            return [
                (number, _members(self._text, at)["source"])
                for number, (at, cell) in enumerate(
                    zip(places, said["cells"], strict=True), start=1
                )
                if cell["cell_type"] == "code"
            ]
        except json.JSONDecodeError as error:
            msg = f"{self._name}:{error.lineno}:{error.colno}: not JSON ({error.msg})"
            raise SourceError(msg, path=self._name, line=error.lineno) from None
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            msg = f"{self._name}: not a notebook that can be edited ({error})"
            raise SourceError(msg, path=self._name) from None

    def _add(self, number: int, at: int) -> None:
        last = self.cells[-1] if self.cells else None
        start = last.start + len(last.source) + 1 if last else 0
        parts = list(_parts(self._text, at, start))
        self._parts += parts
        written = "".join(unit for part in parts for unit in part.units)
        source = json.loads(f'"{written}"')
        shown, error = _python(source)
        self.cells.append(SourceCell(number, source, start, shown, error))

    def cell_at(self, offset: int) -> SourceCell:
        """Return the cell in which an offset of `code` lies."""
        return self.cells[bisect_right(self.starts, offset) - 1]

    def edited(self, edits: Iterable[Edit]) -> str:
        """Return the notebook's text with edits of `code` made in its cells."""
        offsets = [part.offset for part in self._parts]
        changes: defaultdict[int, list[Edit]] = defaultdict(list)
        for edit in edits:
            index = bisect_right(offsets, edit.start) - 1
            changes[index].append(edit)
        made = [self._changed(self._parts[i], given) for i, given in changes.items()]
        return edited(self._text, made)

    def _changed(self, part: _Part, edits: Sequence[Edit]) -> Edit:
        units = [*part.units]
        size = part.offset + len(units)
        if any(edit.end > size for edit in edits):
            line = self.cell_at(part.offset).number
            msg = f"{self._name}: cell {line}: what is to be replaced has several lines"
            raise SourceError(msg, path=self._name)
        # From the end, and of those at one place the last first.
        for edit in sorted(edits, key=lambda each: each.start)[::-1]:
            new = json.dumps(edit.new, ensure_ascii=self._text.isascii())[1:-1]
            at = slice(edit.start - part.offset, edit.end - part.offset)
            units[at] = _UNIT.findall(new)
        lines = ["".join(units)]
        if part.separator is not None:
            lines = _lines(units)
        new = (part.separator or "").join(f'"{line}"' for line in lines)
        return Edit(part.start, part.end, new)


def _check(said: Any) -> None:
    if not isinstance(said, dict):
        msg = "it holds no JSON object"
        raise TypeError(msg)
    version = said.get("nbformat")
    if not isinstance(version, int) or version < FORMAT:
        msg = f"nbformat {version}, not {FORMAT}; save it with a newer Jupyter"
        raise ValueError(msg)
    language = said.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    if language != "python":
        msg = f"its language is {language}"
        raise ValueError(msg)
    cells = said.get("cells")
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        msg = "its cells are none, or have no source"
        raise ValueError(msg)


def _is_cell(cell: Any) -> bool:
    source = cell.get("source") if isinstance(cell, dict) else None
    lines = source if isinstance(source, list) else [source]
    return all(isinstance(line, str) for line in lines) and "cell_type" in cell


def _python(source: str) -> tuple[str, str | None]:
    """Return what of a cell is Python, and why it is not; its lines stay lines."""
    ends = NEWLINE.findall(source)
    blank = " ".join(ends)  # apart: a lone carriage return stays one
    shown = without_magics(source) or blank
    if len(NEWLINE.findall(shown)) != len(ends):
        return blank, "a magic holds a carriage return"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is not our concern
            ast.parse(shown)
    except SyntaxError as error:
        return blank, f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return blank, str(error)
    return shown, None


# JSON, with the places of its values; it is known to be valid


def _skip(text: str, at: int) -> int:
    """Return where what follows the white space at `at` starts."""
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _members(text: str, at: int) -> dict[str, int]:
    """Return where the values of the object at `at` start, by key."""
    found = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        found[key] = _skip(text, _skip(text, end) + 1)
        at = _next(text, found[key])[1]
    return found


def _elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Yield where each element of the array at `at` starts and ends."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        end, following = _next(text, at)
        yield at, end
        at = following


def _next(text: str, at: int) -> tuple[int, int]:
    """Return where the value at `at` ends, and where the next one starts."""
    _, end = _DECODER.raw_decode(text, at)
    following = _skip(text, end)
    return end, _skip(text, following + 1) if text[following] == "," else following


def _parts(text: str, at: int, offset: int) -> Iterator[_Part]:
    if text[at] == '"':
        end, _ = _next(text, at)
        yield _Part(offset, at, end, _UNIT.findall(text[at + 1 : end - 1]), None)
        return
    spans = list(_elements(text, at))
    separator = f",{text[at + 1 : spans[0][0]]}" if spans else ""
    if len(spans) > 1:
        separator = text[spans[0][1] : spans[1][0]]
    for start, end in spans:
        units = _UNIT.findall(text[start + 1 : end - 1])
        yield _Part(offset, start, end, units, separator)
        offset += len(units)


def _lines(units: Sequence[str]) -> list[str]:
    lines = [""]
    for unit in units:
        lines[-1] += unit
        if unit == _LINE_END:
            lines.append("")
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]
