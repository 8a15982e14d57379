"""State graphs: each stage of a recipe becomes nodes and edges."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from integration_tests.parity.bodies import edge_body, handler_body, node_body
from integration_tests.parity.calling import Call, Core, Kit, around, told
from integration_tests.parity.forms import afunction_of, form_of, function_of, path_of
from integration_tests.parity.policies import (
    Sites,
    _keys,
    models_of,
    options_of,
    retry_policy,
    sites_invoked,
    sites_of,
)
from integration_tests.parity.recipes import (
    Agent,
    Choice,
    Edge,
    Fan,
    Graph,
    Loop,
    Nested,
    Single,
    Spread,
    Stage,
    Step,
    Tools,
)
from integration_tests.parity.schemas import SCHEMAS, Context, Plan, value_of
from integration_tests.parity.scripts import RUN
from integration_tests.parity.tools import TOOLS_BY_KIND
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import CachePolicy, Command, Send


class Building:
    """Builds one state graph."""

    def __init__(self, kit: Kit, graph: Graph) -> None:
        self.kit, self.recipe = kit, graph
        state, narrow, out = SCHEMAS[graph.schema]
        self.builder = StateGraph(
            state,
            Context,
            input_schema=narrow if graph.narrow_input else None,
            output_schema=out if graph.narrow_output else None,
        )
        self.sites: Sites = defaultdict(set)
        self.names: list[str] = []
        self._defaults()
        previous = START
        for stage in graph.stages:
            previous = _STAGES[type(stage)](self, stage, previous)
        self.last = previous

    def compiling(self, **more: Any) -> Callable[[Any], Any]:
        """Return what compiles a builder of this graph."""
        recipe, names = self.recipe, self.names
        before: Any = [names[index % len(names)] for index in recipe.before]
        after: Any = [names[index % len(names)] for index in recipe.after]
        if recipe.everywhere:
            before = "*"
        return lambda builder: builder.compile(
            interrupt_before=before, interrupt_after=after, name=recipe.name, **more
        )

    def _defaults(self) -> None:
        given: dict[str, Any] = {}
        if "retry" in self.recipe.defaults:
            given["retry_policy"] = retry_policy(2, "all")
        if "cache" in self.recipe.defaults:
            given["cache_policy"] = CachePolicy()
        if "handler" in self.recipe.defaults:
            body = handler_body(self.kit, self.kit.tag(), "asks")
            given["error_handler"] = function_of(body, "error")
            self.sites["__default_error_handler__", None] |= {0}
        if given:
            self.builder.set_node_defaults(**given)

    def unique(self, wanted: str) -> str:
        """Return a name for a node that no other has."""
        name = wanted
        while name in self.builder.nodes or name in self.names:
            name += "'"
        self.names.append(name)
        return name

    def node(self, step: Step, previous: str | None, **more: Any) -> str:
        """Add a node; return its name."""
        name, tag = self.unique(step.name), self.kit.tag()
        schema = self.recipe.schema
        thing = form_of(step, node_body(self.kit, step, tag, schema), self.kit, tag)
        options = {**options_of(step), **more}
        if step.narrow:
            narrow = SCHEMAS[schema][1]
            if step.form in ("function", "async_function"):
                thing.__annotations__["state"] = narrow
            else:
                options["input_schema"] = narrow
        if step.handler:
            options["error_handler"] = self.handler(name, step.handler)
        self.builder.add_node(name, thing, **options)
        self.bind(name, step)
        if previous is not None:
            self.builder.add_edge(previous, name)
        return name

    def bind(self, path: str, step: Step) -> None:
        """Note the sites of a node."""
        for site, models in sites_of(path, step).items():
            self.sites[site] |= models

    def handler(self, name: str, way: str) -> Any:
        """Return the error handler of a node."""
        body = handler_body(self.kit, self.kit.tag(), way)
        if way == "asks":
            self.sites[f"__error_handler__{name}", None] |= {0}
        return function_of(body, "error")

    def edge(self, start: str, edge: Edge, pick: Any, ends: list[str]) -> None:
        """Add a conditional edge from `start` to `ends`."""
        keys = _keys(edge, ends)
        body = edge_body(self.kit, edge, self.kit.tag(), lambda n: keys[pick(n)])
        self.conditional(start, edge, path_of(edge, body, self.kit), ends)

    def conditional(self, start: str, edge: Edge, path: Any, ends: list[str]) -> None:
        """Add a conditional edge that is there already."""
        path_map: Any = None
        if edge.ends == "dict":
            path_map = {f"to {index}": end for index, end in enumerate(ends)}
        elif edge.ends == "list":
            path_map = ends
        elif edge.ends == "literal" and edge.form in ("function", "async_function"):
            path.__annotations__["return"] = Literal[tuple(ends)]  # type: ignore[valid-type]
        self.builder.add_conditional_edges(start, path, path_map)
        name = list(self.builder.branches[start])[-1]
        self.sites[start, name] |= models_of(edge)

    # Stages: each returns the name of the node after which the next one begins

    def single(self, stage: Single, previous: str) -> str:
        return self.node(stage.step, previous)

    def fan(self, stage: Fan, previous: str) -> str:
        ends = []
        for chain in stage.chains:
            at = previous
            for index, step in enumerate(chain):
                clashes = stage.clash and index == 0
                at = self.node(replace(step, gives="last") if clashes else step, at)
            ends.append(at)
        join = self.node(stage.join, None, defer=stage.way == "deferred")
        if stage.way == "waiting":
            self.builder.add_edge(ends, join)
        else:
            for end in ends:
                self.builder.add_edge(end, join)
        return join

    def spread(self, stage: Spread, previous: str) -> str:
        worker = self.node(stage.worker, None)
        tag, schema = self.kit.tag(), SCHEMAS[self.recipe.schema][0]

        def packets(state: Any) -> list[Send]:
            text = value_of(state, "text", "")
            texts = [f"{text} {tag} {index}" for index in range(stage.count)]
            return [Send(worker, schema(text=each, log=[])) for each in texts]

        if stage.way == "edge":
            self.builder.add_conditional_edges(previous, packets, [worker])
        else:
            name = self.unique("sender")

            def sends(state: Any) -> Command[Any]:
                return Command(goto=packets(state), update={"steps": 1})

            self.builder.add_node(name, sends, destinations=(worker,))
            self.builder.add_edge(previous, name)
        return self.node(stage.join, worker, defer=stage.deferred)

    def choice(self, stage: Choice, previous: str) -> str:
        options = [self.node(step, None) for step in stage.options]
        if stage.way == "edge":
            self.edge(previous, stage.edge, lambda n: n % 2, options)
        else:
            self._commander(stage, previous, options)
        join = self.unique("joined")
        self.builder.add_node(join, lambda state: {"log": ["joined"]})
        for option in options:
            self.builder.add_edge(option, join)
        return join

    def _commander(self, stage: Choice, previous: str, options: list[str]) -> None:
        name, tag = self.unique("chooses"), self.kit.tag()

        def pick(n: int) -> Command[Any]:
            goto = options if stage.way == "parallel_command" else options[n % 2]
            return Command(goto=goto, update={"log": [f"{tag} {n % 2}"]})

        body = edge_body(self.kit, stage.edge, tag, pick)
        is_async = stage.edge.form == "async_function"
        node = (afunction_of if is_async else function_of)(body)
        labels: Any = {option: f"to {i}" for i, option in enumerate(options)}
        if stage.edge.ends == "list":
            labels = tuple(options)
        elif stage.edge.ends == "literal":
            labels = None
            node.__annotations__["return"] = Command[Literal[tuple(options)]]  # type: ignore[valid-type]
        self.builder.add_node(name, node, destinations=labels)
        self.builder.add_edge(previous, name)
        self.sites[name, None] |= models_of(stage.edge)

    def loop(self, stage: Loop, previous: str) -> str:
        name = self.node(stage.step, previous)
        after = self.unique("after")
        self.builder.add_node(after, lambda state: {"log": ["after"]})
        tag = self.kit.tag()

        def again(n: int) -> int:
            turns = RUN.get().count(-1, f"{tag} {around()}")
            return 0 if stage.endless or turns % (stage.times + 1) else 1

        self.edge(name, stage.edge, again, [name, after])
        return after

    def tools(self, stage: Tools, previous: str) -> str:
        kit, tag = self.kit, self.kit.tag()
        agent, tools = self.unique(stage.name), self.unique("tools")
        after = self.unique("after")
        bound = kit.models[stage.model].bind_tools(
            found := [TOOLS_BY_KIND[kind](kit, kit.tag()) for kind in stage.kinds]
        )

        def body(state: Any, **given: Any) -> Core:
            RUN.get().attempts.append((tag, 1))
            messages = value_of(state, "messages", [])
            own = [i for i, message in enumerate(messages) if message.name == tag]
            since: list[BaseMessage] = messages[own[0] :] if own else []
            text = f"<m{stage.model}> {tag} {value_of(state, 'text', '')}"
            asked = [SystemMessage(text), *since]
            answer = yield Call(lambda: bound.invoke(asked), lambda: bound.ainvoke(asked))
            named = answer.model_copy(update={"name": tag})
            return {"messages": [named], "log": [told(answer)]}

        node: Any = ToolNode(found, name=tools, handle_tool_errors=stage.handles)
        if stage.falls_back:
            node = node.with_fallbacks([RunnableLambda(_tools_fell_back)])
        form = afunction_of if stage.asynchronous else function_of
        self.builder.add_node(agent, form(body))
        self.builder.add_node(tools, node)
        self.builder.add_node(after, lambda state: {"log": ["after tools"]})
        self.builder.add_edge(previous, agent)
        self.builder.add_conditional_edges(
            agent, tools_condition, {"tools": tools, END: after}
        )
        self.builder.add_edge(tools, agent)
        self.sites[agent, None] |= {stage.model}
        if "asks" in stage.kinds:
            self.sites[tools, None] |= {0}
        if "graph" in stage.kinds:
            self.sites[f"{tools}/inner", None] |= {0}
        return after

    def agent(self, stage: Agent, previous: str) -> str:
        kit, tag = self.kit, self.kit.tag()
        graph = create_agent(
            kit.models[stage.model],
            [TOOLS_BY_KIND[kind](kit, kit.tag()) for kind in stage.kinds],
            system_prompt=f"<m{stage.model}> {tag}",
            response_format=ToolStrategy(Plan) if stage.structured else None,
            name=stage.called,
        )
        name = self.unique(stage.name)
        thing = graph if stage.way == "node" else _talking(stage.way, graph)
        self.builder.add_node(name, thing)
        self.builder.add_edge(previous, name)
        self.sites[f"{name}/model", None] |= {stage.model}
        if "asks" in stage.kinds:
            self.sites[f"{name}/tools", None] |= {0}
        if "graph" in stage.kinds:
            self.sites[f"{name}/tools/inner", None] |= {0}
        return name

    def nested(self, stage: Nested, previous: str) -> str:
        after = self.unique("after")
        inner = Building(self.kit, stage.graph)
        if stage.leaves:
            leaves = inner.unique("leaves")
            inner.builder.add_node(leaves, partial(_leaves, after))
            inner.builder.add_edge(inner.last, leaves)
        graph = inner.compiling(checkpointer=stage.memory)(inner.builder)
        thing = graph if stage.way == "node" else _invoking(stage.way, graph)
        options: dict[str, Any] = {}
        count = 2 if stage.twice and not stage.leaves else 1
        self.builder.add_node(after, lambda state: {"log": ["after a graph"]})
        at, ends = previous, []
        for _ in range(count):
            name = self.unique(stage.name)
            if stage.handler:
                options["error_handler"] = self.handler(name, stage.handler)
            if stage.leaves:
                options["destinations"] = (after,)
            self.builder.add_node(name, thing, **options)
            self.builder.add_edge(at, name)
            if stage.way == "node":
                for (path, edge), models in inner.sites.items():
                    self.sites[f"{name}/{path}", edge] |= models
            else:
                for site, models in sites_invoked(name, inner.sites):
                    self.sites[site] |= models
            ends.append(name)
            at = name if stage.twice == "after" else previous
        if not stage.leaves:
            self.builder.add_edge(ends if stage.twice == "beside" else ends[-1], after)
        return after


_STAGES: dict[type[Stage], Callable[[Building, Any, str], str]] = {
    Single: Building.single,
    Fan: Building.fan,
    Spread: Building.spread,
    Choice: Building.choice,
    Loop: Building.loop,
    Tools: Building.tools,
    Nested: Building.nested,
    Agent: Building.agent,
}


def _leaves(after: str, state: Any) -> Command[Any]:
    return Command(graph=Command.PARENT, goto=after, update={"log": ["left"]})


def _tools_fell_back(state: Any) -> Any:
    return {"log": ["tools fell back"]}


def _invoking(way: str, graph: Any) -> Any:
    """Return a function that invokes a graph."""

    def body(state: Any, **given: Any) -> Core:
        asked = {"text": value_of(state, "text", ""), "log": ["called"]}
        result = yield _call_of(way, graph, asked)
        return {"log": value_of(result, "log", [])[-2:], "steps": 1}

    return (afunction_of if way.startswith("async") else function_of)(body)


def _talking(way: str, graph: Any) -> Any:
    """Return a function that invokes an agent."""

    def body(state: Any, **given: Any) -> Core:
        asked = {"messages": [("user", value_of(state, "text", ""))]}
        result = yield _call_of(way, graph, asked)
        said = [told(message) for message in result["messages"]]
        return {"log": [*said, str(result.get("structured_response"))], "steps": 1}

    return (afunction_of if way.startswith("async") else function_of)(body)


def _call_of(way: str, graph: Any, asked: Any) -> Call:
    """Return a call of a graph: of its `invoke`, or its `stream` to the end."""
    context = {"user": "inner"}
    if way.endswith("function"):
        return Call(
            lambda: graph.invoke(asked, context=context),
            lambda: graph.ainvoke(asked, context=context),
        )

    def now() -> Any:
        modes = ["values", "messages"]
        chunks = list(graph.stream(asked, context=context, stream_mode=modes))
        return next(data for mode, data in reversed(chunks) if mode == "values")

    async def later() -> Any:
        stream = graph.astream(asked, context=context, stream_mode=["values", "messages"])
        chunks = [chunk async for chunk in stream]
        return next(data for mode, data in reversed(chunks) if mode == "values")

    return Call(now, later)
