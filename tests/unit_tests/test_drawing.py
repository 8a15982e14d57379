import re
from typing import TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import START, StateGraph
from unit_tests.fake_chat import FakeChat

from langchain_slm.inspection.drawing import mermaid
from langchain_slm.inspection.facing import Facing
from langchain_slm.inspection.findings import traced
from langchain_slm.inspection.overview import (
    Edge,
    Inspection,
    Node,
    Site,
    inspect_graph,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</div><iframe src=//x>",
    "javascript:alert(1)",
    '"',
    '""',
    '"]',
    '"] --> n9["x',
    "'",
    "`code`",
    "`` ` ``",
    "**bold** _it_",
    "]",
    ")",
    "}",
    "[[x]]",
    "((x))",
    "{{x}}",
    "[/x/]",
    "end",
    "subgraph",
    "graph TD",
    "flowchart LR; a-->b",
    "class",
    "style n0 fill:#f00",
    "click n0 callback",
    'click n0 href "javascript:alert(1)"',
    "%% comment",
    "%%{init: {}}%%",
    "---\ntitle: x\n---",
    "a --> b",
    "a -.-> b",
    "a|b",
    "a&b",
    "&lt;script&gt;",
    "&#60;",
    "#quot;",
    "#35;",
    "#",
    ";",
    "a;b",
    "\n",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "\x00",
    "a\x00b",
    "\x1b[31mred",
    "\u202eevil",
    "\u2028",
    "\ud800",
    "\\",
    "\\u003cscript\\u003e",
    "$$x^2$$",
    "fa:fa-car",
    "n0",
    "é 漢字 😀",
    "",
    " ",
    "x" * 10_000,
    "../../etc/passwd",
    "__start",
    "*",
    "a/b",
]
_LABEL = r'"[^"\n]*"'
_LINE = re.compile(
    rf"flowchart TD"
    rf"|n\d+\[{_LABEL}\]"
    rf"|n\d+\(\[{_LABEL}\]\):::stop"
    rf"|subgraph n\d+\[{_LABEL}\]"
    rf"|end"
    rf"|n\d+ --> n\d+"
    rf"|n\d+ -\. {_LABEL} \.-> n\d+"
    rf"|m\d+\[/{_LABEL}/\]:::model"
    rf"|n\d+ --- m\d+"
    rf"|classDef [\w:; -]+"
)
_RAW = re.compile(r"[<>'`&\\\[\]{}|%$\n\r\x00-\x1f\u007f-\U0010ffff]")


class State(TypedDict):
    text: str


def _inspection(*names):
    """Return an inspection in which everything is called by hostile names."""
    holding = traced(names[-1], names[-1], 1)
    edges = [Edge("__start__", names[0], "edge")]
    edges += [Edge(name, names[-1], "conditional", name) for name in names]
    sites = [Site(f"{name}#{name}", (holding,), Facing("no", name)) for name in names]
    nodes = [Node(name, "function", None) for name in names]
    return Inspection(tuple(nodes), tuple(edges), tuple(sites), names)


def _assert_valid(found: Inspection, drawn: str):
    lines = [line.strip() for line in drawn.splitlines()]
    assert all(_LINE.fullmatch(line) for line in lines), drawn
    labels = re.findall(_LABEL, drawn)
    assert drawn.count('"') == 2 * len(labels)
    assert not any(_RAW.search(label[1:-1]) for label in labels)
    assert lines.count("end") == sum(line.startswith("subgraph") for line in lines)
    nodes = [re.match(r"(?:subgraph )?(n\d+)\[", line) for line in lines]
    drawn_ids = {match[1] for match in nodes if match}
    assert len(drawn_ids) == len(found.nodes)
    used = {each for line in lines for each in re.findall(r"\bn\d+\b(?=$| )", line)}
    shown = drawn_ids | {m[1] for line in lines if (m := re.match(r"(n\d+)\(", line))}
    assert used <= shown


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_never_written_as_it_is(name):
    found = _inspection(name, "plain")
    _assert_valid(found, mermaid(found))
    assert "<" not in mermaid(found)


NAME = st.text(max_size=30).filter(lambda name: not name.startswith("__"))


@given(st.lists(NAME, min_size=1, max_size=4, unique=True))
@settings(max_examples=100, deadline=None)
def test_any_names_give_a_valid_drawing(names):
    found = _inspection(*names)
    _assert_valid(found, mermaid(found))


def test_a_graph_is_drawn_with_its_subgraphs_edges_and_models():
    inner = StateGraph(State)
    inner.add_node("ask", lambda state: FakeChat(model_name="small").invoke("x"))
    inner.add_edge(START, "ask")
    builder = StateGraph(State)
    builder.add_node("desk", inner.compile())
    builder.add_node("done", lambda state: None)
    builder.add_edge(START, "desk")
    builder.add_conditional_edges("desk", lambda state: "done", ["done"])
    drawn = mermaid(inspect_graph(builder.compile()))
    assert drawn == (
        "flowchart TD\n"
        '  n4(["__start__"]):::stop\n'
        '  subgraph n0["desk"]\n'
        '    n3(["desk/__start__"]):::stop\n'
        '    n1["desk/ask"]\n'
        "  end\n"
        '  n2["done"]\n'
        "  n3 --> n1\n"
        "  n4 --> n0\n"
        '  n0 -. "condition" .-> n2\n'
        '  m0[/"small (probable) at desk/ask"/]:::model\n'
        "  n1 --- m0\n"
        "  classDef model stroke-dasharray: 4 2\n"
        "  classDef stop stroke-width: 3px\n"
    )


def test_an_edge_that_may_lead_anywhere_is_drawn():
    builder = StateGraph(State)
    builder.add_node("a", lambda state: None)
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "a")
    found = inspect_graph(builder.compile())
    _assert_valid(found, mermaid(found))
    assert '"#42;"' in mermaid(found)
