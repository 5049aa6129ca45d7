"""How long dead letters are kept: now and then the oldest are deleted, a bounded number at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .adoption import obey
from .config import LettersConfig
from .letters import numbers
from .reading import Reading
from .store import Store
from .store.tables import timestamp

if TYPE_CHECKING:
    from .log import Logger

LOOK_S = 600.0
"""How often is looked for letters to be deleted. Each time that there are some is a row of the history."""
_NEXT_S = 1.0
# Of one transaction.
_LETTERS = 1000
_BYTES = 16_000_000


def too_old_before(settings: LettersConfig) -> str | None:
    """Return the time as ``rejected_at`` has it before which letters are too old at this moment; None: none is."""
    return None if settings.days is None else timestamp(datetime.now(UTC) - timedelta(days=settings.days))


class Retention:
    """Of the dead letters of one processor, by age and by number."""

    def __init__(self, settings: LettersConfig, log: Logger, *, store: Store, reading: Reading, worker: str) -> None:
        self._settings = settings
        self._log = log
        self._store = store
        self._reading = reading
        self._worker = worker
        self._due_at = 0.0
        self._deleted = 0

    def begin(self) -> None:
        """Look soon: positions have been adopted."""
        self._due_at = 0.0

    def tend(self) -> None:
        """Delete what is too old or too many, if it is time to look.

        Raises:
            Directed, PositionConflict: somebody has set something, or taken over.
            StoreUnavailable: the database is away.
        """
        held = self._reading.held
        if time.monotonic() < self._due_at or not held:
            return
        if deleted := self._trim():
            # The rest waits for batches in between.
            self._due_at = time.monotonic() + _NEXT_S
            self._deleted += deleted
            return
        self._due_at = time.monotonic() + LOOK_S
        if self._deleted:
            self._log.info("dead letters were deleted", letters=self._deleted, by=self._why())
            self._deleted = 0

    def _trim(self) -> int:
        until, rows, reading = too_old_before(self._settings), self._settings.rows, self._reading
        with self._store.begin() as transaction:
            obey(transaction.control())
            transaction.advance(reading.claim(min(reading.held)), self._worker)
            going = transaction.trim_dead_letters(until=until, rows=rows, limit=_LETTERS, size=_BYTES)
            deleted = sum(map(len, going.values()))
            if deleted:
                before = {status: numbers(ids) for status, ids in going.items()}
                transaction.audit("axe", "trim", self._why(), before, {"deleted": deleted})
                transaction.commit()
        return deleted

    def _why(self) -> str:
        days, rows = self._settings.days, self._settings.rows
        kept = ([] if days is None else [f"days = {days:g}"]) + ([] if rows is None else [f"rows = {rows}"])
        return f"dead_letters: {', '.join(kept)}"
