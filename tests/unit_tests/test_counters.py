import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from threading import Barrier

import pytest
from unit_tests.decided import decided, escalated

from langchain_slm.routing import counters as module
from langchain_slm.routing.counters import Counted, Counters, Decided, kind


def counted(*requests: Decided) -> tuple[Counted, ...]:
    counters = Counters()
    for request in requests:
        counters.add(request)
    return counters.read()


def test_nothing_is_counted_before_a_request():
    assert Counters().read() == ()


def test_a_request_is_counted_under_its_site_and_the_model_that_answered():
    assert counted(decided(), decided(latency_s=2.0, asked={"slm-8b": 3})) == (
        Counted(
            site="triage",
            model="slm-8b",
            calls=2,
            escalations={},
            errors={},
            attempts=4,
            usd=0.5,
            unpriced=0,
            input_tokens=200,
            output_tokens=40,
            latency_s=2.5,
            slowest_s=2.0,
        ),
    )


def test_calls_of_a_model_are_its_own_whoever_answers_in_the_end():
    reference, slm = counted(escalated(asked={"slm-8b": 1, "gpt-ref": 2}))
    assert (reference.model, reference.calls, reference.attempts) == ("gpt-ref", 1, 2)
    assert (slm.model, slm.calls, slm.attempts) == ("slm-8b", 0, 1)


def test_rows_are_sorted_by_site_then_model():
    requests = [decided(site=site, model=model) for site in "ba" for model in "yx"]
    rows = [(row.site, row.model) for row in counted(*requests)]
    assert rows == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


def test_escalations_are_counted_by_the_class_of_their_reason():
    (row,) = counted(
        escalated(),
        escalated(reason="arguments of tool book: city is missing"),
        escalated(reason="no answer"),
    )
    assert row.escalations == {"arguments of tool book": 2, "no answer": 1}


@pytest.mark.parametrize("reason", [None, "", ": details"])
def test_an_escalation_without_a_reason_is_counted_as_unknown(reason: str | None):
    assert kind(reason) == "unknown"
    assert counted(escalated(reason=reason))[0].escalations == {"unknown": 1}


def test_errors_are_counted_by_the_name_of_their_type():
    (row,) = counted(
        decided(error="DeadlineExceededError", reason="late"),
        decided(error="DeadlineExceededError", reason="late"),
        decided(error="EndpointError", reason="not JSON"),
    )
    assert row.errors == {"DeadlineExceededError": 2, "EndpointError": 1}
    assert row.calls == 3
    assert row.escalations == {}


@pytest.mark.parametrize("usd", [None, math.nan, math.inf, -0.5])
def test_a_cost_that_is_none_is_not_summed(usd: float | None):
    (row,) = counted(decided(usd=usd), decided(usd=0.25))
    assert (row.usd, row.unpriced) == (0.25, 1)


@pytest.mark.parametrize("tokens", [None, -3, math.nan])
def test_tokens_that_are_unknown_are_not_summed(tokens: int | None):
    (row,) = counted(decided(input_tokens=tokens, output_tokens=tokens), decided())
    assert (row.input_tokens, row.output_tokens) == (100, 20)


def test_what_was_read_does_not_change():
    counters = Counters()
    counters.add(escalated())
    before = counters.read()
    counters.add(escalated())
    assert before[0].calls == 1
    assert before[0].escalations == {"arguments of tool book": 1}
    with pytest.raises(FrozenInstanceError):
        before[0].calls = 2


def test_no_request_is_lost_among_threads():
    threads, each = 8, 5_000
    counters, start = Counters(), Barrier(threads + 1)

    def work(number: int) -> None:
        site = f"site-{number % 2}"
        answered, passed_on = decided(site=site), escalated(site=site)
        start.wait()
        for _ in range(each):
            counters.add(answered)
            counters.add(passed_on)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(work, number) for number in range(threads)]
            start.wait()
            seen = [sum(row.calls for row in counters.read()) for _ in range(50)]
            for job in jobs:
                job.result()
    finally:
        sys.setswitchinterval(switch)
    total = threads * each // 2
    assert seen == sorted(seen)
    assert counters.read() == tuple(
        Counted(
            site=site,
            model=model,
            calls=total,
            escalations={"arguments of tool book": total} if passed_on else {},
            errors={},
            attempts=total,
            usd=total * (2.25 if passed_on else 0.25),
            unpriced=0,
            input_tokens=total * 100,
            output_tokens=total * 20,
            latency_s=total * (1.5 if passed_on else 0.5),
            slowest_s=1.5 if passed_on else 0.5,
        )
        for site in ("site-0", "site-1")
        for model, passed_on in (("gpt-ref", True), ("slm-8b", False))
    )


class Site(str):
    """A name in whose use another request of the same thread ends, as at a collection."""

    __slots__ = ("ends",)

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        self.ends()
        return super().__eq__(other)


class Tokens(int):
    """A number in whose use another request of the same thread ends."""

    def __ge__(self, other: int) -> bool:
        self.ends()
        return super().__ge__(other)


def once(counters: Counters, request: Decided) -> Callable[[], None]:
    """Return what counts `request` when it is first called."""
    due = [request]
    return lambda: counters.add(due.pop()) if due else None


def test_a_request_that_ends_while_another_is_counted_is_counted_too():
    counters, tokens = Counters(), Tokens(100)
    tokens.ends = once(counters, decided(input_tokens=7))
    counters.add(decided(input_tokens=tokens))
    (row,) = counters.read()
    assert (row.calls, row.input_tokens) == (2, 107)


def test_a_request_that_ends_while_the_counters_are_read_is_in_the_next_reading():
    counters, site = Counters(), Site("a")
    site.ends = lambda: None
    counters.add(decided(site=site))
    counters.add(decided(site="b"))
    site.ends = once(counters, decided(site="b"))
    assert [(row.site, row.calls) for row in counters.read()] == [("a", 1), ("b", 1)]
    assert [(row.site, row.calls) for row in counters.read()] == [("a", 1), ("b", 2)]


def test_sites_made_of_ids_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    rows = counted(*(decided(site=f"site-{n}") for n in range(9)), decided(site="site-0"))
    assert [(row.site, row.calls) for row in rows] == [
        ("(other)", 6),
        ("site-0", 2),
        ("site-1", 1),
        ("site-2", 1),
    ]


def test_reasons_made_of_answers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_KINDS", 2)
    (row,) = counted(*(escalated(reason=f"said {n}") for n in (1, 2, 3, 4, 1)))
    assert row.escalations == {"said 1": 2, "said 2": 1, "(other)": 2}


def test_a_request_has_no_place_for_content():
    assert set(Decided._fields).isdisjoint(
        {"messages", "prompt", "answer", "content", "tools", "config", "metadata"}
    )
