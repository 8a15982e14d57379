"""Whether an expression is certainly a text, and not None. Pure."""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m
from libcst.metadata import ParentNodeProvider, QualifiedNameProvider, ScopeProvider

# Methods that give a text, or several, whatever the text they belong to.
_METHODS = frozenset(
    {
        "format",
        "join",
        "lower",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rpartition",
        "rsplit",
        "split",
        "strip",
        "upper",
    }
)
_GETTERS = frozenset({"get", "getenv", "getattr", "pop", "setdefault"})
_DEPTH = 8  # names that stand for names; a loop's may go round in circles


class TextValues:
    """Looks at expressions of a module that a visitor with metadata walks through."""

    METADATA_DEPENDENCIES = (ParentNodeProvider, QualifiedNameProvider, ScopeProvider)

    def __init__(self, visitor: cst.CSTVisitor) -> None:
        self._visitor = visitor

    def is_text(self, node: cst.CSTNode, depth: int = _DEPTH) -> bool:
        """Whether a value is a text, whatever happens."""
        match node:
            case cst.SimpleString():
                return isinstance(node.evaluated_value, str) and node.raw_value != ""
            case cst.FormattedString() | cst.ConcatenatedString():
                return True
            case cst.Subscript(value=value):
                return self._is_called(value, {"os.environ"})
        return depth > 0 and self._is_made_of_texts(node, depth - 1)

    def _is_made_of_texts(self, node: cst.CSTNode, depth: int) -> bool:
        match node:
            case cst.BinaryOperation(left=part):
                return self.is_text(part, depth)
            case cst.BooleanOperation(operator=cst.Or(), right=part):
                return self.is_text(part, depth)
            case cst.IfExp(body=body, orelse=orelse):
                return self.is_text(body, depth) and self.is_text(orelse, depth)
            case cst.Call():
                return self._is_text_call(node, depth)
            case cst.Name():
                return self._is_text_name(node, depth)
        return False

    def _is_called(self, node: cst.CSTNode, names: set[str]) -> bool:
        found = self._visitor.get_metadata(QualifiedNameProvider, node, set()) or set()
        return bool(found) and {each.name for each in found} <= names

    def _is_text_call(self, node: cst.Call, depth: int) -> bool:
        if self._is_called(node.func, {"builtins.str"}):
            return True
        method = node.func.attr.value if isinstance(node.func, cst.Attribute) else ""
        if method in _METHODS:
            return True
        function = node.func.value if isinstance(node.func, cst.Name) else method
        has_default = function in _GETTERS and len(node.args) > 1
        return has_default and self.is_text(node.args[-1].value, depth)

    def _is_text_name(self, node: cst.Name, depth: int) -> bool:
        scope = self._visitor.get_metadata(ScopeProvider, node, None)
        assignments = list(scope[node.value]) if scope is not None else []
        nodes = [getattr(each, "node", None) for each in assignments]
        return bool(nodes) and all(self._is_text_binding(each, depth) for each in nodes)

    def _is_text_binding(self, node: cst.CSTNode | None, depth: int) -> bool:
        if isinstance(node, cst.Param):
            said = node.annotation.annotation if node.annotation else None
            return m.matches(said, m.Name("str")) if said is not None else False
        parent = node
        while parent is not None and not isinstance(parent, cst.BaseStatement):
            if isinstance(parent, cst.Assign | cst.AnnAssign):
                return parent.value is not None and self.is_text(parent.value, depth)
            if isinstance(parent, cst.CompFor | cst.For):
                return False
            parent = self._visitor.get_metadata(ParentNodeProvider, parent, None)
        return False
