from typing import TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda, RunnablePassthrough, RunnableSequence
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ValidationError
from unit_tests.fake_chat import FakeChat
from unit_tests.routed import BOOK, BOOK_SCHEMA

from langchain_slm.routing import dialect
from langchain_slm.routing.structured import METHODS, rebound, structured

URL = "http://localhost:9/v1"
TRIP_SCHEMA = {"title": "trip", "description": "A trip.", **BOOK_SCHEMA}
CALL = {"name": "Trip", "args": {"city": "Rome", "nights": 2}, "id": "call_0"}


class Trip(BaseModel):
    """A trip."""

    city: str
    nights: int = 1


class Page(TypedDict):
    """A page."""

    title: str


def openai():
    """A model that fails a test if it is asked: nothing listens there."""
    return ChatOpenAI(model="ref", api_key="any", base_url=URL, max_retries=0)


def saying(answer):
    return FakeChat(reply=lambda messages: answer)


def trip_in(method):
    """What a model answers that was asked for a trip by this method."""
    if method == "function_calling":
        return AIMessage("", tool_calls=[CALL])
    if method == "json_schema":  # as ChatOpenAI's parser finds it
        trip = Trip(city="Rome", nights=2)
        return AIMessage("...", additional_kwargs={"parsed": trip})
    return AIMessage('{"city": "Rome", "nights": 2}')


def models_in(runnable):
    """Every chat model that a runnable would call."""
    found, left = [], [runnable]
    while left:
        part = left.pop()
        if isinstance(part, ChatOpenAI | FakeChat):
            found.append(part)
            continue
        steps = getattr(part, "steps__", {}).values()
        parts = [getattr(part, n, None) for n in ("bound", "mapper", "runnable")]
        more = [*getattr(part, "steps", ()), *getattr(part, "fallbacks", ())]
        left += [part for part in (*parts, *steps, *more) if part is not None]
    return found


# Another model in what a model returned


def test_a_model_is_replaced_by_itself():
    old, new = openai(), FakeChat()
    assert rebound(old, old, new) is new


def test_what_does_not_hold_the_model_stays_the_same_object():
    other = RunnableLambda(str)
    assert rebound(other, openai(), FakeChat()) is other


def test_an_equal_model_is_not_the_model():
    old, equal = openai(), openai()
    assert rebound(equal, old, FakeChat()) is equal


@pytest.mark.parametrize("choice", [None, "book", "any"])
def test_bound_tools_go_to_the_new_model(choice):
    old, new = openai(), saying(AIMessage("", tool_calls=[CALL]))
    bound = old.bind_tools([BOOK], **({"tool_choice": choice} if choice else {}))
    again = rebound(bound, old, new)
    assert again.invoke("Where to?").tool_calls[0]["args"] == CALL["args"]
    assert new.options[0]["tools"] == [BOOK]
    assert new.options[0] == bound.kwargs


@pytest.mark.parametrize("method", METHODS)
def test_structured_output_of_chat_openai_is_asked_of_the_new_model(method):
    old, new = openai(), saying(trip_in(method))
    made = old.with_structured_output(Trip, method=method)
    assert rebound(made, old, new).invoke("Where to?") == Trip(city="Rome", nights=2)
    assert len(new.asked) == 1


@pytest.mark.parametrize("method", METHODS)
def test_with_include_raw_the_new_models_message_is_shown(method):
    answer = trip_in(method)
    old, new = openai(), saying(answer)
    made = old.with_structured_output(Trip, method=method, include_raw=True)
    told = rebound(made, old, new).invoke("Where to?")
    assert told["raw"].content == answer.content
    assert told["parsed"] == Trip(city="Rome", nights=2)
    assert told["parsing_error"] is None
    assert len(new.asked) == 1


@pytest.mark.parametrize("method", METHODS)
async def test_structured_output_is_asked_asynchronously_too(method):
    old, new = openai(), saying(trip_in(method))
    made = old.with_structured_output(Trip, method=method, include_raw=True)
    told = await rebound(made, old, new).ainvoke("Where to?")
    assert told["parsed"] == Trip(city="Rome", nights=2)


@pytest.mark.parametrize("method", ["function_calling", "json_mode"])
def test_with_include_raw_a_parsing_error_is_told_of_the_new_model(method):
    call = {"name": "Trip", "args": {"nights": 2}, "id": "call_0"}
    bad = AIMessage('{"nights": 2}', tool_calls=[call])
    old, new = openai(), saying(bad)
    made = old.with_structured_output(Trip, method=method, include_raw=True)
    told = rebound(made, old, new).invoke("Where to?")
    assert told["raw"].tool_calls == bad.tool_calls
    assert told["parsed"] is None
    assert isinstance(told["parsing_error"], ValidationError | OutputParserException)


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Trip, Page, TRIP_SCHEMA])
def test_no_shape_of_chat_openai_keeps_the_old_model(schema, method, include_raw):
    old, new = openai(), FakeChat()
    made = old.with_structured_output(schema, method=method, include_raw=include_raw)
    assert models_in(made) == [old]
    assert models_in(rebound(made, old, new)) == [new]
    assert models_in(made) == [old]  # what the app may hold stays as it was


def test_options_names_and_config_of_bindings_stay():
    old, new = openai(), FakeChat()
    chain = (old.bind(stop=["END"]) | RunnableLambda(lambda m: m.content)).with_config(
        tags=["mine"], run_name="chain"
    )
    again = rebound(chain, old, new)
    assert again.config == chain.config
    assert again.invoke("hi") == "echo hi"
    assert new.options == [{}]  # stop words are an argument of their own
    assert again.bound.steps[0].kwargs == {"stop": ["END"]}


def test_models_are_replaced_in_fallbacks_and_assignments():
    old, new = openai(), FakeChat()
    chain = RunnablePassthrough.assign(
        answer=RunnableLambda(lambda asked: asked["text"])
        | RunnableLambda(_refusing).with_fallbacks([old]),
    )
    again = rebound(chain, old, new)
    assert again.invoke({"text": "hi"})["answer"].content == "echo hi"


def _refusing(text):
    raise ConnectionError


def test_a_model_is_replaced_behind_a_retry():
    old, new = openai(), FakeChat()
    again = rebound(old.bind(seed=1).with_retry(), old, new)
    assert again.invoke("hi").content == "echo hi"
    assert new.options == [{"seed": 1}]


def test_a_sequence_keeps_its_name():
    old = openai()
    chain = RunnableSequence(old, RunnableLambda(str), name="mine")
    assert rebound(chain, old, FakeChat()).get_name() == "mine"


# Structured output of a model that knows no methods


def nvidia_like():
    """What is bound is what ChatNVIDIA is sent."""
    return ChatNVIDIA(model="slm", api_key="any", base_url=URL)


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_a_pydantic_class_gives_objects_of_it(method):
    chain = structured(saying('{"city": "Rome"}'), Trip, method, include_raw=False)
    assert chain.invoke("Where to?") == Trip(city="Rome", nights=1)


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("schema", [Page, TRIP_SCHEMA])
def test_other_schemas_give_dicts(method, schema):
    chain = structured(saying('{"title": "A"}'), schema, method, include_raw=False)
    assert chain.invoke("Which page?") == {"title": "A"}


def test_the_schema_is_asked_for_in_openais_form():
    model = saying('{"city": "Rome"}')
    structured(model, Trip, "json_schema", include_raw=False).invoke("Where to?")
    form = model.options[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Trip"
    assert form["json_schema"]["schema"]["required"] == ["city"]


@pytest.mark.parametrize("schema", [Trip, Page, TRIP_SCHEMA])
def test_json_mode_asks_for_any_object(schema):
    model = saying("{}")
    chain = structured(model, schema, "json_mode", include_raw=True)
    chain.invoke("Where to?")
    assert model.options[0]["response_format"] == {"type": "json_object"}


def test_json_mode_tells_the_router_what_the_parser_expects():
    chain = structured(nvidia_like(), Trip, "json_mode", include_raw=False)
    expected = dialect.json_mode_schema_of(chain.steps[0].kwargs)
    assert expected["required"] == ["city"]


def test_json_mode_needs_no_schema():
    chain = structured(saying('{"a": 1}'), None, "json_mode", include_raw=False)
    assert chain.invoke("Anything?") == {"a": 1}


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("text", ["Rome", '{"nights": 2}', '{"city": 7}', ""])
def test_an_answer_outside_the_class_is_an_error(method, text):
    chain = structured(saying(text), Trip, method, include_raw=False)
    with pytest.raises(OutputParserException):
        chain.invoke("Where to?")


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("schema", [Trip, Page, TRIP_SCHEMA])
def test_with_include_raw_bad_json_is_told(method, schema):
    chain = structured(saying("Rome, I think"), schema, method, include_raw=True)
    told = chain.invoke("Where to?")
    assert told["raw"].content == "Rome, I think"
    assert told["parsed"] is None
    assert isinstance(told["parsing_error"], OutputParserException)


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
async def test_with_include_raw_good_json_is_parsed(method):
    chain = structured(saying('{"city": "Rome"}'), Trip, method, include_raw=True)
    told = await chain.ainvoke("Where to?")
    assert told["raw"].content == '{"city": "Rome"}'
    assert told["parsed"] == Trip(city="Rome")
    assert told["parsing_error"] is None


def test_with_include_raw_an_error_of_the_model_is_raised():
    def reply(messages):
        raise ConnectionError

    chain = structured(FakeChat(reply=reply), Trip, "json_mode", include_raw=True)
    with pytest.raises(ConnectionError):
        chain.invoke("Where to?")


@pytest.mark.parametrize("method", ["json", "", "JSON_MODE"])
def test_an_unknown_method_is_refused_by_name(method):
    with pytest.raises(ValueError, match=f"json_schema, json_mode, not '{method}'"):
        structured(FakeChat(), Trip, method, include_raw=False)
