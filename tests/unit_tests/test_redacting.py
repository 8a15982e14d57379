import json
import traceback
from base64 import b64encode
from typing import Any
from unittest.mock import MagicMock

import pytest
import requests
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel, Field, PrivateAttr, SecretBytes, SecretStr
from pydantic import ValidationError as PydanticError
from unit_tests.fake_chat import FakeChat

from langchain_slm.errors import SLMError
from langchain_slm.routing.redacting import (
    public_dump,
    scrub,
    scrub_error,
    secrets_of,
)

CANARY = "canary-0a1b2c3d4e5f"
URL = "http://127.0.0.1:9/v1"
WITH_PASSWORD = f"http://someone:{CANARY}@127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch):
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "NVIDIA_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


class Own(FakeChat):
    """A user's own class: nothing in it is declared as a secret."""

    api_key: str = ""
    clientSecret: str = ""  # noqa: N815 - as other languages write it
    endpoint: str = ""
    headers: dict[str, Any] = Field(default_factory=dict)
    anything: Any = None
    _token: str = PrivateAttr("")

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


class Nested(BaseModel):
    keys: list[SecretStr]


class WithVariable(FakeChat):
    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"key": "ITS_VARIABLE"}


class Failing(FakeChat):
    """A class that raises wherever it is asked about itself."""

    anything: Any = None

    @property
    def lc_secrets(self) -> dict[str, str]:
        raise ValueError(CANARY)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


class Raising:
    @property
    def __dict__(self) -> dict[str, Any]:
        raise ValueError(CANARY)


def openai(**settings: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "any", "base_url": URL, "api_key": "any", **settings})


def nvidia(**settings: Any) -> ChatNVIDIA:
    return ChatNVIDIA(**{"model": "any", "base_url": URL, "api_key": "any", **settings})


def azure(**settings: Any) -> AzureChatOpenAI:
    return AzureChatOpenAI(
        **{
            "azure_endpoint": "http://127.0.0.1:9",
            "azure_deployment": "any",
            "api_version": "2024-10-21",
            "api_key": "any",
            **settings,
        }
    )


def with_token(token: str) -> Own:
    model = Own()
    model._token = token
    return model


def in_itself(item: Any) -> dict[str, Any]:
    found = {"item": item}
    found["again"] = found
    return found


WAYS = {
    "api_key": lambda: openai(api_key=CANARY),
    "api_key of NVIDIA": lambda: nvidia(api_key=CANARY),
    "api_key of Azure": lambda: azure(api_key=CANARY),
    "token of Azure": lambda: azure(api_key=None, azure_ad_token=CANARY),
    "header": lambda: openai(default_headers={"X-Anything": CANARY}),
    "bearer": lambda: openai(default_headers={"Authorization": f"Bearer {CANARY}"}),
    "header of NVIDIA": lambda: nvidia(default_headers={"X-Anything": CANARY}),
    "query": lambda: openai(default_query={"anything": CANARY}),
    "extra body": lambda: openai(extra_body={"a": {"auth_token": CANARY}}),
    "key-like in extra body": lambda: openai(extra_body={"a": ["b", {"c": CANARY}]}),
    "model_kwargs": lambda: openai(model_kwargs={"extra_headers": {"a": CANARY}}),
    "key-like in model_kwargs": lambda: nvidia(model_kwargs={"user": CANARY}),
    "password": lambda: openai(base_url=WITH_PASSWORD),
    "user name": lambda: openai(base_url=f"http://{CANARY}@127.0.0.1:9/v1"),
    "password of Azure": lambda: azure(azure_endpoint=WITH_PASSWORD),
    "password of a proxy": lambda: openai(openai_proxy=WITH_PASSWORD),
    "query of a URL": lambda: openai(base_url=f"{URL}?api_key={CANARY}"),
    "client": lambda: openai(client=openai(api_key=CANARY).client),
    "plain text": lambda: Own(api_key=CANARY),
    "camel case": lambda: Own(clientSecret=CANARY),
    "headers": lambda: Own(headers={"a": [CANARY]}),
    "private": lambda: with_token(CANARY),
    "nested": lambda: Own(anything={"a": Nested(keys=[SecretStr(CANARY)])}),
    "bytes": lambda: Own(anything=(SecretBytes(CANARY.encode()),)),
    "circle": lambda: Own(anything=in_itself(SecretStr(CANARY))),
    "after what raises": lambda: Own(anything=[Raising(), SecretStr(CANARY)]),
    "class that raises": lambda: Failing(anything=SecretStr(CANARY)),
    "model in a model": lambda: Own(anything=openai(api_key=CANARY)),
    "bound headers": lambda: openai().bind(extra_headers={"a": CANARY}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_however_it_is_configured(way):
    assert CANARY in secrets_of(WAYS[way]())


@pytest.mark.parametrize("way", WAYS)
def test_a_public_dump_never_shows_a_secret(way):
    assert CANARY not in json.dumps(public_dump(WAYS[way]()))


def test_a_secret_in_the_environment_is_found(monkeypatch):
    monkeypatch.setenv("ITS_VARIABLE", CANARY)
    assert secrets_of(WithVariable()) == (CANARY,)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("NVIDIA_API_KEY", CANARY[::-1])
    assert CANARY in secrets_of(openai())
    assert CANARY[::-1] in secrets_of(nvidia())


def test_a_client_says_what_only_the_environment_says(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", WITH_PASSWORD)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Anything: {CANARY[::-1]}")
    found = secrets_of(ChatOpenAI(model="any", api_key="any"))
    assert {CANARY, CANARY[::-1]} <= {*found}


def test_user_name_and_password_are_found_as_clients_send_them():
    found = secrets_of(openai(base_url="http://some%40one:pass%2Fword@127.0.0.1:9/v1"))
    basic = b64encode(b"some@one:pass/word").decode()
    assert found == (basic, "pass%2Fword", "some%40one", "pass/word", "some@one")


@pytest.mark.parametrize(
    "model",
    [
        openai(extra_body={"guided_choice": ["urgent", "normal"], "top_k": 5}),
        openai(model_kwargs={"schema": {"api_key": {"type": "string"}}}),
        openai(extra_body={"models": ["meta-llama/Llama-3.1-8B-Instruct"]}),
        openai(default_headers={"Content-Type": "application/json"}),
        openai(default_headers={"X-Short": "12345"}),
        azure(default_query={"api-version": "2024-10-21"}),
        nvidia(max_completion_tokens=64),
        Own(endpoint="http://127.0.0.1:9/v1?page=12345678", anything="http://["),
        FakeChat(metadata={"thread": "canary-0a1b2c3d4e5f"}),
        FakeListChatModel(responses=["yes"]),
        GenericFakeChatModel(messages=iter([AIMessage("yes")])),
        FakeChat().bind(stop=["nothing"]),
        MagicMock(),
        None,
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_is_no_secret_stays_readable(model):
    assert secrets_of(model) == ()


def test_the_longest_secret_comes_first():
    model = openai(api_key="canary", default_headers={"a": "canary-of-coal"})
    assert secrets_of(model) == ("canary-of-coal", "canary")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a secret/key b", "a *** b"),
        ("?k=secret%2Fkey&j=secret/key", "?k=***&j=***"),
        ("secret/key-long secret/key", "*** ***"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_scrub_replaces_every_spelling(text, clean):
    assert scrub(text, ("secret/key", "secret/key-long")) == clean


@pytest.mark.parametrize("spell", [str, repr, json.dumps])
def test_scrub_knows_escapes(spell):
    odd = 'quo"te \\ ünd \n line'
    clean = scrub(spell(f"a {odd} b"), [odd])
    assert clean.strip("'\"") == "a *** b"


def test_scrub_takes_a_secret_that_is_no_text():
    assert scrub("a \ud800secret b", ["\ud800secret"]) == "a *** b"
    error = RefusedError("\ud800secret", raw=b"secret")
    assert scrub_error(error, ["\ud800secret"]) is error
    assert error.args == ("***",)


def test_scrub_without_secrets_changes_nothing():
    assert scrub("a b", ["", *()]) == "a b"


class RefusedError(Exception):
    """As the exceptions of the providers' clients are."""

    def __init__(self, message: str, **held: Any) -> None:
        super().__init__(message)
        self.message = message
        vars(self).update(held)


class CustomError(Exception):
    def __str__(self) -> str:
        return f"as it was made: {CANARY}"


class UnshowableError(Exception):
    def __str__(self) -> str:
        raise ValueError(CANARY)


def exchange(key: str = CANARY) -> requests.Response:
    """Return a response that echoes the key, with the request that sent it."""
    request = requests.Request(
        "POST",
        f"{URL}?key={key}",
        headers={"Authorization": f"Bearer {key}", "Accept": "text/plain"},
        data=f"said {key}",
    ).prepare()
    response = requests.Response()
    response.status_code, response._content = 429, f"echo {key}".encode()
    response.headers.update({"Retry-After": "7", "Set-Cookie": "c=1", "X-Echo": key})
    response.request, response.url = request, request.url
    return response


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def raised(make: Any) -> BaseException:
    try:
        make()
    except BaseException as error:  # noqa: BLE001 - any of them is the thing under test
        return error
    pytest.fail("nothing was raised")


def test_all_that_an_exception_says_is_scrubbed_in_place():
    error = RefusedError(
        f"no {CANARY}",
        body={"error": {"message": CANARY, CANARY: [CANARY, 3]}},
        raw=CANARY.encode(),
        pair=(CANARY, 1),
        code=401,
    )
    error.add_note(f"note {CANARY}")
    assert scrub_error(error, [CANARY]) is error
    assert CANARY not in shown(error)
    assert (error.args, error.message, error.code) == (("no ***",), "no ***", 401)
    assert error.body == {"error": {"message": "***", "***": ["***", 3]}}
    assert (error.raw, error.pair) == (b"***", ("***", 1))
    assert error.__notes__ == ["note ***"]


def test_the_chain_of_an_exception_is_scrubbed():
    cause = OSError(2, f"no {CANARY}", f"/{CANARY}")
    cause.__context__ = KeyError(CANARY)
    error = SLMError(f"outer {CANARY}", site=CANARY)
    error.__cause__ = cause
    assert scrub_error(error, [CANARY]) is error
    assert CANARY not in shown(error)
    assert error.fields == {"site": "***"}
    assert error.__cause__ is cause
    assert error.__suppress_context__
    assert isinstance(cause.__context__, KeyError)
    assert not cause.__suppress_context__


def test_a_circle_of_exceptions_ends():
    first, second = RefusedError(CANARY), RefusedError(CANARY)
    first.__cause__, second.__cause__ = second, first
    first.args = (second,)
    scrub_error(first, [CANARY])
    assert (first.message, second.message) == ("***", "***")


def test_a_group_is_scrubbed_with_its_members():
    member = ValueError(CANARY)
    error = ExceptionGroup("several", [member])
    assert scrub_error(error, [CANARY]) is error
    assert member.args == ("***",)


def test_bytes_that_could_not_be_read_are_scrubbed():
    error = raised((CANARY.encode() + b"\xff").decode)
    assert scrub_error(error, [CANARY]) is error
    assert error.object == b"***\xff"


def test_a_document_that_could_not_be_read_is_scrubbed():
    error = raised(lambda: json.loads(f"{{{CANARY}"))
    assert scrub_error(error, [CANARY]) is error
    assert error.doc == "{***"


def test_request_and_response_become_copies_without_credentials():
    response = exchange()
    error = RefusedError("no", response=response, request=response.request)
    scrub_error(error, [CANARY])
    clean = error.response
    assert isinstance(clean, requests.Response)
    assert (clean.status_code, clean.text) == (429, "echo ***")
    assert dict(clean.headers) == {
        "Retry-After": "7",
        "Set-Cookie": "***",
        "X-Echo": "***",
    }
    assert clean.request is error.request
    assert clean.url == error.request.url == f"{URL}?key=***"
    assert error.request.body == "said ***"
    assert error.request.headers["Authorization"] == "***"
    assert error.request.headers["Accept"] == "text/plain"
    # The client's own objects are left alone.
    assert response.request.headers["Authorization"] == f"Bearer {CANARY}"


def test_a_key_that_only_the_request_knows_is_scrubbed():
    cause = RefusedError(f"echo {CANARY}", response=exchange())
    error = RefusedError(f"no {CANARY}")
    error.__context__ = cause
    scrub_error(error, [])
    assert CANARY not in shown(error)


def test_a_live_object_is_never_changed():
    class Live:
        key = CANARY

    model, live = openai(api_key=CANARY), Live()
    error = RefusedError("no", model=model, live=live)
    scrub_error(error, [CANARY])
    assert error.model is model
    assert error.live is live
    assert model.root_client.api_key == CANARY


def test_what_cannot_be_changed_is_replaced():
    class Answer(BaseModel):
        number: int

    error = raised(lambda: Answer(number=CANARY))
    made = scrub_error(error, [CANARY])
    assert isinstance(error, PydanticError)
    assert type(made) is RuntimeError
    assert str(made).startswith("ValidationError: 1 validation error for Answer")
    assert made.__traceback__ is error.__traceback__
    assert CANARY not in shown(made)


def test_what_cannot_be_changed_is_replaced_within_a_chain():
    error = RefusedError("outer")
    error.__cause__ = CustomError()
    error.__cause__.__cause__ = ValueError(CANARY)
    assert scrub_error(error, [CANARY]) is error
    assert CANARY not in shown(error)
    assert str(error.__cause__) == "CustomError: as it was made: ***"
    assert isinstance(error.__cause__.__cause__, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        UnshowableError(),
        RefusedError(CANARY, held=Raising()),
        RefusedError(CANARY, held=MagicMock()),
        KeyboardInterrupt(CANARY),
        StopIteration(CANARY),
        SystemExit(CANARY),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_makes_it_raise(error):
    assert scrub_error(error, [CANARY]) is error
    assert CANARY not in str(error.args)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
@pytest.mark.parametrize("make", [openai, azure])
def test_a_public_dump_loads_again(make, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", CANARY)
    model = make(
        temperature=0.5,
        stop=["end"],
        model_kwargs={"user": "desk", "nested": {"lc": 1}},
        default_headers={"a": CANARY[::-1]},
        extra_body={"a": CANARY[::-1]},
    )
    dumped = public_dump(model)
    left_out = {"default_headers", "extra_body"}
    assert dumped == {
        **dumpd(model),
        "kwargs": {k: v for k, v in dumpd(model)["kwargs"].items() if k not in left_out},
    }
    loaded = load(
        json.loads(json.dumps(dumped)), allowed_objects="all", secrets_from_env=True
    )
    assert type(loaded) is type(model)
    assert loaded.openai_api_key.get_secret_value() == CANARY
    assert (loaded.temperature, loaded.stop) == (0.5, ["end"])
    assert loaded.model_kwargs == model.model_kwargs


def test_a_public_dump_keeps_the_url_without_its_user():
    kwargs = public_dump(openai(base_url=WITH_PASSWORD))["kwargs"]
    assert kwargs["openai_api_base"] == URL


def test_a_model_is_named_even_where_its_name_is_a_secret_elsewhere():
    model = openai(model="canary-small", api_key="canary-small")
    assert public_dump(model)["kwargs"]["model_name"] == "canary-small"


@pytest.mark.parametrize("make", [nvidia, FakeChat, Failing])
def test_a_class_that_cannot_be_dumped_is_only_named(make):
    kind = make if isinstance(make, type) else ChatNVIDIA
    assert public_dump(make()) == {
        "lc": 1,
        "type": "not_implemented",
        "id": [*kind.__module__.split("."), kind.__name__],
        "repr": None,
    }


def test_a_public_dump_leaves_out_what_cannot_be_loaded():
    model = Own(anything=[object(), 1, {"a": object(), "b": 2}])
    assert public_dump(model)["kwargs"]["anything"] == [1, {"b": 2}]
