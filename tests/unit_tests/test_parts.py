"""Parts of messages of any provider in OpenAI's form."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_slm.routing.parts import chat_part, in_parts

TEXT = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}}
PDF = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
}


def sourced(kind, **source):
    return {"type": kind, "source": source}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("a", TEXT),
        ({**TEXT, "cache_control": {"type": "ephemeral"}, "id": "1"}, TEXT),
        ({**TEXT, "citations": [{"type": "char_location"}], "extras": {}}, TEXT),
        ({"type": "text-plain", "text": "a", "mime_type": "text/plain"}, TEXT),
        ({"type": "file", "source_type": "text", "text": "a"}, TEXT),
        ({"type": "json", "json": {"é": 1}}, {"type": "text", "text": '{"é": 1}'}),
        ({**IMAGE, "index": 0}, IMAGE),
        ({"type": "image_url", "image_url": IMAGE["image_url"]["url"]}, IMAGE),
        (
            {"type": "image_url", "image_url": {"url": "http://x/a", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "http://x/a", "detail": "low"}},
        ),
        (
            {"type": "image", "source_type": "url", "url": "https://x/a"},
            {"type": "image_url", "image_url": {"url": "https://x/a"}},
        ),
        ({"type": "image", "base64": "AA==", "mime_type": "image/png"}, IMAGE),
        (
            {
                "type": "image",
                "source_type": "base64",
                "data": "AA==",
                "mime_type": "image/png",
            },
            IMAGE,
        ),
        (sourced("image", type="base64", media_type="image/png", data="AA=="), IMAGE),
        (
            sourced("image", type="url", url="https://x/a"),
            {"type": "image_url", "image_url": {"url": "https://x/a"}},
        ),
        ({"type": "media", "mime_type": "image/png", "data": b"\0"}, IMAGE),
        ({"type": "media", "mime_type": "audio/mpeg", "data": "AA=="}, SOUND),
        ({"type": "audio", "base64": "AA==", "mime_type": "audio/mp3"}, SOUND),
        ({**SOUND, "id": "1"}, SOUND),
        (PDF, PDF),
        (
            {
                "type": "file",
                "base64": "AA==",
                "mime_type": "application/pdf",
                "filename": "a.pdf",
            },
            PDF,
        ),
        (
            {
                **sourced(
                    "document", type="base64", media_type="application/pdf", data="AA=="
                ),
                "title": "a.pdf",
            },
            PDF,
        ),
        (sourced("document", type="text", media_type="text/plain", data="a"), TEXT),
    ],
)
def test_a_part_has_a_form_that_openais_api_knows(part, expected):
    assert chat_part(part) == expected


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "a", "signature": "a"},
        {"type": "tool_use", "id": "1", "name": "book", "input": {}},
        {"type": "image_url", "image_url": "gs://bucket/a.png"},
        {"type": "image_url", "image_url": "AA=="},
        {"type": "image_url", "image_url": {}},
        {"type": "image", "file_id": "1"},
        sourced("image", type="file", file_id="1"),
        sourced("document", type="file", file_id="1"),
        sourced("document", type="url", url="https://x/a.pdf"),
        sourced("document", type="content", content=[TEXT]),
        {
            **sourced("document", type="text", media_type="text/plain", data="a"),
            "citations": {"enabled": True},
        },
        {"type": "document"},
        {"type": "media", "mime_type": "video/mp4", "data": "AA=="},
        {"type": "media", "mime_type": "image/png", "file_uri": "https://x/a"},
        {"type": "file", "file": {"file_id": "1"}},
        {"type": "file", "file_id": "1"},
        {"type": "file", "url": "https://x/a.pdf"},
        {"type": "text", "text": None},
        {"type": "container_upload", "file_id": "1"},
        {"data": "a"},
    ],
)
def test_what_has_no_place_in_openais_form_is_none(part):
    assert chat_part(part) is None


def test_a_models_message_loses_what_is_only_its_own():
    call = {"type": "tool_use", "id": "1", "name": "book", "input": {"city": "Rome"}}
    message = AIMessage([{"type": "thinking", "thinking": "a"}, TEXT, call])
    assert in_parts(message, message.content) == [
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "1",
                    "function": {"name": "book", "arguments": '{"city": "Rome"}'},
                }
            ],
        }
    ]


def test_a_call_that_the_message_names_itself_is_there_once():
    call = {"type": "tool_use", "id": "1", "name": "book", "input": {}}
    known = {"id": "1", "name": "book", "args": {}}
    message = AIMessage([call], tool_calls=[known])
    (plain,) = in_parts(message, message.content)
    assert plain["content"] == ""
    assert [call["id"] for call in plain["tool_calls"]] == ["1"]


def test_results_of_tools_go_before_the_message_that_they_lie_in():
    result = {"type": "tool_result", "tool_use_id": "1", "content": "done"}
    message = HumanMessage([result, TEXT])
    assert in_parts(message, message.content) == [
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "user", "content": "a"},
    ]
    message = HumanMessage([result])
    assert in_parts(message, message.content) == [
        {"role": "tool", "tool_call_id": "1", "content": "done"}
    ]


def test_what_a_person_or_a_tool_gave_is_kept_whatever_it_is():
    unknown = {"type": "container_upload", "file_id": "1"}
    message = ToolMessage([TEXT, unknown], tool_call_id="1")
    assert in_parts(message, message.content) == [
        {"role": "tool", "tool_call_id": "1", "content": [TEXT, unknown]}
    ]
