"""A process that is killed at each step of writing and undoing, and what is left then.

    python killed_writing.py FOLDER

Prints one JSON object a line: the operation, the step, and the files before and after
they were undone. Forks, so that it is run as a process of its own.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from langchain_slm.editing.files import read_file
from langchain_slm.editing.undo_record import (
    RECORD,
    Change,
    undo_changes,
    write_changes,
)
from langchain_slm.errors import SourceError

NAMES = ("a.py", "b.py")
# What changes something on the disk; each is told to an audit hook before it is done.
STEPS = {"os.rename", "os.remove", "os.chmod", "os.chown", "os.utime", "os.setxattr"}


def write(folder: Path, line: str) -> None:
    changes = []
    for name in NAMES:
        file = read_file(folder / name)
        after = file.data.partition(b"put\n")[0] + b"put\n" + line.encode()
        changes.append(Change(file, after, [(folder / "a.py", "graph")]))
    write_changes(changes, folder)


def undo(folder: Path) -> None:
    undo_changes([(folder / "a.py", "graph")])


def prepare(folder: Path, operation: str) -> None:
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(f"{name}\n".encode())
    if operation != "write":
        write(folder, "first\n")
    if operation == "undo edited":
        for name in NAMES:
            path = folder / name
            path.write_bytes(b"edited\n" + path.read_bytes())


def perform(folder: Path, operation: str) -> None:
    if operation.startswith("undo"):
        undo(folder)
    else:
        write(folder, "second\n")


def is_step(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        return mode is not None and bool(writes)
    return event in STEPS


def killed_at(step: int, folder: Path, operation: str) -> bool:
    """Whether the operation got so far as to be killed."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if is_step(event, arguments):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    perform(folder, operation)
    os._exit(0)


def contents(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in NAMES]


def main(root: Path) -> None:
    for operation in ("write", "write again", "undo", "undo edited"):
        step, killed = 0, True
        while killed:
            step += 1
            folder = root / f"{operation}-{step}"
            prepare(folder, operation)
            killed = killed_at(step, folder, operation)
            left = contents(folder)
            with suppress(SourceError):  # nothing was written yet, or all is undone
                undo(folder)
            print(  # noqa: T201 - read by the test
                json.dumps(
                    {
                        "operation": operation,
                        "step": step,
                        "killed": killed,
                        "left": left,
                        "undone": contents(folder),
                        "record": (folder / RECORD).exists(),
                    }
                )
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
