import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from unit_tests.planned import EVIDENCE, decision, kept, plan, task

from langchain_slm.errors import PlanEditedError, PlanError
from langchain_slm.routing.plan_file import read_plan, write_atomically, write_plan

PLAN = plan(
    decision(task=task(template="Sort <*> into öne of", labels=("a", "b"))),
    kept(needed_n=900, chosen=None),
    fingerprint="f" * 64,
    margin=0.1 + 0.2,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slm-plan.json"


def body_of(path):
    return json.loads(path.read_text())


# There and back


def test_what_was_written_is_read(path):
    written = write_plan(PLAN, path)
    assert written == PLAN.sealed()
    assert read_plan(path) == written
    assert read_plan(str(path)) == written


def test_writing_again_gives_the_same_bytes(path):
    write_plan(PLAN, path)
    before = path.read_bytes()
    write_plan(read_plan(path), path)
    assert path.read_bytes() == before


def test_the_file_is_readable_text(path):
    write_plan(PLAN, path)
    text = path.read_text(encoding="ascii")
    assert text.endswith("}\n")
    assert '"template": "Sort <*> into \\u00f6ne of"' in text
    assert body_of(path)["content_hash"] == PLAN.computed_hash()


def test_others_may_read_the_file_as_any_other(path):
    other = path.with_name("other")
    other.write_text("")
    write_plan(PLAN, path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_stale_hash_is_replaced_on_writing(path):
    write_plan(PLAN.model_copy(update={"content_hash": "0" * 64}), path)
    assert read_plan(path) == PLAN.sealed()


# Numbers


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_no_word_for_is_never_written(path, number):
    evidence = EVIDENCE.model_copy(update={"usd_per_correct": number})
    bad = plan(kept(), decision(others=(EVIDENCE, evidence)))
    write_plan(PLAN, path)
    before = path.read_bytes()
    with pytest.raises(PlanError) as raised:
        write_plan(bad, path)
    assert raised.value.fields["where"] == "decisions.1.others.1.usd_per_correct"
    assert str(raised.value) == (
        f"{path}: not written: decisions.1.others.1.usd_per_correct is not a finite "
        "number; use null for unknown"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_has_no_word_for_is_never_read(path, constant):
    write_plan(PLAN, path)
    path.write_text(path.read_text().replace("57.25", constant))
    with pytest.raises(PlanError, match=f"not JSON \\({constant} is no number"):
        read_plan(path)


def test_the_greatest_e_value_is_written(path):
    evidence = EVIDENCE.model_copy(update={"e_value": sys.float_info.max})
    written = write_plan(plan(decision(chosen=evidence)), path)
    assert read_plan(path) == written


# What cannot be read


def test_a_missing_plan_says_what_writes_one(path):
    with pytest.raises(PlanError) as raised:
        read_plan(path)
    assert str(raised.value) == (
        f"{path}: no plan can be read there (No such file or directory); "
        "`langchain-slm convert` writes one"
    )


def test_a_folder_is_no_plan(tmp_path):
    with pytest.raises(PlanError, match="no plan can be read there"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b'{"a": 1} x', b"1" * 5000]
)
def test_a_file_that_is_not_json_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(PlanError, match="not JSON"):
        read_plan(path)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("[]", ""),
        ("7", ""),
        ("{}", "graph"),
        ('{"format_version": "x"}', "format_version"),
    ],
)
def test_json_that_is_no_plan_is_refused(path, content, where):
    path.write_text(content)
    with pytest.raises(PlanError, match="not a plan") as raised:
        read_plan(path)
    assert raised.value.fields["where"] == where


def test_an_unknown_field_is_named(path):
    write_plan(PLAN, path)
    body = body_of(path)
    body["decisions"][0]["extra"] = "canary"
    path.write_text(json.dumps(body))
    with pytest.raises(PlanError) as raised:
        read_plan(path)
    assert str(raised.value) == (
        f"{path}: not a plan: decisions.0.extra: Extra inputs are not permitted"
    )
    assert raised.value.__cause__ is None  # pydantic's words would quote the file


def test_a_newer_version_asks_for_an_upgrade(path):
    path.write_text('{"format_version": 2, "of": "the future"}')
    with pytest.raises(PlanError, match=r"version 2 is newer than 1.*upgrade") as raised:
        read_plan(path)
    assert raised.value.fields["version"] == 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body["decisions"][0].update(model="other"),
        lambda body: body["decisions"][0]["chosen"].update(n=213),
        lambda body: body.update(bind_provisional=True),
        lambda body: body["decisions"].reverse(),
        lambda body: body["decisions"][0]["binding"]["model"].update(base_url="http://x"),
    ],
)
def test_a_plan_edited_by_hand_is_refused_with_both_hashes(path, edit):
    stated = write_plan(PLAN, path).content_hash
    body = body_of(path)
    edit(body)
    path.write_text(json.dumps(body))
    with pytest.raises(PlanEditedError) as raised:
        read_plan(path)
    computed = raised.value.fields["computed"]
    assert raised.value.fields["stated"] == stated != computed
    assert f"(content hash {stated[:12]}, computed {computed[:12]})" in str(raised.value)


def test_a_plan_without_its_hash_was_edited(path):
    write_plan(PLAN, path)
    path.write_text(json.dumps({**body_of(path), "content_hash": ""}))
    with pytest.raises(PlanEditedError, match="content hash missing"):
        read_plan(path)


def test_layout_and_order_of_keys_are_no_edit(path):
    written = write_plan(PLAN, path)
    body = body_of(path)
    path.write_text(json.dumps(dict(sorted(body.items())), indent=7))
    assert read_plan(path) == written


# Whole or not at all


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, parent):
    (tmp_path / "file").write_text("")
    path = tmp_path / parent / "slm-plan.json"
    with pytest.raises(PlanError, match="cannot be written"):
        write_plan(PLAN, path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path):
    path.mkdir()  # a file cannot take the place of a folder
    with pytest.raises(PlanError, match="cannot be written"):
        write_plan(PLAN, path)
    assert [p.name for p in path.parent.iterdir()] == ["slm-plan.json"]


def test_writing_leaves_no_other_file(path):
    write_plan(PLAN, path)
    write_plan(PLAN, path)
    assert [p.name for p in path.parent.iterdir()] == ["slm-plan.json"]


WRITER = """
import sys
from pathlib import Path
from langchain_slm.routing.plan_file import write_atomically
path = Path(sys.argv[1])
print("started", flush=True)
while True:
    for text in ("a" * 200_000, "b" * 200_000):
        write_atomically(path, text)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_kill_leaves_the_old_file_or_the_new_one(path):
    write_atomically(path, "a" * 200_000)
    root = Path(__file__).parents[2]
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        ) as writer:
            writer.stdout.readline()
            seen = {path.read_text() for _ in range(20)}
            writer.send_signal(signal.SIGKILL)
        seen.add(path.read_text())
        assert seen <= {"a" * 200_000, "b" * 200_000}
