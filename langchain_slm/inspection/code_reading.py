"""Reads the source of one function: what its expressions may stand for. Runs nothing.

It follows assignments in order; both branches of an `if`, every handler, and a loop's
body twice. What a call or an attribute means is asked of a `Meaning`, which may read
other functions in turn.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeGuard

from langchain_slm.inspection.peeking import is_a
from langchain_slm.inspection.sources import Function
from langchain_slm.inspection.values import (
    EACH,
    NOTHING,
    Items,
    Known,
    Lookup,
    Parent,
    Thing,
    Value,
    Written,
    constant,
    held,
    joined,
    known,
)

LOOP_ROUNDS = 2  # what a round assigns is there in the next
MOST_TEXT = 60  # characters of code in a message


class Arguments(NamedTuple):
    """What a call is given."""

    positional: tuple[Value, ...] = ()
    keywords: Mapping[str, Value] = {}

    def get(self, index: int | None, *names: str) -> Value:
        """Return an argument by its position or one of its names."""
        for name in names:
            if name in self.keywords:
                return self.keywords[name]
        if index is not None and index < len(self.positional):
            return self.positional[index]
        return NOTHING

    @property
    def all(self) -> Value:
        """Every argument."""
        return joined(*self.positional, *self.keywords.values())


class Spot(NamedTuple):
    """Where code stands.

    Attributes:
        file: As a code object names it.
        line: From 1.
        text: The code, on one line.
    """

    file: str
    line: int
    text: str


class Meaning(Protocol):
    """Says what the things that code uses mean."""

    def called(self, callee: Value, given: Arguments, spot: Spot) -> Value:
        """Return what a call gives."""

    def method(self, receiver: Value, name: str, given: Arguments, spot: Spot) -> Value:
        """Return what a method's call gives."""

    def attribute(self, receiver: Value, name: str, spot: Spot) -> Value:
        """Return an attribute that is not called."""

    def item(self, container: Value, key: Value) -> Value:
        """Return an element."""

    def elements(self, container: Value) -> Value:
        """Return what iteration gives."""

    def assigned(self, receiver: Value, name: str, value: Value) -> None:
        """Take note that an attribute is assigned."""

    def imported(self, module: str, name: str | None) -> Value:
        """Return a module, or a name of one, without importing it."""


class Body:
    """One reading of a function's body.

    Args:
        file: As its code object names it.
        around: What its free and global names stand for.
        meaning: What the things that it uses mean.
        names: Its arguments.
    """

    def __init__(
        self, file: str, around: Lookup, meaning: Meaning, names: dict[str, Value]
    ) -> None:
        self._file = file
        self._around = around
        self._meaning = meaning
        self._names = names
        self._returned: list[Value] = []

    def read(self, function: Function) -> Value:
        """Return what the function may return or yield."""
        if isinstance(function, ast.Lambda):
            return self.value(function.body)
        self._block(function.body)
        return joined(*self._returned)

    def lookup(self, name: str) -> Value:
        """Return what a name stands for."""
        if name in self._names:
            return self._names[name]
        return self._around(name)

    # Statements

    def _block(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if name := _STATEMENTS.get(type(node)):
            getattr(self, name)(node)
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)

    def _assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._bind(target, value)

    def _annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.value(node.value))

    def _augmented(self, node: ast.AugAssign) -> None:
        both = ast.BinOp(_loaded(node.target), node.op, node.value)
        self._bind(node.target, self.value(ast.copy_location(both, node)))

    def _return(self, node: ast.Return) -> None:
        if node.value is not None:
            self._returned.append(self.value(node.value))

    def _branches(self, *blocks: Iterable[ast.stmt]) -> None:
        """Read alternatives; afterwards a name stands for what any of them gave it."""
        before, after = dict(self._names), []
        for block in blocks:
            self._names = dict(before)
            self._block(block)
            after.append(self._names)
        names = dict.fromkeys(name for each in after for name in each)
        self._names = {
            name: joined(*(each[name] for each in after if name in each))
            for name in names
        }

    def _if(self, node: ast.If) -> None:
        self.value(node.test)
        self._branches(node.body, node.orelse)

    def _while(self, node: ast.While) -> None:
        for _ in range(LOOP_ROUNDS):
            self.value(node.test)
            self._branches(node.body, ())
        self._block(node.orelse)

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        elements = self._meaning.elements(self.value(node.iter))
        for _ in range(LOOP_ROUNDS):
            self._bind(node.target, elements)
            self._branches(node.body, ())
        self._block(node.orelse)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, value)
        self._block(node.body)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        self._branches([*node.body, *node.orelse], *(h.body for h in node.handlers))
        self._block(node.finalbody)

    def _match(self, node: ast.Match) -> None:
        subject = self.value(node.subject)
        for case in node.cases:
            for part in ast.walk(case.pattern):
                name = getattr(part, "name", None)
                if isinstance(name, str):
                    self._names[name] = subject
        self._branches((), *(case.body for case in node.cases))

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        value: Value = (Written(node, self.lookup, self._file, how=("made there",)),)
        for decorator in reversed(node.decorator_list):
            made = self._meaning.called(
                self.value(decorator), Arguments((value,)), self._spot(decorator)
            )
            value = made or value
        self._names[node.name] = value

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            self._names[alias.asname or whole] = self._meaning.imported(whole, None)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = self._absolute(node)
        for alias in node.names:
            self._names[alias.asname or alias.name] = self._meaning.imported(
                module, alias.name
            )

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = constant(self._around("__package__"), str) or ""
        parts = package.split(".")
        above = parts[: len(parts) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    # Targets

    def _bind(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = value
        elif isinstance(target, ast.Starred):
            self._bind(target.value, value)
        elif isinstance(target, ast.Tuple | ast.List):
            for index, each in enumerate(target.elts):
                self._bind(each, self._meaning.item(value, known(index)))
        elif isinstance(target, ast.Attribute):
            self._meaning.assigned(self.value(target.value), target.attr, value)
        elif isinstance(target, ast.Subscript):
            self._put(self.value(target.value), self.value(target.slice), value)

    def _put(self, container: Value, key: Value, value: Value) -> None:
        for each in container:
            if isinstance(each, Items):
                place = _key(key, len(each.entries))
                each.entries[place] = joined(each.entries.get(place, NOTHING), value)

    # Expressions

    def value(self, node: ast.expr | None) -> Value:
        """Return what an expression may stand for."""
        if node is None:
            return NOTHING
        if name := _EXPRESSIONS.get(type(node)):
            found: Value = getattr(self, name)(node)
            return found
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
        return NOTHING

    def _name(self, node: ast.Name) -> Value:
        return self.lookup(node.id)

    def _constant(self, node: ast.Constant) -> Value:
        return known(node.value)

    def _attribute(self, node: ast.Attribute) -> Value:
        return self._meaning.attribute(
            self.value(node.value), node.attr, self._spot(node)
        )

    def _call(self, node: ast.Call) -> Value:
        spot = self._spot(node)
        if isinstance(node.func, ast.Attribute):
            receiver = self._receiver(node.func.value)
            given = self._arguments(node)
            return self._meaning.method(receiver, node.func.attr, given, spot)
        callee = self.value(node.func)
        return self._meaning.called(callee, self._arguments(node), spot)

    def _receiver(self, node: ast.expr) -> Value:
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "super"):
            return self.value(node)
        below = [each.obj for each in self._around("__class__") if _is_class(each)]
        own = next(iter(self._names.values()), NOTHING)  # the first parameter
        return tuple(Parent(each, cls) for each in own for cls in below)

    def _arguments(self, node: ast.Call) -> Arguments:
        positional: list[Value] = []
        for argument in node.args:
            value = self.value(argument)
            spread = isinstance(argument, ast.Starred)
            positional.append(self._meaning.elements(value) if spread else value)
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
                continue
            for each in value:  # **options, where they are written nearby
                if isinstance(each, Items):
                    keywords |= {str(key): v for key, v in each.entries.items()}
        return Arguments(tuple(positional), keywords)

    def _subscript(self, node: ast.Subscript) -> Value:
        container = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            return container
        return self._meaning.item(container, self.value(node.slice))

    def _operation(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.BitOr):
            return held(joined(_flat(left), _flat(right)), "step of a chain")
        return joined(left, right) if isinstance(node.op, ast.Add) else NOTHING

    def _choice(self, node: ast.IfExp) -> Value:
        self.value(node.test)
        return joined(self.value(node.body), self.value(node.orelse))

    def _any_of(self, node: ast.BoolOp) -> Value:
        return joined(*(self.value(each) for each in node.values))

    def _named(self, node: ast.NamedExpr) -> Value:
        value = self.value(node.value)
        self._bind(node.target, value)
        return value

    def _inner(self, node: ast.Await | ast.Starred | ast.YieldFrom) -> Value:
        return self.value(node.value)

    def _yield(self, node: ast.Yield) -> Value:
        self._returned.append(self.value(node.value))
        return NOTHING

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set) -> Value:
        made = Items()
        for index, each in enumerate(node.elts):
            made.entries[index] = self.value(each)
        return (made,)

    def _dict(self, node: ast.Dict) -> Value:
        made = Items()
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                for each in self.value(value):
                    made.entries.update(each.entries if isinstance(each, Items) else {})
            else:
                place = _key(self.value(key), len(made.entries))
                made.entries[place] = self.value(value)
        return (made,)

    def _lambda(self, node: ast.Lambda) -> Value:
        return (Written(node, self.lookup, self._file),)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> Value:
        outside = dict(self._names)
        for each in node.generators:
            self._bind(each.target, self._meaning.elements(self.value(each.iter)))
            for test in each.ifs:
                self.value(test)
        if isinstance(node, ast.DictComp):
            self.value(node.key)
        element = self.value(node.value if isinstance(node, ast.DictComp) else node.elt)
        self._names = outside
        return (Items({EACH: element}),)

    def _spot(self, node: ast.expr) -> Spot:
        return Spot(self._file, node.lineno, _one_line(node))


def _is_class(thing: Thing) -> TypeGuard[Known]:
    return isinstance(thing, Known) and is_a(thing.obj, type)


def _loaded(target: ast.expr) -> ast.expr:
    parsed = ast.parse(ast.unparse(target), mode="eval").body
    return ast.copy_location(ast.fix_missing_locations(parsed), target)


def _flat(value: Value) -> Value:
    """Return what a chain runs: the steps of a dict are runnables, too."""
    return joined(*((each.all if isinstance(each, Items) else (each,)) for each in value))


def _key(key: Value, position: int) -> str | int:
    if len(key) == 1 and isinstance(key[0], Known) and type(key[0].obj) in (str, int):
        found: str | int = key[0].obj
        return found
    return f"unknown {position}"


def _one_line(node: ast.expr) -> str:
    # A call is named by its function: its arguments may hold anything.
    text = ast.unparse(node.func) if isinstance(node, ast.Call) else ast.unparse(node)
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 3]}..."


# What reads a statement or an expression of a kind; its parts alone where none does.
_STATEMENTS: dict[type[ast.stmt], str] = {
    ast.Assign: "_assign",
    ast.AnnAssign: "_annotated",
    ast.AugAssign: "_augmented",
    ast.Return: "_return",
    ast.If: "_if",
    ast.While: "_while",
    ast.For: "_for",
    ast.AsyncFor: "_for",
    ast.With: "_with",
    ast.AsyncWith: "_with",
    ast.Try: "_try",
    ast.TryStar: "_try",
    ast.Match: "_match",
    ast.FunctionDef: "_define",
    ast.AsyncFunctionDef: "_define",
    ast.Import: "_import",
    ast.ImportFrom: "_import_from",
}
_EXPRESSIONS: dict[type[ast.expr], str] = {
    ast.Name: "_name",
    ast.Constant: "_constant",
    ast.Attribute: "_attribute",
    ast.Call: "_call",
    ast.Subscript: "_subscript",
    ast.BinOp: "_operation",
    ast.IfExp: "_choice",
    ast.BoolOp: "_any_of",
    ast.NamedExpr: "_named",
    ast.Await: "_inner",
    ast.Starred: "_inner",
    ast.YieldFrom: "_inner",
    ast.Yield: "_yield",
    ast.List: "_sequence",
    ast.Tuple: "_sequence",
    ast.Set: "_sequence",
    ast.Dict: "_dict",
    ast.Lambda: "_lambda",
    ast.ListComp: "_comprehension",
    ast.SetComp: "_comprehension",
    ast.GeneratorExp: "_comprehension",
    ast.DictComp: "_comprehension",
}
