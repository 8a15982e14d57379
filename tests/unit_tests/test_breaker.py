import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from langchain_slm.routing.breaker import Breaker
from langchain_slm.routing.limits import BreakerSettings

SETTINGS = BreakerSettings(failures=3, open_s=10.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(at: float = 0.0) -> tuple[Breaker, Clock]:
    clock = Clock()
    clock.now = at
    breaker = Breaker(SETTINGS, clock)
    for _ in range(3):
        breaker.failed()
    return breaker, clock


def test_it_opens_after_that_many_failures_in_a_row():
    breaker = Breaker(SETTINGS, Clock())
    for report in "failed", "failed", "succeeded", "failed", "failed":
        getattr(breaker, report)()
        assert (breaker.allows(), breaker.state) == (True, "closed")

    breaker.failed()

    assert (breaker.allows(), breaker.state) == (False, "open")


def test_it_stays_open_for_its_time():
    breaker, clock = opened(at=5.0)

    clock.now = 14.9
    assert (breaker.allows(), breaker.state) == (False, "open")
    clock.now = 15.0
    assert breaker.state == "half-open"
    assert breaker.allows()


def test_one_probe_at_a_time_is_let_through():
    breaker, clock = opened()
    clock.now = 10.0

    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    clock.now = 1000.0
    assert not breaker.allows()


def test_a_probe_that_succeeds_closes_it_and_forgets_the_failures():
    breaker, clock = opened()
    clock.now = 10.0
    assert breaker.allows()

    breaker.succeeded()

    breaker.failed()
    breaker.failed()
    assert (breaker.allows(), breaker.state) == (True, "closed")


def test_a_probe_that_fails_opens_it_for_its_time_again():
    breaker, clock = opened()
    clock.now = 12.0
    assert breaker.allows()

    breaker.failed()

    clock.now = 21.9
    assert (breaker.allows(), breaker.state) == (False, "open")
    clock.now = 22.0
    assert breaker.allows()


def test_an_abandoned_probe_frees_its_place():
    breaker, clock = opened()
    clock.now = 10.0
    assert breaker.allows()

    breaker.abandoned()

    assert breaker.state == "half-open"
    assert [breaker.allows(), breaker.allows()] == [True, False]


def test_abandoned_calls_are_not_counted():
    breaker = Breaker(SETTINGS, Clock())
    for report in "failed", "failed", "abandoned", "failed":
        getattr(breaker, report)()

    assert breaker.state == "open"


def test_failures_of_calls_that_began_before_do_not_keep_it_open_longer():
    breaker, clock = opened()
    clock.now = 9.0
    breaker.failed()
    clock.now = 10.0

    assert breaker.allows()


def test_an_answer_to_a_call_that_began_before_closes_it():
    breaker, _ = opened()

    breaker.succeeded()

    assert breaker.state == "closed"


REPORTS = st.sampled_from(["succeeded", "failed", "abandoned"])


@given(
    steps=st.lists(st.tuples(st.integers(0, 6), REPORTS), max_size=60),
    failures=st.integers(1, 4),
)
def test_a_lone_caller_is_refused_only_in_the_time_after_too_many_failures(
    steps, failures
):
    clock = Clock()
    breaker = Breaker(BreakerSettings(failures=failures, open_s=10.0), clock)
    in_a_row, closed_until = 0, -1.0
    for passing, report in steps:
        clock.now += passing
        assert breaker.allows() is (clock.now >= closed_until)
        if clock.now < closed_until:
            continue
        getattr(breaker, report)()
        if report == "failed":
            in_a_row += 1
            closed_until = clock.now + 10 if in_a_row >= failures else closed_until
        elif report == "succeeded":
            in_a_row, closed_until = 0, -1.0


def test_of_many_threads_one_is_the_probe():
    for _ in range(50):
        breaker, clock = opened()
        clock.now = 10.0
        together = threading.Barrier(8)

        def allowed(_, breaker=breaker, together=together):
            together.wait()
            return breaker.allows()

        with ThreadPoolExecutor(8) as threads:
            assert Counter(threads.map(allowed, range(8)))[True] == 1


def test_probes_of_many_threads_never_overlap():
    breaker, clock = opened()
    running, most, probes = [], [], []

    def work(seed):
        rng = random.Random(seed)  # noqa: S311 - test data
        for _ in range(2000):
            clock.now += rng.random() * 8
            if breaker.allows():
                running.append(seed)
                most.append(len(running))
                probes.append(seed)
                running.remove(seed)
                rng.choice([breaker.failed, breaker.abandoned])()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))

    assert max(most) == 1
    assert len(probes) > 100


def test_threads_lose_no_failure():
    breaker = Breaker(BreakerSettings(failures=40_001), Clock())

    def fail(_):
        for _ in range(5000):
            breaker.failed()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fail, range(8)))

    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "open"


def test_a_call_that_the_garbage_collector_ends_meanwhile_blocks_nothing():
    breaker, clock = opened()
    clock.now = 10.0

    with breaker._lock:
        breaker.abandoned()
        breaker.failed()

    assert breaker.state == "open"
