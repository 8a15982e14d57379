"""The four criteria of a rewrite, judged on one graph of an app.

1. structure: the rewritten graph is the same graph, and under an identity plan does the
   same. 2. routing: every model call reaches its planned target, or there is a reason.
3. files: nothing of the checkout changed. 4. original: the graph given is as before.
"""

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI
from real_apps.endpoint import Endpoint, Requested
from real_apps.finding import Tree
from real_apps.observing import (
    Difference,
    answers,
    differences,
    identities,
    structure,
)
from real_apps.running import WAYS, Run, Runs, first

from langchain_slm import Router, open_store, record, rewrite
from langchain_slm.inspection.overview import inspect_graph
from langchain_slm.rewriting.sites import branch_sites, node_paths
from langchain_slm.routing.counters import Decided
from langchain_slm.routing.places import AGENT_MARK

CRITERIA = ("structure", "routing", "files", "original")


@dataclass
class Verdict:
    """What was found out of one graph.

    Attributes:
        graph: Its name.
        criteria: Why each does not hold; empty where it holds.
        sites: Model calls in the bound runs by site, 0 for those that were planned only.
        ways: How it was run, with the calls of each; or why it could not be.
        inspected: The sites that were found without running, and how sure that is.
        opaque: Calls that no rewrite can reach, with the reason that inspecting gave.
        kept: Sites whose calls stay with their own model, with the router's reason.
        web: What its tools asked the web for, and got a stand-in for.
        notes: What else is worth knowing.
    """

    graph: str
    criteria: dict[str, list[str]] = field(
        default_factory=lambda: {name: [] for name in CRITERIA}
    )
    sites: dict[str, int] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    inspected: dict[str, str] = field(default_factory=dict)
    opaque: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    web: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all four criteria hold."""
        return not any(self.criteria.values())

    def fails(self, criterion: str, reasons: list[str], when: str) -> None:
        """Take note of why a criterion does not hold."""
        self.criteria[criterion] += [f"{when}: {reason}" for reason in reasons]


class Judge:
    """Judges one graph: runs it as it is, rewritten, and as it is again.

    The bound models are of the `client` "openai" or "nvidia".
    """

    def __init__(
        self,
        name: str,
        graph: Any,
        runs: Runs,
        endpoint: Endpoint,
        tree: Tree,
        client: str,
    ) -> None:
        self.verdict = Verdict(name)
        self._tree = tree
        self._client = client
        self._graph = graph
        self._runs = runs
        self._endpoint = endpoint
        folder = tempfile.mkdtemp(prefix="try-app-")
        self._store = open_store(f"sqlite:///{folder}/calls.db")

    def judge(self) -> Verdict:
        """Return what was found out."""
        held, shape = identities(self._graph), structure(self._graph)
        self._endpoint.web.clear()
        self._inspect()
        self._same_structure("identity", shape, rewrite(self._graph, {}))
        self._same_structure("recorded", shape, record(self._graph, self._store))
        befores = {way: found for way in WAYS if (found := self._before(way))}
        if not befores:
            self.verdict.fails("routing", ["the original does not run"], "before")
        self._bound(befores, shape)
        for way, (before, masked) in befores.items():
            after = self._runs.run(self._graph, way)
            unlike = _unlike(before, after, masked)
            self.verdict.fails("original", first(unlike), f"{way}, run again")
        if identities(self._graph) != held:
            self.verdict.fails("original", ["the object was changed"], "afterwards")
        unlike = differences(shape, structure(self._graph))
        self.verdict.fails("original", first(unlike), "structure afterwards")
        self.verdict.web = sorted(set(self._endpoint.web))
        return self.verdict

    def _inspect(self) -> None:
        """Take note of what is found without running the graph."""
        inspection = inspect_graph(self._graph)
        for site in inspection.sites:
            sure = sorted({holding.confidence for holding in site.models})
            self.verdict.inspected[site.path] = ", ".join(sure)
            for holding in site.models:
                if holding.confidence == "opaque":
                    self.verdict.opaque.append(f"{site.path}: {holding.reason}")

    def _same_structure(self, name: str, shape: Any, copied: Any) -> None:
        unlike = first(differences(shape, structure(copied)))
        self.verdict.fails("structure", unlike, name)

    def _before(self, way: str) -> tuple[Run, set[str]] | None:
        """Run the original twice, to know what differs of itself, and two identities."""
        with self._tree.left_to_the_app():
            before = self._runs.run(self._graph, way)
        if before.error is not None:
            self.verdict.ways[way] = f"the original fails: {before.error[:300]}"
            return None
        again = self._runs.run(self._graph, way)
        masked = {each.path for each in differences(before.outcome(), again.outcome())}
        if masked:
            self.verdict.notes.append(
                f"{way}: two runs of the original differ in {masked}"
            )
        copies = {
            "identity": rewrite(self._graph, {}),
            "recorded": record(self._graph, self._store),
        }
        for name, copied in copies.items():
            run = self._runs.run(copied, way)
            unlike = first(_unlike(before, run, masked))
            self.verdict.fails("structure", unlike, f"{way}, {name} run")
        calls = Counter(each.model for each in before.started)
        self.verdict.ways[way] = f"{len(before.started)} calls: {dict(calls)}"
        return before, masked

    def _bound(self, befores: Mapping[str, tuple[Run, set[str]]], shape: Any) -> None:
        recorded = {call.site for call in self._store.calls()}
        nodes = {path for path, _ in node_paths(self._graph)}
        seen = set(self.verdict.inspected)
        sites = sorted({*recorded, *seen, *nodes, *branch_sites(self._graph)})
        names = {site: f"slm-{number}" for number, site in enumerate(sites)}
        self.verdict.sites = dict.fromkeys(sorted(recorded), 0)
        targets = {site: self._target(name) for site, name in names.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a site that the graph lacks
            decided: list[Decided] = []
            bound = rewrite(self._graph, Router(targets, listeners=[decided.append]))
        self._same_structure("bound", shape, bound)
        for way, (before, _) in befores.items():
            run = self._runs.run(bound, way)
            self._count(run, names)
            kept = self._kept(decided)
            escalated = [each for each in decided if each.escalated and each not in kept]
            wrong = sorted({_escalation(each) for each in escalated})
            decided.clear()
            wrong += self._misrouted(run, names, {each.model for each in kept})
            wrong += _missing(before, run) if run.error is None else []
            self.verdict.fails("routing", wrong[:8], way)
            unlike = first(differences(answers(before.state), answers(run.state)), 3)
            if unlike and run.error is None:
                note = f"{way}: the bound run ends otherwise: {unlike}"
                self.verdict.notes.append(note)

    def _target(self, name: str) -> BaseChatModel:
        given = {"model": name, "base_url": self._endpoint.url, "api_key": "any"}
        if self._client == "nvidia":
            return ChatNVIDIA(**given)
        return ChatOpenAI(max_retries=0, **given)

    def _count(self, run: Run, names: Mapping[str, str]) -> None:
        asked = Counter(each.model for each in run.requested if not each.host)
        for site, name in names.items():
            if asked[name]:
                self.verdict.sites[site] = self.verdict.sites.get(site, 0) + asked[name]

    def _kept(self, decided: Sequence[Decided]) -> list[Decided]:
        """Return what only the source's provider can answer: its target is not asked."""
        kept = [d for d in decided if d.escalated and d.bound not in d.asked]
        for reason in sorted({f"{each.site}: {each.reason}" for each in kept}):
            if reason not in self.verdict.kept:
                self.verdict.kept.append(reason)
        return kept

    def _misrouted(
        self, run: Run, names: Mapping[str, str], kept: set[str]
    ) -> Iterator[str]:
        if run.error is not None:
            yield f"fails: {run.error[:300]}"
            return
        for path, model in run.started:
            planned = {name for site, name in names.items() if _is_at(site, path)}
            if model not in planned | kept:
                yield f"a call at {path!r} went to {model}, planned: {sorted(planned)}"
        for request in run.requested:
            if request.model not in {*names.values(), *kept}:
                yield from self._explained(request, run)

    def _explained(self, request: Requested, run: Run) -> Iterator[str]:
        """Take note of a request to another model, or yield that it has no reason."""
        what = f"{request.model} at {request.host or 'loopback'}"
        by_chat_model = any(model == request.model for _, model in run.started)
        if request.caller != "raw client" or by_chat_model:
            yield f"{what} was asked by a {request.caller or 'client'}"
        elif not self.verdict.opaque:
            yield f"{what} was asked by a raw client, which `inspect` does not report"
        elif (note := f"{what} was asked by a raw client") not in self.verdict.notes:
            self.verdict.notes.append(note)


def _escalation(decided: Decided) -> str:
    models = f"{decided.bound} was asked, then {decided.model}"
    return f"{decided.site}: {models}: {decided.reason}"


def _is_at(site: str, path: str) -> bool:
    return site.partition("#")[0].partition(AGENT_MARK)[0] == path


def _missing(before: Run, run: Run) -> Iterator[str]:
    """Yield the nodes that make fewer or more calls than before."""
    old, new = (Counter(each.path for each in each.started) for each in (before, run))
    for path in sorted({*old, *new}):
        if old[path] != new[path]:
            yield f"{new[path]} calls at {path!r}, {old[path]} before"


def _unlike(before: Run, run: Run, masked: set[str]) -> Iterator[Difference]:
    """Yield what differs, but for what differs between two runs of the original."""
    if before.error != run.error:
        yield Difference("error", str(before.error), str(run.error))
        return
    for each in differences(before.outcome(), run.outcome()):
        if not any(each.path.startswith(path) for path in masked):
            yield each
