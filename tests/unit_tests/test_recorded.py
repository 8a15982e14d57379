import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from langchain_slm.errors import NoCandidatesError, SuiteError
from langchain_slm.evaluation.recorded import (
    agreement,
    as_json,
    decide_suite,
    judged,
    recorded_flags,
)
from langchain_slm.recording.interchange import Case, Response, Suite, read_suite
from langchain_slm.schema import Answer, Expected, ModelSpec, Usage

RULE = {"margin": 0.05, "alpha": 0.05}
USAGE = Usage(input_tokens=10, output_tokens=1)


def case(number: int, *, node: str = "triage", thread: str | None = None) -> Case:
    return Case(
        id=f"{node}{number}",
        node=node,
        thread=thread or f"{node}{number}",
        messages=({"role": "user", "content": f"Question {number}"},),
        expected=Expected(grader="label", reference={"label": "yes"}),
    )


def said(text: str = "yes", *, passed: bool | None = None) -> Response:
    message = {"role": "assistant", "content": text}
    return Response(answer=Answer(message=message, usage=USAGE), passed=passed)


def suite(
    cases: list[Case], answers: Mapping[str, Mapping[str, Response]], **usd: float | None
) -> Suite:
    models = {
        name: ModelSpec(
            name=name,
            provider="openai",
            model=name,
            usd_per_million_input_tokens=usd.get(name, 1.0),
            usd_per_million_output_tokens=usd.get(name, 1.0),
        )
        for name in answers
    }
    return Suite(
        name="made",
        cases=tuple(cases),
        responses={name: dict(given) for name, given in answers.items()},
        models=models,
    )


def all_right(cases: list[Case]) -> dict[str, Response]:
    return {each.id: said() for each in cases}


def test_each_node_of_a_suite_is_decided_against_all_candidates_and_nodes(made_suite):
    read = read_suite(made_suite)
    weather, orders = decide_suite(
        read, reference="ref-large", flags=judged(read), **RULE
    )
    assert (weather.site, weather.decision, weather.model) == (
        "weather",
        "proven",
        "slm-good",
    )
    assert (orders.site, orders.decision, orders.model) == ("orders", "kept", "ref-large")
    assert weather.threshold == orders.threshold == 3 * 2 / 0.05
    assert {each.candidate for each in weather.others} == {"slm-mixed", "slm-poor"}


def test_a_decision_does_not_depend_on_the_order_of_the_cases(made_suite):
    read = read_suite(made_suite)
    turned = read.model_copy(update={"cases": read.cases[::-1]})
    one = decide_suite(read, reference="ref-large", flags=judged(read), **RULE)
    two = decide_suite(turned, reference="ref-large", flags=judged(turned), **RULE)
    assert one == two[::-1]


def test_a_case_that_a_candidate_never_answered_is_lost_and_free():
    cases = [case(number) for number in range(40)]
    some = all_right(cases[:30])
    made = suite(cases, {"ref": all_right(cases), "slm": some}, slm=0.5)
    (decision,) = decide_suite(made, reference="ref", flags=judged(made), **RULE)
    assert decision.chosen is not None
    assert (decision.chosen.n, decision.chosen.reference_only) == (40, 10)
    assert decision.chosen.infrastructure_errors == 10
    assert decision.chosen.usd_per_correct == pytest.approx(11 * 0.5 / 1e6)


def test_a_case_that_the_reference_never_answered_is_no_pair():
    cases = [case(number) for number in range(40)]
    made = suite(cases, {"ref": all_right(cases[:25]), "slm": all_right(cases)})
    (decision,) = decide_suite(made, reference="ref", flags=judged(made), **RULE)
    assert decision.chosen is not None
    assert decision.chosen.n == 25


def test_a_failed_call_is_lost_at_an_unknown_cost():
    cases = [case(number) for number in range(30)]
    failed = {**all_right(cases), "triage0": Response(answer=None, error="overloaded")}
    made = suite(cases, {"ref": all_right(cases), "slm": failed}, slm=0.5)
    (decision,) = decide_suite(made, reference="ref", flags=judged(made), **RULE)
    assert decision.decision == "kept"
    assert "unknown cost of the candidate" in decision.reason


def test_an_unpriced_model_is_never_bound():
    cases = [case(number) for number in range(200)]
    answers = {"ref": all_right(cases), "slm": all_right(cases)}
    priced = suite(cases, answers, slm=0.5)
    unpriced = suite(cases, answers, slm=None)
    (one,) = decide_suite(priced, reference="ref", flags=judged(priced), **RULE)
    (two,) = decide_suite(unpriced, reference="ref", flags=judged(unpriced), **RULE)
    assert (one.decision, two.decision) == ("proven", "kept")


def test_a_thread_is_one_pair_of_a_node_however_many_cases_it_has():
    """Or ten correlated cases of each thread would pass for ten times the evidence."""
    cases = [case(number, thread=f"t{number // 10}") for number in range(200)]
    cases += [case(number, node="reply", thread="t1") for number in range(3)]
    made = suite(cases, {"ref": all_right(cases), "slm": all_right(cases)}, slm=0.5)
    triage, reply = decide_suite(made, reference="ref", flags=judged(made), **RULE)
    assert triage.chosen is not None
    assert reply.chosen is not None
    assert (triage.chosen.n, reply.chosen.n) == (20, 1)
    assert triage.decision != "proven"


def test_a_suite_without_the_reference_says_which_models_it_has():
    cases = [case(1)]
    made = suite(cases, {"b": all_right(cases), "a": all_right(cases)})
    with pytest.raises(SuiteError, match="has no answers of 'x'; give one of: a, b"):
        decide_suite(made, reference="x", flags=judged(made), **RULE)


def test_a_suite_of_the_reference_alone_leaves_nothing_to_choose():
    cases = [case(1)]
    made = suite(cases, {"ref": all_right(cases)})
    with pytest.raises(NoCandidatesError, match="has answers of 'ref' only"):
        decide_suite(made, reference="ref", flags=judged(made), **RULE)


def test_our_evaluators_judge_every_answer_and_a_missing_one_fails():
    cases = [case(1), case(2)]
    answers = {"triage1": said("no"), "triage2": Response(answer=None, error="x")}
    made = suite(cases, {"ref": all_right(cases), "slm": answers})
    assert judged(made) == {
        "ref": {"triage1": True, "triage2": True},
        "slm": {"triage1": False, "triage2": False},
    }


def test_a_case_without_a_right_answer_is_refused_not_counted_as_equal():
    by_agreement = Expected(grader="agreement", reference={})
    odd = case(1).model_copy(update={"expected": by_agreement})
    made = suite([odd], {"ref": all_right([odd])})
    with pytest.raises(SuiteError, match="its grader 'agreement' has no right answer"):
        judged(made)


def test_recorded_flags_are_those_of_the_suite():
    cases = [case(1), case(2)]
    flagged = {"triage1": said(passed=True), "triage2": said(passed=False)}
    assert recorded_flags(suite(cases, {"ref": flagged})) == {
        "ref": {"triage1": True, "triage2": False}
    }


def test_an_answer_without_a_flag_is_named():
    cases = [case(1), case(2)]
    flagged = {"triage1": said(passed=True), "triage2": said()}
    made = suite(cases, {"ref": flagged})
    with pytest.raises(SuiteError, match="1 answers of 'ref' have no recorded flag") as e:
        recorded_flags(made)
    assert e.value.fields == {"model": "ref", "case": "triage2"}


def test_agreement_is_the_share_of_answers_on_which_both_say_the_same():
    cases = [case(number) for number in range(4)]
    flagged = {
        each.id: said("yes" if index < 3 else "no", passed=index < 2)
        for index, each in enumerate(cases)
    }
    made = suite(cases, {"ref": flagged})
    assert agreement(made, judged(made)) == {"ref": 0.75}


def test_the_json_of_select_holds_what_the_issue_asks_for(made_suite: Path):
    read = read_suite(made_suite)
    decisions = decide_suite(read, reference="ref-large", flags=judged(read), **RULE)
    weather = json.loads(json.dumps(as_json(decisions)))["weather"]
    asked = (
        "decision model reason n reference_only candidate_only e_value "
        "reference_pass_rate candidate_pass_rate usd_per_correct "
        "reference_usd_per_correct needed_n"
    )
    assert set(asked.split()) <= weather.keys()
    assert (weather["decision"], weather["model"]) == ("proven", "slm-good")
    assert set(weather["candidates"]) == {"slm-good", "slm-mixed", "slm-poor"}
    assert weather["candidates"]["slm-good"]["n"] == weather["n"]


def test_a_site_that_nobody_was_tried_on_has_no_figures():
    cases = [case(1)]
    made = suite(cases, {"ref": {}, "slm": all_right(cases)})
    decisions = decide_suite(made, reference="ref", flags=judged(made), **RULE)
    site = as_json(decisions)["triage"]
    assert (site["decision"], site["n"], site["e_value"]) == ("kept", None, None)
    assert site["candidates"] == {}
