import gc
import math
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_slm.routing import spending as module
from langchain_slm.routing.limits import SpendLimit
from langchain_slm.routing.spending import Spending

REQUEST = SpendLimit(usd=1.0)
RUN = SpendLimit(usd=2.0, per="run")
MINUTE = SpendLimit(usd=3.0, per=60, at_limit="bound_only")


class Run:
    pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_limits_nothing_is_exceeded():
    assert Spending(()).exceeded(Run(), 1e6, 1e6) is None


@pytest.mark.parametrize(
    ("spent", "coming", "exceeded"),
    [(0, 1.0, None), (0, 1.01, REQUEST), (0.75, 0.25, None), (0.75, 0.26, REQUEST)],
)
def test_a_request_may_use_up_its_limit_and_no_more(spent, coming, exceeded):
    assert Spending((REQUEST,)).exceeded(None, spent, coming) == exceeded


def test_a_sum_may_be_off_by_the_rounding_of_numbers():
    limit = SpendLimit(usd=0.3)

    assert 0.1 + 0.2 > 0.3
    assert Spending((limit,)).exceeded(None, 0.1 + 0.1, 0.1) is None


def test_where_no_dollar_is_allowed_what_is_free_is():
    spending = Spending((SpendLimit(usd=0),))

    assert spending.exceeded(None, 0, 0) is None
    assert spending.exceeded(None, 0, 1e-7) is not None


def test_a_run_sums_up_its_requests_and_another_run_its_own():
    spending = Spending((RUN,))
    first, second = Run(), Run()
    spending.charge(first, 1.5)

    assert spending.exceeded(first, 0, 0.5) is None
    assert spending.exceeded(first, 0, 0.75) == RUN
    assert spending.exceeded(second, 0, 0.75) is None


def test_a_request_without_a_run_is_a_run_of_its_own():
    spending = Spending((RUN,))
    spending.charge(None, 100)

    assert spending.exceeded(None, 1.5, 0.5) is None
    assert spending.exceeded(None, 1.5, 0.75) == RUN


def test_a_run_is_forgotten_when_it_is_gone():
    spending = Spending((RUN,))
    run = Run()
    spending.charge(run, 1)
    del run
    gc.collect()

    assert len(spending._runs) == 0


@pytest.mark.parametrize("make", [lambda: "run-7", lambda: ("a", 1), lambda: UUID(int=3)])
def test_runs_are_told_apart_by_their_value(make):
    spending = Spending((RUN,))
    run = make()
    spending.charge(run, 2)

    assert spending.exceeded(make(), 0, 0.5) == RUN


def test_runs_without_a_hash_are_told_apart_by_identity():
    spending = Spending((RUN,))
    first, second = {"id": 1}, {"id": 1}
    spending.charge(first, 2)

    assert spending.exceeded(first, 0, 0.5) == RUN
    assert spending.exceeded(second, 0, 0.5) is None


def test_the_id_of_a_run_that_is_gone_is_not_mistaken_for_another():
    spending = Spending((RUN,))
    for _ in range(100):
        run = []
        assert spending.exceeded(run, 0, 2) is None
        spending.charge(run, 2)


def test_of_runs_whose_end_cannot_be_seen_the_latest_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    spending = Spending((RUN,))
    for run in "a", "b", "a", "c":
        spending.charge(run, 2)

    assert set(spending._other_runs) == {"a", "c"}


def test_a_period_begins_with_its_first_charge():
    clock = Clock()
    spending = Spending((MINUTE,), clock)
    clock.now = 50
    spending.charge(None, 2.5)

    clock.now = 109
    assert spending.exceeded(None, 0, 1) == MINUTE
    clock.now = 110
    assert spending.exceeded(None, 0, 3) is None
    clock.now = 115
    spending.charge(None, 2.5)
    clock.now = 174
    assert spending.exceeded(None, 0, 1) == MINUTE


def test_a_period_counts_every_run():
    spending = Spending((MINUTE,), Clock())
    for run in Run(), None, "x":
        spending.charge(run, 1)

    assert spending.exceeded(Run(), 0, 0.01) == MINUTE


def test_refusing_goes_before_answering_without_the_reference():
    spending = Spending((MINUTE, REQUEST), Clock())

    assert spending.exceeded(None, 0, 2) == REQUEST
    assert spending.exceeded(None, 0, 5) == REQUEST
    assert Spending((MINUTE,), Clock()).exceeded(None, 0, 5) == MINUTE


@pytest.mark.parametrize("usd", [math.nan, math.inf, -1.0, 0.0])
def test_what_is_no_amount_is_not_charged(usd):
    spending = Spending((RUN,))
    run = Run()
    spending.charge(run, usd)

    assert spending.exceeded(run, 0, 2) is None
    assert spending.exceeded(run, 0, 2.1) == RUN


@pytest.mark.parametrize(("spent", "coming"), [(math.nan, 0), (0, math.nan)])
def test_what_is_not_a_number_has_exceeded(spent, coming):
    assert Spending((REQUEST,)).exceeded(None, spent, coming) == REQUEST


# Multiples of 1/64 are summed up without rounding.
CHARGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 64)), max_size=50)


@given(charges=CHARGES, coming=st.integers(0, 64))
def test_a_period_is_exceeded_exactly_when_its_charges_say_so(charges, coming):
    clock = Clock()
    spending = Spending((SpendLimit(usd=1.0, per=10),), clock)
    began, total = None, 0
    for passing, usd in charges:
        clock.now += passing
        if began is None or clock.now - began >= 10:
            total = 0
        exceeded = spending.exceeded(None, 0, coming / 64) is not None
        assert exceeded is (total + coming > 64)
        spending.charge(None, usd / 64)
        if usd and (began is None or clock.now - began >= 10):
            began = clock.now
        total += usd


def test_threads_lose_no_charge():
    run = Run()
    limits = SpendLimit(usd=10_000, per="run"), SpendLimit(usd=10_000, per=60)
    spending = Spending(limits, Clock())

    def charge(_):
        for _ in range(5000):
            spending.charge(run, 0.25)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(charge, range(8)))

    assert spending.exceeded(run, 0, 0) is None
    assert spending.exceeded(run, 0, 0.25) is limits[0]
    assert spending.exceeded(None, 0, 0.25) is limits[1]


def test_a_call_that_the_garbage_collector_ends_meanwhile_blocks_nothing():
    spending = Spending((RUN,))
    run = Run()

    with spending._lock:
        spending.charge(run, 2)

    assert spending.exceeded(run, 0, 1) == RUN
