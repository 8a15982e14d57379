"""What `bind_tools` and `with_structured_output` return, with a router in it.

Relies on these attributes of langchain-core: `RunnableBindingBase.bound`,
`RunnableSequence.steps`, `RunnableParallel.steps__`, `RunnableWithFallbacks.runnable` and
`.fallbacks`, `RunnableAssign.mapper`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import (
    Runnable,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_slm.routing import dialect

METHODS = ("function_calling", "json_schema", "json_mode")


def rebound(
    runnable: Runnable[Any, Any], old: BaseChatModel, new: BaseChatModel
) -> Runnable[Any, Any]:
    """Return `runnable` with `new` in the place of `old`, wherever that is called."""

    def again(part: Runnable[Any, Any]) -> Runnable[Any, Any]:
        return rebound(part, old, new)

    if runnable is old:
        return new
    if isinstance(runnable, RunnableSequence):
        return RunnableSequence(*map(again, runnable.steps), name=runnable.name)
    parts: dict[str, Any] = {}
    if isinstance(runnable, RunnableBindingBase):
        parts = {"bound": again(runnable.bound)}
    elif isinstance(runnable, RunnableParallel):
        parts = {"steps__": {name: again(of) for name, of in runnable.steps__.items()}}
    elif isinstance(runnable, RunnableWithFallbacks):
        spares = [again(each) for each in runnable.fallbacks]
        parts = {"runnable": again(runnable.runnable), "fallbacks": spares}
    elif isinstance(runnable, RunnableAssign):
        parts = {"mapper": again(runnable.mapper)}
    return runnable.model_copy(update=parts) if parts else runnable  # type: ignore[attr-defined]


def structured(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    method: str,
    *,
    include_raw: bool,
) -> Runnable[Any, Any]:
    """Return `model` bound to answer in JSON, followed by a parser.

    For models whose own implementation knows no methods.

    Args:
        model: The chat model.
        schema: A pydantic class, a TypedDict or a JSON schema.
        method: "json_schema" or "json_mode".
        include_raw: Whether to return raw message, parsed value and parsing error.

    Raises:
        ValueError: If `method` is none of them.
    """
    if method not in METHODS:
        msg = f"method must be one of {', '.join(METHODS)}, not {method!r}"
        raise ValueError(msg)
    told = {"kwargs": {"method": method}, "schema": schema}
    wanted = dialect.response_format_of({"ls_structured_output_format": told})
    bound = model.bind(response_format=wanted, ls_structured_output_format=told)
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    parser: Runnable[Any, Any] = (
        PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    )
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    with_error = parsed.with_fallbacks([failed], exception_key="parsing_error")
    return RunnableParallel(raw=bound) | with_error
