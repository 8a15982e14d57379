"""When `langchain-slm rewrite` says no: checks, plans of other versions, refusals."""

import json
import subprocess
import sys

import pytest
from integration_tests.desk_apps import (
    APP,
    LINE,
    TARGET,
    asked,
    contents,
    made_app,
    make_plan,
    run,
)
from integration_tests.loopback import Loopback
from unit_tests.planned import decision, plan, spec, task

from langchain_slm.cli import main
from langchain_slm.editing.undo_record import RECORD
from langchain_slm.loading.graphs import load_graph
from langchain_slm.rewriting.sites import fingerprint
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.schema import Binding


@pytest.fixture(scope="module")
def server():
    with Loopback() as opened:
        yield opened


@pytest.fixture
def folder(tmp_path, server, monkeypatch):
    with made_app(tmp_path, server, monkeypatch) as made:
        yield made


# Check and strict


def problems(capsys, *options):
    code, out, _ = run(capsys, TARGET, "--check", *options)
    assert code == 1
    return out.splitlines()


def test_check_says_whether_the_source_applies_the_plan_and_writes_nothing(
    folder, server, capsys
):
    before = contents(folder)
    assert problems(capsys) == ["app.py: graph is not wrapped: no plan is applied to it"]
    assert contents(folder) == before
    run(capsys, TARGET, "--write")
    assert run(capsys, TARGET, "--check")[:2] == (0, "source and plan match\n")
    make_plan(folder / "b.json", server)
    assert problems(capsys, "--plan", "b.json") == [
        "app.py: line 26 applies 'slm-plan.json', not 'b.json'"
    ]
    code, out, _ = run(capsys, TARGET, "--check", "--plan", "b.json", "--json")
    assert (code, json.loads(out)["matches"]) == (1, False)
    path = folder / "app.py"
    path.write_text(path.read_text() + LINE)
    assert problems(capsys) == [
        "app.py: a plan is applied more than once (line 26 and 27); remove all but one"
    ]


def test_check_of_routers_names_each_model_that_goes_through_none(folder, server, capsys):
    assert problems(capsys, "--inline") == [
        "app.py:14 makes a model that goes through no router",
        "no model goes through a router",
    ]
    run(capsys, TARGET, "--inline", "--write")
    assert run(capsys, TARGET, "--inline", "--check")[0] == 0
    make_plan(folder / "b.json", server)
    assert problems(capsys, "--inline", "--plan", "b.json") == [
        "app.py: its router reads another plan"
    ]


def test_check_needs_no_key_of_the_bound_model(folder, capsys):
    run(capsys, TARGET, "--write")
    bound = Binding(model=spec("small", api_key_env="NO_SUCH_KEY"))
    write_plan(plan(decision("triage", binding=bound)), folder / "slm-plan.json")
    assert run(capsys, TARGET, "--check")[0] == 0
    _, _, err = run(capsys, TARGET)
    assert "NO_SUCH_KEY" in err
    assert "where that is so, the app runs without the plan" in err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"sites": ("triage", "gone")}, "site 'gone', which this graph does not have"),
        ({"fingerprint": "0" * 64}, "made for another version of this graph"),
    ],
)
def test_a_plan_of_another_version_warns_fails_a_check_and_strict_refuses_it(
    folder, server, capsys, more, says
):
    make_plan(folder / "slm-plan.json", server, **more)
    before = contents(folder)
    code, _, err = run(capsys, TARGET)
    assert code == 0
    assert err.startswith("warning: the plan ")
    assert says in err
    code, out, err = run(capsys, TARGET, "--write", "--strict", "--json")
    assert code == 1
    assert json.loads(out)["error"]["type"] == "PlanOutdatedError"
    assert "convert again, or leave out --strict" in err
    assert contents(folder) == before
    run(capsys, TARGET, "--write")
    assert says in problems(capsys)[0]


def test_recorded_calls_that_nobody_tested_fail_a_check_and_strict_refuses(
    folder, server, capsys
):
    tested = task("triage", template="Say which team it is for.")
    binding = Binding(model=spec("small", base_url=server.url))
    made = decision("triage", "small", reference="ref", binding=binding, task=tested)
    write_plan(plan(made), folder / "slm-plan.json")
    (folder / "inputs.jsonl").write_text('{"text": "Hello"}\n')
    assert main(["record", TARGET, "--inputs", "inputs.jsonl"]) == 0
    run(capsys, TARGET, "--write")
    assert run(capsys, TARGET, "--check")[0] == 0
    store = ("--store", "sqlite:///slm.db")
    (said,) = problems(capsys, *store)
    assert said.startswith("site 'triage': 1 of the last 1 recorded calls belong to no")
    assert run(capsys, TARGET, "--write", "--strict", *store)[0] == 1
    assert run(capsys, TARGET, "--check", "--store", "sqlite:///gone.db")[0] == 2


def test_a_plan_of_this_version_passes_strict_before_and_after_it_is_written(
    folder, server, capsys
):
    shape = fingerprint(load_graph(TARGET))
    make_plan(folder / "slm-plan.json", server, fingerprint=shape)
    assert run(capsys, TARGET, "--write", "--strict")[0] == 0
    assert run(capsys, TARGET, "--check", "--strict")[0] == 0
    assert asked(server, TARGET) == {"small": 1}


# Refusals


def git(folder, *arguments):
    settings = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *settings, *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def repository(folder):
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "All")
    return folder


def test_a_dirty_work_tree_is_refused_unless_forced(repository, server, capsys):
    (repository / "app.py").write_text(APP + "# mine\n")
    before = contents(repository)
    code, _out, err = run(capsys, TARGET, "--write")
    assert code == 2
    assert "has uncommitted changes: app.py; commit first, or add --force" in err
    assert contents(repository) == before
    code, _, err = run(capsys, TARGET)
    assert code == 0
    assert err.startswith("warning: --write is refused: the git work tree")
    assert run(capsys, TARGET, "--write", "--force")[0] == 0
    run(capsys, TARGET, "--undo")
    assert contents(repository) == before


def test_what_it_wrote_itself_does_not_make_a_work_tree_dirty(repository, server, capsys):
    make_plan(repository / "b.json", server)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "Plan b")
    assert run(capsys, TARGET, "--write")[0] == 0
    assert run(capsys, TARGET, "--write", "--plan", "b.json")[0] == 0
    run(capsys, TARGET, "--undo")
    assert run(capsys, TARGET, "--write")[0] == 0


def test_a_file_that_git_does_not_know_is_refused_unless_forced(repository, capsys):
    (repository / "new.py").write_text(APP)
    code, _, err = run(capsys, "new.py:graph", "--write")
    assert code == 2
    assert "new.py is in a git work tree, but git does not know it" in err
    assert run(capsys, "new.py:graph", "--write", "--force")[0] == 0


def test_a_link_stays_one_and_what_it_leads_to_is_edited(folder, server, capsys):
    (folder / "real").mkdir()
    (folder / "app.py").rename(folder / "real" / "desk.py")
    (folder / "app.py").symlink_to("real/desk.py")
    code, _, err = run(capsys, TARGET, "--write")
    assert code == 0
    assert "app.py is a link; real/desk.py is edited, it stays" in err
    assert (folder / "app.py").is_symlink()
    assert (folder / "real/desk.py").read_text().endswith(LINE)
    assert asked(server, TARGET) == {"small": 1}
    run(capsys, TARGET, "--undo")
    assert (folder / "real/desk.py").read_text() == APP


def test_a_link_out_of_the_project_is_refused_unless_forced(
    folder, capsys, tmp_path_factory
):
    outside = tmp_path_factory.mktemp("outside") / "desk.py"
    (folder / "app.py").rename(outside)
    (folder / "app.py").symlink_to(outside)
    code, _, err = run(capsys, TARGET, "--write")
    assert code == 2
    assert "outside the project" in err
    assert outside.read_text() == APP
    assert run(capsys, TARGET, "--write", "--force")[0] == 0
    assert run(capsys, TARGET, "--undo")[0] == 2
    assert run(capsys, TARGET, "--undo", "--force")[0] == 0
    assert outside.read_text() == APP


def test_a_folder_reached_by_a_link_finds_its_plan(folder, server, capsys, monkeypatch):
    (folder / "deep" / "real").mkdir(parents=True)
    (folder / "app.py").rename(folder / "deep" / "real" / "app.py")
    (folder / "link").symlink_to("deep/real")
    assert run(capsys, "link/app.py:graph", "--write")[0] == 0
    text = (folder / "deep/real/app.py").read_text()
    assert text.endswith('graph = apply_plan(graph, "../../slm-plan.json")\n')
    assert run(capsys, "link/app.py:graph", "--check")[0] == 0
    monkeypatch.chdir(folder / "deep")
    assert asked(server, f"{folder}/link/app.py:graph") == {"small": 1}


@pytest.mark.parametrize(
    ("change", "target", "says"),
    [
        ("raise SystemExit\nx = (\n", TARGET, "error: app.py:2:5: not Python 3"),
        (APP + "# \0\n", TARGET, "not Python"),
        (
            APP,
            "app.py:grph",
            "app.py: binds no 'grph'; it binds State, llm, triage, buil",
        ),
        ("class graph: ...\n", TARGET, "app.py:1: graph: is a class; name a graph"),
        (APP, "slm-plan.json:graph", "slm-plan.json"),
        (APP, "gone.py:graph", "gone.py"),
        (APP, "plans.txt:graph", "not a Python file; a graph is in a .py file"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_it_is_imported(
    folder, capsys, change, target, says
):
    (folder / "app.py").write_text(change)
    (folder / "plans.txt").write_text(APP)
    before = contents(folder)
    code, out, err = run(capsys, target, "--write")
    assert code == 2
    assert says in err
    assert out == ""
    assert contents(folder) == before


def test_read_only_files_and_folders_are_refused_by_their_mode(folder, capsys):
    (folder / "app.py").chmod(0o444)
    code, _, err = run(capsys, TARGET, "--write", "--force")
    assert code == 2
    assert "app.py is read-only; `chmod u+w` it first. No file was changed" in err
    (folder / "app.py").chmod(0o644)
    folder.chmod(0o555)
    try:
        assert run(capsys, TARGET, "--write")[0] == 2
    finally:
        folder.chmod(0o755)
    assert (folder / "app.py").read_text() == APP


@pytest.mark.parametrize(
    "options", [("--write", "--check"), ("--write", "--undo"), ("--check", "--undo")]
)
def test_only_one_of_write_check_and_undo_is_taken(folder, capsys, options):
    code, _, err = run(capsys, TARGET, *options)
    assert code == 2
    assert "give one of --write, --check and --undo" in err


def test_a_plan_outside_the_project_is_warned_of(folder, server, capsys):
    (folder / "app").mkdir()
    (folder / "app" / "pyproject.toml").write_text("")
    (folder / "app.py").rename(folder / "app" / "app.py")
    code, _, err = run(capsys, "app/app.py:graph", "--write")
    assert code == 0
    assert "the plan slm-plan.json is outside the project" in err
    assert asked(server, "app/app.py:graph") == {"small": 1}


def test_without_libcst_the_remedy_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "libcst", None)
    code, _, err = run(capsys, TARGET)
    assert code == 2
    assert "editing source needs libcst: pip install 'langchain-slm[convert]'" in err


def test_a_change_made_meanwhile_is_not_lost(folder, capsys):
    """The app itself rewrites its file when it is imported, after it was read."""
    own = (
        f"{APP}\nwith open({str(folder / 'app.py')!r}, 'a') as file:\n"
        "    file.write('# more\\n')\n"
    )
    (folder / "app.py").write_text(own)
    code, _, err = run(capsys, TARGET, "--write")
    assert code == 2
    assert "app.py: changed while it was edited; run the command again" in err
    assert (folder / "app.py").read_text() == own + "# more\n"
    assert not (folder / RECORD).exists()
