"""What the SQLite store refuses, and what it leaves untouched then."""

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_tests.stores import call, opened, sql

from langchain_slm.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreVersionError,
)
from langchain_slm.recording.store import CachedAnswer, open_store
from langchain_slm.schema import Answer, Request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slm.db"


@pytest.fixture
def held(path: Path) -> Iterator[Path]:
    """A store that another connection is writing to."""
    opened(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield path
    connection.close()


def test_a_locked_store_is_not_opened(held):
    with pytest.raises(StoreLockedError, match=r"slm\.db: another process or thread"):
        opened(held, busy_timeout_s=0.05)


def test_a_store_that_is_locked_later_refuses_the_call_and_goes_on(path):
    with opened(path, busy_timeout_s=0.05) as store:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLockedError, match="raise busy_timeout_s"):
            store.add(call(1))
        connection.close()

        assert store.add(call(1)) == 1


def test_a_thread_waits_no_longer_than_the_time_out_for_another(path):
    with opened(path, busy_timeout_s=0.05) as store:
        refused: list[Exception] = []

        def write() -> None:
            try:
                store.add(call(2))
            except StoreLockedError as error:
                refused.append(error)

        with store._transaction():
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()

        assert len(refused) == 1
        assert store.add(call(2)) == 1


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(path):
    opened(path).close()
    sql(path, "INSERT INTO slm_schema VALUES (8)")
    before = path.read_bytes()

    with pytest.raises(
        StoreVersionError, match=r"store version 8, this one knows up to 1"
    ):
        opened(path)

    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["slm.db"]


@pytest.mark.parametrize(
    "content",
    [b"this is a text, and longer than the head of a database is" * 99, b"\0" * 4096],
    ids=["text", "zeros"],
)
def test_what_is_no_database_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)

    with pytest.raises(StoreCorruptError, match="not a readable SQLite database"):
        opened(path)

    assert path.read_bytes() == content


def test_a_damaged_database_is_refused_and_left_as_it_is(path):
    with opened(path) as store:
        store.add_many(call(number) for number in range(100))
    damaged = path.read_bytes()[:100] + b"\xff" * 8000
    path.write_bytes(damaged)

    with pytest.raises(StoreCorruptError, match=r"\.recover"):
        opened(path)

    assert path.read_bytes() == damaged


def test_damage_that_shows_later_is_said_too(path):
    with opened(path) as store:
        store.add_many(call(number) for number in range(2000))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 40960] = b"\xff" * 40960
    path.write_bytes(content)

    with opened(path) as store, pytest.raises(StoreCorruptError):
        list(store.calls())


@pytest.mark.parametrize(
    "change",
    [
        "messages = '{'",
        "messages = 'null'",
        "messages = x'ff'",
        "answer = '[]'",
        "tools_hash = 'gone'",
        "latency_s = 'soon'",
        "parameters = '3'",
    ],
)
def test_a_row_that_was_changed_is_refused_without_its_content(path, change):
    with opened(path) as store:
        store.add(call(answer=Answer(message={"content": "SECRET"})))
        sql(path, f"UPDATE calls SET {change}")  # noqa: S608 - a literal above

        with pytest.raises(
            StoreCorruptError, match="a row cannot be read back"
        ) as caught:
            list(store.calls())
    assert "SECRET" not in str(caught.value)


def test_a_cached_answer_that_was_changed_is_refused(path):
    with opened(path) as store:
        store.cache_answer("key", CachedAnswer(answer=None, error=None, latency_s=1.0))
        sql(path, "UPDATE cached_answers SET answer = '3'")

        with pytest.raises(StoreCorruptError, match="a row cannot be read back"):
            store.cached_answer("key")


def test_bytes_that_are_no_text_are_refused_without_a_word_of_them(path):
    with opened(path) as store:
        store.add(call())
        sql(
            path,
            "UPDATE calls SET site = CAST(x'534543524554ff' AS TEXT)",
        )

        with pytest.raises(StoreError) as caught:
            list(store.calls())
    assert "SECRET" not in str(caught.value)


def test_the_database_of_another_program_is_refused_and_left_as_it_is(path):
    sql(path, "CREATE TABLE notes (note TEXT)")
    before = path.read_bytes()

    with pytest.raises(StoreError, match="database of another program"):
        opened(path)

    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    with opened(path) as store:
        assert store.add(call()) == 1


def test_an_empty_file_is_no_store_to_read(path):
    path.touch()

    with pytest.raises(StoreError, match="holds no store"):
        opened(path, create=False)

    assert path.read_bytes() == b""


def test_a_store_that_is_not_there_is_not_made_where_it_must_not(path):
    with pytest.raises(StoreError, match=r"slm\.db: no such store; check the path"):
        opened(path, create=False)

    assert not path.exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        StoreError, match=r"its folder does not exist; create .*/no/where"
    ):
        opened(tmp_path / "no" / "where" / "slm.db")


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "slm.db").symlink_to(tmp_path / "elsewhere.db")

    with pytest.raises(StoreError, match="is a link to nothing"):
        opened(tmp_path / "slm.db")

    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("name", ["n" * 300 + ".db", "\ud800.db"], ids=["long", "odd"])
def test_a_name_that_the_system_refuses_is_refused(tmp_path, name):
    with pytest.raises(StoreError, match="cannot be used"):
        open_store(f"sqlite:///{tmp_path}/{name}")


@pytest.mark.parametrize("busy_timeout_s", [-1, float("nan"), float("inf"), 5000])
def test_a_time_out_outside_its_range_is_an_argument_error(path, busy_timeout_s):
    with pytest.raises(ValueError, match=r"busy_timeout_s must be in \[0, 3600\]"):
        opened(path, busy_timeout_s=busy_timeout_s)

    assert not path.exists()


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"is a folder; name a file in it"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("slm.db", "not the URL of a store; write it as sqlite:///slm.db"),
        ("", "not the URL of a store"),
        ("sqlite:slm.db", "not the URL of a store"),
        (
            "postgresql+psycopg://u:HUNTER2@db/slm",
            r"'postgresql\+psycopg' are not supported",
        ),
        ("mysql://u:HUNTER2@db/slm?password=HUNTER2", r"Supported: sqlite \(built in"),
        ("sqlite://slm.db", "has no host"),
        ("sqlite://u:HUNTER2@host/slm.db", "has no host"),
        ("sqlite:///slm.db?timeout=HUNTER2", "takes no options"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///a\0b", "must be a file"),
        ("postgresql://u:HUNTER2@db:port/slm", "URL|supported"),
    ],
)
def test_a_url_that_is_no_store_is_refused_without_its_password(url, reason):
    with pytest.raises(StoreError, match=reason) as caught:
        open_store(url)

    assert "HUNTER2" not in f"{caught.value!r} {caught.value.fields}"


@pytest.fixture
def anyone() -> Iterator[Path]:
    """A folder of a user who may be refused something (root is refused nothing)."""
    nobody = 65_534
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder
        else:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
            try:
                yield folder
            finally:
                os.seteuid(0)
        folder.chmod(0o700)


def test_a_read_only_folder_is_refused(anyone):
    anyone.chmod(0o500)

    with pytest.raises(StoreError, match=r"cannot be used \(Permission denied\)"):
        opened(anyone / "slm.db")


def test_a_store_in_a_read_only_folder_is_refused(anyone):
    opened(anyone / "slm.db").close()
    anyone.chmod(0o500)

    with pytest.raises(StoreError, match=r"folder writable|read-only; make it writable"):
        opened(anyone / "slm.db")


def test_a_read_only_file_is_refused(anyone):
    path = anyone / "slm.db"
    opened(path).close()
    path.chmod(0o400)

    with pytest.raises(StoreError, match="make it readable and writable"):
        opened(path)


def test_a_file_that_cannot_be_read_is_refused(anyone):
    path = anyone / "slm.db"
    opened(path).close()
    path.chmod(0)

    with pytest.raises(StoreError, match="make it readable and writable"):
        opened(path)


def test_a_full_disk_refuses_the_call_and_keeps_the_others(path):
    with opened(path, redact=None) as store:
        store.add(call(1))
        pages = store._connection().execute("PRAGMA page_count").fetchone()[0]
        store._connection().execute(f"PRAGMA max_page_count={pages}")
        large = Request(messages=({"role": "user", "content": "SECRET" * 100_000},))

        with pytest.raises(StoreError, match="the disk is full") as caught:
            store.add(call(2, request=large))

        store._connection().execute("PRAGMA max_page_count=1000000")
        assert "SECRET" not in str(caught.value)
        assert [each.call_id for each in store.calls()] == ["call-1"]
        assert store.add(call(2, request=large)) == 2


def test_a_failed_import_leaves_no_tool_set_half_known(path):
    """A tool set counts as stored only once its transaction is through."""
    tools = ({"type": "function", "function": {"name": "f"}},)
    with opened(path, redact=None) as store:
        pages = store._connection().execute("PRAGMA page_count").fetchone()[0]
        store._connection().execute(f"PRAGMA max_page_count={pages}")
        large = ({"role": "user", "content": "x" * 100_000},)
        with pytest.raises(StoreError, match="the disk is full"):
            store.add(call(1, request=Request(messages=large, tools=tools)))
        store._connection().execute("PRAGMA max_page_count=1000000")

        store.add(call(1, request=Request(messages=large, tools=tools)))

        assert [each.request.tools for each in store.calls()] == [tools]


def test_a_store_that_cannot_be_opened_leaves_no_file_open(path):
    listed = Path("/proc/self/fd")
    if not listed.is_dir():
        pytest.skip("the system does not list open files")
    path.write_bytes(b"no database" * 1000)

    with pytest.raises(StoreCorruptError):
        opened(path)

    assert path not in [file.resolve() for file in listed.iterdir()]
