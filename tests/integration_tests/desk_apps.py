"""Apps of one node, and what to do with them, for the tests of the source rewrite."""

import sys
from contextlib import contextmanager

from unit_tests.planned import decision, kept, plan, spec

from langchain_slm.cli import main
from langchain_slm.loading.graphs import load_graph
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.schema import Binding

HEAD = '''"""A desk."""

import os
from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    text: str


'''
MODEL = 'llm = ChatOpenAI(model="ref", base_url=os.environ["MADE_URL"], api_key="any")\n'
BUILDER = """

def triage(state):
    return {"text": llm.invoke(state.get("text", "Hello")).text}


builder = StateGraph(State)
builder.add_node("triage", triage)
builder.add_edge(START, "triage")
"""
GRAPH = "graph = builder.compile()  # exported\n"
APP = HEAD + MODEL + BUILDER + GRAPH
LINE = 'graph = apply_plan(graph, "slm-plan.json")\n'
TARGET = "app.py:graph"
APPS = {"app", "new", "shop", "lent", "desk"}  # modules of the tests' apps
NESTED = "src/shop/agents/graph.py:graph"


@contextmanager
def made_app(folder, server, monkeypatch):
    """An app whose model answers on this machine, and a plan that binds its node."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MADE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    (folder / "app.py").write_text(APP)
    make_plan(folder / "slm-plan.json", server)
    yield folder
    forget_apps()


def make_package(folder):
    """The same app in a package, its model in a module of its own."""
    (folder / "app.py").unlink()
    shop = folder / "src" / "shop"
    (shop / "agents").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]\nname = 'shop'\n")
    (shop / "__init__.py").write_text("")
    (shop / "agents" / "__init__.py").write_text("from .graph import graph\n")
    (shop / "models.py").write_text(
        "import os\n\nfrom langchain_openai import ChatOpenAI\n\n\n"
        f"def make():\n    return {MODEL.removeprefix('llm = ')}"
    )
    head = HEAD.replace("from langchain_openai import ChatOpenAI\n", "")
    (shop / "agents" / "graph.py").write_text(
        head.replace("\n\nclass", "\nfrom ..models import make\n\n\nclass", 1)
        + BUILDER.replace("llm.invoke", "make().invoke")
        + GRAPH
    )
    return folder


def forget_apps():
    """Let apps be imported anew, as each command does in a process of its own."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in APPS:
            del sys.modules[name]


def make_plan(path, server, sites=("triage",), model="small", **more):
    binding = Binding(model=spec(model, base_url=server.url))
    decisions = [
        decision(site, model, reference="ref", binding=binding) for site in sites
    ]
    path.parent.mkdir(exist_ok=True)
    return write_plan(plan(*decisions, kept("reply"), **more), path)


def run(capsys, *arguments):
    forget_apps()
    code = main(["rewrite", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def asked(server, target):
    """Run a graph as its source is now, and return which models were asked."""
    forget_apps()
    before = server.counts().requests
    load_graph(target).invoke({"text": "Hello"})
    after = server.counts().requests
    return {m: n - before.get(m, 0) for m, n in after.items() if n != before.get(m, 0)}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".git" not in path.parts
    }
