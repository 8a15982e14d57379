"""The script that tries a rewrite on somebody's app, on an app made for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "real_apps" / "try_app.py"
# A model of one provider in the module, one of another made in the node, a tool, an
# interrupt, a raw client, and a model that is called in a conditional edge.
GRAPH = """
from anthropic import Anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from pydantic import BaseModel

from desk.search import search

class Triage(BaseModel):
    label: str

big = ChatOpenAI(model="big")

class State(MessagesState):
    label: str

def triage(state):
    found = big.with_structured_output(Triage).invoke(state["messages"])
    return {"label": found.label}

def reply(state):
    model = ChatAnthropic(model_name="bigger").bind_tools([search])
    return {"messages": [model.invoke(state["messages"])]}

def approve(state):
    said = interrupt("send it?")
    return {"messages": [HumanMessage(said)]}

def is_done(state):
    big.invoke("Is it done?")
    return END

def raw(state):
    said = Anthropic().messages.create(
        model="raw", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
    )
    return {"label": said.content[0].text}

builder = StateGraph(State)
for node in (triage, reply, approve):
    builder.add_node(node)
builder.add_node("tools", ToolNode([search]))
builder.add_edge(START, "triage")
builder.add_edge("triage", "reply")
ends = {"tools": "tools", END: "approve"}
builder.add_conditional_edges("reply", tools_condition, ends)
builder.add_edge("tools", "reply")
builder.add_conditional_edges("approve", is_done, [END])
graph = builder.compile()

def make_graph(config):
    return StateGraph(State).add_node(raw).add_edge(START, "raw").compile()
"""
SEARCH = '''
import httpx
from langchain_core.tools import tool

@tool
def search(query: str) -> str:
    """Search the web."""
    found = httpx.get("https://search.example.com/find", params={"q": query})
    return found.json()["results"][0]["title"]
'''
SPOILT = """
from pathlib import Path
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

model = ChatOpenAI(model="big")
notes = Path(__file__).parent / "notes.txt"
runs = []

def changes(state):
    runs.append(1)
    if len(runs) > 2:
        notes.write_text("changed")
    model.invoke("Hi")
    return {"messages": [("ai", "again" if len(runs) > 2 else "first")]}

graph = StateGraph(MessagesState).add_node(changes).add_edge(START, "changes").compile()
"""


def made_app(folder: Path) -> Path:
    package = folder / "src" / "desk"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "graph.py").write_text(GRAPH)
    (package / "search.py").write_text(SEARCH)
    graphs = {"desk": "./src/desk/graph.py:graph"}
    graphs["raw"] = "./src/desk/graph.py:make_graph"
    stated = {"dependencies": ["."], "graphs": graphs}
    (folder / "langgraph.json").write_text(json.dumps(stated))
    return folder


def tried(checkout: Path, *options: str) -> tuple[int, Any]:
    command = [sys.executable, str(SCRIPT), str(checkout), "--json", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, env=environment
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_call_of_an_app_reaches_its_target_or_has_a_reason(tmp_path):
    status, [desk, raw] = tried(made_app(tmp_path), "--resume", '"yes"')
    assert status == 0
    assert desk["sites"] == {"approve#is_done": 3, "reply": 6, "triage": 3}
    assert list(desk["ways"]) == ["async", "sync", "streamed"]
    assert desk["web"] == ["search.example.com/find"]
    [opaque] = desk["opaque"]
    assert opaque.startswith("tools: ")
    assert raw["sites"] == {}
    assert raw["notes"] == ["raw at api.anthropic.com was asked by a raw client"]
    assert len(raw["opaque"]) == 1


def test_an_app_that_changes_or_cannot_be_imported_is_found_out(tmp_path):
    (tmp_path / "app.py").write_text(SPOILT)
    (tmp_path / "notes.txt").write_text("as it was")
    (tmp_path / "broken.py").write_text("import there_is_no_such_module\n")
    graphs = ("--graph", "app.py:graph", "--graph", "broken.py:graph")
    status, [spoilt, broken] = tried(tmp_path, *graphs)
    assert status == 1
    assert spoilt["criteria"]["files"] == ["notes.txt was changed or deleted"]
    assert spoilt["criteria"]["original"]
    assert spoilt["criteria"]["routing"] == []
    [why] = broken["criteria"]["routing"]
    assert why.startswith("import: cannot be imported: GraphLoadError")
    assert "there_is_no_such_module" in why
