"""The line that applies a plan to a graph, in the text of its module. Pure.

    graph = apply_plan(graph, "slm-plan.json")

It stands behind the last statement that binds the variable. Everything else of the text
stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from posixpath import normpath
from typing import Any

import libcst as cst
from libcst import matchers as m

from langchain_slm.editing.importing import PACKAGE, Imports
from langchain_slm.editing.names import Kind, binds_in_any_case, bound_names
from langchain_slm.editing.syntax import (
    Edit,
    Parsed,
    Statement,
    dotted,
    import_nodes,
    imported,
)
from langchain_slm.errors import SourceError

APPLY = "apply_plan"
# Functions of this package that bind a plan to a graph; an app may call either.
_APPLYING = frozenset({f"{PACKAGE}.{APPLY}", f"{PACKAGE}.rewrite"})
_PLAIN = re.compile(r"[\w./ +@-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Applied:
    """A statement that binds a plan to a variable.

    Attributes:
        line: Where, from 1.
        plan: The path that it names; None where it is computed.
        start: Offset of that path's literal.
        end: Of its end.
        nested: Whether it applies a plan to what another call applied one to.
    """

    line: int
    plan: str | None
    start: int = 0
    end: int = 0
    nested: bool = False


def literal(path: str) -> str:
    """Return a path as a Python literal that any file can hold."""
    return f'"{path}"' if _PLAIN.fullmatch(path) else ascii(path)


def wrap(
    parsed: Parsed, variable: str, plan: str, *, known: Collection[str] = ()
) -> list[Edit]:
    """Return the edits that apply a plan to a variable; none where it is applied.

    Args:
        parsed: The module.
        variable: The name of a graph, or of what makes one.
        plan: Path of the plan as the module is to name it.
        known: Other paths that mean the same plan.

    Raises:
        SourceError: If the module does not bind the variable, a plan is applied in a
            way that cannot be edited, or what it binds is a class.
    """
    found = _applications(parsed, variable)
    if not found:
        return _wrapped(parsed, variable, plan)
    if (reason := _trouble(parsed, variable, found)) is not None:
        raise _refused(parsed, variable, found[-1].line, reason)
    last = found[-1]
    if last.plan is not None and _same(last.plan, plan, known):
        return []
    return [Edit(last.start, last.end, literal(plan))]


def mismatch(
    parsed: Parsed, variable: str, plan: str, *, known: Collection[str] = ()
) -> str | None:
    """Return why a module does not apply a plan to a variable once; None if it does.

    Raises:
        SourceError: If the module does not bind the variable.
    """
    last_binding(parsed, variable)
    found = _applications(parsed, variable)
    if not found:
        return f"{variable} is not wrapped: no plan is applied to it"
    if (reason := _trouble(parsed, variable, found)) is not None:
        return reason
    other = found[-1].plan
    if other is not None and _same(other, plan, known):
        return None
    return f"line {found[-1].line} applies {other!r}, not {plan!r}"


def is_applied(parsed: Parsed, variable: str) -> bool:
    """Whether a module applies some plan to a variable."""
    return bool(_applications(parsed, variable))


def _same(path: str, plan: str, known: Collection[str]) -> bool:
    return normpath(path) in {plan, *known}


def _refused(parsed: Parsed, variable: str, line: int, reason: str) -> SourceError:
    msg = f"{parsed.name}:{line}: {variable}: {reason}"
    return SourceError(msg, path=parsed.name, line=line, variable=variable)


# What there is


def _trouble(parsed: Parsed, variable: str, found: list[Applied]) -> str | None:
    last = found[-1]
    if len(found) > 1 or last.nested:
        lines = " and ".join(str(each.line) for each in found)
        return f"a plan is applied more than once (line {lines}); remove all but one"
    statement, _ = last_binding(parsed, variable)
    line = parsed.line(statement.first)
    if line > last.line:
        return (
            f"a plan is applied at line {last.line}, and line {line} binds {variable} "
            "again; remove one of the two"
        )
    if last.plan is None:
        return (
            f"line {last.line} computes the plan's path; write it there as a text, or "
            "change what it computes"
        )
    return None


def _applications(parsed: Parsed, variable: str) -> list[Applied]:
    """Return the statements of the module itself that apply a plan to a variable."""
    known = {each.local: each.qualified for each in imported(parsed)}
    calls = [
        call
        for statement in parsed.statements
        for call in _assigned_calls(statement.node, variable)
    ]
    return [_applied(parsed, call, known) for call in calls if _is_applying(call, known)]


def _assigned_calls(node: cst.CSTNode, variable: str) -> Iterator[cst.Call]:
    for each in node.body if isinstance(node, cst.SimpleStatementLine) else ():
        targets: list[cst.BaseExpression] = []
        if isinstance(each, cst.Assign):
            targets = [target.target for target in each.targets]
        elif isinstance(each, cst.AnnAssign):
            targets = [each.target]
        else:
            continue
        if isinstance(each.value, cst.Call) and variable in map(dotted, targets):
            yield each.value


def _is_applying(node: cst.BaseExpression, known: dict[str, str]) -> bool:
    name = dotted(node.func) if isinstance(node, cst.Call) else None
    if name is None:
        return False
    first, dot, rest = name.partition(".")
    return f"{known.get(first, first)}{dot}{rest}" in _APPLYING


def _applied(parsed: Parsed, call: cst.Call, known: dict[str, str]) -> Applied:
    line = parsed.line(parsed.span(call)[0])
    graph = _argument(call, 0, "graph")
    plan = _argument(call, 1, "plan")
    nested = graph is not None and _is_applying(graph, known)
    if not isinstance(plan, cst.SimpleString | cst.ConcatenatedString):
        return Applied(line, None, nested=nested)
    value = plan.evaluated_value
    text = value if isinstance(value, str) else None
    return Applied(line, text, *parsed.span(plan), nested=nested)


def _argument(call: cst.Call, position: int, name: str) -> cst.BaseExpression | None:
    for number, each in enumerate(call.args):
        if each.star:
            return None
        is_it = each.keyword.value == name if each.keyword else number == position
        if is_it:
            return each.value
    return None


def last_binding(parsed: Parsed, variable: str) -> tuple[Statement, Kind]:
    """Return the last statement that binds a variable when the module is imported.

    Raises:
        SourceError: If there is none; names those that the module binds.
    """
    for statement in reversed(parsed.statements):
        names = bound_names(statement.node)
        if variable in names:
            return statement, names[variable]
    raise _missing(parsed, variable)


def may_be_unbound(parsed: Parsed, variable: str) -> int | None:
    """Return the line of a block without which a variable has no value; None if none.

    Raises:
        SourceError: If the module does not bind the variable.
    """
    statement, _ = last_binding(parsed, variable)
    if any(binds_in_any_case(each.node, variable) for each in parsed.statements):
        return None
    return parsed.line(statement.first)


def _missing(parsed: Parsed, variable: str) -> SourceError:
    names = [name for each in parsed.statements for name in _public(each)]
    known = ", ".join(dict.fromkeys(names)) or "nothing"
    stars = [
        parsed.line(each.first)
        for each in parsed.statements
        for node in import_nodes(each.node)
        if m.matches(node, m.ImportFrom(names=m.ImportStar()))
    ]
    hint = f"; if the import at line {stars[-1]} binds it, name it there" if stars else ""
    msg = f"{parsed.name}: binds no {variable!r}; it binds {known}{hint}"
    return SourceError(msg, path=parsed.name, variable=variable)


def _public(statement: Statement) -> list[str]:
    names = bound_names(statement.node).items()
    return [n for n, kind in names if kind != "import" and not n.startswith("_")]


# What is added


def _wrapped(parsed: Parsed, variable: str, plan: str) -> list[Edit]:
    statement, kind = last_binding(parsed, variable)
    if kind == "class":
        line = parsed.line(statement.first)
        reason = "is a class; name a graph, or a function that makes one"
        raise _refused(parsed, variable, line, reason)
    for each in m.findall(parsed.module, m.Global(names=_among(variable))):
        line = parsed.line(parsed.span(each)[0])
        reason = (
            "a function binds it (global), where no line behind it would reach; let the "
            "function return the graph, or apply the plan there"
        )
        raise _refused(parsed, variable, line, reason)
    end = _place(parsed, variable, statement, kind).end
    imports = Imports(parsed, before=end)
    function = imports.name(PACKAGE, APPLY)
    newline = parsed.newline(end)
    blank = newline * (3 if kind == "function" else 1)
    new = f"{blank}{variable} = {function}({variable}, {literal(plan)})"
    return [*imports.edits(), Edit(end, end, new)]


def _among(variable: str) -> list[Any]:
    named = m.NameItem(name=m.Name(variable))
    return [m.ZeroOrMore(), named, m.ZeroOrMore()]


def _place(parsed: Parsed, variable: str, statement: Statement, kind: Kind) -> Statement:
    """Return the statement to stand behind.

    Of a run of imports it is the last, of a graph that is still built the last that adds
    to it: a node that is added to a copy is not bound.
    """
    following = parsed.statements[parsed.statements.index(statement) + 1 :]
    if kind == "import":
        is_import = [bool(import_nodes(each.node)) for each in following]
        run = following[: [*is_import, False].index(False)]
        return run[-1] if run else statement
    building = [each for each in following if _builds(each.node, variable)]
    return building[-1] if building else statement


def _builds(node: cst.CSTNode, variable: str) -> bool:
    adding = m.Attribute(value=m.Name(variable), attr=m.Name(m.MatchIfTrue(_is_building)))
    return bool(m.findall(node, m.Call(func=adding)))


def _is_building(method: str) -> bool:
    return method.startswith(("add_", "set_"))
