import asyncio
import gc
import random
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_slm.errors import DeadlineExceededError
from langchain_slm.routing import gate as module
from langchain_slm.routing.gate import Gate
from langchain_slm.routing.limits import ModelLimits

ONE = ModelLimits(max_in_flight=1)


class Clock:
    """Time that passes only where it is slept, or set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, wait_s: float) -> None:
        self.now += wait_s

    async def asleep(self, wait_s: float) -> None:
        await asyncio.sleep(0)
        self.now += wait_s


def paced(per_second: float, clock: Clock, most: int | None = None) -> Gate:
    limits = ModelLimits(requests_per_second=per_second, max_in_flight=most)
    return Gate(limits, clock, clock.sleep, clock.asleep)


def is_empty(gate: Gate) -> bool:
    return (gate._inside, len(gate._line), gate._pacing) == (0, 0, False)


async def until(holds) -> None:
    while not holds():  # noqa: ASYNC110 - a gate tells nobody who waits
        await asyncio.sleep(0)


async def in_line(gate: Gate, waiting: int) -> None:
    await until(lambda: len(gate._line) == waiting)


@pytest.fixture
def hasty_threads():
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_as_many_enter_at_once_as_are_allowed():
    gate = Gate(ModelLimits(max_in_flight=3))
    for _ in range(3):
        gate.enter(None)

    with pytest.raises(DeadlineExceededError, match=r"\(3 in flight, 1 in line\)"):
        gate.enter(time.monotonic() + 0.01)
    gate.leave()
    gate.enter(None)


async def test_who_is_woken_too_early_goes_on_waiting():
    gate = Gate(ONE, clock=lambda: 0.0)
    gate.enter(None)
    waiting = asyncio.create_task(gate.aenter(0.001))
    in_a_thread = asyncio.create_task(asyncio.to_thread(gate.enter, 0.001))
    await in_line(gate, 2)

    await asyncio.sleep(0.02)

    assert (gate._inside, len(gate._line)) == (1, 2)
    assert not waiting.done()
    gate.leave()
    await waiting
    gate.leave()
    await in_a_thread


async def test_a_late_caller_leaves_the_line_and_takes_no_place():
    gate = Gate(ONE)
    await gate.aenter(None)
    for deadline in 0.0, time.monotonic() + 0.01:
        with pytest.raises(DeadlineExceededError):
            await gate.aenter(deadline)
        with pytest.raises(DeadlineExceededError):
            gate.enter(deadline)

    gate.leave()

    assert is_empty(gate)


def test_after_its_deadline_nobody_enters_even_if_there_is_a_place():
    gate = Gate(ONE, clock=lambda: 5.0)
    with pytest.raises(DeadlineExceededError):
        gate.enter(5.0)

    assert is_empty(gate)


async def test_a_place_that_is_given_too_late_goes_to_the_next_in_line():
    clock = Clock()
    gate = Gate(ONE, clock)
    gate.enter(None)
    late = asyncio.create_task(gate.aenter(60.0))
    await in_line(gate, 1)
    patient = asyncio.create_task(gate.aenter(None))
    await in_line(gate, 2)

    clock.now = 60.0
    gate.leave()

    with pytest.raises(DeadlineExceededError):
        await late
    await patient


async def test_threads_and_tasks_enter_in_the_order_of_their_coming():
    gate = Gate(ONE)
    gate.enter(None)
    entered = []

    def pass_in_a_thread(name):
        gate.enter(None)
        entered.append(name)
        gate.leave()

    async def pass_in_a_task(name):
        await gate.aenter(None)
        entered.append(name)
        gate.leave()

    waiting = []
    for name in range(8):
        one = (
            asyncio.to_thread(pass_in_a_thread, name)
            if name % 2
            else pass_in_a_task(name)
        )
        waiting.append(asyncio.create_task(one))
        await in_line(gate, name + 1)
    gate.leave()
    await asyncio.gather(*waiting)

    assert entered == list(range(8))
    assert is_empty(gate)


async def test_who_comes_while_others_wait_does_not_overtake_them():
    gate = Gate(ONE)
    gate.enter(None)
    waiting = asyncio.create_task(gate.aenter(None))
    await in_line(gate, 1)
    gate.leave()  # the place is the waiter's, before it has run

    with pytest.raises(DeadlineExceededError):
        gate.enter(time.monotonic() + 0.01)
    await waiting


async def test_a_cancelled_waiter_leaves_the_line():
    gate = Gate(ONE)
    gate.enter(None)
    first, second = (asyncio.create_task(gate.aenter(None)) for _ in range(2))
    await in_line(gate, 2)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.leave()

    await second
    gate.leave()
    assert is_empty(gate)


async def test_a_waiter_cancelled_just_when_it_got_the_place_hands_it_on():
    gate = Gate(ONE)
    gate.enter(None)
    first, second = (asyncio.create_task(gate.aenter(None)) for _ in range(2))
    await in_line(gate, 2)

    gate.leave()
    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    gate.leave()
    assert is_empty(gate)


def test_a_waiter_whose_event_loop_was_closed_leaves_no_place_taken():
    gate = Gate(ONE)
    gate.enter(None)
    waiter = gate.aenter(None)
    loop = asyncio.new_event_loop()

    def start():
        waiter.send(None)
        loop.stop()

    loop.call_soon(start)
    loop.run_forever()
    loop.close()
    assert len(gate._line) == 1

    waiter.close()
    gate.leave()
    gc.collect()

    assert is_empty(gate)


def test_calls_begin_at_the_rate_after_a_burst_of_one_second():
    clock = Clock()
    gate = paced(2.0, clock)
    began = []
    for _ in range(6):
        gate.enter(None)
        began.append(clock.now)

    assert began == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_rate_below_one_a_second_lets_one_begin_at_once():
    clock = Clock()
    gate = paced(0.1, clock)
    began = []
    for pause in 0, 0, 25, 0, 0:
        clock.now += pause
        gate.enter(None)
        began.append(clock.now)

    assert began == [0.0, 10.0, 35.0, 45.0, 55.0]


async def test_tasks_begin_at_the_same_rate_in_the_order_of_their_coming():
    clock = Clock()
    gate = paced(2.0, clock)
    began = []

    async def pass_by(name):
        await gate.aenter(None)
        began.append((name, clock.now))

    await asyncio.gather(*map(pass_by, range(5)))

    assert began == [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (4, 1.5)]


def test_who_cannot_begin_before_the_deadline_is_told_at_once_and_uses_no_token():
    clock = Clock()
    gate = paced(0.1, clock)
    gate.enter(None)

    with pytest.raises(DeadlineExceededError):
        gate.enter(9.9)
    assert clock.now == 0.0

    gate.enter(10.1)
    assert clock.now == 10.0


async def test_who_is_cancelled_while_waiting_for_its_moment_hands_on_both():
    clock = Clock()
    limits = ModelLimits(requests_per_second=0.1)
    never = asyncio.Event()
    gate = Gate(limits, clock, clock.sleep, lambda wait_s: never.wait())
    gate.enter(None)
    first = asyncio.create_task(gate.aenter(None))
    await until(lambda: gate._pacing)
    second = asyncio.create_task(gate.aenter(None))
    await in_line(gate, 1)

    clock.now = 10.0
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    await second
    gate.leave()
    gate.leave()
    assert is_empty(gate)


def test_a_thread_that_is_interrupted_while_waiting_leaves_no_place_taken():
    def interrupted(_):
        raise KeyboardInterrupt

    gate = Gate(ModelLimits(requests_per_second=1, max_in_flight=1), Clock(), interrupted)
    gate.enter(None)
    gate.leave()

    with pytest.raises(KeyboardInterrupt) as caught:
        gate.enter(None)

    assert caught.traceback  # which holds the frames of the wait
    assert is_empty(gate)


@given(
    per_second=st.floats(0.05, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=40),
)
def test_no_stretch_of_time_sees_more_calls_than_the_rate_allows(per_second, pauses):
    clock = Clock()
    gate = paced(per_second, clock)
    began = []
    for pause in pauses:
        clock.now += pause
        gate.enter(None)
        began.append(clock.now)

    burst = max(1.0, per_second)
    for i, first in enumerate(began):
        for n, last in enumerate(began[i:], start=1):
            assert n <= burst + per_second * (last - first) + 1e-6


@given(
    per_second=st.floats(0.05, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=40),
)
def test_calls_begin_as_soon_as_a_bucket_of_tokens_lets_them(per_second, pauses):
    clock = Clock()
    gate = paced(per_second, clock)
    most = max(1.0, per_second)
    tokens, at = most, 0.0
    for pause in pauses:
        clock.now += pause
        tokens, at = min(most, tokens + (clock.now - at) * per_second), clock.now
        if tokens < 1:
            at += (1 - tokens) / per_second
            tokens = 1
        tokens -= 1

        gate.enter(None)

        assert clock.now == pytest.approx(at, abs=1e-6)


def test_a_call_that_the_garbage_collector_ends_meanwhile_gives_no_place_twice():
    gate = Gate(ModelLimits(max_in_flight=2))

    ended = []

    class Collecting(OrderedDict):
        def popitem(self, last=True):  # noqa: FBT002 - as in OrderedDict
            ticket = super().popitem(last)
            if not ended:
                ended.append(ticket)
                gate.leave()
            return ticket

    gate.enter(None)
    gate.enter(None)
    tickets = [gate._join() for _ in range(3)]
    gate._line = Collecting(gate._line)
    gate.leave()

    # One call was ended by its caller, one while its place was given on.
    assert [ticket.done() for ticket in tickets] == [True, True, False]
    assert gate._inside == 2


def test_a_call_that_the_garbage_collector_ends_while_another_joins_wakes_it(monkeypatch):
    gate = Gate(ONE)

    def collecting():
        gate.leave()
        return Future()

    gate.enter(None)
    monkeypatch.setattr(module, "Future", collecting)

    gate.enter(None)

    assert gate._inside == 1


class Crowd:
    """Comes and goes through a gate, in threads and in tasks, and counts itself."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.lock = threading.Lock()
        self.inside = self.most = self.passed = 0

    def come(self) -> None:
        with self.lock:
            self.passed += 1
            self.inside += 1
            self.most = max(self.most, self.inside)

    def go(self) -> None:
        with self.lock:
            self.inside -= 1
        self.gate.leave()

    def in_a_thread(self, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - test data
        for _ in range(200):
            with suppress(DeadlineExceededError):
                self.gate.enter(soon(rng))
                self.come()
                time.sleep(rng.choice([0, 0, 0, 0.0005]))
                self.go()

    async def in_a_task(self, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - test data
        for _ in range(20):
            with suppress(TimeoutError):  # cancelled on the way, or late
                async with asyncio.timeout(rng.choice([0.0, 0.0005, 0.002, 60])):
                    await self.gate.aenter(soon(rng))
                self.come()
                await asyncio.sleep(rng.choice([0, 0.0005]))
                self.go()

    async def in_many_tasks(self, seed: int) -> None:
        await asyncio.gather(*map(self.in_a_task, range(seed, seed + 20)))


def soon(rng: random.Random) -> float | None:
    return time.monotonic() + rng.random() * 0.002 if rng.random() < 0.3 else None


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("per_second", [None, 20_000.0])
def test_threads_and_event_loops_under_load_never_exceed_and_never_leak(per_second):
    gate = Gate(ModelLimits(max_in_flight=3, requests_per_second=per_second))
    crowd = Crowd(gate)

    with ThreadPoolExecutor(8) as threads:
        work = [threads.submit(crowd.in_a_thread, seed) for seed in range(6)]
        work += [
            threads.submit(asyncio.run, crowd.in_many_tasks(seed)) for seed in (100, 200)
        ]
        for one in work:
            one.result()

    assert crowd.most <= 3
    assert crowd.passed > 0
    assert is_empty(gate)
