"""What a runner sees to now and then, beside its batches: what people set, new partitions, positions that moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .adoption import Directed, obey
from .batch import Batches
from .errors import PositionConflict
from .processor import Processor
from .reading import Reading
from .sources import Source
from .store import Store

if TYPE_CHECKING:
    from .log import Logger

LOOK_S = 1.0
_NEW_PARTITIONS_S = 10.0
_CHORES_S = 0.25


class Chore(Protocol):
    """What there is to be done where the settings ask for it; it knows itself when it is due."""

    def begin(self) -> None:
        """Begin anew: positions have been adopted."""

    def tend(self) -> None:
        """Do what is due, and of that a bounded part; called several times a second at most.

        Raises:
            Directed, PositionConflict: somebody has set something, or taken over.
        """


class Upkeep:
    """Of one runner, after each of its rounds; each thing as often as it is worth."""

    def __init__(  # noqa: PLR0913 # the parts it works with, by name
        self,
        processor: Processor,
        log: Logger,
        *,
        store: Store,
        source: Source,
        reading: Reading,
        batches: Batches,
        chores: Sequence[Chore] = (),
    ) -> None:
        self._processor = processor
        self._log = log
        self._store = store
        self._source = source
        self._reading = reading
        self._batches = batches
        self._chores = chores
        self._moved_at = self._looked_at = self._mirrored_at = self._counted_at = self._tended_at = 0.0

    def begin(self) -> None:
        """Note that everything was looked at a moment ago: positions have been adopted."""
        self._counted_at = self._looked_at = time.monotonic()
        for chore in self._chores:
            chore.begin()

    def after_round(self, *, is_quiet: bool) -> None:
        """See to what is due; in a quiet round nothing was read.

        Raises:
            Directed: somebody has set something, or there are partitions to adopt.
            PositionConflict: another worker has taken a partition over.
        """
        now = time.monotonic()
        if is_quiet:
            self.look()
        if now - self._counted_at > _NEW_PARTITIONS_S:
            self._counted_at = now
            self._count_partitions()
        if now - self._moved_at > LOOK_S:
            self._moved_at = now
            self._batches.move_only()
            self.mirror()
        if now - self._tended_at > _CHORES_S:
            self._tended_at = now
            for chore in self._chores:
                chore.tend()

    def look(self) -> None:
        """Look whether somebody set something or took over, which a batch would find out in its transaction.

        Raises:
            Directed, PositionConflict: somebody did.
        """
        now = time.monotonic()
        if now - self._looked_at <= LOOK_S:
            return
        self._looked_at = now
        obey(self._store.control())
        rows = self._store.positions()
        for at, held in self._reading.held.items():
            row = rows.get(at)
            if row is None or (row.epoch, row.owner) != (held.epoch, held.owner):
                raise PositionConflict(str(at))
        self.mirror()

    def mirror(self) -> None:
        """Show the positions to whoever watches the source's consumer group."""
        now = time.monotonic()
        if now - self._mirrored_at > LOOK_S:
            self._mirrored_at = now
            self._source.mirror(self._reading.positions, self._store.store_id)

    def _count_partitions(self) -> None:
        count = sum(len(self._source.partitions(topic)) for topic in self._processor.types)
        if count > len(self._reading.held):
            self._log.info("topic has new partitions", partitions=count)
            self._batches.move_only()
            raise Directed
