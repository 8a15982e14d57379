"""What this package takes from LangGraph's and LangChain's insides is still there."""

import dataclasses
from functools import partial

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import run_in_executor, var_child_runnable_config
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langgraph._internal import _constants
from langgraph._internal._runnable import RunnableCallable, coerce_to_runnable
from langgraph.cache.base import BaseCache
from langgraph.graph import END, StateGraph, state
from langgraph.graph._branch import BranchSpec
from langgraph.graph._node import StateNodeSpec
from langgraph.pregel import Pregel
from langgraph.pregel._read import DEFAULT_BOUND, PregelNode
from langgraph.pregel.protocol import PregelProtocol
from langgraph.runtime import RunControl
from langgraph.types import CachePolicy
from unit_tests.watching import State, one_node

from langchain_slm.rewriting.scoped import ScopedRunnable
from langchain_slm.rewriting.sites import DEFAULT_HANDLER
from langchain_slm.routing.places import NAMESPACE_KEY, RUNTIME_KEY


def _names(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_names_are_langgraphs():
    assert RUNTIME_KEY == _constants.CONFIG_KEY_RUNTIME
    assert (_constants.NS_SEP, _constants.NS_END) == ("|", ":")
    assert state._DEFAULT_ERROR_HANDLER_NODE == DEFAULT_HANDLER


def test_a_builder_has_what_is_copied():
    builder = one_node(lambda state: None)
    parts = {"nodes", "edges", "waiting_edges", "branches", "_node_defaults"}
    assert vars(builder).keys() >= parts
    assert _names(builder._node_defaults) >= {"error_handler", "cache_policy"}
    assert _names(StateNodeSpec) >= {"runnable", "cache_policy"}
    assert set(BranchSpec._fields) >= {"path", "ends"}
    assert _names(CachePolicy) == {"key_func", "ttl"}
    assert {"set_node_defaults", "compile"} <= vars(StateGraph).keys()


def test_a_compiled_graph_has_what_is_copied():
    compiled = one_node(lambda state: None).compile()
    assert isinstance(compiled, Pregel)
    assert isinstance(compiled, PregelProtocol)
    assert vars(compiled).keys() >= {"nodes", "builder", "cache", "cache_policy"}
    node = compiled.nodes["node"]
    assert vars(node).keys() >= {"bound", "writers", "subgraphs", "cache_policy"}
    copied = node.copy({"bound": DEFAULT_BOUND})
    assert isinstance(copied, PregelNode)
    assert copied.triggers == node.triggers


def test_an_edge_is_a_writer_bound_to_its_branch():
    builder = one_node(lambda state: None)
    builder.add_conditional_edges("node", lambda state: END, [END])
    writer = builder.compile().nodes["node"].writers[-1]
    assert isinstance(writer, RunnableCallable)
    assert isinstance(writer.func.__self__, BranchSpec)
    assert writer.func == writer.func.__self__._route
    assert writer.afunc == writer.func.__self__._aroute
    assert writer.func.__self__.path is builder.branches["node"]["condition"].path


def test_a_sync_node_is_run_in_an_executor():
    def node(state): ...

    made = coerce_to_runnable(node, name="node", trace=False)
    assert type(made) is RunnableCallable
    assert made.func is node
    assert isinstance(made.afunc, partial)
    assert made.afunc.func is run_in_executor
    assert made.afunc.args == (None, node)
    assert made.afunc.__wrapped__ is node
    generator = coerce_to_runnable(_generator, name="g", trace=False)
    assert type(generator) is RunnableLambda
    assert generator.func is _generator


def _generator(state):
    yield state


def test_a_sequence_is_made_of_steps():
    sequence = RunnableLambda(len) | RunnableLambda(str)
    assert type(sequence) is RunnableSequence
    assert len(sequence.steps) == 2
    assert issubclass(ScopedRunnable, RunnableBindingBase)


def test_a_cache_has_no_more_methods():
    methods = {"get", "aget", "set", "aset", "clear", "aclear"}
    assert methods == BaseCache.__abstractmethods__


def test_a_node_runs_with_its_namespace_and_the_control_of_its_run():
    seen = []

    def node(state):
        config = var_child_runnable_config.get()
        runtime = config["configurable"][RUNTIME_KEY]
        seen.append((config["metadata"][NAMESPACE_KEY], runtime.control))

    outer = StateGraph(State)
    outer.add_node("first", node)
    outer.add_node("sub", one_node(node).compile())
    outer.set_entry_point("first")
    outer.add_edge("first", "sub")
    graph = outer.compile()
    for _ in range(2):
        graph.invoke({"text": ""}, {"configurable": {"thread_id": "t1"}})
    namespaces, controls = zip(*seen, strict=True)
    assert [name.split(":")[0] for name in namespaces] == ["first", "sub"] * 2
    assert namespaces[1].split("|")[1].startswith("node:")
    assert all(isinstance(control, RunControl) for control in controls)
    assert controls[0] is controls[1]
    assert controls[2] is controls[3]
    assert controls[0] is not controls[2]


@pytest.mark.parametrize("name", ["generate", "agenerate", "stream", "astream"])
def test_chat_models_end_in_the_methods_that_are_hooked(name):
    for kind in (ChatOpenAI, AzureChatOpenAI, ChatNVIDIA):
        assert name not in vars(kind)
        assert getattr(kind, name) is getattr(BaseChatModel, name)
    assert {"_convert_input", "_combine_llm_outputs"} <= vars(BaseChatModel).keys()
