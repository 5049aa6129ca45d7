"""What only the log in memory does."""

from __future__ import annotations

import threading

import pytest

from axe.errors import BehindRetention, SourceUnavailable, TopicMissing
from axe.event import TopicPartition
from axe.sources import Bounds
from axe.sources.memory import MemoryLog, MemorySource, memory_log

from .reading import fetch_some, read_to_end

STUDIES = TopicPartition("studies", 0)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def source(log: MemoryLog) -> MemorySource:
    return MemorySource(log)


def test_values_become_bytes_or_tombstones(log: MemoryLog, source: MemorySource) -> None:
    for value in (b"raw", None, {"phase": "II"}, "text", 0):
        log.append("studies", value)

    source.assign({STUDIES: 0})

    assert [record.value for record in read_to_end(source, [STUDIES])[0]] == [
        b"raw",
        None,
        b'{"phase":"II"}',
        b'"text"',
        b"0",
    ]


def test_a_type_is_a_header_of_that_name(log: MemoryLog) -> None:
    record = log.append("studies", {}, key="k", headers=[("a", None)], timestamp_ms=5, type="study_created")

    assert record.headers == (("a", None), ("type", b"study_created"))
    assert (record.key, record.timestamp_ms) == (b"k", 5)


def test_an_outage_is_seen_and_ends(log: MemoryLog, source: MemorySource) -> None:
    log.append("studies", 1)
    source.assign({STUDIES: 0})

    log.make_unavailable()
    with pytest.raises(SourceUnavailable):
        source.fetch(events=1, size=1, timeout_s=0)
    log.make_available()

    assert log.available
    assert fetch_some(source)[0].value == b"1"


def test_an_outage_wakes_a_waiting_reader(log: MemoryLog, source: MemorySource) -> None:
    log.append("studies", 1)
    source.assign({STUDIES: 0})
    read_to_end(source, [STUDIES])

    outage = threading.Timer(0.05, log.make_unavailable)
    outage.start()
    with pytest.raises(SourceUnavailable):
        source.fetch(events=1, size=1, timeout_s=30)
    outage.join()


def test_a_position_before_the_begin_is_refused(log: MemoryLog, source: MemorySource) -> None:
    for number in range(5):
        log.append("studies", number)
    log.truncate_before("studies", 3)

    assert source.bounds([STUDIES]) == {STUDIES: Bounds(3, 5)}
    source.assign({STUDIES: 1})
    with pytest.raises(BehindRetention, match="2 offsets"):
        source.fetch(events=1, size=1, timeout_s=0)

    source.assign({STUDIES: 3})
    assert [record.offset for record in fetch_some(source, 2)] == [3, 4]
    assert log.append("studies", 5).offset == 5


def test_a_name_stands_for_one_log_in_the_process(topic: str) -> None:
    assert memory_log(topic) is memory_log(topic)
    assert memory_log(topic).cluster_id != memory_log(topic + "-other").cluster_id


def test_a_partition_that_is_not_there_is_refused(log: MemoryLog) -> None:
    with pytest.raises(TopicMissing, match="1 partition"):
        log.append("studies", 1, partition=3)


def test_mirrored_positions_can_be_looked_at(source: MemorySource) -> None:
    source.mirror({STUDIES: 4}, "store-1")

    assert source.mirrored_positions == {STUDIES: (4, "store-1")}
