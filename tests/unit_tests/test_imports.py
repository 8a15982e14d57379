import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest

from langchain_slm.errors import GraphLoadError
from langchain_slm.loading.imports import import_effects
from langchain_slm.loading.projects import NamedGraph

# Ends the process as soon as anything of the app is compiled, imported or executed.
WATCHED = """
import sys
from pathlib import Path
from langchain_slm.loading.imports import import_effects
from langchain_slm.loading.projects import NamedGraph

folder = sys.argv[1]


def watch(event, arguments):
    if event in ("exec", "import", "socket.connect", "os.putenv"):
        text = repr(arguments)
        if folder in text or "shop" in text or event.startswith(("socket", "os")):
            print("ran", event, text[:200])


sys.addaudithook(watch)
sys.path.insert(0, folder)
file = Path(folder, "shop", "graph.py")
for effect in import_effects(NamedGraph(None, file, "graph"), [Path(folder)]):
    print(effect.kind, effect.what)
"""


@pytest.fixture
def effects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _effects(text="", **files):
        for name, more in {"graph.py": text, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(more), encoding="utf-8")
        named = NamedGraph(None, (tmp_path / "graph.py").relative_to(tmp_path), "graph")
        return [tuple(effect) for effect in import_effects(named, [tmp_path])]

    return _effects


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("load_dotenv()", "environment", "load_dotenv()"),
        ("import os\nx = os.environ['A_KEY']", "environment", "os.environ['A_KEY']"),
        ("import os\nx = os.getenv('A', 'b')", "environment", "os.getenv('A')"),
        ("os.environ['A'] = 'sk-1'", "environment", "os.environ['A']"),
        ("os.environ.setdefault('A', 'sk-1')", "environment",
         "os.environ.setdefault('A')"),
        ("os.environ.update({'A': 'sk-1'})", "environment", "os.environ.update()"),
        ("llm = ChatOpenAI(model='gpt')", "model", "ChatOpenAI()"),
        ("llm = langchain_x.ChatX()", "model", "langchain_x.ChatX()"),
        ("llm = init_chat_model('a:b')", "model", "init_chat_model()"),
        ("from openai import OpenAI\nclient = OpenAI()", "client", "OpenAI()"),
        ("import openai as o\nclient = o.OpenAI()", "client", "o.OpenAI()"),
        ("from langchain_tavily import TavilySearch\nt = [TavilySearch(max_results=3)]",
         "client", "TavilySearch()"),
        ("out = graph.invoke({})", "call of a model or graph", "graph.invoke()"),
        ("text = open('x').read()", "file", "open()"),
        ("text = Path('x').read_text()", "file", "Path().read_text()"),
        ("import requests\nr = requests.get('http://x')", "network", "requests.get()"),
        ("png = graph.get_graph().draw_mermaid_png()", "network",
         "graph.get_graph().draw_mermaid_png()"),
        ("import subprocess\nsubprocess.run(['ls'])", "process", "subprocess.run()"),
        ("print('hello')", "output", "print()"),
        ("import asyncio\ngraph = asyncio.run(build())", "call", "asyncio.run()"),
        ("db = SQLDatabase.from_uri('sqlite://')", "call", "SQLDatabase.from_uri()"),
        ("@register('x')\ndef node(state): ...", "call", "register()"),
        ("def node(state, llm=make()): ...", "call", "make()"),
        ("class A:\n    llm = ChatOpenAI()", "model", "ChatOpenAI()"),
        ("try:\n    x = 1\nexcept ImportError:\n    ChatX()", "model", "ChatX()"),
        ("for name in ('a', 'b'):\n    print(name)", "output", "print()"),
        ("with connect() as c:\n    pass", "call", "connect()"),
    ],
)  # fmt: skip
def test_what_an_import_does_is_listed(effects, text, kind, what):
    found = [(each[2], each[3]) for each in effects(text)]
    assert (kind, what) in found
    assert "sk-1" not in str(found)


def test_definitions_are_not_listed(effects):
    text = """
        import os, re, logging
        from typing import TypedDict
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_core.messages import HumanMessage
        from langgraph.graph import StateGraph
        from pydantic import BaseModel, Field

        logger = logging.getLogger(__name__)
        WORD = re.compile("x")
        PROMPT = ChatPromptTemplate.from_messages([("system", "x")])
        FIRST = HumanMessage("x")

        class State(BaseModel):
            text: str = Field(default_factory=list)

        def node(state):
            return ChatOpenAI().invoke(state)

        builder = StateGraph(State)
        builder.add_node("node", node)
        graph = builder.compile()
        later = lambda: print("not now")
        if __name__ == "__main__":
            print(graph.invoke({}))
    """
    assert effects(text) == []


def test_functions_that_are_called_there_are_read(effects):
    text = """
        from parts import make_model as make
        import parts
        class Desk:
            def __init__(self):
                self.key = open("x")
            def later(self):
                print("not now")
        def build():
            llm = make()
            build()
            return llm
        desk = Desk()
        graph = build()
    """
    parts = "def make_model():\n    return ChatOpenAI()\nprint('loud')\n"
    assert effects(text, **{"parts.py": parts}) == [
        ("parts.py", 3, "output", "print()"),
        ("graph.py", 6, "file", "open()"),
        ("parts.py", 2, "model", "ChatOpenAI()"),
    ]


def test_the_apps_own_modules_are_read_and_no_others(effects):
    text = "import json, langgraph\nfrom shop.agents import desk\nfrom shop import helper"
    files = {
        "shop/__init__.py": "from .helpers import helper\nprint(1)",
        "shop/helpers.py": "def helper():\n    pass\nprint(2)",
        "shop/agents/__init__.py": "",
        "shop/agents/desk.py": "from ..helpers import helper\nhelper()\nprint(3)",
        "unused.py": "print(4)",
    }
    assert [each[:2] for each in effects(text, **files)] == [
        ("shop/helpers.py", 3),
        ("shop/__init__.py", 2),
        ("shop/agents/desk.py", 3),
    ]


def test_the_packages_around_the_file_are_read_first(tmp_path):
    (tmp_path / "shop" / "agents").mkdir(parents=True)
    for folder in ("shop", "shop/agents"):
        (tmp_path / folder / "__init__.py").write_text(f"print({folder!r})")
    path = tmp_path / "shop" / "agents" / "graph.py"
    path.write_text("print('graph')")
    found = import_effects(NamedGraph(None, path, "graph"), [])
    assert [each.file.removeprefix(f"{tmp_path}/") for each in found] == [
        "shop/__init__.py",
        "shop/agents/__init__.py",
        "shop/agents/graph.py",
    ]


def test_a_cycle_of_imports_ends(effects):
    assert effects("import one", **{"one.py": "import two", "two.py": "import one"}) == []


def test_a_module_that_is_no_python_is_listed(effects):
    found = effects(
        "try:\n    import old\nexcept SyntaxError: ...", **{"old.py": "x =\n"}
    )
    assert found == [("old.py", 1, "unreadable", "not Python here")]


@pytest.mark.parametrize("text", ["x = (", "\x00"])
def test_a_file_that_is_no_python_is_refused_with_the_place(effects, text):
    with pytest.raises(GraphLoadError, match=r"graph\.py: is no Python: \w+Error"):
        effects(text)


def test_a_declared_encoding_is_kept(tmp_path):
    path = tmp_path / "graph.py"
    path.write_bytes("# coding: latin-1\nname = 'é'\nprint(name)\n".encode("latin-1"))
    assert [each.line for each in import_effects(NamedGraph(None, path, "g"), [])] == [3]


def test_cells_of_a_notebook_are_read_up_to_the_graph(tmp_path):
    cells = [
        {"cell_type": "code", "source": ["%pip install x\n", "llm = ChatOpenAI()"]},
        {"cell_type": "code", "source": "graph = build(llm)"},
        {"cell_type": "code", "source": "graph.invoke({})"},
    ]
    path = tmp_path / "app.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    found = import_effects(NamedGraph(None, path, "graph"), [])
    assert [(each.file, each.line, each.what) for each in found] == [
        (f"{path}#cell-1", 2, "ChatOpenAI()"),
        (f"{path}#cell-2", 1, "build()"),
    ]


def test_nothing_is_imported_or_executed(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("print('imported')")
    text = "import os\nfrom shop import words\nos.environ['A'] = '1'\nprint('imported')\n"
    (tmp_path / "shop" / "graph.py").write_text(text)
    (tmp_path / "shop" / "words.py").write_text("print('imported')")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.splitlines() == [
        "output print()",
        "output print()",
        "environment os.environ['A']",
        "output print()",
    ]
