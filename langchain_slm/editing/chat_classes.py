"""Which names of LangChain's packages are chat models. Pure: nothing is imported."""

from __future__ import annotations

import re

from langchain_slm.inspection.libraries import CALLING, DERIVING

# Classes whose names do not begin with Chat.
_OTHERS = frozenset(
    {
        "AzureAIChatCompletionsModel",
        "AzureAIOpenAIApiChatModel",
        "AzureMLChatOnlineEndpoint",
        "BedrockChat",
        "FakeChatModel",
        "FakeListChatModel",
        "FakeMessagesListChatModel",
        "GenericFakeChatModel",
        "GigaChat",
        "HumanInputChatModel",
        "JinaChat",
        "LlamaEdgeChatService",
        "MiniMaxChat",
        "MoonshotChat",
        "PaiEasChatEndpoint",
        "ParrotFakeChatModel",
        "PromptLayerChatOpenAI",
        "QianfanChatEndpoint",
        "SolarChat",
        "VolcEngineMaasChat",
    }
)
_CLASS = re.compile(
    r"(?:Azure|Base)?Chat"
    r"(?!Agent|Generation|History|Loader|Message|Model|Prompt|Result|Router|Session|Vector)"
    r"[A-Z0-9]\w*(?<!Error)"
)
# Packages whose names look like it, and are something else.
_NOT_PROVIDERS = frozenset(
    {"langchain_slm", "langchain_tests", "langchain_text_splitters"}
)
# What any chat model has, with the same meaning.
SHARED = (
    CALLING
    | DERIVING
    | {
        "InputType",
        "OutputType",
        "cache",
        "callbacks",
        "get_graph",
        "get_name",
        "get_num_tokens",
        "get_num_tokens_from_messages",
        "get_token_ids",
        "input_schema",
        "metadata",
        "name",
        "output_schema",
        "profile",
        "tags",
        "verbose",
    }
) - {"configurable_alternatives", "configurable_fields", "copy", "model_copy"}


def is_chat_model(name: str) -> bool:
    """Whether a dotted name is that of a chat model's class in a LangChain package."""
    package = name.partition(".")[0]
    if package in _NOT_PROVIDERS:
        return False
    is_langchain = package == "langchain" or package.startswith("langchain_")
    return is_langchain and is_chat_class(name.rpartition(".")[2])


def is_chat_class(name: str) -> bool:
    """Whether a class of this name is a chat model, as far as a name can say."""
    return name in _OTHERS or _CLASS.fullmatch(name) is not None


def is_init_chat_model(name: str) -> bool:
    """Whether a dotted name is that of LangChain's `init_chat_model`."""
    return name.startswith("langchain") and name.endswith(".init_chat_model")


def is_agent_maker(name: str) -> bool:
    """Whether a dotted name is that of a function that takes a model's name, too."""
    made = name.rpartition(".")[2] in {"create_agent", "create_react_agent"}
    return made and name.startswith(("langchain.", "langgraph."))
