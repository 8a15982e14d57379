"""Decide a recorded suite offline: every other model a candidate, every node a site.

All answers are there already, so each decision rests on all cases of its node (one of
each thread, where threads have several), and does not depend on their order. Calls no
model.
"""

from __future__ import annotations

from collections.abc import Mapping

from langchain_slm.curation import one_per_thread
from langchain_slm.economics import call_usd
from langchain_slm.errors import NoCandidatesError, SuiteError
from langchain_slm.evaluation.evaluators import evaluator_for
from langchain_slm.recording.interchange import Case, Response, Suite
from langchain_slm.schema import (
    Answer,
    Binding,
    Decision,
    Example,
    JsonObject,
    Outcome,
    Usage,
)
from langchain_slm.selection import decide

_NOTHING = Answer(message={"role": "assistant", "content": ""})
Flags = Mapping[str, Mapping[str, bool]]  # model -> case id -> passed


def decide_suite(
    suite: Suite, *, reference: str, margin: float, alpha: float, flags: Flags
) -> tuple[Decision, ...]:
    """Return one decision per node of the suite, in the order of the cases.

    Args:
        suite: The suite.
        reference: The model that the others are measured against.
        margin: Non-inferiority margin, in (0, 1).
        alpha: Accepted probability of any wrong binding, in (0, 1).
        flags: Which answers passed; see `judged` and `recorded_flags`.

    Raises:
        SuiteError: If the suite has no such model.
        NoCandidatesError: If it has no other.
    """
    _check(suite, reference)
    candidates = [name for name in suite.responses if name != reference]
    nodes = list(dict.fromkeys(case.node for case in suite.cases))
    decisions = []
    for node in nodes:
        cases = _pairs(suite, node, reference)
        results = {
            name: [_outcome(suite, case, reference, name, flags) for case in cases]
            for name in candidates
        }
        decisions.append(
            decide(
                site=node,
                reference=reference,
                results=results,
                bindings={name: Binding(model=suite.models[name]) for name in results},
                margin=margin,
                alpha=alpha,
                sites=len(nodes),
            )
        )
    return tuple(decisions)


def _pairs(suite: Suite, node: str, reference: str) -> list[Case]:
    """Return the cases of a node that the reference answered, one of each thread."""
    answered = suite.responses[reference].keys()
    cases = [case for case in suite.cases if case.node == node and case.id in answered]
    chosen = {example.example_id for example in one_per_thread(map(_example, cases))}
    return [case for case in cases if case.id in chosen]


def _check(suite: Suite, reference: str) -> None:
    if reference not in suite.responses:
        known = ", ".join(sorted(suite.responses))
        msg = (
            f"suite {suite.name!r} has no answers of {reference!r}; give one of: {known}"
        )
        raise SuiteError(msg, model=reference)
    if len(suite.responses) == 1:
        msg = (
            f"suite {suite.name!r} has answers of {reference!r} only: nothing to choose "
            "from; record at least one candidate"
        )
        raise NoCandidatesError(msg, suite=suite.name)


def _outcome(
    suite: Suite, case: Case, reference: str, candidate: str, flags: Flags
) -> Outcome:
    ours = suite.responses[candidate].get(case.id)
    return Outcome(
        example_id=case.id,
        reference_passed=flags[reference].get(case.id, False),
        candidate_passed=flags[candidate].get(case.id, False),
        usd=_usd(suite, candidate, ours),
        reference_usd=_usd(suite, reference, suite.responses[reference][case.id]),
        # A case that a candidate never answered is no evidence for it.
        infrastructure_error=ours is None,
    )


def _usd(suite: Suite, model: str, response: Response | None) -> float | None:
    if response is None:
        return 0.0  # nothing was answered, nothing was charged
    usage = response.answer.usage if response.answer else Usage()
    return call_usd(suite.models[model], usage)


def judged(suite: Suite) -> dict[str, dict[str, bool]]:
    """Return which answers pass our own evaluators, per model and case.

    Raises:
        SLMError: If a case cannot be judged: no rule of ours is its grader.
    """
    return {
        model: {
            case.id: _passes(case, responses[case.id])
            for case in suite.cases
            if case.id in responses
        }
        for model, responses in suite.responses.items()
    }


def _passes(case: Case, response: Response) -> bool:
    example = _example(case)
    evaluator = evaluator_for(example, None)
    if evaluator is None:
        # Counted as failed by both models, such cases would be evidence of equality.
        msg = f"case {case.id!r}: its grader {case.expected.grader!r} has no right answer"
        raise SuiteError(msg, case=case.id, grader=case.expected.grader)
    if response.answer is None:
        return False
    return evaluator.evaluate(example, response.answer).passed


def _example(case: Case) -> Example:
    return Example(
        example_id=case.id,
        site=case.node,
        thread_id=case.thread,
        split="test",
        model="",  # an evaluator does not know who wrote
        provider="",
        request=case.request,
        answer=_NOTHING,
        expected=case.expected,
    )


def recorded_flags(suite: Suite) -> dict[str, dict[str, bool]]:
    """Return which answers the suite itself says passed, per model and case.

    Raises:
        SuiteError: If an answer has no flag.
    """
    flags: dict[str, dict[str, bool]] = {}
    for model, responses in suite.responses.items():
        without = [case_id for case_id, r in responses.items() if r.passed is None]
        if without:
            msg = (
                f"suite {suite.name!r}: {len(without)} answers of {model!r} have no "
                f"recorded flag (first: {without[0]!r}); decide by our own evaluators"
            )
            raise SuiteError(msg, model=model, case=without[0])
        flags[model] = {case_id: bool(r.passed) for case_id, r in responses.items()}
    return flags


def agreement(suite: Suite, flags: Flags) -> dict[str, float]:
    """Return per model the fraction of answers on which `flags` equal the recorded.

    Raises:
        SuiteError: If an answer has no recorded flag.
    """
    recorded = recorded_flags(suite)
    return {
        model: sum(flags[model][case_id] == passed for case_id, passed in own.items())
        / len(own)
        for model, own in recorded.items()
        if own
    }


def as_json(decisions: tuple[Decision, ...]) -> dict[str, JsonObject]:
    """Return the decisions as the JSON object `sites` of `langchain-slm select`.

    When a site is kept, the figures are those of the candidate that came closest.
    """
    return {decision.site: _site_json(decision) for decision in decisions}


def _site_json(decision: Decision) -> JsonObject:
    names = (
        "n",
        "reference_only",
        "candidate_only",
        "e_value",
        "reference_pass_rate",
        "candidate_pass_rate",
        "usd_per_correct",
        "reference_usd_per_correct",
    )
    seen = decision.chosen
    every = ([seen] if seen else []) + list(decision.others)
    return {
        "decision": decision.decision,
        "model": decision.model,
        "reason": decision.reason,
        **{name: getattr(seen, name) if seen else None for name in names},
        "needed_n": decision.needed_n,
        "candidate": seen.candidate if seen else None,
        "threshold": decision.threshold,
        "candidates": {each.candidate: each.model_dump(mode="json") for each in every},
    }
