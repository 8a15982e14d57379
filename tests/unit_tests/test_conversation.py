import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    ToolMessage,
)
from unit_tests.endpoint import Endpoint

from langchain_slm.routing.conversation import portable, unreadable

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"name": "book", "args": {"city": "Rome"}, "id": "call_0", "type": "tool_call"}


def of_openai(content="", **more):
    return AIMessage(content, response_metadata={"model_provider": "openai"}, **more)


def of_anthropic(content="", **more):
    return AIMessage(content, response_metadata={"model_provider": "anthropic"}, **more)


def seen_by(provider, message):
    (seen,) = portable([message], provider)
    return seen


@pytest.mark.parametrize(
    "message",
    [
        of_openai([{"type": "reasoning", "id": "rs_1", "encrypted_content": "x"}]),
        of_openai("Rome", id="resp_1", additional_kwargs={"reasoning": {"id": "rs_1"}}),
        AIMessage("Rome", response_metadata={"model_provider": "azure"}),
        AIMessage("Rome", response_metadata={"langchain_slm": {"provider": "openai"}}),
        AIMessage("Rome", additional_kwargs={"of": "an unknown provider"}, id="a"),
        AIMessage("Rome", response_metadata={"model_provider": None}),
        HumanMessage("Hi", additional_kwargs={"a": 1}, id="a"),
        ToolMessage("Done", tool_call_id="call_0", additional_kwargs={"a": 1}),
    ],
)
def test_the_same_provider_sees_the_very_conversation(message):
    conversation = [message]
    assert portable(conversation, "openai") is conversation
    assert portable(conversation, "azure") is conversation
    assert conversation == [message]


def test_only_messages_of_other_providers_are_changed():
    ours, theirs, question = (
        of_openai("a"),
        of_anthropic("b", id="msg_1"),
        HumanMessage("Hi"),
    )
    conversation = [question, ours, theirs]
    seen = portable(conversation, "openai")
    assert seen[0] is question
    assert seen[1] is ours
    assert seen[2] == AIMessage("b")
    assert conversation[2] is theirs
    assert theirs.id == "msg_1"


@pytest.mark.parametrize("provider", ["openai", "azure", "head", "aws"])
@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "secret", "signature": "secret"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "reasoning", "id": "secret", "encrypted_content": "secret"},
        {"type": "reasoning_content", "reasoning_content": {"text": "secret"}},
        {"type": "tool_use", "id": "secret", "name": "book", "input": {}},
        {"type": "server_tool_use", "id": "secret", "name": "web_search", "input": {}},
        {"type": "compaction", "content": "secret"},
        {"type": "non_standard", "value": {"a": "secret"}},
        {"type": "file", "file_id": "secret"},
        {"type": "image", "file_id": "secret"},
        {"type": "image", "source_type": "id", "id": "secret"},
        {"type": "image", "source": {"type": "file", "file_id": "secret"}},
        {"type": None, "data": "secret"},
        {"data": "secret"},
    ],
)
def test_blocks_of_one_provider_stay_with_it(provider, block):
    alone = seen_by(provider, of_anthropic([block]))
    assert alone.content == ""
    text = {"type": "text", "text": "Rome"}
    assert seen_by(provider, of_anthropic([block, text])).content == "Rome"
    mixed = seen_by(provider, of_anthropic([text, block, IMAGE]))
    assert mixed.content == [text, IMAGE]


def test_everything_beside_the_content_stays_with_its_provider():
    message = of_anthropic(
        "Rome",
        id="msg_1",
        additional_kwargs={"__gemini_function_call_thought_signatures__": {"a": "b"}},
    )
    message.response_metadata["signature"] = "secret"
    seen = seen_by("openai", message)
    assert (seen.id, seen.additional_kwargs, seen.response_metadata) == (None, {}, {})


def test_texts_and_images_lose_ids_signatures_and_citations():
    text = {"type": "text", "text": "Rome"}
    image = {"type": "image", "base64": "AA==", "mime_type": "image/png"}
    sourced = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
    }
    extras = {"signature": "secret"}
    seen = seen_by(
        "openai",
        of_anthropic(
            [
                {**text, "id": "msg_1", "annotations": [], "extras": extras, "index": 0},
                "plain",
                {**image, "id": "ig_1", "extras": extras},
                {**sourced, "cache_control": {"type": "ephemeral"}},
                {**IMAGE, "index": 3},
            ]
        ),
    )
    assert seen.content == [text, "plain", image, sourced, IMAGE]


def test_texts_in_parts_become_one():
    parts = ["Ro", {"type": "text", "text": "me", "id": "msg_1"}]
    assert seen_by("openai", of_anthropic(parts)).content == "Rome"


def test_tool_calls_keep_their_ids_so_that_results_find_them():
    broken = {"name": "book", "args": "{", "id": "b", "error": None}
    message = of_anthropic(
        [{"type": "tool_use", "id": "call_0", "name": "book", "input": {"city": "Rome"}}],
        tool_calls=[CALL],
        invalid_tool_calls=[broken],
    )
    conversation = [message, ToolMessage("Done", tool_call_id="call_0")]
    asked, result = portable(conversation, "openai")
    assert asked.tool_calls == [CALL]
    assert asked.invalid_tool_calls[0]["args"] == "{"
    assert result is conversation[1]


def test_chunks_are_seen_as_messages_are():
    chunk = AIMessageChunk(
        [{"type": "thinking", "thinking": "Hm.", "signature": "secret"}],
        tool_call_chunks=[{"name": "book", "args": "{}", "id": "a", "index": 0}],
        response_metadata={"model_provider": "anthropic"},
        id="msg_1",
    )
    seen = seen_by("openai", chunk)
    assert (seen.content, seen.id, seen.response_metadata) == ("", None, {})
    assert seen.tool_calls[0]["id"] == "a"


def test_who_really_answered_decides_not_who_seems_to():
    # A router's message: it says which provider's model it asked.
    message = of_openai("Rome", id="chatcmpl-1")
    message.response_metadata["langchain_slm"] = {"provider": "nvidia"}
    assert seen_by("openai", message).id is None
    assert seen_by("nvidia", message).id == "chatcmpl-1"


@pytest.mark.parametrize(
    ("spoken", "provider", "is_same"),
    [
        ("azure", "openai", True),
        ("azure_openai", "openai", True),
        ("openai", "azure", True),
        ("bedrock", "aws", True),
        ("bedrock_converse", "aws", True),
        ("anthropic", "aws", False),
        ("openai", "nvidia", False),
        ("google_genai", "google_vertexai", False),
        ("head", "openai", False),
    ],
)
def test_providers_go_by_the_names_of_their_packages(spoken, provider, is_same):
    message = AIMessage("a", id="a", response_metadata={"model_provider": spoken})
    assert (seen_by(provider, message) is message) == is_same


def test_real_clients_see_no_trace_of_another_provider():
    conversation = [
        HumanMessage("Where to?"),
        of_anthropic(
            [
                {"type": "thinking", "thinking": "canary", "signature": "canary"},
                {"type": "text", "text": "Rome", "citations": ["canary"]},
                IMAGE | {"id": "canary"},
            ],
            id="canary",
            additional_kwargs={"reasoning_content": "canary", "audio": {"id": "canary"}},
        ),
        HumanMessage("And then?"),
    ]
    with Endpoint("Paris") as endpoint:
        for provider in ("openai", "nvidia"):
            model = getattr(endpoint, provider)()
            model.invoke(portable(conversation, provider))
    assert len(endpoint.asked) == 2
    assert "canary" not in str(endpoint.asked)
    assert "Rome" in str(endpoint.asked)


# What the app itself wrote, in the form of another provider

CACHED = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
DOCUMENT = {"type": "document", "source": {"type": "file", "file_id": "secret"}}
FILE = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
}


def test_what_the_app_wrote_reaches_another_provider_in_openais_form():
    conversation = [HumanMessage([CACHED]), ToolMessage([CACHED], tool_call_id="a")]
    seen = portable(conversation, "openai", "anthropic")
    assert [message.content for message in seen] == [[{"type": "text", "text": "Hi"}]] * 2
    assert conversation[0].content == [CACHED]


@pytest.mark.parametrize(
    ("provider", "source"),
    [("anthropic", "anthropic"), ("anthropic", None), ("azure", "openai")],
)
def test_what_the_app_wrote_reaches_its_own_provider_as_it_is(provider, source):
    conversation = [HumanMessage([CACHED])]
    assert portable(conversation, provider, source) is conversation


def test_a_message_that_does_not_say_whose_it_is_is_taken_for_the_sources():
    message = AIMessage([{"type": "redacted_thinking", "data": "secret"}, CACHED])
    (seen,) = portable([message], "openai", "anthropic")
    assert seen.content == "Hi"
    (seen,) = portable([message], "anthropic", "anthropic")
    assert seen is message


@pytest.mark.parametrize(
    ("part", "source", "provider", "why"),
    [
        (CACHED, "anthropic", "openai", None),
        (DOCUMENT, "anthropic", "anthropic", None),
        (DOCUMENT, "anthropic", "openai", "document"),
        (FILE, "openai", "azure", None),
        (FILE, "anthropic", "openai", None),
        (FILE, "openai", "nvidia", "file"),
        (IMAGE, "openai", "nvidia", None),
        ({"type": "Call me Ann"}, "groq", "openai", "unknown"),
        ({"data": "secret"}, "groq", "openai", "unknown"),
    ],
)
def test_what_only_one_provider_can_read_is_named_without_content(
    part, source, provider, why
):
    told = why and f"a part of type {why} pins the call to its provider"
    messages = [HumanMessage("Hi"), HumanMessage(["What is it?", part])]
    assert unreadable(messages, source, provider) == told


def test_what_a_model_said_pins_nothing():
    said = of_anthropic([{"type": "redacted_thinking", "data": "secret"}])
    assert unreadable([said], "anthropic", "openai") is None
