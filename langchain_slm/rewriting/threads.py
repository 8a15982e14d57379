"""Opt-in: threads of the standard library that a node starts run in its scope.

Only what this package keeps in the context goes along; the app's own variables are as
they always were in its threads. Holds no scope in a pool's worker: each task has its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any

from langchain_slm.rewriting.patching import Method, Patching
from langchain_slm.rewriting.scopes import SCOPE, Running


def _carried() -> Running | None:
    scope = SCOPE.get()
    return scope if scope is not None and "threads" in scope.hooks else None


def _run_in(scope: Running, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    token = SCOPE.set(scope)
    try:
        return run(*args, **kwargs)
    finally:
        SCOPE.reset(token)


def _hooked_start(original: Method) -> Method:
    @wraps(original)
    def start(self: threading.Thread) -> None:
        if (scope := _carried()) is None:
            original(self)
            return
        own, run = vars(self).get("run"), self.run

        def put_back() -> None:
            # Else a thread that has ended, and is kept, would keep the scope.
            vars(self).pop("run", None)
            if own is not None:
                vars(self)["run"] = own

        def run_inside() -> None:
            put_back()
            _run_in(scope, run)

        vars(self)["run"] = run_inside  # of this thread only
        try:
            original(self)
        except BaseException:
            put_back()
            raise

    return start


def _hooked_submit(original: Method) -> Method:
    @wraps(original)
    def submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        if (scope := _carried()) is None:
            return original(self, fn, *args, **kwargs)
        token = SCOPE.set(None)  # it may start a worker, which outlives the node
        try:
            return original(self, partial(_run_in, scope, fn), *args, **kwargs)
        finally:
            SCOPE.reset(token)

    return submit


THREADS = Patching(
    {
        (threading.Thread, "start"): _hooked_start,
        (ThreadPoolExecutor, "submit"): _hooked_submit,
    }
)
