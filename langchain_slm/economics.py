"""What answers cost. Pure; None is unknown, and the unknown is never guessed or 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

from langchain_slm.schema import ModelSpec, Usage


def call_usd(spec: ModelSpec, usage: Usage) -> float | None:
    """Return what one call costs, in dollars.

    Args:
        spec: The model, with its prices per million tokens.
        usage: Tokens of the call.

    Returns:
        At least 0; None when a price or a token count is unknown, NaN or negative.

    Example:
        >>> spec = ModelSpec(name="a", provider="openai", model="a",
        ...     usd_per_million_input_tokens=2.5, usd_per_million_output_tokens=10)
        >>> call_usd(spec, Usage(input_tokens=1000, output_tokens=100))
        0.0035
        >>> call_usd(spec, Usage(input_tokens=1000)) is None
        True
    """
    tokens_in, tokens_out = _known(usage.input_tokens), _known(usage.output_tokens)
    price_in = _known(spec.usd_per_million_input_tokens)
    price_out = _known(spec.usd_per_million_output_tokens)
    if tokens_in is None or tokens_out is None or price_in is None or price_out is None:
        return None
    return _known((tokens_in * price_in + tokens_out * price_out) / 1e6)


def usd_per_correct(costs: Sequence[float | None], correct: int) -> float | None:
    """Return dollars per correct answer: what all answers cost, over the right ones.

    Args:
        costs: Dollars of each answer, wrong ones included.
        correct: How many of them were right, in [0, `len(costs)`].

    Returns:
        At least 0; None when a cost is unknown, NaN or negative, and when no answer
        was right.

    Raises:
        ValueError: If `correct` is outside its range.

    Example:
        >>> usd_per_correct([0.25, 0.25, 0.5], 2)
        0.5
        >>> usd_per_correct([0.25, None], 1) is None
        True
    """
    if not 0 <= correct <= len(costs):
        msg = f"correct must be in [0, {len(costs)}], not {correct}"
        raise ValueError(msg)
    known = [cost for cost in map(_known, costs) if cost is not None]
    if correct == 0 or len(known) < len(costs):
        return None
    try:
        return math.fsum(known) / correct
    except OverflowError:  # a sum that no float holds is a mistake, not a price
        return None


def cost_change(candidate: float | None, reference: float | None) -> float | None:
    """Return the relative change of cost, as -0.92 for 92 % less.

    Args:
        candidate: Dollars per correct answer of the candidate.
        reference: The same of the reference.

    Returns:
        At least -1; None when either is unknown, NaN or negative, and when the
        reference costs nothing.

    Example:
        >>> round(cost_change(0.02, 0.25), 2)
        -0.92
    """
    after, before = _known(candidate), _known(reference)
    if after is None or before is None or before == 0:
        return None
    change = after / before - 1
    return change if math.isfinite(change) else None


def _known(value: float | None) -> float | None:
    return value if value is not None and 0 <= value < math.inf else None
