"""Rewrite a LangGraph graph so that each node calls the cheapest model that passes.

    record -> curate -> cluster -> evaluate -> select -> plan -> rewrite

Names are loaded when they are first used: importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_slm.catalog import parse_catalog
    from langchain_slm.clustering import cluster
    from langchain_slm.conversion import Options, convert
    from langchain_slm.curation import curate
    from langchain_slm.errors import SLMError
    from langchain_slm.evaluation.evaluators import Verdict
    from langchain_slm.recording.recorder import record, recorded_node
    from langchain_slm.recording.store import Store, open_store
    from langchain_slm.rewriting.applying import apply_plan
    from langchain_slm.rewriting.graphs import rewrite
    from langchain_slm.routing.chat_router import ChatRouter
    from langchain_slm.routing.limits import Limits, ModelLimits, SpendLimit
    from langchain_slm.routing.middleware import RouterMiddleware
    from langchain_slm.routing.plan_file import read_plan
    from langchain_slm.routing.router import Router
    from langchain_slm.schema import Call, Example, Plan

_MODULES = {
    "Call": "schema",
    "ChatRouter": "routing.chat_router",
    "Example": "schema",
    "Limits": "routing.limits",
    "ModelLimits": "routing.limits",
    "Options": "conversion",
    "Plan": "schema",
    "Router": "routing.router",
    "RouterMiddleware": "routing.middleware",
    "SLMError": "errors",
    "SpendLimit": "routing.limits",
    "Store": "recording.store",
    "Verdict": "evaluation.evaluators",
    "apply_plan": "rewriting.applying",
    "cluster": "clustering",
    "convert": "conversion",
    "curate": "curation",
    "open_store": "recording.store",
    "parse_catalog": "catalog",
    "read_plan": "routing.plan_file",
    "record": "recording.recorder",
    "recorded_node": "recording.recorder",
    "rewrite": "rewriting.graphs",
}

__all__ = [
    "Call",
    "ChatRouter",
    "Example",
    "Limits",
    "ModelLimits",
    "Options",
    "Plan",
    "Router",
    "RouterMiddleware",
    "SLMError",
    "SpendLimit",
    "Store",
    "Verdict",
    "apply_plan",
    "cluster",
    "convert",
    "curate",
    "open_store",
    "parse_catalog",
    "read_plan",
    "record",
    "recorded_node",
    "rewrite",
]


def __getattr__(name: str) -> Any:
    """Load an exported name, or the package's version, when it is first used."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - slower than all the rest

        return version("langchain-slm")
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the exported names."""
    return [*__all__, "__version__"]
