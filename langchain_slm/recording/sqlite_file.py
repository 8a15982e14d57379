"""A store's SQLite file: found, made, opened, and its failures in words.

It refuses a database in memory (nothing there is durable) and options in the URL.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from langchain_slm.errors import StoreCorruptError, StoreError, StoreLockedError

_DRIVERS = ("sqlite", "sqlite+pysqlite")
_FORM = "write it as sqlite:///slm.db, or sqlite:////folder/slm.db from the root"


def file_of(url: str) -> Path:
    """Return the absolute path that a store's `url` names.

    Raises:
        StoreError: If it names anything but a file. The message never quotes the
            whole URL: it may hold a password.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        message = f"this is not the URL of a store; {_FORM}"
        raise StoreError(message) from None
    if parsed.drivername not in _DRIVERS:
        message = (
            f"stores of kind {parsed.drivername!r} are not supported. Supported: sqlite "
            f"(built in, no extra needed); {_FORM}"
        )
        raise StoreError(message, scheme=parsed.drivername)
    if parsed.host or parsed.username or parsed.password or parsed.port:
        message = f"the URL of an SQLite store has no host; {_FORM}"
        raise StoreError(message)
    if parsed.query:
        message = f"the URL of a store takes no options; {_FORM}"
        raise StoreError(message)
    name = parsed.database or ""
    if name in ("", ":memory:") or "\0" in name:
        message = f"a store must be a file, to be durable; {_FORM}"
        raise StoreError(message)
    return Path(name).absolute()


def prepare(path: Path, *, create: bool) -> None:
    """Check that `path` can be opened; make an empty file of mode 0600 if it is new.

    Raises:
        StoreError: If it is a folder or read-only, or is missing and may not be made.
    """
    try:
        reason = _obstacle(path, create=create) or _make(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or type(error).__name__
        message = f"{path}: cannot be used ({why}); choose another file"
        raise StoreError(_printable(message), path=str(path)) from error
    if reason:
        raise StoreError(_printable(f"{path}: {reason}"), path=str(path))


def _obstacle(path: Path, *, create: bool) -> str:
    """Return why `path` cannot be a store; empty where nothing is in the way."""
    if path.is_dir():
        return f"is a folder; name a file in it, such as {path / 'slm.db'}"
    if not path.parent.is_dir():
        return f"its folder does not exist; create {path.parent} first"
    if not path.exists():
        return (
            "" if create else "no such store; check the path, or record one there first"
        )
    # SQLite opens a read-only file and says so only at the first write. The system is
    # asked, for opening and closing the file here would drop the locks that this
    # process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
    effective = os.access in os.supports_effective_ids
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=effective):
        return "may not be read and written; make it readable and writable"
    return ""


def _make(path: Path) -> str:
    if path.exists():
        return ""
    try:
        # SQLite gives its -wal and -shm the mode of the database.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        # Another process was faster, and both use its file; but SQLite would make what
        # a dangling link points to readable for all.
        return "" if path.exists() else "is a link to nothing; remove it"
    return ""


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def engine_of(path: Path, *, busy_timeout_s: float) -> sa.Engine:
    """Return an engine on `path` whose transactions begin when they are told to."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s},
        hide_parameters=True,  # they are content
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        # Else sqlite3 opens transactions by itself, and deferred ones. Source:
        # SQLAlchemy 2.1, dialects/sqlite/base.py, "Using SQLAlchemy to emit BEGIN".
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def use_wal(engine: sa.Engine, path: Path, *, busy_timeout_s: float) -> None:
    """Switch the file to write-ahead logging, where readers do not stop a writer.

    Raises:
        StoreLockedError: If others hold the file past `busy_timeout_s`.
        StoreError: If its file system cannot do it.
    """
    deadline = time.monotonic() + busy_timeout_s
    with engine.connect() as connection:
        while True:
            try:
                mode = connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar()
                break
            except DBAPIError as error:
                # SQLite does not wait by itself here: it would hold a lock while it does.
                if (
                    _code(error.orig) != sqlite3.SQLITE_BUSY
                    or time.monotonic() > deadline
                ):
                    raise
                time.sleep(0.01)
    if mode != "wal":
        message = (
            f"{path}: write-ahead logging is not possible here (journal mode {mode}); "
            "use a folder on a local disk"
        )
        raise StoreError(message, path=str(path))


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn the database's errors into this package's; they never quote content."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(path, error) from None
    except DBAPIError as error:
        raise _translated(path, error.orig) from None


def locked(path: Path) -> StoreLockedError:
    """Return the error of a store that others hold for too long."""
    message = (
        f"{path}: another process or thread has held the store past the busy time-out. "
        "End it, or raise busy_timeout_s."
    )
    return StoreLockedError(message, path=str(path))


def _code(error: BaseException | None) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension


def _translated(path: Path, error: BaseException | None) -> StoreError:
    code = _code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return locked(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        message = (
            f"{path}: is not a readable SQLite database ({name}); its bytes are left as "
            "they are. Restore a backup, or copy what is readable with sqlite3 .recover."
        )
        return StoreCorruptError(message, path=str(path), code=name)
    way_out = {
        sqlite3.SQLITE_READONLY: "the file or its folder is read-only; make it writable",
        sqlite3.SQLITE_CANTOPEN: "make the file readable and its folder writable",
        sqlite3.SQLITE_FULL: "the disk is full; free some space",
    }.get(code, "nothing was stored")
    message = f"{path}: the database refused ({name}): {way_out}"
    return StoreError(message, path=str(path), code=name)
