"""What requests share: prices, dollars, counts, listeners, and the models themselves."""

import asyncio
import gc
import logging
import math
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from pydantic import BaseModel
from unit_tests.decided import decided
from unit_tests.endpoint import Endpoint
from unit_tests.fake_chat import FakeChat
from unit_tests.limited import Endless, Hanging, Refusal, Told, in_turn, routed, said
from unit_tests.routed import (
    MODES,
    STREAMS,
    Scripted,
    about,
    answer,
    aoriginal,
    ask_of,
    ended,
    fake,
    original_astream,
    original_stream,
    route_to,
)

from langchain_slm.errors import (
    BrokenStreamError,
    BudgetExceededError,
    CatalogError,
    EndpointError,
)
from langchain_slm.routing import engine as engine_module
from langchain_slm.routing.counters import Counted
from langchain_slm.routing.engine import Engine
from langchain_slm.routing.limits import (
    BreakerSettings,
    Limits,
    ModelLimits,
    SpendLimit,
)
from langchain_slm.routing.policy import NeverEscalate, Policy
from langchain_slm.routing.router import Router
from langchain_slm.schema import ModelSpec
from langchain_slm.specialization.heads import Head, HeadChatModel

all_modes = pytest.mark.parametrize("mode", MODES)
all_streams = pytest.mark.parametrize("mode", STREAMS)
# A dollar for each token: the question has 2, each answer as many as it has words.
DOLLARS = {"slm": (1e6, 1e6), "ref": (1e6, 1e6)}
BUSY = Refusal(503)
NO_WORDS = {"input_tokens": 2, "output_tokens": 0, "total_tokens": 2}


def spending(*limits: SpendLimit, **settings: Any) -> Engine:
    settings = {"prices": DOLLARS, **settings}
    return Engine(Limits(spend=limits, breaker=None), **settings)


def empty(_: Any) -> AIMessage:
    """An answer that says nothing, for two dollars."""
    return AIMessage("", usage_metadata=NO_WORDS)


def spec(usd: float) -> ModelSpec:
    """A price in dollars for each token."""
    return ModelSpec(
        name="slm",
        provider="openai",
        model="slm",
        usd_per_million_input_tokens=usd * 1e6,
        usd_per_million_output_tokens=usd * 1e6,
    )


# Prices


@all_modes
def test_an_answer_says_what_it_cost(mode):
    message = answer(mode, route_to(fake("yes"), engine=Engine(prices=DOLLARS)))
    assert (about(message)["usd"], about(message)["failed_usd"]) == (3.0, 0.0)


@all_modes
def test_the_price_of_a_plan_is_used_where_none_is_given(mode):
    message = answer(mode, route_to(fake("yes"), spec=spec(5)))
    assert about(message)["usd"] == 15.0


@all_modes
def test_a_price_that_is_given_goes_before_that_of_a_plan(mode):
    route = route_to(fake("yes"), spec=spec(5), engine=Engine(prices=DOLLARS))
    assert about(answer(mode, route))["usd"] == 3.0


def listed(model: Any, **prices: Any) -> ModelSpec | None:
    return Engine(prices=prices).bound(model, "mini").spec


def test_a_price_that_nobody_gives_is_looked_up():
    from langchain_openai import ChatOpenAI  # noqa: PLC0415 - takes a second

    model = ChatOpenAI(model="gpt-4o-mini", api_key="any")
    found = listed(model)
    assert (
        found.usd_per_million_input_tokens,
        found.usd_per_million_output_tokens,
    ) == (0.15, 0.6)
    assert Engine().bound(model, "mini", spec(5)).spec == spec(5)
    assert listed(model, mini=(7, 8)).usd_per_million_output_tokens == 8


def test_a_model_of_ones_own_has_no_listed_price():
    assert listed(fake(name="gpt-4o-mini")) is None
    assert listed(FakeListChatModel(responses=["a"])) is None


@all_modes
def test_a_head_costs_nothing_and_needs_no_price(mode):
    head = Head(
        labels=("billing", "shipping"),
        vocabulary=("invoice", "parcel"),
        idf=(1.0, 1.0),
        weights=((9.0, -9.0), (-9.0, 9.0)),
        bias=(0.0, 0.0),
        threshold=0.9,
        trained_on=2,
        training_hash="0",
    )
    limits = Limits(spend=(SpendLimit(usd=0),))
    chat = routed(HeadChatModel(head=head, name="head"), fake(name="ref"), limits)
    message = said(mode, chat, "My invoice")
    assert (message.content, about(message)["usd"]) == ("billing", 0.0)


@all_modes
def test_what_has_no_price_has_no_known_cost(mode):
    engine = Engine(prices={"slm": (1e6, 1e6)})
    message = answer(mode, route_to(fake(""), engine=engine))
    assert (about(message)["usd"], about(message)["failed_usd"]) == (None, 2.0)


# What a failed attempt costs


@all_modes
def test_an_answer_that_was_thrown_away_is_paid_for(mode):
    message = answer(mode, route_to(fake(empty), engine=Engine(prices=DOLLARS)))
    assert (about(message)["usd"], about(message)["failed_usd"]) == (5.0, 2.0)


@all_modes
def test_a_refusal_costs_nothing(mode):
    message = answer(mode, route_to(fake(BUSY), engine=Engine(prices=DOLLARS)))
    assert (about(message)["usd"], about(message)["failed_usd"]) == (3.0, 0.0)


@all_modes
def test_what_broke_midway_has_no_known_cost(mode):
    route = route_to(fake(OSError()), engine=Engine(prices=DOLLARS))
    message = answer(mode, route)
    assert (about(message)["usd"], about(message)["failed_usd"]) == (None, None)


@all_modes
def test_an_answer_that_does_not_give_the_object_is_paid_for(mode):
    class Even(BaseModel):
        n: int

        def model_post_init(self, _context: object) -> None:
            if self.n % 2:
                raise ValueError(self.n)

    ask = ask_of(fake('{"n": 2}', "ref"), response_format=Even)
    target = fake('{"n": 3}')
    message = answer(mode, route_to(target, engine=Engine(prices=DOLLARS)), ask)
    assert (about(message)["usd"], about(message)["failed_usd"]) == (8.0, 4.0)


class Broken(Policy):
    """A user's own, with a mistake in it."""

    def objection(self, answer, contract):
        raise ZeroDivisionError


@all_modes
def test_a_policy_that_fails_says_nothing_against_what_it_judged(mode):
    limits = Limits(breaker=BreakerSettings(failures=1))
    engine = Engine(limits, prices=DOLLARS)
    route = route_to(fake("yes"), Broken(), engine=engine)
    message = answer(mode, route)
    assert about(message)["reason"] == "ZeroDivisionError"
    assert (about(message)["usd"], about(message)["failed_usd"]) == (6.0, 3.0)
    assert route.bound.breaker.state == "closed"


class Silent(FakeChat):
    """Streams no chunk at all."""

    def stream(self, *_args, **_kwargs):
        yield from ()

    async def astream(self, *_args, **_kwargs):
        for chunk in ():
            yield chunk


@all_streams
def test_a_stream_of_nothing_has_no_known_cost(mode):
    message = answer(mode, route_to(Silent(), engine=Engine(prices=DOLLARS)))
    assert (about(message)["usd"], about(message)["failed_usd"]) == (None, None)


@all_streams
def test_a_stream_that_turned_bad_is_paid_for_once(mode):
    usage = {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3}
    script = ["Rome", ended("content_filter", usage_metadata=usage)]
    told = Told()
    engine = spending(SpendLimit(usd=100, per=60), listeners=[told])
    with pytest.raises(BrokenStreamError):
        answer(mode, route_to(Scripted(script=script), engine=engine))
    assert (told[0].usd, told[0].failed_usd) == (3.0, 3.0)
    assert engine.spending.exceeded(None, 0.0, 97.0) is None


@all_streams
def test_a_stream_that_is_cut_at_a_limit_is_bought_nevertheless(mode):
    usage = {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3}
    script = ["Rome", ended("length", usage_metadata=usage)]
    engine = Engine(prices=DOLLARS)
    message = answer(mode, route_to(Scripted(script=script), engine=engine))
    assert (about(message)["usd"], about(message)["failed_usd"]) == (3.0, 0.0)


@all_modes
def test_each_try_of_the_reference_is_counted(mode):
    reference = fake(in_turn(Refusal(500), Refusal(429), "yes"), "ref")
    message = said(mode, routed(fake(empty), reference, prices=DOLLARS))
    assert about(message)["usd"] == 5.0
    assert about(message)["failed_usd"] == 2.0
    assert about(message)["attempts"] == 4


# Dollars


def refused(mode: str, route: Any, ask: Any = None) -> BudgetExceededError:
    with pytest.raises(BudgetExceededError) as raised:
        answer(mode, route, ask)
    return raised.value


@all_modes
def test_a_request_that_has_used_its_dollars_ends(mode):
    reference = fake("yes", "ref")
    route = route_to(fake(empty), engine=spending(SpendLimit(usd=3)))
    error = refused(mode, route, ask_of(reference))
    assert error.fields == {"site": "node", "model": "ref", "limit": "spend limit"}
    assert reference.asked == []


@all_modes
def test_a_request_within_its_dollars_is_answered(mode):
    route = route_to(fake(empty), engine=spending(SpendLimit(usd=4)))
    message = answer(mode, route)  # two for the first question, two for the second
    assert about(message)["usd"] == 5.0  # the answer is not known before


@all_modes
@pytest.mark.parametrize("at_limit", ["refuse", "bound_only"])
def test_at_its_limit_a_period_refuses_or_does_without_the_reference(mode, at_limit):
    engine = spending(SpendLimit(usd=4, per=3600, at_limit=at_limit))
    bound, reference = fake("yes"), fake("yes", "ref")
    route = route_to(bound, engine=engine)
    answer(mode, route, ask_of(reference))
    if at_limit == "refuse":
        refused(mode, route, ask_of(reference))
    else:
        assert answer(mode, route, ask_of(reference)).content == "yes"
        bound.reply = empty
        refused(mode, route, ask_of(reference))
    assert len(bound.asked) == (1 if at_limit == "refuse" else 3)
    assert reference.asked == []


class Run:
    """Stands for a run of a graph."""


@all_modes
def test_the_requests_of_one_run_share_its_dollars(mode):
    run, other = Run(), Run()
    route = route_to(fake("yes"), engine=spending(SpendLimit(usd=5, per="run")))
    answer(mode, route, replace(ask_of(), run=run))
    answer(mode, route, replace(ask_of(), run=run))
    refused(mode, route, replace(ask_of(), run=run))
    assert answer(mode, route, replace(ask_of(), run=other)).content == "yes"


@all_modes
def test_a_request_goes_on_with_its_dollars_through_every_layer(mode):
    place = f"dollars-{mode}"
    reference = fake(Refusal(400), "ref")
    route = route_to(fake(empty), engine=spending(SpendLimit(usd=5)))
    for kind in (Refusal, BudgetExceededError, BudgetExceededError):
        with pytest.raises(kind):
            answer(mode, route, replace(ask_of(reference), place=place))
    assert len(route.target.asked) == 2


@all_modes
def test_a_model_of_unknown_price_may_exceed_any_limit(mode):
    engine = spending(SpendLimit(usd=1e9), prices={"slm": (1, 1)})
    error = refused(mode, route_to(fake(""), engine=engine))
    assert error.fields["model"] == "ref"
    assert "give `prices` for it" in str(error)


@all_modes
def test_where_no_dollar_is_allowed_a_free_model_answers(mode):
    engine = spending(SpendLimit(usd=0), prices={"slm": (0, 0)})
    assert about(answer(mode, route_to(fake("yes"), engine=engine)))["usd"] == 0.0


def test_a_bound_model_without_a_price_is_refused_where_dollars_are_limited():
    limits = Limits(spend=(SpendLimit(usd=1),))
    with pytest.raises(CatalogError, match="the price of slm is not known") as raised:
        Router({"node": fake()}, limits=limits)
    assert raised.value.fields == {"models": ["slm"]}
    assert Router({"node": fake()}, limits=limits, prices=DOLLARS).sites == ("node",)


@all_modes
def test_what_failed_without_a_known_cost_has_cost_its_question_at_least(mode):
    engine = spending(SpendLimit(usd=4, per=3600))  # the question is 9 characters long
    answer(mode, route_to(fake(OSError()), engine=engine), ask_of(fake("", "ref")))
    assert engine.spending.exceeded(None, 0.0, 0.0) is None
    assert engine.spending.exceeded(None, 0.0, 0.5) is not None


def test_calls_in_flight_can_overshoot():
    engine = spending(SpendLimit(usd=4, per=3600))
    hanging = Hanging(model_name="slm", reply=lambda _: "yes")
    route = route_to(hanging, engine=engine)

    async def both() -> list[Any]:
        calls = [asyncio.create_task(route.agenerate(ask_of(), aoriginal)) for _ in "ab"]
        await asyncio.sleep(0)
        hanging.released.set()
        return await asyncio.gather(*calls)

    assert len(asyncio.run(both())) == 2
    refused("agenerate", route)


# How requests end


@all_modes
def test_a_request_that_was_answered_is_told_once(mode):
    told = Told()
    engine = Engine(prices=DOLLARS, listeners=[told])
    answer(mode, route_to(fake("yes"), engine=engine, task="t1", plan="p1"))
    (decided,) = told
    assert decided.latency_s >= 0
    assert decided.started_s > 1.7e9
    assert decided._replace(latency_s=0.0, started_s=0.0) == (
        *("node", "t1", "slm", "fake-chat", "slm", "proven", "p1"),
        *(False, None, None, {"slm": 1}, 3.0, 0.0, 2, 1, 0.0, 0.0),
        mode in STREAMS,
    )


@all_modes
def test_a_request_that_escalated_is_told_once(mode):
    told = Told()
    engine = Engine(prices=DOLLARS, listeners=[told])
    answer(mode, route_to(fake(empty), engine=engine))
    (decided,) = told
    assert (decided.model, decided.bound, decided.escalated) == ("ref", "slm", True)
    assert (decided.reason, decided.error) == ("empty answer", None)
    assert (decided.asked, decided.attempts) == ({"slm": 1, "ref": 1}, 2)
    assert (decided.usd, decided.failed_usd) == (5.0, 2.0)
    assert (decided.input_tokens, decided.output_tokens) == (2, 1)


@all_modes
def test_a_request_that_failed_is_told_once(mode):
    told = Told()
    engine = Engine(prices=DOLLARS, listeners=[told])
    with pytest.raises(Refusal):
        answer(mode, route_to(fake(empty), engine=engine), ask_of(fake(BUSY, "ref")))
    (decided,) = told
    assert (decided.model, decided.escalated) == ("ref", True)
    assert (decided.reason, decided.error) == ("empty answer", "Refusal")
    assert (decided.usd, decided.failed_usd) == (2.0, 2.0)
    assert (decided.input_tokens, decided.output_tokens) == (None, None)


@all_modes
def test_a_request_that_was_refused_names_who_was_asked_last(mode):
    told = Told()
    engine = spending(SpendLimit(usd=3), listeners=[told])
    refused(mode, route_to(fake(empty), engine=engine))
    (decided,) = told
    assert (decided.model, decided.escalated) == ("slm", False)
    assert (decided.reason, decided.error) == ("empty answer", "BudgetExceededError")
    assert decided.asked == {"slm": 1}


@all_modes
def test_a_failure_that_is_handed_to_the_app_is_told_once(mode):
    told = Told()
    engine = Engine(listeners=[told])
    with pytest.raises(Refusal):
        answer(mode, route_to(fake(BUSY), NeverEscalate(), engine=engine))
    (decided,) = told
    assert (decided.model, decided.escalated, decided.error) == ("slm", False, "Refusal")


@all_modes
def test_a_failure_is_told_by_its_own_name_while_the_app_handles_another(mode):
    told = Told()
    route = route_to(fake(BUSY), NeverEscalate(), engine=Engine(listeners=[told]))
    try:
        raise KeyError  # noqa: TRY301 - what the app is handling
    except KeyError:
        with pytest.raises(Refusal):
            answer(mode, route)
    assert told[0].error == "Refusal"


@all_streams
def test_a_broken_stream_is_told_once(mode):
    told = Told()
    engine = Engine(listeners=[told])
    with pytest.raises(BrokenStreamError):
        answer(mode, route_to(Scripted(script=["a", OSError()]), engine=engine))
    (decided,) = told
    assert (decided.model, decided.error) == ("slm", "BrokenStreamError")
    assert (decided.usd, decided.failed_usd) == (None, None)


@all_modes
def test_a_malformed_body_is_told_as_what_the_app_sees(mode):
    told = Told()
    with pytest.raises(EndpointError):
        said(mode, routed(None, fake(IndexError(), "ref"), listeners=[told]))
    (decided,) = told
    assert (decided.bound, decided.rule, decided.escalated) == (None, "default", False)
    assert (decided.model, decided.error) == ("ref", "EndpointError")


def test_a_request_that_is_cancelled_is_told_once():
    told = Told()
    engine = Engine(prices=DOLLARS, listeners=[told])
    hanging = Hanging(model_name="slm")

    async def cancel() -> None:
        call = route_to(hanging, engine=engine).agenerate(ask_of(), aoriginal)
        task = asyncio.create_task(call)
        await hanging.begun()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    (decided,) = told
    assert (decided.model, decided.error) == ("slm", "CancelledError")
    assert (decided.asked, decided.escalated) == ({"slm": 1}, False)
    assert (decided.usd, decided.failed_usd) == (None, None)  # it may have been begun


def test_a_stream_that_is_left_is_told_once():
    told = Told()
    engine = Engine(Limits(deadline_s=None), prices=DOLLARS, listeners=[told])
    chunks = route_to(Endless(), engine=engine).stream(ask_of(), original_stream)
    next(chunks)
    chunks.close()
    (decided,) = told
    assert (decided.model, decided.error) == ("slm", "GeneratorExit")
    assert (decided.usd, decided.streamed) == (None, True)


def test_an_asynchronous_stream_that_is_left_is_told_once():
    told = Told()
    engine = Engine(listeners=[told])

    async def leave() -> None:
        route = route_to(Endless(), engine=engine)
        chunks = route.astream(ask_of(), original_astream)
        await anext(chunks)
        await chunks.aclose()

    asyncio.run(leave())
    assert [decided.error for decided in told] == ["GeneratorExit"]


@all_modes
def test_a_listener_that_fails_fails_nobody_else(mode, caplog):
    told = Told()

    def fail(_: object) -> None:
        raise ValueError

    engine = Engine(listeners=[fail, told])
    assert answer(mode, route_to(fake("yes"), engine=engine)).content == "yes"
    assert len(told) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "a listener failed (ValueError)"
    ]


# Counts


def row(counted: Counted) -> tuple[Any, ...]:
    kept = (counted.calls, counted.attempts, counted.usd, counted.unpriced)
    return (counted.model, *kept, dict(counted.escalations), dict(counted.errors))


@all_modes
def test_the_counts_are_those_of_the_models(mode):
    replies = ["yes", empty, BUSY, "yes", OSError(), "yes", Refusal(400)]
    bound = fake(in_turn(*replies))
    reference = fake(in_turn("yes", Refusal(429), "yes", Refusal(404), "yes"), "ref")
    told = Told()
    chat = routed(bound, reference, prices=DOLLARS, listeners=[told])
    for _ in replies:
        try:
            said(mode, chat)
        except Refusal:
            continue
    assert [row(counted) for counted in chat.router.counters()] == [
        (
            *("ref", 4, 5, 11.0, 1),
            {"empty answer": 1, "Refusal (HTTP 503)": 1}
            | {"OSError": 1, "Refusal (HTTP 400)": 1},
            {"Refusal": 1},
        ),
        ("slm", 3, 7, 9.0, 0, {}, {}),
    ]
    assert (len(bound.asked), len(reference.asked)) == (7, 5)
    assert sum(decided.attempts for decided in told) == 12


def test_many_requests_at_a_time_are_counted_exactly():
    engine = Engine(prices=DOLLARS)
    bound, reference = fake(in_turn(*["yes", ""] * 50, "yes")), fake("yes", "ref")
    route = route_to(bound, engine=engine)

    async def ask_all() -> None:
        calls = (route.agenerate(ask_of(reference), aoriginal) for _ in range(100))
        await asyncio.gather(*calls)

    asyncio.run(ask_all())
    by_model = {counted.model: counted for counted in engine.counters.read()}
    assert (by_model["slm"].calls, by_model["ref"].calls) == (50, 50)
    assert (by_model["slm"].attempts, by_model["ref"].attempts) == (100, 50)
    assert (len(bound.asked), len(reference.asked)) == (100, 50)


# The models


def test_a_model_is_prepared_once():
    engine, model = Engine(), fake()
    assert engine.bound(model, "slm") is engine.bound(model, "slm")
    assert engine.reference(model, "slm") is engine.reference(model, "slm")


def test_a_reference_that_is_called_by_another_name_is_another():
    engine, model = Engine(prices={"large": (1, 1)}), fake()
    assert engine.reference(model, "slm").spec is None
    assert engine.reference(model, "large").spec.usd_per_million_input_tokens == 1


def test_models_of_one_name_share_their_limits_and_their_circuit():
    limits = Limits(per_model={"slm": ModelLimits(max_in_flight=1)})
    engine = Engine(limits)
    one, two = engine.bound(fake(), "slm"), engine.bound(fake(), "slm")
    assert one.gate is two.gate is engine.reference(fake(), "slm").gate
    assert one.breaker is two.breaker
    assert engine.bound(fake(), "other").breaker is not one.breaker


def test_a_model_without_limits_has_no_gate():
    assert Engine().bound(fake(), "slm").gate is None


def test_a_reference_and_a_model_in_this_process_have_no_circuit():
    engine = Engine()
    assert engine.reference(fake(), "ref").breaker is None
    assert engine.bound(FakeListChatModel(responses=["a"]), "own").breaker is None
    assert Engine(Limits(breaker=None)).bound(fake(), "slm").breaker is None


def test_circuits_are_told_by_name():
    engine = Engine(Limits(breaker=BreakerSettings(failures=1)))
    engine.bound(fake(), "fine")
    engine.bound(fake(), "slm").breaker.failed()
    assert engine.circuits(["slm", "fine", "unknown"]) == {
        "slm": "open",
        "fine": "closed",
    }


def test_models_of_plans_of_long_ago_are_forgotten():
    engine, kept = Engine(), fake()
    engine.bound(kept, "kept")
    engine.bound(fake(), "gone").breaker.failed()
    engine.keep([kept])
    gc.collect()
    assert engine.bound_by_name("gone") is None
    assert engine.bound_by_name("kept").source is kept
    assert "gone" in engine.circuits(["gone"])  # what was learnt stays


def test_only_so_many_references_are_remembered():
    engine = Engine()
    models = [fake() for _ in range(engine_module.MOST_REFERENCES + 1)]
    first = engine.reference(models[0], "ref")
    for model in models[1:]:
        engine.reference(model, "ref")
    assert len(engine._references) == engine_module.MOST_REFERENCES
    assert engine.reference(models[0], "ref") is not first


def test_no_limit_of_dollars_forbids_nothing():
    engine = Engine()
    assert engine.forbids(engine.bound(fake(), "slm"), ask_of(), 1e9) is None


def test_a_question_is_estimated_by_its_length():
    callee = Engine(prices={"slm": (1e6, 1e6)}).bound(fake(), "slm")
    messages = ask_of().messages
    assert callee.least_usd(messages * 4) == 9.0  # 36 characters
    assert callee.least_usd([]) == 0.0


@pytest.mark.parametrize(
    "price", ["cheap", (1.0,), (1.0, 2.0, 3.0), (math.nan, 1.0), (-1.0, 1.0), None, 0.1]
)
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(ValueError, match="the price of 'slm' must be two numbers"):
        Engine(prices={"slm": price})


# Breakers


def test_one_name_at_two_endpoints_has_two_breakers():
    with Endpoint(status=500) as broken, Endpoint("small") as well:
        engine = Engine(Limits(breaker=BreakerSettings(failures=1)))
        routes = [route_to(each.openai("slm"), engine=engine) for each in (broken, well)]
        reasons = [about(answer("generate", route))["reason"] for route in routes * 2]
    assert reasons[1::2] == [None, None]
    assert reasons[2] == "circuit open"
    assert engine.circuits(["slm"]) == {"slm": "open"}


# The log


@pytest.mark.parametrize(
    ("error", "what"), [(None, "answered"), ("EndpointError", "failed: EndpointError")]
)
def test_each_request_is_a_line_of_the_log(error, what, caplog):
    caplog.set_level(logging.DEBUG, logger="langchain_slm.routing")
    Engine().ended(decided(error=error))
    line = f"site 'triage': slm-8b {what} (rule proven, 1 HTTP calls, 0.500 s)"
    assert caplog.messages == [line]
