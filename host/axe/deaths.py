"""After the death of a worker: events are tried one at a time and counted, so that one that kills is found.

A worker that dies says nothing. Who follows it knows only that the one before it never took leave, and that the
event it died at, if it was one, is among the next few: those of a batch.
"""

from __future__ import annotations

import threading
import time

from .adoption import obey
from .config import BatchConfig
from .decoding import Failed
from .errors import WorkerDied
from .event import Record
from .store import Store, StoredPosition

DEATHS_UNTIL_FAILURE = 3
# A batch is meant to take ``time_s``. Slow events are not tried one at a time for longer than this many of those;
# where the deadly one lies behind them, the next death begins nearer to it.
_BATCHES_TIME = 10


class Deaths:
    """Whether an event may have killed the worker before this one, and how often each was tried since.

    ``alone`` is held around an event that is tried so: no two processors of a process may try one at the same time,
    or the neighbour of an event that kills would be blamed as well.
    """

    def __init__(self, store: Store, settings: BatchConfig, worker: str, alone: threading.Lock | None) -> None:
        self.alone = alone or threading.Lock()
        self._store = store
        self._settings = settings
        self._worker = worker
        self._left = 0
        self._until = 0.0

    def begin(self, *, after_death: bool) -> None:
        """Begin to read, after the death of a worker or not."""
        self._left = self._settings.events if after_death else 0
        self._until = time.monotonic() + _BATCHES_TIME * self._settings.time_s

    @property
    def is_near(self) -> bool:
        """Whether the events that come next may be deadly, and are to be tried one at a time."""
        if self._left > 0 and time.monotonic() > self._until:
            self._left = 0
        return self._left > 0

    def count(self, record: Record, held: StoredPosition) -> Failed | None:
        """Note durably that an event is about to be tried; it has failed if workers died at it too often.

        Raises:
            Directed: somebody paused or moved the processor.
            PositionConflict: another worker has the partition.
        """
        self._left -= 1
        with self._store.begin() as transaction:
            obey(transaction.control())
            tried = transaction.note_attempt(record.at, record.offset, epoch=held.epoch, owner=self._worker)
            transaction.commit()
        deaths = tried - 1
        return Failed(record, WorkerDied(deaths)) if deaths >= DEATHS_UNTIL_FAILURE else None
