"""Node caches of a rewritten graph: another model's answers are not found in them.

LangGraph keys an entry by the node's name and function, and both are still the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.types import CachePolicy

Entries = Mapping[FullKey, tuple[Any, int | None]]


def guided_policy(policy: CachePolicy[Any] | None, plan_id: str) -> Any:
    """Return `policy` with keys that hold the plan; None where there is none."""
    if policy is None:
        return None

    def key(*args: Any, **kwargs: Any) -> bytes:
        found = policy.key_func(*args, **kwargs)
        known = found.encode() if isinstance(found, str) else bytes(found)
        return plan_id.encode() + b"/" + known

    return replace(policy, key_func=key)


class GuidedCache(BaseCache[Any]):
    """A graph's cache whose keys hold the plan: `@task` brings a policy of its own."""

    def __init__(self, cache: BaseCache[Any], plan_id: str) -> None:
        super().__init__(serde=cache.serde)
        self.cache = cache
        self._suffix = f"/{plan_id}"

    def _key(self, key: FullKey) -> FullKey:
        return key[0], key[1] + self._suffix

    def _found(self, found: Mapping[FullKey, Any]) -> dict[FullKey, Any]:
        return {
            (space, key.removesuffix(self._suffix)): value
            for (space, key), value in found.items()
        }

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return what is cached of `keys`."""
        return self._found(self.cache.get([self._key(key) for key in keys]))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return what is cached of `keys`."""
        return self._found(await self.cache.aget([self._key(key) for key in keys]))

    def set(self, pairs: Entries) -> None:
        """Cache values, each for its seconds."""
        self.cache.set({self._key(key): value for key, value in pairs.items()})

    async def aset(self, pairs: Entries) -> None:
        """Cache values, each for its seconds."""
        await self.cache.aset({self._key(key): value for key, value in pairs.items()})

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete what is cached of these nodes, for every plan."""
        self.cache.clear(namespaces)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete what is cached of these nodes, for every plan."""
        await self.cache.aclear(namespaces)
