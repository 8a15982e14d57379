"""Source files on disk: read as they are, and replaced whole or not at all.

A file that changed since it was read is not replaced. A symbolic link stays one: what it
leads to is replaced. Mode, owner and extended attributes stay.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from langchain_slm.editing.worktree import uncommitted
from langchain_slm.errors import SourceError

_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read.

    Attributes:
        path: As the app imports it, absolute.
        target: What is edited: where `path` is a symbolic link, what it leads to.
        data: What it held.
        name: What messages call it.
    """

    path: Path
    target: Path
    data: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a file had better not be written.

    Attributes:
        reason: Why, and the way out.
        can_force: Whether the user may insist.
    """

    reason: str
    can_force: bool = False


def read_file(path: Path) -> SourceFile:
    """Return a file to edit.

    Raises:
        SourceError: If it is no regular file, or cannot be read.
    """
    name, path = shown(path), absolute(path)
    try:
        target = path.resolve(strict=True)
        if not target.is_file():
            msg = f"{name}: not a regular file"
            raise SourceError(msg, path=name)
        return SourceFile(path, target, target.read_bytes(), name)
    except (OSError, RuntimeError) as error:
        msg = f"{name}: cannot be read ({_why(error)})"
        raise SourceError(msg, path=name) from error


def absolute(path: Path) -> Path:
    """Return a path from the root of the file system; links in it are kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links


def shown(path: Path) -> str:
    """Return a path as people read it: from the working directory, where it is below."""
    path, here = absolute(path), Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


# What stands in the way


def obstacles(
    files: Sequence[SourceFile], root: Path, *, is_ours: Callable[[Path], bool]
) -> list[Obstacle]:
    """Return what stands in the way of editing files of the project at `root`.

    Args:
        files: The files.
        root: Folder of the project.
        is_ours: Whether a file is as this package wrote it, or wrote it alone.
    """
    reasons = uncommitted([file.target for file in files], is_ours=is_ours)
    hint = "commit first, or add --force"
    return [
        *restoring_obstacles(files, root),
        *(Obstacle(f"{reason}; {hint}", can_force=True) for reason in reasons),
    ]


def restoring_obstacles(files: Sequence[SourceFile], root: Path) -> list[Obstacle]:
    """Return what stands in the way of putting files back, whatever git says."""
    return list(dict.fromkeys(each for file in files for each in _of_file(file, root)))


def _of_file(file: SourceFile, root: Path) -> Iterator[Obstacle]:
    for path in (file.target, file.target.parent):
        # By its mode, too: whoever may do anything is not stopped by it.
        is_read_only = not path.stat().st_mode & _ANY_WRITE
        if is_read_only or not os.access(path, os.W_OK):
            yield Obstacle(f"{shown(path)} is read-only; `chmod u+w` it first")
    if not file.target.is_relative_to(root.resolve()):
        yield Obstacle(
            f"{file.name} leads to {file.target}, outside the project {root}; "
            "edit it there, or add --force",
            can_force=True,
        )
    names = file.target.stat().st_nlink
    if names > 1:
        yield Obstacle(
            f"{file.name} has {names} names (hard links), of which one would be "
            "replaced; copy the file, or add --force",
            can_force=True,
        )


def refuse(found: Sequence[Obstacle], *, force: bool) -> None:
    """Raise for what stands in the way, but for what the user may insist on and does.

    Raises:
        SourceError: If anything does; names all of it.
    """
    left = [each.reason for each in found if not (force and each.can_force)]
    if left:
        msg = f"{'; '.join(left)}. No file was changed"
        raise SourceError(msg, reasons=left)


# Replacing


def replace_file(file: SourceFile, data: bytes) -> None:
    """Replace a file by one that holds `data`; readers see the old or the new one.

    Raises:
        SourceError: If it is no longer as it was read, or cannot be written.
    """

    def prepare(temporary: Path) -> None:
        _make_like(temporary, file.target)
        if file.target.read_bytes() != file.data:
            msg = f"{file.name}: changed while it was edited; run the command again"
            raise SourceError(msg, path=file.name)

    try:
        write_whole(file.target, data, prepare)
    except OSError as error:
        msg = f"{file.name}: cannot be written ({_why(error)})"
        raise SourceError(msg, path=file.name) from error


def write_whole(
    path: Path, data: bytes, prepare: Callable[[Path], None] = lambda _: None
) -> None:
    """Write a file whole or not at all; a new one is for its owner alone.

    Args:
        path: The file.
        data: What it is to hold.
        prepare: Called with the new file before it takes the place of the old one.

    Raises:
        OSError: If it cannot be written.
    """
    # Beside it, for a rename works within one file system only. A short name: the
    # file's own may be as long as a name can be.
    temporary = path.with_name(f".slm-{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb", opener=_private) as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        prepare(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_like(new: Path, old: Path) -> None:
    found = old.stat()
    # Not a file of another user's in a folder of ours, and not on Windows.
    with suppress(PermissionError, AttributeError):
        os.chown(new, found.st_uid, found.st_gid)
    shutil.copystat(old, new)
    # Not the times: what was compiled from the old file must not pass for the new one's.
    os.utime(new)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder last through a power cut."""
    with suppress(OSError):  # not every file system knows how
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
