"""One call: the bound model first, the reference when its answer breaks its contract.

Sync, async, whole and streamed calls share `Attempt`, which judges, marks and releases;
they differ only in how a model is called. After a chunk has reached the app a failure
is a `BrokenStreamError`, never a second answer glued to the first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import LLMResult

from langchain_slm.errors import BrokenStreamError
from langchain_slm.routing import dialect
from langchain_slm.routing.holding import hold
from langchain_slm.routing.policy import Contract, Policy, contract_of, is_truncated

logger = logging.getLogger(__name__)
# Key of `response_metadata` under which a message says who answered, and why.
METADATA_KEY = "langchain_slm"


@dataclass(frozen=True, slots=True)
class Ask:
    """One model call as the app made it.

    Attributes:
        source: The model that the app called.
        messages: What it was asked.
        stop: Stop words.
        config: callbacks, tags, metadata, run_name and run_id of the call.
        options: Everything else that was bound or passed, in the source's dialect.
    """

    source: BaseChatModel
    messages: list[BaseMessage]
    stop: list[str] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def second(self) -> Ask:
        """Return the call for another run: a run id is given away only once."""
        config = {**self.config, "run_id": None}
        return Ask(self.source, self.messages, self.stop, config, dict(self.options))


@dataclass(frozen=True, slots=True)
class Route:
    """What answers at a site instead of the source.

    Attributes:
        site: Where.
        target: The bound model.
        name: Its name in plans and reports.
        rule: What bound it: "proven", "provisional" or "mapping".
        policy: When the source is asked after all.
        labels: Closed set that the answer must belong to; empty where there is none.
        provider: The target's.
        plain: The contract of a call that asks for nothing but text.
    """

    site: str
    target: BaseChatModel
    name: str
    rule: str
    policy: Policy
    labels: tuple[str, ...] = ()
    provider: str = field(init=False)
    plain: Contract = field(init=False, repr=False)

    def __post_init__(self) -> None:
        provider = dialect.provider_name(self.target)
        reports = provider in dialect.REPORTS_FINISH_REASON
        plain = Contract(labels=self.labels, finish_reason_required=reports)
        object.__setattr__(self, "provider", provider)
        object.__setattr__(self, "plain", plain)

    def generate(self, ask: Ask, original: Callable[[Ask], LLMResult]) -> LLMResult:
        """Answer `ask` with the target, or with `original` on escalation."""
        attempt = Attempt(self, ask)
        if attempt.refusal is None:
            try:
                result = self.target.generate([ask.messages], **attempt.arguments())
                if attempt.accepts(result):
                    return result
            except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                attempt.failed(error)
        return attempt.escalated(original(ask.second()))

    async def agenerate(
        self, ask: Ask, original: Callable[[Ask], Awaitable[LLMResult]]
    ) -> LLMResult:
        """Answer `ask` with the target, or with `original` on escalation."""
        attempt = Attempt(self, ask)
        if attempt.refusal is None:
            try:
                arguments = attempt.arguments()
                result = await self.target.agenerate([ask.messages], **arguments)
                if attempt.accepts(result):
                    return result
            except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                attempt.failed(error)
        return attempt.escalated(await original(ask.second()))

    def stream(
        self, ask: Ask, original: Callable[[Ask], Iterator[BaseMessage]]
    ) -> Iterator[BaseMessage]:
        """Answer `ask` in chunks.

        Raises:
            BrokenStreamError: If the target fails after a chunk was given away.
        """
        attempt = Attempt(self, ask)
        if attempt.refusal is None:
            try:
                arguments = attempt.stream_arguments()
                for chunk in self.target.stream(ask.messages, **arguments):
                    yield from attempt.take(chunk)
                yield from attempt.complete()
            except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                attempt.failed(error)
            if attempt.refusal is None:
                return
        for spare in original(ask.second()):
            yield attempt.marked(spare)

    async def astream(
        self, ask: Ask, original: Callable[[Ask], AsyncIterator[BaseMessage]]
    ) -> AsyncIterator[BaseMessage]:
        """Answer `ask` in chunks.

        Raises:
            BrokenStreamError: If the target fails after a chunk was given away.
        """
        attempt = Attempt(self, ask)
        if attempt.refusal is None:
            try:
                arguments = attempt.stream_arguments()
                async with _closing(
                    self.target.astream(ask.messages, **arguments)
                ) as chunks:
                    async for chunk in chunks:
                        for released in attempt.take(chunk):
                            yield released
                for released in attempt.complete():
                    yield released
            except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
                attempt.failed(error)
            if attempt.refusal is None:
                return
        async with _closing(original(ask.second())) as spares:
            async for spare in spares:
                yield attempt.marked(spare)


@asynccontextmanager
async def _closing(
    chunks: AsyncIterator[BaseMessage],
) -> AsyncIterator[AsyncIterator[BaseMessage]]:
    """Close a stream that the app leaves early, at once rather than when collected."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


class Attempt:
    """The bound model's try at one call: what it was asked, and what came of it.

    Attributes:
        contract: What its answer must satisfy.
        held: The callbacks to call it with.
        refusal: Why the reference has to answer; None while the target may.
    """

    def __init__(self, route: Route, ask: Ask) -> None:
        self._route = route
        self._ask = ask
        self._chunks: list[BaseMessage] = []
        self._released = False
        self._marked = False
        self.refusal: str | None = None
        self.contract = self._contract()
        policy = route.policy
        self._waits = policy.escalates and policy.waits(self.contract)
        self.held = hold(ask.config.get("callbacks"), active=policy.escalates)

    def _contract(self) -> Contract:
        """Return the contract; refuse the call where no other model can keep it."""
        plain = self._route.plain
        options = dialect.stated(self._ask.source, self._ask.options)
        if not options:
            return plain
        try:
            tools = dialect.tools_of(options)
            why = dialect.pin(options, tools)
            if why is None:
                return contract_of(
                    tools,
                    dialect.tool_choice_of(options),
                    dialect.response_format_of(options),
                    schema=dialect.json_mode_schema_of(options),
                    labels=plain.labels,
                    finish_reason_required=plain.finish_reason_required,
                )
        except Exception as error:  # noqa: BLE001 - another provider's options hold anything
            why = f"its options cannot be translated ({type(error).__name__})"
        self._refuse(why)
        return plain

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the target's `generate`."""
        ask = self._ask
        options = dialect.adapt(ask.source, self._route.target, ask.options)
        stop = options.pop("stop", None)
        return {
            **ask.config,
            **options,
            "callbacks": self.held.callbacks,
            "stop": ask.stop or ([stop] if isinstance(stop, str) else stop),
        }

    def stream_arguments(self) -> dict[str, Any]:
        """Return the arguments of the target's `stream`."""
        arguments = self.arguments()
        config = {key: arguments.pop(key) for key in {*self._ask.config, "callbacks"}}
        return {"config": {k: v for k, v in config.items() if v is not None}, **arguments}

    def failed(self, error: Exception) -> None:
        """Take note of the target's failure; raise it where nobody else may answer.

        Raises:
            BrokenStreamError: If a chunk was given away.
        """
        if not self._route.policy.escalates:
            raise error
        if not self._released:
            self._refuse(named(error))
        elif isinstance(error, BrokenStreamError):
            raise error
        else:
            raise self._broken(named(error)) from error

    def accepts(self, result: LLMResult) -> bool:
        """Whether the target's whole answer keeps its contract; marks it if so."""
        message = _message(result)
        if message is None:
            if self._route.policy.escalates:
                self._refuse("no answer")
            return not self._route.policy.escalates
        # Tokens that a listener was sent show tool arguments as they came: of a message
        # made of them LangChain repairs what was cut.
        heard = self.held.chunks()
        why = self._objection(merged(heard) if heard else message)
        if why is not None:
            self._refuse(why)
            return False
        if added := dialect.restore(message, self._ask.options):
            message.additional_kwargs = {**message.additional_kwargs, **added}
        self._mark(message, escalated=False)
        self.held.release()
        return True

    def _objection(self, message: AIMessage) -> str | None:
        policy = self._route.policy
        if not policy.escalates:
            return None
        return policy.objection(dialect.answer_of(message), self.contract)

    def escalated(self, result: LLMResult) -> LLMResult:
        """Mark the reference's answer with why it was asked."""
        message = _message(result)
        if message is not None:
            self._mark(message, escalated=True)
        return result

    def take(self, chunk: BaseMessage) -> list[BaseMessage]:
        """Return the chunks that may reach the app now."""
        self._chunks.append(chunk)
        if self._released:
            return [chunk]
        if self._waits or (self._route.policy.escalates and not _begins(chunk)):
            return []
        return self._release()

    def complete(self) -> list[BaseMessage]:
        """Return what is still due to the app, now that the stream has ended.

        Raises:
            BrokenStreamError: If chunks were given away of an answer that is no good.
        """
        if not self._chunks:
            if self._route.policy.escalates:
                self._refuse("no answer")
            return []
        whole = merged(self._chunks)
        why = self._objection(whole)
        if why is None:
            added = self._restored(whole)
            return added if self._released else self._release() + added
        if not self._released:
            self._refuse(why)
            return []
        if not is_truncated(dialect.answer_of(whole)):
            raise self._broken(why)
        # The app may have set the limit itself, and sees the provider's finish_reason.
        logger.info("site %r: %s: %s", self._route.site, self._route.name, why)
        note = {METADATA_KEY: {"reason": why}}
        return [AIMessageChunk(content="", id=whole.id, response_metadata=note)]

    def _restored(self, whole: AIMessage) -> list[BaseMessage]:
        """Return the chunk that adds what the source's parser looks for, if any."""
        added = dialect.restore(whole, self._ask.options)
        if added and isinstance(whole, AIMessageChunk):
            return [AIMessageChunk(content="", id=whole.id, additional_kwargs=added)]
        whole.additional_kwargs.update(added)
        return []

    def _broken(self, why: str) -> BrokenStreamError:
        site, name = self._route.site, self._route.name
        msg = (
            f"site {site!r}: the stream of {name} failed after chunks had been released: "
            f"{why}; retry the call"
        )
        return BrokenStreamError(msg, site=site, model=name, reason=why)

    def _release(self) -> list[BaseMessage]:
        self._released = True
        self._mark(self._chunks[0], escalated=False)
        self.held.release()
        return list(self._chunks)

    def marked(self, chunk: BaseMessage) -> BaseMessage:
        """Return the reference's chunk; the first one says why it was asked."""
        if not self._marked:
            self._mark(chunk, escalated=True)
        return chunk

    def _refuse(self, why: str) -> None:
        self.refusal = why
        logger.info("site %r: %s escalated: %s", self._route.site, self._route.name, why)

    def _mark(self, message: BaseMessage, *, escalated: bool) -> None:
        self._marked = True
        route, source = self._route, self._ask.source
        model = dialect.model_name(source, self._ask.options) if escalated else route.name
        message.response_metadata = {
            **message.response_metadata,
            METADATA_KEY: {
                "site": route.site,
                "model": model,
                "provider": dialect.provider_name(source)
                if escalated
                else route.provider,
                "bound": route.name,
                "rule": route.rule,
                "escalated": escalated,
                "reason": self.refusal,
            },
        }


def _begins(chunk: BaseMessage) -> bool:
    """Whether a stream of text begins here: not blank, and with more to come."""
    return (
        isinstance(chunk, AIMessageChunk)
        and chunk.chunk_position != "last"
        and bool(str(chunk.text).strip())
    )


def named(error: BaseException) -> str:
    """Return the kind of a failure: never its text, which may quote a message."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        # ChatNVIDIA raises plain exceptions that begin with "[404] Not Found".
        found = re.match(r"\[(\d{3})\]", str(error))
        status = int(found.group(1)) if found else None
    name = type(error).__name__
    return name if status is None else f"{name} (HTTP {status})"


def _message(result: LLMResult) -> AIMessage | None:
    generations = result.generations[0] if result.generations else []
    message = getattr(generations[0], "message", None) if generations else None
    return message if isinstance(message, AIMessage) else None


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
