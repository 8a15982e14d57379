"""The stages in order: curate, cluster, specialise, evaluate, select, write the plan.

Each stage is called once, and nothing is decided here. A plan is written only when every
task has been decided.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from langchain_slm.clustering import assign, cluster
from langchain_slm.curation import Dataset, SplitShares, curate, with_truth
from langchain_slm.errors import (
    NoCandidatesError,
    NoExamplesError,
    PlanError,
    SLMError,
)
from langchain_slm.evaluation.candidates import (
    catalogue_candidates,
    head_candidate,
    reference_of,
)
from langchain_slm.evaluation.evaluators import Evaluator, evaluator_for
from langchain_slm.evaluation.experiment import (
    Counters,
    Experiment,
    Settings,
    together,
)
from langchain_slm.evaluation.trial import Rule, Trial
from langchain_slm.recording.store import Store
from langchain_slm.rewriting.sites import Graph, fingerprint
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.targets import chat_model
from langchain_slm.schema import Decision, Example, Expected, ModelSpec, Plan, Task

T = TypeVar("T")
Progress = Callable[[str, str, int, int], None]  # task, candidate, pairs done, at most


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        margin: Non-inferiority margin, an absolute difference of pass rates.
        alpha: Bound on the probability that any binding is worse than the margin.
        split: Shares of train, validation and test threads.
        seed: Draws splits and the order of examples.
        evaluate_all: Whether every candidate is asked every held-out example, instead
            of stopping when the evidence decides; costs more, decides as `select` does.
        heads: Whether to train closed-set heads (needs the extra `convert`).
        bind_provisional: Whether to bind what is promising but not proven.
        truth: Right answers by `Request.key`; without it, the reference's own.
        evaluators: A user's own evaluator by site, before any of ours.
        settings: How candidates are asked.

    Raises:
        ValueError: If margin or alpha is not in (0, 1).
    """

    margin: float = 0.05
    alpha: float = 0.05
    split: SplitShares = field(default_factory=SplitShares)
    seed: int = 0
    evaluate_all: bool = False
    heads: bool = True
    bind_provisional: bool = False
    truth: Mapping[str, Expected] = field(default_factory=dict)
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not (0 < self.margin < 1 and 0 < self.alpha < 1):
            msg = f"margin and alpha must be in (0, 1), not {self.margin}, {self.alpha}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Conversion:
    """What a conversion came to.

    Attributes:
        plan: As written.
        dataset: What it was decided on.
        counters: What it asked of the candidates.
    """

    plan: Plan
    dataset: Dataset
    counters: Counters


def convert(
    store: Store,
    models: Sequence[ModelSpec],
    *,
    graph: Graph | None = None,
    name: str | None = None,
    plan_path: Path | str = "slm-plan.json",
    options: Options | None = None,
    progress: Progress = lambda *_: None,
    created: datetime | None = None,
) -> Conversion:
    """Decide for each task of a recorded graph which model answers it; write the plan.

    Args:
        store: Recorded calls; answers of candidates are kept there, too.
        models: The candidates, and the reference for its price.
        graph: The graph, for its fingerprint.
        name: Name of the graph in the store; None takes every call there.
        plan_path: Where the plan goes; heads go into `slm-heads` beside it.
        options: How to convert.
        progress: Told what is being done.
        created: Time to write into the plan; by default now.

    Raises:
        NoExamplesError: If the store holds no usable call.
        NoCandidatesError: If there is no model to choose from.
        CatalogError: If a candidate's key is not set, or its name is taken.
        MissingExtraError: If a head is to be trained without scikit-learn.
        EndpointError: If a candidate's endpoint cannot be used at all.
        PlanError: If the plan cannot be written where it should go.
    """
    options = options or Options()
    path = Path(plan_path)
    _check_place(path)
    marked = None if graph is None else fingerprint(graph)
    dataset, tasks = tasks_of(store, name, options)
    _check_evaluators(options, tasks)
    experiment = Experiment(store, options.settings)
    made = cache(chat_model)
    trials = []
    for task, own in _by_task(dataset, tasks):
        reference = reference_of(task, own.examples, models)
        candidates = catalogue_candidates(task, reference, models, made)
        if options.heads:
            head = head_candidate(task, own, reference, path.parent)
            candidates += [head] if head else []
        judge, told = _evaluator_of(task, options), partial(progress, task.task_id)
        trials.append(Trial(task, reference, own, candidates, judge, experiment, told))
    decisions = _waited_for(_decide(trials, options))
    plan = Plan(
        graph=name or "",
        fingerprint=marked,
        created=(created or datetime.now(UTC)).isoformat(timespec="seconds"),
        margin=options.margin,
        alpha=options.alpha,
        compared_with="truth" if _all_labelled(trials) else "reference",
        bind_provisional=options.bind_provisional,
        decisions=tuple(decisions),
    )
    return Conversion(write_plan(plan, path), dataset, experiment.counters)


def tasks_of(
    store: Store, name: str | None, options: Options
) -> tuple[Dataset, tuple[Task, ...]]:
    """Return the store's calls as a dataset whose examples are assigned to tasks.

    Raises:
        NoExamplesError: If no usable call is left.
    """
    dataset = curate(store.calls(graph=name), split=options.split, seed=options.seed)
    if not dataset.examples:
        dropped = ", ".join(f"{n} {why}" for why, n in sorted(dataset.counts.items()))
        seen = f"{dataset.calls} calls, dropped: {dropped}" if dropped else "no calls"
        known = sorted({each.graph for each in store.sites()})
        of_graph = f" of graph {name!r} (it has calls of {known})" if name else ""
        msg = (
            f"the store holds {seen}{of_graph}: nothing to decide with; record the graph "
            "first with `langchain-slm record`"
        )
        raise NoExamplesError(msg, calls=dataset.calls)
    examples = with_truth(dataset.examples, options.truth)
    tasks = cluster(examples)
    return dataset.model_copy(update={"examples": assign(examples, tasks)}), tasks


def _check_evaluators(options: Options, tasks: Sequence[Task]) -> None:
    """Refuse an evaluator that would judge nothing: its site is misspelt."""
    sites = sorted({task.site for task in tasks})
    if unknown := sorted(set(options.evaluators) - set(sites)):
        msg = f"no recorded site {unknown[0]!r} for its evaluator; the sites are {sites}"
        raise SLMError(msg, site=unknown[0])


def _check_place(path: Path) -> None:
    """Refuse a place where no plan can be written, before anything is paid for."""
    if not path.parent.is_dir():
        msg = f"{path}: the folder {path.parent} does not exist; create it"
        raise PlanError(msg, path=str(path))
    if path.is_dir():
        msg = f"{path}: is a folder; name a file for the plan"
        raise PlanError(msg, path=str(path))


def _by_task(dataset: Dataset, tasks: Sequence[Task]) -> Iterator[tuple[Task, Dataset]]:
    """Yield each task that has examples with a dataset of these only."""
    examples: defaultdict[str, list[Example]] = defaultdict(list)
    for example in dataset.examples:
        examples[example.task].append(example)
    for task in tasks:
        if own := examples[task.task_id]:
            yield task, dataset.model_copy(update={"examples": tuple(own)})


def _all_labelled(trials: Sequence[Trial]) -> bool:
    pairs = [example for trial in trials for example in trial.pairs("test")]
    return bool(pairs) and all(example.expected for example in pairs)


def _evaluator_of(task: Task, options: Options) -> Callable[[Example], Evaluator | None]:
    own = options.evaluators.get(task.site)
    return lambda example: own or evaluator_for(example, task)


async def _decide(trials: Sequence[Trial], options: Options) -> list[Decision]:
    candidates = [each for trial in trials for each in trial.candidates]
    if not candidates:
        msg = (
            "no candidate: the catalogue names only the reference, and there is no "
            "closed set of answers to train a head on; add a model to the catalogue"
        )
        raise NoCandidatesError(msg)
    tried = [trial for trial in trials if trial.candidates and trial.is_testable]
    rule = Rule(
        margin=options.margin,
        alpha=options.alpha,
        sites=max(1, len(tried)),
        stops_early=not options.evaluate_all,
    )
    try:
        return await together(trial.run(rule) for trial in trials)
    finally:
        # Connections belong to this loop, which ends with the experiment.
        for candidate in candidates:
            if opened := getattr(candidate.model, "root_async_client", None):
                await opened.close()


def _waited_for(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def told() -> T:
        task = asyncio.ensure_future(work)
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, told())
        try:
            return done.result()
        except BaseException:
            if not done.done():  # Ctrl-C in the notebook: what is in flight ends, too
                loop, task = started.result()
                loop.call_soon_threadsafe(task.cancel)
            raise
