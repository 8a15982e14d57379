"""What nodes, conditional edges and error handlers do.

Written once, as a generator that yields each call of a model or a graph: `calling.drive`
makes the calls at once, `calling.adrive` awaits them.
"""

from collections.abc import Callable
from typing import Any

from integration_tests.parity.calling import Body, Core, Kit, calling, namespace, told
from integration_tests.parity.recipes import Ask, Edge, Step
from integration_tests.parity.schemas import SCHEMAS, Context, value_of
from integration_tests.parity.scripts import ERRORS, RUN, number
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.config import get_config, get_store, get_stream_writer
from langgraph.graph import END
from langgraph.runtime import get_runtime
from langgraph.types import Command, Overwrite, interrupt

ALONE = {"metadata": {"mine": "alone"}}  # in the place of all that LangGraph says


def node_body(kit: Kit, step: Step, tag: str, schema: str) -> Body:
    """Return what a node does."""

    def body(state: Any, said: tuple[str, ...] = (), **given: Any) -> Core:
        runtime = get_runtime(Context)
        attempt = runtime.execution_info.node_attempt
        RUN.get().attempts.append((tag, attempt))
        answers = [*said, *(_injected(name, given[name]) for name in sorted(given))]
        answers += yield from asked(kit, step, tag, state)
        if attempt <= step.fails:
            why = f"{tag} fails, attempt {attempt}"
            raise ERRORS[step.error](why)
        for index in range(step.pauses):
            answers.append(str(interrupt({"at": tag, "index": index})))
        more: dict[str, Any] = {}
        for extra in step.extras:
            answers += _EXTRAS[extra](kit, tag, state, more, schema)
        return _given(step, tag, schema, answers, more)

    return body


def _injected(name: str, value: Any) -> str:
    if name == "config":
        return f"node {value['metadata']['langgraph_node'][:20]}"
    if name == "runtime":
        return f"context {value.context}"
    if name == "writer":
        value({"injected": True})
        return "writer"
    return f"{name} {type(value).__name__}"


def asked(kit: Kit, part: Step | Edge, tag: str, state: Any) -> Core:
    text, log = value_of(state, "text", ""), value_of(state, "log", [])
    alone = getattr(part, "metadata", "") == "replaces"
    answers = []
    for index, ask in enumerate(part.asks):
        seen = f"{len(log)} {log[-1][:40] if log else ''}".replace("<m", "<")
        prompt = f"<m{ask.model}> {tag}.{index} {ask.way}: {text} {seen}"
        try:
            answer = yield calling(kit, ask, prompt, dict(ALONE) if alone else None)
        except Exception as error:
            if not getattr(part, "catches", True):
                raise
            answers.append(f"{type(error).__name__} {error}")
        else:
            answers.append(told(answer))
    return answers


def _given(
    step: Step, tag: str, schema: str, answers: list[str], more: dict[str, Any]
) -> Any:
    """Return what a node returns, in the form that its recipe says."""
    update = {"log": [f"{tag}: {' '.join(answers)}"], "steps": 1, **more}
    if step.gives == "last":
        update["last"] = tag
    elif step.gives == "overwrite":
        update["log"] = Overwrite(update["log"])
    elif step.gives == "messages":
        said = AIMessage(" ".join(answers) or tag)
        update["messages"] = [said, *update.get("messages", [])]
    forms: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "command": lambda: Command(update=update),
        "object": lambda: SCHEMAS[schema][0](**update),
    }
    return forms.get(step.gives, lambda: update)()


def _writes(kit: Kit, tag: str, state: Any, more: Any, schema: str) -> list[str]:
    get_stream_writer()({"at": tag})
    return []


def _stores(kit: Kit, tag: str, state: Any, more: Any, schema: str) -> list[str]:
    if not kit.recipe.store:
        return ["no store"]
    thread = get_config()["configurable"].get("thread_id", "none")
    store, space = get_store(), ("seen", str(thread))
    # Where nodes run at once, each has its own.
    key = f"{tag} {namespace()}" if kit.recipe.races else tag
    before = store.get(space, key)
    store.put(space, key, {"times": 1 + (before.value["times"] if before else 0)})
    return [f"stored {before.value if before else None}"]


def _managed(kit: Kit, tag: str, state: Any, more: Any, schema: str) -> list[str]:
    return [f"{value_of(state, name, '-')}" for name in ("remaining", "is_last")]


def _context(kit: Kit, tag: str, state: Any, more: Any, schema: str) -> list[str]:
    return [f"for {get_runtime(Context).context}"]


def _adds(name: str, value: Any) -> Callable[..., list[str]]:
    def adds(kit: Kit, tag: str, state: Any, more: Any, schema: str) -> list[str]:
        if schema != "typed":
            return []
        more[name] = value
        return [str(value_of(state, name, "-"))]

    return adds


def _messages(kit: Kit, tag: str, state: Any, more: Any, schema: str) -> list[str]:
    more["messages"] = [HumanMessage(f"from {tag}")]
    return [str(len(value_of(state, "messages", [])))]


_EXTRAS: dict[str, Callable[..., list[str]]] = {
    "writer": _writes,
    "store": _stores,
    "managed": _managed,
    "context": _context,
    "topic": _adds("topic", "a topic"),
    "ephemeral": _adds("fresh", "fresh"),
    "untracked": _adds("untracked", "untracked"),
    "messages": _messages,
}


def edge_body(kit: Kit, edge: Edge, tag: str, pick: Callable[[int], Any]) -> Body:
    """Return what a conditional edge does: `pick` says where a number leads."""

    def body(state: Any, said: tuple[str, ...] = (), **given: Any) -> Core:
        answers = yield from asked(kit, edge, tag, state)
        log = value_of(state, "log", [])
        return pick(number(tag, answers, log[-1:]))

    return body


def handler_body(kit: Kit, tag: str, way: str) -> Body:
    """Return what an error handler does."""

    def body(state: Any, **given: Any) -> Core:
        error = given["error"]
        RUN.get().attempts.append((tag, 1))
        said = [f"{tag} {error.node[:20]} {type(error.error).__name__} {error.error}"]
        if way == "asks":
            handles = Step(asks=(Ask(0),), catches=True)
            said += yield from asked(kit, handles, tag, state)
        update = {"log": said}
        return Command(update=update, goto=END) if way == "goto" else update

    return body
