"""The command that shows what a graph holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_slm.cli.console import GraphName, Json, app, print_json, results, shown

if TYPE_CHECKING:
    from langchain_slm.inspection.findings import Holding
    from langchain_slm.inspection.overview import Edge, Inspection, Site
    from langchain_slm.loading.imports import Effect
    from langchain_slm.loading.projects import NamedGraph

_WIDEST = 60  # characters of a column; what is longer moves the next one


@app.command()
def inspect(
    graph: GraphName,
    *,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")
    ] = False,
    imports: Annotated[
        bool,
        typer.Option("--imports", help="Print what importing would run; import nothing."),
    ] = False,
    placeholder_keys: Annotated[
        bool,
        typer.Option(
            "--placeholder-keys",
            help="Set a placeholder for each key that the import misses, in this process "
            "only, and refuse connections beyond this machine meanwhile.",
        ),
    ] = False,
    store: Annotated[
        str | None, typer.Option("--store", help="URL of a store of recorded calls.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The graph's name in the store.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show nodes, edges, and where and how a graph calls models. Calls none.

    GRAPH is PATH.py:VARIABLE, PATH.ipynb:VARIABLE, PATH/langgraph.json for all of its
    graphs, or PATH/langgraph.json:NAME; the variable may be a factory. The file is
    imported, which runs it; see --imports.
    """
    from langchain_slm.loading.projects import find_graphs

    named = find_graphs(graph)
    if imports:
        _show_imports(named, as_json=as_json)
        return
    found = [_inspected(each, placeholder_keys=placeholder_keys) for each in named]
    if store is not None:
        found = [_with_store(each, store, name, graph) for each in found]
    if as_json:
        print_json({"format_version": 1, "graphs": [each.as_json() for each in found]})
        return
    for each in found:
        if mermaid:
            _show_mermaid(each)
        else:
            _show(each)


@dataclass(frozen=True, slots=True)
class _Found:
    """A graph, what its import ran, and what it holds."""

    named: NamedGraph
    effects: list[Effect]
    placeholders: tuple[str, ...]
    kind: str
    inspection: Inspection

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values: of a graph what `Inspection.as_json` says, too."""
        return {
            **_named_as_json(self.named),
            "type": self.kind,
            "env_file": _env_file(self.named),
            "imports": [effect._asdict() for effect in self.effects],
            "placeholder_keys": list(self.placeholders),
            **self.inspection.as_json(),
        }


def _named_as_json(named: NamedGraph) -> dict[str, Any]:
    return {"name": named.name, "file": str(named.file), "variable": named.variable}


def _env_file(named: NamedGraph) -> dict[str, Any] | None:
    """Return the file of environment variables, and whether it is there; no values."""
    file = named.project.env_file if named.project is not None else None
    return None if file is None else {"path": str(file), "exists": file.exists()}


def _show_imports(named: Sequence[NamedGraph], *, as_json: bool) -> None:
    from langchain_slm.loading.graphs import import_roots
    from langchain_slm.loading.imports import import_effects

    effects = [(each, import_effects(each, import_roots(each))) for each in named]
    if as_json:
        graphs = [
            {**_named_as_json(each), "imports": [effect._asdict() for effect in found]}
            for each, found in effects
        ]
        print_json({"format_version": 1, "graphs": graphs})
        return
    for each, found in effects:
        _line(f"importing {_escaped(str(each.file))} would run")
        _table(_effect_rows(found), empty="nothing but definitions")


def _inspected(named: NamedGraph, *, placeholder_keys: bool) -> _Found:
    from langchain_slm.inspection.overview import inspect_graph
    from langchain_slm.loading.graphs import (
        import_roots,
        open_graph,
        open_with_placeholders,
    )
    from langchain_slm.loading.imports import import_effects
    from langchain_slm.loading.keys import Placeholders, offline

    effects = import_effects(named, import_roots(named))
    placeholders = Placeholders()
    try:
        with ExitStack() as stack:
            # What the app prints must not stand among the results.
            stack.enter_context(redirect_stdout(sys.stderr))
            if placeholder_keys:
                stack.enter_context(offline())
                opened = open_with_placeholders(named, placeholders)
            else:
                opened = open_graph(named)
            graph = stack.enter_context(opened)
            kind, inspection = type(graph).__name__, inspect_graph(graph)
    finally:
        placeholders.remove()
    return _Found(named, effects, tuple(placeholders.names), kind, inspection)


def _with_store(found: _Found, url: str, name: str | None, target: str) -> _Found:
    from langchain_slm.cli.console import recorded_name
    from langchain_slm.inspection.overview import with_traces
    from langchain_slm.recording.store import open_store

    own = found.named.target if found.named.name is not None else target
    with open_store(url, create=False) as store:
        recorded = name or recorded_name(store, own)
        calls = [
            (each.site, each.model, each.provider, each.calls)
            for each in store.sites()
            if each.graph == recorded
        ]
    return replace(found, inspection=with_traces(found.inspection, calls))


# Text


def _line(text: str = "") -> None:
    typer.echo(text, file=results.get())


def _escaped(text: str) -> str:
    """Return a text as one printable line, whole: a path is no name to cut."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _table(rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows with columns as wide as their widest cell, up to a limit."""
    kept = [list(row) for row in rows]
    if not kept:
        _line(f"  {empty}")
        return
    columns = max(len(row) for row in kept)
    widths = [
        min(_WIDEST, max((len(row[at]) for row in kept if at < len(row)), default=0))
        for at in range(columns)
    ]
    for row in kept:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        _line("  " + "  ".join(cells).rstrip())


def _show(found: _Found) -> None:
    named = found.named
    title = f"{named.file}:{named.variable}"
    name = "" if named.name is None else f"{shown(named.name)} = "
    _line(f"graph {name}{_escaped(title)} ({found.kind})")
    for each in found.placeholders:
        _line(f"  {each} was missing: a placeholder stood for it, no call was made")
    env = _env_file(named)
    if env is not None:
        _line(
            f"  environment: {_escaped(env['path'])}"
            + ("" if env["exists"] else ", not there")
        )
    _line(f"importing {_escaped(str(named.file))} ran")
    _table(_effect_rows(found.effects), empty="nothing but definitions")
    inspection = found.inspection
    _line("nodes")
    rows = [(shown(n.path), n.kind, _escaped(n.where or "")) for n in inspection.nodes]
    _table(rows, empty="none")
    _line("edges")
    _table(map(_edge_row, inspection.edges), empty="none")
    _line("sites")
    _table(
        _site_rows(inspection.sites), empty="none found: record a run, and see --store"
    )
    if inspection.notes:
        _line("not followed")
        notes = (note.partition(": ") for note in inspection.notes)
        _table([(_escaped(where), _escaped(what)) for where, _, what in notes], empty="")
    _line()


def _effect_rows(effects: Iterable[Effect]) -> Iterator[list[str]]:
    for file, line, kind, what in effects:
        yield [_escaped(f"{file}:{line}"), kind, shown(what)]


def _edge_row(edge: Edge) -> list[str]:
    about = edge.kind if edge.branch is None else f"{edge.kind} {shown(edge.branch)}"
    arrow = f"{shown(edge.source)} -> {shown(edge.target)}"
    return [arrow, "" if edge.kind == "edge" else about]


def _site_rows(sites: Iterable[Site]) -> Iterator[list[str]]:
    for site in sites:
        label = shown(site.path)
        for holding in site.models:
            yield [label, _model(holding), holding.confidence, _held(holding)]
            if holding.reason is not None:
                yield ["", "", "", _escaped(holding.reason)]
            label = ""
        answer, why = site.faces_human
        yield ["", "", "", f"faces a human: {answer}; {_escaped(why)}"]


def _model(holding: Holding) -> str:
    known = [holding.class_name, holding.provider]
    about = ", ".join(shown(each) for each in known if each is not None)
    name = shown(holding.model) if holding.model is not None else "unknown model"
    return f"{name} ({about})" if about else name


def _held(holding: Holding) -> str:
    options = holding.options
    parts = [", ".join(holding.how)]
    if options.tools:
        parts.append(f"tools {shown(', '.join(options.tools))}")
    if options.response_format is not None:
        parts.append(f"fills {shown(options.response_format)}")
    parts += map(_escaped, holding.where)
    if holding.calls is not None:
        parts.append(f"{holding.calls} recorded calls")
    return "; ".join(part for part in parts if part)


def _show_mermaid(found: _Found) -> None:
    from langchain_slm.inspection.drawing import mermaid

    _line(mermaid(found.inspection).rstrip())
