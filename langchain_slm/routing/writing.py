"""Options in OpenAI's form, as the packages of other providers take them in a call.

What such a package has no place for is left out: its client would refuse the call. No
I/O, no decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_slm.schema import JsonObject

Writer: TypeAlias = Callable[[BaseChatModel, JsonObject], JsonObject]
STRUCTURED = "ls_structured_output_format"  # LangChain's own; no client sees it
# What ChatOllama puts into `options` by itself, unless a call has some.
OLLAMAS_OPTIONS = (
    *("mirostat", "mirostat_eta", "mirostat_tau", "num_ctx", "num_gpu", "num_thread"),
    *("num_predict", "repeat_last_n", "repeat_penalty", "temperature", "seed", "stop"),
    *("tfs_z", "top_k", "top_p"),
)
_ANTHROPICS = ("temperature", "top_p", "max_tokens", "stop", STRUCTURED)
_GOOGLES = (
    *("temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty"),
    *("tools", "response_format", STRUCTURED),
)
_OLLAMAS = ("tools", "response_format", STRUCTURED)


def anthropics(target: BaseChatModel, options: JsonObject) -> JsonObject:
    """Return options as ChatAnthropic takes them."""
    del target
    written = _only(options, _ANTHROPICS)
    wanted = options.get("response_format") or {}
    if wanted.get("type") == "json_schema":  # it has no mode for just any JSON
        written["response_format"] = wanted
    if tools := options.get("tools"):
        written["tools"] = [_anthropic_tool(tool["function"]) for tool in tools]
        choice = _anthropic_choice(options.get("tool_choice"))
        parallel = options.get("parallel_tool_calls")
        if parallel is not None:
            told = {"disable_parallel_tool_use": not parallel}
            choice = {**(choice or {"type": "auto"}), **told}
        if choice:
            written["tool_choice"] = choice
    return written


def _anthropic_tool(function: JsonObject) -> JsonObject:
    tool = _only(function, ("name", "description"))
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {**tool, "input_schema": schema}


def _anthropic_choice(choice: str | JsonObject | None) -> JsonObject | None:
    if isinstance(choice, dict):
        return {"type": "tool", "name": choice["function"]["name"]}
    return None if choice is None else {"type": {"required": "any"}.get(choice, choice)}


def googles(target: BaseChatModel, options: JsonObject) -> JsonObject:
    """Return options as ChatGoogleGenerativeAI takes them."""
    del target
    written = _only(options, _GOOGLES)
    if "max_tokens" in options:
        written["max_output_tokens"] = options["max_tokens"]
    if choice := options.get("tool_choice"):
        is_named = isinstance(choice, dict)
        written["tool_choice"] = choice["function"]["name"] if is_named else choice
    return written


def ollamas(target: BaseChatModel, options: JsonObject) -> JsonObject:
    """Return options as ChatOllama takes them, over those of its own."""
    asked = {{"max_tokens": "num_predict"}.get(key, key): options[key] for key in options}
    asked = _only(asked, OLLAMAS_OPTIONS)
    written = _only(options, _OLLAMAS)
    if asked:
        own = {name: getattr(target, name, None) for name in OLLAMAS_OPTIONS}
        own = {name: value for name, value in own.items() if value is not None}
        written["options"] = {**own, **asked}
    return written


def openais(target: BaseChatModel, options: JsonObject) -> JsonObject:
    """Return options as ChatOpenAI takes them.

    Its client parses structured answers by itself, and then refuses tools that are not
    strict. A call of a strict one satisfies the schema that it had before.
    """
    del target
    if not options.get("tools") or "response_format" not in options:
        return options
    strict = [
        convert_to_openai_tool(tool["function"], strict=True) for tool in options["tools"]
    ]
    return {**options, "tools": strict}


def _only(options: Mapping[str, Any], names: tuple[str, ...]) -> JsonObject:
    return {name: options[name] for name in names if name in options}


# By the package of a model's class, or of one that it derives from.
WRITERS: Mapping[str, Writer] = {
    "langchain_openai": openais,
    "langchain_anthropic": anthropics,
    "langchain_google_genai": googles,
    "langchain_ollama": ollamas,
}
