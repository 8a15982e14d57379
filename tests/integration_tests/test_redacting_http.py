import json
import traceback
from collections.abc import Callable
from typing import Any

import openai
import pytest
from integration_tests.clients import close_clients
from integration_tests.misbehaving import Misbehaving, Reply
from langchain_core.language_models import BaseChatModel
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI

from langchain_slm.routing.redacting import scrub_error, secrets_of

KEY, HEADER, QUERY, BODY, PASSWORD, TOKEN = (
    f"canary-{number}-0a1b2c3d4e5f" for number in range(6)
)
CANARIES = (KEY, HEADER, QUERY, BODY, PASSWORD, TOKEN)
WAYS = ["invoke", "ainvoke", "stream", "astream"]
ECHO: dict[str, Any] = {
    "error": {"message": f"refused: {', '.join(CANARIES)}", "code": KEY, "param": HEADER}
}


def chat_openai(url: str) -> BaseChatModel:
    return ChatOpenAI(
        model="any",
        base_url=url.replace("http://", f"http://someone:{PASSWORD}@"),
        api_key=KEY,
        default_headers={"X-Secret": HEADER, "X-Token": f"Bearer {TOKEN}"},
        default_query={"secret": QUERY},
        extra_body={"a": {"secret": BODY}},
        max_retries=0,
    )


def chat_nvidia(url: str) -> BaseChatModel:
    return ChatNVIDIA(
        model="any",
        base_url=url,
        api_key=KEY,
        default_headers={"X-Secret": HEADER, "X-Token": TOKEN},
        model_kwargs={"q": QUERY, "a": {"secret": BODY, "password": PASSWORD}},
    )


async def failure(model: BaseChatModel, way: str) -> Exception:
    """Return what a call of the model raises, with its clients closed."""
    try:
        match way:
            case "invoke":
                model.invoke("hello")
            case "ainvoke":
                await model.ainvoke("hello")
            case "stream":
                list(model.stream("hello"))
            case _:
                [chunk async for chunk in model.astream("hello")]
    except Exception as error:  # noqa: BLE001 - it is the thing under test
        return error
    finally:
        await close_clients(model)
    pytest.fail("nothing was raised")


def shown(error: BaseException) -> str:
    """Return what a log, a debugger or an app may show of an exception and its chain."""
    texts = ["".join(traceback.format_exception(error)), repr(error), repr(vars(error))]
    for name in ("request", "response"):
        if (message := vars(error).get(name)) is not None:
            texts += [str(message.headers), repr(vars(message)), str(message.url)]
    for before in (error.__cause__, error.__context__):
        if before is not None:
            texts.append(shown(before))
    return "\n".join(texts)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("make", "status"),
    [
        *((make, status) for make in (chat_openai, chat_nvidia) for status in (401, 500)),
        (chat_openai, 200),  # ChatNVIDIA takes it as an empty answer
    ],
)
async def test_no_canary_survives_an_endpoint_that_echoes_all_of_them(
    make: Callable[[str], BaseChatModel], way: str, status: int
):
    reply = Reply(ECHO, status, {"X-Echo": HEADER})
    with Misbehaving(lambda number, body: reply) as endpoint:
        model = make(endpoint.url)
        error = await failure(model, way)
        assert len(endpoint.asked) == 1
    before = type(error)
    error = scrub_error(error, secrets_of(model))
    assert type(error) is before
    assert not [canary for canary in CANARIES if canary in shown(error)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [chat_openai, chat_nvidia])
async def test_no_canary_survives_where_nobody_listens(
    make: Callable[[str], BaseChatModel], way: str
):
    with Misbehaving(lambda number, body: Reply()) as endpoint:
        url = endpoint.url
    model = make(url)
    error = await failure(model, way)
    before = type(error)
    error = scrub_error(error, secrets_of(model))
    assert type(error) is before
    assert not [canary for canary in CANARIES if canary in shown(error)]


@pytest.mark.parametrize("way", WAYS)
async def test_a_response_still_says_what_apps_ask_it(way: str):
    reply = Reply(ECHO, 429, {"Retry-After": "7", "X-Request-Id": "r1"})
    with Misbehaving(lambda number, body: reply) as endpoint:
        model = chat_openai(endpoint.url)
        error = await failure(model, way)
    assert isinstance(error, openai.RateLimitError)
    original = error.response
    scrub_error(error, secrets_of(model))
    assert type(error.response) is type(original)
    assert (error.status_code, error.request_id, error.code) == (429, "r1", "***")
    assert (error.response.status_code, error.response.headers["retry-after"]) == (
        429,
        "7",
    )
    assert error.response.json()["error"]["code"] == "***"
    assert error.response.text.startswith('{"error": {"message": "refused: ***, ***')
    assert error.response.request is error.request
    assert error.request.method == "POST"
    assert error.request.url.path == "/v1/chat/completions"
    assert error.request.headers["authorization"] == "***"
    assert json.loads(error.request.content)["model"] == "any"


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_that_a_function_gave_is_found_in_the_request(way: str):
    async def later() -> str:
        return KEY

    reply = Reply({"error": {"message": f"refused: {KEY}"}}, 401)
    with Misbehaving(lambda number, body: reply) as endpoint:
        key = later if way.startswith("a") else lambda: KEY
        model = ChatOpenAI(model="any", base_url=endpoint.url, api_key=key, max_retries=0)
        error = await failure(model, way)
    assert KEY in shown(error)
    scrub_error(error, ())
    assert KEY not in shown(error)
