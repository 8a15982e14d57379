"""One model's try at a request: when it is called, and what is shown of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from langchain_slm.errors import EndpointError
from langchain_slm.routing import dialect
from langchain_slm.routing.engine import Callee
from langchain_slm.routing.holding import Held
from langchain_slm.routing.policy import Complete, Contract, EscalateOnInvalid, Policy

# Policies that read no more of plain text than whether there is any.
_BLIND_TO_TEXT = (EscalateOnInvalid, Complete)


class Turn:
    """One model's try.

    Attributes:
        callee: The model.
        is_bound: Whether it is the bound model, not the reference.
        judged: Whether its answer is judged at all.
        limit: When it must have answered, in seconds of `time.monotonic`; None for never.
            Once its chunks reach the app, nobody can take over: it has all the time.
        wait_s: How long to wait before.
        held: The callbacks to call it with.
        chunks: Of its stream, so far.
        begun: Whether the model was asked.
        charged: Whether its answer's cost has been counted.
        is_open: Whether its chunks reach the app as they come.
    """

    __slots__ = (
        "_contract",
        "_entered",
        "_last_limit",
        "_most_chunks",
        "_policy",
        "_reported",
        "_show",
        "begun",
        "callee",
        "charged",
        "chunks",
        "held",
        "is_bound",
        "is_open",
        "judged",
        "limit",
        "wait_s",
    )

    def __init__(  # noqa: PLR0913 - each is named where it is given
        self,
        callee: Callee,
        *,
        is_bound: bool,
        policy: Policy | None,
        contract: Contract,
        held: Held,
        limit: float | None,
        last_limit: float | None = None,
        wait_s: float,
        most_chunks: int,
        show: Callable[[BaseMessage], None],
    ) -> None:
        self.callee = callee
        self.is_bound = is_bound
        self.judged = policy is not None and policy.escalates
        self.held = held
        self.limit = limit
        self.wait_s = wait_s
        self.chunks: list[BaseMessage] = []
        self.is_open = False
        self.begun = False
        self.charged = False
        self._last_limit = last_limit
        self._policy = policy
        self._contract = contract
        self._most_chunks = most_chunks
        self._show = show
        self._entered = False
        self._reported = False

    def until(self) -> float | None:
        """Return when it must have answered, as things are now."""
        return self.limit

    def enter(self) -> None:
        """Wait until the model may be called.

        Raises:
            DeadlineExceededError: If its own limits do not let it in before `limit`.
        """
        if self.wait_s:
            time.sleep(self.wait_s)
        if self.callee.gate is not None:
            self.callee.gate.enter(self.limit)
            self._entered = True

    async def aenter(self) -> None:
        """Wait until the model may be called; asynchronous `enter`.

        Raises:
            DeadlineExceededError: If its own limits do not let it in before `limit`.
        """
        if self.wait_s:
            await asyncio.sleep(self.wait_s)
        if self.callee.gate is not None:
            await self.callee.gate.aenter(self.limit)
            self._entered = True

    def leave(self) -> None:
        """Let others call the model; safe to call twice."""
        if self._entered and self.callee.gate is not None:
            self._entered = False
            self.callee.gate.leave()
        if not self._reported and self.callee.breaker is not None:
            self._reported = True
            self.callee.breaker.abandoned()

    def report(self, *, works: bool) -> None:
        """Tell the breaker whether the endpoint works."""
        if self._reported or self.callee.breaker is None:
            return
        self._reported = True
        if works:
            self.callee.breaker.succeeded()
        else:
            self.callee.breaker.failed()

    def keep(self, chunk: BaseMessage) -> None:
        """Keep a chunk for the judgement at the end.

        Raises:
            EndpointError: If the stream does not come to an end.
        """
        self.chunks.append(chunk)
        if len(self.chunks) > self._most_chunks:
            msg = f"{self.callee.name}: over {self._most_chunks:,} chunks and no end"
            raise EndpointError(msg, model=self.callee.name)

    def take(self, chunk: BaseMessage) -> Sequence[BaseMessage]:
        """Return the chunks that may reach the app now."""
        self.keep(chunk)
        if self.is_open:
            return (chunk,)
        if self.judged and (self._waits() or not self._begins(chunk)):
            return ()
        return self.open()

    def _waits(self) -> bool:
        return self._policy is not None and self._policy.waits(self._contract)

    def _begins(self, chunk: BaseMessage) -> bool:
        """Whether an answer begins here: not blank, and with more to come."""
        if not isinstance(chunk, AIMessageChunk) or chunk.chunk_position == "last":
            return False
        # Of a bound model a tool call without a contract for tools is judged first.
        called = bool(chunk.tool_call_chunks) and not self.is_bound
        return called or bool(str(chunk.text).strip())

    def open(self) -> list[BaseMessage]:
        """Let this and all further chunks reach the app; return those kept so far."""
        self.is_open = True
        self.limit = self._last_limit or self.limit
        self._show(self.chunks[0])
        self.held.release()
        return list(self.chunks)

    def objection(self, message: AIMessage) -> str | None:
        """Return why the answer is not good enough; None where it is or nobody judges."""
        if not self.judged or self._policy is None:
            return None
        if self._is_plainly_good(message):
            return None
        return self._policy.objection(dialect.answer_of(message), self._contract)

    def _is_plainly_good(self, message: AIMessage) -> bool:
        """Whether the answer is of the kind that most are: some text, and complete."""
        contract, about = self._contract, message.response_metadata
        reason = dialect.finish_reason(about)
        ended = reason == "stop" or (
            reason is None and not contract.finish_reason_required
        )
        return (
            ended
            and type(self._policy) in _BLIND_TO_TEXT
            and isinstance(message.content, str)
            and bool(message.content.strip())
            and not (contract.needs_whole_answer or contract.tool_required is not None)
            and not (message.tool_calls or message.invalid_tool_calls)
            and not about.get("abstained")
        )

    def whole(self) -> AIMessage:
        """Return the message that the chunks add up to, as far as it is judged.

        Of an open stream of plain text its first text stands for all of it: adding up
        a long answer takes longer than all the rest.
        """
        chunks = self.chunks
        blind = not self.judged or type(self._policy) in _BLIND_TO_TEXT
        if self.is_open and blind and not self._contract.needs_whole_answer:
            calls = any(getattr(chunk, "tool_call_chunks", None) for chunk in chunks)
            if not calls:
                return _ends_of(chunks)
        return merged(chunks)


def _ends_of(chunks: Sequence[BaseMessage]) -> AIMessage:
    """Return a message with some text, the finish reason and the usage of a stream."""
    about: dict[str, object] = {}
    usage: UsageMetadata | None = None
    text: str = ""
    for chunk in chunks:
        if chunk.response_metadata:
            about |= chunk.response_metadata
        if (more := getattr(chunk, "usage_metadata", None)) is not None:
            usage = add_usage(usage, more)
        text = text.strip() or str(chunk.text)
    return AIMessage(text, id=chunks[0].id, response_metadata=about, usage_metadata=usage)


def merged(chunks: Sequence[BaseMessage]) -> AIMessage:
    """Return the message that a stream's chunks add up to.

    Raises:
        TypeError: If none of them is a message of a model.
    """
    parts = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    if parts:
        # All at once: adding one by one takes quadratic time.
        return parts[0] if len(parts) == 1 else parts[0] + parts[1:]
    for chunk in chunks:
        if isinstance(chunk, AIMessage):
            return chunk  # a model that does not stream gives its answer whole
    msg = "a stream of a chat model holds no message of a model"
    raise TypeError(msg)
