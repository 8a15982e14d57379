"""A chat router in agents and graphs, over real clients where these matter."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.types import CachePolicy
from pydantic import BaseModel
from unit_tests.endpoint import Endpoint
from unit_tests.planned import decision, plan, spec
from unit_tests.routed import about, calling, fake
from unit_tests.watching import State, one_node

from langchain_slm.errors import BudgetExceededError, PlanError
from langchain_slm.recording.recorder import record
from langchain_slm.recording.store import open_store
from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.limits import Limits
from langchain_slm.routing.middleware import RouterMiddleware
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.router import Router
from langchain_slm.schema import Binding

ASKED = {"messages": [HumanMessage("Book Rome.")]}
KINDS = ("openai", "nvidia")
# ChatOpenAI's own, of each structured answer that it streams.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
version_3 = pytest.mark.filterwarnings(
    "ignore:.*(beta|in development|experimental|may change)"
)
# LangGraph's own: it has moved to LangChain, and works as before.
deprecated = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


class Booking(BaseModel):
    """A booked city."""

    city: str


@tool
def book(city: str) -> str:
    """Book a night in a city."""
    return f"booked {city}"


class BookingEndpoint(Endpoint):
    """Calls the tool `book`, then says `text`."""

    def reply(self, asked: dict[str, Any]) -> tuple[str, bytes]:
        booked = any(message["role"] == "tool" for message in asked["messages"])
        self.calls = [] if booked else [{"name": "book", "arguments": '{"city": "Rome"}'}]
        self.finish = "stop" if booked else "tool_calls"
        text, self.text = self.text, self.text if booked else ""
        try:
            return super().reply(asked)
        finally:
            self.text = text


def books(messages: list[BaseMessage]) -> AIMessage | str:
    """Call the tool `book`, then say so."""
    return "small" if messages[-1].type == "tool" else calling(city="Rome")


def run(graph: Any, given: Any = None) -> Any:
    return graph.invoke(given or ASKED)


def arun(graph: Any, given: Any = None) -> Any:
    return asyncio.run(graph.ainvoke(given or ASKED))


def streamed(graph: Any, given: Any = None) -> Any:
    *_, last = graph.stream(given or ASKED, stream_mode=["messages", "values"])
    return last[1]


runs = pytest.mark.parametrize("run_", [run, arun, streamed], ids=lambda f: f.__name__)


def spoke(messages: list[BaseMessage]) -> list[str]:
    """Names of the models that said the messages of models."""
    return [about(m)["model"] for m in messages if isinstance(m, AIMessage)]


# LangChain's create_agent


def as_model(default: BaseChatModel, router: Router, *tools: Any, **more: Any) -> Any:
    return create_agent(ChatRouter(default=default, router=router), [*tools], **more)


def as_middleware(
    default: BaseChatModel, router: Router, *tools: Any, **more: Any
) -> Any:
    return create_agent(default, [*tools], middleware=[RouterMiddleware(router)], **more)


Face = Callable[..., Any]
faces = pytest.mark.parametrize(
    "face", [as_model, as_middleware], ids=lambda face: face.__name__
)


@faces
@runs
@pytest.mark.parametrize("kind", KINDS)
def test_an_agents_tool_loop_is_the_bound_models(face: Face, run_, kind):
    with BookingEndpoint("Done.") as small, Endpoint("large") as large:
        router = Router({"model": getattr(small, kind)()})
        messages = run_(face(large.openai("big"), router, book))["messages"]

    assert [m.text for m in messages] == ["Book Rome.", "", "booked Rome", "Done."]
    assert spoke(messages) == ["small", "small"]
    assert large.asked == []
    assert [row.calls for row in router.counters()] == [2]


@faces
@runs
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_that_escalates_stays_with_its_model(face: Face, run_, kind):
    broken = [{"name": "book", "arguments": '{"town": "Rome"}'}]
    with Endpoint(calls=broken) as small, BookingEndpoint("Done.") as large:
        router = Router({"model": getattr(small, kind)()})
        messages = run_(face(large.openai("big"), router, book))["messages"]

    assert [m.text for m in messages] == ["Book Rome.", "", "booked Rome", "Done."]
    assert spoke(messages) == ["big", "big"]
    assert about(messages[1])["escalated"]
    assert (len(small.asked), len(large.asked)) == (1, 2)


@faces
@runs
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_answers_in_the_providers_structured_output(face: Face, run_, kind):
    with Endpoint('{"city": "Rome"}') as small, Endpoint("large") as large:
        router = Router({"model": getattr(small, kind)()})
        agent = face(
            large.openai("big"), router, book, response_format=ProviderStrategy(Booking)
        )
        answer = run_(agent)

    assert answer["structured_response"] == Booking(city="Rome")
    assert spoke(answer["messages"]) == ["small"]


@faces
@runs
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_answers_with_a_tool_for_structured_output(face: Face, run_, kind):
    call = [{"name": "Booking", "arguments": '{"city": "Rome"}'}]
    with Endpoint(calls=call) as small, Endpoint("large") as large:
        router = Router({"model": getattr(small, kind)()})
        agent = face(
            large.openai("big"), router, book, response_format=ToolStrategy(Booking)
        )
        answer = run_(agent)

    assert answer["structured_response"] == Booking(city="Rome")
    assert spoke(answer["messages"])[0] == "small"


@faces
@runs
def test_structured_output_outside_its_schema_is_the_references(face: Face, run_):
    with Endpoint('{"town": "Rome"}') as small, Endpoint('{"city": "Bergen"}') as large:
        router = Router({"model": small.openai()})
        agent = face(
            large.openai("big"), router, book, response_format=ProviderStrategy(Booking)
        )
        answer = run_(agent)

    assert answer["structured_response"] == Booking(city="Bergen")
    assert spoke(answer["messages"]) == ["big"]


@faces
def test_the_strategy_is_chosen_as_for_the_default(face: Face):
    with Endpoint('{"city": "Rome"}') as small, Endpoint("large") as large:
        router = Router({"model": small.openai()})
        agent = face(large.openai("gpt-4o"), router, response_format=Booking)
        answer = run(agent)

    assert answer["structured_response"] == Booking(city="Rome")
    assert small.asked[0]["response_format"]["json_schema"]["name"] == "Booking"


@faces
def test_settings_of_a_middleware_reach_the_model_that_answers(face: Face):
    class Cold(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model_settings={"temperature": 0.25}))

    with Endpoint("small") as small, Endpoint("large") as large:
        router = Router({"model": small.openai()})
        middleware: list[Any] = [Cold()]
        if face is as_model:
            model: Any = ChatRouter(default=large.openai("big"), router=router)
        else:
            model = large.openai("big")
            middleware.append(RouterMiddleware(router))
        run(create_agent(model, [], middleware=middleware))

    assert small.asked[0]["temperature"] == 0.25


def test_a_middleware_has_a_site_of_its_own():
    router = Router({"desk": fake("small")})
    middleware = RouterMiddleware(router, site="desk")

    messages = run(create_agent(fake("large", "ref"), middleware=[middleware]))[
        "messages"
    ]

    assert spoke(messages) == ["slm"]


def test_an_agent_in_a_graph_is_a_path():
    router = Router({"desk/model": fake("small")})
    agent = as_model(fake("large", "ref"), router)
    builder = StateGraph(MessagesState).add_node("desk", agent).add_edge(START, "desk")

    messages = run(builder.compile())["messages"]

    assert spoke(messages) == ["slm"]


def test_a_middleware_makes_a_router_of_a_mapping():
    middleware = RouterMiddleware({"model": fake("small")})

    run(create_agent(fake("large", "ref"), middleware=[middleware]))

    assert [row.model for row in middleware.router.counters()] == ["slm"]


def test_a_middleware_refuses_what_is_no_plan_at_once():
    with pytest.raises(PlanError, match="a plan is a Plan, a path or a mapping, not a"):
        RouterMiddleware(42)


def test_a_model_that_another_middleware_chose_is_the_reference():
    router = Router({"model": fake(ValueError("no"))})
    spare = fake("spare", "spare")
    middleware = [ModelFallbackMiddleware(spare), RouterMiddleware(router)]

    agent = create_agent(fake(KeyError("no"), "ref"), middleware=middleware)
    messages = run(agent)["messages"]

    assert messages[-1].text == "spare"
    assert spoke(messages) == ["spare"]


def test_a_chat_router_in_an_agent_with_the_middleware_answers_itself():
    inner = ChatRouter(default=fake("large", "ref"), plan={"model": fake("inner", "in")})
    outer = Router({"model": fake("outer", "out")})

    agent = create_agent(inner, middleware=[RouterMiddleware(outer)])

    assert spoke(run(agent)["messages"]) == ["in"]


def test_one_middleware_serves_agents_of_several_models():
    middleware = RouterMiddleware(Router({}))
    agents = [
        create_agent(fake(name, name), middleware=[middleware]) for name in ("a", "b")
    ]

    said = [run(agent)["messages"][-1].text for agent in (*agents, *agents)]

    assert said == ["a", "b", "a", "b"]


def test_a_model_that_is_no_chat_model_is_left_alone_by_the_middleware(caplog):
    with Endpoint("as configured") as endpoint:
        model = init_chat_model(
            "openai:big",
            configurable_fields=("model",),
            base_url=endpoint.url,
            api_key="a",
        )
        middleware = RouterMiddleware(Router({"model": fake()}))
        messages = run(create_agent(model, middleware=[middleware]))["messages"]

    assert messages[-1].text == "as configured"
    assert "_ConfigurableModel is no chat model" in caplog.text


def test_tags_of_the_agents_model_are_kept_by_the_middleware():
    quiet = fake("large", "ref", tags=["nostream"])
    agent = create_agent(quiet, middleware=[RouterMiddleware(Router({"model": fake()}))])

    said = [chunk.text for chunk, _ in agent.stream(ASKED, stream_mode="messages")]

    assert said == ["small"]  # whole, from the state: as without the middleware


@faces
def test_a_conversation_goes_on_after_a_tool_loop_with_the_bound_model(face: Face):
    router = Router({"model": fake(books)})
    agent = face(fake("large", "ref"), router, book, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}

    agent.invoke(ASKED, thread)
    messages = agent.invoke(ASKED, thread)["messages"]

    assert spoke(messages) == ["slm"] * 4


@faces
def test_a_tool_loop_stays_when_the_plan_changes_between(face: Face, tmp_path):
    path = tmp_path / "plan.json"
    with BookingEndpoint("old") as old, BookingEndpoint("new") as new:
        write(path, old, "model")
        router = Router(path)

        @tool
        def book(city: str) -> str:
            """Book a night in a city."""
            write(path, new, "model", name="newer")
            router.refresh()
            return f"booked {city}"

        messages = run(face(fake("large", "ref"), router, book))["messages"]
        after = run(face(fake("large", "ref"), router))["messages"]

    assert spoke(messages) == ["slm", "slm"]
    assert [about(m)["rule"] for m in (messages[1], messages[3])] == [
        "proven",
        "tool_loop",
    ]
    assert spoke(after) == ["ref"]  # it offers no tools, and `new` calls one all the same


def write(path: Path, endpoint: Endpoint, site: str = "node", name: str = "slm") -> None:
    binding = Binding(model=spec(name, base_url=endpoint.url))
    write_plan(plan(decision(site, binding=binding)), path)


# LangGraph's create_react_agent


@deprecated
@runs
@pytest.mark.parametrize("kind", KINDS)
def test_a_react_agents_tool_loop_is_the_bound_models(run_, kind):
    with BookingEndpoint("Done.") as small, Endpoint("large") as large:
        router = Router({"agent": getattr(small, kind)()})
        chat = ChatRouter(default=large.openai("big"), router=router)
        messages = run_(create_react_agent(chat, [book]))["messages"]

    assert [m.text for m in messages] == ["Book Rome.", "", "booked Rome", "Done."]
    assert spoke(messages) == ["small", "small"]


@deprecated
@runs
@pytest.mark.parametrize("kind", KINDS)
def test_a_react_agents_structured_response_is_a_site_of_its_own(run_, kind):
    with (
        BookingEndpoint("Done.") as small,
        Endpoint('{"city": "Rome"}') as structured,
        Endpoint("large") as large,
    ):
        bound = {
            "agent": getattr(small, kind)(),
            "generate_structured_response": getattr(structured, kind)("structured"),
        }
        chat = ChatRouter(default=large.openai("big"), plan=bound)
        answer = run_(create_react_agent(chat, [book], response_format=Booking))

    assert answer["structured_response"] == Booking(city="Rome")
    assert len(structured.asked) == 1
    assert large.asked == []


@deprecated
def test_a_react_agent_takes_a_router_with_tools_bound():
    chat = ChatRouter(default=fake("large", "ref"), plan={"agent": fake(books)})

    messages = run(create_react_agent(chat.bind_tools([book]), [book]))["messages"]

    assert spoke(messages) == ["slm", "slm"]


@deprecated
def test_what_another_agent_handed_over_binds_no_model():
    chat = ChatRouter(
        default=fake("large", "ref"),
        plan={"first/agent": fake(books), "agent": fake("b")},
    )
    handed = [
        *ASKED["messages"],
        calling(city="Rome"),
        ToolMessage("booked Rome", tool_call_id="call_0"),
    ]

    messages = run(create_react_agent(chat, []), {"messages": handed})["messages"]

    assert messages[-1].text == "b"


# What listeners see


def visible(graph: Any, **more: Any) -> list[tuple[str, str]]:
    """The tokens of `stream_mode="messages"`, each with the model that traces name."""
    parts = graph.stream(ASKED, stream_mode="messages", **more)
    parts = [part[-1] if more else part for part in parts]
    return [
        (str(chunk.text), about["ls_model_name"]) for chunk, about in parts if chunk.text
    ]


def one_call(chat: Any, name: str = "node") -> StateGraph:
    def node(state: MessagesState) -> MessagesState:
        return {"messages": [chat.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node(name, node).add_edge(START, name)


def test_message_streams_show_each_token_once_under_the_bound_name():
    chat = ChatRouter(default=fake("large", "ref"), plan={"node": fake("small words")})

    seen = visible(one_call(chat).compile())

    assert seen == [("small", "slm"), (" words", "slm")]


async def test_async_message_streams_show_each_token_once():
    chat = ChatRouter(default=fake("large", "ref"), plan={"node": fake("small words")})

    async def node(state: MessagesState) -> MessagesState:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    graph = (
        StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
    )
    seen = [chunk.text async for chunk, _ in graph.astream(ASKED, stream_mode="messages")]

    assert "".join(seen) == "small words"


@pytest.mark.parametrize("kind", KINDS)
def test_message_streams_show_nothing_of_a_rejected_answer(kind):
    with Endpoint('{"town": "Rome"}') as small, Endpoint('{"city": "Rome"}') as large:
        chat = ChatRouter(
            default=large.openai("big"), plan={"node": getattr(small, kind)()}
        )
        asks = chat.with_structured_output(Booking)
        graph = one_node(lambda _: {"text": asks.invoke("Hi").city}).compile()
        parts = graph.stream({"text": "Hi"}, stream_mode="messages")
        said = "".join(chunk.text for chunk, _ in parts)

    assert said == '{"city": "Rome"}'


def test_message_streams_of_subgraphs_show_the_inner_site():
    chat = ChatRouter(
        default=fake("large", "ref"), plan={"outer/inner": fake("small words")}
    )
    inner = one_call(chat, "inner").compile()
    outer = StateGraph(MessagesState).add_node("outer", inner).add_edge(START, "outer")

    seen = visible(outer.compile(), subgraphs=True)

    assert seen == [("small", "slm"), (" words", "slm")]


def test_a_subgraph_that_a_function_invokes_is_a_path():
    chat = ChatRouter(default=fake("large", "ref"), plan={"outer/inner": fake("small")})
    inner = one_call(chat, "inner").compile()

    def outer(state: MessagesState) -> MessagesState:
        return inner.invoke(state)

    builder = StateGraph(MessagesState).add_node("outer", outer)
    graph = builder.add_edge(START, "outer").compile()

    assert spoke(run(graph)["messages"]) == ["slm"]


@version_3
def test_version_3_streams_of_a_graph_reach_the_bound_model():
    chat = ChatRouter(default=fake("large", "ref"), plan={"node": fake("small words")})

    events = one_call(chat).compile().stream_events(ASKED, version="v3")

    assert ["".join(message.text) for message in events.messages] == ["small words"]


@version_3
@faces
def test_a_tool_loop_in_a_version_3_stream_stays_where_it_escalated(face: Face):
    small = fake(AIMessage("", response_metadata={"finish_reason": "length"}))
    router = Router({"model": small}, prices={"slm": (1.0, 1.0), "ref": (1.0, 1.0)})
    agent = face(fake(books, "ref"), router, book)

    messages = agent.stream_events(ASKED, version="v3").output["messages"]

    assert spoke(messages) == ["ref", "ref"]
    assert [about(messages[n])["rule"] for n in (1, 3)] == ["mapping", "tool_loop"]
    assert about(messages[1])["usd"] == pytest.approx(4e-6)
    assert len(small.asked) == 1


# Recorded and rewritten graphs


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/calls.db") as opened:
        yield opened


def by_invoke(chat: Any) -> str:
    return chat.invoke("Hi").text


def by_stream(chat: Any) -> str:
    return "".join(chunk.text for chunk in chat.stream("Hi"))


def by_ainvoke(chat: Any) -> str:
    return asyncio.run(chat.ainvoke("Hi")).text


calls = pytest.mark.parametrize(
    "call", [by_invoke, by_stream, by_ainvoke], ids=lambda f: f.__name__
)


@calls
@pytest.mark.parametrize("small", ["small words", ValueError("no")], ids=["good", "bad"])
def test_a_router_in_a_recorded_graph_is_recorded_once(store, call, small):
    chat = ChatRouter(default=fake("large", "ref"), plan={"node": fake(small)})
    graph = one_node(lambda _: {"text": call(chat)}).compile()

    said = record(graph, store).invoke({"text": "Hi"})["text"]

    (stored,) = store.calls()
    assert stored.answer.message["content"] == said
    good = small == "small words"
    assert said == ("small words" if good else "large")
    assert (stored.site, stored.model) == ("node", "slm" if good else "ref")


@calls
def test_the_plan_of_a_rewritten_graph_goes_before_a_routers_own(call):
    inner, outer = fake("inner", "in"), fake("outer", "out")
    chat = ChatRouter(default=fake("large", "ref"), plan={"node": inner})
    graph = one_node(lambda _: {"text": call(chat)}).compile()

    said = rewrite(graph, {"node": outer}).invoke({"text": "Hi"})["text"]

    assert said == "outer"
    assert inner.asked == []
    assert outer.options == [{}]


@calls
def test_a_router_is_the_reference_of_a_rewritten_graph(call):
    inner, outer = fake("inner", "in"), fake(ValueError("no"), "out")
    chat = ChatRouter(default=fake("large", "ref"), plan={"node": inner})
    graph = one_node(lambda _: {"text": call(chat)}).compile()

    said = rewrite(graph, {"node": outer}).invoke({"text": "Hi"})["text"]

    assert said == "inner"
    assert len(outer.asked) == 1


@calls
def test_one_router_may_serve_both_faces_of_a_graph(call):
    small = fake("small")
    router = Router({"node": small})
    chat = ChatRouter(default=fake("large", "ref"), router=router)
    graph = one_node(lambda _: {"text": call(chat)}).compile()

    said = rewrite(graph, router).invoke({"text": "Hi"})["text"]

    assert said == "small"
    assert len(small.asked) == 1
    assert [row.calls for row in router.counters()] == [1]


def test_rewriting_with_a_router_counts_and_limits():
    router = Router({"node": fake(ValueError("no"))}, limits=Limits(max_attempts=1))
    graph = one_node(lambda _: {"text": fake("large", "ref").invoke("Hi").text})

    with pytest.raises(BudgetExceededError):
        rewrite(graph, router).compile().invoke({"text": "Hi"})

    assert [row.errors for row in router.counters()] == [{"BudgetExceededError": 1}]


def test_a_rewritten_graph_follows_its_plan_file(tmp_path):
    path = tmp_path / "plan.json"
    reference = fake("large", "ref")
    with Endpoint("old") as old, Endpoint("new") as new:
        write(path, old)
        router = Router(path)
        graph = rewrite(
            one_node(lambda _: {"text": reference.invoke("Hi").text}).compile(), router
        )
        first = graph.invoke({"text": "Hi"})["text"]
        write(path, new)
        router.refresh()
        second = graph.invoke({"text": "Hi"})["text"]

    assert (first, second) == ("old", "new")
    assert reference.asked == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_node_cache_never_gives_the_answer_of_an_old_plan(tmp_path, is_async):
    path, cache = tmp_path / "plan.json", InMemoryCache()
    reference = fake("large", "ref")

    def node(state: State) -> State:
        return {"text": reference.invoke("Hi").text}

    builder = one_node(node, cache_policy=CachePolicy())
    with Endpoint("old") as old, Endpoint("new") as new:
        write(path, old)
        router = Router(path)
        graph = rewrite(builder.compile(cache=cache), router)

        def answer() -> str:
            given: State = {"text": "Hi"}
            coming = graph.ainvoke(given) if is_async else None
            return (asyncio.run(coming) if coming else graph.invoke(given))["text"]

        said = [answer(), answer()]
        write(path, new)
        router.refresh()
        said += [answer(), answer()]
        write(path, old)
        router.refresh()
        said += [answer()]

    assert said == ["old", "old", "new", "new", "old"]
    assert (len(old.asked), len(new.asked)) == (1, 1)
