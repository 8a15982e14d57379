"""The forms in which LangGraph takes what a node or a conditional edge does."""

import functools
from collections.abc import Callable
from typing import Any

from integration_tests.parity.calling import Body, Kit, adrive, drive, told
from integration_tests.parity.recipes import Edge, Step
from integration_tests.parity.schemas import Context, value_of
from integration_tests.parity.scripts import RUN
from langchain_core.messages import BaseMessage
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.errors import NodeError
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import Command, Overwrite, StreamWriter


def function_of(body: Body, takes: str = "state") -> Callable[..., Any]:
    """Return a function that runs `body`, with what it `takes` injected."""
    if takes == "config":

        def node(state: Any, config: RunnableConfig) -> Any:
            return drive(body(state, config=config))
    elif takes == "runtime":

        def node(state: Any, runtime: Runtime[Context]) -> Any:  # type: ignore[misc]
            return drive(body(state, runtime=runtime))
    elif takes == "all":

        def node(  # type: ignore[misc]
            state: Any,
            config: RunnableConfig,
            *,
            runtime: Runtime[Context],
            store: BaseStore,
            writer: StreamWriter,
        ) -> Any:
            given = {"config": config, "runtime": runtime, "store": store}
            return drive(body(state, **given, writer=writer))
    elif takes == "error":

        def node(state: Any, error: NodeError) -> Any:  # type: ignore[misc]
            return drive(body(state, error=error))
    else:

        def node(state: Any) -> Any:  # type: ignore[misc]
            return drive(body(state))

    return node


def afunction_of(body: Body, takes: str = "state") -> Callable[..., Any]:
    """Return an async function that runs `body`, with what it `takes` injected."""
    if takes == "config":

        async def node(state: Any, config: RunnableConfig) -> Any:
            return await adrive(body(state, config=config))
    elif takes == "runtime":

        async def node(state: Any, runtime: Runtime[Context]) -> Any:  # type: ignore[misc]
            return await adrive(body(state, runtime=runtime))
    elif takes == "all":

        async def node(  # type: ignore[misc]
            state: Any,
            config: RunnableConfig,
            *,
            runtime: Runtime[Context],
            store: BaseStore,
            writer: StreamWriter,
        ) -> Any:
            given = {"config": config, "runtime": runtime, "store": store}
            return await adrive(body(state, **given, writer=writer))
    elif takes == "error":

        async def node(state: Any, error: NodeError) -> Any:  # type: ignore[misc]
            return await adrive(body(state, error=error))
    else:

        async def node(state: Any) -> Any:  # type: ignore[misc]
            return await adrive(body(state))

    return node


class _Callable:
    def __init__(self, body: Body) -> None:
        self.body = body

    def __call__(self, state: Any) -> Any:
        return drive(self.body(state))

    def run(self, state: Any) -> Any:
        return drive(self.body(state))


class _AsyncCallable:
    def __init__(self, body: Body) -> None:
        self.body = body

    async def __call__(self, state: Any) -> Any:
        return await adrive(self.body(state))

    async def run(self, state: Any) -> Any:
        return await adrive(self.body(state))


def _generator_of(body: Body) -> Callable[..., Any]:
    def node(state: Any) -> Any:
        yield drive(body(state))

    return node


def _agenerator_of(body: Body) -> Callable[..., Any]:
    async def node(state: Any) -> Any:
        yield await adrive(body(state))

    return node


def _partial_of(body: Body) -> Any:
    def node(extra: str, state: Any) -> Any:
        return drive(body(state, (extra,)))

    return functools.partial(node, "partial")


def _apartial_of(body: Body) -> Any:
    async def node(extra: str, state: Any) -> Any:
        return await adrive(body(state, (extra,)))

    return functools.partial(node, "partial")


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return decorated


def _parallel_of(body: Body) -> Runnable[Any, Any]:
    def log(state: Any) -> Any:
        given = drive(body(state))
        update = given.update if isinstance(given, Command) else given
        log = value_of(update, "log", [])
        return log.value if isinstance(log, Overwrite) else log

    return RunnableParallel(log=RunnableLambda(log), steps=lambda _: 1)


def _fell_back(state: Any) -> Any:
    return {"log": ["fell back"]}


def form_of(step: Step, body: Body, kit: Kit, tag: str) -> Any:
    """Return the thing that a node of this form is."""
    if step.form == "chain":
        return _chain_of(step, kit, tag)
    return _FORMS[step.form](body, step.takes)


def _chain_of(step: Step, kit: Kit, tag: str) -> Runnable[Any, Any]:
    model = kit.models[step.asks[0].model if step.asks else 0]
    index = model.voices[0].index

    def prompt(state: Any) -> str:
        RUN.get().attempts.append((tag, 1))
        log = value_of(state, "log", [])
        return f"<m{index}> {tag} chain: {value_of(state, 'text', '')} {len(log)}"

    def update(answer: BaseMessage) -> Any:
        messages = [answer] if step.gives == "messages" else []
        return {"log": [f"{tag}: {told(answer)}"], "steps": 1, "messages": messages}

    return RunnableLambda(prompt) | model | RunnableLambda(update)


_FORMS: dict[str, Callable[[Body, str], Any]] = {
    "function": function_of,
    "async_function": afunction_of,
    "lambda": lambda body, takes: RunnableLambda(function_of(body)),
    "async_lambda": lambda body, takes: RunnableLambda(afunction_of(body)),
    "both": lambda body, takes: RunnableLambda(function_of(body), afunction_of(body)),
    "generator": lambda body, takes: _generator_of(body),
    "async_generator": lambda body, takes: _agenerator_of(body),
    "partial": lambda body, takes: _partial_of(body),
    "async_partial": lambda body, takes: _apartial_of(body),
    "callable": lambda body, takes: _Callable(body),
    "async_callable": lambda body, takes: _AsyncCallable(body),
    "method": lambda body, takes: _Callable(body).run,
    "async_method": lambda body, takes: _AsyncCallable(body).run,
    "decorated": lambda body, takes: _decorated(function_of(body, takes)),
    "sequence": lambda body, takes: (
        RunnableLambda(function_of(body)) | RunnablePassthrough()
    ),
    "parallel": lambda body, takes: _parallel_of(body),
    "bound": lambda body, takes: RunnableLambda(function_of(body)).with_config(
        tags=["bound"], metadata={"b": 1}, run_name="a bound node"
    ),
    "retrying": lambda body, takes: RunnableLambda(function_of(body)).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    ),
    "falling_back": lambda body, takes: RunnableLambda(function_of(body)).with_fallbacks(
        [RunnableLambda(_fell_back)]
    ),
    "returns_runnable": lambda body, takes: (
        lambda state: RunnableLambda(function_of(body))
    ),
}


def path_of(edge: Edge, body: Body, kit: Kit) -> Any:
    """Return the thing that decides in a conditional edge."""
    if edge.form == "chain":
        return RunnableLambda(function_of(body)) | RunnablePassthrough()
    path = _FORMS[edge.form](body, "state")
    if edge.name and edge.form in ("function", "async_function"):
        path.__name__ = edge.name
    if edge.name and edge.form == "lambda":
        path.name = edge.name
    return path
