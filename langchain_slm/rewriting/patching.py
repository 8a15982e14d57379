"""Methods that are replaced as long as somebody needs them, and put back afterwards."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Method: TypeAlias = Callable[..., Any]
Wrap: TypeAlias = Callable[[Method], Method]


class Patching:
    """Replacements of methods, made with the first user and undone with the last.

    Args:
        wraps: What makes the replacement of a method, by class and name.

    Attributes:
        alive: Users at the moment.
        lock: Held while methods are replaced.
    """

    def __init__(self, wraps: Mapping[tuple[type, str], Wrap]) -> None:
        self._wraps = wraps
        self._placed: dict[tuple[type, str], tuple[Method, Method]] = {}  # ours, theirs
        self.alive = 0
        # Reentrant: the garbage collector may end a user while this thread holds it.
        self.lock = threading.RLock()

    def keep(self, user: object) -> None:
        """Keep the methods replaced as long as `user` lives."""
        with self.lock:
            self.alive += 1
            for (owner, name), wrap in self._wraps.items():
                found = getattr(owner, name)
                placed = self._placed.get((owner, name))
                if placed is None or found is not placed[0]:
                    self._placed[owner, name] = wrap(found), found
                    setattr(owner, name, self._placed[owner, name][0])
        weakref.finalize(user, self._end).atexit = False

    def _end(self) -> None:
        with self.lock:
            self.alive -= 1
            if self.alive == 0:
                for (owner, name), (ours, theirs) in self._placed.items():
                    # Another's hook on top of ours stays, and ours below it, idle.
                    if getattr(owner, name) is ours:
                        setattr(owner, name, theirs)
