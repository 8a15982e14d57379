import asyncio
import contextvars
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from langchain_slm.errors import DeadlineExceededError
from langchain_slm.routing import calling
from langchain_slm.routing.calling import acall, aiterate

WATCHDOG_S = 30.0  # nothing here takes longer, unless it hangs
NAME = contextvars.ContextVar("NAME", default="nobody")


class Tripped(Exception):  # noqa: N818 - a client's
    pass


def in_time() -> float:
    """A deadline that is never reached."""
    return time.monotonic() + WATCHDOG_S


def soon() -> float:
    """A deadline that what blocks will miss."""
    return time.monotonic() + 0.02


def over() -> float:
    """A deadline that is reached already."""
    return time.monotonic() - 1


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(WATCHDOG_S):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


# Whole answers


async def gives(value):
    await asyncio.sleep(0)
    return value


async def raises(error):
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize("deadline", [None, "in time"])
async def test_an_asynchronous_call_returns_the_value(deadline):
    assert await acall(partial(gives, "Rome"), deadline and in_time()) == "Rome"


@pytest.mark.parametrize("error", [Tripped("no"), TimeoutError("its own")])
async def test_an_asynchronous_call_raises_the_very_exception(error):
    with pytest.raises(type(error)) as raised:
        await acall(partial(raises, error), in_time())
    assert raised.value is error


@pytest.fixture
def alarms(monkeypatch):
    """All alarms that are made, so that a test can ring them."""
    made = []
    usual = calling._Alarm.__init__

    def noted(alarm, deadline):
        usual(alarm, deadline)
        made.append(alarm)

    monkeypatch.setattr(calling._Alarm, "__init__", noted)
    return made


class Waiting:
    """Waits for what never comes; can swallow cancellations, or be slow to end."""

    def __init__(self, swallows: int = 0) -> None:
        self.swallows = swallows
        self.begun = asyncio.Event()
        self.never = asyncio.Event()
        self.cleaned_up = False

    async def ask(self) -> None:
        try:
            self.begun.set()
            while True:
                try:
                    await self.never.wait()
                except asyncio.CancelledError:
                    if self.swallows == 0:
                        raise
                    self.swallows -= 1
        finally:
            self.cleaned_up = True

    async def ask_in_chunks(self):
        yield "one"
        await self.ask()


async def test_a_late_asynchronous_call_is_an_error_and_has_ended():
    waiting = Waiting()
    with pytest.raises(DeadlineExceededError):
        await acall(waiting.ask, soon())
    assert waiting.cleaned_up
    assert asyncio.current_task().cancelling() == 0


async def test_an_asynchronous_deadline_that_is_over_is_an_error():
    waiting = Waiting()
    with pytest.raises(DeadlineExceededError):
        await acall(waiting.ask, over())
    assert waiting.cleaned_up


async def test_a_client_that_swallows_cancellations_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(calling, "AGAIN_S", 0.001)
    waiting = Waiting(swallows=3)
    with pytest.raises(DeadlineExceededError):
        await acall(waiting.ask, soon())
    assert waiting.cleaned_up
    assert asyncio.current_task().cancelling() == 0


async def test_a_stream_that_swallows_cancellations_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(calling, "AGAIN_S", 0.001)
    waiting = Waiting(swallows=3)
    with pytest.raises(DeadlineExceededError):
        _ = [chunk async for chunk in aiterate(waiting.ask_in_chunks, soon())]
    assert waiting.cleaned_up
    assert asyncio.current_task().cancelling() == 0


async def test_an_answer_despite_the_cancellation_leaves_the_task_uncancelled():
    # As `asyncio.wait_for` of Python 3.11 does where both come together.
    async def stubborn():
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "Rome"

    assert await acall(stubborn, soon()) == "Rome"
    assert asyncio.current_task().cancelling() == 0
    async with asyncio.timeout(WATCHDOG_S):
        await asyncio.sleep(0.01)  # and nothing is cancelled later


async def test_a_chunk_despite_the_cancellation_leaves_the_task_uncancelled():
    async def stubborn():
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield "one"
        yield "two"

    chunks = aiterate(stubborn, soon())
    assert await anext(chunks) == "one"
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(DeadlineExceededError):
        await anext(chunks)


async def test_a_cancellation_by_someone_else_stays_one():
    waiting = Waiting()
    task = asyncio.create_task(acall(waiting.ask, in_time()))
    await waiting.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert waiting.cleaned_up


async def test_a_cancellation_of_a_stream_by_someone_else_stays_one():
    waiting = Waiting()

    async def read():
        return [chunk async for chunk in aiterate(waiting.ask_in_chunks, in_time())]

    task = asyncio.create_task(read())
    await waiting.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.cleaned_up


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancellation_at_the_deadline_stays_a_cancellation(
    alarms, first, streamed
):
    waiting = Waiting()

    async def read():
        return [chunk async for chunk in aiterate(waiting.ask_in_chunks, in_time())]

    asking = read() if streamed else acall(waiting.ask, in_time())
    task = asyncio.create_task(asking)
    await waiting.begun.wait()
    # Both before the task runs again, in either order.
    steps = [alarms[0]._ring, task.cancel]
    for step in steps if first == "ours" else reversed(steps):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert task.cancelling() == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_deadline_is_kept_in_a_task_that_was_cancelled_before(streamed):
    # In the clean-up of a task that is being cancelled.
    outcome = []

    async def late():
        if streamed:
            return [chunk async for chunk in aiterate(Waiting().ask_in_chunks, soon())]
        return await acall(Waiting().ask, soon())

    async def cleaning_up():
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await late()
            except DeadlineExceededError:
                outcome.append("late")

    task = asyncio.create_task(cleaning_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcome == ["late"]


@pytest.mark.parametrize("outer_first", [True, False])
async def test_time_outs_around_and_within_are_told_apart(outer_first):
    waiting = Waiting()
    deadline = in_time() if outer_first else soon()
    expected = TimeoutError if outer_first else DeadlineExceededError
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.02 if outer_first else WATCHDOG_S):
            await acall(waiting.ask, deadline)
    assert type(raised.value) is expected
    assert asyncio.current_task().cancelling() == 0


async def test_a_group_of_tasks_goes_on_after_a_late_call():
    async def late():
        with pytest.raises(DeadlineExceededError):
            await acall(Waiting().ask, soon())
        return await acall(partial(gives, "Rome"), in_time())

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(late()) for _ in range(20)]
    assert {task.result() for task in tasks} == {"Rome"}


# Chunks


async def arange(count):
    for index in range(count):
        await asyncio.sleep(0)
        yield index


@pytest.mark.parametrize("deadline", [None, "in time"])
@pytest.mark.parametrize("count", [0, 1, 500])
async def test_an_asynchronous_stream_yields_all_in_order(deadline, count):
    chunks = aiterate(partial(arange, count), deadline and in_time())
    assert [chunk async for chunk in chunks] == list(range(count))


async def test_an_error_of_an_asynchronous_stream_is_the_very_same():
    error = Tripped("cut")

    async def source():
        yield "one"
        raise error

    chunks = aiterate(source, in_time())
    assert await anext(chunks) == "one"
    with pytest.raises(Tripped) as raised:
        await anext(chunks)
    assert raised.value is error


async def test_a_late_asynchronous_stream_is_an_error_and_has_ended():
    waiting = Waiting()
    chunks = aiterate(waiting.ask_in_chunks, soon())
    with pytest.raises(DeadlineExceededError):
        _ = [chunk async for chunk in chunks]
    assert waiting.cleaned_up
    assert asyncio.current_task().cancelling() == 0


async def test_the_readers_own_code_between_chunks_is_never_cancelled(alarms):
    until = [in_time()]
    chunks = aiterate(partial(arange, 3), lambda: until[0])
    assert await anext(chunks) == 0
    until[0] = time.monotonic()
    alarms[0]._ring()
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(DeadlineExceededError):
        await anext(chunks)
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0


async def test_a_deadline_that_is_put_off_is_kept_later(alarms):
    until = [soon()]
    chunks = aiterate(partial(arange, 2), lambda: until[0])
    assert await anext(chunks) == 0
    until[0] = in_time()
    alarms[0]._ring()
    assert [chunk async for chunk in chunks] == [1]


async def test_another_task_that_reads_is_the_one_that_is_cancelled(alarms):
    waiting, until = Waiting(), [in_time()]
    chunks = aiterate(waiting.ask_in_chunks, lambda: until[0])
    assert await asyncio.create_task(chunks.__anext__()) == "one"
    reader = asyncio.create_task(chunks.__anext__())
    await waiting.begun.wait()
    until[0] = time.monotonic()
    alarms[0]._ring()
    with pytest.raises(DeadlineExceededError):
        await reader
    assert reader.cancelling() == 0
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("deadline", [None, "in time"])
async def test_a_stream_may_be_read_by_many_tasks_in_turn(deadline):
    chunks = aiterate(partial(arange, 5), deadline and in_time())
    seen = [await asyncio.create_task(chunks.__anext__()) for _ in range(5)]
    assert seen == [0, 1, 2, 3, 4]
    await asyncio.create_task(chunks.aclose())


@pytest.mark.parametrize("deadline", [None, "in time"])
async def test_an_asynchronous_stream_that_is_closed_closes_its_source(deadline):
    closed = []

    async def source():
        try:
            while True:
                yield "more"
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    chunks = aiterate(source, deadline and in_time())
    await anext(chunks)
    await chunks.aclose()
    assert closed == ["closed"]


async def test_an_abandoned_stream_closes_its_source_and_stops_its_alarm(alarms):
    closed = []

    async def source():
        try:
            while True:
                yield "more"
        finally:
            closed.append("closed")

    async for _ in aiterate(source, in_time()):
        break
    gc.collect()
    await until(lambda: closed == ["closed"])
    assert alarms[0]._timer.cancelled()


async def test_an_asynchronous_source_that_is_no_generator_is_closed_too():
    class Source:
        closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            return "more"

        async def aclose(self):
            self.closed = True

    source = Source()
    chunks = aiterate(lambda: source, in_time())
    await anext(chunks)
    await chunks.aclose()
    assert source.closed


async def test_an_asynchronous_source_need_not_be_closable():
    class Source:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise StopAsyncIteration

    assert [chunk async for chunk in aiterate(Source, in_time())] == []


async def test_an_endless_stream_of_nothing_ends_by_the_deadline(monkeypatch):
    # A client that yields nothing for what it reads, and loses cancellations.
    monkeypatch.setattr(calling, "AGAIN_S", 0.001)
    lost = 2

    async def nothing():
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if lost == 0:
                    raise
                lost -= 1
        yield "never"

    with pytest.raises(DeadlineExceededError):
        await anext(aiterate(nothing, soon()))
    assert asyncio.current_task().cancelling() == 0


async def test_context_variables_are_seen_in_asynchronous_calls():
    token = NAME.set("ann")
    try:

        async def ask():
            return NAME.get()

        assert await acall(ask, in_time()) == "ann"
    finally:
        NAME.reset(token)


async def test_hundreds_of_late_calls_at_once_are_all_late():
    calls = [acall(Waiting().ask, soon()) for _ in range(300)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DeadlineExceededError}
