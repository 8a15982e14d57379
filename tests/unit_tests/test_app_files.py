"""Which files of an app a file imports."""

from pathlib import Path

import pytest

from langchain_slm.editing.app_files import imported_files, is_own, reached
from langchain_slm.editing.syntax import Parsed


@pytest.fixture
def write(tmp_path):
    def _write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return _write


@pytest.fixture
def shop(tmp_path, write):
    for name in ("__init__", "words", "nodes/__init__", "nodes/reply", "nodes/triage"):
        write(f"shop/{name}.py")
    write("plain/helper.py")
    return tmp_path


def names(root, text, file="shop/graph.py"):
    path = root / file
    path.write_text(text)
    found = imported_files(Parsed(text), path, roots=[root], project=root)
    return [each.relative_to(root).as_posix() for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from .words import x", ["shop/words.py"]),
        ("from . import words, nodes", ["shop/words.py", "shop/nodes/__init__.py"]),
        (
            "from .nodes import reply, other",
            ["shop/nodes/__init__.py", "shop/nodes/reply.py"],
        ),
        (
            "from .nodes.triage import *",
            ["shop/nodes/__init__.py", "shop/nodes/triage.py"],
        ),
        (
            "import shop.nodes.reply as r",
            ["shop/__init__.py", "shop/nodes/__init__.py", "shop/nodes/reply.py"],
        ),
        ("from shop import words", ["shop/__init__.py", "shop/words.py"]),
        ("import plain.helper", ["plain/helper.py"]),
        ("from plain import helper", ["plain/helper.py"]),
        ("def f():\n    from .words import x", ["shop/words.py"]),
        ("try:\n    from .words import x\nexcept ImportError: ...", ["shop/words.py"]),
        ("if TYPE_CHECKING:\n    from .words import x", []),
        ("import os, langgraph.graph, json", []),
        ("from .graph import x", []),
        ("from .....deep import x\nfrom .gone import y", []),
    ],
)
def test_imports_lead_to_files_of_the_app(shop, text, expected):
    assert names(shop, f"{text}\n") == expected


def test_everything_that_is_reached_is_read_once_packages_included(shop, write):
    write("shop/graph.py", "from .nodes.reply import x\n")
    write("shop/nodes/reply.py", "from ..words import x\nfrom ..graph import y\n")
    write("shop/words.py", "x = (")
    read = []

    def imported(path):
        read.append(path.relative_to(shop).as_posix())
        if path.name == "words.py":
            return []
        return imported_files(Parsed(path.read_text()), path, roots=[shop], project=shop)

    found = reached(shop / "shop/graph.py", imported)
    assert [each.relative_to(shop).as_posix() for each in found] == read
    assert sorted(read) == [
        "shop/__init__.py",
        "shop/graph.py",
        "shop/nodes/__init__.py",
        "shop/nodes/reply.py",
        "shop/words.py",
    ]


def test_what_is_installed_or_outside_is_not_the_apps(tmp_path, write):
    project = tmp_path / "project"
    own = write("project/app.py")
    write("project/env/pyvenv.cfg")
    outside = write("outside.py")
    (project / "link.py").symlink_to(outside)
    others = [
        outside,
        project / "link.py",
        write("project/env/lib/x.py"),
        write("project/lib/site-packages/y.py"),
        write("project/node_modules/z.py"),
        Path("/gone/w.py"),
    ]
    assert is_own(own, project)
    assert [each for each in others if is_own(each, project)] == []
