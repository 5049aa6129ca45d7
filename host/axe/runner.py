"""The loop of one processor: it owns the transaction.

``_commit`` tells the whole story of a batch. What surrounds it: adopting positions before the first
batch and whenever somebody moved them, waiting for what is away, and going around a sick event.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .config import Config, parse_start
from .dispatch import Dispatcher, Failed, Item, Refused
from .errors import (
    AxeError,
    CommitRefused,
    PluginError,
    PositionConflict,
    SourceUnavailable,
    StateError,
    StoreUnavailable,
    TopicMissing,
    TransactionEnded,
)
from .event import RECORD_FORM, CommitReport, Decision, Failure, TopicPartition
from .failpoints import failpoint
from .fit import Log, misfits
from .hooks import notify
from .log import get_logger
from .presence import Presence
from .processor import Processor, Status
from .reading import Positions, Reading
from .sources import Source
from .store import Control, Move, Store, StoredPosition, Transaction
from .trial import Trial, told

_POLL_S = 0.25
_LOOK_S = 1.0
_NEW_PARTITIONS_S = 10.0
_ISOLATED_EVENTS = 1000
_GROWTH = 4


class _Spoiled(Exception):
    """An event of the batch cannot be undone alone: undo the batch and do it again event by event."""


class _Ended(Exception):
    """The handler of one event ended the transaction, and with it what was before the event."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(str(failed.record))
        self.failed = failed


class _Directed(Exception):
    """Somebody paused or moved the processor, or made a topic anew: look at what is set before going on."""


class Runner:
    """Runs one processor until it is stopped, has read to the end, or is lost to another worker.

    ``run`` belongs to one thread; ``stop`` and the attributes for display may be used from any.
    """

    def __init__(  # noqa: PLR0913 # the parts it is made of, by name
        self,
        processor: Processor,
        store: Store,
        source: Source,
        config: Config,
        *,
        until_end: bool = False,
        retry_failed: bool = False,
        alone: bool = True,
        on_status: Callable[[Status, str | None], None] | None = None,
    ) -> None:
        self.processor = processor
        self.events = 0
        self.rejections = 0
        self.ends: Positions = {}
        self._settings = config.processor(processor.name)
        self._wait_s = config.host.wait_s
        self._log = get_logger(processor=processor.name)
        # A source of a plugin may hold its records as they are.
        form = getattr(source, "form", RECORD_FORM)
        self._dispatcher = Dispatcher(processor, config, form)
        self._reading = Reading(source, form)
        self._trial = Trial(processor, self._settings, self._log)
        self._store = store
        self._source = source
        self._until_end = until_end
        self._retry_failed = retry_failed
        self._presence = Presence(store, self._log, alone=alone, on_status=on_status)
        self._stop = threading.Event()
        self._finished = self._begun = self._in_handler = self._conflict = False
        # Grows fourfold a batch: one slow event first, and not a hundred of them.
        self._limit = 1
        self._slice: int | None = None
        self._isolated_left = 0
        self._waiting_since: float | None = None
        self._waiting_for: str | None = None
        self._moved_at = self._looked_at = self._mirrored_at = self._counted_at = 0.0

    # --- life

    def stop(self) -> None:
        """Ask for an orderly end: the batch at hand is finished."""
        self._stop.set()

    @property
    def status(self) -> Status:
        """What the processor is doing."""
        return self._presence.status

    @property
    def error(self) -> str | None:
        """What led to the status, if it was an error."""
        return self._presence.error

    @property
    def positions(self) -> Positions:
        """The next offsets to read, as far as they are committed."""
        return self._reading.positions

    @property
    def succeeded(self) -> bool:
        """Whether it ended without a failure."""
        return self.status in (Status.STOPPED, Status.PAUSED)

    @property
    def handling(self) -> object:
        """What changes as long as the handler gets on; None while none runs. For a watchdog's comparison."""
        return self._dispatcher.progress if self._in_handler else None

    def run(self) -> None:
        """Run until the end; a failure is a status, not an exception."""
        try:
            while not (self._stop.is_set() or self._finished):
                self._turn()
            self._drain()
        except BaseException as error:  # noqa: BLE001 # nobody else would hear of it
            self._log.error("processor ended by an unexpected error", exc_info=error)
            self._presence.show(Status.FAILED, told(error))
        finally:
            self._source.close()
            try:
                self._store.close()
            except AxeError as error:
                self._log.warning("database was left without a checkpoint", reason=str(error))

    def _turn(self) -> None:
        try:
            if not self._reading.held:
                if not self._presence.is_open:
                    self._open()
                if not self._may_run():
                    return
                self._adopt()
            self._step()
        except BaseException as error:  # noqa: BLE001 # the loop must not end in silence, whatever a plugin raises
            self._react(error)
        else:
            if self._waiting_since is not None:
                if self.status is Status.WAITING:
                    self._presence.show(Status.RUNNING)
                self._log.info("going on", waited_s=round(time.monotonic() - self._waiting_since))
                self._waiting_since = self._waiting_for = None

    def _react(self, error: BaseException) -> None:
        """Say what each kind of trouble leads to."""
        trouble = error if isinstance(error, AxeError) else self._store.trouble(error)
        match trouble:
            case None if isinstance(error, _Directed):
                self._let_go()
            case PositionConflict():
                self._conflict = True
                self._let_go()
            case SourceUnavailable() | TopicMissing() | StoreUnavailable():
                self._wait_for(trouble)
            case AxeError():
                self._fail(str(trouble), Failure(self.processor.name, None, error, 1, Decision.STOP))
            case _:
                self._log.error("processor stopped by an unexpected error", exc_info=error)
                self._fail(told(error), Failure(self.processor.name, None, error, 1, Decision.STOP))

    def _open(self) -> None:
        self._store.open(version=self.processor.version)
        if self._retry_failed and self._store.control().status == Status.FAILED.value:
            self._store.set_status(Status.STOPPED.value)
        self._presence.arrive()

    def _may_run(self) -> bool:
        """Look whether somebody holds the processor; wait a little if so."""
        if self._conflict and self._presence.is_lost():
            self._presence.show(Status.UNASSIGNED, "another worker has taken over")
            self._finished = self._until_end
            self._stop.wait(_LOOK_S)
            return False
        self._conflict = False
        control = self._store.control()
        status = Status.PAUSED if control.paused else Status.FAILED if control.status == Status.FAILED.value else None
        if status is None:
            return True
        self._presence.show(status, control.last_error)
        self._finished = self._until_end
        self._presence.beat()
        self._stop.wait(_LOOK_S / 2)
        return False

    def _drain(self) -> None:
        """Commit what only moved, say goodbye."""
        try:
            if self._reading.held:
                self._move_only()
                self._source.mirror(self.positions, self._store.store_id)
        except (_Directed, PositionConflict):
            self._log.info("somebody paused or moved the processor at the end")
        except Exception as error:  # noqa: BLE001 # what was not committed is read again
            self._log.warning("last position was not stored", reason=told(self._store.trouble(error) or error))
        if self._begun:
            notify(self.processor.hooks, "on_stop", self._log)
        self._presence.leave()

    # --- positions

    def _adopt(self) -> None:
        """Take over the positions, run what is pending, and read from there."""
        log = Log.of(self._source, sorted(self.processor.types))
        stored = self._store.positions()
        for misfit in misfits(self.processor.name, self.processor.version, self._store.control(), stored, log):
            # Going on would lose or repeat events in silence.
            raise misfit
        starts = {at: self._start(at, stored, log) for at in log.bounds}
        with self._store.begin() as transaction:
            held = transaction.take_over(starts, log.topic_ids, self._presence.worker)
            # Not before: on PostgreSQL only the rows that were just taken keep an operator waiting.
            control = transaction.control()
            if control.paused:
                raise _Directed
            with transaction.plugin_code():
                self._run_pending(transaction, control.pending)
            # With a full disk this succeeds, and the next batch does not: it is not running before that has.
            status = Status.RUNNING if self._waiting_since is None else Status.WAITING
            cluster_id = log.cluster_id or control.cluster_id
            transaction.adopted(version=self.processor.version, cluster_id=cluster_id, status=status.value)
            transaction.commit()
        # on_start may have kept its connection, which would make every event one that may have used SQL.
        self._store.renew()
        self._begun = True
        self._reading.hold(held)
        # A plugin's on_start may take minutes, and the source watches for topics made anew only from here on.
        if any(self._source.topic_id(topic) != known for topic, known in log.topic_ids.items() if known is not None):
            raise _Directed
        if self._until_end and not self.ends:
            self.ends = {at: bounds.end for at, bounds in log.bounds.items()}
        self._counted_at = self._looked_at = time.monotonic()
        if status is Status.RUNNING:
            self._presence.show(status)
        self._presence.beat()

    def _run_pending(self, transaction: Transaction, pending: str | None) -> None:
        hook, state = self.processor.hooks.hook, transaction.state
        try:
            if pending is not None:
                hook.on_reset(state=state)
            if not self._begun or pending == "wipe":
                hook.on_start(state=state, settings=self.processor.settings)
            state.end_event()
            transaction.check_open()
        except AxeError:
            raise
        except BaseException as error:
            if self._store.trouble(error) is not None:
                raise
            self._log.error("plugin failed to start", exc_info=True)
            message = f"on_start or on_reset failed: {told(error)}"
            raise PluginError(message) from error

    def _start(self, at: TopicPartition, stored: Mapping[TopicPartition, StoredPosition], log: Log) -> int:
        start = parse_start(self._settings.start)
        # A partition that was added to a topic we know is read whole, wherever a new processor would begin.
        if start == "earliest" or any(known.topic == at.topic for known in stored):
            return log.bounds[at].begin
        if start == "latest":
            return log.bounds[at].end
        return self._source.offsets_at([at], int(start.timestamp() * 1000))[at]

    def _let_go(self) -> None:
        failpoint("in_revoke")
        self._reading.let_go()
        self._trial.end()
        self._slice = None

    # --- the loop

    def _step(self) -> None:
        """One round: records, if there are any, through one transaction."""
        batch, reading = self._settings.batch, self._reading
        # An event on trial is tried alone: nothing that went well runs again for it.
        events, self._slice = 1 if self._trial.is_on else self._slice or self._limit, None
        records = reading.take(events=events, size=batch.bytes, timeout_s=_POLL_S)
        failpoint("after_poll")
        if records:
            self._process(records)
        reading.catch_up()
        now = time.monotonic()
        if not records:
            self._quiet(now)
        if now - self._counted_at > _NEW_PARTITIONS_S:
            self._counted_at = now
            self._count_partitions()
        if now - self._moved_at > _LOOK_S:
            self._moved_at = now
            self._move_only()
        self._presence.beat()
        if self._until_end and reading.held and reading.is_past(self.ends):
            self._finished = True

    def _process(self, records: list[Any]) -> None:
        """Get records done, the fast way if possible; what has to wait goes back to the reading."""
        started = time.monotonic()
        if self._isolated_left <= 0:
            try:
                self._commit(records, isolated=False)
            except (_Spoiled, StateError):
                self._isolated_left = _ISOLATED_EVENTS
        if self._isolated_left > 0:
            self._isolated_left -= len(records)
            self._process_isolated(records)
        each = (time.monotonic() - started) / len(records)
        wanted = int(self._settings.batch.time_s / max(each, 1e-7))
        self._limit = max(1, min(wanted, self._limit * _GROWTH, self._settings.batch.events))

    def _process_isolated(self, records: list[Any]) -> None:
        """Commit what is before a sick event; it comes again first."""
        reading = self._reading
        try:
            failed = self._commit(records, isolated=True)
        except _Ended as ended:
            failed = ended.failed
            if (before := reading.index(records, failed.record)) > 0:
                # Those before it went down with it: alone first.
                reading.put_back(records)
                self._slice = before
                return
        except CommitRefused as refused:
            if len(records) > 1:
                # Which of them the database refuses to commit, only halving tells.
                reading.put_back(records)
                self._slice = len(records) // 2
                self._isolated_left = _ISOLATED_EVENTS
                return
            failed = Failed(self._dispatcher.record(records[0]), refused)
        if failed is not None:
            reading.put_back(records[reading.index(records, failed.record) :])
            self._isolated_left = _ISOLATED_EVENTS
            self._decide(failed)

    def _commit(self, records: list[Any], *, isolated: bool) -> Failed | None:
        """One batch, one transaction: move the positions, handle the events, write, verify, commit.

        Returns the event that failed, if one did: what was before it is committed, the rest is not.
        """
        # Decoded for each attempt anew: a handler may change what it gets.
        items = self._trial.carry_out(self._dispatcher.decode(records))
        reading = self._reading
        if not items:
            reading.pass_over(records)
            return None
        started = time.monotonic()
        with self._store.begin() as transaction:
            failpoint("after_begin")
            self._obey(transaction.control())
            moves = reading.moves(records)
            transaction.advance(moves, self._presence.worker)
            failpoint("after_advance")
            handle = self._one_by_one if isolated else self._all_at_once
            self._in_handler = True
            try:
                with transaction.plugin_code():
                    refused, failed = handle(transaction, items)
            finally:
                self._in_handler = False
            refused = self._trial.counted(refused)
            if refused:
                # A handler may have ended the transaction; then the batch is undone, before we write into nothing.
                transaction.check_open()
            if failed is not None:
                done = records[: reading.index(records, failed.record)]
                if not done:
                    return failed
                moves = reading.back(moves, done)
                transaction.advance(moves, self._presence.worker)
            for item in refused:
                failpoint("in_reject")
                transaction.add_dead_letter(item.rejection(self.processor.name))
            failpoint("before_commit")
            transaction.commit()
        failpoint("after_commit")
        events = len(items) if failed is None else [item.record for item in items].index(failed.record)
        self._committed(moves, events, refused, started)
        return failed

    def _all_at_once(self, transaction: Transaction, items: list[Item]) -> tuple[list[Refused], None]:
        """Handle the events without savepoints: the fast way, which one sick event ends."""
        refused: list[Refused] = []
        events: list[Any] = items
        if Refused in map(type, items):
            refused = [item for item in items if type(item) is Refused]
            events = [item for item in items if type(item) is not Refused]
        state, dispatcher = transaction.state, self._dispatcher
        if dispatcher.takes_batches:
            if events and not dispatcher.handle_batch(events, state):
                raise _Spoiled
            return refused, None
        for outcome, mark in dispatcher.handle_all(events, state):
            if type(outcome) is Refused and state.undo_event(mark):
                refused.append(outcome)
            else:
                raise _Spoiled
        return refused, None

    def _one_by_one(self, transaction: Transaction, items: list[Item]) -> tuple[list[Refused], Failed | None]:
        """Handle the events with a savepoint before each: a sick one is undone alone."""
        refused: list[Refused] = []
        for item in items:
            if isinstance(item, Refused):
                refused.append(item)
                continue
            transaction.savepoint()
            outcome = self._dispatcher.handle(item, transaction.state)
            if outcome is None:
                try:
                    transaction.keep_event()
                    continue
                except Exception as error:  # noqa: BLE001 # what the handler left behind counts as its failure
                    outcome = Failed(item.record, error)
            if isinstance(outcome, Failed) and (trouble := transaction.trouble(outcome.exception)) is not None:
                raise trouble from outcome.exception
            try:
                transaction.undo_event()
            except TransactionEnded as ended:
                raise _Ended(outcome if isinstance(outcome, Failed) else Failed(item.record, ended)) from ended
            if isinstance(outcome, Failed):
                return refused, outcome
            refused.append(outcome)
        return refused, None

    # --- around a batch

    def _obey(self, control: Control) -> None:
        if control.is_directed:
            raise _Directed

    def _committed(
        self, moves: Mapping[TopicPartition, Move], events: int, refused: list[Refused], started: float
    ) -> None:
        self._reading.committed(moves)
        self.events += events
        self.rejections += len(refused)
        for item in refused:
            self._log.warning("event rejected", at=str(item.record), reason=item.reason[:200])
            notify(self.processor.hooks, "on_reject", self._log, rejection=item.rejection(self.processor.name))
        if self._trial.is_over(self._reading.next):
            self._presence.show(Status.RUNNING)
        if self.processor.implements("on_commit"):
            seconds = time.monotonic() - started
            report = CommitReport(self.processor.name, self.positions, events, len(refused), seconds)
            notify(self.processor.hooks, "on_commit", self._log, report=report)
        self._mirror()

    def _move_only(self) -> None:
        """Commit positions that moved without events: filtered ones, control records, compacted gaps."""
        moves = self._reading.moves()
        if not moves:
            return
        with self._store.begin() as transaction:
            self._obey(transaction.control())
            transaction.advance(moves, self._presence.worker)
            transaction.commit()
        self._committed(moves, 0, [], time.monotonic())

    def _quiet(self, now: float) -> None:
        """Nothing to read: look whether somebody set something or took over."""
        if now - self._looked_at <= _LOOK_S:
            return
        self._looked_at = now
        self._obey(self._store.control())
        rows = self._store.positions()
        for at, held in self._reading.held.items():
            row = rows.get(at)
            if row is None or (row.epoch, row.owner) != (held.epoch, held.owner):
                raise PositionConflict(str(at))
        self._mirror()

    def _count_partitions(self) -> None:
        count = sum(len(self._source.partitions(topic)) for topic in self.processor.types)
        if count > len(self._reading.held):
            self._log.info("topic has new partitions", partitions=count)
            self._move_only()
            self._let_go()

    def _mirror(self) -> None:
        now = time.monotonic()
        if now - self._mirrored_at > _LOOK_S:
            self._mirrored_at = now
            self._source.mirror(self.positions, self._store.store_id)

    # --- trouble

    def _decide(self, failed: Failed) -> None:
        """An event failed: retry it, set it aside, or hold the processor at it."""
        failure = self._trial.judge(failed)
        error = f"{failed.record}: {told(failed.exception)}"
        match failure.decision:
            case Decision.RETRY:
                self._presence.show(Status.RETRYING, error)
                self._rest(self._trial.pause_s)
            case Decision.REJECT:
                pass  # the trial has its sentence, which the next batch carries out
            case Decision.PAUSE:
                with self._store.begin() as transaction:
                    transaction.hold(paused=1, last_error=error)
                    transaction.commit()
                self._presence.show(Status.PAUSED, error)
                self._let_go()
            case Decision.STOP:
                self._fail(error, None)

    def _rest(self, pause_s: float) -> None:
        """Wait between two attempts, listening to what people set meanwhile."""
        deadline = time.monotonic() + pause_s
        while (left := deadline - time.monotonic()) > 0 and not self._stop.wait(min(left, _LOOK_S)):
            now = time.monotonic()
            if left > _LOOK_S:
                self._quiet(now)
            self._presence.beat()

    def _fail(self, reason: str, failure: Failure | None) -> None:
        # Beside another worker the status may not be ours to store, so that we come here again: say it once.
        again = (self.status, self.error) == (Status.FAILED, reason)
        if failure is not None and not again:
            notify(self.processor.hooks, "on_error", self._log, failure=failure)
        was_reading = bool(self._reading.held)
        self._let_go()
        if was_reading and self._presence.is_directed():
            # What somebody decided while reporters ran is newer than this failure.
            return
        if not again:
            self._log.error(
                "processor failed",
                reason=reason[:500],
                what_to_do=f"mend the cause, then `axe resume {self.processor.name}`",
            )
        self._presence.show(Status.FAILED, reason, unless_directed=was_reading)
        self._finished = self._until_end or not self._presence.is_open
        if not self._finished:
            self._stop.wait(_LOOK_S)

    def _wait_for(self, error: AxeError) -> None:
        """Something is away: say so once, and try again with growing pauses."""
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if self._waiting_for != str(error):
            # Adopting may succeed in between, as with a full disk: once for each cause, until a turn went well.
            self._waiting_for = str(error)
            self._log.warning("waiting", reason=str(error))
        self._let_go()
        self._presence.show(Status.WAITING, str(error))
        if self._until_end and now - self._waiting_since > self._wait_s:
            self._log.error("gave up waiting", reason=str(error), seconds=round(now - self._waiting_since))
            self._finished = True
            return
        if not isinstance(error, StoreUnavailable):
            self._presence.beat()
        self._stop.wait(min(5.0, 0.2 + (now - self._waiting_since) / 4))
