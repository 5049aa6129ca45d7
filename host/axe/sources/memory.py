"""Records from memory, for tests and for trying things out: gone when the process ends."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from ..errors import BehindRetention, BeyondEnd, SourceUnavailable, TopicMissing, TopicRecreated
from ..event import RECORD_FORM, Record, TopicPartition
from . import Bounds, Fetched, LetterTopic


class _Partition:
    """The records from ``begin`` on; offsets never start over."""

    def __init__(self) -> None:
        self.begin = 0
        self.records: list[Record] = []

    @property
    def end(self) -> int:
        return self.begin + len(self.records)


class _Topic:
    def __init__(self, partitions: int) -> None:
        self.id = uuid.uuid4().hex
        self.partitions = [_Partition() for _ in range(partitions)]


class MemoryLog:
    """Topics in memory, shared by threads; a reader that waits is woken by each append."""

    def __init__(self) -> None:
        self.cluster_id = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}
        self._available = True

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Create a topic.

        Raises:
            ValueError: it exists.
        """
        with self._changed:
            if topic in self._topics:
                raise ValueError(f"topic {topic} exists")
            self._topics[topic] = _Topic(partitions)
            self._changed.notify_all()

    def add_partition(self, topic: str) -> None:
        """Give a topic one more partition."""
        with self._changed:
            self._topics[topic].partitions.append(_Partition())
            self._changed.notify_all()

    def append(
        self,
        topic: str,
        value: Any,
        key: bytes | str | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
        partition: int = 0,
        timestamp_ms: int | None = None,
        type: str | None = None,
    ) -> Record:
        """Append a record and return it; makes a topic of one partition where there is none.

        ``value`` is bytes, None for a tombstone, or anything that JSON can hold. ``type`` becomes
        the header of that name. Without a timestamp the record has the time of now.
        """
        kept = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        named = (*headers, ("type", type.encode())) if type is not None else tuple(headers)
        with self._changed:
            if topic not in self._topics:
                self._topics[topic] = _Topic(1)
            log = self._partition(TopicPartition(topic, partition))
            record = Record(
                topic,
                partition,
                log.end,
                key.encode() if isinstance(key, str) else key,
                kept,
                named,
                time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms,
            )
            log.records.append(record)
            self._changed.notify_all()
        return record

    def truncate_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """Delete the records before an offset, as retention does."""
        with self._changed:
            log = self._topics[topic].partitions[partition]
            offset = min(max(offset, log.begin), log.end)
            del log.records[: offset - log.begin]
            log.begin = offset
            self._changed.notify_all()

    def recreate(self, topic: str) -> None:
        """Delete a topic and make it again, empty, with as many partitions."""
        with self._changed:
            self._topics[topic] = _Topic(len(self._topics[topic].partitions))
            self._changed.notify_all()

    def delete_topic(self, topic: str) -> None:
        """Delete a topic."""
        with self._changed:
            del self._topics[topic]
            self._changed.notify_all()

    def make_unavailable(self) -> None:
        """Let every reader see an outage until ``make_available``."""
        self._set_available(False)

    def make_available(self) -> None:
        """End an outage."""
        self._set_available(True)

    @property
    def available(self) -> bool:
        """Whether readers can reach the log."""
        return self._available

    def _set_available(self, available: bool) -> None:
        with self._changed:
            self._available = available
            self._changed.notify_all()

    # For the reader; both need the lock.

    def _topic(self, name: str) -> _Topic:
        found = self._topics.get(name)
        if found is None:
            raise TopicMissing(f"topic {name} does not exist in memory")
        return found

    def _partition(self, at: TopicPartition) -> _Partition:
        partitions = self._topic(at.topic).partitions
        if at.partition >= len(partitions):
            raise TopicMissing(f"{at} does not exist in memory: the topic has {len(partitions)} partitions")
        return partitions[at.partition]

    @contextmanager
    def _reading(self) -> Iterator[threading.Condition]:
        with self._changed:
            if not self._available:
                raise SourceUnavailable("the log in memory was made unavailable")
            yield self._changed


class MemorySource:
    """A reader of a log in memory; see the protocol ``Source``."""

    form = RECORD_FORM

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str] = {}
        self._told: set[TopicPartition] = set()
        self.mirrored_positions: dict[TopicPartition, tuple[int, str]] = {}

    def cluster_id(self) -> str | None:
        """Return the log's own id; a new process has a new log."""
        with self._log._reading():
            return self._log.cluster_id

    def partitions(self, topic: str) -> list[TopicPartition]:
        """List the partitions of a topic, in order."""
        with self._log._reading():
            return [TopicPartition(topic, number) for number in range(len(self._log._topic(topic).partitions))]

    def topic_id(self, topic: str) -> str | None:
        """Tell one making of a topic from the next."""
        with self._log._reading():
            return self._log._topic(topic).id

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Look up where the logs of these partitions begin and end now."""
        with self._log._reading():
            found = {at: self._log._partition(at) for at in partitions}
            return {at: Bounds(log.begin, log.end) for at, log in found.items()}

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Find the first offset at or after a time, else the end."""
        with self._log._reading():
            return {at: _first_at(self._log._partition(at), timestamp_ms) for at in partitions}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read from these positions on; replaces what was assigned before."""
        self._positions = dict(positions)
        self._told.clear()
        with self._log._changed:
            topics = {at.topic for at in positions} & self._log._topics.keys()
            self._topic_ids = {name: self._log._topics[name].id for name in topics}

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        """Return what is there, up to about these limits; wait up to the timeout for the first."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._log._reading() as changed:
                fetched = self._take(events, size)
                left = deadline - time.monotonic()
                if fetched.records or fetched.reached or left <= 0:
                    return fetched
                changed.wait(left)

    def _take(self, events: int, size: int) -> Fetched:
        records: list[Record] = []
        reached: dict[TopicPartition, int] = {}
        # Each fetch begins with the partition after the one that the last began with.
        for at in list(self._positions):
            position = self._positions[at]
            log = self._checked(at, position)
            taken, length = _slice(log.records, position - log.begin, events - len(records), size)
            size -= length
            if taken:
                records += taken
                position += len(taken)
                self._positions[at] = position
                self._told.discard(at)
            if position == log.end and at not in self._told:
                self._told.add(at)
                reached[at] = position
        if len(self._positions) > 1:
            first = next(iter(self._positions))
            self._positions[first] = self._positions.pop(first)
        return Fetched(records, reached)

    def _checked(self, at: TopicPartition, position: int) -> _Partition:
        log = self._log._partition(at)
        topic_id = self._log._topic(at.topic).id
        if self._topic_ids.setdefault(at.topic, topic_id) != topic_id:
            raise TopicRecreated(f"topic {at.topic} was deleted and made again; reset the processor to go on")
        where = f"{at}: the position is {position}, the log spans {log.begin} to {log.end}"
        if position < log.begin:
            raise BehindRetention(f"{where}: {log.begin - position} offsets were deleted unread")
        if position > log.end:
            raise BeyondEnd(f"{where}: {position - log.end} offsets past the end")
        return log

    def mirror(self, positions: Mapping[TopicPartition, int], store_id: str) -> None:
        """Keep the positions where a test can look at them."""
        for at, position in positions.items():
            self.mirrored_positions[at] = (position, store_id)

    def letter_topic(self, name: str) -> LetterTopic:
        """Open a topic of the log for dead letters."""
        from .memory_letters import MemoryLetters

        return MemoryLetters(self._log, name)

    def close(self) -> None:
        """Forget the assignment."""
        self._positions = {}


def _slice(records: Sequence[Record], start: int, events: int, size: int) -> tuple[list[Record], int]:
    taken: list[Record] = []
    length = 0
    for index in range(start, min(start + events, len(records))):
        # The first one always fits, or a record larger than the limit would never be read.
        if length >= max(size, 1):
            break
        record = records[index]
        taken.append(record)
        length += len(record.value or b"") + len(record.key or b"")
    return (taken, length) if size > 0 else ([], 0)


def _first_at(log: _Partition, timestamp_ms: int) -> int:
    for record in log.records:
        if record.timestamp_ms is not None and record.timestamp_ms >= timestamp_ms:
            return record.offset
    return log.end


_logs: dict[str, MemoryLog] = {}
_logs_lock = threading.Lock()


def memory_log(name: str = "") -> MemoryLog:
    """Return the log that ``memory:NAME`` stands for in this process; made at the first call."""
    with _logs_lock:
        return _logs.setdefault(name, MemoryLog())
