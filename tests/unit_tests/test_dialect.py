import math
from typing import Literal, TypedDict

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel, Field, ValidationError
from unit_tests.endpoint import Endpoint
from unit_tests.fake_chat import FakeChat
from unit_tests.routed import BOOK, BOOK_SCHEMA

from langchain_slm.routing import dialect
from langchain_slm.routing.policy import EscalateOnInvalid, contract_of
from langchain_slm.routing.turn import merged
from langchain_slm.schema import Answer, Usage

REQUIRED_BOOK = {"type": "function", "function": {"name": "book"}}
URL = "http://localhost:9/v1"


class Trip(BaseModel):
    """A trip."""

    city: str
    nights: int = Field(default=1, ge=1)


class Page(TypedDict):
    """A page."""

    title: str


class OurOpenAI(ChatOpenAI):
    """An app's own subclass."""


@tool
def book(city: str) -> str:
    """Book."""
    return city


def openai(**settings):
    return ChatOpenAI(**{"model": "gpt-ref", "api_key": "x", "base_url": URL} | settings)


def nvidia(**settings):
    return ChatNVIDIA(model="slm", base_url=URL, api_key="x", **settings)


# Names


def test_models_are_called_by_the_providers_names():
    azure = AzureChatOpenAI(
        azure_deployment="our-gpt", azure_endpoint=URL, api_version="1", api_key="x"
    )
    assert dialect.model_name(openai()) == "gpt-ref"
    assert dialect.model_name(nvidia()) == "slm"
    assert dialect.model_name(azure) == "our-gpt"
    assert dialect.model_name(FakeChat(model_name="ref")) == "ref"


def test_a_model_without_a_name_is_called_by_its_class():
    assert dialect.model_name(FakeListChatModel(responses=["a"])) == "FakeListChatModel"
    named = FakeListChatModel(responses=["a"], name="mine")
    assert dialect.model_name(named) == "mine"


def test_a_call_may_name_another_model():
    assert dialect.model_name(openai(), {"model": "gpt-other"}) == "gpt-other"
    assert dialect.model_name(openai(), {"temperature": 0}) == "gpt-ref"


def test_providers_are_called_by_their_packages():
    assert dialect.provider_name(openai()) == "openai"
    assert dialect.provider_name(OurOpenAI(model="m", api_key="x")) == "openai"
    assert dialect.provider_name(nvidia()) == "nvidia"
    assert dialect.provider_name(FakeChat()) == "fake-chat"


# Sampling


def test_sampling_parameters_are_the_calls_own_before_the_models():
    model = openai(temperature=0, max_completion_tokens=50, stop=["END"])
    assert dialect.sampling(model, {"max_tokens": 5, "seed": 1, "user": "u"}) == {
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["END"],
        "seed": 1,
    }


def test_sampling_parameters_have_one_name():
    options = {"max_output_tokens": 5, "stop_sequences": ["END"], "top_p": None}
    assert dialect.sampling(FakeChat(), options) == {"max_tokens": 5, "stop": ["END"]}


# Tools


def test_tools_of_any_kind_become_function_tools():
    anthropic = {"name": "book", "description": "Book.", "input_schema": BOOK_SCHEMA}
    bedrock = {
        "toolSpec": {
            "name": "book",
            "description": "Book.",
            "inputSchema": {"json": BOOK_SCHEMA},
        }
    }
    responses_api = {"type": "function", **BOOK["function"]}
    offered = [BOOK, BOOK["function"], anthropic, bedrock, responses_api]
    offered.append({"type": "custom", **anthropic})
    assert dialect.tools_of({"tools": offered}) == [BOOK] * 6


def test_functions_and_classes_become_function_tools():
    one, other = dialect.tools_of({"tools": [book, Trip]})
    assert one["function"]["name"] == "book"
    assert other["function"]["parameters"]["required"] == ["city"]


@pytest.mark.parametrize(
    "built_in",
    [
        {"type": "web_search"},
        {"type": "web_search_preview_2025_03_11"},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "mcp", "server_label": "a", "server_url": "https://example.invalid"},
        {"type": "custom", "name": "sql", "format": {"type": "grammar"}},
        {"google_search": {}},
        {"function_declarations": [{"name": "book"}]},
    ],
)
def test_a_providers_built_in_tools_stay_and_pin_the_call(built_in):
    tools = dialect.tools_of({"tools": [BOOK, built_in]})
    assert tools == [BOOK, built_in]
    assert dialect.pin({}, tools) == "the provider's own tools pin the call to it"


def test_function_tools_pin_nothing():
    assert dialect.pin({"tools": [BOOK], "logprobs": False}, [BOOK]) is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("functions", [BOOK["function"]]),
        ("web_search_options", {"search_context_size": "low"}),
        ("modalities", ["text", "audio"]),
        ("logprobs", True),
    ],
)
def test_options_that_only_the_provider_keeps_pin_the_call(option, value):
    why = f"the option {option} pins the call to its provider"
    assert dialect.pin({option: value}, []) == why


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        (False, None),
        ("", None),
        (True, "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        ("book", REQUIRED_BOOK),
        (REQUIRED_BOOK, REQUIRED_BOOK),
        ({"type": "tool", "name": "book"}, REQUIRED_BOOK),
        ({"type": "any"}, "required"),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
        ({"type": "none"}, "none"),
        ({"tool": {"name": "book"}}, REQUIRED_BOOK),
        ({"any": {}}, "required"),
        ({"auto": {}}, "auto"),
    ],
)
def test_a_tool_choice_of_any_dialect_is_read(choice, expected):
    assert dialect.tool_choice_of({"tool_choice": choice}) == expected


# Response formats


def test_a_class_as_response_format_becomes_its_json_schema():
    found = dialect.response_format_of({"response_format": Trip})
    assert found["type"] == "json_schema"
    assert found["json_schema"]["name"] == "Trip"
    assert found["json_schema"]["schema"]["required"] == ["city"]


def test_a_typed_dict_as_response_format_becomes_its_json_schema():
    found = dialect.response_format_of({"response_format": Page})
    assert found["json_schema"]["schema"]["properties"] == {"title": {"type": "string"}}


def test_a_dict_as_response_format_stays():
    stated = {"type": "json_object"}
    assert dialect.response_format_of({"response_format": stated}) is stated


def test_nvidias_guided_json_is_a_response_format():
    found = dialect.response_format_of({"guided_json": BOOK_SCHEMA})
    assert found["json_schema"] == {"name": "response", "schema": BOOK_SCHEMA}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"kwargs": {"method": "function_calling"}, "schema": BOOK}, None),
        ({"kwargs": {"method": "json_mode"}, "schema": None}, {"type": "json_object"}),
        ({"schema": BOOK}, None),
        (
            {"kwargs": {"method": "json_schema"}, "schema": BOOK_SCHEMA},
            {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": BOOK_SCHEMA},
            },
        ),
        (
            {"kwargs": {"method": "json_schema"}, "schema": BOOK},
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "book",
                    "schema": {"title": "book", "description": "Book.", **BOOK_SCHEMA},
                },
            },
        ),
    ],
)
def test_other_providers_tell_langchain_of_their_structured_output(told, expected):
    options = {"ls_structured_output_format": told}
    assert dialect.response_format_of(options) == expected


def test_the_name_of_a_schema_keeps_openais_rule():
    titled = {"title": "Trip (é) " + "x" * 90, "type": "object"}
    name = dialect.response_format_of({"guided_json": titled})["json_schema"]["name"]
    assert name == "Trip_____" + "x" * 55


# Requests


def test_a_request_says_all_that_decides_the_answer():
    model = openai(
        temperature=0, model_kwargs={"response_format": {"type": "json_object"}}
    )
    request = dialect.request_of(
        model, [SystemMessage("Be brief."), HumanMessage("Hi")], {"tools": [BOOK]}
    )
    assert request.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    )
    assert request.tools == (BOOK,)
    assert request.response_format == {"type": "json_object"}
    assert request.parameters == {"temperature": 0}


def test_messages_keep_names_roles_tools_and_parts():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    call = {"name": "book", "args": {"city": "Rome"}, "id": "call_0"}
    assert dialect.openai_messages(
        [
            SystemMessage("Hi", additional_kwargs={"__openai_role__": "developer"}),
            ChatMessage("Hi", role="critic"),
            HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            HumanMessage(["What is it?", image], name="ann"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("Done", tool_call_id="call_0"),
            AIMessage("Booked."),
        ]
    ) == [
        {"role": "developer", "content": "Hi"},
        {"role": "critic", "content": "Hi"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "What is it?"}, image],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "call_0",
                    "function": {"name": "book", "arguments": '{"city": "Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "Done"},
        {"role": "assistant", "content": "Booked."},
    ]


# Answers


def test_an_answer_has_text_finish_reason_and_usage():
    message = AIMessage(
        "Rome",
        response_metadata={"finish_reason": "stop"},
        usage_metadata={"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
    )
    answer = dialect.answer_of(message)
    assert answer.message == {"role": "assistant", "content": "Rome"}
    assert answer.finish_reason == "stop"
    assert answer.usage == Usage(input_tokens=3, output_tokens=1)
    assert not answer.abstained


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"stop_reason": "end_turn"}, "end_turn"),
        ({"stopReason": "max_tokens"}, "max_tokens"),
        ({"done_reason": "length"}, "length"),
        ({"status": "incomplete"}, "incomplete"),
        ({"finish_reason": None, "status": 200}, None),
        ({"finish_reason": ""}, None),
        ({}, None),
    ],
)
def test_the_finish_reason_is_read_under_each_providers_name(metadata, reason):
    answer = dialect.answer_of(AIMessage("Rome", response_metadata=metadata))
    assert answer.finish_reason == reason


def test_an_answer_in_blocks_is_its_text_without_reasoning():
    blocks = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Ro"},
        {"type": "text", "text": "me"},
        {"type": "unheard_of", "data": object()},
    ]
    assert dialect.answer_of(AIMessage(blocks)).message["content"] == "Rome"


def test_broken_tool_calls_are_part_of_the_answer():
    message = AIMessage(
        "",
        tool_calls=[{"name": "book", "args": {"city": "Köln"}, "id": "a"}],
        invalid_tool_calls=[{"name": "book", "args": "{city", "id": "b", "error": None}],
    )
    assert dialect.answer_of(message).tool_calls == [
        {"name": "book", "arguments": '{"city": "Köln"}'},
        {"name": "book", "arguments": "{city"},
    ]


def test_tool_arguments_of_chunks_are_as_they_came():
    chunk = {"name": "book", "args": '{"city": "Ro', "id": "a", "index": 0}
    message = AIMessageChunk("", tool_call_chunks=[chunk])
    assert message.tool_calls[0]["args"] == {"city": "Ro"}  # LangChain repairs them
    assert dialect.answer_of(message).tool_calls == [
        {"name": "book", "arguments": '{"city": "Ro'}
    ]


def test_an_abstention_is_part_of_the_answer():
    message = AIMessage("", response_metadata={"abstained": True})
    assert dialect.answer_of(message).abstained


def told(*logprobs: object) -> dict[str, object]:
    """Metadata of an answer with these logprobs of its tokens."""
    content = [{"token": "a", "logprob": logprob} for logprob in logprobs]
    return {"logprobs": {"content": content, "refusal": None}}


@pytest.mark.parametrize(
    ("about", "confidence"),
    [
        ({}, None),
        ({"confidence": 0.875}, 0.875),  # a head's
        ({"confidence": "high"}, None),
        ({"confidence": 7}, None),
        (told(0.0), 1.0),
        (told(math.log(0.5), math.log(0.125)), pytest.approx(0.25)),
        (told(-9999.0), 0.0),  # OpenAI's for what is most unlikely
        (told(-math.inf), 0.0),
        (told(math.nan), None),
        (told(1.0), None),
        (told(1e6), None),
        (told("0.5"), None),
        (told(None), None),
        (told(), None),
        ({"logprobs": None}, None),
        ({"logprobs": {"content": None}}, None),  # of a tool call
        ({"logprobs": {"content": ["a"]}}, None),
        ({"logprobs": {"content": [{"token": "a"}]}}, None),
        ({"logprobs": [-0.5]}, None),
    ],
)
def test_how_sure_a_model_is_is_what_it_says_or_the_mean_of_its_tokens(about, confidence):
    message = AIMessage("Rome", response_metadata=about)
    assert dialect.answer_of(message).confidence == confidence


class Sure(Endpoint):
    """Says how likely each of its words was."""

    def _events(self, asked):
        for event in super()._events(asked):
            for choice in event["choices"]:
                if choice["delta"].get("content"):
                    choice["logprobs"] = told(math.log(0.5))["logprobs"]
            yield event


def test_how_sure_a_model_is_adds_up_over_a_stream():
    with Sure("Rome is far") as endpoint:
        whole = merged(list(endpoint.openai(logprobs=True).stream("Where to?")))
    assert len(whole.response_metadata["logprobs"]["content"]) == 3
    assert dialect.answer_of(whole).confidence == pytest.approx(0.5)


def test_a_message_of_another_kind_is_only_its_text():
    assert dialect.answer_of(HumanMessage("Hi")).tool_calls == []


# Adapting


def test_the_models_name_never_travels_but_its_sampling_does():
    source = openai(temperature=0, max_completion_tokens=9)
    options = {"model": "gpt-other", "seed": 3}
    adapted = {"temperature": 0, "max_tokens": 9, "seed": 3}
    assert dialect.adapt(source, openai(model="slm"), options) == adapted
    assert dialect.adapt(source, nvidia(), options) == adapted


def test_what_belongs_to_the_sources_endpoint_stays_behind():
    options = {
        "extra_headers": {"Authorization": "secret"},
        "extra_body": {"x": 1},
        "reasoning_effort": "high",
        "user": "ann",
        "parallel_tool_calls": False,
    }
    for target in (openai(model="slm"), nvidia()):
        adapted = dialect.adapt(openai(), target, options)
        assert adapted == {"parallel_tool_calls": False}


def test_a_target_of_the_sources_class_gets_the_format_as_it_was():
    options = {"tools": [BOOK], "tool_choice": "auto", "response_format": Trip}
    assert dialect.adapt(openai(), openai(model="slm"), options) == options


def test_another_target_gets_tools_choice_and_format_in_openais_form():
    adapted = dialect.adapt(
        openai(),
        nvidia(),
        {
            "tools": [
                {"name": "book", "description": "Book.", "input_schema": BOOK_SCHEMA}
            ],
            "tool_choice": {"type": "tool", "name": "book"},
            "response_format": Trip,
        },
    )
    assert adapted["tools"] == [BOOK]
    assert adapted["tool_choice"] == REQUIRED_BOOK
    assert adapted["response_format"]["json_schema"]["name"] == "Trip"


def test_what_the_source_adds_to_every_call_is_adapted_too():
    source = openai(model_kwargs={"response_format": {"type": "json_object"}})
    adapted = dialect.adapt(source, nvidia(), {})
    assert adapted == {"response_format": {"type": "json_object"}}


# Restoring


def test_the_object_that_chat_openais_parser_reads_is_restored():
    message = AIMessage('{"city": "Rome"}', additional_kwargs={"parsed": None})
    added = dialect.restore(message, {"response_format": Trip})
    assert added == {"parsed": Trip(city="Rome", nights=1)}


@pytest.mark.parametrize("text", ["Rome", "{}", '{"city": "Rome", "nights": 0}'])
def test_a_text_that_gives_no_such_object_is_refused(text):
    with pytest.raises(ValidationError):
        dialect.restore(AIMessage(text), {"response_format": Trip})


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (AIMessage('{"city": "Rome"}'), None),
        (AIMessage('{"city": "Rome"}'), {"type": "json_object"}),
        (AIMessage('{"title": "a"}'), Page),
        (AIMessage("", additional_kwargs={"parsed": Trip(city="Rome")}), Trip),
        (AIMessage("", tool_calls=[{"name": "book", "args": {}, "id": "a"}]), Trip),
    ],
)
def test_nothing_is_restored_where_no_parser_looks_for_it(message, wanted):
    assert dialect.restore(message, {"response_format": wanted}) == {}


def test_a_class_is_converted_once():
    class Ticket(BaseModel):
        label: Literal["a", "b"]

    options = {"response_format": Ticket}
    first = dialect.response_format_of(options)
    assert dialect.response_format_of(options) is first


def test_a_request_keeps_whether_tools_may_be_called_in_parallel():
    # A candidate must be evaluated under what it is asked at run time.
    options = {"parallel_tool_calls": False, "temperature": 0.5}
    request = dialect.request_of(FakeChat(), [HumanMessage("hi")], options)
    assert request.parameters == {"parallel_tool_calls": False, "temperature": 0.5}


def test_json_mode_is_held_to_the_schema_that_the_parser_expects():
    class Label(BaseModel):
        label: Literal["a", "b"]

    chain = ChatOpenAI(model="m", api_key="none").with_structured_output(
        Label, method="json_mode"
    )
    options = chain.steps[0].kwargs
    assert dialect.response_format_of(options) == {"type": "json_object"}
    schema = dialect.json_mode_schema_of(options)
    contract = contract_of([], None, {"type": "json_object"}, schema=schema)
    judge = EscalateOnInvalid().objection
    assert judge(answer_saying('{"label": "a"}'), contract) is None
    assert judge(answer_saying('{"label": "zz"}'), contract) == "outside its schema"
    assert dialect.json_mode_schema_of({}) is None


def answer_saying(text):
    return Answer(message={"role": "assistant", "content": text}, finish_reason="stop")
