"""The imports that an edit needs: those that a module has, and those to add. Pure."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import libcst as cst
from typing_extensions import override

from langchain_slm.editing.names import bound_names
from langchain_slm.editing.syntax import (
    Edit,
    Imported,
    Parsed,
    Statement,
    import_nodes,
    imported,
    module_of,
    names_of,
)

PACKAGE = "langchain_slm"
# What is sorted beside our own import, where an app has it.
_KIN = "lang"


class Imports:
    """What names a module gives to imported things, and the edits that add some.

    Args:
        parsed: The module.
        before: Offset by which the names are needed.
        since: Offset from which imports may be added: of a cell of a notebook.
    """

    def __init__(self, parsed: Parsed, *, before: int, since: int = 0) -> None:
        self._parsed, self._before, self._since = parsed, before, since
        self._known = [
            each for each in imported(parsed) if each.direct and each.end <= before
        ]
        self._bound = Counter(
            name for each in parsed.statements for name in bound_names(each.node)
        )
        self._taken = used_names(parsed)
        self._added: dict[str, list[str]] = {}

    def name(self, module: str, name: str) -> str:
        """Return what to call `name` of `module`; adds an import where there is none."""
        for each in self._known:
            if found := self._called(each, module, name):
                return found
        local = self.free(name)
        imported_as = name if local == name else f"{name} as {local}"
        names = self._added.setdefault(module, [])
        if imported_as not in names:
            names.append(imported_as)
        return local

    def _called(self, each: Imported, module: str, name: str) -> str | None:
        if self._bound[each.local.partition(".")[0]] > 1:
            return None  # it may stand for something else by then
        if each.qualified == f"{module}.{name}":
            return each.local
        return f"{each.local}.{name}" if each.qualified == module else None

    def free(self, name: str) -> str:
        """Return a name like `name` that the module does not use."""
        if name not in self._taken:
            return name
        return self.free(f"Slm{name}" if name[0].isupper() else f"slm_{name}")

    def edits(self) -> list[Edit]:
        """Return the edits that add what is missing."""
        return [
            self._edit(module, f"from {module} import {', '.join(sorted(names))}")
            for module, names in sorted(self._added.items(), reverse=True)
        ]

    def _edit(self, module: str, line: str) -> Edit:
        imports = list(self._imports())
        is_standard = _is_standard(module)
        same = [
            (name, statement)
            for name, statement in imports
            if not name.startswith(".") and _is_standard(name) == is_standard
        ]
        if not is_standard:
            same = [each for each in same if each[0].startswith(_KIN)] or same
        earlier = [each for name, each in same if name.lower() <= module]
        if earlier:
            return _after(self._parsed, earlier[-1], line)
        if same:
            return _ahead(self._parsed, same[0][1], line)
        return self._alone(line, imports, is_standard=is_standard)

    def _alone(
        self, line: str, imports: list[tuple[str, Statement]], *, is_standard: bool
    ) -> Edit:
        """Return the edit that adds the first import of its kind."""
        absolute = [each for name, each in imports if not name.startswith(".")]
        if absolute and not is_standard:
            return _after(self._parsed, absolute[-1], line, blank=True)
        if imports:
            return _ahead(self._parsed, imports[0][1], line, blank=True)
        head, first = self._head()
        if head is not None:
            return _after(self._parsed, head, line, blank=True)
        if first is not None:
            return _ahead(self._parsed, first, line, blank=True)
        return Edit(self._since, self._since, line + self._parsed.newline(self._since))

    def _imports(self) -> Iterator[tuple[str, Statement]]:
        for statement in self._parsed.statements:
            if self._since <= statement.start and statement.end <= self._before:
                for node in import_nodes(statement.node)[:1]:
                    name = _name_of(node)
                    if name != "__future__":
                        yield name, statement

    def _head(self) -> tuple[Statement | None, Statement | None]:
        """Return the last statement that must come first, and the one behind it."""
        head = None
        for statement in self._parsed.statements:
            if statement.start < self._since:
                continue
            if not comes_first(statement.node):
                return head, statement
            head = statement
        return head, None


def used_names(parsed: Parsed) -> set[str]:
    """Return all names that a module uses, of whatever."""
    names = _Names()
    parsed.visit(names)
    return names.found


class _Names(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: set[str] = set()

    @override
    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Name):
            self.found.add(node.value)
        return True


def comes_first(node: cst.CSTNode) -> bool:
    """Whether a statement is a docstring, a future import or a magic of a notebook."""
    if not isinstance(node, cst.SimpleStatementLine):
        return False
    first = node.body[0]
    if isinstance(first, cst.ImportFrom):
        return module_of(first) == "__future__"
    strings = cst.SimpleString | cst.ConcatenatedString
    is_text = isinstance(first, cst.Expr) and isinstance(first.value, strings)
    return is_text or isinstance(first, cst.Pass)


def _name_of(node: cst.Import | cst.ImportFrom) -> str:
    if isinstance(node, cst.ImportFrom):
        return module_of(node)
    return next(names_of(node))[1]


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _after(
    parsed: Parsed, statement: Statement, line: str, *, blank: bool = False
) -> Edit:
    end = statement.end
    return Edit(end, end, parsed.newline(end) * (1 + blank) + line)


def _ahead(
    parsed: Parsed, statement: Statement, line: str, *, blank: bool = False
) -> Edit:
    start = statement.start
    return Edit(start, start, line + parsed.newline(start) * (1 + blank))
