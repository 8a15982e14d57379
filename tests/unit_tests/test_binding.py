import json
from pathlib import Path

import pytest
from langchain_core.messages import ChatMessage, HumanMessage, SystemMessage
from unit_tests.planned import decision, kept, plan, spec
from unit_tests.routed import BOOK, ask_of, fake

from langchain_slm.clustering import cluster
from langchain_slm.errors import (
    CatalogError,
    MissingExtraError,
    PlanEditedError,
    PlanError,
)
from langchain_slm.routing.binding import MappingGuide, PlanGuide, guide_of
from langchain_slm.routing.dialect import request_of
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.policy import EscalateOnInvalid, NeverEscalate
from langchain_slm.schema import Answer, Artefact, Binding, Example, ModelSpec
from langchain_slm.specialization.heads import Head, HeadChatModel, save_head

REF = fake("large", "ref")
CANCEL = {"type": "function", "function": {"name": "cancel", "parameters": {}}}


def guide(*decisions, folder=Path(), **more):
    return PlanGuide(plan(*decisions, **more), folder=folder)


def ask(*texts: str, source=REF, **options):
    messages = [SystemMessage(text) for text in texts[:-1]] + [HumanMessage(texts[-1])]
    return ask_of(source, *messages, **options)


# Sites and models


def test_a_decided_site_has_a_route():
    route = guide(decision()).route("triage", ask("Hi"))
    assert (route.site, route.name, route.rule) == ("triage", "slm", "proven")
    assert route.target.model_name == "slm"
    assert isinstance(route.policy, EscalateOnInvalid)
    assert route.labels == ()


def test_a_binding_says_how_it_escalates_and_its_labels():
    binding = Binding(model=spec(), labels=("a", "b"), escalation="never")
    route = guide(decision(binding=binding)).route("triage", ask("Hi"))
    assert isinstance(route.policy, NeverEscalate)
    assert route.labels == ("a", "b")


def test_a_kept_or_unknown_site_has_no_route():
    decided = guide(decision(), kept("reply"))
    assert decided.sites == ("triage",)
    assert decided.route("reply", ask("Hi")) is None
    assert decided.route("elsewhere", ask("Hi")) is None


def test_a_backup_model_of_the_app_is_not_redirected():
    decided = guide(decision())
    assert decided.route("triage", ask("Hi", source=fake("", "backup"))) is None
    assert decided.route("triage", ask("Hi", source=fake("", "ref"))) is not None


def test_a_call_that_names_another_model_is_not_redirected():
    decided = guide(decision())
    assert decided.route("triage", ask("Hi", model="gpt-other")) is None
    other = ask("Hi", source=fake("", "other"), model="ref")
    assert decided.route("triage", other) is not None


def test_two_models_of_one_site_are_decided_apart():
    decided = guide(
        decision(model="a", reference="ref"), decision(model="b", reference="r2")
    )
    assert decided.route("triage", ask("Hi")).name == "a"
    assert decided.route("triage", ask("Hi", source=fake("", "r2"))).name == "b"


def test_a_provisional_decision_binds_only_where_the_plan_says_so():
    promising = decision(decision="provisional")
    assert guide(promising).sites == ()
    bound = guide(promising, bind_provisional=True)
    assert bound.sites == ("triage",)
    assert bound.route("triage", ask("Hi")).rule == "provisional"


def test_a_model_bound_at_two_sites_is_made_once():
    labelled = Binding(model=spec(), labels=("a",))
    decided = guide(decision("one"), decision("two", binding=labelled))
    one, two = (decided.route(site, ask("Hi")) for site in ("one", "two"))
    assert one.target is two.target
    assert (one.labels, two.labels) == ((), ("a",))


def test_a_guide_is_told_apart_by_its_plan():
    made, same = plan(decision(), fingerprint="f"), plan(decision(), fingerprint="f")
    other = plan(decision(model="other"), fingerprint="f")
    one, two, three = (PlanGuide(p, folder=Path()) for p in (made, same, other))
    assert one.plan_id == two.plan_id != three.plan_id
    assert one.fingerprint == "f"


# Tasks

GRADE = "You grade the answers of a student and say pass or fail."
PLAN = "You plan the next steps of a project manager, at most five."


def example(index: int, text: str, **options) -> Example:
    asked = ask(text, f"Question {index}", **options)
    return Example(
        example_id=str(index),
        site="agent",
        thread_id=str(index),
        split="train",
        model="ref",
        provider="fake-chat",
        request=request_of(REF, asked.messages, asked.options),
        answer=Answer(message={"role": "assistant", "content": f"Answer {index}"}),
    )


def clustered(*variants: tuple[str, dict]):
    return cluster(
        [
            example(20 * number + index, text, **options)
            for number, (text, options) in enumerate(variants)
            for index in range(20)
        ]
    )


def decided_for(tasks, *active: str):
    """A guide in which the tasks in whose template one of `active` is are bound."""
    return guide(
        *(
            decision("agent", task=t, model=t.task_id, reference="ref")
            if any(word in t.template for word in active)
            else kept("agent", task=t)
            for t in tasks
        )
    )


def test_the_tasks_of_a_site_are_told_apart_by_their_prompt():
    tasks = clustered((GRADE, {}), (PLAN, {}))
    decided = decided_for(tasks, "grade", "plan")
    grade = decided.route("agent", ask(GRADE, "Is it 4?"))
    planned = decided.route("agent", ask(PLAN, "Build a house"))
    assert {grade.name, planned.name} == {"agent", "agent~2"}
    assert decided.sites == ("agent",)


def test_the_tasks_of_a_site_are_told_apart_by_their_tools():
    tasks = clustered(("Help.", {"tools": [BOOK]}), ("Help.", {"tools": [CANCEL]}))
    by_tool = {t.tools[0]: t.task_id for t in tasks}
    decided = decided_for(tasks, "Help")
    for tool, name in ((BOOK, "book"), (CANCEL, "cancel")):
        route = decided.route("agent", ask("Help.", "Rome", tools=[tool]))
        assert route.name == by_tool[name]
    both = ask("Help.", "Rome", tools=[BOOK, CANCEL])
    assert decided.route("agent", both) is None


def test_the_tasks_of_a_site_are_told_apart_by_their_schema():
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
    json_mode = {"type": "json_object"}
    tasks = clustered(
        ("Help.", {"response_format": schema}), ("Help.", {"response_format": json_mode})
    )
    decided = decided_for(tasks, "Help")
    routes = [
        decided.route("agent", ask("Help.", "Rome", response_format=wanted))
        for wanted in (schema, json_mode)
    ]
    assert {route.name for route in routes} == {"agent", "agent~2"}
    assert decided.route("agent", ask("Help.", "Rome")) is None


def test_a_call_of_no_task_has_no_route():
    tasks = clustered((GRADE, {}), (PLAN, {}))
    decided = decided_for(tasks, "grade", "plan")
    poem = ask("Write poems about autumn leaves in the manner of Rilke.", "Go")
    assert decided.route("agent", poem) is None
    assert decided.route("agent", ask(GRADE, "Go", tools=[BOOK])) is None


def test_a_call_of_a_kept_task_does_not_pass_for_a_bound_one():
    # Alike enough that without the kept task these would be one.
    strict = "You grade the answers of a student strictly and say pass or fail."
    tasks = clustered((GRADE, {}), (strict.replace("student", "trainee pilot"), {}))
    assert len(tasks) == 2
    grade = next(t for t in tasks if "student" in t.template)
    pilot = next(t for t in tasks if "pilot" in t.template)
    decided = guide(decision("agent", task=grade), kept("agent", task=pilot))
    assert decided.route("agent", ask(grade.template, "Go")) is not None
    assert decided.route("agent", ask(pilot.template, "Go")) is None


@pytest.mark.parametrize(
    "message",
    [
        SystemMessage(GRADE),
        SystemMessage([{"type": "text", "text": GRADE}]),
        ChatMessage(GRADE, role="system"),
        ChatMessage(GRADE, role="developer"),
        SystemMessage(GRADE, additional_kwargs={"__openai_role__": "developer"}),
    ],
)
def test_instructions_of_any_form_tell_the_task(message):
    decided = decided_for(clustered((GRADE, {}), (PLAN, {})), "grade")
    assert decided.route("agent", ask_of(REF, message, HumanMessage("Go"))) is not None


@pytest.mark.parametrize("tool", [object(), {"type": "function", "function": None}])
def test_a_call_that_cannot_be_read_has_no_route(tool):
    decided = decided_for(clustered((GRADE, {})), "grade")
    assert decided.route("agent", ask(GRADE, "Go", tools=[tool])) is None


def test_what_the_source_adds_to_every_call_tells_the_task():
    json_mode = {"response_format": {"type": "json_object"}}
    decided = decided_for(clustered(("Help.", json_mode)), "Help")
    source = fake("", "ref")
    object.__setattr__(source, "model_kwargs", json_mode)
    assert decided.route("agent", ask("Help.", "Go", source=source)) is not None
    assert decided.route("agent", ask("Help.", "Go")) is None


# Heads

HEAD = Head(
    labels=("billing", "shipping"),
    vocabulary=("invoice", "parcel"),
    idf=(1.0, 1.0),
    weights=((9.0, -9.0), (-9.0, 9.0)),
    bias=(0.0, 0.0),
    threshold=0.9,
    trained_on=2,
    training_hash="0",
)
HEAD_SPEC = ModelSpec(name="head", provider="head", model="tfidf-logistic")


def head_decision(artefact: Artefact | None):
    binding = Binding(model=HEAD_SPEC, artefact=artefact, labels=HEAD.labels)
    return decision(model="head", binding=binding)


@pytest.fixture
def saved(tmp_path):
    """A plan file whose head lies in a folder beside it."""
    artefact = save_head(HEAD, tmp_path / "slm-heads")
    artefact = artefact.model_copy(update={"path": f"slm-heads/{artefact.path}"})
    path = tmp_path / "slm-plan.json"
    write_plan(plan(head_decision(artefact)), path)
    return path, tmp_path / artefact.path


def test_a_head_is_loaded_from_beside_its_plan(saved):
    path, _ = saved
    route = guide_of(path).route("triage", ask("My invoice"))
    assert isinstance(route.target, HeadChatModel)
    assert route.target.invoke("My invoice").content == "billing"
    assert (route.name, route.labels) == ("head", ("billing", "shipping"))


def test_a_missing_head_is_refused_before_the_first_call(saved):
    path, artefact = saved
    artefact.unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        guide_of(path)


def test_a_head_that_was_changed_is_refused_before_the_first_call(saved):
    path, artefact = saved
    body = json.loads(artefact.read_text())
    body["labels"] = ["billing", "refund everything"]
    artefact.write_text(json.dumps(body))
    with pytest.raises(PlanError, match=r"has sha256 \w{12}, the plan says"):
        guide_of(str(path))


@pytest.mark.parametrize(
    "form", ["../{}", "{parent}/{}", "slm-heads/../../{}", "link/{}"]
)
def test_a_plan_names_no_file_outside_its_folder(tmp_path, form):
    artefact = save_head(HEAD, tmp_path)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    path = form.format(artefact.path, parent=tmp_path)
    outside = artefact.model_copy(update={"path": path})
    with pytest.raises(PlanError, match="names a file outside its folder"):
        guide(head_decision(outside), folder=folder)


def test_a_head_without_a_file_is_refused():
    with pytest.raises(PlanError, match="the plan names no file of the head"):
        guide(head_decision(None))


# What must not wait for the first call


def test_a_missing_key_is_refused_before_the_first_call(monkeypatch):
    monkeypatch.delenv("SLM_TEST_KEY", raising=False)
    binding = Binding(model=spec(api_key_env="SLM_TEST_KEY"))
    with pytest.raises(CatalogError, match="SLM_TEST_KEY is not set"):
        guide(decision(binding=binding))


def test_a_missing_package_is_refused_before_the_first_call():
    binding = Binding(model=spec(provider="azure_ai"))
    with pytest.raises(MissingExtraError, match="azure_ai"):
        guide(decision(binding=binding))


def test_only_what_is_bound_is_made(monkeypatch):
    monkeypatch.delenv("SLM_TEST_KEY", raising=False)
    binding = Binding(model=spec(api_key_env="SLM_TEST_KEY", base_url="http://evil.test"))
    promising = decision("other", binding=binding, decision="provisional")
    assert guide(decision(), promising).sites == ("triage",)


def test_a_host_that_nobody_allowed_is_refused_before_any_model_is_made(monkeypatch):
    monkeypatch.delenv("SLM_TEST_KEY", raising=False)
    bad = Binding(model=spec("evil", base_url="https://evil.test/v1"))
    keyless = Binding(model=spec(api_key_env="SLM_TEST_KEY"))
    decisions = [decision("a", binding=keyless), decision("b", binding=bad)]
    with pytest.raises(PlanError, match=r"host 'evil\.test'"):
        guide(*decisions)


def test_hosts_can_be_allowed(tmp_path):
    evil = decision(binding=Binding(model=spec(base_url="https://evil.test/v1")))
    allowed = frozenset({"evil.test"})
    assert guide_of(plan(evil), allowed_hosts=allowed).sites == ("triage",)
    write_plan(plan(evil), tmp_path / "slm-plan.json")
    assert guide_of(tmp_path / "slm-plan.json", allowed_hosts=allowed).sites == (
        "triage",
    )
    with pytest.raises(PlanError, match="is not allowed"):
        guide_of(tmp_path / "slm-plan.json")


# Mappings


def test_a_mapping_binds_any_model_called_at_a_site():
    target = fake("small", "slm")
    mapped = guide_of({"triage": target})
    assert isinstance(mapped, MappingGuide)
    for source in (REF, fake("", "backup")):
        route = mapped.route("triage", ask("Hi", source=source))
        assert (route.site, route.name, route.rule) == ("triage", "slm", "mapping")
        assert route.target is target
        assert isinstance(route.policy, EscalateOnInvalid)
    assert mapped.route("reply", ask("Hi")) is None
    assert mapped.sites == ("triage",)
    assert mapped.fingerprint is None


def test_a_mapping_names_any_branch_of_a_node():
    one, other = fake("", "one"), fake("", "other")
    mapped = guide_of({"triage#branch": one, "triage#route": other})
    assert mapped.route("triage#route", ask("Hi")).name == "other"
    assert mapped.route("triage#anything", ask("Hi")).name == "one"
    assert mapped.route("triage", ask("Hi")) is None
    assert mapped.route("reply#route", ask("Hi")) is None


def test_a_mapping_makes_models_of_their_names(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    route = guide_of({"triage": "openai:gpt-small"}).route("triage", ask("Hi"))
    assert route.name == "gpt-small"
    assert route.target.model_name == "gpt-small"


def test_two_mappings_are_never_taken_for_one():
    target = fake()
    assert guide_of({"a": target}).plan_id != guide_of({"a": target}).plan_id


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": None}, "site 'a': NoneType is neither a chat model nor"),
        ({"a": fake().bind(stop=["x"])}, "Binding is neither a chat model nor"),
        ({"a": fake().with_fallbacks([fake()])}, "is neither a chat model nor"),
        ({1: fake()}, "a mapping binds sites by their path, not by a int"),
        ({"a": "gpt-4o"}, "'gpt-4o' is not \"provider:model\""),
    ],
)
def test_a_mapping_of_anything_else_is_refused(mapping, message):
    with pytest.raises(PlanError) as raised:
        guide_of(mapping)
    assert message in str(raised.value)


@pytest.mark.parametrize("value", [3, None, b"plan.json", ["plan.json"], REF])
def test_what_is_no_plan_is_refused(value):
    with pytest.raises(PlanError, match="a plan is a Plan, a path or a mapping"):
        guide_of(value)


def test_a_plan_edited_by_hand_is_refused(tmp_path):
    path = tmp_path / "slm-plan.json"
    write_plan(plan(decision()), path)
    path.write_text(path.read_text().replace('"proven"', '"provisional"'))
    with pytest.raises(PlanEditedError):
        guide_of(path)


# A graph that has changed since


def test_a_model_that_the_plan_decided_to_keep_is_not_warned_of(caplog):
    other = decision(model="other", reference="other", decision="kept", binding=None)
    decided = guide(decision(), other)
    assert decided.route("triage", ask("Hi", source=fake("", "other"))) is None
    assert decided.route("triage", ask("Hi")).name == "slm"
    assert caplog.records == []


def test_a_model_that_the_plan_did_not_decide_on_is_warned_of_once(caplog):
    decided = guide(decision())
    for _ in range(3):
        assert decided.route("triage", ask("Hi", source=fake("", "gpt-new"))) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "site 'triage' calls 'gpt-new', which the plan did not decide on: the reference "
        "answers; convert again"
    )


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("You write poems about the sea for a small magazine.", {}),
        (GRADE, {"tools": [{"type": "function", "function": {"name": "new"}}]}),
        (GRADE, {"response_format": {"type": "json_object"}}),
    ],
)
def test_another_prompt_other_tools_or_another_schema_are_warned_of_once(
    text, options, caplog
):
    decided = decided_for(clustered((GRADE, {})), "grade")
    assert decided.route("agent", ask(GRADE, "Q")) is not None
    for _ in range(3):
        assert decided.route("agent", ask(text, "Q", **options)) is None
    (record,) = caplog.records
    assert record.getMessage() == (
        "site 'agent' has another prompt template, other tools or another schema now: "
        "the reference answers; convert again"
    )


def test_as_many_warnings_as_there_are_names_are_not_given(caplog):
    decided = guide(decision())
    for number in range(300):
        decided.route("triage", ask("Hi", source=fake("", f"made-up-{number}")))
    assert len(caplog.records) == 100


# Agents that a node invokes


def test_an_agent_of_a_node_is_bound_by_its_name_or_with_all_others():
    decided = guide(decision("tools/model", "any"), decision("tools/model:writer", "own"))
    names = {
        site: decided.route(site, ask("Hi")).name
        for site in ("tools/model", "tools/model:writer", "tools/model:other")
    }
    assert names == {
        "tools/model": "any",
        "tools/model:writer": "own",
        "tools/model:other": "any",
    }
    assert decided.bound_name("tools/model:other") == "any"
    assert decided.route("tools:other", ask("Hi")) is None


def test_the_name_of_an_edge_is_not_taken_for_an_agents():
    mapped = guide_of({"node#route": fake("slm", "slm")})
    assert mapped.route("node#route:x", ask("Hi")) is None
