"""The command that binds a plan to an app."""

from __future__ import annotations

import warnings
from pathlib import Path

import typer

from langchain_slm.cli.console import (
    GraphName,
    Json,
    PlanFile,
    app,
    print_decisions,
    print_json,
)


@app.command()
def rewrite(
    graph: GraphName,
    plan: PlanFile = Path("slm-plan.json"),
    *,
    as_json: Json = False,
) -> None:
    """Show what a plan binds in a graph. Nothing is written.

    In the app: `from langchain_slm import rewrite; graph = rewrite(graph, PLAN)`.
    """
    from langchain_slm.rewriting.graphs import (
        rewrite as rewrite_graph,
    )
    from langchain_slm.rewriting.loading import load_graph
    from langchain_slm.routing.plan_file import read_plan

    found = load_graph(graph)
    made = read_plan(plan)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rewrite_graph(found, plan)
    notes = [str(each.message) for each in caught if each.category is UserWarning]
    if as_json:
        bound = [decision.site for decision in made.active]
        print_json(
            {"plan": made.model_dump(mode="json"), "bound": bound, "warnings": notes}
        )
    else:
        print_decisions(made.decisions, bound=made.active)
        for note in notes:
            typer.echo(f"warning: {note}", err=True)
        typer.echo(f"In the app: graph = rewrite(graph, {str(plan)!r})")
