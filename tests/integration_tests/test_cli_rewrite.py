"""`langchain-slm rewrite` on real apps: previewed, written, run and undone."""

import json

import pytest
from integration_tests.desk_apps import (
    APP,
    BUILDER,
    GRAPH,
    HEAD,
    LINE,
    MODEL,
    NESTED,
    TARGET,
    asked,
    contents,
    made_app,
    make_package,
    make_plan,
    run,
)
from integration_tests.loopback import Loopback

from langchain_slm.editing.undo_record import RECORD


@pytest.fixture(scope="module")
def server():
    with Loopback() as opened:
        yield opened


@pytest.fixture
def folder(tmp_path, server, monkeypatch):
    with made_app(tmp_path, server, monkeypatch) as made:
        yield made


# Preview, write, undo


def test_a_preview_shows_what_is_bound_and_a_diff_and_writes_nothing(folder, capsys):
    before = contents(folder)
    code, out, err = run(capsys, TARGET)
    assert code == 0
    assert err == ""
    assert "triage  ref -> small" in out
    assert "reply   ref kept" in out
    assert "+from langchain_slm import apply_plan\n" in out
    assert f" graph = builder.compile()  # exported\n+{LINE}" in out
    assert out.endswith("Nothing written; add --write.\n")
    assert contents(folder) == before


def test_a_written_app_calls_what_is_bound_and_an_undone_one_what_it_called(
    folder, server, capsys
):
    before = contents(folder)
    assert asked(server, TARGET) == {"ref": 1}
    code, out, err = run(capsys, TARGET, "--write")
    assert (code, err) == (0, "")
    assert out.endswith(f"app.py written; --undo restores it by {RECORD}\n")
    assert (folder / "app.py").read_text() == APP.replace(
        "from langgraph", "from langchain_slm import apply_plan\nfrom langgraph"
    ).replace(GRAPH, GRAPH + LINE)
    assert asked(server, TARGET) == {"small": 1}
    code, out, _ = run(capsys, TARGET, "--undo")
    assert (code, out) == (0, "app.py restored (app.py:graph)\n")
    assert contents(folder) == before
    assert asked(server, TARGET) == {"ref": 1}


def test_writing_twice_changes_nothing_and_another_plan_only_its_path(
    folder, server, capsys
):
    run(capsys, TARGET, "--write")
    once = contents(folder)
    code, out, _ = run(capsys, TARGET, "--write")
    assert code == 0
    assert out.endswith("Nothing to edit: the source matches the plan; 1 files read.\n")
    assert contents(folder) == once
    make_plan(folder / "plans" / "b.json", server, model="other")
    run(capsys, TARGET, "--write", "--plan", "plans/b.json")
    assert (folder / "app.py").read_bytes() == once["app.py"].replace(
        b'"slm-plan.json"', b'"plans/b.json"'
    )
    assert asked(server, TARGET) == {"other": 1}
    run(capsys, TARGET, "--undo")
    assert (folder / "app.py").read_text() == APP


def test_the_written_app_runs_from_any_folder(folder, server, capsys, monkeypatch):
    run(capsys, TARGET, "--write")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert asked(server, f"{folder / 'app.py'}:graph") == {"small": 1}


def test_edits_made_since_stay_when_it_is_undone(folder, capsys):
    run(capsys, TARGET, "--write")
    path = folder / "app.py"
    path.write_text("# mine\n" + path.read_text().replace("Hello", "Hi") + "end = 1\n")
    assert run(capsys, TARGET, "--undo")[0] == 0
    assert path.read_text() == "# mine\n" + APP.replace("Hello", "Hi") + "end = 1\n"


def test_what_cannot_be_undone_is_named_and_left(folder, capsys):
    run(capsys, TARGET, "--write")
    path = folder / "app.py"
    path.write_text(path.read_text().replace(LINE, LINE * 2))
    before = contents(folder)
    code, _, err = run(capsys, TARGET, "--undo")
    assert code == 2
    assert "app.py: edited since it was written" in err
    assert "is there 2 times; nothing was undone" in err
    assert contents(folder) == before


def test_undo_needs_neither_plan_nor_an_app_that_runs(folder, capsys):
    run(capsys, TARGET, "--write")
    path = folder / "app.py"
    path.write_text(path.read_text() + "raise RuntimeError\n")
    (folder / "slm-plan.json").unlink()
    code, out, _ = run(capsys, TARGET, "--undo", "--json")
    assert code == 0
    assert json.loads(out) == {"undone": {"app.py": ["app.py:graph"]}}
    assert path.read_text() == APP + "raise RuntimeError\n"
    code, _, err = run(capsys, TARGET, "--undo")
    assert code == 2
    assert "app.py:graph: nothing to undo" in err


def test_one_json_object_tells_all(folder, capsys):
    code, out, _ = run(capsys, TARGET, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["bound"] == ["triage"]
    assert said["graphs"] == ["app.py:graph"]
    assert said["plan"]["decisions"][0]["model"] == "small"
    assert list(said["files"]) == ["app.py"]
    assert f"+{LINE}" in said["files"]["app.py"]
    assert (said["written"], said["record"]) == (False, None)
    assert (said["refused"], said["warnings"]) == ([], [])
    code, out, _ = run(capsys, TARGET, "--json", "--write")
    assert (json.loads(out)["written"], json.loads(out)["record"]) == (True, RECORD)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: ("# -*- coding: latin-1 -*-\nname = 'é'\n" + text).encode("latin-1"),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.rstrip().encode(),
        lambda text: text.replace("\n\n", "\n\f\n").encode(),
    ],
    ids=["CRLF", "latin-1", "mark", "no last newline", "form feeds"],
)
def test_files_of_all_kinds_are_written_run_and_undone(folder, server, capsys, encode):
    data = encode(APP)
    (folder / "app.py").write_bytes(data)
    assert run(capsys, TARGET, "--write")[0] == 0
    assert asked(server, TARGET) == {"small": 1}
    run(capsys, TARGET, "--undo")
    assert (folder / "app.py").read_bytes() == data


def test_control_characters_of_a_source_do_not_reach_the_terminal(folder, capsys):
    (folder / "app.py").write_text(APP.replace("# exported", "# \x1b[31m\x07 \u202e"))
    _, out, _ = run(capsys, TARGET)
    assert "# \\x1b[31m\\x07 \\x202e" in out
    assert "\x1b" not in out


def test_control_characters_of_an_error_do_not_reach_the_terminal(folder, capsys):
    error = "raise ValueError('a\\n\\x1b[31mb')\n"
    (folder / "app.py").write_text(APP.replace(GRAPH, GRAPH + error))
    _, _, err = run(capsys, TARGET)
    assert "a\n\\x1b[31mb; run `python app.py`" in err
    assert "\x1b" not in err


def test_an_app_that_leaves_its_folder_is_written(folder, capsys):
    (folder / "app.py").write_text("import os\n\nos.chdir('/')\n" + APP)
    code, out, err = run(capsys, TARGET, "--write")
    assert (code, err) == (0, "")
    assert out.endswith(f"app.py written; --undo restores it by {RECORD}\n")


def test_a_graph_that_is_there_in_some_runs_only_is_warned_of(folder, capsys):
    some = "if os.environ:\n    graph = builder.compile()\n"
    (folder / "app.py").write_text(APP.replace(GRAPH, some))
    code, out, err = run(capsys, TARGET)
    assert code == 0
    assert "may leave graph without a graph" in err
    assert f"+{LINE}" in out


# Factories, packages, projects


@pytest.mark.parametrize(
    "factory",
    [
        "def make(config):\n    return builder.compile()\n",
        "async def make(config):\n    return builder.compile()\n",
        (
            "from contextlib import contextmanager\n\n\n@contextmanager\n"
            "def make(config):\n    yield builder.compile()\n"
        ),
        (
            "from contextlib import asynccontextmanager\n\n\n@asynccontextmanager\n"
            "async def make(config):\n    yield builder.compile()\n"
        ),
        "make = lambda: builder\n",
    ],
    ids=["sync", "async", "context", "async context", "lambda"],
)
def test_a_factory_is_wrapped(folder, server, capsys, factory):
    source = HEAD + MODEL + BUILDER + f"\n\n{factory}"
    (folder / "app.py").write_text(source)
    assert run(capsys, "app.py:make", "--write")[0] == 0
    text = (folder / "app.py").read_text()
    assert text.endswith('make = apply_plan(make, "slm-plan.json")\n')
    if "lambda" not in factory:
        assert asked(server, "app.py:make") == {"small": 1}
    run(capsys, "app.py:make", "--undo")
    assert (folder / "app.py").read_text() == source


@pytest.fixture
def package(folder):
    return make_package(folder)


def test_a_package_with_relative_imports_is_wrapped(package, server, capsys):
    code, _, _ = run(capsys, NESTED, "--write")
    assert code == 0
    text = (package / "src/shop/agents/graph.py").read_text()
    assert text.endswith('graph = apply_plan(graph, "../../../slm-plan.json")\n')
    assert asked(server, NESTED) == {"small": 1}
    assert (package / RECORD).exists()


def test_a_re_exported_graph_is_wrapped_where_it_is_imported(package, server, capsys):
    target = "src/shop/agents/__init__.py:graph"
    assert run(capsys, target, "--write")[0] == 0
    assert (package / "src/shop/agents/__init__.py").read_text() == (
        "from langchain_slm import apply_plan\n\nfrom .graph import graph\n"
        'graph = apply_plan(graph, "../../../slm-plan.json")\n'
    )
    assert run(capsys, target, "--check")[0] == 0
    assert asked(server, NESTED) == {"ref": 1}


@pytest.fixture
def project(package, server):
    """Two graphs in one file, and a factory in another, named by a langgraph.json."""
    path = package / "src/shop/agents/graph.py"
    path.write_text(path.read_text() + "second = builder.compile()\n")
    (package / "src/shop/made.py").write_text(
        "from shop.agents.graph import builder\n\n\n"
        "def make(config):\n    return builder.compile()\n"
    )
    said = {
        "dependencies": ["."],
        "graphs": {
            "first": "./src/shop/agents/graph.py:graph",
            "second": "./src/shop/agents/graph.py:second",
            "made": "./src/shop/made.py:make",
        },
    }
    (package / "langgraph.json").write_text(json.dumps(said))
    return package


def test_all_graphs_of_a_project_are_wrapped_and_undone(project, server, capsys):
    before = contents(project)
    code, out, _ = run(capsys, "langgraph.json", "--write")
    assert code == 0
    assert "src/shop/agents/graph.py, src/shop/made.py written" in out
    for name in ("first", "second", "made"):
        assert asked(server, f"langgraph.json:{name}") == {"small": 1}
    assert run(capsys, "langgraph.json", "--check")[0] == 0
    text = (project / "src/shop/agents/graph.py").read_text()
    assert text.count("import apply_plan") == 1
    run(capsys, "langgraph.json", "--undo")
    assert contents(project) == before


def test_one_graph_of_a_project_is_wrapped(project, server, capsys):
    assert run(capsys, "langgraph.json:second", "--write")[0] == 0
    assert asked(server, "langgraph.json:second") == {"small": 1}
    assert asked(server, "langgraph.json:first") == {"ref": 1}
    code, out, _ = run(capsys, "langgraph.json", "--check")
    assert code == 1
    assert out.splitlines() == [
        "src/shop/agents/graph.py: graph is not wrapped: no plan is applied to it",
        "src/shop/made.py: make is not wrapped: no plan is applied to it",
    ]


def test_of_several_files_all_are_written_or_none(project, capsys):
    (project / "src/shop/made.py").chmod(0o444)
    before = contents(project)
    code, _, err = run(capsys, "langgraph.json", "--write")
    assert code == 2
    assert "src/shop/made.py is read-only; `chmod u+w` it first. No file was chan" in err
    assert contents(project) == before


# Notebooks


def notebook(*sources):
    cells = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "metadata": {},
            "outputs": [],
            "source": lines,
        }
        for n, lines in enumerate(source.splitlines(keepends=True) for source in sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}, indent=1) + "\n"


def run_cells(path):
    """Run a notebook as Jupyter does, but for its magics."""
    names = {}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        lines = [line for line in source.split("\n") if not line.startswith("%")]
        exec("\n".join(lines), names)  # noqa: S102 - what the notebook's user does
    return names


@pytest.mark.parametrize("options", [(), ("--inline",)], ids=["wrapped", "inline"])
def test_a_notebook_is_written_run_and_undone(folder, server, capsys, options):
    path = folder / "desk.ipynb"
    path.write_text(notebook("%time\n", HEAD, MODEL + BUILDER, GRAPH + "graph"))
    before = path.read_bytes()
    code, out, _ = run(capsys, "desk.ipynb:graph", *options, "--write")
    assert code == 0
    assert "--- desk.ipynb cell 3" in out or "--- desk.ipynb cell 4" in out
    asked_before = server.counts().requests
    run_cells(path)["graph"].invoke({"text": "Hello"})
    asked_after = server.counts().requests
    assert asked_after["small"] == asked_before.get("small", 0) + 1
    assert asked_after.get("ref") == asked_before.get("ref")
    assert run(capsys, "desk.ipynb:graph", *options, "--check")[0] == 0
    assert run(capsys, "desk.ipynb:graph", "--undo")[0] == 0
    assert path.read_bytes() == before


# Inline


def test_inline_puts_a_router_in_the_place_of_each_model_of_the_app(
    package, server, capsys
):
    before = contents(package)
    code, out, _ = run(capsys, NESTED, "--inline")
    assert code == 0
    assert "+++ src/shop/models.py" in out
    assert contents(package) == before
    code, out, _ = run(capsys, NESTED, "--inline", "--write")
    assert code == 0
    assert (package / "src/shop/models.py").read_text() == (
        "import os\nfrom pathlib import Path\n\nfrom langchain_openai import ChatOpenAI\n"
        "from langchain_slm import ChatRouter, Router\n\n\n"
        'slm_router = Router(Path(__file__).parents[2] / "slm-plan.json")\n\n\n'
        "def make():\n    return ChatRouter(default="
        f"{MODEL.removeprefix('llm = ').rstrip()}, router=slm_router)\n"
    )
    assert asked(server, NESTED) == {"small": 1}
    assert run(capsys, NESTED, "--inline", "--check")[0] == 0
    assert run(capsys, NESTED, "--undo")[0] == 0
    assert contents(package) == before


def test_inline_edits_a_file_once_however_it_is_reached(package, server, capsys):
    (package / "src").rename(package / "deep")
    (package / "deep" / "pyproject.toml").write_text("")
    (package / "src").symlink_to("deep")
    graph = package / "deep/shop/agents/graph.py"
    text = graph.read_text().replace("from ..models", "from shop.models")
    graph.write_text(
        text.replace("import os\n", "import os\n\nimport shop.agents.graph\n")
    )
    before = contents(package)
    code, out, _ = run(capsys, NESTED, "--inline", "--write", "--json")
    assert (code, list(json.loads(out)["files"])) == (0, ["src/shop/models.py"])
    assert asked(server, NESTED) == {"small": 1}
    assert run(capsys, NESTED, "--undo")[0] == 0
    assert contents(package) == before


def test_inline_lists_what_stays_with_place_and_reason(package, capsys):
    path = package / "src/shop/models.py"
    path.write_text(path.read_text() + "\n\nTABLE = {'a': ChatOpenAI}\n")
    (package / "src/shop/broken.py").write_text("x = (\n")
    graph = package / "src/shop/agents/graph.py"
    graph.write_text(graph.read_text() + "\n\ndef f():\n    from .. import broken\n")
    code, out, _ = run(capsys, NESTED, "--inline", "--json")
    said = json.loads(out)
    assert code == 0
    assert list(said["files"]) == ["src/shop/models.py"]
    assert "src/shop/broken.py:1:5: not Python" in said["refused"][0]["reason"]
    assert said["refused"] == [
        {
            "place": "src/shop/broken.py",
            "code": "",
            "reason": said["refused"][0]["reason"],
        },
        {
            "place": "src/shop/models.py:10",
            "code": "ChatOpenAI",
            "reason": "the class is used as a value; what calls it is not seen",
        },
    ]


def test_inline_never_edits_what_is_not_the_apps(package, capsys, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "lent.py").write_text(HEAD + MODEL)
    installed = package / "src/site-packages"
    installed.mkdir()
    (installed / "bought.py").write_text(HEAD + MODEL)
    venv = package / "env"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("")
    (package / "src/lent.py").symlink_to(outside / "lent.py")
    graph = package / "src/shop/agents/graph.py"
    graph.write_text("import lent\n" + graph.read_text())
    _, out, _ = run(capsys, NESTED, "--inline", "--json")
    assert list(json.loads(out)["files"]) == ["src/shop/models.py"]


def test_a_file_that_is_too_deep_is_listed(package, capsys):
    path = package / "src/shop/models.py"
    path.write_text(path.read_text() + f"\n\ndeep = lambda x: x{'.y()' * 400}\n")
    code, out, _ = run(capsys, NESTED, "--inline", "--write")
    assert code == 1
    assert "src/shop/models.py: an expression is nested too deeply" in out


def test_a_graph_of_an_installed_package_is_never_edited(package, capsys):
    site = package / ".venv/lib/site-packages"
    site.mkdir(parents=True)
    (site / "bought.py").write_text(APP)
    for options in ((), ("--inline",), ("--write", "--force")):
        code, _, err = run(capsys, ".venv/lib/site-packages/bought.py:graph", *options)
        assert code == 2
        assert "of an installed package; only an app's own files are edited" in err
    assert (site / "bought.py").read_text() == APP


def test_inline_with_nothing_to_edit_is_a_gate_not_met(folder, capsys):
    app = APP.replace(MODEL, f"llm: ChatOpenAI = {MODEL.removeprefix('llm = ')}")
    (folder / "app.py").write_text(app)
    code, out, _ = run(capsys, TARGET, "--inline", "--write")
    assert code == 1
    assert "app.py:14: ChatOpenAI(" in out
    assert "is annotated as ChatOpenAI" in out
    assert out.endswith("Nothing to edit: 1 files read.\n")
    assert (folder / "app.py").read_text() == app


def test_a_graph_is_either_wrapped_or_inline(folder, package, capsys):
    (folder / "app.py").write_text(APP)
    for target in (TARGET, NESTED):
        run(capsys, target, "--inline", "--write")
        code, _, err = run(capsys, target)
        assert code == 2
        assert "go through a router one by one" in err
        run(capsys, target, "--undo")
        run(capsys, target, "--write")
        code, _, err = run(capsys, target, "--inline")
        assert code == 2
        assert "a plan is applied to graph as a whole already; --undo that first" in err
