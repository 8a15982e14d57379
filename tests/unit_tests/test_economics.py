"""Costs, and that the unknown stays unknown."""

import doctest
import math

import pytest

from langchain_slm import economics
from langchain_slm.economics import call_usd, cost_change, usd_per_correct
from langchain_slm.schema import ModelSpec, Usage


def spec(price_in=2.5, price_out=10.0):
    return ModelSpec(
        name="m",
        provider="openai",
        model="m",
        usd_per_million_input_tokens=price_in,
        usd_per_million_output_tokens=price_out,
    )


def test_every_docstring_example_runs():
    result = doctest.testmod(economics)
    assert result.failed == 0
    assert result.attempted >= 6


def test_a_call_costs_its_tokens_at_their_prices():
    assert call_usd(spec(), Usage(input_tokens=1_000_000, output_tokens=0)) == 2.5
    assert call_usd(spec(), Usage(input_tokens=400, output_tokens=20)) == 0.0012


def test_a_free_model_costs_nothing():
    free = spec(price_in=0.0, price_out=0.0)
    assert call_usd(free, Usage(input_tokens=400, output_tokens=20)) == 0.0


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        (spec(price_in=None), Usage(input_tokens=1, output_tokens=1)),
        (spec(price_out=None), Usage(input_tokens=1, output_tokens=1)),
        (spec(price_in=math.nan), Usage(input_tokens=1, output_tokens=1)),
        (spec(price_out=-1.0), Usage(input_tokens=1, output_tokens=1)),
        (spec(price_out=math.inf), Usage(input_tokens=1, output_tokens=1)),
        (spec(), Usage()),
        (spec(), Usage(input_tokens=1)),
        (spec(), Usage(output_tokens=1)),
        (spec(), Usage(input_tokens=-1, output_tokens=1)),
        (spec(price_in=1e308), Usage(input_tokens=10**8, output_tokens=1)),
        # Validation is skipped here: the last line of defence is economics' own.
        (
            spec().model_copy(update={"usd_per_million_input_tokens": math.nan}),
            Usage(input_tokens=1, output_tokens=1),
        ),
        (spec(), Usage.model_construct(input_tokens=-5, output_tokens=1)),
    ],
)
def test_a_call_with_an_unknown_price_or_count_has_an_unknown_cost(model, usage):
    assert call_usd(model, usage) is None


def test_wrong_answers_are_paid_for_too():
    assert usd_per_correct([0.25, 0.25, 0.25, 0.25], 2) == 0.5


@pytest.mark.parametrize("unknown", [None, math.nan, -0.01, math.inf])
def test_one_unknown_cost_makes_the_whole_unknown(unknown):
    assert usd_per_correct([0.25, unknown, 0.25], 3) is None


def test_nothing_correct_or_nothing_at_all_has_no_cost_per_correct():
    assert usd_per_correct([0.25, 0.25], 0) is None
    assert usd_per_correct([], 0) is None


def test_costs_past_every_float_are_unknown():
    assert usd_per_correct([1e308, 1e308], 1) is None


def test_the_order_of_costs_does_not_matter():
    assert usd_per_correct([1e16, 1.0, 1.0], 1) == usd_per_correct([1.0, 1.0, 1e16], 1)


@pytest.mark.parametrize("correct", [-1, 3])
def test_more_correct_answers_than_answers_are_refused(correct):
    with pytest.raises(ValueError, match=f"not {correct}"):
        usd_per_correct([0.1, 0.1], correct)


def test_cost_change_is_relative_to_the_reference():
    assert cost_change(0.02, 0.25) == pytest.approx(-0.92)
    assert cost_change(0.5, 0.25) == 1.0
    assert cost_change(0.0, 0.25) == -1.0


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        (None, 0.25),
        (0.02, None),
        (math.nan, 0.25),
        (0.02, math.nan),
        (-0.02, 0.25),
        (0.02, 0.0),
        (1e308, 1e-308),
    ],
)
def test_cost_change_is_unknown_where_a_cost_is(candidate, reference):
    assert cost_change(candidate, reference) is None
