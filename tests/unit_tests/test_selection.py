"""The rule: who is bound, who is kept, and with which reason."""

import doctest
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm import selection
from langchain_slm.errors import NoExamplesError
from langchain_slm.schema import Binding, ModelSpec, Outcome, Task
from langchain_slm.selection import (
    FUTILITY_LIMIT,
    MAX_PAIRS,
    MIN_PAIRS,
    decide,
    is_look,
    look,
    threshold,
    weigh,
)

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def outcomes(n, b=0, c=0, both_failed=0, *, usd=0.001, reference_usd=0.01, **last):
    """`n` outcomes: `b` lost, `c` won, `both_failed`, the rest passed by both."""
    pairs = [(True, False)] * b + [(False, True)] * c + [(False, False)] * both_failed
    pairs += [(True, True)] * (n - len(pairs))
    made = [
        Outcome(
            example_id=str(i),
            reference_passed=reference,
            candidate_passed=candidate,
            usd=usd,
            reference_usd=reference_usd,
        )
        for i, (reference, candidate) in enumerate(pairs)
    ]
    return [*made[:-1], made[-1].model_copy(update=last)]


def binding(name):
    return Binding(model=ModelSpec(name=name, provider="openai", model=name))


def decided(results, **changes):
    arguments = {
        "site": "extract",
        "reference": "gpt-ref",
        "results": results,
        "bindings": {name: binding(name) for name in results},
        "margin": 0.05,
        "alpha": 0.05,
        "sites": 1,
    }
    return decide(**arguments | changes)


def test_every_docstring_example_runs():
    result = doctest.testmod(selection)
    assert result.failed == 0
    assert result.attempted >= 6


# threshold, looks --------------------------------------------------------------------


def test_the_threshold_covers_all_candidates_of_all_sites():
    assert threshold(candidates=1, sites=1, alpha=0.05) == 20.0
    assert threshold(candidates=8, sites=6, alpha=0.05) == 960.0


@pytest.mark.parametrize(
    "change", [{"candidates": 0}, {"sites": 0}, {"alpha": 0.0}, {"alpha": 1.0}]
)
def test_a_threshold_outside_its_range_is_refused(change):
    with pytest.raises(ValueError, match="needs candidates"):
        threshold(**{"candidates": 1, "sites": 1, "alpha": 0.05} | change)


def test_the_first_look_is_at_20_pairs_and_the_last_at_1000():
    looks = [n for n in range(1001) if is_look(n)]
    assert looks[:3] == [20, 30, 40]
    assert looks[-1] == 1000
    assert len(looks) == 99


@pytest.mark.parametrize(
    ("n", "b", "c", "expected"),
    [
        (19, 0, 19, "open"),  # overwhelming, but before the first look
        (19, 19, 0, "open"),
        (20, 0, 20, "proven"),
        (20, 20, 0, "futile"),
        (93, 0, 0, "open"),
        (94, 0, 0, "proven"),
        (300, 30, 10, "futile"),
        (300, 12, 12, "proven"),
        (999, 60, 30, "futile"),
        (999, 130, 110, "open"),
        (1000, 130, 110, "exhausted"),
        (2000, 30, 10, "proven"),  # worse, but by less than the margin: proof goes first
    ],
)
def test_a_look_has_four_answers(n, b, c, expected):
    assert look(n, b, c, margin=0.05, threshold=20) == expected


# weigh -------------------------------------------------------------------------------


def test_evidence_counts_pairs_rates_and_costs():
    made = outcomes(300, 12, 12, 60, escalated=True, infrastructure_error=True)
    evidence = weigh("slm", made, margin=0.05)
    assert (evidence.n, evidence.reference_only, evidence.candidate_only) == (300, 12, 12)
    assert evidence.e_value == pytest.approx(24.3960, abs=5e-5)
    assert evidence.futility == pytest.approx(0.2349, abs=5e-5)
    assert evidence.reference_pass_rate == 0.76
    assert evidence.candidate_pass_rate == 0.76
    assert evidence.usd_per_correct == pytest.approx(0.3 / 228)
    assert evidence.reference_usd_per_correct == pytest.approx(3 / 228)
    assert evidence.escalations == 1
    assert evidence.infrastructure_errors == 1
    assert evidence.verdict == ""


def test_the_order_of_examples_does_not_matter():
    made = outcomes(60, 3, 5, 7, usd=0.1)
    shuffled = random.Random(1).sample(made, len(made))  # noqa: S311 - no secret
    assert weigh("slm", shuffled, margin=0.05) == weigh("slm", made, margin=0.05)


def test_nothing_cannot_be_weighed():
    with pytest.raises(NoExamplesError, match='candidate "slm": no held-out pairs'):
        weigh("slm", [], margin=0.05)


def test_an_example_counts_once():
    made = outcomes(2)
    with pytest.raises(ValueError, match="an example occurs twice in 3 outcomes"):
        weigh("slm", [*made, made[0]], margin=0.05)


# proven ------------------------------------------------------------------------------


def test_a_proven_cheaper_candidate_is_bound():
    decision = decided({"slm": outcomes(100, 0, 2)})
    assert decision.decision == "proven"
    assert decision.model == "slm"
    assert decision.binding == binding("slm")
    assert decision.threshold == 20.0
    assert decision.needed_n == 73
    assert decision.reason == (
        "slm: proven: n=100, b=0, c=2, E 77.67 against 20; "
        "$0.001 against $0.0102 per correct answer (-90.2%)"
    )


def test_the_cheapest_proven_candidate_wins():
    decision = decided(
        {
            "a-dear": outcomes(200, 0, 8, usd=0.005),
            "b-cheap": outcomes(200, usd=0.001),
            "c-middle": outcomes(200, 0, 4, usd=0.002),
        }
    )
    assert (decision.decision, decision.model) == ("proven", "b-cheap")
    assert [each.candidate for each in decision.others] == ["a-dear", "c-middle"]
    assert all("within the margin" in each.verdict for each in decision.others)
    assert all("b-cheap is cheaper still" in each.verdict for each in decision.others)


def test_of_two_equally_cheap_the_stronger_evidence_wins_then_the_name():
    wins = {"b": outcomes(200, usd=0.0), "a": outcomes(200, 0, 3, usd=0.0)}
    assert decided(wins).model == "a"
    same = {"b": outcomes(200, usd=0.0), "a": outcomes(200, usd=0.0)}
    assert decided(same).model == "a"


def test_a_cheaper_candidate_without_proof_does_not_beat_a_proven_one():
    decision = decided(
        {"proven": outcomes(200, usd=0.005), "hope": outcomes(200, 5, 3, usd=0.0001)},
    )
    assert (decision.decision, decision.model) == ("proven", "proven")
    assert decision.others[0].verdict.startswith("not proven: n=200, b=5, c=3")


def test_cost_counts_per_correct_answer():
    # 0.009 a call is less than 0.01, but half of the answers of both are wrong.
    alike = decided({"slm": outcomes(300, 0, 0, 150, usd=0.009)})
    assert alike.chosen.usd_per_correct == pytest.approx(0.018)
    assert alike.decision == "proven"


def test_every_candidate_tried_raises_the_threshold():
    results = {"slm": outcomes(100)}
    assert decided(results).decision == "proven"
    assert decided(results, candidates=2).decision == "provisional"
    assert decided(results, candidates=2).threshold == 40.0
    assert decided(results, sites=2).decision == "provisional"
    with_another = results | {"other": outcomes(100, 30)}
    assert decided(with_another).threshold == 40.0
    assert decided(with_another).decision == "provisional"


def test_proof_needs_the_fewest_pairs_of_a_look():
    decision = decided({"slm": outcomes(19, 0, 19)})
    assert decision.chosen.e_value > 20
    assert decision.decision == "kept"
    assert decision.needed_n == 20
    assert "fewer pairs than the 94" in decision.reason
    assert decided({"slm": outcomes(20, 0, 18)}).decision == "proven"


def test_the_task_goes_with_the_decision():
    task = Task(task_id="extract~2", site="extract", shape="label")
    assert decided({"slm": outcomes(100)}, task=task).task == task


# provisional -------------------------------------------------------------------------


def test_a_promising_candidate_is_provisional():
    decision = decided({"slm": outcomes(50, 0, 0)})
    assert decision.decision == "provisional"
    assert decision.model == "slm"
    assert decision.binding == binding("slm")
    assert decision.needed_n == 94
    assert decision.reason == (
        "slm: provisional: fewer pairs than the 94 that would prove without a loss, "
        "n=50, b=0, c=0, E 4.235 against 20; 94 pairs would decide at these rates; "
        "$0.001 against $0.01 per correct answer (-90.0%)"
    )


def test_the_strongest_promise_wins_not_the_cheapest():
    decision = decided(
        {"cheap": outcomes(50, usd=0.001), "strong": outcomes(50, 0, 1, usd=0.005)}
    )
    assert (decision.decision, decision.model) == ("provisional", "strong")
    assert decision.others[0].verdict.endswith("strong has the stronger evidence")


def test_of_two_equal_promises_the_cheaper_wins():
    decision = decided({"a": outcomes(50, usd=0.005), "b": outcomes(50, usd=0.001)})
    assert (decision.decision, decision.model) == ("provisional", "b")


def test_a_promise_needs_20_pairs():
    assert decided({"slm": outcomes(19)}).decision == "kept"
    assert decided({"slm": outcomes(20)}).decision == "provisional"


def test_evidence_that_speaks_against_it_is_no_promise():
    decision = decided({"slm": outcomes(100, 6, 0)})
    assert decision.chosen.e_value < 1
    assert decision.decision == "kept"


def test_a_futile_candidate_is_no_promise():
    decision = decided({"slm": outcomes(1000, 60, 28)}, sites=100)
    assert decision.chosen.futility >= FUTILITY_LIMIT
    assert decision.chosen.e_value > 1
    assert decision.decision == "kept"


# kept, and why -----------------------------------------------------------------------


def kept(results, **changes):
    decision = decided(results, **changes)
    assert decision.decision == "kept"
    assert decision.model == "gpt-ref"
    assert decision.binding is None
    return decision


def test_an_inferior_candidate_is_kept_out():
    decision = kept({"slm": outcomes(300, 30, 10)})
    assert decision.needed_n is None
    assert decision.reason == (
        "slm: inferior: n=300, b=30, c=10, E 0.09588 against 20, F 66.53; "
        "no number of pairs would decide at these rates; "
        "$0.00111 against $0.0103 per correct answer (-89.3%)"
    )


def test_a_futile_candidate_is_kept_out():
    decision = kept({"slm": outcomes(600, 30, 10)})
    assert decision.needed_n == 2410
    assert decision.reason.startswith(
        "slm: futile: n=600, b=30, c=10, E 1.058 against 20, F 66.53; "
        "2,410 pairs would decide at these rates; "
    )


def test_too_few_pairs_say_how_many_could_prove_anything():
    decision = kept({"slm": outcomes(10)}, candidates=8, sites=6)
    assert decision.needed_n == 190
    assert "fewer pairs than the 190 that would prove without a loss" in decision.reason
    assert "n=10, b=0, c=0, E 1.29 against 960" in decision.reason


def test_too_few_pairs_with_losses_say_that_no_number_decides():
    decision = kept({"slm": outcomes(10, 2)})
    assert decision.needed_n is None
    assert "no number of pairs would decide at these rates" in decision.reason


def test_a_margin_that_no_number_of_pairs_proves_is_said():
    decision = decided({"slm": outcomes(30)}, margin=1e-7)
    assert "fewer pairs than any number that would prove" in decision.reason


def test_an_open_candidate_is_kept_out():
    decision = kept({"slm": outcomes(200, 12, 3)})
    assert decision.reason.startswith(
        "slm: not proven: n=200, b=12, c=3, E 0.3544 against 20; "
        "36,218 pairs would decide at these rates; "
    )


@pytest.mark.parametrize("usd", [None, math.nan, -1.0, math.inf])
def test_a_proven_candidate_of_unknown_cost_is_never_bound(usd):
    made = outcomes(100)
    made[50] = made[50].model_copy(update={"usd": usd})
    decision = kept({"slm": made})
    assert decision.chosen.usd_per_correct is None
    assert decision.reason == (
        "slm: within the margin: n=100, b=0, c=0, E 25.22 against 20; "
        "unknown cost of the candidate: a price or a token count is missing"
    )


@pytest.mark.parametrize("usd", [None, math.nan, -1.0])
def test_unknown_cost_never_beats_a_known_one(usd):
    results = {"a": outcomes(200, 0, 50, usd=usd), "b": outcomes(200, usd=0.009)}
    assert decided(results).model == "b"
    promising = {"a": outcomes(50, 0, 20, usd=usd), "b": outcomes(50, usd=0.009)}
    assert decided(promising).model == "b"


def test_an_unknown_cost_of_the_reference_cannot_be_undercut():
    decision = kept({"slm": outcomes(100, usd=0.0, reference_usd=None)})
    assert decision.reason.endswith(
        "unknown cost of the reference: a price or a token count is missing"
    )


def test_models_without_a_price_have_an_unknown_cost():
    results = {"slm": outcomes(100)}
    by_candidate = kept(results, unpriced=["slm"])
    assert "unknown cost of the candidate" in by_candidate.reason
    by_reference = kept(results, unpriced=["gpt-ref"])
    assert "unknown cost of the reference" in by_reference.reason
    assert decided(results, unpriced=["another"]).decision == "proven"


def test_a_reference_that_is_never_right_has_no_cost_per_correct_answer():
    decision = kept({"slm": outcomes(100, 0, 10, 90)})
    assert decision.reason.endswith("unknown cost: the reference has no correct answer")


@pytest.mark.parametrize("usd", [0.01, 0.02])
def test_a_proven_candidate_that_is_not_cheaper_is_kept_out(usd):
    decision = kept({"slm": outcomes(100, usd=usd)})
    assert decision.reason == (
        "slm: within the margin: n=100, b=0, c=0, E 25.22 against 20; "
        f"not cheaper: ${usd} against $0.01 per correct answer"
    )


def test_the_closest_candidate_gives_the_reason():
    decision = kept(
        {"a": outcomes(200, 40), "b": outcomes(200, 14, 3), "c": outcomes(200, 30)}
    )
    assert decision.chosen.candidate == "b"
    assert [each.candidate for each in decision.others] == ["a", "c"]
    assert all(each.verdict.startswith("inferior: ") for each in decision.others)


def test_pairs_lost_to_the_endpoint_are_reported():
    decision = kept({"slm": outcomes(100, 20, infrastructure_error=True)})
    assert decision.reason.endswith("; pairs lost to its endpoint: 1")


def test_a_free_reference_cannot_be_undercut():
    decision = kept({"slm": outcomes(100, usd=0.0, reference_usd=0.0)})
    assert "not cheaper: $0 against $0 per correct answer" in decision.reason


def test_without_candidates_the_reference_is_kept():
    decision = kept({})
    assert decision.reason == "no candidate was tried"
    assert decision.threshold == 20.0
    assert (decision.chosen, decision.others, decision.needed_n) == (None, (), None)
    with_unpriced = kept({}, unpriced=["b", "a"])
    assert with_unpriced.reason == "no candidate was tried; price unknown: a, b"


def test_without_pairs_the_reference_is_kept():
    decision = kept({"a": [], "b": []})
    assert decision.reason == "no held-out pair for any of 2 candidates; add examples"
    assert decision.threshold == 40.0


def test_a_candidate_without_pairs_still_counts_as_tried():
    decision = decided({"a": outcomes(200), "b": []})
    assert (decision.model, decision.threshold) == ("a", 40.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, "must count all 1 with results, not 0"),
        ({"reference": "slm"}, "cannot be its own candidate"),
        ({"bindings": {}}, "no binding for the candidates slm"),
        ({"alpha": 1.0}, "alpha"),
        ({"margin": 0.0}, "margin"),
        ({"sites": 0}, "sites"),
    ],
)
def test_an_argument_outside_its_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        decided({"slm": outcomes(20)}, **change)


# Properties --------------------------------------------------------------------------

candidates = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(
        st.integers(1, 150),
        st.integers(0, 20),
        st.integers(0, 20),
        st.one_of(st.none(), st.just(math.nan), st.floats(0, 0.02)),
    ),
    min_size=1,
)


def drawn(specification):
    return {
        name: outcomes(n, min(b, n), min(c, n - min(b, n)), usd=usd)
        for name, (n, b, c, usd) in specification.items()
    }


@QUICK
@given(specification=candidates)
def test_the_order_of_candidates_does_not_matter(specification):
    results = drawn(specification)
    reverse = dict(reversed(results.items()))
    assert decided(reverse) == decided(results)


@QUICK
@given(specification=candidates)
def test_whoever_is_bound_has_the_evidence_and_a_known_lower_cost(specification):
    decision = decided(drawn(specification))
    evidence = decision.chosen
    if decision.decision == "kept":
        assert decision.binding is None
        return
    assert decision.model == evidence.candidate == decision.binding.model.name
    assert evidence.n >= MIN_PAIRS
    assert evidence.usd_per_correct < evidence.reference_usd_per_correct
    if decision.decision == "proven":
        assert evidence.e_value >= decision.threshold
        assert decision.needed_n <= evidence.n
    else:
        assert 1 < evidence.e_value < decision.threshold
        assert decision.needed_n > evidence.n


@QUICK
@given(specification=candidates)
def test_looking_and_deciding_agree(specification):
    for made in drawn(specification).values():
        decision = decided({"a": made})
        evidence = decision.chosen
        answer = look(
            evidence.n,
            evidence.reference_only,
            evidence.candidate_only,
            margin=0.05,
            threshold=decision.threshold,
        )
        if decision.decision == "proven":
            assert answer == "proven"
        if answer == "proven" and selection._is_cheaper(evidence):
            assert decision.decision == "proven"


# The guarantee, by simulation --------------------------------------------------------


def sequential(rng, *, loss, win, bar):
    """Look after 20, 30, ... pairs until the rule has an answer."""
    b = c = 0
    for n in range(1, MAX_PAIRS + 1):
        draw = rng.random()
        b += draw < loss
        c += loss <= draw < loss + win
        if is_look(n):
            answer = look(n, b, c, margin=0.05, threshold=bar)
            if answer != "open":
                return answer
    pytest.fail("the last look must answer")


def share_proven(*, loss, win, runs, bar=20.0):
    rng = random.Random(7)  # noqa: S311 - a simulation
    answers = [sequential(rng, loss=loss, win=win, bar=bar) for _ in range(runs)]
    return answers.count("proven") / runs


def test_a_just_inferior_candidate_is_bound_in_at_most_alpha_of_runs():
    assert share_proven(loss=0.10, win=0.05, runs=400) <= 0.05


def test_an_equal_candidate_is_bound_in_most_runs():
    assert share_proven(loss=0.05, win=0.05, runs=100) >= 0.9


def test_the_best_of_several_inferior_candidates_is_bound_in_at_most_alpha_of_sites():
    # Four candidates just below the margin, each with fresh luck: K = 4.
    rng, sites = random.Random(11), 100  # noqa: S311 - a simulation
    bar = threshold(candidates=4, sites=1, alpha=0.05)
    wrong = sum(
        any(
            sequential(rng, loss=0.10, win=0.05, bar=bar) == "proven"
            for _candidate in "abcd"
        )
        for _site in range(sites)
    )
    assert wrong <= 0.05 * sites


def test_a_candidate_that_never_wins_is_not_dropped_while_it_can_be_proven():
    # As under agreement with the reference: F is 10.2 at the fifth loss, whatever n.
    assert look(290, 5, 0, margin=0.05, threshold=80) == "open"
    assert look(360, 5, 0, margin=0.05, threshold=80) == "proven"
    assert look(50, 5, 0, margin=0.05, threshold=80) == "futile"
