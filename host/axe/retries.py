"""Retries of dead letters: each in a transaction of its own, before further batches.

The transaction is that of a batch, but for the position, which stays: whoever does not own it any more cannot move
it to where it is either. So the effects of the event and that its letter is retried become durable together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .adoption import Directed, obey
from .batch import Batches
from .config import FloodConfig
from .deaths import DEATHS_UNTIL_FAILURE, Deaths
from .decoding import Failed, Item, Refused
from .errors import StateError, WorkerDied
from .event import Decision, Failure, Record, Rejection
from .failpoints import failpoint
from .flood import Flood
from .handling import Ended, Handling
from .hooks import notify
from .letters import BLOCKED, REJECTED, RETRIED, RETRY, numbers, record_of
from .processor import Processor
from .reading import Reading
from .store import Letters, Store, Transaction

if TYPE_CHECKING:
    from .log import Logger

_MARKED = Letters(statuses=(RETRY,))
_AT_ONCE = 100
# In the log, for each round; the rest is in the dead letters.
_FAILURES_SAID = 3


class Retries:
    """Of one processor: what is marked is handled after each adoption, the oldest first."""

    def __init__(  # the parts it works with, by name
        self, processor: Processor, log: Logger, *, store: Store, reading: Reading, batches: Batches, deaths: Deaths
    ) -> None:
        self._processor = processor
        self._log = log
        self._store = store
        self._reading = reading
        self._batches = batches
        self._deaths = deaths
        self._worker = batches.worker
        self._dispatcher = batches.dispatcher
        self._handling = Handling(batches.dispatcher)
        self.are_due = False
        """Whether letters may be marked: nobody has looked since the last adoption, or there was one."""
        self._found: list[dict[str, Any]] = []
        self._done = self._failed = self._waiting = 0
        # The letter whose retry this worker has counted: begun once more after an outage, it has killed nobody.
        self._counted: int | None = None

    def begin(self) -> None:
        """Look for marked letters: positions have been adopted."""
        self.are_due = True
        self._found = []

    def work(self) -> bool:
        """Retry the oldest letter that is marked; False where there is none.

        Raises:
            Directed, PositionConflict: somebody has set something, or taken over.
            SourceUnavailable, StoreUnavailable: something is away; the letter stays marked.
        """
        self._found = self._found or self._store.dead_letters(which=_MARKED, limit=_AT_ONCE)
        if not self._found:
            self.are_due = False
            if self._done or self._failed or self._waiting:
                counts = {"done": self._done, "rejected_again": self._failed, "waiting": self._waiting}
                self._log.info("dead letters were retried", **counts)
                self._done = self._failed = self._waiting = 0
            return False
        letter = self._found[0]
        if self._deaths.is_near:
            with self._deaths.alone():
                self._retry(letter, record_of(letter))
        else:
            self._retry(letter, record_of(letter))
        # Not before: after an outage it comes again.
        del self._found[0]
        return True

    def _retry(self, letter: dict[str, Any], record: Record) -> None:
        item = self._item(letter, record)
        try:
            outcome = self._commit(letter, item)
        except Ended as ended:
            # What it was to be written in is gone with the transaction.
            outcome = self._commit(letter, ended.failed)
        except StateError as error:
            outcome = self._commit(letter, Failed(record, error))
        self._counted = None
        if outcome is None:
            self._done += 1
        elif outcome.blocked_by is not None:
            self._waiting += 1
        else:
            self._failed += 1
            self._tell(letter, outcome)

    # --- what it is now

    def _item(self, letter: dict[str, Any], record: Record) -> Item:
        """Return the event, or why it is not handled."""
        died = self._count(letter, record) if self._deaths.is_near else None
        if died is not None:
            # Not decoded: that may be what kills.
            return died
        held = self._reading.held.get(record.at)
        if held is not None and held.position <= record.offset:
            reason = f"not retried: the position of {record.at} is before it, so that it comes again by itself"
            return Refused(record, reason, None, attempts=0)
        with self._batches.plugin_runs():
            item = self._dispatcher.item(record)
        if item is None:
            taken = ", ".join(self._processor.subscriptions)
            reason = f"not retried: it is no event of {self._processor.name} any more, which takes {taken}"
            return Refused(record, reason, None, attempts=0)
        return item

    def _count(self, letter: dict[str, Any], record: Record) -> Failed | None:
        """Note durably that it is about to be tried; it has failed if workers died at it too often."""
        tried = letter["tries"]
        if self._counted != letter["id"]:
            with self._store.begin() as transaction:
                self._claim(transaction, record)
                tried = transaction.note_retry(letter["id"])
                transaction.commit()
            self._counted = letter["id"]
        deaths = tried - 1
        return Failed(record, WorkerDied(deaths)) if deaths >= DEATHS_UNTIL_FAILURE else None

    # --- the transaction

    def _commit(self, letter: dict[str, Any], item: Item) -> Refused | None:
        """Handle the event and store what came of it; None where that is its effects."""
        with self._store.begin() as transaction:
            failpoint("after_begin")
            self._claim(transaction, item.record)
            failpoint("after_advance")
            with self._batches.plugin_runs(), transaction.plugin_code():
                # Somebody asked for each of them: there are never too many.
                flood = Flood(FloodConfig(share=1))
                order = self._batches.order
                queue = None if order is None else order.within(transaction)
                handled = self._handling.one_by_one(transaction, [[item]], flood, queue)
            outcome = _set_aside(handled.failed) if handled.failed else next(iter(handled.refused), None)
            self._store_outcome(transaction, letter, outcome)
            failpoint("before_commit")
            transaction.commit()
        failpoint("after_commit")
        if order is not None and queue is not None:
            order.keep(queue)
        if handled.failed is not None:
            self._report(letter, handled.failed)
        return outcome

    def _claim(self, transaction: Transaction, record: Record) -> None:
        """Make sure that nobody has set something, and that this worker owns the processor's positions."""
        obey(transaction.control())
        held = self._reading.held
        transaction.advance(self._reading.claim(record.at if record.at in held else min(held)), self._worker)

    def _store_outcome(self, transaction: Transaction, letter: dict[str, Any], outcome: Refused | None) -> None:
        number = letter["id"]
        status = RETRIED if outcome is None else REJECTED if outcome.blocked_by is None else BLOCKED
        which = Letters(ids=(number,), statuses=(RETRY,))
        if not transaction.mark_dead_letters(which, status):
            # Discarded while the handler ran: undone, and looked at again.
            raise Directed
        before: dict[str, Any] = {RETRY: str(number)}
        after: dict[str, Any] = {status: str(number)}
        if outcome is None:
            if released := transaction.release([number]):
                after[RETRY] = numbers(released)
            transaction.audit(self._worker, "retried", None, before, after)
            return
        transaction.add_dead_letter(outcome.rejection(self._processor.name), outcome.blocked_by)
        if letter["blocked_by"] is not None:
            transaction.block(outcome.record)
        before |= {key: letter[key] for key in ("reason", "error", "attempts", "version", "rejected_at")}
        after |= {"reason": outcome.reason, "attempts": letter["attempts"] + outcome.attempts}
        action = "retry failed" if outcome.blocked_by is None else "retry waits"
        transaction.audit(self._worker, action, None, before, after)

    # --- what is said, after the commit

    def _report(self, letter: dict[str, Any], failed: Failed) -> None:
        attempt = letter["attempts"] + 1
        failure = Failure(self._processor.name, failed.record, failed.exception, attempt, Decision.REJECT)
        self._log.error("retry of a dead letter failed", at=str(failed.record), exc_info=failed.exception)
        with self._batches.plugin_runs():
            notify(self._processor.hooks, "on_error", self._log, failure=failure)

    def _tell(self, letter: dict[str, Any], outcome: Refused) -> None:
        if self._failed <= _FAILURES_SAID:
            at, reason = str(outcome.record), outcome.reason[:200]
            self._log.warning("dead letter was rejected again", id=letter["id"], at=at, reason=reason)
        attempts = letter["attempts"] + outcome.attempts
        rejection = Rejection(self._processor.name, outcome.record, outcome.reason, outcome.error, attempts)
        with self._batches.plugin_runs():
            notify(self._processor.hooks, "on_reject", self._log, rejection=rejection)


def _set_aside(failed: Failed) -> Refused:
    error = failed.exception
    return failed.refused(attempts=error.deaths if isinstance(error, WorkerDied) else 1)
