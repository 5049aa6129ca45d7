"""Taking turns: the processors of one process do their batches one after the other, as long as those are short.

The interpreter runs one thread at a time in any case. Left to it, threads take over from each other in the middle
of their batches, at each call of SQLite, and each finds the caches of the machine full of the others' data: ten
processors in one process took twice the time. A batch that is long, or waits for something, takes no turn, and one
that turns out to be so loses it: nobody waits longer than ``LONGEST_S`` for a neighbour.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType

from .cores import Cores

LONGEST_S = 0.05
# The process idles for more than this share of a batch: it waits for a server or a disk. Its own CPU time would not
# tell: those who take no turns run beside it, and hold it up.
_IDLE = 0.5
_BATCHES_WITHOUT = 20


class Turns:
    """Whose turn it is, among the threads of a process; in the order in which they came."""

    def __init__(self) -> None:
        self.alone = threading.Lock()
        """For who must not work at the same time as another one that takes it, however long that takes."""
        self._changing = threading.Lock()
        self._holder: Turn | None = None
        self._since = 0.0
        self._waiting: deque[tuple[Turn, threading.Lock]] = deque()
        self._cores = Cores()

    def take(self, turn: Turn) -> None:
        """Wait until it is this one's turn; it is taken from one that has had it for too long."""
        with self._changing:
            if self._holder is None:
                called = None
                self._hand_to(turn)
            else:
                called = threading.Lock()
                called.acquire()
                self._waiting.append((turn, called))
        if called is not None:
            with self._cores.bound():
                self._wait(turn, called)
        self._cores.begin()

    def _wait(self, turn: Turn, called: threading.Lock) -> None:
        while not called.acquire(timeout=max(self._left(), 0.0)):
            with self._changing:
                if self._holder is not turn and self._left() <= 0:
                    self._waiting.remove((turn, called))
                    self._hand_to(turn)
                if self._holder is turn:
                    return

    def give_back(self, turn: Turn) -> None:
        """Let the next one go on, unless the turn was taken away meanwhile."""
        with self._changing:
            if self._holder is not turn:
                return
            self._cores.end()
            self._holder = None
            if self._waiting:
                following, called = self._waiting.popleft()
                self._hand_to(following)
                called.release()

    def _hand_to(self, turn: Turn) -> None:
        self._holder, self._since = turn, time.monotonic()

    def _left(self) -> float:
        return self._since + LONGEST_S - time.monotonic()


class Turn:
    """One thread's way to its turns: ``with turn:`` around a batch."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.alone = turns.alone
        self._without = 0
        self._began = self._cpu_began = self._process_began = 0.0

    def __enter__(self) -> None:
        if self._without > 0:
            self._without -= 1
            return
        self._turns.take(self)
        self._began, self._cpu_began, self._process_began = time.perf_counter(), time.thread_time(), time.process_time()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._began == 0.0:
            return
        took, cpu = time.perf_counter() - self._began, time.thread_time() - self._cpu_began
        idle = took - (time.process_time() - self._process_began)
        self._began = 0.0
        if cpu > LONGEST_S or idle > _IDLE * took:
            self._without = _BATCHES_WITHOUT
        self._turns.give_back(self)
