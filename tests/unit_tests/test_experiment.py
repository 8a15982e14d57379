import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from tenacity import RetryCallState
from typing_extensions import override
from unit_tests.fake_chat import FakeChat
from unit_tests.held_out import (
    REFERENCE,
    TASK,
    Memory,
    answering,
    candidate,
    example,
    examples,
)

from langchain_slm.errors import EndpointError, SLMError
from langchain_slm.evaluation.evaluators import UserFunction, evaluator_for
from langchain_slm.evaluation.experiment import (
    Candidate,
    Experiment,
    Settings,
    Unanswered,
    together,
)
from langchain_slm.evaluation.trouble import hopeless, is_transient, retry_after_s, shown
from langchain_slm.schema import (
    Artefact,
    Binding,
    Example,
    ModelSpec,
    Outcome,
    Request,
)

AT_ONCE = Settings(first_wait_s=0, rate_limit_wait_s=0, longest_wait_s=0)


def judge(each: Example) -> Any:
    return evaluator_for(each, TASK)


async def outcomes_of(
    asked: Candidate,
    listed: list[Example],
    experiment: Experiment | None = None,
    **options: Any,
) -> list[Outcome]:
    experiment = experiment or Experiment(Memory(), AT_ONCE)
    options = {"reference": REFERENCE, "evaluator_of": judge, **options}
    return await experiment.run(asked, listed, **options)


class Flights:
    """Calls in flight, now and at most."""

    now = most = 0


class Slow(FakeChat):
    """Answers "yes" after the others had their turn; counts calls in flight."""

    reply: Any = lambda _: "yes"
    flights: Any

    @override
    async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        self.flights.now += 1
        self.flights.most = max(self.flights.most, self.flights.now)
        await asyncio.sleep(0.001)
        self.flights.now -= 1
        return self._generate(messages)


class Stuck(FakeChat):
    """Never answers."""

    @override
    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.asked.append([])
        await asyncio.Event().wait()
        raise AssertionError


# What is judged, and at what cost


async def test_outcomes_come_in_the_order_of_the_examples_and_at_their_own_cost():
    asked = candidate(answering(wrong=lambda number: number == 1))
    right, wrong = await outcomes_of(asked, examples(2))
    assert (right.example_id, right.candidate_passed) == ("e0", True)
    assert (right.usd, right.reference_usd) == pytest.approx((11e-6, 1010e-6))
    assert (right.escalated, right.infrastructure_error) == (False, False)
    assert (wrong.example_id, wrong.candidate_passed) == ("e1", False)


async def test_an_abstention_is_the_answer_of_the_reference_at_the_cost_of_both():
    model = answering()
    model.reply = lambda _: AIMessage(
        "",
        response_metadata={"abstained": True},
        usage_metadata={"input_tokens": 10, "output_tokens": 0, "total_tokens": 10},
    )
    bad_reference = example(2, says="yes")
    first, second = await outcomes_of(candidate(model), [example(1), bad_reference])
    assert (first.escalated, first.candidate_passed) == (True, True)
    assert first.usd == pytest.approx(10e-6 + 1010e-6)
    assert (second.escalated, second.candidate_passed) == (True, False)


async def test_the_cost_of_an_abstention_is_unknown_where_either_price_is():
    model = answering()
    model.reply = lambda _: AIMessage("", response_metadata={"abstained": True})
    unpriced = REFERENCE.model_copy(update={"usd_per_million_input_tokens": None})
    (one,) = await outcomes_of(candidate(model), [example(1)], reference=unpriced)
    (two,) = await outcomes_of(candidate(model, usd=None), [example(1)])
    assert (one.usd, two.usd) == (None, None)


async def test_without_a_price_or_a_token_count_the_cost_is_unknown():
    (outcome,) = await outcomes_of(candidate(answering(), usd=None), [example(1)])
    assert (outcome.candidate_passed, outcome.usd) == (True, None)
    model = FakeChat(
        reply=lambda _: AIMessage(
            "yes",
            usage_metadata={"input_tokens": -1, "output_tokens": 1, "total_tokens": 0},
        )
    )
    (outcome,) = await outcomes_of(candidate(model), [example(1)])
    assert (outcome.candidate_passed, outcome.usd) == (True, None)


async def test_the_answer_of_the_reference_is_judged_once_for_all_candidates():
    judged: list[str] = []

    def function(_: Example, answer: Any) -> bool:
        judged.append(answer.text)
        return True

    own = UserFunction(function, name="own")
    experiment = Experiment(Memory(), AT_ONCE)
    for name in ("a", "b"):
        asked = candidate(FakeChat(reply=lambda _: "candidate"), name)
        await outcomes_of(asked, [example(1)], experiment, evaluator_of=lambda _: own)
    assert judged == ["yes", "candidate", "candidate"]


async def test_an_example_that_cannot_be_judged_costs_nothing():
    def function(*_: object) -> bool:
        raise RuntimeError

    own, model = UserFunction(function, name="own"), answering()
    with pytest.raises(SLMError, match="evaluator own, example e1: it raised"):
        await outcomes_of(candidate(model), [example(1)], evaluator_of=lambda _: own)
    assert model.asked == []


async def test_a_candidate_is_asked_all_that_the_reference_was_asked():
    request = Request(
        messages=({"role": "user", "content": "Is 1 odd?"},),
        tools=({"type": "function", "function": {"name": "f"}},),
        tool_choice="required",
        response_format={"type": "json_object"},
        parameters={"temperature": 0.5, "stop": ["."]},
    )
    model = answering()
    asked = example(1).model_copy(update={"request": request})
    await outcomes_of(candidate(model), [asked])
    assert [str(m.content) for m in model.asked[0]] == ["Is 1 odd?"]
    assert model.options == [
        {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": "required",
            "response_format": {"type": "json_object"},
            "temperature": 0.5,
        }
    ]


# The cache


async def test_the_same_request_is_paid_for_once_even_at_the_same_time():
    model = Slow(flights=Flights())
    same = [
        example(1).model_copy(update={"example_id": f"e{n}", "thread_id": f"t{n}"})
        for n in range(5)
    ]
    experiment = Experiment(Memory(), AT_ONCE)
    outcomes = await outcomes_of(candidate(model), same, experiment)
    assert [o.candidate_passed for o in outcomes] == [True] * 5
    assert len(model.asked) == 1
    assert (experiment.counters.asked, experiment.counters.cached) == (1, 4)


async def test_a_second_experiment_pays_for_nothing_that_the_first_was_answered():
    cache, model = Memory(), answering()
    first = await outcomes_of(candidate(model), examples(30), Experiment(cache))
    again = Experiment(cache)
    assert await outcomes_of(candidate(model), examples(30), again) == first
    assert len(model.asked) == 30
    assert (again.counters.asked, again.counters.cached) == (0, 30)
    assert again.counters.usd == 0


SPEC = ModelSpec(name="slm", provider="openai", model="slm", base_url="http://a/v1")
HEAD = Artefact(kind="head", path="h.json", sha256="1" * 64)
REQUEST = Request(messages=({"role": "user", "content": "q"},))


def key_of(spec: ModelSpec = SPEC, request: Request = REQUEST, **binding: Any) -> str:
    return Candidate("any", Binding(model=spec, **binding), FakeChat()).key(request)


@pytest.mark.parametrize(
    "spec",
    [
        {"provider": "nvidia"},
        {"model": "other"},
        {"base_url": "http://b/v1"},
        {"base_url": None},
    ],
)
def test_another_model_or_endpoint_is_another_answer(spec):
    assert key_of(SPEC.model_copy(update=spec)) != key_of()


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": ({"role": "user", "content": "p"},)},
        {"messages": ({"role": "system", "content": "q"},)},
        {"tools": ({"type": "function"},)},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"parameters": {"temperature": 1}},
    ],
)
def test_another_request_is_another_answer(request_):
    assert key_of(request=REQUEST.model_copy(update=request_)) != key_of()


def test_another_artefact_is_another_answer():
    other = HEAD.model_copy(update={"sha256": "2" * 64})
    assert len({key_of(), key_of(artefact=HEAD), key_of(artefact=other)}) == 3


def test_names_prices_labels_and_paths_change_no_answer():
    renamed = SPEC.model_copy(
        update={"name": "x", "usd_per_million_input_tokens": 1.0, "api_key_env": "K"}
    )
    assert key_of(renamed, labels=("a",), escalation="never") == key_of()
    moved = HEAD.model_copy(update={"path": "elsewhere/h.json"})
    assert key_of(artefact=moved) == key_of(artefact=HEAD)


# Order, looks and progress


async def test_a_run_stops_only_at_looks_and_counts_lost_and_won_pairs():
    looks: list[tuple[int, int, int]] = []

    def stop(n: int, lost: int, won: int) -> Any:
        looks.append((n, lost, won))
        return "futile" if n >= 40 else "open"

    model = answering(wrong=lambda number: number in (3, 25))
    listed = [*examples(60)]
    listed[7] = example(7, says="no")  # only the candidate is right
    outcomes = await outcomes_of(candidate(model), listed, stop=stop)
    assert looks == [(20, 1, 1), (30, 2, 1), (40, 2, 1)]
    assert len(outcomes) == len(model.asked) == 40


async def test_examples_that_end_between_looks_are_all_asked():
    model = answering()
    outcomes = await outcomes_of(candidate(model), examples(25), stop=lambda *_: "open")
    assert [o.example_id for o in outcomes] == [f"e{n}" for n in range(25)]


async def test_nothing_is_asked_where_there_is_no_example():
    assert await outcomes_of(candidate(answering()), [], stop=lambda *_: "open") == []


async def test_progress_is_told_of_each_answer():
    told: list[tuple[str, int, int]] = []
    await outcomes_of(
        candidate(answering()), examples(3), progress=lambda *what: told.append(what)
    )
    assert told == [("slm", 1, 3), ("slm", 2, 3), ("slm", 3, 3)]


async def test_calls_in_flight_never_exceed_the_limit_over_all_candidates():
    flights = Flights()
    experiment = Experiment(Memory(), Settings(concurrency=3))
    await together(
        outcomes_of(
            candidate(Slow(flights=flights), name),
            examples(10),
            experiment,
        )
        for name in ("a", "b", "c")
    )
    assert experiment.counters.asked == 30
    assert (flights.now, flights.most) == (0, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"attempts": 0},
        {"timeout_s": 0},
        {"first_wait_s": -1},
        {"rate_limit_wait_s": -1},
    ],
)
def test_settings_that_would_hang_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be at least 0|needs concurrency"):
        Settings(**wrong)


# Trouble


class EndpointTroubleError(Exception):
    """As a client raises it: with a status."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"Error code: {status_code} - the question was Is 1 odd?")
        self.status_code = status_code


def raising(*errors: BaseException | str) -> FakeChat:
    """Return a model that raises or answers one after the other, the last for ever."""
    left = list(errors)

    def reply(_: object) -> str:
        error = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(error, BaseException):
            raise error
        return error

    return FakeChat(reply=reply)


async def test_trouble_that_passes_is_retried():
    model = raising(EndpointTroubleError(429), EndpointTroubleError(500), "yes")
    experiment = Experiment(Memory(), AT_ONCE)
    (outcome,) = await outcomes_of(candidate(model), [example(1)], experiment)
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (True, False)
    assert experiment.counters.retried == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EndpointTroubleError(429), "HTTP 429 (EndpointTroubleError)"),
        (EndpointTroubleError(503), "HTTP 503 (EndpointTroubleError)"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionResetError(), "ConnectionResetError"),
        (RuntimeError("[502] Bad Gateway"), "HTTP 502 (RuntimeError)"),
        (Exception("[###] Unknown Error"), "HTTP error page (Exception)"),
    ],
)
async def test_trouble_that_stays_is_the_endpoints_and_reported_apart(error, reason):
    model, cache = raising(error), Memory()
    (outcome,) = await outcomes_of(
        candidate(model), [example(1)], Experiment(cache, AT_ONCE)
    )
    assert isinstance(outcome, Unanswered)
    assert (outcome.reason, outcome.infrastructure_error) == (reason, True)
    assert (outcome.reference_passed, outcome.candidate_passed) == (True, False)
    assert len(model.asked) == 4
    assert cache.kept == {}


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the question was Is 1 odd?"),
        IndexError(),
        TypeError(),
        AttributeError(),
        EndpointTroubleError(400),
        EndpointTroubleError(422),
    ],
)
async def test_an_answer_that_cannot_be_read_is_the_candidates_own_failure(error):
    model = raising(error)
    (outcome,) = await outcomes_of(candidate(model), [example(1)])
    assert isinstance(outcome, Unanswered)
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (False, False)
    assert "odd" not in outcome.reason
    assert len(model.asked) == 1


async def test_a_try_has_a_wall_clock_limit():
    model = Stuck()
    settings = Settings(attempts=2, timeout_s=0.01, first_wait_s=0)
    (outcome,) = await outcomes_of(
        candidate(model), [example(1)], Experiment(Memory(), settings)
    )
    assert (outcome.reason, outcome.infrastructure_error) == ("TimeoutError", True)
    assert len(model.asked) == 2


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_ends_the_experiment_without_a_retry(status):
    model = raising(EndpointTroubleError(status))
    asked = candidate(model, base_url="http://u:secret@host:1/v1?k=secret")
    with pytest.raises(EndpointError) as raised:
        await outcomes_of(asked, [example(1)])
    assert len(model.asked) == 1
    assert str(raised.value).startswith("slm: http://host:1/v1 refuses the key")
    assert "odd" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.fields == {"candidate": "slm", "status": status}


async def test_what_was_answered_before_the_end_is_kept():
    model, cache = raising("yes", "no", EndpointTroubleError(401)), Memory()
    settings = Settings(concurrency=1, first_wait_s=0)
    with pytest.raises(EndpointError, match="Answers so far are kept"):
        await outcomes_of(candidate(model), examples(9), Experiment(cache, settings))
    assert len(cache.kept) == 2


async def test_when_one_candidate_ends_the_experiment_no_other_goes_on():
    stuck, bad = Stuck(), raising(EndpointTroubleError(401))
    experiment = Experiment(Memory(), Settings(concurrency=40))
    async with asyncio.timeout(30):
        with pytest.raises(EndpointError):
            await together(
                outcomes_of(candidate(model, name), examples(20), experiment)
                for name, model in (("stuck", stuck), ("bad", bad))
            )
    assert len(stuck.asked) == 20
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_experiment_keeps_what_it_was_answered():
    class Third(FakeChat):
        @override
        async def _agenerate(
            self, messages: Any, *args: Any, **kwargs: Any
        ) -> ChatResult:
            if len(self.asked) == 2:
                reached.set()
                await asyncio.Event().wait()
            return self._generate(messages)

    reached, cache, model = asyncio.Event(), Memory(), Third(reply=lambda _: "yes")
    experiment = Experiment(cache, Settings(concurrency=1))
    running = asyncio.ensure_future(
        outcomes_of(candidate(model), examples(9), experiment)
    )
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(cache.kept) == 2
    again = answering()
    assert len(await outcomes_of(candidate(again), examples(9), Experiment(cache))) == 9
    assert len(again.asked) == 7


# What an exception says


class HttpError(EndpointTroubleError):
    """As ChatOpenAI raises it: with a response."""

    def __init__(self, status_code: int, **headers: str) -> None:
        super().__init__(status_code)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = SimpleNamespace(headers=named)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("nan", 0.0), ("soon", None), ("", None)],
)
def test_seconds_of_retry_after_are_read(header, seconds):
    assert retry_after_s(HttpError(429, retry_after=header)) == seconds


def test_a_date_of_retry_after_is_read():
    late = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    read = retry_after_s(HttpError(429, retry_after=late))
    assert read is not None
    assert 3000 < read <= 3600
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert retry_after_s(HttpError(429, retry_after=past)) == 0
    assert retry_after_s(ValueError()) is None


def waits_s(error: Exception, settings: Settings) -> float:
    experiment = Experiment(Memory(), settings)
    state = RetryCallState(experiment._tries, None, (), {})
    state.set_exception((type(error), error, None))
    return experiment._tries.wait(state)


def test_retry_after_is_honoured_up_to_a_bound():
    settings = Settings(first_wait_s=0, longest_wait_s=30, rate_limit_wait_s=5)
    assert waits_s(HttpError(429, retry_after="12"), settings) == 12
    assert waits_s(HttpError(503, retry_after="12"), settings) == 12
    assert waits_s(HttpError(429, retry_after="9999"), settings) == 30
    assert waits_s(HttpError(429), settings) == 5
    assert waits_s(HttpError(500), settings) == 0


@pytest.mark.parametrize(
    "message",
    [
        "[404] {'message': 'The model `x` does not exist', 'code': 'model_not_found'}",
        "[404] The model `x` does not exist.",
        "Error code: 404 - model 'x' not found",
        "Error code: 404 - Model not found, inaccessible, and/or not deployed",
        "Error code: 404",
        "[404] Unknown Error\nNot Found",
        "[404] Not Found\nFunction 'a': Not found for account 'b'",
    ],
)
def test_a_404_of_the_model_or_the_path_is_hopeless(message):
    error = EndpointTroubleError(404)
    error.args = (message,)
    ended = hopeless(error, SPEC)
    assert ended is not None
    assert str(ended).startswith(
        "slm: http://a/v1 does not know the model 'slm', or nothing is served at that "
        "path; check model and base_url"
    )


@pytest.mark.parametrize(
    "message",
    [
        "[404] {'message': 'model x not found', 'code': 'answer_not_recorded'}",
        "Error code: 404 - No endpoints found that support tool use",
    ],
)
def test_a_404_of_one_request_is_not(message):
    error = EndpointTroubleError(404)
    error.args = (message,)
    assert hopeless(error, SPEC) is None
    assert not is_transient(error)


def test_an_account_without_credit_is_hopeless():
    error = Exception("[429] {'message': 'quota', 'code': 'insufficient_quota'}")
    assert "has no credit" in str(hopeless(error, SPEC))
    assert hopeless(Exception("[429] Too Many Requests"), SPEC) is None


def test_the_remedy_for_a_refused_key_names_its_variable():
    error = EndpointTroubleError(401)
    named = SPEC.model_copy(update={"api_key_env": "MY_KEY"})
    assert "check the key in MY_KEY (HTTP 401" in str(hopeless(error, named))
    assert "name its variable as api_key_env" in str(hopeless(error, SPEC))
    own = SPEC.model_copy(update={"base_url": None})
    assert "slm: the endpoint of openai refuses" in str(hopeless(error, own))


def test_what_is_shown_of_an_exception_quotes_nothing_of_it():
    assert shown(EndpointTroubleError(500)) == "HTTP 500 (EndpointTroubleError)"
    assert shown(ValueError("content")) == "ValueError"


async def test_a_label_that_is_right_but_for_a_blank_is_refused_as_at_run_time():
    model = answering()
    exact = model.reply
    model.reply = lambda messages: f" {exact(messages).content}"
    closed = candidate(model)
    labels = tuple(sorted({each.answer.text for each in examples(4)}))
    binding = closed.binding.model_copy(update={"labels": labels})
    outcomes = await outcomes_of(replace(closed, binding=binding), examples(2))
    assert [each.candidate_passed for each in outcomes] == [False, False]
    assert {each.reason for each in outcomes} == {"label outside the closed set"}
