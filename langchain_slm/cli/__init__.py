"""The command `langchain-slm`: what the API does, with progress and exit codes.

Exit codes: 0 done, 1 a gate was not met, 2 the input or its use was wrong. Results go
to standard output (`--json`: one JSON object), progress and errors to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

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
)
from langchain_slm.errors import SLMError

__all__ = ["app", "deciding", "inspecting", "main", "recording", "rewriting"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" not in given:
        return _run(given)
    # What the user's own graph prints must not stand beside the one JSON object.
    token = results.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            code = _run(given)
    finally:
        results.reset(token)
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
        print_json({"error": {"type": kind, "message": message}})
