import socket

import pytest
from langchain_core.load import dumps
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI
from unit_tests.endpoint import Endpoint
from unit_tests.planned import spec

from langchain_slm.errors import CatalogError, MissingExtraError, PlanError, SLMError
from langchain_slm.routing.targets import by_name, chat_model, check_host
from langchain_slm.schema import ModelSpec

CANARY = "sk-canary-0123456789"
PROVIDERS = pytest.mark.parametrize("provider", ["openai", "nvidia"])


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in (
        "OPENAI_API_KEY",
        "NVIDIA_API_KEY",
        "OPENAI_BASE_URL",
        "NVIDIA_BASE_URL",
        "LANGCHAIN_SLM_ALLOWED_HOSTS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _offline(monkeypatch):
    def refuse(*_args):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# Models


@pytest.mark.usefixtures("_offline")
def test_a_specification_gives_the_providers_client():
    openai = chat_model(spec(provider="openai"))
    nvidia = chat_model(spec(provider="nvidia"))
    assert isinstance(openai, ChatOpenAI)
    assert isinstance(nvidia, ChatNVIDIA)
    assert (openai.model_name, openai.openai_api_base) == ("slm", "http://localhost:9/v1")
    assert (nvidia.model, nvidia.base_url) == ("slm", "http://localhost:9/v1")


def test_the_client_does_not_retry():
    with Endpoint(status=500) as endpoint:
        for provider in ("openai", "nvidia"):
            model = chat_model(spec(provider=provider, base_url=endpoint.url))
            with pytest.raises(Exception, match="refused"):
                model.invoke("Hi")
    assert len(endpoint.asked) == 2


@PROVIDERS
def test_the_usage_of_a_stream_is_asked_for(provider):
    with Endpoint("Rome is") as endpoint:
        model = chat_model(spec(provider=provider, base_url=endpoint.url))
        chunks = list(model.stream("Hi"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.usage_metadata["total_tokens"] == 10


@PROVIDERS
def test_no_client_waits_for_ever(provider):
    model = chat_model(spec(provider=provider))
    client = model.root_client if provider == "openai" else model._client
    assert getattr(client.timeout, "read", client.timeout) == 60


# Keys


@PROVIDERS
def test_a_missing_key_variable_is_named(provider):
    with pytest.raises(CatalogError) as raised:
        chat_model(spec(provider=provider, api_key_env="SLM_TEST_KEY"))
    assert str(raised.value) == (
        "model 'slm': the environment variable SLM_TEST_KEY is not set; set it to the "
        "endpoint's key"
    )
    assert raised.value.fields == {"model": "slm", "variable": "SLM_TEST_KEY"}


@PROVIDERS
def test_an_empty_key_variable_is_missing(provider, monkeypatch):
    monkeypatch.setenv("SLM_TEST_KEY", "")
    with pytest.raises(CatalogError, match="SLM_TEST_KEY is not set"):
        chat_model(spec(provider=provider, api_key_env="SLM_TEST_KEY"))


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("openai", "OPENAI_API_KEY"), ("nvidia", "NVIDIA_API_KEY")],
)
def test_the_providers_own_endpoint_wants_its_usual_key(provider, variable):
    with pytest.raises(CatalogError, match=f"{variable} is not set"):
        chat_model(spec(provider=provider, base_url=None))


@PROVIDERS
def test_a_self_hosted_endpoint_never_sees_the_providers_key(provider, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("NVIDIA_API_KEY", CANARY)
    model = chat_model(spec(provider=provider))
    client = model if provider == "openai" else model._client
    key = client.openai_api_key if provider == "openai" else client.api_key
    assert key.get_secret_value() == "not-needed"


@PROVIDERS
def test_a_key_is_never_shown(provider, monkeypatch):
    monkeypatch.setenv("SLM_TEST_KEY", CANARY)
    model = chat_model(spec(provider=provider, api_key_env="SLM_TEST_KEY"))
    for shown in (repr(model), str(model), dumps(model), str(model._identifying_params)):
        assert CANARY not in shown


@pytest.mark.parametrize(
    "url", ["http://localhost:9/v1/chat/completions", "http://user:pw@localhost/v1"]
)
def test_a_client_that_refuses_its_settings_says_so_without_the_key(url, monkeypatch):
    monkeypatch.setenv("SLM_TEST_KEY", CANARY)
    settings = {"provider": "nvidia", "api_key_env": "SLM_TEST_KEY", "base_url": url}
    with pytest.raises(CatalogError) as raised:
        chat_model(spec(**settings))
    assert str(raised.value) == (
        "model 'slm': the client of provider 'nvidia' cannot be made (ValidationError); "
        "check provider, model, base_url and key"
    )
    assert raised.value.__suppress_context__


# Names


@pytest.mark.parametrize("name", ["", "gpt-4o", ":gpt-4o", "openai:", ":"])
def test_a_name_needs_provider_and_model(name):
    with pytest.raises(PlanError, match=r'is not "provider:model"'):
        by_name(name)


def test_a_name_takes_key_and_endpoint_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1")
    monkeypatch.setenv("NVIDIA_API_KEY", CANARY)
    monkeypatch.setenv("NVIDIA_BASE_URL", "http://localhost:8/v1")
    openai, nvidia = by_name("openai:gpt-4o:tuned"), by_name("nvidia:meta/slm")
    assert (openai.model_name, openai.openai_api_base) == (
        "gpt-4o:tuned",
        "http://localhost:9/v1",
    )
    assert openai.openai_api_key.get_secret_value() == CANARY
    assert (nvidia.model, nvidia.base_url) == ("meta/slm", "http://localhost:8/v1")


@pytest.mark.parametrize("provider", ["openai", "nvidia"])
def test_a_name_without_a_key_is_refused(provider):
    with pytest.raises(CatalogError, match=r"_API_KEY is not set"):
        by_name(f"{provider}:m")


@pytest.mark.usefixtures("_offline")
def test_a_known_model_of_the_hosted_endpoint_is_made_without_a_call(monkeypatch):
    monkeypatch.setenv("NVIDIA_API_KEY", CANARY)
    model = by_name("nvidia:meta/llama-3.1-8b-instruct")
    assert model.base_url == "https://integrate.api.nvidia.com/v1"


@pytest.mark.usefixtures("_offline")
def test_another_provider_is_made_by_langchain(monkeypatch):
    pytest.importorskip("langchain", reason="langchain is not installed")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "http://localhost:9")
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-01-01")
    monkeypatch.setenv("SLM_TEST_KEY", CANARY)
    settings = {"provider": "azure_openai", "base_url": None}
    model = chat_model(spec(**settings, api_key_env="SLM_TEST_KEY"))
    assert type(model).__name__ == "AzureChatOpenAI"
    assert model.openai_api_key.get_secret_value() == CANARY


def test_another_provider_needs_its_package():
    with pytest.raises(MissingExtraError) as raised:
        by_name("azure_ai:m")
    assert str(raised.value) == (
        "provider 'azure_ai' needs langchain and the provider's package: pip install "
        "langchain langchain-azure-ai"
    )


def test_an_unknown_provider_is_refused():
    with pytest.raises(SLMError, match="provider 'nonsense'"):
        by_name("nonsense:m")


# Hosts


def at(url: str | None) -> ModelSpec:
    return spec(base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "http://localhost:8000/v1",
        "http://LOCALHOST/v1",
        "http://127.0.0.1/v1",
        "http://[::1]:8000/v1",
        "https://api.openai.com/v1",
        "https://integrate.api.nvidia.com/v1",
    ],
)
def test_this_machine_and_the_providers_are_allowed(url):
    assert check_host(at(url)) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://example.invalid/v1",
        "http://169.254.169.254/latest",
        "http://localhost.example.invalid/",
        "https://api.openai.com.example.invalid/",
        "http://127.0.0.2/",
        "http://[::ffff:169.254.169.254]/",
    ],
)
def test_any_other_host_is_refused_by_name(url):
    with pytest.raises(PlanError, match="which is not allowed; add it to") as raised:
        check_host(at(url))
    assert raised.value.fields["host"] in url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "//localhost/v1",
        "http:///v1",
        "",
        "file:///etc/passwd",
        "ftp://localhost/v1",
        "http://localhost@example.invalid/",
        "http://user:canary@localhost/",
        "http://localhost\\@example.invalid/",
        "http://local host/",
        "http://localhost\n.example.invalid/",
        "http://[::1/",
    ],
)
def test_a_url_that_clients_could_read_differently_is_refused(url):
    with pytest.raises(PlanError, match="is not of the form") as raised:
        check_host(at(url))
    assert "canary" not in str(raised.value)


def test_hosts_can_be_added_in_the_environment(monkeypatch):
    monkeypatch.setenv("LANGCHAIN_SLM_ALLOWED_HOSTS", " gpu.internal , Other.internal,")
    check_host(at("http://gpu.internal:8000/v1"))
    check_host(at("http://other.internal/v1"))
    check_host(at("http://localhost/v1"))
    with pytest.raises(PlanError):
        check_host(at("http://third.internal/v1"))


def test_hosts_that_are_given_replace_the_others(monkeypatch):
    monkeypatch.setenv("LANGCHAIN_SLM_ALLOWED_HOSTS", "gpu.internal")
    allowed = frozenset({"one.internal"})
    check_host(at("http://one.internal/v1"), allowed)
    for url in ("http://gpu.internal/v1", "http://localhost/v1"):
        with pytest.raises(PlanError):
            check_host(at(url), allowed)
