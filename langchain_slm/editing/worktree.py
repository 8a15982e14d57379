"""What git says of files that are to be edited. Changes nothing, its index neither."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import which

TIMEOUT_S = 60.0
_SHOWN = 5  # changed files that a message names
# Set where git itself runs us, in a hook: they stand for another question.
_OF_HOOKS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


def uncommitted(
    files: Sequence[Path], *, is_ours: Callable[[Path], bool]
) -> Iterator[str]:
    """Yield why git could not bring back what an edit of `files` would change.

    Nothing where there is no git, or no repository.

    Args:
        files: The files to edit.
        is_ours: Whether a file is as this package wrote it, so that `--undo` brings
            it back.
    """
    git = which("git")
    folders = dict.fromkeys(file.parent for file in files)
    for folder in folders if git else ():
        inside = [file for file in files if file.parent == folder]
        try:
            yield from _of_folder(str(git), folder, inside, is_ours)
        except subprocess.TimeoutExpired:
            yield f"git did not say within {TIMEOUT_S:.0f} s whether {folder} is clean"


def _of_folder(
    git: str, folder: Path, files: Sequence[Path], is_ours: Callable[[Path], bool]
) -> Iterator[str]:
    code, top, error = _run(git, folder, "rev-parse", "--show-toplevel")
    if code != 0:
        if (
            "not a git repository" not in error
            and "must be run in a work tree" not in error
        ):
            yield f"git cannot say whether {folder} is clean: {error.splitlines()[0]}"
        return
    root = Path(top.rstrip("\n"))
    changed = [each for each in _changed(git, root) if not is_ours(root / each)]
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        yield (
            f"the git work tree {root} has uncommitted changes: "
            f"{', '.join(changed[:_SHOWN])}{more}"
        )
    for file in files:
        if _run(git, folder, "ls-files", "--error-unmatch", "--", file.name)[0] != 0:
            yield f"{file} is in a git work tree, but git does not know it"


def _changed(git: str, root: Path) -> Iterator[str]:
    arguments = ("status", "--porcelain", "-z", "--untracked-files=no")
    _, said, _ = _run(git, root, *arguments)
    entries = iter(said.split("\0"))
    for entry in entries:
        if entry:
            yield entry[3:]
        if entry[:1] in ("R", "C"):
            next(entries, None)  # where it was renamed from


def _run(git: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in _OF_HOOKS}
    done = subprocess.run(  # noqa: S603 - git, with a fixed command
        [git, "-C", str(folder), *arguments],
        env={
            **environment,
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "LC_ALL": "C",
        },
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
        timeout=TIMEOUT_S,
    )
    return done.returncode, done.stdout, done.stderr or "no reason given"
