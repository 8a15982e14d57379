"""The store: recorded calls and cached answers in one SQL database.

A call is on disk before `add` returns. The store refuses what would lose data quietly: a
database in memory, a file that is corrupt, of a newer version or of another program, and
a call that could not be redacted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from langchain_slm.errors import StoreCorruptError, StoreError, StoreVersionError
from langchain_slm.recording.redaction import (
    DEFAULT_REDACTOR,
    Redactor,
    redact_call,
    redact_text,
)
from langchain_slm.recording.sqlite_file import (
    engine_of,
    failures,
    file_of,
    locked,
    prepare,
    use_wal,
)
from langchain_slm.recording.tables import (
    CACHED,
    CALLS,
    MIGRATIONS,
    CallReader,
    CallRow,
    Statements,
    cached_answer,
    cached_row,
    call_row,
    conditions,
    from_column,
    to_column,
    upgrade,
    version,
)
from langchain_slm.recording.tables import (
    CachedAnswer as CachedAnswer,  # noqa: PLC0414 - offered here, defined with its row
)
from langchain_slm.schema import Call

PAGE = 100  # calls that a reader holds in memory
BATCH = 500  # calls in one transaction of `add_many`; other writers wait for it

MOST_BUSY_TIMEOUT_S = 3600  # an hour: more is a mistake of unit

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class SiteCalls(NamedTuple):
    """How often a site called a model."""

    graph: str
    site: str
    model: str
    provider: str
    calls: int


def open_store(
    url: str,
    *,
    redact: Redactor | None = DEFAULT_REDACTOR,
    busy_timeout_s: float = 5.0,
    create: bool = True,
) -> Store:
    """Open the store at `url`, creating or migrating it where needed.

    A new file can be read and written by its owner alone (mode 0600). SQLite runs in WAL
    mode with `synchronous=NORMAL`: what was acknowledged survives the death of the
    process; a power failure may take the last calls, never the file. (`FULL` would
    survive that too; measured, a call then takes 4.9 ms instead of 0.2.)

    Args:
        url: `sqlite:///slm.db`, relative to the working folder, or `sqlite:////...`.
        redact: What finds the personal data that must not be stored; None stores
            everything as it is.
        busy_timeout_s: Seconds to wait for other writers, in [0, 3600].
        create: Whether a store that does not exist is made.

    Raises:
        StoreVersionError: If a newer version of this package wrote it.
        StoreCorruptError: If the file is not a readable database.
        StoreLockedError: If another process holds it past `busy_timeout_s`.
        StoreError: If it cannot be used otherwise; the message says why.
        ValueError: If `busy_timeout_s` is outside its range.
    """
    if not 0 <= busy_timeout_s <= MOST_BUSY_TIMEOUT_S:
        message = f"busy_timeout_s must be in [0, 3600], not {busy_timeout_s}"
        raise ValueError(message)
    path = file_of(url)
    prepare(path, create=create)
    engine = engine_of(path, busy_timeout_s=busy_timeout_s)
    try:
        with failures(path):
            _check(engine, path, create=create)
            use_wal(engine, path, busy_timeout_s=busy_timeout_s)
            upgrade(engine, MIGRATIONS)
            return Store(engine, path, redact=redact, busy_timeout_s=busy_timeout_s)
    except BaseException:
        engine.dispose()
        raise


def _check(engine: sa.Engine, path: Path, *, create: bool) -> None:
    """Refuse what is no store of ours, before anything is written."""
    with engine.connect() as connection:
        # In this order: another process may be making the store meanwhile.
        tables = sa.inspect(connection).get_table_names()
        found = version(connection)
    foreign = tables and not found
    if found > len(MIGRATIONS):
        message = (
            f"{path}: a newer version of langchain-slm wrote it (store version {found}, "
            f"this one knows up to {len(MIGRATIONS)}); upgrade the package"
        )
        raise StoreVersionError(message, found=found, supported=len(MIGRATIONS))
    if foreign:
        message = f"{path}: is the database of another program; choose another file"
        raise StoreError(message, path=str(path))
    if not found and not create:
        message = f"{path}: holds no store; check the path, or record one there first"
        raise StoreError(message, path=str(path))


class _Written(NamedTuple):
    sequence: int
    new: bool
    conflict: bool


class Store:
    """Calls and cached answers; made by `open_store`. A context manager.

    All methods may be called by many threads, and many processes may open one store.
    Strings come back as they went in, NUL and lone surrogates included; only inside
    content, two surrogates that spell a character come back as that character.

    Attributes:
        path: The file.
        conflicts: Calls not stored since it was opened, because a call with the same id
            and other content was there first.
    """

    def __init__(
        self,
        engine: sa.Engine,
        path: Path,
        *,
        redact: Redactor | None,
        busy_timeout_s: float,
    ) -> None:
        self.path = path
        self.conflicts = 0
        self._engine = engine
        self._redact = redact
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._stored_tools: set[str] = set()
        self._sql = Statements(engine.dialect)
        # One connection writes, under one lock: the threads of a process then queue
        # here and not in SQLite's busy handler, which sleeps. It is the driver's own,
        # at a third of the time of SQLAlchemy's (37 against 113 us for a row of 1 kB).
        self._writer: sa.PoolProxiedConnection | None = engine.raw_connection()

    def add(self, call: Call) -> int:
        """Store `call` durably and return its sequence number, at least 1.

        Its own `sequence` is ignored. A call whose id is there already is not stored
        again: the first stays, its number is returned, and where the contents differ
        `conflicts` grows.

        Raises:
            StoreLockedError: If another process writes for longer than the time-out.
            StoreError: If it could not be redacted or written; nothing is stored then.
        """
        return self._write([self._row(call)])[0].sequence

    def add_many(
        self, calls: Iterable[Call], *, progress: Callable[[int], None] | None = None
    ) -> int:
        """Store `calls` in batches of `BATCH`, each in one transaction.

        Args:
            calls: Any number of them; a batch at a time is held in memory.
            progress: Called after each batch with the number of calls read so far.

        Returns:
            How many were new.

        Raises:
            StoreError: As `add` does; the batches before the failing one are stored.
        """
        source = iter(calls)
        read = new = 0
        while batch := [self._row(call) for call in islice(source, BATCH)]:
            new += sum(written.new for written in self._write(batch))
            read += len(batch)
            if progress:
                progress(read)
        return new

    def calls(
        self,
        *,
        graph: str | None = None,
        site: str | None = None,
        model: str | None = None,
    ) -> Iterator[Call]:
        """Yield the calls that are there when it starts, by sequence, in bounded memory.

        Args:
            graph: Only calls of this graph; None for all.
            site: Only calls at this site; None for all.
            model: Only calls of this model; None for all.

        Raises:
            StoreCorruptError: If a call cannot be read back.
        """
        wanted = conditions(graph, site, model)
        number = CALLS.c.sequence
        last = self._read(sa.select(sa.func.max(number)))[0][0] or 0
        reader = CallReader(self._read)
        after = 0
        while after < last:
            page = sa.select(CALLS).where(*wanted, number > after, number <= last)
            # A page is read whole: a reader that pauses must not hold back the
            # checkpoints that keep the log short.
            rows = self._read(page.order_by(number).limit(PAGE))
            for row in rows:
                yield self._decoded(reader.call, row)
            after = rows[-1].sequence if len(rows) == PAGE else last

    def count(
        self,
        *,
        graph: str | None = None,
        site: str | None = None,
        model: str | None = None,
    ) -> int:
        """Return how many calls `calls` would yield."""
        counted = sa.select(sa.func.count()).select_from(CALLS)
        rows = self._read(counted.where(*conditions(graph, site, model)))
        return int(rows[0][0])

    def sites(self) -> list[SiteCalls]:
        """Return every site with each model that it called, sorted."""
        names = (CALLS.c.graph, CALLS.c.site, CALLS.c.model, CALLS.c.provider)
        number = sa.func.count().label("calls")
        rows = self._read(sa.select(*names, number).group_by(*names))
        return sorted(
            SiteCalls(
                graph=from_column(row.graph),
                site=from_column(row.site),
                model=from_column(row.model),
                provider=from_column(row.provider),
                calls=row.calls,
            )
            for row in rows
        )

    def cached_answer(self, key: str) -> CachedAnswer | None:
        """Return what was cached under `key`, or None.

        Raises:
            StoreCorruptError: If it cannot be read back.
        """
        rows = self._read(sa.select(CACHED).where(CACHED.c.key == to_column(key)))
        return self._decoded(cached_answer, rows[0]) if rows else None

    def cache_answer(self, key: str, value: CachedAnswer) -> None:
        """Keep `value` under `key` durably; what is there already stays.

        The answer is kept as it is, so that a resumed experiment judges what the first
        run judged. The error, which may quote a key, is redacted.

        Raises:
            StoreError: If it could not be redacted or written.
        """
        row = self._encoded("an answer", lambda: cached_row(key, self._safe(value)))
        with self._transaction() as cursor:
            cursor.execute(self._sql.cache, row)

    def close(self) -> None:
        """Close every connection; closing again does nothing."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def _safe(self, value: CachedAnswer) -> CachedAnswer:
        if not self._redact or not value.error:
            return value
        safe = redact_text(value.error, self._redact)
        return value.model_copy(update={"error": safe})

    def _row(self, call: Call) -> CallRow:
        redact = self._redact
        return self._encoded(
            f"call {call.call_id[:100]!r}",
            lambda: call_row(redact_call(call, redact) if redact else call),
        )

    def _encoded(self, what: str, encode: Callable[[], _Out]) -> _Out:
        try:
            return encode()
        except Exception as error:  # noqa: BLE001 - a user's redactor may raise anything
            kind = type(error).__name__
        # Out here the failure, which may quote content, is not chained to the error.
        message = (
            f"{self.path}: {what} was not stored: redacting or encoding it failed "
            f"({kind}). Its content must be JSON, and the redactor must not raise."
        )
        raise StoreError(message, path=str(self.path), kind=kind)

    def _decoded(self, decode: Callable[[_In], _Out], row: _In) -> _Out:
        try:
            return decode(row)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            kind = type(error).__name__
        message = (
            f"{self.path}: a row cannot be read back ({kind}): the file was changed or "
            "damaged. Restore a backup, or copy what is readable with sqlite3 .recover."
        )
        raise StoreCorruptError(message, path=str(self.path), kind=kind)

    def _write(self, rows: Sequence[CallRow]) -> list[_Written]:
        with self._transaction() as cursor:
            written = [self._insert(cursor, row) for row in rows]
        # Only now that the transaction is through do these hold.
        self._stored_tools.update(row.tools_hash for row in rows)
        if conflicts := sum(result.conflict for result in written):
            with self._lock:
                self.conflicts += conflicts
        return written

    def _insert(self, cursor: DBAPICursor, row: CallRow) -> _Written:
        if row.tools and row.tools_hash not in self._stored_tools:
            cursor.execute(self._sql.add_tools, (row.tools_hash, row.tools))
        cursor.execute(self._sql.add, row.values)
        if new := cursor.fetchone():
            return _Written(new[0], new=True, conflict=False)
        cursor.execute(self._sql.find, row.values[:1])
        sequence, *values = cursor.fetchone() or (0,)
        return _Written(sequence, new=False, conflict=tuple(values) != row.values)

    @contextmanager
    def _transaction(self) -> Iterator[DBAPICursor]:
        if not self._lock.acquire(timeout=self._busy_timeout_s):
            raise locked(self.path)
        try:
            with failures(self.path):
                connection = self._connection()
                cursor = connection.cursor()
                try:
                    # The write lock first: a transaction that reads before it writes
                    # fails at once, whatever the time-out, if another one wrote since.
                    cursor.execute("BEGIN IMMEDIATE")
                    yield cursor
                    cursor.execute("COMMIT")
                finally:
                    connection.rollback()  # does nothing after COMMIT
                    cursor.close()
        finally:
            self._lock.release()

    def _connection(self) -> DBAPIConnection:
        if self._writer is None or self._writer.dbapi_connection is None:
            message = f"{self.path}: the store is closed; open it again"
            raise StoreError(message, path=str(self.path))
        return self._writer.dbapi_connection

    def _read(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        """Return all rows; no transaction stays open behind them."""
        self._connection()
        with failures(self.path), self._engine.connect() as connection:
            return connection.execute(statement).all()
