import ast
import subprocess
import sys
from pathlib import Path

import langchain_slm

PACKAGE = Path(langchain_slm.__file__).parent


def test_every_exported_name_loads():
    for name in langchain_slm.__all__:
        assert getattr(langchain_slm, name).__module__.startswith("langchain_slm.")


def test_exports_equal_the_names_that_type_checkers_see():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    seen = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("langchain_slm")
        for alias in node.names
    ]
    assert sorted(seen) == langchain_slm.__all__
    assert sorted(langchain_slm._MODULES) == langchain_slm.__all__
    assert len(langchain_slm.__all__) <= 23


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(langchain_slm, "no_such_name")


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys; import langchain_slm; "
        "print([m for m in ('pydantic', 'langchain_core', 'langgraph', 'sqlalchemy', "
        "'numpy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


def test_help_imports_neither_langchain_nor_sklearn():
    code = (
        "import sys; from langchain_slm.cli import main; main(['--help']); "
        "print([m for m in ('langchain_core', 'langgraph', 'sqlalchemy', 'numpy', "
        "'sklearn', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().splitlines()[-1] == "[]"


def test_nothing_is_unpickled_or_evaluated_but_the_cells_of_an_apps_notebook():
    forbidden = {"pickle", "shelve", "marshal", "dill", "joblib", "yaml"}
    evaluating = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                evaluating += [path] * (node.func.id in {"eval", "exec"})
            assert not forbidden & set(names), path
    # Where its user names one, it is run as a module is that is imported.
    assert evaluating == [PACKAGE / "loading" / "notebooks.py"]
