"""CPU that a call costs more when it is recorded, rewritten or merely hooked.

    python tests/benchmarks/overhead.py

Medians of interleaved rounds of a model that answers at once, in process, beside
LangChain's own `with_fallbacks`. Prints microseconds per call and the ratio to the bare
model.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from unit_tests.fake_chat import FakeChat

from langchain_slm import open_store, record, rewrite

ROUNDS, CALLS = 21, 40
PROMPT = [{"role": "user", "content": "word " * 200}]  # about 1 kB


class State(TypedDict, total=False):
    calls: int


def graph_of(ask: Callable[[], Any]) -> Any:
    def node(state: State) -> State:
        for _ in range(state["calls"]):
            ask()
        return {}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


def cpu_us(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return (time.process_time() - started) / CALLS * 1e6


def main() -> None:
    bare, target = FakeChat(model_name="bare"), FakeChat(model_name="target")
    backed = FakeChat(model_name="first").with_fallbacks([FakeChat()])
    state: State = {"calls": CALLS}
    graph = graph_of(lambda: bare.invoke(PROMPT))
    with tempfile.TemporaryDirectory() as folder:
        raw = open_store(f"sqlite:///{folder}/raw.db", redact=None)
        redacted = open_store(f"sqlite:///{folder}/redacted.db")
        live = rewrite(graph_of(lambda: None), {})  # keeps the hook in place
        rewritten = rewrite(graph, {"node": target})
        graphs = {
            "bare model": graph,
            "with_fallbacks": graph_of(lambda: backed.invoke(PROMPT)),
            "rewritten, bound": rewritten,
            "recorded, not redacted": record(graph, raw),
            "recorded, redacted": record(graph, redacted),
        }
        times: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(ROUNDS):
            for name, each in graphs.items():
                times[name].append(cpu_us(lambda each=each: each.invoke(state)))
                bare.asked.clear()
                target.asked.clear()
        del live
        raw.close()
        redacted.close()
    base = statistics.median(times["bare model"])
    print(f"{'':<26}{'us per call':>12}{'added':>9}{'ratio':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<26}{median:>12.1f}{median - base:>9.1f}{median / base:>8.2f}")


if __name__ == "__main__":
    main()
