"""Agents that LangChain and LangGraph build, and what their middleware calls."""

import warnings
from typing import Any

from integration_tests.ways.way import Way, as_message, at, one_node, prompt, weather
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    LLMToolEmulator,
    LLMToolSelectorMiddleware,
    ModelFallbackMiddleware,
    SummarizationMiddleware,
    before_model,
    wrap_model_call,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain.chat_models import init_chat_model
from langchain_core.tools import tool
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel

AGENT = {"model": ("gpt-large",)}


class Report(BaseModel):
    """A report."""

    city: str


def agent_with_a_string():
    return Way(create_agent("openai:gpt-large", system_prompt=at("model")), AGENT)


def agent_with_an_object():
    llm = ChatOpenAI(model="gpt-large")
    return Way(create_agent(llm, system_prompt=at("model"), name="desk"), AGENT)


def agent_with_tools():
    agent = create_agent("openai:gpt-large", [weather], system_prompt=at("model"))
    return Way(agent, AGENT)


def agent_of_nvidia():
    # It forgets its own tool calls where they were streamed.
    llm = ChatNVIDIA(model="gpt-large", disable_streaming="tool_calling")
    return Way(create_agent(llm, [weather], system_prompt=at("model")), AGENT)


def agent_with_a_configurable_model():
    llm = init_chat_model("openai:gpt-large", configurable_fields=("model",))
    config = {"configurable": {"model": "gpt-spare"}}
    agent = create_agent(llm, [weather], system_prompt=at("model"))
    return Way(agent, {"model": ("gpt-spare",)}, config=config)


def agent_as_a_node():
    agent = create_agent(
        ChatOpenAI(model="gpt-large"), [weather], system_prompt=at("node/model")
    )
    return Way(one_node(agent), {"node/model": ("gpt-large",)})


def agent_in_a_function():
    agent = create_agent("openai:gpt-large", [weather], system_prompt=at("node/model"))

    async def node(state):
        return {"messages": (await agent.ainvoke(state))["messages"][1:]}

    return Way(one_node(node), {"node/model": ("gpt-large",)}, is_async=True)


def named_agent_in_a_function():
    agent = create_agent(
        ChatOpenAI(model="gpt-large"), system_prompt=at("node/model"), name="desk"
    )

    def node(state):
        return {"messages": agent.invoke(state)["messages"][1:]}

    return Way(one_node(node), {"node/model": ("gpt-large",)})


def agent_that_reports_by_a_tool():
    agent = create_agent(
        ChatOpenAI(model="gpt-large"),
        [weather],
        system_prompt=at("model"),
        response_format=ToolStrategy(Report),
    )
    return Way(agent, AGENT)


def agent_that_reports_by_its_provider():
    agent = create_agent(
        ChatOpenAI(model="gpt-large"),
        [weather],
        system_prompt=at("model"),
        response_format=ProviderStrategy(Report),
    )
    return Way(agent, AGENT)


class _Spare(AgentMiddleware):
    """Takes another model than the agent's: a long question would get a larger one."""

    def __init__(self) -> None:
        self.llm = ChatOpenAI(model="gpt-spare")

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=self.llm))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model=self.llm))


def agent_with_a_model_of_its_middleware():
    agent = create_agent(
        "openai:gpt-large", [weather], system_prompt=at("model"), middleware=[_Spare()]
    )
    return Way(agent, {"model": ("gpt-spare",)})


def agent_with_a_model_and_a_report_of_its_middleware():
    agent = create_agent(
        "openai:gpt-large",
        system_prompt=at("model"),
        middleware=[_Spare()],
        response_format=Report,
    )
    return Way(agent, {"model": ("gpt-spare",)})


class _Later(_Spare):
    """Takes another model as soon as a tool has answered."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        if request.messages[-1].type != "tool":
            return handler(request)
        return super().wrap_model_call(request, handler)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        if request.messages[-1].type != "tool":
            return await handler(request)
        return await super().awrap_model_call(request, handler)


def agent_with_another_model_for_the_results_of_tools():
    agent = create_agent(
        "openai:gpt-large", [weather], system_prompt=at("model"), middleware=[_Later()]
    )
    return Way(agent, {"model": ("gpt-large", "gpt-spare")})


def agent_with_a_decorated_middleware():
    llm = init_chat_model("openai:gpt-spare")

    @wrap_model_call
    async def spare(request, handler):
        return await handler(request.override(model=llm))

    agent = create_agent(
        "openai:gpt-large", [weather], system_prompt=at("model"), middleware=[spare]
    )
    return Way(agent, {"model": ("gpt-spare",)}, is_async=True)


def agent_that_falls_back():
    agent = create_agent(
        ChatOpenAI(model="gpt-large"),
        [weather],
        system_prompt=at("model"),
        middleware=[ModelFallbackMiddleware(ChatOpenAI(model="gpt-spare"))],
    )
    return Way(agent, AGENT)


def agent_whose_model_is_down():
    agent = create_agent(
        ChatOpenAI(model="down-large", max_retries=0),
        system_prompt=at("model"),
        middleware=[ModelFallbackMiddleware(ChatOpenAI(model="gpt-spare"))],
    )
    return Way(agent, {"model": ("down-large", "gpt-spare")})


FALLING_BACK = [agent_whose_model_is_down]


def _conversation(question: str) -> dict[str, Any]:
    said = [("user", question), ("assistant", "Do you mean today?")]
    return {"messages": [*said, *as_message(question)["messages"]]}


def agent_that_summarises():
    site = "SummarizationMiddleware.before_model"
    summarises = SummarizationMiddleware(
        ChatOpenAI(model="gpt-spare"),
        trigger=("messages", 3),
        keep=("messages", 1),
        summary_prompt=at(site) + " Sum up: {messages}",
    )
    agent = create_agent(
        "openai:gpt-large", system_prompt=at("model"), middleware=[summarises]
    )
    return Way(agent, {site: ("gpt-spare",), **AGENT}, ask=_conversation)


@tool
def tides(city: str) -> str:
    """Tell the tides of a city."""
    return f"high in {city}"


def agent_that_selects_its_tools():
    selects = LLMToolSelectorMiddleware(
        model=ChatOpenAI(model="gpt-spare"), system_prompt=at("model"), max_tools=1
    )
    agent = create_agent(
        "openai:gpt-large",
        [weather, tides],
        system_prompt=at("model"),
        middleware=[selects],
    )
    return Way(agent, {"model": ("gpt-large", "gpt-spare")})


def agent_whose_tools_are_emulated():
    emulated = tool("weather", weather.func, description=at("tools") + " The weather.")
    agent = create_agent(
        "openai:gpt-large",
        [emulated],
        system_prompt=at("model"),
        middleware=[LLMToolEmulator(model=ChatOpenAI(model="gpt-spare"))],
    )
    return Way(agent, {"tools": ("gpt-spare",), **AGENT})


def agent_with_a_guard():
    llm = ChatOpenAI(model="gpt-spare")

    @before_model(can_jump_to=["end"])
    def guard(state, runtime):
        said = llm.invoke(prompt(state, "guard.before_model"))
        return None if "weather" in said.text else {"jump_to": "end"}

    agent = create_agent(
        "openai:gpt-large", system_prompt=at("model"), middleware=[guard]
    )
    return Way(agent, {"guard.before_model": ("gpt-spare",), **AGENT})


def _react(*args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has moved to langchain
        return create_react_agent(*args, **kwargs)


def react_agent():
    agent = _react(ChatOpenAI(model="gpt-large"), [weather], prompt=at("agent"))
    return Way(agent, {"agent": ("gpt-large",)})


def react_agent_with_a_string():
    agent = _react("openai:gpt-large", [weather], prompt=at("agent"))
    return Way(agent, {"agent": ("gpt-large",)})


def react_agent_with_bound_tools():
    llm = ChatOpenAI(model="gpt-large").bind_tools([weather])
    agent = _react(llm, [weather], prompt=at("agent"))
    return Way(agent, {"agent": ("gpt-large",)})


def react_agent_that_reports():
    reports = "generate_structured_response"
    agent = _react(
        ChatOpenAI(model="gpt-large"),
        [weather],
        prompt=at("agent"),
        response_format=(at(reports), Report),
    )
    return Way(agent, {"agent": ("gpt-large",), reports: ("gpt-large",)})


def react_agent_with_hooks():
    llm = ChatOpenAI(model="gpt-spare")

    def before(state):
        llm.invoke(prompt(state, "pre_model_hook"))
        return {}

    async def after(state):
        said = await llm.ainvoke(prompt(state, "post_model_hook"))
        return {"messages": [said]}

    agent = _react(
        ChatOpenAI(model="gpt-large"),
        [],
        prompt=at("agent"),
        pre_model_hook=before,
        post_model_hook=after,
    )
    hooks = dict.fromkeys(["pre_model_hook", "post_model_hook"], ("gpt-spare",))
    return Way(agent, {"agent": ("gpt-large",), **hooks}, is_async=True)


def react_agent_with_a_callable_model():
    large, spare = ChatOpenAI(model="gpt-large"), ChatOpenAI(model="gpt-spare")

    def chosen(state, runtime):
        llm = spare if runtime.context["is_cheap"] else large
        return llm.bind_tools([weather])

    agent = _react(chosen, [weather], prompt=at("agent"), context_schema=dict)
    return Way(agent, {"agent": ("gpt-spare",)}, context={"is_cheap": True})


def react_agent_with_an_async_callable_model():
    llm = ChatOpenAI(model="gpt-large")

    async def chosen(state, runtime):
        return llm.bind_tools([weather])

    agent = _react(chosen, [weather], prompt=at("agent"))
    return Way(agent, {"agent": ("gpt-large",)}, is_async=True)


WAYS = [
    agent_with_a_string,
    agent_with_an_object,
    agent_with_tools,
    agent_of_nvidia,
    agent_with_a_configurable_model,
    agent_as_a_node,
    agent_in_a_function,
    named_agent_in_a_function,
    agent_that_reports_by_a_tool,
    agent_that_reports_by_its_provider,
    agent_with_a_model_of_its_middleware,
    agent_with_a_model_and_a_report_of_its_middleware,
    agent_with_another_model_for_the_results_of_tools,
    agent_with_a_decorated_middleware,
    agent_that_falls_back,
    agent_that_summarises,
    agent_that_selects_its_tools,
    agent_whose_tools_are_emulated,
    agent_with_a_guard,
    react_agent,
    react_agent_with_a_string,
    react_agent_with_bound_tools,
    react_agent_that_reports,
    react_agent_with_hooks,
    react_agent_with_a_callable_model,
    react_agent_with_an_async_callable_model,
]
