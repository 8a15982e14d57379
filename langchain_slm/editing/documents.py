"""A source file as text, with its edits as bytes: Python in any encoding, or a notebook.

Pure. A file that does not come back as it was is refused, not changed elsewhere.
"""

from __future__ import annotations

import difflib
import io
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from langchain_slm.editing.notebook_source import NotebookSource, SourceCell
from langchain_slm.editing.syntax import NEWLINE, Edit, Parsed, edited
from langchain_slm.errors import SourceError

SUFFIXES = (".py", ".ipynb")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text and how its file writes it.

    Attributes:
        text: The text, without a byte order mark.
        encoding: As Python calls it; "utf-8-sig" where there is such a mark.
    """

    text: str
    encoding: str

    def encode(self, text: str, name: str) -> bytes:
        """Return another text as this file would write it."""
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            bad = error.object[error.start : error.end]
            msg = f"{name}: {self.encoding} has no {bad!r}; give another name or path"
            raise SourceError(msg, path=name, encoding=self.encoding) from None


def decoded(data: bytes, name: str, encoding: str | None = None) -> Encoded:
    """Return a file's text, by its own declaration where no encoding is given.

    Raises:
        SourceError: If it cannot be read in its encoding, or not written back.
    """
    try:
        if encoding is None:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
        is_same = text.encode(encoding) == data
    except SyntaxError as error:
        msg = f"{name}:1: {error.msg}; correct its encoding first"
        raise SourceError(msg, path=name, line=1) from None
    except (UnicodeError, LookupError) as error:
        msg = (
            f"{name}: cannot be read as {encoding} ({error}); correct its encoding first"
        )
        raise SourceError(msg, path=name, encoding=encoding) from None
    if not is_same:
        msg = (
            f"{name}: {encoding} does not write its text back as it is; save the file in "
            "UTF-8 first"
        )
        raise SourceError(msg, path=name, encoding=encoding)
    return Encoded(text, encoding)


class Document:
    """A source file that was read.

    Args:
        data: What it holds.
        name: What messages call it.

    Attributes:
        name: As given.
        data: As given.
        parsed: Its Python.
        starts: Offsets at which the cells of a notebook start.

    Raises:
        SourceError: If it is no Python, or cannot be read; says where.
    """

    starts: Sequence[int] = (0,)
    is_notebook = False
    parsed: Parsed

    def __init__(self, data: bytes, name: str) -> None:
        self.name, self.data = name, data
        self._source = decoded(data, name)
        self.parsed = Parsed(self._source.text, name)

    @property
    def text(self) -> str:
        """Its Python, as it is written."""
        return self.parsed.text

    def place(self, offset: int) -> str:
        """Return where an offset of the text is, for people."""
        return f"{self.name}:{self.parsed.line(offset)}"

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """Return what the file holds with edits of its text made.

        Raises:
            SourceError: If the file's encoding has no word for them.
        """
        new = edited(self.text, edits)
        return self._source.encode(new, self.name)

    def unread(self) -> list[tuple[str, str]]:
        """Return the places that are no Python, and why; they are left alone."""
        return []

    def diff(self, after: Document) -> str:
        """Return what is changed in another version of the file, as a unified diff."""
        return _diff(self.name, self.text, after.text)


class Notebook(Document):
    """A notebook that was read; its text is the joined code of its cells."""

    is_notebook = True

    def __init__(self, data: bytes, name: str) -> None:
        self.name, self.data = name, data
        bom = data.startswith(b"\xef\xbb\xbf")
        self._source = decoded(data, name, "utf-8-sig" if bom else "utf-8")
        self._notebook = NotebookSource(self._source.text, name)
        self.starts = self._notebook.starts
        self.parsed = Parsed(self._notebook.code, name, self._notebook.shown)

    def place(self, offset: int) -> str:
        """Return the cell, and its line, of an offset of the text."""
        cell = self._notebook.cell_at(offset)
        line = self.parsed.line(offset) - self.parsed.line(cell.start) + 1
        return f"{self.name}: cell {cell.number}, line {line}"

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """Return what the file holds with edits of its text made."""
        return self._source.encode(self._notebook.edited(edits), self.name)

    def unread(self) -> list[tuple[str, str]]:
        """Return the cells that are no Python, and why; they are left alone."""
        return [
            (f"{self.name}: cell {cell.number}", cell.error)
            for cell in self._notebook.cells
            if cell.error is not None
        ]

    def diff(self, after: Document) -> str:
        """Return what is changed in each cell, as unified diffs."""
        others = after.cells if isinstance(after, Notebook) else ()
        # Jupyter writes no newline at the end of a cell.
        return "".join(
            _diff(f"{self.name} cell {old.number}", f"{old.source}\n", f"{new.source}\n")
            for old, new in zip(self.cells, others, strict=True)
        )

    @property
    def cells(self) -> Sequence[SourceCell]:
        """Its code cells."""
        return self._notebook.cells


def read_document(data: bytes, name: str) -> Document:
    """Return a source file that holds `data`.

    Raises:
        SourceError: If it is no Python file, or cannot be read; says where.
    """
    suffix = PurePath(name).suffix
    if suffix not in SUFFIXES:
        msg = f"{name}: not a Python file; a graph is in a .py file or a notebook"
        raise SourceError(msg, path=name)
    return Notebook(data, name) if suffix == ".ipynb" else Document(data, name)


def _diff(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(_lines(before), _lines(after), name, name)
    return "".join(
        line if NEWLINE.search(line) else f"{line}\n\\ No newline at end of file\n"
        for line in lines
    )


def _lines(text: str) -> list[str]:
    ends = [found.end() for found in NEWLINE.finditer(text)]
    starts = [0, *ends]
    lines = [text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True)]
    return lines if lines[-1] else lines[:-1]
