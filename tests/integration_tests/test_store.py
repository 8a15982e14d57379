"""The SQLite store: kills, many processes, its file, and its migrations."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from integration_tests.stores import call, opened, sql

from langchain_slm.recording.sqlite_file import engine_of
from langchain_slm.recording.store import open_store
from langchain_slm.recording.tables import MIGRATIONS, upgrade, version
from langchain_slm.schema import Request

ROOT = Path(__file__).parents[2]
WRITER = """
import itertools, sys
from langchain_slm.recording.store import open_store
from langchain_slm.schema import Answer, Call, Request

url, writer, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(url) as store:
    for number in itertools.count() if calls < 0 else range(calls):
        question = {"role": "user", "content": f"question {number} " + "x" * 500}
        store.add(Call(
            call_id=f"{writer}-{number}", trace_id="t", thread_id="t", graph="g",
            site="s", model="m", provider="p", request=Request(messages=(question,)),
            answer=Answer(message={"role": "assistant", "content": "yes"}),
        ))
        print(number, flush=True)
"""


def writer(url: str, name: str, calls: int = -1) -> subprocess.Popen[str]:
    """Start a process that writes calls and says the number of each that is stored."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, name, str(calls)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slm.db"


def test_no_acknowledged_call_is_lost_when_the_writer_is_killed(path):
    acknowledged: list[str] = []
    for attempt in range(10):
        process = writer(f"sqlite:///{path}", f"w{attempt}")
        assert process.stdout is not None
        numbers = [process.stdout.readline() for _ in range(20 + attempt)]
        process.send_signal(signal.SIGKILL)
        with process:
            numbers += process.stdout.readlines()
        acknowledged += [f"w{attempt}-{int(number)}" for number in numbers]

    with opened(path) as store:
        stored = [each.call_id for each in store.calls()]
    assert set(acknowledged) <= set(stored)
    # Killed between the commit and the word of it, a writer may have stored one more.
    assert len(acknowledged) <= len(stored) <= len(acknowledged) + 10
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_four_processes_that_make_one_store_lose_nothing_and_are_refused_nothing(path):
    processes = [writer(f"sqlite:///{path}", f"w{number}", 300) for number in range(4)]
    outcomes = [(*process.communicate(), process.returncode) for process in processes]

    assert [(code, errors) for _, errors, code in outcomes] == [(0, "")] * 4
    with opened(path, create=False) as store:
        stored = {each.call_id for each in store.calls()}
        assert store.count() == 1200
    assert stored == {f"w{number}-{index}" for number in range(4) for index in range(300)}


def test_only_the_owner_can_read_a_new_store(path):
    before = os.umask(0)
    try:
        with opened(path) as store:
            store.add(call())
            files = sorted(path.parent.iterdir())
            modes = {stat.S_IMODE(file.stat().st_mode) for file in files}
    finally:
        os.umask(before)

    assert [file.name for file in files] == ["slm.db", "slm.db-shm", "slm.db-wal"]
    assert modes == {0o600}


def test_the_mode_of_a_file_that_is_there_is_kept(path):
    path.touch(mode=0o640)
    with opened(path) as store:
        store.add(call())

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_tool_set_is_stored_once(path):
    large = {"type": "function", "function": {"name": "f", "description": "x" * 100_000}}
    with opened(path, redact=None) as store:
        for number in range(50):
            store.add(call(number, request=Request(messages=(), tools=(large,))))
    with opened(path, redact=None) as store:
        store.add(call(50, request=Request(messages=(), tools=(large,))))
        assert [each.request.tools for each in store.calls()] == [(large,)] * 51

    assert sql(path, "SELECT count(*) FROM tool_sets") == [(1,)]


def test_more_tool_sets_than_a_reader_holds_come_back(path):
    sets = [({"type": "function", "function": {"name": f"f{n}"}},) for n in range(120)]
    with opened(path) as store:
        calls = [
            call(n, request=Request(messages=(), tools=sets[n % 120])) for n in range(240)
        ]
        store.add_many(calls)

        assert [each.request.tools for each in store.calls()] == sets * 2


def test_plain_names_are_plain_in_the_database(path):
    with opened(path) as store:
        store.add(call(site="parent/child#branch", graph="Grüße"))

    assert sql(path, "SELECT site, graph FROM calls") == [
        ("parent/child#branch", "Grüße")
    ]


def test_the_store_is_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with open_store("sqlite:///slm.db") as store:
        store.add(call(1))
        monkeypatch.chdir(tmp_path / "elsewhere")

        assert store.add(call(2)) == 2
        assert store.count() == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["a b.db", "%41.db", "ä.db", "a;b'c.db", "#1.db"])
def test_any_file_name_can_be_a_store(tmp_path, name):
    with open_store(f"sqlite:///{tmp_path}/{quote(name)}") as store:
        store.add(call())

    assert (tmp_path / name).is_file()


def test_the_write_ahead_log_stays_short_while_a_reader_pauses(path):
    large = Request(messages=({"role": "user", "content": "x" * 100_000},))
    with opened(path, redact=None) as store:
        store.add_many(call(number, request=large) for number in range(150))
        reader = store.calls()
        next(reader)
        for number in range(1000, 1300):
            store.add(call(number, request=large))

        # 300 calls are 30 MB; SQLite moves the log into the file every 4 MB or so.
        assert path.with_name("slm.db-wal").stat().st_size < 20_000_000
        reader.close()


def _2_adds_a_note(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE calls ADD COLUMN note TEXT")


def _3_fails_half_way(connection: sa.Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE half (way TEXT)")
    connection.exec_driver_sql("CREATE TABLE half (way TEXT)")


@pytest.fixture
def engine(path: Path) -> Iterator[sa.Engine]:
    with opened(path) as store:
        store.add(call())
    made = engine_of(path, busy_timeout_s=1.0)
    yield made
    made.dispose()


def test_a_store_gets_the_migrations_that_it_lacks(path, engine):
    upgrade(engine, (*MIGRATIONS, _2_adds_a_note))

    with engine.connect() as connection:
        assert version(connection) == 2
    assert sql(path, "SELECT version FROM slm_schema") == [(1,), (2,)]
    assert sql(path, "SELECT call_id, note FROM calls") == [("call-1", None)]


def test_a_migration_that_fails_leaves_the_store_as_it_was(path, engine):
    before = sql(path, "SELECT sql FROM sqlite_schema")

    with pytest.raises(sa.exc.OperationalError):
        upgrade(engine, (*MIGRATIONS, _2_adds_a_note, _3_fails_half_way))

    assert sql(path, "SELECT sql FROM sqlite_schema") == before
    assert sql(path, "SELECT version FROM slm_schema") == [(1,)]


def test_the_tables_of_version_1_are_as_they_were_released(path):
    """Never change this test: a released store has these columns."""
    opened(path).close()

    columns = {
        table: [row[1] for row in sql(path, f"PRAGMA table_info({table})")]
        for table in ("calls", "tool_sets", "cached_answers")
    }
    assert columns == {
        "calls": [
            *("sequence", "call_id", "trace_id", "thread_id", "graph", "site", "model"),
            *("provider", "latency_s", "error", "input_tokens", "output_tokens"),
            *("finish_reason", "abstained", "attempt", "messages", "tools_hash"),
            *("tool_choice", "response_format", "parameters", "answer"),
        ],
        "tool_sets": ["hash", "body"],
        "cached_answers": ["key", "answer", "error", "latency_s"],
    }


def test_a_sequence_number_is_never_given_again(path):
    with opened(path) as store:
        store.add_many(call(number) for number in range(3))
    sql(path, "DELETE FROM calls WHERE sequence = 3")

    with opened(path) as store:
        assert store.add(call(9)) == 4


def test_a_transaction_is_durable_against_the_death_of_the_process(path):
    with opened(path) as store:
        connection = store._connection()

        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL


def test_nothing_that_can_run_is_read_back():
    folder = ROOT / "langchain_slm" / "recording"
    source = "".join(file.read_text() for file in folder.glob("*.py"))

    assert not re.search(r"\b(pickle|marshal|shelve|eval|exec|yaml)\b\s*[.(]", source)
