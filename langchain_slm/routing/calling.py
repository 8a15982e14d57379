"""Calls of a model that end by a deadline, whatever the model's client does.

No client bounds a whole call: a time-out of theirs is per read, and an endpoint that
sends a byte now and then is never late. A synchronous call with a deadline is therefore
made in a worker thread, with the caller's context variables. Of one that is given up the
connection is shut, if its client told `when_given_up` how; a stream ends at its next
chunk in any case. Nothing is thrown into the thread: that can leave a lock held, such as
that of a pool of connections, and block every call after it. Asynchronous calls are
cancelled, again and again until they end.

Deadlines are seconds of `time.monotonic`; None is no deadline and costs nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import threading
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar, TypeVar

from langchain_slm.errors import DeadlineExceededError

T = TypeVar("T")
Until = Callable[[], float | None]
MOST_IDLE = 64  # workers that wait for the next call; more of them end
# Chunks that may wait for a slow reader, a few MB; then the client waits for it, as it
# does without a worker.
MOST_AHEAD = 1024
# When a cancelled call that still runs is cancelled again: time to close a connection.
AGAIN_S = 0.5
EARLIEST_S = 0.001  # a loop's clock is coarse: what is less too early is in time


class _GivenUp(BaseException):
    """Ends a call within a call that nobody waits for; no client keeps it."""


def _until(deadline: Until | float | None) -> Until:
    return deadline if callable(deadline) else lambda: deadline


def _left_s(until: Until) -> float:
    deadline = until()
    return math.inf if deadline is None else deadline - time.monotonic()


def _late() -> DeadlineExceededError:
    return DeadlineExceededError("the model did not answer by its deadline")


def call(ask: Callable[[], T], deadline: float | None) -> T:
    """Return what `ask` returns.

    Raises:
        DeadlineExceededError: If it does not return by the deadline.
    """
    if deadline is None:
        return ask()
    job = _Job(lambda job: job.given.append(ask()))
    try:
        until = _until(deadline)
        while not job.ended:
            job.wait(until)
    finally:
        job.leave()
    job.raise_error()
    answer: T = job.given.popleft()
    return answer


def iterate(ask: Callable[[], Iterator[T]], until: Until | float | None) -> Generator[T]:
    """Yield what the iterator that `ask` returns yields.

    Args:
        ask: Gives the iterator.
        until: The deadline, or what says it: it may be put off meanwhile.

    Raises:
        DeadlineExceededError: If it has not ended by the deadline.
    """
    until = _until(until)
    if until() is None:
        yield from ask()
        return
    job = _Job(partial(_pump, ask))
    try:
        while not job.ended:
            while job.given and time.monotonic() < (until() or math.inf):
                yield job.take()
            if not job.ended:
                job.wait(until)
    finally:
        job.leave()
    while job.given:
        yield job.given.popleft()
    job.raise_error()


async def acall(ask: Callable[[], Awaitable[T]], deadline: float | None) -> T:
    """Return what `ask` gives; asynchronous `call`.

    Raises:
        DeadlineExceededError: If it does not give it by the deadline.
    """
    if deadline is None:
        return await ask()
    alarm = _Alarm(_until(deadline))
    try:
        return await alarm.waited(ask)
    finally:
        alarm.cancel()


async def aiterate(
    ask: Callable[[], AsyncIterator[T]], until: Until | float | None
) -> AsyncGenerator[T]:
    """Yield what the iterator that `ask` returns yields; asynchronous `iterate`.

    Args:
        ask: Gives the iterator.
        until: The deadline, or what says it: it may be put off meanwhile.

    Raises:
        DeadlineExceededError: If it has not ended by the deadline.
    """
    chunks = ask()
    coming = partial(anext, chunks)
    until = _until(until)
    alarm = None if until() is None else _Alarm(until)
    try:
        while True:
            try:
                chunk = await (coming() if alarm is None else alarm.waited(coming))
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        if alarm is not None:
            alarm.cancel()
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


class _Alarm:
    """One timer for a whole request; it cancels only a task that waits for the model.

    It rings again while the task still waits: a cancellation that arrives together with
    data is lost in `asyncio.wait_for` before Python 3.12, which clients use.
    """

    def __init__(self, until: Until) -> None:
        self._waiting: asyncio.Task[Any] | None = None
        self._until = until
        self._is_late = False
        self._rings = 0  # of the present wait
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_left_s(until), self._ring)

    def _ring(self) -> None:
        if not self._is_late and (left_s := _left_s(self._until)) > EARLIEST_S:
            self._timer = self._loop.call_later(left_s, self._ring)
            return
        self._is_late = True
        if self._waiting is not None:
            self._rings += 1
            self._waiting.cancel()
            self._timer = self._loop.call_later(AGAIN_S, self._ring)

    def cancel(self) -> None:
        self._timer.cancel()

    async def waited(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self._is_late:
            raise _late()
        task = self._waiting = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        try:
            return await ask()
        except asyncio.CancelledError:
            # Someone else may have cancelled the task as well.
            if not self._rings or self._taken_back(task) > before:
                raise
        finally:
            self._waiting = None
            if self._rings:
                self._taken_back(task)
        raise _late()

    def _taken_back(self, task: asyncio.Task[Any] | None) -> int:
        """Take back this alarm's cancellations; return how many others there are."""
        rings, self._rings = self._rings, 0
        if task is None:
            return 0
        for _ in range(rings):
            task.uncancel()
        return task.cancelling()


class _Signal:
    """Wakes one thread that waits for another; costs less than an Event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def give(self) -> None:
        if self._lock.locked():
            with suppress(RuntimeError):  # another thread was faster
                self._lock.release()

    def wait(self, timeout_s: float = -1) -> bool:
        return self._lock.acquire(timeout=timeout_s)


class _Job:
    """One call in a worker, and what it gives, as it comes."""

    def __init__(self, work: Callable[[_Job], None]) -> None:
        self._work = work
        self._context = contextvars.copy_context()
        self.given: deque[Any] = deque()
        self.ended = self.given_up = False
        self._error: BaseException | None = None
        # Of `ended`, `given_up` and `_ways`. One thread may enter it twice: a response
        # that garbage collection closes there is forgotten, too.
        self._state = threading.RLock()
        self._ways: dict[object, Callable[[], object]] = {}  # to end it from outside
        self._news, self._room = _Signal(), _Signal()
        around: _Job | None = getattr(_here, "job", None)
        if around is not None and around.given_up:
            raise _GivenUp
        self._worker = _Worker.free()
        self._worker.jobs.put(self)

    # In the worker

    def run(self) -> None:
        """Make the call."""
        if self.given_up:
            return
        try:
            self._context.run(self._work, self)
        except _GivenUp:
            pass
        except BaseException as error:  # noqa: BLE001 - raised where the call was made
            self._error = error
        finally:
            with self._state:
                self._ways.clear()
                self.ended = True
            self._news.give()

    def when_given_up(self, end: Callable[[], object]) -> Callable[[], None]:
        """Remember what ends the call from outside; return what forgets it."""
        key = object()
        with self._state:
            self._ways[key] = end
            if self.given_up:
                self._end()

        def forget() -> None:
            with self._state:
                self._ways.pop(key, None)

        return forget

    def give(self, item: Any) -> None:
        """Hand something to the caller; wait if it is far behind."""
        self.given.append(item)
        self._news.give()
        if len(self.given) >= MOST_AHEAD and not self.given_up:
            self._room.wait()

    # In the caller

    def take(self) -> Any:
        """Return the next of what was given."""
        item = self.given.popleft()
        if not self.given:
            self._room.give()
        return item

    def wait(self, until: Until) -> None:
        """Wait for news.

        Raises:
            DeadlineExceededError: If the deadline comes first.
        """
        around: _Job | None = getattr(_here, "job", None)
        if around is None:
            self._wait(until)
            return
        # A call within a call is given up with it.
        forget = around.when_given_up(self._news.give)
        try:
            self._wait(until)
        finally:
            forget()
        if around.given_up:
            raise _GivenUp

    def _wait(self, until: Until) -> None:
        while (remaining_s := _left_s(until)) > 0:
            if self._news.wait(min(remaining_s, threading.TIMEOUT_MAX)):
                return
        raise _late()

    def leave(self) -> None:
        """Let the worker go on to another call, or end this one if it still runs."""
        with self._state:
            self.given_up = not self.ended
            if self.given_up:
                self._end()
        if self.given_up:
            self._room.give()
        else:
            self._worker.rest()

    def _end(self) -> None:
        while self._ways:
            _, end = self._ways.popitem()  # once each
            with suppress(Exception):  # of a connection that is closed already
                end()

    def raise_error(self) -> None:
        """Raise what the call raised, if anything."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame


def _pump(ask: Callable[[], Iterator[Any]], job: _Job) -> None:
    items = ask()
    try:
        for item in items:
            job.give(item)
            if job.given_up:
                break
    finally:
        if (close := getattr(items, "close", None)) is not None:
            close()


_here = threading.local()  # `job`, in the thread of a worker


def when_given_up(end: Callable[[], object]) -> Callable[[], None]:
    """Say what ends the call that is made here, should nobody wait for it any more.

    Args:
        end: Called from another thread, and must not wait. Shuts a socket, say, so that
            what reads from it goes on. What it raises is ignored.

    Returns:
        What takes it back: to be called before the socket is given to another call.
    """
    job: _Job | None = getattr(_here, "job", None)
    return _nothing if job is None else job.when_given_up(end)


def _nothing() -> None: ...


class _Worker:
    """A daemon thread that makes one call after the other.

    Attributes:
        jobs: What it is to do; None to end.
    """

    _idle: ClassVar[deque[_Worker]] = deque()

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._run, name="langchain-slm-call", daemon=True).start()

    @classmethod
    def free(cls) -> _Worker:
        """Return a worker that makes no call."""
        try:
            return cls._idle.pop()
        except IndexError:
            return cls()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            _here.job = job
            job.run()
            _here.job = None
            if job.given_up:
                return
            del job  # and with it the answer

    def rest(self) -> None:
        """Wait for the next call, if not too many do."""
        if len(self._idle) < MOST_IDLE:
            self._idle.append(self)
        else:
            self.jobs.put(None)


def _forget_workers() -> None:
    # Threads do not live on in a forked process.
    _Worker._idle.clear()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_forget_workers)
