"""Retries of dead letters: in the handler's own transaction, before further batches, each once."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import Event, Reject, State, operations
from axe.errors import AxeError, SourceUnavailable
from axe.store import Letters, Store

from .site import Keeping, KeepingChild, KeepingOne, Site, at, until

ALL = Letters()


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Site:
    state = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Site(tmp_path, topic, state=state)


@pytest.fixture
def sqlite(tmp_path: Path, topic: str) -> Site:
    return Site(tmp_path, topic)


def refusing(*offsets: int) -> Callable[[Event, State], None]:
    def sick(event: Event, state: State) -> None:
        if event.offset in offsets:
            raise Reject(f"no {event.offset}")

    return sick


def letters(site: Site) -> list[tuple[Any, ...]]:
    """Offset, status, reason and attempts of each."""
    return site.sql('SELECT "offset", status, reason, attempts FROM axe_dead_letters ORDER BY "offset"')


def history(site: Site) -> list[str]:
    return [action for (action,) in site.sql("SELECT action FROM axe_audit ORDER BY id")]


def put(site: Site, *values: object, **more: Any) -> None:
    for value in values:
        site.log.append(site.topic, value, **more)


def retry(site: Site, which: Letters = ALL) -> list[int]:
    marked: list[int] = []
    site.operate(lambda store: marked.extend(operations.retry(store, which)))
    return marked


def statuses(site: Site) -> list[tuple[int, str]]:
    return [(offset, status) for offset, status, *_ in letters(site)]


def test_a_retried_letter_takes_effect_once_and_before_further_batches(site: Site) -> None:
    put(site, *range(6))
    site.run(Keeping(refusing(2, 4)))
    assert retry(site) == [1, 2]
    put(site, 6)

    for _ in range(2):
        site.run(Keeping())

    assert site.seen == [0, 1, 3, 5, 2, 4, 6]
    assert site.values == {"n": 7}
    assert statuses(site) == [(2, "retried"), (4, "retried")]
    assert (site.offset, site.status) == (7, "stopped")
    assert history(site) == ["retry", "retried", "retried"]


def test_it_sees_the_bytes_headers_and_time_of_the_event(sqlite: Site) -> None:
    sqlite.log.append(sqlite.topic, {"a": 1}, key="k", headers=[("h", b"\xff")], timestamp_ms=1_700_000_000_123)
    seen: list[axe.Record] = []

    def handler(event: Event) -> None:
        seen.append(event.record)
        if len(seen) == 1:
            raise Reject("not yet")

    sqlite.run(handler)
    retry(sqlite)
    sqlite.run(handler)

    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_a_running_worker_retries_at_once_and_goes_on_without_a_new_start(site: Site) -> None:
    put(site, *range(4))
    sick = {1, 3}

    def refuse(event: Event, state: State) -> None:
        if event.offset in sick:
            raise Reject("no")

    handler = Keeping(refuse)
    with site.add(handler):
        until(lambda: site.offset == 4)
        sick.clear()
        retry(site)
        until(lambda: statuses(site) == [(1, "retried"), (3, "retried")])
        put(site, 4)
        until(lambda: site.offset == 5)

    assert (site.seen, site.values) == ([0, 2, 1, 3, 4], {"n": 5})
    assert handler.calls == ["on_start", "on_stop"]
    assert site.sql("SELECT pending FROM axe_processor") == [(None,)]


def test_what_is_refused_again_stays_rejected_for_its_new_reason(site: Site) -> None:
    put(site, *range(3))
    site.run(Keeping(refusing(1)))
    retry(site)
    site.rejections.clear()

    def sick(event: Event, state: State) -> None:
        raise Reject("still not")

    for _ in range(2):
        site.run(Keeping(sick))

    assert letters(site) == [(1, "rejected", "still not", 2)]
    assert (site.seen, site.values) == ([0, 2], {"n": 2})
    assert [(one.record.offset, one.reason, one.attempts) for one in site.rejections] == [(1, "still not", 2)]
    assert site.failures == []
    assert history(site) == ["retry", "retry failed"]
    ((before, after),) = site.sql("SELECT before, after FROM axe_audit WHERE action = 'retry failed'")
    assert json.loads(before)["reason"] == "no 1"
    assert json.loads(after) == {"rejected": "1", "reason": "still not", "attempts": 2}


def test_what_fails_is_undone_and_told_to_both_kinds_of_hooks(site: Site) -> None:
    put(site, *range(3))
    site.run(Keeping(refusing(1)), version=3)
    retry(site)
    site.rejections.clear()

    site.run(Keeping(at(1)), version=3)

    assert letters(site) == [(1, "rejected", "RuntimeError: sick at 1", 2)]
    assert "in sick" in site.sql("SELECT error FROM axe_dead_letters")[0][0]
    assert site.sql("SELECT version FROM axe_dead_letters") == [(3,)]
    assert (site.seen, site.values, site.status) == ([0, 2], {"n": 2}, "stopped")
    (failure,) = site.failures
    assert (failure.attempt, failure.decision) == (2, axe.Decision.REJECT)
    assert [one.reason for one in site.rejections] == ["RuntimeError: sick at 1"]


def test_many_that_fail_do_not_pause_the_processor_nor_hold_up_the_others(sqlite: Site) -> None:
    sqlite.settings["flood"] = {"share": 0.9, "events": 10}
    put(sqlite, *range(40))
    sqlite.run(Keeping(refusing(*range(0, 40, 2))))
    retry(sqlite)

    sqlite.run(Keeping(refusing(*range(0, 38, 2))))

    assert sqlite.status == "stopped"
    assert [offset for offset, status in statuses(sqlite) if status == "retried"] == [38]


def test_a_handler_of_batches_gets_a_batch_of_one(sqlite: Site) -> None:
    put(sqlite, *range(4))
    given: list[list[int]] = []

    class Handler:
        topics = (sqlite.topic,)
        sick = True

        @axe.hookimpl
        def on_batch(self, events: list[Event], state: State) -> None:
            given.append([event.offset for event in events])
            for event in events:
                if self.sick and event.offset == 2:
                    raise Reject("no")
                state[str(event.offset)] = 1

    handler = Handler()
    sqlite.run(handler)
    retry(sqlite)
    handler.sick = False
    given.clear()
    sqlite.run(handler)

    assert given == [[2]]
    assert sqlite.values == {"0": 1, "1": 1, "2": 1, "3": 1}
    assert statuses(sqlite) == [(2, "retried")]


@pytest.mark.parametrize("child", [KeepingChild, KeepingOne])
def test_what_the_database_refuses_at_the_commit_or_ends_the_transaction_is_its_failure(
    sqlite: Site, child: type[Keeping]
) -> None:
    put(sqlite, *range(4))
    sqlite.run(child(refusing(1, 2)))
    retry(sqlite)

    def sick(event: Event, state: State) -> None:
        if event.offset == 1 and child is KeepingChild:
            state.cursor.execute("INSERT INTO child VALUES (7)")
        elif event.offset == 1:
            with contextlib.suppress(Exception):
                state.cursor.execute("INSERT OR ROLLBACK INTO one VALUES (1)")

    sqlite.run(child(sick))

    assert statuses(sqlite) == [(1, "rejected"), (2, "retried")]
    assert sqlite.seen == [0, 3, 2]
    assert len(sqlite.failures) == 1


def test_a_paused_processor_retries_when_it_goes_on(sqlite: Site) -> None:
    put(sqlite, *range(3))
    sqlite.run(Keeping(refusing(1)))
    sqlite.operate(operations.pause)
    retry(sqlite)

    sqlite.run(Keeping())
    assert statuses(sqlite) == [(1, "retry")]
    sqlite.operate(operations.resume)
    sqlite.run(Keeping())

    assert statuses(sqlite) == [(1, "retried")]


def test_what_is_no_event_of_the_processor_any_more_stays_rejected_and_says_so(sqlite: Site) -> None:
    put(sqlite, {"a": 1}, type="created")
    sqlite.run(Keeping(refusing(0)))
    retry(sqlite)

    sqlite.run(Keeping(), topics=(f"{sqlite.topic}/deleted",))

    reason = f"not retried: it is no event of p any more, which takes {sqlite.topic}/deleted"
    assert letters(sqlite) == [(0, "rejected", reason, 1)]
    assert sqlite.seen == []


def test_what_a_reset_lets_come_again_is_not_handled_twice(site: Site) -> None:
    put(site, *range(4))
    site.run(Keeping(refusing(1)))
    retry(site)
    site.operate(lambda store: operations.reset(store, {axe.TopicPartition(site.topic, 0): 0}, wipe=True))
    handler = Keeping()

    assert retry(site) == []
    site.run(handler)

    assert site.seen == [0, 1, 2, 3]
    assert handler.calls == ["on_reset", "on_start", "on_stop"]
    assert statuses(site) == [(1, "reset")]
    assert retry(site) == []


def test_what_a_reset_lets_come_again_is_rejected_where_it_is_refused_again_or_passed_over(site: Site) -> None:
    put(site, *range(6))
    site.run(Keeping(refusing(1, 3, 5)))
    first = axe.TopicPartition(site.topic, 0)
    site.operate(operations.pause)

    site.operate(lambda store: operations.reset(store, {first: 2}))
    assert statuses(site) == [(1, "rejected"), (3, "reset"), (5, "reset")]
    site.operate(lambda store: operations.reset(store, {first: 5}))
    assert statuses(site) == [(1, "rejected"), (3, "rejected"), (5, "reset")]
    site.operate(operations.resume)
    site.run(Keeping(refusing(5)))

    assert statuses(site) == [(1, "rejected"), (3, "rejected"), (5, "rejected")]
    assert [attempts for *_, attempts in letters(site)] == [1, 1, 2]


def test_an_event_that_the_position_is_before_is_left_to_come_by_itself(site: Site) -> None:
    put(site, *range(4))
    site.run(Keeping(refusing(1)))

    def mark_it_all_the_same(store: Store) -> None:
        operations.reset(store, {axe.TopicPartition(site.topic, 0): 1}, wipe=True)
        with store.begin() as transaction:
            transaction.mark_dead_letters(ALL, "retry")
            transaction.commit()

    site.operate(mark_it_all_the_same)
    site.run(Keeping())

    assert site.seen == [1, 2, 3]
    ((_, status, reason, attempts),) = letters(site)
    assert (status, attempts) == ("rejected", 1)
    assert reason == f"not retried: the position of {site.topic}[0] is before it, so that it comes again by itself"


def test_what_was_discarded_and_comes_again_is_not_handled_twice(site: Site) -> None:
    """Retried by its number after that, it would take effect a second time."""
    put(site, *range(3))
    site.run(Keeping(refusing(1)))
    site.operate(lambda store: operations.discard(store, ALL))
    site.operate(lambda store: operations.reset(store, {axe.TopicPartition(site.topic, 0): 0}, wipe=True))
    site.run(Keeping())

    with pytest.raises(AxeError, match="is reset, which cannot become retry"):
        retry(site, Letters(ids=(1,)))

    site.run(Keeping())
    assert (site.seen, site.values) == ([0, 1, 2], {"n": 3})


def test_a_reset_behind_it_and_a_retry_are_both_done(site: Site) -> None:
    put(site, *range(4))
    site.run(Keeping(refusing(1)))
    handler = Keeping()
    with site.add(handler):
        until(lambda: site.app.processors["p"].status == "running")
        site.operate(operations.pause)
        retry(site)
        site.operate(lambda store: operations.reset(store, {axe.TopicPartition(site.topic, 0): 3}))
        retry(site)
        site.operate(operations.resume)
        until(lambda: len(site.seen) == 5)

    assert site.seen == [0, 2, 3, 1, 3]
    assert handler.calls == ["on_start", "on_reset", "on_stop"]


def test_a_letter_stays_marked_while_what_its_decoder_needs_is_away(sqlite: Site) -> None:
    put(sqlite, *range(3))
    is_away = threading.Event()

    class Handler(Keeping):
        @axe.hookimpl
        def deserializer(self, topic: str) -> Callable[[axe.Record], Any]:
            def decode(record: axe.Record) -> Any:
                if is_away.is_set():
                    raise SourceUnavailable("the registry is away")
                return record.value

            return decode

    sqlite.run(Handler(refusing(1)))
    is_away.set()
    retry(sqlite)
    with sqlite.add(Handler()):
        until(lambda: sqlite.status == "waiting")
        assert statuses(sqlite) == [(1, "retry")]
        is_away.clear()
        until(lambda: statuses(sqlite) == [(1, "retried")])
        put(sqlite, 3)
        until(lambda: sqlite.status == "running" and sqlite.offset == 4)

    assert sqlite.seen == [0, 2, 1, 3]
    assert sqlite.failures == []


def test_a_group_is_what_has_the_same_reason_and_topic(sqlite: Site) -> None:
    put(sqlite, *range(6))

    def sick(event: Event, state: State) -> None:
        raise Reject("odd" if event.offset % 2 else "even")

    sqlite.settings["flood"] = {"share": 1}
    sqlite.run(Keeping(sick))

    assert retry(sqlite, Letters(reason="odd", topic="other")) == []
    assert retry(sqlite, Letters(reason="od")) == []
    assert retry(sqlite, Letters(reason="odd", topic=sqlite.topic)) == [2, 4, 6]
    assert retry(sqlite) == [1, 3, 5]
    assert sqlite.sql("SELECT before, after FROM axe_audit") == [
        ('{"rejected": "2, 4, 6"}', '{"retry": "2, 4, 6"}'),
        ('{"rejected": "1, 3, 5"}', '{"retry": "1, 3, 5"}'),
    ]


def test_one_that_cannot_be_retried_is_named_and_nothing_is_marked(sqlite: Site) -> None:
    put(sqlite, *range(3))
    sqlite.run(Keeping(refusing(0, 1)))
    retry(sqlite, Letters(ids=(1,)))
    sqlite.run(Keeping())

    with pytest.raises(AxeError, match="has no rejection 9"):
        retry(sqlite, Letters(ids=(2, 9)))
    with pytest.raises(AxeError, match="the rejection 1 of p is retried"):
        retry(sqlite, Letters(ids=(1, 2)))

    assert statuses(sqlite) == [(0, "retried"), (1, "rejected")]
    assert sqlite.sql("SELECT pending FROM axe_processor") == [(None,)]


def test_a_failed_processor_retries_after_a_resume(sqlite: Site) -> None:
    put(sqlite, *range(3))
    sqlite.settings["retries"] = 0
    sqlite.run(Keeping(refusing(0)))
    put(sqlite, 3)
    sqlite.run(Keeping(at(3)))
    assert sqlite.status == "failed"

    retry(sqlite)
    sqlite.operate(operations.resume)
    sqlite.run(Keeping())

    assert (sqlite.seen, statuses(sqlite)) == ([1, 2, 0, 3], [(0, "retried")])


def test_of_many_partitions_each_letter_is_retried(site: Site) -> None:
    site.log.create_topic(site.topic, 3)
    for n in range(9):
        site.log.append(site.topic, n, partition=n % 3)

    def refuse(event: Event, state: State) -> None:
        if event.offset == 1:
            raise Reject("no")

    site.run(Keeping(refuse))
    retry(site)
    site.run(Keeping())

    assert sorted(site.seen) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert site.sql("SELECT DISTINCT status FROM axe_dead_letters") == [("retried",)]


def test_what_is_discarded_while_it_is_retried_has_no_effect(tmp_path: Path, topic: str, postgresql_url: str) -> None:
    """On SQLite there is one writer: the discard waits for the retry."""
    site = Site(tmp_path, topic, state=postgresql_url)
    put(site, *range(3))
    site.run(Keeping(refusing(1)))
    retry(site)
    calls: list[int] = []

    def sick(event: Event, state: State) -> None:
        if not calls:
            site.operate(lambda store: operations.discard(store, ALL))
        calls.append(event.offset)

    site.run(Keeping(sick))

    assert calls == [1]
    assert (site.seen, site.values, statuses(site)) == ([0, 2], {"n": 2}, [(1, "discarded")])
    assert history(site) == ["retry", "discard"]


def test_an_app_retries_and_discards_as_the_commands_do(sqlite: Site) -> None:
    put(sqlite, *range(5))
    sick = {1, 2, 3}

    def refuse(event: Event, state: State) -> None:
        if event.offset in sick:
            raise Reject("odd" if event.offset % 2 else "even")

    with sqlite.add(Keeping(refuse)):
        until(lambda: sqlite.offset == 5)
        sick.clear()
        processor = sqlite.app.processors["p"]
        assert processor.discard(reason="even", topic=sqlite.topic) == [2]
        assert processor.retry(1) == [1]
        until(lambda: (1, "retried") in statuses(sqlite))
        assert processor.retry() == [3]
        until(lambda: (3, "retried") in statuses(sqlite))

    assert sqlite.seen == [0, 4, 1, 3]
