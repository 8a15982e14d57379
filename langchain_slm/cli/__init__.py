"""The command `langchain-slm`: what the API does, with progress and exit codes.

Exit codes: 0 done, 1 a gate was not met, 2 the input or its use was wrong. Results go
to standard output (`--json`: one JSON object), progress and errors to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

import typer

# Imported for the commands that they add to the app.
from langchain_slm.cli import deciding, inspecting, recording, rewriting
from langchain_slm.cli.console import (
    DONE,
    INTERRUPTED,
    WRONG_USE,
    app,
    print_json,
    results,
    shown,
)
from langchain_slm.errors import SLMError

STDOUT, STDERR = 1, 2

__all__ = ["app", "deciding", "inspecting", "main", "recording", "rewriting"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" not in given:
        return _run(given)
    # What the user's own graph prints must not stand beside the one JSON object.
    with _kept_output() as output, redirect_stdout(sys.stderr):
        token = results.set(output)
        try:
            return _run(given)
        finally:
            results.reset(token)


@contextmanager
def _kept_output() -> Iterator[TextIO]:
    """Yield standard output; what others write to its descriptor goes to the error's.

    Those are child processes and code that is not Python's.
    """
    output = sys.__stdout__
    if output is None or sys.stdout is not output or output.fileno() != STDOUT:
        yield sys.stdout  # replaced by who calls: nobody else writes to it
        return
    output.flush()
    kept = os.fdopen(os.dup(STDOUT), "w", encoding=output.encoding, errors=output.errors)
    os.dup2(STDERR, STDOUT)
    try:
        yield kept
    finally:
        os.dup2(kept.fileno(), STDOUT)
        with suppress(BrokenPipeError):
            kept.close()


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
        typer.echo(f"error: {_printable(str(error))}", err=True)
        return WRONG_USE
    return DONE


def _printable(text: str) -> str:
    """Return an error's text without what would steer a terminal: it quotes the app."""
    return "".join(c if c.isprintable() or c == "\n" else shown(c) for c in text)


def _print_error(given: Sequence[str], kind: str, message: str) -> None:
    if "--json" in given:
        print_json({"error": {"type": kind, "message": message}})
