"""Batches: the transaction that an event takes effect in.

``_commit`` tells the whole story of one. What surrounds it goes around a sick event, so that it is undone,
tried again and set aside alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .adoption import obey
from .config import BatchConfig
from .deaths import Deaths
from .decoding import Failed, Item, Refused
from .dispatch import Dispatcher
from .errors import CommitRefused, StateError
from .event import CommitReport, TopicPartition
from .failpoints import failpoint
from .flood import Flood
from .handling import Ended, Handling, Spoiled
from .hooks import notify
from .order import KeyOrder
from .processor import Processor
from .reading import Reading
from .stages import Stages
from .store import Move, Store
from .trial import Trial

if TYPE_CHECKING:
    from .log import Logger

_ISOLATED_EVENTS = 1000
# In the log, for each batch; all of them are in the dead letters.
_REJECTIONS_SAID = 3
_GROWTH = 4


class Batches:
    """The batches of one processor, one after the other.

    ``commits`` counts their transactions, ``events`` and ``rejections`` what those made durable.
    """

    def __init__(  # noqa: PLR0913 # the parts it works with, by name
        self,
        processor: Processor,
        settings: BatchConfig,
        log: Logger,
        *,
        store: Store,
        reading: Reading,
        dispatcher: Dispatcher,
        trial: Trial,
        deaths: Deaths,
        flood: Flood,
        order: KeyOrder | None,
        worker: str,
    ) -> None:
        self.events = 0
        self.rejections = 0
        self.commits = 0
        self.stages = Stages()
        self._processor = processor
        self._settings = settings
        self._log = log
        self._store = store
        self._reading = reading
        self.dispatcher = dispatcher
        self._trial = trial
        self._deaths = deaths
        self._flood = flood
        self.order = order
        self._said_that_some_wait = False
        self.worker = worker
        self._handling = Handling(dispatcher)
        self._runs_plugin = False
        # Grows fourfold a batch: one slow event first, and not a hundred of them.
        self._limit = 1
        self._slice: int | None = None
        self._isolated_left = 0

    @property
    def handling(self) -> object:
        """What changes as long as code of a plugin gets on; None while none runs. May be asked from another thread."""
        return self.dispatcher.progress if self._runs_plugin else None

    @property
    def wanted(self) -> int:
        """How many events the next batch should have at most."""
        # An event on trial is tried alone: nothing that went well runs again for it. So are those that may be deadly.
        return 1 if self._trial.is_on or self._deaths.is_near else self._slice or self._limit

    def begin(self) -> None:
        """Learn which keys are blocked: positions have been adopted."""
        self._said_that_some_wait = False
        if self.order is not None:
            self.order.load(self._store)

    def let_go(self) -> None:
        """Forget what is known of events that come next: they may be others now."""
        self._slice = None
        self._flood.clear()

    def process(self, records: list[Any]) -> Failed | None:
        """Get records done, the fast way if possible; what has to wait goes back to the reading.

        Returns the event that failed, if one did.
        """
        if not self._deaths.is_near:
            return self._process(records)
        reading, (first, *others) = self._reading, records
        if others:
            # A source may give more than it was asked for.
            reading.put_back(others)
        with self._deaths.alone():
            if not self._trial.is_on:
                record = self.dispatcher.record(first)
                moves = {**reading.claim(record.at), **reading.moves()}
                failed = self._deaths.count(record, moves)
                reading.committed(moves)
                if failed is not None:
                    reading.put_back([first])
                    return failed
            return self._process([first])

    def _process(self, records: list[Any]) -> Failed | None:
        started = time.monotonic()
        self._slice = None
        failed = None
        if self._isolated_left <= 0:
            try:
                self._commit(records, isolated=False)
            except (Spoiled, StateError):
                self._isolated_left = _ISOLATED_EVENTS
        if self._isolated_left > 0:
            self._isolated_left -= len(records)
            failed = self._process_isolated(records)
        each = (time.monotonic() - started) / len(records)
        fitting = int(self._settings.time_s / max(each, 1e-7))
        self._limit = max(1, min(fitting, self._limit * _GROWTH, self._settings.events))
        return failed

    def _process_isolated(self, records: list[Any]) -> Failed | None:
        """Commit what is before a sick event; it comes again first."""
        reading = self._reading
        try:
            failed = self._commit(records, isolated=True)
        except Ended as ended:
            failed = ended.failed
            if (before := reading.index(records, failed.record)) > 0:
                # Those before it went down with it: alone first.
                reading.put_back(records)
                self._slice = before
                return None
        except CommitRefused as refused:
            if len(records) > 1:
                # Which of them the database refuses to commit, only halving tells.
                reading.put_back(records)
                self._slice = len(records) // 2
                self._isolated_left = _ISOLATED_EVENTS
                return None
            failed = Failed(self.dispatcher.record(records[0]), refused)
        if failed is not None:
            reading.put_back(records[reading.index(records, failed.record) :])
            self._isolated_left = _ISOLATED_EVENTS
        return failed

    def _commit(self, records: list[Any], *, isolated: bool) -> Failed | None:
        """One batch, one transaction: move the positions, handle the events, write, verify, commit.

        Returns the event that failed, if one did: what was before it is committed, the rest is not.

        Raises:
            TooManyRejections: the batch is committed up to there, and with it that the processor is paused.
        """
        # Decoded for each attempt anew: a handler may change what it gets.
        with self.plugin_runs():
            parts = self._timed(self._decoded(records))
            first = next(parts, None)
        reading = self._reading
        if first is None:
            reading.pass_over(records)
            return None
        started = time.monotonic()
        with self._store.begin() as transaction:
            failpoint("after_begin")
            obey(transaction.control())
            moves = reading.moves(records)
            transaction.advance(moves, self.worker)
            failpoint("after_advance")
            self.stages.end("store")
            handle = self._handling.one_by_one if isolated else self._handling.all_at_once
            flood = self._flood.copy()
            queue = None if self.order is None else self.order.within(transaction)
            with self.plugin_runs(), transaction.plugin_code():
                events, refused, failed, flooded = handle(transaction, itertools.chain([first], parts), flood, queue)
            self.stages.end("dispatch")
            refused = self._trial.counted(refused)
            if refused:
                # A handler may have ended the transaction; then the batch is undone, before we write into nothing.
                transaction.check_open()
            done = records
            if failed is not None:
                done = records[: reading.index(records, failed.record)]
                if not done:
                    return failed
            elif flooded is not None:
                done = records[: reading.index(records, flooded.behind) + 1]
                transaction.hold(paused=1, last_error=str(flooded.trouble))
            if len(done) < len(records):
                moves = reading.back(moves, done)
                transaction.advance(moves, self.worker)
            for item in refused:
                failpoint("in_reject")
                transaction.add_dead_letter(item.rejection(self._processor.name), item.blocked_by)
            failpoint("before_commit")
            transaction.commit()
        self.stages.end("commit")
        failpoint("after_commit")
        self._flood = flood
        if self.order is not None and queue is not None:
            self.order.keep(queue)
        self._committed(moves, events, refused, started)
        if flooded is not None:
            raise flooded.trouble
        return failed

    def _decoded(self, records: list[Any]) -> Iterator[list[Item]]:
        sentence = self._trial.sentence
        if sentence is None:
            yield from self.dispatcher.decode(records)
            return
        for raw in records:
            if self.dispatcher.record(raw) == sentence.record:
                # Not decoded again: that may be what kills.
                yield [sentence]
            else:
                yield from self.dispatcher.decode([raw])

    def _timed(self, parts: Iterable[list[Item]]) -> Iterator[list[Item]]:
        for part in parts:
            self.stages.end("decode")
            yield part
            self.stages.end("dispatch")
        self.stages.end("decode")

    @contextmanager
    def plugin_runs(self) -> Iterator[None]:
        """Let ``handling`` show that code of a plugin runs."""
        self._runs_plugin = True
        try:
            yield
        finally:
            self._runs_plugin = False

    def move_only(self) -> None:
        """Commit positions that moved without events: filtered ones, control records, compacted gaps."""
        moves = self._reading.moves()
        if not moves:
            return
        with self._store.begin() as transaction:
            obey(transaction.control())
            transaction.advance(moves, self.worker)
            transaction.commit()
        self._committed(moves, 0, [], time.monotonic())

    def _committed(
        self, moves: Mapping[TopicPartition, Move], events: int, refused: list[Refused], started: float
    ) -> None:
        reading, processor = self._reading, self._processor
        reading.committed(moves)
        if any(item.blocked_by is not None for item in refused):
            self._say_that_some_wait()
            refused = [item for item in refused if item.blocked_by is None]
        self.commits += 1
        self.events += events
        self.rejections += len(refused)
        self._trial.end_behind(reading.next)
        for item in refused[:_REJECTIONS_SAID]:
            self._log.warning("event rejected", at=str(item.record), reason=item.reason[:200])
        if (more := len(refused) - _REJECTIONS_SAID) > 0:
            self._log.warning("more events rejected", events=more, see=f"axe rejections list {processor.name}")
        for item in refused:
            with self.plugin_runs():
                notify(processor.hooks, "on_reject", self._log, rejection=item.rejection(processor.name))
        if processor.implements("on_commit"):
            seconds = time.monotonic() - started
            report = CommitReport(processor.name, reading.positions, events, len(refused), seconds)
            with self.plugin_runs():
                notify(processor.hooks, "on_commit", self._log, report=report)

    def _say_that_some_wait(self) -> None:
        """Say it once: a busy key has some in each batch."""
        if not self._said_that_some_wait:
            self._said_that_some_wait = True
            see = f"axe rejections list {self._processor.name} --status blocked"
            self._log.warning("events wait for others of their keys, which were set aside", see=see)
