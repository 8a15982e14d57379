"""Stores and calls for the tests of the SQLite store."""

import sqlite3
from pathlib import Path
from typing import Any

from langchain_slm.recording.store import Store, open_store
from langchain_slm.schema import Answer, Call, Request


def call(number: int = 1, **changes: Any) -> Call:
    fields: dict[str, Any] = {
        "call_id": f"call-{number}",
        "trace_id": "t",
        "thread_id": "t",
        "graph": "g",
        "site": "s",
        "model": "m",
        "provider": "p",
        "request": Request(messages=({"role": "user", "content": "hello"},)),
        "answer": Answer(message={"role": "assistant", "content": "yes"}),
    }
    return Call(**{**fields, **changes})


def opened(path: Path, **options: Any) -> Store:
    return open_store(f"sqlite:///{path}", **options)


def sql(path: Path, *statements: str) -> list[Any]:
    """Run statements behind the store's back; return the rows of the last."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            rows = [connection.execute(statement).fetchall() for statement in statements]
        return rows[-1]
    finally:
        connection.close()
