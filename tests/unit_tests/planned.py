"""Small plans, for the tests of files and bindings."""

from typing import Any

from langchain_slm.schema import Binding, Decision, Evidence, ModelSpec, Plan, Task

URL = "http://localhost:9/v1"
EVIDENCE = Evidence(
    candidate="slm",
    n=212,
    reference_only=3,
    candidate_only=4,
    e_value=57.25,
    futility=0.125,
    reference_pass_rate=0.95,
    candidate_pass_rate=0.96,
)


def spec(name: str = "slm", **more: Any) -> ModelSpec:
    given = {"provider": "openai", "model": name, "base_url": URL, **more}
    return ModelSpec(name=name, **given)


def task(task_id: str = "triage", *, site: str = "triage", **more: Any) -> Task:
    return Task(task_id=task_id, site=site, shape="text", **more)


def decision(site: str = "triage", model: str = "slm", **more: Any) -> Decision:
    binding = more.pop("binding", Binding(model=spec(model)))
    given = {
        "reference": "ref",
        "decision": "proven",
        "reason": "as good, and cheaper",
        "threshold": 40.0,
        "chosen": EVIDENCE,
        **more,
    }
    return Decision(site=site, model=model, binding=binding, **given)


def kept(site: str = "reply", **more: Any) -> Decision:
    return decision(site, "ref", decision="kept", binding=None, **more)


def plan(*decisions: Decision, **more: Any) -> Plan:
    given = {
        "graph": "desk",
        "created": "2026-01-01T00:00:00Z",
        "margin": 0.05,
        "alpha": 0.05,
        **more,
    }
    return Plan(decisions=decisions, **given)
