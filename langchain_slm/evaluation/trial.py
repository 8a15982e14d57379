"""The trial of one task: screen candidates on validation, confirm on test, decide.

Screening costs nothing of the guarantee, for the splits share no thread; it leaves few
candidates to correct for. Candidates are tried cheapest first, and none after one has
been proven. With an empty validation split, and where every candidate is to be asked
everything, all of them are confirmed. Refuses a candidate that was built from a thread
that it would be tested on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from langchain_slm.curation import Dataset, one_per_thread
from langchain_slm.economics import call_usd
from langchain_slm.evaluation.evaluators import Evaluator
from langchain_slm.evaluation.experiment import (
    Candidate,
    Experiment,
    Progress,
    Stop,
    Unanswered,
    together,
)
from langchain_slm.schema import (
    Decision,
    Evidence,
    Example,
    ModelSpec,
    Outcome,
    Task,
)
from langchain_slm.selection import (
    LookName,
    decide,
    is_futile,
    look,
    threshold,
    weigh,
)

# Enough to tell a candidate that is 5 points worse from an equal one four times in five;
# more would be better spent on the test split.
SCREEN_PAIRS = 200
# With two confirmed the union bound costs a factor of two, whatever was screened.
MOST_CONFIRMED = 2

EvaluatorOf = Callable[[Example], Evaluator | None]
Outcomes = dict[str, list[Outcome]]
HeldOut = Literal["validation", "test"]


@dataclass(frozen=True)
class Rule:
    """What the whole plan promises.

    Attributes:
        margin: Non-inferiority margin.
        alpha: Accepted probability of any wrong binding.
        sites: Tasks that are decided.
        stops_early: Whether candidates are screened, and asked only until the evidence
            decides.
    """

    margin: float
    alpha: float
    sites: int
    stops_early: bool = True

    def stop(self, candidates: int) -> Stop | None:
        """Return what ends the evaluation of one of `candidates`; None for nothing."""
        if not self.stops_early:
            return None
        return partial(look, margin=self.margin, threshold=self._limit(candidates))

    def screens_out(self, n: int, reference_only: int, candidate_only: int) -> bool:
        """Whether a candidate would be dropped as futile where it is confirmed."""
        limit = self._limit(MOST_CONFIRMED)
        return is_futile(
            n, reference_only, candidate_only, margin=self.margin, threshold=limit
        )

    def screening_look(
        self, n: int, reference_only: int, candidate_only: int
    ) -> LookName:
        """Return what ends the screening of a candidate: only that it is futile."""
        is_out = self.screens_out(n, reference_only, candidate_only)
        return "futile" if is_out else "open"

    def _limit(self, candidates: int) -> float:
        return threshold(
            candidates=max(1, candidates), sites=self.sites, alpha=self.alpha
        )


@dataclass(frozen=True)
class Trial:
    """Everything that the decision on one task needs.

    Attributes:
        task: The task.
        reference: The model that it calls today.
        dataset: Curated examples, assigned to tasks.
        candidates: Who may take its place.
        evaluator_of: Judges answers; None for an example that cannot be judged.
        experiment: Asks.
        progress: Told of each answer.

    Raises:
        ValueError: If a candidate was built from a thread that would be a test pair.
    """

    task: Task
    reference: ModelSpec
    dataset: Dataset
    candidates: Sequence[Candidate]
    evaluator_of: EvaluatorOf
    experiment: Experiment
    progress: Progress = lambda *_: None

    def __post_init__(self) -> None:
        held_out = {example.thread_id for example in self.pairs("test")}
        for candidate in self.candidates:
            if leaked := candidate.built_from & held_out:
                msg = (
                    f"task {self.task.task_id!r}: {candidate.name!r} was built from "
                    f"{len(leaked)} of the {len(held_out)} threads that would test it; "
                    "build it from the train and validation splits"
                )
                raise ValueError(msg)

    @property
    def is_testable(self) -> bool:
        """Whether any held-out example can be judged."""
        return bool(self.pairs("test"))

    def pairs(self, split: HeldOut) -> list[Example]:
        """Return the examples of a split that can be judged, one per thread."""
        return self._pairs[split]

    @cached_property
    def _pairs(self) -> dict[HeldOut, list[Example]]:
        return {"validation": self._judged("validation"), "test": self._judged("test")}

    def _judged(self, split: HeldOut) -> list[Example]:
        examples = self.dataset.examples_of(self.task.task_id, split)
        own = [each for each in examples if each.model == self.reference.name]
        judged = [each for each in own if self.evaluator_of(each) is not None]
        return one_per_thread(judged, seed=self.dataset.seed)

    async def run(self, rule: Rule) -> Decision:
        """Return the decision under `rule`.

        Raises:
            EndpointError: If a candidate's endpoint cannot be used at all.
        """
        if not self.is_testable:
            return self._untestable(rule)
        screened = await self._screened(rule) if rule.stops_early else {}
        finalists = self._finalists(screened, rule)
        if screened and not finalists:
            return self._screened_out(screened, rule)
        results = await self._confirmed(finalists, rule)
        decision = self._decided(results, rule, len(finalists))
        names = {each.name for each in finalists}
        added = [
            _untested(name, screened[name], rule, is_finalist=name in names)
            for name in sorted(screened.keys() - results.keys())
        ]
        return decision.model_copy(update={"others": (*decision.others, *added)})

    def _untestable(self, rule: Rule) -> Decision:
        held_out = self.dataset.examples_of(self.task.task_id, "test")
        if not held_out:
            why = "no held-out example; record more threads"
        elif self.task.shape == "text":
            why = (
                "free text has no automatic evaluator; give your own (--evaluator "
                f"{self.task.site}=PATH.py:FUNCTION) or right answers (--truth)"
            )
        else:
            why = "no recorded answer of the reference can be judged by its own rule"
        reason = f"not testable: {why}"
        return self._decided({}, rule, 1).model_copy(update={"reason": reason})

    async def _screened(self, rule: Rule) -> Outcomes:
        pairs = self.pairs("validation")[:SCREEN_PAIRS]
        if not pairs:
            return {}
        return await self._asked(self.candidates, pairs, rule.screening_look)

    async def _confirmed(self, finalists: Sequence[Candidate], rule: Rule) -> Outcomes:
        pairs, stop = self.pairs("test"), rule.stop(len(finalists))
        if stop is None:
            return await self._asked(finalists, pairs, stop)
        results: Outcomes = {}
        for candidate in finalists:
            results |= await self._asked([candidate], pairs, stop)
            if self._decided(results, rule, len(finalists)).decision == "proven":
                break
        return results

    async def _asked(
        self,
        candidates: Sequence[Candidate],
        pairs: Sequence[Example],
        stop: Stop | None,
    ) -> Outcomes:
        runs = [
            self.experiment.run(
                candidate,
                pairs,
                reference=self.reference,
                evaluator_of=self._evaluator,
                stop=stop,
                progress=self.progress,
            )
            for candidate in candidates
        ]
        names = [candidate.name for candidate in candidates]
        return dict(zip(names, await together(runs), strict=True))

    def _evaluator(self, example: Example) -> Evaluator:
        evaluator = self.evaluator_of(example)
        if evaluator is None:  # `pairs` left such examples out
            msg = f"example {example.example_id} has no evaluator"
            raise TypeError(msg)
        return evaluator

    def _finalists(self, screened: Outcomes, rule: Rule) -> list[Candidate]:
        if not screened:
            return sorted(self.candidates, key=self._list_price)
        evidence = {
            name: weigh(name, outcomes, margin=rule.margin)
            for name, outcomes in screened.items()
        }
        able = [each for each in evidence.values() if not _objection(each, rule)]
        cheapest = sorted(able, key=_usd)[:1]
        best = sorted(able, key=lambda each: (-each.candidate_pass_rate, _usd(each)))
        chosen = {each.candidate for each in (cheapest + best)[:MOST_CONFIRMED]}
        finalists = [each for each in self.candidates if each.name in chosen]
        return sorted(finalists, key=lambda each: _usd(evidence[each.name]))

    def _list_price(self, candidate: Candidate) -> tuple[float, str]:
        """Order by what the reference's own tokens would cost at this candidate."""
        examples = self.pairs("test")
        costs = [call_usd(candidate.binding.model, e.answer.usage) for e in examples]
        known = [usd for usd in costs if usd is not None]
        unknown = len(known) < len(costs) or not costs
        return (float("inf") if unknown else sum(known), candidate.name)

    def _decided(
        self, results: Mapping[str, Sequence[Outcome]], rule: Rule, tried: int
    ) -> Decision:
        bindings = {each.name: each.binding for each in self.candidates}
        decision = decide(
            site=self.task.site,
            reference=self.reference.name,
            results=results,
            bindings={name: bindings[name] for name in results},
            margin=rule.margin,
            alpha=rule.alpha,
            sites=rule.sites,
            candidates=max(tried, len(results)),
            task=self.task,
        )
        if decision.chosen is None:
            return decision
        explained = [
            _explained(each, results[each.candidate])
            for each in (decision.chosen, *decision.others)
        ]
        cause = _common_failure(results[decision.chosen.candidate])
        return decision.model_copy(
            update={
                "chosen": explained[0],
                "others": tuple(explained[1:]),
                "reason": _joined(decision.reason, cause),
            }
        )

    def _screened_out(self, screened: Outcomes, rule: Rule) -> Decision:
        """Keep the reference, with the validation evidence that says why."""
        seen = self._decided(screened, rule, len(screened))
        return seen.model_copy(
            update={
                "decision": "kept",
                "model": self.reference.name,
                "binding": None,
                "reason": f"screened out on the validation split; {seen.reason}",
            }
        )


def _objection(evidence: Evidence, rule: Rule) -> str | None:
    """Return what the validation split says against a candidate, or None."""
    usd, reference_usd = evidence.usd_per_correct, evidence.reference_usd_per_correct
    if usd is None or reference_usd is None:
        return f"unknown cost of the {'candidate' if usd is None else 'reference'}"
    if usd >= reference_usd:
        return "not cheaper"
    if evidence.candidate_pass_rate <= evidence.reference_pass_rate - rule.margin:
        return "its pass rate is worse by the margin"
    counts = (evidence.n, evidence.reference_only, evidence.candidate_only)
    return "futile" if rule.screens_out(*counts) else None


def _untested(
    name: str, outcomes: Sequence[Outcome], rule: Rule, *, is_finalist: bool
) -> Evidence:
    """Return what validation said of a candidate that met no test pair, and why not."""
    seen = weigh(name, outcomes, margin=rule.margin)
    why = _objection(seen, rule) or "others were cheaper or better"
    verdict = f"screened out on the validation split: {why}"
    if is_finalist:
        verdict = "promising on the validation split; another was proven first"
    return _explained(seen.model_copy(update={"verdict": verdict}), outcomes)


def _explained(evidence: Evidence, outcomes: Sequence[Outcome]) -> Evidence:
    verdict = _joined(evidence.verdict, _common_failure(outcomes))
    return evidence.model_copy(update={"verdict": verdict})


def _common_failure(outcomes: Sequence[Outcome]) -> str:
    """Return what most failures have in common, or nothing.

    Only the names of errors: an evaluator's reason may quote an answer.
    """
    failed = sum(not each.candidate_passed for each in outcomes)
    errors = Counter(each.reason for each in outcomes if isinstance(each, Unanswered))
    for reason, n in errors.most_common(1):
        if 2 * n > failed:
            return f"{n} of {failed} failures: {reason}"
    return ""


def _joined(*clauses: str) -> str:
    return "; ".join(clause for clause in clauses if clause)


def _usd(evidence: Evidence) -> float:
    usd = evidence.usd_per_correct
    return float("inf") if usd is None else usd
