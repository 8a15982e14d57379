"""Two hundred calls at a time for minutes, while one request in a hundred goes wrong.

    python tests/benchmarks/load.py [--minutes 3] [--faults 0.01] [--threads]

A ChatRouter's bound model is at an endpoint that answers the share `--faults` of its
requests with a 500, a 429 with Retry-After, a reset or cut connection, a truncated
answer, malformed JSON or no choices; its reference is at one that always answers. Each
endpoint is a process of its own on loopback, and takes `--delay-s` to answer. Calls are
asyncio tasks or, with `--threads`, synchronous; every second one is a stream of JSON,
held back until it is whole.

Prints what reached the callers, how the process grew under the load after the first
tenth of the time, the latency beside that of the bare model at an endpoint that always
answers (asked by twenty more callers at the same time: both wait for the same CPU), and
the router's count of HTTP requests by model beside the endpoints' own. Exits with 1 if an
error reached a caller, the counts differ, or the process grew by 50 MB.
"""

import argparse
import asyncio
import os
import statistics
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from langchain_core.language_models import BaseChatModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from integration_tests.loading import Load, requests_of, requests_to
from integration_tests.loopback import Loopback

from langchain_slm import ChatRouter, Router

MOST_CALLS = 1_000_000
MOST_GROWTH_MB = 50.0
BESIDE = 20  # callers of the bare model


class Resident:
    """Looks every second how large this process is (Linux); in MB."""

    def __init__(self) -> None:
        self.sizes: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._ended.wait(1.0):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.sizes.append(pages * page / 1e6)

    @property
    def ends(self) -> tuple[float, float]:
        """Medians of the second tenth of the time, and of the last."""
        tenth = max(1, len(self.sizes) // 10)
        early, late = self.sizes[tenth : 2 * tenth], self.sizes[-tenth:]
        return statistics.median(early), statistics.median(late)


class Callers(NamedTuple):
    """A load, what it asks, and the clients of that."""

    load: Load
    model: BaseChatModel
    clients: Sequence[Any]


def run(callers: Sequence[Callers], *, threads: bool) -> None:
    """Make all calls, in one event loop or in as many threads as there are callers."""
    if threads:
        with ThreadPoolExecutor(len(callers)) as pool:
            for made in [pool.submit(c[0].of_threads, *c[1:]) for c in callers]:
                made.result()
        return

    async def tasks() -> None:
        await asyncio.gather(*(load.tasks(*asked) for load, *asked in callers))

    asyncio.run(tasks())


def milliseconds(load: Load) -> str:
    cuts = statistics.quantiles(load.latencies_s, n=100)
    return f"p50 {cuts[49] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--faults", type=float, default=0.01)
    parser.add_argument("--delay-s", type=float, default=1.0)
    parser.add_argument("--at-a-time", type=int, default=200)
    parser.add_argument("--threads", action="store_true")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    delay_s = asked.delay_s
    with (
        Loopback(delay_s=delay_s) as bare,
        Loopback(delay_s=delay_s, faults=asked.faults, seed=1) as faulty,
        Loopback(delay_s=delay_s) as healthy,
    ):
        seconds = asked.minutes * 60
        small, large = faulty.openai("small"), healthy.openai("large")
        router = Router({"node": small})
        routed = ChatRouter(default=large, router=router, site="node")
        load = Load(MOST_CALLS, seconds=seconds, at_a_time=asked.at_a_time)
        alone = bare.openai("alone")
        beside = Load(MOST_CALLS, seconds=seconds, at_a_time=BESIDE)
        callers = [
            Callers(load, routed, [small, large]),
            Callers(beside, alone, [alone]),
        ]
        with Resident() as resident:
            run(callers, threads=asked.threads)
        theirs, faults = requests_to(faulty, healthy), faulty.counts().faults
    counted = router.counters()
    ours = requests_of(counted)
    calls = sum(row.calls for row in counted)
    start_mb, end_mb = resident.ends
    way = "threads" if asked.threads else "tasks"
    rows: Mapping[str, object] = {
        "calls": f"{load.calls:,} by {asked.at_a_time} {way}",
        "errors that reached a caller": dict(load.errors) or 0,
        "faults served": dict(sorted(faults.items())),
        "escalations": {
            row.model: dict(row.escalations) for row in counted if row.escalations
        },
        "resident memory": f"{start_mb:.0f} MB, at the end {end_mb:.0f} MB",
        "growth": f"{end_mb - start_mb:+.1f} MB (at most {MOST_GROWTH_MB:g})",
        "latency, bare model beside it": milliseconds(beside),
        "latency, ChatRouter": milliseconds(load),
        "calls counted by the router": f"{calls:,}",
        "requests counted by the router": ours,
        "requests counted by the endpoints": theirs,
    }
    for name, value in rows.items():
        print(f"{name:<36}{value}")
    is_small = end_mb - start_mb < MOST_GROWTH_MB
    is_good = not load.errors and ours == theirs and calls == load.calls and is_small
    print("as it should be" if is_good else "NOT as it should be")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
