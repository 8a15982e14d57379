"""Intervals, tests and e-values on pass rates. Pure: no I/O, clock or model calls.

Paired counts are named alike everywhere: of `n` pairs, `reference_only` (b) were passed
by the reference alone and `candidate_only` (c) by the candidate alone; differences are
candidate minus reference, (c - b) / n. Nothing here decides: `selection` holds the rule.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Iterable
from statistics import NormalDist
from typing import Literal, TypeAlias

McNemarMethod: TypeAlias = Literal["exact", "mid_p", "chi2", "chi2_cc"]

# Bets of the e-processes. An average over many bets needs no guess of how large the
# difference is; 1 is left out because one lost pair would then end all evidence.
BETS = tuple(step / 20 for step in range(1, 20))

# Halvings of [-1, 1] until neighbouring floats meet.
_HALVINGS = 60

# Fractional counts (rates times a number of pairs) may exceed n by rounding.
_ROUNDING = 1e-9


def pass_rate_interval(
    passed: int, total: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the two-sided Wilson score interval of a pass rate.

    Unlike the normal approximation it stays inside [0, 1] and does not shrink to
    nothing when every example passes.

    Args:
        passed: Examples that passed, in [0, `total`].
        total: Examples evaluated, at least 1.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        `(low, high)`, fractions in [0, 1].

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Wilson (1927), J. Am. Stat. Assoc. 22: 209-212.

    Example:
        >>> low, high = pass_rate_interval(46, 50)
        >>> round(low, 3), round(high, 3)
        (0.812, 0.968)
    """
    if total < 1 or not 0 <= passed <= total:
        msg = f"needs 0 <= passed <= total and total >= 1, not {passed} of {total}"
        raise ValueError(msg)
    z = _two_sided_z(confidence)
    rate = passed / total
    centre = rate + z * z / (2 * total)
    half = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    shrink = 1 + z * z / total
    # The ends are exact where they are 0 or 1, not off by a rounding error.
    low = 0.0 if passed == 0 else (centre - half) / shrink
    high = 1.0 if passed == total else (centre + half) / shrink
    return low, high


def tango_z(n: int, reference_only: int, candidate_only: int, *, margin: float) -> float:
    """Return Tango's score statistic against "the candidate is worse by `margin`".

    Large values speak for non-inferiority; at a fixed n, compare with the normal
    quantile. At margin 0 it is McNemar's statistic without correction.

    Args:
        n: Pairs, at least 1.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        margin: Absolute difference of pass rates, in [0, 1).

    Returns:
        A standard normal deviate under the hypothesis, for large n.

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Tango (1998), Stat. Med. 17: 891-908.

    Example:
        >>> round(tango_z(300, 12, 12, margin=0.05), 4)
        2.7393
    """
    _check_pairs(n, reference_only, candidate_only, least=1)
    if not 0 <= margin < 1:
        msg = f"margin must be in [0, 1), not {margin}"
        raise ValueError(msg)
    return _tango_score(n, reference_only, candidate_only, difference=-margin)


def tango_interval(
    n: int, reference_only: int, candidate_only: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return Tango's score interval of the paired difference of pass rates.

    Args:
        n: Pairs, at least 1.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        `(low, high)` of candidate minus reference, in [-1, 1].

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Tango (1998), Stat. Med. 17: 891-908.

    Example:
        >>> low, high = tango_interval(32, 3, 9)
        >>> round(low, 3), round(high, 3)
        (-0.027, 0.39)
    """
    _check_pairs(n, reference_only, candidate_only, least=1)
    z = _two_sided_z(confidence)
    low = _tango_low(n, reference_only, candidate_only, z=z)
    # Exchanging the two models mirrors the interval.
    high = -_tango_low(n, candidate_only, reference_only, z=z)
    return low, high


def newcombe_interval(
    n: int,
    reference_only: int,
    candidate_only: int,
    *,
    both_passed: int,
    method: Literal[8, 10] = 10,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return Newcombe's square-and-add interval of the paired difference.

    Args:
        n: Pairs, at least 1.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        both_passed: Pairs that both passed.
        method: 8 uses the correlation as observed; 10 corrects it towards 0.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        `(low, high)` of candidate minus reference, in [-1, 1].

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Newcombe (1998), Stat. Med. 17: 2635-2650.

    Example:
        >>> low, high = newcombe_interval(50, 2, 12, both_passed=20, method=8)
        >>> round(low, 4), round(high, 4)
        (0.0618, 0.3242)
    """
    _check_pairs(n, reference_only, candidate_only, least=1)
    both_failed = n - reference_only - candidate_only - both_passed
    if both_passed < 0 or both_failed < 0:
        msg = f"both_passed must be in [0, n - b - c], not {both_passed} of n={n}"
        raise ValueError(msg)
    if method not in (8, 10):
        msg = f"method must be 8 or 10, not {method!r}"
        raise ValueError(msg)
    candidate, reference = both_passed + candidate_only, both_passed + reference_only
    low_c, high_c = pass_rate_interval(candidate, n, confidence=confidence)
    low_r, high_r = pass_rate_interval(reference, n, confidence=confidence)
    rate_c, rate_r = candidate / n, reference / n
    covariance = float(both_passed * both_failed - reference_only * candidate_only)
    if method == 10 and covariance > 0:  # noqa: PLR2004 - Newcombe's own number
        covariance = max(covariance - n / 2, 0.0)
    spread = math.sqrt(candidate * (n - candidate) * reference * (n - reference))
    phi = covariance / spread if spread else 0.0
    below = _square_and_add(rate_c - low_c, high_r - rate_r, phi)
    above = _square_and_add(high_c - rate_c, rate_r - low_r, phi)
    return rate_c - rate_r - below, rate_c - rate_r + above


def mcnemar_p_value(
    reference_only: int, candidate_only: int, *, method: McNemarMethod = "exact"
) -> float:
    """Return the two-sided p-value of McNemar's test that both pass rates are equal.

    Args:
        reference_only: Pairs that only the reference passed, at least 0.
        candidate_only: Pairs that only the candidate passed, at least 0.
        method: "exact" binomial, "mid_p" (less conservative), "chi2", or "chi2_cc"
            with Edwards' continuity correction.

    Returns:
        In [0, 1]; 1 when no pair differs.

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        McNemar (1947), Psychometrika 12: 153-157; Fagerland, Lydersen and Laake
        (2013), BMC Med. Res. Methodol. 13: 91.

    Example:
        >>> round(mcnemar_p_value(16, 6), 6)
        0.052479
    """
    if reference_only < 0 or candidate_only < 0:
        msg = f"counts must not be negative: {reference_only}, {candidate_only}"
        raise ValueError(msg)
    if method not in ("exact", "mid_p", "chi2", "chi2_cc"):
        msg = f"method must be exact, mid_p, chi2 or chi2_cc, not {method!r}"
        raise ValueError(msg)
    differing = reference_only + candidate_only
    if differing == 0:
        return 1.0
    fewer = min(reference_only, candidate_only)
    if method in ("chi2", "chi2_cc"):
        correction = 1 if method == "chi2_cc" else 0
        distance = max(abs(reference_only - candidate_only) - correction, 0)
        return math.erfc(distance / math.sqrt(2 * differing))
    tail = _binomial_cdf(fewer, differing, 0.5)
    if method == "mid_p":
        tail -= math.exp(_log_binomial(fewer, differing, 0.5)) / 2
    return min(1.0, 2 * tail)


def e_value(
    n: float, reference_only: float, candidate_only: float, *, margin: float
) -> float:
    """Return the evidence against "the candidate is worse by `margin` or more".

    A mean of betting martingales, one per bet g. Under the hypothesis its expectation
    is at most 1 at any stopping time, so that the chance that it ever reaches 1 / alpha
    is at most alpha, however often one looks (Ville's inequality).

    Args:
        n: Pairs, at least 0; counts may be fractional, to plan with rates.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        margin: Non-inferiority margin, an absolute difference, in (0, 1).

    Returns:
        At least 0; 1 without pairs; never infinite.

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Waudby-Smith and Ramdas (2024), J. R. Stat. Soc. B 86: 1-27.

    Example:
        >>> round(e_value(300, 12, 12, margin=0.05), 4)
        24.396
    """
    _check_pairs(n, reference_only, candidate_only)
    _check_fraction("margin", margin)
    equal = max(0.0, n - reference_only - candidate_only)
    return _mean_of_exponentials(
        candidate_only * math.log1p(bet * (1 + margin))
        + equal * math.log1p(bet * margin)
        + reference_only * math.log1p(-bet * (1 - margin))
        for bet in BETS
    )


def futility(n: float, reference_only: float, candidate_only: float) -> float:
    """Return the evidence against "the candidate is at least as good".

    The same bets as `e_value`, laid against the candidate. It only saves calls: no
    binding rests on it.

    Args:
        n: Pairs, at least 0; counts may be fractional.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.

    Returns:
        At least 0; 1 without pairs; never infinite.

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Waudby-Smith and Ramdas (2024), J. R. Stat. Soc. B 86: 1-27.

    Example:
        >>> round(futility(300, 30, 10), 4)
        66.5251
    """
    _check_pairs(n, reference_only, candidate_only)
    return _mean_of_exponentials(
        candidate_only * math.log1p(-bet) + reference_only * math.log1p(bet)
        for bet in BETS
    )


def needed_pairs(
    n: int,
    reference_only: int,
    candidate_only: int,
    *,
    margin: float,
    threshold: float,
    limit: int = 1_000_000,
) -> int | None:
    """Return how many pairs would prove a candidate at the rates seen.

    Args:
        n: Pairs seen, at least 1.
        reference_only: Pairs that only the reference passed.
        candidate_only: Pairs that only the candidate passed.
        margin: Non-inferiority margin, in (0, 1).
        threshold: The e-value that proves, above 1.
        limit: The largest number of pairs considered, at least 1.

    Returns:
        The smallest number of pairs, in [1, `limit`], at which the e-value of these
        rates reaches `threshold`; None if no number does.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> needed_pairs(1, 0, 0, margin=0.05, threshold=20)
        94
        >>> needed_pairs(300, 30, 10, margin=0.05, threshold=20) is None
        True
    """
    _check_pairs(n, reference_only, candidate_only, least=1)
    if not 1 < threshold < math.inf or limit < 1:
        msg = f"needs 1 < threshold < inf and limit >= 1, not {threshold} and {limit}"
        raise ValueError(msg)

    def reached(pairs: int) -> bool:
        b, c = pairs * reference_only / n, pairs * candidate_only / n
        return e_value(pairs, b, c, margin=margin) >= threshold

    # Along fixed rates the logarithm of E is convex and starts at 0: once it has
    # reached a positive value it stays above, so bisection finds the first.
    first = bisect_left(range(1, limit + 1), True, key=reached) + 1  # noqa: FBT003 - the value sought
    return first if first <= limit else None


def smallest_provable_margin(n: int, alpha: float) -> float:
    """Return the smallest margin that `n` pairs without a loss can prove.

    The exact bound: with a loss rate of the margin, n pairs without one have the
    probability `alpha`. Any margin below it needs more pairs, whatever the test.

    Args:
        n: Pairs, none of them lost, at least 1.
        alpha: Accepted probability of a wrong proof, in (0, 1).

    Returns:
        An absolute difference of pass rates, in (0, 1).

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> round(smallest_provable_margin(50, 0.05), 3)
        0.058
    """
    if n < 1:
        msg = f"n must be at least 1, not {n}"
        raise ValueError(msg)
    _check_fraction("alpha", alpha)
    return -math.expm1(math.log(alpha) / n)


def hoeffding_bentkus_p_value(losses: float, n: int, *, risk: float) -> float:
    """Return a p-value for "the expected loss is above `risk`".

    Valid at every n, for any loss in [0, 1]; Learn-then-Test takes it over a fixed grid
    of thresholds to choose one whose risk is below the cap.

    Args:
        losses: Sum of the losses, in [0, `n`]; a count where losses are 0 or 1.
        n: Examples, at least 1.
        risk: The cap on the expected loss, in (0, 1).

    Returns:
        In [0, 1].

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        Bates et al. (2021), J. ACM 68 (6): 43; Angelopoulos et al. (2021), Learn then
        Test, arXiv 2110.01052.

    Example:
        >>> round(hoeffding_bentkus_p_value(5, 300, risk=0.05), 6)
        0.006339
    """
    if n < 1 or not 0 <= losses <= n:
        msg = f"needs n >= 1 and 0 <= losses <= n, not {losses} of {n}"
        raise ValueError(msg)
    _check_fraction("risk", risk)
    hoeffding = math.exp(-n * _bernoulli_divergence(min(losses / n, risk), risk))
    bentkus = math.e * _binomial_cdf(math.ceil(losses), n, risk)
    return min(1.0, hoeffding, bentkus)


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        msg = f"{name} must be in (0, 1), not {value}"
        raise ValueError(msg)


def _check_pairs(n: float, b: float, c: float, *, least: int = 0) -> None:
    if not least <= n < math.inf:
        msg = f"n must be a finite number of at least {least}, not {n}"
        raise ValueError(msg)
    if not (b >= 0 and c >= 0 and b + c <= n * (1 + _ROUNDING)):
        msg = f"needs b >= 0, c >= 0 and b + c <= n, not b={b}, c={c}, n={n}"
        raise ValueError(msg)


def _two_sided_z(confidence: float) -> float:
    _check_fraction("confidence", confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _tango_score(n: int, b: int, c: int, *, difference: float) -> float:
    """Score of `difference`; q is the maximum likelihood of P(b) under it."""
    distance = c - b - n * difference
    if distance == 0:
        return 0.0
    linear = -b - c + (2 * n + b - c) * difference
    constant = -b * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
    q = (root - linear) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    return distance / math.sqrt(variance) if variance > 0 else distance * math.inf


def _tango_low(n: int, b: int, c: int, *, z: float) -> float:
    """The smallest difference that the score does not reject; the score falls."""
    low, high = -1.0, (c - b) / n
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _tango_score(n, b, c, difference=middle) > z:
            low = middle
        else:
            high = middle
    return low


def _square_and_add(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))


def _mean_of_exponentials(exponents: Iterable[float]) -> float:
    """Mean of exp(x), the largest float where that overflows."""
    values = list(exponents)
    largest = max(values)
    scaled = math.fsum(math.exp(value - largest) for value in values) / len(values)
    try:
        return math.exp(largest + math.log(scaled))
    except OverflowError:
        return sys.float_info.max


def _log_binomial(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def _binomial_cdf(k: int, n: int, p: float) -> float:
    total = math.fsum(math.exp(_log_binomial(i, n, p)) for i in range(k + 1))
    return min(1.0, total)


def _bernoulli_divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(q), 0 <= p <= q < 1."""
    hit = p * math.log(p / q) if p > 0 else 0.0
    return hit + (1 - p) * math.log((1 - p) / (1 - q))
