"""What messages hold and models do besides text and tools: sent on, pinned, recorded."""

from collections.abc import Iterator
from typing import Any

import pytest
from integration_tests.chat_schema import leftovers
from integration_tests.dialect_apps import (
    BOOK,
    BOOK_OSLO,
    DATA_URL,
    OWN_LINES,
    PNG,
    TARGETS,
    TRIP_SCHEMA,
    Desk,
    asks,
    book,
    chat_lines,
    opened,
    own_turns,
    run,
)
from integration_tests.provider_server import NAMES, SIGNATURE, THOUGHT
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from unit_tests.routed import about

from langchain_slm.recording.recorder import record
from langchain_slm.recording.store import open_store

# Google's client, of the class that it makes of aiohttp's at its first asynchronous call.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"
)
PROVIDERS = tuple(NAMES)
sources = pytest.mark.parametrize("provider", PROVIDERS)
targets = pytest.mark.parametrize("kind", TARGETS)


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with opened() as desk:
        yield desk


# Parts of messages

TEXT_PART = {"type": "text", "text": "What is it?"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": DATA_URL}}
FAR_IMAGE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
PDF_PART = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
}
CACHED = {"cache_control": {"type": "ephemeral"}}


def sourced(**source: str) -> dict[str, Any]:
    return {"type": "image", "source": source}


PARTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("anthropic", {**TEXT_PART, **CACHED}, TEXT_PART),
    (
        "anthropic",
        {**sourced(type="base64", media_type="image/png", data=PNG), **CACHED},
        IMAGE_PART,
    ),
    ("anthropic", sourced(type="url", url="https://x.test/a.png"), FAR_IMAGE),
    (
        "anthropic",
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "A rock."},
            "title": "Notes",
            **CACHED,
        },
        {"type": "text", "text": "Notes\n\nA rock."},
    ),
    ("google_genai", {"type": "image_url", "image_url": DATA_URL}, IMAGE_PART),
    (
        "google_genai",
        {"type": "media", "mime_type": "image/png", "data": PNG},
        IMAGE_PART,
    ),
    ("groq", IMAGE_PART, IMAGE_PART),
    ("ollama", {"type": "image_url", "image_url": DATA_URL}, IMAGE_PART),
    *(
        (provider, {"type": "image", "base64": PNG, "mime_type": "image/png"}, IMAGE_PART)
        for provider in PROVIDERS
    ),
]


@pytest.mark.parametrize(("provider", "part", "expected"), PARTS)
@targets
@pytest.mark.parametrize("mode", ["invoke", "astream"])
def test_parts_of_a_message_reach_the_target_in_openais_form(
    desk, provider, part, expected, kind, mode
):
    messages = [HumanMessage(["What is it?", part])]
    with desk.reached() as asked:
        run(desk.bound(desk.source(provider), kind, mode), mode, messages)
    (user,) = asked[0]["messages"]
    if kind == "nvidia" and expected["type"] == "text":
        # ChatNVIDIA makes one text of them.
        assert user["content"] == "What is it?" + expected["text"]
    else:
        assert user["content"] == [TEXT_PART, expected]


@pytest.mark.parametrize(
    ("provider", "part"),
    [
        (
            "anthropic",
            {
                "type": "document",
                "source": {
                    "type": "base64",
                    "media_type": "application/pdf",
                    "data": "JVBERi0=",
                },
                "title": "a.pdf",
            },
        ),
        (
            "google_genai",
            {
                "type": "file",
                "base64": "JVBERi0=",
                "mime_type": "application/pdf",
                "extras": {"filename": "a.pdf"},
            },
        ),
    ],
)
def test_files_reach_openai_and_pin_the_call_where_chat_nvidia_would_drop_them(
    desk, provider, part
):
    messages = [HumanMessage([TEXT_PART, part])]
    with desk.reached() as asked:
        run(desk.bound(desk.source(provider), "openai", "invoke"), "invoke", messages)
    assert asked[0]["messages"][0]["content"] == [TEXT_PART, PDF_PART]

    desk.says("A file.")
    with desk.pinned():
        said = run(
            desk.bound(desk.source(provider), "nvidia", "invoke"), "invoke", messages
        )
    assert said.text == "A file."
    why = f"a part of type {part['type']} pins the call to its provider"
    assert about(said)["reason"] == why


@targets
def test_cache_markers_and_blocks_of_anthropic_stay_with_it(desk, kind):
    source = desk.source("anthropic").bind_tools([book])
    messages = [
        SystemMessage([{"type": "text", "text": "Be brief.", **CACHED}]),
        HumanMessage([{"type": "text", "text": "To Oslo.", **CACHED}]),
        # As an older package, or a person, wrote it: it does not say whose it is.
        AIMessage(
            [
                {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
                {"type": "redacted_thinking", "data": SIGNATURE},
                {"type": "text", "text": "I book.", **CACHED},
                {
                    "type": "tool_use",
                    "id": "t1",
                    "name": "book",
                    "input": {"city": "Oslo"},
                },
            ],
            tool_calls=[{"id": "t1", "name": "book", "args": {"city": "Oslo"}}],
        ),
        ToolMessage([{"type": "text", "text": "Done.", **CACHED}], tool_call_id="t1"),
        AIMessage("Booked."),
        HumanMessage("Hello."),
    ]
    with desk.reached() as asked:
        run(desk.bound(source, kind, "invoke"), "invoke", messages)
    assert chat_lines(asked[0]) == [
        "system: Be brief.",
        "user: To Oslo.",
        "assistant: I book.",
        'assistant: book({"city": "Oslo"})',
        "tool: Done.",
        "assistant: Booked.",
        "user: Hello.",
    ]


# What only the source's provider can do

PINS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("anthropic", {"type": name, "name": name.rpartition("_")[0]})
        for name in (
            "web_search_20250305",
            "web_fetch_20250910",
            "code_execution_20250522",
            "bash_20250124",
            "text_editor_20250728",
            "memory_20250818",
        )
    ),
    (
        "anthropic",
        {
            "type": "computer_20250124",
            "name": "computer",
            "display_width_px": 1,
            "display_height_px": 1,
        },
    ),
    ("anthropic", {"type": "mcp_toolset", "mcp_server_name": "x"}),
    *(
        ("google_genai", {name: {}})
        for name in ("google_search", "code_execution", "url_context", "google_maps")
    ),
    ("groq", {"type": "browser_search"}),
    ("groq", {"type": "code_interpreter"}),
    ("groq", {"type": "mcp", "server_label": "x", "server_url": "https://x.test"}),
    ("ollama", {"type": "web_search"}),
]
OWN_TOOLS = "the provider's own tools pin the call to it"


@pytest.mark.parametrize(("provider", "own"), PINS)
@targets
def test_a_providers_own_tool_pins_the_call_to_it(desk, provider, own, kind):
    source = desk.source(provider)
    tools = (
        [own]
        if provider in ("groq", "ollama")
        else source.bind_tools([own]).kwargs["tools"]
    )
    desk.says("Found.")
    for mode in ("invoke", "astream"):
        bound = desk.bound(source.bind(tools=tools), kind, mode)
        with desk.pinned() as asked:
            said = run(bound, mode, ["Search."])
        assert said.text == "Found."
        assert about(said)["reason"] == OWN_TOOLS
        assert about(said)["escalated"] is True
        assert len(asked[0]["tools"]) == 1


@targets
def test_code_execution_of_googles_pins_a_single_call(desk, kind):
    # Its `invoke` turns the option into an object of Google's client.
    class Executes:
        def invoke(self, messages: list[BaseMessage]) -> AIMessage:
            return desk.source("google_genai").invoke(messages, code_execution=True)

    desk.says("Ran.")
    with desk.pinned():
        said = run(desk.bound(Executes(), kind, "invoke"), "invoke", ["Run."])
    assert said.text == "Ran."
    assert about(said)["reason"] == OWN_TOOLS


SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    (
        "anthropic",
        {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]},
        "mcp_servers",
    ),
    ("anthropic", {"container": "container_1"}, "container"),
    (
        "anthropic",
        {
            "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
            "betas": ["context-management-2025-06-27"],
        },
        "context_management",
    ),
    ("google_genai", {"cached_content": "cachedContents/1"}, "cached_content"),
    ("ollama", {"logprobs": True}, "logprobs"),
]


@pytest.mark.parametrize(("provider", "settings", "name"), SETTINGS)
@targets
def test_what_the_source_always_has_its_provider_do_pins_the_call(
    desk, provider, settings, name, kind
):
    desk.says("Found.")
    bound = desk.bound(desk.source(provider, **settings), kind, "invoke")
    with desk.pinned():
        said = run(bound, "invoke", ["Search."])
    assert said.text == "Found."
    assert about(said)["reason"] == f"the option {name} pins the call to its provider"


CONTENTS: list[tuple[str, dict[str, Any]]] = [
    ("anthropic", {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
    (
        "anthropic",
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "A rock."},
            "citations": {"enabled": True},
        },
    ),
    (
        "anthropic",
        {
            "type": "search_result",
            "source": "https://x.test",
            "title": "Rocks",
            "content": [{"type": "text", "text": "A rock."}],
        },
    ),
    (
        "google_genai",
        {"type": "media", "mime_type": "video/mp4", "file_uri": "https://x.test/a.mp4"},
    ),
    ("ollama", {"type": "image_url", "image_url": PNG}),
]


@pytest.mark.parametrize(("provider", "part"), CONTENTS)
@targets
def test_what_only_the_provider_can_read_pins_the_call(desk, provider, part, kind):
    messages = [HumanMessage([TEXT_PART, part])]
    desk.says("A rock.")
    with desk.pinned():
        said = run(desk.bound(desk.source(provider), kind, "invoke"), "invoke", messages)
    assert said.text == "A rock."
    why = f"a part of type {part['type']} pins the call to its provider"
    assert about(said)["reason"] == why


# Recording


def validated(call: Any) -> dict[str, Any]:
    """Return a recorded request as one to OpenAI's chat API, which it must be."""
    request = call.request
    asked = {
        "model": "any",
        "messages": list(request.messages),
        "tools": list(request.tools),
        "tool_choice": request.tool_choice,
        "response_format": request.response_format,
        **request.parameters,
    }
    asked = {name: value for name, value in asked.items() if value not in (None, [])}
    # LangChain keeps the name of a tool beside its result.
    nameless = [
        {key: value for key, value in message.items() if key != "name"}
        for message in request.messages
    ]
    assert list(leftovers({**asked, "messages": nameless})) == []
    return asked


@sources
def test_recorded_calls_are_in_openais_form(desk, provider, tmp_path):
    store = f"sqlite:///{tmp_path}/calls.db"
    source = desk.source(provider)
    messages = own_turns(desk, source.bind_tools([book]), "invoke")
    desk.says("I book.", ("book", BOOK_OSLO))
    for mode in ("invoke", "astream"):
        app = source.bind_tools([book]).bind(stop=["END"])
        run(record(asks(app, mode), store, name="app"), mode, messages)
    with open_store(store) as opened_store:
        calls = list(opened_store.calls())
    assert [(call.model, call.provider) for call in calls] == [
        (NAMES[provider], provider)
    ] * 2
    for call in calls:
        asked = validated(call)
        assert asked["tools"] == [BOOK]
        assert asked["stop"] == ["END"]
        assert "max_tokens" not in asked
        assert chat_lines(asked) == OWN_LINES
        assert THOUGHT not in str(asked)
        assert call.answer.text == "I book."
        assert call.answer.tool_calls == [{"name": "book", "arguments": BOOK_OSLO}]
        assert call.answer.usage.input_tokens == 7


@sources
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_recorded_structured_output_has_its_schema(desk, provider, method, tmp_path):
    store = f"sqlite:///{tmp_path}/calls.db"
    source = desk.source(provider)
    app = source.with_structured_output(TRIP_SCHEMA, method=method)
    given = '{"city": "Rome", "month": "May"}'
    desk.says("", ("trip", given)) if "calling" in method else desk.says(given)
    graph = record(asks(app, "invoke"), store)
    assert run(graph, "invoke", ["To Rome."]) == {"city": "Rome", "month": "May"}
    with open_store(store) as opened_store:
        (call,) = opened_store.calls()
    asked = validated(call)
    if method == "function_calling":
        (function,) = (each["function"] for each in asked["tools"])
        assert function["parameters"]["required"] == ["city", "month"]
    else:
        schema = asked["response_format"]["json_schema"]["schema"]
        assert schema["required"] == ["city", "month"]


@pytest.mark.parametrize(
    ("provider", "own", "part"),
    [
        (
            "anthropic",
            {"type": "web_search_20250305", "name": "web_search"},
            CONTENTS[0][1],
        ),
        ("google_genai", {"google_search": {}}, CONTENTS[3][1]),
    ],
)
def test_what_has_no_place_in_openais_form_is_recorded_as_it_is(
    desk, provider, own, part, tmp_path
):
    store = f"sqlite:///{tmp_path}/calls.db"
    desk.says("A rock.")
    graph = record(asks(desk.source(provider).bind_tools([own]), "invoke"), store)
    run(graph, "invoke", [HumanMessage([TEXT_PART, part])])
    with open_store(store) as opened_store:
        (call,) = opened_store.calls()
    assert call.request.messages == ({"role": "user", "content": [TEXT_PART, part]},)
    (tool,) = call.request.tools
    assert own.items() <= tool.items() or tool["google_search"] is not None


def test_a_recorded_image_of_anthropics_is_openais(desk, tmp_path):
    store = f"sqlite:///{tmp_path}/calls.db"
    part = {
        "type": "image",
        "source": {"type": "url", "url": "https://x.test/a.png"},
        **CACHED,
    }
    graph = record(asks(desk.source("anthropic"), "invoke"), store)
    run(graph, "invoke", [HumanMessage([{**TEXT_PART, **CACHED}, part])])
    with open_store(store) as opened_store:
        (call,) = opened_store.calls()
    assert validated(call)["messages"] == [
        {"role": "user", "content": [TEXT_PART, FAR_IMAGE]}
    ]
