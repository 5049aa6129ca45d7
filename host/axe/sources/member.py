"""One reading for all processors of a process that read the same topics, as long as their positions are together.

Each processor has a source of its own, and a ``Member`` in front of it. Members that are near one another form a
convoy: the source of one of them, its reader, fetches, and each of them gets the same ``Chunk``. No source is ever
used by another thread than its own. Members join in ``assign`` and nowhere else, so that whoever adopts its
positions anew looks at the log's identity as it would alone; a member whose convoy has broken up, has lost its
reader, or has left the member behind raises ``Interrupted``, upon which its runner does just that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import SourceUnavailable
from ..event import Form, TopicPartition
from . import Bounds, Fetched, Interrupted, LetterTopic, Source, letter_topic
from .convoy import Chunk, Convoy, Positions, Road

# Who was left behind is slow. It joins again where it has caught up, and moves nobody back before this time.
_SLOW_S = 60.0
# How long batches of one's own may make one wait for the reader's.
_LONGEST_PATIENCE_S = 2.0
# How long the one that will take its place may need to adopt its positions.
_HEIR_S = 1.0
# A client that fetches nothing has callbacks to run, and outages to tell of.
_LOOK_S = 1.0


class Convoys:
    """The convoys of a process: by topics, and by what else makes two ways of reading one."""

    def __init__(self) -> None:
        self._roads: dict[Any, Road] = {}

    def member(self, own: Source, road: Any, events_as: Any = None) -> Member:
        """Put a member in front of a source; those with an equal ``road`` may read together.

        Those with an equal ``events_as`` make the same events of the same records.
        """
        return Member(own, self._roads.setdefault(road, Road()), events_as)


class Member:
    """The source of one processor that reads together with others; see the protocol ``Source``."""

    def __init__(self, own: Source, road: Road, events_as: Any) -> None:
        self.form: Form = own.form
        self.events_as = events_as
        """How its records become events: members of which this is equal, and not None, may have the same ones."""
        self.position: Positions = {}
        """Behind the last record that was handed out."""
        self.topic_ids: dict[str, str | None] = {}
        """The makings of the topics that it last heard of: whoever adopts positions asks for them before."""
        self.cursor = 0
        """The number of the next chunk."""
        self.left_at = time.monotonic()
        """When it was last here: since then it is about its batch."""
        self._own = own
        self._own_reads = False
        self._road = road
        self._convoy: Convoy | None = None
        # What is left of a chunk that this member wanted less of at a time, or had a part of before.
        self._chunk: Chunk | None = None
        self._rest: list[Any] = []
        self._untold: Positions = {}
        """Ends that the reader was told of before this member came."""
        self.wanted = 1
        """How many events it asked for last."""
        self._has_batch = False
        self._took_s = 0.0
        self._was_slow_at = float("-inf")
        self._looked_at = 0.0

    # --- joining and leaving

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Join a convoy that is near these positions, or make one."""
        with self._road.changed:
            self._leave()
            self.position = dict(positions)
            self.left_at = now = time.monotonic()
            convoy = self._road.best(self, may_go_back=now - self._was_slow_at > _SLOW_S)
            if convoy is None:
                convoy = Convoy(self, positions)
                self._road.convoys.append(convoy)
                self.start(0)
                read_from: Positions | None = convoy.head
            else:
                read_from = convoy.add(self)
            self._convoy = convoy
            self._untold = dict(convoy.ends)
        try:
            self._let_own_read({} if read_from is None else read_from)
        except BaseException as error:
            with self._road.changed:
                if read_from is not None:
                    self._break_up(convoy, error)
                self._leave()
            raise

    def start(self, cursor: int) -> None:
        """Go on at a chunk; what it has that this member had before is left out."""
        self.cursor, self._rest, self._chunk = cursor, [], None

    def _let_own_read(self, positions: Positions) -> None:
        if positions or self._own_reads:
            self._own_reads = bool(positions)
            self._own.assign(positions)

    def _leave(self) -> None:
        convoy, self._convoy = self._convoy, None
        self.start(0)
        if convoy is None:
            return
        convoy.members.discard(self)
        if not convoy.members and convoy in self._road.convoys:
            self._road.convoys.remove(convoy)
        self._road.changed.notify_all()

    def _break_up(self, convoy: Convoy, error: BaseException) -> None:
        """End a convoy whose reader met an error: each member has to see what it means for itself."""
        if convoy.reader is self and convoy.error is None:
            convoy.error = error
            self._road.convoys.remove(convoy)
            self._road.changed.notify_all()

    # --- reading

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        """Return what comes next, out of what the convoy has or what its reader brings.

        Raises:
            Interrupted: assign again: the convoy is none any more for this member.
        """
        entered = time.monotonic()
        if self._has_batch:
            # Batches of the same records take about as long for others. It is so for all fetches until the next batch.
            self._has_batch, self._took_s = False, entered - self.left_at
        took = max(entered - self.left_at, min(2 * self._took_s, _LONGEST_PATIENCE_S))
        self.left_at, self.wanted = entered, events
        self._look_at_own(entered)
        has_looked = False
        while True:
            with self._road.changed:
                convoy = self._joined()
                fetched = self._kept(convoy, events)
                left = entered + timeout_s - time.monotonic()
                if fetched is None and has_looked and left <= 0:
                    fetched = Fetched([], {})
                if fetched is not None:
                    self.left_at, self._has_batch = time.monotonic(), bool(fetched.records)
                    return fetched
                has_looked = True
                if convoy.reader is not self:
                    self._wait(convoy, max(left, 0.0), took)
                    continue
            self._read(convoy, size, max(left, 0.0))

    def _joined(self) -> Convoy:
        """Return the convoy; this member is at home in it."""
        convoy = self._convoy
        if convoy is None:
            raise Interrupted
        if convoy.error is not None:
            self._leave()
            if isinstance(convoy.error, SourceUnavailable):
                raise SourceUnavailable(str(convoy.error)) from convoy.error
            raise Interrupted
        if self.cursor < convoy.first:
            self._was_slow_at = time.monotonic()
            self._leave()
            raise Interrupted
        return convoy

    def _kept(self, convoy: Convoy, events: int) -> Fetched | None:
        """Return what is there for this member without a fetch; None if nothing is."""
        if self._rest:
            return self._part(events)
        while self.cursor < convoy.behind:
            chunk = convoy.chunk(self.cursor)
            self.cursor += 1
            if chunk.before == self.position and len(chunk) <= events:
                self.position = chunk.after
                convoy.trim(time.monotonic())
                # Never a copy: who decodes it looks whether somebody else has.
                return Fetched(chunk, chunk.reached)
            self._rest, self._chunk = self._new(chunk), chunk
            if self._rest or chunk.reached:
                return self._part(events)
            self._pass(chunk)
        convoy.trim(time.monotonic())
        if self._untold:
            ends, self._untold = self._untold, {}
            return Fetched([], {at: end for at, end in ends.items() if convoy.ends.get(at) == end >= self.position[at]})
        if self._road.better(self, convoy):
            self._leave()
            raise Interrupted
        return None

    def _new(self, chunk: Chunk) -> list[Any]:
        """Return the records of a chunk that this member has not had."""
        position, form = self.position, self.form
        if all(place <= chunk.before[at] for at, place in position.items()):
            return list(chunk)
        places = zip(map(form.topic, chunk), map(form.partition, chunk), strict=True)
        # A tuple finds what a TopicPartition of the same two stands for.
        return [raw for at, raw in zip(places, chunk, strict=True) if form.offset(raw) >= position[at]]  # type: ignore[index]

    def _part(self, events: int) -> Fetched:
        """Return so much of the chunk that was begun; what ends it comes with the last part."""
        chunk = self._chunk
        assert chunk is not None
        part, self._rest = self._rest[:events], self._rest[events:]
        self.position = position = dict(self.position)
        for at, raw in self.form.last(part, position).items():
            position[at] = self.form.offset(raw) + 1
        if self._rest:
            return Fetched(part, {})
        self._pass(chunk)
        reached = {at: end for at, end in chunk.reached.items() if end >= position[at]}
        return Fetched(part, reached)

    def _pass(self, chunk: Chunk) -> None:
        """Be behind a chunk, whatever of it was for this member."""
        self.position = {at: max(place, chunk.after[at]) for at, place in self.position.items()}

    def _wait(self, convoy: Convoy, left_s: float, took_s: float) -> None:
        """Wait for the reader; where it does not come back, take its place."""
        now = self.left_at = time.monotonic()
        if convoy.has_lost_reader(took_s) and now > convoy.awaits_until:
            # Whoever joins next will be the reader. One is enough.
            convoy.awaits_until = now + _HEIR_S
            self._leave()
            raise Interrupted
        # A reader that fetches says when it has.
        self._road.changed.wait(left_s if convoy.is_reading else min(left_s, convoy.patience_s(took_s)))

    def _read(self, convoy: Convoy, size: int, timeout_s: float) -> None:
        """Fetch what comes next for everybody."""
        with self._road.changed:
            if convoy.reader is not self or convoy.error is not None:
                return
            generation, convoy.is_reading, place = convoy.generation, True, convoy.head
            # Not this member's own wish: one that begins, or tries an event again, asks for a single one.
            events = max(one.wanted for one in convoy.members)
        try:
            fetched = self._own.fetch(events=events, size=size, timeout_s=timeout_s)
        except BaseException as error:
            with self._road.changed:
                if convoy.generation == generation:
                    self._break_up(convoy, error)
                self._leave()
                # It would take the others back to where it fails, again and again.
                self._was_slow_at = time.monotonic()
            if self.position != place and isinstance(error, Exception):
                # It read for others who are behind: what is wrong there is nothing to it.
                raise Interrupted from error
            raise
        with self._road.changed:
            if convoy.generation == generation:
                convoy.is_reading, self.left_at = False, time.monotonic()
                if fetched.records or fetched.reached:
                    convoy.append(fetched, self.form)
                    self._road.changed.notify_all()

    def _look_at_own(self, now: float) -> None:
        """Let a source that has nothing to fetch run its callbacks, and say what is wrong."""
        if now - self._looked_at > _LOOK_S:
            self._looked_at = now
            with self._road.changed:
                reads = self._convoy is not None and self._convoy.reader is self
            if not reads:
                self._let_own_read({})
                self._own.fetch(events=1, size=1, timeout_s=0)

    # --- the source's own

    def cluster_id(self) -> str | None:
        """Ask the source."""
        return self._own.cluster_id()

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Ask the source."""
        return self._own.partitions(topic)

    def topic_id(self, topic: str) -> str | None:
        """Ask the source."""
        self.topic_ids[topic] = found = self._own.topic_id(topic)
        return found

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Ask the source."""
        return self._own.bounds(partitions)

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Ask the source."""
        return self._own.offsets_at(partitions, timestamp_ms)

    def mirror(self, positions: Mapping[TopicPartition, int], store_id: str) -> None:
        """Let the source tell outsiders."""
        self._own.mirror(positions, store_id)

    def letter_topic(self, name: str) -> LetterTopic:
        """Let the source open a topic for dead letters."""
        return letter_topic(self._own, name)

    def close(self) -> None:
        """Leave, and close the source."""
        with self._road.changed:
            self._leave()
        self._own.close()
