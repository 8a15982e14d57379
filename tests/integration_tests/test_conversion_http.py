"""Conversions over HTTP: killed, interrupted, repeated, and in trouble."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration_tests.converting import IN_FLIGHT, catalogue, converted
from integration_tests.misbehaving import (
    Body,
    Misbehaving,
    Reply,
    completion,
    refusal,
)
from unit_tests.held_out import recorded, right_answer, truth_of

from langchain_slm.errors import CatalogError, EndpointError
from langchain_slm.evaluation.evaluators import Verdict
from langchain_slm.evaluation.experiment import Settings
from langchain_slm.recording.store import open_store
from langchain_slm.routing.plan_file import read_plan
from langchain_slm.schema import Answer, Call, Example

TESTS = Path(__file__).parents[1]
THREADS = 120


def question_of(body: Body) -> str:
    return str(body["messages"][-1]["content"])


def right(_: int, body: Body) -> Reply:
    return completion(right_answer(int(question_of(body).split()[1])))


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/slm.db"
    with open_store(url) as opened:
        opened.add_many(recorded(number) for number in range(THREADS))
    return url


class Halting:
    """Answers so many questions rightly, then holds back all others."""

    def __init__(self, answered: int) -> None:
        self.answered = answered
        self.halted = threading.Event()
        self.goes_on = threading.Event()

    def __call__(self, number: int, body: Body) -> Reply:
        if number >= self.answered + IN_FLIGHT:
            self.halted.set()
        if number > self.answered:
            self.goes_on.wait(30)
        return right(number, body)


@contextmanager
def conversion_of_its_own(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-m", "integration_tests.converting", *arguments]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_a_conversion_that_was_ended_pays_again_only_for_what_was_in_flight(
    tmp_path, store, ended_by
):
    plan, halting = tmp_path / "slm-plan.json", Halting(answered=30)
    with Misbehaving(halting) as endpoint:
        with conversion_of_its_own(store, endpoint.url, str(plan)) as process:
            assert halting.halted.wait(60)
            process.send_signal(ended_by)
            assert process.wait(60) != 0
        assert not plan.exists()
        halting.goes_on.set()
        endpoint.reply = right
        conversion = converted(store, catalogue(endpoint.url), str(plan))
        paid = Counter(map(question_of, endpoint.asked))
    (decision,) = conversion.plan.decisions
    assert (decision.decision, decision.model) == ("proven", "slm")
    assert conversion.counters.cached == 30
    assert len(paid) == decision.chosen.n == 100
    assert sum(paid.values()) == 100 + IN_FLIGHT


def test_conversions_in_one_process_share_an_endpoint_without_failures(tmp_path, store):
    """Connections that one event loop left behind do not trouble the next."""
    plan = str(tmp_path / "slm-plan.json")
    with Misbehaving(right) as endpoint:
        for seed in range(3):
            again = f"sqlite:///{tmp_path}/{seed}.db"
            with open_store(again) as opened:
                opened.add_many(recorded(number) for number in range(THREADS))
            conversion = converted(again, catalogue(endpoint.url), plan)
            assert conversion.counters.retried == 0
            assert conversion.plan.decisions[0].chosen.infrastructure_errors == 0
        assert len(endpoint.asked) == 300


@pytest.mark.parametrize("provider", ["openai", "nvidia"])
def test_an_endpoint_error_in_the_middle_leaves_the_plan_and_the_answers(
    tmp_path, store, provider
):
    plan = tmp_path / "slm-plan.json"
    plan.write_text("an earlier plan")

    def halfway(number: int, body: Body) -> Reply:
        return right(number, body) if number <= 25 else refusal(401)

    with Misbehaving(halfway) as endpoint:
        one = Settings(concurrency=1)
        with pytest.raises(EndpointError, match="refuses the key"):
            converted(store, catalogue(endpoint.url, provider), str(plan), settings=one)
        assert plan.read_text() == "an earlier plan"
        assert [path.name for path in tmp_path.iterdir() if "plan" in path.name] == [
            "slm-plan.json"
        ]
        endpoint.reply = right
        conversion = converted(store, catalogue(endpoint.url, provider), str(plan))
    assert conversion.counters.cached == 25
    assert read_plan(plan) == conversion.plan


def test_failures_of_the_endpoint_do_not_end_a_conversion_and_are_named(tmp_path, store):
    with Misbehaving(lambda *_: refusal(503)) as endpoint:
        plan = converted(
            store, catalogue(endpoint.url), str(tmp_path / "slm-plan.json")
        ).plan
    (decision,) = plan.decisions
    assert decision.decision == "kept"
    assert decision.chosen.infrastructure_errors == decision.chosen.n == 20
    assert "20 of 20 failures: HTTP 503 (OpenAIAPIError)" in decision.reason
    assert "canary" not in plan.model_dump_json()


def test_the_reference_needs_no_key_and_is_never_asked(tmp_path, store, monkeypatch):
    monkeypatch.delenv("NOT_NEEDED", raising=False)
    with Misbehaving(right) as endpoint:
        converted(store, catalogue(endpoint.url), str(tmp_path / "slm-plan.json"))
        assert {body["model"] for body in endpoint.asked} == {"slm"}


def test_a_missing_key_of_a_candidate_is_told_before_anything_is_asked(
    tmp_path, store, monkeypatch
):
    monkeypatch.delenv("SLM_TEST_KEY", raising=False)
    with Misbehaving(right) as endpoint:
        models = catalogue(endpoint.url, api_key_env="SLM_TEST_KEY")
        with pytest.raises(CatalogError, match="SLM_TEST_KEY is not set"):
            converted(store, models, str(tmp_path / "slm-plan.json"))
        assert endpoint.asked == []


class Echo:
    """A user's evaluator: a reply must name the number."""

    name = "echo"

    def evaluate(self, example: Example, answer: Answer) -> Verdict:
        number = str(example.request.messages[-1]["content"]).split()[1]
        found = number in answer.text
        return Verdict(passed=found, score=float(found), reason="looked")


def echoing(_: int, body: Body) -> Reply:
    return completion(f"Dear customer, about {question_of(body)}")


def test_a_users_evaluator_decides_its_site_and_no_other(tmp_path):
    url = f"sqlite:///{tmp_path}/slm.db"
    with open_store(url) as opened:
        for site in ("reply", "letter"):
            opened.add_many(
                free_text(number, site=site, call_id=f"{site}{number}")
                for number in range(THREADS)
            )
    with Misbehaving(echoing) as endpoint:
        plan = converted(
            url,
            catalogue(endpoint.url),
            str(tmp_path / "slm-plan.json"),
            evaluators={"reply": Echo()},
        ).plan
    letter, reply = plan.decisions
    assert (reply.site, reply.decision, reply.model) == ("reply", "proven", "slm")
    assert (letter.site, letter.decision) == ("letter", "kept")
    assert letter.reason.startswith("not testable: free text")
    assert reply.threshold == 20  # one task is tried


def free_text(number: int, **changed: object) -> Call:
    call = recorded(number, **changed)
    message = {"role": "assistant", "content": f"You ask about {number}, dear {number}."}
    answer = call.answer.model_copy(update={"message": message})
    return call.model_copy(update={"answer": answer})


def test_right_answers_judge_both_and_the_plan_says_so(tmp_path, store):
    truth = {recorded(n).request.key: truth_of(n) for n in range(THREADS)}
    with Misbehaving(right) as endpoint:
        labelled = converted(
            store, catalogue(endpoint.url), str(tmp_path / "slm-plan.json"), truth=truth
        ).plan
        assert labelled.compared_with == "truth"
        assert labelled.decisions[0].decision == "proven"
        half = dict(list(truth.items())[:60])
        partly = converted(
            store, catalogue(endpoint.url), str(tmp_path / "slm-plan.json"), truth=half
        ).plan
    assert partly.compared_with == "reference"


def test_where_the_reference_is_wrong_the_truth_favours_who_is_right(tmp_path):
    url = f"sqlite:///{tmp_path}/slm.db"
    with open_store(url) as opened:
        for number in range(THREADS):
            call = recorded(number)
            wrong = recorded(number + 1).answer if number % 3 == 0 else call.answer
            opened.add(call.model_copy(update={"answer": wrong}))
    truth = {recorded(n).request.key: truth_of(n) for n in range(THREADS)}
    with Misbehaving(right) as endpoint:
        how = {"evaluate_all": True, "truth": truth}
        plan = converted(
            url, catalogue(endpoint.url), str(tmp_path / "slm-plan.json"), **how
        ).plan
    (decision,) = plan.decisions
    assert decision.chosen.n == THREADS
    assert (decision.chosen.candidate_only, decision.chosen.reference_only) == (40, 0)


def test_ctrl_c_in_a_notebook_ends_what_is_in_flight(tmp_path, store):
    """There a loop runs already, and the conversion in a thread of its own."""
    halting = Halting(answered=30)

    async def cell() -> None:
        converted(store, catalogue(endpoint.url), str(tmp_path / "slm-plan.json"))

    def interrupt() -> None:
        halting.halted.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    loop = asyncio.new_event_loop()
    with Misbehaving(halting) as endpoint:
        waiting = threading.Thread(target=interrupt)
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
        loop.close()
        waiting.join()
        assert len(endpoint.asked) == 30 + IN_FLIGHT
        halting.goes_on.set()
        endpoint.reply = right
        plan = str(tmp_path / "slm-plan.json")
        assert converted(store, catalogue(endpoint.url), plan).counters.cached == 30


def test_the_answers_of_one_conversion_serve_another_with_other_names_and_prices(
    tmp_path, store
):
    with Misbehaving(right) as endpoint:
        first = converted(store, catalogue(endpoint.url), str(tmp_path / "a.json"))
        models = catalogue(
            endpoint.url, name="renamed", usd_per_million_input_tokens=0.01
        )
        second = converted(store, models, str(tmp_path / "b.json"))
        assert len(endpoint.asked) == first.counters.asked == 100
    assert second.counters.asked == 0
    assert second.plan.decisions[0].model == "renamed"
