"""Conversions in process: the only candidates are heads, which need no network."""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from unit_tests.held_out import recorded

from langchain_slm.conversion import Conversion, Options, convert
from langchain_slm.curation import SplitShares
from langchain_slm.errors import (
    MissingExtraError,
    NoCandidatesError,
    NoExamplesError,
    PlanError,
)
from langchain_slm.recording.store import Store, open_store
from langchain_slm.routing.plan_file import read_plan
from langchain_slm.schema import Answer, Call, ModelSpec, Request

REFERENCE = ModelSpec(
    name="ref",
    provider="openai",
    model="ref",
    usd_per_million_input_tokens=1,
    usd_per_million_output_tokens=1,
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/slm.db") as opened:
        yield opened


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "slm-plan.json"


def filled(store: Store, calls: Iterable[Call]) -> Store:
    store.add_many(calls)
    return store


def converted(store: Store, plan: Path, **options: Any) -> Conversion:
    return convert(
        store, [REFERENCE], plan_path=plan, options=Options(**options), created=NOON
    )


def threads(count: int) -> Iterator[Call]:
    return (recorded(number) for number in range(count))


def with_system(call: Call, prompt: str) -> Call:
    messages = ({"role": "system", "content": prompt}, *call.request.messages)
    return call.model_copy(update={"request": Request(messages=messages)})


def saying(call: Call, text: str) -> Call:
    message = {"role": "assistant", "content": text}
    answer = call.answer.model_copy(update={"message": message})
    return call.model_copy(update={"answer": answer})


# The plan


def test_a_head_that_is_proven_is_bound_with_its_labels_and_its_file(store, plan):
    conversion = converted(filled(store, threads(400)), plan)
    (decision,) = conversion.plan.decisions
    assert (decision.site, decision.reference) == ("triage", "ref")
    assert (decision.decision, decision.model) == ("proven", "head")
    assert decision.binding.labels == ("no", "yes")
    assert (plan.parent / decision.binding.artefact.path).is_file()
    assert decision.threshold == 20
    assert decision.chosen.usd_per_correct < decision.chosen.reference_usd_per_correct


def test_the_plan_in_the_file_is_the_plan_returned(store, plan):
    conversion = converted(filled(store, threads(200)), plan)
    assert read_plan(plan) == conversion.plan
    assert conversion.plan.created == "2026-01-01T12:00:00+00:00"
    assert conversion.plan.compared_with == "reference"
    assert conversion.plan.whole_graph == "per node only"


def test_two_conversions_of_one_store_give_one_plan_but_for_its_time(store, plan):
    first = converted(filled(store, threads(300)), plan).plan
    second = convert(store, [REFERENCE], plan_path=plan, options=Options()).plan
    assert second.created != first.created
    same = {"created", "content_hash"}
    assert second.model_dump(exclude=same) == first.model_dump(exclude=same)


def test_the_plan_does_not_depend_on_the_order_in_which_calls_were_stored(tmp_path, plan):
    plans = []
    for name, calls in (("a", threads(300)), ("b", reversed([*threads(300)]))):
        with open_store(f"sqlite:///{tmp_path}/{name}.db") as opened:
            plans.append(converted(filled(opened, calls), plan).plan)
    assert plans[0] == plans[1]


def test_another_seed_draws_other_splits(store, plan):
    filled(store, threads(200))
    first = converted(store, plan, seed=1).dataset
    second = converted(store, plan, seed=2).dataset
    assert (first.seed, second.seed) == (1, 2)
    assert {e.thread_id for e in first.examples if e.split == "test"} != {
        e.thread_id for e in second.examples if e.split == "test"
    }


def test_only_calls_of_the_named_graph_count(store, plan):
    filled(store, threads(200))
    others = (
        recorded(number, call_id=f"x{number}", graph="other", site="elsewhere")
        for number in range(200)
    )
    filled(store, others)
    made = convert(store, [REFERENCE], name="desk", plan_path=plan)
    assert [each.site for each in made.plan.decisions] == ["triage"]
    assert (made.plan.graph, made.dataset.calls) == ("desk", 200)
    everything = convert(store, [REFERENCE], plan_path=plan)
    assert [each.site for each in everything.plan.decisions] == ["elsewhere", "triage"]


def test_progress_names_task_and_candidate(store, plan):
    told: list[tuple[str, str, int, int]] = []
    convert(
        filled(store, threads(200)),
        [REFERENCE],
        plan_path=plan,
        progress=lambda *what: told.append(what),
    )
    assert {(task, name) for task, name, _, _ in told} == {("triage", "head")}
    assert all(0 < done <= most for _, _, done, most in told)


# Tasks


def test_the_tasks_of_a_site_are_decided_apart_and_counted_in_the_bound(store, plan):
    prompts = (
        "You grade parity. Answer yes for odd numbers and no for all the even ones.",
        "Bist du eine Lehrerin? Entscheide ob die Zahl ungerade ist, auf Englisch.",
    )
    filled(
        store,
        (
            with_system(call, prompts[index % 4 < 2])
            for index, call in enumerate(threads(900))
        ),
    )
    made = converted(store, plan)
    tasks = [decision.task for decision in made.plan.decisions]
    assert [task.task_id for task in tasks] == ["triage", "triage~2"]
    assert {task.template for task in tasks} == set(prompts)
    assert [decision.threshold for decision in made.plan.decisions] == [40, 40]
    assert [d.decision for d in made.plan.decisions] == ["proven", "proven"]
    heads = {decision.binding.artefact.path for decision in made.plan.decisions}
    assert len(heads) == 2


def test_of_two_source_models_the_one_with_most_answers_is_replaced(store, plan):
    calls = [
        recorded(number, model="backup") if number % 4 == 0 else recorded(number)
        for number in range(400)
    ]
    made = converted(filled(store, calls), plan, evaluate_all=True)
    (decision,) = made.plan.decisions
    assert decision.reference == "ref"
    assert decision.task.examples == 400
    own = [
        each
        for each in made.dataset.examples
        if (each.model, each.split) == ("ref", "test")
    ]
    assert decision.chosen.n == len(own)


def test_a_site_that_cannot_be_tested_is_kept_beside_one_that_can(store, plan):
    replies = (
        saying(
            recorded(number, call_id=f"r{number}", site="reply"),
            f"Dear customer {number}, thank you for asking about number {number}.",
        )
        for number in range(400)
    )
    made = converted(filled(filled(store, threads(400)), replies), plan)
    reply, triage = made.plan.decisions
    assert (reply.site, reply.decision) == ("reply", "kept")
    assert reply.reason.startswith("not testable: free text")
    assert (triage.decision, triage.threshold) == ("proven", 20)


def test_too_few_threads_prove_nothing_and_say_how_many_would(store, plan):
    made = converted(filled(store, threads(150)), plan)
    (decision,) = made.plan.decisions
    assert decision.decision in {"provisional", "kept"}
    assert decision.needed_n is not None
    assert decision.needed_n > decision.chosen.n


# Where it runs


async def test_it_runs_where_a_loop_is_running_already(store, plan):
    filled(store, threads(200))
    made = converted(store, plan)
    assert read_plan(plan) == made.plan
    await asyncio.sleep(0)


async def test_its_errors_come_through_where_a_loop_is_running(store, plan):
    filled(store, threads(30))
    with pytest.raises(NoCandidatesError):
        converted(store, plan, heads=False)
    assert not plan.exists()


# Bad input


def test_an_empty_store_says_to_record_first(store, plan):
    with pytest.raises(NoExamplesError) as raised:
        converted(store, plan)
    assert str(raised.value) == (
        "the store holds no calls: nothing to decide with; record the graph first with "
        "`langchain-slm record`"
    )
    filled(store, threads(3))
    with pytest.raises(NoExamplesError, match="no calls of graph 'other'"):
        convert(store, [REFERENCE], name="other", plan_path=plan)


def test_a_store_of_failures_says_what_was_dropped(store, plan):
    failed = recorded(1, answer=None, error="RateLimitError")
    empty = saying(recorded(2), " ")
    cut = recorded(3)
    cut = cut.model_copy(
        update={"answer": Answer(message={"content": "y"}, finish_reason="length")}
    )
    filled(store, [failed, empty, cut])
    with pytest.raises(NoExamplesError) as raised:
        converted(store, plan)
    assert "holds 3 calls, dropped: 1 empty, 1 error, 1 truncated" in str(raised.value)
    assert not plan.exists()


def test_a_catalogue_of_the_reference_alone_leaves_no_candidate(store, plan):
    plan.write_text("an earlier plan")
    filled(store, threads(100))
    with pytest.raises(NoCandidatesError, match="the catalogue names only the reference"):
        converted(store, plan, heads=False)
    with pytest.raises(NoCandidatesError):
        convert(store, [], plan_path=plan, options=Options(heads=False))
    assert plan.read_text() == "an earlier plan"


def test_without_scikit_learn_it_says_what_to_install_and_writes_nothing(
    store, plan, monkeypatch
):
    for module in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    filled(store, threads(200))
    with pytest.raises(MissingExtraError, match="langchain-slm"):
        converted(store, plan)
    assert [
        path.name for path in plan.parent.iterdir() if "slm.db" not in path.name
    ] == []


def test_a_place_where_no_plan_can_be_written_is_refused_first(store, tmp_path):
    filled(store, threads(200))
    with pytest.raises(PlanError, match="does not exist; create it"):
        converted(store, tmp_path / "nowhere" / "slm-plan.json")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(PlanError, match="is a folder; name a file"):
        converted(store, tmp_path)


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": 1.0}, {"alpha": 0.0}])
def test_rates_that_promise_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"margin and alpha must be in \(0, 1\)"):
        Options(**wrong)


def test_a_split_without_test_threads_decides_nothing(store, plan):
    shares = SplitShares(train=0.5, validation=0.5, test=0)
    (decision,) = converted(
        filled(store, threads(200)), plan, split=shares
    ).plan.decisions
    assert decision.reason == "not testable: no held-out example; record more threads"
