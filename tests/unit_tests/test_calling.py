import contextvars
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from langchain_slm.errors import DeadlineExceededError
from langchain_slm.routing import calling
from langchain_slm.routing.calling import call, iterate, when_given_up

WATCHDOG_S = 30.0  # nothing here takes longer, unless it hangs
NAME = contextvars.ContextVar("NAME", default="nobody")


def in_time() -> float:
    """A deadline that is never reached."""
    return time.monotonic() + WATCHDOG_S


def soon() -> float:
    """A deadline that what blocks will miss."""
    return time.monotonic() + 0.02


def a_while() -> float:
    """A deadline that comes when the call has begun."""
    return time.monotonic() + 0.5


def over() -> float:
    """A deadline that is reached already."""
    return time.monotonic() - 1


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + WATCHDOG_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "langchain-slm-call"]


def send_workers_home() -> None:
    there = len(workers())
    waiting = [calling._Worker._idle.pop() for _ in range(len(calling._Worker._idle))]
    for worker in waiting:
        worker.jobs.put(None)
    until(lambda: len(workers()) <= there - len(waiting))


@pytest.fixture
def busy():
    """What says how many workers, begun from here on, make a call."""
    send_workers_home()
    others = set(workers())
    return lambda: len(set(workers()) - others) - len(calling._Worker._idle)


class Tripped(Exception):  # noqa: N818 - a client's
    pass


class Patient:
    """Blocks, as a client does, until it is let go; knows the thread that it blocks."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.cleaned_up = threading.Event()
        self.thread: threading.Thread | None = None

    def ask(self) -> str:
        self.thread = threading.current_thread()
        try:
            self.begun.set()
            self.go_on.wait(WATCHDOG_S)
            return "too late"
        finally:
            self.cleaned_up.set()

    def ask_in_chunks(self):
        yield "one"
        yield self.ask()

    def ended(self) -> bool:
        return self.thread is None or not self.thread.is_alive()


class Line(Patient):
    """Reads from a connection that stays silent; says how to shut it."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = socket.socketpair()

    def ask(self) -> str:
        self.thread = threading.current_thread()
        when_given_up(partial(self.near.shutdown, socket.SHUT_RDWR))
        self.begun.set()
        return str(self.near.recv(1))

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def line():
    silent = Line()
    yield silent
    silent.far.close()  # ends a call that still reads
    until(silent.ended)
    silent.close()


@pytest.fixture
def thread_errors(monkeypatch):
    """What threads end with, instead of a warning."""
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    return errors


# Whole answers


@pytest.mark.parametrize("deadline", [None, "in time"])
def test_a_call_returns_the_value(deadline):
    assert call(lambda: "Rome", deadline and in_time()) == "Rome"


@pytest.mark.parametrize("value", [None, False, [], StopIteration])
def test_a_call_may_return_any_value(value):
    assert call(lambda: value, in_time()) is value


@pytest.mark.parametrize(
    "error", [Tripped("no"), StopIteration("out"), KeyError("a"), GeneratorExit("end")]
)
def test_a_call_raises_the_very_exception(error):
    def ask():
        raise error

    with pytest.raises(type(error)) as raised:
        call(ask, in_time())
    assert raised.value is error
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exception_that_ends_programs_passes_too(kind):
    def ask():
        raise kind

    with pytest.raises(kind):
        call(ask, in_time())


def test_the_traceback_shows_where_it_was_raised_and_where_it_was_asked():
    def deep_in_a_client():
        raise Tripped

    with pytest.raises(Tripped) as raised:
        call(deep_in_a_client, in_time())
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[0].startswith("test_the_traceback_shows")
    assert names[-1] == "deep_in_a_client"


def test_a_cause_stays():
    def ask():
        raise Tripped from ValueError("why")

    with pytest.raises(Tripped) as raised:
        call(ask, in_time())
    assert repr(raised.value.__cause__) == "ValueError('why')"


def test_a_time_out_of_the_client_is_its_own():
    def ask():
        raise TimeoutError

    with pytest.raises(TimeoutError) as raised:
        call(ask, in_time())
    assert type(raised.value) is TimeoutError


def test_a_late_call_is_an_error():
    patient = Patient()
    with pytest.raises(DeadlineExceededError):
        call(patient.ask, soon())
    patient.go_on.set()


def test_a_deadline_that_is_over_is_an_error_and_the_call_ends():
    patient = Patient()
    with pytest.raises(DeadlineExceededError):
        call(patient.ask, over())
    patient.go_on.set()
    until(patient.ended)


def test_a_call_that_is_given_up_at_once_ends_without_a_trace(busy, thread_errors):
    for _ in range(500):  # each of these calls begins with a new thread
        with suppress(DeadlineExceededError):
            call(str, over())
    until(lambda: not busy())
    assert thread_errors == []


def test_a_deadline_may_be_centuries_away():
    assert call(lambda: "Rome", time.monotonic() + 1e12) == "Rome"


@pytest.mark.parametrize("outcome", [str, partial(next, iter(())), sys.exit])
def test_what_becomes_of_a_call_that_was_given_up_is_lost(outcome, thread_errors):
    patient = Patient()

    def ask():
        patient.ask()
        return outcome()

    with pytest.raises(DeadlineExceededError):
        call(ask, soon())
    patient.go_on.set()
    until(patient.ended)
    assert call(lambda: "Rome", in_time()) == "Rome"
    assert thread_errors == []


def test_nothing_is_thrown_into_a_call_that_was_given_up():
    # It might hold a lock, which nobody would release.
    lock, begun, go_on = threading.Lock(), threading.Event(), threading.Event()
    seen = []

    def ask():
        try:
            lock.acquire()
            begun.set()
            while not go_on.is_set():
                time.sleep(0.001)
            lock.release()
        except BaseException as error:  # noqa: BLE001 - what nobody may throw
            seen.append(error)

    late = threading.Thread(target=lambda: suppressed(ask))
    late.start()
    assert begun.wait(WATCHDOG_S)
    late.join(WATCHDOG_S)
    time.sleep(0.02)  # a few steps more of the call
    go_on.set()
    assert lock.acquire(timeout=WATCHDOG_S)
    assert seen == []


def suppressed(ask: Callable[[], object]) -> None:
    with suppress(DeadlineExceededError):
        call(ask, a_while())


# Chunks


@pytest.mark.parametrize("deadline", [None, "in time"])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_a_stream_yields_all_in_order(deadline, count):
    chunks = iterate(lambda: iter(range(count)), deadline and in_time())
    assert list(chunks) == list(range(count))


@pytest.mark.parametrize("deadline", [None, "in time"])
def test_nothing_is_asked_before_the_first_chunk_is_wanted(deadline):
    asked = []
    iterate(lambda: asked.append("asked") or iter(()), deadline and in_time())
    assert asked == []


@pytest.mark.parametrize("deadline", [None, "in time"])
def test_an_error_comes_after_the_chunks_before_it(deadline):
    error = Tripped("cut")

    def source():
        yield "one"
        yield "two"
        raise error

    chunks = iterate(source, deadline and in_time())
    assert [next(chunks), next(chunks)] == ["one", "two"]
    with pytest.raises(Tripped) as raised:
        next(chunks)
    assert raised.value is error


def test_an_error_of_the_call_itself_is_the_streams():
    def ask():
        raise Tripped

    with pytest.raises(Tripped):
        list(iterate(ask, in_time()))


def test_chunks_come_while_the_stream_goes_on():
    patient = Patient()
    chunks = iterate(patient.ask_in_chunks, in_time())
    assert next(chunks) == "one"
    assert not patient.go_on.is_set()
    patient.go_on.set()
    assert list(chunks) == ["too late"]


def test_a_late_stream_is_an_error_after_its_chunks():
    patient = Patient()
    chunks = iterate(patient.ask_in_chunks, time.monotonic() + 1)
    assert next(chunks) == "one"
    with pytest.raises(DeadlineExceededError):
        next(chunks)
    patient.go_on.set()
    assert patient.cleaned_up.wait(WATCHDOG_S)


@pytest.mark.parametrize("deadline", [None, "in time"])
def test_a_stream_that_is_left_closes_its_source(deadline):
    closed = threading.Event()

    def source():
        try:
            yield "one"
            while True:
                yield "more"
        finally:
            closed.set()

    chunks = iterate(source, deadline and in_time())
    assert next(chunks) == "one"
    chunks.close()
    assert closed.wait(WATCHDOG_S)


def test_a_stream_that_is_forgotten_closes_its_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    chunks = iterate(source, in_time())
    next(chunks)
    del chunks
    gc.collect()
    assert closed.wait(WATCHDOG_S)


def test_a_source_that_is_no_generator_is_closed_too():
    class Source:
        def __init__(self) -> None:
            self.closed = threading.Event()

        def __iter__(self):
            return self

        def __next__(self):
            return "more"

        def close(self) -> None:
            self.closed.set()

    source = Source()
    chunks = iterate(lambda: source, in_time())
    next(chunks)
    chunks.close()
    assert source.closed.wait(WATCHDOG_S)


def test_a_stream_that_is_left_while_it_blocks_ends_at_its_next_chunk(thread_errors):
    patient, closed, asked_on = Patient(), threading.Event(), threading.Event()

    def source():
        try:
            yield from patient.ask_in_chunks()
            asked_on.set()
        finally:
            closed.set()

    chunks = iterate(source, in_time())
    assert next(chunks) == "one"
    assert patient.begun.wait(WATCHDOG_S)
    chunks.close()
    patient.go_on.set()
    assert closed.wait(WATCHDOG_S)
    until(patient.ended)
    assert not asked_on.is_set()
    assert thread_errors == []


class PutOff:
    """Says a deadline some times, each later than the one before, and then another."""

    def __init__(self, then: float | None) -> None:
        self.left = 3
        self.then = then

    def __call__(self) -> float | None:
        if self.left == 0:
            return self.then
        self.left -= 1
        return a_while() if self.left else soon()


@pytest.mark.parametrize("then", [None, "in time"])
def test_a_deadline_may_be_put_off_and_lifted(then):
    deadline = PutOff(then and in_time())

    def source():
        until(lambda: deadline.left == 0)
        time.sleep(0.05)  # beyond the last of them
        yield "one"

    assert list(iterate(source, deadline)) == ["one"]


def test_a_deadline_that_was_put_off_is_a_deadline(line):
    deadline = PutOff(over())
    with pytest.raises(DeadlineExceededError):
        list(iterate(line.ask_in_chunks, deadline))
    assert deadline.left == 0
    line.far.close()
    until(line.ended)


def test_what_says_no_deadline_takes_no_worker():
    where = iterate(lambda: (threading.current_thread() for _ in "a"), lambda: None)
    assert list(where) == [threading.current_thread()]


def test_an_endless_stream_ends_by_the_deadline_however_slowly_it_is_read():
    def endless():
        while True:
            yield "more"

    def read():
        for _ in iterate(endless, time.monotonic() + 0.1):
            time.sleep(0.001)

    reader = ThreadPoolExecutor(1)
    reading = reader.submit(read)
    assert isinstance(reading.exception(WATCHDOG_S), DeadlineExceededError)
    reader.shutdown()


def test_the_client_waits_for_a_reader_that_is_far_behind():
    made = 0

    def source():
        nonlocal made
        while made < 10 * calling.MOST_AHEAD:
            made += 1
            yield made

    chunks = iterate(source, in_time())
    assert next(chunks) == 1
    until(lambda: made >= calling.MOST_AHEAD)
    time.sleep(0.05)  # it would make thousands more
    assert made <= calling.MOST_AHEAD + 2
    assert list(chunks) == list(range(2, 10 * calling.MOST_AHEAD + 1))


def test_a_client_that_waits_for_its_reader_is_ended_with_it():
    closed = threading.Event()
    made = []

    def source():
        try:
            while True:
                made.append("chunk")
                yield "chunk"
        finally:
            closed.set()

    chunks = iterate(source, in_time())
    next(chunks)
    until(lambda: len(made) >= calling.MOST_AHEAD)
    chunks.close()
    assert closed.wait(WATCHDOG_S)


def test_chunks_that_came_in_time_are_read_later():
    ended = threading.Event()

    def source():
        yield from range(10)
        ended.set()

    deadline = time.monotonic() + 1
    chunks = iterate(source, deadline)
    assert next(chunks) == 0
    assert ended.wait(WATCHDOG_S)
    until(lambda: time.monotonic() > deadline)
    assert list(chunks) == list(range(1, 10))


# Workers


def test_a_thousand_calls_take_one_worker():
    call(str, in_time())  # one is there, or is made
    before = set(workers())
    used = {call(threading.current_thread, in_time()) for _ in range(1000)}
    assert len(used) == 1
    assert set(workers()) == before


def test_a_thousand_streams_take_one_worker():
    call(str, in_time())
    before = set(workers())
    for _ in range(1000):
        assert list(iterate(lambda: iter("ab"), in_time())) == ["a", "b"]
    assert set(workers()) == before


def test_a_call_without_a_deadline_takes_no_worker():
    assert call(threading.current_thread, None) is threading.current_thread()


def test_a_worker_is_a_daemon():
    assert call(threading.current_thread, in_time()).daemon


def test_so_many_workers_wait_and_no_more(monkeypatch):
    monkeypatch.setattr(calling, "MOST_IDLE", 3)
    send_workers_home()
    together = threading.Barrier(10)
    with ThreadPoolExecutor(10) as callers:
        asks = [
            callers.submit(call, partial(together.wait, WATCHDOG_S), in_time())
            for _ in range(10)
        ]
        assert sorted(ask.result(WATCHDOG_S) for ask in asks) == list(range(10))
    # Two that end at the same moment may both see the last place.
    assert 3 <= len(calling._Worker._idle) <= 3 + 10 // 2


def test_the_answer_is_not_kept_by_a_worker():
    class Answer:
        pass

    answer = call(Answer, in_time())
    kept = weakref.ref(answer)
    del answer
    until(lambda: kept() is None)


def test_an_error_is_not_kept_by_a_worker():
    def ask():
        raise Tripped

    def outcome():
        try:
            call(ask, in_time())
        except Tripped as error:
            return weakref.ref(error)

    gc.disable()  # not even in a cycle
    try:
        kept = outcome()
        until(lambda: kept() is None)
    finally:
        gc.enable()


def test_context_variables_are_seen_in_the_call():
    token = NAME.set("ann")
    try:
        assert call(NAME.get, in_time()) == "ann"
        assert list(iterate(lambda: iter([NAME.get()]), in_time())) == ["ann"]
    finally:
        NAME.reset(token)
    assert call(NAME.get, in_time()) == "nobody"  # the same worker


def test_what_a_call_sets_stays_in_it():
    call(partial(NAME.set, "bob"), in_time())
    assert NAME.get() == "nobody"
    assert call(NAME.get, in_time()) == "nobody"


def test_calls_within_calls_are_answered():
    def nested(depth):
        if depth == 0:
            return [threading.current_thread()]
        return [threading.current_thread(), *call(partial(nested, depth - 1), in_time())]

    threads = nested(5)
    assert len(set(threads)) == 6


def test_streams_within_streams_are_read():
    def nested(depth):
        if depth == 0:
            return iter("abc")
        return (chunk + "!" for chunk in iterate(partial(nested, depth - 1), in_time()))

    assert list(iterate(partial(nested, 3), in_time())) == ["a!!!", "b!!!", "c!!!"]


def test_a_call_within_a_call_that_was_given_up_is_given_up_too(line, thread_errors):
    threads, tried_again = [threading.current_thread()], threading.Event()

    def nested(depth):
        threads.append(threading.current_thread())
        if depth == 0:
            return line.ask()
        with suppress(Exception):
            return call(partial(nested, depth - 1), in_time())
        tried_again.set()
        return None

    with pytest.raises(DeadlineExceededError):
        call(partial(nested, 3), time.monotonic() + 1)
    assert line.begun.is_set()
    until(lambda: not any(thread.is_alive() for thread in threads[1:]))
    assert len(set(threads)) == 5
    assert not tried_again.is_set()
    assert thread_errors == []


def test_a_stream_within_a_stream_that_was_left_is_left_too(line, thread_errors):
    closed = threading.Event()

    def outer():
        try:
            yield from iterate(line.ask_in_chunks, in_time())
        finally:
            closed.set()

    chunks = iterate(outer, in_time())
    assert next(chunks) == "one"
    assert line.begun.wait(WATCHDOG_S)
    chunks.close()
    assert closed.wait(WATCHDOG_S)
    until(line.ended)
    assert thread_errors == []


@pytest.mark.parametrize("way", [call, lambda ask, end: list(iterate(ask, end))])
def test_no_call_is_made_within_a_call_that_was_given_up(way, thread_errors):
    patient, asked = Patient(), []

    def outer():
        patient.ask()
        return way(lambda: asked.append("asked") or (), in_time())

    with pytest.raises(DeadlineExceededError):
        call(outer, soon())
    patient.go_on.set()
    until(patient.ended)
    assert asked == []
    assert thread_errors == []


def test_fifty_threads_get_their_own_answers():
    def many(caller):
        token = NAME.set(f"caller {caller}")
        try:
            for turn in range(40):
                assert call(lambda: (caller, turn), in_time()) == (caller, turn)  # noqa: B023 - called at once
                assert call(NAME.get, in_time()) == f"caller {caller}"
                chunks = iterate(lambda: ((caller, i) for i in range(3)), in_time())
                assert list(chunks) == [(caller, 0), (caller, 1), (caller, 2)]
        finally:
            NAME.reset(token)
        return caller

    with ThreadPoolExecutor(50) as callers:
        assert list(callers.map(many, range(50))) == list(range(50))
    assert len(calling._Worker._idle) <= calling.MOST_IDLE


def test_calls_that_end_as_they_are_given_up_harm_no_others(busy, thread_errors):
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def racing(caller):
        for turn in range(100):
            with suppress(DeadlineExceededError):
                call(partial(sum, range(turn * 20)), time.monotonic() + turn * 2e-6)
            assert call(lambda: turn, in_time()) == turn  # noqa: B023 - called at once
        return caller

    try:
        with ThreadPoolExecutor(8) as callers:
            assert list(callers.map(racing, range(8))) == list(range(8))
    finally:
        sys.setswitchinterval(usual)
    until(lambda: not busy())
    assert thread_errors == []


# What ends a call from outside


class Noted:
    """Notes the threads in which it is called."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __call__(self) -> None:
        self.threads.append(threading.current_thread())


@pytest.fixture
def give_up():
    """What makes a call of a step, which then blocks, and gives it up there."""
    patients: list[Patient] = []

    def give_up_after(step: Callable[[], object]) -> None:
        patient = Patient()
        patients.append(patient)

        def ask():
            step()
            yield "one"
            patient.ask()

        chunks = iterate(ask, in_time())
        next(chunks)
        giver = threading.Thread(target=chunks.close, daemon=True)
        giver.start()
        giver.join(WATCHDOG_S)
        assert not giver.is_alive()

    yield give_up_after
    for patient in patients:
        patient.go_on.set()
        until(patient.ended)


def test_what_ends_a_call_is_called_once_in_the_thread_that_gives_it_up():
    patient, noted = Patient(), Noted()

    def ask():
        when_given_up(noted)
        return patient.ask()

    with pytest.raises(DeadlineExceededError):
        call(ask, a_while())
    assert noted.threads == [threading.current_thread()]
    patient.go_on.set()
    until(patient.ended)
    assert len(noted.threads) == 1


def test_what_ends_a_stream_is_called_once_in_the_thread_that_leaves_it():
    patient, noted = Patient(), Noted()

    def source():
        when_given_up(noted)
        yield from patient.ask_in_chunks()

    chunks = iterate(source, in_time())
    next(chunks)
    assert noted.threads == []
    chunks.close()
    assert noted.threads == [threading.current_thread()]
    patient.go_on.set()
    until(patient.ended)
    assert len(noted.threads) == 1


def test_what_is_forgotten_is_not_called(give_up):
    first, second, third = Noted(), Noted(), Noted()

    def register():
        when_given_up(first)
        forget = when_given_up(second)
        when_given_up(third)
        forget()
        forget()  # once more does nothing

    give_up(register)
    assert [len(noted.threads) for noted in (first, second, third)] == [1, 0, 1]


def test_the_same_may_be_said_twice_and_forgotten_once(give_up):
    noted = Noted()

    def register():
        when_given_up(noted)
        when_given_up(noted)()

    give_up(register)
    assert len(noted.threads) == 1


def test_what_is_said_after_the_call_was_given_up_is_called_at_once():
    patient, early, late = Patient(), Noted(), Noted()
    called_at_once = threading.Event()

    def ask():
        when_given_up(early)
        patient.ask()
        forget = when_given_up(late)
        if late.threads:
            called_at_once.set()
        forget()

    with pytest.raises(DeadlineExceededError):
        call(ask, a_while())
    patient.go_on.set()
    until(patient.ended)
    assert called_at_once.is_set()
    assert late.threads == [patient.thread]
    assert early.threads == [threading.current_thread()]


def test_outside_of_a_worker_nothing_can_be_given_up():
    noted = Noted()
    when_given_up(noted)()
    forget = call(lambda: when_given_up(noted), None)
    forget()
    when_given_up(noted)
    with pytest.raises(DeadlineExceededError):
        call(partial(time.sleep, 0.05), over())
    assert noted.threads == []


def test_what_ended_calls_said_is_not_called(give_up):
    noted = Noted()
    call(partial(when_given_up, noted), in_time())
    list(iterate(lambda: iter([when_given_up(noted)]), in_time()))
    with pytest.raises(Tripped):
        call(partial(trip, noted), in_time())
    give_up(str)  # in the same worker
    assert noted.threads == []


def trip(noted: Noted) -> None:
    when_given_up(noted)
    raise Tripped


def test_an_end_that_raises_harms_nobody(give_up, thread_errors):
    before, after = Noted(), Noted()

    def raises():
        raise Tripped

    def register():
        for end in (before, raises, after):
            when_given_up(end)

    give_up(register)
    assert (len(before.threads), len(after.threads)) == (1, 1)
    assert thread_errors == []


def test_an_end_that_raises_does_not_hide_that_the_call_is_late():
    patient = Patient()

    def ask():
        when_given_up(partial(trip, Noted()))
        return patient.ask()

    with pytest.raises(DeadlineExceededError) as raised:
        call(ask, a_while())
    assert raised.value.__context__ is None
    patient.go_on.set()


def test_garbage_may_be_forgotten_while_a_call_is_given_up(give_up):
    # Garbage collection may close a response anywhere, in the same thread.
    forgets, others = [], Noted()

    def register():
        when_given_up(others)
        forgets.append(when_given_up(others))
        when_given_up(forgets[0])

    give_up(register)
    assert len(others.threads) == 1


def test_a_call_whose_connection_is_shut_ends(line, thread_errors):
    with pytest.raises(DeadlineExceededError):
        call(line.ask, a_while())
    assert line.begun.is_set()
    until(line.ended)
    assert line.far.recv(1) == b""  # the other side sees it
    assert thread_errors == []


def test_a_stream_whose_connection_is_shut_ends(line, thread_errors):
    chunks = iterate(line.ask_in_chunks, in_time())
    assert next(chunks) == "one"
    assert line.begun.wait(WATCHDOG_S)
    chunks.close()
    until(line.ended)
    assert line.far.recv(1) == b""
    assert thread_errors == []


def test_what_was_forgotten_in_time_is_never_called_afterwards(busy, thread_errors):
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    wrong = []

    def ask(turn):
        lent = [True]
        forget = when_given_up(lambda: lent[0] or wrong.append(turn))
        sum(range(turn * 20))
        forget()
        lent[0] = False

    def racing(caller):
        for turn in range(100):
            with suppress(DeadlineExceededError):
                call(partial(ask, turn), time.monotonic() + turn * 2e-6)
        return caller

    try:
        with ThreadPoolExecutor(8) as callers:
            assert list(callers.map(racing, range(8))) == list(range(8))
    finally:
        sys.setswitchinterval(usual)
    until(lambda: not busy())
    assert wrong == []
    assert thread_errors == []


# Processes


def script(source: str) -> subprocess.Popen[str]:
    head = """
        import os, signal, sys, threading, time
        from langchain_slm.errors import DeadlineExceededError
        from langchain_slm.routing.calling import call, iterate, when_given_up
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def in_time():
            return time.monotonic() + 1000

        def say(word):
            print(word, flush=True)

    """
    code = textwrap.dedent(head) + textwrap.dedent(source)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, error = process.communicate(timeout=2 * WATCHDOG_S)
    finally:
        process.kill()
    return process.returncode, out, error


def test_an_interrupt_reaches_who_waits_and_ends_the_call():
    process = script("""
        told, done = threading.Event(), threading.Event()

        def slow():
            when_given_up(told.set)
            say("asked")
            told.wait()
            done.set()

        try:
            call(slow, in_time())
        except KeyboardInterrupt:
            assert done.wait(30)
            say("interrupted")
        say(call(lambda: "and goes on", in_time()))
    """)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, "interrupted\nand goes on\n", "")


def test_an_interrupt_while_a_stream_is_awaited_ends_it():
    process = script("""
        told, done = threading.Event(), threading.Event()

        def slow():
            when_given_up(told.set)
            try:
                yield "one"
                say("asked")
                told.wait()
                yield "two"
            finally:
                done.set()

        try:
            for chunk in iterate(slow, in_time()):
                pass
        except KeyboardInterrupt:
            assert done.wait(30)
            say("interrupted")
    """)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, "interrupted\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_can_call():
    process = script("""
        import warnings
        warnings.simplefilter("ignore")  # of Python 3.12 about threads and forks
        for _ in range(3):
            call(lambda: None, in_time())
        child = os.fork()
        if child == 0:
            say(call(lambda: "the child's", in_time()))
            say(list(iterate(lambda: iter("ab"), in_time())))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        say(call(lambda: "the parent's", in_time()))
    """)
    assert ended(process) == (0, "the child's\n['a', 'b']\nthe parent's\n", "")


def test_a_hung_call_does_not_keep_a_program_from_ending():
    # `sleep` cannot be interrupted: as a socket that nobody writes to.
    process = script("""
        try:
            call(lambda: time.sleep(1000), time.monotonic() + 0.1)
        except DeadlineExceededError:
            say("late")
    """)
    assert ended(process) == (0, "late\n", "")


def test_a_call_that_nobody_waits_for_does_not_keep_a_program_from_ending():
    process = script("""
        begun = threading.Event()

        def slow():
            begun.set()
            time.sleep(1000)

        threading.Thread(target=call, args=(slow, in_time()), daemon=True).start()
        begun.wait()
        chunks = iterate(lambda: iter(int, 1), in_time())
        say(next(chunks))
    """)
    assert ended(process) == (0, "0\n", "")
