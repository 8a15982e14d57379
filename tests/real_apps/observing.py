"""What a graph is made of and what a run of it does, in values that can be compared."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from langgraph.pregel import Pregel
from pydantic import BaseModel

_IDS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}"
    r"|\b(?:call|toolu|msg|resp|fc|chatcmpl)?_?\d{6}\b|0x[0-9a-f]+"
    r"|lc_[a-z]+--\S+"
)
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.+Z-]*|\b\d\d:\d\d:\d\d(?:\.\d+)?")
# What says which model answered, and how long and dear it was.
_OF_THE_MODEL = {"response_metadata", "usage_metadata", "id", "additional_kwargs"}


def plain(value: Any) -> Any:
    """Return `value` without ids and times, made of plain values."""
    if isinstance(value, str):
        return _TIMES.sub("TIME", _IDS.sub("ID", value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {plain(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    fields = _fields_of(value)
    return plain(repr(value)) if fields is None else plain(fields)


def _fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of an object with its class; None where it has none."""
    kind = {"": type(value).__name__}
    if isinstance(value, BaseMessage):
        # It is given its id when it reaches the state, maybe after it was streamed.
        return {**kind, **value.model_dump(exclude={"id"})}
    if isinstance(value, BaseModel):
        return {**kind, **dict(value)}
    if isinstance(value, set | frozenset):
        return {**kind, "items": sorted(repr(plain(each)) for each in value)}
    if hasattr(value, "__dict__") and not callable(value):
        return {**kind, **vars(value)}
    return None


def answers(value: Any) -> Any:
    """Return a plain value without what tells one model from another."""
    if isinstance(value, dict):
        if "content" in value and "type" in value:
            value = {**value, "content": _said(value["content"])}
        kept = {key: each for key, each in value.items() if key not in _OF_THE_MODEL}
        return {key: answers(each) for key, each in kept.items()}
    return [answers(each) for each in value] if isinstance(value, list) else value


def _said(content: Any) -> Any:
    """Return the text of a content: one provider sends a text, another its parts."""
    if not isinstance(content, list):
        return content
    return "".join(p if isinstance(p, str) else p.get("text") or "" for p in content)


class Difference(NamedTuple):
    """Where two values differ: a path, and both sides, shortened."""

    path: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.path}: {self.one} -> {self.other}"


def differences(one: Any, other: Any, path: str = "") -> Iterator[Difference]:
    """Yield where two plain values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key in one and key in other:
                yield from differences(one[key], other[key], f"{path}/{key}")
            else:
                both = (_short(each.get(key, "(absent)")) for each in (one, other))
                yield Difference(f"{path}/{key}", *both)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{path}/{index}")
    elif one != other:
        yield Difference(path or "/", _short(one), _short(other))


def _short(value: Any) -> str:
    return str(value)[:120]


def structure(graph: Any) -> dict[str, Any]:
    """Return what a compiled graph is, all but what its nodes run."""
    return {
        "drawing": _drawn(graph),
        "schemas": _schemas(graph),
        "channels": {name: plain(each) for name, each in graph.channels.items()},
        "nodes": {name: _node(node) for name, node in graph.nodes.items()},
        "attributes": {name: plain(getattr(graph, name, None)) for name in _ATTRIBUTES},
        # What a run fills must be the very same object.
        "shared": {name: id(getattr(graph, name, None)) for name in _SHARED},
        "subgraphs": {
            name: structure(node.bound)
            for name, node in graph.nodes.items()
            if isinstance(node.bound, Pregel)
        },
    }


_ATTRIBUTES = (
    "name",
    "input_channels",
    "output_channels",
    "stream_channels",
    "stream_mode",
    "stream_eager",
    "step_timeout",
    "interrupt_before_nodes",
    "interrupt_after_nodes",
    "retry_policy",
    "debug",
    "config",
    "context_schema",
    "trigger_to_nodes",
)
_SHARED = ("checkpointer", "store")


def _drawn(graph: Any) -> Any:
    try:
        drawn = graph.get_graph(xray=True)
        return {"json": plain(drawn.to_json()), "mermaid": drawn.draw_mermaid()}
    except Exception as error:  # noqa: BLE001 - the app's own schemas may refuse
        return f"{type(error).__name__}: {error}"


def _schemas(graph: Any) -> Any:
    names = ("get_input_jsonschema", "get_output_jsonschema", "get_context_jsonschema")
    found = {}
    for name in names:
        try:
            found[name] = getattr(graph, name)()
        except Exception as error:  # noqa: BLE001 - the app's own types may have no schema
            found[name] = f"{type(error).__name__}: {error}"
    return found


def _node(node: Any) -> dict[str, Any]:
    """Return the fields of a node; of what runs, only how much there is."""
    fields = {name: plain(getattr(node, name, None)) for name in _FIELDS}
    policy = getattr(node, "cache_policy", None)
    return {
        **fields,
        "cached_s": getattr(policy, "ttl", None),
        "is_cached": policy is not None,
        "writers": [type(each).__name__ for each in node.writers],
        "writes": [plain(getattr(each, "writes", None)) for each in node.writers],
        "subgraphs": [type(each).__name__ for each in node.subgraphs],
        "bound_name": _name_of(node.bound),
    }


_FIELDS = (
    "channels",
    "triggers",
    "mapper",
    "tags",
    "metadata",
    "retry_policy",
    "is_error_handler",
    "error_handler_node",
    "timeout",
    "defer",
)


def _name_of(bound: Any) -> str:
    return bound.get_name() if isinstance(bound, Runnable) else type(bound).__name__


def identities(graph: Any, seen: frozenset[int] = frozenset()) -> list[Any]:
    """Return the ids of all that a graph holds: equal as long as nobody touches it."""
    if id(graph) in seen:
        return []
    seen |= {id(graph)}
    found: list[Any] = sorted((name, id(value)) for name, value in vars(graph).items())
    for name, node in graph.nodes.items():
        held = [
            id(node),
            id(node.bound),
            *map(id, node.writers),
            *map(id, node.subgraphs),
        ]
        found.append((name, held))
        if isinstance(node.bound, Pregel):
            found.extend(identities(node.bound, seen))
    builder = getattr(graph, "builder", None)
    for name, spec in builder.nodes.items() if builder else ():
        found.append((name, id(spec), id(spec.runnable)))
    return found


class Started(NamedTuple):
    """One call as its callbacks see it: the path of its node, and the model."""

    path: str
    model: str


class Probe(BaseCallbackHandler):
    """Notes each call of a chat model, by LangChain's own callbacks."""

    def __init__(self) -> None:
        self.started: list[Started] = []

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, metadata: Any = None, **kwargs: Any
    ) -> None:
        """Note where a call is made, and of which model."""
        metadata = metadata or {}
        asked = kwargs.get("invocation_params") or {}
        model = metadata.get("ls_model_name") or asked.get("model") or asked.get("_type")
        path = node_path(metadata.get("langgraph_checkpoint_ns") or "")
        self.started.append(Started(path, str(model)))


def node_path(namespace: str) -> str:
    """Return the path of the node that LangGraph's namespace stands for."""
    names = [part.partition(":")[0] for part in namespace.split("|")]
    return "/".join(name for name in names if name and not name.isdigit())
