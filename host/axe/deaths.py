"""After the death of a worker: events are tried one at a time and counted, so that one that kills is found.

A worker that dies says nothing. Who follows it knows only that the one before it never took leave, and that the
event it died at, if it was one, is among the next few: those of a batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .adoption import obey
from .config import BatchConfig
from .decoding import Failed
from .errors import WorkerDied
from .event import Record, TopicPartition
from .store import Move, Store

DEATHS_UNTIL_FAILURE = 3
# A batch is meant to take ``time_s``. Slow events are not tried one at a time for longer than this many of those;
# where the deadly one lies behind them, the next death begins nearer to it.
_BATCHES_TIME = 10
_LEAST_TIME_S = 1.0


class Deaths:
    """Whether an event may have killed the worker before this one, and how often each was tried since.

    ``alone`` is what the processors of a process share: no two of them may try an event at the same time, or the
    neighbour of an event that kills would be blamed as well.
    """

    def __init__(self, store: Store, settings: BatchConfig, worker: str, alone: threading.Lock | None) -> None:
        self._alone = alone or threading.Lock()
        self._store = store
        self._settings = settings
        self._worker = worker
        self._events_left = 0
        self._time_left_s = 0.0
        self.waits = False
        """Whether a neighbour is waited for, which may take as long as its handler may."""
        # What this worker has counted: tried again after an outage, it has killed nobody.
        self._counted: tuple[Record, int] | None = None

    def suspect(self) -> None:
        """Take the events that come next for deadly ones, as many as a batch may have had."""
        self._events_left = self._settings.events
        self._time_left_s = max(_BATCHES_TIME * self._settings.time_s, _LEAST_TIME_S)

    @property
    def is_near(self) -> bool:
        """Whether the events that come next may be deadly, and are to be tried one at a time."""
        return self._events_left > 0 and self._time_left_s > 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Try an event while no neighbour does."""
        self.waits = True
        with self._alone:
            self.waits = False
            began = time.monotonic()
            try:
                yield
            finally:
                self._events_left -= 1
                self._time_left_s -= time.monotonic() - began

    def count(self, record: Record, moves: Mapping[TopicPartition, Move]) -> Failed | None:
        """Note durably that an event is about to be tried; it has failed if workers died at it too often.

        ``moves`` leads to it, over what is no event of the processor: else that would be counted again in its stead.

        Raises:
            Directed: somebody paused or moved the processor.
            PositionConflict: another worker has the partition.
        """
        with self._store.begin() as transaction:
            obey(transaction.control())
            transaction.advance(moves, self._worker)
            if self._counted is not None and self._counted[0] == record:
                tried = self._counted[1]
            else:
                epoch = moves[record.at].epoch
                tried = transaction.note_attempt(record.at, record.offset, epoch=epoch, owner=self._worker)
            transaction.commit()
        self._counted = record, tried
        deaths = tried - 1
        if deaths < DEATHS_UNTIL_FAILURE:
            return None
        # It is found. What comes of it is not counted, so that it is tried once more when somebody says so.
        self._events_left = 0
        return Failed(record, WorkerDied(deaths))
