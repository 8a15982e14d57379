"""Fixtures for all tests."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive():
    """Ctrl-C works in tests and their processes, also where a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


KINDS = {"weather": "get_weather", "orders": "find_order"}


def _case(kind: str, index: int) -> dict[str, Any]:
    tool = {
        "type": "function",
        "function": {
            "name": KINDS[kind],
            "description": f"Answer a question about {kind}.",
            "parameters": {
                "type": "object",
                "properties": {"key": {"type": "string"}},
                "required": ["key"],
            },
        },
    }
    return {
        "id": f"{kind}_{index}",
        "suite": "made",
        "node": kind,
        "messages": [{"role": "user", "content": f"What about {kind} {index}?"}],
        "tools": [tool],
        "reference": {
            "calls": [{"name": KINDS[kind], "arguments": {"key": [f"{kind} {index}"]}}]
        },
        "grader": "bfcl_ast",
    }


def _response(case: dict[str, Any], *, right: bool) -> dict[str, Any]:
    name = case["tools"][0]["function"]["name"]
    key = case["id"].replace("_", " ") if right else "something else"
    call = {"name": name, "arguments": json.dumps({"key": key})}
    return {
        "id": case["id"],
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_0", "type": "function", "function": call}],
        },
        "passed": right,
        "input_tokens": 100,
        "output_tokens": 20,
    }


@pytest.fixture
def made_suite(tmp_path: Path) -> Path:
    """A suite of two nodes: one small model is as good as the reference on one node."""
    folder = tmp_path / "made_suite"
    (folder / "responses").mkdir(parents=True)
    cases = [_case(kind, index) for kind in KINDS for index in range(220)]
    # How often each is wrong: one small model beats the reference at `weather` only.
    wrong = {
        "ref-large": {"weather": 0.08, "orders": 0.02},
        "slm-good": {"weather": 0.01, "orders": 0.3},
        "slm-mixed": {"weather": 0.25, "orders": 0.25},
        "slm-poor": {"weather": 0.4, "orders": 0.4},
    }
    draw = random.Random(7)  # noqa: S311 - no secret is drawn
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, cases)))
    for model, rates in wrong.items():
        rows = [
            _response(case, right=draw.random() >= rates[case["node"]]) for case in cases
        ]
        path = folder / "responses" / f"{model}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
    prices = {"ref-large": 2.0, "slm-good": 0.1, "slm-poor": 0.05, "slm-mixed": 0.2}
    models = {
        name: {
            "params_b": None,
            "input_usd_per_1m": price,
            "output_usd_per_1m": price,
            "kind": "llm" if name == "ref-large" else "slm",
            "specialised_for": None,
            "source": "made for a test",
            "reference": name == "ref-large",
        }
        for name, price in prices.items()
    }
    (folder / "models.json").write_text(json.dumps(models))
    return folder
