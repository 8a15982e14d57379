import logging
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from socket import SHUT_RDWR
from typing import Any, Self

import httpx
import pytest
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from openai import DefaultHttpxClient, OpenAI
from openai._models import FinalRequestOptions
from pydantic import PrivateAttr, model_validator
from unit_tests.fake_chat import FakeChat

from langchain_slm.routing import quiet as module
from langchain_slm.routing.calling import call, iterate
from langchain_slm.routing.quiet import own_retries, quiet

WATCHDOG_S = 30.0  # nothing here takes longer, unless it hangs
NOWHERE = "http://127.0.0.1:9/v1"


class Client:
    """As the clients of OpenAI, Anthropic and Groq are: retries, options, resources."""

    def __init__(self, max_retries: int, connections: list[str]) -> None:
        self.max_retries = max_retries
        self.connections = connections

    def with_options(self, *, max_retries: int) -> "Client":
        return Client(max_retries, self.connections)


class Resource:
    def __init__(self, client: Client) -> None:
        self._client = client


class Cached(FakeChat):
    """Makes its client when it first needs it, as ChatAnthropic does."""

    max_retries: int = 2

    @cached_property
    def settings(self) -> dict[str, int]:
        return {"max_retries": self.max_retries}

    @cached_property
    def client(self) -> Client:
        return Client(**self.settings, connections=[])


class Held(FakeChat):
    """Holds a resource of its client, as ChatGroq does, and another privately."""

    max_retries: int | None = None
    client: Any = None
    _private: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _make(self) -> Self:
        self.client = self.client or Resource(Client(2, []))
        self._private = self._private or Client(3, [])
        return self


class Looping(FakeChat):
    """Repeats by itself, as often as its field says."""

    max_retries: int = 5


class Stubborn(Looping):
    def model_copy(self, **kwargs: Any) -> Self:
        msg = "secret-canary"
        raise TypeError(msg)


def openai(**settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model="any", base_url=NOWHERE, api_key="any", **settings)


def azure(**settings: Any) -> AzureChatOpenAI:
    return AzureChatOpenAI(
        azure_endpoint="http://127.0.0.1:9",
        azure_deployment="any",
        api_version="2024-10-21",
        api_key="any",
        **settings,
    )


@pytest.mark.parametrize("make", [openai, azure])
@pytest.mark.parametrize(("settings", "retries"), [({}, 2), ({"max_retries": 7}, 7)])
def test_openais_clients_stop_repeating_and_keep_their_connections(
    make, settings, retries
):
    model = make(**settings)
    made = quiet(model)
    assert (own_retries(model), own_retries(made)) == (retries, 0)
    assert type(made) is type(model)
    assert made.root_client._client is model.root_client._client
    assert made.root_async_client._client is model.root_async_client._client
    assert made.client._client._client is model.client._client._client
    assert made.async_client._client._client is model.async_client._client._client
    assert made.model_name == model.model_name
    assert (model.root_client.max_retries, made.max_retries) == (retries, 0)


def test_a_client_that_the_app_made_decides():
    app = openai(max_retries=4)
    model = openai(
        client=app.client,
        root_client=app.root_client,
        async_client=app.async_client,
        root_async_client=app.root_async_client,
    )
    assert (own_retries(model), own_retries(quiet(model))) == (4, 0)
    assert own_retries(app) == 4


def test_a_client_without_a_synchronous_key_has_only_the_other_half():
    async def key() -> str:
        return "any"

    model = ChatOpenAI(model="any", base_url=NOWHERE, api_key=key)
    made = quiet(model)
    assert made.root_client is None
    assert (own_retries(model), own_retries(made)) == (2, 0)


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_client_made_when_needed_is_made_without_retries(is_warm):
    model = Cached()
    if is_warm:
        assert model.client.max_retries == 2
    made = quiet(model)
    assert made.client.max_retries == 0
    assert made.settings == {"max_retries": 0}
    assert model.client.max_retries == 2
    assert (made.client.connections is model.client.connections) == is_warm


class Lazy(Cached):
    """Makes a real client when it first needs it."""

    @cached_property
    def client(self) -> OpenAI:
        return OpenAI(base_url=NOWHERE, api_key="any", **self.settings)

    @cached_property
    def keyless(self) -> OpenAI:
        msg = "no key"
        raise ValueError(msg)


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_client_made_when_needed_follows_no_redirect_and_is_watched(is_warm):
    model = Lazy()
    if is_warm:
        assert model.client.max_retries == 2
    client = quiet(model).client
    options = FinalRequestOptions(method="post", url="/chat/completions")
    assert client._prepare_options(options).follow_redirects is False
    assert module._answered in responded(client._client)
    with pytest.raises(ValueError, match="no key"):
        _ = quiet(model).keyless


def test_resources_and_private_clients_are_replaced_with_their_connections():
    model = Held()
    made = quiet(model)
    assert (own_retries(model), own_retries(made)) == (3, 0)
    assert isinstance(made.client, Resource)
    assert made.client._client.connections is model.client._client.connections
    assert made._private.connections is model._private.connections
    assert (model.client._client.max_retries, model._private.max_retries) == (2, 3)


def test_a_field_alone_is_set_to_zero():
    model = Looping()
    made = quiet(model)
    assert (own_retries(model), own_retries(made)) == (5, 0)
    assert made.asked is model.asked
    assert made.invoke("hello").content == "echo hello"


@pytest.mark.parametrize(
    "model",
    [
        FakeChat(),
        FakeListChatModel(responses=["yes"]),
        GenericFakeChatModel(messages=iter([AIMessage("yes")])),
        Looping().bind(stop=["x"]),
        Looping.model_construct(max_retries=True),
        Looping.model_construct(max_retries="many"),
        Looping.model_construct(max_retries=-1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_repeats_nothing_and_has_no_client_is_returned_itself(model):
    assert own_retries(model) == 0
    assert quiet(model) is model


@pytest.mark.parametrize(
    "model",
    [
        openai(max_retries=0),
        quiet(openai()),
        ChatNVIDIA(model="any", base_url=NOWHERE, api_key="any"),
        quiet(ChatNVIDIA(model="any", base_url=NOWHERE, api_key="any")),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_client_that_repeats_nothing_follows_redirects_and_is_replaced(model):
    made = quiet(model)
    assert made is not model
    assert type(made) is type(model)
    assert (own_retries(model), own_retries(made)) == (0, 0)


def test_the_sessions_of_chat_nvidia_follow_no_redirects_and_the_originals_do():
    model = ChatNVIDIA(model="any", base_url=NOWHERE, api_key="any")
    made = quiet(model)
    assert (model._client.get_session_fn().max_redirects) > 0
    with made._client.get_session_fn() as session:
        assert session.max_redirects == 0
    assert made._client.get_session_fn() is not session
    assert made.model == model.model


def responded(http: Any) -> list[Any]:
    return http.event_hooks["response"]


def test_a_shared_http_client_is_watched_once_and_keeps_its_own_hooks():
    noted: list[Any] = []
    app = DefaultHttpxClient(event_hooks={"response": [noted.append]})
    models = [openai(http_client=app) for _ in range(2)]
    for model in (*models, *models, quiet(models[0])):
        assert quiet(model).root_client._client is app
    assert responded(app) == [noted.append, module._answered]
    assert app.event_hooks["request"] == []
    app.close()


def test_an_asynchronous_http_client_is_not_watched():
    model = openai()
    assert module._answered in responded(quiet(model).root_client._client)
    assert responded(quiet(model).root_async_client._client) == []


class Network:
    """A connection's socket, as httpx's transports show it."""

    def __init__(self) -> None:
        self.shut: list[int] = []

    def get_extra_info(self, info: str) -> Any:
        return {"socket": self}[info]

    def shutdown(self, how: int) -> None:
        self.shut.append(how)


@pytest.mark.parametrize(
    ("version", "read", "shut"),
    [
        (b"HTTP/1.1", False, [SHUT_RDWR]),
        (b"HTTP/1.1", True, []),
        (b"HTTP/2", False, []),  # other calls use the connection at the same time
    ],
)
def test_the_socket_of_an_answer_is_shut_until_it_has_been_read(version, read, shut):
    network, left = Network(), threading.Event()
    extensions = {"http_version": version, "network_stream": network}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Chunks(), extensions=extensions)

    def ask() -> Iterator[str]:
        with http.stream("GET", NOWHERE) as response:
            if read:
                response.read()
            yield "one"
            left.wait(WATCHDOG_S)

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        module._watch(http)
        chunks = iterate(ask, time.monotonic() + WATCHDOG_S)
        assert next(chunks) == "one"
        chunks.close()
        left.set()
    assert network.shut == shut


class Chunks(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b"yes"


def test_an_answer_that_was_read_is_as_without_the_hook():
    extensions = {"network_stream": Network()}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Chunks(), extensions=extensions)

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        module._watch(http)
        assert "close" not in vars(http.get(NOWHERE).stream)


def test_a_transport_without_a_network_is_let_be():
    with httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(200))
    ) as http:
        module._watch(http)
        assert (
            call(lambda: http.get(NOWHERE), time.monotonic() + WATCHDOG_S).status_code
            == 200
        )


def test_what_cannot_be_copied_is_returned_itself_and_said(caplog):
    model = Stubborn()
    with caplog.at_level(logging.WARNING):
        assert quiet(model) is model
    [record] = caplog.records
    assert record.getMessage() == (
        "Stubborn: the retries and redirects of its client stay on (TypeError)"
    )
