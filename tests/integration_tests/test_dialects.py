"""Bindings that models of other providers made, asked of OpenAI and NVIDIA models."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from integration_tests.dialect_apps import (
    BOOK,
    BOOK_ROME,
    MODES,
    NAMED_BOOK,
    TARGETS,
    TRIP_SCHEMA,
    Desk,
    Trip,
    TripDict,
    asks,
    book,
    find_train,
    opened,
    run,
)
from integration_tests.provider_server import NAMES
from integration_tests.schema_server import answer
from langchain.chat_models import init_chat_model
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing import dialect
from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.router import Router

# Google's client, of the class that it makes of aiohttp's at its first asynchronous call.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"
)
PROVIDERS = tuple(NAMES)
sources = pytest.mark.parametrize("provider", PROVIDERS)
targets = pytest.mark.parametrize("kind", TARGETS)
modes = pytest.mark.parametrize("mode", MODES)
two_modes = pytest.mark.parametrize("mode", ["invoke", "astream"])
DECIDED = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "stop")


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with opened() as desk:
        yield desk


def decided(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what of a request the app's binding decides."""
    return {name: asked[name] for name in DECIDED if name in asked}


def calls_of(message: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls]


# Names


@sources
def test_a_source_is_called_as_its_provider_calls_it(desk, provider):
    source = desk.source(provider)
    assert dialect.model_name(source) == NAMES[provider]
    assert dialect.provider_name(source) == provider


def test_googles_folder_is_no_part_of_a_models_name(desk):
    source = desk.source("google_genai", model="models/gemini-2.5-flash")
    assert dialect.model_name(source) == "gemini-2.5-flash"


def test_a_folder_of_another_provider_is_part_of_the_name(desk):
    source = desk.source("groq", model="models/mine")
    assert dialect.model_name(source) == "models/mine"


# Text


@sources
@targets
@modes
def test_plain_text_comes_from_the_target(desk, provider, kind, mode):
    app = desk.bound(desk.source(provider), kind, mode)
    with desk.reached() as asked:
        said = run(app, mode, [SystemMessage("Be brief."), HumanMessage("Hello.")])
    assert said.text.startswith('You said "Hello."')
    assert [each["model"] for each in asked] == ["small"]
    assert asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
    ]
    assert decided(asked[0]) == {}


@sources
@targets
@two_modes
def test_stop_words_and_limits_travel_under_openais_names(desk, provider, kind, mode):
    limit = {"google_genai": "max_output_tokens", "ollama": "num_predict"}
    source = desk.source(provider, **{limit.get(provider, "max_tokens"): 9})
    app = desk.bound(source.bind(stop=["you"]), kind, mode)
    with desk.reached() as asked:
        said = run(app, mode, ["Hello."])
    assert said.text == 'You said "Hello.". What would '
    assert asked[0]["stop"] == ["you"]
    assert asked[0].get("max_completion_tokens", asked[0].get("max_tokens")) == 9


@sources
@targets
def test_stop_words_that_the_source_always_has_travel(desk, provider, kind):
    source = desk.source(provider, stop=["you"])
    with desk.reached() as asked:
        said = run(desk.bound(source, kind, "invoke"), "invoke", ["Hello."])
    assert said.text == 'You said "Hello.". What would '
    assert asked[0]["stop"] == ["you"]


@targets
def test_the_limit_that_chat_anthropic_fills_in_stays_behind(desk, kind):
    source = desk.source("anthropic")
    assert source.max_tokens == source.profile["max_output_tokens"]
    unlimited = desk.target(kind)
    with desk.reached() as asked:
        run(desk.bound(source, kind, "invoke"), "invoke", ["Hello."])
        unlimited.invoke("Hello.")
    limits = [
        (each.get("max_tokens"), each.get("max_completion_tokens")) for each in asked
    ]
    assert limits[0] == limits[1]


@targets
@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("google_genai", {"generation_config": {"max_output_tokens": 99}}),
        ("ollama", {"options": {"num_predict": 99}}),
    ],
)
def test_limits_within_another_option_travel(desk, kind, provider, options):
    source = desk.source(provider).bind(**options)
    with desk.reached() as asked:
        run(desk.bound(source, kind, "invoke"), "invoke", ["Hello."])
    assert asked[0].get("max_completion_tokens", asked[0].get("max_tokens")) == 99


# Tools


@sources
@targets
@modes
def test_bound_tools_are_called_by_the_target(desk, provider, kind, mode):
    app = desk.bound(desk.source(provider).bind_tools([book, find_train]), kind, mode)
    with desk.reached() as asked:
        said = run(app, mode, [BOOK_ROME])
    assert calls_of(said) == [("book", {"city": "Rome", "nights": 3})]
    assert [each["function"]["name"] for each in asked[0]["tools"]] == [
        "book",
        "find_train",
    ]
    assert asked[0]["tools"][0] == BOOK
    assert "tool_choice" not in asked[0]


@sources
@targets
@modes
def test_tools_are_called_in_parallel(desk, provider, kind, mode):
    app = desk.bound(desk.source(provider).bind_tools([book, find_train]), kind, mode)
    with desk.reached():
        said = run(app, mode, ["Use book and find_train for 'Rome' and 'Oslo'."])
    assert calls_of(said) == [
        ("book", {"city": "Rome"}),
        ("find_train", {"city": "Rome"}),
    ]


@targets
@pytest.mark.parametrize("provider", ["anthropic", "groq"])
def test_calls_one_by_one_stay_so(desk, provider, kind):
    source = desk.source(provider)
    app = source.bind_tools([book, find_train], parallel_tool_calls=False)
    with desk.reached() as asked:
        said = run(
            desk.bound(app, kind, "invoke"),
            "invoke",
            ["Use book and find_train for 'Rome' and 'Oslo'."],
        )
    assert calls_of(said) == [("book", {"city": "Rome"})]
    assert asked[0]["parallel_tool_calls"] is False


CHOICES: list[tuple[str, Any, Any]] = [
    ("anthropic", "auto", "auto"),
    ("anthropic", "any", "required"),
    ("anthropic", "book", NAMED_BOOK),
    ("anthropic", {"type": "auto"}, "auto"),
    ("anthropic", {"type": "any"}, "required"),
    ("anthropic", {"type": "none"}, "none"),
    ("anthropic", {"type": "tool", "name": "book"}, NAMED_BOOK),
    ("google_genai", "auto", "auto"),
    ("google_genai", "any", "required"),
    ("google_genai", "required", "required"),
    ("google_genai", "none", "none"),
    ("google_genai", True, "required"),
    ("google_genai", "book", NAMED_BOOK),
    ("google_genai", ["book"], NAMED_BOOK),
    ("google_genai", ["book", "find_train"], "required"),
    ("groq", "auto", "auto"),
    ("groq", "any", "required"),
    ("groq", "required", "required"),
    ("groq", "none", "none"),
    ("groq", "book", NAMED_BOOK),
    ("groq", NAMED_BOOK, NAMED_BOOK),
]


@pytest.mark.parametrize(("provider", "choice", "expected"), CHOICES)
@targets
@two_modes
def test_a_tool_choice_means_to_the_target_what_it_meant(
    desk, provider, choice, expected, kind, mode
):
    tools = [find_train, book]
    app = desk.source(provider).bind_tools(tools, tool_choice=choice)
    with desk.reached() as asked:
        said = run(desk.bound(app, kind, mode), mode, ["Hello, 'Rome'."])
    assert asked[0]["tool_choice"] == expected
    assert len(asked[0]["tools"]) == (1 if choice == ["book"] else 2)
    wanted = {"auto": [], "none": [], "required": ["find_train"]}
    called = wanted.get(expected, ["book"]) if isinstance(expected, str) else ["book"]
    assert [name for name, _ in calls_of(said)] == called


@pytest.mark.parametrize(
    ("config", "expected", "offered"),
    [
        ({"mode": "AUTO"}, "auto", 2),
        ({"mode": "NONE"}, "none", 2),
        ({"mode": "ANY"}, "required", 2),
        ({"mode": "ANY", "allowed_function_names": ["book"]}, NAMED_BOOK, 1),
    ],
)
@pytest.mark.parametrize("as_object", [False, True])
@targets
def test_googles_tool_config_is_a_tool_choice(
    desk, config, expected, offered, as_object, kind
):
    from google.genai.types import ToolConfig  # noqa: PLC0415 - of this test alone

    given: Any = {"function_calling_config": config}
    given = ToolConfig.model_validate(given) if as_object else given
    source = desk.source("google_genai")
    app = source.bind_tools([find_train, book], tool_config=given)
    with desk.reached() as asked:
        run(desk.bound(app, kind, "invoke"), "invoke", ["Hello, 'Rome'."])
    assert asked[0]["tool_choice"] == expected
    assert len(asked[0]["tools"]) == offered


@targets
@pytest.mark.parametrize("choice", ["auto", "any", "book", True, NAMED_BOOK])
def test_chat_ollama_itself_drops_a_tool_choice(desk, choice, kind):
    # langchain-ollama: "This parameter is currently ignored as it is not supported by
    # Ollama". What an app never told its model, no target is told.
    app = desk.source("ollama").bind_tools([book], tool_choice=choice)
    assert "tool_choice" not in app.kwargs
    with desk.reached() as asked:
        said = run(desk.bound(app, kind, "invoke"), "invoke", ["Hello, 'Rome'."])
    assert "tool_choice" not in asked[0]
    assert calls_of(said) == []


@sources
@targets
def test_tools_that_are_bound_as_strict(desk, provider, kind):
    app = desk.source(provider).bind_tools([book], strict=True)
    with desk.reached() as asked:
        said = run(desk.bound(app, kind, "invoke"), "invoke", [BOOK_ROME])
    assert calls_of(said) == [("book", {"city": "Rome", "nights": 3})]
    function = asked[0]["tools"][0]["function"]
    # Only Anthropic's package keeps it: the others have no such mode.
    assert function.get("strict", False) == (provider == "anthropic")
    if provider == "anthropic":
        assert function["parameters"]["additionalProperties"] is False
        assert function["parameters"]["required"] == ["city", "nights"]


@targets
def test_a_strict_tool_with_optional_arguments_is_no_strict_tool_of_openais(desk, kind):
    strict = {
        "name": "book",
        "description": "Book a hotel.",
        "input_schema": PARAMETERS_OF_A_DICT,
        "strict": True,
        "cache_control": {"type": "ephemeral"},
        "input_examples": [{"city": "Rome"}],
    }
    app = desk.source("anthropic").bind_tools([strict])
    with desk.reached() as asked:
        run(desk.bound(app, kind, "invoke"), "invoke", [BOOK_ROME])
    assert asked[0]["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "book",
                "description": "Book a hotel.",
                "parameters": PARAMETERS_OF_A_DICT,
            },
        }
    ]


PARAMETERS_OF_A_DICT = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
    "required": ["city"],
}


# Structured output

METHODS = {
    "anthropic": ("json_schema", "function_calling"),
    "google_genai": ("json_schema", "function_calling", "json_mode"),
    "groq": ("json_schema", "function_calling", "json_mode"),
    "ollama": ("json_schema", "function_calling", "json_mode"),
}
SCHEMAS: dict[str, tuple[Any, Any]] = {
    "pydantic": (Trip, Trip(city="Rome", month="May")),
    "typed_dict": (TripDict, {"city": "Rome", "month": "May"}),
    "json_schema": (TRIP_SCHEMA, {"city": "Rome", "month": "May"}),
}
ASKED_FOR_JSON = (
    "A trip to 'Rome' in 'May', as a JSON with 'city' and 'month' keys; call the "
    "tool Trip, TripDict or trip."
)


def assert_asks_for(asked: dict[str, Any], provider: str, method: str) -> None:
    if method == "function_calling":
        (function,) = (each["function"] for each in asked["tools"])
        named = {"type": "function", "function": {"name": function["name"]}}
        # ChatOllama drops the choice, see above.
        assert asked.get("tool_choice") == (None if provider == "ollama" else named)
        assert "response_format" not in asked
        return
    wanted = asked["response_format"]
    # To Google's package json_mode is another name for json_schema.
    if method == "json_mode" and provider != "google_genai":
        assert wanted == {"type": "json_object"}
        return
    body = wanted["json_schema"]
    assert wanted["type"] == "json_schema"
    assert body["name"] in ("Trip", "TripDict", "trip")
    assert set(body["schema"]["properties"]) == {"city", "month"}


@pytest.mark.parametrize(
    ("provider", "method"), [(p, method) for p in PROVIDERS for method in METHODS[p]]
)
@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("include_raw", [False, True])
@targets
def test_structured_output_is_the_object_that_the_own_provider_gives(
    desk, provider, method, schema, include_raw, kind
):
    given, expected = SCHEMAS[schema]
    app = desk.source(provider).with_structured_output(
        given, method=method, include_raw=include_raw
    )
    every_way = schema == "pydantic" and not include_raw
    for mode in MODES if every_way else ("invoke", "astream"):
        with desk.reached() as asked:
            out = run(desk.bound(app, kind, mode), mode, [ASKED_FOR_JSON])
        assert (out["parsed"] if include_raw else out) == expected
        assert_asks_for(asked[0], provider, method)

    said = answer(asked[0])
    desk.says(said.text, *said.calls)
    own = run(asks(app, "invoke"), "invoke", [ASKED_FOR_JSON])
    assert (own["parsed"] if include_raw else own) == expected


HELD: list[tuple[str, dict[str, Any], Any]] = [
    ("ollama", {"format": TRIP_SCHEMA}, "trip"),
    ("ollama", {"format": "json"}, None),
    ("google_genai", {"response_mime_type": "application/json"}, None),
    (
        "google_genai",
        {"response_mime_type": "application/json", "response_schema": TRIP_SCHEMA},
        "trip",
    ),
    (
        "anthropic",
        {"output_config": {"format": {"type": "json_schema", "schema": TRIP_SCHEMA}}},
        "trip",
    ),
    ("groq", {"model_kwargs": {"response_format": {"type": "json_object"}}}, None),
]


@pytest.mark.parametrize(("provider", "settings", "name"), HELD)
@targets
@two_modes
def test_the_form_of_answers_that_a_source_always_gives_is_the_targets(
    desk, provider, settings, name, kind, mode
):
    bound = desk.bound(desk.source(provider, **settings), kind, mode)
    with desk.reached() as asked:
        said = run(bound, mode, [ASKED_FOR_JSON])
    assert json.loads(said.text) == {"city": "Rome", "month": "May"}
    wanted = asked[0]["response_format"]
    assert wanted.get("json_schema", {}).get("name") == name


@targets
@modes
def test_a_source_that_thinks_forces_no_tool_but_expects_its_call(desk, kind, mode):
    source = desk.source("anthropic", thinking={"type": "enabled", "budget_tokens": 1024})
    with pytest.warns(UserWarning, match="structured output via forced tool calling"):
        app = source.with_structured_output(Trip)
    with desk.reached() as asked:
        out = run(desk.bound(app, kind, mode), mode, [ASKED_FOR_JSON])
    assert out == Trip(city="Rome", month="May")
    assert "tool_choice" not in asked[0]

    desk.says("", ("Trip", '{"city": "Oslo"}'))  # the target will not call it
    out = run(desk.bound(app, kind, mode), mode, ["To 'Oslo'."])
    assert out == Trip(city="Oslo", month="any")


@pytest.mark.parametrize(
    ("provider", "method"), [(p, method) for p in PROVIDERS for method in METHODS[p]]
)
@pytest.mark.parametrize("include_raw", [False, True])
def test_a_chat_router_in_the_place_of_a_source_gives_the_same_object(
    desk, provider, method, include_raw
):
    router = Router({"ask": desk.target("openai")})
    model = ChatRouter(default=desk.source(provider), router=router, site="ask")
    app = model.with_structured_output(Trip, method=method, include_raw=include_raw)
    with desk.reached() as asked:
        out = app.invoke(ASKED_FOR_JSON)
    assert (out["parsed"] if include_raw else out) == Trip(city="Rome", month="May")
    assert_asks_for(asked[0], provider, method)


# Targets of other providers

SMALL = {
    "anthropic": "claude-haiku-5-5",
    "google_genai": "gemini-2.5-flash-lite",
    "groq": "llama-3.1-8b-instant",
    "ollama": "llama3.2",
}
LIMITS = {"google_genai": "max_output_tokens", "ollama": "num_predict"}
BOOKED = ("book", '{"city": "Rome", "nights": 3}')
TRIP = ("Trip", '{"city": "Rome", "month": "May"}')


@sources
@pytest.mark.parametrize("to", PROVIDERS)
@two_modes
def test_models_of_other_providers_are_targets_too(desk, provider, to, mode):
    limit = LIMITS.get(provider, "max_tokens")
    source = desk.source(provider, temperature=0.5, stop=["END"], **{limit: 99})
    ended: list[Any] = []
    small = {"ask": desk.source(to, model=SMALL[to])}
    router = Router(small, listeners=[ended.append])
    for app, said, expected in (
        (source, ("Hello.",), "Hello."),
        (source.bind_tools([book]), ("", BOOKED), [BOOKED]),
        (source.with_structured_output(Trip, method="json_schema"), (TRIP[1],), TRIP),
        (
            source.with_structured_output(Trip, method="function_calling"),
            ("", TRIP),
            TRIP,
        ),
    ):
        desk.says(*said)
        out = run(rewrite(asks(app, mode), router), mode, ["Hello."])
        if isinstance(expected, list):
            assert calls_of(out) == [("book", {"city": "Rome", "nights": 3})]
        else:
            assert out == Trip(city="Rome", month="May") or out.text == expected
    assert [(each.model, each.reason) for each in ended] == [(SMALL[to], None)] * 4


# Models chosen by name


@targets
@modes
def test_a_model_that_is_chosen_by_name_at_run_time_is_a_source(desk, kind, mode):
    root = desk.provider.url.removesuffix("/v1")
    model = init_chat_model(
        f"anthropic:{NAMES['anthropic']}",
        configurable_fields=("model", "model_provider"),
        base_url=root,
        api_key="any",
    )
    bound = desk.bound(model.bind_tools([book]), kind, mode)
    for chosen in ({}, {"model": NAMES["groq"], "model_provider": "groq"}):
        with desk.reached() as asked:
            said = run(bound, mode, [BOOK_ROME], configurable=chosen)
        assert calls_of(said) == [("book", {"city": "Rome", "nights": 3})]
        assert asked[0]["tools"] == [BOOK]
