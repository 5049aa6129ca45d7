"""The loop of one processor, through ``axe.App`` and the log in memory."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import axe
from axe import Decision, Event, Failure, Reject, Rejection, State, TopicPartition, operations
from axe.errors import ConfigError, StoreUnavailable
from axe.sources import Fetched
from axe.sources.memory import MemorySource
from axe.store.transaction import Transaction

from .site import Keeping, KeepingChild, KeepingOne, Site, at, count, until


@pytest.fixture
def site(tmp_path: Path, topic: str) -> Site:
    return Site(tmp_path, topic)


# --- events


def test_every_event_takes_effect_once(site: Site) -> None:
    for n in range(2500):
        site.log.append(site.topic, n)

    site.run(count)
    site.run(count)

    assert site.values == {"n": 2500, "offsets": list(range(2500))}
    assert (site.offset, site.status) == (2500, "stopped")


def test_a_processor_gets_the_types_it_asked_for_and_moves_past_the_others(site: Site) -> None:
    for n in range(30):
        site.log.append(site.topic, {"n": n}, type=("created", "deleted", "other")[n % 3])
    site.log.append(site.topic, {"type": "created"})

    site.run(count, topics=(f"{site.topic}/created",))

    assert site.values["offsets"] == [*range(0, 30, 3), 30]
    assert site.offset == 31


def test_a_position_moves_though_every_event_is_filtered(site: Site) -> None:
    for n in range(30):
        site.log.append(site.topic, n, type="other")

    site.run(count, topics=(f"{site.topic}/created",))

    assert (site.offset, site.values) == (30, {})


def test_a_processor_reads_several_topics_and_partitions(site: Site) -> None:
    site.log.create_topic("a", 3)
    for n in range(30):
        site.log.append("a", n, partition=n % 3)
        site.log.append(site.topic, n)
    order: list[tuple[str, int, int]] = []

    site.run(lambda event: order.append((event.topic, event.partition, event.offset)), topics=("a", site.topic))

    assert sorted(order) == [("a", p, n) for p in range(3) for n in range(10)] + [(site.topic, 0, n) for n in range(30)]
    for partition in range(3):
        assert [n for t, p, n in order if (t, p) == ("a", partition)] == list(range(10))
    assert site.app.processors["p"].positions == {
        **{TopicPartition("a", p): 10 for p in range(3)},
        TopicPartition(site.topic, 0): 30,
    }
    with pytest.raises(ConfigError, match=r"\.positions"):
        _ = site.offset


def test_a_tombstone_is_an_event(site: Site) -> None:
    site.log.append(site.topic, None, key="k")
    seen: list[Any] = []

    site.run(lambda event: seen.append((event.key, event.value)))

    assert seen == [(b"k", None)]


def test_a_batch_handler_gets_every_event_once(site: Site) -> None:
    class Batches:
        @axe.hookimpl
        def on_batch(self, events: list[Event], state: State) -> None:
            for event in events:
                if event.value == 77:
                    raise Reject("77")
                state.setdefault("seen", []).append(event.value)

    for n in range(250):
        site.log.append(site.topic, n)

    site.run(Batches())

    assert site.values["seen"] == [n for n in range(250) if n != 77]
    assert site.dead_letters == [(77, "77")]


# --- rejections


def test_a_rejection_before_and_after_touching_anything_leaves_nothing_behind(site: Site) -> None:
    def handler(event: Event, state: State) -> None:
        if event.offset == 1:
            raise Reject("before")
        count(event, state)
        if event.offset == 3:
            raise Reject("after values")
        state["fresh"] = event.offset
        if event.offset == 5:
            raise Reject("after a new value")

    for n in range(8):
        site.log.append(site.topic, n)

    site.run(handler)

    assert site.values == {"n": 5, "offsets": [0, 2, 4, 6, 7], "fresh": 7}
    assert site.dead_letters == [(1, "before"), (3, "after values"), (5, "after a new value")]
    assert site.offset == 8


def test_a_rejection_after_sql_leaves_nothing_behind(site: Site) -> None:
    for n in range(300):
        site.log.append(site.topic, n)

    site.run(Keeping(at(7, 150, error=Reject)))

    assert site.seen == [n for n in range(300) if n not in (7, 150)]
    assert site.values == {"n": 298}
    assert [offset for offset, _ in site.dead_letters] == [7, 150]


def test_bytes_that_do_not_decode_are_kept_as_they_are(site: Site) -> None:
    site.log.append(site.topic, 1)
    site.log.append(site.topic, b"\xff{not json", key=b"\x00", headers=[("a", None), ("b", b"\xfe")], timestamp_ms=5)
    site.log.append(site.topic, 2)

    site.run(count)

    assert site.values["offsets"] == [0, 2]
    assert site.sql("SELECT key, value, headers, timestamp FROM axe_dead_letters") == [
        (b"\x00", b"\xff{not json", '[["a", null], ["b", "/g=="]]', "1970-01-01T00:00:00.005Z")
    ]


def test_on_reject_hears_of_it_after_the_commit(site: Site) -> None:
    found: list[int] = []
    for n in range(3):
        site.log.append(site.topic, n)
    site.add(Keeping(at(1, error=Reject)))
    site.app.on_reject(lambda rejection: found.append(len(site.dead_letters)))

    site.app.start(until_end=True)

    assert found == [1]
    assert [(str(r.record), r.processor, r.reason) for r in site.rejections] == [
        (f"{site.topic}[0]@1", "p", "sick at 1")
    ]


def test_a_reporter_that_raises_does_not_silence_the_next(site: Site) -> None:
    site.log.append(site.topic, 0)
    site.add(Keeping(at(0, error=Reject)))

    class Raising:
        @axe.hookimpl
        def on_reject(self, rejection: Rejection) -> None:
            raise RuntimeError("reporter")

    site.app.processors.bound()[0].hooks.register(Raising())

    site.app.start(until_end=True)

    assert len(site.rejections) == 1
    assert site.status == "stopped"


# --- failures


def failing_times(times: int, *offsets: int) -> tuple[Callable[[Event, State], None], dict[int, int]]:
    tries: dict[int, int] = {}

    def sick(event: Event, state: State) -> None:
        if event.offset in offsets:
            tries[event.offset] = tries.get(event.offset, 0) + 1
            if tries[event.offset] <= times:
                raise RuntimeError(f"try {tries[event.offset]}")

    return sick, tries


def test_a_failing_event_is_tried_again(site: Site) -> None:
    sick, _ = failing_times(2, 5)
    for n in range(10):
        site.log.append(site.topic, n)

    site.run(Keeping(sick))

    assert site.seen == list(range(10))
    assert (site.offset, site.status, site.dead_letters) == (10, "stopped", [])
    assert [(failure.attempt, failure.decision) for failure in site.failures] == [(1, Decision.RETRY)]


def test_the_processor_stops_at_an_event_that_keeps_failing(site: Site) -> None:
    for n in range(10):
        site.log.append(site.topic, n)

    site.run(Keeping(at(5)))

    assert site.seen == list(range(5))
    assert (site.offset, site.status, site.dead_letters) == (5, "failed", [])
    assert [(f.attempt, f.decision) for f in site.failures] == [(1, Decision.RETRY), (3, Decision.STOP)]
    assert "sick at 5" in site.sql("SELECT last_error FROM axe_processor")[0][0]

    site.run(Keeping())

    assert (site.seen, site.offset, site.status) == (list(range(10)), 10, "stopped")


def test_an_event_that_keeps_failing_is_set_aside_alone(site: Site) -> None:
    site.settings["on_failure"] = "reject"
    for n in range(300):
        site.log.append(site.topic, n)

    site.run(Keeping(at(5, 6, 200)))

    assert site.seen == [n for n in range(300) if n not in (5, 6, 200)]
    assert [offset for offset, _ in site.dead_letters] == [5, 6, 200]
    assert site.sql("SELECT DISTINCT attempts FROM axe_dead_letters") == [(3,)]
    assert [f.decision for f in site.failures] == [Decision.RETRY, Decision.REJECT] * 3
    assert site.status == "stopped"


def test_a_failing_event_can_pause_the_processor(site: Site) -> None:
    site.settings["on_failure"] = "pause"
    for n in range(10):
        site.log.append(site.topic, n)

    site.run(Keeping(at(5)))

    assert (site.offset, site.status, site.dead_letters) == (5, "paused", [])
    site.add(Keeping())
    site.operate(operations.resume)
    site.app.start(until_end=True)
    assert site.seen == list(range(10))


def test_the_decide_hook_decides(site: Site) -> None:
    class Deciding(Keeping):
        @axe.hookimpl
        def decide(self, failure: Failure) -> Decision | None:
            return Decision.REJECT if failure.attempt == 2 else None

    for n in range(5):
        site.log.append(site.topic, n)

    site.run(Deciding(at(3)))

    assert site.seen == [0, 1, 2, 4]
    assert [(f.attempt, f.decision) for f in site.failures] == [(1, Decision.RETRY), (2, Decision.REJECT)]


def test_a_decide_hook_that_answers_with_something_else_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Deciding(Keeping):
        @axe.hookimpl
        def decide(self, failure: Failure) -> Any:
            return "reject"

    site.log.append(site.topic, 0)

    site.run(Deciding(at(0)))

    assert "decide hook returned no Decision" in caplog.text
    assert site.status == "failed"


def succeeded(site: Site) -> bool:
    """Run to the end, and tell what a host would take for its exit code."""
    site.app._launch(until_end=True)
    [runner] = site.app._runners
    site.app._end()
    return runner.succeeded


def test_a_processor_that_paused_at_a_failure_did_not_succeed(site: Site) -> None:
    site.settings.update(on_failure="pause", retries=0)
    for n in range(3):
        site.log.append(site.topic, n)

    site.add(Keeping(at(1)))

    assert (succeeded(site), succeeded(site)) == (False, False)


def test_a_processor_that_a_person_paused_did(site: Site) -> None:
    site.log.append(site.topic, 0)
    site.run(count)
    site.operate(operations.pause)

    assert succeeded(site)


def test_on_reset_finds_what_on_start_makes(site: Site) -> None:
    class Emptying(Keeping):
        @axe.hookimpl
        def on_reset(self, state: State) -> None:
            super().on_reset(state)
            state.cursor.execute("DELETE FROM seen")

    for n in range(5):
        site.log.append(site.topic, n)
    handler = Emptying()
    site.add(handler)
    site.app.processors["p"].offset = 3

    site.app.start(until_end=True)

    assert (site.seen, site.status) == ([3, 4], "stopped")
    assert handler.calls[:2] == ["on_start", "on_reset"]


def test_waiting_does_not_end_with_an_empty_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that is still connecting has none yet: --until-end would never give up."""
    fetch, assign, commit = MemorySource.fetch, MemorySource.assign, Transaction.commit
    fresh: list[bool] = []

    def slowly(self: MemorySource, **given: Any) -> Fetched:
        return Fetched([], {}) if fresh and fresh.pop() else fetch(self, **given)

    def assigned(self: MemorySource, positions: Any) -> None:
        assign(self, positions)
        fresh.append(True)

    def full(self: Transaction) -> None:
        if self._moved:
            raise StoreUnavailable("the disk is full; make room")
        commit(self)

    monkeypatch.setattr(MemorySource, "fetch", slowly)
    monkeypatch.setattr(MemorySource, "assign", assigned)
    monkeypatch.setattr(Transaction, "commit", full)
    site.log.append(site.topic, 0)
    site.host["wait_s"] = 1

    site.run(count)

    assert "gave up waiting" in caplog.text


def test_two_thousand_retries_are_not_too_many(site: Site) -> None:
    site.settings["retries"] = 2000
    sick, tries = failing_times(1100, 1)
    for n in range(3):
        site.log.append(site.topic, n)

    site.run(Keeping(sick))

    assert (site.seen, tries, site.status) == ([0, 1, 2], {1: 1101}, "stopped")


@pytest.mark.parametrize("value", [{1, 2}, float("inf"), "\ud800"], ids=repr)
def test_a_value_that_json_cannot_hold_is_the_failure_of_its_event(site: Site, value: Any) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 5:
            state["bad"] = value

    site.settings["on_failure"] = "reject"
    for n in range(10):
        site.log.append(site.topic, n)

    site.run(Keeping(sick))

    assert site.seen == [n for n in range(10) if n != 5]
    assert "state['bad']" in site.dead_letters[0][1]


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    n: Mapped[int] = mapped_column(primary_key=True)


def _add_twice(event: Event, state: State) -> None:
    state.session.add(Row(n=7 if event.value == 9 else event.value))


@pytest.mark.parametrize("batch", ["", "many"], ids=["on_event", "on_batch"])
def test_a_flush_that_fails_belongs_to_its_event(site: Site, batch: str) -> None:
    class Starting:
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            Base.metadata.create_all(state.connection)

    class OneByOne(Starting):
        @axe.hookimpl
        def on_event(self, event: Event, state: State) -> None:
            _add_twice(event, state)

    class Many(Starting):
        @axe.hookimpl
        def on_batch(self, events: list[Event], state: State) -> None:
            for event in events:
                _add_twice(event, state)

    site.settings["on_failure"] = "reject"
    for n in range(20):
        site.log.append(site.topic, n)

    site.run(Many() if batch else OneByOne())

    assert [row[0] for row in site.sql("SELECT n FROM rows ORDER BY n")] == [n for n in range(20) if n != 9]
    assert [offset for offset, _ in site.dead_letters] == [9]


@pytest.mark.parametrize(
    "statement",
    ["COMMIT", "ROLLBACK", "INSERT INTO no_such_table VALUES (1)", "INSERT OR ROLLBACK INTO one VALUES (1)"],
)
def test_a_handler_that_swallows_a_database_error_loses_no_event(site: Site, statement: str) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 5:
            with contextlib.suppress(Exception):
                state.cursor.execute(statement)

    site.settings["on_failure"] = "reject"
    for n in range(10):
        site.log.append(site.topic, n)

    site.run(KeepingOne(sick))

    rejected = [offset for offset, _ in site.dead_letters]
    assert rejected in ([], [5])
    assert site.seen == [n for n in range(10) if n not in rejected]
    assert site.values == {"n": len(site.seen)}
    assert site.offset == 10


def test_an_event_that_ended_the_transaction_hides_no_failure_before_it(site: Site) -> None:
    """What was before it runs again, and may fail where it went well the first time."""
    calls: dict[int, int] = {}

    def sick(event: Event, state: State) -> None:
        calls[event.offset] = calls.get(event.offset, 0) + 1
        if event.offset == 6 and calls[6] <= 2:
            with contextlib.suppress(Exception):
                state.cursor.execute("INSERT OR ROLLBACK INTO one VALUES (1)")
        if event.offset == 3 and calls[3] == 3:
            raise RuntimeError("the third time only")

    for n in range(10):
        site.log.append(site.topic, n)

    site.run(KeepingOne(sick))

    assert (site.seen, site.offset, site.dead_letters) == (list(range(10)), 10, [])


# --- what people do meanwhile


def test_new_partitions_are_picked_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axe.upkeep._NEW_PARTITIONS_S", 0.1)
    site.log.create_topic(site.topic, 1)
    site.log.append(site.topic, 1)
    with site.add(count):
        until(lambda: site.values.get("n") == 1)
        topic = site.log._topics[site.topic]
        topic.partitions.append(type(topic.partitions[0])())
        site.log.append(site.topic, 2, partition=1)
        until(lambda: site.values.get("n") == 2)

    assert site.app.processors["p"].positions == {TopicPartition(site.topic, n): 1 for n in (0, 1)}


@pytest.mark.parametrize("target", [0, 4, "earliest", "latest", datetime(2020, 1, 1, 0, 0, 7, tzinfo=UTC)], ids=str)
@pytest.mark.parametrize("wipe", ["", "wipe"], ids=["keep", "wipe"])
def test_a_running_processor_can_be_reset(site: Site, target: Any, wipe: str) -> None:
    start = 1_577_836_800_000
    for n in range(10):
        site.log.append(site.topic, n, timestamp_ms=start + 1000 * n)
    handler = Keeping()
    with site.add(handler):
        until(lambda: site.offset == 10)
        site.app.processors["p"].reset(target, wipe=bool(wipe))
        until(lambda: "on_reset" in handler.calls)
        site.log.append(site.topic, 10, timestamp_ms=start + 10_000)
        until(lambda: site.offset == 11)

    again = {"earliest": 0, "latest": 10}.get(target, target) if not isinstance(target, datetime) else 7
    assert site.seen == ([] if wipe else list(range(10))) + list(range(again, 11))
    assert site.values == {"n": len(site.seen)}
    # What a wipe dropped is made again; else the start of the processor was its only one.
    assert handler.calls == ["on_start", "on_reset", *(["on_start"] if wipe else []), "on_stop"]
    assert len(site.sql("SELECT * FROM axe_audit")) == 1


def test_a_reset_in_the_middle_of_a_stream_loses_nothing_and_repeats_nothing(site: Site) -> None:
    with site.add(Keeping()):
        for n in range(3000):
            site.log.append(site.topic, n)
            if n % 1000 == 500:
                site.app.processors["p"].reset(0, wipe=True)
        until(lambda: site.offset == 3000)

    assert site.seen == list(range(3000))
    assert site.values == {"n": 3000}


def test_a_processor_can_be_paused_and_resumed_while_it_runs(site: Site) -> None:
    site.log.append(site.topic, 0)
    with site.add(count):
        until(lambda: site.offset == 1)
        site.operate(operations.pause)
        until(lambda: site.app._runners[0].status.value == "paused")
        site.log.append(site.topic, 1)
        assert site.offset == 1
        site.operate(operations.resume)
        until(lambda: site.offset == 2)

    assert site.values["offsets"] == [0, 1]


def test_a_failed_processor_goes_on_where_it_stopped_when_it_is_resumed(site: Site) -> None:
    broken = threading.Event()
    broken.set()

    def sick(event: Event, state: State) -> None:
        if event.offset == 3 and broken.is_set():
            raise RuntimeError("broken")

    for n in range(6):
        site.log.append(site.topic, n)
    with site.add(Keeping(sick)):
        until(lambda: site.app._runners[0].status.value == "failed")
        broken.clear()
        site.operate(operations.resume)
        until(lambda: site.offset == 6)

    assert site.seen == list(range(6))


def test_waiting_is_said_once_and_so_is_its_end(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="axe")
    site.log.append(site.topic, 0)
    with site.add(count):
        until(lambda: site.offset == 1)
        site.log.make_unavailable()
        until(lambda: site.app._runners[0].status.value == "waiting")
        time.sleep(1)  # several attempts
        site.log.make_available()
        site.log.append(site.topic, 1)
        until(lambda: site.offset == 2)

    said = [line.getMessage().split()[0] for line in caplog.records]
    assert (said.count("waiting"), said.count("going")) == (1, 1)


def test_a_stop_right_after_a_pause_is_orderly(site: Site) -> None:
    """The last word about filtered events must not be the end of the thread."""
    site.log.create_topic(site.topic)
    with site.add(count, topics=(f"{site.topic}/wanted",)):
        until(lambda: site.app._runners[0].status.value == "running")
        for n in range(50):
            site.log.append(site.topic, n, type="other")
        until(lambda: site.app._runners[0]._reading.next.get(TopicPartition(site.topic, 0)) == 50)
        site.operate(operations.pause)

    assert site.sql("SELECT count(*) FROM axe_workers") == [(0,)]


def test_a_raised_version_is_refused_by_name_until_the_state_is_built_anew(site: Site) -> None:
    site.log.append(site.topic, 0)
    site.run(count, version=1)

    site.run(count, version=2)

    assert (site.status, site.values["n"]) == ("failed", 1)
    assert "version 1" in str(site.failures[-1].exception)
    assert "axe reset p --to earliest --wipe" in str(site.failures[-1].exception)
    site.app.processors["p"].reset("earliest", wipe=True)
    site.app.start(until_end=True)
    assert (site.status, site.values) == ("stopped", {"n": 1, "offsets": [0]})


def test_the_time_of_the_last_event_belongs_to_the_position(site: Site) -> None:
    """Neither that of an event behind a failure, nor that of another partition's."""
    site.log.create_topic(site.topic, 2)
    for n in range(6):
        site.log.append(site.topic, n, partition=n % 2, timestamp_ms=1_000_000 * n)

    site.run(Keeping(at(2)))

    stored = site.sql("SELECT partition, position, event_at FROM axe_offsets")
    assert 2 in (position for _, position, _ in stored)
    for partition, position, event_at in stored:
        last = datetime.fromtimestamp(1000 * (2 * (position - 1) + partition), UTC)
        assert event_at is None if position == 0 else datetime.fromisoformat(event_at) == last


def test_a_retry_commits_and_reports_nothing(site: Site) -> None:
    class Reporting(Keeping):
        def __init__(self, sick: Callable[[Event, State], object]) -> None:
            super().__init__(sick)
            self.reports: list[int] = []

        @axe.hookimpl
        def on_commit(self, report: axe.event.CommitReport) -> None:
            self.reports.append(report.events)

    sick, _ = failing_times(2, 0)
    handler = Reporting(sick)
    for n in range(3):
        site.log.append(site.topic, n)

    site.run(handler)

    assert 0 not in handler.reports
    assert sum(handler.reports) == 3


def test_a_retry_of_what_the_database_refuses_at_the_commit_runs_no_neighbour_again(site: Site) -> None:
    calls: list[int] = []

    def sick(event: Event, state: State) -> None:
        calls.append(event.offset)
        if event.offset == 700:
            state.connection.exec_driver_sql("INSERT INTO child VALUES (99)")

    site.settings.update(retries=5, on_failure="reject")
    for n in range(1000):
        site.log.append(site.topic, n)

    site.run(KeepingChild(sick))

    assert [offset for offset, _ in site.dead_letters] == [700]
    first, last = calls.index(700), len(calls) - calls[::-1].index(700)
    tries = [offset for offset in calls[first:last] if offset != 700]
    assert len(calls) < 6000, "as if each retry looked for the event anew"
    assert calls[last - 5 : last] == [700] * 5, tries[-5:]


def test_a_status_does_not_swing_while_a_disk_is_full(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Event()
    commit = Transaction.commit

    def commit_unless_full(self: Transaction) -> None:
        # What adopts is small, and finds room.
        if full.is_set() and self._moved:
            raise StoreUnavailable("the disk is full; make room")
        commit(self)

    monkeypatch.setattr(Transaction, "commit", commit_unless_full)
    site.log.append(site.topic, 0)
    with site.add(count):
        until(lambda: site.offset == 1)
        full.set()
        site.log.append(site.topic, 1)
        until(lambda: site.status == "waiting")
        seen = set()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            seen.add((site.status, site.app._runners[0].status.value))
        full.clear()
        until(lambda: site.offset == 2)
        until(lambda: site.status == "running")

    assert seen == {("waiting", "waiting")}


@pytest.mark.parametrize("harm", ["deleted", "replaced"])
def test_nothing_is_written_into_a_database_that_is_gone(site: Site, harm: str) -> None:
    database = site.folder / "state" / "p.db"
    site.log.append(site.topic, 0)
    with site.add(count):
        until(lambda: site.offset == 1)
        aside = database.rename(database.with_suffix(".aside"))
        if harm == "replaced":
            database.write_bytes(aside.read_bytes())
        site.log.append(site.topic, 1)
        until(lambda: site.app._runners[0].status.value == "failed")
        error = site.app._runners[0].error

    assert ("is gone" if harm == "deleted" else "was replaced") in str(error)


def test_an_error_that_was_waited_for_is_forgotten_when_it_is_over(site: Site) -> None:
    site.log.append(site.topic, 0)
    with site.add(count):
        until(lambda: site.offset == 1)
        site.log.make_unavailable()
        until(lambda: site.status == "waiting")
        assert site.sql("SELECT last_error FROM axe_processor")[0][0]
        site.log.make_available()
        site.log.append(site.topic, 1)
        until(lambda: site.status == "running")

    assert site.sql("SELECT last_error FROM axe_processor") == [(None,)]


def test_what_was_held_before_is_said_at_the_next_start(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.log.append(site.topic, 0)
    site.run(count)
    site.operate(operations.pause)

    site.app.start(until_end=True)

    assert "processor is held" in caplog.text
    assert "axe resume p" in caplog.text


def test_a_flood_of_rejections_is_summed_up_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.settings["flood"] = {"share": 1}
    for _ in range(2000):
        site.log.append(site.topic, b"junk")
    commits = []

    class Handler:
        @axe.hookimpl
        def on_event(self) -> None:
            """Get none: each is refused before."""

        @axe.hookimpl
        def on_commit(self) -> None:
            commits.append(1)

    site.run(Handler())

    assert len(site.dead_letters) == 2000
    said = [line.getMessage() for line in caplog.records]
    assert sum("event rejected" in line for line in said) <= 3 * len(commits)
    assert sum("more events" in line for line in said) <= len(commits)
    numbers = [int(line.partition("events=")[2].split()[0]) for line in said if "more events" in line]
    assert sum(numbers) + sum("event rejected" in line for line in said) == 2000


# --- the face


def test_the_offset_counts_what_is_behind_and_can_be_set(site: Site) -> None:
    for n in range(50):
        site.log.append(site.topic, n)
    site.add(count)
    assert (site.offset, site.app.processors["p"].positions, site.values) == (0, {}, {})

    site.app.start(until_end=True)
    assert site.offset == 50

    site.app.processors["p"].offset = 0
    assert site.offset == 0
    site.app.start(until_end=True)
    assert (site.offset, site.values["n"]) == (50, 100)
    for outside in (51, -1):
        with pytest.raises(ConfigError, match="outside"):
            site.app.processors["p"].offset = outside
    site.app.topics[site.topic].reset(49)
    assert site.offset == 49


def test_an_offset_may_be_set_before_the_first_start(site: Site) -> None:
    for n in range(5):
        site.log.append(site.topic, n)
    site.add(count)
    site.app.processors["p"].offset = 3

    site.app.start(until_end=True)

    assert site.values["offsets"] == [3, 4]


def test_a_broken_on_start_fails_before_the_first_event(site: Site) -> None:
    class Broken(Keeping):
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            state["half"] = 1
            raise RuntimeError("no table")

    site.log.append(site.topic, 0)

    site.run(Broken())

    assert (site.status, site.values, site.offset) == ("failed", {}, 0)


def test_an_on_reset_whose_work_was_rolled_back_is_still_to_be_done(site: Site) -> None:
    """A swallowed error that ends the transaction must not leave the reset behind as done."""

    class Swallowing(Keeping):
        @axe.hookimpl
        def on_reset(self, state: State) -> None:
            super().on_reset(state)
            state.cursor.execute("CREATE TABLE one (n integer UNIQUE)")
            state.cursor.execute("INSERT INTO one VALUES (1)")
            if len(self.calls) == 1:
                with contextlib.suppress(Exception):
                    state.cursor.execute("INSERT OR ROLLBACK INTO one VALUES (1)")

    site.log.append(site.topic, 0)
    site.run(Keeping())
    site.app.processors["p"].reset(0, wipe=True)
    handler = Swallowing()

    site.run(handler)
    assert site.status == "failed"
    site.run(handler)

    assert (site.status, site.seen) == ("stopped", [0])
    assert handler.calls.count("on_reset") == 2


# --- any list of events

KINDS = st.sampled_from(
    ["ok", "reject", "reject after values", "reject after sql", "fail once", "fail twice", "junk", "die"]
)


@given(kinds=st.lists(KINDS, max_size=30), batch=st.integers(1, 40), policy=st.sampled_from(["reject", "stop"]))
@settings(max_examples=40, deadline=None)
def test_any_list_of_events_leaves_what_a_simple_model_says(kinds: list[str], batch: int, policy: str) -> None:
    tries: dict[int, int] = {}

    def handler(event: Event, state: State) -> None:
        kind = event.value
        if kind == "reject":
            raise Reject(kind)
        state["chain"] = [*state.get("chain", []), event.offset]
        state.setdefault("kinds", {}).setdefault(kind, []).append(event.offset)
        if kind == "reject after values":
            raise Reject(kind)
        state.cursor.execute("INSERT INTO seen (n) VALUES (?)", (event.offset,))
        if kind == "reject after sql":
            raise Reject(kind)
        tries[event.offset] = tries.get(event.offset, 0) + 1
        if kind == "die" or tries[event.offset] <= {"fail once": 1, "fail twice": 2}.get(kind, 0):
            raise RuntimeError(kind)

    class Handler:
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            state.cursor.execute("CREATE TABLE IF NOT EXISTS seen (n integer, at integer PRIMARY KEY)")

        @axe.hookimpl
        def on_event(self, event: Event, state: State) -> None:
            handler(event, state)

    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), f"any-{folder}", batch={"events": batch}, on_failure=policy)
        site.log.create_topic("t")
        for kind in kinds:
            site.log.append("t", b"{junk" if kind == "junk" else kind)
        site.run(Handler(), topics=("t",))

        end = kinds.index("die") if policy == "stop" and "die" in kinds else len(kinds)
        good = [n for n, kind in enumerate(kinds[:end]) if kind in ("ok", "fail once", "fail twice")]
        bad = [n for n, kind in enumerate(kinds[:end]) if n not in good]
        assert site.offset == end
        assert site.seen == good
        assert site.values.get("chain", []) == good
        assert sorted(n for found in site.values.get("kinds", {}).values() for n in found) == good
        assert [offset for offset, _ in site.dead_letters] == bad
        assert sorted(r.record.offset for r in site.rejections) == bad
        assert site.status == ("stopped" if end == len(kinds) else "failed")
