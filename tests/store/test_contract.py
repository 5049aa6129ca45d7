"""What every store promises, run against SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from axe import Record, Rejection, TopicPartition
from axe.errors import (
    PositionConflict,
    StateError,
    StoreCorrupt,
    StoreForeign,
    StoreFormat,
    StoreMissing,
    StoreUnavailable,
    TransactionEnded,
)
from axe.store import Letters, Move, Transaction, open_place
from axe.store.dead_letters import headers_from_json
from axe.store.postgresql import schema_name
from axe.store.sql import Store
from axe.store.sqlite import locks
from axe.store.state import State

from .kind import ME, NAME, STUDIES, Kind


@pytest.fixture
def sqlite_kind(tmp_path: Path) -> Iterator[Kind]:
    made = Kind("sqlite", "sqlite:state", tmp_path)
    yield made
    made.close()


@pytest.fixture
def postgresql_kind(postgresql_url: str, tmp_path: Path) -> Iterator[Kind]:
    made = Kind("postgresql", postgresql_url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(kind: Kind) -> Store:
    """A store whose partition is at 10, with a table of the plugin's."""
    return prepared(kind)


def prepared(kind: Kind) -> Store:
    store = kind.opened()
    with store.begin() as transaction:
        transaction.take_over({STUDIES: 10}, {"studies": "id-1"}, ME)
        transaction.connection.exec_driver_sql("CREATE TABLE seen (n integer)")
        transaction.commit()
    return store


@contextlib.contextmanager
def handling(store: Store, position: int = 11) -> Iterator[Transaction]:
    """A transaction as the runner makes one: the position first, then plugin code; the test commits."""
    held = store.positions()[STUDIES]
    with store.begin() as transaction:
        transaction.advance({STUDIES: Move(held.position, held.epoch, position, None)}, ME)
        yield transaction


def seen(kind: Kind) -> list[int]:
    return [row[0] for row in kind.outside("SELECT n FROM seen ORDER BY n")]


# --- opening


def test_a_new_store_is_empty_and_opens_again_with_what_was_committed(kind: Kind) -> None:
    store = prepared(kind)
    with handling(store) as transaction:
        transaction.state["a"] = 1
        transaction.commit()
    store.close()

    again = kind.opened()

    assert again.store_id == store.store_id
    assert again.positions()[STUDIES].position == 11
    assert again.values() == {"a": 1}
    assert kind.place().processors() == [NAME]


def test_attempts_at_an_event_are_counted_until_another_one_is_tried(kind: Kind) -> None:
    store = prepared(kind)

    def tried(offset: int, *, epoch: int = store.positions()[STUDIES].epoch, owner: str = ME) -> int:
        with store.begin() as transaction:
            count = transaction.note_attempt(STUDIES, offset, epoch=epoch, owner=owner)
            transaction.commit()
        return count

    assert [tried(10), tried(10), tried(11), tried(11), tried(11), tried(10)] == [1, 2, 1, 2, 3, 1]
    assert store.positions()[STUDIES].position == 10
    for stranger in ({"epoch": 99}, {"owner": "somebody"}):
        with pytest.raises(PositionConflict):
            tried(10, **stranger)
    with store.begin() as transaction:
        transaction.move_by_hand({STUDIES: 10})
        transaction.commit()
    assert tried(10, epoch=store.positions()[STUDIES].epoch) == 1


def test_a_store_that_never_was_is_missing_unless_it_may_be_made(kind: Kind) -> None:
    with pytest.raises(StoreMissing, match="not run yet"):
        kind.store().open(create=False)


def test_a_database_that_is_gone_is_not_made_anew(kind: Kind) -> None:
    prepared(kind).close()
    kind.destroy()

    for _ in range(2):
        with pytest.raises(StoreMissing, match="existed and is gone"):
            kind.store().open()


def test_a_database_without_its_tables_is_not_filled_anew(kind: Kind) -> None:
    prepared(kind).close()
    for table in ("axe_processor", "axe_offsets", "axe_values"):
        kind.outside(f"DROP TABLE {table}")

    with pytest.raises(StoreCorrupt):
        kind.store().open()


def test_a_database_that_lost_its_one_row_is_not_filled_anew(kind: Kind) -> None:
    prepared(kind).close()
    kind.outside("DELETE FROM axe_processor")

    with pytest.raises(StoreCorrupt):
        kind.store().open()


def test_the_database_of_another_processor_is_refused(kind: Kind) -> None:
    prepared(kind).close()
    kind.outside("UPDATE axe_processor SET processor = 'other'")

    with pytest.raises(StoreForeign, match="other"):
        kind.store().open()


def test_the_database_of_another_store_is_refused(kind: Kind) -> None:
    prepared(kind).close()
    kind.outside("UPDATE axe_processor SET store_id = 'elsewhere'")

    with pytest.raises(StoreForeign, match="copied"):
        kind.store().open()


def test_a_newer_format_is_refused(kind: Kind) -> None:
    prepared(kind).close()
    kind.outside("UPDATE axe_processor SET format = 99")

    with pytest.raises(StoreFormat, match="99"):
        kind.store().open()


def test_a_file_copied_over_another_processors_is_refused(sqlite_kind: Kind) -> None:
    prepared(sqlite_kind).close()
    sqlite_kind.opened("other").close()
    sqlite_kind.path("other").write_bytes(sqlite_kind.path().read_bytes())

    with pytest.raises(StoreForeign, match=NAME):
        sqlite_kind.store("other").open()


def test_an_emptied_file_is_refused(sqlite_kind: Kind) -> None:
    prepared(sqlite_kind).close()
    sqlite_kind.path().write_bytes(b"")

    with pytest.raises(StoreMissing):
        sqlite_kind.store().open()


@pytest.mark.parametrize("harm", ["noise", "cut short"])
def test_a_corrupted_file_is_refused(sqlite_kind: Kind, harm: str) -> None:
    prepared(sqlite_kind).close()
    content = sqlite_kind.path().read_bytes()
    sqlite_kind.path().write_bytes(b"\x5a" * len(content) if harm == "noise" else content[:5000])

    with pytest.raises(StoreCorrupt):
        sqlite_kind.store().open()


def test_a_damaged_register_is_refused(sqlite_kind: Kind) -> None:
    prepared(sqlite_kind).close()
    (sqlite_kind.folder / "state" / "axe-store.json").write_text("{")

    with pytest.raises(StoreCorrupt):
        sqlite_kind.store().open()


def test_a_file_in_the_place_of_the_folder_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("x")

    with pytest.raises(StoreUnavailable, match="is a file"):
        open_place("sqlite:state", tmp_path).processors()


def test_files_are_for_their_owner_only(sqlite_kind: Kind) -> None:
    store = prepared(sqlite_kind)
    with handling(store) as transaction:
        transaction.state["a"] = 1
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in sqlite_kind.path().parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert f"{NAME}.db-wal" in modes
    assert stat.S_IMODE(sqlite_kind.path().parent.stat().st_mode) == 0o700


# --- positions


def test_a_takeover_raises_the_epoch_and_keeps_the_position(store: Store) -> None:
    with store.begin() as transaction:
        held = transaction.take_over({STUDIES: 0}, {}, "somebody")
        transaction.commit()

    row = store.positions()[STUDIES]
    assert held == {STUDIES: row}
    assert (row.position, row.epoch, row.owner, row.topic_id) == (10, 2, "somebody", "id-1")


def test_a_takeover_of_one_partition_stops_the_owners_of_all_others(store: Store) -> None:
    """The values are one for all partitions: whoever takes one over may write them."""
    with store.begin() as transaction:
        transaction.take_over({TopicPartition("visits", 0): 0}, {}, "somebody")
        transaction.commit()

    row = store.positions()[STUDIES]
    assert (row.position, row.epoch, row.owner, row.topic_id) == (10, 2, ME, "id-1")


@pytest.mark.parametrize(
    ("seen_position", "epoch", "owner"), [(9, 1, ME), (10, 0, ME), (10, 2, ME), (10, 1, "host:2:other")]
)
def test_advancing_compares_position_epoch_and_owner(store: Store, seen_position: int, epoch: int, owner: str) -> None:
    with store.begin() as transaction, pytest.raises(PositionConflict, match=r"studies\[0\]"):
        transaction.advance({STUDIES: Move(seen_position, epoch, 11, None)}, owner)

    assert store.positions()[STUDIES].position == 10


def test_a_position_that_advanced_may_go_back_within_its_transaction(store: Store) -> None:
    with store.begin() as transaction:
        transaction.advance({STUDIES: Move(10, 1, 20, None)}, ME)
        transaction.advance({STUDIES: Move(10, 1, 15, None)}, ME)
        transaction.commit()

    assert store.positions()[STUDIES].position == 15


def test_what_is_not_committed_did_not_happen(kind: Kind) -> None:
    store = prepared(kind)
    with handling(store) as transaction:
        transaction.state["a"] = 1
        transaction.state.cursor.execute("INSERT INTO seen VALUES (1)")
        transaction.state.connection.exec_driver_sql("CREATE TABLE other (n integer)")

    assert (store.positions()[STUDIES].position, store.values(), seen(kind)) == (10, {}, [])
    with pytest.raises(Exception, match="other"):
        kind.outside("SELECT * FROM other")


# --- values


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**90), 2**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def shared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    place = open_place("sqlite:state", tmp_path_factory.mktemp("values"))
    store = Store(place.database(NAME), NAME)
    store.open()
    yield store
    store.close()


@given(value=JSON)
@settings(max_examples=60, deadline=None)
def test_every_json_value_is_read_back_as_it_was_set_or_refused(shared_sqlite: Store, value: Any) -> None:
    with shared_sqlite.begin() as transaction:
        transaction.state["value"] = value
        transaction.commit()

    assert shared_sqlite.values()["value"] == value
    with shared_sqlite.begin() as transaction:
        assert transaction.state["value"] == value


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, (1, 2), float("nan"), float("inf"), -float("inf"), [float("inf")], {1: "a"}, {"a": {1, 2}}, [(1,)],
        b"x",
        object(), "\ud800",
    ],
    ids=repr,
)  # fmt: skip
def test_what_json_would_not_give_back_is_refused(store: Store, value: Any) -> None:
    with store.begin() as transaction:
        transaction.state["value"] = value
        with pytest.raises(StateError, match=r"state\['value'\]"):
            transaction.commit()

    assert store.values() == {}


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_keys_are_strings(store: Store, key: Any) -> None:
    with store.begin() as transaction, pytest.raises(StateError, match="string"):
        transaction.state[key] = 1


def test_a_value_that_was_changed_in_place_is_kept(store: Store) -> None:
    with store.begin() as transaction:
        transaction.state["x"] = {"n": 1}
        transaction.commit()
    with store.begin() as transaction:
        transaction.state["x"]["n"] += 1
        transaction.commit()
    with store.begin() as transaction:
        for value in transaction.state.values():
            value["n"] += 1
        transaction.state.setdefault("y", []).append(1)
        transaction.commit()

    assert store.values() == {"x": {"n": 3}, "y": [1]}


def test_the_state_is_a_mapping_before_and_after_it_is_written(store: Store) -> None:
    with store.begin() as transaction:
        transaction.state.update({"a": 1, "b": 2, "c": None})
        transaction.commit()
    with store.begin() as transaction:
        state = transaction.state
        del state["a"]
        state["d"] = 4
        assert state.pop("b") == 2
        assert state.pop("b", "default") == "default"
        with pytest.raises(KeyError):
            del state["a"]
        with pytest.raises(KeyError):
            state["a"]
        assert state.get("a") is None
        assert (sorted(state), len(state)) == (["c", "d"], 2)
        assert "a" not in state
        assert "c" in state
        state["a"] = 7
        transaction.commit()

    assert store.values() == {"a": 7, "c": None, "d": 4}
    assert store.values("d") == {"d": 4}


# --- SQL


class Base(DeclarativeBase):
    pass


class Seen(Base):
    __tablename__ = "orm_seen"
    n: Mapped[int] = mapped_column(primary_key=True)


def test_connection_session_and_cursor_share_one_transaction(kind: Kind) -> None:
    store = prepared(kind)
    with handling(store) as transaction, transaction.plugin_code():
        state = transaction.state
        Base.metadata.create_all(state.connection)
        state.session.add(Seen(n=1))
        state.session.flush()
        state.cursor.execute("INSERT INTO orm_seen VALUES (2)")
        assert state.connection.scalar(text("SELECT count(*) FROM orm_seen")) == 2
        assert len(state.session.query(Seen).all()) == 2
        state.end_event()
    assert store.positions()[STUDIES].position == 10

    with handling(store) as transaction:
        with transaction.plugin_code():
            Base.metadata.create_all(transaction.state.connection)
            transaction.state.session.add(Seen(n=3))
            with transaction.state.connection.begin_nested():
                transaction.state.cursor.execute("INSERT INTO orm_seen VALUES (4)")
            transaction.state.end_event()
        transaction.commit()
    assert sorted(row[0] for row in kind.outside("SELECT n FROM orm_seen")) == [3, 4]


@pytest.mark.parametrize("on", ["connection", "session"])
@pytest.mark.parametrize("call", ["commit", "rollback", "close"])
def test_ending_the_transaction_is_refused_with_what_to_do_instead(store: Store, on: str, call: str) -> None:
    with handling(store) as transaction:
        with transaction.plugin_code(), pytest.raises(StateError, match=r"begin_nested\(\)"):
            getattr(getattr(transaction.state, on), call)()
        transaction.commit()

    assert store.positions()[STUDIES].position == 11


def test_beginning_a_transaction_is_refused(store: Store) -> None:
    with handling(store) as transaction, transaction.plugin_code(), pytest.raises(StateError, match="begin"):
        transaction.state.connection.begin()


# --- a handler that ends the transaction behind the host's back


def swallow(function: Callable[..., Any], *arguments: Any) -> None:
    with contextlib.suppress(Exception):
        function(*arguments)


SQLITE_ENDINGS: dict[str, Callable[[State], Any]] = {
    "an ON CONFLICT ROLLBACK that is swallowed": lambda state: swallow(
        state.cursor.execute, "INSERT OR ROLLBACK INTO only_one VALUES (1)"
    ),
    "a full disk that is swallowed": lambda state: swallow(
        state.cursor.execute,
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n < 5000) "
        "INSERT INTO blobs SELECT randomblob(4000) FROM c",
    ),
    "a raw COMMIT": lambda state: swallow(state.cursor.execute, "COMMIT"),
    "a raw ROLLBACK": lambda state: swallow(state.cursor.execute, "ROLLBACK"),
    "a raw END": lambda state: swallow(state.connection.exec_driver_sql, "END"),
    "executescript": lambda state: swallow(state.cursor.executescript, "INSERT INTO seen VALUES (77); COMMIT; BEGIN;"),
    "ATTACH": lambda state: swallow(state.cursor.execute, "ATTACH ':memory:' AS other"),
    "a writing PRAGMA": lambda state: swallow(state.cursor.execute, "PRAGMA journal_mode=DELETE"),
    "the driver's commit": lambda state: swallow(state.cursor.connection.commit),
    "the driver's rollback": lambda state: swallow(state.cursor.connection.rollback),
    "text COMMIT": lambda state: swallow(state.connection.execute, text("COMMIT")),
    "a position of ours": lambda state: swallow(state.cursor.execute, "UPDATE axe_offsets SET position = 99"),
}
POSTGRESQL_ENDINGS: dict[str, Callable[[State], Any]] = {
    "text COMMIT": lambda state: swallow(state.connection.execute, text("COMMIT")),
    "text ROLLBACK": lambda state: swallow(state.connection.execute, text("ROLLBACK")),
    "a raw COMMIT": lambda state: swallow(state.cursor.execute, "COMMIT"),
    "a raw ROLLBACK": lambda state: swallow(state.cursor.execute, "ROLLBACK"),
    "the driver's commit": lambda state: swallow(state.cursor.connection.commit),
    "the driver's rollback": lambda state: swallow(state.cursor.connection.rollback),
    "an error that is swallowed": lambda state: swallow(state.cursor.execute, "SELECT 1/0"),
    "a position of ours": lambda state: swallow(state.cursor.execute, "UPDATE axe_offsets SET position = 99"),
    "COMMIT AND CHAIN": lambda state: swallow(state.cursor.execute, "COMMIT AND CHAIN"),
    "a string with ROLLBACK first": lambda state: swallow(
        state.cursor.execute, "ROLLBACK; INSERT INTO seen VALUES (77); COMMIT"
    ),
    "a string with ROLLBACK within": lambda state: swallow(
        state.connection.exec_driver_sql, "SELECT 1; rollback AND CHAIN; INSERT INTO seen VALUES (77); COMMIT"
    ),
    "the driver's rollback, insert and commit": lambda state: (
        state.cursor.connection.rollback(),
        swallow(state.cursor.execute, "INSERT INTO seen VALUES (77)"),
        state.cursor.connection.commit(),
    ),
    "a transaction of its own": lambda state: (
        state.cursor.connection.rollback(),
        swallow(state.cursor.execute, "/* ours */ BEGIN READ WRITE"),
        swallow(state.cursor.execute, "INSERT INTO seen VALUES (77)"),
        state.cursor.connection.commit(),
    ),
}
ENDINGS = [("sqlite", name) for name in SQLITE_ENDINGS] + [("postgresql", name) for name in POSTGRESQL_ENDINGS]


@pytest.mark.parametrize("again_after", ["then more", ""], ids=["then more", "then nothing"])
@pytest.mark.parametrize(("on", "ending"), ENDINGS)
def test_an_event_that_ends_the_transaction_is_neither_lost_nor_applied_twice(
    request: pytest.FixtureRequest, tmp_path: Path, on: str, ending: str, again_after: str
) -> None:
    """Either all of the event is committed with its position, or nothing of it."""
    url = "sqlite:state" if on == "sqlite" else request.getfixturevalue("postgresql_url")
    kind = Kind(on, url, tmp_path)
    store = prepared(kind)
    end = (SQLITE_ENDINGS if on == "sqlite" else POSTGRESQL_ENDINGS)[ending]
    with store.begin() as transaction:
        transaction.connection.exec_driver_sql("CREATE TABLE only_one (n integer UNIQUE)")
        transaction.connection.exec_driver_sql("INSERT INTO only_one VALUES (1)")
        if on == "sqlite":
            transaction.connection.exec_driver_sql("CREATE TABLE blobs (b blob)")
        transaction.commit()

    committed = False
    with handling(store) as transaction:
        if "full" in ending:
            transaction.connection.exec_driver_sql("PRAGMA max_page_count=100")
        with contextlib.suppress(Exception):
            with transaction.plugin_code():
                transaction.state["before"] = 1
                transaction.state.cursor.execute("INSERT INTO seen VALUES (1)")
                end(transaction.state)
                if again_after:
                    swallow(transaction.state.cursor.execute, "INSERT INTO seen VALUES (2)")
                    transaction.state["after"] = 1
            transaction.commit()
            committed = True

    found = (store.positions()[STUDIES].position, seen(kind), sorted(store.values()))
    if committed:
        assert found == (11, [1, 2] if again_after else [1], ["after", "before"] if again_after else ["before"])
    else:
        assert found == (10, [], [])
    with handling(store) as transaction:
        transaction.state.cursor.execute("INSERT INTO seen VALUES (3)")
        transaction.commit()
    assert 3 in seen(kind)
    kind.close()


@pytest.mark.parametrize("ending", ["the driver's commit", "the driver's rollback"])
def test_ending_the_transaction_on_postgresql_is_noticed(postgresql_kind: Kind, ending: str) -> None:
    store = prepared(postgresql_kind)

    with handling(store) as transaction:
        with transaction.plugin_code():
            POSTGRESQL_ENDINGS[ending](transaction.state)
        with pytest.raises(TransactionEnded):
            transaction.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT", "ROLLBACK", "abort", " end;", "BEGIN", "START TRANSACTION", "-- why\nROLLBACK", "/* a */ COMMIT",
        "SAVEPOINT mine", "RELEASE SAVEPOINT mine", "ROLLBACK TO SAVEPOINT mine", "SAVEPOINT axe_0123abcd",
        "SELECT 1; ROLLBACK",
    ],
)  # fmt: skip
def test_what_ends_a_transaction_is_refused_by_name_on_postgresql(postgresql_kind: Kind, statement: str) -> None:
    store = prepared(postgresql_kind)

    with handling(store) as transaction:
        with transaction.plugin_code():
            with pytest.raises(StateError, match="not a handler's to call"):
                transaction.state.cursor.execute(statement)
            with pytest.raises(StateError, match="not a handler's to call"):
                transaction.state.connection.execute(text(statement))
            transaction.state.cursor.execute("INSERT INTO seen VALUES (1)")
        transaction.commit()

    assert seen(postgresql_kind) == [1]


def test_savepoints_of_sqlalchemy_work(kind: Kind) -> None:
    store = prepared(kind)

    with handling(store) as transaction:
        with transaction.plugin_code():
            connection = transaction.state.connection
            with connection.begin_nested():
                connection.exec_driver_sql("INSERT INTO seen VALUES (1)")
            with contextlib.suppress(ZeroDivisionError), connection.begin_nested():
                connection.exec_driver_sql("INSERT INTO seen VALUES (2)")
                raise ZeroDivisionError
        transaction.commit()

    assert seen(kind) == [1]


def test_a_cursor_that_a_handler_keeps_holds_no_transaction_open(sqlite_kind: Kind) -> None:
    """SQLite keeps a closed connection alive while a statement on it is not finished."""
    store = prepared(sqlite_kind)
    kept = []
    for n in (1, 2):
        with handling(store) as transaction:
            cursor = transaction.state.cursor
            cursor.execute("INSERT INTO seen VALUES (?)", (n,))
            cursor.execute("SELECT value FROM json_each('[1, 2, 3]')")
            cursor.fetchone()
            kept.append(cursor)

    assert store.positions()[STUDIES].position == 10
    assert seen(sqlite_kind) == []


def test_a_cached_statement_is_authorized_again(sqlite_kind: Kind) -> None:
    """SQLite asks about a statement when it is prepared; a prepared one must not slip through."""
    store = prepared(sqlite_kind)
    with handling(store) as transaction:
        cursor = transaction.state.cursor
        cursor.execute("UPDATE axe_offsets SET epoch = epoch")
        for _ in range(2):
            with transaction.plugin_code(), pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
                cursor.execute("UPDATE axe_offsets SET epoch = epoch")
            cursor.execute("UPDATE axe_offsets SET epoch = epoch")


LOST: dict[str, Callable[[Transaction], object]] = {
    "commit": lambda transaction: transaction._database.commit(transaction._connection),  # type: ignore[arg-type] # open
    "values": lambda transaction: transaction.state.get("a"),
    "cursor": lambda transaction: transaction.state.cursor.execute("SELECT 1"),
    "connection": lambda transaction: transaction.connection.execute(text("SELECT 1")),
}


@pytest.mark.parametrize("notice", LOST)
def test_a_lost_postgresql_session_is_trouble_of_the_store(postgresql_kind: Kind, notice: str) -> None:
    """Nobody's event is at fault, whether SQLAlchemy or the driver itself notices."""
    store = prepared(postgresql_kind)
    with handling(store) as transaction:
        pid = transaction.connection.scalar(text("SELECT pg_backend_pid()"))
        _ = transaction.state.cursor
        postgresql_kind.outside(f"SELECT pg_terminate_backend({pid}, 5000)")

        with pytest.raises(Exception) as caught:  # noqa: PT011 # which one is not the point
            LOST[notice](transaction)

    assert isinstance(store.trouble(caught.value), StoreUnavailable)
    assert store.positions()[STUDIES].position == 10


@pytest.mark.parametrize("look", ["control", "positions", "values"])
def test_a_reader_whose_postgresql_session_was_ended_says_so_once_and_goes_on(postgresql_kind: Kind, look: str) -> None:
    prepared(postgresql_kind)
    reader = postgresql_kind.opened()
    reader.positions()
    postgresql_kind.outside(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )

    with pytest.raises(StoreUnavailable):
        getattr(reader, look)()

    getattr(reader, look)()
    assert reader.positions()[STUDIES].position == 10


# --- readers and writers


def test_reading_works_while_a_writer_holds_its_transaction(kind: Kind) -> None:
    store, reader = prepared(kind), kind.opened()
    with handling(store) as transaction:
        transaction.state["a"] = 1
        transaction.state.write()

        assert reader.positions()[STUDIES].position == 10
        assert reader.values() == {}
        transaction.commit()
    assert reader.values() == {"a": 1}


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)read.?only|cannot be written"), store._database.read() as connection:
        connection.exec_driver_sql("DELETE FROM axe_values")


def test_a_second_writer_waits_for_the_first(kind: Kind) -> None:
    store, second = prepared(kind), kind.opened()
    done = threading.Event()

    def write() -> None:
        second.set_status("paused")
        done.set()

    with handling(store) as transaction:
        transaction.connection.execute(text("UPDATE axe_processor SET status = 'running'"))
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.1)
        transaction.commit()
    thread.join(10)
    assert done.is_set()
    assert store.control().status == "paused"


HOLDER = """
import sys
from pathlib import Path
from axe.store import SqlStore, open_place
store = SqlStore(open_place("sqlite:state", Path(sys.argv[2])).database(sys.argv[1]), sys.argv[1])
store.open()
transaction = store.begin()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_writer_that_waits_too_long_names_the_holder(sqlite_kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.05)
    prepared(sqlite_kind).close()
    holder = subprocess.Popen(
        [
            sys.executable, "-c", HOLDER, NAME, str(sqlite_kind.folder),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        store = sqlite_kind.opened()
        with pytest.raises(StoreUnavailable, match=f"process {holder.pid}"):
            store.set_status("paused")
    finally:
        holder.communicate()


# --- dead letters, wipe


def rejection(offset: int = 3, reason: str = "no phase") -> Rejection:
    headers = (("type", b"created"), ("none", None), ("raw", b"\xff\x00"), ("type", b"twice"))
    record = Record("studies", 0, offset, b"\x00key", b"\xff{not json", headers, 1_700_000_000_123)
    return Rejection(NAME, record, reason, None, 1)


def test_a_dead_letter_keeps_bytes_headers_and_timestamp(store: Store) -> None:
    with store.begin() as transaction:
        transaction.add_dead_letter(rejection())
        transaction.commit()

    (letter,) = store.dead_letters()
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("studies", 0, 3)
    assert (bytes(letter["key"]), bytes(letter["value"])) == (b"\x00key", b"\xff{not json")
    assert headers_from_json(letter["headers"]) == rejection().record.headers
    assert letter["timestamp"] == "2023-11-14T22:13:20.123Z"
    assert (letter["reason"], letter["status"], letter["attempts"]) == ("no phase", "rejected", 1)


def test_an_event_that_is_rejected_again_updates_its_dead_letter(store: Store) -> None:
    for reason in ("first", "second"):
        with store.begin() as transaction:
            transaction.add_dead_letter(rejection(reason=reason))
            transaction.add_dead_letter(rejection(offset=4, reason=reason))
            transaction.commit()

    assert [(letter["offset"], letter["reason"], letter["attempts"]) for letter in store.dead_letters()] == [
        (3, "second", 2),
        (4, "second", 2),
    ]
    assert store.count_dead_letters() == 2


def refuse(store: Store, *reasons: str, topic: str = "studies", start: int = 0) -> None:
    with store.begin() as transaction:
        for offset, reason in enumerate(reasons, start):
            transaction.add_dead_letter(Rejection(NAME, Record(topic, 0, offset), reason))
        transaction.commit()


def mark(store: Store, which: Letters, status: str) -> list[int]:
    with store.begin() as transaction:
        ids = transaction.mark_dead_letters(which, status)
        transaction.commit()
    return ids


CHOICES = [
    Letters(),
    Letters(ids=()),
    Letters(ids=(4, 1, 9)),
    Letters(statuses=("retry",)),
    Letters(statuses=("rejected", "retry"), topic="studies"),
    Letters(topic="studies", partition=0, begin=1, end=3),
    Letters(partition=1),
    Letters(begin=3),
    Letters(end=0),
    Letters(reason="odd"),
    Letters(reason="od"),
    Letters(contains="d"),
    Letters(contains="%"),
    Letters(contains=""),
    Letters(contains="E"),
    Letters(since="2026", until="9"),
    Letters(since="9"),
    Letters(until="2026"),
    Letters(ids=(1, 2, 3), reason="odd", topic="studies", statuses=("rejected",)),
]


@pytest.mark.parametrize("which", CHOICES, ids=str)
def test_dead_letters_are_chosen_as_letters_takes_them(store: Store, which: Letters) -> None:
    refuse(store, "even", "odd", "even", "odd")
    refuse(store, "even", "odd", topic="others")
    mark(store, Letters(ids=(2, 5)), "retry")
    meant = [letter["id"] for letter in store.dead_letters() if which.takes(letter)]

    assert [letter["id"] for letter in store.dead_letters(which=which)] == meant
    assert [letter["id"] for letter in store.dead_letters(which=which, limit=1)] == meant[:1]
    assert mark(store, which, "discarded") == meant
    assert [letter["id"] for letter in store.dead_letters(which=Letters(statuses=("discarded",)))] == meant


def test_the_history_is_read_oldest_first(store: Store) -> None:
    with store.begin() as transaction:
        transaction.audit("me", "first", "why", {"a": 1}, None)
        transaction.audit("you", "second", None, None, [2])
        transaction.commit()

    found = [[row[name] for name in ("id", "who", "action", "reason", "before", "after")] for row in store.history()]
    assert found == [[1, "me", "first", "why", '{"a": 1}', "null"], [2, "you", "second", None, "null", "[2]"]]


def test_a_dead_letter_is_restored_as_it_was_unless_there_is_one(store: Store) -> None:
    with store.begin() as transaction:
        transaction.add_dead_letter(rejection())
        transaction.mark_dead_letters(Letters(), "discarded")
        transaction.commit()
    (letter,) = store.dead_letters()
    columns = {name: value for name, value in letter.items() if name not in ("id", "tries")}

    with store.begin() as transaction:
        assert not transaction.restore_dead_letter({**columns, "reason": "another"})
        assert transaction.restore_dead_letter({**columns, "offset": 9})
        transaction.commit()

    kept, added = store.dead_letters()
    assert kept == letter
    assert added == {**letter, "id": added["id"], "offset": 9}


def test_thousands_of_dead_letters_are_marked_at_once(store: Store) -> None:
    refuse(store, *["no"] * 2345)

    assert mark(store, Letters(), "retry") == list(range(1, 2346))
    assert store.count_dead_letters() == 2345
    assert mark(store, Letters(statuses=("retry",)), "retried") == list(range(1, 2346))
    assert store.count_dead_letters() == 0


def test_retries_that_were_begun_are_counted_until_the_letter_is_marked_again(store: Store) -> None:
    refuse(store, "no", "no")

    def begun(number: int) -> int:
        with store.begin() as transaction:
            count = transaction.note_retry(number)
            transaction.commit()
        return count

    assert (begun(1), begun(9)) == (0, 0)
    mark(store, Letters(ids=(1,)), "retry")
    assert [begun(1), begun(1), begun(2)] == [1, 2, 0]
    assert [letter["tries"] for letter in store.dead_letters()] == [2, 0]
    mark(store, Letters(ids=(1,)), "retry")
    assert begun(1) == 1
    refuse(store, "again")
    assert [(letter["status"], letter["tries"]) for letter in store.dead_letters()] == [("rejected", 0)] * 2


def test_what_is_pending_stays_when_less_is_asked_for(store: Store) -> None:
    found = []
    for pending in (None, "retry", "reset", "wipe"):
        with store.begin() as transaction:
            transaction.set_control({"pending": pending})
            transaction.direct("retry")
            transaction.commit()
        found.append(store.control().pending)

    assert found == ["retry", "retry", "reset", "wipe"]


def test_what_is_asked_for_while_a_worker_adopts_is_pending_afterwards(postgresql_kind: Kind) -> None:
    """The worker has read what is pending, and is about to note that it is done."""
    worker, operator = prepared(postgresql_kind), postgresql_kind.opened()
    with worker.begin() as adopting:
        adopting.set_control({"pending": "reset"})
        adopting.commit()

    def ask() -> None:
        with operator.begin() as asking:
            asking.direct("retry")
            asking.commit()

    with worker.begin() as adopting:
        adopting.adopted(version=1, cluster_id=None, status="running")
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(0.5)
        assert asking.is_alive()
        adopting.commit()
    asking.join(20)

    assert worker.control().pending == "retry"


def test_a_letter_that_somebody_else_has_marked_meanwhile_is_not_marked(postgresql_kind: Kind) -> None:
    one, other = prepared(postgresql_kind), postgresql_kind.opened()
    refuse(one, "no", "no")
    marked: list[int] = []
    with one.begin() as transaction:
        assert transaction.mark_dead_letters(Letters(ids=(1,)), "discarded") == [1]
        waits = threading.Thread(target=lambda: marked.extend(mark(other, Letters(statuses=("rejected",)), "retry")))
        waits.start()
        waits.join(0.5)
        assert waits.is_alive()
        transaction.commit()
    waits.join(20)

    assert marked == [2]


def test_a_wipe_drops_what_the_plugin_made_and_keeps_dead_letters_and_history(kind: Kind) -> None:
    store = prepared(kind)
    postgresql = kind.name == "postgresql"
    made = [
        "CREATE TABLE parent (id integer PRIMARY KEY)",
        "CREATE TABLE child (id integer REFERENCES parent (id))",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (1)",
        "CREATE VIEW both_of_them AS SELECT parent.id FROM parent JOIN child ON parent.id = child.id",
        "CREATE VIEW on_a_view AS SELECT * FROM both_of_them",
        "CREATE INDEX by_id ON child (id)",
        'CREATE TABLE "odd ""name%" (n integer)'.replace("%", "%%" if postgresql else "%"),
        "CREATE TABLE axes (n integer)",
    ]
    made += (
        [
            "CREATE TABLE ident (n integer GENERATED ALWAYS AS IDENTITY)",
            "CREATE TABLE ser (n serial)",
            "CREATE SEQUENCE own",
        ]
        if postgresql
        else ["CREATE VIRTUAL TABLE search USING fts5(body)", "CREATE TABLE auto (n integer PRIMARY KEY AUTOINCREMENT)"]
    )
    with store.begin() as transaction:
        for sql in made:
            transaction.connection.exec_driver_sql(sql)
        transaction.state["a"] = 1
        transaction.add_dead_letter(rejection())
        transaction.audit("me", "test", None, None, {"a": 1})
        transaction.commit()

    with store.begin() as transaction:
        transaction.wipe()
        transaction.commit()

    assert store.values() == {}
    assert len(store.dead_letters()) == 1
    assert [json.loads(row[0]) for row in kind.outside("SELECT after FROM axe_audit")] == [{"a": 1}]
    assert store.positions()[STUDIES].position == 10
    left = (
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind <> 'i'"
        if postgresql
        else "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"
    )
    assert [row[0] for row in kind.outside(left) if not row[0].startswith("axe_")] == []
    with store.begin() as transaction:
        for sql in made:
            transaction.connection.exec_driver_sql(sql)
        transaction.commit()


def test_an_event_is_undone_alone(kind: Kind) -> None:
    store = prepared(kind)
    table = Table("seen", MetaData(), Column("n", Integer), Column("unused", Text))
    with handling(store) as transaction:
        with transaction.plugin_code():
            for n in (1, 2, 3):
                transaction.savepoint()
                transaction.state["sum"] = transaction.state.get("sum", 0) + n
                transaction.state.connection.execute(table.insert().values(n=n))
                if n == 2:
                    transaction.undo_event()
                else:
                    transaction.keep_event()
        transaction.commit()

    assert (seen(kind), store.values()) == ([1, 3], {"sum": 4})


@pytest.mark.parametrize("name", ["mine", "axe_0123abcd", '""'])
def test_a_savepoint_that_nobody_looks_for_is_denied_on_sqlite(sqlite_kind: Kind, name: str) -> None:
    store = prepared(sqlite_kind)

    with handling(store) as transaction:
        with transaction.plugin_code(), pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            transaction.state.cursor.execute(f"SAVEPOINT {name}")
        transaction.commit()


@pytest.mark.parametrize("end", ["keep_event", "undo_event"])
def test_the_name_of_a_savepoint_that_has_ended_is_nobodys(kind: Kind, end: str) -> None:
    """Left open behind a later event, it would take back what is between, and not the positions."""
    store = prepared(kind)
    with handling(store) as transaction:
        with transaction.plugin_code():
            transaction.savepoint()
            name = transaction.state.connection.savepoint
            getattr(transaction, end)()
        transaction.commit()

    with handling(store, 12) as transaction:
        with transaction.plugin_code(), pytest.raises(Exception, match=r"not authorized|not a handler's to call"):
            transaction.state.cursor.execute(f"SAVEPOINT {name}")
        transaction.commit()


# --- names


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True)


@given(one=NAMES, other=NAMES)
@example(one="a-b", other="a__b")
@example(one="a_-b", other="a-_b")
@example(one="a" * 63, other="a" * 62 + "b")
def test_two_processors_never_share_a_schema(one: str, other: str) -> None:
    assert (schema_name(one) == schema_name(other)) == (one == other)
    assert len(schema_name(one).encode()) <= 63


@given(name=NAMES)
@example(name="a__b")
def test_no_processor_can_be_named_after_the_schema_of_another(name: str) -> None:
    """A name that takes the hash of another's schema into itself gets a schema of its own."""
    taken = schema_name(name)
    for imitation in (taken.removeprefix("axe_"), taken.removeprefix("axe_").replace("__", "-")):
        if imitation != name and len(imitation) <= 63:
            assert schema_name(imitation) != taken


def test_the_schema_of_an_ordinary_name_is_readable() -> None:
    assert schema_name("study-counter") == "axe_study__counter"
    assert schema_name("study_counter2") == "axe_study_counter2"
