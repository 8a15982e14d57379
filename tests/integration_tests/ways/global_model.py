"""An app whose module makes its model when it is imported."""

from integration_tests.ways.way import prompt
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

llm = ChatOpenAI(model="gpt-large")


def answer(state):
    return {"messages": [llm.invoke(prompt(state))]}


async def aanswer(state):
    return {"messages": [await llm.ainvoke(prompt(state))]}


def _compiled(node):
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile()


graph = _compiled(answer)
agraph = _compiled(aanswer)
