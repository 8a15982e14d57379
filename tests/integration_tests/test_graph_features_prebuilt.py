"""Rewritten supervisors, swarms and agents of models behind an endpoint."""

from collections import Counter

import pytest
from integration_tests.features import prebuilt
from integration_tests.features.app import State, one, sync_node
from integration_tests.features.running import (
    WAYS,
    Make,
    Models,
    config_of,
    in_order,
    new_thread,
    whoever,
)
from integration_tests.features.served import Scripted, Served
from langchain.agents import create_agent
from unit_tests.fake_chat import FakeChat

from langchain_slm.rewriting.graphs import rewrite

pytestmark = [
    # LangGraph's own: it has moved to LangChain, and works as before.
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    # ChatOpenAI's own, of each structured answer that it streams.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]
SERVED: list[Make] = [
    prebuilt.supervisors,
    prebuilt.structured_supervisors,
    prebuilt.supervised_teams,
    prebuilt.swarms,
    prebuilt.subagents,
    prebuilt.paused_tools,
]


@pytest.fixture
def endpoint():
    with Scripted() as started:
        yield started


@pytest.mark.parametrize("way", ["invoke", "astream"])
@pytest.mark.parametrize("make", SERVED)
def test_each_request_names_the_model_of_its_site(make, way, endpoint):
    models = Served(endpoint)
    app = models.app(make, WAYS[way].node)
    original = WAYS[way].run(app, app.graph, new_thread())
    asked = models.asked()
    endpoint.asked.clear()
    copied = rewrite(app.graph, models.bind({site for _, site in asked}))
    runs = WAYS[way].run(app, copied, new_thread())
    assert models.asked() == {(site, site): n for (_, site), n in asked.items()}
    assert in_order(runs, whoever) == in_order(original, whoever)


# Agents behind the tools of one node.


def _bound(make: Make, sites: list[str]) -> Counter[tuple[str, str]]:
    models = Models()
    app = models.app(make, sync_node)
    copied = rewrite(app.graph, models.bind(sites))
    copied.invoke(app.inputs[0], config_of(new_thread()))
    return models.asked()


def test_agents_behind_tools_are_bound_together():
    assert _bound(prebuilt.subagents, ["tools/model"]) == {
        ("reference", "model"): 2,
        ("tools/model", "tools/model:math"): 2,
        ("tools/model", "tools/model:research"): 2,
    }


def test_an_agent_behind_a_tool_is_bound_alone():
    assert _bound(prebuilt.subagents, ["tools/model:math"]) == {
        ("reference", "model"): 2,
        ("tools/model:math", "tools/model:math"): 2,
        ("reference", "tools/model:research"): 2,
    }


def test_an_agents_own_binding_goes_before_that_of_all():
    assert _bound(prebuilt.subagents, ["tools/model", "tools/model:math"]) == {
        ("reference", "model"): 2,
        ("tools/model:math", "tools/model:math"): 2,
        ("tools/model", "tools/model:research"): 2,
    }


def test_an_agent_that_a_function_invokes_is_bound_with_or_without_its_name():
    for site in ("research/model", "research/model:research"):
        assert _bound(prebuilt.supervisors, [site]) == {
            ("reference", "supervisor/agent"): 3,
            ("reference", "math/agent"): 2,
            (site, "research/model"): 2,
        }


NAMES = ["a b", "a/b", "a:b", "a#b", "a@b", "<script>", "../../x", "1", "é" * 1000, "\n"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:10]))
def test_agents_of_any_name_are_bound_behind_tools(name):
    reference = FakeChat(model_name="reference")
    agents = [create_agent(reference, name=each) for each in (name, "other")]

    def node(state: State) -> State:
        outs = [agent.invoke({"messages": [("user", "hello")]}) for agent in agents]
        return {"log": [out["messages"][-1].name for out in outs]}

    targets = {site: FakeChat() for site in (f"node/model:{name}", "node/model")}
    copied = rewrite(one(node).compile(), targets)
    assert copied.invoke({"text": "x"})["log"] == [name, "other"]
    assert [len(model.asked) for model in (reference, *targets.values())] == [0, 1, 1]
