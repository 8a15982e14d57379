"""From a model's specification to a chat model. Reads keys from the environment only."""

from __future__ import annotations

import os
from importlib import import_module
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from langchain_slm.errors import CatalogError, MissingExtraError, PlanError
from langchain_slm.schema import ModelSpec

# Seconds that a client waits for a connection and for each read. No client of the
# providers bounds the whole call by itself.
TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0  # of which the connection may take: nobody may be listening
# A plan is a file that others may send: it must not point a key at any host.
ALLOWED_HOSTS = frozenset(
    {"localhost", "127.0.0.1", "::1", "api.openai.com", "integrate.api.nvidia.com"}
)
ALLOWED_HOSTS_ENV = "LANGCHAIN_SLM_ALLOWED_HOSTS"
# Where the providers' own endpoints expect the key.
KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "nvidia": "NVIDIA_API_KEY"}
URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "nvidia": "NVIDIA_BASE_URL"}
_NO_KEY = "not-needed"  # the clients insist on one, self-hosted endpoints do not


def chat_model(spec: ModelSpec) -> BaseChatModel:
    """Return the chat model of `spec`.

    The client does not retry: whoever calls it counts every request.

    Raises:
        CatalogError: If the environment variable of its key is not set, or the client
            refuses its settings.
        MissingExtraError: If its provider needs a package that is not installed.
    """
    make = {"openai": _openai, "nvidia": _nvidia}.get(spec.provider, _other)
    key = _key(spec)
    try:
        return make(spec, key)
    except (CatalogError, MissingExtraError):
        raise
    except Exception as error:  # noqa: BLE001 - one of them calls out, and raises anything
        # Neither the client's words nor its traceback: they may quote the key.
        msg = (
            f"model {spec.name!r}: the client of provider {spec.provider!r} cannot be "
            f"made ({type(error).__name__}); check provider, model, base_url and key"
        )
        raise CatalogError(msg, model=spec.name, provider=spec.provider) from None


def _openai(spec: ModelSpec, key: str | None) -> BaseChatModel:
    from langchain_openai import ChatOpenAI  # noqa: PLC0415 - 1 s of imports
    from openai import Timeout  # noqa: PLC0415 - 1 s of imports

    return ChatOpenAI(
        model=spec.model,
        base_url=spec.base_url,
        api_key=SecretStr(key or _NO_KEY),
        max_retries=0,
        # With a plain number all models of a process share one pool of connections per
        # endpoint: closing this model's would close the app's own, and a pool that a
        # former event loop left behind raises "Event loop is closed".
        timeout=Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        # By itself it asks only OpenAI's own endpoint for the usage of a stream.
        stream_usage=True,
    )


def _nvidia(spec: ModelSpec, key: str | None) -> BaseChatModel:
    from langchain_nvidia_ai_endpoints import ChatNVIDIA  # noqa: PLC0415 - 1 s of imports

    # At the hosted endpoint it lists the models of the host if it does not know this one.
    return ChatNVIDIA(
        model=spec.model,
        base_url=spec.base_url,
        api_key=key or _NO_KEY,
        timeout=TIMEOUT_S,
    )


def _other(spec: ModelSpec, key: str | None) -> BaseChatModel:
    """Return a model by LangChain's `init_chat_model`."""
    try:
        init_chat_model = import_module("langchain.chat_models").init_chat_model
        settings = {"base_url": spec.base_url, "api_key": key}
        made: BaseChatModel = init_chat_model(
            spec.model,
            model_provider=spec.provider,
            **{name: value for name, value in settings.items() if value is not None},
        )
    except ImportError as error:
        msg = (
            f"provider {spec.provider!r} needs langchain and the provider's package: "
            f"pip install langchain langchain-{spec.provider.replace('_', '-')}"
        )
        raise MissingExtraError(msg, provider=spec.provider) from error
    return made


def by_name(name: str) -> BaseChatModel:
    """Return the chat model of a "provider:model", such as "openai:gpt-4o-mini".

    Key and endpoint are those of the provider's usual environment variables.

    Raises:
        CatalogError: If the environment variable of its key is not set, or the client
            refuses its settings.
        MissingExtraError: If its provider needs a package that is not installed.
        PlanError: If `name` has no provider.
    """
    provider, _, model = name.partition(":")
    if not (provider and model):
        msg = f'{name!r} is not "provider:model", as in "openai:gpt-4o-mini"'
        raise PlanError(msg, name=name)
    variable, url = KEY_VARIABLES.get(provider), URL_VARIABLES.get(provider, "")
    return chat_model(
        ModelSpec(
            name=name,
            provider=provider,
            model=model,
            api_key_env=variable,
            base_url=os.environ.get(url) or None,
        )
    )


def _key(spec: ModelSpec) -> str | None:
    variable = spec.api_key_env
    if variable is None and spec.base_url is None:
        variable = KEY_VARIABLES.get(spec.provider)
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        msg = (
            f"model {spec.name!r}: the environment variable {variable} is not "
            "set; set it to the endpoint's key"
        )
        raise CatalogError(msg, model=spec.name, variable=variable)
    return key


def check_host(spec: ModelSpec, allowed: frozenset[str] | None = None) -> None:
    """Refuse a `base_url` whose host nobody allowed.

    Args:
        spec: The model.
        allowed: Host names; by default `ALLOWED_HOSTS` and those in the environment
            variable LANGCHAIN_SLM_ALLOWED_HOSTS, separated by commas.

    Raises:
        PlanError: If the host is not allowed, or the URL is none that all clients
            read alike.
    """
    if spec.base_url is None:
        return
    host = _host(spec.base_url)
    if host is None:
        # Not shown: a user name or password may be in it.
        msg = (
            f"model {spec.name!r}: its base_url is not of the form "
            '"https://host/path", without a user name'
        )
        raise PlanError(msg, model=spec.name)
    if host not in (_allowed_hosts() if allowed is None else allowed):
        msg = (
            f"model {spec.name!r}: the plan points at host {host!r}, which is not "
            f"allowed; add it to {ALLOWED_HOSTS_ENV} if you trust the plan"
        )
        raise PlanError(msg, model=spec.name, host=host)


def _allowed_hosts() -> frozenset[str]:
    more = os.environ.get(ALLOWED_HOSTS_ENV, "").lower().split(",")
    return ALLOWED_HOSTS | {host.strip() for host in more}


def _host(url: str) -> str | None:
    """Return the host of a URL in lower case; None where clients could disagree on it."""
    if not url.isprintable() or any(sign in url for sign in " \\@"):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None
