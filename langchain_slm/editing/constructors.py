"""Where the text of a module makes chat models, and which of them can be replaced. Pure.

A call is replaced only where nothing in sight depends on its class: a `ChatRouter` in
its place is a chat model, but no `ChatOpenAI`. Whatever is not replaced is listed with
the reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import libcst as cst
from libcst import matchers as m
from libcst.metadata import (
    ExpressionContext,
    ExpressionContextProvider,
    ParentNodeProvider,
    QualifiedNameProvider,
    QualifiedNameSource,
)
from typing_extensions import override

from langchain_slm.editing.chat_classes import (
    SHARED,
    is_agent_maker,
    is_chat_class,
    is_chat_model,
    is_init_chat_model,
)
from langchain_slm.editing.importing import PACKAGE
from langchain_slm.editing.names import is_type_checking
from langchain_slm.editing.syntax import Parsed, dotted
from langchain_slm.editing.text_values import TextValues
from langchain_slm.inspection.libraries import MODEL_SDKS, raw_reason, sdk_of

_ROUTERS = frozenset(
    {f"{PACKAGE}.ChatRouter", f"{PACKAGE}.routing.chat_router.ChatRouter"}
)
# A module without any of these words makes no model: most need not be looked at.
_WORTH_A_LOOK = re.compile(
    r"Chat|init_chat_model|create_agent|create_react_agent|"
    + "|".join(re.escape(name) for name in sorted(MODEL_SDKS))
)
# What a value is a part of, before it is given to something that may be annotated.
_INSIDE = (cst.BaseExpression, cst.Arg, cst.BaseElement, cst.BaseDictElement)
# Functions of provider packages that ask a model, without a client.
_ASKING = frozenset({"acompletion", "chat", "completion", "generate", "run"})
_ISINSTANCE = frozenset({"isinstance", "issubclass"})


@dataclass(frozen=True, slots=True)
class Construction:
    """A call that makes a chat model.

    Attributes:
        start: Offset of its start.
        end: Offset of its end.
        reason: Why it stays as it is; None where it can be replaced.
    """

    start: int
    end: int
    reason: str | None = None


@dataclass
class Reliance:
    """What a module relies on.

    Attributes:
        classes: Lines at which the module asks whether something is of a class, by the
            class's name.
        attributes: What is read of each name.
        subclasses: Classes of its own that derive from a chat model.
        stars: Lines of imports with a star.
    """

    classes: dict[str, int] = field(default_factory=dict)
    attributes: defaultdict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )
    subclasses: set[str] = field(default_factory=set)
    stars: list[int] = field(default_factory=list)


def is_worth_a_look(text: str) -> bool:
    """Whether a text may make a chat model at all."""
    return _WORTH_A_LOOK.search(text) is not None


def reliance(parsed: Parsed) -> Reliance:
    """Return what a module relies on."""
    visitor = _Reliance(parsed)
    parsed.visit(visitor)
    return visitor.found


def constructions(
    parsed: Parsed, own: Reliance, relied: Mapping[str, str]
) -> list[Construction]:
    """Return each call of a module that makes a chat model, in order.

    Args:
        parsed: The module.
        own: What it relies on.
        relied: Where the app asks whether something is of a class, by the class's name.
    """
    visitor = _Constructions(parsed, own, relied)
    parsed.visit(visitor)
    return sorted(visitor.found, key=lambda each: each.start)


class _Named(cst.CSTVisitor):
    """Knows what names stand for."""

    METADATA_DEPENDENCIES: ClassVar[Any] = (QualifiedNameProvider,)

    def _stands_for(self, node: cst.CSTNode) -> set[str]:
        """Return the dotted names that an expression may stand for by imports."""
        return self._names(node)[0]

    def _names(self, node: cst.CSTNode) -> tuple[set[str], set[str]]:
        """Return what an expression may stand for: by imports, and in the module."""
        found = self.get_metadata(QualifiedNameProvider, node, set()) or set()
        imported = {n.name for n in found if n.source is QualifiedNameSource.IMPORT}
        local = {n.name for n in found if n.source is QualifiedNameSource.LOCAL}
        return imported, local

    def _chat_classes(self, node: cst.CSTNode) -> set[str]:
        """Return the names of the chat models' classes that an expression mentions."""
        found: set[str] = set()
        if isinstance(node, cst.Name | cst.Attribute):
            names = filter(is_chat_model, self._stands_for(node))
            found = {name.rpartition(".")[2] for name in names}
        return found.union(*(self._chat_classes(child) for child in node.children))


class _Reliance(_Named):
    def __init__(self, parsed: Parsed) -> None:
        super().__init__()
        self._parsed = parsed
        self.found = Reliance()

    @override
    def on_visit(self, node: cst.CSTNode) -> bool:
        match node:
            case cst.Call(func=cst.Name(value=name), args=[first, second, *_]):
                self._asked(name, first.value, second.value)
            case cst.Comparison():
                for each in (node.left, *(c.comparator for c in node.comparisons)):
                    self._relied(each)
            case cst.MatchClass(cls=asked):
                self._relied(asked)
            case cst.Attribute(value=base, attr=attribute):
                self._read(base, attribute.value)
            case cst.ClassDef(name=name, bases=bases):
                if any(self._is_chat(each.value) for each in bases):
                    self.found.subclasses.add(name.value)
            case cst.ImportFrom(names=cst.ImportStar()):
                start, _ = self._parsed.span(node)
                self.found.stars.append(self._parsed.line(start))
        return True

    def _asked(
        self, function: str, first: cst.BaseExpression, second: cst.BaseExpression
    ) -> None:
        if function in _ISINSTANCE:
            self._relied(second)
        elif function == "getattr" and isinstance(second, cst.SimpleString):
            self._read(first, str(second.evaluated_value))

    def _relied(self, node: cst.CSTNode) -> None:
        if isinstance(node, cst.Call | cst.Lambda):
            return
        line = self._parsed.line(self._parsed.span(node)[0])
        for name in self._chat_classes(node):
            self.found.classes.setdefault(name, line)

    def _read(self, base: cst.BaseExpression, attribute: str) -> None:
        name = (dotted(base) or "").rpartition(".")[2]
        self.found.attributes[name].add(attribute)

    def _is_chat(self, base: cst.BaseExpression) -> bool:
        imported, local = self._names(base)
        return any(map(is_chat_model, imported)) or bool(local & self.found.subclasses)


class _Constructions(_Named):
    METADATA_DEPENDENCIES: ClassVar[Any] = (
        QualifiedNameProvider,
        ExpressionContextProvider,
        ParentNodeProvider,
        *TextValues.METADATA_DEPENDENCIES,
    )

    def __init__(self, parsed: Parsed, own: Reliance, relied: Mapping[str, str]) -> None:
        super().__init__()
        self._parsed, self._own, self._relied = parsed, own, relied
        self._unreached = 0  # depth of `if TYPE_CHECKING`
        self._dealt_with: set[cst.CSTNode] = set()
        self.found: list[Construction] = []

    # The walk

    @override
    def on_visit(self, node: cst.CSTNode) -> bool:
        if node in self._dealt_with:
            return False
        match node:
            case cst.Annotation() | cst.Import() | cst.ImportFrom():
                return False
            case cst.If() if is_type_checking(node):
                self._unreached += 1
            case cst.ClassDef():
                self._class(node)
            case cst.Comparison() | cst.MatchClass():
                self._dealt_with.update(_mentioned(node))
            case cst.Call():
                return self._call(node)
            case cst.Attribute() | cst.Name():
                return self._value(node)
        return True

    @override
    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.If) and is_type_checking(original_node):
            self._unreached -= 1

    def _list(self, node: cst.CSTNode, reason: str | None) -> None:
        self.found.append(Construction(*self._parsed.span(node), reason))

    def _class(self, node: cst.ClassDef) -> None:
        self._dealt_with.update(each.value for each in node.bases)
        if node.name.value in self._own.subclasses:
            self._list(node.name, "is a class of its own: give it a model to call")

    def _value(self, node: cst.Name | cst.Attribute) -> bool:
        """List a class that is used, but not called here."""
        is_read = (
            self.get_metadata(ExpressionContextProvider, node, None)
            is ExpressionContext.LOAD
        )
        classes = {n for n in self._stands_for(node) if is_chat_model(n)}
        if is_read and classes:
            self._list(node, "the class is used as a value; what calls it is not seen")
            return False
        return isinstance(node, cst.Attribute)

    # Calls

    def _call(self, node: cst.Call) -> bool:
        imported, local = self._names(node.func)
        if imported & _ROUTERS:
            return False  # replaced already
        if isinstance(node.func, cst.Name) and node.func.value in {*_ISINSTANCE, "cast"}:
            self._dealt_with.update(_mentioned(node))
            return True
        chat = {name for name in imported if is_chat_model(name)}
        if chat or any(map(is_init_chat_model, imported)):
            self._dealt_with.add(node.func)
            self._list(node, self._reason(node, imported, local))
        elif reason := self._other_reason(node, imported, local):
            self._dealt_with.add(node.func)
            self._list(node, reason)
        return True

    def _reason(self, node: cst.Call, imported: set[str], local: set[str]) -> str | None:
        if self._unreached:
            return "is for type checkers only: it never runs"
        others = {n for n in imported if not (is_chat_model(n) or is_init_chat_model(n))}
        if others or any(not self._is_absence(name) for name in local):
            return f"may be any of {', '.join(sorted(imported | local))}"
        names = {name.rpartition(".")[2] for name in imported}
        return (
            self._class_reason(names)
            or self._use_reason(node)
            or (self._init_reason(node) if "init_chat_model" in names else None)
        )

    def _is_absence(self, name: str) -> bool:
        """Whether a name is bound in the module only to say that an import failed."""
        name = name.rpartition(".")[2]
        return re.search(rf"\b{name}\s*=\s*None\b", self._parsed.text) is not None

    def _class_reason(self, names: set[str]) -> str | None:
        for name in sorted(names & self._relied.keys()):
            return f"the app asks whether a model is a {name}, at {self._relied[name]}"
        return None

    def _use_reason(self, node: cst.Call) -> str | None:
        """Return why what becomes of a model depends on its class."""
        child: cst.CSTNode = node
        parent = self.get_metadata(ParentNodeProvider, node)
        if isinstance(parent, cst.Attribute) and parent.attr.value not in SHARED:
            return _attribute_reason({parent.attr.value})
        for variable in _assigned_to(parent):
            if odd := self._own.attributes.get(variable, set()) - SHARED:
                return f"{variable}: {_attribute_reason(odd)}"
        while isinstance(parent, _INSIDE):
            child, parent = parent, self.get_metadata(ParentNodeProvider, parent)
        annotation = getattr(parent, "annotation", None)
        if not isinstance(annotation, cst.Annotation) or child is annotation:
            return None
        said = ", ".join(sorted(self._chat_classes(annotation)))
        return f"is annotated as {said}" if said else None

    def _init_reason(self, node: cst.Call) -> str | None:
        given = {each.keyword.value: each.value for each in node.args if each.keyword}
        if any(each.star for each in node.args):
            return "its arguments are not seen here; one may be `configurable_fields`"
        if (fields := given.get("configurable_fields")) and not _is_none(fields):
            return "its model is chosen when it is called (`configurable_fields`)"
        positional = [each.value for each in node.args if each.keyword is None]
        model = given.get("model") or next(iter(positional), None)
        if model is None or _is_none(model):
            return "no model is given: it is chosen when it is called"
        if not TextValues(self).is_text(model):
            code = self._parsed.code(model)
            return f"whether {code} is a name or None shows only when it runs"
        return None

    def _other_reason(
        self, node: cst.Call, imported: set[str], local: set[str]
    ) -> str | None:
        """Return why a call is listed that cannot be replaced in any case."""
        name = (dotted(node.func) or "").rpartition(".")[2]
        if local & self._own.subclasses:
            return f"{name} is a class of its own"
        if not imported and not local and self._own.stars and is_chat_class(name):
            return f"{name} comes from an import with a star (line {self._own.stars[-1]})"
        if any(is_chat_class(each.rpartition(".")[2]) for each in imported):
            return f"{name} is imported from the app; which class it is shows there"
        if any(map(is_agent_maker, imported)):
            return _named_model(node)
        if _is_by_name(node):
            return "the class is given by its name, as a text"
        return next(filter(None, map(_sdk_reason, imported)), None)


def _mentioned(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield the names below a node, but not those in calls."""
    for child in node.children:
        if isinstance(child, cst.Name | cst.Attribute):
            yield child
        elif not isinstance(child, cst.Call | cst.Lambda):
            yield from _mentioned(child)


def _assigned_to(parent: cst.CSTNode | None) -> list[str]:
    """Return the last parts of the names that a value is given."""
    targets: list[cst.BaseExpression] = []
    if isinstance(parent, cst.Assign):
        targets = [each.target for each in parent.targets]
    elif isinstance(parent, cst.AnnAssign | cst.NamedExpr):
        targets = [parent.target]
    elif isinstance(parent, cst.Param):
        targets = [parent.name]
    return [name.rpartition(".")[2] for name in map(dotted, targets) if name]


def _attribute_reason(names: set[str]) -> str:
    if names & {"configurable_fields", "configurable_alternatives"}:
        return "its model is chosen when it is called (`configurable_fields`)"
    shown = ", ".join(f".{name}" for name in sorted(names)[:3])
    return f"{shown} is used of it, which belongs to its class"


def _is_none(node: cst.CSTNode) -> bool:
    return m.matches(node, m.Name("None"))


def _named_model(node: cst.Call) -> str | None:
    given = [e.value for e in node.args if e.keyword and e.keyword.value == "model"]
    given += [each.value for each in node.args[:1] if each.keyword is None]
    if any(isinstance(each, cst.SimpleString) for each in given):
        return "the model is given by its name; give a model, or wrap the graph"
    return None


def _is_by_name(node: cst.Call) -> bool:
    name = (dotted(node.func) or "").rpartition(".")[2].lower()
    if name != "getattr" and not any(word in name for word in ("import", "load")):
        return False
    texts = [e.value for e in node.args if isinstance(e.value, cst.SimpleString)]
    return any(
        is_chat_class(re.split(r"[.:]", str(text.evaluated_value))[-1]) for text in texts
    )


def _sdk_reason(name: str) -> str | None:
    package = sdk_of(name)
    made = name.rpartition(".")[2]
    if package not in MODEL_SDKS or package in {"boto3", "botocore"}:
        return None
    is_type = ".types" in name or made.endswith(("Error", "Timeout", "Exception"))
    is_client = made[0].isupper() and not is_type
    return f"opaque: {raw_reason(package)}" if is_client or made in _ASKING else None
