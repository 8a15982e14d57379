"""How a node comes by its model while the graph runs: there is nothing to find before."""

from dataclasses import dataclass, replace
from functools import lru_cache

from integration_tests.ways.way import Way, one_node, prompt, weather
from langchain.chat_models import init_chat_model
from langchain_core.runnables import ConfigurableField, RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.runtime import Runtime, get_runtime
from pydantic import BaseModel

SPARE = {"node": ("gpt-spare",)}


def cached_factory():
    @lru_cache
    def model(name):
        return ChatOpenAI(model=name)

    def node(state):
        return {"messages": [model("gpt-large").invoke(prompt(state))]}

    return Way(one_node(node))


def cached_factory_async():
    @lru_cache
    def model(name):
        return init_chat_model(name, model_provider="openai")

    async def node(state):
        return {"messages": [await model("gpt-large").ainvoke(prompt(state))]}

    return Way(one_node(node), is_async=True)


def made_in_the_node():
    def node(state):
        return {"messages": [ChatOpenAI(model="gpt-large").invoke(prompt(state))]}

    return Way(one_node(node))


def table_of_classes():
    providers = {"openai": ChatOpenAI}

    def node(state):
        llm = providers["openai"](model="gpt-large", temperature=0)
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def named_by_the_config():
    def node(state, config: RunnableConfig):
        llm = ChatOpenAI(model=config["configurable"].get("model", "gpt-large"))
        return {"messages": [llm.invoke(prompt(state))]}

    config = {"configurable": {"model": "gpt-spare"}}
    return Way(one_node(node), SPARE, config=config)


def named_by_the_config_async():
    async def node(state, config: RunnableConfig):
        llm = init_chat_model(config["configurable"]["model"])
        return {"messages": [await llm.ainvoke(prompt(state), config)]}

    config = {"configurable": {"model": "openai:gpt-spare"}}
    return Way(one_node(node), SPARE, is_async=True, config=config)


def object_in_the_config():
    def node(state, config: RunnableConfig):
        llm = config["configurable"]["llm"]
        return {"messages": [llm.invoke(prompt(state))]}

    config = {"configurable": {"llm": ChatOpenAI(model="gpt-spare")}}
    return Way(one_node(node), SPARE, config=config)


@dataclass
class _Context:
    model: str = "gpt-large"


def named_by_the_context():
    def node(state, runtime: Runtime[_Context]):
        llm = ChatOpenAI(model=runtime.context.model)
        return {"messages": [llm.invoke(prompt(state))]}

    graph = one_node(node, context_schema=_Context)
    return Way(graph, SPARE, context=_Context("gpt-spare"))


def named_by_the_context_async():
    async def node(state):
        llm = ChatOpenAI(model=get_runtime(_Context).context.model)
        return {"messages": [await llm.ainvoke(prompt(state))]}

    graph = one_node(node, context_schema=_Context)
    return Way(graph, SPARE, is_async=True, context=_Context("gpt-spare"))


def init_chat_model_with_a_default():
    llm = init_chat_model("openai:gpt-large", configurable_fields=("model",))

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def init_chat_model_with_another_than_the_default():
    found = init_chat_model_with_a_default()
    config = {"configurable": {"model": "gpt-spare"}}
    return replace(found, calls=SPARE, config=config)


def init_chat_model_without_a_default():
    llm = init_chat_model(configurable_fields=("model", "model_provider"))

    def node(state, config: RunnableConfig):
        return {"messages": [llm.invoke(prompt(state), config)]}

    config = {"configurable": {"model": "gpt-spare", "model_provider": "openai"}}
    return Way(one_node(node), SPARE, config=config)


def init_chat_model_without_a_default_async():
    llm = init_chat_model()

    async def node(state):
        named = {"configurable": {"model": "openai:gpt-large"}}
        return {"messages": [await llm.with_config(named).ainvoke(prompt(state))]}

    return Way(one_node(node), is_async=True)


def init_chat_model_with_a_prefix():
    llm = init_chat_model(
        "gpt-large",
        model_provider="openai",
        configurable_fields="any",
        config_prefix="desk",
    )

    def node(state):
        return {"messages": ["".join(chunk.text for chunk in llm.stream(prompt(state)))]}

    config = {"configurable": {"desk_model": "gpt-spare", "desk_temperature": 0}}
    return Way(one_node(node), SPARE, config=config)


def init_chat_model_with_queued_tools():
    llm = init_chat_model(configurable_fields=("model",)).bind_tools([weather])

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    config = {"configurable": {"model": "openai:gpt-spare"}}
    return Way(one_node(node), SPARE, config=config)


class _Place(BaseModel):
    """A place."""

    city: str


def init_chat_model_with_a_queued_schema():
    llm = init_chat_model("openai:gpt-large", configurable_fields=("model",))
    places = llm.with_structured_output(_Place)

    def node(state):
        return {"messages": [places.invoke(prompt(state)).city]}

    config = {"configurable": {"model": "gpt-spare"}}
    return Way(one_node(node), SPARE, config=config)


def configurable_alternatives():
    llm = ChatOpenAI(model="gpt-large").configurable_alternatives(
        ConfigurableField("llm"), default_key="large", spare=ChatOpenAI(model="gpt-spare")
    )

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    config = {"configurable": {"llm": "spare"}}
    return Way(one_node(node), SPARE, config=config)


def configurable_alternatives_by_default():
    return replace(configurable_alternatives(), calls={"node": ("gpt-large",)}, config={})


def configurable_fields():
    llm = ChatOpenAI(model="gpt-large").configurable_fields(
        model_name=ConfigurableField("model")
    )

    async def node(state):
        return {"messages": [await llm.ainvoke(prompt(state))]}

    config = {"configurable": {"model": "gpt-spare"}}
    return Way(one_node(node), SPARE, is_async=True, config=config)


def named_by_the_call():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        return {"messages": [llm.bind(model="gpt-spare").invoke(prompt(state))]}

    return Way(one_node(node), SPARE)


WAYS = [
    cached_factory,
    cached_factory_async,
    made_in_the_node,
    table_of_classes,
    named_by_the_config,
    named_by_the_config_async,
    object_in_the_config,
    named_by_the_context,
    named_by_the_context_async,
    init_chat_model_with_a_default,
    init_chat_model_with_another_than_the_default,
    init_chat_model_without_a_default,
    init_chat_model_without_a_default_async,
    init_chat_model_with_a_prefix,
    init_chat_model_with_queued_tools,
    init_chat_model_with_a_queued_schema,
    configurable_alternatives,
    configurable_alternatives_by_default,
    configurable_fields,
    named_by_the_call,
]
