"""Copies of graphs whose nodes run in a scope. The graph given is never changed.

A copy keeps everything of its original but what its nodes and conditional edges run;
subgraphs are copied likewise. Refuses what is not a LangGraph graph.

Relies on these LangGraph attributes, besides those of `sites`: `StateNodeSpec` and
`StateGraph._node_defaults` as dataclasses with `runnable`, `cache_policy` and
`error_handler`; `BranchSpec.path`, `._route`, `._aroute`, and writers whose `func` is
that bound method; `PregelNode.copy`, `.writers`, `.subgraphs`; `Pregel.cache`,
`.cache_policy`; `DEFAULT_BOUND`; `RunnableCallable.func`, `.afunc` (for a
sync function a `partial` of `run_in_executor`); `coerce_to_runnable`.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence
from langchain_core.runnables.config import run_in_executor
from langgraph._internal._runnable import RunnableCallable, coerce_to_runnable
from langgraph.graph._branch import BranchSpec
from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel
from langgraph.pregel._read import DEFAULT_BOUND, PregelNode
from langgraph.pregel.protocol import PregelProtocol

from langchain_slm.errors import PlanOutdatedError, RewriteError
from langchain_slm.rewriting.differences import differences
from langchain_slm.rewriting.hook import activate
from langchain_slm.rewriting.node_cache import GuidedCache, guided_policy
from langchain_slm.rewriting.scoped import ScopedRunnable, scoped_function
from langchain_slm.rewriting.scopes import HookName, Layer, Scope, hook_names
from langchain_slm.rewriting.sites import Graph
from langchain_slm.routing.places import DEFAULT_HANDLER
from langchain_slm.routing.router import PlanLike, Router

GraphT = TypeVar("GraphT")
Builder = StateGraph[Any, Any, Any, Any]
Compiled = Pregel[Any, Any, Any, Any]


def rewrite(
    graph: GraphT,
    plan: Router | PlanLike,
    *,
    strict: bool = False,
    hooks: Collection[HookName] = (),
    allowed_hosts: frozenset[str] | None = None,
) -> GraphT:
    """Return a copy of `graph` in which each site calls the model that `plan` binds.

    Nodes, edges, reducers, checkpointer, store and interrupts stay as they are, and
    `graph` itself is untouched. A site without a binding calls what it called. A plan
    takes the place of an earlier one, so that rewriting twice never stacks them.

    Args:
        graph: A `StateGraph` or a compiled graph.
        plan: A `Router`, a plan, the path of a plan file, or `{site: chat model or
            "provider:model"}`. A site is a node path (`parent/child`), with `#name`
            for the conditional edge of that name, `#branch` for any of the node. The
            agents that a tool invokes are one site (`tools/model`), or one each by
            their names (`tools/model:researcher`).
        strict: Whether a plan made for another version of the graph is refused.
        hooks: Further ways by which calls are reached: "openai_sdk" for those of the
            `openai` package's chat completions, "threads" for those in threads that
            carry neither context nor config.
        allowed_hosts: Hosts that a plan file may name as `base_url`; by default this
            machine and the providers' own.

    Returns:
        A graph of the same type.

    Raises:
        RewriteError: If `graph` is not a LangGraph graph.
        PlanError: If the plan cannot be used; `PlanEditedError` if edited by hand;
            `PlanOutdatedError` if `strict` and it does not fit the graph.
        CatalogError: If the key of a bound model is not in the environment.
        MissingExtraError: If a bound model needs a package that is not installed.
        ValueError: If there is no hook of that name.

    Warns:
        UserWarning: For each site of the plan that `graph` does not have.
    """
    guide = (
        plan if isinstance(plan, Router) else Router(plan, allowed_hosts=allowed_hosts)
    )
    copied, found = rewritten(graph, guide, strict=strict, hooks=hooks)
    for each in found:
        warnings.warn(each, stacklevel=2)
    return copied


def rewritten(
    graph: GraphT, guide: Router, *, strict: bool, hooks: Collection[HookName]
) -> tuple[GraphT, list[str]]:
    """Return the copy that `rewrite` makes, and how the plan does not fit the graph.

    Raises:
        RewriteError: If `graph` is not a LangGraph graph.
        PlanOutdatedError: If `strict`, and the plan does not fit the graph.
        ValueError: If there is no hook of that name.
    """
    copied = instrument(graph, Scope(guide=guide, hooks=hook_names(hooks)))
    found = differences(cast("Graph", graph), guide)
    if strict and found:
        msg = f"{'; '.join(found)}; convert again, or rewrite without `strict`"
        raise PlanOutdatedError(msg, differences=found)
    return copied, found


def instrument(graph: GraphT, scope: Scope) -> GraphT:
    """Return a copy of `graph` whose nodes run in `scope`.

    Args:
        graph: A `StateGraph` or a compiled graph.
        scope: Who watches or answers while a node runs.

    Raises:
        RewriteError: If `graph` is not a LangGraph graph.
    """
    if not isinstance(graph, StateGraph | Pregel):
        msg = (
            f"cannot instrument a {type(graph).__name__}: give a StateGraph or a "
            "compiled graph (a factory must be called first)"
        )
        raise RewriteError(msg, type=type(graph).__name__)
    activate(scope)
    return cast("GraphT", _Copy(scope).graph(graph))


class _Copy:
    """Copies one graph; each thing in a node once, however often it is used."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._done: dict[tuple[int, Layer, str | None], tuple[object, Any]] = {}

    def graph(self, graph: Any, depth: int = 1) -> Any:
        """Return the copy of a graph whose nodes are `depth` nodes down."""
        copy_of = self._builder if isinstance(graph, StateGraph) else self._compiled
        return self._once(graph, self._layer(depth), None, lambda: copy_of(graph, depth))

    def _layer(self, depth: int, node: str = "") -> Layer:
        return Layer(self._scope, depth, node)

    def _once(
        self, thing: Any, layer: Layer, branch: str | None, make: Callable[[], Any]
    ) -> Any:
        key = id(thing), layer, branch
        if key not in self._done:
            # The original is kept: its id must not be used again meanwhile.
            self._done[key] = (thing, make())
        return self._done[key][1]

    def _policy(self, policy: Any) -> Any:
        guide = self._scope.guide
        return policy if guide is None else guided_policy(policy, guide)

    def _builder(self, builder: Builder, depth: int) -> Builder:
        clone = copy.copy(builder)
        for name, value in vars(builder).items():
            if isinstance(value, dict | set | list):
                setattr(clone, name, copy.copy(value))
        clone.nodes = {
            name: replace(
                spec,
                runnable=self._runnable(spec.runnable, self._layer(depth, name)),
                cache_policy=self._policy(spec.cache_policy),
            )
            for name, spec in builder.nodes.items()
        }
        clone.branches = defaultdict(dict)
        for start, branches in builder.branches.items():
            clone.branches[start] = {
                name: self._branch(branch, self._layer(depth, start), name)
                for name, branch in branches.items()
            }
        clone._node_defaults = self._defaults(builder, depth)  # noqa: SLF001 - LangGraph has no other way
        return clone

    def _defaults(self, builder: Builder, depth: int) -> Any:
        defaults = builder._node_defaults  # noqa: SLF001 - as above
        handler: Any = defaults.error_handler
        if DEFAULT_HANDLER in builder.nodes:
            handler = None  # it has become a node: compiling again would add it twice
        elif handler is not None:
            node = coerce_to_runnable(handler, name=DEFAULT_HANDLER, trace=False)
            handler = self._runnable(node, self._layer(depth, DEFAULT_HANDLER))
        policy = self._policy(defaults.cache_policy)
        return replace(defaults, error_handler=handler, cache_policy=policy)

    def _compiled(self, compiled: Compiled, depth: int) -> Compiled:
        clone = copy.copy(compiled)
        builder = getattr(compiled, "builder", None)
        if isinstance(builder, StateGraph):
            setattr(clone, "builder", self.graph(builder, depth))  # noqa: B010 - not on Pregel itself
        names = _branch_names(builder)
        clone.nodes = {
            name: self._node(node, self._layer(depth, name), names)
            for name, node in compiled.nodes.items()
        }
        clone.cache_policy = self._policy(compiled.cache_policy)
        if self._scope.guide and compiled.cache:
            old = compiled.cache
            cache = old.cache if isinstance(old, GuidedCache) else old
            clone.cache = GuidedCache(cache, self._scope.guide)
        return clone

    def _node(
        self, node: PregelNode, layer: Layer, names: Mapping[int, str]
    ) -> PregelNode:
        bound = node.bound
        return node.copy(
            {
                "bound": bound
                if bound is DEFAULT_BOUND
                else self._runnable(bound, layer),
                "writers": [self._writer(each, layer, names) for each in node.writers],
                "subgraphs": [self._subgraph(each, layer) for each in node.subgraphs],
                "cache_policy": self._policy(node.cache_policy),
            }
        )

    def _subgraph(self, graph: Any, layer: Layer) -> Any:
        # Copied where it is what the node runs; one that a function invokes is not.
        key = id(graph), self._layer(layer.depth + 1), None
        return self._done.get(key, (None, graph))[1]

    def _writer(
        self, writer: Runnable[Any, Any], layer: Layer, names: Mapping[int, str]
    ) -> Any:
        branch = getattr(getattr(writer, "func", None), "__self__", None)
        if not isinstance(branch, BranchSpec):
            return writer
        name = names.get(id(branch.path)) or branch.path.get_name()
        scoped = self._branch(branch, layer, name)
        clone = copy.copy(cast("RunnableCallable", writer))
        clone.func, clone.afunc = scoped._route, scoped._aroute  # noqa: SLF001 - as BranchSpec.run does
        return clone

    def _branch(self, branch: BranchSpec, layer: Layer, name: str) -> BranchSpec:
        return branch._replace(path=self._runnable(branch.path, layer, name))

    def _runnable(self, runnable: Any, layer: Layer, branch: str | None = None) -> Any:
        """Return what a node or a conditional edge runs, running in the scope."""
        if isinstance(runnable, Pregel):
            return self.graph(runnable, layer.depth + 1)
        make = partial(self._scoped, runnable, layer, branch)
        return self._once(runnable, layer, branch, make)

    def _scoped(self, runnable: Any, layer: Layer, branch: str | None) -> Any:
        if isinstance(runnable, ScopedRunnable):
            return runnable.joined(layer)
        if isinstance(runnable, PregelProtocol):
            return runnable  # a graph in another process
        if isinstance(runnable, RunnableCallable) and _runs_as(
            RunnableCallable, runnable
        ):
            return self._callable(runnable, layer, branch)
        if isinstance(runnable, RunnableLambda) and _runs_as(RunnableLambda, runnable):
            return self._lambda(runnable, layer, branch)
        if type(runnable) is RunnableSequence:
            steps = [self._runnable(step, layer, branch) for step in runnable.steps]
            return RunnableSequence(*steps, name=runnable.name)
        return ScopedRunnable(bound=runnable, layers=(layer,), branch=branch)

    def _function(
        self, function: Any, layer: Layer, branch: str | None, **more: bool
    ) -> Any:
        make = partial(scoped_function, function, layer, branch, **more)
        return self._once(function, layer, branch, make)

    def _callable(
        self, node: RunnableCallable, layer: Layer, branch: str | None
    ) -> RunnableCallable:
        clone = copy.copy(node)
        scoped = partial(self._function, layer=layer, branch=branch)
        afunc: Any = node.afunc
        if node.func is not None:
            clone.func = scoped(node.func, awaited=False)
        if isinstance(afunc, partial) and afunc.func is run_in_executor:
            # LangGraph recognises a node that is only sync by this very partial.
            executor, function, *args = afunc.args
            function = scoped(function, awaited=False)
            in_executor = partial(run_in_executor, executor, function, *args)
            vars(in_executor).update(vars(afunc))
            clone.afunc = in_executor
        elif afunc is not None:
            clone.afunc = scoped(afunc, awaited=True)
        return clone

    def _lambda(
        self, node: RunnableLambda[Any, Any], layer: Layer, branch: str | None
    ) -> RunnableLambda[Any, Any]:
        clone = copy.copy(node)
        for name in ("func", "afunc"):
            if hasattr(node, name):
                function = self._function(getattr(node, name), layer, branch)
                setattr(clone, name, function)
        return clone


def _runs_as(base: type[Runnable[Any, Any]], runnable: Runnable[Any, Any]) -> bool:
    own = type(runnable)
    return own.invoke is base.invoke and own.ainvoke is base.ainvoke


def _branch_names(builder: object) -> dict[int, str]:
    if not isinstance(builder, StateGraph):
        return {}
    return {
        id(branch.path): name
        for branches in builder.branches.values()
        for name, branch in branches.items()
    }
