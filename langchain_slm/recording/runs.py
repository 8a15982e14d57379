"""Run a graph on a file of inputs and record it. One thread per line; nothing is lost.

A run that fails is counted and the others go on; what was recorded of it stays.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import StateGraph

from langchain_slm.errors import NoExamplesError, SLMError, StoreError
from langchain_slm.recording.recorder import Recorder
from langchain_slm.recording.store import Store
from langchain_slm.rewriting.scopes import HookName
from langchain_slm.rewriting.sites import Graph
from langchain_slm.schema import JsonObject

logger = logging.getLogger(__name__)


def read_inputs(path: Path) -> list[Any]:
    """Return the graph inputs in a JSONL file, one per line.

    Raises:
        SLMError: If it cannot be read; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as UTF-8 text ({type(error).__name__})"
        raise SLMError(msg, path=str(path)) from error
    inputs = []
    # Not `splitlines`: JSON strings may hold other line separators as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            inputs.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            msg = f"{path}:{number}: not JSON ({error}); each line is one graph input"
            raise SLMError(msg, path=str(path), line=number) from error
    if not inputs:
        msg = f"{path}: no inputs; write one JSON value per line, the graph's input"
        raise SLMError(msg, path=str(path))
    return inputs


def record_runs(
    graph: Graph,
    inputs: Sequence[Any],
    *,
    store: Store,
    name: str,
    concurrency: int = 4,
    hooks: Collection[HookName] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> JsonObject:
    """Run `graph` on each input and store every model call.

    Args:
        graph: The graph.
        inputs: One run each, as a thread of its own.
        store: Where calls go.
        name: Name of the graph in the store.
        concurrency: Runs at a time.
        hooks: Further ways by which calls are reached, as for `rewrite`.
        progress: Told the number of runs that have ended.

    Returns:
        Counts: `runs`, those that `failed`, `calls` stored, those `lost` because they
        could not be stored, and `sites`, the calls stored by site.

    Raises:
        NoExamplesError: If no run called a model that can be seen.
        StoreError: If none of the calls could be stored.
    """
    recorder = Recorder(store, graph=name)
    recorded: Any = recorder.copy_of(graph, hooks)
    if isinstance(recorded, StateGraph):
        recorded = recorded.compile()
    runs = _Runs(recorded, asyncio.Semaphore(concurrency), progress)
    asyncio.run(runs.all(inputs))
    calls = recorder.stored.total()
    if calls == 0:
        raise _nothing_recorded(recorder, runs, name)
    return {
        "runs": len(inputs),
        "failed": runs.failed,
        "calls": calls,
        "lost": recorder.dropped,
        "sites": dict(sorted(recorder.stored.items())),
    }


def _nothing_recorded(recorder: Recorder, runs: _Runs, name: str) -> SLMError:
    ended = f"{runs.ended} runs, {runs.failed} failed"
    if runs.first_failure:
        ended = f"{ended} (the first with {runs.first_failure})"
    if recorder.dropped:
        msg = (
            f"graph {name!r}: {ended}; none of its {recorder.dropped} model calls could "
            "be stored; the log says why, mend the store and run again"
        )
        return StoreError(msg, runs=runs.ended, lost=recorder.dropped)
    remedy = (
        "every run failed before a model was called: check that each line of the inputs "
        "is an input of this graph"
        if runs.failed == runs.ended
        else "no call of a LangChain chat model was seen. Raw SDK calls cannot be "
        "recorded; check that its nodes call chat models"
    )
    msg = f"graph {name!r}: {ended}; {remedy}"
    return NoExamplesError(msg, runs=runs.ended, failed=runs.failed)


class _Runs:
    def __init__(
        self, graph: Any, slots: asyncio.Semaphore, progress: Callable[[int], None]
    ) -> None:
        self._graph = graph
        self._slots = slots
        self._progress = progress
        saver = getattr(graph, "checkpointer", None)
        self._only_sync = (
            isinstance(saver, BaseCheckpointSaver)
            and type(saver).aget_tuple is BaseCheckpointSaver.aget_tuple
        )
        self.ended = 0
        self.failed = 0
        self.first_failure = ""

    async def all(self, inputs: Sequence[Any]) -> None:
        await asyncio.gather(*(self._one(each) for each in inputs))

    async def _one(self, value: Any) -> None:
        async with self._slots:
            try:
                await self._run(value, {"configurable": {"thread_id": uuid4().hex}})
            except Exception as error:  # noqa: BLE001 - the app's own failure is counted
                self.failed += 1
                what = _failure(error)
                self.first_failure = self.first_failure or what
                if self.failed & (self.failed - 1) == 0:  # ever more rarely
                    logger.warning("a run failed with %s; %d so far", what, self.failed)
            finally:
                self.ended += 1
                self._progress(self.ended)

    async def _run(self, value: Any, config: JsonObject) -> None:
        if self._only_sync:  # a checkpointer such as SqliteSaver
            await asyncio.to_thread(self._graph.invoke, value, config)
        else:
            await self._graph.ainvoke(value, config)


def _failure(error: Exception) -> str:
    """Return what failed and where; not its text, which may quote a message."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{at}"
