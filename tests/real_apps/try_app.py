"""Try a rewrite on an app that somebody else wrote.

    python tests/real_apps/try_app.py CHECKOUT [--graph NAME] [--input JSON] ...

Imports each graph with placeholder keys and no network, runs it as it is, under an
identity plan, bound to a loopback model at every site, and as it is again; then says
whether the four criteria of `judging` hold. Exits with 0 if they do for every graph.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import traceback
import warnings
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # run as a script: its own folder is there


def main() -> None:
    """Try the graphs of a checkout, and report."""
    options = _options()
    checkout = options.checkout.resolve()
    from real_apps import isolation  # noqa: PLC0415 - needs the path above
    from real_apps.endpoint import Endpoint  # noqa: PLC0415 - needs the path above

    with Endpoint(options.answers, options.avoid) as endpoint:
        url = endpoint.url.removesuffix("/v1")
        isolation.set_environment(checkout, dict(options.env), url)
        isolation.close_the_network()
        isolation.redirect(url)
        with _quiet(options.verbose):
            verdicts = _verdicts(options, checkout, endpoint)
    _report(verdicts, as_json=options.json)
    sys.stdout.flush()
    failed = any(any(each["criteria"].values()) for each in verdicts)
    os._exit(int(failed))  # an app's own threads must not keep us


def _quiet(verbose: bool) -> AbstractContextManager[Any]:  # noqa: FBT001 - the option itself
    """Keep the app's own output away, unless it is wanted."""
    if verbose:
        return nullcontext()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return redirect_stdout(StringIO())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument(
        "--graph", action="append", default=[], help="NAME or PATH.py:EXPR"
    )
    parser.add_argument("--input", type=_json, help="JSON, or a file of it")
    parser.add_argument("--config", type=_json, default={}, help="JSON, or a file of it")
    parser.add_argument("--context", type=_json, help="JSON, or a file of it")
    parser.add_argument(
        "--resume", type=_json, default='"ok"', help="replies to interrupts"
    )
    parser.add_argument(
        "--answers", type=_json, default={}, help="values of fields, by name"
    )
    parser.add_argument("--avoid", action="append", default=[], help="a tool not to call")
    parser.add_argument(
        "--env",
        type=_pair,
        action="append",
        default=[],
        help="NAME=VALUE, NAME= to unset",
    )
    parser.add_argument("--client", choices=("openai", "nvidia"), default="openai")
    parser.add_argument("--timeout-s", type=float, default=120.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--verbose", action="store_true", help="show the app's own output"
    )
    return parser.parse_args()


def _json(text: str) -> Any:
    path = Path(text)
    is_file = len(text) < 200 and path.is_file()
    return json.loads(path.read_text() if is_file else text)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _verdicts(options: Any, checkout: Path, endpoint: Any) -> list[dict[str, Any]]:
    from real_apps import finding  # noqa: PLC0415 - after the network is closed

    tree = finding.Tree(checkout)
    finding.prepare(checkout)
    with asyncio.Runner() as runner:
        verdicts = [
            _verdict(named, options, endpoint, runner, tree)
            for named in finding.named_graphs(checkout, options.graph)
        ]
        changed = list(tree.changed())
        for verdict in verdicts:
            verdict["criteria"]["files"] += changed
            own = [f"{name} was changed by the app itself" for name in sorted(tree.own)]
            verdict["notes"] += own
        return verdicts


def _verdict(
    named: Any, options: Any, endpoint: Any, runner: Any, tree: Any
) -> dict[str, Any]:
    from real_apps import finding, judging, running  # noqa: PLC0415 - as above

    try:
        graph = finding.loaded(named, runner)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the app raises
        if options.verbose:
            traceback.print_exc()
        why = [f"cannot be imported: {type(error).__name__}: {error}"]
        verdict = judging.Verdict(named.name)
        verdict.fails("routing", why, "import")
        return asdict(verdict)
    settings = running.Settings(
        given=_default_input(graph) if options.input is None else options.input,
        config=options.config,
        context=_context(graph) if options.context is None else options.context,
        resume=options.resume,
        timeout_s=options.timeout_s,
    )
    runs = running.Runs(endpoint, settings, runner)
    judge = judging.Judge(named.name, graph, runs, endpoint, tree, options.client)
    return asdict(judge.judge())


def _default_input(graph: Any) -> Any:
    """Return a message where the graph takes messages, else what its schema requires."""
    from real_apps.answering import Guided  # noqa: PLC0415 - as above

    message = {"role": "user", "content": "What is a small language model?"}
    schema = graph.get_input_jsonschema()
    if "messages" in (schema.get("properties") or {}):
        return {"messages": [message]}
    return Guided("", {}).fill(schema)


def _context(graph: Any) -> Any:
    """Return an empty context where the graph takes one, as LangGraph's server does."""
    return {} if graph.context_schema is not None else None


def _report(verdicts: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(verdicts, indent=2) + "\n")
        return
    for verdict in verdicts:
        lines = [f"{verdict['graph']}"]
        lines += [f"  ran {way}: {how}" for way, how in verdict["ways"].items()]
        sites = {**dict.fromkeys(verdict["inspected"], 0), **verdict["sites"]}
        for site, calls in sorted(sites.items()):
            found = verdict["inspected"].get(site, "not found")
            lines.append(f"  site {site}: {calls} calls bound, by inspect: {found}")
        lines += [f"  web: {each}" for each in verdict["web"]]
        lines += [f"  kept: {each}" for each in verdict["kept"]]
        lines += [f"  opaque: {each}" for each in verdict["opaque"]]
        lines += [f"  note: {each}" for each in verdict["notes"]]
        for name, reasons in verdict["criteria"].items():
            lines.append(f"  {'ok  ' if not reasons else 'FAIL'} {name}")
            lines += [f"       {reason}" for reason in reasons]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
