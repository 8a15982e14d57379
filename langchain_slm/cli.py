"""The command `langchain-slm`: what the API does, with progress and exit codes.

Exit codes: 0 done, 1 a gate was not met, 2 the input or its use was wrong. Results go
to standard output (`--json`: one JSON object), progress and errors to standard error.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from langchain_slm.errors import CatalogError, SLMError

if TYPE_CHECKING:
    from langchain_slm.conversion import Options
    from langchain_slm.curation import SplitShares
    from langchain_slm.evaluation.evaluators import Evaluator
    from langchain_slm.recording.store import Store
    from langchain_slm.schema import Decision, Expected, ModelSpec, Plan

DONE, GATE_NOT_MET, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
# Where results go while standard output is kept for the user's own graph.
_results: ContextVar[TextIO | None] = ContextVar("results", default=None)

app = typer.Typer(
    name="langchain-slm",
    help="Bind each node of a LangGraph graph to the cheapest model that passes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help needs no import of rich
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Margin = Annotated[
    float, typer.Option(help="Non-inferiority margin, a difference of pass rates.")
]
Alpha = Annotated[
    float, typer.Option(help="Bound on the probability that any binding is wrong.")
]
GraphName = Annotated[str, typer.Argument(metavar="GRAPH", help="PATH.py:VARIABLE")]
StoreUrl = Annotated[str, typer.Option("--store", help="URL of the store.")]
StoredName = Annotated[
    str | None,
    typer.Option("--name", help="The graph's name in the store; default FILE:VARIABLE."),
]
PlanFile = Annotated[Path, typer.Option("--plan", help="The plan's file.")]
SHOWN_NAME = 80  # characters of a site's name; LangGraph sets no limit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" not in given:
        return _run(given)
    # What the user's own graph prints must not stand beside the one JSON object.
    token = _results.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            code = _run(given)
    finally:
        _results.reset(token)
    return code


def _run(given: list[str]) -> int:
    try:
        app(given)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else WRONG_USE
        if code == WRONG_USE:
            _print_error(given, "UsageError", "see standard error")
        if code == INTERRUPTED:
            typer.echo("interrupted; what was stored is kept", err=True)
        return code
    except SLMError as error:
        _print_error(given, type(error).__name__, str(error))
        typer.echo(f"error: {error}", err=True)
        return WRONG_USE
    return DONE


def _print_error(given: Sequence[str], kind: str, message: str) -> None:
    if "--json" in given:
        _print_json({"error": {"type": kind, "message": message}})


def _print_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    typer.echo(text, file=_results.get())


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

    _check_rates(margin, alpha)
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
        _print_json(result if agreed is None else {**result, "agreement": agreed})
    else:
        _print_decisions(decisions, [d for d in decisions if d.decision == "proven"])
        for model, share in (agreed or {}).items():
            typer.echo(f"agreement with the recorded flags: {share:.2%} {model}")
    raise typer.Exit(_gate(decisions))


def _check_rates(margin: float, alpha: float) -> None:
    for name, value in (("margin", margin), ("alpha", alpha)):
        if not 0 < value < 1:
            msg = f"--{name} must be between 0 and 1, not {value}"
            raise typer.BadParameter(msg)


def _gate(decisions: Sequence[Decision]) -> int:
    proven = any(decision.decision == "proven" for decision in decisions)
    return DONE if proven else GATE_NOT_MET


@app.command()
def record(
    graph: GraphName,
    inputs: Annotated[Path, typer.Option(help="JSONL: one graph input a line.")],
    store: StoreUrl = "sqlite:///slm.db",
    name: StoredName = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 4,
    *,
    redaction: Annotated[
        bool, typer.Option(help="Redact personal data before it is stored.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Run a graph on inputs and store every model call.

    Each line is a thread of its own. Exit code 1 where a run failed or a call was lost.
    """
    from langchain_slm.recording import runs
    from langchain_slm.recording.redaction import (
        DEFAULT_REDACTOR,
    )
    from langchain_slm.recording.store import open_store
    from langchain_slm.rewriting.loading import load_graph

    found = load_graph(graph)
    lines = runs.read_inputs(inputs)
    redact = DEFAULT_REDACTOR if redaction else None
    with open_store(store, redact=redact) as opened, _bars() as bar:
        summary = runs.record_runs(
            found,
            lines,
            store=opened,
            name=name or _stored_name(graph),
            concurrency=concurrency,
            progress=lambda done: bar("recording", done, len(lines)),
        )
    if as_json:
        _print_json(summary)
    else:
        typer.echo(
            f"{summary['runs']} runs, {summary['failed']} failed; "
            f"{summary['calls']} model calls stored, {summary['lost']} lost"
        )
        for site, calls in summary["sites"].items():
            typer.echo(f"  {_shown(site)}: {calls}")
    raise typer.Exit(GATE_NOT_MET if summary["failed"] or summary["lost"] else DONE)


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

    _check_rates(margin, alpha)
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
        _print_json({"plan": made.model_dump(mode="json"), "path": str(plan)})
    else:
        _print_decisions(made.decisions, bound=made.active)
        typer.echo(f"{plan} written; bound to an app by `rewrite(graph, {str(plan)!r})`")
    raise typer.Exit(_gate(made.decisions))


def _converted(
    graph: str,
    name: str | None,
    catalogue: Sequence[ModelSpec],
    store: str,
    plan: Path,
    options: Options,
) -> Plan:
    from langchain_slm.conversion import convert as convert_graph
    from langchain_slm.recording.store import open_store
    from langchain_slm.rewriting.loading import load_graph

    found = load_graph(graph)
    with open_store(store, create=False) as opened, _bars() as bar:
        return convert_graph(
            opened,
            catalogue,
            graph=found,
            name=name or _recorded_name(opened, graph),
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
    from langchain_slm.rewriting.loading import load

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
        _print_json(
            {"plan": made.model_dump(mode="json"), "bound": bound, "warnings": notes}
        )
    else:
        _print_decisions(made.decisions, bound=made.active)
        for note in notes:
            typer.echo(f"warning: {note}", err=True)
        typer.echo(f"In the app: graph = rewrite(graph, {str(plan)!r})")


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
        _print_json({"url": server.url, "models": models})
    else:
        typer.echo(f"serving {len(models)} models at {server.url} (Ctrl-C ends)")
    sys.stdout.flush()
    if served_to := _results.get():
        served_to.flush()
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    server.close()


@app.command()
def demo(
    plan: PlanFile = Path("slm-plan.json"),
    *,
    as_json: Json = False,
) -> None:
    """Convert the example support desk: no key, no network, synthetic traces."""
    from langchain_slm.demo import run_demo

    with _bars() as bar:
        shown = run_demo(plan, progress=bar)
    if as_json:
        _print_json(shown.as_json())
        return
    typer.echo(f"{shown.calls} recorded calls of {shown.threads} synthetic threads")
    _print_decisions(shown.plan.decisions, bound=shown.plan.active)
    typer.echo(f"\nThe rewritten graph on {shown.new_inputs} new tickets was answered by")
    for site, models in shown.answered_by.items():
        typer.echo(
            f"  {_shown(site)}: " + ", ".join(f"{m} {n}" for m, n in models.items())
        )
    typer.echo(f"{plan} written in {shown.seconds:.0f} s")


def _recorded_name(store: Store, graph: str) -> str:
    """Return the name under which a graph was recorded, by the command or by its app."""
    names = {each.graph for each in store.sites()}
    own = _stored_name(graph)
    return names.pop() if len(names) == 1 and own not in names else own


def _stored_name(graph: str) -> str:
    """Return the name under which a graph's calls are stored: its file and variable."""
    file, _, variable = graph.rpartition(":")
    return f"{Path(file).stem}:{variable}"


def _print_decisions(decisions: Sequence[Decision], bound: Sequence[Decision]) -> None:
    width = max((len(_shown(decision.site)) for decision in decisions), default=0)
    for decision in decisions:
        site = f"{_shown(decision.site):<{width}}"
        if decision in bound:
            typer.echo(f"{site}  {_bound_line(decision)}")
            continue
        open_ = decision.decision == "provisional"
        note = f"; {decision.model} is provisional, not bound" if open_ else ""
        typer.echo(f"{site}  {decision.reference} kept{note}")
        typer.echo(f"{'':<{width}}    {decision.reason}")


def _bound_line(decision: Decision) -> str:
    from langchain_slm.economics import cost_change

    line = f"{decision.reference} -> {decision.model}"
    seen = decision.chosen
    if seen is None:
        return line
    change = cost_change(seen.usd_per_correct, seen.reference_usd_per_correct)
    parts = [
        line,
        f"{seen.candidate_pass_rate:.3f} against {seen.reference_pass_rate:.3f}",
        f"n={seen.n}",
        f"E {seen.e_value:.4g} (needs {decision.threshold:.4g})",
        "cost unknown" if change is None else f"{change:+.1%} cost",
    ]
    return "   ".join(parts)


def _shown(name: str) -> str:
    """Return a site's name as one printable line: LangGraph allows any characters."""
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
    return safe if len(safe) <= SHOWN_NAME else f"{safe[: SHOWN_NAME - 3]}..."


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows how far a piece of work has come."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    with Progress(console=Console(stderr=True), transient=True) as progress:
        known: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in known:
                label = Text(_shown(what)).markup  # names are text, never markup
                known[what] = progress.add_task(label, total=total)
            progress.update(known[what], completed=done, total=total)

        yield show
