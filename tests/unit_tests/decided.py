"""Requests that have ended, for the tests of what counts them."""

from typing import Any

from langchain_slm.routing.counters import Decided


def decided(**changes: Any) -> Decided:
    """Return a request that the bound model answered, but for `changes`."""
    plain: dict[str, Any] = {
        "site": "triage",
        "task": "t1",
        "model": "slm-8b",
        "provider": "openai",
        "bound": "slm-8b",
        "rule": "proven",
        "plan": "plan-1",
        "escalated": False,
        "reason": None,
        "error": None,
        "asked": {changes.get("model", "slm-8b"): 1},
        "usd": 0.25,
        "failed_usd": 0.0,
        "input_tokens": 100,
        "output_tokens": 20,
        "started_s": 1_700_000_000.5,
        "latency_s": 0.5,
        "streamed": False,
    }
    return Decided(**{**plain, **changes})


def escalated(**changes: Any) -> Decided:
    """Return a request that the reference answered, but for `changes`."""
    by_reference: dict[str, Any] = {
        "model": "gpt-ref",
        "escalated": True,
        "reason": "arguments of tool book: nights is not an integer",
        "usd": 2.25,
        "failed_usd": 0.25,
        "latency_s": 1.5,
    }
    return decided(**{**by_reference, **changes})
