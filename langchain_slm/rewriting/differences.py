"""How a graph differs from the one that a plan was made for. Changes nothing.

Nodes and edges are compared without running anything. Prompts, tools and schemas show
only in calls: recorded ones here, the app's own at run time, where a call that no task
of the plan covers is warned of and goes to the reference.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from langchain_slm.clustering import task_of
from langchain_slm.rewriting.sites import Graph, fingerprint, unknown_sites
from langchain_slm.routing.binding import Guide
from langchain_slm.routing.places import without_agent
from langchain_slm.schema import Call, Plan

RECENT = 100  # calls of a site: enough to see a new prompt, however long the history


def differences(graph: Graph, guide: Guide) -> list[str]:
    """Return how a graph differs from the one that a plan was made for, in sentences."""
    found = [
        f"the plan binds site {site!r}, which this graph does not have; "
        "no call will reach that binding"
        for site in unknown_sites(guide.sites, graph)
    ]
    if guide.fingerprint not in (None, fingerprint(graph)):
        found.append(
            "the plan was made for another version of this graph (its nodes or edges "
            "differ); sites that still exist are bound, so convert again to be sure"
        )
    return found


def untested_calls(plan: Plan, calls: Iterable[Call]) -> list[str]:
    """Return which bound sites are called in ways that no task of the plan covers.

    Args:
        plan: The plan.
        calls: Recorded ones, in order; the last 100 of each site are looked at.
    """
    tasks = [d.task for d in plan.decisions if d.task is not None]
    bound = {decision.site for decision in plan.active if decision.task is not None}
    recent: defaultdict[str, deque[Call]] = defaultdict(lambda: deque(maxlen=RECENT))
    for call in calls:
        site = call.site if call.site in bound else without_agent(call.site)
        if site in bound:
            recent[site].append(call)
    found = []
    for site, seen in sorted(recent.items()):
        count = sum(task_of(call.request, site, tasks) is None for call in seen)
        if count:
            found.append(
                f"site {site!r}: {count} of the last {len(seen)} recorded calls belong "
                "to no task of the plan (another prompt template, other tools or "
                "another schema); the reference answers such calls"
            )
    return found
