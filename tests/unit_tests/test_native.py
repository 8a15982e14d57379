"""Options of other providers' packages in OpenAI's form."""

import pytest
from pydantic import BaseModel
from unit_tests.fake_chat import FakeChat

from langchain_slm.routing import dialect
from langchain_slm.routing.native import openai_tool, text_schema
from langchain_slm.routing.writing import openais

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
    "required": ["city"],
}
FUNCTION = {"name": "book", "description": "Book.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CANCEL = {"type": "function", "function": {"name": "cancel", "parameters": {}}}
SEARCH = {"google_search": {}}
NAMED = {"type": "function", "function": {"name": "book"}}


def calling(**config):
    return {"tool_config": {"function_calling_config": config}}


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ({"tool_choice": ["book"]}, NAMED),
        ({"tool_choice": ["book", "cancel"]}, "required"),
        ({"tool_choice": []}, None),
        (calling(mode="any"), "required"),
        (calling(mode="ANY", allowed_function_names=["book"]), NAMED),
        (calling(mode="VALIDATED"), "auto"),
        (calling(mode="MODE_UNSPECIFIED"), None),
        (calling(), None),
        ({"tool_config": {"retrieval_config": {}}}, None),
        ({"tool_choice": "auto", **calling(mode="ANY")}, "auto"),
    ],
)
def test_googles_choices_are_openais(options, choice):
    assert dialect.tool_choice_of(options) == choice


def test_only_tools_that_may_be_called_are_offered():
    tools = [TOOL, CANCEL, SEARCH]
    by_config = calling(mode="ANY", allowed_function_names=["book"])
    for forced in ({"tool_choice": ["book"]}, by_config):
        assert dialect.tools_of({"tools": tools, **forced}) == [TOOL, SEARCH]
    assert dialect.tools_of({"tools": tools, "tool_choice": "book"}) == tools


def anthropic_tool(**changed):
    return {
        "name": "book",
        "description": "Book.",
        "input_schema": {**SCHEMA, **changed},
        "strict": True,
    }


def test_a_strict_tool_stays_strict_where_nothing_is_optional():
    whole = {"required": ["city", "nights"], "additionalProperties": False}
    function = openai_tool(anthropic_tool(**whole))["function"]
    assert function == {**FUNCTION, "parameters": {**SCHEMA, **whole}, "strict": True}


def test_optional_arguments_do_not_become_required():
    tool = anthropic_tool()
    assert openai_tool(tool) == TOOL
    assert tool == anthropic_tool()


def test_a_strict_tool_is_made_of_a_copy():
    options = {"tools": [TOOL], "response_format": {"type": "json_object"}}
    (tool,) = openais(FakeChat(), options)["tools"]
    assert tool["function"]["strict"] is True
    assert tool["function"]["parameters"]["required"] == ["city", "nights"]
    assert TOOL["function"]["parameters"]["required"] == ["city"]
    assert openais(FakeChat(), {"tools": [TOOL]}) == {"tools": [TOOL]}


def test_an_object_of_a_providers_client_is_a_tool_of_the_provider():
    class Executes(BaseModel):
        code_execution: dict[str, str] = {}

    tools = dialect.tools_of({"tools": [Executes()]})
    assert tools == [{"type": "Executes"}]
    assert dialect.pin({}, tools) == "the provider's own tools pin the call to it"


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        ({"format": SCHEMA}, SCHEMA),
        ({"format": "json"}, {}),
        ({"format": ""}, None),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            SCHEMA,
        ),
        ({"output_format": {"type": "json_schema", "schema": SCHEMA}}, SCHEMA),
        ({"output_config": {"effort": "low"}}, None),
        ({"response_mime_type": "application/json"}, {}),
        (
            {"response_mime_type": "application/json", "response_json_schema": SCHEMA},
            SCHEMA,
        ),
        ({"response_mime_type": "application/json", "response_schema": SCHEMA}, SCHEMA),
        ({"response_mime_type": "text/plain"}, None),
        ({}, None),
    ],
)
def test_what_asks_for_json_has_a_schema(options, schema):
    assert text_schema(options) == schema


@pytest.mark.parametrize(
    ("max_tokens", "profile", "is_none"),
    [
        (64_000, {"max_output_tokens": 64_000}, True),
        (99_000, {"max_output_tokens": 64_000}, True),
        (63_999, {"max_output_tokens": 64_000}, False),
        (64_000, {}, False),
        (64_000, None, False),
    ],
)
def test_the_most_that_a_model_can_write_is_no_limit(max_tokens, profile, is_none):
    assert dialect.is_no_limit(max_tokens, profile) is is_none


@pytest.mark.parametrize(
    ("choice", "parallel"),
    [
        ({"type": "auto", "disable_parallel_tool_use": True}, False),
        ({"type": "any", "disable_parallel_tool_use": False}, True),
        ({"type": "auto"}, None),
    ],
)
def test_anthropic_says_in_the_choice_whether_tools_are_called_in_parallel(
    choice, parallel
):
    asked = dialect.request_of(FakeChat(), [], {"tools": [TOOL], "tool_choice": choice})
    assert asked.parameters.get("parallel_tool_calls") is parallel


def told(method):
    return {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": {}}}


@pytest.mark.parametrize(
    ("options", "tools", "expected"),
    [
        (told("function_calling"), [TOOL], NAMED),
        (told("function_calling"), [TOOL, CANCEL], None),
        (told("function_calling"), [SEARCH], None),
        (told("json_schema"), [TOOL], None),
        ({}, [TOOL], None),
    ],
)
def test_structured_output_by_a_tool_expects_its_call(options, tools, expected):
    assert dialect.parsed_tool_of(options, tools) == expected
