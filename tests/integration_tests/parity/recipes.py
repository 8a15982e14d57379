"""Recipes of apps: plain data that `building` makes graphs of."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

from integration_tests.parity.scripts import Voice

ALWAYS = 99  # attempts of a node that never succeeds
NAMES = (
    "node",
    "plan it",
    "<script>alert(1)</script>",
    "../../x",
    "a/b",
    "a#b",
    "1",
    " ",
    "\n",
    "",
    '"quoted"',
    "`;DROP",
    "{x}%s",
    "__x__",
    "\N{SNOWMAN}",
    "Z" * 300,
)
SYNC_FORMS = (
    "function",
    "lambda",
    "both",
    "generator",
    "partial",
    "callable",
    "method",
    "decorated",
    "chain",
    "sequence",
    "parallel",
    "bound",
    "retrying",
    "falling_back",
    "returns_runnable",
)
ASYNC_FORMS = (
    "async_function",
    "async_lambda",
    "async_generator",
    "async_partial",
    "async_callable",
    "async_method",
)
WAYS = (
    "invoke",
    "stream",
    "batch",
    "structured",
    "raw_structured",
    "tools",
    "forced_tools",
    "retry",
    "fallback",
    "config",
    "chain",
    "stop",
    "generate",
    "thread",
    "task",
)
# Several calls at a time: which one is first is a matter of luck.
AT_ONCE = ("batch", "gather")
EDGE_FORMS = ("function", "lambda", "partial", "callable", "method", "chain")
EXTRAS = (
    "writer",
    "store",
    "managed",
    "context",
    "topic",
    "ephemeral",
    "untracked",
    "messages",
)
AGENT_TOOLS = ("plain", "asks", "writes", "graph")
TOOLS = ("plain", "asks", "writes", "state", "command", "fails", "graph")


@dataclass(frozen=True)
class Ask:
    """One way to call a model in a node."""

    model: int = 0
    way: str = "invoke"


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes:
        name: Of the node; made unique in its graph.
        form: What kind of thing it is.
        asks: The models it calls.
        gives: What it returns.
        extras: What else of LangGraph it uses.
        takes: What it has injected.
        pauses: How many times it interrupts.
        fails: On how many of its first attempts it raises an error.
        error: What it raises.
        catches: It goes on when a model fails.
        attempts: Of its retry policy; 0 for none.
        retries: What that retries on.
        cached: It has a cache policy.
        handler: What its error handler does; "" for none.
        metadata: What it says of itself; "replaces" calls models with metadata alone.
        narrow: It reads a part of the state only.
        timeout: It has one, an hour.
    """

    name: str = "node"
    form: str = "function"
    asks: tuple[Ask, ...] = (Ask(),)
    gives: str = "update"
    extras: tuple[str, ...] = ()
    takes: str = "state"
    pauses: int = 0
    fails: int = 0
    error: str = "value"
    catches: bool = False
    attempts: int = 0
    retries: str = "all"
    cached: bool = False
    handler: str = ""
    metadata: str = ""
    narrow: bool = False
    timeout: bool = False


@dataclass(frozen=True)
class Edge:
    """A conditional edge: what decides, and how its ends are declared."""

    name: str = "route"
    form: str = "function"
    asks: tuple[Ask, ...] = ()
    ends: str = "list"


@dataclass(frozen=True)
class Single:
    """One node after another."""

    step: Step


@dataclass(frozen=True)
class Fan:
    """Chains of nodes that run at once, and one that waits for them."""

    chains: tuple[tuple[Step, ...], ...]
    join: Step
    way: str = "waiting"
    clash: bool = False


@dataclass(frozen=True)
class Spread:
    """A node that is sent several packets, and one that waits for them."""

    worker: Step
    count: int
    join: Step
    way: str = "edge"
    deferred: bool = False


@dataclass(frozen=True)
class Choice:
    """Two nodes, of which an edge or a command chooses."""

    edge: Edge
    options: tuple[Step, Step]
    way: str = "edge"


@dataclass(frozen=True)
class Loop:
    """A node that is run again, `times` times or until the limit."""

    step: Step
    edge: Edge
    times: int
    endless: bool = False


@dataclass(frozen=True)
class Tools:
    """An agent and its tools, by hand."""

    name: str
    kinds: tuple[str, ...]
    model: int = 0
    handles: bool = True
    falls_back: bool = False
    asynchronous: bool = False


@dataclass(frozen=True)
class Nested:
    """A graph in the graph.

    Attributes:
        name: Of the node.
        graph: What is compiled.
        way: It is the node itself, or a function invokes it.
        twice: A second node runs the same object "after" the first or "beside" it.
        memory: What it is compiled with as a checkpointer.
        leaves: Its last node goes to a node of the graph around.
        handler: What its error handler does; "" for none.
    """

    name: str
    graph: "Graph"
    way: str = "node"
    twice: str = ""
    memory: bool | None = None
    leaves: bool = False
    handler: str = ""


@dataclass(frozen=True)
class Agent:
    """A prebuilt agent.

    Attributes:
        name: Of the node.
        kinds: Its tools.
        model: Which one it calls.
        way: It is the node itself, or a function invokes it.
        structured: It answers in a form.
        called: Its own name.
    """

    name: str
    kinds: tuple[str, ...]
    model: int = 0
    way: str = "node"
    structured: bool = False
    called: str | None = None


Stage: TypeAlias = Single | Fan | Spread | Choice | Loop | Tools | Nested | Agent


@dataclass(frozen=True)
class Graph:
    """A state graph."""

    stages: tuple[Stage, ...]
    schema: str = "typed"
    narrow_input: bool = False
    narrow_output: bool = False
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    everywhere: bool = False
    defaults: tuple[str, ...] = ()
    name: str | None = None


@dataclass(frozen=True)
class Flow:
    """An `@entrypoint` and its tasks."""

    tasks: tuple[Step, ...]
    at_once: bool = False
    previous: bool = False
    pauses: int = 0
    fails: bool = False
    attempts: int = 0
    cached: bool = False
    nested: Graph | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole app.

    Attributes:
        graph: What is compiled.
        voices: The scripts of its models.
        asynchronous: It has parts that run in an event loop only.
        streams: Its models stream.
        saver: It has a checkpointer.
        store: It has a store.
        turns: Inputs, one after another in the same thread.
        repeats: The second is the first again.
        goes_on: It is run again after an error.
        recursion_limit: Steps.
        config: It was given a config of its own.
        durability: When checkpoints are written.
        forks: It is run again from a checkpoint of the past.
    """

    graph: Graph | Flow
    voices: tuple[Voice, ...] = (Voice(0),)
    asynchronous: bool = False
    streams: bool = True
    saver: bool = True
    store: bool = True
    turns: int = 1
    repeats: bool = False
    goes_on: bool = False
    recursion_limit: int = 40
    config: bool = False
    durability: str = "async"
    forks: bool = False

    @property
    def races(self) -> bool:
        """Whether events of one run may come in another order in the next."""
        parts = list(parts_of(self.graph))
        return any(
            isinstance(part, Fan | Spread)
            or (isinstance(part, Nested) and part.twice == "beside")
            or (isinstance(part, Choice) and part.way == "parallel_command")
            or (isinstance(part, Flow) and part.at_once)
            or (isinstance(part, Ask) and part.way in AT_ONCE)
            for part in parts
        )

    @property
    def reads_ahead(self) -> bool:
        """Whether the app itself reads a model's stream."""
        return any(isinstance(p, Ask) and p.way == "stream" for p in parts_of(self.graph))

    @property
    def branches(self) -> bool:
        """Whether a part of a node runs several at once."""
        parts = list(parts_of(self.graph))
        return any(
            (isinstance(part, Step) and part.form == "parallel")
            or (isinstance(part, Ask) and part.way == "raw_structured")
            for part in parts
        )

    @property
    def models_fail(self) -> bool:
        return any(voice.fails != "never" for voice in self.voices)


def parts_of(thing: Any) -> Iterator[Any]:
    """Yield what a recipe is made of."""
    if is_dataclass(thing):
        yield thing
        for each in fields(thing):
            yield from parts_of(getattr(thing, each.name))
    elif isinstance(thing, tuple):
        for each in thing:
            yield from parts_of(each)


def uncached(thing: Any) -> Any:
    """Return a recipe without node caches, which runs at once would share."""
    if isinstance(thing, tuple):
        return tuple(uncached(each) for each in thing)
    if not is_dataclass(thing):
        return thing
    parts = {each.name: uncached(getattr(thing, each.name)) for each in fields(thing)}
    if "cached" in parts:
        parts["cached"] = False
    if "defaults" in parts:
        parts["defaults"] = tuple(each for each in parts["defaults"] if each != "cache")
    return type(thing)(**parts)  # type: ignore[operator]


def renamed(thing: Any, old: str, new: str) -> Any:
    """Return a recipe in which no node is called `old`."""
    if isinstance(thing, tuple):
        return tuple(renamed(each, old, new) for each in thing)
    if is_dataclass(thing):
        parts = {each.name: getattr(thing, each.name) for each in fields(thing)}
        return type(thing)(**{k: renamed(v, old, new) for k, v in parts.items()})  # type: ignore[operator]
    return new if thing == old else thing
