"""What a model is, and what is bound to it, as words. Calls no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast

from langchain_core.language_models import BaseChatModel

from langchain_slm.inspection.code_reading import Arguments, Spot
from langchain_slm.inspection.libraries import GIVEN_NAMES, INIT_CHAT_MODEL
from langchain_slm.inspection.peeking import (
    MISSING,
    attribute,
    full_name,
    function_of,
    is_a,
    items,
)
from langchain_slm.inspection.values import (
    NO_OPTIONS,
    NOTHING,
    How,
    Items,
    Known,
    Made,
    Options,
    Unloaded,
    Value,
    constant,
    known,
)
from langchain_slm.routing import dialect

# What the hook replaces; a class with its own is not reached.
HOOKED = ("generate", "agenerate", "stream", "astream")
_NAMES = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")
_RESULT = "made in the function"


def class_name(kind: type) -> str:
    """Return the name of a class as an app imports it."""
    return kind.__name__


def model_name(model: BaseChatModel) -> str:
    """Return the provider's name of a model, as it is recorded."""
    try:
        return dialect.model_name(model)
    except Exception:  # noqa: BLE001 - an app's own class may raise anything
        return class_name(type(model))


def provider_name(model: BaseChatModel) -> str | None:
    """Return LangChain's name of the provider of a model; None where it raises."""
    try:
        return dialect.provider_name(model)
    except Exception:  # noqa: BLE001 - as above
        return None


def overridden(kind: type) -> str | None:
    """Return why the hook does not reach a class; None where it does."""
    for base in kind.__mro__:
        if base is BaseChatModel:
            return None
        own = [name for name in HOOKED if name in vars(base)]
        if own:
            return (
                f"{base.__name__} has its own {'/'.join(own)}, which no binding reaches"
            )
    return None


def bound_options(kwargs: Mapping[str, Any]) -> Options:
    """Return what a binding adds to each call, from LangChain's own arguments."""
    try:
        tools = dialect.tools_of(kwargs)
        choice = dialect.tool_choice_of(kwargs)
        form = dialect.response_format_of(kwargs)
        pinned = dialect.pin(kwargs, tools)
    except Exception:  # noqa: BLE001 - a binding may hold anything
        return NO_OPTIONS
    told = kwargs.get("ls_structured_output_format")
    schema = told.get("schema") if type(told) is dict else None
    named = schema_name(schema) if schema is not None else None
    return Options(
        tools=tuple(_tool_name(tool) for tool in tools),
        response_format=named or _format_name(form),
        forced=choice not in (None, "auto", "none"),
        pinned=pinned,
        model=dialect.stated_name(kwargs),
    )


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return str(name or tool.get("name") or tool.get("type") or "?")


def _format_name(form: Any) -> str | None:
    if not isinstance(form, dict):
        return None
    schema = form.get("json_schema")
    return str(schema.get("name") if isinstance(schema, dict) else form.get("type"))


def schema_name(schema: object) -> str:
    """Return the name of a schema: of a class, a JSON schema, or an agent's strategy."""
    if type(schema) is dict:
        inner = schema.get("function") or schema.get("json_schema")
        if type(inner) is dict:  # of a tool, or of a response format
            return schema_name(inner)
        return str(schema.get("title") or schema.get("name") or "a JSON schema")
    inner = attribute(schema, "schema")
    is_strategy = inner is not MISSING and not is_a(schema, type)
    if is_strategy and type(schema).__module__.startswith("langchain.agents"):
        return schema_name(inner)
    name = attribute(schema, "__name__") if is_a(schema, type) else type(schema).__name__
    return str(name)


def written_options(name: str, given: Arguments) -> Options:
    """Return what a method such as `bind_tools` adds, from the code that calls it."""
    if name == "with_structured_output":
        schema = given.get(0, "schema")
        return Options(response_format=_only_name(schema) or "a schema")
    tools = given.get(0 if name == "bind_tools" else None, "tools", "functions")
    form = given.get(None, "response_format")
    choice = given.get(None, "tool_choice")
    open_choice = not choice or constant(choice, str) in ("auto", "none")
    return Options(
        tools=tool_names(tools),
        response_format=_only_name(form),
        forced=not open_choice,
        pinned=_pinned(tools),
        model=constant(given.get(None, "model"), str),
    )


def _only_name(value: Value) -> str | None:
    for each in value:
        if isinstance(each, Known) and each.obj is not None:
            return schema_name(each.obj)
        if isinstance(each, Items):
            title = constant(each.entries.get("title", NOTHING), str)
            return title or "a JSON schema"
    return None


def tool_names(tools: Value) -> tuple[str, ...]:
    """Return the names of the tools in a list, as far as they are known."""
    return tuple(_tool_names(tools))


def _tool_names(tools: Value) -> Iterator[str]:
    for each in tools:
        if isinstance(each, Items) and _is_tool(each):
            named = each.entries.get("name", each.entries.get("type", NOTHING))
            yield constant(named, str) or "?"
        elif isinstance(each, Items):
            yield from _tool_names(each.all)
        elif isinstance(each, Known) and is_a(each.obj, (list, tuple)):
            yield from (tool_name(tool) for _, tool in items(each.obj))
        elif isinstance(each, Known):
            yield tool_name(each.obj)


def _is_tool(written: Items) -> bool:
    return any(key in written.entries for key in ("name", "type", "function"))


def tool_name(tool: object) -> str:
    """Return the name of a tool: an object, a function, a class, a provider's dict."""
    if type(tool) is dict:
        return _tool_name(tool)
    for source, name in ((tool, "name"), (function_of(tool) or tool, "__name__")):
        found = attribute(source, name)
        if is_a(found, str):
            return str(found)
    return type(tool).__name__


def _pinned(tools: Value) -> str | None:
    """Return why a list of tools pins a call; what is only one of several does not."""
    entries = [*tools[0].entries.values(), tools] if _is_one_list(tools) else [tools]
    for entry in entries:
        if len(entry) == 1 and isinstance(entry[0], Items):
            kind = constant(entry[0].entries.get("type", NOTHING), str)
            if kind is not None and kind != "function":
                return "the provider's own tools pin the call to it"
    return None


def _is_one_list(tools: Value) -> TypeGuard[tuple[Items]]:
    return len(tools) == 1 and isinstance(tools[0], Items)


def made_model(maker: object, given: Arguments, spot: Spot) -> Value | None:
    """Return the chat model that a call makes when it runs; None where it makes none.

    Args:
        maker: A class or a function that exists, or an `Unloaded` one.
        given: What it is given.
        spot: Where.
    """
    where = f"{spot.file}:{spot.line}"
    if is_a(maker, Unloaded):
        return _of_unloaded(cast("Unloaded", maker), given, where)
    if is_a(maker, type) and issubclass(maker, BaseChatModel):  # type: ignore[arg-type]  # it is a class
        return _of_class(maker, given, where)  # type: ignore[arg-type]  # as above
    if full_name(maker) == INIT_CHAT_MODEL:
        return _of_function(given, where)
    return None


def _of_class(kind: type[BaseChatModel], given: Arguments, where: str) -> Value:
    said = any(name in given.keywords for name in _NAMES)
    model = constant(given.get(None, *_NAMES), str) if said else _default_name(kind)
    provider = dialect.provider_of(kind)
    how = (_RESULT, *_given_how(given.get(None, *_NAMES)))
    return (Made(class_name(kind), model, provider, where, how=how),)


def _given_how(value: Value) -> How:
    """Return how a run gives a value, or may give another than the default."""
    hows = (how for each in value for how in each.how if how in GIVEN_NAMES.values())
    return tuple(dict.fromkeys(hows))


def _default_name(kind: type[BaseChatModel]) -> str | None:
    for name in _NAMES:
        field = kind.model_fields.get(name)
        if field is not None and isinstance(field.default, str) and field.default:
            return field.default
    return None


def _of_function(given: Arguments, where: str) -> Value:
    provider = constant(given.get(None, "model_provider"), str)
    said, provider = named(constant(given.get(0, "model"), str), provider)
    is_open = "configurable_fields" in given.keywords or not given.get(0, "model")
    how: How = (_RESULT, "configurable") if is_open else (_RESULT,)
    how += _given_how(given.get(0, "model"))
    return (Made("init_chat_model", said, provider, where, how=how),)


def named(model: str | None, provider: str | None) -> tuple[str | None, str | None]:
    """Return the names of a model and its provider, from a text that may hold both."""
    if model and provider is None and ":" in model:
        provider, _, model = model.partition(":")
    return model, provider


def made_from_name(name: Value, spot: Spot) -> Value:
    """Return the chat model that a text such as "openai:gpt-4o" stands for."""
    return _of_function(Arguments((name,)), f"{spot.file}:{spot.line}")


def queued_options(operation: object) -> Options:
    """Return what an operation that a configurable model keeps for later will add."""
    name, positional, keywords = (value for _, value in items(operation))
    given = Arguments(
        tuple(known(each) for each in positional),
        {key: known(value) for key, value in keywords.items()},
    )
    is_binding = name in ("bind_tools", "with_structured_output", "bind")
    return written_options(name, given) if is_binding else NO_OPTIONS


def _of_unloaded(maker: Unloaded, given: Arguments, where: str) -> Value | None:
    package, _, name = maker.name.rpartition(".")
    if not package.startswith("langchain_") and not package.startswith("langchain."):
        return None
    if name == "init_chat_model":
        return _of_function(given, where)
    if not name.startswith(("Chat", "AzureChat")):
        return None
    provider = package.split(".")[0].removeprefix("langchain_")
    model = constant(given.get(None, *_NAMES), str)
    return (Made(name, model, provider, where, how=(_RESULT,)),)
