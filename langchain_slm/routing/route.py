"""What answers at a site, in each of the four ways in which a model can be called.

They differ only in how a model is called and waited for; `Cascade` decides the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_slm.routing import calling, dialect
from langchain_slm.routing.asking import Ask, Result
from langchain_slm.routing.cascade import Cascade
from langchain_slm.routing.engine import Callee, Engine
from langchain_slm.routing.policy import Contract, Policy
from langchain_slm.routing.turn import Turn
from langchain_slm.schema import ModelSpec


@dataclass(frozen=True, slots=True)
class Route:
    """What answers at a site instead of the source.

    Attributes:
        site: Where.
        target: The bound model; None where the source answers itself.
        name: Its name in plans and reports; None with it.
        rule: What chose: "proven", "provisional", "mapping", "default", "tool_loop" or
            "model_option".
        policy: When the source is asked after all.
        labels: Closed set that the answer must belong to; empty where there is none.
        engine: What the requests share.
        spec: The target's prices; None to look them up.
        task: The task of the site; None where it is one task.
        plan: Id of the plan.
        bound: How the target is called; None with it.
        plain: The contract of a call that asks for nothing but text.
    """

    site: str
    target: BaseChatModel | None
    name: str | None
    rule: str
    policy: Policy
    labels: tuple[str, ...] = ()
    engine: Engine = field(default_factory=Engine, repr=False, compare=False)
    spec: ModelSpec | None = None
    task: str | None = None
    plan: str = ""
    bound: Callee | None = field(init=False, repr=False, compare=False)
    plain: Contract = field(init=False, repr=False)

    def __post_init__(self) -> None:
        bound = None
        if self.target is not None:
            name = self.name or dialect.model_name(self.target)
            bound = self.engine.bound(self.target, name, self.spec)
        finish = bound is not None and bound.states_finish
        plain = Contract(labels=self.labels, finish_reason_required=finish)
        object.__setattr__(self, "bound", bound)
        object.__setattr__(self, "plain", plain)

    def generate(self, ask: Ask, original: Callable[[Ask], Result]) -> Any:
        """Answer `ask` with the target, or with `original` on escalation.

        Raises:
            SLMError: If no model answers within the limits, as its subclasses say.
            Exception: The source's own, where that failed last.
        """
        cascade = Cascade(self, ask)
        try:
            while (turn := cascade.next_turn()) is not None:
                try:
                    turn.enter()
                    asked = partial(cascade.asked, turn, original)
                    result: Result = calling.call(asked, turn.limit)
                    if cascade.accepts(turn, result):
                        return result
                except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                    cascade.failed(turn, error)
                finally:
                    turn.leave()
        finally:
            cascade.ended()
        raise cascade.failure

    async def agenerate(
        self, ask: Ask, original: Callable[[Ask], Awaitable[Result]]
    ) -> Any:
        """Answer `ask` with the target, or with `original` on escalation.

        Raises:
            SLMError: If no model answers within the limits, as its subclasses say.
            Exception: The source's own, where that failed last.
        """
        cascade = Cascade(self, ask)
        try:
            while (turn := cascade.next_turn()) is not None:
                try:
                    await turn.aenter()
                    asked = partial(cascade.aasked, turn, original)
                    result: Result = await calling.acall(asked, turn.limit)
                    if cascade.accepts(turn, result):
                        return result
                except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                    cascade.failed(turn, error)
                finally:
                    turn.leave()
        finally:
            cascade.ended()
        raise cascade.failure

    def stream(
        self, ask: Ask, original: Callable[[Ask], Iterator[BaseMessage]]
    ) -> Iterator[BaseMessage]:
        """Answer `ask` in chunks.

        Raises:
            BrokenStreamError: If a model fails after a chunk was given away.
            SLMError: If no model answers within the limits, as its subclasses say.
            Exception: The source's own, where that failed last.
        """
        cascade = Cascade(self, ask, streamed=True)
        try:
            while (turn := cascade.next_turn()) is not None:
                try:
                    turn.enter()
                    released = partial(_released, cascade, turn, original)
                    yield from calling.iterate(released, turn.until)
                except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                    cascade.failed(turn, error)
                finally:
                    turn.leave()
        finally:
            cascade.ended()
        if not cascade.settled:
            raise cascade.failure

    async def astream(
        self, ask: Ask, original: Callable[[Ask], AsyncIterator[BaseMessage]]
    ) -> AsyncGenerator[BaseMessage]:
        """Answer `ask` in chunks.

        Raises:
            BrokenStreamError: If a model fails after a chunk was given away.
            SLMError: If no model answers within the limits, as its subclasses say.
            Exception: The source's own, where that failed last.
        """
        cascade = Cascade(self, ask, streamed=True)
        try:
            while (turn := cascade.next_turn()) is not None:
                try:
                    await turn.aenter()
                    coming = partial(cascade.astreamed, turn, original)
                    chunks = calling.aiterate(coming, turn.until)
                    try:
                        async for chunk in chunks:
                            if turn.is_open:
                                turn.keep(chunk)
                                yield chunk
                            else:
                                for released in turn.take(chunk):
                                    yield released
                    finally:
                        await chunks.aclose()
                    for released in cascade.completed(turn):
                        yield released
                except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                    cascade.failed(turn, error)
                finally:
                    turn.leave()
        finally:
            cascade.ended()
        if not cascade.settled:
            raise cascade.failure


def _released(
    cascade: Cascade, turn: Turn, original: Callable[[Ask], Iterator[BaseMessage]]
) -> Iterator[BaseMessage]:
    """Yield what may reach the app, in the thread in which listeners are told."""
    for chunk in cascade.streamed(turn, original):
        if turn.is_open:
            turn.keep(chunk)
            yield chunk
        else:
            yield from turn.take(chunk)
    yield from cascade.completed(turn)
