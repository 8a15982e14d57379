"""The trial of one task: screen candidates on validation, confirm on test, decide.

Screening costs nothing of the guarantee, for the splits share no thread; it leaves few
candidates to correct for. Candidates are tried cheapest first, and none after one has
been proven. With an empty validation split all candidates are confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from langchain_slm.curation import Dataset, one_per_thread
from langchain_slm.economics import call_usd
from langchain_slm.evaluation.evaluators import Evaluator
from langchain_slm.evaluation.experiment import Candidate, Experiment, Progress
from langchain_slm.schema import (
    Decision,
    Evidence,
    Example,
    ModelSpec,
    Outcome,
    SplitName,
    Task,
)
from langchain_slm.selection import (
    FUTILITY_LIMIT,
    LookName,
    decide,
    look,
    threshold,
    weigh,
)
from langchain_slm.stats import futility

# Enough to tell a candidate that is 5 points worse from an equal one four times in five;
# more would be better spent on the test split.
SCREEN_PAIRS = 200
# With two confirmed the union bound costs a factor of two, whatever was screened.
MOST_CONFIRMED = 2

EvaluatorOf = Callable[[Example], Evaluator | None]
Outcomes = dict[str, list[Outcome]]


@dataclass(frozen=True)
class Rule:
    """What the whole plan promises.

    Attributes:
        margin: Non-inferiority margin.
        alpha: Accepted probability of any wrong binding.
        sites: Tasks that are decided.
        stops_early: Whether candidates are asked only until the evidence decides.
    """

    margin: float
    alpha: float
    sites: int
    stops_early: bool = True

    def stop(self, candidates: int) -> Callable[[int, int, int], LookName]:
        """Return what ends the evaluation of one of `candidates`."""
        if not self.stops_early:
            return lambda *_: "open"
        limit = threshold(
            candidates=max(1, candidates), sites=self.sites, alpha=self.alpha
        )
        return partial(look, margin=self.margin, threshold=limit)


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
        progress: Told of each batch.
    """

    task: Task
    reference: ModelSpec
    dataset: Dataset
    candidates: Sequence[Candidate]
    evaluator_of: EvaluatorOf
    experiment: Experiment
    progress: Progress = lambda *_: None

    @property
    def is_testable(self) -> bool:
        """Whether any held-out example can be judged."""
        return bool(self.pairs("test"))

    async def run(self, rule: Rule) -> Decision:
        """Return the decision under `rule`.

        Raises:
            EndpointError: If a candidate's endpoint cannot be used at all.
        """
        if not self.is_testable:
            return self._untestable(rule)
        screened = await self._screened()
        finalists = self._finalists(screened, rule)
        if screened and not finalists:
            return self._screened_out(screened, rule)
        tried, pairs = len(finalists), self.pairs("test")
        results: Outcomes = {}
        for candidate in finalists:
            results[candidate.name] = await self._ask(candidate, pairs, rule.stop(tried))
            seen = self._decided(results, rule, tried)
            if rule.stops_early and seen.decision == "proven":
                break
        return self._decided(results, rule, tried)

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

    def pairs(self, split: SplitName) -> list[Example]:
        """Return the examples of a split that can be judged, one per thread."""
        examples = self.dataset.examples_of(self.task.task_id, split)
        own = [each for each in examples if each.model == self.reference.name]
        judged = [each for each in own if self.evaluator_of(each) is not None]
        return one_per_thread(judged, seed=self.dataset.seed)

    async def _ask(
        self,
        candidate: Candidate,
        examples: Sequence[Example],
        stop: Callable[[int, int, int], LookName],
    ) -> list[Outcome]:
        def evaluator_of(example: Example) -> Evaluator:
            evaluator = self.evaluator_of(example)
            if evaluator is None:  # `pairs` left such examples out
                msg = f"example {example.example_id} has no evaluator"
                raise TypeError(msg)
            return evaluator

        return await self.experiment.run(
            candidate,
            examples,
            reference=self.reference,
            evaluator_of=evaluator_of,
            stop=stop,
            progress=self.progress,
        )

    async def _screened(self) -> Outcomes:
        pairs = self.pairs("validation")[:SCREEN_PAIRS]
        if not pairs:
            return {}
        return {
            candidate.name: await self._ask(candidate, pairs, _futile)
            for candidate in self.candidates
        }

    def _finalists(self, screened: Outcomes, rule: Rule) -> list[Candidate]:
        if not screened:
            return sorted(self.candidates, key=self._list_price)
        evidence = {
            name: weigh(name, outcomes, margin=rule.margin)
            for name, outcomes in screened.items()
        }
        able = [each for each in evidence.values() if _survives(each, rule.margin)]
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
        return decide(
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


def _futile(n: int, reference_only: int, candidate_only: int) -> LookName:
    lost = futility(n, reference_only, candidate_only) >= FUTILITY_LIMIT
    return "futile" if lost else "open"


def _survives(evidence: Evidence, margin: float) -> bool:
    usd, reference_usd = evidence.usd_per_correct, evidence.reference_usd_per_correct
    cheaper = usd is not None and reference_usd is not None and usd < reference_usd
    near = evidence.candidate_pass_rate > evidence.reference_pass_rate - margin
    return cheaper and near and evidence.futility < FUTILITY_LIMIT


def _usd(evidence: Evidence) -> float:
    usd = evidence.usd_per_correct
    return float("inf") if usd is None else usd
