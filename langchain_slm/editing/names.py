"""Which names a statement of a module binds, when the module is imported. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import libcst as cst
from libcst import matchers as m
from typing_extensions import override

Kind: TypeAlias = Literal["value", "function", "class", "import"]
_MAIN = m.Comparison(
    left=m.Name("__name__"), comparisons=[m.ComparisonTarget(operator=m.Equal())]
)
_NONE = m.SimpleStatementLine(
    body=[m.Assign(value=m.Name("None")) | m.AnnAssign(value=m.Name("None"))]
)
_RAISES = m.SimpleStatementLine(body=[m.ZeroOrMore(), m.Raise()]) | (
    m.SimpleStatementSuite(body=[m.ZeroOrMore(), m.Raise()])
)
_TYPE_CHECKING = m.Name("TYPE_CHECKING") | m.Attribute(attr=m.Name("TYPE_CHECKING"))


def bound_names(node: cst.CSTNode) -> dict[str, Kind]:
    """Return the names that a statement binds, and what they stand for.

    Not those that it binds only for type checkers, or when the file is run as a script.
    """
    visitor = _Bound()
    node.visit(visitor)
    return visitor.names


def binds_in_any_case(node: cst.CSTNode, name: str) -> bool:
    """Whether a name has a value behind a statement, whichever of its blocks runs."""
    match node:
        case cst.If(body=body, orelse=orelse):
            hidden = is_type_checking(node) or is_main(node)
            then = hidden or binds_in_any_case(body, name)
            return then and orelse is not None and binds_in_any_case(orelse, name)
        case cst.Try(body=body, handlers=handlers):
            tried = [body, *(each.body for each in handlers)]
            return all(binds_in_any_case(each, name) for each in tried)
        case cst.Else(body=body):
            return binds_in_any_case(body, name)
        case cst.IndentedBlock(body=body):
            return any(binds_in_any_case(each, name) for each in body)
        case cst.For() | cst.While() | cst.Match():
            return False
    # Behind what raises there is nothing that could miss the name.
    has_value = name in bound_names(node) and not m.matches(node, _NONE)
    return has_value or m.matches(node, _RAISES)


def is_type_checking(node: cst.If) -> bool:
    """Whether an `if` is for type checkers alone."""
    return m.matches(node.test, _TYPE_CHECKING)


def is_main(node: cst.If) -> bool:
    """Whether an `if` is for a file that is run as a script."""
    return m.matches(node.test, _MAIN)


class _Bound(cst.CSTVisitor):
    def __init__(self) -> None:
        self.names: dict[str, Kind] = {}

    @override
    def on_visit(self, node: cst.CSTNode) -> bool:
        match node:
            case cst.FunctionDef():
                self._bind(node.name, "function")
                return False
            case cst.ClassDef():
                self._bind(node.name, "class")
                return False
            case cst.Lambda():
                return False
            case cst.If() if is_type_checking(node) or is_main(node):
                if node.orelse is not None:
                    node.orelse.visit(self)
                return False
            case cst.ImportAlias():
                name = node.asname.name if node.asname else node.name
                self._bind(name, "import")
                return False
        self._bind_values(node)
        return True

    def _bind_values(self, node: cst.CSTNode) -> None:
        match node:
            case (
                cst.AssignTarget(target=target)
                | cst.AugAssign(target=target)
                | cst.NamedExpr(target=target)
                | cst.For(target=target)
                | cst.AsName(name=target)
            ):
                self._bind(target, "value")
            case cst.AnnAssign(target=target, value=value) if value is not None:
                self._bind(target, "value")
            case cst.MatchAs(name=name) if name is not None:
                self._bind(name, "value")

    def _bind(self, target: cst.CSTNode, kind: Kind) -> None:
        if isinstance(target, cst.Name):
            self.names[target.value] = kind
        elif isinstance(target, cst.Tuple | cst.List):
            for element in target.elements:
                self._bind(element.value, kind)
        elif isinstance(target, cst.Attribute) and kind == "import":
            self._bind(target.value, kind)  # `import a.b` binds `a`
