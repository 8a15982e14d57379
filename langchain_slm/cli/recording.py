"""The commands of recorded calls: record them, replay them."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from langchain_slm.cli.console import (
    DONE,
    GATE_NOT_MET,
    GraphName,
    Hooks,
    Json,
    StoredName,
    StoreUrl,
    app,
    bars,
    hooks_of,
    print_json,
    results,
    shown,
    stored_name,
)


@app.command()
def record(
    graph: GraphName,
    inputs: Annotated[Path, typer.Option(help="JSONL: one graph input a line.")],
    store: StoreUrl = "sqlite:///slm.db",
    name: StoredName = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 4,
    hook: Hooks = None,
    *,
    redaction: Annotated[
        bool, typer.Option(help="Redact personal data before it is stored.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Run a graph on inputs and store every model call.

    Each line is a thread of its own. Exit code 1 where a run failed or a call was lost.
    """
    from langchain_slm.loading.graphs import load_graph
    from langchain_slm.recording import runs
    from langchain_slm.recording.redaction import (
        DEFAULT_REDACTOR,
    )
    from langchain_slm.recording.store import open_store

    hooks = hooks_of(hook)
    found = load_graph(graph)
    lines = runs.read_inputs(inputs)
    redact = DEFAULT_REDACTOR if redaction else None
    with open_store(store, redact=redact) as opened, bars() as bar:
        summary = runs.record_runs(
            found,
            lines,
            store=opened,
            name=name or stored_name(graph),
            concurrency=concurrency,
            hooks=hooks,
            progress=lambda done: bar("recording", done, len(lines)),
        )
    if as_json:
        print_json(summary)
    else:
        typer.echo(
            f"{summary['runs']} runs, {summary['failed']} failed; "
            f"{summary['calls']} model calls stored, {summary['lost']} lost"
        )
        for site, calls in summary["sites"].items():
            typer.echo(f"  {shown(site)}: {calls}")
    raise typer.Exit(GATE_NOT_MET if summary["failed"] or summary["lost"] else DONE)


@app.command()
def replay(
    suite_dirs: Annotated[list[Path], typer.Argument(help="Recorded suites.")],
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    *,
    as_json: Json = False,
) -> None:
    """Serve recorded answers as an OpenAI-compatible endpoint on loopback."""
    from langchain_slm.recording.interchange import (
        read_suite,
    )
    from langchain_slm.replay import ReplayServer

    suites = [read_suite(folder) for folder in suite_dirs]
    try:
        server = ReplayServer(suites, host=host, port=port)
    except ValueError as error:
        msg = f"--host: {error}"
        raise typer.BadParameter(msg) from error
    models = sorted({model for suite in suites for model in suite.responses})
    if as_json:
        print_json({"url": server.url, "models": models})
    else:
        typer.echo(f"serving {len(models)} models at {server.url} (Ctrl-C ends)")
    sys.stdout.flush()
    if served_to := results.get():
        served_to.flush()
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    server.close()
