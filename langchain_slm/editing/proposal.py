"""What a rewrite changes in an app's source, before anything is written.

Reads the files of the app; imports nothing of it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from langchain_slm.editing.app_files import imported_files, is_installed, reached
from langchain_slm.editing.constructors import is_worth_a_look, reliance
from langchain_slm.editing.documents import Document, read_document
from langchain_slm.editing.files import SourceFile, absolute, read_file, shown
from langchain_slm.editing.inlining import Inlined, has_router, inline
from langchain_slm.editing.source import (
    is_applied,
    last_binding,
    may_be_unbound,
    mismatch,
    wrap,
)
from langchain_slm.editing.undo_record import Change, written_for
from langchain_slm.errors import SourceError
from langchain_slm.loading.graphs import import_roots
from langchain_slm.loading.projects import ROOT_MARKS, NamedGraph, package_of

_MARKS = (*ROOT_MARKS, ".git")


@dataclass(frozen=True, slots=True)
class Refused:
    """A place that stays as it is.

    Attributes:
        place: File and line.
        code: What is there.
        reason: Why it stays.
    """

    place: str
    code: str
    reason: str


@dataclass
class Proposal:
    """What would be written.

    Attributes:
        root: Folder of the project.
        diffs: A unified diff for each file that changes, by its name.
        changes: The files that change.
        files: Names of all files that were read.
        refused: What stays as it is, and why.
        notes: What is worth knowing.
        mismatches: Why the source as it is does not match the plan.
    """

    root: Path
    diffs: dict[str, str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    def add(
        self,
        file: SourceFile,
        before: Document,
        after: Document,
        graphs: Sequence[NamedGraph],
    ) -> None:
        """Take up a file: what it holds, and what it is to hold."""
        self.files.append(file)
        if file.path.is_symlink():
            target = shown(file.target)
            self.notes.append(f"{file.name} is a link; {target} is edited, it stays")
        self.refused += [Refused(place, "", why) for place, why in before.unread()]
        if after is not before:
            names = [(graph.file, graph.variable) for graph in graphs]
            self.diffs[file.name] = before.diff(after)
            self.changes.append(Change(file, after.data, names))


def propose_wrapping(
    graphs: Sequence[NamedGraph], plan: Path, *, editing: bool = True
) -> Proposal:
    """Return what applies a plan to graphs, each in the module that binds it.

    Args:
        graphs: The graphs.
        plan: The plan's file.
        editing: Whether edits are wanted, or only what does not match.

    Raises:
        SourceError: If a file cannot be read, is not Python, or does not bind its graph.
    """
    proposal = Proposal(_root(graphs[0]))
    _note_plan(proposal, plan)
    by_file: defaultdict[Path, list[NamedGraph]] = defaultdict(list)
    for graph in graphs:
        by_file[absolute(graph.file)].append(graph)
    for path, inside in by_file.items():
        file, before = _read(path, proposal.root)
        after = before
        for graph in inside:
            after = _wrapped(proposal, before, after, graph, plan, editing=editing)
        proposal.add(file, before, after, inside)
    return proposal


def _wrapped(
    proposal: Proposal,
    before: Document,
    after: Document,
    graph: NamedGraph,
    plan: Path,
    *,
    editing: bool,
) -> Document:
    folder = absolute(graph.file).parent
    # At run time the system walks this path: above a link is what the link leads to.
    said = _relative(Path(os.path.realpath(plan.parent)) / plan.name, folder.resolve())
    known = (absolute(plan).as_posix(), _relative(absolute(plan), folder))
    try:
        reason = mismatch(before.parsed, graph.variable, said, known=known)
        edits = []
        if reason is not None:
            proposal.mismatches.append(f"{before.name}: {reason}")
        if reason is not None and editing:
            _refuse_both(before, graph)
            edits = wrap(after.parsed, graph.variable, said, known=known)
            _note_unbound(proposal, before, graph.variable)
    except SourceError as error:
        raise _with_unread(error, before) from None
    return read_document(after.edited(edits), after.name) if edits else after


def _refuse_both(document: Document, graph: NamedGraph) -> None:
    """Refuse to apply a plan to a graph whose models go through routers already."""
    own = absolute(graph.file)
    inlined = [each for each in written_for(own, graph.variable) if each != own]
    if inlined or has_router(document.parsed):
        names = ", ".join(map(shown, inlined)) or document.name
        msg = (
            f"{document.name}: the models of {graph.variable} go through a router one by "
            f"one ({names}): give --inline, or --undo first"
        )
        raise SourceError(msg, path=document.name)


def _with_unread(error: SourceError, document: Document) -> SourceError:
    unread = "".join(f"; {place} is no Python: {why}" for place, why in document.unread())
    return SourceError(f"{error}{unread}", **error.fields)


def propose_inlining(graphs: Sequence[NamedGraph], plan: Path) -> Proposal:
    """Return what puts a router in the place of each model that an app makes.

    Looked at are the files of the graphs, and those of the app that they import.

    Raises:
        SourceError: If a graph's file cannot be read, is not Python, or does not bind it.
    """
    proposal = Proposal(_root(graphs[0]))
    _note_plan(proposal, plan)
    app = _App(proposal)
    for graph in graphs:
        app.start(graph)
    app.follow(graphs)
    relied = dict(app.relied())
    routed = False
    for file, before in app.documents():
        try:
            found = _inlined(file, before, plan, relied)
        except SourceError as error:
            proposal.refused.append(Refused(file.name, "", str(error)))
            continue
        routed |= found.has_router
        _take_up(proposal, file, before, found, graphs)
    if not routed:
        proposal.mismatches.append("no model goes through a router")
    return proposal


def _inlined(
    file: SourceFile, before: Document, plan: Path, relied: Mapping[str, str]
) -> Inlined:
    if not is_worth_a_look(before.text):
        return Inlined()
    return inline(
        before.parsed,
        _relative(absolute(plan), file.path.parent),
        relied=relied,
        cells=before.starts,
        is_notebook=before.is_notebook,
    )


def _take_up(
    proposal: Proposal,
    file: SourceFile,
    before: Document,
    found: Inlined,
    graphs: Sequence[NamedGraph],
) -> None:
    proposal.refused += [
        Refused(before.place(each.start), each.code, each.reason) for each in found.kept
    ]
    proposal.mismatches += [
        f"{before.place(start)} makes a model that goes through no router"
        for start in found.replaced
    ]
    if found.edits and not found.replaced:
        proposal.mismatches.append(f"{before.name}: its router reads another plan")
    data = before.edited(found.edits)
    after = read_document(data, before.name) if found.edits else before
    proposal.add(file, before, after, graphs)


class _App:
    """The files of an app, each read once."""

    def __init__(self, proposal: Proposal) -> None:
        self._proposal = proposal
        self._documents: dict[Path, tuple[SourceFile, Document]] = {}

    def start(self, graph: NamedGraph) -> None:
        """Read the file of a graph, which must bind it."""
        path = absolute(graph.file)
        file, document = _read(path, self._proposal.root)
        try:
            last_binding(document.parsed, graph.variable)
        except SourceError as error:
            raise _with_unread(error, document) from None
        if is_applied(document.parsed, graph.variable):
            msg = (
                f"{file.name}: a plan is applied to {graph.variable} as a whole already; "
                "--undo that first, or leave out --inline"
            )
            raise SourceError(msg, path=file.name)
        self._documents[path] = file, document

    def follow(self, graphs: Sequence[NamedGraph]) -> None:
        """Read what the files of graphs import of the app."""
        for graph in graphs:
            path = absolute(graph.file)
            roots = [package_of(path)[0], *import_roots(graph)]
            reached(path, partial(self._imported, roots=roots))

    def _imported(self, path: Path, *, roots: Sequence[Path]) -> list[Path]:
        root = self._proposal.root
        try:
            if path not in self._documents:
                self._documents[path] = _read(path, root)
            _, document = self._documents[path]
            found = imported_files(document.parsed, path, roots=roots, project=root)
            return [_below(root, each) for each in found]
        except SourceError as error:
            self._proposal.refused.append(Refused(shown(path), "", str(error)))
            return []

    def documents(self) -> Sequence[tuple[SourceFile, Document]]:
        """Return the files that could be read."""
        return list(self._documents.values())

    def relied(self) -> Iterator[tuple[str, str]]:
        """Yield each class that a file asks for, and where."""
        for _, document in self.documents():
            if is_worth_a_look(document.text):
                with suppress(SourceError):  # said when it is to be edited
                    for name, line in reliance(document.parsed).classes.items():
                        yield name, f"{document.name}:{line}"


def _read(path: Path, root: Path) -> tuple[SourceFile, Document]:
    file = read_file(path)
    if is_installed(path, root):
        msg = f"{file.name}: of an installed package; only an app's own files are edited"
        raise SourceError(msg, path=file.name)
    return file, read_document(file.data, file.name)


# Places


def _root(graph: NamedGraph) -> Path:
    """Return the folder of the project that a graph belongs to."""
    if graph.project is not None:
        return graph.project.folder
    path = absolute(graph.file)
    for folder in path.parents:
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _below(root: Path, path: Path) -> Path:
    """Return a path as one below `root`, whichever way it was found: a file is one."""
    real = root.resolve()
    return root / path.relative_to(real) if path.is_relative_to(real) else path


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _note_unbound(proposal: Proposal, document: Document, variable: str) -> None:
    line = may_be_unbound(document.parsed, variable)
    if line is not None:
        proposal.notes.append(
            f"{document.name}: the block at line {line} may leave {variable} without a "
            "graph; where it does, the line behind it fails: bind a graph in any case"
        )


def _note_plan(proposal: Proposal, plan: Path) -> None:
    if not plan.resolve().is_relative_to(proposal.root.resolve()):
        proposal.notes.append(
            f"the plan {shown(plan)} is outside the project {proposal.root}: a copy of "
            "the project elsewhere will not find it"
        )
