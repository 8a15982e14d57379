"""What the commands share: the Typer app, their common options, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

if TYPE_CHECKING:
    from langchain_slm.recording.store import Store
    from langchain_slm.rewriting.scopes import HookName
    from langchain_slm.schema import Decision

DONE, GATE_NOT_MET, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
# Where results go while standard output is kept for the user's own graph.
results: ContextVar[TextIO | None] = ContextVar("results", default=None)

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
GraphName = Annotated[
    str,
    typer.Argument(
        metavar="GRAPH",
        help="PATH.py:VARIABLE, PATH.ipynb:VARIABLE or PATH/langgraph.json:NAME",
    ),
]
StoreUrl = Annotated[str, typer.Option("--store", help="URL of the store.")]
StoredName = Annotated[
    str | None,
    typer.Option("--name", help="The graph's name in the store; default FILE:VARIABLE."),
]
PlanFile = Annotated[Path, typer.Option("--plan", help="The plan's file.")]
Hooks = Annotated[
    list[str] | None,
    typer.Option(
        "--hook",
        help="Reach more calls: openai_sdk (of the openai package), threads; repeat.",
    ),
]
SHOWN_NAME = 80  # characters of a site's name; LangGraph sets no limit


def print_json(value: object) -> None:
    """Print the one JSON object of a command."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    typer.echo(text, file=results.get())


def check_rates(margin: float, alpha: float) -> None:
    """Refuse a margin or an alpha that is not between 0 and 1."""
    for name, value in (("margin", margin), ("alpha", alpha)):
        if not 0 < value < 1:
            msg = f"--{name} must be between 0 and 1, not {value}"
            raise typer.BadParameter(msg)


def hooks_of(given: Sequence[str] | None) -> frozenset[HookName]:
    """Return the hooks that an option names."""
    from langchain_slm.rewriting.scopes import hook_names

    try:
        return hook_names(cast("Sequence[HookName]", given or ()))
    except ValueError as error:
        msg = f"--hook: {error}"
        raise typer.BadParameter(msg) from error


def gate(decisions: Sequence[Decision]) -> int:
    """Return the exit code: whether any site is proven."""
    proven = any(decision.decision == "proven" for decision in decisions)
    return DONE if proven else GATE_NOT_MET


def recorded_name(store: Store, graph: str) -> str:
    """Return the name under which a graph was recorded, by the command or by its app."""
    names = {each.graph for each in store.sites()}
    own = stored_name(graph)
    return names.pop() if len(names) == 1 and own not in names else own


def stored_name(graph: str) -> str:
    """Return the name under which a graph's calls are stored: its file and variable."""
    file, _, variable = graph.rpartition(":")
    return f"{Path(file).stem}:{variable}"


def print_decisions(decisions: Sequence[Decision], bound: Sequence[Decision]) -> None:
    """Print a line for each decision; why, where the reference is kept."""
    width = max((len(shown(decision.site)) for decision in decisions), default=0)
    for decision in decisions:
        site = f"{shown(decision.site):<{width}}"
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


def shown(name: str) -> str:
    """Return a site's name as one printable line: LangGraph allows any characters."""
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
    return safe if len(safe) <= SHOWN_NAME else f"{safe[: SHOWN_NAME - 3]}..."


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows how far a piece of work has come."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    with Progress(console=Console(stderr=True), transient=True) as progress:
        known: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in known:
                label = Text(shown(what)).markup  # names are text, never markup
                known[what] = progress.add_task(label, total=total)
            progress.update(known[what], completed=done, total=total)

        yield show
