"""What was written into source files, and how they were before. Pure.

A record keeps, for each file, the lines that were taken and those that were put, with
hashes of the whole. A file that nobody touched since is restored exactly; in another,
what was put is looked for, and must be there as often as it was put.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256

from pydantic import Field

from langchain_slm.errors import SourceError
from langchain_slm.schema import Frozen

RECORD_FORMAT_VERSION = 1
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_NEWLINES = b"\r\n"
_ALIKE = 3  # lines after which two files are taken to go on alike


class Hunk(Frozen):
    """Lines that took the place of others.

    Each byte is a character, so that any encoding comes back as it was.

    Attributes:
        line: Where they are in the file as it was written, from 1.
        old: The lines before.
        new: The lines as written.
    """

    line: int
    old: str = Field(repr=False)
    new: str = Field(repr=False)


class Written(Frozen):
    """One change of a file.

    Attributes:
        before: SHA-256 of the file before.
        after: SHA-256 of the file as written.
        hunks: What was changed.
    """

    before: str
    after: str
    hunks: tuple[Hunk, ...]


class Entry(Frozen):
    """What was written into one file.

    Attributes:
        graphs: The graphs for which it was, as PATH:VARIABLE from the record's folder.
        written: The change; while files are being written, the one before it, too.
    """

    graphs: tuple[str, ...]
    written: tuple[Written, ...]


class Record(Frozen):
    """What was written into the files of a project.

    Attributes:
        format_version: Of this file; a newer one is refused.
        files: By path from the record's folder, with forward slashes.
    """

    format_version: int = RECORD_FORMAT_VERSION
    files: dict[str, Entry] = Field(default_factory=dict)


def digest(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes."""
    return sha256(data).hexdigest()


def written(before: bytes, after: bytes) -> Written:
    """Return what makes `after` of `before`."""
    return Written(
        before=digest(before), after=digest(after), hunks=tuple(_hunks(before, after))
    )


def _hunks(before: bytes, after: bytes) -> Iterator[Hunk]:
    old, new = _LINE.findall(before), _LINE.findall(after)
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            i, j = i + 1, j + 1
            continue
        p, q = _changed(old[i:], new[j:])
        yield from _smallest(old[i : i + p], new[j : j + q], j)
        i, j = i + p, j + q


def _smallest(old: list[bytes], new: list[bytes], above: int) -> Iterator[Hunk]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i, j, k, n in matcher.get_opcodes():
        if tag != "equal":
            yield Hunk(line=above + k + 1, old=_text(old[i:j]), new=_text(new[k:n]))


def _changed(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[int, int]:
    """Return after how many lines two files go on alike; an edit is of a few lines."""
    for size in range(1, len(old) + len(new)):
        for p in range(max(0, size - len(new)), min(size, len(old)) + 1):
            q = size - p
            if old[p : p + _ALIKE] == new[q : q + _ALIKE]:
                return p, q
    return len(old), len(new)


def _text(lines: Sequence[bytes]) -> str:
    return b"".join(lines).decode("latin-1")


def restored(current: bytes, entry: Entry, name: str) -> bytes:
    """Return a file as it was before what was written into it.

    Args:
        current: What it holds now.
        entry: What was written.
        name: What messages call it.

    Raises:
        SourceError: If a place that was written cannot be told any more.
    """
    known = digest(current)
    for each in entry.written:
        if known == each.after:
            return _exactly(current, each)
    if any(known == each.before for each in entry.written):
        return current
    return _found(current, entry.written[0], name)


def _exactly(current: bytes, change: Written) -> bytes:
    lines = _LINE.findall(current)
    for hunk in reversed(change.hunks):
        start = hunk.line - 1
        size = len(_LINE.findall(hunk.new.encode("latin-1")))
        lines[start : start + size] = [hunk.old.encode("latin-1")]
    return b"".join(lines)


def _found(current: bytes, change: Written, name: str) -> bytes:
    """Return an edited file with each hunk taken back where it is now."""
    lines = _LINE.findall(current)
    puts = Counter(hunk.new for hunk in change.hunks)
    places = []
    for hunk in change.hunks:
        new = _LINE.findall(hunk.new.encode("latin-1"))
        starts = [i for i in range(len(lines)) if _stands(lines, i, new)]
        if not new or len(starts) != puts[hunk.new]:
            raise _lost(name, hunk, len(starts))
        places += [(start, len(new), hunk.old.encode("latin-1")) for start in starts]
    for start, size, old in sorted(set(places), reverse=True):
        end = lines[start + size - 1]
        kept = end[len(end.rstrip(_NEWLINES)) :]
        ending = b"" if old.endswith((b"\r", b"\n")) or not old else kept
        lines[start : start + size] = [old + ending]
    return b"".join(lines)


def _stands(lines: Sequence[bytes], start: int, wanted: Sequence[bytes]) -> bool:
    """Whether lines are there; one that ended its file may be followed by others."""
    here = list(lines[start : start + len(wanted)])
    if here and wanted and not wanted[-1].endswith((b"\r", b"\n")):
        here[-1] = here[-1].rstrip(_NEWLINES)
    return here == wanted


def _lost(name: str, hunk: Hunk, count: int) -> SourceError:
    first = next(iter(hunk.new.splitlines()), "")
    there = "is not there" if count == 0 else f"is there {count} times"
    msg = (
        f"{name}: edited since it was written: {first!r}, which was put at line "
        f"{hunk.line}, {there}; nothing was undone: take it back by hand, or restore "
        "the file with git"
    )
    return SourceError(msg, path=name, line=hunk.line)
