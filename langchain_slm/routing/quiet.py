"""Chat models whose clients make one HTTP call when they are told to make one.

They repeat nothing and follow no redirect by themselves: whoever counts the HTTP calls of
a request must make each of them. A redirect would also carry every header but
`Authorization`, a key among `default_headers` too, to whatever host it names. The copies
share the connections of the model that they were made from, which stays as it was.

Relies on `_prepare_options` of the clients of OpenAI's family, their hook for what a
request is made with, and on `get_session_fn` and `get_async_session_fn` of ChatNVIDIA's.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from inspect import iscoroutinefunction
from socket import SHUT_RDWR
from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_slm.routing.calling import when_given_up

logger = logging.getLogger(__name__)
# Of ChatOpenAI: it waits for each chunk with `asyncio.wait_for`, which before Python 3.12
# loses a cancellation that comes together with a chunk. A router has its own deadline.
CHUNK_FIELD = "stream_chunk_timeout"
FIELD = "max_retries"  # of nearly every package's chat models, and of their clients


def own_retries(model: BaseChatModel) -> int:
    """Return how often `model` repeats a request that fails, its client included.

    0 where nothing says so: there is no `max_retries`.
    """
    clients = _clients(model).values()
    return max(_stated(held) for held in (_held(model), *map(vars, clients)))


def quiet(model: BaseChatModel) -> BaseChatModel:
    """Return `model` with its own retries and its clients' retries and redirects off.

    It is the same object where there are none, and where they cannot be switched off:
    then a warning is logged.
    """
    if not (own_retries(model) or _clients(model) or _sessions(model)):
        return model
    try:
        return _quiet(model)
    except Exception as error:  # noqa: BLE001 - another package's class raises anything
        # Not its words: they may quote a key.
        logger.warning(
            "%s: the retries and redirects of its client stay on (%s)",
            type(model).__name__,
            type(error).__name__,
        )
        return model


def _quiet(model: BaseChatModel) -> BaseChatModel:
    copy = model.model_copy()
    clients = _clients(copy)
    # Past pydantic's own assignment, which may validate and thereby make new clients.
    fields, private = vars(copy), copy.__pydantic_private__ or {}
    cached = _cached(type(copy)) - clients.keys()
    for name in cached:
        fields.pop(name, None)  # made from the old settings; made again when needed
    for name, client in clients.items():
        space = fields if name in fields else private
        space[name] = _single(space[name], client)
    for name, client in _sessions(copy).items():
        private[name] = _sessions_that_stay(client)
    if FIELD in fields:
        fields[FIELD] = 0
    if CHUNK_FIELD in fields and sys.version_info < (3, 12):
        fields[CHUNK_FIELD] = None
    # Clients only: what else a model puts off may take long, and never be needed.
    for name in (name for name in cached if "client" in name):
        with suppress(Exception):  # without a key, say: the call will say so
            value = getattr(copy, name)
            if (client := _client(value)) is not None:
                fields[name] = _single(value, client)
    return copy


def _held(model: BaseChatModel) -> dict[str, Any]:
    """Return the fields, cached properties and private attributes of a model."""
    private = getattr(model, "__pydantic_private__", None) or {}
    return {**private, **getattr(model, "__dict__", {})}


def _clients(model: BaseChatModel) -> dict[str, Any]:
    """Return the provider's clients by the attribute that holds them or a resource."""
    found = {name: _client(value) for name, value in _held(model).items()}
    return {name: client for name, client in found.items() if client is not None}


def _client(value: Any) -> Any | None:
    """Return the client that `value` is, or that it is a resource of, if any.

    Those of OpenAI, Anthropic, Groq and others are of one family.
    """
    for candidate in (value, getattr(value, "__dict__", {}).get("_client")):
        has_options = callable(getattr(type(candidate), "with_options", None))
        if has_options and FIELD in getattr(candidate, "__dict__", {}):
            return candidate
    return None


def _single(value: Any, client: Any) -> Any:
    """Return the client, or the resource `value` of it, that calls once."""
    made = client.with_options(max_retries=0)
    _watch(getattr(made, "_client", None))
    if (prepare := getattr(type(made), "_prepare_options", None)) is not None:
        hook = _aprepared if iscoroutinefunction(prepare) else _prepared
        # By a weak reference: a cycle would keep connections until it is collected.
        vars(made)["_prepare_options"] = partial(hook, prepare, weakref.ref(made))
    return made if value is client else type(value)(made)


def _watch(http: Any) -> None:
    """Let the calls of an HTTP client of httpx's kind be ended from outside.

    By its public event hooks, once; outside of a worker they do nothing.
    """
    hooks = getattr(http, "event_hooks", None)
    if not isinstance(hooks, dict) or not hasattr(http, "__enter__"):
        return  # an asynchronous one: its calls are cancelled
    if _answered not in hooks.get("response", []):
        http.event_hooks = {**hooks, "response": [*hooks.get("response", []), _answered]}


def _answered(response: Any) -> None:
    """Note the socket of an answer of httpx's until its body has been read."""
    with suppress(Exception):  # of a transport without a network: nothing can hang there
        if response.http_version == "HTTP/2":
            return  # other calls use the connection at the same time
        socket = response.extensions["network_stream"].get_extra_info("socket")
        forget = when_given_up(partial(socket.shutdown, SHUT_RDWR))
        stream = response.stream

        def closed() -> None:
            forget()  # first: closed, the connection is free for another call
            vars(stream).pop("close", None)  # its own again; a cycle would outlive it
            stream.close()

        stream.close = closed


def _requests_answered(response: Any, *args: Any, **kwargs: Any) -> None:
    """Note the socket of an answer of requests'; its session is of this call alone."""
    del args, kwargs
    with suppress(Exception):
        raw = response.raw
        # Where the connection ends with the answer, only the answer still has the socket.
        socket = raw.connection.sock
        end = raw.shutdown if socket is None else partial(socket.shutdown, SHUT_RDWR)
        when_given_up(end)


def _prepared(prepare: Callable[..., Any], itself: Any, options: Any) -> Any:
    made = prepare(itself(), options)
    made.follow_redirects = False
    return made


async def _aprepared(prepare: Callable[..., Any], itself: Any, options: Any) -> Any:
    made = await prepare(itself(), options)
    made.follow_redirects = False
    return made


def _sessions(model: BaseChatModel) -> dict[str, Any]:
    """Return ChatNVIDIA's clients by the private attribute that holds them."""
    private = getattr(model, "__pydantic_private__", None) or {}
    return {name: held for name, held in private.items() if _makers(held)}


def _makers(client: Any) -> list[str]:
    held = getattr(client, "__dict__", {})
    return [name for name in ("get_session_fn", "get_async_session_fn") if name in held]


def _sessions_that_stay(client: Any) -> Any:
    copy = client.model_copy()
    for name in _makers(copy):
        hook = _session if name == "get_session_fn" else _asession
        setattr(copy, name, partial(hook, getattr(copy, name)))
    return copy


def _session(make: Callable[[], Any]) -> Any:
    session = make()
    session.max_redirects = 0
    session.hooks["response"].append(_requests_answered)
    return session


def _asession(make: Callable[[], Any]) -> Any:
    from aiohttp import TooManyRedirects, TraceConfig  # noqa: PLC0415 - it made the session

    async def refuse(session: Any, context: Any, params: Any) -> None:
        del session, context
        response = params.response
        raise TooManyRedirects(response.request_info, (response,))

    session, trace = make(), TraceConfig()
    trace.on_request_redirect.append(refuse)
    trace.freeze()
    session.trace_configs.append(trace)
    return session


def _cached(kind: type) -> set[str]:
    """Return the names of the cached properties of a class."""
    attributes = [item for base in kind.__mro__ for item in vars(base).items()]
    return {name for name, value in attributes if isinstance(value, cached_property)}


def _stated(held: Mapping[str, Any]) -> int:
    """Return what `max_retries` says; 0 for nothing, and for nonsense."""
    stated = held.get(FIELD)
    if not isinstance(stated, int) or isinstance(stated, bool):
        return 0
    return max(0, stated)
