"""A hundred thousand calls while the plan file is replaced a thousand times.

    python tests/benchmarks/reload.py [--calls 100000] [--reloads 1000]

Plan k binds the site to a head that answers `m-k`, so that an answer, the model that its
metadata name, and the plan must belong together; heads answer in process, without a
network. One half of the calls is made by threads, the other by asyncio tasks; every
second plan is loaded by `Router.refresh`, the others when a call looks at the file.
Prints how many calls mixed two plans; exits with 1 unless it is none.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from integration_tests.reloading import SITE, Plans, Reloads
from unit_tests.fake_chat import FakeChat

from langchain_slm import ChatRouter, Router

SWITCH_S = 0.0001  # fifty times as often as usual threads take turns


def reloaded(way: str, calls: int, reloads: int) -> Reloads:
    with tempfile.TemporaryDirectory() as folder:
        plans = Plans(Path(folder))
        router = Router(plans.path, reload_s=0.001)
        model = ChatRouter(default=FakeChat(model_name="ref"), router=router, site=SITE)
        made = Reloads(plans, router, calls=calls, reloads=reloads)
        getattr(made, way)(model)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--reloads", type=int, default=1_000)
    asked = parser.parse_args()
    sys.setswitchinterval(SWITCH_S)
    mixed, calls, reloads = 0, 0, 0
    for way in ("of_threads", "of_tasks"):
        started_s = time.perf_counter()
        made = reloaded(way, asked.calls // 2, asked.reloads // 2)
        took_s = time.perf_counter() - started_s
        print(
            f"{way:<12}{made.calls:,} calls, {made.reloads} reloads, answers of "
            f"{len(made.plans)} plans, mixed = {made.mixed}, {took_s:.0f} s"
        )
        mixed, calls = mixed + made.mixed, calls + made.calls
        reloads += made.reloads
    print(f"{calls:,} calls, {reloads} reloads, mixed = {mixed}")
    is_good = mixed == 0 and calls >= asked.calls and reloads >= asked.reloads
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
