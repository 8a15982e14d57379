"""What a router shows of itself: in a dump what is no secret, in a stream its mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.load.serializable import Serializable
from langchain_core.messages import BaseMessage
from typing_extensions import override

from langchain_slm.routing.dialect import METADATA_KEY
from langchain_slm.routing.redacting import public_dump
from langchain_slm.routing.router import PlanLike
from langchain_slm.schema import Plan


class Mark:
    """What the chunks of a stream say of who answers, whole in the last that says any.

    Version 3 of LangChain's events keeps the last value of a key. Everyone else adds
    chunks up, so that a text which two of them hold would come out twice. Only version
    3 asks a model to stream with a run manager.
    """

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def on(self, chunk: BaseMessage) -> BaseMessage:
        """Return the chunk; one that carries a part of the mark carries all of it."""
        about = chunk.response_metadata
        if METADATA_KEY in about:
            self._told = {**self._told, **about[METADATA_KEY]}
            chunk.response_metadata = {**about, METADATA_KEY: self._told}
        return chunk


class _Shown(Serializable):
    """A chat model as it may be seen: what stands for it when a router is dumped."""

    model: BaseChatModel

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        # What is a reference to an environment variable already.
        kwargs = public_dump(self.model).get("kwargs", {})
        return {
            name: value["id"][0]
            for name, value in kwargs.items()
            if isinstance(value, dict) and value.get("type") == "secret"
        }

    @override
    def to_json(self) -> Any:
        return public_dump(self.model)


def shown(model: Any) -> Any:
    """Return what stands for a chat model in a dump."""
    return _Shown(model=model) if isinstance(model, BaseChatModel) else model


def shown_plan(plan: PlanLike) -> Any:
    """Return what stands for a plan in a dump; a `ChatRouter` takes it as `plan`."""
    if isinstance(plan, Mapping):
        return {site: shown(to) for site, to in plan.items()}
    return plan.model_dump(mode="json") if isinstance(plan, Plan) else str(plan)
