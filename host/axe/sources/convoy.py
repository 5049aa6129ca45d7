"""What members of a convoy share: the chunks that were fetched, who fetches, and which convoys there are to join.

All of it under the lock of its road. ``member`` is the side of one processor, and says what a convoy is.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..event import Form, TopicPartition
from . import Fetched

if TYPE_CHECKING:
    from .member import Member

Positions = Mapping[TopicPartition, int]

# What is kept for those who are slower: beyond it they read for themselves.
_KEPT_EVENTS = 20_000
_KEPT_BYTES = 64_000_000
_KEPT_DECODED = 2
# How far apart positions may be to begin together; the records between are fetched once more.
_NEAR_EVENTS = 20_000
# How long a reader may be about its own batch while others wait, who may have taken longer themselves.
_PATIENCE_S = 0.1
# Who has not fetched for so long, because it is paused, say, is not waited for.
_GONE_S = 5.0


class Chunk(list[Any]):
    """The records of one fetch, with the positions before and after them, and the ends that were reached.

    ``decoded`` is for those who make events of them: what one has made for all, by ``Member.events_as``, None where it
    is not for others. ``shared_as`` has those ways of which there is more than one member.
    """

    __slots__ = ("after", "before", "decoded", "reached", "shared_as", "size")

    def __init__(
        self, fetched: Fetched, before: Positions, after: Positions, size: int, shared_as: Collection[Any]
    ) -> None:
        super().__init__(fetched.records)
        self.reached, self.before, self.after, self.size = fetched.reached, before, after, size
        self.shared_as = shared_as
        self.decoded: dict[Any, list[Any] | None] = {}


class Road:
    """All convoys of members that may read together, and the lock of everything about them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.convoys: list[Convoy] = []

    def best(self, member: Member, *, may_go_back: bool) -> Convoy | None:
        """Return the largest convoy that a member can join."""
        near = (one for one in self.convoys if one.can_take(member, may_go_back=may_go_back))
        return max(near, key=lambda one: len(one.members), default=None)

    def better(self, member: Member, than: Convoy) -> bool:
        """Tell whether there is a convoy to leave another one for: both are at the same place."""
        if len(self.convoys) < 2:  # noqa: PLR2004 # it is the only one
            return False
        index = self.convoys.index(than)
        return any(
            one.covers(member) and (len(one.members), index) > (len(than.members), number)
            for number, one in enumerate(self.convoys)
            if one is not than
        )


class Convoy:
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
            if not self.has_lost_reader():
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

    def has_lost_reader(self, took_s: float = 0.0) -> bool:
        """Tell whether nobody fetches any more, or not for a while."""
        if self.is_reading:
            return False
        return self.reader not in self.members or time.monotonic() - self.reader.left_at > self.patience_s(took_s)

    def patience_s(self, took_s: float) -> float:
        """Return how long somebody waits for the reader whose own batch took so long."""
        return max(_PATIENCE_S, took_s)

    def append(self, fetched: Fetched, form: Form) -> None:
        """Keep what was fetched at the head."""
        before, after = self.head, dict(self.head)
        for at, raw in form.last(fetched.records, after).items():
            after[at] = form.offset(raw) + 1
            self.ends.pop(at, None)
        for at, position in fetched.reached.items():
            after[at] = self.ends[at] = max(position, after[at])
        contents = itertools.chain(map(form.value, fetched.records), map(form.key, fetched.records))
        size = sum(map(len, filter(None, contents)))
        ways = Counter(member.events_as for member in self.members if member.events_as is not None)
        chunk = Chunk(fetched, before, after, size, {way for way, members in ways.items() if members > 1})
        self._chunks.append(chunk)
        if len(self._chunks) > _KEPT_DECODED:
            # Events take ten times as much as their records: who is slower decodes for itself. Not cleared: somebody
            # may be looking at it.
            self._chunks[-1 - _KEPT_DECODED].decoded = {}
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
