"""The main job on the example app: a support desk with synthetic, recorded answers.

Needs no key and no network: the example's recorded models are served on loopback.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_slm.conversion import convert
from langchain_slm.errors import SuiteError
from langchain_slm.loading.graphs import load_graph
from langchain_slm.recording.interchange import Suite, read_suite, suite_calls
from langchain_slm.recording.recorder import record
from langchain_slm.recording.runs import read_inputs
from langchain_slm.recording.store import Store, open_store
from langchain_slm.replay import ReplayServer
from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.schema import JsonObject, Plan

URL_VARIABLE = "SUPPORT_DESK_URL"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Demo:
    """What the demo came to.

    Attributes:
        plan: As written.
        calls: Recorded calls that it was decided on.
        threads: Conversations that they belong to.
        new_inputs: Tickets on which the rewritten graph was run.
        answered_by: Site to model to number of calls in those runs.
        seconds: From start to end.
    """

    plan: Plan
    calls: int
    threads: int
    new_inputs: int
    answered_by: dict[str, dict[str, int]]
    seconds: float

    def as_json(self) -> JsonObject:
        """Return it as one JSON object that holds the plan."""
        return {
            "synthetic": True,
            "plan": self.plan.model_dump(mode="json"),
            "calls": self.calls,
            "threads": self.threads,
            "new_inputs": self.new_inputs,
            "answered_by": self.answered_by,
            "seconds": round(self.seconds, 1),
        }


def run_demo(plan_path: Path, *, progress: Progress = lambda *_: None) -> Demo:
    """Convert the support desk, write its plan, and run the rewritten graph.

    Args:
        plan_path: Where the plan goes.
        progress: Told what is being done, how much is done, and of how much.

    Raises:
        PlanError: If the plan cannot be written.
    """
    started_s = time.perf_counter()
    desk = example_folder()
    recorded, new = read_suite(desk / "recorded"), read_suite(desk / "recorded_new")
    inputs = read_inputs(desk / "new_inputs.jsonl")
    with (
        tempfile.TemporaryDirectory() as folder,
        ReplayServer([recorded, new]) as server,
        open_store(f"sqlite:///{folder}/demo.db") as store,
        _environment(URL_VARIABLE, server.url),
    ):
        progress("recorded calls", 0, 1)
        calls = store.add_many(suite_calls(recorded, _reference(recorded)))
        progress("recorded calls", 1, 1)
        models = [
            spec.model_copy(update={"base_url": server.url})
            for spec in recorded.models.values()
        ]
        graph = load_graph(f"{desk / 'app.py'}:graph")
        conversion = convert(
            store,
            models,
            graph=graph,
            name=recorded.name,
            plan_path=plan_path,
            progress=lambda task, *done: progress(f"{task}: {done[0]}", *done[1:]),
        )
        answered_by = _run(graph, plan_path, inputs, store)
    return Demo(
        plan=conversion.plan,
        calls=calls,
        threads=len({case.thread for case in recorded.cases}),
        new_inputs=len(inputs),
        answered_by=answered_by,
        seconds=time.perf_counter() - started_s,
    )


def example_folder() -> Path:
    """Return the folder of the support desk: in the package, or beside its source."""
    here = Path(__file__).parent
    for folder in (here / "_support_desk", here.parent / "examples" / "support_desk"):
        if folder.is_dir():
            return folder
    msg = "the example app is not installed with this package; reinstall langchain-slm"
    raise SuiteError(msg)


def _reference(suite: Suite) -> str:
    if suite.reference is None:
        msg = f"suite {suite.name!r} marks no reference model in models.json"
        raise SuiteError(msg)
    return suite.reference


def _run(
    graph: Any, plan_path: Path, inputs: list[Any], store: Store
) -> dict[str, dict[str, int]]:
    """Run the rewritten graph, recorded, and return who answered where."""
    rewritten = record(rewrite(graph, plan_path), store, name="rewritten")
    rewritten.batch(inputs)
    answered: dict[str, Counter[str]] = {}
    for call in store.calls(graph="rewritten"):
        answered.setdefault(call.site, Counter())[call.model] += 1
    return {site: dict(models) for site, models in sorted(answered.items())}


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
