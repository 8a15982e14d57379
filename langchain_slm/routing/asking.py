"""What the app asked of a model, and how a model is asked it.

A bound model is asked in its own dialect, with what it may see of the conversation; the
reference as the app asked it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult, LLMResult

from langchain_slm.routing import dialect, direct
from langchain_slm.routing.conversation import portable, unreadable
from langchain_slm.routing.policy import Contract, contract_of
from langchain_slm.routing.turn import Turn

Result: TypeAlias = LLMResult | ChatResult


@dataclass(slots=True)  # not frozen: one is made for every call, in a third of the time
class Ask:
    """One model call as the app made it; complete when it is handed on.

    Attributes:
        source: The model that the app called: the reference.
        messages: What it was asked.
        stop: Stop words.
        config: callbacks, tags, metadata, run_name and run_id of the call.
        options: Everything else that was bound or passed, in the source's dialect.
        place: The node run or parent run of the call: the same where a layer above
            repeats it. None where none does.
        run: Stands for the graph run, for limits per run; None outside of one.
        direct: The call is a router's own run: models are asked without one of theirs.
        limit: When it must be answered, in seconds of `time.monotonic`.
    """

    source: BaseChatModel
    messages: list[BaseMessage]
    stop: list[str] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    place: Hashable = None
    run: object | None = None
    direct: bool = False
    limit: float | None = None

    def second(
        self, source: BaseChatModel, messages: list[BaseMessage], limit: float | None
    ) -> Ask:
        """Return the call for another run: a run id is given away only once.

        Args:
            source: The model to call in the place of `self.source`.
            messages: What to ask it in the place of `self.messages`.
            limit: When it must be answered.
        """
        config = {**self.config, "run_id": None} if self.config else {}
        return Ask(
            source,
            messages,
            self.stop,
            config,
            dict(self.options),
            self.place,
            self.run,
            self.direct,
            limit,
        )


def contract(ask: Ask, plain: Contract, provider: str) -> tuple[Contract, str | None]:
    """Return what an answer must satisfy, and why no other model could, if none could.

    Args:
        ask: The call.
        plain: The contract of a call that asks for nothing but text.
        provider: Of the bound model.
    """
    try:
        in_parts = [each for each in ask.messages if not isinstance(each.content, str)]
        if in_parts:  # most conversations are all text
            source = dialect.provider_name(ask.source)
            if (why := unreadable(in_parts, source, provider)) is not None:
                return plain, why
        options = dialect.stated(ask.source, ask.options)
        if not options:
            return plain, None
        tools = dialect.tools_of(options)
        why = dialect.pin(options, tools)
        if why is not None:
            return plain, why
        wanted = contract_of(
            tools,
            dialect.tool_choice_of(options) or dialect.parsed_tool_of(options, tools),
            dialect.response_format_of(options),
            schema=dialect.json_mode_schema_of(options),
            labels=plain.labels,
            finish_reason_required=plain.finish_reason_required,
        )
    except Exception as error:  # noqa: BLE001 - another provider's options hold anything
        return plain, f"its options cannot be translated ({type(error).__name__})"
    return wanted, None


def answer(ask: Ask, turn: Turn, original: Callable[[Ask], Result]) -> Result:
    """Return the whole answer of the model whose turn it is."""
    if not turn.is_bound:
        return original(_as_asked(ask, turn))
    if ask.direct:
        return direct.generate(_question(ask, turn))
    model, arguments = _model(ask, turn), _arguments(ask, turn)
    arguments = direct.timed(model, arguments, turn.limit)
    return model.generate([_messages(ask, turn)], **arguments)


async def aanswer(
    ask: Ask, turn: Turn, original: Callable[[Ask], Awaitable[Result]]
) -> Result:
    """Return the whole answer of the model whose turn it is."""
    if not turn.is_bound:
        return await original(_as_asked(ask, turn))
    if ask.direct:
        return await direct.agenerate(_question(ask, turn))
    arguments = _arguments(ask, turn)
    return await _model(ask, turn).agenerate([_messages(ask, turn)], **arguments)


def chunks(
    ask: Ask, turn: Turn, original: Callable[[Ask], Iterator[BaseMessage]]
) -> Iterator[BaseMessage]:
    """Return the chunks of the model whose turn it is."""
    if not turn.is_bound:
        return original(_as_asked(ask, turn))
    if ask.direct:
        return direct.stream(_question(ask, turn))
    model, arguments = _model(ask, turn), _stream_arguments(ask, turn)
    arguments = direct.timed(model, arguments, turn.limit)
    return model.stream(_messages(ask, turn), **arguments)


def achunks(
    ask: Ask, turn: Turn, original: Callable[[Ask], AsyncIterator[BaseMessage]]
) -> AsyncIterator[BaseMessage]:
    """Return the chunks of the model whose turn it is."""
    if not turn.is_bound:
        return original(_as_asked(ask, turn))
    if ask.direct:
        return direct.astream(_question(ask, turn))
    arguments = _stream_arguments(ask, turn)
    return _model(ask, turn).astream(_messages(ask, turn), **arguments)


def _as_asked(ask: Ask, turn: Turn) -> Ask:
    return ask.second(turn.callee.model, _messages(ask, turn), turn.limit)


def _model(ask: Ask, turn: Turn) -> BaseChatModel:
    """Return the bound model; it streams only where the app's own would."""
    source, off = ask.source, ask.source.disable_streaming
    # A field: asking pydantic for one that is not there takes 3 us.
    says_no = vars(source).get("streaming") is False
    is_off = (
        off is True
        or (off == "tool_calling" and bool(ask.options.get("tools")))
        or (says_no and "streaming" in source.model_fields_set)
    )
    return turn.callee.unstreamed if is_off else turn.callee.model


def _messages(ask: Ask, turn: Turn) -> list[BaseMessage]:
    source = dialect.provider_name(ask.source) if turn.is_bound else None
    return portable(ask.messages, turn.callee.provider, source)


def _options(ask: Ask, turn: Turn) -> tuple[list[str] | None, dict[str, Any]]:
    """Return the stop words and all other options, as the bound model reads them."""
    given = {**ask.options, "stop": ask.stop} if ask.stop else ask.options
    options = dialect.adapt(ask.source, turn.callee.source, given)
    stop = options.pop("stop", None)
    return [stop] if isinstance(stop, str) else stop, options


def _question(ask: Ask, turn: Turn) -> direct.Question:
    stop, options = _options(ask, turn)
    messages = _messages(ask, turn)
    return direct.Question(turn.callee.model, messages, stop, options, turn.limit)


def _arguments(ask: Ask, turn: Turn) -> dict[str, Any]:
    stop, options = _options(ask, turn)
    return {**ask.config, **options, "callbacks": turn.held.callbacks, "stop": stop}


def _stream_arguments(ask: Ask, turn: Turn) -> dict[str, Any]:
    arguments = _arguments(ask, turn)
    config = {key: arguments.pop(key) for key in {*ask.config, "callbacks"}}
    return {"config": {k: v for k, v in config.items() if v is not None}, **arguments}


def message_of(result: Result) -> AIMessage | None:
    """Return the message of a whole answer; None where there is none."""
    first: Any = result.generations[0] if result.generations else None
    if isinstance(first, list):
        first = first[0] if first else None
    message = getattr(first, "message", None)
    return message if isinstance(message, AIMessage) else None


# How a router, which is a run of its own, asks its default


def default_answer(ask: Ask) -> ChatResult:
    """Return the whole answer of the reference."""
    return direct.generate(_default_question(ask))


async def adefault_answer(ask: Ask) -> ChatResult:
    """Return the whole answer of the reference."""
    return await direct.agenerate(_default_question(ask))


def default_chunks(ask: Ask) -> Iterator[BaseMessage]:
    """Return the chunks of the reference."""
    return direct.stream(_default_question(ask))


def adefault_chunks(ask: Ask) -> AsyncIterator[BaseMessage]:
    """Return the chunks of the reference."""
    return direct.astream(_default_question(ask))


def _default_question(ask: Ask) -> direct.Question:
    return direct.Question(ask.source, ask.messages, ask.stop, ask.options, ask.limit)
