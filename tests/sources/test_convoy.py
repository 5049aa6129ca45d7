"""Members of convoys: each gets exactly what its own source would have given it, whatever the others do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axe.errors import BehindRetention, SourceUnavailable, TopicRecreated
from axe.event import TopicPartition
from axe.sources import Fetched, Interrupted, convoy, member
from axe.sources.convoy import Chunk
from axe.sources.member import Convoys, Member
from axe.sources.memory import MemoryLog, MemorySource

TOPIC = "studies"
FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
START = {FIRST: 0, SECOND: 0}


class Spied(MemorySource):
    """A source in memory that counts its fetches of something, and in which threads."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.fetched = 0
        self.assigned: Mapping[TopicPartition, int] = {}
        self.threads: set[int] = set()

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.assigned = dict(positions)
        self.threads.add(threading.get_ident())
        super().assign(positions)

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        self.threads.add(threading.get_ident())
        fetched = super().fetch(events=events, size=size, timeout_s=timeout_s)
        self.fetched += len(fetched.records)
        return fetched


class Reader:
    """What a runner does with a source: assigns, fetches, and assigns anew when it is interrupted."""

    def __init__(
        self, log: MemoryLog, road: Convoys, positions: Mapping[TopicPartition, int] = START, *, knows: bool = False
    ) -> None:
        self.own = Spied(log)
        self.source: Member = road.member(self.own, "road")
        if knows:
            self.source.topic_id(TOPIC)
        self.interrupted = 0
        self.reached: dict[TopicPartition, int] = {}
        self.position: dict[TopicPartition, int] = {}
        self.assign(positions)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.position = dict(positions)
        self.reached.clear()
        self.source.assign(self.position)

    def fetch(self, events: int = 1000, timeout_s: float = 0.0) -> list[Any]:
        try:
            fetched = self.source.fetch(events=events, size=1_000_000, timeout_s=timeout_s)
        except (Interrupted, SourceUnavailable) as error:
            self.interrupted += isinstance(error, Interrupted)
            self.assign(self.position)
            return []
        assert len(fetched.records) <= events
        for record in fetched.records:
            assert record.offset == self.position[record.at], "a record is missing, or comes twice"
            self.position[record.at] = record.offset + 1
        for at, end in fetched.reached.items():
            assert end == self.position[at], "an end was told before the records in front of it"
            self.reached[at] = end
        return fetched.records


def log_of(*counts: int) -> MemoryLog:
    log = MemoryLog()
    log.create_topic(TOPIC, 2)
    for partition, count in enumerate(counts):
        append(log, partition, count)
    return log


def append(log: MemoryLog, partition: int, count: int) -> None:
    for _ in range(count):
        log.append(TOPIC, b"{}", partition=partition)


def drain(*readers: Reader, ends: Mapping[TopicPartition, int]) -> None:
    for _ in range(2000):
        if all(one.reached == ends for one in readers):
            return
        for one in readers:
            one.fetch()
    raise AssertionError([(one.position, one.reached) for one in readers])


def test_what_is_together_is_fetched_once() -> None:
    log, road = log_of(50, 30), Convoys()
    readers = [Reader(log, road) for _ in range(10)]

    drain(*readers, ends={FIRST: 50, SECOND: 30})

    assert sum(one.own.fetched for one in readers) == 80


def test_each_gets_the_very_same_records() -> None:
    log, road = log_of(5), Convoys()
    one, other = Reader(log, road), Reader(log, road)

    got = one.fetch()

    assert type(got) is Chunk
    assert other.fetch() is got


def test_who_wants_fewer_gets_parts() -> None:
    log, road = log_of(10), Convoys()
    one, other = Reader(log, road), Reader(log, road)

    one.fetch()

    assert [len(other.fetch(4)) for _ in range(3)] == [4, 4, 2]


def test_who_begins_does_not_make_the_others_fetch_one_by_one() -> None:
    log, road = log_of(10), Convoys()
    one, other = Reader(log, road), Reader(log, road)
    other.fetch(1000)
    append(log, 0, 10)

    assert one.fetch(1) != []
    assert sum(len(one.fetch(1000)) for _ in range(2)) == 19
    assert one.own.fetched == 20


def test_positions_that_are_near_begin_together() -> None:
    log, road = log_of(100, 100), Convoys()
    readers = [Reader(log, road, {FIRST: 40 - 7 * n, SECOND: 10 + 5 * n}) for n in range(5)]

    drain(*readers, ends={FIRST: 100, SECOND: 100})

    # From the lowest of each on, and once.
    assert sum(one.own.fetched for one in readers) == (100 - 12) + (100 - 10)


def test_positions_that_are_far_apart_are_read_apart_and_meet_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "_NEAR_EVENTS", 10)
    log, road = log_of(100, 0), Convoys()
    ahead, behind = Reader(log, road, {FIRST: 90, SECOND: 0}), Reader(log, road)
    drain(ahead, behind, ends={FIRST: 100, SECOND: 0})
    for _ in range(3):
        ahead.fetch()
        behind.fetch()
    fetched = ahead.own.fetched + behind.own.fetched

    append(log, 0, 5)
    drain(ahead, behind, ends={FIRST: 105, SECOND: 0})

    assert ahead.own.fetched + behind.own.fetched == fetched + 5


def left_behind(monkeypatch: pytest.MonkeyPatch) -> tuple[Reader, Reader]:
    """Make two of which one has read a hundred events and the other none, too many to be kept for it."""
    monkeypatch.setattr(convoy, "_KEPT_EVENTS", 10)
    log, road = log_of(), Convoys()
    quick, slow = Reader(log, road), Reader(log, road)
    for _ in range(20):
        append(log, 0, 5)
        quick.fetch()
    return quick, slow


def test_a_slow_one_is_left_behind_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = left_behind(monkeypatch)

    assert slow.fetch() == []
    assert slow.interrupted == 1
    drain(slow, ends={FIRST: 100, SECOND: 0})
    assert quick.position[FIRST] == 100


def test_a_slow_one_moves_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = left_behind(monkeypatch)
    slow.fetch()
    fetched = quick.own.fetched

    drain(slow, ends={FIRST: 100, SECOND: 0})
    drain(quick, ends={FIRST: 100, SECOND: 0})

    assert quick.own.fetched == fetched


def test_another_one_reads_when_the_reader_is_gone() -> None:
    log, road = log_of(5), Convoys()
    reader, other = Reader(log, road), Reader(log, road)
    reader.fetch()
    other.fetch()
    reader.source.close()
    append(log, 0, 5)

    drain(other, ends={FIRST: 10, SECOND: 0})


def test_another_one_reads_when_the_reader_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "_PATIENCE_S", 0.01)
    log, road = log_of(5), Convoys()
    reader, other = Reader(log, road), Reader(log, road)
    reader.fetch()
    other.fetch()
    append(log, 0, 5)

    for _ in range(20):
        other.fetch(timeout_s=0.02)
    assert other.position[FIRST] == 10
    assert reader.fetch() != []
    assert reader.own.assigned != {}
    reader.source._looked_at = 0.0
    reader.fetch()
    assert reader.own.assigned == {}


def test_a_reader_whose_batches_take_as_long_as_those_of_others_is_waited_for() -> None:
    log, road = log_of(5), Convoys()
    reader, other = Reader(log, road), Reader(log, road)
    drain(reader, other, ends={FIRST: 5, SECOND: 0})
    append(log, 0, 1)
    assert reader.fetch() == other.fetch() != []

    # As if both had been about their batches.
    reader.source.left_at -= 0.3
    other.source.left_at -= 0.3
    # A runner looks what is there, and then waits.
    other.fetch()
    other.fetch(timeout_s=0.02)

    assert other.interrupted == 0


def test_one_that_waits_hears_of_what_the_reader_brings() -> None:
    log, road = log_of(), Convoys()
    reader, other = Reader(log, road), Reader(log, road)
    drain(reader, other, ends={FIRST: 0, SECOND: 0})
    got: list[Any] = []
    threads = [threading.Thread(target=lambda one=one: got.extend(one.fetch(timeout_s=10))) for one in (reader, other)]
    for thread in threads:
        thread.start()
    append(log, 0, 1)
    for thread in threads:
        thread.join(5)

    assert len(got) == 2


def test_an_outage_reaches_everybody() -> None:
    log, road = log_of(5), Convoys()
    readers = [Reader(log, road).source for _ in range(3)]
    log.make_unavailable()

    for one in readers:
        with pytest.raises(SourceUnavailable):
            for _ in range(3):
                one.fetch(events=10, size=1000, timeout_s=0)


def test_an_error_of_the_position_is_the_readers_alone() -> None:
    log, road = log_of(10), Convoys()
    behind, other = Reader(log, road), Reader(log, road, {FIRST: 8, SECOND: 0})
    log.truncate_before(TOPIC, 5)

    with pytest.raises(BehindRetention):
        behind.source.fetch(events=10, size=1000, timeout_s=0)
    with pytest.raises(Interrupted):
        other.source.fetch(events=10, size=1000, timeout_s=0)
    other.assign(other.position)
    assert [record.offset for record in other.fetch()] == [8, 9]


def test_a_topic_made_anew_interrupts_the_others() -> None:
    log, road = log_of(10), Convoys()
    reader, other = Reader(log, road), Reader(log, road)
    log.recreate(TOPIC)

    with pytest.raises(TopicRecreated):
        reader.source.fetch(events=10, size=1000, timeout_s=0)
    with pytest.raises(Interrupted):
        other.source.fetch(events=10, size=1000, timeout_s=0)


def test_an_error_at_a_place_that_it_has_passed_is_nothing_to_a_reader() -> None:
    log, road = log_of(200), Convoys()
    behind, ahead = Reader(log, road), Reader(log, road, {FIRST: 100, SECOND: 0})
    behind.source.left_at = float("-inf")
    # It takes the place of the one behind, and reads from there.
    ahead.assign({FIRST: 100, SECOND: 0})
    assert ahead.own.assigned == START
    log.truncate_before(TOPIC, 50)

    drain(ahead, ends={FIRST: 200, SECOND: 0})


def test_one_that_fails_where_it_reads_moves_nobody_back() -> None:
    log, road = log_of(200), Convoys()
    ahead = Reader(log, road, {FIRST: 100, SECOND: 0})
    sick = Reader(log, road, {FIRST: 40, SECOND: 0})
    ahead.fetch(10)
    log.truncate_before(TOPIC, 50)
    with pytest.raises(BehindRetention):
        sick.source.fetch(events=10, size=1000, timeout_s=0)
    drain(ahead, ends={FIRST: 200, SECOND: 0})

    sick.assign({FIRST: 40, SECOND: 0})

    with pytest.raises(BehindRetention):
        sick.source.fetch(events=10, size=1000, timeout_s=0)
    interrupted = ahead.interrupted
    ahead.fetch()
    assert ahead.interrupted == interrupted


def test_a_topic_made_anew_is_another_road() -> None:
    log, road = log_of(10), Convoys()
    old = Reader(log, road, knows=True)
    drain(old, ends={FIRST: 10, SECOND: 0})
    log.recreate(TOPIC)
    append(log, 0, 20)

    new = Reader(log, road, knows=True)
    drain(new, ends={FIRST: 20, SECOND: 0})

    # Its source remembers which topic it was assigned.
    with pytest.raises(TopicRecreated):
        old.source.fetch(events=10, size=1000, timeout_s=0)


def test_a_topic_whose_identity_comes_with_its_first_event_is_the_same() -> None:
    log, road = log_of(10), Convoys()
    early, late = Reader(log, road), Reader(log, road, knows=True)

    drain(early, late, ends={FIRST: 10, SECOND: 0})

    assert early.own.fetched + late.own.fetched == 10


def test_what_is_kept_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "_KEPT_BYTES", 1000)
    log, road = log_of(), Convoys()
    quick, slow = Reader(log, road), Reader(log, road)
    for _ in range(20):
        log.append(TOPIC, b" " * 400)
        quick.fetch()

    assert slow.fetch() == []
    assert slow.interrupted == 1
    drain(slow, ends={FIRST: 20, SECOND: 0})


def test_other_partitions_are_another_convoy() -> None:
    log, road = log_of(10, 10), Convoys()
    one, both = Reader(log, road, {FIRST: 0}), Reader(log, road)

    drain(one, ends={FIRST: 10})
    drain(both, ends={FIRST: 10, SECOND: 10})


STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 1), st.integers(1, 6)),
    st.tuples(st.just("fetch"), st.integers(0, 3), st.sampled_from([1, 2, 3, 1000])),
    st.tuples(st.just("fetch"), st.integers(0, 3), st.sampled_from([1, 2, 3, 1000])),
    st.tuples(st.just("assign"), st.integers(0, 3), st.integers(0, 30)),
    st.tuples(st.just("outage"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("close"), st.integers(0, 3), st.just(0)),
)


@settings(deadline=None, max_examples=300)
@given(
    steps=st.lists(STEPS, max_size=60),
    kept=st.integers(1, 12),
    near=st.integers(0, 8),
    patience=st.sampled_from([-1.0, 1e9]),
    slow_s=st.sampled_from([-1.0, 1e9]),
)
def test_each_gets_every_record_once_and_in_order(
    steps: list[tuple[str, int, int]], kept: int, near: int, patience: float, slow_s: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("KEPT_EVENTS", kept), ("NEAR_EVENTS", near), ("PATIENCE_S", patience), ("SLOW_S", slow_s)):
            patch.setattr(member if name == "SLOW_S" else convoy, f"_{name}", value)
        patch.setattr(member, "_HEIR_S", 0.0)
        log, road = log_of(3, 3), Convoys()
        readers = [Reader(log, road) for _ in range(4)]
        written = [3, 3]
        for step, which, number in steps:
            match step:
                case "append":
                    append(log, which, number)
                    written[which] += number
                case "fetch":
                    readers[which].fetch(number)
                case "assign":
                    readers[which].assign({at: number % (written[at.partition] + 1) for at in START})
                case "outage":
                    log.make_unavailable()
                    for _ in range(number):
                        readers[which].fetch()
                    log.make_available()
                case "close":
                    readers[which].source.close()
                    readers[which] = Reader(log, road, readers[which].position)
        drain(*readers, ends={FIRST: written[0], SECOND: written[1]})


def test_many_threads_get_every_record_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "_KEPT_EVENTS", 200)
    monkeypatch.setattr(convoy, "_PATIENCE_S", 0.002)
    log, road = log_of(), Convoys()
    readers, faults, over = [Reader(log, road) for _ in range(6)], [], threading.Event()

    def read(number: int) -> None:
        one = readers[number]
        try:
            one.assign(START)
            while one.position != {FIRST: 3000, SECOND: 3000}:
                assert not over.is_set()
                one.fetch(1 + 50 * number, timeout_s=0.01)
                if number == 5:
                    over.wait(0.003)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        append(log, 0, 10)
        append(log, 1, 10)
    for thread in threads:
        thread.join(60)
    over.set()

    assert faults == []
    assert all(one.position == {FIRST: 3000, SECOND: 3000} for one in readers)
    # The main thread made them; from then on each was used by one.
    assert all(len(one.own.threads) <= 2 for one in readers)
