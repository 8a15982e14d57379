"""How a node holds its model: an object that is there before the graph runs."""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

from integration_tests.ways.way import Way, at, one_method, one_node, prompt, weather
from langchain.chat_models import init_chat_model
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, chain
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

PROMPT = ChatPromptTemplate([("system", at("node")), ("placeholder", "{messages}")])


def _imported(file: str) -> ModuleType:
    """Import an app anew: it finds its endpoint in the environment of now."""
    path = Path(__file__).with_name(file)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_global():
    return Way(_imported("global_model.py").graph)


def module_global_async():
    return Way(_imported("global_model.py").agraph, is_async=True)


def closure():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def closure_async():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        return {"messages": [await llm.ainvoke(prompt(state))]}

    return Way(one_node(node), is_async=True)


def closure_of_nvidia():
    llm = ChatNVIDIA(model="gpt-large")

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def closure_of_nvidia_async():
    llm = ChatNVIDIA(model="gpt-large").bind_tools([weather])

    async def node(state):
        return {"messages": [await llm.ainvoke(prompt(state))]}

    return Way(one_node(node), is_async=True)


def partial():
    def node(state, *, llm):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(functools.partial(node, llm=ChatOpenAI(model="gpt-large"))))


def partial_async():
    async def node(state, llm):
        return {"messages": [await llm.ainvoke(prompt(state))]}

    bound = functools.partial(node, llm=ChatOpenAI(model="gpt-large"))
    return Way(one_node(bound), is_async=True)


class _Desk:
    def __init__(self):
        self.llm = ChatOpenAI(model="gpt-large")

    def answer(self, state):
        return {"messages": [self.llm.invoke(prompt(state))]}

    async def aanswer(self, state):
        return {"messages": [await self.llm.ainvoke(prompt(state))]}


def method():
    return Way(one_node(_Desk().answer))


def method_async():
    return Way(one_node(_Desk().aanswer), is_async=True)


class _Answer(_Desk):
    def __call__(self, state):
        return self.answer(state)


class _AsyncAnswer(_Desk):
    async def __call__(self, state):
        return await self.aanswer(state)


def callable_object():
    return Way(one_node(_Answer()))


def callable_object_async():
    return Way(one_node(_AsyncAnswer()), is_async=True)


class _Configured:
    llm = None  # given to the class by the app's start-up

    @classmethod
    def answer(cls, state):
        return {"messages": [cls.llm.invoke(prompt(state))]}


def class_attribute():
    desk = type("Desk", (_Configured,), {"llm": ChatOpenAI(model="gpt-large")})
    return Way(one_node(desk.answer))


def decorated():
    llm = ChatOpenAI(model="gpt-large")

    def shouted(function):
        @functools.wraps(function)
        def run(state):
            answered = function(state)
            return {"messages": [m.text.upper() for m in answered["messages"]]}

        return run

    @shouted
    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def sync_and_async_forms():
    desk = _Desk()
    return Way(one_node(RunnableLambda(desk.answer, desk.aanswer)))


def bind_tools_in_a_chain():
    llm = ChatOpenAI(model="gpt-large")
    runnable = PROMPT | llm.bind_tools([weather])

    def node(state):
        return {"messages": [runnable.invoke(state)]}

    return Way(one_node(node))


def structured_output():
    llm = ChatOpenAI(model="gpt-large")
    properties = {"city": {"type": "string"}}
    schema = {"title": "Place", "type": "object", "properties": properties}
    schema["required"] = ["city"]
    places = llm.with_structured_output(schema, method="function_calling")

    def node(state):
        return {"messages": [places.invoke(prompt(state))["city"]]}

    return Way(one_node(node))


def chain_as_the_node():
    llm = ChatOpenAI(model="gpt-large")
    return Way(one_node(PROMPT | llm | (lambda said: {"messages": [said]})))


def chain_that_ends_with_the_model():
    llm = ChatOpenAI(model="gpt-large")
    builder = StateGraph(MessagesState, output_schema=MessagesState)
    builder.add_node("node", RunnableParallel(messages=PROMPT | llm))
    builder.add_edge(START, "node")
    return Way(builder.compile())


def bound_method_of_a_chain():
    llm = ChatOpenAI(model="gpt-large")
    answer = PROMPT | llm | (lambda said: {"messages": [said]})
    return Way(one_method(answer.invoke))


def chain_of_a_decorated_function():
    llm = ChatOpenAI(model="gpt-large")

    @chain
    def answer(state):
        return PROMPT | llm | (lambda said: {"messages": [said]})

    return Way(one_node(answer))


def init_chat_model_fixed():
    llm = init_chat_model("openai:gpt-large")

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def conditional_edge():
    llm, judge = ChatOpenAI(model="gpt-large"), ChatOpenAI(model="gpt-spare")

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    def is_good(state):
        said = judge.invoke(prompt(state, "node#is_good")).text
        return END if "weather" in said else "node"

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_conditional_edges("node", is_good, ["node", END])
    calls = {"node": ("gpt-large",), "node#is_good": ("gpt-spare",)}
    return Way(builder.compile(), calls)


def conditional_edge_async():
    judge = ChatOpenAI(model="gpt-spare")

    async def is_good(state):
        said = await judge.ainvoke(prompt(state, "__start__#is_good"))
        return "node" if "weather" in said.text else END

    builder = StateGraph(MessagesState)
    builder.add_node("node", _Desk().answer)
    builder.add_conditional_edges(START, is_good, ["node", END])
    calls = {"node": ("gpt-large",), "__start__#is_good": ("gpt-spare",)}
    return Way(builder.compile(), calls, is_async=True)


def several_models_in_one_node():
    draft, check = ChatOpenAI(model="gpt-large"), ChatOpenAI(model="gpt-spare")

    def node(state):
        drafted = draft.invoke(prompt(state))
        checked = check.invoke([*prompt(state), drafted, ("user", "Is it right?")])
        return {"messages": [drafted, checked]}

    return Way(one_node(node), {"node": ("gpt-large", "gpt-spare")})


def several_models_side_by_side():
    llms = {name: ChatOpenAI(model=f"gpt-{name}") for name in ("large", "spare")}
    both = PROMPT | RunnableParallel(llms)
    node = both | (lambda said: {"messages": [said["large"], said["spare"]]})
    return Way(one_node(node), {"node": ("gpt-large", "gpt-spare")})


WAYS = [
    module_global,
    module_global_async,
    closure,
    closure_async,
    closure_of_nvidia,
    closure_of_nvidia_async,
    partial,
    partial_async,
    method,
    method_async,
    callable_object,
    callable_object_async,
    class_attribute,
    decorated,
    sync_and_async_forms,
    bind_tools_in_a_chain,
    structured_output,
    chain_as_the_node,
    chain_that_ends_with_the_model,
    bound_method_of_a_chain,
    chain_of_a_decorated_function,
    init_chat_model_fixed,
    conditional_edge,
    conditional_edge_async,
    several_models_in_one_node,
    several_models_side_by_side,
]
