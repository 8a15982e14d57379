import sys
from textwrap import dedent

import pytest
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.errors import GraphLoadError
from langchain_slm.rewriting.loading import load, load_graph

GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph
class State(TypedDict):
    text: str
builder = StateGraph(State)
builder.add_node("node", lambda state: state)
builder.add_edge(START, "node")
graph = builder.compile()
number = 3
def factory():
    return graph
"""


@pytest.fixture(autouse=True)
def _imports_as_they_were(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


@pytest.fixture
def write(tmp_path):
    def _write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return _write


def test_a_compiled_graph_or_a_builder_is_loaded(write):
    path = write("graph.py", GRAPH)
    assert isinstance(load_graph(f"{path}:graph"), Pregel)
    assert isinstance(load_graph(f"{path}:builder"), StateGraph)


def test_a_relative_path_is_loaded(write, monkeypatch, tmp_path):
    write("app/graph.py", GRAPH)
    monkeypatch.chdir(tmp_path)
    assert list(load_graph("app/graph.py:graph").nodes) == ["__start__", "node"]


def test_any_variable_is_loaded(write):
    assert load(f"{write('graph.py', GRAPH)}:number") == 3


def test_imports_beside_the_file_work(write):
    write("beside.py", "ANSWER = 42")
    path = write("main_graph.py", f"from beside import ANSWER\n{GRAPH}")
    load_graph(f"{path}:graph")
    assert load(f"{path}:ANSWER") == 42


def test_relative_imports_of_a_package_work(write):
    write("shop/__init__.py", "")
    write("shop/agents/__init__.py", "")
    write("shop/words.py", "WORD = 'hello'")
    write("shop/agents/state.py", "from shop.words import WORD")
    text = f"from .state import WORD\nfrom ..words import WORD as SAME\n{GRAPH}"
    path = write("shop/agents/graph.py", text)
    load_graph(f"{path}:graph")
    assert load(f"{path}:SAME") == "hello"
    assert "shop.agents.graph" in sys.modules


def test_two_packages_of_one_name_are_refused(write):
    for folder in ("one", "two"):
        write(f"{folder}/shop/__init__.py", "")
        write(f"{folder}/shop/graph.py", GRAPH)
    one = write("one/shop/graph.py", GRAPH)
    two = write("two/shop/graph.py", GRAPH)
    load_graph(f"{one}:graph")
    with pytest.raises(GraphLoadError, match=r"imported as 'shop\.graph' already"):
        load_graph(f"{two}:graph")


def test_two_files_of_one_name_are_two_modules(write):
    one = write("one/graph.py", GRAPH.replace("number = 3", "number = 1"))
    two = write("two/graph.py", GRAPH.replace("number = 3", "number = 2"))
    assert (load(f"{one}:number"), load(f"{two}:number")) == (1, 2)


@pytest.mark.parametrize("name", ["", "graph", "graph.py", ":graph", "graph.py:", ":"])
def test_a_name_has_a_path_and_a_variable(name):
    with pytest.raises(GraphLoadError, match=r"is not PATH\.py:VARIABLE"):
        load_graph(name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GraphLoadError, match=r"missing\.py: no such file"):
        load_graph(f"{tmp_path / 'missing.py'}:graph")
    with pytest.raises(GraphLoadError, match="no such file"):
        load_graph(f"{tmp_path}:graph")


def test_a_file_of_another_kind_is_refused(write):
    with pytest.raises(GraphLoadError, match=r"graph\.txt: not a Python file"):
        load_graph(f"{write('graph.txt', GRAPH)}:graph")


def test_a_missing_variable_lists_the_graphs(write):
    path = write("graph.py", GRAPH)
    with pytest.raises(GraphLoadError, match="its graphs are: builder, graph"):
        load_graph(f"{path}:grpah")
    with pytest.raises(GraphLoadError, match="it has no graph"):
        load(f"{write('empty.py', '')}:graph")


def test_what_is_no_graph_is_refused(write):
    path = write("graph.py", GRAPH)
    with pytest.raises(GraphLoadError, match=r"of type int, not a LangGraph graph$"):
        load_graph(f"{path}:number")
    with pytest.raises(GraphLoadError, match="call the factory in the file"):
        load_graph(f"{path}:factory")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", "SyntaxError at line 2"),
        ("x = 1\n\nimport no_such_module_here\n", "ModuleNotFoundError at line 3"),
        ("def f():\n    raise ValueError('no')\n\nf()\n", "ValueError at line 2: no"),
        ("import json\njson.loads('{')\n", "JSONDecodeError at line 2"),
        ("import sys\nsys.exit('usage: ...')\n", "SystemExit at line 2"),
        ("import broken_beside\n", r"SyntaxError in \S+broken_beside.py"),
        ("\x00", "with (SyntaxError|ValueError)"),
    ],
)
def test_a_file_that_does_not_import_says_where_and_why(write, text, message):
    write("broken_beside.py", "x = (\n")
    path = write("broken.py", text)
    with pytest.raises(GraphLoadError, match=message) as caught:
        load_graph(f"{path}:graph")
    assert f"run `python {path}`" in str(caught.value)
    assert "broken" not in sys.modules


def test_a_file_that_does_not_import_leaves_a_module_of_its_name(write):
    one = write("one/graph.py", GRAPH)
    load_graph(f"{one}:graph")
    known = sys.modules["graph"]
    with pytest.raises(GraphLoadError):
        load_graph(f"{write('two/graph.py', 'import no_such_module_here')}:graph")
    assert sys.modules["graph"] is known


def test_a_package_that_does_not_import_says_where(write):
    write("pack/__init__.py", "")
    path = write("pack/graph.py", "x = 1\nfrom .nothing import y\n")
    with pytest.raises(GraphLoadError, match="ModuleNotFoundError at line 2"):
        load_graph(f"{path}:graph")


def test_an_interrupted_import_is_not_swallowed(write):
    path = write("slow.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_graph(f"{path}:graph")
    assert "slow" not in sys.modules
