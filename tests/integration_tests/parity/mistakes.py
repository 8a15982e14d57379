"""Rewritings that are wrong on purpose, each with an app on which it shows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from integration_tests.parity.building import Made
from integration_tests.parity.checking import STRICT, Rewriting, rewritten
from integration_tests.parity.recipes import (
    ALWAYS,
    Ask,
    Edge,
    Fan,
    Flow,
    Graph,
    Loop,
    Nested,
    Recipe,
    Single,
    Spread,
    Step,
    Tools,
)
from integration_tests.parity.scripts import Scripted, Voice
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.channels import EphemeralValue, LastValue
from langgraph.constants import START

from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.router import Router

Spoil = Callable[[Any, Made], None]


@dataclass(frozen=True)
class Mistake:
    """One wrong rewriting.

    Attributes:
        recipe: Of an app on which it shows.
        rewrite_it: Rewrites the graph of an app, wrongly.
        told: What the check says.
        looks: It shows without running the graph.
    """

    recipe: Recipe
    rewrite_it: Callable[[Made, Rewriting, Any], Any]
    told: str
    looks: bool = False


def _app(*stages: Any, **more: Any) -> Recipe:
    graph = {key: more.pop(key) for key in ("schema", "before", "name") if key in more}
    return Recipe(Graph(tuple(stages), **graph), **more)


def _spoiling(spoil: Spoil) -> Callable[[Made, Rewriting, Any], Any]:
    """Return a rewriting that spoils the copy, or the original, afterwards."""

    def wrong(made: Made, rewriting: Rewriting, plan: Any) -> Any:
        copied = rewritten(made, rewriting, plan)
        spoil(copied, made)
        return copied

    return wrong


def _first(graph: Any) -> Any:
    return next(node for name, node in graph.nodes.items() if name != START)


def _no_retries(copied: Any, made: Made) -> None:
    _first(copied).retry_policy = ()


def _one_more_attempt(copied: Any, made: Made) -> None:
    node = _first(copied)
    node.retry_policy = [each._replace(max_attempts=3) for each in node.retry_policy]


def _no_edge(copied: Any, made: Made) -> None:
    _first(copied).writers = _first(copied).writers[:1]


def _no_handler(copied: Any, made: Made) -> None:
    copied.node_error_handler_map = {}
    for node in copied.nodes.values():
        node.error_handler_node = None


def _no_cache(copied: Any, made: Made) -> None:
    copied.cache = None


def _no_metadata(copied: Any, made: Made) -> None:
    _first(copied).metadata = None


def _no_waiting(copied: Any, made: Made) -> None:
    waiting = "branch:to:join"
    copied.channels = {**copied.channels, waiting: EphemeralValue(Any, guard=False)}


def _no_breakpoints(copied: Any, made: Made) -> None:
    copied.interrupt_before_nodes = []


def _no_reducer(copied: Any, made: Made) -> None:
    last = LastValue(list)
    last.key = "log"
    copied.channels = {**copied.channels, "log": last}


def _no_store(copied: Any, made: Made) -> None:
    copied.store = None


def _no_saver(copied: Any, made: Made) -> None:
    copied.checkpointer = None


def _no_mapper(copied: Any, made: Made) -> None:
    _first(copied).mapper = None


def _no_config(copied: Any, made: Made) -> None:
    copied.config = None


def _more_config(copied: Any, made: Made) -> None:
    copied.config = {"metadata": {"plan": "p1"}}


def _fewer_channels(copied: Any, made: Made) -> None:
    copied.stream_channels = [name for name in copied.stream_channels if name != "log"]


def _no_name(copied: Any, made: Made) -> None:
    copied.name = "LangGraph"


def _no_timeout(copied: Any, made: Made) -> None:
    _first(copied).timeout = None


def _subgraph_of_the_original(copied: Any, made: Made) -> None:
    copied.nodes["sub"].bound = made.graph.nodes["sub"].bound


def _another_node(copied: Any, made: Made) -> None:
    one, other = [name for name in copied.nodes if name in ("one", "other")]
    nodes = copied.nodes
    nodes[one].bound, nodes[other].bound = nodes[other].bound, nodes[one].bound


# What reaches into the original.


def _node_of_the_original(copied: Any, made: Made) -> None:
    _first(made.graph).retry_policy = ()


def _spec_of_the_original(copied: Any, made: Made) -> None:
    made.graph.builder.nodes["node"].metadata = {"of": "the copy"}


def _edges_of_the_original(copied: Any, made: Made) -> None:
    made.graph.builder.edges.add(("node", "node"))


def _function_of_the_original(copied: Any, made: Made) -> None:
    _first(made.graph).bound.func.__dict__["slm"] = True


def _code_of_the_original(copied: Any, made: Made) -> None:
    function = _first(made.graph).bound.func
    function.__code__ = function.__code__.replace(co_name="slm")


def _model_of_the_original(copied: Any, made: Made) -> None:
    made.models[0].model_name = "slm"


def _branch_of_the_original(copied: Any, made: Made) -> None:
    branches = made.graph.builder.branches["node"]
    name, branch = next(iter(branches.items()))
    branches[name] = branch._replace(ends=None)


# Plans that are no identity.


def _swapped(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    one, other = made.twins().items()
    return rewrite(made.graph, {one[0]: other[1], other[0]: one[1]})


def _unbound(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    return rewrite(made.graph, dict(list(made.twins().items())[1:]))


def _whole_tokens(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    return rewrite(made.graph, _twins(made, disable_streaming=True))


def _another_error(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    voice = replace(made.recipe.voices[0], error="value")
    return rewrite(made.graph, Router(_twins(made, voices=(voice,)), **STRICT))


def _saved_by_the_reference(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    return rewrite(made.graph, made.twins())


class Forgetful(Scripted):
    """Does not hear of the options that it is called with."""

    def _answer(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        return super()._answer(messages, {})


def _no_options(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    forgetful = {
        site: Forgetful(model_name=twin.model_name, voices=twin.voices, twin=site)
        for site, twin in made.twins().items()
    }
    return rewrite(made.graph, Router(forgetful, **STRICT))


def _twins(made: Made, **changed: Any) -> dict[str, Scripted]:
    return {site: twin.model_copy(update=changed) for site, twin in made.twins().items()}


ONE = Single(Step())
RETRIES = _app(Single(Step(fails=1, attempts=2)))
FAILS = _app(Single(Step(fails=ALWAYS, attempts=2)))
TWO = _app(
    Single(Step(name="one", asks=(Ask(0),))),
    Single(Step(name="other", asks=(Ask(1),))),
    voices=(Voice(0), Voice(1)),
)
WAITS = Fan(
    chains=((Step(name="a"),), (Step(name="b"), Step(name="c"))),
    join=Step(name="join"),
    way="deferred",
)
AGAIN = Loop(Step(), Edge(), times=2)
KEPT = _app(Single(Step(cached=True, gives="none", narrow=True)), turns=2, repeats=True)
INNER = Nested(name="sub", graph=Graph((ONE,)))
FAILING = Voice(0, fails="prompt")

MISTAKES: dict[str, Mistake] = {
    "a retry policy is lost": Mistake(RETRIES, _spoiling(_no_retries), ".errors"),
    "a node is tried too often": Mistake(
        FAILS, _spoiling(_one_more_attempt), ".attempts"
    ),
    "an edge is lost": Mistake(TWO, _spoiling(_no_edge), ".events"),
    "nodes are mixed up": Mistake(TWO, _spoiling(_another_node), ".events"),
    "an error handler is lost": Mistake(
        _app(Single(Step(fails=ALWAYS, handler="update"))),
        _spoiling(_no_handler),
        ".errors",
    ),
    "a cache is lost": Mistake(KEPT, _spoiling(_no_cache), ".attempts"),
    "the metadata of a node are lost": Mistake(
        _app(Single(Step(metadata="says"))), _spoiling(_no_metadata), "mine"
    ),
    "a deferred node does not wait": Mistake(
        _app(WAITS), _spoiling(_no_waiting), ".events"
    ),
    "a breakpoint is lost": Mistake(
        _app(ONE, before=(0,)), _spoiling(_no_breakpoints), ".inputs"
    ),
    "a reducer is lost": Mistake(TWO, _spoiling(_no_reducer), "log"),
    "the store is lost": Mistake(
        _app(Single(Step(extras=("store",)))), _spoiling(_no_store), ".errors"
    ),
    "the checkpointer is lost": Mistake(_app(ONE), _spoiling(_no_saver), ".checkpoints"),
    "a state is no object any more": Mistake(
        _app(ONE, schema="pydantic"), _spoiling(_no_mapper), "Model"
    ),
    "a config is lost": Mistake(_app(ONE, config=True), _spoiling(_no_config), "tags"),
    "something is added to a run": Mistake(_app(ONE), _spoiling(_more_config), "plan"),
    "a channel is not streamed": Mistake(_app(ONE), _spoiling(_fewer_channels), "log"),
    "a subgraph is not rewritten": Mistake(
        _app(INNER),
        _spoiling(_subgraph_of_the_original),
        "models were asked that should not be",
    ),
    "models are mixed up": Mistake(TWO, _swapped, "m1-"),
    "a site is not bound": Mistake(TWO, _unbound, "models were asked that should not be"),
    "tokens come at once": Mistake(_app(ONE), _whole_tokens, ".events"),
    "an error is another one": Mistake(
        _app(ONE, voices=(FAILING,)), _another_error, "'ScriptError' against 'ValueError'"
    ),
    "an error is hidden": Mistake(
        _app(ONE, voices=(Voice(0, fails="first"),)), _saved_by_the_reference, ".errors"
    ),
    "a send is lost": Mistake(
        _app(Spread(Step(name="worker"), count=2, join=Step(name="join"))),
        _spoiling(lambda copied, made: _forget_branches(copied)),
        ".events",
    ),
    "a tool is not offered": Mistake(
        _app(Tools(name="agent", kinds=("plain", "state"))), _no_options, ".calls"
    ),
    "a task is asked of another model": Mistake(
        Recipe(Flow(tasks=(Step(),)), voices=(Voice(0), Voice(1))),
        lambda made, rewriting, plan: rewrite(
            made.graph, _twins(made, voices=(Voice(1),))
        ),
        "m1-",
    ),
}
LOOKS: dict[str, Mistake] = {
    "a name is lost": Mistake(_app(ONE, name="desk"), _spoiling(_no_name), "name"),
    "a time-out is lost": Mistake(
        _app(Single(Step(form="async_function", timeout=True)), asynchronous=True),
        _spoiling(_no_timeout),
        "timeout",
    ),
    "a node of the original is changed": Mistake(
        RETRIES, _spoiling(_node_of_the_original), "original was touched"
    ),
    "a spec of the original is changed": Mistake(
        _app(ONE), _spoiling(_spec_of_the_original), "original was touched"
    ),
    "the edges of the original are changed": Mistake(
        _app(ONE), _spoiling(_edges_of_the_original), "original was touched"
    ),
    "a function of the original is marked": Mistake(
        _app(ONE), _spoiling(_function_of_the_original), "original was touched"
    ),
    "a function of the original is changed": Mistake(
        _app(ONE), _spoiling(_code_of_the_original), "original was touched"
    ),
    "a model of the original is changed": Mistake(
        _app(ONE), _spoiling(_model_of_the_original), "original was touched"
    ),
    "an edge of the original is changed": Mistake(
        _app(AGAIN), _spoiling(_branch_of_the_original), "original was touched"
    ),
}


def _forget_branches(copied: Any) -> None:
    start = copied.nodes[START]
    start.writers = start.writers[:1]
