"""Models further down: in subgraphs, tools and tasks."""

from integration_tests.ways.way import Way, one_method, one_node, prompt, weather
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

INNER = {"node/node": ("gpt-large",)}


def _inner(site="node/node"):
    llm = ChatOpenAI(model="gpt-large")
    return one_node(lambda state: {"messages": [llm.invoke(prompt(state, site))]})


def _inner_async():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        return {"messages": [await llm.ainvoke(prompt(state, "node/node"))]}

    return one_node(node)


def subgraph_as_a_node():
    return Way(one_node(_inner()), INNER)


def subgraph_as_a_node_async():
    return Way(one_node(_inner_async()), INNER, is_async=True)


def subgraph_of_a_subgraph():
    inner = one_node(_inner("node/node/node"))
    return Way(one_node(inner), {"node/node/node": ("gpt-large",)})


def subgraph_in_a_function():
    inner = _inner()

    def node(state):
        return {"messages": inner.invoke(state)["messages"][-1:]}

    return Way(one_node(node), INNER)


def subgraph_by_its_method():
    return Way(one_method(_inner().invoke), INNER)


def subgraph_in_a_function_async():
    inner = _inner_async()

    async def node(state):
        return {"messages": (await inner.ainvoke(state))["messages"][-1:]}

    return Way(one_node(node), INNER, is_async=True)


def subgraph_made_in_a_function():
    def node(state):
        *_, last = _inner().stream(state, stream_mode="values")
        return {"messages": last["messages"][-1:]}

    return Way(one_node(node), INNER)


def subgraph_in_an_edge():
    inner = _inner("__start__/node")

    def is_good(state):
        said = inner.invoke(state)["messages"][-1].text
        return "node" if "weather" in said else END

    builder = StateGraph(MessagesState)
    builder.add_node("node", lambda state: None)
    builder.add_conditional_edges(START, is_good, ["node", END])
    return Way(builder.compile(), {"__start__/node": ("gpt-large",)})


def subgraph_in_a_batch():
    inner = _inner()

    def node(state):
        return {"messages": [out["messages"][-1] for out in inner.batch([state] * 2)]}

    return Way(one_node(node), INNER)


def subgraph_in_a_chain():
    chain = (lambda state: state) | _inner()
    return Way(
        one_node(chain | (lambda state: {"messages": state["messages"][-1:]})), INNER
    )


def subgraph_and_a_call_of_its_own():
    llm, inner = ChatOpenAI(model="gpt-large"), _inner()

    def node(state):
        before = llm.invoke(prompt(state))
        found = inner.invoke(state)["messages"][-1]
        return {"messages": [before, found, llm.invoke(prompt(state))]}

    return Way(one_node(node), {"node": ("gpt-large",), **INNER})


def _tool_loop(tools, calls, **how):
    llm = ChatOpenAI(model="gpt-large").bind_tools(tools)
    builder = StateGraph(MessagesState)
    builder.add_node(
        "agent", lambda state: {"messages": [llm.invoke(prompt(state, "agent"))]}
    )
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition, ["tools", END])
    builder.add_edge("tools", "agent")
    return Way(builder.compile(), {"agent": ("gpt-large",), **calls}, **how)


def tool_loop():
    return _tool_loop([weather], {})


def tool_that_calls_a_model():
    llm = ChatOpenAI(model="gpt-spare")

    @tool
    def almanac(city: str) -> str:
        """Look up the weather of a city."""
        state = {"messages": [("user", city)]}
        return llm.invoke(prompt(state, "tools")).text

    return _tool_loop([almanac], {"tools": ("gpt-spare",)})


def tool_that_calls_a_model_async():
    llm = ChatOpenAI(model="gpt-spare")

    @tool
    async def almanac(city: str) -> str:
        """Look up the weather of a city."""
        state = {"messages": [("user", city)]}
        return (await llm.ainvoke(prompt(state, "tools"))).text

    return _tool_loop([almanac], {"tools": ("gpt-spare",)}, is_async=True)


def tool_that_invokes_a_subgraph():
    inner = _inner("tools/node")

    @tool
    def almanac(city: str) -> str:
        """Look up the weather of a city."""
        return inner.invoke({"messages": [("user", city)]})["messages"][-1].text

    return _tool_loop([almanac], {"tools/node": ("gpt-large",)})


def _text(question):
    return question


def entrypoint_and_tasks():
    llm = ChatOpenAI(model="gpt-large")

    @task
    def draft(question):
        return llm.invoke(prompt({"messages": [question]}, "flow/draft")).text

    @entrypoint()
    def flow(question):
        drafts = [draft(question), draft(question)]
        llm.invoke(prompt({"messages": [question]}, "flow"))
        return [each.result() for each in drafts]

    calls = {"flow": ("gpt-large",), "flow/draft": ("gpt-large",)}
    return Way(flow, calls, ask=_text)


def entrypoint_and_tasks_async():
    llm = ChatOpenAI(model="gpt-large")

    @task
    async def draft(question):
        said = await llm.ainvoke(prompt({"messages": [question]}, "flow/draft"))
        return said.text

    @entrypoint()
    async def flow(question):
        return await draft(question)

    return Way(flow, {"flow/draft": ("gpt-large",)}, is_async=True, ask=_text)


def task_in_a_node():
    llm = ChatOpenAI(model="gpt-large")

    @task
    def draft(state):
        return llm.invoke(prompt(state, "node/draft"))

    def node(state):
        return {"messages": [draft(state).result()]}

    return Way(one_node(node), {"node/draft": ("gpt-large",)})


def entrypoint_that_invokes_a_graph():
    inner = _inner("flow/node")

    @entrypoint()
    def flow(question):
        return inner.invoke({"messages": [question]})["messages"][-1].text

    return Way(flow, {"flow/node": ("gpt-large",)}, ask=_text)


WAYS = [
    subgraph_as_a_node,
    subgraph_as_a_node_async,
    subgraph_of_a_subgraph,
    subgraph_in_a_function,
    subgraph_by_its_method,
    subgraph_in_a_function_async,
    subgraph_made_in_a_function,
    subgraph_in_an_edge,
    subgraph_in_a_batch,
    subgraph_in_a_chain,
    subgraph_and_a_call_of_its_own,
    tool_loop,
    tool_that_calls_a_model,
    tool_that_calls_a_model_async,
    tool_that_invokes_a_subgraph,
    entrypoint_and_tasks,
    entrypoint_and_tasks_async,
    task_in_a_node,
    entrypoint_that_invokes_a_graph,
]
