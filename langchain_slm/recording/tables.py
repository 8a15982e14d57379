"""The tables of a store: how a call becomes a row and back, and how tables are made.

Content is JSON text, so that nothing that is read back can run. Every value is a
parameter of its statement. Connections belong to the store; none is opened here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from langchain_slm.schema import Answer, Call, Frozen, Request, Usage

Values: TypeAlias = tuple[str | int | float | None, ...]
Read: TypeAlias = Callable[[sa.Select[Any]], Sequence[sa.Row[Any]]]
Migration: TypeAlias = Callable[[sa.Connection], None]

MOST_TOOL_SETS = 100  # that a reader holds in memory

# The tables as statements see them; the migrations say how they are made.
CALL_COLUMNS = (
    *("call_id", "trace_id", "thread_id", "graph", "site", "model", "provider"),
    *("latency_s", "error", "input_tokens", "output_tokens", "finish_reason"),
    *("abstained", "attempt", "messages", "tools_hash", "tool_choice"),
    *("response_format", "parameters", "answer"),
)
TOOL_COLUMNS = ("hash", "body")
CACHED_COLUMNS = ("key", "answer", "error", "latency_s")
CALLS = sa.table("calls", sa.column("sequence"), *map(sa.column, CALL_COLUMNS))
TOOL_SETS = sa.table("tool_sets", *map(sa.column, TOOL_COLUMNS))
CACHED = sa.table("cached_answers", *map(sa.column, CACHED_COLUMNS))
SCHEMA = sa.table("slm_schema", sa.column("version"))


class CachedAnswer(Frozen):
    """What a candidate once answered, so that it is not paid for twice.

    Attributes:
        answer: What came back; None when the call failed.
        error: Type and message of the failure; None when it succeeded.
        latency_s: Seconds from the request to the complete answer.
    """

    answer: Answer | None
    error: str | None
    latency_s: float


class Statements:
    """What the driver's own cursor runs, compiled once."""

    def __init__(self, dialect: sa.Dialect) -> None:
        def sql(statement: sa.ClauseElement, columns: Sequence[str] = ()) -> str:
            return str(statement.compile(dialect=dialect, column_keys=list(columns)))

        add = sqlite.insert(CALLS).on_conflict_do_nothing(index_elements=["call_id"])
        add_tools = sqlite.insert(TOOL_SETS).on_conflict_do_nothing()
        cache = sqlite.insert(CACHED).on_conflict_do_nothing()
        self.add = sql(add.returning(CALLS.c.sequence), CALL_COLUMNS)
        self.find = sql(sa.select(CALLS).where(CALLS.c.call_id == sa.bindparam("id")))
        self.add_tools = sql(add_tools, TOOL_COLUMNS)
        self.cache = sql(cache, CACHED_COLUMNS)


class CallRow(NamedTuple):
    """A call as the tables hold it.

    Attributes:
        values: In the order of `CALL_COLUMNS`.
        tools_hash: Names the tool set; empty where there is none.
        tools: The tool set as JSON; empty where there is none.
    """

    values: Values
    tools_hash: str
    tools: str


def call_row(call: Call) -> CallRow:
    """Return the row of `call`; its `sequence` is the table's to give.

    Raises:
        TypeError: If its content is not JSON.
        ValueError: If its content is circular.
        RecursionError: If its content is nested too deep.
    """
    request, answer = call.request, call.answer
    usage = answer.usage if answer else Usage()
    tools = _json(request.tools) if request.tools else ""
    tools_hash = hashlib.sha256(tools.encode()).hexdigest() if tools else ""
    values = (
        to_column(call.call_id),
        to_column(call.trace_id),
        to_column(call.thread_id),
        to_column(call.graph),
        to_column(call.site),
        to_column(call.model),
        to_column(call.provider),
        _to_real(call.latency_s),
        _to_optional(call.error),
        usage.input_tokens,
        usage.output_tokens,
        _to_optional(answer.finish_reason if answer else None),
        int(answer.abstained) if answer else None,
        to_column(call.attempt),
        _json(request.messages),
        tools_hash,
        _to_json(request.tool_choice),
        _to_json(request.response_format),
        _json(request.parameters),
        _to_json(answer and answer.message),
    )
    return CallRow(values, tools_hash, tools)


class CallReader:
    """Makes calls of rows, reading each tool set once."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._tools: dict[str, str] = {"": "[]"}

    def call(self, row: sa.Row[Any]) -> Call:
        """Return the call of `row`.

        Raises:
            TypeError, ValueError, LookupError: If the row is damaged.
        """
        return Call(
            call_id=from_column(row.call_id),
            trace_id=from_column(row.trace_id),
            thread_id=from_column(row.thread_id),
            graph=from_column(row.graph),
            site=from_column(row.site),
            sequence=row.sequence,
            model=from_column(row.model),
            provider=from_column(row.provider),
            request=Request(
                messages=json.loads(row.messages),
                # Parsed for each call: two calls must not share what a caller may change.
                tools=json.loads(self._tool_set(row.tools_hash)),
                tool_choice=_from_json(row.tool_choice),
                response_format=_from_json(row.response_format),
                parameters=json.loads(row.parameters),
            ),
            answer=None if row.answer is None else _answer(row),
            error=_from_optional(row.error),
            latency_s=_from_real(row.latency_s),
            attempt=from_column(row.attempt),
        )

    def _tool_set(self, tools_hash: str) -> str:
        if tools_hash not in self._tools:
            if len(self._tools) >= MOST_TOOL_SETS:
                self._tools = {"": "[]"}
            wanted = sa.select(TOOL_SETS.c.body).where(TOOL_SETS.c.hash == tools_hash)
            self._tools[tools_hash] = self._read(wanted)[0][0]
        return self._tools[tools_hash]


def _answer(row: sa.Row[Any]) -> Answer:
    return Answer(
        message=json.loads(row.answer),
        finish_reason=_from_optional(row.finish_reason),
        usage=Usage(input_tokens=row.input_tokens, output_tokens=row.output_tokens),
        abstained=bool(row.abstained),
    )


def cached_row(key: str, value: CachedAnswer) -> Values:
    """Return the row of `value`, in the order of `CACHED_COLUMNS`.

    Raises:
        TypeError: If its answer is not JSON.
        ValueError: If its answer is circular.
    """
    answer = _to_json(value.answer and value.answer.model_dump())
    error = _to_optional(value.error)
    return (to_column(key), answer, error, _to_real(value.latency_s))


def cached_answer(row: sa.Row[Any]) -> CachedAnswer:
    """Return the cached answer of `row`.

    Raises:
        TypeError, ValueError: If the row is damaged.
    """
    return CachedAnswer(
        answer=_from_json(row.answer),
        error=_from_optional(row.error),
        latency_s=_from_real(row.latency_s),
    )


def conditions(
    graph: str | None, site: str | None, model: str | None
) -> list[sa.ColumnElement[bool]]:
    """Return what a call must fulfil; None stands for any."""
    wanted = ((CALLS.c.graph, graph), (CALLS.c.site, site), (CALLS.c.model, model))
    return [column == to_column(name) for column, name in wanted if name is not None]


# ASCII, so that a lone surrogate is kept as its escape; the order of keys is kept too,
# because models see it.
_json = json.JSONEncoder(separators=(",", ":")).encode


def _to_json(value: object) -> str | None:
    return None if value is None else _json(value)


def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


# NUL and lone surrogates are no text to a database, and `\` makes room for their escapes.
_NO_TEXT = re.compile("[\0\\\\\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def to_column(text: str) -> str:
    r"""Return `text` as a database can hold it: itself, but for NUL, `\`, surrogates."""
    return _NO_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def from_column(text: str) -> str:
    """Return the text that `to_column` was given."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _to_optional(text: str | None) -> str | None:
    return None if text is None else to_column(text)


def _from_optional(text: str | None) -> str | None:
    return None if text is None else from_column(text)


def _to_real(value: float) -> float | None:
    return None if math.isnan(value) else value  # SQLite has no NaN


def _from_real(value: float | None) -> float:
    return math.nan if value is None else value


def _1_calls_tool_sets_cached_answers(connection: sa.Connection) -> None:
    tables = sa.MetaData()
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    sa.Table(
        "calls",
        tables,
        sa.Column("sequence", number, primary_key=True),
        sa.Column("call_id", sa.Text, nullable=False, unique=True),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("graph", sa.Text, nullable=False),
        sa.Column("site", sa.Text, nullable=False, index=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("latency_s", sa.Double),
        sa.Column("error", sa.Text),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("finish_reason", sa.Text),
        sa.Column("abstained", sa.Integer),
        sa.Column("attempt", sa.Text, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("tools_hash", sa.Text, nullable=False),
        sa.Column("tool_choice", sa.Text),
        sa.Column("response_format", sa.Text),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sqlite_autoincrement=True,  # a number is never given again
    )
    sa.Table(
        "tool_sets",
        tables,
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    sa.Table(
        "cached_answers",
        tables,
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("answer", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("latency_s", sa.Double),
    )
    tables.create_all(connection, checkfirst=False)


# A migration's number is its place, from 1. Never edited once released: add the next.
MIGRATIONS: tuple[Migration, ...] = (_1_calls_tool_sets_cached_answers,)


def upgrade(engine: sa.Engine, migrations: Sequence[Migration]) -> None:
    """Run the migrations that a store lacks: all of them in one transaction, or none."""
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = version(connection)
        if found == 0:
            schema = sa.Table(
                "slm_schema", sa.MetaData(), sa.Column("version", sa.Integer)
            )
            schema.create(connection)
        for number, migration in enumerate(migrations[found:], found + 1):
            migration(connection)
            connection.execute(sa.insert(SCHEMA).values(version=number))
        connection.commit()


def version(connection: sa.Connection) -> int:
    """Return the version of the store; 0 where there is none."""
    if "slm_schema" not in sa.inspect(connection).get_table_names():
        return 0
    newest = connection.execute(sa.select(sa.func.max(SCHEMA.c.version))).scalar()
    return newest if isinstance(newest, int) else 0
