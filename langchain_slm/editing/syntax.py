"""A Python text with the places of its parts. Pure; what is edited is the text itself.

libcst says where things are. It does not give every text back as it was (a form feed, a
lone carriage return), so it reads a copy with the same lines, and the spans that it
finds are spans of the text.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import libcst as cst
from libcst.metadata import (
    CodePosition,
    CodeRange,
    MetadataWrapper,
    PositionProvider,
)

from langchain_slm.errors import SourceError

NEWLINE = re.compile(r"\r\n|\r|\n")
# Python takes a form feed for the start of the line; libcst loses it.
_FORM_FEED = re.compile(r"^[ \t\f]*\f", re.MULTILINE)
# Comments behind a block that are indented like it. Nothing is given back once it is
# matched: the two characters of a newline would else be tried as two newlines each.
_ONE = r"(?>\r\n|\r|\n)"
_TRAILING = re.compile(rf"(?:{_ONE}(?:[ \t]*{_ONE})*+[ \t]+#[^\r\n]*)++")


class Edit(NamedTuple):
    """A span of a text, and what takes its place."""

    start: int
    end: int
    new: str


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return `text` with each edit made; none may overlap another."""
    pieces, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the module itself.

    Attributes:
        node: What libcst says of it.
        start: Offset of its first line.
        first: Offset of its first character, that of a decorator included.
        end: Offset of the end of its last line, before the newline; indented comments
            behind it are a part of it.
    """

    node: cst.CSTNode
    start: int
    first: int
    end: int


class Parsed:
    """A text, parsed.

    Args:
        text: The text.
        name: What messages call it.
        shown: What is parsed in its place: the same lines, some of them other ones. In
            a notebook a magic is no Python.

    Attributes:
        text: The text.
        module: What libcst made of it.

    Raises:
        SourceError: If it is not Python; says where.
    """

    def __init__(self, text: str, name: str = "<text>", shown: str | None = None) -> None:
        self.text, self.name = text, name
        shown = text if shown is None else shown
        _check(shown, name)
        clean = _FORM_FEED.sub("", _with_newlines(shown))
        self.wrapper = _wrapper(clean, name)
        self.module = self.wrapper.module
        self._starts = [0, *(found.end() for found in NEWLINE.finditer(text))]
        self._skipped = [_skipped(line) for line in NEWLINE.split(shown)]

    @cached_property
    def statements(self) -> Sequence[Statement]:
        """The statements of the module itself."""
        return [self._statement(node) for node in self.module.body]

    @cached_property
    def _positions(self) -> Mapping[cst.CSTNode, CodeRange]:
        try:
            return self.wrapper.resolve(PositionProvider)
        except (RecursionError, KeyError):
            raise _too_deep(self.name) from None

    def _statement(self, node: cst.CSTNode) -> Statement:
        start, end = self.span(node)
        decorators = getattr(node, "decorators", ())
        first = min([start, *(self.span(each)[0] for each in decorators)])
        return Statement(node, self.line_start(first), first, self.line_end(end))

    def visit(self, visitor: cst.CSTVisitor) -> None:
        """Let a visitor walk through the module.

        Raises:
            SourceError: If it is nested too deeply for that.
        """
        try:
            self.wrapper.visit(visitor)
        except RecursionError:
            raise _too_deep(self.name) from None

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return where a node starts and ends in the text."""
        found = self._positions[node]
        return self._offset(found.start), self._offset(found.end)

    def _offset(self, position: CodePosition) -> int:
        line = position.line - 1
        offset = self._starts[line] + self._skipped[line] + position.column
        # A line that was parsed in the place of another may be longer.
        return min(offset, self._end_of_line(self._starts[line]))

    def code(self, node: cst.CSTNode) -> str:
        """Return the text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def line(self, offset: int) -> int:
        """Return the line of an offset, from 1."""
        return bisect_right(self._starts, offset)

    def line_start(self, offset: int) -> int:
        """Return where the line of an offset starts."""
        return self._starts[self.line(offset) - 1]

    def _end_of_line(self, offset: int) -> int:
        found = NEWLINE.search(self.text, offset)
        return found.start() if found else len(self.text)

    def line_end(self, offset: int) -> int:
        """Return where the line of a statement that ends at `offset` ends."""
        end = self._end_of_line(offset)
        while end < len(self.text) and _goes_on(self.text[offset:end]):
            offset = NEWLINE.match(self.text, end).end()  # type: ignore[union-attr]
            end = self._end_of_line(offset)
        trailing = _TRAILING.match(self.text, end)
        return trailing.end() if trailing else end

    def newline(self, offset: int) -> str:
        """Return how the line of an offset ends; the last as the one before it."""
        after = NEWLINE.search(self.text, offset)
        if after is not None:
            return after.group()
        before = NEWLINE.findall(self.text, 0, offset)
        return before[-1] if before else "\n"


def _goes_on(rest: str) -> bool:
    return rest.endswith("\\") and "#" not in rest


def _with_newlines(text: str) -> str:
    return re.sub(r"\r(?!\n)", "\n", text)


def _skipped(line: str) -> int:
    found = _FORM_FEED.match(line)
    return found.end() if found else 0


def _check(text: str, name: str) -> None:
    """Refuse what is no Python, with the place: Python says it better than libcst."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is not our concern
            ast.parse(text)
    except SyntaxError as error:
        place = [each for each in (error.lineno, error.offset) if each is not None]
        where = ":".join(map(str, [name, *place]))
        version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        msg = (
            f"{where}: not {version} ({error.msg}); correct it first, nothing was changed"
        )
        raise SourceError(
            msg, path=name, line=error.lineno, column=error.offset
        ) from None
    except ValueError as error:  # a character that no file can hold
        msg = f"{name}: not Python ({error}); correct it first, nothing was changed"
        raise SourceError(msg, path=name) from None
    except (RecursionError, MemoryError):
        raise _too_deep(name) from None


def _too_deep(name: str) -> SourceError:
    msg = f"{name}: an expression is nested too deeply to be read; split it in two"
    return SourceError(msg, path=name)


def _wrapper(clean: str, name: str) -> MetadataWrapper:
    try:
        module = cst.parse_module(clean)
        same = module.code == clean
    except cst.ParserSyntaxError as error:
        msg = f"{name}: libcst cannot read it ({error.message.splitlines()[0]})"
        raise SourceError(msg, path=name) from None
    except RecursionError:
        raise _too_deep(name) from None
    if not same:
        msg = f"{name}: libcst does not give it back as it is; edit it by hand"
        raise SourceError(msg, path=name)
    return MetadataWrapper(module, unsafe_skip_copy=True)


# Names


def dotted(node: cst.CSTNode | None) -> str | None:
    """Return `a.b.c` as text; None for another expression."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr.value}"
    return None


class Imported(NamedTuple):
    """A name that an import gives to the module.

    Attributes:
        local: The name.
        qualified: What it stands for; starts with a dot where the import is relative.
        end: Offset of the end of the statement.
        direct: Whether the import is a statement of the module itself, not one of a
            `try` or an `if`.
    """

    local: str
    qualified: str
    end: int
    direct: bool


def imported(parsed: Parsed) -> Iterator[Imported]:
    """Yield the names that imports outside functions give to the module."""
    for statement in parsed.statements:
        direct = import_nodes(statement.node)
        nodes = direct or nested_imports(statement.node)
        for node in nodes:
            for local, qualified in names_of(node):
                yield Imported(local, qualified, statement.end, bool(direct))


def import_nodes(node: cst.CSTNode) -> Sequence[cst.Import | cst.ImportFrom]:
    """Return the imports of a simple statement's line."""
    body = node.body if isinstance(node, cst.SimpleStatementLine) else ()
    return [each for each in body if isinstance(each, cst.Import | cst.ImportFrom)]


def nested_imports(node: cst.CSTNode) -> Iterator[cst.Import | cst.ImportFrom]:
    """Yield the imports inside a `try`, an `if` or a `with`."""
    if isinstance(node, cst.Import | cst.ImportFrom):
        yield node
    elif not isinstance(node, cst.FunctionDef | cst.ClassDef | cst.BaseExpression):
        for child in node.children:
            yield from nested_imports(child)


def module_of(node: cst.ImportFrom) -> str:
    """Return the module that a `from` imports from, with its leading dots."""
    return "." * len(node.relative) + (dotted(node.module) or "")


def names_of(node: cst.Import | cst.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, and what it stands for; none for a star."""
    if isinstance(node.names, cst.ImportStar):
        return
    prefix = ""
    if isinstance(node, cst.ImportFrom):
        prefix = module_of(node)
        prefix += "" if prefix.endswith(".") else "."
    for alias in node.names:
        name = dotted(alias.name) or ""
        local = dotted(alias.asname.name) if alias.asname else None
        if local is None and not prefix:  # `import a.b` binds `a`
            name = name.partition(".")[0]
        yield local or name, f"{prefix}{name}"
