"""The loop of one processor: it owns the transaction.

``_commit`` tells the whole story of a batch. What surrounds it: adopting positions before the first
batch and whenever somebody moved them, waiting for what is away, and deciding about a sick event.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from .config import Config, parse_start
from .dispatch import Dispatcher, Failed, Item, Refused
from .errors import (
    AxeError,
    BehindRetention,
    BeyondEnd,
    ClusterChanged,
    PluginError,
    PositionConflict,
    SourceUnavailable,
    StateError,
    StoreUnavailable,
    TopicMissing,
    TopicRecreated,
    TransactionEnded,
    VersionChanged,
)
from .event import RECORD_FORM, CommitReport, Decision, Failure, Form, Record, TopicPartition
from .failpoints import failpoint
from .log import get_logger
from .processor import Processor, Status
from .sources import Bounds, Source
from .store import Control, HandlerState, Move, Store, StoredPosition, Transaction
from .store.tables import timestamp_of_ms

_POLL_S = 0.25
_LOOK_S = 1.0
_HEARTBEAT_S = 5.0
_NEW_PARTITIONS_S = 10.0
_ISOLATED_EVENTS = 1000
_FIRST_BATCH = 100
_GROWTH = 4

Positions = dict[TopicPartition, int]


class _Spoiled(Exception):
    """An event of the batch cannot be undone alone: undo the batch and do it again event by event."""


class _Ended(Exception):
    """The handler of one event ended the transaction, and with it what was before the event."""

    def __init__(self, index: int, failed: Failed) -> None:
        super().__init__(index)
        self.index = index
        self.failed = failed


class _Directed(Exception):
    """Somebody paused or moved the processor: look at what is set before going on."""


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
        self.status = Status.UNASSIGNED
        self.error: str | None = None
        self.events = 0
        self.rejections = 0
        self.ends: Positions = {}
        self.busy_since: float | None = None
        self._settings = config.processor(processor.name)
        self._wait_s = config.host.wait_s
        # A source of a plugin may hold its records as they are.
        self._form: Form = getattr(source, "form", RECORD_FORM)
        self._dispatcher = Dispatcher(processor, config, self._form)
        self._store = store
        self._source = source
        self._until_end = until_end
        self._retry_failed = retry_failed
        self._alone = alone
        self._on_status = on_status
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._log = get_logger(processor=processor.name)
        self._stop = threading.Event()
        self._finished = False
        self._started = False
        self._begun = False
        self._held: dict[TopicPartition, StoredPosition] = {}
        self._next: Positions = {}
        self._buffer: list[Any] = []
        self._reached: Positions = {}
        self._limit = min(_FIRST_BATCH, self._settings.batch.events)
        self._isolated_left = 0
        self._attempt = 0
        self._failing: Record | None = None
        self._sentenced: Refused | None = None
        self._waiting_since: float | None = None
        self._moved_at = self._looked_at = self._beat_at = self._mirrored_at = self._counted_at = 0.0

    # --- life

    def stop(self) -> None:
        """Ask for an orderly end: the batch at hand is finished."""
        self._stop.set()

    @property
    def positions(self) -> Positions:
        """The next offsets to read, as far as they are committed."""
        return {at: held.position for at, held in dict(self._held).items()}

    @property
    def succeeded(self) -> bool:
        """Whether it ended without a failure."""
        return self.status is Status.STOPPED

    def run(self) -> None:
        """Run until the end; a failure is a status, not an exception."""
        try:
            while not (self._stop.is_set() or self._finished):
                self._turn()
            self._drain()
        finally:
            self._source.close()
            try:
                self._store.close()
            except StoreUnavailable as error:
                self._log.warning("database was left without a checkpoint", reason=str(error))

    def _turn(self) -> None:  # noqa: C901 # one place says what each kind of trouble leads to
        self.busy_since = None
        try:
            if not self._held:
                if not self._started:
                    self._open()
                if not self._may_run():
                    return
                self._adopt()
            self._step()
        except _Directed:
            self._let_go()
        except PositionConflict:
            self._yield_positions()
        except (SourceUnavailable, TopicMissing, StoreUnavailable) as error:
            self._wait_for(error)
        except AxeError as error:
            self._fail(str(error), Failure(self.processor.name, None, error, 1, Decision.STOP))
        except Exception as error:  # noqa: BLE001 # the loop must not end in silence
            trouble = self._store.trouble(error)
            if isinstance(trouble, StoreUnavailable):
                self._wait_for(trouble)
            else:
                self._log.error("processor stopped by an unexpected error", exc_info=True)
                reason = str(trouble or f"{type(error).__name__}: {error}")
                self._fail(reason, Failure(self.processor.name, None, error, 1, Decision.STOP))
        else:
            self._waiting_since = None

    def _open(self) -> None:
        self._store.open(version=self.processor.version)
        if self._retry_failed and self._store.control().status == Status.FAILED.value:
            self._store.set_status(Status.STOPPED.value)
        self._started = True

    def _may_run(self) -> bool:
        """Look whether somebody holds the processor; wait a little if so."""
        control = self._store.control()
        status = Status.PAUSED if control.paused else Status.FAILED if control.status == Status.FAILED.value else None
        if status is None:
            return True
        self._show(status, control.last_error)
        self._finished = self._until_end
        self._beat()
        self._stop.wait(_LOOK_S / 2)
        return False

    def _drain(self) -> None:
        try:
            if self._held:
                try:
                    self._move_only()
                except _Directed:
                    self._log.info("somebody paused or moved the processor at the end")
                self._source.mirror(self.positions, self._store.store_id)
            if self._started:
                self._notify("on_stop")
                if self.status not in (Status.FAILED, Status.PAUSED):
                    if self._waiting_since is None:
                        self._show(Status.STOPPED)
                    self._store.set_status(Status.STOPPED.value)
                self._store.leave(self._worker)
        except AxeError as error:
            self._log.warning("processor ended without a last word", reason=str(error))

    # --- positions

    def _adopt(self) -> None:
        """Take over the positions, run what is pending, and read from there."""
        topics = sorted(self.processor.types)
        partitions = [at for topic in topics for at in self._source.partitions(topic)]
        topic_ids = {topic: self._source.topic_id(topic) for topic in topics}
        cluster_id = self._source.cluster_id()
        bounds = self._source.bounds(partitions)
        control, stored = self._store.control(), self._store.positions()
        self._check(control, stored, bounds, topic_ids, cluster_id)
        starts = {at: self._start(at, stored, bounds) for at in partitions}
        with self._store.begin() as transaction:
            control = transaction.control()
            if control.paused:
                raise _Directed
            held = transaction.take_over(starts, topic_ids, self._worker)
            with transaction.plugin_code():
                self._run_pending(transaction, control.pending)
            transaction.adopted(version=self.processor.version, cluster_id=cluster_id or control.cluster_id)
            transaction.commit()
        # on_start may have kept its connection, which would make every event one that may have used SQL.
        self._store.renew()
        self._begun = True
        self._next = {at: row.position for at, row in held.items()}
        self._held = held
        if self._until_end and not self.ends:
            self.ends = {at: bound.end for at, bound in bounds.items()}
        self._source.assign(self._next)
        self._counted_at = self._looked_at = time.monotonic()
        self._show(Status.RUNNING)
        self._beat()

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
        except Exception as error:
            if self._store.trouble(error) is not None:
                raise
            self._log.error("plugin failed to start", exc_info=True)
            message = f"on_start or on_reset failed: {type(error).__name__}: {error}"
            raise PluginError(message) from error

    def _start(
        self,
        at: TopicPartition,
        stored: Mapping[TopicPartition, StoredPosition],
        bounds: Mapping[TopicPartition, Bounds],
    ) -> int:
        start = parse_start(self._settings.start)
        # A partition that was added to a topic we know is read whole, wherever a new processor would begin.
        if start == "earliest" or any(known.topic == at.topic for known in stored):
            return bounds[at].begin
        if start == "latest":
            return bounds[at].end
        return self._source.offsets_at([at], int(start.timestamp() * 1000))[at]

    def _check(
        self,
        control: Control,
        stored: Mapping[TopicPartition, StoredPosition],
        bounds: Mapping[TopicPartition, Bounds],
        topic_ids: Mapping[str, str | None],
        cluster_id: str | None,
    ) -> None:
        """Refuse positions that do not fit the log: going on would lose or repeat events in silence."""
        name = self.processor.name
        way_out = f"restore the log, or decide with `axe reset {name} --to earliest` (or latest, a number, a time)"
        if stored and control.version != self.processor.version and control.pending != "wipe":
            message = (
                f"the state of {name} was built by version {control.version}, version {self.processor.version} is "
                f"installed; `axe reset {name} --to earliest --wipe` builds it anew"
            )
            raise VersionChanged(message)
        if control.cluster_id is not None and cluster_id is not None and control.cluster_id != cluster_id:
            message = (
                f"the positions of {name} are for the cluster {control.cluster_id}, this is {cluster_id}; {way_out}"
            )
            raise ClusterChanged(message)
        for at, row in sorted(stored.items()):
            if at not in bounds:
                continue
            topic_id = topic_ids.get(at.topic)
            if row.topic_id is not None and topic_id is not None and row.topic_id != topic_id:
                message = f"the topic {at.topic} was made anew since {name} read it to {row.position}; {way_out}"
                raise TopicRecreated(message)
            if row.position < bounds[at].begin:
                gap = bounds[at].begin - row.position
                begin = bounds[at].begin
                message = f"{name} is at {at}@{row.position}, but the log begins at {begin}: {gap} are gone; {way_out}"
                raise BehindRetention(message)
            if row.position > bounds[at].end:
                message = f"{name} is at {at}@{row.position}, but the log ends at {bounds[at].end}; {way_out}"
                raise BeyondEnd(message)

    def _yield_positions(self) -> None:
        """A compare-and-set was lost: was it an operator, or has another worker taken over?"""
        rows = self._store.positions()
        if all(rows[at].owner == self._worker for at in self._held if at in rows):
            self._log.info("position was moved by hand, going on from there")
        else:
            self._log.warning("another worker has taken over, this one lets go")
            self._show(Status.UNASSIGNED, "another worker has taken over")
            if not self._until_end:
                self._stop.wait()
            self._finished = True
        self._let_go()

    def _let_go(self) -> None:
        self._held, self._next, self._buffer, self._reached = {}, {}, [], {}
        self._failing, self._sentenced, self._attempt = None, None, 0

    # --- the loop

    def _step(self) -> None:
        """One round: records, if there are any, through one transaction."""
        batch = self._settings.batch
        reached: Mapping[TopicPartition, int] = {}
        if self._buffer:
            records, self._buffer = self._buffer[: self._limit], self._buffer[self._limit :]
        else:
            records, reached = self._source.fetch(events=self._limit, size=batch.bytes, timeout_s=_POLL_S)
            failpoint("after_poll")
            self._back()
        if records:
            self._process(records)
        # A source tells of an end once; with a failed event before it, it counts only later.
        self._reached.update(reached)
        if self._reached and not self._buffer:
            for at, position in self._reached.items():
                if at in self._next and position > self._next[at]:
                    self._next[at] = position
            self._reached.clear()
        if not records:
            self._quiet()
        now = time.monotonic()
        if now - self._moved_at > _LOOK_S:
            self._moved_at = now
            self._move_only()
        if now - self._beat_at > _HEARTBEAT_S:
            self._beat()
        if self._until_end and not self._buffer and all(self._next.get(at, 0) >= end for at, end in self.ends.items()):
            self._finished = True

    def _process(self, records: list[Any]) -> None:
        items = self._dispatcher.decode(records)
        if self._sentenced is not None:
            items = [self._sentenced if item.record == self._sentenced.record else item for item in items]
        if not items:
            self._next = self._behind(records)
            return
        started = time.monotonic()
        if self._isolated_left <= 0:
            try:
                self._commit(records, items, isolated=False)
            except (_Spoiled, StateError):
                self._isolated_left = _ISOLATED_EVENTS
        if self._isolated_left > 0:
            self._isolated_left -= len(items)
            self._commit_isolated(records, items)
        each = (time.monotonic() - started) / len(items)
        wanted = int(self._settings.batch.time_s / max(each, 1e-7))
        self._limit = max(1, min(wanted, self._limit * _GROWTH, self._settings.batch.events))

    def _commit_isolated(self, records: list[Any], items: list[Item]) -> None:
        try:
            failed = self._commit(records, items, isolated=True)
        except _Ended as ended:
            failed = ended.failed
            if ended.index:
                place = self._index(records, failed.record)
                before, rest = records[:place], records[place:]
                self._buffer = rest + self._buffer
                self._commit_isolated(before, items[: ended.index])
                # Handlers need not do the same again: one before it may have failed this time.
                if self._buffer[:1] != rest[:1]:
                    return
                self._buffer = self._buffer[len(rest) :]
        if failed is not None:
            self._buffer = records[self._index(records, failed.record) :] + self._buffer
            self._isolated_left = _ISOLATED_EVENTS
            self._decide(failed)

    def _commit(self, records: list[Any], items: list[Item], *, isolated: bool) -> Failed | None:
        """One batch, one transaction: move the positions, handle the events, write, verify, commit.

        Returns the event that failed, if one did: what was before it is committed, the rest is not.
        """
        started = time.monotonic()
        with self._store.begin() as transaction:
            failpoint("after_begin")
            self._obey(transaction.control())
            behind = self._behind(records)
            transaction.advance(self._moves(behind, self._form.timestamp_ms(records[-1])), self._worker)
            failpoint("after_advance")
            self.busy_since = started
            with transaction.plugin_code():
                handle = self._one_by_one if isolated else self._all_at_once
                refused, failed = handle(transaction, items)
            self.busy_since = None
            if failed is not None:
                behind = self._behind(records[: self._index(records, failed.record)])
                back = {at: behind[at] for at in self._behind(records)}
                transaction.advance(self._moves(back, None, everywhere=True), self._worker)
            for item in refused:
                failpoint("in_reject")
                attempts = self._attempt if item is self._sentenced else 1
                transaction.add_dead_letter(item.rejection(self.processor.name, attempts))
            failpoint("before_commit")
            transaction.commit()
        failpoint("after_commit")
        done = len(items) if failed is None else [item.record for item in items].index(failed.record)
        self._committed(behind, done, refused, started)
        return failed

    def _all_at_once(self, transaction: Transaction, items: list[Item]) -> tuple[list[Refused], None]:
        """Handle the events without savepoints: the fast way, which one sick event ends."""
        refused: list[Refused] = []
        events: list[Any] = items
        if Refused in map(type, items):
            refused = [item for item in items if type(item) is Refused]
            events = [item for item in items if type(item) is not Refused]
        state = transaction.state
        if self._dispatcher.takes_batches:
            if events and not self._dispatcher.handle_batch(events, state):
                raise _Spoiled
            self._flush(state)
            return refused, None
        for outcome in self._dispatcher.handle_all(events, state):
            if type(outcome) is Refused and state.undo_event():
                refused.append(outcome)
            else:
                raise _Spoiled
        return refused, None

    def _flush(self, state: HandlerState) -> None:
        try:
            state.end_event()
        except Exception as error:
            raise _Spoiled from error

    def _one_by_one(self, transaction: Transaction, items: list[Item]) -> tuple[list[Refused], Failed | None]:
        """Handle the events with a savepoint before each: a sick one is undone alone."""
        refused: list[Refused] = []
        for index, item in enumerate(items):
            if isinstance(item, Refused):
                refused.append(item)
                continue
            transaction.savepoint()
            outcome = self._dispatcher.handle(item, transaction.state)
            if outcome is None:
                try:
                    transaction.state.end_event()
                    transaction.keep_event()
                    continue
                except Exception as error:  # noqa: BLE001 # what the handler left behind counts as its failure
                    outcome = Failed(item.record, error)
            if isinstance(outcome, Failed) and (trouble := self._store.trouble(outcome.exception)) is not None:
                raise trouble from outcome.exception
            try:
                transaction.undo_event()
            except TransactionEnded as ended:
                failed = outcome if isinstance(outcome, Failed) else Failed(item.record, ended)
                raise _Ended(index, failed) from ended
            if isinstance(outcome, Failed):
                return refused, outcome
            refused.append(outcome)
        return refused, None

    # --- around a batch

    def _behind(self, records: list[Any]) -> Positions:
        """Return the positions behind these records."""
        behind = dict(self._next)
        form = self._form
        if len(behind) == 1 and records:
            # The usual case, without a look at each record.
            return dict.fromkeys(behind, form.offset(records[-1]) + 1)
        # The last record of each partition counts. A plain tuple finds the key that is there already.
        places = zip(map(form.topic, records), map(form.partition, records), strict=True)
        for at, offset in dict(zip(places, map(form.offset, records), strict=True)).items():
            behind[TopicPartition(*at)] = offset + 1
        return behind

    def _index(self, records: list[Any], record: Record) -> int:
        """Find a record among those of a fetch."""
        place = (record.topic, record.partition, record.offset)
        form = self._form
        return next(
            index
            for index, raw in enumerate(records)
            if (form.topic(raw), form.partition(raw), form.offset(raw)) == place
        )

    def _moves(
        self, to: Positions, timestamp_ms: int | None, *, everywhere: bool = False
    ) -> dict[TopicPartition, Move]:
        event_at = timestamp_of_ms(timestamp_ms)
        return {
            at: Move(self._held[at].position, self._held[at].epoch, position, event_at)
            for at, position in to.items()
            if everywhere or position != self._held[at].position
        }

    def _obey(self, control: Control) -> None:
        if control.paused or control.pending:
            raise _Directed

    def _committed(self, behind: Positions, events: int, refused: list[Refused], started: float) -> None:
        for at, position in behind.items():
            if position != self._held[at].position:
                self._held[at] = self._held[at]._replace(position=position)
        self._next = behind
        self.events += events
        self.rejections += len(refused)
        for item in refused:
            if item is self._sentenced:
                self._recovered()
            self._log.warning("event rejected", at=str(item.record), reason=item.reason[:200])
            self._notify("on_reject", rejection=item.rejection(self.processor.name))
        if self._failing is not None and behind.get(self._failing.at, 0) > self._failing.offset:
            self._recovered()
        if self.processor.implements("on_commit"):
            seconds = time.monotonic() - started
            report = CommitReport(self.processor.name, dict(behind), events, len(refused), seconds)
            self._notify("on_commit", report=report)
        self._mirror()

    def _recovered(self) -> None:
        self._failing, self._sentenced, self._attempt = None, None, 0
        self._show(Status.RUNNING)

    def _move_only(self) -> None:
        """Commit positions that moved without events: filtered ones, control records, compacted gaps."""
        moves = self._moves(self._next, None)
        if not moves:
            return
        with self._store.begin() as transaction:
            self._obey(transaction.control())
            transaction.advance(moves, self._worker)
            transaction.commit()
        self._committed(dict(self._next), 0, [], time.monotonic())

    def _quiet(self) -> None:
        """Nothing to read: look whether somebody set something, and whether there are new partitions."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_S:
            self._looked_at = now
            self._obey(self._store.control())
            rows = self._store.positions()
            for at, held in self._held.items():
                row = rows.get(at)
                if row is None or (row.epoch, row.owner) != (held.epoch, held.owner):
                    raise PositionConflict(str(at))
            self._mirror()
        if now - self._counted_at > _NEW_PARTITIONS_S:
            self._counted_at = now
            count = sum(len(self._source.partitions(topic)) for topic in self.processor.types)
            if count > len(self._held):
                self._log.info("topic has new partitions", partitions=count)
                self._move_only()
                self._let_go()

    def _mirror(self) -> None:
        now = time.monotonic()
        if now - self._mirrored_at > _LOOK_S:
            self._mirrored_at = now
            self._source.mirror(self.positions, self._store.store_id)

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._store.heartbeat(self._worker, socket.gethostname(), os.getpid(), self.status.value, alone=self._alone)

    # --- trouble

    def _decide(self, failed: Failed) -> None:
        """An event failed: retry it, set it aside, or hold the processor at it."""
        if self._failing != failed.record:
            self._failing, self._attempt = failed.record, 0
        self._attempt += 1
        default = Decision.RETRY if self._attempt <= self._settings.retries else Decision(self._settings.on_failure)
        failure = Failure(self.processor.name, failed.record, failed.exception, self._attempt, default)
        decision = self._asked(failure) or default
        failure = Failure(self.processor.name, failed.record, failed.exception, self._attempt, decision)
        reason = f"{type(failed.exception).__name__}: {failed.exception}"
        if self._attempt == 1 or decision is not Decision.RETRY:
            self._log.error("event failed", at=str(failed.record), error=reason[:200], decision=decision.value)
            self._notify("on_error", failure=failure)
        match decision:
            case Decision.RETRY:
                self._show(Status.RETRYING, f"{failed.record}: {reason}", store=self._attempt == 1)
                low, high = self._settings.backoff_s
                pause = min(high, low * 2 ** min(self._attempt - 1, 60)) * random.uniform(0.75, 1.25)  # noqa: S311
                self._rest(pause)
            case Decision.REJECT:
                trace = "".join(traceback.format_exception(failed.exception))
                self._sentenced = Refused(failed.record, reason, trace)
            case Decision.PAUSE:
                self._hold(paused=1, error=f"{failed.record}: {reason}")
                self._show(Status.PAUSED, f"{failed.record}: {reason}")
                self._let_go()
            case Decision.STOP:
                self._fail(f"{failed.record}: {reason}", None)

    def _asked(self, failure: Failure) -> Decision | None:
        try:
            decision = self.processor.hooks.hook.decide(failure=failure)
        except Exception:  # noqa: BLE001 # a reporter's fault must not decide
            self._log.error("decide hook failed, the configuration decides", exc_info=True)
            return None
        return decision if isinstance(decision, Decision) else None

    def _rest(self, pause_s: float) -> None:
        """Wait between two attempts, listening to what people set meanwhile."""
        deadline = time.monotonic() + pause_s
        while (left := deadline - time.monotonic()) > 0 and not self._stop.wait(min(left, _LOOK_S)):
            if left > _LOOK_S:
                self._looked_at = 0.0
                self._quiet()

    def _hold(self, *, paused: int, error: str) -> None:
        with self._store.begin() as transaction:
            transaction.hold(paused=paused, last_error=error)
            transaction.commit()

    def _fail(self, reason: str, failure: Failure | None) -> None:
        self._log.error(
            "processor failed",
            reason=reason[:500],
            what_to_do=f"mend the cause, then `axe resume {self.processor.name}`",
        )
        if failure is not None:
            self._notify("on_error", failure=failure)
        self._let_go()
        self._show(Status.FAILED, reason)
        self._finished = self._until_end or not self._started

    def _wait_for(self, error: Exception) -> None:
        """Something is away: say so once, and try again with growing pauses."""
        now = time.monotonic()
        if self._waiting_since is None or self.status is not Status.WAITING or self.error != str(error):
            self._log.warning("waiting", reason=str(error))
            self._waiting_since = self._waiting_since or now
            self._show(Status.WAITING, str(error), store=not isinstance(error, StoreUnavailable))
        self._let_go()
        if self._until_end and now - self._waiting_since > self._wait_s:
            self._log.error("gave up waiting", reason=str(error), seconds=round(now - self._waiting_since))
            self._finished = True
            return
        self._stop.wait(min(5.0, 0.2 + (now - self._waiting_since) / 4))

    def _back(self) -> None:
        if self.status is Status.WAITING:
            self._log.info("going on")
            self._show(Status.RUNNING)

    def _show(self, status: Status, error: str | None = None, *, store: bool = True) -> None:
        if (status, error) == (self.status, self.error):
            return
        changed = status is not self.status
        self.status, self.error = status, error
        if store and self._started and changed:
            try:
                self._store.set_status(status.value, error)
            except AxeError as problem:
                self._log.warning("status could not be stored", reason=str(problem))
        if self._on_status is not None:
            self._on_status(status, error)

    def _notify(self, hook: str, **given: Any) -> None:
        """Call each implementation on its own: one that raises does not silence the next."""
        for implementation in reversed(getattr(self.processor.hooks.hook, hook).get_hookimpls()):
            try:
                implementation.function(*(given[name] for name in implementation.argnames))
            except Exception:  # noqa: BLE001 # the plugin boundary
                self._log.error("hook failed", hook=hook, plugin=implementation.plugin_name, exc_info=True)
