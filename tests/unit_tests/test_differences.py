"""How a graph, or the calls of it, differ from what a plan was made for."""

from unit_tests.planned import decision, kept, plan, task

from langchain_slm.rewriting.differences import untested_calls
from langchain_slm.schema import Call, Request

GRADE = "You grade the answers of a student and say pass or fail."
POEM = "Write poems about the sea in the manner of Rilke."
GRADED = task("node", site="node", template=GRADE)
MADE = plan(decision("node", task=GRADED), kept("other"))


def call(text, site="node", **more):
    messages = ({"role": "system", "content": text}, {"role": "user", "content": "Q"})
    return Call(
        call_id="1",
        trace_id="1",
        thread_id="1",
        graph="g",
        site=site,
        model="ref",
        provider="openai",
        request=Request(messages=messages, **more),
    )


def test_calls_as_they_were_tested_are_no_difference():
    assert untested_calls(MADE, [call(GRADE)] * 3) == []
    assert untested_calls(MADE, []) == []


def test_another_prompt_is_told_with_how_often():
    (told,) = untested_calls(MADE, [call(GRADE), call(POEM), call(POEM)])
    assert told.startswith(
        "site 'node': 2 of the last 3 recorded calls belong to no task"
    )


def test_other_tools_are_told():
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    (told,) = untested_calls(MADE, [call(GRADE, tools=(tool,))])
    assert "1 of the last 1 recorded calls" in told


def test_only_the_last_hundred_calls_count():
    calls = [*[call(POEM)] * 50, *[call(GRADE)] * 100]
    assert untested_calls(MADE, calls) == []
    assert "50 of the last 100" in untested_calls(MADE, calls[::-1])[0]


def test_sites_that_keep_their_model_may_change():
    assert untested_calls(MADE, [call(POEM, "other"), call(POEM, "new")]) == []


def test_agents_of_a_bound_tool_node_are_compared_with_its_tasks():
    agents = plan(
        decision("t/model", task=task("t/model", site="t/model", template=GRADE))
    )
    (told,) = untested_calls(agents, [call(POEM, "t/model:writer")])
    assert told.startswith("site 't/model'")


def test_a_site_decided_without_tasks_cannot_differ_in_its_calls():
    assert untested_calls(plan(decision("node")), [call(POEM)]) == []
