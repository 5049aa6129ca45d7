"""How far a runner has read: positions that are held, what comes next, and what was fetched but not committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .event import Form, Record, TopicPartition
from .sources import Fetched, Source
from .store import Move, StoredPosition
from .store.tables import timestamp_of_ms

Positions = dict[TopicPartition, int]


class Reading:
    """The partitions of one processor between the source and the store.

    ``held`` is what the store says, as of the last commit; ``next`` runs ahead of it by what needs no
    transaction of its own: filtered events, control records, gaps.
    """

    def __init__(self, source: Source, form: Form) -> None:
        self._source = source
        self._form = form
        self.held: dict[TopicPartition, StoredPosition] = {}
        self.next: Positions = {}
        self._waiting: list[Any] = []
        self._reached: Positions = {}
        self._passed_at: dict[TopicPartition, str | None] = {}

    def hold(self, held: dict[TopicPartition, StoredPosition]) -> None:
        """Read these partitions from their stored positions on."""
        self.let_go()
        self.held = held
        self.next = {at: row.position for at, row in held.items()}
        self._source.assign(self.next)

    def let_go(self) -> None:
        """Forget the partitions and what was fetched of them."""
        self.held, self.next, self._waiting, self._reached, self._passed_at = {}, {}, [], {}, {}

    @property
    def positions(self) -> Positions:
        """The next offsets to read, as far as they are committed; may be asked from another thread."""
        return {at: row.position for at, row in dict(self.held).items()}

    # --- records

    def take(self, *, events: int, size: int, timeout_s: float) -> list[Any]:
        """Return what comes next: what was put back, else what the source has."""
        if self._waiting:
            records, self._waiting = self._waiting[:events], self._waiting[events:]
            return records
        fetched: Fetched = self._source.fetch(events=events, size=size, timeout_s=timeout_s)
        # A source tells of an end once; with records before it, it counts when they are done.
        self._reached.update(fetched.reached)
        return fetched.records

    def put_back(self, records: Sequence[Any]) -> None:
        """Let these come again before anything else."""
        self._waiting = [*records, *self._waiting]

    @property
    def has_reached_an_end(self) -> bool:
        """Whether the source told of an end that was not caught up with yet."""
        return bool(self._reached)

    def catch_up(self) -> None:
        """Move past what is no event at the ends that were reached, once everything before it is done."""
        if self._waiting or not self._reached:
            return
        for at, position in self._reached.items():
            if at in self.next and position > self.next[at]:
                self.next[at] = position
        self._reached.clear()

    def index(self, records: Sequence[Any], record: Record) -> int:
        """Find a record among those that were taken."""
        form, place = self._form, (record.topic, record.partition, record.offset)
        return next(
            index
            for index, raw in enumerate(records)
            if (form.topic(raw), form.partition(raw), form.offset(raw)) == place
        )

    # --- positions

    def moves(self, records: Sequence[Any] = ()) -> dict[TopicPartition, Move]:
        """Return the steps from the held positions to behind these records, and to what comes next elsewhere.

        Partitions that stay where they are need none.
        """
        steps = self._steps(records)
        return {at: step for at, step in steps.items() if step.position != step.seen}

    def back(self, moves: Mapping[TopicPartition, Move], done: Sequence[Any]) -> dict[TopicPartition, Move]:
        """Return the steps that take moves of this transaction back to behind those records that are done.

        Of the same partitions and no others: those are locked already, and two transactions that lock rows
        in different orders deadlock.
        """
        steps = self._steps(done)
        return {at: steps[at] for at in moves}

    def claim(self, at: TopicPartition) -> dict[TopicPartition, Move]:
        """Return the step of a partition to where it is: one that only its owner can do."""
        held = self.held[at]
        return {at: Move(held.position, held.epoch, held.position, held.event_at)}

    def _steps(self, records: Sequence[Any]) -> dict[TopicPartition, Move]:
        """Return where each partition would be, with the time of the last event before that."""
        form = self._form
        last = form.last(records, self.held)
        steps = {}
        for at, held in self.held.items():
            raw = last.get(at)
            event_at = self._passed_at.get(at) or held.event_at
            if raw is None:
                steps[at] = Move(held.position, held.epoch, self.next[at], event_at)
            else:
                event_at = timestamp_of_ms(form.timestamp_ms(raw)) or event_at
                steps[at] = Move(held.position, held.epoch, form.offset(raw) + 1, event_at)
        return steps

    def pass_over(self, records: Sequence[Any]) -> None:
        """Move past records that are no events of this processor, without a transaction of their own."""
        for at, move in self.moves(records).items():
            self.next[at], self._passed_at[at] = move.position, move.event_at

    def committed(self, moves: Mapping[TopicPartition, Move]) -> None:
        """Note that the store holds these positions now."""
        for at, move in moves.items():
            self.next[at] = move.position
            self.held[at] = self.held[at]._replace(position=move.position, event_at=move.event_at)
        self._passed_at.clear()

    def is_past(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Tell whether everything before these ends is done."""
        return not self._waiting and all(self.next.get(at, 0) >= end for at, end in ends.items())
