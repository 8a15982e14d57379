"""Every Python block of the README and the docs runs, in order, file by file."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from langchain_slm.cli import app
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.schema import Plan

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
APP = """
from typing import TypedDict

from langchain_core.language_models import FakeListChatModel
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    ticket: str
    label: str


def triage(state: State) -> State:
    model = FakeListChatModel(responses=["delivery"])
    return {"label": model.invoke(state["ticket"]).text}


builder = StateGraph(State)
builder.add_node("triage", triage)
builder.add_edge(START, "triage")
builder.add_edge("triage", END)
graph = builder.compile()
"""
PLAN = """{"graph": "app:graph", "created": "2026-01-01", "margin": 0.05, "alpha": 0.05,
"decisions": []}"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the app that the documentation speaks of, and a plan."""
    (tmp_path / "app.py").write_text(APP)
    write_plan(Plan.model_validate_json(PLAN), tmp_path / "slm-plan.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("app", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page, project):
    names: dict[str, object] = {"__name__": "docs"}
    blocks = BLOCK.findall(page.read_text())
    for number, block in enumerate(blocks, start=1):
        code = compile(block, f"{page.name}, block {number}", "exec")
        exec(code, names)  # noqa: S102 - the documentation is the code under test
    assert len(blocks) == page.read_text().count("```python")


def test_commands_in_the_docs_have_all_that_the_cli_requires():
    commands = typer.main.get_command(app).commands
    text = "\n".join(page.read_text() for page in PAGES)
    # Console lines, and commands with arguments within a sentence.
    found = re.findall(r"(?m)^\$ (langchain-slm .*)$", text)
    found += re.findall(r"`(langchain-slm \w+ [^`]+)`", text)
    lines = [shlex.split(line) for line in found]
    for _, name, *given in lines:
        options = [p for p in commands[name].params if p.param_type_name == "option"]
        known = {word for each in options for word in each.opts + each.secondary_opts}
        assert {word for word in given if word.startswith("--")} <= known
        assert all(set(each.opts) & set(given) for each in options if each.required)
    assert len(lines) >= 3


def test_the_readme_is_short_and_states_its_limits():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) < 700
    assert "## Limitations" in text


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
