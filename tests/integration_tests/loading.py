"""Many calls at a time, of tasks or of threads, and what came of them."""

import asyncio
import itertools
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any

from integration_tests.loopback import JSON_ANSWER, Loopback
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_slm.routing.counters import Counted

PROMPT = "Is it so? Answer in JSON."
WHOLE = "yes"
# A stream of JSON is held back until it is whole: whatever is wrong with it, another
# model can answer. Of a text that has begun to reach the app nobody could take it back.
AS_JSON: Any = {"response_format": {"type": "json_object"}}


class Load:
    """So many calls at a time, until `calls` were made or `seconds` have passed.

    Every second call is a stream. `errors` counts what reached the caller, and answers
    that are none of the endpoints'.
    """

    def __init__(self, calls: int, *, seconds: float = 600.0, at_a_time: int = 200):
        self.errors: Counter[str] = Counter()
        self.latencies_s = array("d")
        self._calls, self._at_a_time = calls, at_a_time
        self._until = time.monotonic() + seconds
        self._numbers = itertools.count()

    @property
    def calls(self) -> int:
        """How many calls have ended."""
        return len(self.latencies_s) + self.errors.total()

    def of_tasks(self, model: BaseChatModel, clients: Sequence[Any]) -> None:
        """Make the calls, then close the clients' connections."""
        asyncio.run(self.tasks(model, clients))

    async def tasks(self, model: BaseChatModel, clients: Sequence[Any]) -> None:
        """Make the calls, then close the clients' connections: they are the loop's."""

        async def caller() -> None:
            for number in self._turns():
                with self._call(number) as parts:
                    if number % 2:
                        parts.extend([x async for x in model.astream(PROMPT, **AS_JSON)])
                    else:
                        parts.append(await model.ainvoke(PROMPT))

        await asyncio.gather(*(caller() for _ in range(self._at_a_time)))
        for client in clients:
            await client.root_async_client.close()

    def of_threads(self, model: BaseChatModel, clients: Sequence[Any]) -> None:
        """Make the calls, then close the clients' connections."""

        def caller() -> None:
            for number in self._turns():
                with self._call(number) as parts:
                    if number % 2:
                        parts.extend(model.stream(PROMPT, **AS_JSON))
                    else:
                        parts.append(model.invoke(PROMPT))

        with ThreadPoolExecutor(self._at_a_time) as pool:
            made = [pool.submit(caller) for _ in range(self._at_a_time)]
            for ended in made:
                ended.result()
        for client in clients:
            client.root_client.close()

    def _turns(self) -> Iterator[int]:
        while time.monotonic() < self._until:
            number = next(self._numbers)
            if number >= self._calls:
                return
            yield number

    @contextmanager
    def _call(self, number: int) -> Iterator[list[BaseMessage]]:
        parts: list[BaseMessage] = []
        started_s = time.perf_counter()
        try:
            yield parts
            wanted = JSON_ANSWER if number % 2 else WHOLE
            if (text := reduce(add, parts).text) != wanted:
                self.errors[f"answered {text!r}"] += 1
                return
        except Exception as error:  # noqa: BLE001 - each is counted
            self.errors[repr(error)[:200]] += 1
        else:
            self.latencies_s.append(time.perf_counter() - started_s)


def requests_of(counted: Sequence[Counted]) -> dict[str, int]:
    """Return how many requests each model was sent, by a router's counters."""
    return dict(sum((Counter({row.model: row.attempts}) for row in counted), Counter()))


def requests_to(*endpoints: Loopback) -> dict[str, int]:
    """Return how many requests each model was sent, by the endpoints' own count."""
    return dict(sum((Counter(e.counts().requests) for e in endpoints), Counter()))
