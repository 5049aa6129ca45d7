"""The loop of one processor: adopting positions, and batch after batch."""

from __future__ import annotations

from typing import Any

from .adoption import Directed
from .errors import AxeError, PositionConflict
from .failpoints import failpoint
from .hooks import notify
from .parts import Parts
from .processor import Status
from .reading import Positions
from .telling import told
from .trouble import Course, Trouble
from .upkeep import LOOK_S

_POLL_S = 0.25
# Most of what an idle processor costs is waking up.
_QUIET_POLL_S = 0.5
# How long dead letters may take to arrive at the end; without a stop, as long as some do.
_LETTERS_S = 2.0


class Runner:
    """Runs one processor until it is stopped, has read to the end, or is lost to another worker.

    ``run`` belongs to one thread; ``stop`` and the attributes for display may be used from any.
    """

    def __init__(self, parts: Parts, *, until_end: bool = False, retry_failed: bool = False) -> None:
        self.processor = parts.processor
        self._parts = parts
        self._log, self._store, self._source = parts.log, parts.store, parts.source
        self._reading, self._batches, self._presence = parts.reading, parts.batches, parts.presence
        self._upkeep, self._relay = parts.upkeep, parts.relay
        self._course = Course(until_end=until_end)
        self._trouble = Trouble(parts, self._course)
        self._retry_failed = retry_failed
        self._prepares = self._is_quiet = False

    # --- for display

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
    def ends(self) -> Positions:
        """Where it ends, where it is to; empty while that is not known."""
        return self._course.ends

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
        return None if self._prepares or self._parts.deaths.waits else self._course.rounds

    # --- life

    def stop(self) -> None:
        """Ask for an orderly end: the batch at hand is finished."""
        self._course.stop.set()

    def run(self) -> None:
        """Run until the end; a failure is a status, not an exception."""
        try:
            while not (self._course.stop.is_set() or self._course.is_finished):
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
        self._course.rounds += 1
        try:
            if not self._reading.held and not self._prepare():
                return
            if self._retry():
                return
            got_on = self._step()
        except BaseException as error:  # noqa: BLE001 # the loop must not end in silence, whatever a plugin raises
            self._trouble.meet(error)
        else:
            if got_on and self._parts.outage.is_on:
                self._trouble.end()

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
        if self._course.is_contested and self._presence.is_lost():
            self._presence.show(Status.UNASSIGNED, "another worker has taken over")
            self._course.is_finished = self._course.until_end
            if not self._course.is_finished:
                self._course.stop.wait(LOOK_S)
            return False
        self._course.is_contested = False
        control = self._store.control()
        status = Status.PAUSED if control.paused else Status.FAILED if control.status == Status.FAILED.value else None
        if status is None:
            return True
        self._parts.outage.forget()
        if self.status is not status:
            what_to_do = f"`axe resume {self.processor.name}` lets it go on where it stopped"
            self._log.warning(
                "processor is held", status=status.value, reason=control.last_error, what_to_do=what_to_do
            )
        # A failure was read there; written again, it could undo a resume of this moment.
        self._presence.show(status, control.last_error, stored=status is Status.PAUSED)
        self._course.is_finished = self._course.until_end
        self._presence.beat()
        if self._relay is not None:
            # Too many of them may be why it is paused.
            self._relay.tend()
        if not self._course.is_finished:
            self._course.stop.wait(LOOK_S / 2)
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
            self._relay.finish(_LETTERS_S, goes_on=lambda: not self._course.stop.is_set())
        if self._parts.adoption.has_begun:
            notify(self.processor.hooks, "on_stop", self._log)
        self._presence.leave()

    def _adopt(self) -> None:
        """Take over the positions, run what is pending, and read from there."""
        # With a full disk this succeeds, and the next batch does not: it is not running before that has.
        status = Status.WAITING if self._parts.outage.is_on else Status.RUNNING
        held, log = self._parts.adoption.adopt(status.value)
        if self._parts.adoption.follows_a_death:
            self._log.warning("the worker before this one took no leave, events are tried one at a time at first")
            self._parts.deaths.suspect()
        self._reading.hold(held)
        # A plugin's on_start may take minutes, and the source watches for topics made anew only from here on.
        if any(self._source.topic_id(topic) != known for topic, known in log.topic_ids.items() if known is not None):
            raise Directed
        if self._course.until_end and not self._course.ends:
            self._course.ends = {at: bounds.end for at, bounds in log.bounds.items()}
        self._batches.begin()
        self._upkeep.begin()
        self._parts.retries.begin()
        if status is Status.RUNNING:
            self._presence.show(status)
        self._presence.beat()

    # --- the loop

    def _step(self) -> bool:
        """One round: records, if there are any, through one transaction.

        Returns whether source and store were seen to work: not with the first empty answer of a client that is
        still connecting, nor with records that only moved the position in memory.
        """
        reading, commits = self._reading, self._batches.commits
        records, failed = [], None
        if not self._is_quiet:
            with self._parts.turn:
                # What is there is fetched within the turn, or another core would fill its caches with it.
                if records := self._take(timeout_s=0):
                    failed = self._batches.process(records)
        if not records and (records := self._take(timeout_s=_QUIET_POLL_S if self._is_quiet else _POLL_S)):
            with self._parts.turn:
                failed = self._batches.process(records)
        self._is_quiet = not records
        if records:
            self._upkeep.mirror()
            if failed is not None:
                self._trouble.decide(failed)
            elif self.status is Status.RETRYING and not self._parts.trial.is_on:
                self._presence.show(Status.RUNNING)
        got_on = failed is not None or self._batches.commits > commits or reading.has_reached_an_end
        reading.catch_up()
        self._upkeep.after_round(is_quiet=self._is_quiet)
        self._presence.beat()
        if self._course.until_end and reading.held and reading.is_past(self._course.ends):
            self._course.is_finished = True
        return got_on

    def _retry(self) -> bool:
        """Retry a dead letter, if one is marked: before further batches."""
        if not self._parts.retries.are_due:
            return False
        with self._parts.turn:
            was_one = self._parts.retries.work()
        self._presence.beat()
        return was_one

    def _take(self, timeout_s: float) -> list[Any]:
        """Take the records that come next; wait up to the timeout for the first."""
        self._batches.stages.start()
        size = self._parts.settings.batch.bytes
        records = self._reading.take(events=self._batches.wanted, size=size, timeout_s=timeout_s)
        failpoint("after_poll")
        if records:
            self._batches.stages.end("fetch")
        return records
