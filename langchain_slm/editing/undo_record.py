"""The record that undoes what is written into source files, and writing by it.

It is written before the first file is touched and removed when all is undone. Whenever
the process is killed, each file is the old one or the new one, and the record brings
the old one back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from langchain_slm.editing.files import (
    SourceFile,
    absolute,
    read_file,
    refuse,
    replace_file,
    restoring_obstacles,
    shown,
    sync_folder,
    write_whole,
)
from langchain_slm.editing.undoing import (
    RECORD_FORMAT_VERSION,
    Entry,
    Record,
    digest,
    restored,
    written,
)
from langchain_slm.errors import SourceError

RECORD = ".slm-rewrite.json"


@dataclass(frozen=True, slots=True)
class Change:
    """A file, and what it is to hold.

    Attributes:
        file: The file, as it was read.
        after: What it is to hold.
        graphs: Names of the variables for which it changes, by the file that has them.
    """

    file: SourceFile
    after: bytes
    graphs: Sequence[tuple[Path, str]]


def record_folder(file: Path) -> Path | None:
    """Return the nearest folder above a file whose record names it, or a graph of it."""
    file = absolute(file)
    for folder in file.parents:
        if (folder / RECORD).is_file():
            files, key = read_record(folder).files, _key(file, folder)
            graphs = [graph for entry in files.values() for graph in entry.graphs]
            if key in files or any(each.rpartition(":")[0] == key for each in graphs):
                return folder
    return None


def written_for(file: Path, variable: str) -> list[Path]:
    """Return the files that were written for a graph and are not undone."""
    folder = record_folder(file)
    if folder is None:
        return []
    graph = f"{_key(file, folder)}:{variable}"
    files = read_record(folder).files
    return [folder / key for key, entry in files.items() if graph in entry.graphs]


def read_record(folder: Path) -> Record:
    """Return what was written in a project; an empty record where nothing was.

    Raises:
        SourceError: If the record cannot be used.
    """
    path = folder / RECORD
    try:
        record = Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Record()
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        msg = f"{shown(path)}: not the record of a rewrite ({first}); remove it"
        raise SourceError(msg, path=shown(path)) from None
    if record.format_version > RECORD_FORMAT_VERSION:
        msg = f"{shown(path)}: written by a newer langchain-slm; upgrade langchain-slm"
        raise SourceError(msg, path=shown(path))
    for name in record.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            msg = f"{shown(path)}: names a file outside its folder ({name}); remove it"
            raise SourceError(msg, path=shown(path))
    return record


def is_as_written(path: Path) -> bool:
    """Whether a file is a record, or holds just what this package wrote into it."""
    if path.name == RECORD:
        return True
    folder = record_folder(path)
    if folder is None:
        return False
    entry = read_record(folder).files.get(_key(path, folder))
    if entry is None:
        return False
    with suppress(OSError):
        return digest(path.read_bytes()) in {each.after for each in entry.written}
    return False


def write_changes(changes: Sequence[Change], root: Path) -> Path:
    """Write all files, or none, and return the path of the record that undoes it.

    Args:
        changes: The files.
        root: Folder of the project.

    Raises:
        SourceError: If a file changed since it was read, or cannot be written; all are
            as they were.
    """
    folder = record_folder(changes[0].file.path) or root
    with _alone(folder):
        record = read_record(folder)
        during, after = dict(record.files), dict(record.files)
        for change in changes:
            key = _key(change.file.path, folder)
            during[key] = _entry(change, record.files.get(key), folder)
            latest = during[key].written[:1]
            after[key] = during[key].model_copy(update={"written": latest})
        _transact(
            folder,
            (record.files, during, after),
            [(each.file, each.after) for each in changes],
        )
    return folder / RECORD


def _entry(change: Change, known: Entry | None, folder: Path) -> Entry:
    """Return what is recorded of a change: from how the file was before the first."""
    base = change.file.data
    if known is not None:
        base = restored(base, known, change.file.name)
    names = [f"{_key(file, folder)}:{name}" for file, name in change.graphs]
    return Entry(
        graphs=tuple(dict.fromkeys([*(known.graphs if known else ()), *names])),
        written=(written(base, change.after), *(known.written if known else ())),
    )


def undo_changes(
    graphs: Sequence[tuple[Path, str]], *, force: bool = False
) -> dict[str, tuple[str, ...]]:
    """Put back the files that were written for graphs.

    Args:
        graphs: Names of the variables, by the file that has them.
        force: Whether files that a link leads to outside the project are put back, too,
            and files that are gone are forgotten.

    Returns:
        The graphs that were bound there, by the name of the file that was put back.

    Raises:
        SourceError: If nothing was written for them, or a file cannot be put back; all
            are as they were.
    """
    folder = next(filter(None, (record_folder(file) for file, _ in graphs)), None)
    if folder is None:
        raise _nothing_to_undo(graphs)
    with _alone(folder):
        record = read_record(folder)
        wanted = {f"{_key(file, folder)}:{name}" for file, name in graphs}
        found = {k: e for k, e in record.files.items() if wanted & set(e.graphs)}
        if not found:
            raise _nothing_to_undo(graphs)
        rest = {k: e for k, e in record.files.items() if k not in found}
        files = _files(folder, found, force=force)
        refuse(restoring_obstacles(list(files.values()), folder), force=force)
        before = {k: restored(f.data, found[k], f.name) for k, f in files.items()}
        during = {k: _undoing(found[k], f, before[k]) for k, f in files.items()}
        _transact(
            folder,
            (record.files, {**rest, **during}, rest),
            [(f, before[k]) for k, f in files.items() if f.data != before[k]],
        )
    return {file.name: found[key].graphs for key, file in files.items()}


def _nothing_to_undo(graphs: Sequence[tuple[Path, str]]) -> SourceError:
    names = ", ".join(f"{shown(file)}:{name}" for file, name in graphs)
    msg = f"{names}: nothing to undo: no {RECORD} above names it"
    return SourceError(msg, graphs=names)


def _files(
    folder: Path, found: Mapping[str, Entry], *, force: bool
) -> dict[str, SourceFile]:
    files = {}
    for key in found:
        if force and not (folder / key).exists():
            continue
        files[key] = read_file(folder / key)
    return files


def _undoing(entry: Entry, file: SourceFile, before: bytes) -> Entry:
    """Return what is recorded while a file is put back that was edited since.

    If that is cut short, the next attempt finds the file known.
    """
    known = {each.before for each in entry.written}
    known |= {each.after for each in entry.written}
    if digest(file.data) in known:
        return entry
    undoing = written(before, file.data)
    return entry.model_copy(update={"written": (undoing, *entry.written)})


# All or nothing

_Entries = Mapping[str, Entry]


def _transact(
    folder: Path,
    records: tuple[_Entries, _Entries, _Entries],
    replacements: Sequence[tuple[SourceFile, bytes]],
) -> None:
    """Replace files; `records` are what is recorded before, meanwhile and after."""
    before, during, after = records
    _save(folder, during)
    try:
        for file, data in replacements:
            replace_file(file, data)
        _save(folder, after)
    except BaseException:
        # Those that were replaced; where that fails, the record still undoes it.
        for file, data in replacements:
            if file.target.read_bytes() == data != file.data:
                replace_file(
                    SourceFile(file.path, file.target, data, file.name), file.data
                )
        _save(folder, before)
        raise


def _save(folder: Path, entries: _Entries) -> None:
    path = folder / RECORD
    try:
        if entries:
            record = Record(files=dict(sorted(entries.items())))
            write_whole(path, record.model_dump_json(indent=1).encode() + b"\n")
        else:
            path.unlink(missing_ok=True)
            sync_folder(folder)
    except OSError as error:
        msg = f"{shown(path)}: cannot be written ({error.strerror}); no file was changed"
        raise SourceError(msg, path=shown(path)) from error


def _key(file: Path, folder: Path) -> str:
    """Return a file's name in the record of a folder."""
    file = absolute(file)
    if not file.is_relative_to(folder):
        msg = f"{shown(file)}: outside the project {folder}; name a graph of one project"
        raise SourceError(msg, path=shown(file))
    return file.relative_to(folder).as_posix()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other commands from writing in the same project meanwhile."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
