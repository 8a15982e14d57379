"""Options of a call that providers' own packages name otherwise than OpenAI does.

Reads Anthropic's, Google's, Groq's and Ollama's; `dialect` puts them into OpenAI's form.
No I/O, no decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from langchain_slm.schema import JsonObject

# What asks for JSON: Anthropic's, Google's, Ollama's.
FORMATS = (
    "output_config",
    "output_format",
    "response_mime_type",
    "response_json_schema",
    "response_schema",
    "format",
)
# What forces a tool, besides `tool_choice`: Google's.
FORCING = ("tool_config",)
# State that lies at the provider's, and what only its own endpoint does.
PINNING = (
    "cached_content",  # Google's: part of the prompt
    "container",  # Anthropic's
    "mcp_servers",  # Anthropic's
    "response_modalities",  # Google's: images, speech
    "documents",  # Groq's, to be cited
    "compound_custom",  # Groq's: tools of its systems
    "search_settings",  # Groq's
)
# Options that hold others: Google's, Ollama's.
NESTING = ("generation_config", "options")
_MODES: Mapping[str, str] = {"NONE": "none", "AUTO": "auto", "VALIDATED": "auto"}


def nested(options: Mapping[str, Any]) -> JsonObject:
    """Return the options that lie within others."""
    found: JsonObject = {}
    for name in NESTING:
        if isinstance(within := options.get(name), Mapping):
            found |= within
    return found


def text_schema(options: Mapping[str, Any]) -> JsonObject | None:
    """Return the JSON schema of the text that a call asks for.

    Returns:
        The schema; an empty one where any JSON object will do; None for plain text.
    """
    ollama = options.get("format")
    if isinstance(ollama, dict) or ollama == "json":
        return ollama if isinstance(ollama, dict) else {}
    anthropic = options.get("output_config") or {}
    told = anthropic.get("format") or options.get("output_format") or {}
    if told.get("type") == "json_schema":
        return told.get("schema") or {}
    if options.get("response_mime_type") == "application/json":
        return options.get("response_json_schema") or options.get("response_schema") or {}
    return None


def google_choice(options: Mapping[str, Any]) -> str | list[str] | None:
    """Return the tool choice in `tool_config`: a mode, or names of tools."""
    config = options.get("tool_config")
    if isinstance(config, BaseModel):
        config = config.model_dump()
    calling = (config or {}).get("function_calling_config") or {}
    mode = calling.get("mode") or ""
    mode = str(getattr(mode, "value", mode)).upper()
    if mode == "ANY":
        return list(calling.get("allowed_function_names") or ()) or "any"
    return _MODES.get(mode)


def openai_choice(options: Mapping[str, Any]) -> str | JsonObject | None:
    """Return the tool choice in OpenAI's form."""
    choice = options.get("tool_choice")
    if choice is None:
        choice = google_choice(options)
    if isinstance(choice, list | tuple):
        choice = choice[0] if len(choice) == 1 else bool(choice)
    if choice is True or choice == "any":
        return "required"
    if isinstance(choice, dict):
        return _choice(choice)
    if not isinstance(choice, str) or not choice:
        return None
    return choice if choice in ("auto", "none", "required") else _named(choice)


def _choice(choice: JsonObject) -> str | JsonObject:
    kind = choice.get("type")
    if kind == "tool":
        return _named(choice["name"])
    if kind is None and isinstance(choice.get("tool"), dict):
        return _named(choice["tool"]["name"])
    for said, meant in (("any", "required"), ("auto", "auto"), ("none", "none")):
        if kind == said or (kind is None and said in choice):
            return meant
    return choice


def _named(tool: str) -> JsonObject:
    return {"type": "function", "function": {"name": tool}}


def only_allowed(tools: list[JsonObject], options: Mapping[str, Any]) -> list[JsonObject]:
    """Return the tools that may be called, where Google's choice lists their names."""
    choice = options.get("tool_choice")
    if choice is None:
        choice = google_choice(options)
    if not isinstance(choice, list | tuple) or not choice:
        return tools
    # A provider's own tool has no such name; it stays, for it pins the call.
    names = (None, *choice)
    return [tool for tool in tools if tool.get("function", {}).get("name") in names]


def openai_tool(tool: Any) -> JsonObject:
    """Return a tool as OpenAI's function tool; a provider's built-in one as it is."""
    if not isinstance(tool, dict):
        try:
            return convert_to_openai_tool(tool)
        except ValueError:
            if not isinstance(tool, BaseModel):
                raise
            return {"type": type(tool).__name__}  # of the client of a provider
    kind = tool.get("type")
    if kind == "function":
        return tool if "function" in tool else _nested(tool)
    if kind in (None, "custom") and "input_schema" in tool:
        return _anthropic_tool(tool)
    if kind is None and tool.keys() & {"name", "title", "toolSpec"}:
        return convert_to_openai_tool(tool)  # OpenAI's function, JSON schema, Bedrock's
    return tool


def _nested(tool: JsonObject) -> JsonObject:
    """Return a function tool of OpenAI's Responses API in the form of its chat API."""
    function = {name: value for name, value in tool.items() if name != "type"}
    return {"type": "function", "function": function}


def _anthropic_tool(tool: JsonObject) -> JsonObject:
    plain = convert_to_openai_tool(tool)
    if not tool.get("strict"):
        return plain
    # OpenAI is strict only where nothing is optional: it must not become required.
    strict = convert_to_openai_tool(tool, strict=True)
    was, would_be = plain["function"]["parameters"], strict["function"]["parameters"]
    return strict if was == would_be else plain
