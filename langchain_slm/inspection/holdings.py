"""Which models a runnable calls, and how it holds them. Calls none, and runs no code.

Objects are walked as LangChain composes them (`runnables`), functions are read
(`calls`), and what is said of a model is in `findings`.

Relies on these names of LangGraph: `ToolNode._tools_by_name`, `._wrap_tool_call` and
`._awrap_tool_call`.
"""

from __future__ import annotations

import ast
from contextlib import AbstractContextManager
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.graph.state import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol

from langchain_slm.inspection import findings
from langchain_slm.inspection.attributes import SELF
from langchain_slm.inspection.calls import Calls, as_method
from langchain_slm.inspection.code_reading import Arguments, Spot
from langchain_slm.inspection.describing import (
    made_from_name,
    made_model,
    schema_name,
    tool_name,
    tool_names,
    written_options,
)
from langchain_slm.inspection.findings import Holding, merged, place_of
from langchain_slm.inspection.libraries import AGENT_MAKERS, AGENT_MODULES
from langchain_slm.inspection.peeking import (
    MISSING,
    attribute,
    fields,
    full_name,
    is_a,
    is_there,
    items,
)
from langchain_slm.inspection.runnables import (
    CHAIN,
    CONFIGURABLE_MODEL,
    agent_name,
    calls_something,
    deep_closure,
    innermost,
    is_executor_twin,
    is_middleware,
    method_below,
    parts_of,
)
from langchain_slm.inspection.sources import Sources
from langchain_slm.inspection.values import (
    NO_OPTIONS,
    NOTHING,
    Agent,
    Given,
    Instance,
    Known,
    Made,
    Method,
    Options,
    Thing,
    Unloaded,
    Value,
    Written,
    bound,
    constant,
    held,
    joined,
    known,
)
from langchain_slm.rewriting.sites import builder_of, nodes_of

NO_SPOT = Spot("", 0, "")
INTERRUPT = "langgraph.types.interrupt"
MIDDLEWARE_HOW = "middleware"
_NODE = "node "  # before the name of a node that the code adds to a graph
_RUNS = ("invoke", "ainvoke", "stream", "astream", "_run", "_arun", "_call", "_acall")


class Holdings(Calls):
    """Finds what one node, or one conditional edge, calls.

    Attributes:
        found: What was found, in the order of the code.
        notes: Calls that cannot be followed, each with its place.
        interrupts: Whether the code asks a human by `interrupt`.
    """

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self.found: list[Holding] = []
        self.notes: list[str] = []
        self.interrupts = False
        self._passed: list[Holding] = []
        self._inside: list[int] = []

    def read(self, runnable: object) -> None:
        """Find what a node's runnable, or a plain function, calls."""
        how = ("the node itself",) if is_a(runnable, BaseChatModel) else ()
        self._run(known(runnable, *how), NO_SPOT)
        self._settle()

    def _settle(self) -> None:
        """Report what was passed on only where no call was seen; a guess likewise."""
        seen = {(each.class_name, each.model) for each in self.found}
        for holding in self._passed:
            if (holding.class_name, holding.model) not in seen:
                seen.add((holding.class_name, holding.model))
                self._keep(holding)
        certain = {_call_of(each) for each in self.found if each.confidence == "certain"}
        self.found = merged(
            each
            for each in self.found
            if each.confidence != "probable" or _call_of(each) not in certain
        )

    # What `calls` finds

    def invoked(self, value: Value, spot: Spot) -> None:
        """Take note that a runnable is called."""
        self._run(value, spot)

    def raw_call(self, package: str, spot: Spot) -> None:
        """Take note that a provider or a server is called below LangChain."""
        self._keep(findings.raw(package, self.context, spot))

    def noted(self, text: str, spot: Spot) -> None:
        """Take note of a call that cannot be followed."""
        note = f"{place_of(spot)}: {text}"
        if note not in self.notes:
            self.notes.append(note)

    def passed_on(self, value: Value, to: str, spot: Spot) -> Value:
        """Take note that models are given to code that is not read; return its result."""
        if self.context.hook and to.endswith(".override"):
            self._run(value, spot)  # by a middleware, to the agent's own call
            return NOTHING
        before, self.found = self.found, []
        with self.within(guess=f"passed on to {to}, which is not read"):
            self._run(value, spot)
        self._passed += self.found
        self.found = before
        return (Instance(object, inside=value),)

    def derived(self, thing: Thing, name: str, given: Arguments) -> Value:
        """Return the runnable that a method such as `bind_tools` gives."""
        same: Value = (thing,)
        match name:
            case "bind_tools" | "with_structured_output" | "bind":
                return bound(same, written_options(name, given))
            case "with_fallbacks":
                backups = self.elements(given.get(0, "fallbacks"))
                return joined(same, held(backups, "fallback"))
            case "pipe":
                return held(joined(same, self.flat(given.all)), CHAIN)
            case "add_node" if isinstance(thing, Instance):
                action = given.get(1, "action") or given.get(0, "node")
                node = constant(given.get(0, "node"), str) or _only_function_name(action)
                thing.attributes[f"{_NODE}{node}"] = action
            case "configurable_fields" | "configurable_alternatives":
                return held(joined(same, self.flat(given.all)), "configurable")
        return same

    def made(self, maker: object, given: Arguments, spot: Spot) -> Value | None:
        """Return the model or agent that a call makes; None where it makes none."""
        model = made_model(maker, given, spot)
        if model is not None or is_a(maker, Unloaded):
            return model
        name = full_name(maker)
        self.interrupts = self.interrupts or name == INTERRUPT
        node = AGENT_MAKERS.get(name)
        return None if node is None else self._agent(node, given, spot)

    def _agent(self, node: str, given: Arguments, spot: Spot) -> Value:
        tools, form = given.get(1, "tools"), given.get(None, "response_format")
        options = Options(tool_names(tools), form_name(form))
        models = given.get(0, "model")
        if constant(models, str):
            models = made_from_name(models, spot)
        # Only the newer of the two names what runs in it.
        name = constant(given.get(None, "name"), str) if node == "model" else None
        hooks = self.elements(given.get(None, "middleware"))
        return (Agent(node, bound(models, options), tools, hooks, name),)

    def holds_model(self, thing: Thing) -> bool:
        """Whether calling a thing may call a model."""
        if isinstance(thing, Made | Agent):
            return True
        if isinstance(thing, Instance):
            return bool(thing.inside)
        if not isinstance(thing, Known) or not is_a(thing.obj, (Runnable, StateGraph)):
            return False
        return calls_something(thing.obj)

    # Runnables

    def _run(self, value: Value, spot: Spot) -> None:
        for thing in value:
            match thing:
                case Known():
                    self._run_object(thing, spot)
                case Made():
                    self._keep(findings.of_made(thing, self.context, spot))
                case Agent():
                    self._run_agent(thing, spot)
                case Given():
                    self._keep(findings.of_given(thing, self.context, spot))
                case Instance():
                    self._run_instance(thing, spot)
                case Written() | Method():
                    self._run(self.apply(thing, Arguments(), spot), spot)

    def _run_instance(self, thing: Instance, spot: Spot) -> None:
        if issubclass(thing.cls, StateGraph):
            for name, action in thing.attributes.items():
                if name.startswith(_NODE):
                    node = name.removeprefix(_NODE)
                    with self._below(node, None, "subgraph made in the function"):
                        self._run(action, spot)
            return
        with self.within(guess="inside an object that is not read"):
            self._run(thing.inside, spot)
        self._run_methods(thing, thing.cls, spot)

    def _run_agent(self, agent: Agent, spot: Spot) -> None:
        with self._below(agent.node, agent.name, "agent made in the function"):
            self._run(agent.models, spot)
        with self._below("tools", agent.name, "tool"):
            for tool in self.elements(agent.tools):
                self._run((tool,), spot)
        with self._below(agent.node, agent.name, "middleware"):
            for hook in agent.hooks:
                self._run_hook(hook, spot)

    def _below(
        self, node: str, agent: str | None, *how: str
    ) -> AbstractContextManager[None]:
        context = self.context
        return self.within(
            inner=(*context.inner, node),
            agent=agent or context.agent,
            how=(*context.how, *(each for each in how if each not in context.how)),
        )

    def _run_object(self, thing: Known, spot: Spot) -> None:
        obj = thing.obj
        if id(obj) in self._inside:
            return  # it holds itself
        self._inside.append(id(obj))
        try:
            if is_a(obj, BaseChatModel):
                self._keep(findings.of_model(thing, self.context, spot))
            elif is_a(obj, (Pregel, StateGraph)):
                self._run_graph(obj, thing, spot)
            elif is_a(obj, BaseTool):
                self._run_tool(obj, thing, spot)
            elif is_a(obj, Runnable):
                self._run_runnable(thing, spot)
            else:
                self._run_function(thing, spot)
        finally:
            self._inside.pop()

    def _run_function(self, thing: Known, spot: Spot) -> None:
        """Read a function that a runnable runs; a runnable that it returns runs, too."""
        obj = thing.obj
        function = None if is_executor_twin(obj) else innermost(obj)
        if function is None:
            return
        wrapped = attribute(function, "__wrapped__")
        if wrapped is not MISSING and self._is_library(function):
            self._run_function(replace(thing, obj=wrapped), spot)  # a tracer, or ours
            return
        self.entered(function)
        if function.__module__ in AGENT_MODULES:
            self._run_agent_function(function, spot)
        elif is_a(obj, MethodType) and is_middleware(obj.__self__):
            self._run_hook(thing, spot)
        else:
            spot = _spot_of(function)
            result = self.apply(as_method(obj) or thing, Arguments(), spot)
            self._run_returned(result, spot)

    def _run_returned(self, result: Value, spot: Spot) -> None:
        """Run the runnables that a function returned, as LangChain does."""
        runnables = tuple(each for each in result if self.holds_model(each))
        self._run(runnables, spot)

    def _run_runnable(self, thing: Known, spot: Spot) -> None:
        obj = thing.obj
        if is_a(obj, ToolNode):
            self._run_tool_node(obj, thing, spot)
        elif full_name(type(obj)) == CONFIGURABLE_MODEL:
            self._keep(findings.of_configurable(thing, self.context, spot))
        elif is_a(obj, BaseLLM):
            reason = "a completion model (BaseLLM) is not a chat model"
            self._keep(findings.opaque(thing, self.context, spot, reason))
        elif is_a(obj, PregelProtocol):
            reason = "a graph in another process"
            self._keep(findings.opaque(thing, self.context, spot, reason))
        elif parts := list(parts_of(obj)):
            for part in parts:
                how = thing.how if part.how is None else (*thing.how, part.how)
                options = part.options.over(thing.options)
                self._run((Known(part.what, how=how, options=options),), spot)
        elif not self._run_methods(thing, type(obj), spot):
            self._run_fields(thing, spot)

    def _run_methods(self, thing: Thing, kind: type, spot: Spot) -> bool:
        """Read the methods of an app's own runnable; False if it has none."""
        receiver = replace(thing, how=SELF)
        own = [
            function
            for name in _RUNS
            if (function := attribute(kind, name)) is not MISSING
            and is_a(function, FunctionType)
            and self.follows(function)
        ]
        for function in own:
            result = self.apply(Known(function), Arguments(((receiver,),)), spot)
            self._run_returned(result, spot)
        return bool(own)

    def _run_fields(self, thing: Known, spot: Spot) -> None:
        """Look into a library's runnable for models that it may call."""
        kind = type(thing.obj).__name__
        inside = tuple(
            each
            for value in fields(thing.obj).values()
            for each in self.flat(known(value, *thing.how))
        )
        with self.within(guess=f"inside a {kind}, whose code is not read"):
            self._run(tuple(each for each in inside if self.holds_model(each)), spot)

    def _run_tool(self, tool: object, thing: Known, spot: Spot) -> None:
        how = (*self.context.how, *(() if "tool" in self.context.how else ("tool",)))
        with self.within(how=how):
            functions = [attribute(tool, name) for name in ("func", "coroutine")]
            plain = [each for each in functions if is_there(each)]
            for function in plain:
                self._run_inside_tool(known(function), spot)
            if not plain:
                self._run_methods(thing, type(tool), spot)

    def _run_inside_tool(self, function: Value, spot: Spot) -> None:
        for each in function:
            if isinstance(each, Known) and (own := innermost(each.obj)) is not None:
                self.entered(own)
                self.apply(as_method(each.obj) or each, Arguments(), spot)

    def _run_tool_node(self, node: Any, thing: Known, spot: Spot) -> None:
        for _, tool in items(attribute(node, "_tools_by_name")):
            self._run((Known(tool, how=thing.how),), spot)
        for name in ("_wrap_tool_call", "_awrap_tool_call"):
            wrapper = attribute(node, name)
            if is_there(wrapper):
                self._run_function(Known(wrapper, how=thing.how), spot)

    def _run_graph(self, graph: Any, thing: Known, spot: Spot) -> None:
        name = agent_name(graph)
        for node, runnable in nodes_of(graph).items():
            with self._below(node, name, "subgraph"):
                self._run((Known(runnable, how=thing.how),), spot)
        builder = builder_of(graph)
        for start, branches in builder.branches.items() if builder else ():
            for branch, spec in branches.items():
                with self._below(f"{start}#{branch}", name, "conditional edge"):
                    self._run(known(spec.path), spot)

    # Prebuilt agents

    def _run_agent_function(self, function: FunctionType, spot: Spot) -> None:
        """Find what a prebuilt agent's function holds: its closure is its memory."""
        cells = deep_closure(function)
        tools = cells.get("default_tools")
        names = tuple(tool_name(each) for _, each in items(tools))
        schema = cells.get("initial_response_format", cells.get("response_format"))
        form = schema_name(schema) if is_there(schema) else None
        is_structured = function.__name__.endswith("generate_structured_response")
        options = Options(tools=names, response_format=form)
        if not is_structured and "static_model" in cells:
            options = NO_OPTIONS  # `create_react_agent` binds its tools before
        # `static_model` is `model` behind the prompt, where no function chooses one.
        held_as = "static_model" if is_there(cells.get("static_model")) else "model"
        for name, value in cells.items():
            if name == held_as and value is not None:
                self._run_agent_model(value, options, spot)
            elif (method := method_below(value)) is not None:
                self._run_hook(Known(method), spot)

    def _run_agent_model(self, value: object, options: Options, spot: Spot) -> None:
        if is_a(value, Runnable):
            found: Value = (Known(value, options=options),)
        elif (function := innermost(value)) is not None:  # it chooses a model
            self.entered(function)
            found = self.apply(Known(value), Arguments(), spot)
        else:
            found = NOTHING
        self._run(held(found, "agent's closure"), spot)

    def _run_hook(self, hook: Thing, spot: Spot) -> None:
        """Read what a middleware does around a model call, or a method of one."""
        methods: Value = (hook,)
        if not (isinstance(hook, Known) and is_a(hook.obj, MethodType)):
            names = ("wrap_model_call", "awrap_model_call")
            methods = joined(*(self.attribute((hook,), name, spot) for name in names))
        how = (*self.context.how, MIDDLEWARE_HOW)
        for each in methods:
            function = innermost(each.obj) if isinstance(each, Known) else None
            if function is not None:
                self.entered(function)
            with self.within(how=tuple(dict.fromkeys(how)), hook=True):
                self._run_returned(self.apply(each, Arguments(), spot), spot)

    def assigned(self, receiver: Value, name: str, value: Value) -> None:
        """Take note that an attribute is assigned; of a middleware's request, a model."""
        super().assigned(receiver, name, value)
        if self.context.hook and name == "model" and not receiver:
            self._run(value, NO_SPOT)

    def _keep(self, holding: Holding) -> None:
        if holding not in self.found:
            self.found.append(holding)


def _call_of(holding: Holding) -> tuple[object, ...]:
    return holding.inner, holding.agent, holding.class_name, holding.model


def _only_function_name(value: Value) -> str:
    for each in value:
        name = attribute(each.obj, "__name__") if isinstance(each, Known) else None
        if isinstance(each, Written) and not isinstance(each.node, ast.Lambda):
            name = each.node.name
        if is_a(name, str):
            return str(name)
    return "?"


def form_name(form: Value) -> str | None:
    """Return the name of the schema in a value; None without one."""
    for each in form:
        if isinstance(each, Known) and each.obj is not None:
            return schema_name(each.obj)
    return None


def _spot_of(function: FunctionType) -> Spot:
    code = function.__code__
    return Spot(code.co_filename, code.co_firstlineno, code.co_name)
