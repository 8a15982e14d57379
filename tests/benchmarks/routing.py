"""CPU that a call costs more when it is routed, beside what LangChain offers for it.

    python tests/benchmarks/routing.py [--rounds 7] [--calls 20] [--litellm PYTHON]

The same calls are made of the bare model and through each router, once with a model in
process that answers at once (one of langchain-core's fakes) and once with ChatOpenAI
and an endpoint on loopback. The endpoint is a process of its own, so that its CPU is not
counted; what is counted is `time.process_time`: user and system time of all threads of
this process. Setups take turns within a round, in any order, and each is compared with
the base of its group in the same round; shown are medians over the rounds. What the bare
model adds to itself is noise.

- sync, async: one call after the other.
- 64 in flight: `asyncio.gather`; beside it the throughput, as a ratio of wall-clock time.
- stream, astream: microseconds per chunk of an answer of 100 chunks. The endpoint sends
  them one by one, a millisecond apart: arriving together, they would share wake-ups.

A base shows microseconds per call or chunk, the others what they add, and the ratio. In
a node and in an agent the base is the same graph without a router, for a call costs more
within a graph; an agent's figures are those of a whole run. "hook idle" calls the bare
model while a rewritten graph lives elsewhere in the process: no plan is active there.

`--litellm` names the Python of an environment in which LiteLLM is installed; its Router
is measured there, on the same endpoint, and compared with LiteLLM's own `completion`.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import ConfigurableField, Runnable
from langgraph.graph import END, START, StateGraph
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from integration_tests.loopback import Loopback

from langchain_slm import ChatRouter, Limits, Router, RouterMiddleware, rewrite

CHUNKS = 100
IN_FLIGHT = 64
WARM_CALLS = 3  # before the clock starts: the setup before has emptied the caches
CALLS_PER_STREAM = 20  # a stream takes as long as many calls
ROUNDS_IN_PROCESS = 8  # for one over HTTP: microseconds are looked for
GAP_S = 0.001
ANSWER = "x" * CHUNKS  # in process, where each character is a chunk
PROMPT = [{"role": "user", "content": "word " * 200}]  # about 1 kB
ADDED_US, IDLE_US, STREAM_RATIO = 15.0, 1.0, 1.03  # the goals


class Taken(NamedTuple):
    """What a call, or a chunk, took of the CPU and of the clock."""

    cpu_us: float
    wall_us: float


class Job(NamedTuple):
    """Calls to make of something that answers; a stream's unit is a chunk."""

    model: Runnable[Any, Any]
    calls: int
    prompt: Any = PROMPT
    config: Any = None
    how: Mapping[str, Any] = {}


class _Clock:
    """Measures a block; `taken` divides by what was done in it."""

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self._cpu = time.process_time() - self._cpu
        self._wall = time.perf_counter() - self._wall

    def taken(self, units: int) -> Taken:
        return Taken(self._cpu / units * 1e6, self._wall / units * 1e6)


def _sync(job: Job) -> Taken:
    for _ in range(WARM_CALLS):
        job.model.invoke(job.prompt, job.config)
    with _Clock() as clock:
        for _ in range(job.calls):
            job.model.invoke(job.prompt, job.config)
    return clock.taken(job.calls)


async def _async(job: Job) -> Taken:
    for _ in range(WARM_CALLS):
        await job.model.ainvoke(job.prompt, job.config)
    with _Clock() as clock:
        for _ in range(job.calls):
            await job.model.ainvoke(job.prompt, job.config)
    return clock.taken(job.calls)


async def _in_flight(job: Job) -> Taken:
    with _Clock() as clock:
        coming = (job.model.ainvoke(job.prompt, job.config) for _ in range(IN_FLIGHT))
        await asyncio.gather(*coming)
    return clock.taken(IN_FLIGHT)


def _stream(job: Job) -> Taken:
    calls = max(1, job.calls // CALLS_PER_STREAM)
    with _Clock() as clock:
        for _ in range(calls):
            for _chunk in job.model.stream(job.prompt, job.config, **job.how):
                pass
    return clock.taken(calls * CHUNKS)


async def _astream(job: Job) -> Taken:
    calls = max(1, job.calls // CALLS_PER_STREAM)
    with _Clock() as clock:
        for _ in range(calls):
            async for _chunk in job.model.astream(job.prompt, job.config, **job.how):
                pass
    return clock.taken(calls * CHUNKS)


SYNC: dict[str, Callable[[Job], Taken]] = {"sync": _sync, "stream": _stream}
ASYNC: dict[str, Callable[[Job], Awaitable[Taken]]] = {
    "async": _async,
    "64 in flight": _in_flight,
    "astream": _astream,
}
MODES = ("sync", "async", "64 in flight", "stream", "astream")


class InProcess(FakeListChatModel):
    """Langchain-core's fake, with usage, and asynchronous without a thread.

    Streams character by character. Passes for langchain-core's own, which are known to
    answer within the process: no deadline is kept for them.
    """

    __module__ = FakeListChatModel.__module__

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = AIMessage(
            self.responses[0],
            response_metadata={"model_name": "fake", "finish_reason": "stop"},
            usage_metadata={"input_tokens": 10, "output_tokens": 1, "total_tokens": 11},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)


class OneOfYourOwn(InProcess):
    """The same, of which nobody knows that it cannot hang."""

    __module__ = __name__


class Setup(NamedTuple):
    """One way to reach the model: what is compared, and with what."""

    name: str
    base: str
    measure: Callable[[str, int], Taken]


class Bench:
    """Makes calls in each mode, all asynchronous ones in one event loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def run(self, job: Job, mode: str) -> Taken:
        if mode in SYNC:
            return SYNC[mode](job)
        return self._runner.run(ASYNC[mode](job))

    def direct(
        self, model: Runnable[Any, Any], config: Any = None
    ) -> Callable[[str, int], Taken]:
        return lambda mode, calls: self.run(Job(model, calls, config=config), mode)

    def idle(self, model: Runnable[Any, Any]) -> Callable[[str, int], Taken]:
        """Call the bare model while a rewritten graph lives."""

        def measure(mode: str, calls: int) -> Taken:
            with _rewritten(_graph(_node), {"node": model}):
                return self.run(Job(model, calls), mode)

        return measure

    def node(
        self, model: Runnable[Any, Any], target: BaseChatModel | None = None
    ) -> Callable[[str, int], Taken]:
        """Call the model from within a node, rewritten if there is a target."""

        def measure(mode: str, calls: int) -> Taken:
            job = Job(model, calls)
            graph = _graph(_node if mode in SYNC else _anode)
            plan = None if target is None else {"node": target}
            with _rewritten(graph, plan) if plan else nullcontext(graph) as ready:
                if mode in SYNC:
                    return ready.invoke({"work": partial(SYNC[mode], job)})["taken"]
                coming = ready.ainvoke({"work": partial(ASYNC[mode], job)})
                return self._runner.run(coming)["taken"]

        return measure

    def agent(self, model: Any, *middleware: Any) -> Callable[[str, int], Taken]:
        agent = create_agent(model, middleware=middleware)
        how = {"stream_mode": "messages"}
        asked = {"messages": PROMPT}
        return lambda mode, calls: self.run(Job(agent, calls, asked, how=how), mode)


class _State(TypedDict, total=False):
    work: Any
    taken: Any


def _node(state: _State) -> _State:
    return {"taken": state["work"]()}


async def _anode(state: _State) -> _State:
    return {"taken": await state["work"]()}


def _graph(node: Callable[..., Any]) -> Any:
    builder = StateGraph(_State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


@contextmanager
def _rewritten(graph: Any, plan: Mapping[str, Any]) -> Iterator[Any]:
    """Keep the hook in place for this block only: it is one for the whole process."""
    made = [rewrite(graph, plan)]
    try:
        yield made[0]
    finally:
        made.clear()
        gc.collect()


class DynamicModel(AgentMiddleware):
    """What LangChain's documentation shows: another model for a request."""

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=self._model))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model=self._model))


def setups(bench: Bench, model: Callable[[str], BaseChatModel]) -> Iterator[Setup]:
    bare, small = model("large"), model("small")
    yield Setup("bare model", "bare model", bench.direct(bare))
    yield Setup("bare model, once more", "bare model", bench.direct(bare))
    plan = {"node": small}
    routers = {
        "ChatRouter": Limits(),
        "ChatRouter, deadline_s=None": Limits(deadline_s=None),
    }
    for name, limits in routers.items():
        router = ChatRouter(default=bare, plan=plan, site="node", limits=limits)
        yield Setup(name, "bare model", bench.direct(router))
    unbound = ChatRouter(default=bare, plan=plan, site="elsewhere")
    yield Setup("ChatRouter, nothing bound", "bare model", bench.direct(unbound))
    yield Setup("hook idle", "bare model", bench.idle(bare))
    backed = small.with_fallbacks([bare])
    yield Setup("with_fallbacks", "bare model", bench.direct(backed))
    which = ConfigurableField(id="model")
    either = bare.configurable_alternatives(which, default_key="large", small=small)
    config = {"configurable": {"model": "small"}}
    yield Setup("configurable_alternatives", "bare model", bench.direct(either, config))
    yield Setup("in a node: bare", "in a node: bare", bench.node(bare))
    yield Setup("in a node: hook active", "in a node: bare", bench.node(bare, small))
    yield from _agents(bench, bare, small)


def _agents(bench: Bench, bare: BaseChatModel, small: BaseChatModel) -> Iterator[Setup]:
    base = "create_agent: bare"
    plan = {"model": small}  # the node of an agent's model
    yield Setup(base, base, bench.agent(bare))
    dynamic = bench.agent(bare, DynamicModel(small))
    yield Setup("create_agent: dynamic model", base, dynamic)
    ours = bench.agent(bare, RouterMiddleware(Router(plan)))
    yield Setup("create_agent: RouterMiddleware", base, ours)
    router = ChatRouter(default=bare, plan=plan)
    yield Setup("create_agent: ChatRouter", base, bench.agent(router))


class LiteLLM(AbstractContextManager["LiteLLM"]):
    """LiteLLM, measured in its own environment by `litellm_peer.py`."""

    def __init__(self, python: str, url: str) -> None:
        script = Path(__file__).with_name("litellm_peer.py")
        self._command = [python, str(script), url]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def measure(self, setup: str, mode: str, calls: int) -> Taken:
        self._process.stdin.write(json.dumps([setup, mode, calls, PROMPT]) + "\n")
        self._process.stdin.flush()
        return Taken(*json.loads(self._process.stdout.readline()))

    def setups(self) -> Iterator[Setup]:
        base = "litellm.completion"
        for name in (base, "litellm.Router"):
            yield Setup(name, base, partial(self.measure, name))


Times = dict[tuple[str, str], list[Taken]]


def interleaved(setups: Sequence[Setup], rounds: int, calls: int) -> Times:
    times: Times = {(setup.name, mode): [] for setup in setups for mode in MODES}
    draw = random.Random(0)  # noqa: S311 - no secret is drawn
    for number in range(rounds + 1):  # the first only warms up
        for mode in MODES:
            # In another order each time: what ran before has left the caches its own.
            for setup in draw.sample(setups, len(setups)):
                gc.collect()  # of what was before
                taken = setup.measure(mode, calls)
                if number:
                    times[setup.name, mode].append(taken)
        gc.freeze()  # what lives on, so that no collection looks at it again
    return times


class Compared(NamedTuple):
    """A setup in one mode, beside its base."""

    cpu_us: float
    added_us: float
    ratio: float
    throughput: float


def compared(setup: Setup, mode: str, times: Times) -> Compared:
    ours, bases = times[setup.name, mode], times[setup.base, mode]
    pairs = list(zip(ours, bases, strict=True))
    return Compared(
        statistics.median(our.cpu_us for our in ours),
        statistics.median(our.cpu_us - base.cpu_us for our, base in pairs),
        statistics.median(our.cpu_us / base.cpu_us for our, base in pairs),
        statistics.median(base.wall_us / our.wall_us for our, base in pairs),
    )


def show(tables: Mapping[str, tuple[Sequence[Setup], Times]]) -> None:
    table = Table("CPU, us", *MODES[:3], "throughput", *MODES[3:], box=None)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for transport, (measured, times) in tables.items():
        table.add_row(f"[bold]{transport}")
        for setup in measured:
            table.add_row(*_cells(setup, times))
        table.add_section()
    Console(width=150).print(table)


def _cells(setup: Setup, times: Times) -> Iterator[str]:
    yield setup.name
    is_base = setup.name == setup.base
    for mode in MODES:
        found = compared(setup, mode, times)
        added = f"+{found.added_us:.1f}".replace("+-", "-") + f"  {found.ratio:.3f}x"
        yield f"{found.cpu_us:.1f}" if is_base else added
        if mode == "64 in flight":
            yield "" if is_base else f"{found.throughput:.3f}x"


def goals(tables: Mapping[str, tuple[Sequence[Setup], Times]]) -> Iterator[str]:
    """Say of each goal what was measured."""
    measured, times = tables["in process"]
    by_name = {setup.name: setup for setup in measured}
    for name in ("ChatRouter", "ChatRouter, deadline_s=None", "in a node: hook active"):
        added = compared(by_name[name], "sync", times).added_us
        yield f"{name}, in process: +{added:.1f} us per call (at most {ADDED_US:g})"
    idle = compared(by_name["hook idle"], "sync", times).added_us
    yield f"no plan active: {idle:+.2f} us per call (at most {IDLE_US:g})"
    measured, times = tables["loopback HTTP"]
    by_name = {setup.name: setup for setup in measured}
    for mode in ("stream", "astream"):
        ratio = compared(by_name["ChatRouter"], mode, times).ratio
        yield f"{mode} over HTTP: {ratio:.3f}x (at most {STREAM_RATIO:g}x)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--litellm", metavar="PYTHON")
    asked = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(asyncio.Runner()))
        text = " ".join(["word"] * CHUNKS)
        endpoint = stack.enter_context(Loopback(text, gap_s=GAP_S))
        in_process = list(setups(bench, lambda _: InProcess(responses=[ANSWER])))
        own = OneOfYourOwn(responses=[ANSWER])
        router = ChatRouter(default=own, plan={"node": own}, site="node")
        name = "ChatRouter, of a class of one's own"
        in_process.append(Setup(name, "bare model", bench.direct(router)))
        http = list(setups(bench, endpoint.openai))
        if asked.litellm:
            peer = stack.enter_context(LiteLLM(asked.litellm, endpoint.url))
            http += peer.setups()
        else:
            print("LiteLLM is not measured: --litellm names no environment of its own")
        tables = {
            "in process": (
                in_process,
                interleaved(in_process, asked.rounds, asked.calls),
            ),
            "loopback HTTP": (http, interleaved(http, asked.rounds, asked.calls)),
        }
    show(tables)
    print(*goals(tables), sep="\n")


if __name__ == "__main__":
    main()
