import json
import sys
from pathlib import Path

import pytest

from langchain_slm.errors import GraphLoadError, MissingExtraError
from langchain_slm.loading.projects import (
    find_graph,
    find_graphs,
    project_roots,
    read_project,
)


@pytest.fixture
def write(tmp_path):
    def _write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def project(write):
    def _project(**said):
        write("app/graph.py")
        graphs = {"desk": "./app/graph.py:graph", "back": {"path": "app/graph.py:make"}}
        return write("langgraph.json", json.dumps({"graphs": graphs, **said}))

    return _project


def test_a_file_and_a_variable_name_a_graph(write):
    path = write("graph.py")
    (found,) = find_graphs(f"{path}:graph")
    assert (found.name, found.file, found.variable) == (None, path, "graph")
    assert found.target == f"{path}:graph"
    (found,) = find_graphs(f"{write('app.ipynb')}:graph")
    assert found.file.suffix == ".ipynb"


def test_a_langgraph_json_names_all_its_graphs(project):
    path = project()
    found = find_graphs(str(path))
    assert [(each.name, each.variable) for each in found] == [
        ("desk", "graph"),
        ("back", "make"),
    ]
    assert {each.file for each in found} == {path.parent / "app" / "graph.py"}
    assert found[1].target == f"{path}:back"


def test_a_name_chooses_one_graph_of_a_langgraph_json(project, monkeypatch):
    path = project(unknown_key={"ignored": True}, python_version="3.12")
    monkeypatch.chdir(path.parent)
    found = find_graph("langgraph.json:back")
    assert (found.name, found.file) == ("back", Path("app/graph.py"))


def test_a_name_may_hold_anything(write):
    write("graph.py")
    names = ["a:b", "<script>", ".json:x", "langgraph.json"]
    graphs = dict.fromkeys(names, "graph.py:graph")
    path = write("langgraph.json", json.dumps({"graphs": graphs}))
    assert [find_graph(f"{path}:{name}").name for name in names] == names


def test_one_of_several_must_be_named(project):
    with pytest.raises(GraphLoadError, match=r"has 2 graphs \(desk, back\); name one"):
        find_graph(str(project()))


def test_a_module_is_found_without_being_imported(write, monkeypatch):
    write("src/pack/__init__.py", "raise RuntimeError('imported')")
    file = write("src/pack/agents/graph.py", "raise RuntimeError('imported')")
    graphs = {"desk": "pack.agents.graph:graph"}
    path = write("langgraph.json", json.dumps({"graphs": graphs, "dependencies": ["."]}))
    found = find_graph(str(path))
    assert (found.file, found.module) == (file.resolve(), "pack.agents.graph")
    assert "pack" not in sys.modules


@pytest.mark.parametrize("target", ["", "graph", "graph.py", ":x", "graph.py:", "x.py:y"])
def test_what_is_no_target_is_refused(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraphLoadError, match=r"is not PATH\.py:VARIABLE|no such file"):
        find_graphs(target)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"graphs": {,}}', r"langgraph\.json:1:13: not JSON"),
        ("[1]", "must hold one JSON object, not list"),
        ("{}", '"graphs" must be an object'),
        ('{"graphs": {}}', '"graphs" must be an object'),
        ('{"graphs": ["a.py:graph"]}', '"graphs" must be an object'),
        ('{"graphs": {"a": "graph.py"}}', "\"graphs\" / 'a' must be"),
        ('{"graphs": {"a": {"file": "x"}}}', "\"graphs\" / 'a' must be"),
        ('{"graphs": {"a": 3}}', "\"graphs\" / 'a' must be"),
        ('{"graphs": {"a": "gone.py:graph"}}', r"graph 'a': gone\.py is not there"),
        ('{"graphs": {"a": "no.such.module:g"}}', r"no\.such\.module is not there"),
        ('{"graphs": {"a": "./a.ts:graph"}}', "only Python graphs can be read"),
        ('{"graphs": {"a": "x.py:g"}, "env": 3}', '"env" must be'),
        ('{"graphs": {"a": "x.py:g"}, "dependencies": "."}', '"dependencies" must be'),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_a_malformed_langgraph_json_is_refused_with_the_place(write, text, says):
    with pytest.raises(GraphLoadError, match=says):
        find_graphs(str(write("langgraph.json", text)))


def test_a_langgraph_json_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(GraphLoadError, match=r"langgraph\.json: cannot be read"):
        find_graphs(str(tmp_path / "langgraph.json"))
    (tmp_path / "langgraph.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(GraphLoadError, match="UnicodeDecodeError"):
        find_graphs(str(tmp_path / "langgraph.json"))


def test_an_unknown_name_lists_the_graphs(project):
    with pytest.raises(
        GraphLoadError, match="no graph 'gone'; its graphs are: desk, back"
    ):
        find_graphs(f"{project()}:gone")


def test_folders_among_the_dependencies_are_import_roots(project, write):
    write("src/x.py")
    write("lib/src/y.py")
    path = project(
        dependencies=[".", "./lib", "./gone", "langchain-openai", "git+https://x"]
    )
    folder = path.parent.resolve()
    assert list(dict.fromkeys(read_project(path).import_roots())) == [
        folder,
        folder / "src",
        folder / "lib",
        folder / "lib" / "src",
    ]


def test_the_folder_of_a_project_is_an_import_root(write):
    file = write("repo/src/pack/graph.py")
    write("repo/pyproject.toml")
    root = file.parents[2].resolve()
    assert project_roots(file) == [root, root / "src"]


def test_values_of_the_environment_are_not_shown(project, write):
    path = project(env={"KEY": "sk-secret"})
    assert read_project(path).environment() == {"KEY": "sk-secret"}
    assert "sk-secret" not in repr(find_graphs(str(path)))


def test_an_environment_file_is_read_as_dotenv_does(project, write):
    write(".env", 'export A=1\nB="two words" # said\nC=${A}3\nUNSET\n')
    assert read_project(project(env=".env")).environment() == {
        "A": "1",
        "B": "two words",
        "C": "13",
    }


def test_an_environment_file_that_is_no_text_is_refused(project, tmp_path):
    (tmp_path / ".env").write_bytes(b"KEY=\xff\xfe\n")
    with pytest.raises(GraphLoadError, match=r"\.env: cannot be read"):
        read_project(project(env=".env")).environment()


def test_without_dotenv_an_environment_file_names_the_extra(project, write, monkeypatch):
    write(".env", "A=1")
    monkeypatch.setitem(sys.modules, "dotenv", None)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'langchain-slm\[convert\]'"
    ):
        read_project(project(env=".env")).environment()
