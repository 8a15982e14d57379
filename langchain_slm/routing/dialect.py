"""Between LangChain's objects and OpenAI's dicts. No I/O, no decisions.

`bind_tools` and `with_structured_output` of a source model leave their arguments in
the call's options, in the source's dialect: a pydantic class as `response_format`,
Anthropic's `tool_choice`. These functions read any of them and write what a target
understands; the source's own parser then reads the target's message.

Refuses nothing by itself: `pin` names what only the source's provider can do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel

from langchain_slm.routing import native
from langchain_slm.routing.confidence import confidence_of
from langchain_slm.routing.parts import in_parts
from langchain_slm.routing.writing import WRITERS, Writer
from langchain_slm.schema import Answer, JsonObject, Request, Usage

# What decides an answer besides its messages, under one name at every provider.
SAMPLING: tuple[str, ...] = (
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "n",
)
# The same under another name: OpenAI's newer one, Google's, Ollama's; Anthropic's.
ALIASES: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "stop_sequences": "stop",
}
ONE_ANSWER = ("n", 1)  # Google's and Groq's models state what is meant anyway
# Other options whose meaning every target shares. The rest stays behind: a reasoning
# effort belongs to a model, a header with a credential to an endpoint.
SHARED = ("parallel_tool_calls", "ls_structured_output_format")
# Options in a dialect of the source; models of its class understand them as they are.
TRANSLATED = (
    *("tools", "tool_choice", "response_format"),
    *native.FORCING,
    *native.FORMATS,
)
# Options that change what the answer holds, in a way that no other model promises.
PINNING = (
    "functions",
    "function_call",
    "web_search_options",
    "modalities",
    "audio",
    "logprobs",
    "top_logprobs",
    # State that lies at the provider's.
    "previous_response_id",
    "conversation",
    "context_management",
    *native.PINNING,
)
# Key of `response_metadata` under which a message says who answered, and why.
METADATA_KEY = "langchain_slm"
REPORTS_FINISH_REASON = frozenset({"openai", "nvidia"})
CACHED_CLASSES = 256  # of schemas; an app has a few, some make them at run time
UNKNOWN_USAGE = Usage()
_NO_PROVIDERS = ("langchain_core", "langchain_slm")
GOOGLES_FOLDER = "models/"  # names of Google's models have it or not
_MODEL_NAMES = ("model_name", "model", "model_id", "deployment_name", "name")
_PLAIN_ROLES: Mapping[type, str] = {SystemMessage: "system", HumanMessage: "user"}
_FINISH_NAMES = (
    "finish_reason",
    "stop_reason",  # Anthropic
    "stopReason",  # Bedrock
    "done_reason",  # Ollama
    "status",  # OpenAI's Responses API: "completed" or "incomplete"
)


def model_name(model: BaseChatModel, options: Mapping[str, Any] | None = None) -> str:
    """Return the provider's name of `model`, else the name of its class.

    Args:
        model: A chat model.
        options: Of a call; they may name another model.
    """
    if options and (stated := stated_name(options)) is not None:
        return stated
    for attribute in _MODEL_NAMES:
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            is_google = name.startswith(GOOGLES_FOLDER) and "google" in provider_name(
                model
            )
            return name.removeprefix(GOOGLES_FOLDER) if is_google else name
    return type(model).__name__


def stated_name(options: Mapping[str, Any]) -> str | None:
    """Return the name of the model that a call itself asks for; None for none."""
    stated = options.get("model")
    return stated if isinstance(stated, str) and stated else None


def provider_name(model: BaseChatModel) -> str:
    """Return LangChain's name of the provider of `model`; of a router its default's."""
    if is_router(model):
        return provider_name(vars(model)["default"])
    return provider_of(type(model)) or model._llm_type  # noqa: SLF001 - the only name that every model has


def is_router(model: BaseChatModel) -> bool:
    """Whether `model` is a `ChatRouter`, which stands above this module."""
    return type(model).__module__ == "langchain_slm.routing.chat_router"


@lru_cache(maxsize=CACHED_CLASSES)
def provider_of(model: type[BaseChatModel]) -> str | None:
    """Return LangChain's name of the provider of a class; None if it is unknown."""
    # An app's own subclass of ChatOpenAI is still a model of OpenAI's.
    for base in model.__mro__:
        package = base.__module__.split(".")[0]
        if base.__module__ == "langchain_slm.specialization.heads":
            return "head"
        if package.startswith("langchain_nvidia"):
            return "nvidia"
        if package.startswith("langchain_") and package not in _NO_PROVIDERS:
            return package.removeprefix("langchain_")
    return None


def stated(model: BaseChatModel, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a call over those that `model` adds to every call."""
    own = vars(model)
    always: JsonObject = {}
    for name in _held_fields(type(model)):
        if own.get(name):
            always[name] = own[name]
    if isinstance(given := own.get("model_kwargs"), dict):
        always |= given
    if options:
        always |= native.nested(options)
    return {**always, **options} if always else options


@lru_cache(maxsize=CACHED_CLASSES)
def _held_fields(model: type[BaseChatModel]) -> tuple[str, ...]:
    names = (*native.FORMATS, *PINNING)
    return tuple(name for name in names if name in model.model_fields)


def sampling(model: BaseChatModel, options: Mapping[str, Any]) -> JsonObject:
    """Return the sampling parameters of a call: the call's own, else the model's."""
    found: JsonObject = {}
    own = vars(model)
    for name in _sampling_fields(type(model)):
        if (value := own.get(name)) is not None and (name, value) != ONE_ANSWER:
            found[ALIASES.get(name, name)] = value
    if "max_tokens" in found and is_no_limit(found["max_tokens"], own.get("profile")):
        del found["max_tokens"]
    for name, value in options.items():
        if value is not None and (name in SAMPLING or name in ALIASES):
            found[ALIASES.get(name, name)] = value
    return found


def is_no_limit(max_tokens: Any, profile: Any) -> bool:
    """Whether a limit is the most that the model can write by its profile.

    ChatAnthropic fills that in where the app sets none. A smaller model could not even
    be asked for so much.
    """
    most = profile.get("max_output_tokens") if isinstance(profile, dict) else None
    return isinstance(most, int) and isinstance(max_tokens, int) and max_tokens >= most


@lru_cache(maxsize=CACHED_CLASSES)
def _sampling_fields(model: type[BaseChatModel]) -> tuple[str, ...]:
    return tuple(name for name in (*SAMPLING, *ALIASES) if name in model.model_fields)


def tools_of(options: Mapping[str, Any]) -> list[JsonObject]:
    """Return the tools offered, as OpenAI function tools.

    A provider's built-in tool (`{"type": "web_search"}`) stays as it is. Of tools among
    which the call may choose, only those are offered.
    """
    offered = options.get("tools") or options.get("functions") or ()
    tools = [native.openai_tool(tool) for tool in offered]
    return native.only_allowed(tools, options) if tools else tools


def pin(options: Mapping[str, Any], tools: Sequence[JsonObject]) -> str | None:
    """Return why only the source's provider can answer a call; None if others can.

    Args:
        options: Of the call.
        tools: As `tools_of` returned them.
    """
    if any(tool.get("type") != "function" for tool in tools):
        return "the provider's own tools pin the call to it"
    for name in PINNING:
        if options.get(name):
            return f"the option {name} pins the call to its provider"
    return None


def tool_choice_of(options: Mapping[str, Any]) -> str | JsonObject | None:
    """Return the tool choice in OpenAI's form, from that of any provider."""
    return native.openai_choice(options)


def response_format_of(options: Mapping[str, Any]) -> JsonObject | None:
    """Return the response format as OpenAI's dict.

    It is read from OpenAI's option (a dict or a class), from NVIDIA's `guided_json`,
    from what every model tells LangChain of its structured output, or from the options
    of other providers.
    """
    given = options.get("response_format")
    if isinstance(given, dict):
        return given
    if given is None:
        given = options.get("guided_json")
    if given is not None:
        return _json_schema(given)
    told = options.get("ls_structured_output_format") or {}
    method = (told.get("kwargs") or {}).get("method")
    if method == "json_schema":
        return _json_schema(told["schema"])
    schema = native.text_schema(options)
    if schema:
        return _json_schema(schema)
    is_json = schema is not None or method == "json_mode"
    return {"type": "json_object"} if is_json else None


def parsed_tool_of(
    options: Mapping[str, Any], tools: Sequence[JsonObject]
) -> JsonObject | None:
    """Return the choice of the tool whose call the app's parser expects, if any.

    It is never sent: some models cannot be told to call it (ChatOllama, ChatAnthropic
    while it thinks), and their apps may live with a text in its place.
    """
    told = options.get("ls_structured_output_format") or {}
    if (told.get("kwargs") or {}).get("method") != "function_calling" or len(tools) != 1:
        return None
    name = tools[0].get("function", {}).get("name")
    return {"type": "function", "function": {"name": name}} if name else None


def json_mode_schema_of(options: Mapping[str, Any]) -> JsonObject | None:
    """Return the schema that the app's parser expects in JSON mode.

    It is never sent: the mode asks for any object, and the prompt for this one.
    """
    told = options.get("ls_structured_output_format") or {}
    if (told.get("kwargs") or {}).get("method") != "json_mode" or not told.get("schema"):
        return None
    schema: JsonObject = _json_schema(told["schema"])["json_schema"]["schema"]
    return schema


def _json_schema(schema: Any) -> JsonObject:
    if not isinstance(schema, dict):
        return _json_schema_of_class(schema)
    body = convert_to_json_schema(schema) if "function" in schema else schema
    return _named_schema(str(body.get("title") or "response"), body)


@lru_cache(maxsize=CACHED_CLASSES)
def _json_schema_of_class(schema: type) -> JsonObject:
    return _named_schema(schema.__name__, convert_to_json_schema(schema))


def _named_schema(name: str, body: JsonObject) -> JsonObject:
    # OpenAI's rule for names; a generic class is called `Page[int]`.
    name = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": body}}


def request_of(
    model: BaseChatModel, messages: Sequence[BaseMessage], options: Mapping[str, Any]
) -> Request:
    """Return what `model` is asked, in neutral form."""
    options = stated(model, options)
    return Request(
        messages=tuple(openai_messages(messages)),
        tools=tuple(tools_of(options)),
        tool_choice=tool_choice_of(options),
        response_format=response_format_of(options),
        parameters=sampling(model, options) | _shared(options),
    )


def openai_messages(messages: Sequence[BaseMessage]) -> list[JsonObject]:
    """Return `messages` as OpenAI chat messages.

    Raises:
        ValueError: If a message holds what OpenAI's form has no place for.
    """
    converted: list[JsonObject] = []
    for message in messages:
        role = _PLAIN_ROLES.get(type(message))
        plain = isinstance(message.content, str) and not message.additional_kwargs
        if role and plain and not message.name:  # most messages; a tenth of the time
            converted.append({"role": role, "content": message.content})
        elif isinstance(message.content, str):
            converted += convert_to_openai_messages([message])
        else:
            converted += in_parts(message, message.content)
    return converted


def answer_of(message: BaseMessage) -> Answer:
    """Return a model's message in neutral form: its text, without reasoning."""
    about = message.response_metadata
    content = message.content
    body: JsonObject = {
        "role": "assistant",
        "content": content if isinstance(content, str) else str(message.text),
    }
    if calls := tool_calls_of(message):
        body["tool_calls"] = calls
    return Answer(
        message=body,
        finish_reason=finish_reason(about),
        usage=usage_of(message),
        abstained=bool(about.get("abstained")),
        confidence=confidence_of(about),
    )


def finish_reason(about: Mapping[str, Any]) -> str | None:
    """Return why an answer ended, as its provider says it; None where it does not."""
    for name in _FINISH_NAMES:
        reason = about.get(name)
        if reason and isinstance(reason, str):
            return reason
    return None


def usage_of(message: BaseMessage) -> Usage:
    """Return the tokens that the provider counted for a message."""
    usage = getattr(message, "usage_metadata", None)
    if not usage:
        return UNKNOWN_USAGE
    return Usage(
        input_tokens=usage.get("input_tokens"), output_tokens=usage.get("output_tokens")
    )


def tool_calls_of(message: BaseMessage) -> list[JsonObject]:
    """Return the tool calls of a message in OpenAI's form, arguments as they came."""
    # Of a chunk LangChain repairs arguments that are cut; these are as they came.
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        return [
            _tool_call(chunk["id"], chunk["name"], chunk["args"])
            for chunk in message.tool_call_chunks
        ]
    if not isinstance(message, AIMessage):
        return []
    parsed = [
        _tool_call(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in message.tool_calls
    ]
    broken = [
        _tool_call(call.get("id"), call.get("name"), call.get("args"))
        for call in message.invalid_tool_calls
    ]
    return parsed + broken


def is_mended(message: AIMessage) -> bool:
    """Whether LangChain made arguments of a tool call out of ones that are cut."""
    mended = {call["id"] for call in message.tool_calls}
    return isinstance(message, AIMessageChunk) and any(
        chunk["id"] in mended and not _is_json(chunk["args"] or "{}")
        for chunk in message.tool_call_chunks
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _tool_call(
    call_id: str | None, name: str | None, arguments: str | None
) -> JsonObject:
    function = {"name": name or "", "arguments": arguments or ""}
    return {"id": call_id, "type": "function", "function": function}


def _shared(options: Mapping[str, Any]) -> JsonObject:
    parallel = options.get("parallel_tool_calls")
    choice = options.get("tool_choice")
    if parallel is None and isinstance(choice, dict):  # Anthropic's
        disabled = choice.get("disable_parallel_tool_use")
        parallel = None if disabled is None else not disabled
    return {} if parallel is None else {"parallel_tool_calls": parallel}


def adapt(
    source: BaseChatModel, target: BaseChatModel, options: Mapping[str, Any]
) -> JsonObject:
    """Return the options of a call of `source` as `target` understands them.

    The name of the source's model never travels; sampling parameters that the source
    holds as attributes do, for they belong to the site.
    """
    options = stated(source, options)
    sampled = sampling(source, options)
    if type(source) is type(target):
        own = {name: options[name] for name in (*SHARED, *TRANSLATED) if name in options}
        kept = {name: value for name, value in own.items() if value is not None}
        return {**in_dialect_of(target, sampled), **kept}
    shared = {name: options[name] for name in SHARED if options.get(name) is not None}
    return in_dialect_of(target, {**sampled, **shared, **_translated(options)})


def in_dialect_of(target: BaseChatModel, options: JsonObject) -> JsonObject:
    """Return options in OpenAI's form as the package of `target` takes them."""
    write = _writer_of(type(target))
    return options if write is None else write(target, options)


@lru_cache(maxsize=CACHED_CLASSES)
def _writer_of(model: type[BaseChatModel]) -> Writer | None:
    packages = (base.__module__.partition(".")[0] for base in model.__mro__)
    return next((WRITERS[name] for name in packages if name in WRITERS), None)


def _translated(options: Mapping[str, Any]) -> JsonObject:
    values = {
        "tools": tools_of(options),
        "tool_choice": tool_choice_of(options),
        "response_format": response_format_of(options),
        **_shared(options),
    }
    return {name: value for name, value in values.items() if value not in (None, [])}


def restore(message: AIMessage, options: Mapping[str, Any]) -> JsonObject:
    """Return the `additional_kwargs` that the source's parser looks for in vain.

    ChatOpenAI's structured output reads `additional_kwargs["parsed"]`, which only
    its own client writes.

    Raises:
        ValueError: If the text does not give an object of the class that was asked for.
    """
    wanted = options.get("response_format")
    if not (isinstance(wanted, type) and issubclass(wanted, BaseModel)):
        return {}
    if message.tool_calls or message.additional_kwargs.get("parsed") is not None:
        return {}
    return {"parsed": wanted.model_validate_json(str(message.text))}
