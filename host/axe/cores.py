"""Where threads that take turns wait: on the core of the one whose turn it is.

The system wakes a thread where a core idles. With one thread at work at a time that is always another one: each turn
would begin with caches full of nothing, and end by leaving them full for nobody. Ten processors that count took up to
a quarter more CPU time so. A thread that waits is bound to that core, and to none from when its turn begins: what a
handler starts there, a thread or a program, may run anywhere, and so may the thread itself once the core is busy.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_core_of_this_thread: Callable[[], int] | None = None
with suppress(AttributeError, TypeError):  # not on Linux
    _core_of_this_thread = ctypes.PyDLL(None).sched_getcpu


class Cores:
    """The core on which the threads of a process meet: it follows one whose turn it is, if the system moves that."""

    def __init__(self) -> None:
        self._meeting: int | None = None
        self._began_on: int | None = None

    def begin(self) -> None:
        """Note where the turn of this thread begins."""
        if _core_of_this_thread is not None:
            self._began_on = _core_of_this_thread()
            if self._meeting is None:
                self._meeting = self._began_on

    def end(self) -> None:
        """Note where it ends: elsewhere if the system has moved the thread, for the core was busy."""
        # Not wherever it ends: a thread that waited elsewhere would go on to do so.
        if _core_of_this_thread is not None and (here := _core_of_this_thread()) != self._began_on:
            self._meeting = here

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Bind this thread while it waits; afterwards it may run where it might before."""
        allowed = self._allowed()
        there = allowed & {self._meeting}
        if len(allowed) < 2 or not self._binds(there):  # noqa: PLR2004 # no choice
            yield
            return
        try:
            yield
        finally:
            # Somebody may have bound it meanwhile, who is to have the last word.
            if self._allowed() == there:
                self._binds(allowed)

    def _allowed(self) -> set[int]:
        return set() if _core_of_this_thread is None else os.sched_getaffinity(0)

    def _binds(self, cores: set[int]) -> bool:
        """Bind this thread, if that is possible."""
        try:
            os.sched_setaffinity(0, cores)
        except OSError:
            # None of them may be used any more, or a container forbids it.
            self._meeting = None
            return False
        return True
