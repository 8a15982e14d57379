"""What is known of the libraries that apps use: which names call, derive, make or run.

The one place with names of other packages' functions. A name that is not here is read
where its source is the app's, and else reported as passed on.
"""

from __future__ import annotations

from collections.abc import Mapping

# Methods that call what they belong to.
CALLING = frozenset(
    {
        "invoke",
        "ainvoke",
        "stream",
        "astream",
        "batch",
        "abatch",
        "batch_as_completed",
        "abatch_as_completed",
        "generate",
        "agenerate",
        "generate_prompt",
        "agenerate_prompt",
        "transform",
        "atransform",
        "stream_events",
        "astream_events",
        "astream_log",
        "run",
        "arun",
    }
)
# Those whose name alone says so, where what they belong to cannot be seen.
CALLING_FOR_SURE = frozenset({"invoke", "ainvoke"})
# Methods that give a runnable that calls the same model.
DERIVING = frozenset(
    {
        "bind",
        "bind_tools",
        "with_structured_output",
        "with_retry",
        "with_config",
        "with_types",
        "with_listeners",
        "with_alisteners",
        "with_fallbacks",
        "configurable_fields",
        "configurable_alternatives",
        "assign",
        "pick",
        "map",
        "pipe",
        "compile",
        "copy",
        "model_copy",
        "as_tool",
    }
)
# Packages below LangChain; a call of theirs cannot be bound. The second group may
# serve anything.
MODEL_SDKS = frozenset(
    {
        "openai",
        "anthropic",
        "litellm",
        "groq",
        "mistralai",
        "cohere",
        "ollama",
        "together",
        "replicate",
        "dashscope",
        "zhipuai",
        "vertexai",
        "google.genai",
        "google.generativeai",
        "huggingface_hub",
        "fireworks",
        "cerebras",
        "boto3",
        "botocore",
    }
)
HTTP_CLIENTS = frozenset({"requests", "httpx", "httpx2", "aiohttp", "urllib3", "urllib"})
# Methods of such clients that ask no model.
NO_REQUESTS = frozenset(
    {
        "close",
        "aclose",
        "copy",
        "with_options",
        "get_model_info",
        "quote",
        "urlparse",
        "urlencode",
        "urljoin",
        "quote_plus",
        "unquote",
        "urlsplit",
        "parse_qs",
        "Timeout",
        "Limits",
    }
)
INIT_CHAT_MODEL = "langchain.chat_models.base.init_chat_model"
# Functions that make an agent, and the node in which it calls its model.
AGENT_MAKERS: Mapping[str, str] = {
    "langchain.agents.factory.create_agent": "model",
    "langgraph.prebuilt.chat_agent_executor.create_react_agent": "agent",
}
# Modules whose functions hold an agent's model in their closures.
AGENT_MODULES = frozenset(name.rpartition(".")[0] for name in AGENT_MAKERS)
# Functions that give what they are given, or its elements in another container.
GIVING_BACK = frozenset(
    {
        "typing.cast",
        "copy.copy",
        "copy.deepcopy",
        "builtins.iter",
        "builtins.next",
        "builtins.reversed",
        "builtins.sorted",
        "builtins.anext",
        "builtins.aiter",
        "contextlib.nullcontext",
        "asyncio.tasks.create_task",
        "asyncio.tasks.ensure_future",
        "asyncio.tasks.wait_for",
        "asyncio.tasks.shield",
        "langchain_core.tools.convert.tool",
        "langchain_core.runnables.config.ensure_config",
    }
)
CONTAINERS = (list, tuple, set, frozenset, dict)
# Functions that call one they are given, in the run's context.
RUNNING: Mapping[str, int] = {
    "asyncio.threads.to_thread": 0,
    "builtins.map": 0,
    "builtins.filter": 0,
}
# Functions that never call a model, whatever they are given.
HARMLESS_PACKAGES = frozenset({"builtins", "langchain_core", "logging", "typing", "json"})
# Names of parameters by which a run gives its config and its runtime.
GIVEN_NAMES: Mapping[str, str] = {
    "config": "from config",
    "runtime": "from the run's context",
}
GIVEN_TYPES: Mapping[str, str] = {
    "RunnableConfig": "from config",
    "Runtime": "from the run's context",
}


def sdk_of(module: str) -> str | None:
    """Return the SDK or HTTP client that a module belongs to; None for another.

    LangChain's integrations are none: their models can be bound.
    """
    parts = module.split(".")
    for name in (".".join(parts[:2]), parts[0]):
        if name in MODEL_SDKS or name in HTTP_CLIENTS:
            return name
    return None


def raw_reason(package: str) -> str:
    """Return why a call of an SDK or an HTTP client cannot be bound."""
    if package in HTTP_CLIENTS:
        return f"calls a server with {package}; if it is a model, it cannot be bound"
    remedy = ' (hooks=("openai_sdk",) reaches it)' if package == "openai" else ""
    return f"calls the {package} SDK itself, below LangChain{remedy}"


THREAD_REASON = (
    "called in a thread without the run's context, so that a binding does not reach it "
    '(hooks=("threads",) lets it)'
)
