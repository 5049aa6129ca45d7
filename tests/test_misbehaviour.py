"""What handlers do that they should not: no event of theirs is lost or doubled, and none of a neighbour's."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import psycopg.sql
import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import axe
from axe import Event, Reject, State, TopicPartition, operations
from axe.errors import SourceUnavailable, StateError
from axe.store.sqlite.locks import WAIT_S

from .site import Keeping, KeepingChild, Site, at, count, until


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Site:
    """On either database; an event that fails is set aside at once."""
    state = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Site(tmp_path, topic, state=state, on_failure="reject", retries=0)


@pytest.fixture
def sqlite(tmp_path: Path, topic: str) -> Site:
    return Site(tmp_path, topic, on_failure="reject", retries=0)


def put(site: Site, *values: Any, **more: Any) -> None:
    for value in values:
        site.log.append(site.topic, value, **more)


def refused(site: Site) -> list[int]:
    return [offset for offset, _ in site.dead_letters]


# --- what a handler is given


def test_a_handler_that_changes_its_event_gets_it_unchanged_the_second_time(sqlite: Site) -> None:
    """A rejected neighbour makes the batch run again."""

    def handler(event: Event, state: State) -> None:
        kind = event.value.pop("kind")
        if kind == "bad":
            _ = state["a"]
            raise Reject("bad")
        if kind == "new":
            state["a"] = event.value
        else:
            state["a"]["n"] += 1

    put(sqlite, {"kind": "new", "n": 0}, {"kind": "more"}, {"kind": "more"}, {"kind": "bad"})

    sqlite.run(handler)

    assert (sqlite.values, refused(sqlite)) == ({"a": {"n": 2}}, [3])


def test_a_batch_handler_may_consume_its_list(sqlite: Site) -> None:
    class Consuming:
        @axe.hookimpl
        def on_batch(self, events: list[Event], state: State) -> None:
            while events:
                event = events.pop(0)
                if event.value == 5:
                    raise Reject("five")
                state["seen"] = [*state.get("seen", []), event.value]

    put(sqlite, *range(10))
    sqlite.run(Consuming())
    put(sqlite, 10, 11)

    sqlite.run(Consuming())

    assert sqlite.values["seen"] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert (refused(sqlite), sqlite.status) == ([5], "stopped")


# --- savepoints


def test_a_savepoint_that_is_left_open_is_the_failure_of_its_event(site: Site) -> None:
    """Rolled back by a later event, it would take along the events between."""
    kept: list[Any] = []

    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            kept.append(state.connection.begin_nested())
        if event.offset == 4 and kept[-1].is_active:
            kept[-1].rollback()

    put(site, *range(6))

    site.run(Keeping(sick))

    assert (site.seen, refused(site)) == ([0, 2, 3, 4, 5], [1])
    assert "savepoint" in site.dead_letters[0][1]


def test_a_rejection_inside_an_open_savepoint_does_not_hurt_the_next_event(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            state.connection.begin_nested()
            raise Reject("no")

    put(site, *range(4))

    site.run(Keeping(sick))

    assert (site.seen, refused(site)) == ([0, 2, 3], [1])


@pytest.mark.parametrize("events", [1, 1000])
def test_what_lies_under_two_keys_is_two_values_wherever_a_batch_ends(sqlite: Site, events: int) -> None:
    def handler(event: Event, state: State) -> None:
        match event.value:
            case {"op": "create"} as value:
                state["first"] = value
                state["study"] = value
            case {"op": "phase"}:
                state["study"]["phase"] += 1
            case {"op": "keep"}:
                state["kept"] = state["study"]

    sqlite.settings["batch"] = {"events": events}
    put(sqlite, None, {"op": "create", "phase": 1}, {"op": "phase"}, {"op": "keep"}, {"op": "phase"})

    sqlite.run(handler)

    phases = {key: value["phase"] for key, value in sqlite.values.items()}
    assert phases == {"first": 1, "study": 3, "kept": 2}


def test_a_refused_event_leaves_nothing_of_what_it_set(sqlite: Site) -> None:
    def handler(event: Event, state: State) -> None:
        state["last"] = {"n": event.value}
        if event.value == 3:
            state["more"] = [3]
            raise Reject("three")

    put(sqlite, *range(4))

    sqlite.run(handler)

    assert (sqlite.values, refused(sqlite)) == ({"last": {"n": 2}}, [3])


# --- a decoder of its own


class Decoding(Keeping):
    """Answers with a decoder for its topics."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    @axe.hookimpl
    def deserializer(self) -> Any:
        return self.decoder


def decoder_raising(error: BaseException, *, times: int, offset: int) -> Callable[[axe.Record], object]:
    tries: list[int] = []

    def decode(record: axe.Record) -> object:
        if record.offset == offset and len(tries) < times:
            tries.append(offset)
            raise error
        return record.value

    return decode


@pytest.mark.parametrize("error", [SourceUnavailable("no registry"), ConnectionError("no registry"), MemoryError()])
def test_an_event_whose_decoder_fails_is_tried_again(sqlite: Site, error: BaseException) -> None:
    sqlite.settings["retries"] = 3
    put(sqlite, *range(5))

    sqlite.run(Decoding(decoder_raising(error, times=2, offset=3)))

    assert (sqlite.seen, refused(sqlite), sqlite.status) == ([0, 1, 2, 3, 4], [], "stopped")
    assert len(sqlite.failures) == (0 if isinstance(error, SourceUnavailable) else 1)


@pytest.mark.parametrize("policy", ["stop", "reject"])
def test_an_event_whose_decoder_keeps_failing_meets_the_policy(sqlite: Site, policy: str) -> None:
    sqlite.settings["on_failure"] = policy
    put(sqlite, *range(5))

    sqlite.run(Decoding(decoder_raising(RuntimeError("no key"), times=9, offset=3)))

    done = ([0, 1, 2], [], "failed") if policy == "stop" else ([0, 1, 2, 4], [3], "stopped")
    assert (sqlite.seen, refused(sqlite), sqlite.status) == done


@pytest.mark.parametrize("error", [axe.errors.DecodeError("no"), Reject("no")])
def test_what_a_decoder_refuses_is_a_dead_letter_at_once(sqlite: Site, error: BaseException) -> None:
    sqlite.settings.update(retries=3, on_failure="stop")
    put(sqlite, *range(5))

    sqlite.run(Decoding(decoder_raising(error, times=1, offset=3)))

    assert (sqlite.seen, sqlite.dead_letters, sqlite.failures) == ([0, 1, 2, 4], [(3, "no")], [])


async def never(record: axe.Record) -> None: ...


@pytest.mark.parametrize("answer", [{"no": "decoder"}, never])
def test_a_decoder_that_is_none_breaks_the_processor_and_loses_nothing(sqlite: Site, answer: Any) -> None:
    put(sqlite, *range(5))
    app = sqlite.add(Decoding(answer))

    with pytest.raises(axe.errors.PluginError, match="deserializer hook answers"):
        app.start(until_end=True)


def test_a_decoder_that_hangs_is_seen_by_the_watchdog(sqlite: Site) -> None:
    hanging, go = threading.Event(), threading.Event()

    def decode(record: axe.Record) -> None:
        hanging.set()
        go.wait(20)

    put(sqlite, 0)
    with sqlite.add(Decoding(decode)):
        assert hanging.wait(20)
        handling = sqlite.app._runners[0].handling
        go.set()

    assert handling is not None


class Unreadable(Reject):
    """Has a reason that cannot be read."""

    def __init__(self) -> None: ...

    @property
    def reason(self) -> str:  # type: ignore[override]
        raise KeyError(3)


def test_a_rejection_whose_reason_cannot_be_read_is_one_all_the_same(sqlite: Site) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            raise Unreadable

    put(sqlite, *range(3))

    sqlite.run(Keeping(sick))

    assert (sqlite.seen, refused(sqlite), sqlite.status) == ([0, 2], [1], "stopped")


# --- the end of the transaction


def test_a_constraint_that_fails_at_the_commit_is_the_failure_of_its_event(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset in (3, 17):
            state.connection.exec_driver_sql("INSERT INTO child VALUES (99)")

    put(site, *range(25))

    site.run(KeepingChild(sick))

    assert (site.seen, refused(site)) == ([n for n in range(25) if n not in (3, 17)], [3, 17])
    assert site.status == "stopped"


def test_a_swallowed_error_in_the_only_event_of_a_batch_is_its_failure(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        with contextlib.suppress(Exception):
            state.cursor.execute("INSERT INTO no_such_table VALUES (1)")
        state["late"] = 1

    put(site, 0)

    site.run(Keeping(sick))

    assert (site.offset, site.status) == (1, "stopped")
    if refused(site):  # PostgreSQL gives the transaction up, SQLite only the statement
        assert (site.seen, site.values) == ([], {})
    else:
        assert (site.seen, site.values) == ([0], {"late": 1, "n": 1})


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "rows"
    n: Mapped[int] = mapped_column(primary_key=True)


class _Rows(Keeping):
    @axe.hookimpl
    def on_start(self, state: State) -> None:
        super().on_start(state)
        _Base.metadata.create_all(state.connection)


def test_a_session_and_an_ended_transaction_are_the_failure_of_one_event(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        state.session.add(_Row(n=event.offset))
        state.session.flush()
        if event.offset == 2:
            with contextlib.suppress(Exception):
                state.cursor.connection.rollback()
            raise ValueError("sick")

    put(site, *range(5))

    site.run(_Rows(sick))

    assert (site.seen, refused(site)) == ([0, 1, 3, 4], [2])
    assert site.sql("SELECT n FROM rows ORDER BY n") == [(0,), (1,), (3,), (4,)]


@pytest.mark.parametrize(
    "harm",
    [
        lambda state: state.connection.invalidate(),
        lambda state: state.connection.connection.close(),
        lambda state: state.cursor.connection.close(),
        lambda state: state.connection.get_transaction().rollback(),
        lambda state: state.connection.get_transaction().commit(),
        lambda state: state.connection.detach(),
    ],
    ids=["invalidate", "close", "the driver's close", "rollback", "commit", "detach"],
)
def test_a_broken_connection_is_the_failure_of_its_event(site: Site, harm: Callable[[State], object]) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 2:
            harm(state)

    put(site, *range(5))

    site.run(Keeping(sick))

    assert (site.seen, refused(site), site.status) == ([0, 1, 3, 4], [2], "stopped")


# --- what is kept from one event to the next


@pytest.mark.parametrize(
    "harm",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        """SET LOCAL temp_file_limit = '64kB'; SET LOCAL work_mem = '64kB';
        SELECT count(*) FROM (SELECT g FROM generate_series(1, 300000) g ORDER BY md5(g::text)) x""",
    ],
)
def test_an_event_that_ends_its_session_each_time_is_the_failure(
    tmp_path: Path, topic: str, postgresql_url: str, harm: str
) -> None:
    site = Site(tmp_path, topic, state=postgresql_url, on_failure="reject", retries=1)

    def sick(event: Event, state: State) -> None:
        if event.offset == 2:
            state.cursor.execute(harm)

    put(site, *range(5))

    site.run(Keeping(sick))

    assert (site.seen, refused(site), site.status) == ([0, 1, 3, 4], [2], "stopped")


def test_a_cursor_may_be_closed(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        with contextlib.closing(state.cursor) as cursor:
            cursor.execute("SELECT 1")

    put(site, *range(6))

    site.run(Keeping(sick))

    assert (site.seen, refused(site)) == (list(range(6)), [])


def test_a_session_that_is_kept_is_refused_and_loses_nothing_in_silence(sqlite: Site) -> None:
    kept: list[Any] = []

    def sick(event: Event, state: State) -> None:
        if not kept:
            kept.append(state.session)
        kept[0].add(_Row(n=event.offset))

    put(sqlite, *range(3))

    sqlite.run(_Rows(sick))

    rows = [n for (n,) in sqlite.sql("SELECT n FROM rows")]
    assert sorted([*rows, *refused(sqlite)]) == [0, 1, 2]


def test_a_state_that_is_kept_is_refused(sqlite: Site) -> None:
    class Kept:
        state: Any = None

        @axe.hookimpl
        def on_start(self, state: State) -> None:
            self.state = state

        @axe.hookimpl
        def on_event(self, event: Event) -> None:
            self.state["last"] = event.offset

    put(sqlite, 0)

    sqlite.run(Kept())

    assert refused(sqlite) == [0]
    assert "has ended" in sqlite.dead_letters[0][1]


def test_a_cursor_that_is_used_between_two_batches_changes_nothing(sqlite: Site) -> None:
    class Late(Keeping):
        cursor: Any = None

        @axe.hookimpl
        def on_commit(self) -> None:
            with contextlib.suppress(sqlite3.Error):
                self.cursor.execute("INSERT INTO seen (n) VALUES (77)")

    handler = Late()
    handler.sick = lambda _event, state: setattr(handler, "cursor", state.cursor)
    put(sqlite, *range(4))

    sqlite.run(handler)

    assert (sqlite.seen, sqlite.status) == ([0, 1, 2, 3], "stopped")


# --- what a handler raises


class _Careless(Reject):
    def __init__(self) -> None:
        pass


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> Callable[[Event, State], None]:
    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            raise error

    return sick


@pytest.mark.parametrize(
    "error", [_Careless(), _Unspeakable(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=type
)
def test_whatever_a_handler_raises_concerns_its_event_alone(sqlite: Site, error: BaseException) -> None:
    put(sqlite, *range(3))

    sqlite.run(Keeping(raising(error)))

    assert (sqlite.seen, refused(sqlite), sqlite.status) == ([0, 2], [1], "stopped")


def test_a_reason_that_no_database_stores_is_written_all_the_same(site: Site) -> None:
    put(site, *range(3))

    site.run(Keeping(raising(Reject("phase \0 and \ud800"))))

    assert (site.seen, site.dead_letters) == ([0, 2], [(1, "phase \\x00 and \\ud800")])


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_a_key_that_no_database_stores_is_the_failure_of_its_event(site: Site, key: str) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            state[key] = 1

    put(site, *range(3))

    site.run(Keeping(sick))

    assert (site.seen, refused(site), site.status) == ([0, 2], [1], "stopped")


def test_hooks_that_exit_silence_nobody(sqlite: Site) -> None:
    class Exiting(Keeping):
        @axe.hookimpl
        def on_commit(self) -> None:
            sys.exit(1)

        @axe.hookimpl
        def on_error(self) -> None:
            sys.exit(1)

        @axe.hookimpl
        def decide(self) -> None:
            sys.exit(1)

    put(sqlite, *range(3))

    sqlite.run(Exiting(at(1)))

    assert (sqlite.seen, refused(sqlite), sqlite.status) == ([0, 2], [1], "stopped")
    assert [failure.record.offset for failure in sqlite.failures if failure.record] == [1]


def test_an_on_start_that_exits_is_a_failure(sqlite: Site) -> None:
    class Exiting(Keeping):
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            sys.exit("no licence")

    put(sqlite, 0)

    sqlite.run(Exiting())

    assert sqlite.status == "failed"
    assert "no licence" in sqlite.sql("SELECT last_error FROM axe_processor")[0][0]


# --- what is not the fault of axe's database


def test_a_database_of_the_handlers_own_is_the_failure_of_its_event(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            sqlite3.connect("file:/nowhere/x.db?mode=ro", uri=True)
        if event.offset == 2:
            psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2")

    put(site, *range(4))

    site.run(Keeping(sick))

    assert (site.seen, refused(site), site.status) == ([0, 3], [1, 2], "stopped")


@pytest.mark.parametrize("timestamp_ms", [1_700_000_000_000_000, -(2**62), 2**62])
def test_a_time_that_no_calendar_has_stops_nobody(sqlite: Site, timestamp_ms: int) -> None:
    seen: list[object] = []

    def sick(event: Event, state: State) -> None:
        seen.append(event.timestamp)
        if event.value == "bad":
            raise Reject("bad")

    put(sqlite, "good", "bad", timestamp_ms=timestamp_ms)

    sqlite.run(Keeping(sick))

    assert (sqlite.seen, refused(sqlite), sqlite.status) == ([0], [1], "stopped")
    assert set(seen) == {None}


def test_another_search_path_lasts_for_one_batch_at_most(tmp_path: Path, topic: str, postgresql_url: str) -> None:
    site = Site(tmp_path, topic, state=postgresql_url)
    put(site, 0)

    site.run(Keeping(lambda _event, state: state.cursor.execute("SET search_path TO public")))

    assert (site.seen, site.status) == ([0], "stopped")


def test_a_handler_may_look_at_its_own_position(sqlite: Site) -> None:
    """Readers wait for no writer."""
    found: list[int] = []
    put(sqlite, *range(3))
    handle = Keeping(lambda event, state: found.append(sqlite.app.processors["p"].offset))
    started = time.monotonic()

    sqlite.run(handle)

    assert sqlite.seen == [0, 1, 2]
    assert len(found) == 3
    assert time.monotonic() - started < WAIT_S


# --- reset and wipe beside it


def test_a_wipe_drops_types_and_functions_too(tmp_path: Path, topic: str, postgresql_url: str) -> None:
    site = Site(tmp_path, topic, state=postgresql_url)

    class Typed(Keeping):
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            super().on_start(state)
            for statement in (
                "CREATE TYPE mood AS ENUM ('good', 'bad')",
                "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
                "CREATE TYPE pair AS (a integer, b mood)",
                "CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * n'",
            ):
                state.connection.execute(text(statement))

    class Again(Typed):
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            if self.calls or not state.connection.scalar(text("SELECT to_regtype('mood') IS NOT NULL")):
                super().on_start(state)

    put(site, 0)
    site.run(Typed())
    site.app.processors["p"].reset(0, wipe=True)

    site.run(Typed())

    assert (site.seen, site.status) == ([0], "stopped")


def test_a_wipe_that_waits_for_a_worker_to_adopt_is_not_forgotten(
    tmp_path: Path, topic: str, postgresql_url: str
) -> None:
    """The operator's transaction holds the rows while the worker adopts an earlier reset."""
    site = Site(tmp_path, topic, state=postgresql_url)
    put(site, *range(3))
    handler = Keeping()
    first = TopicPartition(topic, 0)
    with site.add(handler):
        until(lambda: site.offset == 3)
        with site.app.opened(site.app.processors.bound()[0], create=False) as store:
            assert store is not None
            operations.reset(store, {first: 1})
            with store.begin() as wiping:
                wiping.move_by_hand({first: 0})
                wiping.wipe()
                wiping.set_control({"pending": "wipe"})
                time.sleep(1.5)  # the worker tries to adopt meanwhile
                wiping.commit()
        until(lambda: site.sql("SELECT pending FROM axe_processor") == [(None,)] and site.offset == 3)

    assert site.seen == [0, 1, 2]
    assert handler.calls[-3:] == ["on_reset", "on_start", "on_stop"]


def test_two_operators_do_not_forget_a_wipe(tmp_path: Path, topic: str, postgresql_url: str) -> None:
    site = Site(tmp_path, topic, state=postgresql_url)
    put(site, *range(3))
    site.run(Keeping())
    processor, first = site.app.processors.bound()[0], TopicPartition(topic, 0)
    with site.app.opened(processor, create=False) as one, site.app.opened(processor, create=False) as other:
        assert one is not None
        assert other is not None
        with one.begin() as wiping:
            wiping.move_by_hand({first: 0})
            second = threading.Thread(target=operations.reset, args=(other, {first: 0}))
            second.start()
            time.sleep(0.5)  # it waits for the rows
            wiping.wipe()
            wiping.set_control({"pending": "wipe"})
            wiping.commit()
        second.join(20)

    assert site.sql("SELECT pending FROM axe_processor") == [("wipe",)]


def test_a_reset_during_the_report_of_a_failure_counts(sqlite: Site) -> None:
    sqlite.settings.update(on_failure="stop")
    put(sqlite, *range(3))
    calls: list[int] = []

    def sick(event: Event, state: State) -> None:
        calls.append(event.offset)
        if event.offset == 1 and calls.count(1) <= 1:
            raise RuntimeError("once")

    sqlite.add(Keeping(sick))
    sqlite.app.on_error(lambda _: sqlite.app.processors["p"].reset(0))
    with sqlite.app:
        until(lambda: sqlite.offset == 3)

    assert (sqlite.seen[-3:], sqlite.status) == ([0, 1, 2], "stopped")


@pytest.mark.parametrize("decision", ["retry", "stop"])
def test_a_pause_out_of_a_report_counts_until_the_end_too(sqlite: Site, decision: str) -> None:
    sqlite.settings.update(on_failure="stop", retries=2 if decision == "retry" else 0)
    put(sqlite, *range(3))
    sqlite.add(Keeping(at(1)))
    sqlite.app.on_error(lambda failure: failure.decision.value == decision and sqlite.operate(operations.pause))

    sqlite.app.start(until_end=True)

    assert (sqlite.seen, sqlite.status) == ([0], "paused")


@pytest.mark.parametrize("decision", ["retry", "stop"])
def test_a_reset_out_of_a_report_counts_until_the_end_too(sqlite: Site, decision: str) -> None:
    sqlite.settings.update(on_failure="stop", retries=2 if decision == "retry" else 0)
    put(sqlite, *range(3))
    sqlite.add(Keeping(at(1)))
    sqlite.app.on_error(lambda failure: failure.decision.value == decision and sqlite.app.processors["p"].reset(2))

    sqlite.app.start(until_end=True)

    assert (sqlite.seen, sqlite.offset, sqlite.status) == ([0, 2], 3, "stopped")


def test_a_reset_out_of_the_report_of_a_pause_counts(sqlite: Site) -> None:
    sqlite.settings.update(on_failure="pause")
    put(sqlite, *range(3))
    sqlite.add(Keeping(at(1)))
    sqlite.app.on_error(lambda failure: sqlite.app.processors["p"].reset(2))

    sqlite.app.start(until_end=True)

    assert (sqlite.seen, sqlite.status) == ([0, 2], "stopped")


def test_a_reset_out_of_the_report_of_a_gap_counts(sqlite: Site) -> None:
    """That is the very moment at which a person mends it."""
    put(sqlite, *range(10))
    sqlite.run(Keeping())
    put(sqlite, *range(5))
    sqlite.log.truncate_before(sqlite.topic, 12)
    sqlite.add(Keeping())
    sqlite.app.on_error(lambda failure: sqlite.app.processors["p"].reset("earliest"))

    sqlite.app.start(until_end=True)

    assert (sqlite.offset, sqlite.status) == (15, "stopped")


def test_new_partitions_are_found_while_there_is_work(sqlite: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axe.upkeep._NEW_PARTITIONS_S", 0.05)
    put(sqlite, *range(40))
    order: list[int] = []

    def handler(event: Event) -> None:
        order.append(event.partition)
        time.sleep(0.02)

    with sqlite.add(handler):
        until(lambda: order)
        sqlite.log.add_partition(sqlite.topic)
        sqlite.log.append(sqlite.topic, "new", partition=1)
        until(lambda: 1 in order)

    assert order.index(1) < 40


def test_a_topic_made_anew_during_on_start_is_noticed(sqlite: Site) -> None:
    put(sqlite, *range(5))
    sqlite.run(count)

    class Slow(Keeping):
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            super().on_start(state)
            sqlite.log.recreate(sqlite.topic)
            put(sqlite, *range(8))

    sqlite.run(Slow())

    assert sqlite.status == "failed"
    assert "made anew" in sqlite.sql("SELECT last_error FROM axe_processor")[0][0]


def test_a_slow_handler_begins_with_one_event(sqlite: Site) -> None:
    """A hundred slow ones in the first batch would be undone together by a limit of time."""
    sizes: list[int] = []

    class Slow:
        @axe.hookimpl
        def on_event(self, event: Event) -> None:
            time.sleep(0.05)

        @axe.hookimpl
        def on_commit(self, report: Any) -> None:
            sizes.append(report.events)

    sqlite.settings["batch"] = {"time_s": 0.2}
    put(sqlite, *range(30))

    sqlite.run(Slow())

    assert sizes[0] == 1
    assert max(sizes) <= 4


def test_a_refusal_says_how_often_it_was_tried(sqlite: Site) -> None:
    sqlite.settings["retries"] = 2
    put(sqlite, *range(3))

    sqlite.run(Keeping(at(1)))

    assert [rejection.attempts for rejection in sqlite.rejections] == [3]
    assert sqlite.sql("SELECT attempts FROM axe_dead_letters") == [(3,)]


def test_a_state_refuses_by_a_message_that_says_what_to_do(sqlite: Site) -> None:
    said: list[str] = []

    def sick(event: Event, state: State) -> None:
        for refusing in (state.connection.commit, state.session.rollback, state.connection.detach):
            with pytest.raises(StateError) as refusal:
                refusing()
            said.append(str(refusal.value))

    put(sqlite, 0)
    sqlite.run(Keeping(sick))

    assert len(said) == 3
    assert all("begin_nested" in line for line in said)


def test_a_trigger_that_refuses_the_commit_is_the_failure_of_its_event(
    tmp_path: Path, topic: str, postgresql_url: str
) -> None:
    class Checked(Keeping):
        @axe.hookimpl
        def on_start(self, state: State) -> None:
            super().on_start(state)
            state.connection.exec_driver_sql(
                "CREATE FUNCTION no_three() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.n = 3 THEN RAISE EXCEPTION 'no three'; END IF; RETURN NULL; END $$"
            )
            state.connection.exec_driver_sql(
                "CREATE CONSTRAINT TRIGGER no_three AFTER INSERT ON seen DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION no_three()"
            )

    site = Site(tmp_path, topic, state=postgresql_url, on_failure="reject", retries=0)
    put(site, *range(6))

    site.run(Checked())

    assert (site.seen, refused(site), site.status) == ([0, 1, 2, 4, 5], [3], "stopped")


def test_words_within_quotes_end_no_transaction(tmp_path: Path, topic: str, postgresql_url: str) -> None:
    site = Site(tmp_path, topic, state=postgresql_url, on_failure="reject", retries=0)

    def sick(event: Event, state: State) -> None:
        state.cursor.execute("SELECT 'first; ROLLBACK second', $$; ABORT$$ -- ; ROLLBACK")

    put(site, 0)

    site.run(Keeping(sick))

    assert (site.seen, refused(site)) == ([0], [])


@pytest.mark.parametrize(
    "execute",
    [
        lambda cursor, sql: cursor.execute(sql.encode()),
        lambda cursor, sql: cursor.executemany(sql, [()]),
        lambda cursor, sql: list(cursor.stream(sql)),
        lambda cursor, sql: cursor.execute(psycopg.sql.SQL(sql)),
    ],
    ids=["bytes", "executemany", "stream", "composed"],
)
def test_no_way_to_execute_leaves_a_savepoint_open(
    tmp_path: Path, topic: str, postgresql_url: str, execute: Callable[[Any, str], object]
) -> None:
    site = Site(tmp_path, topic, state=postgresql_url, on_failure="reject", retries=0)

    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            execute(state.cursor, "SAVEPOINT mine")
        if event.offset == 4:
            execute(state.cursor, "ROLLBACK TO SAVEPOINT mine")

    put(site, *range(6))

    site.run(Keeping(sick))

    assert (site.seen, refused(site)) == ([0, 2, 3, 5], [1, 4])


def test_a_cursor_that_is_used_between_two_batches_stops_nobody(site: Site) -> None:
    class Late(Keeping):
        cursor: Any = None

        @axe.hookimpl
        def on_commit(self) -> None:
            with contextlib.suppress(Exception):
                self.cursor.execute("SELECT 1")

    handler = Late(lambda _event, state: setattr(handler, "cursor", state.cursor))
    put(site, *range(4))

    site.run(handler)

    assert (site.seen, site.status) == ([0, 1, 2, 3], "stopped")


def test_no_handler_runs_any_more_once_its_event_has_failed(sqlite: Site) -> None:
    """A watchdog would take it for one that is stuck."""
    sqlite.settings["on_failure"] = "stop"
    put(sqlite, *range(3))
    with sqlite.add(Keeping(lambda _event, state: state.cursor.connection.close())):
        runner = sqlite.app._runners[0]
        until(lambda: runner.status.value == "failed")

        assert runner.handling is None


def test_dead_letters_are_in_the_order_of_the_events_and_count_what_was_tried_before(sqlite: Site) -> None:
    sqlite.settings["retries"] = 5
    tries: list[int] = []

    def sick(event: Event, state: State) -> None:
        if event.offset == 1:
            tries.append(1)
            if len(tries) < 4:  # once in the batch, then alone: two attempts that fail
                raise RuntimeError("not yet")
            raise Reject("no")

    put(sqlite, 0, 1, b"{junk", 3)
    sqlite.run(Keeping(sick))

    assert sqlite.sql('SELECT "offset" FROM axe_dead_letters ORDER BY id') == [(1,), (2,)]
    assert sqlite.sql('SELECT attempts FROM axe_dead_letters WHERE "offset" = 1') == [(3,)]


def test_a_state_of_many_keys_is_cleared_at_once(sqlite: Site) -> None:
    def handler(event: Event, state: State) -> None:
        if event.value == "clear":
            state.clear()
        else:
            state.update({f"key {n}": n for n in range(20_000)})

    put(sqlite, "fill", "clear")

    sqlite.run(handler)

    assert (sqlite.values, sqlite.status) == ({}, "stopped")


def test_a_swallowed_error_beside_a_refused_event_is_the_failure_of_its_own_event(site: Site) -> None:
    def sick(event: Event, state: State) -> None:
        if event.value == "swallow":
            with contextlib.suppress(Exception):
                state.cursor.execute("INSERT INTO no_such_table VALUES (1)")

    put(site, *["ok"] * 5, b"{junk", "swallow", "ok", "ok")

    site.run(Keeping(sick))

    assert (site.offset, site.status) == (9, "stopped")
    assert refused(site) in ([5], [5, 6])  # PostgreSQL gives the transaction up, SQLite only the statement
    assert site.seen == [n for n in range(9) if n not in refused(site)]
