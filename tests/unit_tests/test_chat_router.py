"""A chat router stands where a chat model stood: ways to call it, and what it tells."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.runnables.config import run_in_executor
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from unit_tests.endpoint import Endpoint
from unit_tests.fake_chat import FakeChat
from unit_tests.planned import decision, plan, spec, task
from unit_tests.routed import about, fake
from unit_tests.watching import State, one_node

from langchain_slm.errors import CatalogError, PlanError
from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.limits import Limits, SpendLimit
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.policy import EscalateOnInvalid, NeverEscalate
from langchain_slm.routing.router import Router
from langchain_slm.schema import Binding

CONFIGURED = {"configurable": {"slm_site": "triage"}}
IN_METADATA = {"metadata": {"slm_site": "triage"}}
MARK = {
    "site": "triage",
    "task": None,
    "model": "slm",
    "provider": "fake-chat",
    "bound": "slm",
    "rule": "mapping",
    "escalated": False,
    "reason": None,
    "attempts": 1,
    "usd": 3e-06,
    "failed_usd": 0.0,
}
# LangChain's own: version 3 of its events, and loading what was dumped.
pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
]


def routed(
    small: Any = "small words", large: Any = "large", **settings: Any
) -> ChatRouter:
    """A router whose site "triage" is bound."""
    return ChatRouter(
        default=settings.pop("default", None) or fake(large, "ref"),
        plan=settings.pop("plan", None) or {"triage": fake(small)},
        **settings,
    )


def invoke(model: Any, config: Any = None) -> AIMessage:
    return model.invoke("Hi", config)


def ainvoke(model: Any, config: Any = None) -> AIMessage:
    return asyncio.run(model.ainvoke("Hi", config))


def stream(model: Any, config: Any = None) -> AIMessage:
    return reduce(add, model.stream("Hi", config))


def astream(model: Any, config: Any = None) -> AIMessage:
    async def collect() -> AIMessage:
        return reduce(add, [chunk async for chunk in model.astream("Hi", config)])

    return asyncio.run(collect())


def batch(model: Any, config: Any = None) -> AIMessage:
    _, message = model.batch(["Ho", "Hi"], config)
    return message


def abatch(model: Any, config: Any = None) -> AIMessage:
    _, message = asyncio.run(model.abatch(["Ho", "Hi"], config))
    return message


def events_v2(model: Any, config: Any = None) -> AIMessage:
    async def collect() -> AIMessage:
        events = model.astream_events("Hi", config, version="v2")
        return [event["data"] async for event in events][-1]["output"]

    return asyncio.run(collect())


def events_v3(model: Any, config: Any = None) -> AIMessage:
    return model.stream_events("Hi", config, version="v3").output


def aevents_v3(model: Any, config: Any = None) -> AIMessage:
    async def collect() -> AIMessage:
        return await (await model.astream_events("Hi", config, version="v3"))

    return asyncio.run(collect())


WAYS = (
    invoke,
    ainvoke,
    stream,
    astream,
    batch,
    abatch,
    events_v2,
    events_v3,
    aevents_v3,
)
RUNNABLE_WAYS = WAYS[:-2]  # version 3 of the events is for models and graphs only
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
runnable_ways = pytest.mark.parametrize(
    "way", RUNNABLE_WAYS, ids=lambda way: way.__name__
)
Way = Callable[..., AIMessage]


class Heard(BaseCallbackHandler):
    """Keeps what callbacks tell of model runs."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.errors: list[BaseException] = []
        self.tokens: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
        self.started.append({"serialized": serialized, **more})

    def on_llm_new_token(self, token: Any, **more: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **more: Any) -> None:
        self.answers.append(response.generations[0][0].message)

    def on_llm_error(self, error: BaseException, **more: Any) -> None:
        self.errors.append(error)


class Waits(BaseRateLimiter):
    """Counts who asked to be let in."""

    def __init__(self) -> None:
        self.let_in = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.let_in += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


# Where it is called


@ways
@pytest.mark.parametrize("config", [CONFIGURED, IN_METADATA], ids=["config", "metadata"])
def test_the_config_of_a_call_names_its_site(way: Way, config):
    message = way(routed(), config)

    assert message.text == "small words"
    assert about(message)["site"] == "triage"


def test_each_call_of_a_batch_has_its_site():
    chat = routed(plan={"a": fake("answer a"), "b": fake("answer b")})
    configs = [{"configurable": {"slm_site": site}} for site in ("a", "b", "c")]

    said = [message.text for message in chat.batch(["Hi"] * 3, configs)]

    assert said == ["answer a", "answer b", "large"]


@ways
def test_a_call_that_names_no_site_is_answered_by_the_default(way: Way):
    message = way(routed())

    assert message.text == "large"
    assert (about(message)["site"], about(message)["rule"]) == ("", "default")


@ways
def test_a_site_without_a_binding_is_answered_by_the_default(way: Way):
    message = way(routed(), {"configurable": {"slm_site": "elsewhere"}})

    assert message.text == "large"
    assert about(message)["site"] == "elsewhere"


@ways
def test_a_router_has_a_site_of_its_own(way: Way):
    assert way(routed(site="triage")).text == "small words"


@ways
def test_the_config_goes_before_the_routers_own_site(way: Way):
    chat = routed(site="elsewhere")

    assert way(chat, CONFIGURED).text == "small words"


def in_node(name: str, call: Callable[..., Any], config: Any = None) -> Any:
    """What `call` returns in a node of that name."""
    returned: list[Any] = []

    def node(state: State) -> State:
        returned.append(call())
        return {}

    one_node(node, name=name).compile().invoke({}, config)
    return returned[0]


async def in_anode(name: str, call: Callable[..., Any], config: Any = None) -> Any:
    returned: list[Any] = []

    async def node(state: State) -> State:
        returned.append(await call())
        return {}

    await one_node(node, name=name).compile().ainvoke({}, config)
    return returned[0]


@pytest.mark.parametrize("way", [invoke, stream, batch, events_v3])
def test_a_node_is_a_site(way: Way):
    message = in_node("triage", lambda: way(routed()))

    assert message.text == "small words"


async def test_an_async_node_is_a_site():
    chat = routed()

    message = await in_anode("triage", lambda: chat.ainvoke("Hi"))

    assert message.text == "small words"


async def test_a_batch_in_an_async_node_is_of_its_site():
    chat = routed()

    messages = await in_anode("triage", lambda: chat.abatch(["Hi", "Ho"]))

    assert [message.text for message in messages] == ["small words", "small words"]


async def test_a_stream_in_an_async_node_is_of_its_site():
    chat = routed()

    async def collect() -> str:
        return "".join([chunk.text async for chunk in chat.astream("Hi")])

    assert await in_anode("triage", collect) == "small words"


async def test_a_thread_of_an_async_node_is_of_its_site():
    chat = routed()

    message = await in_anode("triage", lambda: run_in_executor(None, chat.invoke, "Hi"))

    assert message.text == "small words"


def test_a_chain_in_a_node_is_of_its_site():
    prompt = ChatPromptTemplate.from_messages([("human", "{text}")])
    chain = prompt | routed() | RunnableLambda(lambda message: message.text)

    assert in_node("triage", lambda: chain.invoke({"text": "Hi"})) == "small words"


def test_a_node_of_a_subgraph_is_a_path():
    chat = routed(plan={"outer/triage": fake("small words")})
    inner = one_node(lambda _: {"text": chat.invoke("Hi").text}, name="triage").compile()

    assert one_node(inner, name="outer").compile().invoke({}) == {
        "text": "small words",
        "log": [],
    }


def test_a_node_may_name_another_site():
    chat = routed()

    message = in_node("elsewhere", lambda: chat.invoke("Hi", CONFIGURED))

    assert message.text == "small words"


def test_the_config_of_a_graph_names_the_site_of_all_its_calls():
    chat = routed()

    message = in_node("elsewhere", lambda: chat.invoke("Hi"), CONFIGURED)

    assert message.text == "small words"


def test_the_routers_own_site_goes_before_the_node():
    chat = routed(site="elsewhere")

    assert about(in_node("triage", lambda: chat.invoke("Hi")))["site"] == "elsewhere"


def test_two_sites_at_once_do_not_mix():
    chat = routed(plan={"a": fake("answer a"), "b": fake("answer b")})
    builder = StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, lambda _: {"log": [chat.invoke("Hi").text]})
        builder.add_edge(START, name)

    said = builder.compile().invoke({})["log"]

    assert sorted(said) == ["answer a", "answer b"]


def test_a_site_of_several_tasks_is_bound_by_the_task_of_the_call():
    bills = task("bills", template="You are in charge of bills.")
    with Endpoint("small words") as endpoint:
        binding = Binding(model=spec("slm", base_url=endpoint.url))
        chat = routed(plan=plan(decision(task=bills, binding=binding)), site="triage")

        message = chat.invoke(
            [SystemMessage("You are in charge of bills."), ("human", "?")]
        )
        other = chat.invoke(
            [SystemMessage("Write a poem about the sea."), ("human", "?")]
        )

    assert message.text == "small words"
    assert (about(message)["task"], about(message)["rule"]) == ("bills", "proven")
    assert other.text == "large"


# What it says of an answer


@ways
def test_a_message_says_who_answered_and_why(way: Way):
    chat = routed(prices={"slm": (1.0, 1.0)})

    message = way(chat, CONFIGURED)

    told = about(message)
    assert {**told, "plan": None} == {**MARK, "plan": None}
    assert told["plan"] == chat.router.plan_id
    assert message.response_metadata["model_name"] == "slm"
    assert message.response_metadata["finish_reason"] == "stop"


@ways
def test_a_message_says_that_the_default_was_asked_instead(way: Way):
    chat = routed(ValueError("no"), prices={"ref": (1.0, 1.0), "slm": (1.0, 1.0)})

    message = way(chat, CONFIGURED)

    told = about(message)
    assert message.text == "large"
    assert {**told, "plan": None} == {
        **MARK,
        "plan": None,
        "model": "ref",
        "escalated": True,
        "reason": "ValueError",
        "attempts": 2,
        "usd": None,  # nobody knows what the failed attempt cost
        "failed_usd": None,
    }


@ways
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_a_real_client_answers_in_each_way(way: Way, kind):
    with Endpoint("small words") as endpoint:
        small = getattr(endpoint, kind)()
        message = way(
            routed(plan={"triage": small}, default=endpoint.openai("big")), CONFIGURED
        )

    assert message.text == "small words"
    assert about(message)["model"] == "small"
    assert about(message)["provider"] == kind
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 10
    assert {body["model"] for body in endpoint.asked} == {"small"}


@ways
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_a_refusal_of_a_real_endpoint_is_answered_by_the_default(way: Way, kind):
    with Endpoint(status=404) as broken, Endpoint("large") as endpoint:
        small = getattr(broken, kind)()
        message = way(
            routed(plan={"triage": small}, default=endpoint.openai("big")), CONFIGURED
        )

    assert message.text == "large"
    assert about(message)["escalated"]
    assert "404" in about(message)["reason"]
    assert "canary" not in str(message)


def test_streamed_chunks_carry_one_mark():
    chunks = list(routed().stream("Hi", CONFIGURED))

    marked = [
        chunk.text for chunk in chunks if "langchain_slm" in chunk.response_metadata
    ]
    assert marked == ["small"]


def test_text_is_streamed_word_by_word():
    chunks = list(routed().stream("Hi", CONFIGURED))

    assert [chunk.text for chunk in chunks] == ["small", " words", "", ""]
    assert chunks[-1].chunk_position == "last"
    assert len({chunk.id for chunk in chunks}) == 1


def test_no_token_of_a_rejected_answer_is_heard():
    heard = Heard()
    small = fake(AIMessage("a cut ans", response_metadata={"finish_reason": "length"}))
    chat = routed(plan={"triage": small}, policy=_Waits())

    list(chat.stream("Hi", {**CONFIGURED, "callbacks": [heard]}))

    assert "".join(heard.tokens) == "large"


class _Waits(EscalateOnInvalid):
    def waits(self, contract: Any) -> bool:
        return True


# One run


@ways
def test_a_call_is_one_run(way: Way):
    heard = Heard()

    way(routed(), {**CONFIGURED, "callbacks": [heard]})

    runs = 2 if way in (batch, abatch) else 1
    assert len(heard.started) == len(heard.answers) == runs
    assert heard.errors == []
    assert heard.started[0]["metadata"]["ls_model_name"] == "slm"
    assert heard.started[0]["serialized"]["id"][-1] == "ChatRouter"
    assert about(heard.answers[0])["model"] == "slm"


# Of version 3 the reader of an async stream may be told before the callbacks are.
@pytest.mark.parametrize("way", WAYS[:-1], ids=lambda way: way.__name__)
def test_a_call_that_fails_is_one_failed_run(way: Way):
    heard = Heard()
    chat = routed(ValueError("a"), KeyError("b"))

    with pytest.raises(Exception, match="does not answer as a chat model: KeyError"):
        way(chat, {**CONFIGURED, "callbacks": [heard]})

    assert {str(error)[:20] for error in heard.errors} == {"site 'triage': ref d"}
    assert heard.answers == []


@ways
def test_usage_is_counted_once(way: Way):
    counts = UsageMetadataCallbackHandler()
    calls = 2 if way in (batch, abatch) else 1
    with Endpoint("small words") as endpoint:
        chat = routed(plan={"triage": endpoint.openai()})
        way(chat, {**CONFIGURED, "callbacks": [counts]})

    (used,) = counts.usage_metadata.values()
    assert used["total_tokens"] == 10 * calls


@pytest.mark.parametrize("way", [invoke, stream])
def test_usage_is_counted_once_by_the_context_manager(way: Way):
    with Endpoint("small words") as endpoint:
        chat = routed(plan={"triage": endpoint.openai()})
        with get_usage_metadata_callback() as counts:
            way(chat, CONFIGURED)

    assert counts.usage_metadata["small"]["total_tokens"] == 10


def test_callbacks_tags_and_metadata_of_the_router_are_its_runs():
    heard = Heard()
    chat = routed(callbacks=[heard], tags=["ours"], metadata={"team": "support"})

    chat.invoke("Hi", {**CONFIGURED, "tags": ["call"]})

    (run,) = heard.started
    assert sorted(run["tags"]) == ["call", "ours"]
    assert run["metadata"]["team"] == "support"


def test_callbacks_tags_and_metadata_of_the_default_are_the_routers():
    heard = Heard()
    default = fake(
        "large", "ref", callbacks=[heard], tags=["theirs"], metadata={"a": "1"}
    )

    routed(default=default, metadata={"b": "2"}).invoke("Hi", CONFIGURED)

    (run,) = heard.started
    assert run["tags"] == ["theirs"]
    assert (run["metadata"]["a"], run["metadata"]["b"]) == ("1", "2")


def test_what_the_router_is_given_goes_before_the_defaults():
    default = fake("large", "ref", tags=["theirs"], metadata={"a": "1"})

    chat = routed(default=default, tags=["ours"], metadata={"a": "2"})

    assert chat.tags == ["ours"]
    assert chat.metadata["a"] == "2"
    assert default.metadata["a"] == "1"


@pytest.mark.parametrize("mine", [False, True])
def test_the_outputs_version_is_the_defaults_unless_given(mine):
    settings = {"output_version": "v0"} if mine else {}
    chat = routed(default=fake("large", "ref", output_version="v1"), **settings)

    content = chat.invoke("Hi", CONFIGURED).content

    assert content == (
        "small words" if mine else [{"type": "text", "text": "small words"}]
    )


def test_a_default_that_does_not_stream_makes_a_router_that_does_not():
    chat = routed(default=fake("large", "ref", disable_streaming=True))

    assert [chunk.text for chunk in chat.stream("Hi", CONFIGURED)] == ["small words"]


def test_the_profile_is_the_defaults_unless_given():
    default = fake("large", "ref", profile={"max_input_tokens": 1000})

    assert routed(default=default).profile == {"max_input_tokens": 1000}
    assert routed(default=default, profile={"tool_calling": True}).profile == {
        "tool_calling": True
    }


class Counts(FakeChat):
    """Counts tokens as characters."""

    def get_token_ids(self, text: str) -> list[int]:
        return list(range(len(text)))

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Any = None
    ) -> int:
        return 1000


def test_tokens_are_counted_as_the_default_counts_them():
    chat = routed(default=Counts())

    assert chat.get_num_tokens("12345") == 5
    assert chat.get_num_tokens_from_messages([HumanMessage("Hi")]) == 1000


def test_a_router_may_count_tokens_its_own_way():
    chat = routed(default=Counts(), custom_get_token_ids=lambda text: [1, 2])

    assert chat.get_num_tokens("12345") == 2
    assert chat.get_num_tokens_from_messages([HumanMessage("Hi")]) == 2


# Caching and rates


@pytest.mark.parametrize("way", [invoke, ainvoke])
def test_a_cached_answer_is_not_asked_again(way: Way):
    small = fake("small words")
    chat = routed(plan={"triage": small}, cache=InMemoryCache())

    first, second = way(chat, CONFIGURED), way(chat, CONFIGURED)

    assert len(small.asked) == 1
    assert (first.text, second.text) == ("small words", "small words")
    assert about(second)["model"] == "slm"
    assert [row.calls for row in chat.router.counters()] == [1]


def test_a_cached_answer_is_of_its_site():
    chat = routed(cache=InMemoryCache())

    said = [chat.invoke("Hi", config).text for config in (CONFIGURED, None, CONFIGURED)]

    assert said == ["small words", "large", "small words"]


def test_a_cached_answer_is_of_its_plan(tmp_path):
    path = tmp_path / "plan.json"
    with Endpoint("old") as old, Endpoint("new") as new:
        _write(path, old)
        chat = routed(plan=path, cache=InMemoryCache(), site="triage")
        first = chat.invoke("Hi").text
        _write(path, new)
        chat.router.refresh()
        second = chat.invoke("Hi").text

    assert (first, second) == ("old", "new")


def _write(path: Path, endpoint: Endpoint) -> None:
    binding = Binding(model=spec("slm", base_url=endpoint.url))
    write_plan(plan(decision(binding=binding)), path)


@pytest.mark.parametrize(
    "made",
    [
        lambda endpoint, name: endpoint.nvidia(name),
        lambda endpoint, name: endpoint.openai("gpt", extra_body={"mode": name}),
        lambda endpoint, name: endpoint.openai("gpt", default_headers={"X-Org": name}),
    ],
    ids=["nvidia", "body", "header"],
)
def test_a_cached_answer_is_of_its_default(made):
    cache, own = InMemoryCache(), plan()
    with Endpoint("an answer") as endpoint:
        one, two = (
            ChatRouter(default=made(endpoint, name), plan=own, cache=cache)
            for name in ("canary-model-1", "canary-model-2")
        )
        for chat in (one, two, one, two):
            chat.invoke("Hi")
        assert len(endpoint.asked) == 2
    assert "canary-model" not in str(cache._cache.keys())


def test_a_cached_answer_is_of_its_options():
    small = fake("small words")
    chat = routed(plan={"triage": small}, cache=InMemoryCache())

    chat.invoke("Hi", CONFIGURED)
    chat.invoke("Hi", CONFIGURED, temperature=0.5)

    assert len(small.asked) == 2


def test_the_cache_of_the_default_is_the_routers():
    small, cache = fake("small words"), InMemoryCache()
    chat = routed(plan={"triage": small}, default=fake("large", "ref", cache=cache))

    chat.invoke("Hi", CONFIGURED)
    chat.invoke("Hi", CONFIGURED)

    assert len(small.asked) == 1


@ways
def test_the_routers_rate_limiter_is_asked_once_per_call(way: Way):
    limiter = Waits()

    way(routed(rate_limiter=limiter), CONFIGURED)

    assert limiter.let_in == (2 if way in (batch, abatch) else 1)


@ways
def test_a_bound_models_own_rate_limiter_is_asked(way: Way):
    limiter = Waits()
    small = fake("small words", rate_limiter=limiter)

    way(routed(plan={"triage": small}), CONFIGURED)

    assert limiter.let_in == (2 if way in (batch, abatch) else 1)


# LangChain's ways to wrap a model


@pytest.mark.parametrize("way", [invoke, ainvoke, stream, astream])
def test_with_config_names_a_site(way: Way):
    chat = routed().with_config(configurable={"slm_site": "triage"})

    assert way(chat).text == "small words"


@pytest.mark.parametrize("way", [invoke, ainvoke, batch, abatch])
def test_with_retry_asks_both_models_again(way: Way):
    tries = iter([ValueError("a"), "small words", "small words"])

    def reply(messages: list[BaseMessage]) -> str:
        answer = next(tries)
        if isinstance(answer, Exception):
            raise answer
        return answer

    chat = routed(fake(reply).reply, ValueError("b"))

    message = way(chat.with_retry(stop_after_attempt=2), CONFIGURED)

    assert message.text == "small words"


@runnable_ways
def test_with_fallbacks_asks_another_model_in_the_end(way: Way):
    chat = routed(ValueError("a"), ValueError("b"))

    message = way(chat.with_fallbacks([fake("spare", "spare")]), CONFIGURED)

    assert message.text == "spare"


@runnable_ways
def test_a_router_may_be_the_fallback(way: Way):
    first = fake(ValueError("a"), "first")

    message = way(first.with_fallbacks([routed()]), CONFIGURED)

    assert message.text == "small words"


def test_bound_options_reach_the_model_that_answers():
    small = fake("small words")

    routed(plan={"triage": small}).bind(temperature=0.5, stop=["x"]).invoke(
        "Hi", CONFIGURED
    )

    assert small.options == [{"temperature": 0.5}]


def test_the_site_is_no_option_of_a_model():
    small, large = fake("small words"), fake("large", "ref")
    chat = routed(plan={"triage": small}, default=large)

    chat.invoke("Hi", CONFIGURED)
    chat.invoke("Hi")

    assert small.options == large.options == [{}]


def test_a_call_that_names_a_model_is_the_defaults():
    large = fake("large", "ref")

    message = routed(default=large).invoke("Hi", CONFIGURED, model="huge")

    assert large.options == [{"model": "huge"}]
    assert (about(message)["rule"], about(message)["model"]) == ("model_option", "huge")


def test_the_routers_own_settings_are_those_of_each_call():
    small, large = fake("small words"), fake("large", "ref")
    chat = routed(plan={"triage": small}, default=large, temperature=0.5, max_tokens=9)

    chat.invoke("Hi", CONFIGURED)
    chat.invoke("Hi", temperature=0.0)

    assert small.options == [{"temperature": 0.5, "max_tokens": 9}]
    assert large.options == [{"temperature": 0.0, "max_tokens": 9}]


def test_configurable_fields_share_limits_and_counters():
    small = fake("small words")
    chat = routed(plan={"triage": small})
    configurable = chat.configurable_fields(temperature=ConfigurableField(id="heat"))

    configurable.invoke("Hi", {"configurable": {"slm_site": "triage", "heat": 0.5}})
    configurable.invoke("Hi", CONFIGURED)

    assert small.options == [{"temperature": 0.5}, {}]
    assert [row.calls for row in chat.router.counters()] == [2]


def test_a_configurable_plan_is_the_plan_of_the_call():
    chat = routed()
    configurable = chat.configurable_fields(plan=ConfigurableField(id="plan"))
    other = {"triage": fake("other")}

    message = configurable.invoke(
        "Hi", {"configurable": {**CONFIGURED["configurable"], "plan": other}}
    )

    assert message.text == "other"
    assert chat.invoke("Hi", CONFIGURED).text == "small words"


def test_routers_are_configurable_alternatives():
    chat = fake("plain", "ref").configurable_alternatives(
        ConfigurableField(id="which"), routed=routed()
    )

    message = chat.invoke(
        "Hi", {"configurable": {"slm_site": "triage", "which": "routed"}}
    )

    assert message.text == "small words"


# Copies


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, ChatRouter.model_copy, lambda c: c.model_copy(deep=True)],
    ids=["copy", "deepcopy", "model_copy", "deep_model_copy"],
)
def test_a_copy_shares_models_limits_and_counters(copied):
    with Endpoint("small words") as endpoint:
        chat = routed(plan={"triage": endpoint.openai()}, default=endpoint.openai("big"))
        other = copied(chat)
        other.invoke("Hi", CONFIGURED)

    assert other is not chat
    assert other.default is chat.default
    assert [row.calls for row in chat.router.counters()] == [1]


def test_a_copy_with_another_site_shares_the_router():
    chat = routed()

    other = chat.model_copy(update={"site": "triage"})

    assert other.invoke("Hi").text == "small words"
    assert other.router is chat.router


def test_a_copy_with_another_default_is_called_so():
    chat = routed()
    assert chat.model_name == "ref"

    other = chat.model_copy(update={"default": fake("larger", "xl")})

    assert other.model_name == "xl"
    assert other.invoke("Hi").text == "larger"


def test_a_copy_with_another_plan_follows_that():
    chat = routed()

    other = chat.model_copy(update={"plan": {"triage": fake("other")}})

    assert other.invoke("Hi", CONFIGURED).text == "other"
    assert chat.invoke("Hi", CONFIGURED).text == "small words"


def test_a_router_can_be_pickled_where_its_models_can():
    chat = ChatRouter(
        default=FakeListChatModel(responses=["large"]),
        plan={"triage": FakeListChatModel(responses=["small words"])},
        temperature=0.5,
    )

    other = pickle.loads(pickle.dumps(chat))  # noqa: S301 - our own

    assert other.invoke("Hi", CONFIGURED).text == "small words"
    assert other.temperature == 0.5
    assert other.model_copy(update={"site": "triage"}).router is other.router


# What it shows


def test_its_repr_names_models_and_sites():
    chat = routed()

    assert repr(chat) == (
        f"ChatRouter(default='ref', sites=('triage',), plan='{chat.router.plan_id}')"
    )


def test_no_secret_is_shown():
    default = ChatOpenAI(
        model="big",
        base_url="http://canary-user:canary-password@127.0.0.1:9/v1",
        api_key="canary-key",
        default_headers={"X-Key": "canary-header"},
        extra_body={"token": "canary-body"},
        max_retries=0,
    )
    chat = ChatRouter(default=default, plan={"triage": default})

    shown = [
        repr(chat),
        str(chat),
        dumps(chat),
        str(chat.asdict()),
        str(chat._serialized),
    ]

    assert [text for text in shown if "canary" in text] == []


def test_a_dumped_router_is_loaded_with_keys_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    with Endpoint("small words") as endpoint:
        chat = ChatRouter(
            default=endpoint.openai("big"),
            plan={"triage": endpoint.openai("small")},
            prices={"small": (1.0, 2.0)},
            limits=Limits(max_attempts=2, spend=(SpendLimit(usd=1.0, per=60.0),)),
            temperature=0.5,
            site="triage",
        )
        loaded = loaded_again(chat)
        message = loaded.invoke("Hi")

    assert message.text == "small words"
    assert about(message)["model"] == "small"
    assert loaded.router.engine.limits == chat.router.engine.limits
    assert (loaded.temperature, loaded.prices) == (0.5, {"small": (1.0, 2.0)})
    assert loaded.default.openai_api_key.get_secret_value() == "from-the-environment"


def test_a_dumped_router_keeps_its_plan(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    chat = ChatRouter(default=ChatOpenAI(model="big"), plan=plan(decision()))

    loaded = loaded_again(chat)

    assert loaded.plan == chat.plan
    assert loaded.router.plan_id == chat.router.plan_id


@pytest.mark.parametrize("kind", [str, Path])
def test_a_dumped_router_keeps_the_path_of_its_plan(monkeypatch, tmp_path, kind):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    path = tmp_path / "plan.json"
    write_plan(plan(decision()), path)
    chat = ChatRouter(default=ChatOpenAI(model="big"), plan=kind(path))

    loaded = loaded_again(chat)

    assert loaded.plan == str(path)
    assert loaded.router.sites == ("triage",)


def test_a_dump_of_a_router_with_what_cannot_be_dumped_is_not_loaded_without(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    shared = ChatRouter(default=ChatOpenAI(model="big"), router=Router({}))

    with pytest.raises(NotImplementedError, match="doesn't implement serialization"):
        loaded_again(shared)


def loaded_again(chat: ChatRouter) -> ChatRouter:
    """Return what a dump is read back as."""
    loaded: ChatRouter = loads(
        dumps(chat),
        allowed_objects=[ChatRouter, ChatOpenAI],
        valid_namespaces=["langchain_slm"],
        secrets_from_env=True,
    )
    return loaded


# What it is given


def test_a_setting_of_a_model_is_refused_without_showing_it():
    with pytest.raises(
        ValueError, match="ChatRouter takes no api_key, model: "
    ) as raised:
        ChatRouter(default=fake(), model="gpt-4o", api_key="sk-canary")

    assert "canary" not in str(raised.value)


def test_a_wrong_setting_is_refused_without_showing_it():
    with pytest.raises(ValueError, match="temperature") as raised:
        ChatRouter(default=fake(), temperature="sk-canary")

    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"triage": 42}, "site 'triage': int is neither a chat model nor"),
        ({42: "openai:gpt-4o"}, "binds sites by their path, not by a int"),
        ({"triage": "gpt-4o"}, "'gpt-4o' is not \"provider:model\""),
        (42, "a plan is a Plan, a path or a mapping, not a int"),
        ("nowhere.json", "no plan can be read there"),
    ],
)
def test_a_wrong_plan_is_refused_when_the_router_is_made(given, told):
    with pytest.raises(PlanError, match=told):
        ChatRouter(default=fake(), plan=given)


@pytest.mark.parametrize(
    "more",
    [
        {"plan": {"triage": fake()}},
        {"limits": Limits()},
        {"policy": NeverEscalate()},
        {"prices": {"slm": (1.0, 1.0)}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_router_and_what_it_stands_for_are_refused(more):
    with pytest.raises(ValueError, match="give `router`, or plan, limits, policy and"):
        ChatRouter(default=fake(), router=Router({}), **more)


def test_two_faces_share_one_router():
    router = Router({"triage": fake("small words")})
    one, two = (ChatRouter(default=fake(name), router=router) for name in "ab")

    one.invoke("Hi", CONFIGURED)
    two.invoke("Hi", CONFIGURED)

    assert [row.calls for row in router.counters()] == [2]
    assert one.explain("triage") == router.explain("triage")


def test_a_default_by_name_takes_its_key_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")

    chat = ChatRouter(default="openai:gpt-4o-mini")

    assert isinstance(chat.default, ChatOpenAI)
    assert chat.model_name == "gpt-4o-mini"


def test_a_default_by_name_without_a_key_is_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(CatalogError, match="variable OPENAI_API_KEY is not set"):
        ChatRouter(default="openai:gpt-4o-mini")


def test_a_default_without_a_provider_is_refused():
    with pytest.raises(PlanError, match="'gpt-4o-mini' is not \"provider:model\""):
        ChatRouter(default="gpt-4o-mini")


def test_a_default_is_needed():
    with pytest.raises(ValueError, match=r"default\n  Field required"):
        ChatRouter(plan={})
