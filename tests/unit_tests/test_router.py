"""What a router binds, explains, counts and reloads, without a graph."""

import copy
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from unit_tests.planned import decision, kept, plan, spec, task
from unit_tests.routed import BOOK, about, ask_of, calling, fake, original

from langchain_slm.errors import CatalogError, PlanEditedError, PlanError
from langchain_slm.routing.asking import Ask
from langchain_slm.routing.counters import Decided
from langchain_slm.routing.dialect import METADATA_KEY
from langchain_slm.routing.limits import Limits, SpendLimit
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.policy import NeverEscalate
from langchain_slm.routing.router import Router
from langchain_slm.schema import Binding, Plan

ASKED = HumanMessage("Where to?")
DOLLARS = Limits(spend=(SpendLimit(usd=1.0),))


def priced(name: str, usd: float = 0.1) -> Binding:
    return Binding(
        model=spec(
            name, usd_per_million_input_tokens=usd, usd_per_million_output_tokens=usd
        )
    )


def unpriced(name: str) -> Binding:
    return Binding(model=spec(name, model="a-model-that-nobody-lists"))


def asked(router: Router, ask: Ask | None = None, site: str = "triage") -> AIMessage:
    """What the app gets at a site, as a ChatRouter gives it."""
    ask = ask or ask_of()
    route = router.route(site, ask) or router.unbound(site)
    message: AIMessage = route.generate(ask, original).generations[0][0].message
    return message


def chosen(router: Router, *messages: BaseMessage, **more: Any) -> str | None:
    """Name of the model that is asked first; None for the app's own."""
    site = more.pop("site", "triage")
    source = more.pop("source", None) or fake("large", "ref")
    route = router.route(site, ask_of(source, *messages, **more))
    return None if route is None else route.name


def in_loop(model: str = "slm", site: str = "triage") -> list[BaseMessage]:
    """A conversation that ends with the result of a tool that `model` called."""
    call = calling(city="Rome")
    call.response_metadata[METADATA_KEY] = {"site": site, "model": model}
    return [ASKED, call, ToolMessage("booked", tool_call_id="call_0")]


def written(path: Path, *decisions: Any, **more: Any) -> Plan:
    return write_plan(plan(*decisions, **more), path)


def reloaded(path: Path, *models: str, **more: Any) -> Router:
    """A router that has seen a plan for each of `models`, one after another."""
    written(path, decision(model=models[0]))
    router = Router(path, **more)
    for model in models[1:]:
        written(path, decision(model=model))
        router.refresh()
    return router


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plan.json"


# What a plan is


def test_a_plan_object_binds_its_sites():
    router = Router(plan(decision("triage"), kept("reply")))

    assert router.sites == ("triage",)
    assert chosen(router) == "slm"
    assert chosen(router, site="reply") is None


def test_a_plan_file_binds_its_sites(path):
    sealed = written(path, decision("triage"))

    router = Router(str(path))

    assert router.plan_id == sealed.content_hash[:12]
    assert chosen(router) == "slm"


def test_a_mapping_binds_its_sites():
    router = Router({"triage": fake()})

    assert router.sites == ("triage",)
    assert chosen(router) == "slm"
    assert chosen(router, site="elsewhere") is None


def test_a_site_of_several_tasks_is_bound_by_task():
    bill, ship = (
        task(name, template=f"You are in charge of {name}.")
        for name in ("bills", "ships")
    )
    router = Router(plan(decision(model="one", task=bill), kept("triage", task=ship)))

    assert chosen(router, SystemMessage("You are in charge of bills."), ASKED) == "one"
    assert chosen(router, SystemMessage("You are in charge of ships."), ASKED) is None
    assert router.explain("triage").models == {"bills": "one"}


@pytest.mark.parametrize("given", [42, None, [("triage", "openai:gpt-4o")]])
def test_what_is_no_plan_is_refused(given):
    with pytest.raises(PlanError, match="a plan is a Plan, a path or a mapping, not a"):
        Router(given)


def test_a_missing_plan_file_is_refused(path):
    with pytest.raises(PlanError, match="no plan can be read there"):
        Router(path)


def test_an_edited_plan_file_is_refused(path):
    written(path, decision())
    path.write_text(path.read_text().replace('"slm"', '"other"'))

    with pytest.raises(PlanEditedError, match="edited after it was written"):
        Router(path)


def test_a_host_that_nobody_allowed_is_refused():
    elsewhere = Binding(model=spec("slm", base_url="https://example.org/v1"))

    with pytest.raises(PlanError, match=r"points at host 'example\.org'"):
        Router(plan(decision(binding=elsewhere)))


def test_a_host_may_be_allowed():
    elsewhere = Binding(model=spec("slm", base_url="https://example.org/v1"))
    allowed = frozenset({"example.org"})

    router = Router(plan(decision(binding=elsewhere)), allowed_hosts=allowed)

    assert chosen(router) == "slm"


def test_a_policy_goes_before_the_plans_own():
    policy = NeverEscalate()
    router = Router(plan(decision()), policy=policy)

    route = router.route("triage", ask_of())

    assert route is not None
    assert route.policy is policy


def test_a_router_is_shared_by_copies():
    router = Router({"triage": fake()})

    assert copy.deepcopy([router]) == [router]
    assert copy.copy(router) is router


def test_a_router_in_another_process_counts_for_itself():
    model = FakeListChatModel(responses=["hi"])
    router = Router({"triage": model}, limits=Limits(max_attempts=2))
    asked(router)

    other = pickle.loads(pickle.dumps(router))  # noqa: S301 - our own

    assert other.sites == ("triage",)
    assert other.engine.limits == Limits(max_attempts=2)
    assert other.counters() == ()


# Explaining


def test_a_bound_site_is_explained_with_its_evidence():
    router = Router(plan(decision("triage")))

    assert str(router.explain("triage")) == (
        f"site 'triage' (plan {router.plan_id})\n"
        "  triage: ref -> slm, proven: as good, and cheaper "
        "(0.960 against 0.950, n=212, E 57.25 of 40)"
    )


def test_a_kept_site_is_explained():
    explained = Router(plan(decision(), kept(reason="too few examples"))).explain("reply")

    assert explained.models == {}
    assert explained.reasons == ("reply: ref kept, kept: too few examples",)


def test_a_site_without_a_binding_is_explained():
    router = Router({"triage": fake()})

    assert str(router.explain("elsewhere")) == (
        f"site 'elsewhere' (plan {router.plan_id})\n"
        "  nothing is bound: the reference answers"
    )


def test_a_mapped_site_is_explained():
    explained = Router({"triage": fake()}).explain("triage")

    assert explained.models == {"": "slm"}
    assert explained.reasons == ("slm: given by the app's mapping",)


def test_a_broken_circuit_is_explained():
    small = fake(ConnectionError("down"))
    router = Router({"triage": small})
    for _ in range(5):
        asked(router)

    explained = router.explain("triage")

    assert explained.circuits == {"slm": "open"}
    assert str(explained).endswith("circuit of slm: open")


# Counting


def test_calls_are_counted_by_site_and_by_the_model_that_answered():
    router = Router({"triage": fake(), "reply": fake(ValueError("no"))})

    for site in ("triage", "triage", "reply", "elsewhere"):
        asked(router, site=site)

    counted = {(row.site, row.model): row for row in router.counters()}
    assert {key: row.calls for key, row in counted.items()} == {
        ("elsewhere", "ref"): 1,
        ("reply", "ref"): 1,
        ("reply", "slm"): 0,  # asked, but the reference answered
        ("triage", "slm"): 2,
    }
    assert counted["reply", "ref"].escalations == {"ValueError": 1}
    assert counted["reply", "slm"].attempts == 1


def test_a_failure_is_counted_by_its_type():
    router = Router({"triage": fake(ValueError("no"))}, policy=NeverEscalate())

    with pytest.raises(ValueError, match="no"):
        asked(router)

    (row,) = router.counters()
    assert (row.calls, row.errors, row.escalations) == (1, {"ValueError": 1}, {})


def test_prices_by_name_say_what_a_call_cost():
    router = Router({"triage": fake("one two")}, prices={"slm": (1.0, 10.0)})

    message = asked(router)

    assert about(message)["usd"] == pytest.approx((2 * 1.0 + 2 * 10.0) / 1e6)
    assert router.counters()[0].usd == pytest.approx(22e-6)


def test_listeners_are_told_of_each_request():
    told: list[Decided] = []
    router = Router({"triage": fake(ValueError("secret"))}, listeners=[told.append])

    asked(router)

    (decided,) = told
    assert (decided.site, decided.model, decided.bound) == ("triage", "ref", "slm")
    assert (decided.escalated, decided.reason) == (True, "ValueError")
    assert decided.asked == {"slm": 1, "ref": 1}


def test_a_listener_that_fails_changes_nothing(caplog):
    told: list[Decided] = []

    def fails(decided: Decided) -> None:
        msg = f"content of {decided.site}"
        raise RuntimeError(msg)

    router = Router({"triage": fake()}, listeners=[fails, told.append])

    assert asked(router).text == "small"
    assert len(told) == 1
    assert caplog.messages == ["a listener failed (RuntimeError)"]


# Limits of dollars


def test_a_model_without_a_price_is_refused_where_dollars_are_limited():
    told = plan(decision(binding=unpriced("slm")))

    with pytest.raises(CatalogError, match=r"slm is not known; give it, as in prices="):
        Router(told, limits=DOLLARS)


def test_a_given_price_lets_dollars_be_limited():
    told = plan(decision(binding=unpriced("slm")))

    router = Router(told, limits=DOLLARS, prices={"slm": (0.1, 0.4)})

    assert chosen(router) == "slm"


def test_a_mapped_model_without_a_price_is_refused_where_dollars_are_limited():
    with pytest.raises(CatalogError, match="the price of slm is not known"):
        Router({"triage": fake()}, limits=DOLLARS)


def test_a_reload_to_a_model_without_a_price_keeps_the_plan(path, caplog):
    written(path, decision(binding=priced("old")))
    router = Router(path, limits=DOLLARS)
    written(path, decision(binding=unpriced("new")))

    router.refresh()

    assert chosen(router) == "old"
    assert "the price of new is not known" in caplog.text


def test_a_plan_that_was_refused_for_its_price_does_not_spoil_the_next(path):
    written(path, decision(binding=priced("old")))
    router = Router(path, limits=DOLLARS)
    written(path, decision(binding=unpriced("new")))
    router.refresh()
    written(path, decision(binding=priced("newer")))

    router.refresh()

    assert chosen(router) == "newer"


# Tool loops


def test_a_tool_loop_stays_with_the_model_that_began_it():
    router = Router({"triage": fake()})

    route = router.route("triage", ask_of(None, *in_loop("slm")))

    assert route is not None
    assert (route.name, route.rule) == ("slm", "mapping")


def test_a_tool_loop_that_escalated_stays_with_the_reference():
    small, large = fake(ValueError("no")), fake(lambda _: calling(city="Rome"), "ref")
    router = Router({"triage": small})
    first = asked(router, ask_of(large, ASKED, tools=[BOOK]))
    results = ToolMessage("booked", tool_call_id="call_0")

    second = asked(router, ask_of(large, ASKED, first, results, tools=[BOOK]))

    assert about(first)["escalated"]
    assert len(small.asked) == 1
    assert about(second)["model"] == "ref"
    assert about(second)["rule"] == "tool_loop"
    assert not about(second)["escalated"]


def test_a_tool_loop_stays_after_a_reload(path):
    router = reloaded(path, "old", "new")

    route = router.route("triage", ask_of(None, *in_loop("old")))

    assert route is not None
    assert (route.name, route.rule) == ("old", "tool_loop")
    assert chosen(router) == "new"


def test_a_tool_loop_of_a_forgotten_plan_goes_to_the_new_one(path):
    router = reloaded(path, "oldest", "old", "new")

    assert chosen(router, *in_loop("oldest")) == "new"


def test_a_tool_loop_stays_after_a_reload_that_unbinds_the_site(path):
    router = reloaded(path, "old")
    written(path, decision("elsewhere", "new"))
    router.refresh()

    assert chosen(router, *in_loop("old")) == "old"
    assert chosen(router) is None


def test_a_tool_loop_leaves_its_model_when_that_fails(path):
    old, large = fake(ValueError("no"), "old"), fake("large", "ref")
    router = Router({"triage": old})

    message = asked(router, ask_of(large, *in_loop("old")))

    assert message.text == "large"
    assert about(message)["reason"] == "ValueError"


def test_the_result_of_another_sites_tool_does_not_count():
    router = Router({"triage": fake()})

    assert chosen(router, *in_loop("other", site="supervisor")) == "slm"


def test_another_sites_reference_does_not_hold_a_site_either():
    router = Router({"triage": fake()})

    assert chosen(router, *in_loop("ref", site="supervisor")) == "slm"


def test_tools_that_the_app_called_without_a_router_stay_with_its_model():
    router = Router({"triage": fake()})
    results = ToolMessage("booked", tool_call_id="call_0")

    route = router.route(
        "triage", ask_of(None, ASKED, calling(city="Rome"), results, tools=[BOOK])
    )

    assert route is not None
    assert (route.name, route.rule) == (None, "tool_loop")


def test_a_tool_that_is_not_offered_again_was_somebody_elses():
    router = Router({"triage": fake()})
    handed = AIMessage("", tool_calls=[{"name": "hand_over", "args": {}, "id": "call_0"}])
    results = ToolMessage("yours", tool_call_id="call_0")

    assert chosen(router, ASKED, handed, results, tools=[BOOK]) == "slm"


def test_an_answered_tool_loop_is_over():
    router = Router({"triage": fake()})
    done = [*in_loop("ref"), AIMessage("booked"), HumanMessage("And back?")]

    assert chosen(router, *done) == "slm"


def test_several_results_of_one_call_are_one_loop():
    router = Router({"triage": fake()})
    more = ToolMessage("booked too", tool_call_id="call_1")

    assert chosen(router, *in_loop("ref"), more) is None


def test_results_without_a_call_are_no_loop():
    router = Router({"triage": fake()})
    trimmed = [ToolMessage("booked", tool_call_id="call_0")]

    assert chosen(router, *trimmed) == "slm"


def test_a_mark_of_another_version_is_no_loop():
    router = Router({"triage": fake()})
    messages = in_loop()
    messages[1].response_metadata[METADATA_KEY] = {"site": "triage"}

    assert chosen(router, *messages) == "slm"


# A file that changes


def test_a_changed_file_is_loaded_when_asked_to(path):
    written(path, decision(model="old"))
    router = Router(path)
    before = router.plan_id
    sealed = written(path, decision(model="new"))

    router.refresh()

    assert before != sealed.content_hash[:12] == router.plan_id
    assert chosen(router) == "new"


def test_a_changed_file_is_loaded_in_the_background(path):
    written(path, decision(model="old"))
    router = Router(path, reload_s=0)
    written(path, decision(model="new"))

    first = chosen(router)
    _join_reloads()

    assert first == "old"  # the call that noticed it does not wait
    assert chosen(router) == "new"


def test_an_unchanged_file_is_not_loaded_again(path, caplog):
    router = reloaded(path, "old", reload_s=0)
    caplog.set_level(logging.INFO, "langchain_slm.routing.router")

    chosen(router)
    router.refresh()
    _join_reloads()

    assert caplog.messages == []


def test_a_process_without_a_thread_to_spare_goes_on(path, monkeypatch):
    router = reloaded(path, "old", reload_s=0)
    written(path, decision(model="new"))

    def refuses(thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", refuses)

    assert chosen(router) == "old"


def test_a_file_is_looked_at_only_now_and_then(path):
    written(path, decision(model="old"))
    router = Router(path, reload_s=3600)
    written(path, decision(model="new"))

    chosen(router)
    _join_reloads()

    assert chosen(router) == "old"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 99}', "\x00"])
def test_a_bad_file_keeps_the_plan_with_one_warning(path, caplog, text):
    router = reloaded(path, "old")
    path.write_text(text)

    router.refresh()
    router.refresh()

    assert chosen(router) == "old"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the plan stays as it is" in caplog.text


def test_an_edited_file_keeps_the_plan(path, caplog):
    router = reloaded(path, "old")
    path.write_text(path.read_text().replace('"old"', '"new"'))

    router.refresh()

    assert chosen(router) == "old"
    assert "edited after it was written" in caplog.text


def test_a_folder_in_the_files_place_keeps_the_plan(path, caplog):
    router = reloaded(path, "old")
    path.unlink()
    path.mkdir()

    router.refresh()

    assert chosen(router) == "old"
    assert len(caplog.records) == 1


def test_whatever_a_reload_raises_keeps_the_plan(path, caplog, monkeypatch):
    router = reloaded(path, "old")
    written(path, decision(model="new"))

    def fails(*args: Any, **kwargs: Any) -> None:
        msg = "sk-canary"
        raise RuntimeError(msg)

    monkeypatch.setattr(router, "_guided", fails)
    router.refresh()

    assert chosen(router) == "old"
    assert caplog.messages == ["the plan stays as it is: RuntimeError"]


def test_a_good_file_after_a_bad_one_is_loaded(path):
    router = reloaded(path, "old")
    path.write_text("{")
    router.refresh()
    written(path, decision(model="new"))

    router.refresh()

    assert chosen(router) == "new"


def test_a_missing_file_keeps_the_plan_silently(path, caplog):
    router = reloaded(path, "old", reload_s=0)
    path.unlink()

    router.refresh()

    assert chosen(router) == "old"
    assert caplog.records == []


def test_a_file_that_comes_back_is_loaded(path):
    router = reloaded(path, "old")
    path.unlink()
    router.refresh()
    written(path, decision(model="new"))

    router.refresh()

    assert chosen(router) == "new"


def test_a_file_replaced_by_one_of_the_same_size_is_loaded(path):
    router = reloaded(path, "aaa", "bbb")

    assert chosen(router) == "bbb"


def test_a_mapping_has_nothing_to_reload():
    router = Router({"triage": fake()}, reload_s=0)

    router.refresh()

    assert chosen(router) == "slm"


def test_a_route_in_use_is_of_one_plan(path):
    router = reloaded(path, "old")
    route = router.route("triage", ask_of())
    old = router.plan_id
    written(path, decision(model="new"))

    router.refresh()

    assert route is not None
    assert (route.name, route.plan) == ("old", old)


def test_a_model_that_stays_keeps_its_connections(path):
    written(path, decision(model="same"))
    router = Router(path)
    before = router.route("triage", ask_of())
    written(path, decision(model="same"), decision("reply", "new"))

    router.refresh()
    after = router.route("triage", ask_of())

    assert before is not None
    assert after is not None
    assert after.target is before.target
    assert after.plan != before.plan


def test_a_model_with_another_price_is_another_one(path):
    written(path, decision(binding=priced("slm", 0.1)))
    router = Router(path)
    before = router.route("triage", ask_of())
    written(path, decision(binding=priced("slm", 0.2)))

    router.refresh()
    after = router.route("triage", ask_of())

    assert before is not None
    assert after is not None
    assert after.bound.spec.usd_per_million_input_tokens == 0.2


def test_models_are_forgotten_after_two_reloads(path):
    router = reloaded(path, "oldest", "old", "new")

    known = [router.engine.bound_by_name(name) for name in ("oldest", "old", "new")]

    assert [callee is not None for callee in known] == [False, True, True]


def test_models_of_a_refused_plan_are_forgotten(path, monkeypatch):
    router = reloaded(path, "old")
    missing = Binding(model=spec("keyless", api_key_env="NO_SUCH_KEY_VARIABLE"))
    written(path, decision(model="new"), decision("reply", binding=missing))

    router.refresh()

    assert chosen(router) == "old"
    assert router.engine.bound_by_name("new") is None


def test_a_file_written_again_forgets_nothing(path):
    router = reloaded(path, "old", "new", "new")

    assert chosen(router, *in_loop("old")) == "old"


def test_the_rest_of_a_site_without_a_binding_names_the_new_plan(path):
    router = reloaded(path, "old")
    before = router.unbound("elsewhere")
    written(path, decision(model="new"))

    router.refresh()

    assert router.unbound("elsewhere").plan == router.plan_id != before.plan


def test_many_sites_without_a_binding_fill_no_memory():
    router = Router({})

    routes = [router.unbound(f"site {number}") for number in range(1001)]

    assert len(router._unbound) == 1000
    assert routes[-1].site == "site 1000"


def test_counters_outlive_a_reload(path):
    router = reloaded(path, "old")
    asked(router, site="elsewhere")
    written(path, decision(model="new"))

    router.refresh()

    assert [row.calls for row in router.counters()] == [1]


def test_reloads_from_many_threads_load_once(path, caplog):
    router = reloaded(path, "old")
    caplog.set_level(logging.INFO, "langchain_slm.routing.router")
    written(path, decision(model="new"))
    threads = [threading.Thread(target=router.refresh) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert caplog.messages == [f"plan {router.plan_id} loaded from plan.json"]


def _join_reloads() -> None:
    for thread in threading.enumerate():
        if thread.name == "langchain-slm-reload":
            thread.join()
