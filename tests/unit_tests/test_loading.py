import asyncio
import json
import os
import sys
from textwrap import dedent

import pytest
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from langchain_slm.errors import GraphLoadError
from langchain_slm.loading.graphs import load, load_graph, open_graph
from langchain_slm.loading.projects import find_graph

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
def number_factory():
    return 3
"""
FACTORIES = f"""
{GRAPH}
from contextlib import asynccontextmanager, contextmanager
from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime
log = []
def with_config(config: RunnableConfig):
    log.append(dict(config))
    return builder
def with_anything(settings):
    log.append(dict(settings))
    return graph
def with_positional(config, /, model="small"):
    log.append((dict(config), model))
    return graph
def with_runtime(runtime: ServerRuntime):
    log.append((runtime.access_context, runtime.execution_runtime))
    return graph
def with_both(config: RunnableConfig, *, runtime: ServerRuntime | None = None):
    log.append((dict(config), runtime))
    return graph
async def awaited(config):
    return graph
@contextmanager
def managed(config):
    log.append("opened")
    yield graph
    log.append("closed")
@asynccontextmanager
async def managed_async():
    log.append("opened")
    yield graph
    log.append("closed")
async def awaited_manager():
    return managed({{}})
class Maker:
    def __call__(self):
        return graph
maker = Maker()
def needy(config, tenant):
    return graph
def failing(config):
    raise LookupError("no tenant")
@contextmanager
def failing_at_the_end():
    yield graph
    raise LookupError("cannot be closed")
@asynccontextmanager
async def failing_before(config):
    raise LookupError("cannot be opened")
    yield graph
"""
EMPTY = {"tags": [], "metadata": {}, "configurable": {}}


@pytest.fixture(autouse=True)
def _imports_as_they_were(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "environ", os.environ.copy())
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
    with pytest.raises(GraphLoadError, match=r"a factory; it returned one of type int"):
        load_graph(f"{path}:number_factory")
    with pytest.raises(GraphLoadError, match=r"TypedDictMeta, not a LangGraph graph$"):
        load_graph(f"{path}:State")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", "SyntaxError at line 2"),
        ("x = 1\n\nimport no_such_module_here\n", "ModuleNotFoundError at line 3"),
        ("def f():\n    raise ValueError('no')\n\nf()\n", "ValueError at line 2: no"),
        ("import json\njson.loads('{')\n", "JSONDecodeError at line 2"),
        ("import sys\nsys.exit('usage: ...')\n", "SystemExit at line 2"),
        ("class Stop(BaseException): ...\nraise Stop('x')\n", "Stop at line 2: x"),
        (
            "class E(Exception):\n    def __str__(self):\n        raise self\nraise E\n",
            "E at line 4: .its message cannot be made",
        ),
        (
            "try:\n    1 / 0\nexcept Exception as e:\n    raise e from e\n",
            "at line 2: div",
        ),
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


@pytest.fixture
def factories(write):
    return write("factories.py", FACTORIES)


def _log(path):
    return sys.modules[path.stem].log


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("with_config", [EMPTY]),
        ("with_anything", [EMPTY]),
        ("with_positional", [(EMPTY, "small")]),
        ("with_runtime", [("assistants.read", None)]),
        ("with_both", [(EMPTY, None)]),
        ("awaited", []),
        ("maker", []),
        ("factory", []),
    ],
)
def test_a_factory_is_called_with_an_empty_config(factories, name, log):
    assert "node" in load_graph(f"{factories}:{name}").nodes
    assert _log(factories) == log


@pytest.mark.parametrize("name", ["managed", "managed_async", "awaited_manager"])
def test_what_a_factory_opens_is_closed_at_the_end(factories, name):
    with open_graph(find_graph(f"{factories}:{name}")) as graph:
        assert "node" in graph.nodes
        assert _log(factories) == ["opened"]
    assert _log(factories) == ["opened", "closed"]


def test_what_a_factory_opens_stays_open_for_a_loaded_graph(factories):
    assert "node" in load_graph(f"{factories}:managed_async").nodes
    assert _log(factories) == ["opened"]


def test_a_factory_is_awaited_where_an_event_loop_runs(factories):
    async def load_inside():
        return load_graph(f"{factories}:awaited")

    assert "node" in asyncio.run(load_inside()).nodes


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("failing", r"failing: calling the factory failed with LookupError at line \d+"),
        ("failing_before", "failing_before: calling the factory failed with LookupError"),
        ("needy", "needs 'tenant'; only a config and a runtime are known"),
    ],
)
def test_a_factory_that_fails_is_named(factories, name, says):
    with pytest.raises(GraphLoadError, match=says):
        load_graph(f"{factories}:{name}")


def test_a_factory_that_cannot_be_closed_is_named(factories):
    graph = open_graph(find_graph(f"{factories}:failing_at_the_end"))
    with pytest.raises(GraphLoadError, match="closing what the factory opened failed"):
        graph.__enter__() and graph.__exit__(None, None, None)


def _notebook(*sources):
    cells = [{"cell_type": "markdown", "source": ["# An app"]}]
    cells += [{"cell_type": "code", "source": source} for source in sources]
    return json.dumps({"cells": cells, "nbformat": 4, "metadata": {}})


def test_the_cells_of_a_notebook_run_in_order_without_magics(write):
    first = "%pip install x\nif True:\n    !ls\ntext = '''\n%not a magic\n'''"
    path = write("app.ipynb", _notebook(first, "%%bash\nexit 1", [GRAPH], "number = 4"))
    assert isinstance(load_graph(f"{path}:graph"), Pregel)
    assert load(f"{path}:text") == "\n%not a magic\n"
    assert load(f"{path}:number") == 4


def test_cells_after_the_graph_do_not_run(write):
    path = write("app.ipynb", _notebook(GRAPH, "raise RuntimeError('a call')"))
    assert isinstance(load_graph(f"{path}:graph"), Pregel)


def test_a_cell_may_await(write):
    text = "import asyncio\nawait asyncio.sleep(0)\ndone = True"
    assert load(f"{write('app.ipynb', _notebook(text))}:done") is True


def test_what_a_notebook_displays_is_not_drawn(write):
    shown = "display(graph.get_graph().draw_mermaid_png(1))\nImage(nothing)\nend = 1"
    path = write("app.ipynb", _notebook("display(nothing)", f"{GRAPH}\n{shown}"))
    assert load(f"{path}:end") == 1


def test_a_notebook_that_fails_says_in_which_cell(write):
    path = write("app.ipynb", _notebook("x = 1", "\n1 / 0\ngraph = 1"))
    with pytest.raises(GraphLoadError, match="ZeroDivisionError at line 2 of cell 3"):
        load_graph(f"{path}:graph")
    with pytest.raises(GraphLoadError, match="cannot be read as a notebook"):
        load_graph(f"{write('bad.ipynb', '[]')}:graph")


def _project(write, **said):
    graphs = {"graphs": {"desk": "./src/desk/graph.py:graph"}, **said}
    return write("langgraph.json", json.dumps(graphs))


def test_a_graph_of_a_langgraph_json_is_loaded_as_its_server_does(write, monkeypatch):
    write("src/desk/__init__.py", "")
    write("src/desk/words.py", "WORD = 'hello'")
    write("shared/common_words.py", "MORE = 1")
    text = f"import os\nfrom .words import WORD\nimport common_words\n{GRAPH}"
    write("src/desk/graph.py", f"{text}\nseen = os.environ['DESK_MODE']")
    write(".env", "DESK_MODE='from the file'\nUNSET\n# OTHER=1\n")
    monkeypatch.setitem(os.environ, "DESK_MODE", "from the shell")
    path = _project(write, env=".env", dependencies=[".", "./shared", "openai"])
    assert isinstance(load_graph(f"{path}:desk"), Pregel)
    assert isinstance(load_graph(str(path)), Pregel)
    assert sys.modules["desk.graph"].seen == "from the file"
    assert "UNSET" not in os.environ


def test_an_environment_may_be_written_in_the_langgraph_json(write):
    write("src/desk/graph.py", f"import os\n{GRAPH}\nseen = os.environ['DESK_PORT']")
    path = _project(write, env={"DESK_PORT": 80})
    load_graph(str(path))
    assert sys.modules["graph"].seen == "80"


def test_an_empty_value_of_an_environment_file_keeps_the_environments(write):
    os.environ["DESK_MODE"] = "from the shell"
    write("src/desk/graph.py", f"import os\n{GRAPH}\nseen = os.environ['DESK_MODE']")
    write(".env", "DESK_MODE=\nDESK_OTHER=")
    load_graph(str(_project(write, env=".env")))
    assert sys.modules["graph"].seen == "from the shell"
    assert os.environ["DESK_OTHER"] == ""


def test_an_environment_file_that_is_not_there_gives_nothing(write):
    write("src/desk/graph.py", GRAPH)
    assert isinstance(load_graph(str(_project(write, env=".env"))), Pregel)


def test_a_module_of_a_langgraph_json_is_imported(write):
    write("src/desk_package/__init__.py", "")
    write("src/desk_package/graph.py", GRAPH)
    graphs = {"graphs": {"desk": "desk_package.graph:graph"}, "dependencies": ["."]}
    path = write("langgraph.json", json.dumps(graphs))
    assert isinstance(load_graph(str(path)), Pregel)
    assert "desk_package.graph" in sys.modules


def test_an_app_of_a_project_that_is_not_installed_is_loaded(write):
    write("pyproject.toml", "")
    write("src/desk_library/words.py", "WORD = 1")
    path = write("src/desk_library/graph.py", f"import desk_library.words\n{GRAPH}")
    assert isinstance(load_graph(f"{path}:graph"), Pregel)


SECRET = "sk-" + "s3cret" * 4


@pytest.mark.parametrize(
    "text",
    [
        "raise ValueError(os.environ['DESK_KEY'])",
        "raise ValueError('no access for ' + os.environ['DESK_LABEL'])",
    ],
)
def test_no_value_of_the_environment_is_in_a_message(write, text, monkeypatch):
    monkeypatch.setitem(os.environ, "DESK_KEY", SECRET)
    write("src/desk/graph.py", f"import os\n{text}")
    path = _project(write, env={"DESK_LABEL": f"label {SECRET}"})
    with pytest.raises(GraphLoadError, match="<value of DESK_") as caught:
        load_graph(str(path))
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(find_graph(str(path)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import openai; openai.OpenAI()", "set OPENAI_API_KEY, or inspect with --place"),
        ("import os; os.environ['DESK_URL']", "set the environment variable DESK_URL"),
        ("raise ValueError('an API key is needed')", "set the key that it misses"),
    ],
)
def test_a_missing_key_names_the_way_out(write, text, says, monkeypatch):
    monkeypatch.delitem(os.environ, "OPENAI_API_KEY", raising=False)
    with pytest.raises(GraphLoadError, match=says):
        load_graph(f"{write('keyless.py', text)}:graph")
