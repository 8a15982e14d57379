"""Known answers of the statistics, their properties, and the guarantee by simulation."""

import doctest
import math
import random
import sys
from itertools import pairwise
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm import stats
from langchain_slm.stats import (
    e_value,
    futility,
    hoeffding_bentkus_p_value,
    mcnemar_p_value,
    needed_pairs,
    newcombe_interval,
    pass_rate_interval,
    smallest_provable_margin,
    tango_interval,
    tango_z,
)

QUICK = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def pairs(draw, largest=400):
    """(n, reference_only, candidate_only), at least one pair."""
    n = draw(st.integers(1, largest))
    b = draw(st.integers(0, n))
    return n, b, draw(st.integers(0, n - b))


margins = st.floats(0.005, 0.5)


def table(both_passed, candidate_only, reference_only, both_failed):
    """A published 2x2 table in the order of this module's arguments."""
    n = both_passed + candidate_only + reference_only + both_failed
    return n, reference_only, candidate_only


def test_every_docstring_example_runs():
    result = doctest.testmod(stats)
    assert result.failed == 0
    assert result.attempted >= 11


# Known answers: intervals -----------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "confidence", "low", "high", "tolerance"),
    [
        ((4, 9, 3, 16), 0.95, -0.027, 0.390, 5e-4),
        ((43, 0, 1, 0), 0.90, -0.096, 0.037, 5e-4),
        ((1, 1, 7, 12), 0.95, -0.517, -0.026, 5e-4),
        ((53, 16, 8, 9), 0.95, -0.020, 0.207, 5e-4),
        ((59, 6, 16, 80), 0.95, -0.1240, -0.0054, 5e-5),
        ((0, 3, 0, 0), 0.95, -0.1230, 1.0, 5e-5),
    ],
)
def test_tango_intervals_are_the_published_ones(counts, confidence, low, high, tolerance):
    interval = tango_interval(*table(*counts), confidence=confidence)
    assert interval == pytest.approx((low, high), abs=tolerance)


@pytest.mark.parametrize(
    ("method", "low", "high"), [(8, 0.0618, 0.3242), (10, 0.0562, 0.3292)]
)
def test_newcombe_intervals_are_the_published_ones(method, low, high):
    n, b, c = table(20, 12, 2, 16)
    interval = newcombe_interval(n, b, c, both_passed=20, method=method)
    assert interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [(15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(passed, total, low, high):
    assert pass_rate_interval(passed, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_are_exact_where_nothing_or_everything_passed():
    assert pass_rate_interval(0, 20)[0] == 0.0
    assert pass_rate_interval(20, 20)[1] == 1.0


def test_newcombe_is_defined_where_a_margin_of_the_table_is_empty():
    low, high = newcombe_interval(10, 0, 0, both_passed=10)
    assert (round(low, 4), round(high, 4)) == (-0.2775, 0.2775)


# Known answers: tests ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "p_value"),
    [
        ("exact", 0.052479),
        ("mid_p", 0.034690),
        ("chi2", 0.033006),
        ("chi2_cc", 0.055009),
    ],
)
def test_mcnemar_p_values_are_the_published_ones(method, p_value):
    _, b, c = table(59, 6, 16, 80)
    assert mcnemar_p_value(b, c, method=method) == pytest.approx(p_value, abs=5e-7)


@pytest.mark.parametrize("method", ["exact", "mid_p", "chi2", "chi2_cc"])
def test_mcnemar_finds_nothing_in_equal_counts(method):
    assert mcnemar_p_value(0, 0, method=method) == 1.0
    assert mcnemar_p_value(7, 7, method=method) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("n", "b", "c", "z", "e"),
    [
        (59, 0, 0, 1.7622, 5.7191),
        (300, 12, 12, 2.7393, 24.3960),
        (300, 30, 10, -0.8164, 0.0959),
    ],
)
def test_tango_z_and_e_value_are_the_known_ones(n, b, c, z, e):
    assert tango_z(n, b, c, margin=0.05) == pytest.approx(z, abs=5e-5)
    assert e_value(n, b, c, margin=0.05) == pytest.approx(e, abs=5e-5)


def test_the_p_value_of_tango_z_is_the_known_one():
    p_value = 1 - NormalDist().cdf(tango_z(300, 12, 12, margin=0.05))
    assert p_value == pytest.approx(0.003079, abs=5e-7)


@pytest.mark.parametrize(("b", "c", "f"), [(12, 12, 0.2349), (30, 10, 66.5251)])
def test_futility_is_the_known_one(b, c, f):
    assert futility(300, b, c) == pytest.approx(f, abs=5e-5)


def test_learn_then_test_p_value_is_the_known_one():
    p_value = hoeffding_bentkus_p_value(5, 300, risk=0.05)
    assert p_value == pytest.approx(0.006339, abs=5e-7)
    assert p_value / math.e == pytest.approx(0.002332, abs=5e-7)


def test_learn_then_test_takes_hoeffding_where_it_is_smaller():
    # e times the chance of no loss is 2.718 * 0.95**10 = 1.63; Hoeffding's is 0.95**10.
    p_value = hoeffding_bentkus_p_value(0, 10, risk=0.05)
    assert p_value == pytest.approx(0.598737, abs=5e-7)


def test_learn_then_test_rounds_fractional_losses_up():
    # Bentkus counts whole losses: 4.8 are taken as 5, never as 4.
    p_value = hoeffding_bentkus_p_value(4.8, 300, risk=0.05)
    assert p_value == pytest.approx(0.006339, abs=5e-7)


def test_learn_then_test_proves_nothing_at_or_above_the_risk():
    assert hoeffding_bentkus_p_value(15, 300, risk=0.05) == 1.0
    assert hoeffding_bentkus_p_value(300, 300, risk=0.05) == 1.0


# Known answers: numbers of pairs ----------------------------------------------------


def first(condition):
    return next(n for n in range(1, 1000) if condition(n))


def test_the_floors_without_a_loss_are_59_52_and_94_pairs():
    z = NormalDist().inv_cdf(0.95)
    assert first(lambda n: smallest_provable_margin(n, 0.05) <= 0.05) == 59
    assert first(lambda n: tango_z(n, 0, 0, margin=0.05) >= z) == 52
    assert first(lambda n: e_value(n, 0, 0, margin=0.05) >= 20) == 94
    assert needed_pairs(1, 0, 0, margin=0.05, threshold=20) == 94


@pytest.mark.parametrize(("n", "points"), [(20, 13.9), (50, 5.8), (100, 3.0), (1, 95.0)])
def test_the_smallest_provable_margin_is_the_known_one(n, points):
    assert 100 * smallest_provable_margin(n, 0.05) == pytest.approx(points, abs=0.05)


@QUICK
@given(counts=pairs(), margin=margins)
def test_needed_pairs_is_the_first_number_that_reaches_the_threshold(counts, margin):
    n, b, c = counts
    needed = needed_pairs(n, b, c, margin=margin, threshold=20, limit=50_000)

    def e_at(m):
        return e_value(m, m * b / n, m * c / n, margin=margin)

    if needed is None:
        assert e_at(50_000) < 20
    else:
        assert e_at(needed) >= 20
        assert needed == 1 or e_at(needed - 1) < 20


def test_no_number_of_pairs_proves_a_candidate_worse_than_the_margin():
    assert needed_pairs(300, 30, 10, margin=0.05, threshold=20) is None


def test_needed_pairs_beyond_the_limit_are_none():
    assert needed_pairs(1, 0, 0, margin=0.05, threshold=20, limit=94) == 94
    assert needed_pairs(1, 0, 0, margin=0.05, threshold=20, limit=93) is None


# Properties -------------------------------------------------------------------------


@QUICK
@given(counts=pairs(), margin=margins)
def test_a_further_loss_lowers_the_e_value_and_raises_futility(counts, margin):
    n, b, c = counts
    before, after = (n + 1, b, c), (n + 1, b + 1, c)
    assert e_value(*after, margin=margin) < e_value(*before, margin=margin)
    assert futility(*after) > futility(*before)


@QUICK
@given(counts=pairs(), margin=margins)
def test_a_further_win_raises_the_e_value_and_lowers_futility(counts, margin):
    n, b, c = counts
    before, after = (n + 1, b, c), (n + 1, b, c + 1)
    assert e_value(*after, margin=margin) > e_value(*before, margin=margin)
    assert futility(*after) < futility(*before)


@QUICK
@given(
    margin=margins, differing=st.floats(0, 1), n=st.integers(0, 50), c=st.integers(0, 50)
)
def test_one_more_pair_at_the_margin_is_a_fair_game(margin, differing, n, c):
    # P(loss) - P(win) = margin: the expected e-value must stay where it is.
    loss = margin + (1 - margin) / 2 * differing
    win = loss - margin
    now = e_value(n + c, 0, c, margin=margin)
    expected = (
        loss * e_value(n + c + 1, 1, c, margin=margin)
        + win * e_value(n + c + 1, 0, c + 1, margin=margin)
        + (1 - loss - win) * e_value(n + c + 1, 0, c, margin=margin)
    )
    assert expected == pytest.approx(now, rel=1e-9)


@QUICK
@given(counts=pairs())
def test_exchanging_the_models_mirrors_the_intervals(counts):
    n, b, c = counts
    low, high = tango_interval(n, b, c)
    assert tango_interval(n, c, b) == (-high, -low)
    assert -1 <= low <= (c - b) / n <= high <= 1
    low, high = newcombe_interval(n, b, c, both_passed=n - b - c)
    mirrored = newcombe_interval(n, c, b, both_passed=n - b - c)
    assert mirrored == pytest.approx((-high, -low))


@QUICK
@given(counts=pairs(), margin=st.floats(0.01, 0.4))
def test_tango_interval_and_z_tell_the_same(counts, margin):
    low, _ = tango_interval(*counts, confidence=0.9)
    z = tango_z(*counts, margin=margin)
    if abs(low + margin) > 1e-9:
        assert (low > -margin) == (z > NormalDist().inv_cdf(0.95))


@QUICK
@given(n=st.integers(1, 500), risk=st.floats(0.01, 0.5))
def test_learn_then_test_p_values_rise_with_the_losses(n, risk):
    p_values = [hoeffding_bentkus_p_value(k, n, risk=risk) for k in range(min(n, 30) + 1)]
    assert all(low <= high for low, high in pairwise(p_values))


def test_without_pairs_there_is_no_evidence():
    assert e_value(0, 0, 0, margin=0.05) == pytest.approx(1.0)
    assert futility(0, 0, 0) == pytest.approx(1.0)


def test_evidence_past_every_float_is_the_largest_one():
    assert e_value(10_000, 0, 10_000, margin=0.05) == sys.float_info.max
    assert futility(10_000, 10_000, 0) == sys.float_info.max
    assert e_value(10_000, 10_000, 0, margin=0.05) < 1e-100


def test_fractional_counts_plan_with_rates():
    whole = e_value(300, 12, 12, margin=0.05)
    assert e_value(300.0, 12.0, 12.0, margin=0.05) == whole
    assert e_value(150, 6.5, 5.5, margin=0.05) < e_value(150, 6, 6, margin=0.05)
    # 0.1 + 0.2 exceeds 0.3 in floats; it is rounding, not a fourth kind of pair.
    assert e_value(0.3, 0.1, 0.2, margin=0.05) > 0


# Arguments outside their range ------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_rate_interval(0, 0), "0 of 0"),
        (lambda: pass_rate_interval(3, 2), "3 of 2"),
        (lambda: pass_rate_interval(-1, 2), "-1 of 2"),
        (lambda: pass_rate_interval(1, 2, confidence=1.0), "confidence"),
        (lambda: tango_z(0, 0, 0, margin=0.05), "at least 1"),
        (lambda: tango_z(10, 6, 5, margin=0.05), "b=6, c=5, n=10"),
        (lambda: tango_z(10, 1, 1, margin=1.0), "margin"),
        (lambda: tango_interval(10, -1, 1), "b=-1"),
        (lambda: tango_interval(10, 1, 1, confidence=0.0), "confidence"),
        (lambda: newcombe_interval(10, 1, 1, both_passed=9), "both_passed"),
        (lambda: newcombe_interval(10, 1, 1, both_passed=1, method=9), "method"),
        (lambda: mcnemar_p_value(-1, 2), "negative"),
        (lambda: mcnemar_p_value(1, 2, method="z"), "method"),
        (lambda: e_value(-1, 0, 0, margin=0.05), "at least 0"),
        (lambda: e_value(math.inf, 0, 0, margin=0.05), "finite"),
        (lambda: e_value(10, math.nan, 0, margin=0.05), "b=nan"),
        (lambda: e_value(10, 0, 0, margin=0.0), "margin"),
        (lambda: e_value(10, 0, 0, margin=math.nan), "margin"),
        (lambda: futility(1, 1, 1), "b=1, c=1"),
        (lambda: needed_pairs(0, 0, 0, margin=0.05, threshold=20), "at least 1"),
        (lambda: needed_pairs(1, 0, 0, margin=0.05, threshold=1), "threshold"),
        (lambda: needed_pairs(1, 0, 0, margin=0.05, threshold=2, limit=0), "limit"),
        (lambda: smallest_provable_margin(0, 0.05), "at least 1"),
        (lambda: smallest_provable_margin(10, 1.0), "alpha"),
        (lambda: hoeffding_bentkus_p_value(1, 0, risk=0.05), "1 of 0"),
        (lambda: hoeffding_bentkus_p_value(11, 10, risk=0.05), "11 of 10"),
        (lambda: hoeffding_bentkus_p_value(1, 10, risk=0.0), "risk"),
    ],
)
def test_an_argument_outside_its_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The guarantee, without any rule of ours on top --------------------------------------


def test_a_candidate_at_the_margin_is_proven_in_at_most_alpha_of_runs():
    rng = random.Random(20)  # noqa: S311 - a simulation
    runs, proven = 300, 0
    for _ in range(runs):
        b = c = 0
        for n in range(1, 401):
            draw = rng.random()
            b += draw < 0.15
            c += 0.15 <= draw < 0.25
            if n % 10 == 0 and e_value(n, b, c, margin=0.05) >= 20:
                proven += 1
                break
    assert proven <= 0.05 * runs
