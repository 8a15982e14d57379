"""From a recipe to the app: its graph, its sites and the models that it calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from integration_tests.parity.calling import Kit
from integration_tests.parity.flows import flow_of
from integration_tests.parity.graphs import Building
from integration_tests.parity.recipes import Flow, Recipe
from integration_tests.parity.scripts import MODEL_NAMES, Scripted
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore


@dataclass
class Made:
    """An app made from a recipe.

    Attributes:
        recipe: What it was made from.
        graph: Compiled.
        sites: Its sites, with the indices of the models called there.
        models: The models it calls.
        saver, store, cache: What it was compiled with, if anything.
        compile: Compiles a builder as this one was; None for an `@entrypoint`.
    """

    recipe: Recipe
    graph: Any
    sites: dict[str, set[int]]
    models: list[Scripted]
    saver: InMemorySaver | None
    store: InMemoryStore | None
    cache: InMemoryCache
    compile: Callable[[Any], Any] | None

    def twins(self) -> dict[str, Scripted]:
        """Return, for each site, a model that says what those called there say."""
        return {site: self._twin(site, of) for site, of in self.sites.items() if of}

    def _twin(self, site: str, indices: set[int]) -> Scripted:
        models = [self.models[index] for index in sorted(indices)]
        return models[0].model_copy(
            update={"voices": tuple(m.voices[0] for m in models), "twin": site}
        )


def make(recipe: Recipe) -> Made:
    """Make an app."""
    models = [
        Scripted(
            model_name=MODEL_NAMES[voice.index],
            voices=(voice,),
            disable_streaming=not recipe.streams,
        )
        for voice in recipe.voices
    ]
    kit = Kit(recipe, models)
    saver = InMemorySaver() if recipe.saver else None
    store = InMemoryStore() if recipe.store else None
    cache = InMemoryCache()
    shared = {"checkpointer": saver, "store": store, "cache": cache}
    compiled: Callable[[Any], Any] | None = None
    if isinstance(recipe.graph, Flow):
        graph, sites = flow_of(kit, recipe.graph, shared)
        graph = _configured(recipe, graph)
    else:
        building = Building(kit, recipe.graph)
        compile_one = building.compiling(**shared)
        compiled = lambda builder: _configured(recipe, compile_one(builder))  # noqa: E731
        graph, sites = compiled(building.builder), building.sites
    if any(len(of) > 1 for of in sites.values()):
        for model in models:  # one twin stands for several: it has one name
            model.model_name = MODEL_NAMES[0]
    named = {
        path if edge is None else f"{path}#{edge}": of
        for (path, edge), of in sites.items()
    }
    return Made(recipe, graph, named, models, saver, store, cache, compiled)


def _configured(recipe: Recipe, graph: Any) -> Any:
    if not recipe.config:
        return graph
    return graph.with_config(tags=["configured"], metadata={"of": "the app"})
