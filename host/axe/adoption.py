"""Adopting: taking over the stored positions of a processor, and running what is pending, before the first batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .config import ProcessorConfig, parse_start
from .errors import AxeError, PluginError
from .event import TopicPartition
from .fit import Cure, Log, cure, misfits, policy
from .operations import as_audited, let_come_again
from .processor import Processor, Status
from .sources import Source
from .store import Control, Store, StoredPosition, Transaction
from .telling import told

if TYPE_CHECKING:
    from .log import Logger


class Directed(Exception):
    """Somebody paused or moved the processor, or made a topic anew: look at what is set before going on."""


def obey(control: Control) -> None:
    """Go no further where somebody has set something.

    Raises:
        Directed: it is so.
    """
    if control.is_directed:
        raise Directed


class Adoption:
    """Adopts for one runner; ``has_begun`` once ``on_start`` has run in this process.

    ``follows_a_death`` says of the last time that the worker before this one never took leave.
    """

    def __init__(  # the parts it works with, by name
        self,
        processor: Processor,
        settings: ProcessorConfig,
        log: Logger,
        *,
        store: Store,
        source: Source,
        worker: str,
    ) -> None:
        self.has_begun = False
        self.follows_a_death = False
        self._processor = processor
        self._settings = settings
        self._log = log
        self._store = store
        self._source = source
        self._worker = worker

    def adopt(self, status: str) -> tuple[dict[TopicPartition, StoredPosition], Log]:
        """Own every partition of the topics, in one transaction with what is pending; the status is stored, too.

        Returns what is held from now on, and the log as it was found before.

        Raises:
            Directed: the processor is paused.
            PluginError: ``on_start`` or ``on_reset`` raised.
            AxeError: positions do not fit the log, or source or store are in trouble.
        """
        processor = self._processor
        log = Log.of(self._source, sorted(processor.types))
        stored = self._store.positions()
        there = {row["worker"] for row in self._store.workers()} - {self._worker}
        self.follows_a_death = any(row.owner in there for row in stored.values())
        found = misfits(processor.name, processor.version, self._store.control(), stored, log)
        # Going on without a decision would lose or repeat events in silence.
        decided = cure(found, self._settings.on_misfit, stored, log)
        starts = {at: self._start(at, stored, log) for at in log.bounds}
        with self._store.begin() as transaction:
            held = transaction.take_over(starts, log.topic_ids, self._worker)
            # Not before: on PostgreSQL only the rows that were just taken keep an operator waiting.
            control = transaction.control()
            if control.paused:
                raise Directed
            pending = control.pending
            if decided is not None:
                if any(held[at].position != row.position for at, row in stored.items() if at in held):
                    # Somebody has moved it since we looked.
                    raise Directed
                self._apply(decided, transaction)
                pending = "wipe" if decided.action == "rebuild" else pending
                held = transaction.take_over(starts, log.topic_ids, self._worker)
            with transaction.plugin_code():
                self._run_pending(transaction, pending)
            cluster_id = log.cluster_id or control.cluster_id
            transaction.adopted(version=processor.version, cluster_id=cluster_id, status=status)
            if control.status == Status.WAITING.value and status != Status.WAITING.value:
                # What a worker waited for that was killed meanwhile.
                transaction.set_control({"last_error": None})
            transaction.commit()
        # on_start may have kept its connection, which would make every event one that may have used SQL.
        self._store.renew()
        self.has_begun = True
        return held, log

    def goes_on_after(self, error: BaseException) -> bool:
        """Tell whether the configuration knows better than to stop at this, with the next adoption."""
        return policy(type(error), self._settings.on_misfit) != "halt"

    def _apply(self, decided: Cure, transaction: Transaction) -> None:
        """Move to where the configuration says, and leave word of what is left out."""
        self._log.warning(
            "positions do not fit the log, going on as configured", on_misfit=decided.action, reason=decided.reason
        )
        before, _ = transaction.move_by_hand(decided.targets)
        if decided.action == "rebuild":
            transaction.wipe()
            let_come_again(transaction, before, decided.targets)
        shown = as_audited(before), as_audited(decided.targets)
        transaction.audit("axe", decided.action, decided.reason, *shown)

    def _run_pending(self, transaction: Transaction, pending: str | None) -> None:
        hook, state = self._processor.hooks.hook, transaction.state
        try:
            # A wipe leaves nothing for on_start to find; after a plain reset on_reset finds what on_start makes.
            if pending == "wipe":
                hook.on_reset(state=state)
            # "start": an undo has put back what on_start may have read into memory before.
            if pending in ("wipe", "start") or not self.has_begun:
                hook.on_start(state=state, settings=self._processor.settings)
            if pending == "reset":
                hook.on_reset(state=state)
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
