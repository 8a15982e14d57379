"""A `ChatRouter` in the place of each chat model that a module makes. Pure.

    slm_router = Router(Path(__file__).with_name("slm-plan.json"))
    llm = ChatRouter(default=ChatOpenAI(model="gpt-4o"), router=slm_router)

One router a module: a plan is read once, and limits and breakers outlive each call of a
function that makes its model anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import libcst as cst

from langchain_slm.editing.constructors import Construction, constructions, reliance
from langchain_slm.editing.importing import PACKAGE, Imports
from langchain_slm.editing.source import literal
from langchain_slm.editing.syntax import Edit, Parsed, Statement, dotted, imported

ROUTER = "slm_router"
_SHOWN = 80  # characters of a call in a list


@dataclass(frozen=True, slots=True)
class Kept:
    """A call that stays as it is.

    Attributes:
        start: Offset of it.
        code: The first line of it.
        reason: Why.
    """

    start: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inlined:
    """What becomes of a module.

    Attributes:
        edits: What changes.
        replaced: Offsets of the calls that are replaced.
        kept: What stays as it is, and why.
        has_router: Whether the module has its router already.
    """

    edits: Sequence[Edit] = ()
    replaced: Sequence[int] = ()
    kept: Sequence[Kept] = ()
    has_router: bool = False


@dataclass(frozen=True, slots=True)
class _Router:
    name: str
    path: cst.BaseExpression | None
    start: int


def router_path(plan: str, path_class: str) -> str:
    """Return the expression by which a module names a plan beside it or above it."""
    path = PurePosixPath(plan)
    ups = sum(part == ".." for part in path.parts)
    rest = "/".join(path.parts[ups:])
    if path.is_absolute():
        return f"{path_class}({literal(plan)})"
    if ups == 0 and len(path.parts) == 1:
        return f"{path_class}(__file__).with_name({literal(rest)})"
    return f"{path_class}(__file__).parents[{ups}] / {literal(rest)}"


def inline(
    parsed: Parsed,
    plan: str,
    *,
    relied: Mapping[str, str],
    cells: Sequence[int] = (0,),
    is_notebook: bool = False,
) -> Inlined:
    """Return the edits that put a `ChatRouter` in the place of each chat model made.

    Args:
        parsed: The module.
        plan: Path of the plan, relative to the module's folder.
        relied: Where the app asks whether something is of a class, by the class's name.
        cells: Offsets at which the cells of a notebook start.
        is_notebook: Whether it is one; a notebook has no `__file__`.
    """
    found = constructions(parsed, reliance(parsed), relied)
    router = _router(parsed)
    known = [_placed(each, router) for each in found]
    calls = [each for each in known if each.reason is None]
    kept = [_kept(parsed, each) for each in known if each.reason is not None]
    edits: list[Edit] = []
    if router is not None:
        edits = _Rewriting(parsed, plan, cells, is_notebook).with_router(router, calls)
    elif calls:
        edits = _Rewriting(parsed, plan, cells, is_notebook).without_router(calls)
    return Inlined(edits, [each.start for each in calls], kept, router is not None)


def has_router(parsed: Parsed) -> bool:
    """Whether a module has a router that was put there for its models."""
    return _router(parsed) is not None


def _placed(each: Construction, router: _Router | None) -> Construction:
    if each.reason is None and router is not None and each.start < router.start:
        reason = f"stands before {router.name} is made; move that line up"
        return Construction(each.start, each.end, reason)
    return each


def _kept(parsed: Parsed, each: Construction) -> Kept:
    code = parsed.text[each.start : each.end].splitlines()[0].rstrip()
    shown = code if len(code) <= _SHOWN else f"{code[: _SHOWN - 3]}..."
    return Kept(each.start, shown, each.reason or "")


def _router(parsed: Parsed) -> _Router | None:
    """Return the router that a module has already."""
    known = {each.local: each.qualified for each in imported(parsed)}
    for statement in parsed.statements:
        for name, call in _named_calls(statement):
            first, dot, rest = (dotted(call.func) or "").partition(".")
            made = f"{known.get(first, first)}{dot}{rest}"
            if made == f"{PACKAGE}.Router" and name.startswith(ROUTER):
                path = call.args[0].value if call.args else None
                return _Router(name, path, statement.first)
    return None


def _named_calls(statement: Statement) -> Iterator[tuple[str, cst.Call]]:
    node = statement.node
    for each in node.body if isinstance(node, cst.SimpleStatementLine) else ():
        if isinstance(each, cst.Assign) and isinstance(each.value, cst.Call):
            yield dotted(each.targets[0].target) or "", each.value


@dataclass(frozen=True, slots=True)
class _Rewriting:
    parsed: Parsed
    plan: str
    cells: Sequence[int]
    is_notebook: bool

    def with_router(self, router: _Router, calls: Sequence[Construction]) -> list[Edit]:
        imports = self._imports(router.start)
        replaced = self._replaced(imports, router.name, calls)
        path = self._path(imports)
        if router.path is not None and path != self.parsed.code(router.path):
            replaced.append(Edit(*self.parsed.span(router.path), path))
        return [*imports.edits(), *replaced]

    def without_router(self, calls: Sequence[Construction]) -> list[Edit]:
        statement = self._statement(calls[0].start)
        place = self._ahead_of(statement)
        imports = self._imports(place)
        name = imports.free(ROUTER)
        made = imports.name(PACKAGE, "Router")
        line = f"{name} = {made}({self._path(imports)})"
        replaced = self._replaced(imports, name, calls)
        added = imports.edits()
        is_apart = any(edit.start == place for edit in added)
        new = self._spaced(place, statement, line, is_apart=is_apart)
        return [*added, Edit(place, place, new), *replaced]

    def _imports(self, before: int) -> Imports:
        cell = max(start for start in self.cells if start <= before)
        return Imports(self.parsed, before=before, since=cell)

    def _path(self, imports: Imports) -> str:
        if self.is_notebook:
            return literal(self.plan)
        return router_path(self.plan, imports.name("pathlib", "Path"))

    def _replaced(
        self, imports: Imports, router: str, calls: Sequence[Construction]
    ) -> list[Edit]:
        edits = []
        for call in calls:
            made = imports.name(PACKAGE, "ChatRouter")
            edits.append(Edit(call.start, call.start, f"{made}(default="))
            edits.append(Edit(call.end, call.end, f", router={router})"))
        return edits

    def _statement(self, offset: int) -> Statement:
        return next(each for each in self.parsed.statements if offset <= each.end)

    def _ahead_of(self, statement: Statement) -> int:
        """Return where a line goes that a statement needs: above its comments, too."""
        text = self.parsed.text
        ends = [each.end for each in self.parsed.statements if each.end < statement.start]
        above = max([0, *(c for c in self.cells if c <= statement.start), *ends])
        place = statement.start
        while place > above:
            line = self.parsed.line_start(place - 1)
            if line < above or not text[line:place].startswith("#"):
                return place
            place = line
        # The comments at the top of a file are about the file.
        return statement.start

    def _spaced(
        self, place: int, statement: Statement, line: str, *, is_apart: bool
    ) -> str:
        """Return a line with the blank ones around it."""
        newline = self.parsed.newline(place)
        above = self.parsed.text[self.parsed.line_start(max(0, place - 1)) : place]
        is_block = isinstance(statement.node, cst.FunctionDef | cst.ClassDef)
        lead = newline if above.strip() and not is_apart else ""
        return f"{lead}{line}{newline * (3 if is_block else 1)}"
