"""Ways to call a model, and bodies that make calls: at once, or awaiting them."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from integration_tests.parity.recipes import Ask, Recipe
from integration_tests.parity.schemas import Plan
from integration_tests.parity.scripts import Scripted
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
)
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langgraph.config import get_config, get_stream_writer
from langgraph.func import task


@dataclass(frozen=True)
class Call:
    """One call, to be made at once or awaited."""

    now: Callable[[], Any]
    later: Callable[[], Awaitable[Any]]


Core = Generator[Call, Any, Any]
Body = Callable[..., Core]


@dataclass
class Kit:
    """What the parts of one app share."""

    recipe: Recipe
    models: list[Scripted]
    tags: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def tag(self) -> str:
        """Return a name for a part that no other has."""
        return f"t{next(self.tags)}"


def namespace() -> str:
    """Return what LangGraph tells the runs of nodes apart by."""
    found: str = get_config()["metadata"]["langgraph_checkpoint_ns"]
    return found


def around() -> str:
    """Return what tells the runs of graphs apart that are going on at once."""
    return namespace().rpartition("|")[0]


def drive(core: Core) -> Any:
    """Run a body, making its calls."""
    try:
        call = next(core)
        while True:
            try:
                answer = call.now()
            except Exception as error:  # noqa: BLE001 - the body decides
                call = core.throw(error)
            else:
                call = core.send(answer)
    except StopIteration as end:
        return end.value


async def adrive(core: Core) -> Any:
    """Run a body, awaiting its calls."""
    try:
        call = next(core)
        while True:
            try:
                answer = await call.later()
            except Exception as error:  # noqa: BLE001 - the body decides
                call = core.throw(error)
            else:
                call = core.send(answer)
    except StopIteration as end:
        return end.value


# Ways to call a model


@tool
def look_up(key: str, size: int) -> str:
    """Look something up.

    Args:
        key: What.
        size: How much of it.
    """
    return key * size


def calling(kit: Kit, ask: Ask, prompt: str, config: Any) -> Call:
    """Return a call of a model."""
    model = kit.models[ask.model]
    if ask.way in _RUNNABLES:
        runnable = _RUNNABLES[ask.way](kit, model)
        return Call(
            lambda: runnable.invoke(prompt, config),
            lambda: runnable.ainvoke(prompt, config),
        )
    return _OTHERS[ask.way](model, prompt, config)


def _fallback(kit: Kit, model: Scripted) -> Runnable[Any, Any]:
    backup = kit.models[0]
    index = backup.voices[0].index

    def meant_for_the_backup(prompt: str) -> str:
        return f"{prompt} <m{index}>"

    return model.with_fallbacks([RunnableLambda(meant_for_the_backup) | backup])


def _retry(kit: Kit, model: Scripted) -> Runnable[Any, Any]:
    return model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)


def _config(kit: Kit, model: Scripted) -> Runnable[Any, Any]:
    return model.with_config(tags=["mine"], metadata={"k": 1}, run_name="my call")


def _chain(kit: Kit, model: Scripted) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_template("say {input}")
    named = RunnableLambda(lambda text: {"input": text})
    return named | prompt | model | StrOutputParser()


_RUNNABLES: dict[str, Callable[[Kit, Scripted], Runnable[Any, Any]]] = {
    "invoke": lambda kit, model: model,
    "structured": lambda kit, model: model.with_structured_output(Plan),
    "raw_structured": lambda kit, model: model.with_structured_output(
        Plan, include_raw=True
    ),
    "tools": lambda kit, model: model.bind_tools([look_up]),
    "forced_tools": lambda kit, model: model.bind_tools([look_up], tool_choice="any"),
    "retry": _retry,
    "fallback": _fallback,
    "config": _config,
    "chain": _chain,
    "stop": lambda kit, model: model.bind(stop=["END"]),
}


def _stream(model: Scripted, prompt: str, config: Any) -> Call:
    def now() -> str:
        write = get_stream_writer()
        found = []
        for chunk in model.stream(prompt, config):
            found.append(chunk.text)
            if chunk.text:
                write({"chunk": chunk.text})
        return "".join(found)

    async def later() -> str:
        write = get_stream_writer()
        found = []
        async for chunk in model.astream(prompt, config):
            found.append(chunk.text)
            if chunk.text:
                write({"chunk": chunk.text})
        return "".join(found)

    return Call(now, later)


def _batch(model: Scripted, prompt: str, config: Any) -> Call:
    prompts = [f"{prompt} one", f"{prompt} two"]
    return Call(
        lambda: model.batch(prompts, config), lambda: model.abatch(prompts, config)
    )


def _gather(model: Scripted, prompt: str, config: Any) -> Call:
    async def later() -> list[Any]:
        prompts = [f"{prompt} one", f"{prompt} two"]
        asked = [asyncio.create_task(model.ainvoke(each, config)) for each in prompts]
        return list(await asyncio.gather(*asked))

    return Call(lambda: model.invoke(prompt, config), later)


def _generate(model: Scripted, prompt: str, config: Any) -> Call:
    asked = [[HumanMessage(prompt)]]

    async def later() -> str:
        return (await model.agenerate(asked)).generations[0][0].text

    return Call(lambda: model.generate(asked).generations[0][0].text, later)


def _task(model: Scripted, prompt: str, config: Any) -> Call:
    @task(name="asks")
    def asks(prompt: str) -> str:
        return told(model.invoke(prompt, config))

    @task(name="asks")
    async def aasks(prompt: str) -> str:
        return told(await model.ainvoke(prompt, config))

    async def later() -> str:
        return await aasks(prompt)

    return Call(lambda: asks(prompt).result(), later)


def _thread(model: Scripted, prompt: str, config: Any) -> Call:
    def now() -> Any:
        with ContextThreadPoolExecutor(1) as pool:
            return pool.submit(model.invoke, prompt, config).result()

    return Call(now, lambda: asyncio.to_thread(model.invoke, prompt, config))


_OTHERS: dict[str, Callable[[Scripted, str, Any], Call]] = {
    "stream": _stream,
    "batch": _batch,
    "gather": _gather,
    "generate": _generate,
    "thread": _thread,
    "task": _task,
}


def told(answer: Any) -> str:
    """Return what an answer says, without its ids."""
    if isinstance(answer, list):
        return " & ".join(map(told, answer))
    if isinstance(answer, BaseMessage):
        calls = [[c["name"], c["args"]] for c in getattr(answer, "tool_calls", [])]
        return f"{answer.text} {calls}" if calls else answer.text
    if isinstance(answer, dict):
        return " & ".join(f"{key} {told(value)}" for key, value in answer.items())
    return answer if isinstance(answer, str) else repr(answer)
