"""Notebooks: edits of their cells, and every other byte as it was."""

import difflib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm.editing.documents import read_document
from langchain_slm.editing.inlining import inline
from langchain_slm.editing.notebook_source import NotebookSource
from langchain_slm.editing.source import mismatch, wrap
from langchain_slm.editing.syntax import Edit, edited
from langchain_slm.errors import SourceError

IMPORT = "from langchain_slm import apply_plan"
LINE = 'graph = apply_plan(graph, "slm-plan.json")'
OUTPUT = {
    "data": {"text/plain": ["<é 日本 \U0001f600>\n"]},
    "execution_count": 3,
    "metadata": {},
    "output_type": "execute_result",
}


def code(source, **more):
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "a1b2",
        "metadata": {"tags": []},
        "outputs": [],
        "source": source,
        **more,
    }


def text_cell(source):
    return {"cell_type": "markdown", "id": "c3", "metadata": {}, "source": source}


def notebook(*cells, **more):
    return {
        "cells": list(cells),
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
        **more,
    }


def dumped(said, indent=1, end="\n", **more):
    return (json.dumps(said, indent=indent, ensure_ascii=False, **more) + end).encode()


def wrapped(data, name="app.ipynb"):
    """The notebook with its line, after a second run has changed nothing."""
    document = read_document(data, name)
    after = document.edited(wrap(document.parsed, "graph", "slm-plan.json"))
    again = read_document(after, name)
    assert wrap(again.parsed, "graph", "slm-plan.json") == []
    assert mismatch(again.parsed, "graph", "slm-plan.json") is None
    return after


def sources(data):
    cells = json.loads(data.decode("utf-8-sig"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def changed_lines(before, after):
    lines = difflib.ndiff(before.decode().split("\n"), after.decode().split("\n"))
    return [line for line in lines if line[0] in "+-"]


APP = notebook(
    text_cell("# An app\n\ngraph = 1"),
    code(["%pip install -q langgraph\n", "!ls\n", "import os"]),
    code(["from langgraph.graph import StateGraph\n", "builder = StateGraph(dict)"]),
    code(["graph = builder.compile()\n", "graph"], outputs=[OUTPUT]),
    code(["graph.invoke({})"]),
)


def test_the_line_follows_the_graph_and_the_import_the_other_imports():
    data = dumped(APP)
    after = wrapped(data)
    assert sources(after) == [
        "# An app\n\ngraph = 1",
        "%pip install -q langgraph\n!ls\nimport os",
        f"{IMPORT}\nfrom langgraph.graph import StateGraph\nbuilder = StateGraph(dict)",
        f"graph = builder.compile()\n{LINE}\ngraph",
        "graph.invoke({})",
    ]


def test_two_lines_are_all_that_changes_in_the_file():
    data = dumped(APP)
    assert changed_lines(data, wrapped(data)) == [
        f'+     "{IMPORT}\\n",',
        '+     "graph = apply_plan(graph, \\"slm-plan.json\\")\\n",',
    ]


def test_a_last_line_without_an_end_gets_one():
    data = dumped(notebook(code(["import os\n", "graph = 1"])))
    assert sorted(changed_lines(data, wrapped(data))) == [
        '+     "\\n",',
        f'+     "{IMPORT}\\n",',
        '+     "graph = 1\\n",',
        '+     "graph = apply_plan(graph, \\"slm-plan.json\\")"',
        '-     "graph = 1"',
    ]


@pytest.mark.parametrize(
    "data",
    [
        dumped(APP, indent=None),
        dumped(APP, indent=2),
        dumped(APP, indent="\t"),
        dumped(APP, indent=None, separators=(",", ":")),
        dumped(APP, end=""),
        dumped(APP, sort_keys=True),
        dumped(APP).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + dumped(APP),
        (json.dumps(APP, indent=1) + "\n\n").encode(),
        b" \n" + dumped(APP).replace(b'"id": "a1b2"', b'"id"  :\n"a\\u0031b2"'),
    ],
)
def test_the_layout_of_the_file_stays(data):
    after = wrapped(data)
    plain = json.loads(data.decode("utf-8-sig"))
    new = json.loads(after.decode("utf-8-sig"))
    for cell, old in zip(new["cells"], plain["cells"], strict=True):
        assert {**cell, "source": None} == {**old, "source": None}
    put = [IMPORT.encode(), b'graph = apply_plan(graph, \\"slm-plan.json\\")']
    pieces = after
    for text in put:
        assert pieces.count(text) == 1
        start = pieces.index(text) - 1
        end = data_after(pieces, start)
        pieces = pieces[:start] + pieces[end:]
    assert pieces == data


def data_after(data, start):
    """Where the element of an array that follows the one at `start` begins."""
    end = data.index(b'\\n"', start) + 4
    while data[end : end + 1].isspace():
        end += 1
    return end


def test_a_source_that_is_one_text_stays_one():
    source = 'import os\ngraph = 1\n\n# é "q" \\ \t end'
    data = dumped(notebook(code(source)))
    after = json.loads(wrapped(data))["cells"][0]["source"]
    assert after == source.replace("import os", f"import os\n\n{IMPORT}").replace(
        "graph = 1", f"graph = 1\n{LINE}"
    )


def test_escapes_stay_as_they_are_written():
    raw = b'{"cells": [{"cell_type": "code", "source": ['
    raw += b"\"x = '\\u00e9\\/\\ud83d\\ude00'\\n\", "
    raw += b'"graph = \'\\u00e9\'"]}], "nbformat": 4}'
    after = wrapped(raw)
    assert b"x = '\\u00e9\\/\\ud83d\\ude00'\\n" in after
    assert b'"graph = \'\\u00e9\'\\n", "graph = apply_plan' in after


def test_letters_beyond_ascii_are_escaped_where_the_file_escapes():
    escaped = json.dumps(notebook(code(["graph = 1"]))).encode()
    open_ = dumped(notebook(text_cell("é"), code(["graph = 1"])), indent=None)
    for data, written in ((escaped, b"\\u00e9"), (open_, "é".encode())):
        found = NotebookSource(data.decode(), "app.ipynb")
        new = found.edited([Edit(0, 0, "é = 1\n")]).encode()
        assert b'"' + written + b' = 1\\n","graph = 1"' in new


def test_cells_that_are_no_python_are_named_and_left():
    data = dumped(
        notebook(
            code(["%%bash\n", "graph = (\n"]),
            code(["this is (\n", "no python"]),
            code(["%%time\n", "import os\n", "graph = await build()\n", "files = !ls"]),
        )
    )
    after = wrapped(data)
    assert sources(after)[:2] == sources(data)[:2]
    assert sources(after)[2] == (
        f"%%time\nimport os\n\n{IMPORT}\ngraph = await build()\n{LINE}\nfiles = !ls"
    )
    assert read_document(data, "app.ipynb").unread() == [
        ("app.ipynb: cell 2", "line 1: '(' was never closed")
    ]


def test_the_import_goes_behind_magics_into_the_cell_of_the_graph():
    data = dumped(notebook(code(["!pip install x\n", "graph = 1\n"])))
    assert sources(wrapped(data)) == [f"!pip install x\n\n{IMPORT}\ngraph = 1\n{LINE}\n"]


def test_a_text_that_begins_a_line_like_a_magic_is_none():
    source = ["x = '''\n", "%s\n", "!y\n", "'''\n", "graph = 7 \\\n", "% 5\n"]
    data = dumped(notebook(code(source)))
    assert sources(wrapped(data))[0].endswith(f"% 5\n{LINE}\n")


def test_a_magic_that_would_shift_the_lines_is_left_alone():
    data = dumped(notebook(code("!a\rb\nx = (\n"), code("!a\rb\n"), code("graph = 1")))
    assert sources(wrapped(data))[2] == f"{IMPORT}\n\ngraph = 1\n{LINE}"


def test_models_in_cells_go_through_one_router():
    cells = notebook(
        code(["from langchain_openai import ChatOpenAI\n", "%env A=1\n"]),
        code(["# The model\n", "llm = ChatOpenAI(\n", "    model='a')\n"]),
        code(["def make():\n", "    return ChatOpenAI()"]),
    )
    document = read_document(dumped(cells), "app.ipynb")
    found = inline(
        document.parsed, "p.json", relied={}, cells=document.starts, is_notebook=True
    )
    after = document.edited(found.edits)
    assert sources(after) == [
        "from langchain_openai import ChatOpenAI\n%env A=1\n",
        (
            "# The model\nfrom langchain_slm import ChatRouter, Router\n\n"
            'slm_router = Router("p.json")\n'
            "llm = ChatRouter(default=ChatOpenAI(\n    model='a'), router=slm_router)\n"
        ),
        "def make():\n    return ChatRouter(default=ChatOpenAI(), router=slm_router)",
    ]
    assert document.place(found.replaced[1]) == "app.ipynb: cell 3, line 2"


def test_the_diff_is_one_of_the_cells():
    document = read_document(dumped(APP), "app.ipynb")
    after = read_document(wrapped(dumped(APP)), "app.ipynb")
    assert document.diff(after) == (
        "--- app.ipynb cell 3\n+++ app.ipynb cell 3\n@@ -1,2 +1,3 @@\n"
        f"+{IMPORT}\n from langgraph.graph import StateGraph\n"
        " builder = StateGraph(dict)\n"
        "--- app.ipynb cell 4\n+++ app.ipynb cell 4\n@@ -1,2 +1,3 @@\n"
        f" graph = builder.compile()\n+{LINE}\n graph\n"
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "app.ipynb:1:1: not JSON"),
        (b'{\n "cells": [,]}', "app.ipynb:2:12: not JSON"),
        (b"[]", "not a notebook that can be edited"),
        (b"{}", "nbformat None, not 4; save it with a newer Jupyter"),
        (b'{"nbformat": 3, "worksheets": []}', "nbformat 3, not 4"),
        (b'{"nbformat": 4}', "not a notebook that can be edited"),
        (b'{"nbformat": 4, "cells": {}}', "not a notebook that can be edited"),
        (b'{"nbformat": 4, "cells": [1]}', "not a notebook that can be edited"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "can be edited"),
        (
            b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}',
            "not a notebook that can be edited",
        ),
        (
            b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": null}]}',
            "not a notebook that can be edited",
        ),
        (
            (
                b'{"nbformat": 4, "cells": [], "metadata": '
                b'{"kernelspec": {"language": "julia"}}}'
            ),
            "its language is julia",
        ),
        (b"[" * 100_000, "app.ipynb: not a notebook that can be edited"),
        (b"\xff\xfe", "app.ipynb: cannot be read as utf-8"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_place(data, says):
    with pytest.raises(SourceError) as caught:
        read_document(data, "app.ipynb")
    assert says in str(caught.value)


def test_a_notebook_without_the_graph_says_what_it_binds():
    document = read_document(dumped(notebook(code(["x = 1"]), code([]))), "app.ipynb")
    with pytest.raises(SourceError, match="binds no 'graph'; it binds x"):
        wrap(document.parsed, "graph", "slm-plan.json")


SOURCES = st.lists(
    st.sampled_from(
        [
            "import os\n",
            "graph = 1\n",
            "# é\n",
            "%magic x\n",
            "\n",
            "def f():\n    pass\n",
        ]
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(SOURCES, max_size=3),
    as_text=st.booleans(),
    indent=st.sampled_from([None, 1, 2]),
)
def test_any_notebook_keeps_what_it_is_not_edited_in(cells, as_text, indent):
    given_cells = [
        code("".join(lines) if as_text else lines) for lines in [*cells, ["graph = 2"]]
    ]
    data = dumped(notebook(*given_cells), indent=indent)
    document = read_document(data, "app.ipynb")
    edits = wrap(document.parsed, "graph", "slm-plan.json")
    after = document.edited(edits)
    assert edited(document.text, edits) == read_document(after, "app.ipynb").text
    old, new = json.loads(data), json.loads(after)
    for cell in [*old["cells"], *new["cells"]]:
        assert isinstance(cell["source"], str if as_text else list)
        del cell["source"]
    assert new == old
    assert read_document(after, "app.ipynb").edited([]) == after
