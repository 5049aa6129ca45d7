"""Values that are kept from one batch to the next: never older than what is stored, and never more than the bound."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axe import TopicPartition, operations
from axe.errors import CommitRefused, PositionConflict
from axe.store import Move
from axe.store.sql import Store
from axe.store.transaction import Transaction
from axe.store.value_cache import UNKNOWN, ValueCache
from axe.store.values import from_json, to_json

from .kind import ME, NAME, STUDIES, Kind

OTHER = "host:2:other"
VISITS = TopicPartition("visits", 0)
BOTH = {STUDIES: 0, VISITS: 0}


class Worker:
    """A store with a cache, and batches on it as a runner makes them."""

    def __init__(self, kind: Kind, name: str = ME, starts: dict[TopicPartition, int] = BOTH, **cache: int) -> None:
        self.name, self.starts = name, starts
        self.store = Store(kind.place().database(NAME), NAME, **{"cache_mb": 1, **cache})
        kind.stores.append(self.store)
        self.store.open()
        self.take_over()

    def take_over(self) -> None:
        with self.store.begin() as transaction:
            self.held = transaction.take_over(self.starts, {}, self.name)
            transaction.commit()
        self.store.renew()

    @contextlib.contextmanager
    def batch(self, at: TopicPartition = STUDIES, *, commits: bool = True) -> Iterator[Transaction]:
        held = self.held[at]
        with self.store.begin() as transaction:
            transaction.advance({at: Move(held.position, held.epoch, held.position + 1, None)}, self.name)
            yield transaction
            # The test may have undone it.
            if commits and transaction._connection is not None:
                transaction.commit()
                self.held[at] = held._replace(position=held.position + 1)

    def set(self, key: str, value: Any, at: TopicPartition = STUDIES) -> None:
        with self.batch(at) as transaction:
            transaction.state[key] = value

    def get(self, key: str, at: TopicPartition = STUDIES) -> Any:
        with self.batch(at) as transaction:
            return transaction.state.get(key)

    def knows(self, key: str) -> bool:
        return self.store._cache.find(key) is not UNKNOWN


def change_by_hand(kind: Kind, key: str, text: str) -> None:
    """Change a value as another program does, which no axe is told of."""
    kind.outside(f"UPDATE axe_values SET value = '{text}' WHERE key = '{key}'")


# --- what it knows


def test_what_was_set_or_read_is_not_asked_for_again(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    worker.get("b")
    with worker.batch() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM axe_values")
        assert (transaction.state.get("a"), transaction.state.get("b")) == (1, None)
        transaction.rollback()


def test_a_removed_key_is_absent_in_the_next_batch_and_may_be_set_again(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.batch() as transaction:
        del transaction.state["a"]

    with worker.batch() as transaction:
        assert "a" not in transaction.state
        with pytest.raises(KeyError):
            del transaction.state["a"]
    worker.set("a", 2)

    assert worker.get("a") == 2
    assert worker.store.values() == {"a": 2}


def test_an_absent_key_is_set_later(kind: Kind) -> None:
    worker = Worker(kind)
    assert worker.get("a") is None
    assert worker.knows("a")

    worker.set("a", 1)

    assert (worker.get("a"), worker.store.values()) == (1, {"a": 1})


def test_a_list_that_is_changed_in_place_is_written_and_read_as_changed(kind: Kind) -> None:
    worker = Worker(kind)
    mine: list[int] = [1]
    worker.set("a", mine)
    mine.append(77)
    for n in (2, 3):
        with worker.batch() as transaction:
            transaction.state["a"].append(n)
            kept = transaction.state["a"]
        kept.append(78)

    assert worker.get("a") == [1, 2, 3]
    assert worker.store.values() == {"a": [1, 2, 3]}


def test_a_changed_list_of_a_batch_that_was_undone_is_not_seen(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", [1])
    worker.get("a")
    with worker.batch(commits=False) as transaction:
        transaction.state["a"].append(2)

    assert worker.get("a") == [1]


def test_a_rejected_event_leaves_nothing(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.batch() as transaction:
        state = transaction.state
        mark = len(state.changes)
        state["a"] = state["a"] + 1
        state["b"] = 2
        assert state.undo_event(mark)

    assert (worker.get("a"), worker.get("b")) == (1, None)


def test_without_megabytes_nothing_is_known(kind: Kind) -> None:
    worker = Worker(kind, cache_mb=0)
    worker.set("a", 1)
    assert not worker.knows("a")

    change_by_hand(kind, "a", "5")

    assert worker.get("a") == 5


# --- what leaves a doubt


def test_a_batch_that_was_undone_leaves_nothing(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.batch(commits=False) as transaction:
        transaction.state["a"] = 2
        transaction.state.write()

    assert worker.get("a") == 1


def test_a_commit_that_is_refused_leaves_nothing(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.batch() as transaction:
        transaction.connection.exec_driver_sql("CREATE TABLE parent (id integer PRIMARY KEY)")
        transaction.connection.exec_driver_sql(
            "CREATE TABLE child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
        )
    with pytest.raises(CommitRefused), worker.batch() as transaction:
        transaction.state["a"] = 2
        transaction.connection.exec_driver_sql("INSERT INTO child VALUES (1)")

    assert not worker.knows("a")
    assert worker.get("a") == 1


def test_a_commit_that_raises_though_it_went_through_leaves_no_older_value(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the answer of a server is lost."""
    worker = Worker(kind)
    worker.set("a", 1)
    database: Any = worker.store._database
    commit = database.commit

    def commit_and_raise(connection: Any) -> None:
        commit(connection)
        raise OSError("lost")

    with monkeypatch.context() as patched:
        patched.setattr(database, "commit", commit_and_raise)
        with pytest.raises(OSError, match="lost"), worker.batch() as transaction:
            transaction.state["a"] = 2
    worker.take_over()

    assert worker.get("a") == 2


def test_an_isolated_batch_reads_what_is_stored_after_each_event(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    worker.get("b")
    with worker.batch() as transaction:
        for n in (2, 3, 4):
            transaction.savepoint()
            transaction.state["a"] += n
            transaction.state["b"] = n
            if n == 3:
                transaction.undo_event()
            else:
                transaction.keep_event()
        assert (transaction.state["a"], transaction.state["b"]) == (7, 4)

    assert not worker.knows("a")
    assert (worker.get("a"), worker.get("b")) == (7, 4)


def test_a_new_connection_knows_nothing(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    worker.store.renew()
    change_by_hand(kind, "a", "5")

    assert worker.get("a") == 5


def test_a_connection_that_a_handler_used_after_its_batch_knows_nothing(tmp_path: Path) -> None:
    worker = Worker(kind := Kind("sqlite", "sqlite:state", tmp_path))
    worker.set("a", 1)
    with worker.batch() as transaction:
        assert transaction.state["a"] == 1
        kept = transaction.state.cursor
    kept.execute("UPDATE axe_values SET value = '5'")
    kept.connection.commit()

    assert worker.get("a") == 5
    kind.close()


def test_a_status_and_a_heartbeat_leave_what_is_known(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    worker.store.heartbeat(ME, "host", 1, "running", alone=True)
    worker.store.set_status("running")
    worker.store.control()
    worker.store.positions()
    with worker.batch(VISITS):
        pass

    with worker.batch() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM axe_values")
        assert transaction.state.get("a") == 1
        transaction.rollback()


@pytest.mark.parametrize("way", ["connection", "cursor", "copy"])
def test_what_a_handler_writes_by_sql_of_its_own_is_seen(tmp_path: Path, postgresql_url: str, way: str) -> None:
    """SQLite denies it."""
    worker = Worker(kind := Kind("postgresql", postgresql_url, tmp_path))
    worker.set("a", 1)
    worker.set("b", 1)
    with worker.batch() as transaction, transaction.plugin_code():
        state = transaction.state
        assert state["a"] == 1
        sql = "UPDATE Axe_Values SET value = '5'"
        if way == "cursor":
            state.cursor.execute(sql)
        elif way == "copy":
            state.cursor.execute('DELETE FROM "axe_values"')
            with state.cursor.copy("COPY axe_values FROM STDIN") as copy:
                copy.write("a\t5\nb\t5\n")
        else:
            state.connection.exec_driver_sql(sql)
        assert state["b"] == 5

    assert worker.get("a") == 5
    kind.close()


def test_a_key_that_is_no_string_has_no_value(kind: Kind) -> None:
    """SQLite would take 1 for "1", which is then known by two keys, and changed under one of them."""
    worker = Worker(kind)
    worker.set("1", "a")
    for n in range(2):
        with worker.batch() as transaction:
            numbers: Any = transaction.state
            assert numbers.get(1) is None
            assert 1 not in numbers
            numbers["1"] = n

    assert worker.get("1") == 1


def test_sql_of_a_handler_on_tables_of_its_own_leaves_what_is_known(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.batch() as transaction, transaction.plugin_code():
        transaction.state.connection.exec_driver_sql("CREATE TABLE seen (n integer)")
        assert (transaction.state["a"], transaction.state.get("b"), len(transaction.state)) == (1, None, 1)

    with worker.batch() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM axe_values")
        assert transaction.state.get("a") == 1
        transaction.rollback()


# --- what others do


def test_a_wipe_by_another_is_seen(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    operations.reset(kind.opened(), BOTH, wipe=True)
    for at in BOTH:
        with pytest.raises(PositionConflict), worker.batch(at):
            pytest.fail("no handler runs")
    worker.take_over()

    assert worker.get("a") is None


def test_a_wipe_by_the_same_store_is_seen(kind: Kind) -> None:
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.batch() as transaction:
        assert transaction.state["a"] == 1
        transaction.wipe()

    assert worker.get("a") is None


def test_what_another_worker_wrote_is_seen_after_it_is_gone(kind: Kind) -> None:
    mine = Worker(kind)
    mine.set("a", 1)
    other = Worker(kind, OTHER)
    assert other.get("a") == 1
    other.set("a", 2)
    with pytest.raises(PositionConflict):
        mine.get("a")

    mine.take_over()

    assert mine.get("a") == 2


def test_a_takeover_of_one_partition_is_noticed_in_every_other(kind: Kind) -> None:
    """The values are one for all partitions, whoever reads which: a worker with other topics writes them, too."""
    mine = Worker(kind)
    mine.set("a", 1)
    other = Worker(kind, OTHER, {VISITS: 0})
    other.set("a", 2, VISITS)

    with pytest.raises(PositionConflict):
        mine.get("a", STUDIES)


def test_what_a_takeover_writes_is_seen(kind: Kind) -> None:
    """As on_start and on_reset do."""
    worker = Worker(kind)
    worker.set("a", 1)
    with worker.store.begin() as transaction:
        worker.held = transaction.take_over(worker.starts, {}, ME)
        transaction.state["a"] += 1
        transaction.commit()

    assert worker.get("a") == 2


@pytest.mark.parametrize("how", ["UPDATE axe_values SET value = '5'", "DELETE FROM axe_values"])
def test_a_change_by_hand_is_seen_on_sqlite(tmp_path: Path, how: str) -> None:
    worker = Worker(kind := Kind("sqlite", "sqlite:state", tmp_path))
    worker.set("a", 1)
    assert worker.get("a") == 1

    kind.outside(how)

    assert worker.get("a") == (5 if "UPDATE" in how else None)
    kind.close()


# --- how much it takes


def test_it_stays_within_its_bytes_and_keeps_what_was_met_last() -> None:
    cache = ValueCache(100_000)
    for n in range(20_000):
        cache.keep({f"key-{n}": f"{n:0{n % 200}d}", f"absent-{n}": None})
        assert cache.bytes <= 100_000
    known = sum(cache.find(f"key-{n}") is not UNKNOWN for n in range(20_000))

    assert all(cache.find(f"key-{n}") is not UNKNOWN for n in range(19_950, 20_000))
    assert 100 < known < 1000


def test_what_is_met_again_and_again_stays() -> None:
    cache = ValueCache(100_000)
    for n in range(5_000):
        assert n == 0 or cache.find("hot") == str(n - 1)
        cache.keep({"hot": str(n), f"key-{n}": "cold"})


def test_a_text_that_is_too_large_is_not_kept_nor_is_the_one_before_it() -> None:
    cache = ValueCache(1000)
    for n in range(3):
        cache.keep({"a": "small", f"b-{n}": "x" * 200})
        cache.keep({"a": "x" * 1000})
        assert cache.find("a") is UNKNOWN
    cache.keep(dict.fromkeys(("b-0", "b-1", "b-2"), "x" * 1000))

    assert cache.bytes == 0


def test_the_bytes_are_those_of_the_process() -> None:
    """Measured in a process of its own, with texts of all widths."""
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        cache = ValueCache(4 * 2**20)
        before, _ = tracemalloc.get_traced_memory()
        for n in range(60_000):
            cache.keep({f"key-{n}": f"{n}{'é' if n % 2 else 'x'}{'Ω' * (n % 7)}"})
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 4 * 2**20
    assert 0.6 < (after - before) / cache.bytes < 1.1


@pytest.mark.parametrize("text", ["é", "Ω", "😀", "x" * 9 + "é"])
def test_a_text_that_grows_when_it_is_read_is_counted(text: str) -> None:
    """The interpreter keeps the UTF-8 of a text that somebody has asked for, beside the text."""
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        cache = ValueCache(2**20)
        before, _ = tracemalloc.get_traced_memory()
        for n in range(2000):
            if n:
                from_json(cache.find("hot"))
            met = {"hot": to_json("hot", f"{n}{text * 100}"), f"{text}{n}": to_json("cold", f"{n}{text * 50}")}
            cache.keep(met)
            from_json(met[f"{text}{n}"])
            del met
            assert 0 < cache.bytes <= 2**20
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 2**20


# --- any sequence

KEYS = st.sampled_from(["a", "b", "c", "d", "é" * 20])
VALUES = st.one_of(st.integers(0, 9), st.text(max_size=30), st.lists(st.integers(0, 9), max_size=9))
EVENTS = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("remove"), KEYS, st.none()),
    st.tuples(st.just("read"), KEYS, st.none()),
    st.tuples(st.just("append"), KEYS, st.integers(0, 9)),
)
STEPS = st.one_of(
    st.tuples(st.just("batch"), st.lists(st.tuples(EVENTS, st.booleans()), max_size=6)),
    st.tuples(st.just("isolated"), st.lists(st.tuples(EVENTS, st.booleans()), max_size=6)),
    st.tuples(st.just("undone"), st.lists(st.tuples(EVENTS, st.just(True)), max_size=6)),
    st.tuples(st.just("hand"), KEYS),
    st.tuples(st.just("wipe"), st.none()),
    st.tuples(st.just("heartbeat"), st.none()),
    st.tuples(st.just("another worker"), KEYS),
)


def _handle(state: Any, event: tuple[str, str, Any]) -> None:
    what, key, value = event
    if what == "set":
        state[key] = value
    elif what == "remove":
        state.pop(key, None)
    elif what == "append":
        # A list in place; what is none becomes one.
        if isinstance(state.get(key), list):
            state[key].append(value)
        else:
            state[key] = [value]
    else:
        state.get(key)


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, list) else value for key, value in values.items()}


def _run_batch(worker: Worker, model: dict[str, Any], how: str, events: list[Any]) -> dict[str, Any]:
    """Run the events, those marked as bad rejected, as the runner does; return what must be stored then."""
    wanted = _copy(model)
    with worker.batch(commits=how != "undone") as transaction:
        state = transaction.state
        for event, is_good in events:
            expected = _copy(wanted)
            _handle(expected, event)
            mark = len(state.changes)
            if how == "isolated":
                transaction.savepoint()
            assert state.get(event[1]) == wanted.get(event[1])
            _handle(state, event)
            state.end_event()
            if is_good:
                wanted = expected
                if how == "isolated":
                    transaction.keep_event()
            elif how == "isolated":
                transaction.undo_event()
            elif not state.undo_event(mark):
                # A list was met: the whole batch is undone, and done again event by event.
                transaction.rollback()
                return _run_batch(worker, model, "isolated", events)
        if how == "undone":
            state.write()
    return model if how == "undone" else wanted


@given(steps=st.lists(STEPS, max_size=25), limit=st.sampled_from([0, 700, 1500, 2**20]))
@settings(max_examples=60)
def test_any_sequence_leaves_what_a_simple_model_says(steps: list[Any], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(kind := Kind("sqlite", "sqlite:state", Path(folder)))
        worker.store._cache = ValueCache(limit)
        other = kind.opened()
        model: dict[str, Any] = {}
        for what, given_ in steps:
            if what in ("batch", "isolated", "undone"):
                try:
                    model = _run_batch(worker, model, what, given_)
                finally:
                    assert worker.store._cache.bytes <= limit
            elif what == "hand":
                with contextlib.closing(sqlite3.connect(kind.path())) as db, db:
                    db.execute("INSERT OR REPLACE INTO axe_values VALUES (?, '\"by hand\"')", (given_,))
                model = {**model, given_: "by hand"}
            elif what == "wipe":
                operations.reset(other, {at: row.position for at, row in worker.held.items()}, wipe=True)
                worker.take_over()
                model = {}
            elif what == "heartbeat":
                worker.store.heartbeat(ME, "host", 1, "running", alone=True)
            else:
                with other.begin() as transaction:
                    held = transaction.take_over(BOTH, {}, OTHER)
                    move = Move(held[STUDIES].position, held[STUDIES].epoch, held[STUDIES].position, None)
                    transaction.advance({STUDIES: move}, OTHER)
                    transaction.state[given_] = "another worker"
                    transaction.commit()
                with pytest.raises(PositionConflict):
                    worker.get(given_)
                worker.take_over()
                model = {**model, given_: "another worker"}
            assert other.values() == model
        kind.close()


def test_the_interpreter_counts_what_a_text_takes() -> None:
    """The bound counts by ``__sizeof__``, which for strings is what ``sys.getsizeof`` says."""
    for text in ("", "ascii", "é", "Ω" * 9, "😀"):
        assert text.__sizeof__() == sys.getsizeof(text)
