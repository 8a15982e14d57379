"""The commands that decide: select, convert, and the demo of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_slm.cli.console import (
    Alpha,
    GraphName,
    Json,
    Margin,
    PlanFile,
    StoredName,
    StoreUrl,
    app,
    bars,
    check_rates,
    gate,
    print_decisions,
    print_json,
    recorded_name,
    shown,
)
from langchain_slm.errors import CatalogError

if TYPE_CHECKING:
    from langchain_slm.conversion import Options
    from langchain_slm.curation import SplitShares
    from langchain_slm.evaluation.evaluators import Evaluator
    from langchain_slm.schema import Expected, ModelSpec, Plan


@app.command()
def select(
    suite_dir: Annotated[Path, typer.Argument(help="A recorded suite.")],
    reference: Annotated[str, typer.Option(help="The model in use today.")],
    margin: Margin = 0.05,
    alpha: Alpha = 0.05,
    *,
    trust_flags: Annotated[
        bool, typer.Option("--trust-flags", help="Take the recorded pass flags.")
    ] = False,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Compare our verdicts with the flags.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide a recorded suite offline: every other model is a candidate.

    Exit code 1 where no site could be proven.
    """
    from langchain_slm.evaluation import recorded
    from langchain_slm.recording.interchange import (
        read_suite,
    )

    check_rates(margin, alpha)
    suite = read_suite(suite_dir)
    ours = recorded.judged(suite) if agreement or not trust_flags else {}
    flags = recorded.recorded_flags(suite) if trust_flags else ours
    decisions = recorded.decide_suite(
        suite, reference=reference, margin=margin, alpha=alpha, flags=flags
    )
    agreed = recorded.agreement(suite, ours) if agreement else None
    if as_json:
        result: dict[str, Any] = {"margin": margin, "alpha": alpha}
        result["sites"] = recorded.as_json(decisions)
        print_json(result if agreed is None else {**result, "agreement": agreed})
    else:
        print_decisions(decisions, [d for d in decisions if d.decision == "proven"])
        for model, share in (agreed or {}).items():
            typer.echo(f"agreement with the recorded flags: {share:.2%} {model}")
    raise typer.Exit(gate(decisions))


@app.command()
def convert(
    graph: GraphName,
    models: Annotated[Path, typer.Option(help="Catalogue: models.toml.")],
    store: StoreUrl = "sqlite:///slm.db",
    plan: PlanFile = Path("slm-plan.json"),
    name: StoredName = None,
    margin: Margin = 0.05,
    alpha: Alpha = 0.05,
    split: Annotated[
        str, typer.Option(help="Shares of train, validation and test threads.")
    ] = "0.4,0.2,0.4",
    seed: Annotated[int, typer.Option(help="Draws the splits and the order.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(help="A recorded suite with the right answers.")
    ] = None,
    evaluator: Annotated[
        list[str] | None, typer.Option(help="SITE=PATH.py:FUNCTION; repeat for more.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls in flight.")] = 16,
    *,
    evaluate_all: Annotated[
        bool, typer.Option("--evaluate-all", help="Never stop early; costs more.")
    ] = False,
    heads: Annotated[bool, typer.Option(help="Train closed-set heads.")] = True,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Bind what is promising, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide a recorded graph: curate, cluster, evaluate, select, write the plan.

    Exit code 1 where no site could be proven; the plan is written all the same.
    """
    from langchain_slm.conversion import Options
    from langchain_slm.evaluation.experiment import Settings

    check_rates(margin, alpha)
    options = Options(
        margin=margin,
        alpha=alpha,
        split=_split(split),
        seed=seed,
        evaluate_all=evaluate_all,
        heads=heads,
        bind_provisional=provisional,
        truth=_truth(truth),
        evaluators=_evaluators(evaluator or []),
        settings=Settings(concurrency=concurrency),
    )
    made = _converted(graph, name, _catalogue(models), store, plan, options)
    if as_json:
        print_json({"plan": made.model_dump(mode="json"), "path": str(plan)})
    else:
        print_decisions(made.decisions, bound=made.active)
        typer.echo(f"{plan} written; bound to an app by `rewrite(graph, {str(plan)!r})`")
    raise typer.Exit(gate(made.decisions))


def _converted(
    graph: str,
    name: str | None,
    catalogue: Sequence[ModelSpec],
    store: str,
    plan: Path,
    options: Options,
) -> Plan:
    from langchain_slm.conversion import convert as convert_graph
    from langchain_slm.loading.graphs import load_graph
    from langchain_slm.recording.store import open_store

    found = load_graph(graph)
    with open_store(store, create=False) as opened, bars() as bar:
        return convert_graph(
            opened,
            catalogue,
            graph=found,
            name=name or recorded_name(opened, graph),
            plan_path=plan,
            options=options,
            progress=lambda task, *done: bar(f"{task}: {done[0]}", *done[1:]),
        ).plan


def _split(text: str) -> SplitShares:
    from langchain_slm.curation import SplitShares

    try:
        train, validation, test = (float(part) for part in text.split(","))
        return SplitShares(train=train, validation=validation, test=test)
    except ValueError:
        msg = f"--split: three shares that add up to 1, as in 0.4,0.2,0.4, not {text!r}"
        raise typer.BadParameter(msg) from None


def _truth(folder: Path | None) -> dict[str, Expected]:
    from langchain_slm.recording.interchange import (
        read_suite,
    )

    if folder is None:
        return {}
    return {case.request.key: case.expected for case in read_suite(folder).cases}


def _evaluators(given: Sequence[str]) -> dict[str, Evaluator]:
    from langchain_slm.evaluation.evaluators import (
        UserFunction,
    )
    from langchain_slm.loading.graphs import load

    evaluators: dict[str, Evaluator] = {}
    for each in given:
        site, equals, name = each.partition("=")
        if not equals:
            msg = f"--evaluator needs SITE=PATH.py:FUNCTION, not {each!r}"
            raise typer.BadParameter(msg)
        evaluators[site] = UserFunction(load(name), name=name)
    return evaluators


def _catalogue(path: Path) -> tuple[ModelSpec, ...]:
    from langchain_slm.catalog import parse_catalog

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: the catalogue cannot be read ({type(error).__name__})"
        raise CatalogError(msg, path=str(path)) from error
    return parse_catalog(text, source=str(path))


@app.command()
def demo(
    plan: PlanFile = Path("slm-plan.json"),
    *,
    as_json: Json = False,
) -> None:
    """Convert the example support desk: no key, no network, synthetic traces."""
    from langchain_slm.demo import run_demo

    with bars() as bar:
        made = run_demo(plan, progress=bar)
    if as_json:
        print_json(made.as_json())
        return
    typer.echo(f"{made.calls} recorded calls of {made.threads} synthetic threads")
    print_decisions(made.plan.decisions, bound=made.plan.active)
    typer.echo(f"\nThe rewritten graph on {made.new_inputs} new tickets was answered by")
    for site, models in made.answered_by.items():
        typer.echo(
            f"  {shown(site)}: " + ", ".join(f"{m} {n}" for m, n in models.items())
        )
    typer.echo(f"{plan} written in {made.seconds:.0f} s")
