"""The decision of `select`, reached the long way: record, convert, rewrite, run.

Real HTTP on loopback: reference and candidates are recorded answers behind the replay
server, called through ChatOpenAI and ChatNVIDIA.
"""

from collections import Counter
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from langchain_slm.conversion import Options, convert
from langchain_slm.curation import SplitShares
from langchain_slm.evaluation.recorded import decide_suite, judged
from langchain_slm.recording.interchange import Suite, read_suite
from langchain_slm.recording.recorder import record
from langchain_slm.recording.store import open_store
from langchain_slm.replay import ReplayServer
from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.dialect import METADATA_KEY, answer_of
from langchain_slm.schema import ModelSpec

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "bfcl_v1"
OVER_NVIDIA = 2


class State(TypedDict, total=False):
    """One case on its way through the graph."""

    node: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    answer: AIMessage


def graph_of(suite: Suite, reference: str, url: str) -> Any:
    """Return a graph with one node per kind of case; each asks the reference."""

    def ask(state: State) -> State:
        model = ChatOpenAI(model=reference, base_url=url, api_key="none", max_retries=0)
        tools = state.get("tools")
        asked = model.bind_tools(tools) if tools else model
        return {"answer": asked.invoke(state["messages"])}

    builder = StateGraph(State)
    nodes = sorted({case.node for case in suite.cases})
    for node in nodes:
        builder.add_node(node, ask)
        builder.add_edge(node, END)
    builder.add_conditional_edges(START, lambda state: state["node"], nodes)
    return builder.compile()


def inputs_of(suite: Suite) -> list[State]:
    return [
        {"node": c.node, "messages": list(c.messages), "tools": list(c.tools)}
        for c in suite.cases
    ]


def catalogue(suite: Suite, url: str, reference: str) -> list[ModelSpec]:
    """Return the suite's models behind the server, two of them through ChatNVIDIA."""
    names = sorted(suite.models, key=lambda name: name == reference)
    return [
        suite.models[name].model_copy(
            update={
                "base_url": url,
                "provider": "nvidia" if index < OVER_NVIDIA else "openai",
            }
        )
        for index, name in enumerate(names)
    ]


def the_long_way(suite: Suite, reference: str, folder: Path) -> None:
    """Record, convert and rewrite over HTTP; compare each step with the recordings."""
    short = decide_suite(
        suite, reference=reference, margin=0.05, alpha=0.05, flags=judged(suite)
    )
    inputs = inputs_of(suite)
    with (
        ReplayServer([suite]) as server,
        # Public questions: what a redactor changes, no recording would answer.
        open_store(f"sqlite:///{folder}/slm.db", redact=None) as store,
    ):
        graph = graph_of(suite, reference, server.url)
        record(graph, store, name="suite").batch(inputs)
        assert store.count(graph="suite") == len(suite.cases)
        plan = convert(
            store,
            catalogue(suite, server.url, reference),
            graph=graph,
            name="suite",
            plan_path=folder / "slm-plan.json",
            options=Options(
                split=SplitShares(train=0, validation=0, test=1),
                evaluate_all=True,
                heads=False,
                truth={case.request.key: case.expected for case in suite.cases},
            ),
        ).plan
        assert {d.site: (d.decision, d.model) for d in plan.decisions} == {
            d.site: (d.decision, d.model) for d in short
        }
        bound = {d.site: d.model for d in short if d.decision == "proven"}
        assert bound  # or the rest would show nothing

        before = len(server.requests)
        rewritten = rewrite(graph, folder / "slm-plan.json")
        outputs = rewritten.batch(inputs)
        asked = Counter(model for model, _ in server.requests[before:])
    escalated = 0
    for case, output in zip(suite.cases, outputs, strict=True):
        model = bound.get(case.node, reference)
        about = output["answer"].response_metadata.get(METADATA_KEY)
        assert (about is not None) == (case.node in bound)
        if about and about["escalated"]:
            escalated += 1
            model = reference
        assert about is None or about["model"] == model
        recorded = suite.responses[model][case.id].answer
        assert recorded is not None
        given = answer_of(output["answer"])
        assert given.tool_calls == [
            {**call, "arguments": given.tool_calls[index]["arguments"]}
            for index, call in enumerate(recorded.tool_calls)
        ]
        assert (given.text or "") == (recorded.text or "")
    expected = Counter(bound.get(case.node, reference) for case in suite.cases)
    expected[reference] += escalated
    assert asked == expected


def test_the_long_way_decides_and_answers_as_the_recordings_do(tmp_path, made_suite):
    the_long_way(read_suite(made_suite), "ref-large", tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded suite at {SHARED.name}")
def test_the_long_way_holds_on_real_recorded_tool_calls(tmp_path):
    the_long_way(read_suite(SHARED), "gpt-4o-2024-08-06-FC", tmp_path)
