"""How sure a model says it is of its answer. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def confidence_of(about: Mapping[str, Any]) -> float | None:
    """Return a model's confidence in its answer; None where it does not say.

    A head states it. Of `logprobs` in OpenAI's form it is the geometric mean of the
    probabilities of the text's tokens; the arguments of tool calls have none there.

    Args:
        about: Metadata of the answer. It may hold nonsense, and so may what is returned.

    Example:
        >>> tokens = [{"token": "Ro", "logprob": 0.0}, {"token": "me", "logprob": 0.0}]
        >>> confidence_of({"logprobs": {"content": tokens}})
        1.0
    """
    stated = about.get("confidence")
    if isinstance(stated, int | float):
        return stated
    logprobs = about.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    try:
        return math.exp(math.fsum(token["logprob"] for token in tokens) / len(tokens))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
