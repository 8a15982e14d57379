"""Source files on disk: what is read, refused, written whole, and put back."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm.editing import files as editing
from langchain_slm.editing import undo_record
from langchain_slm.editing.documents import decoded, read_document
from langchain_slm.editing.files import (
    SourceFile,
    obstacles,
    read_file,
    refuse,
    replace_file,
    restoring_obstacles,
)
from langchain_slm.editing.source import wrap
from langchain_slm.editing.undo_record import (
    RECORD,
    Change,
    is_as_written,
    read_record,
    undo_changes,
    write_changes,
)
from langchain_slm.editing.undoing import Entry, restored, written
from langchain_slm.errors import SourceError

BEFORE = b"import os\ngraph = 1\n"
AFTER = b"import os\nput = 1\ngraph = 1\nput(graph)\n"


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "app.py"
    path.write_bytes(BEFORE)
    return path


def change(path, after=AFTER, variable="graph"):
    return Change(read_file(path), after, [(path, variable)])


def write(path, after=AFTER, variable="graph"):
    return write_changes([change(path, after, variable)], path.parent)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def undo(path, variable="graph", **more):
    return undo_changes([(path, variable)], **more)


def reasons(path, root=None):
    found = obstacles(
        [read_file(path)], root or path.parent, is_ours=undo_record.is_as_written
    )
    return [each.reason for each in found]


# Texts and bytes


@pytest.mark.parametrize(
    "data",
    [
        b"graph = 1\n",
        b"\xef\xbb\xbfgraph = 1\r\n",
        "# -*- coding: latin-1 -*-\ns = 'é'\ngraph = 1\n".encode("latin-1"),
        "# coding: cp1252\ns = '€'\ngraph = 1\n".encode("cp1252"),
        "#!/usr/bin/python\n# vim: fileencoding=koi8-r :\n# Да\ngraph = 1\n".encode(
            "koi8-r"
        ),
        "# coding: shift_jis\ns = '日本'\ngraph = 1\n".encode("shift_jis"),
        "# coding: euc-jp\ns = '日本'\ngraph = 1\n".encode("euc-jp"),
        b"# -*- coding: utf-8-unix -*-\ngraph = 1\n",
        "\ngrāph = 1\ngraph = 2".encode(),
        b"graph = 1\r\n\x0c\r\n",
    ],
)
def test_a_file_keeps_its_encoding_its_mark_and_its_bytes(data):
    document = read_document(data, "app.py")
    after = document.edited(wrap(document.parsed, "graph", "slm-plan.json"))
    newline = b"\r\n" if b"\r\n" in data else b"\n"
    text = b"from langchain_slm import apply_plan"
    line = b'graph = apply_plan(graph, "slm-plan.json")'
    taken = after.replace(text + newline * 2, b"").replace(newline + line, b"")
    assert after.count(text) == after.count(line) == 1
    assert taken == data
    assert read_document(after, "app.py").edited([]) == after


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"# coding: no-such\ngraph = 1\n", "app.py:1: unknown encoding: no-such"),
        (b"graph = '\xe9'\n", "app.py:1: invalid or missing encoding declaration"),
        (b"\n\n\ngraph = '\xe9'\n", "app.py: cannot be read as utf-8"),
        (b"\xef\xbb\xbf# coding: latin-1\ngraph = 1\n", "app.py:1: encoding problem"),
        (b"# coding: rot13\ngraph = 1\n", "app.py: cannot be read as rot13"),
        (b"# coding: utf-7\ngraph = '+AOk-'\n", "app.py: utf-7 does not write its text"),
    ],
)
def test_an_encoding_that_cannot_be_kept_is_refused(data, says):
    with pytest.raises(SourceError, match=r"app\.py") as caught:
        decoded(data, "app.py")
    assert str(caught.value).startswith(says)


def test_what_an_encoding_has_no_word_for_is_refused():
    document = read_document(b"# coding: latin-1\ngraph = 1\n", "app.py")
    edits = [edit._replace(new="λ") for edit in wrap(document.parsed, "graph", "a")]
    with pytest.raises(SourceError, match="iso-8859-1 has no 'λ'"):
        document.edited(edits)


@pytest.mark.parametrize("name", ["app.txt", "app", "app.pyc", "langgraph.json"])
def test_what_is_no_python_file_is_refused(name):
    with pytest.raises(SourceError, match=r"not a Python file; a graph is in a \.py"):
        read_document(b"graph = 1\n", name)


# Reading


def test_a_folder_a_fifo_and_a_missing_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "dangling.py").symlink_to(tmp_path / "gone.py")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    for name in ("pipe.py", "folder.py"):
        with pytest.raises(SourceError, match=f"{name}: not a regular file"):
            read_file(tmp_path / name)
    for name in ("gone.py", "dangling.py", "loop.py", "gone/app.py"):
        with pytest.raises(SourceError, match=f"{name}: cannot be read"):
            read_file(tmp_path / name)


def test_files_are_called_as_seen_from_the_working_directory(app, monkeypatch):
    monkeypatch.chdir(app.parent)
    assert read_file(Path("app.py")).name == "app.py"
    monkeypatch.chdir("/")
    assert read_file(app).name == app.relative_to("/").as_posix()


# What stands in the way


@pytest.mark.parametrize("name", ["app.py", "."])
def test_a_read_only_file_or_folder_is_refused_by_its_mode(app, name):
    path = app.parent / name
    mode = path.stat().st_mode
    path.chmod(0o555)
    try:
        found = reasons(app)
        undoing = restoring_obstacles([read_file(app)], app.parent)
    finally:
        path.chmod(mode)
    assert len(found) == 1
    assert found[0].endswith("is read-only; `chmod u+w` it first")
    assert [each.can_force for each in undoing] == [False]


def test_whoever_may_write_by_the_mode_but_not_by_the_system_is_refused(app, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != app)
    assert len(reasons(app)) == 1
    with pytest.raises(SourceError, match=r"read-only.*No file was changed"):
        refuse(restoring_obstacles([read_file(app)], app.parent), force=True)


def test_a_link_out_of_the_project_is_refused_unless_forced(tmp_path, app):
    project = tmp_path / "project"
    project.mkdir()
    link = project / "graph.py"
    link.symlink_to(app)
    found = obstacles([read_file(link)], project, is_ours=is_as_written)
    with pytest.raises(SourceError, match=r"outside the project .* or add --force"):
        refuse(found, force=False)
    refuse(found, force=True)
    assert reasons(link, tmp_path) == []


def test_a_file_of_several_names_is_refused_unless_forced(app):
    os.link(app, app.parent / "other.py")
    found = obstacles([read_file(app)], app.parent, is_ours=is_as_written)
    with pytest.raises(SourceError, match=r"has 2 names \(hard links\)"):
        refuse(found, force=False)
    refuse(found, force=True)


def git(folder, *arguments):
    settings = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *settings, *arguments],  # noqa: S607 - the test's git
        check=True,
        capture_output=True,
    )
    return done.stdout.decode()


@pytest.fixture
def repository(app):
    git(app.parent, "init", "-q")
    (app.parent / "other.py").write_text("x = 1\n")
    (app.parent / ".gitignore").write_text("ignored.py\n")
    git(app.parent, "add", ".")
    git(app.parent, "commit", "-qm", "All")
    return app.parent


def test_a_clean_work_tree_is_edited(repository):
    (repository / "new.py").write_text("untracked, and not to be edited")
    assert reasons(repository / "app.py") == []


def test_any_uncommitted_change_is_named(repository):
    (repository / "other.py").write_text("x = 2\n")
    (found,) = reasons(repository / "app.py")
    assert "has uncommitted changes: other.py; commit first, or add --force" in found
    git(repository, "add", "other.py")
    assert reasons(repository / "app.py") == [found]


def test_renamed_and_many_files_are_named_once_each(repository):
    for number in range(7):
        (repository / f"f{number}.py").write_text(f"x = {number}\n" * 9)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "More")
    for number in range(7):
        git(repository, "mv", f"f{number}.py", f"é {number}.py")
    (found,) = reasons(repository / "app.py")
    assert "changes: é 0.py, é 1.py, é 2.py, é 3.py, é 4.py and 2 more" in found


@pytest.mark.parametrize("name", ["new.py", "ignored.py", "-q.py", ":(top).py"])
def test_a_file_that_git_does_not_know_is_refused(repository, name):
    (repository / name).write_bytes(BEFORE)
    (found,) = reasons(repository / name)
    assert "is in a git work tree, but git does not know it" in found


def test_git_is_asked_about_the_tree_of_the_file_even_in_a_hook(
    repository, tmp_path_factory, monkeypatch
):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert reasons(repository / "app.py") == []


def test_without_git_or_a_repository_nothing_is_asked(app, repository, monkeypatch):
    (repository / "other.py").write_text("x = 2\n")
    monkeypatch.setenv("PATH", "")
    assert reasons(app) == []


def test_a_repository_that_git_refuses_to_read_is_named(repository):
    (repository / ".git" / "config").write_text("[broken\n")
    (found,) = reasons(repository / "app.py")
    assert "git cannot say whether" in found
    assert "bad config" in found


def test_what_was_written_here_is_no_uncommitted_change(repository):
    app = repository / "app.py"
    write(app)
    assert reasons(app) == []
    git(repository, "add", RECORD)
    app.write_bytes(app.read_bytes() + b"# mine\n")
    (found,) = reasons(app)
    assert "uncommitted changes: app.py;" in found


# Replacing


def test_a_file_keeps_its_mode_and_gets_a_time_of_its_own(app):
    app.chmod(0o754)
    os.utime(app, (1, 1))
    replace_file(read_file(app), AFTER)
    found = app.stat()
    assert app.read_bytes() == AFTER
    assert stat.S_IMODE(found.st_mode) == 0o754
    assert found.st_mtime > 1
    assert names(app.parent) == ["app.py"]


def test_what_only_its_owner_may_read_is_never_shown_to_others(app, monkeypatch):
    seen = []
    fsync = os.fsync

    def look(descriptor):
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
        fsync(descriptor)

    app.chmod(0o600)
    monkeypatch.setattr(editing.os, "fsync", look)
    monkeypatch.setattr(editing, "sync_folder", lambda folder: None)
    monkeypatch.setattr(undo_record, "sync_folder", lambda folder: None)
    record = write(app)
    assert seen == [0, 0, 0]
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(app.stat().st_mode) == 0o600


def test_a_link_stays_a_link(app):
    link = app.parent / "graph.py"
    link.symlink_to("app.py")
    replace_file(read_file(link), AFTER)
    assert link.is_symlink()
    assert app.read_bytes() == AFTER


def test_a_change_of_somebody_else_is_not_lost(app):
    file = read_file(app)
    app.write_bytes(b"theirs\n")
    with pytest.raises(SourceError, match=r"app\.py: changed while it was edited"):
        replace_file(file, AFTER)
    assert app.read_bytes() == b"theirs\n"
    assert names(app.parent) == ["app.py"]


def test_a_file_whose_name_is_as_long_as_can_be_is_written(tmp_path):
    path = tmp_path / f"{'a' * 252}.py"
    path.write_bytes(BEFORE)
    replace_file(read_file(path), AFTER)
    assert path.read_bytes() == AFTER


def test_a_disk_that_is_full_leaves_the_file(app, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(editing.os, "fsync", full)
    with pytest.raises(SourceError, match=r"cannot be written \(No space"):
        replace_file(read_file(app), AFTER)
    assert app.read_bytes() == BEFORE
    assert names(app.parent) == ["app.py"]


# Writing and undoing


def test_what_is_written_is_undone_exactly(app):
    assert write(app) == app.parent / RECORD
    assert app.read_bytes() == AFTER
    assert undo(app) == {str(app): ("app.py:graph",)}
    assert app.read_bytes() == BEFORE
    assert names(app.parent) == ["app.py"]


def test_the_record_has_relative_paths_and_what_was_taken_and_put(app):
    folder = app.parent / "src"
    folder.mkdir()
    path = app.rename(folder / "app.py")
    write_changes([change(path)], app.parent)
    said = json.loads((app.parent / RECORD).read_text())
    (entry,) = said["files"].values()
    assert said["format_version"] == 1
    assert list(said["files"]) == ["src/app.py"]
    assert entry["graphs"] == ["src/app.py:graph"]
    assert entry["written"][0]["hunks"] == [
        {"line": 2, "old": "", "new": "put = 1\n"},
        {"line": 4, "old": "", "new": "put(graph)\n"},
    ]
    assert str(app.parent) not in (app.parent / RECORD).read_text()


def test_writing_again_still_leads_back_to_the_first(app):
    write(app)
    write(app, AFTER.replace(b"put", b"set"))
    write(app, AFTER + b"more = 1\n", "other")
    assert len(read_record(app.parent).files["app.py"].written) == 1
    undo(app, "other")
    assert app.read_bytes() == BEFORE


def test_a_file_that_was_restored_otherwise_is_recorded_anew(app):
    write(app)
    app.write_bytes(BEFORE + b"# mine\n")
    with pytest.raises(SourceError, match="edited since it was written"):
        write(app, AFTER + b"# mine\n")
    app.write_bytes(BEFORE)
    write(app)
    undo(app)
    assert app.read_bytes() == BEFORE


def test_edits_since_then_are_kept(app):
    write(app)
    app.write_bytes(b"# top\n" + AFTER.replace(b"graph = 1", b"graph = 2") + b"end = 1\n")
    undo(app)
    assert app.read_bytes() == b"# top\nimport os\ngraph = 2\nend = 1\n"
    assert not (app.parent / RECORD).exists()


def test_edits_since_then_are_kept_when_it_is_written_again(app):
    write(app)
    app.write_bytes(AFTER + b"end = 1\n")
    write(app, AFTER.replace(b"put", b"set") + b"end = 1\n")
    undo(app)
    assert app.read_bytes() == BEFORE + b"end = 1\n"


def test_a_last_line_that_had_no_end_comes_back_with_what_follows_it_now(app):
    app.write_bytes(b"graph = 1")
    write(app, b"graph = 1\nput(graph)")
    app.write_bytes(
        b"graph = 1\r\nput(graph)\r\nmine = 1\r\n".replace(b"1\r\np", b"1\np")
    )
    undo(app)
    assert app.read_bytes() == b"graph = 1\r\nmine = 1\r\n"


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (
            AFTER.replace(b"put(graph)", b"put(graph, 1)"),
            "'put(graph)', which .* line 4, is",
        ),
        (
            AFTER.replace(b"put = 1\n", b""),
            "'put = 1', which was put at line 2, is not there",
        ),
        (AFTER + b"put(graph)\n", "'put(graph)', .*, is there 2 times"),
        (b"", "'put = 1', which was put at line 2, is not there"),
    ],
)
def test_a_place_that_cannot_be_told_is_named_and_the_file_left(app, now, says):
    write(app)
    app.write_bytes(now)
    pattern = says.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(SourceError, match=pattern):
        undo(app)
    assert app.read_bytes() == now
    assert (app.parent / RECORD).exists()


def test_equal_places_are_put_back_together():
    before = b"a\nx = f()\nb\nx = f()\nc\n"
    after = b"a\nx = g(f())\nb\nx = g(f())\nc\n"
    entry = Entry(graphs=(), written=(written(before, after),))
    assert restored(b"0\n" + after, entry, "app.py") == b"0\n" + before


def test_undoing_what_was_not_written_says_so(app):
    with pytest.raises(SourceError, match=r"nothing to undo: no \.slm-rew"):
        undo(app)
    write(app)
    with pytest.raises(SourceError, match=r"app\.py:other: nothing to undo"):
        undo(app, "other")
    assert app.read_bytes() == AFTER


def test_undo_leaves_the_files_of_other_graphs(app):
    other = app.parent / "other.py"
    other.write_bytes(BEFORE)
    write(app)
    write(other, variable="else")
    undo(app)
    assert (app.read_bytes(), other.read_bytes()) == (BEFORE, AFTER)
    undo(other, "else")
    assert other.read_bytes() == BEFORE


def test_a_file_that_is_gone_is_forgotten_only_by_force(app):
    other = app.parent / "other.py"
    other.write_bytes(BEFORE)
    graphs = [(app, "graph")]
    changes = [Change(read_file(path), AFTER, graphs) for path in (app, other)]
    write_changes(changes, app.parent)
    other.unlink()
    with pytest.raises(SourceError, match=r"other\.py: cannot be read"):
        undo(app)
    undo(app, force=True)
    assert app.read_bytes() == BEFORE
    assert not (app.parent / RECORD).exists()


def test_all_files_are_written_or_none(app):
    other = app.parent / "other.py"
    other.write_bytes(BEFORE)
    changes = [change(app), change(other)]
    other.write_bytes(b"theirs\n")
    with pytest.raises(SourceError, match=r"other\.py: changed while it was edited"):
        write_changes(changes, app.parent)
    assert (app.read_bytes(), other.read_bytes()) == (BEFORE, b"theirs\n")
    assert not (app.parent / RECORD).exists()


def test_an_interrupt_between_two_files_takes_the_first_back(app, monkeypatch):
    other = app.parent / "other.py"
    other.write_bytes(BEFORE)
    write(app)
    replaced = []

    def interrupted(file: SourceFile, data: bytes) -> None:
        if len(replaced) == 1:
            replaced.append(file)
            raise KeyboardInterrupt
        replaced.append(file)
        replace_file(file, data)

    monkeypatch.setattr(undo_record, "replace_file", interrupted)
    changes = [change(app, AFTER + b"x\n"), change(other)]
    with pytest.raises(KeyboardInterrupt):
        write_changes(changes, app.parent)
    assert (app.read_bytes(), other.read_bytes()) == (AFTER, BEFORE)
    undo(app)
    assert app.read_bytes() == BEFORE


def test_two_commands_at_a_time_both_leave_their_record(tmp_path):
    paths = [tmp_path / f"app{number}.py" for number in range(8)]
    for path in paths:
        path.write_bytes(BEFORE)
    threads = [threading.Thread(target=write, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_record(tmp_path).files) == [path.name for path in paths]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not the record of a rewrite"),
        ('{"files": {"a.py": {}}}', "not the record of a rewrite"),
        ('{"format_version": 2, "files": {}}', "written by a newer langchain-slm"),
        (
            '{"files": {"../a.py": {"graphs": ["app.py:graph"], "written": []}}}',
            r"names a file outside its folder \(\.\./a\.py\)",
        ),
        (
            '{"files": {"/etc/a.py": {"graphs": ["app.py:graph"], "written": []}}}',
            "names a file outside its folder",
        ),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(app, text, says):
    (app.parent / RECORD).write_text(text)
    with pytest.raises(SourceError, match=says):
        undo(app)
    with pytest.raises(SourceError, match=says):
        write(app)
    assert app.read_bytes() == BEFORE


def test_a_folder_that_takes_no_record_leaves_the_file(app, monkeypatch):
    def refused(path, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(undo_record, "write_whole", refused)
    with pytest.raises(
        SourceError, match=r"rewrite\.json: cannot be written .Permission"
    ):
        write(app)
    assert app.read_bytes() == BEFORE


LINES = st.lists(
    st.sampled_from([b"a\n", b"b\r\n", b"c\r", b"\n", b"\xff\n"]), max_size=9
)


@settings(max_examples=200, deadline=None)
@given(before=LINES, after=LINES, last=st.sampled_from([b"", b"end"]))
def test_any_change_is_undone(before, after, last):
    old, new = b"".join(before) + last, b"".join(after) + last
    entry = Entry(graphs=(), written=(written(old, new),))
    assert restored(new, entry, "app.py") == old
    assert restored(old, entry, "app.py") == old


def test_a_kill_at_any_step_leaves_whole_files_and_what_undoes_them(tmp_path):
    script = Path(__file__).with_name("killed_writing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], check=True, capture_output=True
    )
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    old, first, second = (
        [f"{name}\n{put}" for name in ("a.py", "b.py")]
        for put in ("", "put\nfirst\n", "put\nsecond\n")
    )
    whole = {"write": (old, second), "write again": (first, second), "undo": (old, first)}
    for each in steps:
        edited = "edited\n" if each["operation"] == "undo edited" else ""
        states = whole[each["operation"].removesuffix(" edited")]
        for index, text in enumerate(each["left"]):
            assert text.removeprefix(edited) in [state[index] for state in states], each
        assert each["undone"] == [f"{edited}{text}" for text in old], each
        assert not each["record"], each
    killed = [each["operation"] for each in steps if each["killed"]]
    assert min(killed.count(operation) for operation in killed) >= 10
