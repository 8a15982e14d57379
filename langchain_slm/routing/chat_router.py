"""The router as a chat model: it stands wherever a chat model stood.

`default` is the model that stood there. `bind_tools` and `with_structured_output` are
the default's own, with the router in its place: who answers is decided when a call is
made, and the options are translated for that model then. A call is one run, the router's:
callbacks, cache, rate limiter and token counts belong to it, and
`message.response_metadata["langchain_slm"]` says who answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from inspect import signature
from typing import Annotated, Any, Self, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, SkipValidation, model_validator
from typing_extensions import override

from langchain_slm.routing import asking, dialect, direct, structured
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.limits import Limits
from langchain_slm.routing.places import SITE_KEY, around
from langchain_slm.routing.policy import Policy
from langchain_slm.routing.redacting import public_metadata
from langchain_slm.routing.route import Route
from langchain_slm.routing.router import Explanation, OwnRouter, PlanLike, Router
from langchain_slm.routing.showing import Mark, shown, shown_plan
from langchain_slm.routing.targets import by_name
from langchain_slm.schema import Plan, content_hash

# Of the default where the router is given none: they make its run what the default's was.
_AS_DEFAULT = ("cache", "callbacks", "tags", "disable_streaming", "output_version")

# Where a call keeps what `BaseChatModel` takes out of it: the schema of JSON mode.
FORMAT_KEY = "slm_structured_output_format"


class ChatRouter(BaseChatModel):
    """A chat model that asks the model which a plan binds where it is called.

    The site of a call is `configurable["slm_site"]` or `metadata["slm_site"]` of its
    config, else `site`, else the path of the LangGraph node that runs. Where nothing is
    bound, and on escalation, `default` answers. Callbacks, tags, metadata and cache are
    the default's where it is given none; copies share its limits and counters.

    Args:
        default: The reference model, or its "provider:model".
        plan: A plan, the path of a plan file, or `{site: chat model or
            "provider:model"}`.
        router: A `Router` to share with others, in the place of `plan`, `limits`,
            `policy` and `prices`.
        limits: What one request may use, and what all may.
        policy: When the default is asked, in the place of what the plan says.
        prices: Dollars per million (input, output) tokens, by the name of the model.
        site: The site of calls whose config names none.
        temperature: Of each call that sets none.
        max_tokens: Of each call that sets none.
        stop: Stop words of each call that sets none.

    Raises:
        PlanError: If the plan cannot be used; `PlanEditedError` if edited by hand.
        CatalogError: If the key of a model is not in the environment.
        MissingExtraError: If a model needs a package that is not installed.
        ValueError: If both `router` and what it stands for are given, or a setting that
            belongs to a model.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> large = FakeListChatModel(responses=["a large answer"])
        >>> small = FakeListChatModel(responses=["billing"])
        >>> chat = ChatRouter(default=large, plan={"triage": small})
        >>> chat.invoke("My invoice?", {"configurable": {"slm_site": "triage"}}).text
        'billing'
        >>> chat.invoke("My invoice?").text
        'a large answer'
    """

    # Not shown in errors: what was given may be a key.
    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    default: BaseChatModel = Field(repr=False)
    # The router says what is wrong with it.
    plan: Annotated[PlanLike, SkipValidation] = Field(default_factory=dict, repr=False)
    router: Router | None = Field(default=None, repr=False)
    limits: Limits | None = None
    policy: Policy | None = Field(default=None, repr=False)
    prices: Mapping[str, tuple[float, float]] = Field(default_factory=dict, repr=False)
    site: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    streaming: bool = False

    @model_validator(mode="before")
    @classmethod
    def _as_given(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if unknown := given.keys() - cls.model_fields.keys():
            msg = (
                f"ChatRouter takes no {', '.join(sorted(unknown))}: settings of a model "
                'are given with it, as in default=ChatOpenAI(model="gpt-4o")'
            )
            raise ValueError(msg)
        default, plan = given.get("default"), given.get("plan")
        if isinstance(default, str):
            given = {**given, "default": by_name(default)}
        if isinstance(plan, dict) and "format_version" in plan:  # a dump's
            given = {**given, "plan": Plan.model_validate(plan)}
        return given

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self._complete()
        return self

    def _complete(self) -> None:
        given = (self.plan, self.limits, self.policy, self.prices)
        known = self.router
        if known is None or (isinstance(known, OwnRouter) and known.settings != given):
            self.router = OwnRouter(*given)
        elif any(given) and not isinstance(known, OwnRouter):
            msg = "give `router`, or plan, limits, policy and prices, not both"
            raise ValueError(msg)
        if self.profile is None:
            self.profile = self.default.profile
        for name in _AS_DEFAULT:
            if name not in self.model_fields_set:
                vars(self)[name] = getattr(self.default, name)
        self.metadata = {**public_metadata(self.default), **(self.metadata or {})}

    @override
    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """Return a copy with the same models: their connections cannot be copied."""
        del deep
        copied = super().model_copy(update=update)
        for name in ("model_name", "_serialized") if update else ():
            vars(copied).pop(name, None)  # of the old settings
        copied._complete()  # noqa: SLF001 - of this class
        return copied

    @override
    def __deepcopy__(self, memo: Any = None) -> Self:
        return self.model_copy()

    @property
    def _router(self) -> Router:
        return cast("Router", self.router)

    # Read at each call: pydantic's private attributes take ten times as long.

    @cached_property
    def model_name(self) -> str:
        """The name of the default model."""
        return dialect.model_name(self.default)

    # What it is to others

    @override
    def __repr_args__(self) -> Any:
        yield "default", self.model_name
        yield "sites", self._router.sites
        yield "plan", self._router.plan_id

    @property
    @override
    def _llm_type(self) -> str:
        return "chat-router"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        sites = list(self._router.sites)
        return {"default": self.model_name, "sites": sites, **self._own_options()}

    @override
    def _get_ls_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> LangSmithParams:
        """Return what traces say: of the model that is bound where this is called."""
        asked = {**self._own_options(), **kwargs}
        bound = self._router.bound_name(asked.pop(SITE_KEY, ""))
        params = self.default._get_ls_params(stop=stop or self.stop, **asked)  # noqa: SLF001 - a chat model's own
        if bound is not None and "model" not in kwargs:
            params["ls_model_name"] = bound
        return params

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @classmethod
    @override
    def get_lc_namespace(cls) -> list[str]:
        return ["langchain_slm", "routing", "chat_router"]

    @override
    def to_json(self) -> Any:
        """Return the router's settings; of its models only what is no secret."""
        known: dict[str, Any] = {
            "default": shown(self.default),
            "plan": shown_plan(self.plan),
            "limits": asdict(self.limits) if self.limits else None,
        }
        told: Any = super().to_json()
        kwargs = {
            name: known.get(name, value)
            for name, value in told["kwargs"].items()
            if not isinstance(value, OwnRouter)
        }
        return {"lc": 1, "type": "constructor", "id": self.lc_id(), "kwargs": kwargs}

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # A cached answer is of one plan, whose file may change, and of one default: a
        # dump leaves out headers and bodies, and of ChatNVIDIA even the model. Hashed,
        # for the default's own key holds them, and caches are stored.
        own = self.default._get_llm_string(stop, **kwargs)  # noqa: SLF001 - a chat model's own
        default = content_hash([self.model_name, repr(type(self.default)), own])
        told = super()._get_llm_string(stop, **kwargs)
        return f"{self._router.plan_id}---{default}---{told}"

    def explain(self, site: str) -> Explanation:
        """Return what happens at a site, and why."""
        return self._router.explain(site)

    # How the default counts tokens

    @override
    def get_token_ids(self, text: str) -> list[int]:
        count = self.custom_get_token_ids or self.default.get_token_ids
        return count(text)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        return self.default.get_num_tokens_from_messages(messages, tools)

    # What is bound to it

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools as the default model does, for whichever model answers."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        bound = self.default.bind_tools(tools, **choice, **kwargs)
        return structured.rebound(bound, self.default, self)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Ask for structured output as the default model does.

        Args:
            schema: A pydantic class, a TypedDict or a JSON schema.
            include_raw: Whether to return raw message, parsed value and parsing error.
            **kwargs: `method` ("function_calling", "json_schema" or "json_mode"), and
                what else the default model takes.

        Raises:
            ValueError: If `method` is none of these.
        """
        own = type(self.default).with_structured_output
        if "method" in signature(own).parameters:
            made = self.default.with_structured_output(
                schema, include_raw=include_raw, **kwargs
            )
            return structured.rebound(made, self.default, self)
        is_base = own is BaseChatModel.with_structured_output
        method = kwargs.pop("method", None)
        method = method or ("function_calling" if is_base else "json_schema")
        if method == "function_calling":
            return super().with_structured_output(
                schema, include_raw=include_raw, **kwargs
            )
        return structured.structured(self, schema, method, include_raw=include_raw)

    # Where it is called

    @override
    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        self._carry(kwargs, {"metadata": kwargs.get("metadata")})
        return super().generate(messages, stop, callbacks, **kwargs)

    @override
    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        self._carry(kwargs, {"metadata": kwargs.get("metadata")})
        return await super().agenerate(messages, stop, callbacks, **kwargs)

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        self._carry(kwargs, config)
        return super().invoke(input, config, **kwargs)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        self._carry(kwargs, config)
        return await super().ainvoke(input, config, **kwargs)

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        self._carry(kwargs, config)
        return super().stream(input, config, **kwargs)

    @override
    def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        self._carry(kwargs, config)
        return super().astream(input, config, **kwargs)

    @override
    def stream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        self._carry(kwargs, config)
        return super().stream_events(input, config, **kwargs)

    @override
    def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        self._carry(kwargs, config)
        return super().astream_events(input, config, **kwargs)

    def _carry(self, kwargs: dict[str, Any], config: Mapping[str, Any] | None) -> None:
        """Keep for `_routed` what `BaseChatModel` takes out of a call."""
        if SITE_KEY not in kwargs:
            kwargs[SITE_KEY] = self._site(config)
        if (told := kwargs.get(direct.FORMAT_KEY)) is not None:
            kwargs.setdefault(FORMAT_KEY, told)

    def _site(self, config: Mapping[str, Any] | None) -> str:
        found = around(config)
        if found.is_named or self.site is None:
            return found.site or ""
        return self.site

    # How it answers

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        route, ask = self._routed(messages, stop, run_manager, kwargs)
        answer: ChatResult = route.generate(ask, asking.default_answer)
        return answer

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        route, ask = self._routed(messages, stop, run_manager, kwargs)
        answer: ChatResult = await route.agenerate(ask, asking.adefault_answer)
        return answer

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        route, ask = self._routed(messages, stop, run_manager, kwargs)
        mark = None if run_manager is None else Mark()
        for chunk in route.stream(ask, asking.default_chunks):
            yield ChatGenerationChunk(message=mark.on(chunk) if mark else chunk)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        route, ask = self._routed(messages, stop, run_manager, kwargs)
        mark = None if run_manager is None else Mark()
        chunks = route.astream(ask, asking.adefault_chunks)
        try:
            async for chunk in chunks:
                yield ChatGenerationChunk(message=mark.on(chunk) if mark else chunk)
        finally:
            await chunks.aclose()

    def _routed(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: Any,
        options: dict[str, Any],
    ) -> tuple[Route, Ask]:
        found = around()
        site = options.pop(SITE_KEY, None)
        if (told := options.pop(FORMAT_KEY, None)) is not None:
            options[direct.FORMAT_KEY] = told
        if site is None:
            site = self._site({"metadata": getattr(run_manager, "metadata", None)})
        ask = Ask(
            source=self.default,
            messages=messages,
            stop=stop or self.stop,
            options={**self._own_options(), **options},
            place=found.place or getattr(run_manager, "parent_run_id", None),
            run=found.run,
            direct=True,
        )
        if options.get("model"):
            return self._router.unbound(site, "model_option"), ask
        return self._router.route(site, ask) or self._router.unbound(site), ask

    def _own_options(self) -> dict[str, Any]:
        own: dict[str, Any] = {}
        if self.temperature is not None:
            own["temperature"] = self.temperature
        if self.max_tokens is not None:
            own["max_tokens"] = self.max_tokens
        return own


# `BaseChatModel` looks at the parameters of these at each call: a fifth of its own time.
for _method in (ChatRouter._generate, ChatRouter._agenerate):  # noqa: SLF001 - of above
    vars(_method)["__signature__"] = signature(_method)
