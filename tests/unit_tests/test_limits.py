import copy
import math
import pickle

import pytest

from langchain_slm.routing.limits import (
    BreakerSettings,
    Limits,
    ModelLimits,
    SpendLimit,
)

NO_AMOUNT = [0, -1.0, math.nan, math.inf, True, "5", None, 1j, 10**400]
NO_COUNT = [0, -3, 2.5, 4.0, math.nan, True, False, "4", None]


def test_a_request_may_make_four_calls_in_ten_minutes_by_default():
    limits = Limits()

    assert (limits.max_attempts, limits.deadline_s) == (4, 600.0)
    assert limits.breaker == BreakerSettings(failures=5, open_s=30.0)
    assert (limits.spend, limits.per_model) == ((), {})


@pytest.mark.parametrize("value", NO_COUNT)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Limits, "max_attempts"),
        (Limits, "max_chunks"),
        (ModelLimits, "max_in_flight"),
        (BreakerSettings, "failures"),
    ],
)
def test_a_count_is_a_whole_number_of_at_least_one(kind, name, value):
    if value is None and name == "max_in_flight":
        return
    with pytest.raises(ValueError, match=rf"^{name} must be .* \(.+\), not "):
        kind(**{name: value})


@pytest.mark.parametrize("value", NO_AMOUNT)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Limits, "deadline_s"),
        (ModelLimits, "requests_per_second"),
        (BreakerSettings, "open_s"),
        (SpendLimit, "usd"),
        (SpendLimit, "per"),
    ],
)
def test_an_amount_is_a_positive_finite_number(kind, name, value):
    unlimited = value is None and kind in (Limits, ModelLimits)
    if unlimited or (value == 0 and name == "usd"):
        return
    others = {"usd": 1.0} if kind is SpendLimit else {}
    with pytest.raises(ValueError, match=rf"^{name} must be .* \(.+\), not "):
        kind(**others | {name: value})


def test_no_dollar_at_all_is_a_limit():
    assert SpendLimit(usd=0).usd == 0


def test_false_is_no_limit_of_zero_dollars():
    with pytest.raises(ValueError, match="not False"):
        SpendLimit(usd=False)


@pytest.mark.parametrize("value", ["stop", None, True, ["refuse"]])
def test_there_are_two_things_to_do_at_a_limit(value):
    with pytest.raises(ValueError, match=r'^at_limit must be "refuse" or "bound_only"'):
        SpendLimit(usd=1, at_limit=value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spend": SpendLimit(usd=1)},
        {"spend": [SpendLimit(usd=1)]},
        {"spend": (1.0,)},
        {"per_model": {"gpt": 3}},
        {"per_model": {1: ModelLimits()}},
        {"per_model": ModelLimits()},
        {"breaker": 5},
        {"breaker": False},
    ],
)
def test_the_parts_of_limits_are_of_their_types(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"^{name} must be .*, not "):
        Limits(**wrong)


def test_limits_keep_what_was_checked():
    per_model = {"gpt": ModelLimits(max_in_flight=2)}
    limits = Limits(per_model=per_model)
    per_model["gpt"] = None

    assert limits.per_model == {"gpt": ModelLimits(max_in_flight=2)}


def test_limits_can_be_compared_hashed_copied_and_pickled():
    limits = Limits(spend=(SpendLimit(usd=1),), per_model={"gpt": ModelLimits()})

    assert pickle.loads(pickle.dumps(limits)) == limits  # noqa: S301
    assert copy.deepcopy(limits) == limits
    assert len({limits, copy.deepcopy(limits), Limits()}) == 2
