"""One reversible hook on every chat model, idle outside the scope of a graph.

It replaces `generate`, `agenerate`, `stream` and `astream` of `BaseChatModel`: `invoke`,
`batch`, `with_retry`, chains and agents all end there; and version 3 of `stream_events`
and `astream_events`, which do not. Outside a scope it costs one read of a context
variable; it holds none across a `yield`. It does not reach raw SDK calls, or classes
that override these methods.

Relies on these names of `BaseChatModel`: `_convert_input`, `_combine_llm_outputs`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import (
    RunnableConfig,
    ensure_config,
    merge_configs,
)

from langchain_slm.rewriting.events import (
    Heard,
    aopened,
    first_message,
    opened,
)
from langchain_slm.rewriting.patching import Method, Patching
from langchain_slm.rewriting.scopes import (
    ANSWERING,
    SCOPE,
    Answered,
    Running,
    Scope,
    running,
)
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.places import SITE_KEY, place_of
from langchain_slm.routing.route import Route
from langchain_slm.routing.router import Router

logger = logging.getLogger(__name__)
CONFIG_NAMES = ("callbacks", "tags", "metadata", "run_name", "run_id")


def activate(scope: Scope) -> None:
    """Keep the hook in place as long as `scope` lives, and those it asks for besides.

    The wrappers of an instrumented graph hold its scope, and so do copies of the graph.
    """
    CHAT_MODELS.keep(scope)
    if "threads" in scope.hooks:
        from langchain_slm.rewriting.threads import THREADS  # noqa: PLC0415 - opt-in

        THREADS.keep(scope)
    if "openai_sdk" in scope.hooks:
        from langchain_slm.rewriting.openai_sdk import OPENAI_SDK  # noqa: PLC0415 - opt-in

        OPENAI_SDK.keep(scope)


def _hooked_generate(original: Method) -> Method:
    @wraps(original)
    def generate(
        self: BaseChatModel,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **options: Any,
    ) -> LLMResult:
        scope = running(options.get("metadata"))
        if scope is None:
            result: LLMResult = original(self, messages, stop, callbacks, **options)
            return result
        asks = _asks(self, messages, stop, callbacks, options)
        return _combined(self, [_answer(scope, ask, original) for ask in asks])

    return generate


def _hooked_agenerate(original: Method) -> Method:
    @wraps(original)
    async def agenerate(
        self: BaseChatModel,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **options: Any,
    ) -> LLMResult:
        scope = running(options.get("metadata"))
        if scope is None:
            result: LLMResult = await original(self, messages, stop, callbacks, **options)
            return result
        asks = _asks(self, messages, stop, callbacks, options)
        if len(asks) == 1:
            return await _aanswer(scope, asks[0], original)
        # As the original does: all are answered, then the first failure is raised.
        answers = (_aanswer(scope, ask, original) for ask in asks)
        results = await asyncio.gather(*answers, return_exceptions=True)
        return _combined(self, [_unless_failed(result) for result in results])

    return agenerate


def _hooked_stream(original: Method) -> Method:
    @wraps(original)
    def stream(
        self: BaseChatModel,
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **options: Any,
    ) -> Iterator[BaseMessage]:
        scope = running((config or {}).get("metadata"))
        untouched = partial(original, self, input, config, stop=stop, **options)
        if scope is None:
            chunks: Iterator[BaseMessage] = untouched()
            return chunks
        ask = partial(_stream_ask, self, input, config, stop, options)
        return _answer_stream(scope, ask, untouched, original)

    return stream


def _hooked_astream(original: Method) -> Method:
    @wraps(original)
    def astream(
        self: BaseChatModel,
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **options: Any,
    ) -> AsyncIterator[BaseMessage]:
        scope = running((config or {}).get("metadata"))
        untouched = partial(original, self, input, config, stop=stop, **options)
        if scope is None:
            chunks: AsyncIterator[BaseMessage] = untouched()
            return chunks
        ask = partial(_stream_ask, self, input, config, stop, options)
        return _aanswer_stream(scope, ask, untouched, original)

    return astream


def _hooked_events(original: Method, *, opened: Callable[..., Any]) -> Method:
    # One for both: the asynchronous one is a plain function that returns an awaitable.
    @wraps(original)
    def stream_events(
        self: BaseChatModel,
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> Any:
        if options.get("version") != "v3":
            return original(self, input, config, **options)  # ends in `astream`
        scope = running((config or {}).get("metadata"))
        if scope is None:
            return original(self, input, config, **options)
        version, stop = options.pop("version"), options.pop("stop", None)
        visit = Visit(scope, _stream_ask(self, input, config, stop, dict(options)))
        model = visit.carrier(options, config)
        if scope.watchers:
            # Callbacks that are given take the place of the surrounding ones.
            whole = ensure_config(config)
            config = merge_configs(whole, {"callbacks": [Heard(visit)]})
        options |= {"version": version, "stop": stop}
        return opened(partial(original, model, input, config, **options), visit)

    return stream_events


_EVENTS = partial(_hooked_events, opened=opened)
_ASYNC_EVENTS = partial(_hooked_events, opened=aopened)
CHAT_MODELS = Patching(
    {
        (BaseChatModel, "generate"): _hooked_generate,
        (BaseChatModel, "agenerate"): _hooked_agenerate,
        (BaseChatModel, "stream"): _hooked_stream,
        (BaseChatModel, "astream"): _hooked_astream,
        (BaseChatModel, "stream_events"): _EVENTS,
        (BaseChatModel, "astream_events"): _ASYNC_EVENTS,
    }
)


def _asks(
    model: BaseChatModel,
    messages: list[list[BaseMessage]],
    stop: list[str] | None,
    callbacks: Any,
    options: dict[str, Any],
) -> list[Ask]:
    config = {name: options.pop(name, None) for name in CONFIG_NAMES}
    config["callbacks"] = callbacks
    # A run id names one run: the first, as in the original.
    more = {**config, "run_id": None}
    return [
        Ask(model, prompt, stop, dict(more if index else config), dict(options))
        for index, prompt in enumerate(messages)
    ]


def _stream_ask(
    model: BaseChatModel,
    prompt: Any,
    config: RunnableConfig | None,
    stop: list[str] | None,
    options: dict[str, Any],
) -> Ask:
    whole = ensure_config(config)
    chosen = {name: whole.get(name) for name in CONFIG_NAMES}
    messages = model._convert_input(prompt).to_messages()  # noqa: SLF001 - as `stream` does
    return Ask(model, messages, stop, chosen, options)


def _combined(model: BaseChatModel, results: list[LLMResult]) -> LLMResult:
    if len(results) == 1:
        return results[0]
    outputs = [result.llm_output or {} for result in results]
    combined = LLMResult(
        generations=[result.generations[0] for result in results],
        llm_output=model._combine_llm_outputs(list(outputs)),  # noqa: SLF001 - as `generate` does
    )
    combined.run = [run for result in results for run in result.run or []] or None
    return combined


def _unless_failed(result: LLMResult | BaseException) -> LLMResult:
    if isinstance(result, BaseException):
        raise result
    return result


def _ask_original(original: Method, ask: Ask) -> Any:
    config = dict(ask.config)
    callbacks = config.pop("callbacks")
    return original(
        ask.source, [ask.messages], ask.stop, callbacks, **config, **ask.options
    )


def _stream_original(original: Method, ask: Ask) -> Any:
    config = {key: value for key, value in ask.config.items() if value is not None}
    return original(ask.source, ask.messages, config, stop=ask.stop, **dict(ask.options))


class Visit:
    """One call inside a scope: where it is, who answers, and what it came to."""

    def __init__(self, scope: Running, ask: Ask) -> None:
        self._scope = scope
        self._place = scope.where(ask.config.get("metadata"))
        ask.run = scope.run
        ask.place = place_of(self._place.namespace, scope.run)
        self.ask = ask
        self.route = self._route()
        self.is_begun = self.is_done = False
        self._parts: list[BaseMessage] = []
        self._started_s = time.perf_counter()

    def _route(self) -> Route | None:
        if self._scope.guide is None:
            return None
        guide, above = self._scope.guide
        site = self._place.site(above)
        try:
            return guide.route(site, self.ask)
        except Exception as error:  # noqa: BLE001 - the app can go on with its own model
            logger.warning(
                "site %r: no route for a call (%s)", site, type(error).__name__
            )
            return None

    def carrier(
        self, options: dict[str, Any], config: RunnableConfig | None
    ) -> BaseChatModel:
        """Return a model whose one run is this call, told of it in `options`."""
        guide, above = self._scope.guide or (None, 0)
        if self.route is None or not isinstance(guide, Router):
            return self.ask.source
        from langchain_slm.routing.chat_router import ChatRouter  # noqa: PLC0415 - seldom used

        chat = ChatRouter(default=self.ask.source, router=guide)
        options[SITE_KEY] = self._place.site(above)
        chat._carry(options, config)  # noqa: SLF001 - of this package
        return chat

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants to know what it comes to."""
        return bool(self._scope.watchers)

    def abandoned(self) -> None:
        """Take note that nobody reads on, if there is anything to read."""
        if self.is_begun and not self.is_done:
            self.done(GeneratorExit())  # as any other stream

    def keep(self, part: BaseMessage | None) -> None:
        """Keep a part of the answer, for those who want to know it."""
        if self._scope.watchers and part is not None:
            self._parts.append(part)

    def done(self, error: BaseException | None = None) -> None:
        """Tell everybody who wants to know what it came to."""
        self.is_done = True
        latency_s = time.perf_counter() - self._started_s
        for watcher, above in self._scope.watchers:
            watcher.watch(
                Answered(
                    ask=self.ask,
                    site=self._place.site(above),
                    namespace=self._place.namespace,
                    thread_id=self._scope.thread_id,
                    run=self._scope.run,
                    parts=self._parts,
                    error=error,
                    latency_s=latency_s,
                )
            )

    async def adone(self, error: BaseException | None = None) -> None:
        """Tell everybody who wants to know what it came to, in another thread."""
        if self._scope.watchers:
            # A store waits for the disk, the event loop must not; and a cancelled call
            # has been answered all the same.
            done = asyncio.get_running_loop().run_in_executor(None, self.done, error)
            await asyncio.shield(done)


def _answer(scope: Running, ask: Ask, original: Method) -> LLMResult:
    visit = Visit(scope, ask)
    ask_original = partial(_ask_original, original)
    token = SCOPE.set(ANSWERING)
    try:
        route = visit.route
        result: LLMResult
        if route is not None:
            result = route.generate(ask, ask_original)
        else:
            result = ask_original(ask)
    except BaseException as error:
        visit.done(error)
        raise
    finally:
        SCOPE.reset(token)
    visit.keep(first_message(result))
    visit.done()
    return result


async def _aanswer(scope: Running, ask: Ask, original: Method) -> LLMResult:
    visit = Visit(scope, ask)
    ask_original = partial(_ask_original, original)
    token = SCOPE.set(ANSWERING)
    try:
        route = visit.route
        if route is not None:
            coming = route.agenerate(ask, ask_original)
        else:
            coming = ask_original(ask)
        result: LLMResult = await coming
    except Exception as error:
        await visit.adone(error)
        raise
    except BaseException as error:
        visit.done(error)  # cancelled: nothing can be awaited any more
        raise
    finally:
        SCOPE.reset(token)
    visit.keep(first_message(result))
    await visit.adone()
    return result


def _answer_stream(
    scope: Running, ask: Callable[[], Ask], untouched: Method, original: Method
) -> Iterator[BaseMessage]:
    visit = Visit(scope, ask())
    route = visit.route
    spare = partial(_stream_original, original)
    chunks = iter(route.stream(visit.ask, spare) if route else untouched())
    try:
        while (chunk := _next(chunks)) is not None:
            visit.keep(chunk)
            yield chunk
    except BaseException as error:
        visit.done(error)
        raise
    finally:
        if close := getattr(chunks, "close", None):
            close()
    visit.done()


def _next(chunks: Iterator[BaseMessage]) -> BaseMessage | None:
    token = SCOPE.set(ANSWERING)
    try:
        return next(chunks, None)
    finally:
        SCOPE.reset(token)


async def _aanswer_stream(
    scope: Running, ask: Callable[[], Ask], untouched: Method, original: Method
) -> AsyncIterator[BaseMessage]:
    visit = Visit(scope, ask())
    route = visit.route
    spare = partial(_stream_original, original)
    chunks = aiter(route.astream(visit.ask, spare) if route else untouched())
    try:
        while (chunk := await _anext(chunks)) is not None:
            visit.keep(chunk)
            yield chunk
    except Exception as error:
        await visit.adone(error)
        raise
    except BaseException as error:
        visit.done(error)  # cancelled or abandoned: nothing can be awaited any more
        raise
    finally:
        if close := getattr(chunks, "aclose", None):
            await close()
    await visit.adone()


async def _anext(chunks: AsyncIterator[BaseMessage]) -> BaseMessage | None:
    token = SCOPE.set(ANSWERING)
    try:
        return await anext(chunks, None)
    finally:
        SCOPE.reset(token)
