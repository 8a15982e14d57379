"""Options as the packages of other providers take them."""

import pytest
from unit_tests.fake_chat import FakeChat

from langchain_slm.routing.writing import anthropics, googles, ollamas

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "book", "description": "Book.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
NAMED = {"type": "function", "function": {"name": "book"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
TOLD = {"kwargs": {"method": "json_schema"}, "schema": SCHEMA}
ASKED = {
    "temperature": 0.5,
    "max_tokens": 9,
    "stop": ["END"],
    "seed": 7,
    "n": 1,
    "presence_penalty": 0.1,
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "response_format": FORMAT,
    "ls_structured_output_format": TOLD,
}


def test_what_chat_anthropic_takes():
    assert anthropics(FakeChat(), ASKED) == {
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["END"],
        "tools": [{"name": "book", "description": "Book.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "response_format": FORMAT,
        "ls_structured_output_format": TOLD,
    }


@pytest.mark.parametrize(
    ("choice", "anthropic", "google"),
    [
        ("auto", {"type": "auto"}, "auto"),
        ("none", {"type": "none"}, "none"),
        ("required", {"type": "any"}, "required"),
        (NAMED, {"type": "tool", "name": "book"}, "book"),
    ],
)
def test_a_tool_choice_in_each_form(choice, anthropic, google):
    options = {"tools": [TOOL], "tool_choice": choice}
    assert anthropics(FakeChat(), options)["tool_choice"] == anthropic
    assert googles(FakeChat(), options)["tool_choice"] == google


def test_chat_anthropic_has_a_schema_for_each_tool_and_no_mode_for_any_json():
    plain = {"type": "function", "function": {"name": "now"}}
    options = {"tools": [plain], "response_format": {"type": "json_object"}}
    assert anthropics(FakeChat(), options) == {
        "tools": [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]
    }


def test_calls_one_by_one_are_said_in_anthropics_choice():
    options = {"tools": [TOOL], "parallel_tool_calls": True}
    choice = anthropics(FakeChat(), options)["tool_choice"]
    assert choice == {"type": "auto", "disable_parallel_tool_use": False}
    assert anthropics(FakeChat(), {"parallel_tool_calls": True}) == {}


def test_what_googles_model_takes():
    assert googles(FakeChat(), ASKED) == {
        "temperature": 0.5,
        "max_output_tokens": 9,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "tools": [TOOL],
        "tool_choice": "required",
        "response_format": FORMAT,
        "ls_structured_output_format": TOLD,
    }


class WithContext(FakeChat):
    num_ctx: int = 8192
    temperature: float = 0.9


def test_what_chat_ollama_takes_goes_over_its_own_options():
    assert ollamas(WithContext(), ASKED) == {
        "options": {
            "num_ctx": 8192,
            "temperature": 0.5,
            "num_predict": 9,
            "stop": ["END"],
            "seed": 7,
        },
        "tools": [TOOL],
        "response_format": FORMAT,
        "ls_structured_output_format": TOLD,
    }


def test_chat_ollama_keeps_its_own_options_where_nothing_is_asked():
    assert ollamas(WithContext(), {"tools": [TOOL]}) == {"tools": [TOOL]}
