"""What one request may use: attempts, time, capacity, chunks; and how it then ends."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from unit_tests.endpoint import Endpoint
from unit_tests.limited import (
    APIConnectionError,
    Clock,
    Endless,
    Hanging,
    Refusal,
    Retrying,
    Told,
    in_turn,
    routed,
    said,
)
from unit_tests.routed import (
    BOOK,
    MODES,
    STREAMS,
    Scripted,
    about,
    answer,
    aoriginal,
    ask_of,
    ended,
    fake,
    original,
    original_astream,
    original_stream,
    route_to,
)

from langchain_slm.errors import (
    BrokenStreamError,
    BudgetExceededError,
    DeadlineExceededError,
    EndpointError,
    IncompleteAnswerError,
)
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.breaker import Breaker
from langchain_slm.routing.cascade import Cascade
from langchain_slm.routing.engine import Engine
from langchain_slm.routing.gate import Gate
from langchain_slm.routing.limits import BreakerSettings, Limits, ModelLimits
from langchain_slm.routing.policy import NeverEscalate

all_modes = pytest.mark.parametrize("mode", MODES)
all_streams = pytest.mark.parametrize("mode", STREAMS)
BUSY = Refusal(503)
RESET = ConnectionResetError("gone")


def retrying(reply: Any, max_retries: int = 2) -> Retrying:
    return Retrying(model_name="ref", reply=in_turn(reply), max_retries=max_retries)


def at(place: str, source: Any, words: str = "Where to?") -> Ask:
    return replace(ask_of(source, HumanMessage(words)), place=place)


# Attempts


@all_modes
@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        (Limits(), (1, 3)),
        (Limits(max_attempts=3), (1, 2)),
        (Limits(max_attempts=2), (1, 1)),
    ],
)
def test_a_router_asks_the_bound_model_once_and_the_reference_with_the_rest(
    mode, limits, calls
):
    bound, reference = fake(BUSY), fake(BUSY, "ref")
    with pytest.raises(Refusal):
        said(mode, routed(bound, reference, limits))
    assert (len(bound.asked), len(reference.asked)) == calls


@all_modes
def test_a_router_asks_a_reference_that_stands_alone_four_times(mode):
    reference = fake(BUSY, "ref")
    with pytest.raises(Refusal):
        said(mode, routed(None, reference))
    assert len(reference.asked) == 4


@all_modes
@pytest.mark.parametrize(("max_retries", "calls"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_in_a_graph_the_reference_is_asked_as_often_as_its_client_would(
    mode, max_retries, calls
):
    reference = retrying(BUSY, max_retries)
    with pytest.raises(Refusal):
        answer(mode, route_to(fake(BUSY)), ask_of(reference))
    assert len(reference.asked) == calls


@all_modes
def test_the_retries_of_a_bound_models_client_are_switched_off(mode):
    bound = Retrying(model_name="slm", reply=in_turn(BUSY), max_retries=5)
    message = answer(mode, route_to(bound))
    assert about(message)["attempts"] == 2
    assert route_to(bound).bound.model.max_retries == 0


@all_modes
def test_a_single_attempt_is_the_bound_models(mode):
    bound, reference = fake(BUSY), fake("large", "ref")
    with pytest.raises(BudgetExceededError) as raised:
        said(mode, routed(bound, reference, Limits(max_attempts=1)))
    assert (len(bound.asked), len(reference.asked)) == (1, 0)
    assert "slm was asked before: Refusal (HTTP 503)" in str(raised.value)


@all_modes
def test_models_in_this_process_use_up_no_attempt(mode):
    bound = fake(BUSY)
    route = route_to(bound, engine=Engine(Limits(max_attempts=1)))
    route.bound.is_remote = False
    message = answer(mode, route)
    assert (len(bound.asked), about(message)["attempts"]) == (1, 1)


@all_modes
@pytest.mark.parametrize(
    "error",
    [Refusal(401), Refusal(400), Refusal(403), Refusal(404), Refusal(422)],
    ids=lambda error: str(error.status_code),
)
def test_what_another_try_cannot_mend_is_asked_once(mode, error):
    reference = fake(error, "ref")
    with pytest.raises(Refusal) as raised:
        said(mode, routed(fake(error), reference))
    assert raised.value.status_code == error.status_code
    assert len(reference.asked) == 1


@all_modes
@pytest.mark.parametrize(
    "error",
    [ValueError("a"), TypeError("a"), IndexError("a"), KeyError("a"), Exception("a")],
    ids=lambda error: type(error).__name__,
)
def test_a_malformed_body_is_asked_for_once_and_is_an_endpoint_error(mode, error):
    reference = fake(error, "ref")
    with pytest.raises(EndpointError) as raised:
        said(mode, routed(None, reference))
    assert raised.value.fields == {"site": "node", "model": "ref", "status": None}
    assert raised.value.__cause__ is error
    assert len(reference.asked) == 1


@all_modes
@pytest.mark.parametrize(
    "error",
    [*map(Refusal, (408, 409, 425, 429, 500, 529)), APIConnectionError(), RESET],
    ids=str,
)
def test_a_passing_trouble_is_asked_through(mode, error):
    reference = fake(in_turn(error, error, "large"), "ref")
    message = said(mode, routed(None, reference))
    assert (message.content, about(message)["attempts"]) == ("large", 3)


# Waiting


def failing_with(error: Exception, limits: Limits | None = None, **how: Any) -> Cascade:
    """A request whose bound model and reference both failed once."""
    route = route_to(fake(), engine=Engine(limits))
    cascade = Cascade(route, replace(ask_of(fake("large", "ref")), direct=True, **how))
    for failure in (ValueError(), error):
        turn = cascade.next_turn()
        cascade._begin(turn)
        cascade.failed(turn, failure)
    return cascade


def test_an_endpoint_says_how_long_to_wait():
    assert failing_with(Refusal(429, "7")).next_turn().wait_s == 7.0


def test_the_reference_is_not_made_to_wait_for_the_bound_model():
    cascade = Cascade(route_to(fake()), ask_of())
    cascade.failed(cascade.next_turn(), Refusal(429, "7"))
    assert cascade.next_turn().wait_s == 0.0


def test_where_an_endpoint_says_nothing_the_waits_grow():
    cascade = failing_with(Refusal(429, None))
    first = cascade.next_turn()
    cascade._begin(first)
    cascade.failed(first, Refusal(429, None))
    second = cascade.next_turn()
    assert 0.375 <= first.wait_s <= 0.5
    assert 0.75 <= second.wait_s <= 1.0


@all_modes
def test_a_wait_beyond_the_deadline_is_not_begun(mode):
    reference = fake(Refusal(429, "3600"), "ref")
    with pytest.raises(Refusal):
        said(mode, routed(None, reference, Limits(deadline_s=60)))
    assert len(reference.asked) == 1


def test_without_a_deadline_a_wait_of_minutes_is_waited_for():
    cascade = failing_with(Refusal(429, "599"), Limits(deadline_s=None))
    assert cascade.next_turn().wait_s == 599.0


def test_without_a_deadline_a_wait_of_hours_is_not():
    cascade = failing_with(Refusal(429, "86400"), Limits(deadline_s=None))
    assert cascade.next_turn() is None
    assert isinstance(cascade.failure, Refusal)


# Time


def test_a_stream_that_is_shown_has_all_the_time():
    route = route_to(fake("Rome"), engine=Engine(Limits(deadline_s=60)))
    cascade = Cascade(route, ask_of())
    turn = cascade.next_turn()
    assert turn.until() - cascade._began == pytest.approx(30)
    turn.take(AIMessageChunk("Rome"))
    assert turn.until() - cascade._began == pytest.approx(60)


def turns(route: Any) -> tuple[float | None, float | None]:
    """When bound model and reference must have answered, from the beginning."""
    cascade = Cascade(route, ask_of())
    bound = cascade.next_turn()
    cascade.failed(bound, ValueError())
    reference = cascade.next_turn()
    limits = (bound.limit, None if reference is None else reference.limit)
    return tuple(None if at is None else at - cascade._began for at in limits)


def test_the_bound_model_has_half_of_the_time_and_the_reference_all_of_the_rest():
    route = route_to(fake(), engine=Engine(Limits(deadline_s=10)))
    assert turns(route) == pytest.approx((5.0, 10.0))


def test_a_bound_model_that_nobody_stands_behind_has_all_of_the_time():
    engine = Engine(Limits(deadline_s=10))
    assert turns(route_to(fake(), NeverEscalate(), engine=engine)) == (
        pytest.approx(10.0),
        None,
    )


def test_without_a_deadline_nobody_is_late():
    route = route_to(fake(), engine=Engine(Limits(deadline_s=None)))
    assert turns(route) == (None, None)


@pytest.fixture
def hanging():
    """A model that hangs until the test is over."""
    model = Hanging(model_name="slm")
    yield model
    model.released.set()


@all_modes
def test_a_bound_model_that_hangs_leaves_time_for_the_reference(mode, hanging):
    engine = Engine(Limits(deadline_s=2))
    message = answer(mode, route_to(hanging, engine=engine))
    assert message.content == "large"
    assert about(message)["reason"] == "DeadlineExceededError"


@all_modes
def test_a_reference_that_hangs_ends_at_the_deadline(mode, hanging):
    with pytest.raises(DeadlineExceededError) as raised:
        said(mode, routed(None, hanging, Limits(deadline_s=0.25)))
    assert raised.value.fields == {
        "site": "node",
        "model": "slm",
        "status": None,
        "limit": 0.25,
    }
    assert isinstance(raised.value, TimeoutError)


# Through every layer


def fails(mode: str, route: Any, ask: Ask, kind: type[Exception]) -> Exception:
    with pytest.raises(kind) as raised:
        answer(mode, route, ask)
    return raised.value


@all_modes
def test_whoever_asks_again_goes_on_with_what_is_left(mode):
    bound, reference = fake(BUSY), retrying(BUSY)
    route = route_to(bound)
    fails(mode, route, at(f"again-{mode}", reference), Refusal)
    error = fails(mode, route, at(f"again-{mode}", reference), BudgetExceededError)
    assert error.fields == {
        "site": "node",
        "model": "ref",
        "limit": "attempts used up",
    }
    assert (len(bound.asked), len(reference.asked)) == (1, 3)


@all_modes
def test_attempts_that_are_left_are_used(mode):
    bound, reference = fake(BUSY), retrying(BUSY, max_retries=0)
    route = route_to(bound)
    for _ in range(2):
        fails(mode, route, at(f"left-{mode}", reference), Refusal)
    fails(mode, route, at(f"left-{mode}", reference), BudgetExceededError)
    assert (len(bound.asked), len(reference.asked)) == (2, 2)


@all_modes
def test_without_escalation_the_bound_model_has_all_attempts(mode):
    engine = Engine(Limits(max_attempts=2, breaker=None))
    route = route_to(fake(BUSY), NeverEscalate(), engine=engine)
    for _ in range(2):
        fails(mode, route, at(f"never-{mode}", fake()), Refusal)
    error = fails(mode, route, at(f"never-{mode}", fake()), BudgetExceededError)
    assert error.fields["model"] == "slm"
    assert len(route.target.asked) == 2


@all_modes
@pytest.mark.parametrize(
    ("place", "words"), [("elsewhere", "Where to?"), ("here", "How far?"), (None, "?")]
)
def test_another_question_and_another_place_have_all_of_theirs(mode, place, words):
    reference = retrying(BUSY)
    route = route_to(fake(BUSY))
    first = None if place is None else f"here-{mode}-{words}"
    second = None if place is None else f"{place}-{mode}-{words}"
    fails(
        mode, route, at(first, reference, "?" if place is None else "Where to?"), Refusal
    )
    fails(mode, route, at(second, reference, words), Refusal)
    assert len(reference.asked) == 6


@all_modes
def test_a_request_that_was_answered_leaves_nothing_behind(mode):
    place = f"answered-{mode}"
    bound, reference = fake(BUSY), retrying(BUSY, max_retries=0)
    reference.reply = in_turn(BUSY, "large", BUSY, "large")
    route = route_to(bound)
    for _ in range(2):
        fails(mode, route, at(place, reference), Refusal)
        assert answer(mode, route, at(place, reference)).content == "large"
    assert (len(bound.asked), len(reference.asked)) == (4, 4)


@all_modes
def test_a_failure_counts_wherever_the_app_was_when_it_asked(mode):
    bound, reference = fake(BUSY), retrying(BUSY)
    place = f"handling-{mode}"
    route = route_to(bound)
    try:
        raise KeyError  # noqa: TRY301 - what the app is handling
    except KeyError:
        fails(mode, route, at(place, reference), Refusal)
        fails(mode, route, at(place, reference), BudgetExceededError)
    assert len(reference.asked) == 3


# A model's own limits


@all_modes
def test_bound_model_and_reference_of_one_name_do_not_wait_for_each_other(mode):
    limits = Limits(per_model={"slm": ModelLimits(max_in_flight=1)})
    route = route_to(fake(BUSY), engine=Engine(limits))
    message = answer(mode, route, ask_of(fake("large", "slm")))
    assert message.content == "large"


@all_modes
@pytest.mark.parametrize("reply", ["small", "", BUSY])
def test_whatever_became_of_a_call_its_place_is_free_again(mode, reply):
    limits = ModelLimits(max_in_flight=1)
    engine = Engine(Limits(per_model={"slm": limits, "ref": limits}))
    route = route_to(fake(reply), engine=engine)
    for _ in range(3):
        answer(mode, route)
    assert {gate._inside for gate in engine._gates.values()} == {0}


def crowded(hanging: Hanging) -> Any:
    """A route whose bound model has place for one, of a client that waits for none."""
    limits = Limits(
        deadline_s=1.0, per_model={"slm": ModelLimits(max_in_flight=1)}, breaker=None
    )
    return route_to(hanging, engine=Engine(limits))


@all_modes
def test_a_model_without_a_free_place_leaves_the_call_to_the_reference(mode, hanging):
    route = crowded(hanging)
    route.bound.gate.enter(None)
    message = answer(mode, route)
    assert (message.content, hanging.asked) == ("large", [])
    assert about(message)["reason"] == "DeadlineExceededError"
    assert about(message)["attempts"] == 1


@all_modes
def test_a_call_that_was_not_made_costs_nothing(mode, hanging):
    told = Told()
    limits = Limits(deadline_s=1.0, per_model={"slm": ModelLimits(max_in_flight=1)})
    engine = Engine(limits, prices={"slm": (1, 1), "ref": (1e6, 1e6)}, listeners=[told])
    route = route_to(hanging, engine=engine)
    route.bound.gate.enter(None)
    answer(mode, route)
    assert (told[0].usd, told[0].failed_usd) == (3.0, 0.0)


def test_threads_and_event_loops_share_the_places_of_a_model(hanging):
    engine = Engine(Limits(per_model={"slm": ModelLimits(max_in_flight=2)}))
    routes = [route_to(hanging, engine=engine, site=site) for site in ("a", "b")]
    threads = [
        threading.Thread(target=route.generate, args=(ask_of(), original))
        for route in routes
    ]
    for thread in threads:
        thread.start()

    async def third() -> str:
        task = asyncio.create_task(routes[0].agenerate(ask_of(), aoriginal))
        while not engine.gate("slm")._line:  # noqa: ASYNC110 - a gate tells nobody
            await asyncio.sleep(0.001)
        inside = engine.gate("slm")._inside
        hanging.released.set()
        await task
        return inside

    assert asyncio.run(third()) == 2
    for thread in threads:
        thread.join()
    assert len(hanging.asked) == 3


@all_modes
def test_calls_begin_no_faster_than_a_model_takes_them(mode):
    clock = Clock()
    limits = ModelLimits(requests_per_second=1)
    engine = Engine(Limits(deadline_s=None, per_model={"slm": limits}))
    engine._gates["slm"] = Gate(limits, clock, clock.sleep, clock.asleep)
    route = route_to(fake(), engine=engine)
    for _ in range(3):
        answer(mode, route)
    assert clock.slept == [1.0, 1.0]


def test_the_place_of_a_stream_that_is_left_is_free_again():
    engine = Engine(
        Limits(deadline_s=None, per_model={"slm": ModelLimits(max_in_flight=1)})
    )
    route = route_to(Endless(), engine=engine)
    chunks = route.stream(ask_of(), original_stream)
    next(chunks)
    chunks.close()
    assert engine.gate("slm")._inside == 0


# A model that fails again and again


def broken(error: Exception = BUSY, *, clock: Any = None, **settings: Any) -> Any:
    """A route to a model that fails, whose breaker goes by `clock`."""
    limits = BreakerSettings(failures=2, open_s=30)
    engine = Engine(Limits(breaker=limits, deadline_s=None))
    engine._breakers["slm", None] = Breaker(limits, clock or Clock())
    return route_to(fake(error), engine=engine, **settings)


@all_modes
def test_a_model_that_fails_twice_is_left_alone(mode):
    route = broken()
    reasons = [about(answer(mode, route))["reason"] for _ in range(3)]
    assert reasons == ["Refusal (HTTP 503)", "Refusal (HTTP 503)", "circuit open"]
    assert len(route.target.asked) == 2
    assert about(answer(mode, route))["attempts"] == 1


@all_modes
def test_a_model_that_answers_a_probe_is_asked_again(mode):
    clock = Clock()
    route = broken(clock=clock)
    for _ in range(2):
        answer(mode, route)
    route.target.reply = in_turn("small")
    clock.now += 30
    assert [answer(mode, route).content for _ in range(2)] == ["small", "small"]
    assert route.bound.breaker.state == "closed"


@all_modes
def test_a_model_that_fails_a_probe_is_left_alone_for_as_long_again(mode):
    clock = Clock()
    route = broken(clock=clock)
    for _ in range(2):
        answer(mode, route)
    clock.now += 30
    reasons = [about(answer(mode, route))["reason"] for _ in range(2)]
    assert reasons == ["Refusal (HTTP 503)", "circuit open"]


@all_modes
@pytest.mark.parametrize(
    "reply",
    ["", Refusal(400), Refusal(413), Refusal(422), lambda _: AIMessage("", id="a")],
    ids=["empty", "400", "413", "422", "no text"],
)
def test_bad_answers_and_bad_questions_say_nothing_against_an_endpoint(mode, reply):
    engine = Engine(Limits(breaker=BreakerSettings(failures=1)))
    route = route_to(fake(reply), engine=engine)
    for _ in range(3):
        answer(mode, route)
    assert len(route.target.asked) == 3


@all_modes
def test_a_broken_contract_says_nothing_against_an_endpoint(mode):
    engine = Engine(Limits(breaker=BreakerSettings(failures=1)))
    route = route_to(fake("No."), engine=engine)
    for _ in range(2):
        answer(mode, route, ask_of(tools=[BOOK], tool_choice="any"))
    assert len(route.target.asked) == 2


@all_modes
def test_a_call_that_found_no_place_says_nothing_against_an_endpoint(mode, hanging):
    limits = Limits(
        deadline_s=0.5,
        per_model={"slm": ModelLimits(max_in_flight=1)},
        breaker=BreakerSettings(failures=1),
    )
    route = route_to(hanging, engine=Engine(limits))
    route.bound.gate.enter(None)
    answer(mode, route)
    assert route.bound.breaker.state == "closed"


@all_modes
def test_an_endpoint_that_hangs_is_left_alone(mode, hanging):
    limits = Limits(deadline_s=1.0, breaker=BreakerSettings(failures=1))
    route = route_to(hanging, engine=Engine(limits))
    reasons = [about(answer(mode, route))["reason"] for _ in range(2)]
    assert reasons == ["DeadlineExceededError", "circuit open"]


def half_open() -> Any:
    clock = Clock()
    route = broken(clock=clock)
    for _ in range(2):
        answer("generate", route)
    clock.now += 30
    return route


def test_a_probe_that_is_cancelled_lets_the_next_call_try(hanging):
    route = half_open()
    probing = route_to(hanging, engine=route.engine)

    async def cancel() -> None:
        task = asyncio.create_task(probing.agenerate(ask_of(), aoriginal))
        await hanging.begun()
        assert about(await probing_again())["reason"] == "circuit open"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def probing_again() -> AIMessage:
        result = await route.agenerate(ask_of(), aoriginal)
        return result.generations[0][0].message

    asyncio.run(cancel())
    route.target.reply = in_turn("small")
    assert answer("agenerate", route).content == "small"


def test_a_probe_whose_stream_is_left_lets_the_next_call_try():
    route = half_open()
    chunks = route_to(Endless(), engine=route.engine).stream(ask_of(), original_stream)
    next(chunks)
    chunks.close()
    route.target.reply = in_turn("small")
    assert answer("stream", route).content == "small"


def test_an_asynchronous_probe_whose_stream_is_left_lets_the_next_call_try():
    route = half_open()

    async def leave() -> None:
        probing = route_to(Endless(), engine=route.engine)
        chunks = probing.astream(ask_of(), original_astream)
        await anext(chunks)
        await chunks.aclose()

    asyncio.run(leave())
    route.target.reply = in_turn("small")
    assert answer("astream", route).content == "small"


@all_modes
def test_where_failures_are_the_apps_an_open_circuit_is_one(mode):
    route = broken(policy=NeverEscalate())
    for _ in range(2):
        fails(mode, route, ask_of(), Refusal)
    error = fails(mode, route, ask_of(), BudgetExceededError)
    assert error.fields == {"site": "node", "model": "slm", "limit": "circuit open"}


# Streams without an end


@all_streams
def test_a_stream_without_an_end_is_ended(mode):
    engine = Engine(Limits(max_chunks=50))
    with pytest.raises(BrokenStreamError) as raised:
        answer(mode, route_to(Endless(), engine=engine))
    assert raised.value.fields["reason"] == "EndpointError"


@all_streams
def test_a_stream_without_an_end_that_nobody_saw_escalates(mode):
    engine = Engine(Limits(max_chunks=50))
    message = answer(mode, route_to(Endless(chunk=" "), engine=engine))
    assert (message.content, about(message)["reason"]) == ("large", "EndpointError")


@all_streams
def test_the_stream_of_a_reference_is_ended_too(mode):
    with pytest.raises(BrokenStreamError) as raised:
        said(mode, routed(None, Endless(model_name="ref"), Limits(max_chunks=50)))
    assert raised.value.fields == {
        "site": "node",
        "model": "ref",
        "reason": "EndpointError",
    }


@all_streams
def test_a_reference_without_an_end_that_nobody_saw_is_no_endpoint(mode):
    endless = Endless(model_name="ref", chunk=" ")
    with pytest.raises(EndpointError, match="over 50 chunks and no end"):
        said(mode, routed(None, endless, Limits(max_chunks=50)))
    assert len(endless.asked) == 1


@all_streams
def test_a_stream_may_have_as_many_chunks_as_it_may(mode):
    target = Scripted(script=["a ", "b ", ended()])
    engine = Engine(Limits(max_chunks=4))  # LangChain adds a last one
    assert answer(mode, route_to(target, engine=engine)).content == "a b "


# The last model to be asked

whole_modes = pytest.mark.parametrize("mode", ["generate", "agenerate"])
ONCE = Limits(max_attempts=1)


@whole_modes
@pytest.mark.parametrize("kind", ["openai", "nvidia"])
def test_an_answer_without_an_end_is_no_answer(mode, kind):
    with Endpoint("Rome is", finish=None) as endpoint:
        chat = routed(None, getattr(endpoint, kind)("ref"), ONCE)
        with pytest.raises(IncompleteAnswerError) as raised:
            said(mode, chat)
    assert raised.value.fields == {
        "site": "node",
        "model": "ref",
        "reason": "incomplete (no finish_reason)",
    }


@all_streams
def test_a_stream_without_an_end_after_its_first_text_is_broken(mode):
    with Endpoint("Rome is", finish=None) as endpoint:
        chat = routed(None, endpoint.openai("ref"), ONCE)
        with pytest.raises(BrokenStreamError) as raised:
            said(mode, chat)
    assert raised.value.fields["reason"] == "incomplete (no finish_reason)"


@all_streams
def test_a_stream_without_an_end_or_any_text_is_no_answer(mode):
    with Endpoint("", finish=None) as endpoint:
        chat = routed(None, endpoint.openai("ref"), ONCE)
        with pytest.raises(IncompleteAnswerError):
            said(mode, chat)


@all_modes
@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_what_the_provider_itself_ended_is_the_references_answer(mode, finish):
    with Endpoint("Rome is", finish=finish) as endpoint:
        message = said(mode, routed(None, endpoint.openai("ref"), ONCE))
    assert message.content == "Rome is"
    assert message.response_metadata["finish_reason"] == finish


@all_modes
def test_without_a_router_the_references_answer_is_as_it_always_was(mode):
    with Endpoint("Rome is", finish=None) as endpoint:
        message = answer(mode, route_to(fake(BUSY)), ask_of(endpoint.openai("ref")))
    assert message.content == "Rome is"


@whole_modes
def test_an_incomplete_answer_is_asked_for_again(mode):
    with Endpoint("Rome is", finish=None) as endpoint:
        chat = routed(None, endpoint.openai("ref"), Limits(max_attempts=2))
        with pytest.raises(IncompleteAnswerError):
            said(mode, chat)
        assert len(endpoint.asked) == 2
