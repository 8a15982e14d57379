"""The rule that binds a site to a model: evidence in, decision out.

Pure: no I/O, clock or randomness, and nothing depends on the order in which candidates
or examples come. Refuses to bind on a point estimate, and on a cost that is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from langchain_slm.economics import cost_change, usd_per_correct
from langchain_slm.errors import NoExamplesError
from langchain_slm.schema import (
    Binding,
    Decision,
    DecisionName,
    Evidence,
    Outcome,
    Task,
)
from langchain_slm.stats import e_value, futility, needed_pairs

LookName: TypeAlias = Literal["proven", "futile", "open", "exhausted"]

# 20 pairs without a loss prove 13.9 points at best: with fewer no usual margin can be
# proven, and a look could only drop a candidate by chance.
MIN_PAIRS = 20

# Valid after every pair; tens keep evaluation in batches and waste at most nine calls.
LOOK_EVERY = 10

# Error and savings of the rule were simulated up to here. A candidate still open then is
# so near the margin that more calls cost more than it would save.
MAX_PAIRS = 1000

# Ville: a candidate as good as the reference is ever dropped in at most 1 case in 10.
FUTILITY_LIMIT = 10.0


def threshold(*, candidates: int, sites: int, alpha: float) -> float:
    """Return the e-value that proves: the union bound over all that is tried.

    Args:
        candidates: Candidates tried on the site (K), at least 1.
        sites: Sites that the plan decides (N), at least 1.
        alpha: Accepted probability that any site of the plan is bound to a model that
            is worse than the margin, in (0, 1).

    Returns:
        K * N / alpha.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> threshold(candidates=2, sites=6, alpha=0.05)
        240.0
    """
    if candidates < 1 or sites < 1 or not 0 < alpha < 1:
        msg = (
            "needs candidates >= 1, sites >= 1 and alpha in (0, 1), "
            f"not {candidates}, {sites} and {alpha}"
        )
        raise ValueError(msg)
    return candidates * sites / alpha


def is_look(n: int) -> bool:
    """Return whether a sequential experiment looks at its evidence after `n` pairs.

    Example:
        >>> [n for n in range(45) if is_look(n)]
        [20, 30, 40]
    """
    return n >= MIN_PAIRS and (n - MIN_PAIRS) % LOOK_EVERY == 0


def look(
    n: int,
    reference_only: int,
    candidate_only: int,
    *,
    margin: float,
    threshold: float,
) -> LookName:
    """Return what a sequential experiment does with a candidate after `n` pairs.

    Args:
        n: Pairs seen.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        margin: Non-inferiority margin, in (0, 1).
        threshold: The e-value that proves; see the function `threshold`.

    Returns:
        "proven" and "futile" end the experiment with an answer, "exhausted" without
        one; "open" goes on.

    Raises:
        ValueError: If the counts or the margin are outside their range.

    Example:
        >>> look(100, 0, 0, margin=0.05, threshold=20)
        'proven'
    """
    if n < MIN_PAIRS:
        return "open"
    if e_value(n, reference_only, candidate_only, margin=margin) >= threshold:
        return "proven"
    if is_futile(n, reference_only, candidate_only, margin=margin, threshold=threshold):
        return "futile"
    return "exhausted" if n >= MAX_PAIRS else "open"


def is_futile(
    n: int,
    reference_only: int,
    candidate_only: int,
    *,
    margin: float,
    threshold: float,
) -> bool:
    """Return whether a candidate is worse, and too much so to be proven in time.

    F alone says only that it is not as good as the reference, which the margin allows;
    compared with the reference's own answers no candidate ever is. So it is dropped
    where, besides, the rates seen would prove nothing within `MAX_PAIRS`. Validity
    does not depend on it.

    Args:
        n: Pairs seen.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        margin: Non-inferiority margin, in (0, 1).
        threshold: The e-value that proves.

    Raises:
        ValueError: If the counts or the margin are outside their range.

    Example:
        >>> is_futile(300, 30, 10, margin=0.05, threshold=20)
        True
        >>> is_futile(290, 5, 0, margin=0.05, threshold=80)
        False
    """
    if futility(n, reference_only, candidate_only) < FUTILITY_LIMIT:
        return False
    return (
        needed_pairs(
            n,
            reference_only,
            candidate_only,
            margin=margin,
            threshold=threshold,
            limit=MAX_PAIRS,
        )
        is None
    )


def weigh(candidate: str, outcomes: Sequence[Outcome], *, margin: float) -> Evidence:
    """Return what the held-out examples say of a candidate; the verdict is left empty.

    Args:
        candidate: Its name.
        outcomes: One per held-out example, at least one, in any order.
        margin: Non-inferiority margin, in (0, 1).

    Raises:
        NoExamplesError: If there are no outcomes: rates of nothing are undefined.
        ValueError: If an example occurs twice, or the margin is outside its range.

    Example:
        >>> pair = Outcome(example_id="1", reference_passed=True, candidate_passed=False)
        >>> weigh("slm", [pair], margin=0.05).reference_only
        1
    """
    if not outcomes:
        msg = f'candidate "{candidate}": no held-out pairs to weigh. Add examples.'
        raise NoExamplesError(msg, candidate=candidate)
    n = len(outcomes)
    if len({outcome.example_id for outcome in outcomes}) < n:
        msg = f'candidate "{candidate}": an example occurs twice in {n} outcomes'
        raise ValueError(msg)
    b = sum(o.reference_passed and not o.candidate_passed for o in outcomes)
    c = sum(o.candidate_passed and not o.reference_passed for o in outcomes)
    passed = sum(o.candidate_passed for o in outcomes)
    reference_passed = sum(o.reference_passed for o in outcomes)
    reference_costs = [o.reference_usd for o in outcomes]
    return Evidence(
        candidate=candidate,
        n=n,
        reference_only=b,
        candidate_only=c,
        e_value=e_value(n, b, c, margin=margin),
        futility=futility(n, b, c),
        reference_pass_rate=reference_passed / n,
        candidate_pass_rate=passed / n,
        usd_per_correct=usd_per_correct([o.usd for o in outcomes], passed),
        reference_usd_per_correct=usd_per_correct(reference_costs, reference_passed),
        escalations=sum(o.escalated for o in outcomes),
        infrastructure_errors=sum(o.infrastructure_error for o in outcomes),
    )


def decide(  # noqa: PLR0913 - a decision states all that it rests on
    *,
    site: str,
    reference: str,
    results: Mapping[str, Sequence[Outcome]],
    bindings: Mapping[str, Binding],
    margin: float,
    alpha: float,
    sites: int,
    candidates: int | None = None,
    task: Task | None = None,
    unpriced: Collection[str] = (),
) -> Decision:
    """Return what a site is bound to, and why.

    Proven: the evidence reached the threshold and the candidate is cheaper per correct
    answer; of several the cheapest. Provisional: of the cheaper ones that the evidence
    speaks for, the strongest (a small sample favours lucky cheap models). Kept: neither.

    Args:
        site: Where.
        reference: Name of the model that the site calls today.
        results: Outcomes of each candidate on held-out examples, by its name.
        bindings: What to call for each candidate of `results`.
        margin: Non-inferiority margin, in (0, 1).
        alpha: Accepted probability of a wrong binding in the whole plan, in (0, 1).
        sites: Sites that the plan decides, at least 1.
        candidates: Candidates tried on the site; None is the number of `results`.
        task: The task of it that is decided.
        unpriced: Models, the reference included, whose cost is to count as unknown.

    Raises:
        ValueError: If an argument is outside its range or contradicts another.

    Example:
        >>> decide(site="reply", reference="gpt-ref", results={}, bindings={},
        ...     margin=0.05, alpha=0.05, sites=1).reason
        'no candidate was tried'
    """
    tried = len(results) if candidates is None else candidates
    _check(reference, results, bindings, tried)
    rule = _Rule(margin, threshold(candidates=max(1, tried), sites=sites, alpha=alpha))
    seen = sorted(name for name in results if results[name])
    weighed = [weigh(name, results[name], margin=margin) for name in seen]
    priced = [_without_price(each, reference, unpriced) for each in weighed]
    decision, chosen, others = _judge(priced, rule)
    bound = chosen if decision != "kept" else None
    return Decision(
        site=site,
        task=task,
        reference=reference,
        decision=decision,
        model=bound.candidate if bound else reference,
        reason=_reason(chosen, results, unpriced),
        threshold=rule.threshold,
        needed_n=rule.needed(chosen) if chosen else None,
        chosen=chosen,
        others=others,
        binding=bindings[bound.candidate] if bound else None,
    )


@dataclass(frozen=True)
class _Rule:
    margin: float
    threshold: float

    def needed(self, evidence: Evidence) -> int | None:
        """Pairs that would prove it at the rates seen."""
        pairs = needed_pairs(
            evidence.n,
            evidence.reference_only,
            evidence.candidate_only,
            margin=self.margin,
            threshold=self.threshold,
        )
        return None if pairs is None else max(pairs, MIN_PAIRS)

    def floor(self) -> int | None:
        """The smallest number of pairs that proves without a loss or a win."""
        pairs = needed_pairs(1, 0, 0, margin=self.margin, threshold=self.threshold)
        return None if pairs is None else max(pairs, MIN_PAIRS)

    def proves(self, evidence: Evidence) -> bool:
        return evidence.n >= MIN_PAIRS and evidence.e_value >= self.threshold

    def drops(self, evidence: Evidence) -> bool:
        return is_futile(
            evidence.n,
            evidence.reference_only,
            evidence.candidate_only,
            margin=self.margin,
            threshold=self.threshold,
        )

    def promises(self, evidence: Evidence) -> bool:
        """Whether the evidence so far speaks for it."""
        enough = evidence.n >= MIN_PAIRS and evidence.e_value > 1
        return enough and not self.drops(evidence)


def _check(
    reference: str,
    results: Mapping[str, Sequence[Outcome]],
    bindings: Mapping[str, Binding],
    tried: int,
) -> None:
    if tried < len(results):
        msg = f"candidates must count all {len(results)} with results, not {tried}"
        raise ValueError(msg)
    if reference in results:
        msg = f'the reference "{reference}" cannot be its own candidate'
        raise ValueError(msg)
    unbound = sorted(results.keys() - bindings.keys())
    if unbound:
        msg = f"no binding for the candidates {', '.join(unbound)}"
        raise ValueError(msg)


def _without_price(
    evidence: Evidence, reference: str, unpriced: Collection[str]
) -> Evidence:
    unknown: dict[str, None] = {}
    if evidence.candidate in unpriced:
        unknown["usd_per_correct"] = None
    if reference in unpriced:
        unknown["reference_usd_per_correct"] = None
    return evidence.model_copy(update=unknown)


def _judge(
    weighed: Sequence[Evidence], rule: _Rule
) -> tuple[DecisionName, Evidence | None, tuple[Evidence, ...]]:
    """The decision, the evidence that it rests on, and that of the others."""
    decision, best = _choose(weighed, rule)
    chosen, others = None, []
    for each in weighed:
        verdict = _verdict(each, rule, decision, best)
        judged = each.model_copy(update={"verdict": verdict})
        if each is best:
            chosen = judged
        else:
            others.append(judged)
    return decision, chosen, tuple(others)


def _choose(
    weighed: Sequence[Evidence], rule: _Rule
) -> tuple[DecisionName, Evidence | None]:
    cheaper = [each for each in weighed if _is_cheaper(each)]
    proven = [each for each in cheaper if rule.proves(each)]
    if proven:
        return "proven", min(proven, key=_cheapest_first)
    promising = [each for each in cheaper if rule.promises(each)]
    if promising:
        return "provisional", min(promising, key=_strongest_first)
    return "kept", min(weighed, key=_strongest_first, default=None)


def _is_cheaper(evidence: Evidence) -> bool:
    usd, reference_usd = evidence.usd_per_correct, evidence.reference_usd_per_correct
    return usd is not None and reference_usd is not None and usd < reference_usd


def _usd(evidence: Evidence) -> float:
    """For ordering only: an unknown cost comes after every known one."""
    usd = evidence.usd_per_correct
    return float("inf") if usd is None else usd


def _cheapest_first(evidence: Evidence) -> tuple[float, float, str]:
    return _usd(evidence), -evidence.e_value, evidence.candidate


def _strongest_first(evidence: Evidence) -> tuple[float, float, str]:
    return -evidence.e_value, _usd(evidence), evidence.candidate


def _reason(
    chosen: Evidence | None,
    results: Mapping[str, Sequence[Outcome]],
    unpriced: Collection[str],
) -> str:
    if chosen:
        return f"{chosen.candidate}: {chosen.verdict}"
    if results:
        return f"no held-out pair for any of {len(results)} candidates; add examples"
    names = ", ".join(sorted(unpriced))
    return "no candidate was tried" + (f"; price unknown: {names}" if names else "")


def _verdict(
    evidence: Evidence, rule: _Rule, decision: DecisionName, best: Evidence | None
) -> str:
    """One clause on quality, one on cost, and what else decided."""
    bound = evidence is best and decision != "kept"
    clauses = [_quality(evidence, rule, bound=bound), _cost(evidence)]
    if best and not bound and _is_cheaper(evidence):
        if decision == "proven" and rule.proves(evidence):
            clauses.append(f"{best.candidate} is cheaper still")
        if decision == "provisional" and rule.promises(evidence):
            clauses.append(f"{best.candidate} has the stronger evidence")
    if evidence.infrastructure_errors:
        clauses.append(f"pairs lost to its endpoint: {evidence.infrastructure_errors}")
    return "; ".join(clauses)


def _quality(evidence: Evidence, rule: _Rule, *, bound: bool) -> str:
    counts = (
        f"n={evidence.n}, b={evidence.reference_only}, c={evidence.candidate_only}, "
        f"E {evidence.e_value:.4g} against {rule.threshold:.4g}"
    )
    if rule.proves(evidence):
        return f"{'proven' if bound else 'within the margin'}: {counts}"
    needed = rule.needed(evidence)
    which = "no number of" if needed is None else f"{needed:,}"
    outlook = f"{which} pairs would decide at these rates"
    if rule.drops(evidence):
        short = "inferior" if needed is None else "futile"
        return f"{short}: {counts}, F {evidence.futility:.4g}; {outlook}"
    floor = rule.floor()
    if floor is None or evidence.n < floor:
        least = f"the {floor:,} that" if floor else "any number that"
        counts = f"fewer pairs than {least} would prove without a loss, {counts}"
    return f"{'provisional' if bound else 'not proven'}: {counts}; {outlook}"


def _cost(evidence: Evidence) -> str:
    usd, reference_usd = evidence.usd_per_correct, evidence.reference_usd_per_correct
    if usd is None:
        return _no_cost("candidate", evidence.candidate_pass_rate)
    if reference_usd is None:
        return _no_cost("reference", evidence.reference_pass_rate)
    dollars = f"${usd:.3g} against ${reference_usd:.3g} per correct answer"
    if usd >= reference_usd:
        return f"not cheaper: {dollars}"
    change = cost_change(usd, reference_usd)
    return dollars if change is None else f"{dollars} ({change:+.1%})"


def _no_cost(model: str, pass_rate: float) -> str:
    if pass_rate == 0:
        return f"unknown cost: the {model} has no correct answer"
    return f"unknown cost of the {model}: a price or a token count is missing"
