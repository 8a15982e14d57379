"""Two hundred calls at a time while one request in a hundred goes wrong."""

import pytest
from integration_tests.loading import Load, requests_of, requests_to
from integration_tests.loopback import Loopback

from langchain_slm import ChatRouter, Router


@pytest.mark.parametrize(("way", "calls"), [("of_tasks", 1000), ("of_threads", 600)])
def test_no_fault_of_the_bound_model_reaches_the_caller_and_every_call_counts(way, calls):
    with Loopback(faults=0.01, seed=4) as faulty, Loopback() as healthy:
        small, large = faulty.openai("small"), healthy.openai("large")
        router = Router({"node": small})
        load = Load(calls)
        getattr(load, way)(
            ChatRouter(default=large, router=router, site="node"), [small, large]
        )
        counted = router.counters()
        assert load.errors == {}
        assert sum(row.calls for row in counted) == load.calls == calls
        assert requests_of(counted) == requests_to(faulty, healthy)
        faults = sum(faulty.counts().faults.values())
        assert requests_to(healthy) == {"large": faults}
        assert faults > 0
