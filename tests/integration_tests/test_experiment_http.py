"""Experiments against endpoints on loopback that misbehave, through the real clients."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from integration_tests.clients import close_clients
from integration_tests.misbehaving import (
    Misbehaving,
    Reply,
    completion,
    one_after_the_other,
    refusal,
)
from unit_tests.held_out import REFERENCE, TASK, Memory, example, examples

from langchain_slm.errors import EndpointError
from langchain_slm.evaluation.evaluators import Evaluator, evaluator_for
from langchain_slm.evaluation.experiment import (
    Candidate,
    Experiment,
    Settings,
    Unanswered,
    together,
)
from langchain_slm.evaluation.trouble import retry_after_s
from langchain_slm.routing.targets import chat_model
from langchain_slm.schema import Binding, Example, ModelSpec, Outcome

AT_ONCE = Settings(first_wait_s=0, rate_limit_wait_s=0, timeout_s=30)
BOTH = pytest.mark.parametrize("provider", ["openai", "nvidia"])


def judge(each: Example) -> Evaluator:
    evaluator = evaluator_for(each, TASK)
    assert evaluator is not None
    return evaluator


@asynccontextmanager
async def candidate_at(
    url: str, provider: str, name: str = "slm"
) -> AsyncIterator[Candidate]:
    spec = ModelSpec(
        name=name,
        provider=provider,
        model="slm",
        base_url=url,
        api_key_env="SLM_TEST_KEY",
        usd_per_million_input_tokens=1,
        usd_per_million_output_tokens=1,
    )
    model = chat_model(spec)
    try:
        yield Candidate(name, Binding(model=spec), model)
    finally:
        await close_clients(model)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_TEST_KEY", "sk-canary")


async def outcomes_of(
    url: str,
    provider: str,
    listed: list[Example],
    experiment: Experiment | None = None,
) -> list[Outcome]:
    experiment = experiment or Experiment(Memory(), AT_ONCE)
    async with candidate_at(url, provider) as asked:
        return await experiment.run(
            asked, listed, reference=REFERENCE, evaluator_of=judge
        )


@BOTH
async def test_a_well_behaved_endpoint_is_asked_each_question_once(provider):
    with Misbehaving(lambda *_: completion()) as endpoint:
        outcomes = await outcomes_of(endpoint.url, provider, examples(30))
        assert [o.candidate_passed for o in outcomes] == [False, True] * 15
        assert [o.usd for o in outcomes] == pytest.approx([11e-6] * 30)
        assert len(endpoint.asked) == 30
        assert set(endpoint.keys) == {"Bearer sk-canary"}


TROUBLE = {
    "429": refusal(429, "rate_limit_exceeded"),
    "429 with a hint": refusal(429, Retry_After="0"),
    "500": refusal(500),
    "page of a gateway": Reply("<html>busy</html>", 503),
    "reset": Reply(),
    "cut off": Reply('{"id": "c1", ', cut=True),
}


@BOTH
@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
async def test_trouble_that_stays_counts_as_lost_to_the_endpoint(provider, trouble):
    experiment = Experiment(Memory(), AT_ONCE)
    with Misbehaving(lambda *_: trouble) as endpoint:
        (outcome,) = await outcomes_of(endpoint.url, provider, [example(1)], experiment)
        assert len(endpoint.asked) == 4
    assert isinstance(outcome, Unanswered)
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (False, True)
    assert experiment.counters.retried == 3
    assert "canary" not in outcome.reason


@BOTH
@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
async def test_trouble_that_passes_costs_nothing_but_tries(provider, trouble):
    replies = one_after_the_other(trouble, trouble, completion())
    with Misbehaving(replies) as endpoint:
        (outcome,) = await outcomes_of(endpoint.url, provider, [example(1)])
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (True, False)


async def test_the_wait_that_an_endpoint_asks_for_is_read_from_its_answer():
    """ChatNVIDIA does not pass headers on."""
    with Misbehaving(lambda *_: refusal(429, Retry_After="7")) as endpoint:
        async with candidate_at(endpoint.url, "openai") as asked:
            with pytest.raises(Exception, match="429") as raised:
                await asked.model.ainvoke("Is 1 odd?")
        assert len(endpoint.asked) == 1  # the client itself does not retry
    assert retry_after_s(raised.value) == 7


@BOTH
async def test_an_endpoint_that_is_silent_is_left_after_the_time_out(provider):
    released = threading.Event()

    def silent(*_: object) -> Reply:
        released.wait(30)
        return completion()

    settings = Settings(attempts=2, timeout_s=0.2, first_wait_s=0)
    with Misbehaving(silent) as endpoint:
        experiment = Experiment(Memory(), settings)
        (outcome,) = await outcomes_of(endpoint.url, provider, [example(1)], experiment)
        assert len(endpoint.asked) == 2
        released.set()
    assert (outcome.reason, outcome.infrastructure_error) == ("TimeoutError", True)


MALFORMED = {
    "HTML": Reply("<html>welcome</html>"),
    "no choices": completion(choices=[]),
    "null choices": completion(choices=None),
    "an error in a 200": Reply({"error": {"message": "sk-canary", "code": 500}}),
    "a list": Reply([]),
    "half a completion": Reply({"id": "c1", "object": "chat.completion"}),
}


@BOTH
@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_body_is_the_candidates_own_failure(provider, malformed):
    cache = Memory()
    with Misbehaving(lambda *_: malformed) as endpoint:
        (outcome,) = await outcomes_of(
            endpoint.url, provider, [example(1)], Experiment(cache, AT_ONCE)
        )
        assert len(endpoint.asked) == 1
    assert isinstance(outcome, Unanswered)
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (False, False)
    assert "canary" not in outcome.reason
    assert cache.kept == {}


@BOTH
async def test_a_completion_without_a_message_fails(provider):
    choice = {"index": 0, "finish_reason": "stop", "message": None}
    with Misbehaving(lambda *_: completion(choices=[choice])) as endpoint:
        (outcome,) = await outcomes_of(endpoint.url, provider, [example(1)])
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (False, False)


@BOTH
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_ends_it_at_once_and_is_not_shown(provider, status):
    with Misbehaving(lambda *_: refusal(status, "invalid_api_key")) as endpoint:
        with pytest.raises(EndpointError) as raised:
            await outcomes_of(endpoint.url, provider, [example(1)])
        assert len(endpoint.asked) == 1
    message = str(raised.value)
    assert message.startswith(f"slm: {endpoint.url} refuses the key")
    assert "check the key in SLM_TEST_KEY" in message
    assert f"HTTP {status}" in message
    assert "canary" not in f"{message} {raised.value.fields}"


UNKNOWN = {
    "OpenAI": refusal(404, "model_not_found"),
    "vLLM": Reply(
        {
            "object": "error",
            "message": "The model `slm` does not exist.",
            "type": "NotFoundError",
            "code": 404,
        },
        404,
    ),
    "Ollama": Reply({"error": {"message": "model 'slm' not found", "code": None}}, 404),
    "NVIDIA": Reply(
        {"status": 404, "title": "Not Found", "detail": "Function 'a': Not found"}, 404
    ),
    "a wrong path": Reply({"detail": "Not Found"}, 404),
}


@BOTH
@pytest.mark.parametrize("unknown", UNKNOWN.values(), ids=UNKNOWN)
async def test_an_unknown_model_ends_it_and_says_what_to_correct(provider, unknown):
    with Misbehaving(lambda *_: unknown) as endpoint:
        with pytest.raises(EndpointError) as raised:
            await outcomes_of(endpoint.url, provider, [example(1)])
        assert len(endpoint.asked) == 1
    assert f"slm: {endpoint.url} does not know the model 'slm'" in str(raised.value)
    assert "check model and base_url in the catalogue" in str(raised.value)


@BOTH
async def test_a_404_of_one_question_is_the_candidates_failure(provider):
    with Misbehaving(lambda *_: refusal(404, "question_not_recorded")) as endpoint:
        (outcome,) = await outcomes_of(endpoint.url, provider, [example(1)])
        assert len(endpoint.asked) == 1
    assert (outcome.candidate_passed, outcome.infrastructure_error) == (False, False)
    assert outcome.reason.startswith("HTTP 404 (")


@BOTH
async def test_an_endpoint_that_nobody_listens_on_ends_it_after_the_tries(provider):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    experiment = Experiment(Memory(), AT_ONCE)
    with pytest.raises(EndpointError) as raised:
        await outcomes_of(url, provider, [example(1)], experiment)
    assert f"slm: {url} cannot be reached; start the endpoint or correct base_url" in (
        str(raised.value)
    )
    assert experiment.counters.retried == 3


@BOTH
async def test_an_endpoint_that_goes_away_loses_no_answer(provider):
    cache = Memory()
    settings = Settings(concurrency=1, first_wait_s=0)
    endpoint = Misbehaving(lambda *_: completion())
    stopped = asyncio.Event()
    with endpoint:
        async with candidate_at(endpoint.url, provider) as asked:

            def stop_after_five(_: str, done: int, __: int) -> None:
                if done == 5:
                    stopped.set()
                    endpoint.reply = lambda *_: refusal(401)

            with pytest.raises(EndpointError):
                await Experiment(cache, settings).run(
                    asked,
                    examples(20),
                    reference=REFERENCE,
                    evaluator_of=judge,
                    progress=stop_after_five,
                )
        assert stopped.is_set()
        assert len(cache.kept) == 5
        endpoint.reply = lambda *_: completion()
        again = Experiment(cache, settings)
        assert len(await outcomes_of(endpoint.url, provider, examples(20), again)) == 20
        assert (again.counters.cached, again.counters.asked) == (5, 15)


@BOTH
async def test_no_more_calls_are_in_flight_than_allowed_over_all_candidates(provider):
    gate = threading.Barrier(4)

    def together_with_others(*_: object) -> Reply:
        gate.wait(30)  # four at a time, or it would not go on
        return completion()

    experiment = Experiment(Memory(), Settings(concurrency=4))
    with Misbehaving(together_with_others) as endpoint:
        async with (
            candidate_at(endpoint.url, provider, "one") as one,
            candidate_at(endpoint.url + "/", provider, "two") as two,
        ):
            await together(
                experiment.run(each, examples(8), reference=REFERENCE, evaluator_of=judge)
                for each in (one, two)
            )
        assert (len(endpoint.asked), endpoint.most_in_flight) == (16, 4)


def test_connections_are_kept_within_an_experiment_and_none_between_two():
    """A pool that outlives its event loop would fail with "Event loop is closed"."""
    settings = Settings(concurrency=2, attempts=1)
    with Misbehaving(lambda *_: completion()) as endpoint:
        for _ in range(3):
            experiment = Experiment(Memory(), settings)
            outcomes = asyncio.run(
                outcomes_of(endpoint.url, "openai", examples(10), experiment)
            )
            assert not any(isinstance(each, Unanswered) for each in outcomes)
        assert len(endpoint.asked) == 30
        assert endpoint.connections <= 6


LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "found", "schema": {"type": "object", "properties": {}}},
}


@BOTH
async def test_tools_with_a_response_format_are_asked_as_a_router_asks_them(provider):
    asked_for = example(1)
    request = asked_for.request.model_copy(
        update={"tools": (LOOK,), "response_format": SCHEMA}
    )
    listed = [asked_for.model_copy(update={"request": request})]
    with Misbehaving(lambda *_: completion()) as endpoint:
        (outcome,) = await outcomes_of(endpoint.url, provider, listed)
        (asked,) = endpoint.asked
    assert not outcome.infrastructure_error
    assert asked["tools"][0]["function"]["name"] == "look"
