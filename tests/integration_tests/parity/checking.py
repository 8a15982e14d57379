"""An app against its rewritten copy: whatever differs is an error."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from integration_tests.parity.building import Made, make
from integration_tests.parity.normal import differences
from integration_tests.parity.observing import Seen, Way, observe
from integration_tests.parity.recipes import Recipe, uncached
from integration_tests.parity.structure import appearance, lost, lost_of_builder
from integration_tests.parity.untouched import Fingerprint

from langchain_slm.rewriting.graphs import rewrite
from langchain_slm.routing.limits import Limits
from langchain_slm.routing.policy import NeverEscalate
from langchain_slm.routing.router import Router

SHOWN, SHOWN_OF_EACH = 30, 3  # differences of one example, and of each of its parts

# Every failure of a twin reaches the app as the model's own would.
STRICT = {
    "policy": NeverEscalate(),
    "limits": Limits(deadline_s=None, breaker=None, max_attempts=10_000),
}
# The defaults, but for two that are meant to change what happens when models fail: a
# request repeated by layers above has a budget, and a model that fails is left alone.
PATIENT = {"limits": Limits(breaker=None, max_attempts=10_000)}


@dataclass(frozen=True)
class Rewriting:
    """How a graph is rewritten.

    Attributes:
        plan: "empty"; "mapping", every site to a twin of its models; "strict", the same
            with a router that never asks the reference instead.
        through: What is rewritten: the compiled graph, its builder, or a copy.
        copy_first: The copy runs before its original ever did.
    """

    plan: str = "mapping"
    through: str = "compiled"
    copy_first: bool = False


def plan_of(made: Made, rewriting: Rewriting) -> Any:
    """Return a plan that changes nothing but who answers."""
    recipe = made.recipe
    if rewriting.plan == "empty":
        return {}
    if rewriting.plan == "strict" or _needs_strict(recipe):
        return Router(made.twins(), **STRICT)
    if recipe.models_fail:
        return Router(made.twins(), **PATIENT)
    return made.twins()


def _needs_strict(recipe: Recipe) -> bool:
    """Whether the default policy is meant to change what happens.

    Where a twin's failure depends on how often it was asked, the reference, asked in its
    place, does not fail; and a stream that fails in its midst is a `BrokenStreamError`.
    """
    counts = any(voice.fails in ("first", "nth") for voice in recipe.voices)
    breaks = any(voice.breaks for voice in recipe.voices)
    return counts or (breaks and recipe.reads_ahead)


def rewritten(made: Made, rewriting: Rewriting, plan: Any) -> Any:
    """Return the app's graph, rewritten."""
    if rewriting.through == "builder" and made.compile is not None:
        return made.compile(rewrite(made.graph.builder, plan))
    if rewriting.through == "again":
        return rewrite(rewrite(made.graph, {}), plan)
    return rewrite(made.graph, plan)


def ordered(recipe: Recipe, rewriting: Rewriting) -> bool:
    """Whether events come in one order."""
    reads_ahead = rewriting.plan == "mapping" and recipe.reads_ahead
    return not recipe.races and not reads_ahead


def check_looks(recipe: Recipe, rewriting: Rewriting, rewrite_it: Any = None) -> None:
    """Check that a rewritten graph has all that its original has, which is untouched.

    Args:
        recipe: Of the app.
        rewriting: How its graph is rewritten.
        rewrite_it: What does it, `rewritten` by default.

    Raises:
        AssertionError: With the first differences.
    """
    made = make(recipe)
    before = Fingerprint(made.graph)
    copied = (rewrite_it or rewritten)(made, rewriting, plan_of(made, rewriting))
    assert_untouched(made, before)
    if rewriting.through != "builder":
        assert_nothing(lost(made.graph, copied), "the copy has not all")
    elif made.compile is not None:
        missed = lost_of_builder(made.graph.builder, copied.builder)
        assert_nothing(missed, "the copy has not all")
    assert_same(appearance(made.graph), appearance(copied), "it looks different")


def check(recipe: Recipe, way: Way, rewriting: Rewriting, rewrite_it: Any = None) -> None:
    """Check that rewriting changes nothing but who answers, and not the original.

    Args:
        recipe: Of the app.
        way: How it is run.
        rewriting: How its graph is rewritten.
        rewrite_it: What does it, `rewritten` by default.

    Raises:
        AssertionError: With the first differences.
    """
    in_order = ordered(recipe, rewriting)
    reference = make(recipe)
    expected = observe(reference, reference.graph, way, in_order=in_order)
    made = make(recipe)
    copied = (rewrite_it or rewritten)(made, rewriting, plan_of(made, rewriting))
    if rewriting.copy_first:
        _check_copy(made, copied, way, rewriting, expected)
    own = observe(made, made.graph, way, in_order=in_order)
    assert_same(expected.normal, own.normal, "the original is not what it was")
    assert not any(call.by_twin for call in own.run.calls)
    if not rewriting.copy_first:
        # Now that what LangGraph and LangChain keep for later runs is there.
        before = Fingerprint(made.graph)
        _check_copy(made, copied, way, rewriting, expected)
        assert_untouched(made, before)


def _check_copy(
    made: Made, copied: Any, way: Way, rewriting: Rewriting, expected: Seen
) -> None:
    seen = observe(made, copied, way, in_order=ordered(made.recipe, rewriting))
    assert_same_run(made, rewriting, expected, seen)


def check_at_once(recipe: Recipe, way: Way, rewriting: Rewriting) -> None:
    """Check that original and copy do the same while both run.

    Raises:
        AssertionError: With the first differences.
    """
    recipe = uncached(recipe)
    in_order = ordered(recipe, rewriting)
    made = make(recipe)
    copied = rewritten(made, rewriting, plan_of(made, rewriting))
    expected = observe(made, made.graph, way, in_order=in_order)

    def run(graph: Any) -> Seen:
        return observe(made, graph, way, in_order=in_order)

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(run, [made.graph, copied] * 2))
    for own, copys in (seen[:2], seen[2:]):
        assert_same(expected.normal, own.normal, "at once the original does otherwise")
        assert not any(call.by_twin for call in own.run.calls)
        assert_same_run(made, rewriting, expected, copys)


def check_in_turns(recipe: Recipe, way: Way, rewriting: Rewriting) -> None:
    """Check that a thread goes on alike on the copy and on the original, in turns.

    Raises:
        AssertionError: With the first differences.
    """
    recipe = uncached(recipe)
    in_order = ordered(recipe, rewriting)
    reference = make(recipe)
    expected = observe(reference, reference.graph, way, in_order=in_order)
    made = make(recipe)
    copied = rewritten(made, rewriting, plan_of(made, rewriting))
    for graphs in ((made.graph, copied), (copied, made.graph)):
        one, other = graphs
        seen = observe(made, one, way, in_order=in_order, next_graph=other)
        assert_same(_but_calls(expected), _but_calls(seen), "in turns it does otherwise")


def _but_calls(seen: Seen) -> dict[str, Any]:
    return {k: v for k, v in seen.normal.items() if k not in ("calls", "heard")}


def assert_nothing(found: Iterable[str], what: str) -> None:
    told = list(found)
    parts: dict[str, list[str]] = {}
    for each in told:
        parts.setdefault(each.partition(":")[0].partition("[")[0], []).append(each)
    shown = [each for part in parts.values() for each in part[:SHOWN_OF_EACH]]
    assert not told, "\n".join([f"{what}, {len(told)} differences:", *shown[:SHOWN]])


def assert_untouched(made: Made, before: Fingerprint) -> None:
    changes = Fingerprint(made.graph).changes(before)
    assert not changes, "\n".join(["the original was touched:", *changes[:SHOWN]])


def assert_same(expected: Any, seen: Any, what: str) -> None:
    assert_nothing(differences(expected, seen), what)


def assert_same_run(made: Made, rewriting: Rewriting, expected: Seen, seen: Seen) -> None:
    """Check that a copy did the same, and that its twins alone were asked."""
    one, other, calls = expected.normal, seen.normal, seen.run.calls
    escalates = made.recipe.models_fail and rewriting.plan == "mapping"
    if escalates := escalates and not _needs_strict(made.recipe):
        # Where the twin fails the reference is asked the same, in a run of its own.
        one, other = (
            {**each, "calls": _once(each["calls"]), "heard": None}
            for each in (one, other)
        )
    assert_same(one, other, "the copy does something else")
    if not escalates:
        wrong = [c.prompt for c in calls if c.by_twin is (rewriting.plan == "empty")]
        assert not wrong, f"models were asked that should not be: {wrong[:SHOWN]}"


def _once(calls: list[Any]) -> list[Any]:
    return sorted({repr(call) for call in calls})
