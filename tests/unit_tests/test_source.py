"""The line that applies a plan, in texts of all kinds."""

import ast
import re
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm.editing.source import literal, may_be_unbound, mismatch, wrap
from langchain_slm.editing.syntax import Parsed, edited
from langchain_slm.editing.undoing import Entry, restored, written
from langchain_slm.errors import SourceError

PLAN = "slm-plan.json"
PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
IMPORT = "from langchain_slm import apply_plan"
LINE = f'graph = apply_plan(graph, "{PLAN}")'


def wrapped(text, variable="graph", plan=PLAN):
    """The text with its line, after a second run has changed nothing."""
    new = edited(text, wrap(Parsed(text, "app.py"), variable, plan))
    again = Parsed(new, "app.py")
    assert wrap(again, variable, plan) == []
    assert mismatch(again, variable, plan) is None
    return new


def refusal(text, variable="graph"):
    with pytest.raises(SourceError) as caught:
        wrap(Parsed(text, "app.py"), variable, PLAN)
    return str(caught.value)


def without(new, *lines):
    """The text without the lines that were put."""
    kept = [each for each in new.split("\n") if each not in (*lines, IMPORT, LINE)]
    return "\n".join(kept)


# Where the two lines go


def test_the_line_follows_the_graph_and_the_import_its_kin():
    text = '''"""An app."""

from __future__ import annotations

import os

from langchain_openai import ChatOpenAI
from langgraph.graph import StateGraph
from pydantic import BaseModel

from app.state import State
from .tools import search

graph = builder.compile()  # exported
# the end
app = FastAPI()
'''
    assert wrapped(text) == text.replace(
        "from langgraph", f"{IMPORT}\nfrom langgraph"
    ).replace("# exported\n", f"# exported\n{LINE}\n")


@pytest.mark.parametrize(
    "binding",
    [
        "graph = build()",
        "graph: Graph = build()",
        "graph, other = build()",
        "(graph) = build()",
        "other = graph = build()",
        "graph = (\n    build()\n)  # of many lines",
        "graph = build(); graph.name = 'desk'",
        "graph = '''\n# a text\n'''",
        "graph = build() \\\n    .compile()",
        "graph += 1",
        "for graph in graphs:\n    pass",
        "if here:\n    graph = build()\nelse:\n    graph = other()",
        "try:\n    graph = build()\nexcept Error:\n    graph = other()\nelse:\n    x()",
        "with opened() as graph:\n    pass",
        "with opened() as (graph, other): run()",
        "while (graph := build()) is None:\n    wait()",
        "match made:\n    case [graph]:\n        pass",
        "from .agents import graph",
        "from .agents import agent as graph",
    ],
)
def test_the_line_follows_whatever_binds_the_variable(binding):
    text = f"import os\n{binding}\nafter = 1\n"
    assert wrapped(text) == f"import os\n\n{IMPORT}\n{binding}\n{LINE}\nafter = 1\n"


@pytest.mark.parametrize(
    "function",
    [
        "def graph(config):\n    return build(config)",
        "async def graph(config):\n    return build(config)",
        "@asynccontextmanager\nasync def graph(config):\n    yield build(config)",
        "def graph(): return build()",
        "def graph():\n    return 1\n    # a comment of it\n\n    # and another",
    ],
)
def test_two_blank_lines_follow_a_factory(function):
    text = f"import os\n\n\n{function}\n\n\n# next\nafter = 1\n"
    assert wrapped(text) == text.replace(
        f"{function}\n", f"{function}\n\n\n{LINE}\n"
    ).replace("import os\n", f"import os\n\n{IMPORT}\n")


def test_the_last_binding_counts():
    text = "graph = first()\nmiddle = 1\ngraph = second(graph)\nafter = graph\n"
    assert without(wrapped(text)) == f"\n{text}"
    assert f"second(graph)\n{LINE}\nafter" in wrapped(text)


def test_bindings_for_type_checkers_and_scripts_do_not_count():
    text = (
        "graph = build()\n"
        "if TYPE_CHECKING:\n    from x import graph\n"
        'if __name__ == "__main__":\n    graph = other()\n    graph.invoke({})\n'
    )
    assert f"graph = build()\n{LINE}\nif TYPE_CHECKING" in wrapped(text)


def test_the_line_follows_the_last_node_of_a_graph_that_is_not_compiled():
    text = (
        "builder = StateGraph(State)\nfor name in names:\n"
        "    builder.add_node(name, node)\nbuilder.set_entry_point('a')\n"
        "other.add_node('b')\ngraph = builder.compile()\n"
    )
    line = LINE.replace("graph", "builder")
    assert f"builder.set_entry_point('a')\n{line}\nother" in wrapped(text, "builder")
    assert wrapped(text).endswith(f"graph = builder.compile()\n{LINE}\n")


def test_of_a_run_of_imports_the_line_follows_the_last():
    text = "from .agent import graph\nfrom .tools import search\n\n__all__ = ['graph']\n"
    assert wrapped(text) == (
        f"{IMPORT}\n\nfrom .agent import graph\nfrom .tools import search\n{LINE}\n\n"
        "__all__ = ['graph']\n"
    )


@pytest.mark.parametrize("binding", ["import graph.app", "import app.graph as graph"])
def test_a_module_may_be_what_is_bound(binding):
    assert wrapped(f"{binding}\n") == f"{binding}\n{IMPORT}\n{LINE}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("graph = 1\n", f"{IMPORT}\n\ngraph = 1\n{LINE}\n"),
        ("graph = 1", f"{IMPORT}\n\ngraph = 1\n{LINE}"),
        (
            '"""Doc."""\n\ngraph = 1\n',
            f'"""Doc."""\n\n{IMPORT}\n\ngraph = 1\n{LINE}\n',
        ),
        (
            "from __future__ import annotations\n\ngraph = 1\n",
            f"from __future__ import annotations\n\n{IMPORT}\n\ngraph = 1\n{LINE}\n",
        ),
        (
            "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\ngraph = 1\n",
            (
                "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\n"
                f"{IMPORT}\n\ngraph = 1\n{LINE}\n"
            ),
        ),
        (
            "try:\n    import x\nexcept ImportError:\n    x = None\n\ngraph = x\n",
            (
                f"{IMPORT}\n\ntry:\n    import x\nexcept ImportError:\n    x = None\n\n"
                f"graph = x\n{LINE}\n"
            ),
        ),
        (
            (
                "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import x\n"
                "graph = 1\n"
            ),
            (
                f"from typing import TYPE_CHECKING\n\n{IMPORT}\n\nif TYPE_CHECKING:\n"
                f"    import x\ngraph = 1\n{LINE}\n"
            ),
        ),
        (
            (
                "import os\nos.environ['A'] = '1'\nfrom langgraph import X\n"
                "from fastapi import Y\ngraph = X\nfrom late import z\n"
            ),
            (
                f"import os\nos.environ['A'] = '1'\n{IMPORT}\nfrom langgraph import X\n"
                f"from fastapi import Y\ngraph = X\n{LINE}\nfrom late import z\n"
            ),
        ),
    ],
)
def test_the_import_has_its_place(text, expected):
    assert wrapped(text) == expected


@pytest.mark.parametrize(
    ("imports", "function"),
    [
        ("from langchain_slm import apply_plan", "apply_plan"),
        ("from langchain_slm import apply_plan as ap, rewrite", "ap"),
        ("import langchain_slm", "langchain_slm.apply_plan"),
        ("import langchain_slm as slm", "slm.apply_plan"),
    ],
)
def test_an_import_that_is_there_is_used(imports, function):
    text = f"{imports}\n\ngraph = build()\n"
    assert wrapped(text) == f'{text}graph = {function}(graph, "{PLAN}")\n'


@pytest.mark.parametrize(
    "taken",
    [
        "def apply_plan(x): ...",
        "if TYPE_CHECKING:\n    from langchain_slm import apply_plan",
        "def f():\n    from langchain_slm import apply_plan",
        "from langchain_slm import apply_plan\napply_plan = patched(apply_plan)",
    ],
)
def test_a_name_that_means_something_else_is_left_alone(taken):
    new = wrapped(f"import x\n{taken}\ngraph = 1\n")
    assert "from langchain_slm import apply_plan as slm_apply_plan\n" in new
    assert f'graph = slm_apply_plan(graph, "{PLAN}")\n' in new


# Running again


def test_another_plan_replaces_the_path_alone():
    text = wrapped("graph = build()  # c\n")
    assert wrapped(text, plan="../plans/b.json") == text.replace(
        '"slm-plan.json"', '"../plans/b.json"'
    )


@pytest.mark.parametrize(
    "applied",
    [
        'graph = apply_plan(graph, "./slm-plan.json")',
        "graph = apply_plan(graph, plan='slm-plan.json')",
        'graph = apply_plan(builder.compile(), "slm-" "plan.json", strict=True)',
        'graph = app = apply_plan(graph, "slm-plan.json")',
        'graph: Graph = apply_plan(graph, "slm-plan.json")',
    ],
)
def test_a_line_of_the_users_own_is_enough(applied):
    text = f"{IMPORT}\ngraph = 1\n{applied}\n"
    assert wrapped(text) == text


def test_a_hand_written_rewrite_is_enough():
    text = 'from langchain_slm import rewrite\ngraph = rewrite(x, "slm-plan.json")\n'
    assert wrapped(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{IMPORT}\ngraph = 1\n{LINE}\n{LINE}\n", "more than once (line 3 and 4)"),
        (
            f'{IMPORT}\ngraph = apply_plan(apply_plan(1, "a"), "b")\n',
            "more than once (line 2)",
        ),
        (
            f"{IMPORT}\n{LINE}\ngraph = other(graph)\n",
            "applied at line 2, and line 3 binds graph again",
        ),
        (
            f"{IMPORT}\ngraph = apply_plan(graph, PLAN)\n",
            "line 2 computes the plan's path",
        ),
        (f"{IMPORT}\ngraph = apply_plan(graph, *a)\n", "line 2 computes the plan's path"),
    ],
)
def test_what_cannot_be_edited_is_named_and_does_not_match(text, reason):
    assert reason in refusal(text)
    assert reason in mismatch(Parsed(text), "graph", PLAN)


def test_a_source_that_does_not_match_says_why():
    assert mismatch(Parsed("graph = 1\n"), "graph", PLAN) == (
        "graph is not wrapped: no plan is applied to it"
    )
    other = wrapped("graph = 1\n", plan="other.json")
    assert mismatch(Parsed(other), "graph", PLAN) == (
        "line 4 applies 'other.json', not 'slm-plan.json'"
    )
    absolute = wrapped("graph = 1\n", plan="/plans/a.json")
    assert mismatch(Parsed(absolute), "graph", PLAN, known=["/plans/a.json"]) is None


# What is refused


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x = 1\ny = (\n", f"app.py:2:5: not {PYTHON} ('(' was never closed)"),
        ("print 'x'\n", f"app.py:1:1: not {PYTHON} (Missing parentheses"),
        ("if x:\n\ty = 1\n        z = 1\n", "app.py:3"),
        ("x = 1\n  y = 2\n", "app.py:2:"),
        ("x = 1\0\n", "(source code string cannot contain null bytes)"),
        (f"x = {'(' * 300}\n", "app.py:1"),
        (f"x = {'-' * 5000}1\n", "app.py: an expression is nested too deeply"),
        (
            f"x = a{'.b()' * 700}\ngraph = 1\n",
            "app.py: an expression is nested too deeply",
        ),
        ("\\\ngraph = 1\n", "app.py: libcst does not give it back as it is"),
    ],
)
def test_what_is_not_python_is_refused_with_the_place(text, place):
    assert place in refusal(text)


def test_a_variable_that_is_not_there_names_those_that_are():
    text = "import os\nbuilder = 1\nclass State: ...\ndef make(): ...\n_private = 2\n"
    assert refusal(text) == "app.py: binds no 'graph'; it binds builder, State, make"
    assert refusal("") == "app.py: binds no 'graph'; it binds nothing"
    assert "name it there" in refusal("from .agent import *\n")
    assert "binds no 'graph'" in refusal("def f():\n    global graph\n    graph = 1\n")
    assert "binds no 'graph'" in refusal("graph: Graph\nx.graph = 1\n")


def test_a_class_is_refused():
    assert refusal("x = 1\nclass graph: ...\n") == (
        "app.py:2: graph: is a class; name a graph, or a function that makes one"
    )


def test_a_variable_that_a_function_binds_is_refused():
    text = "graph = None\ndef start():\n    global a, graph\n    graph = 1\nstart()\n"
    assert refusal(text) == (
        "app.py:3: graph: a function binds it (global), where no line behind it would "
        "reach; let the function return the graph, or apply the plan there"
    )
    assert LINE in wrapped("graph = 1\ndef start():\n    global other\n    graph = 2\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("if a:\n    graph = 1\n", 1),
        ("graph = None\nif a:\n    graph = 1\n", 2),
        ("if a: graph = 1\nelif b: graph = 2\n", 1),
        ("try:\n    graph = 1\nexcept E:\n    graph = None\n", 1),
        ("graph: G = None\ntry:\n    graph = 1\nexcept E:\n    pass\n", 2),
        ("for graph in x: pass\n", 1),
        ("if a:\n    if b:\n        graph = 1\nelse:\n    graph = 2\n", 1),
    ],
)
def test_a_block_that_may_leave_no_graph_is_known(text, line):
    assert may_be_unbound(Parsed(text), "graph") == line


@pytest.mark.parametrize(
    "text",
    [
        "graph = 1\n",
        "graph = 1\nif a:\n    graph = graph.b\n",
        "if a: graph = 1\nelif b: graph = 2\nelse: raise E\n",
        "if a:\n    graph = 1\nelse:\n    raise E\n",
        "try:\n    graph = 1\nexcept E:\n    log()\n    raise\n",
        "try:\n    from a import graph\nexcept E:\n    from b import graph\n",
        "with a:\n    graph = 1\n",
        "if TYPE_CHECKING:\n    graph: G\nelse:\n    graph = 1\n",
        "def graph(): ...\n",
    ],
)
def test_a_graph_that_is_there_in_any_case_is_known(text):
    assert may_be_unbound(Parsed(text), "graph") is None


# Bytes


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_the_lines_around(newline):
    text = f"import os{newline}graph = 1{newline}x = 2{newline}"
    new = wrapped(text)
    assert set(re.findall(r"\r\n|\r|\n", new)) == {newline}
    assert wrapped(text).split(newline)[-3:-1] == [LINE, "x = 2"]


def test_a_thousand_blank_lines_take_no_time():
    text = "graph = 1\r\n" + " \r\n" * 1000 + "x = 2\r\n"
    assert wrapped(text).count(LINE) == 1


def test_mixed_line_ends_stay_mixed():
    text = "import os\r\nimport re\ngraph = 1\rx = '''\r\n\r'''\ny = 2"
    assert wrapped(text) == (
        f"import os\r\nimport re\n\n{IMPORT}\ngraph = 1\r{LINE}\rx = '''\r\n\r'''\ny = 2"
    )


def test_form_feeds_and_odd_white_space_stay():
    text = "\fimport os\n\f\n  \fgraph = 1\t \f# \u2028 c\n\f\nx = 'a\fb'\n"
    new = wrapped(text)
    assert without(new) == text.replace("import os\n", "import os\n\n")
    assert f"# \u2028 c\n{LINE}\n" in new


def test_a_path_is_written_so_that_any_file_can_hold_it():
    assert literal("../a b/slm-plan.json") == '"../a b/slm-plan.json"'
    for path in ("plän.json", 'a"b.json', "a\\b.json", "a'\n.json"):
        assert ast.literal_eval(literal(path)) == path
        assert literal(path).isascii()


# Files of others

PACKAGES = ("langgraph", "langchain", "json", "email", "asyncio", "hypothesis")


def corpus():
    """Some files of installed packages; every one that binds something counts."""
    paths = sysconfig.get_paths()
    for package in PACKAGES:
        for root in (paths["purelib"], paths["stdlib"]):
            yield from sorted(Path(root, package).rglob("*.py"))[:12]


def last_variable(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    names += [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    return names[-1] if names else None


FILES = [
    path
    for path in corpus()
    if 0 < path.stat().st_size < 12_000 and last_variable(path.read_text()) is not None
][:24]


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_real_files_get_the_lines_and_nothing_else(path):
    data = path.read_bytes()
    text = data.decode()
    variable = last_variable(text)
    new = wrapped(text, variable)
    line = f'{variable} = apply_plan({variable}, "{PLAN}")'
    put = [each for each in new.splitlines() if each not in text.splitlines()]
    assert put in ([IMPORT, line], [line, IMPORT])
    kept = [each for each in new.splitlines() if each not in (IMPORT, line)]
    assert [e for e in kept if e] == [e for e in text.splitlines() if e]
    after = new.encode()
    entry = Entry(graphs=(), written=(written(data, after),))
    assert restored(after, entry, "app.py") == data


def test_the_corpus_is_worth_its_name():
    assert len(FILES) == 24


PIECES = st.sampled_from(
    [
        "import os",
        "from langgraph.graph import StateGraph",
        "# a comment",
        "",
        "\f",
        "x = '''\n# graph = 1\n'''",
        "if x:\n\tgraph = 2\n\t# end",
        "graph = build()  # c",
        "def graph(): return 1",
        "try:\n    import y\nexcept ImportError: y = None",
        "class A:\n    graph = 3\n\n    # of A",
        "z = 1; y = 2",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=8),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    ends=st.booleans(),
)
def test_any_module_comes_back(pieces, newline, ends):
    text = newline.join([*pieces, "graph = last()"]) + newline * ends
    new = wrapped(text)
    data, after = text.encode(), new.encode()
    entry = Entry(graphs=(), written=(written(data, after),))
    assert restored(after, entry, "app.py") == data
    put = [IMPORT, LINE]
    assert [e for e in new.splitlines() if e and e not in put] == [
        e for e in text.splitlines() if e
    ]
