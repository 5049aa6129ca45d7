"""What every source does, run against each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from axe.errors import BeyondEnd, TopicMissing, TopicRecreated
from axe.event import TopicPartition
from axe.sources import Bounds, Source, open_source
from axe.sources.member import Convoys
from axe.sources.memory import memory_log

from ..services.kafka import KafkaBroker
from .reading import fetch_some, read_to_end, wait_for_error


class Log(Protocol):
    """How a test writes what a source shall read."""

    def create(self, topic: str, partitions: int = 1) -> None: ...
    def append(self, topic: str, *values: bytes | None, partition: int = 0) -> None: ...
    def recreate(self, topic: str) -> None: ...
    def open(self) -> Source: ...


class KafkaLog:
    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker

    def create(self, topic: str, partitions: int = 1) -> None:
        self._broker.create_topic(topic, partitions)

    def append(self, topic: str, *values: bytes | None, partition: int = 0) -> None:
        self._broker.produce(topic, *values, partition=partition)

    def recreate(self, topic: str) -> None:
        self._broker.delete_topic(topic)
        self._broker.create_topic(topic)

    def open(self) -> Source:
        url = f"kafka://{self._broker.bootstrap}"
        return open_source(url, group="axe.tests", properties={}, client_id="tests", base=Path())


class FolderLog:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, topic: str, partition: int) -> Path:
        single = self._folder / f"{topic}.jsonl"
        return single if single.exists() else self._folder / topic / f"{partition}.jsonl"

    def create(self, topic: str, partitions: int = 1) -> None:
        if partitions > 1:
            (self._folder / topic).mkdir()
        for number in range(partitions):
            name = f"{topic}.jsonl" if partitions == 1 else f"{topic}/{number}.jsonl"
            (self._folder / name).touch()

    def append(self, topic: str, *values: bytes | None, partition: int = 0) -> None:
        with self._file(topic, partition).open("ab") as file:
            for value in values:
                file.write((b"null" if value is None else value) + b"\n")

    def recreate(self, topic: str) -> None:
        self._file(topic, 0).write_bytes(b"")

    def open(self) -> Source:
        return open_source("file:.", group="", properties={}, client_id="tests", base=self._folder)


class MemoryLogs:
    def __init__(self, name: str) -> None:
        self._name = name
        self._log = memory_log(name)

    def create(self, topic: str, partitions: int = 1) -> None:
        self._log.create_topic(topic, partitions)

    def append(self, topic: str, *values: bytes | None, partition: int = 0) -> None:
        for value in values:
            self._log.append(topic, value, partition=partition)

    def recreate(self, topic: str) -> None:
        self._log.recreate(topic)

    def open(self) -> Source:
        return open_source(f"memory:{self._name}", group="", properties={}, client_id="tests", base=Path())


class TogetherLog(KafkaLog):
    """Kafka, as a member of a convoy reads it."""

    def __init__(self, broker: KafkaBroker) -> None:
        super().__init__(broker)
        self._convoys = Convoys()

    def open(self) -> Source:
        return self._convoys.member(super().open(), "road")


@pytest.fixture(params=["kafka", "kafka, together", "folder", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Log:
    match request.param:
        case "kafka":
            return KafkaLog(request.getfixturevalue("kafka"))
        case "kafka, together":
            return TogetherLog(request.getfixturevalue("kafka"))
        case "folder":
            return FolderLog(tmp_path)
        case _:
            return MemoryLogs(topic)


@pytest.fixture
def source(log: Log) -> Iterator[Source]:
    opened = log.open()
    yield opened
    opened.close()


def test_records_come_in_order_from_the_assigned_position(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, *(b"%d" % number for number in range(10)))
    at = TopicPartition(topic, 0)

    source.assign({at: 4})
    records, reached = read_to_end(source, [at])

    assert [(record.offset, record.value) for record in records] == [(n, b"%d" % n) for n in range(4, 10)]
    assert {record.at for record in records} == {at}
    assert reached == {at: 10}


def test_a_tombstone_and_an_empty_value_are_records(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"a", None, b"", b"b", None)
    at = TopicPartition(topic, 0)

    source.assign({at: 0})
    records, _ = read_to_end(source, [at])

    assert [record.value for record in records] == [b"a", None, b"", b"b", None]


def test_all_partitions_of_a_topic_are_listed_in_order(log: Log, source: Source, topic: str) -> None:
    log.create(topic, 12)

    assert source.partitions(topic) == [TopicPartition(topic, number) for number in range(12)]


def test_a_missing_topic_is_named_and_not_created(log: Log, source: Source, topic: str) -> None:
    for _ in range(2):
        with pytest.raises(TopicMissing, match=topic):
            source.partitions(topic)


def test_a_missing_topic_is_found_once_it_is_made(log: Log, source: Source, topic: str) -> None:
    with pytest.raises(TopicMissing, match=topic):
        source.partitions(topic)

    log.create(topic)

    # A broker may answer from what it knew a moment ago.
    deadline = time.monotonic() + 10
    while True:
        try:
            found = source.partitions(topic)
            break
        except TopicMissing:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert found == [TopicPartition(topic, 0)]


def test_bounds_tell_where_the_logs_begin_and_end(log: Log, source: Source, topic: str) -> None:
    log.create(topic, 3)
    log.append(topic, b"a", b"b", partition=1)
    empty, filled = TopicPartition(topic, 0), TopicPartition(topic, 1)

    assert source.bounds([empty, filled]) == {empty: Bounds(0, 0), filled: Bounds(0, 2)}

    log.append(topic, b"c", partition=1)
    assert source.bounds([filled]) == {filled: Bounds(0, 3)}


def test_the_bounds_of_no_partitions_are_empty(source: Source) -> None:
    assert source.bounds([]) == {}


def test_the_end_of_an_empty_partition_is_reached_at_once(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    at = TopicPartition(topic, 0)

    source.assign({at: 0})

    assert read_to_end(source, [at]) == ([], {at: 0})


def test_every_partition_is_read_to_its_end(log: Log, source: Source, topic: str) -> None:
    log.create(topic, 3)
    for partition in range(3):
        log.append(topic, *(b"%d" % number for number in range(partition * 50)), partition=partition)
    partitions = source.partitions(topic)

    source.assign(dict.fromkeys(partitions, 0))
    records, reached = read_to_end(source, partitions, events=7)

    assert reached == {at: at.partition * 50 for at in partitions}
    for at in partitions:
        assert [record.offset for record in records if record.at == at] == list(range(at.partition * 50))


def test_no_more_events_come_than_were_asked_for(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, *(b"%d" % number for number in range(50)))
    source.assign({TopicPartition(topic, 0): 0})

    sizes: list[int] = []
    while sum(sizes) < 50:
        sizes.append(len(source.fetch(events=8, size=1_000_000, timeout_s=5).records))

    assert max(sizes) <= 8


def test_the_bytes_of_a_fetch_are_bounded(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, *[b"x" * 10_000] * 100)
    at = TopicPartition(topic, 0)
    source.assign({at: 0})
    # The mean size is learnt from the first records.
    read = len(source.fetch(events=1, size=1_000_000, timeout_s=5).records)

    while read < 100:
        fetched = source.fetch(events=100, size=100_000, timeout_s=5).records
        assert len(fetched) <= 20
        read += len(fetched)


def test_a_record_larger_than_the_limit_still_comes(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"x" * 100_000, b"y")
    at = TopicPartition(topic, 0)

    source.assign({at: 0})
    records, _ = read_to_end(source, [at], size=10)

    assert [len(record.value or b"") for record in records] == [100_000, 1]


def test_a_waiting_reader_gets_what_is_appended(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    at = TopicPartition(topic, 0)
    source.assign({at: 0})
    read_to_end(source, [at])

    writer = threading.Thread(target=lambda: log.append(topic, b"late"))
    writer.start()
    fetched = source.fetch(events=10, size=1000, timeout_s=20)
    writer.join()

    assert [(record.offset, record.value) for record in map(source.form.record, fetched.records)] == [(0, b"late")]


def test_a_quiet_fetch_returns_after_its_timeout(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    at = TopicPartition(topic, 0)
    source.assign({at: 0})
    read_to_end(source, [at])

    began = time.monotonic()
    fetched = source.fetch(events=10, size=1000, timeout_s=0.3)

    assert not fetched.records
    # Far from for ever, on a slow machine too.
    assert 0.25 < time.monotonic() - began < 20


def test_a_new_assignment_replaces_the_old_one(log: Log, source: Source, topic: str) -> None:
    log.create(topic, 2)
    log.append(topic, b"a", b"b", b"c", partition=0)
    log.append(topic, b"d", partition=1)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source.assign({first: 0})
    fetch_some(source, 2)

    source.assign({first: 1, second: 0})
    records, _ = read_to_end(source, [first, second])
    assert sorted((record.partition, record.offset) for record in records) == [(0, 1), (0, 2), (1, 0)]

    source.assign({second: 1})
    assert read_to_end(source, [second]) == ([], {second: 1})


def test_the_empty_assignment_reads_nothing(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"a")
    source.assign({TopicPartition(topic, 0): 0})

    source.assign({})

    assert source.fetch(events=10, size=1000, timeout_s=0.2) == ([], {})


def test_a_position_beyond_the_end_is_refused_with_the_numbers(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"a", b"b")

    source.assign({TopicPartition(topic, 0): 50})
    error = wait_for_error(source, BeyondEnd)

    for part in (f"{topic}[0]", "50", "2", "48"):
        assert part in str(error)


def test_the_topic_id_stays_while_records_are_appended(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"a")
    before = source.topic_id(topic)

    log.append(topic, b"b", b"c")

    assert before is not None
    assert source.topic_id(topic) == before


def test_a_topic_made_again_has_another_id(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"a")
    before = source.topic_id(topic)

    log.recreate(topic)
    log.append(topic, b"other")

    assert source.topic_id(topic) not in (before, None)


def test_a_topic_made_again_under_a_reader_is_noticed(log: Log, source: Source, topic: str) -> None:
    log.create(topic)
    log.append(topic, b"a", b"b", b"c")
    at = TopicPartition(topic, 0)
    source.topic_id(topic)
    source.assign({at: 0})
    read_to_end(source, [at])

    log.recreate(topic)
    log.append(topic, b"other", b"records", b"more", b"than", b"before")

    wait_for_error(source, TopicRecreated)


def test_the_id_of_a_missing_topic_cannot_be_told(source: Source, topic: str) -> None:
    with pytest.raises(TopicMissing, match=topic):
        source.topic_id(topic)


def test_two_readers_see_the_same_cluster(log: Log, source: Source) -> None:
    other = log.open()

    assert source.cluster_id() == other.cluster_id()
    assert source.cluster_id()

    other.close()


def test_mirroring_never_raises(log: Log, source: Source, topic: str) -> None:
    source.mirror({TopicPartition(topic, 0): 7}, "store-1")


def test_closing_twice_is_safe(source: Source) -> None:
    source.close()
    source.close()


def test_offsets_by_time_are_the_first_at_or_after(log: Log, source: Source, topic: str) -> None:
    if isinstance(log, FolderLog):
        pytest.skip("lines have no time")
    log.create(topic)
    log.append(topic, b"a", b"b")
    at = TopicPartition(topic, 0)

    assert source.offsets_at([at], 0) == {at: 0}
    assert source.offsets_at([at], int((time.time() + 3600) * 1000)) == {at: 2}
