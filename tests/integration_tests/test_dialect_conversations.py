"""Conversations that go from models of other providers to targets, and back."""

from collections.abc import Iterator
from typing import Any

import pytest
from integration_tests.dialect_apps import (
    BOOK_OSLO,
    BOOK_ROME,
    MODES,
    OWN_LINES,
    TARGETS,
    Desk,
    Trip,
    asks,
    book,
    chat_lines,
    find_train,
    lines_of,
    opened,
    own_turns,
    results_of,
    run,
)
from integration_tests.provider_server import NAMES, SIGNATURE, THOUGHT
from langchain.agents import create_agent
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import HumanMessage
from unit_tests.endpoint import Endpoint
from unit_tests.routed import about

from langchain_slm.rewriting.graphs import rewrite

# Google's client, of the class that it makes of aiohttp's at its first asynchronous call.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"
)
PROVIDERS = tuple(NAMES)
sources = pytest.mark.parametrize("provider", PROVIDERS)
targets = pytest.mark.parametrize("kind", TARGETS)
modes = pytest.mark.parametrize("mode", MODES)
# What makes the source tell of its thoughts, where its package leaves them out.
THINKING = {"ollama": {"reasoning": True}}


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with opened() as desk:
        yield desk


TARGETS_LINES = [
    'assistant: book({"city": "Rome", "nights": 3})',
    "tool: booked 3 nights in Rome",
    "assistant: The tool says: booked 3 nights in Rome",
]


@sources
@targets
@modes
def test_a_conversation_goes_to_the_target_and_back(desk, provider, kind, mode):
    app = desk.source(provider, **THINKING.get(provider, {})).bind_tools([book])
    messages = own_turns(desk, app, mode)
    bound = desk.bound(app, kind, mode)
    with desk.reached() as asked:
        messages.append(run(bound, mode, messages))
        messages += results_of(messages[-1])
        messages.append(run(bound, mode, messages))
    assert [chat_lines(each) for each in asked] == [
        OWN_LINES,
        OWN_LINES + TARGETS_LINES[:2],
    ]
    assert THOUGHT not in str(asked)
    assert SIGNATURE not in str(asked)

    # The original app goes on, of which nothing of ours is a part.
    messages.append(HumanMessage("Thanks."))
    assert run(asks(app, mode), mode, messages).text == "Booked."
    spoken = [line for line in lines_of(desk) if not line.endswith("<thinking>")]
    assert spoken == [*OWN_LINES, *TARGETS_LINES, "user: Thanks."]


# Escalation


BROKEN = [{"name": "book", "arguments": '{"city": '}]


@sources
@targets
@modes
def test_the_source_is_asked_in_its_own_dialect_what_a_target_had_a_part_in(
    desk, provider, kind, mode
):
    app = desk.source(provider, **THINKING.get(provider, {})).bind_tools([book])
    messages = own_turns(desk, app, "invoke")
    bound = desk.bound(app, kind, "invoke")
    messages.append(run(bound, "invoke", messages))
    messages += results_of(messages[-1])
    messages += [run(bound, "invoke", messages), HumanMessage("And back.")]

    desk.says("Well.", ("book", BOOK_OSLO))
    with Endpoint(calls=BROKEN) as broken, desk.pinned() as asked:
        graph = rewrite(asks(app, mode), {"ask": getattr(broken, kind)()})
        said = run(graph, mode, messages)
    assert [(call["name"], call["args"]) for call in said.tool_calls] == [
        ("book", {"city": "Oslo", "nights": 2})
    ]
    assert about(said)["escalated"] is True
    assert about(said)["provider"] == provider
    assert len(asked) == 1
    spoken = [line for line in lines_of(desk) if not line.endswith("<thinking>")]
    assert spoken == [*OWN_LINES, *TARGETS_LINES, "user: And back."]


@sources
@targets
@modes
def test_structured_output_is_the_sources_after_escalation(desk, provider, kind, mode):
    for method in ("json_schema", "function_calling"):
        app = desk.source(provider).with_structured_output(Trip, method=method)
        given = '{"city": "Rome", "month": "May"}'
        desk.says("", ("Trip", given)) if "calling" in method else desk.says(given)
        with Endpoint("no JSON") as broken, desk.pinned():
            graph = rewrite(asks(app, mode), {"ask": getattr(broken, kind)()})
            assert run(graph, mode, ["To Rome."]) == Trip(city="Rome", month="May")


class FailsAfterTools(Endpoint):
    """Calls the tool, and is out of order when it should read the result."""

    def reply(self, asked: dict[str, Any]) -> tuple[str, bytes]:
        has_result = asked["messages"][-1]["role"] == "tool"
        self.status = 500 if has_result else 200
        return super().reply(asked)


@sources
@targets
def test_a_tool_loop_goes_on_with_the_source_after_escalation(desk, provider, kind):
    agent = create_agent(desk.source(provider), [book])
    calls = [{"name": "book", "arguments": BOOK_OSLO}]
    desk.says("Booked.")
    before = len(desk.provider.asked)
    with FailsAfterTools(calls=calls) as failing:
        bound = rewrite(agent, {"model": getattr(failing, kind)()})
        said = bound.invoke({"messages": [HumanMessage("To Oslo.")]})["messages"]
    assert [message.text for message in said] == [
        "To Oslo.",
        "",
        "booked 2 nights in Oslo",
        "Booked.",
    ]
    assert [about(m)["escalated"] for m in said if m.type == "ai"] == [False, True]
    assert len(desk.provider.asked) == before + 1
    assert lines_of(desk) == [
        "user: To Oslo.",
        f"assistant: book({BOOK_OSLO})",
        "tool: booked 2 nights in Oslo",
    ]


@targets
def test_googles_newer_models_get_a_signature_for_a_call_that_is_not_theirs(desk, kind):
    source = desk.source("google_genai", model="gemini-3-pro-preview")
    desk.says("Booked.")
    calls = [{"name": "book", "arguments": BOOK_OSLO}]
    with FailsAfterTools(calls=calls) as failing:
        agent = rewrite(create_agent(source, [book]), {"model": getattr(failing, kind)()})
        said = agent.invoke({"messages": [HumanMessage("To Oslo.")]})["messages"]
    assert said[-1].text == "Booked."
    (call,) = desk.provider.asked[-1]["contents"][1]["parts"]
    assert call["functionCall"]["name"] == "book"
    # Without one the API refuses the request; langchain-google-genai says it has none.
    assert call["thoughtSignature"] == "skip_thought_signature_validator"


@sources
@targets
def test_an_agent_with_a_response_format_is_the_targets(desk, provider, kind):
    agent = create_agent(desk.source(provider), [find_train], response_format=Trip)
    bound = rewrite(agent, {"model": desk.target(kind)})
    asks_for = "Use find_train and Trip: 'Rome', month 'May'."
    with desk.reached() as asked:
        said = bound.invoke({"messages": [HumanMessage(asks_for)]})
    assert said["structured_response"] == Trip(city="Rome", month="May")
    offered = [tool["function"]["name"] for tool in asked[0]["tools"]]
    assert offered[0] == "find_train"


@targets
def test_anthropics_prompt_caching_stays_with_anthropic(desk, kind):
    agent = create_agent(
        desk.source("anthropic"),
        [book],
        system_prompt="Be brief.",
        middleware=[AnthropicPromptCachingMiddleware()],
    )
    bound = rewrite(agent, {"model": desk.target(kind)})
    with desk.reached() as asked:
        said = bound.invoke({"messages": [HumanMessage(BOOK_ROME)]})["messages"]
    assert said[-1].text == "The tool says: booked 3 nights in Rome"
    assert chat_lines(asked[0]) == ["system: Be brief.", f"user: {BOOK_ROME}"]
