"""The loop of one processor: adopting positions, batch after batch, and what to do about trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .adoption import Adoption, Directed, obey
from .batch import Batches
from .config import Config
from .deaths import Deaths
from .decoding import Failed
from .dispatch import Dispatcher
from .errors import (
    AxeError,
    PositionConflict,
    SourceUnavailable,
    StoreBusy,
    StoreUnavailable,
    TooManyRejections,
    TopicMissing,
)
from .event import RECORD_FORM, Decision, Failure, TopicPartition
from .failpoints import failpoint
from .flood import Flood
from .hooks import notify
from .log import get_logger
from .order import KeyOrder
from .outage import Outage
from .presence import Presence
from .processor import Processor, Status
from .reading import Positions, Reading
from .relay import Relay, open_topic
from .retention import Retention
from .retries import Retries
from .sources import Interrupted, Source
from .store import Store
from .telling import told
from .trial import Trial
from .turns import Turn
from .upkeep import LOOK_S, Chore, Upkeep

_POLL_S = 0.25
# Most of what an idle processor costs is waking up.
_QUIET_POLL_S = 0.5
# How long dead letters may take to arrive at the end; without a stop, as long as some do.
_LETTERS_S = 2.0


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
        turn: Turn | None = None,
        on_status: Callable[[Status, str | None], None] | None = None,
    ) -> None:
        self.processor = processor
        self.ends: Positions = {}
        self._settings = config.processor(processor.name)
        self._wait_s = config.host.wait_s
        self._log = get_logger(processor=processor.name)
        # A source of a plugin may hold its records as they are.
        form = getattr(source, "form", RECORD_FORM)
        self._reading = Reading(source, form)
        self._trial = Trial(processor, self._settings, self._log)
        self._store = store
        self._source = source
        self._presence = Presence(store, self._log, alone=alone, on_status=on_status)
        self._adoption = Adoption(
            processor, self._settings, self._log, store=store, source=source, worker=self._presence.worker
        )
        self._deaths = Deaths(
            store, self._settings.batch, self._presence.worker, alone=None if turn is None else turn.alone
        )
        self._batches = Batches(
            processor,
            self._settings.batch,
            self._log,
            store=store,
            reading=self._reading,
            dispatcher=Dispatcher(processor, config, form),
            trial=self._trial,
            deaths=self._deaths,
            flood=Flood(self._settings.flood),
            order=KeyOrder() if self._settings.order == "key" else None,
            worker=self._presence.worker,
        )
        self._relay = self._made_relay(alone=alone)
        self._upkeep = Upkeep(
            processor,
            self._log,
            store=store,
            source=source,
            reading=self._reading,
            batches=self._batches,
            chores=self._chores(),
        )
        self._retries = Retries(
            processor, self._log, store=store, reading=self._reading, batches=self._batches, deaths=self._deaths
        )
        self._until_end = until_end
        self._retry_failed = retry_failed
        self._stop = threading.Event()
        self._finished = self._conflict = self._is_quiet = False
        self._rounds = 0
        self._prepares = False
        self._turn_to_work: AbstractContextManager[None] = turn or nullcontext()
        self._outage = Outage(self._log)

    def _made_relay(self, *, alone: bool) -> Relay | None:
        name, topic = self.processor.name, self._settings.dead_letters.topic
        opened = open_topic(name, topic, self.processor.types, self._source)
        if opened is None:
            return None
        return Relay(name, opened, self._log, store=self._store, batches=self._batches, alone=alone)

    def _chores(self) -> list[Chore]:
        letters, chores = self._settings.dead_letters, list[Chore]()
        if self._relay is not None:
            chores.append(self._relay)
        if letters.days is not None or letters.rows is not None:
            chores.append(
                Retention(letters, self._log, store=self._store, reading=self._reading, worker=self._presence.worker)
            )
        return chores

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
    def events(self) -> int:
        """How many events have been done since the start."""
        return self._batches.events

    @property
    def rejections(self) -> int:
        """How many of them were refused."""
        return self._batches.rejections

    @property
    def stages(self) -> dict[str, float] | None:
        """How many microseconds each stage of its batches took for an event."""
        return self._batches.stages.per_event_us(self.events)

    @property
    def positions(self) -> Positions:
        """The next offsets to read, as far as they are committed."""
        return self._reading.positions

    @property
    def succeeded(self) -> bool:
        """Whether it ended without a failure, at which it may have paused."""
        return self.status is Status.STOPPED or (self.status is Status.PAUSED and self.error is None)

    @property
    def handling(self) -> object:
        """What changes as long as the handler gets on; None while none runs. For a watchdog's comparison."""
        return self._batches.handling

    @property
    def pulse(self) -> int | None:
        """What changes as long as the loop gets on; None while what it is at may take any time."""
        return None if self._prepares or self._deaths.waits else self._rounds

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
            if self._relay is not None:
                self._relay.close()
            self._source.close()
            try:
                self._store.close()
            except AxeError as error:
                self._log.warning("database was left without a checkpoint", reason=str(error))

    def _turn(self) -> None:
        self._rounds += 1
        try:
            if not self._reading.held and not self._prepare():
                return
            if self._retry():
                return
            got_on = self._step()
        except BaseException as error:  # noqa: BLE001 # the loop must not end in silence, whatever a plugin raises
            self._react(error)
        else:
            if got_on and self._outage.is_on:
                if self.status is Status.WAITING:
                    # Nobody has anything to mend any more.
                    self._presence.show(Status.RUNNING, forget_error=True)
                self._outage.end()

    def _react(self, error: BaseException) -> None:
        """Say what each kind of trouble leads to."""
        trouble = error if isinstance(error, AxeError) else self._store.trouble(error)
        match trouble:
            case None if isinstance(error, Directed | Interrupted):
                self._let_go()
            case TooManyRejections():
                self._stand_by(trouble)
            case AxeError() if self._adoption.goes_on_after(trouble):
                # The log may be another one from here on.
                self.ends = {}
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

    def _prepare(self) -> bool:
        """Hold positions, if nobody holds the processor; what a plugin does at its start may take hours."""
        self._prepares = True
        try:
            if not self._presence.is_open:
                self._open()
            if not self._may_run():
                return False
            self._adopt()
        finally:
            self._prepares = False
        return True

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
            self._stop.wait(LOOK_S)
            return False
        self._conflict = False
        control = self._store.control()
        status = Status.PAUSED if control.paused else Status.FAILED if control.status == Status.FAILED.value else None
        if status is None:
            return True
        self._outage.forget()
        if self.status is not status:
            what_to_do = f"`axe resume {self.processor.name}` lets it go on where it stopped"
            self._log.warning(
                "processor is held", status=status.value, reason=control.last_error, what_to_do=what_to_do
            )
        # A failure was read there; written again, it could undo a resume of this moment.
        self._presence.show(status, control.last_error, stored=status is Status.PAUSED)
        self._finished = self._until_end
        self._presence.beat()
        if self._relay is not None:
            # Too many of them may be why it is paused.
            self._relay.tend()
        self._stop.wait(LOOK_S / 2)
        return False

    def _drain(self) -> None:
        """Commit what only moved, say goodbye."""
        try:
            if self._reading.held:
                self._batches.move_only()
                self._source.mirror(self.positions, self._store.store_id)
        except (Directed, PositionConflict):
            self._log.info("somebody paused or moved the processor at the end")
        except Exception as error:  # noqa: BLE001 # what was not committed is read again
            self._log.warning("last position was not stored", reason=told(self._store.trouble(error) or error))
        if self._relay is not None and self._presence.is_open:
            self._relay.finish(_LETTERS_S, goes_on=lambda: not self._stop.is_set())
        if self._adoption.has_begun:
            notify(self.processor.hooks, "on_stop", self._log)
        self._presence.leave()

    def _adopt(self) -> None:
        """Take over the positions, run what is pending, and read from there."""
        # With a full disk this succeeds, and the next batch does not: it is not running before that has.
        status = Status.WAITING if self._outage.is_on else Status.RUNNING
        held, log = self._adoption.adopt(status.value)
        if self._adoption.follows_a_death:
            self._log.warning("the worker before this one took no leave, events are tried one at a time at first")
            self._deaths.suspect()
        self._reading.hold(held)
        # A plugin's on_start may take minutes, and the source watches for topics made anew only from here on.
        if any(self._source.topic_id(topic) != known for topic, known in log.topic_ids.items() if known is not None):
            raise Directed
        if self._until_end and not self.ends:
            self.ends = {at: bounds.end for at, bounds in log.bounds.items()}
        self._batches.begin()
        self._upkeep.begin()
        self._retries.begin()
        if status is Status.RUNNING:
            self._presence.show(status)
        self._presence.beat()

    def _let_go(self) -> None:
        failpoint("in_revoke")
        self._reading.let_go()
        self._trial.end()
        self._batches.let_go()

    # --- the loop

    def _step(self) -> bool:
        """One round: records, if there are any, through one transaction.

        Returns whether source and store were seen to work: not with the first empty answer of a client that is
        still connecting, nor with records that only moved the position in memory.
        """
        reading, commits = self._reading, self._batches.commits
        records, failed = [], None
        if not self._is_quiet:
            with self._turn_to_work:
                # What is there is fetched within the turn, or another core would fill its caches with it.
                if records := self._take(timeout_s=0):
                    failed = self._batches.process(records)
        if not records and (records := self._take(timeout_s=_QUIET_POLL_S if self._is_quiet else _POLL_S)):
            with self._turn_to_work:
                failed = self._batches.process(records)
        self._is_quiet = not records
        if records:
            self._upkeep.mirror()
            if failed is not None:
                self._decide(failed)
            elif self.status is Status.RETRYING and not self._trial.is_on:
                self._presence.show(Status.RUNNING)
        got_on = failed is not None or self._batches.commits > commits or reading.has_reached_an_end
        reading.catch_up()
        self._upkeep.after_round(is_quiet=self._is_quiet)
        self._presence.beat()
        if self._until_end and reading.held and reading.is_past(self.ends):
            self._finished = True
        return got_on

    def _retry(self) -> bool:
        """Retry a dead letter, if one is marked: before further batches."""
        if not self._retries.are_due:
            return False
        with self._turn_to_work:
            was_one = self._retries.work()
        self._presence.beat()
        return was_one

    def _take(self, timeout_s: float) -> list[Any]:
        """Take the records that come next; wait up to the timeout for the first."""
        self._batches.stages.start()
        size = self._settings.batch.bytes
        records = self._reading.take(events=self._batches.wanted, size=size, timeout_s=timeout_s)
        failpoint("after_poll")
        if records:
            self._batches.stages.end("fetch")
        return records

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
                self._pause(failed.record.at, error)
            case Decision.STOP:
                self._fail(error, None)

    def _pause(self, at: TopicPartition, error: str) -> None:
        with self._store.begin() as transaction:
            # What was decided while reporters ran is newer, and another worker may own the partition by now.
            obey(transaction.control())
            transaction.advance(self._reading.claim(at), self._presence.worker)
            transaction.hold(paused=1, last_error=error)
            transaction.commit()
        self._presence.show(Status.PAUSED, error)
        self._let_go()

    def _stand_by(self, trouble: TooManyRejections) -> None:
        """Say what is stored already: the pause after too many rejections."""
        self._presence.show(Status.PAUSED, str(trouble), stored=False)
        what_to_do = f"mend the cause, then `axe resume {self.processor.name}`"
        self._log.error("too many rejections, processor is paused", reason=str(trouble), what_to_do=what_to_do)
        self._upkeep.mirror()
        self._let_go()
        failure = Failure(self.processor.name, None, trouble, 1, Decision.PAUSE)
        notify(self.processor.hooks, "on_error", self._log, failure=failure)

    def _rest(self, pause_s: float) -> None:
        """Wait between two attempts, listening to what people set meanwhile."""
        deadline = time.monotonic() + pause_s
        while (left := deadline - time.monotonic()) > 0 and not self._stop.wait(min(left, LOOK_S)):
            self._rounds += 1
            if left > LOOK_S:
                self._upkeep.look()
            self._presence.beat()

    def _fail(self, reason: str, failure: Failure | None) -> None:
        # Beside another worker the status may not be ours to store, so that we come here again: say it once.
        again = (self.status, self.error) == (Status.FAILED, reason)
        was_reading = bool(self._reading.held)
        # Before it reads, what is pending may be what failed.
        directions = None if was_reading else self._presence.directions()
        if failure is not None and not again:
            notify(self.processor.hooks, "on_error", self._log, failure=failure)
        self._let_go()
        if self._presence.directions() not in (None, directions):
            # What somebody decided while reporters ran is newer than this failure.
            return
        if not again:
            # A message of axe's own has its advice.
            first = "" if failure is not None and isinstance(failure.exception, AxeError) else "mend the cause, then "
            what_to_do = f"{first}`axe resume {self.processor.name}`"
            self._log.error("processor failed", reason=reason[:500], what_to_do=what_to_do)
        self._presence.show(Status.FAILED, reason, unless_directed=was_reading)
        self._finished = self._until_end or not self._presence.is_open
        if not self._finished:
            self._stop.wait(LOOK_S)

    def _wait_for(self, error: AxeError) -> None:
        """Something is away: say so once, and try again with growing pauses."""
        self._outage.note(error)
        self._let_go()
        # Beside another worker it is not the store that is in trouble.
        self._presence.show(Status.WAITING, str(error), stored=not isinstance(error, StoreBusy))
        if self._until_end and self._outage.waited_s > self._wait_s:
            self._log.error("gave up waiting", reason=str(error), seconds=round(self._outage.waited_s))
            self._finished = True
            return
        if not isinstance(error, StoreUnavailable):
            self._presence.beat()
        self._stop.wait(self._outage.pause_s)
