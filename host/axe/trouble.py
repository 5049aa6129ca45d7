"""Trouble: what a runner does when something goes wrong, and when to go on."""

from __future__ import annotations

import threading
import time

from .adoption import Directed, obey
from .decoding import Failed
from .errors import (
    AxeError,
    PositionConflict,
    SourceUnavailable,
    StoreBusy,
    StoreUnavailable,
    TooManyRejections,
    TopicMissing,
)
from .event import Decision, Failure, TopicPartition
from .hooks import notify
from .parts import Parts
from .processor import Status
from .reading import Positions
from .sources import Interrupted
from .telling import told
from .upkeep import LOOK_S


class Course:
    """How far a run is: what its loop and its trouble both know."""

    def __init__(self, *, until_end: bool) -> None:
        self.until_end = until_end
        self.ends: Positions = {}
        """Where it is to end; nowhere while that is not known."""
        self.stop = threading.Event()
        self.is_finished = False
        self.is_contested = False
        """Whether another worker seems to own the positions."""
        self.rounds = 0
        """Grows as long as the loop gets on."""


class Trouble:
    """Of one runner. All of it leads back to the loop: with what it held let go of, a status, and a pause perhaps."""

    def __init__(self, parts: Parts, course: Course) -> None:
        self._parts = parts
        self._course = course
        self._processor = parts.processor
        self._log = parts.log
        self._store = parts.store
        self._presence = parts.presence
        self._outage = parts.outage

    def meet(self, error: BaseException) -> None:
        """Say what each kind of trouble leads to."""
        trouble = error if isinstance(error, AxeError) else self._store.trouble(error)
        match trouble:
            case None if isinstance(error, Directed | Interrupted):
                self._parts.let_go()
            case TooManyRejections():
                self._stand_by(trouble)
            case AxeError() if self._parts.adoption.goes_on_after(trouble):
                # The log may be another one from here on.
                self._course.ends = {}
                self._parts.let_go()
            case PositionConflict():
                self._course.is_contested = True
                self._parts.let_go()
            case SourceUnavailable() | TopicMissing() | StoreUnavailable():
                self._wait_for(trouble)
            case AxeError():
                self._fail(str(trouble), Failure(self._processor.name, None, error, 1, Decision.STOP))
            case _:
                self._log.error("processor stopped by an unexpected error", exc_info=error)
                self._fail(told(error), Failure(self._processor.name, None, error, 1, Decision.STOP))

    def end(self) -> None:
        """Go on after an outage: source and store were seen to work."""
        if self._presence.status is Status.WAITING:
            # Nobody has anything to mend any more.
            self._presence.show(Status.RUNNING, forget_error=True)
        self._outage.end()

    def decide(self, failed: Failed) -> None:
        """An event failed: retry it, set it aside, or hold the processor at it."""
        failure = self._parts.trial.judge(failed)
        error = f"{failed.record}: {told(failed.exception)}"
        match failure.decision:
            case Decision.RETRY:
                self._presence.show(Status.RETRYING, error)
                self._rest(self._parts.trial.pause_s)
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
            transaction.advance(self._parts.reading.claim(at), self._presence.worker)
            transaction.hold(paused=1, last_error=error)
            transaction.commit()
        self._presence.show(Status.PAUSED, error)
        self._parts.let_go()

    def _stand_by(self, trouble: TooManyRejections) -> None:
        """Say what is stored already: the pause after too many rejections."""
        self._presence.show(Status.PAUSED, str(trouble), stored=False)
        what_to_do = f"mend the cause, then `axe resume {self._processor.name}`"
        self._log.error("too many rejections, processor is paused", reason=str(trouble), what_to_do=what_to_do)
        self._parts.upkeep.mirror()
        self._parts.let_go()
        failure = Failure(self._processor.name, None, trouble, 1, Decision.PAUSE)
        notify(self._processor.hooks, "on_error", self._log, failure=failure)

    def _rest(self, pause_s: float) -> None:
        """Wait between two attempts, listening to what people set meanwhile."""
        deadline = time.monotonic() + pause_s
        while (left := deadline - time.monotonic()) > 0 and not self._course.stop.wait(min(left, LOOK_S)):
            self._course.rounds += 1
            if left > LOOK_S:
                self._parts.upkeep.look()
            self._presence.beat()

    def _fail(self, reason: str, failure: Failure | None) -> None:
        # Beside another worker the status may not be ours to store, so that we come here again: say it once.
        again = (self._presence.status, self._presence.error) == (Status.FAILED, reason)
        was_reading = bool(self._parts.reading.held)
        # Before it reads, what is pending may be what failed.
        directions = None if was_reading else self._presence.directions()
        if failure is not None and not again:
            notify(self._processor.hooks, "on_error", self._log, failure=failure)
        self._parts.let_go()
        if self._presence.directions() not in (None, directions):
            # What somebody decided while reporters ran is newer than this failure.
            return
        if not again:
            # A message of axe's own has its advice.
            first = "" if failure is not None and isinstance(failure.exception, AxeError) else "mend the cause, then "
            what_to_do = f"{first}`axe resume {self._processor.name}`"
            self._log.error("processor failed", reason=reason[:500], what_to_do=what_to_do)
        self._presence.show(Status.FAILED, reason, unless_directed=was_reading)
        self._course.is_finished = self._course.until_end or not self._presence.is_open
        if not self._course.is_finished:
            self._course.stop.wait(LOOK_S)

    def _wait_for(self, error: AxeError) -> None:
        """Something is away: say so once, and try again with growing pauses."""
        self._outage.note(error)
        self._parts.let_go()
        # Beside another worker it is not the store that is in trouble.
        self._presence.show(Status.WAITING, str(error), stored=not isinstance(error, StoreBusy))
        if self._course.until_end and self._outage.waited_s > self._parts.wait_s:
            self._log.error("gave up waiting", reason=str(error), seconds=round(self._outage.waited_s))
            self._course.is_finished = True
            return
        if not isinstance(error, StoreUnavailable):
            self._presence.beat()
        self._course.stop.wait(self._outage.pause_s)
