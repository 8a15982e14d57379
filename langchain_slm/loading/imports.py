"""What importing an app's file would run, from its text alone. Imports nothing.

Listed are calls and reads of the environment at the top level of the file, of the app's
own modules that it imports, and of their functions and classes that are called there.
Calls that only define something, a graph, a prompt or a class, are left out. What a
library does when it is imported is not looked into.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from langchain_slm.errors import GraphLoadError
from langchain_slm.loading.effects import Kind, effect_of_call
from langchain_slm.loading.notebooks import needed_cells, read_cells
from langchain_slm.loading.projects import NamedGraph, package_of

MOST_FILES = 500  # of an app; more would be a library
MOST_DEPTH = 8  # functions inside functions
_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Effect(NamedTuple):
    """One thing that an import would do.

    Attributes:
        file: Where.
        line: From 1.
        kind: What sort of thing.
        what: The name that is called, or the variable that is read; no value of one.
    """

    file: str
    line: int
    kind: Kind
    what: str


@dataclass(slots=True)
class _Module:
    """A file of the app: how it is shown, and what its names stand for."""

    shown: str
    path: Path
    definitions: dict[str, _Definition] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    own: dict[str, tuple[_Module, str]] = field(default_factory=dict)

    def named(self, name: str) -> tuple[_Module, str] | None:
        """Return the module that defines a name, and its name there."""
        return (self, name) if name in self.definitions else self.own.get(name)


def import_effects(named: NamedGraph, roots: Sequence[Path]) -> list[Effect]:
    """Return what importing a graph's file would run, in order.

    Args:
        named: The graph.
        roots: Folders whose modules are the app's own; that of the file is one.

    Raises:
        GraphLoadError: If the file itself cannot be read, or is no Python.
    """
    search = _Search((named.file.resolve().parent, *roots))
    if named.file.suffix == ".ipynb":
        module = _Module(str(named.file), named.file.resolve())
        for cell in needed_cells(read_cells(named.file), named.variable):
            module.shown = cell.file
            search.read(module, cell.source)
    else:
        search.packages(named.file)
        search.file(named.file, str(named.file))
    return list(dict.fromkeys(search.found))


def _text(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as Python ({type(error).__name__})"
        raise GraphLoadError(msg, path=str(path)) from error


class _Search:
    def __init__(self, roots: Sequence[Path]) -> None:
        self.found: list[Effect] = []
        self._roots = roots
        self._modules: dict[Path, _Module] = {}
        self._active: list[ast.AST] = []

    def file(self, path: Path, shown: str) -> _Module:
        """Read a file of the app, once."""
        path = path.resolve()
        if path not in self._modules:
            self._modules[path] = _Module(shown, path)
            if len(self._modules) <= MOST_FILES:
                self.read(self._modules[path], _text(path))
        return self._modules[path]

    def packages(self, file: Path) -> None:
        """Read the packages that a file is in: importing it imports them first."""
        root, parts = package_of(file)
        for number in range(1, len(parts)):
            init = root.joinpath(*parts[:number], "__init__.py")
            self._imported(init, _Module(str(file), file.resolve()))

    def _imported(self, path: Path, importer: _Module) -> _Module:
        shown = _beside(path, importer)
        try:
            return self.file(path, shown)
        except GraphLoadError as error:  # the import would fail there, or be caught
            line = error.fields.get("line")
            at = line if isinstance(line, int) else 1
            self.found.append(Effect(shown, at, "unreadable", "not Python here"))
            return self._modules[path.resolve()]

    def read(self, module: _Module, text: str) -> None:
        """Read a module's text, or a notebook cell's."""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            at = f" at line {line}" if line else ""
            msg = f"{module.shown}: is no Python: {type(error).__name__}{at}"
            raise GraphLoadError(msg, path=module.shown, line=line) from error
        self._block(tree.body, module)

    def _block(self, statements: Iterable[ast.stmt], module: _Module) -> None:
        for statement in statements:
            self._statement(statement, module)

    def _statement(self, node: ast.stmt, module: _Module) -> None:
        if isinstance(node, ast.Import):
            self._import(node, module)
        elif isinstance(node, ast.ImportFrom):
            self._import_from(node, module)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            module.definitions[node.name] = node
            self._decorated(node, module)
        elif isinstance(node, ast.ClassDef):
            module.definitions[node.name] = node
            self._decorated(node, module)
            self._block(node.body, module)
        elif isinstance(node, ast.If):
            self._if(node, module)
        else:
            self._parts(node, module)

    def _decorated(self, node: _Definition, module: _Module) -> None:
        for decorator in node.decorator_list:
            self._expression(decorator, module, discarded=False)
        if not isinstance(node, ast.ClassDef):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self._expression(default, module, discarded=False)

    def _if(self, node: ast.If, module: _Module) -> None:
        test = ast.unparse(node.test)
        if "__name__" in test or test.endswith("TYPE_CHECKING"):
            self._block(node.orelse, module)
            return
        self._parts(node, module)

    def _parts(self, node: ast.AST, module: _Module) -> None:
        """Read the expressions and statements in a statement, in order."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child, module)
            elif isinstance(child, ast.expr):
                self._expression(child, module, discarded=isinstance(node, ast.Expr))
            else:
                self._parts(child, module)

    # Expressions

    def _expression(self, node: ast.expr, module: _Module, *, discarded: bool) -> None:
        if isinstance(node, ast.Lambda):
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, module, discarded=False)
            elif isinstance(child, ast.keyword):
                self._expression(child.value, module, discarded=False)
            elif isinstance(child, ast.comprehension):
                self._expression(child.iter, module, discarded=False)
        if isinstance(node, ast.Call):
            self._call(node, module, discarded=discarded)
        elif isinstance(node, ast.Subscript) and _is_environment(node.value):
            self._found(node, module, "environment", ast.unparse(node))

    def _call(self, node: ast.Call, module: _Module, *, discarded: bool) -> None:
        if isinstance(node.func, ast.Name) and self._own_call(node.func.id, module):
            return
        name = _dotted(node.func)
        root, _, rest = name.partition(".")
        package = module.packages.get(root, "")
        whole = f"{package}.{rest}" if package and rest else package or name
        kind = effect_of_call(name, whole, discarded=discarded)
        if kind is None:
            return
        variable = node.args[0] if node.args and kind == "environment" else None
        shown = ast.unparse(variable) if isinstance(variable, ast.Constant) else ""
        self._found(node, module, kind, f"{name}({shown})")

    def _own_call(self, name: str, module: _Module) -> bool:
        """Read a function or class of the app that is called; False for another name."""
        own = module.named(name)
        if own is None:
            return False
        owner, own_name = own
        definition = owner.definitions[own_name]
        body: list[ast.stmt] = definition.body
        if isinstance(definition, ast.ClassDef):
            body = [
                statement
                for each in definition.body
                if isinstance(each, ast.FunctionDef) and each.name == "__init__"
                for statement in each.body
            ]
        if definition not in self._active and len(self._active) < MOST_DEPTH:
            self._active.append(definition)
            self._block(body, owner)
            self._active.pop()
        return True

    def _found(self, node: ast.expr, module: _Module, kind: Kind, what: str) -> None:
        self.found.append(Effect(module.shown, node.lineno, kind, what))

    # Imports

    def _import(self, node: ast.Import, module: _Module) -> None:
        for alias in node.names:
            shown = alias.asname or alias.name.partition(".")[0]
            whole = alias.name if alias.asname else shown
            module.packages[shown] = whole
            self._run_module(alias.name, module, 0)

    def _import_from(self, node: ast.ImportFrom, module: _Module) -> None:
        source = self._run_module(node.module or "", module, node.level)
        for alias in node.names:
            shown = alias.asname or alias.name
            if source is not None and (own := source.named(alias.name)):
                module.own[shown] = own
                continue
            inner = ".".join(filter(None, (node.module, alias.name)))
            if self._run_module(inner, module, node.level) is None:
                module.packages[shown] = inner

    def _run_module(self, name: str, module: _Module, level: int) -> _Module | None:
        """Read a module of the app and the packages that it is in; None for another."""
        found = None
        for path in self._files(name, module, level):
            found = self._imported(path, module)
        return found

    def _files(self, name: str, module: _Module, level: int) -> list[Path]:
        parts = name.split(".") if name else []
        if level:
            folder = module.path.parent
            for _ in range(level - 1):
                folder = folder.parent
            return list(_module_files(folder, parts) or ())
        for root in self._roots:
            files = _module_files(root, parts) if parts else None
            if files is not None:
                return files
        return []


def _module_files(root: Path, parts: Sequence[str]) -> list[Path] | None:
    """Return the files that an import runs, packages first; None if it is not there."""
    files = [root / "__init__.py"] if not parts else []
    folder = root
    for part in parts:
        folder = folder / part
        if (folder / "__init__.py").is_file():
            files.append(folder / "__init__.py")
        elif folder.with_name(f"{part}.py").is_file():
            files.append(folder.with_name(f"{part}.py"))
        elif not folder.is_dir():
            return None
    return [file for file in files if file.is_file()]


def _beside(path: Path, module: _Module) -> str:
    """Return a path in the form in which the file that imports it was named."""
    named = Path(module.shown.partition("#")[0])
    for above in range(len(module.path.parents)):
        root = module.path.parents[above]
        if path.is_relative_to(root):
            up = named.parents[above] if above < len(named.parents) else None
            return str(up / path.relative_to(root)) if up is not None else str(path)
    return str(path)


def _is_environment(node: ast.expr) -> bool:
    return _dotted(node) in ("os.environ", "environ")


def _dotted(node: ast.expr) -> str:
    """Return a called name; what a method's object comes of is left out."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    if isinstance(node, ast.Call):
        return f"{_dotted(node.func)}()"
    return node.id if isinstance(node, ast.Name) else ""
