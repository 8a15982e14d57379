"""The command that binds a plan to an app: in its source, shown first, and undone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from langchain_slm.cli.console import (
    DONE,
    GATE_NOT_MET,
    GraphName,
    Json,
    PlanFile,
    StoredName,
    app,
    print_decisions,
    print_json,
    recorded_name,
    shown,
)
from langchain_slm.errors import (
    GraphLoadError,
    MissingExtraError,
    PlanOutdatedError,
    SLMError,
)

if TYPE_CHECKING:
    from langchain_slm.editing.files import Obstacle
    from langchain_slm.editing.proposal import Proposal
    from langchain_slm.loading.projects import NamedGraph
    from langchain_slm.routing.binding import Guide
    from langchain_slm.schema import Plan

Write = Annotated[bool, typer.Option("--write", help="Edit the source.")]
Inline = Annotated[
    bool, typer.Option("--inline", help="Edit each place that makes a model.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Only say whether source and plan match.")
]
Undo = Annotated[bool, typer.Option("--undo", help="Restore the source.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a plan of another version.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Edit what git could not bring back.")
]
Calls = Annotated[
    str | None, typer.Option("--store", help="Look for untested calls at this URL, too.")
]


@app.command()
def rewrite(
    graph: GraphName,
    plan: PlanFile = Path("slm-plan.json"),
    *,
    write: Write = False,
    inline: Inline = False,
    check: Check = False,
    undo: Undo = False,
    strict: Strict = False,
    force: Force = False,
    store: Calls = None,
    name: StoredName = None,
    as_json: Json = False,
) -> None:
    """Show what a plan binds in a graph, and what --write edits in its source.

    By default one line applies the plan to the graph, behind the statement that binds
    it. With --inline each chat model that the app makes goes through a router instead.
    The graph is imported, but for --undo. Exit code 1 where --check finds that source
    and plan do not match, where --strict refuses the plan, and where --inline finds
    nothing to edit.
    """
    if write + check + undo > 1:
        msg = "give one of --write, --check and --undo"
        raise typer.BadParameter(msg)
    if undo:
        _undo(graph, force=force, as_json=as_json)
        return
    from langchain_slm.loading.projects import find_graphs
    from langchain_slm.routing.plan_file import read_plan

    graphs = find_graphs(graph)
    made = read_plan(plan)
    proposal = _proposed(graphs, plan, inline=inline, check=check)
    differences = _differences(graphs, made)
    if store is not None:
        differences += _untested(graphs, made, store, name)
    troubles = _unusable(plan, inline=inline)
    if not (write or check):
        troubles += [
            f"--write is refused: {each.reason}" for each in _obstacles(proposal)
        ]
    found = _Found(graphs, made, proposal, differences, troubles)
    if check:
        raise typer.Exit(_check(found, as_json=as_json))
    if strict and differences:
        raise typer.Exit(_refuse(differences, as_json=as_json))
    record = _write(proposal, force=force) if write else None
    if as_json:
        print_json({**found.as_json(), "written": write, "record": record})
    else:
        _print(found, record, write=write)
    is_empty = inline and not proposal.changes and bool(proposal.mismatches)
    raise typer.Exit(GATE_NOT_MET if is_empty else DONE)


class _Sites(NamedTuple):
    sites: tuple[str, ...]
    fingerprint: str | None


class _Found(NamedTuple):
    graphs: Sequence[NamedGraph]
    plan: Plan
    proposal: Proposal
    differences: Sequence[str]
    troubles: Sequence[str]

    @property
    def warnings(self) -> list[str]:
        return [*self.differences, *self.troubles, *self.proposal.notes]

    def as_json(self) -> dict[str, Any]:
        return {
            "graphs": [each.target for each in self.graphs],
            "plan": self.plan.model_dump(mode="json"),
            "bound": [decision.site for decision in self.plan.active],
            "files": self.proposal.diffs,
            "refused": [
                {"place": each.place, "code": each.code, "reason": each.reason}
                for each in self.proposal.refused
            ],
            "warnings": self.warnings,
        }


def _proposed(
    graphs: Sequence[NamedGraph], plan: Path, *, inline: bool, check: bool
) -> Proposal:
    try:
        import libcst  # noqa: F401 - what follows needs it
    except ImportError as error:
        msg = "editing source needs libcst: pip install 'langchain-slm[convert]'"
        raise MissingExtraError(msg) from error
    from langchain_slm.editing.proposal import propose_inlining, propose_wrapping

    if inline:
        return propose_inlining(graphs, plan)
    return propose_wrapping(graphs, plan, editing=not check)


def _differences(graphs: Sequence[NamedGraph], plan: Plan) -> list[str]:
    """Return how the graphs differ from the one that the plan was made for."""
    from langchain_slm.loading.graphs import open_graph
    from langchain_slm.rewriting.differences import differences

    # Not a guide of its own: that makes the bound models, which needs their keys.
    sites = tuple(dict.fromkeys(decision.site for decision in plan.active))
    guide = cast("Guide", _Sites(sites, plan.fingerprint))
    found = []
    with warnings.catch_warnings(), chdir(Path.cwd()):  # an app may leave the folder
        # What the app's own line says of its plan, which may be another one.
        warnings.filterwarnings("ignore", message="(the|no) plan ")
        for each in graphs:
            name = f"{each.name}: " if len(graphs) > 1 else ""
            with open_graph(each) as graph:
                found += [f"{name}{said}" for said in differences(graph, guide)]
    return found


def _untested(
    graphs: Sequence[NamedGraph], plan: Plan, store: str, name: str | None
) -> list[str]:
    """Return which recorded calls of the graphs the plan was not made for."""
    from langchain_slm.recording.store import open_store
    from langchain_slm.rewriting.differences import untested_calls

    found = []
    with open_store(store, create=False) as opened:
        for each in graphs:
            stored = name or recorded_name(opened, each.target)
            found += untested_calls(plan, opened.calls(graph=stored))
    return found


def _unusable(plan: Path, *, inline: bool) -> list[str]:
    """Return why the plan cannot be used here; keys may be only where the app runs."""
    from langchain_slm.routing.router import Router

    try:
        Router(plan)
    except SLMError as error:
        then = "the app does not start" if inline else "the app runs without the plan"
        return [f"{error}; where that is so, {then}"]
    return []


def _refuse(differences: Sequence[str], *, as_json: bool) -> int:
    msg = f"{'; '.join(differences)}; convert again, or leave out --strict"
    if as_json:
        print_json({"error": {"type": PlanOutdatedError.__name__, "message": msg}})
    typer.echo(f"error: {msg}", err=True)
    return GATE_NOT_MET


def _check(found: _Found, *, as_json: bool) -> int:
    problems = [*found.proposal.mismatches, *found.differences]
    if as_json:
        print_json({**found.as_json(), "matches": not problems, "mismatches": problems})
    elif not problems:
        typer.echo("source and plan match")
    for problem in [] if as_json else problems:
        typer.echo(problem)
    return GATE_NOT_MET if problems else DONE


def _obstacles(proposal: Proposal) -> list[Obstacle]:
    from langchain_slm.editing.files import obstacles
    from langchain_slm.editing.undo_record import is_as_written

    files = [change.file for change in proposal.changes]
    return obstacles(files, proposal.root, is_ours=is_as_written)


def _write(proposal: Proposal, *, force: bool) -> str | None:
    """Write what is proposed, and return the name of the record; None for nothing."""
    from langchain_slm.editing.files import refuse, shown
    from langchain_slm.editing.undo_record import write_changes

    refuse(_obstacles(proposal), force=force)
    if not proposal.changes:
        return None
    return shown(write_changes(proposal.changes, proposal.root))


def _print(found: _Found, record: str | None, *, write: bool) -> None:
    proposal = found.proposal
    print_decisions(found.plan.decisions, bound=found.plan.active)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for each in proposal.refused:
        typer.echo(f"{each.place}: {each.code}{': ' * bool(each.code)}{each.reason}")
    for diff in proposal.diffs.values():
        typer.echo()
        for line in diff.removesuffix("\n").split("\n"):
            typer.echo(_printable(line.removesuffix("\r")))
    if not proposal.changes:
        matches = "the source matches the plan; " * (not proposal.mismatches)
        typer.echo(f"Nothing to edit: {matches}{len(proposal.files)} files read.")
    elif write:
        names = ", ".join(proposal.diffs)
        typer.echo(f"{names} written; --undo restores it by {record}")
    else:
        typer.echo("Nothing written; add --write.")


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else shown(c) for c in line)


def _undo(target: str, *, force: bool, as_json: bool) -> None:
    from langchain_slm.editing.undo_record import undo_changes

    undone = undo_changes(_named(target, force=force), force=force)
    if as_json:
        print_json({"undone": {name: list(graphs) for name, graphs in undone.items()}})
        return
    for name, graphs in undone.items():
        typer.echo(f"{name} restored ({', '.join(graphs)})")


def _named(target: str, *, force: bool) -> list[tuple[Path, str]]:
    from langchain_slm.loading.projects import find_graphs

    try:
        return [(each.file, each.variable) for each in find_graphs(target)]
    except GraphLoadError:
        file, colon, variable = target.rpartition(":")
        if force and colon:
            return [(Path(file), variable)]  # the file is gone
        raise
