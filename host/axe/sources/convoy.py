"""One reading for all processors of a process that read the same topics, as long as their positions are together.

Each processor has a source of its own, and a ``Member`` in front of it. Members that are near one another form a
convoy: the source of one of them, its reader, fetches, and each of them gets the same ``Chunk``. No source is ever
used by another thread than its own. Members join in ``assign`` and nowhere else, so that whoever adopts its
positions anew looks at the log's identity as it would alone; a member whose convoy has broken up, has lost its
reader, or has left the member behind raises ``Interrupted``, upon which its runner does just that.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import SourceUnavailable
from ..event import Form, TopicPartition
from . import Bounds, Fetched, Interrupted, Source

Positions = Mapping[TopicPartition, int]

# What is kept for those who are slower: beyond it they read for themselves.
_KEPT_EVENTS = 20_000
_KEPT_BYTES = 64_000_000
# How far apart positions may be to begin together; the records between are fetched once more.
_NEAR_EVENTS = 20_000
# Who was left behind is slow. It joins again where it has caught up, and moves nobody back before this time.
_SLOW_S = 60.0
# How long a reader may be about its own batch while others wait; longer where theirs took longer, up to a bound.
_PATIENCE_S = 0.1
_LONGEST_PATIENCE_S = 2.0
# How long the one that will take its place may need to adopt its positions.
_HEIR_S = 1.0
# Who has not fetched for so long, because it is paused, say, is not waited for.
_GONE_S = 5.0
# A client that fetches nothing has callbacks to run, and outages to tell of.
_LOOK_S = 1.0


class Chunk(list[Any]):
    """The records of one fetch, with the positions before and after them, and the ends that were reached.

    ``decoded`` is for those who make events of them: what one has made, by how it was made.
    """

    __slots__ = ("after", "before", "decoded", "reached", "size")

    def __init__(self, fetched: Fetched, before: Positions, after: Positions, size: int) -> None:
        super().__init__(fetched.records)
        self.reached, self.before, self.after, self.size = fetched.reached, before, after, size
        self.decoded: dict[Any, list[Any]] = {}


class Convoys:
    """The convoys of a process: by topics, and by what else makes two ways of reading one."""

    def __init__(self) -> None:
        self._roads: dict[Any, _Road] = {}

    def member(self, own: Source, road: Any) -> Member:
        """Put a member in front of a source; those with an equal ``road`` may read together."""
        return Member(own, self._roads.setdefault(road, _Road()))


class _Road:
    """All convoys of members that may read together, and the lock of everything about them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.convoys: list[_Convoy] = []

    def best(self, member: Member, *, may_go_back: bool) -> _Convoy | None:
        """Return the largest convoy that a member can join."""
        near = (one for one in self.convoys if one.can_take(member, may_go_back=may_go_back))
        return max(near, key=lambda one: len(one.members), default=None)

    def better(self, member: Member, than: _Convoy) -> bool:
        """Tell whether there is a convoy to leave another one for: both are at the same place."""
        if len(self.convoys) < 2:  # noqa: PLR2004 # it is the only one
            return False
        index = self.convoys.index(than)
        return any(
            one.covers(member) and (len(one.members), index) > (len(than.members), number)
            for number, one in enumerate(self.convoys)
            if one is not than
        )


class _Convoy:
    """Members that read together: what was fetched, and who fetches. All under the road's lock."""

    def __init__(self, reader: Member, positions: Positions) -> None:
        self.members = {reader}
        self.reader = reader
        self.is_reading = False
        self.generation = 0
        """Raised when another reader takes over: what the one before still fetches does not count."""
        self.awaits_until = 0.0
        """Somebody is about to take the lost reader's place; how long to wait for that."""
        self.error: BaseException | None = None
        self.head: Positions = dict(positions)
        self.topic_ids = dict(reader.topic_ids)
        self.ends: dict[TopicPartition, int] = {}
        self.first = 0
        self._chunks: deque[Chunk] = deque()
        self._events = self._bytes = 0

    @property
    def tail(self) -> Positions:
        """The positions before the first chunk that is kept."""
        return self._chunks[0].before if self._chunks else self.head

    @property
    def behind(self) -> int:
        """The number of the chunk that will be fetched next."""
        return self.first + len(self._chunks)

    def chunk(self, number: int) -> Chunk:
        """Return one of those that are kept."""
        return self._chunks[number - self.first]

    def covers(self, member: Member) -> bool:
        """Tell whether everything from somebody's positions on is kept, or still to be fetched."""
        position, tail, head = member.position, self.tail, self.head
        return self._is_of(member) and all(tail[at] <= place <= head[at] for at, place in position.items())

    def can_take(self, member: Member, *, may_go_back: bool) -> bool:
        """Tell whether somebody can join."""
        if not self._is_of(member):
            return False
        position, tail, head = member.position, self.tail, self.head
        back = sum(max(0, tail[at] - place) for at, place in position.items())
        ahead = sum(max(0, place - head[at]) for at, place in position.items())
        return back <= (_NEAR_EVENTS if may_go_back else 0) and ahead <= _NEAR_EVENTS

    def _is_of(self, member: Member) -> bool:
        """Tell whether these are somebody's partitions, of the same making of the topics as far as it is known."""
        # Who still has an older making must not be given the records of the new one: its own source will say so.
        ids = self.topic_ids
        return member.position.keys() == self.head.keys() and all(
            None in (known, ids.get(topic)) or known == ids[topic] for topic, known in member.topic_ids.items()
        )

    def add(self, member: Member) -> Positions | None:
        """Take a member in; returns where its own source has to read from, if it is to be the reader."""
        self.topic_ids.update({topic: known for topic, known in member.topic_ids.items() if known is not None})
        tail = self.tail
        if any(place < tail[at] for at, place in member.position.items()):
            self._go_back(member)
        else:
            member.start(self.first)
            if not self.has_lost_reader(_PATIENCE_S):
                self.members.add(member)
                return None
        self.members.add(member)
        self.reader, self.is_reading = member, False
        self.generation += 1
        return self.head

    def _go_back(self, member: Member) -> None:
        """Begin again where all who are not left behind can follow; they skip what they have had."""
        together = [member, *(one for one in self.members if one.cursor >= self.first)]
        self.head = {at: min(one.position[at] for one in together) for at in self.head}
        self.first, self._events, self._bytes = self.behind, 0, 0
        self._chunks.clear()
        self.ends.clear()
        for one in together:
            one.start(self.first)

    def has_lost_reader(self, patience_s: float) -> bool:
        """Tell whether nobody fetches any more, or not for a while."""
        if self.is_reading:
            return False
        return self.reader not in self.members or time.monotonic() - self.reader.left_at > patience_s

    def append(self, fetched: Fetched, form: Form) -> None:
        """Keep what was fetched at the head."""
        before, after = self.head, dict(self.head)
        for at, raw in form.last(fetched.records, after).items():
            after[at] = form.offset(raw) + 1
            self.ends.pop(at, None)
        for at, position in fetched.reached.items():
            after[at] = self.ends[at] = max(position, after[at])
        contents = itertools.chain(map(form.value, fetched.records), map(form.key, fetched.records))
        chunk = Chunk(fetched, before, after, sum(map(len, filter(None, contents))))
        self._chunks.append(chunk)
        self._events += len(chunk)
        self._bytes += chunk.size
        self.head = after

    def trim(self, now: float) -> None:
        """Let go of what everybody has had, and of the oldest where somebody is too slow."""
        needed = min((one.cursor for one in self.members if now - one.left_at < _GONE_S), default=self.behind)
        while self._chunks and (self.first < needed or (self._is_too_much and len(self._chunks) > 1)):
            chunk = self._chunks.popleft()
            self._events -= len(chunk)
            self._bytes -= chunk.size
            self.first += 1

    @property
    def _is_too_much(self) -> bool:
        return self._events > _KEPT_EVENTS or self._bytes > _KEPT_BYTES


class Member:
    """The source of one processor that reads together with others; see the protocol ``Source``."""

    def __init__(self, own: Source, road: _Road) -> None:
        self.form: Form = own.form
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
        self._convoy: _Convoy | None = None
        # What is left of a chunk that this member wanted less of at a time, or had a part of before.
        self._chunk: Chunk | None = None
        self._rest: list[Any] = []
        self._untold: Positions = {}
        """Ends that the reader was told of before this member came."""
        self._wanted = 1
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
                convoy = _Convoy(self, positions)
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

    def _break_up(self, convoy: _Convoy, error: BaseException) -> None:
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
        patience = max(_PATIENCE_S, entered - self.left_at, min(2 * self._took_s, _LONGEST_PATIENCE_S))
        self.left_at, self._wanted = entered, events
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
                    self._wait(convoy, max(left, 0.0), patience)
                    continue
            self._read(convoy, size, max(left, 0.0))

    def _joined(self) -> _Convoy:
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

    def _kept(self, convoy: _Convoy, events: int) -> Fetched | None:
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

    def _wait(self, convoy: _Convoy, left_s: float, patience_s: float) -> None:
        """Wait for the reader; where it does not come back, take its place."""
        now = self.left_at = time.monotonic()
        if convoy.has_lost_reader(patience_s) and now > convoy.awaits_until:
            # Whoever joins next will be the reader. One is enough.
            convoy.awaits_until = now + _HEIR_S
            self._leave()
            raise Interrupted
        # A reader that fetches says when it has.
        self._road.changed.wait(left_s if convoy.is_reading else min(left_s, patience_s))

    def _read(self, convoy: _Convoy, size: int, timeout_s: float) -> None:
        """Fetch what comes next for everybody."""
        with self._road.changed:
            if convoy.reader is not self or convoy.error is not None:
                return
            generation, convoy.is_reading, place = convoy.generation, True, convoy.head
            # Not this member's own wish: one that begins, or tries an event again, asks for a single one.
            events = max(one._wanted for one in convoy.members)  # noqa: SLF001 # a fellow's
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

    def close(self) -> None:
        """Leave, and close the source."""
        with self._road.changed:
            self._leave()
        self._own.close()
