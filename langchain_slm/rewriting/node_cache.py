"""Node caches of a rewritten graph: another model's answers are not found in them.

LangGraph keys an entry by the node's name and function, and both are still the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.types import CachePolicy

from langchain_slm.routing.binding import Guide

Entries = Mapping[FullKey, tuple[Any, int | None]]
MOST_MISSED = 10_000  # tasks that run or failed; beyond, an answer is of the plan then


def guided_policy(policy: CachePolicy[Any] | None, guide: Guide) -> Any:
    """Return `policy` with keys that hold the plan; None where there is none."""
    if policy is None:
        return None

    def key(*args: Any, **kwargs: Any) -> bytes:
        found = policy.key_func(*args, **kwargs)
        known = found.encode() if isinstance(found, str) else bytes(found)
        plan = _mark(guide)
        return plan.encode() + b"/" + known if plan else found

    return replace(policy, key_func=key)


class GuidedCache(BaseCache[Any]):
    """A graph's cache whose keys hold the plan: `@task` brings a policy of its own.

    An answer is kept under the plan that was there when it was looked for in vain: the
    plan's file may have changed while the task ran.
    """

    def __init__(self, cache: BaseCache[Any], guide: Guide) -> None:
        super().__init__(serde=cache.serde)
        self.cache = cache
        self._guide = guide
        self._missed: OrderedDict[FullKey, str] = OrderedDict()  # plan, by key
        self._lock = threading.Lock()

    def _found(
        self, keys: Mapping[FullKey, FullKey], plan: str, found: Mapping[FullKey, Any]
    ) -> dict[FullKey, Any]:
        """Return what was found, by the keys that LangGraph looked for."""
        with self._lock:
            for kept, key in keys.items():
                if kept not in found:
                    self._missed[key] = plan
            while len(self._missed) > MOST_MISSED:
                self._missed.popitem(last=False)
        return {keys[kept]: value for kept, value in found.items()}

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return what is cached of `keys`."""
        plan = _mark(self._guide)
        kept = {_guided(key, plan): key for key in keys}
        return self._found(kept, plan, self.cache.get(list(kept)))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return what is cached of `keys`."""
        plan = _mark(self._guide)
        kept = {_guided(key, plan): key for key in keys}
        return self._found(kept, plan, await self.cache.aget(list(kept)))

    def _kept(self, pairs: Entries) -> Entries:
        now = _mark(self._guide)
        with self._lock:
            plans = {key: self._missed.pop(key, now) for key in pairs}
        return {_guided(key, plans[key]): value for key, value in pairs.items()}

    def set(self, pairs: Entries) -> None:
        """Cache values, each for its seconds."""
        self.cache.set(self._kept(pairs))

    async def aset(self, pairs: Entries) -> None:
        """Cache values, each for its seconds."""
        await self.cache.aset(self._kept(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete what is cached of these nodes, for every plan."""
        self.cache.clear(namespaces)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete what is cached of these nodes, for every plan."""
        await self.cache.aclear(namespaces)


def _mark(guide: Guide) -> str:
    """Return what marks the keys of a plan; nothing for one that binds no site.

    Every call is then answered as in the original, whose entries are as good.
    """
    return guide.plan_id if guide.sites else ""


def _guided(key: FullKey, plan: str) -> FullKey:
    return (key[0], f"{key[1]}/{plan}") if plan else key
