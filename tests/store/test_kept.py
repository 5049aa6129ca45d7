"""What a wipe drops is kept, and put back by an undo, on each kind of store."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from axe import operations
from axe.errors import AxeError, StoreMissing
from axe.store import Letters, Move, StoredPosition
from axe.store.sql import Store
from axe.undo import undo

from .kind import ME, NAME, STUDIES, Kind

_SQLITE = (
    "CREATE TABLE parent (id integer PRIMARY KEY, name text UNIQUE)",
    "CREATE TABLE child (parent integer REFERENCES parent (id), n integer CHECK (n > 0))",
    "CREATE INDEX child_n ON child (n)",
    "CREATE VIEW both_of_them AS SELECT name, n FROM child JOIN parent ON id = parent",
    "CREATE TRIGGER loud AFTER INSERT ON parent BEGIN INSERT INTO child VALUES (new.id, 7); END",
    "INSERT INTO parent (name) VALUES ('one')",
)
_POSTGRESQL = (
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
    "CREATE TYPE pair AS (a integer, b mood)",
    "CREATE SEQUENCE numbers",
    "CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, m mood DEFAULT 'glad', p pair)",
    "CREATE TABLE child (parent integer REFERENCES parent, n positive, i integer GENERATED ALWAYS AS IDENTITY)",
    "CREATE INDEX child_n ON child (n)",
    "CREATE VIEW both_of_them AS SELECT name, n FROM child JOIN parent ON id = parent",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM child",
    "CREATE TABLE parts (n integer) PARTITION BY RANGE (n)",
    "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
    (
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO child VALUES (new.id, 7); RETURN NULL; END'"
    ),
    "CREATE TRIGGER loud AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION shout()",
    "CREATE AGGREGATE total (integer) (sfunc = int4pl, stype = integer)",
    "INSERT INTO parent (name, p) VALUES ('one', (1, 'sad'))",
    "INSERT INTO parts VALUES (nextval('numbers'))",
)


def opened(kind: Kind, *, undo_mb: int = 256) -> Store:
    store = Store(kind.place().database(NAME), NAME, undo_mb=undo_mb)
    store.open()
    kind.stores.append(store)
    return store


def build(store: Store, kind: Kind, *, but: int = 0) -> None:
    """Build what a plugin might, leaving out the last statements."""
    statements = _SQLITE if kind.name == "sqlite" else _POSTGRESQL
    with store.begin() as transaction:
        for statement in statements[: len(statements) - but]:
            transaction.connection.exec_driver_sql(statement)
        transaction.state["n"] = [1, 2]
        transaction.commit()


def position(store: Store) -> int:
    return store.positions()[STUDIES].position


@pytest.fixture
def store(kind: Kind) -> Store:
    """A store whose partition is at 10, of a plugin that has built this and that."""
    store = opened(kind)
    with store.begin() as transaction:
        transaction.take_over({STUDIES: 10}, {"studies": "id-1"}, ME)
        transaction.commit()
    build(store, kind)
    return store


def use(kind: Kind) -> list[Any]:
    """Use what was built, from outside: tables, keys, triggers, views."""
    kind.outside("INSERT INTO parent (name) VALUES ('two')")
    return sorted(map(tuple, kind.outside("SELECT name, n FROM both_of_them")))


def test_what_a_wipe_dropped_comes_back_whole_and_what_was_made_since_is_gone(kind: Kind, store: Store) -> None:
    operations.reset(store, {STUDIES: 3}, wipe=True)
    assert store.values() == {}
    build(store, kind, but=2)
    kind.outside("CREATE TABLE another (n integer)")

    undo(store, 1)

    assert store.positions()[STUDIES]._replace(epoch=0) == StoredPosition(10, 0, ME, "id-1", None)
    assert store.values() == {"n": [1, 2]}
    assert use(kind) == [("one", 7), ("two", 7)]
    with pytest.raises(Exception, match="another"):
        kind.outside("SELECT * FROM another")
    if kind.name == "postgresql":
        assert kind.outside("SELECT n FROM parts") == [(1,)]
        assert kind.outside("SELECT nextval('numbers')") == [(2,)]
        assert kind.outside("SELECT total(n) FROM child") == [(14,)]
        assert kind.outside("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'axe\\_\\_undo%%'") == [(0,)]
    operations.reset(store, {STUDIES: 0}, wipe=True)
    undo(store, 3)
    assert store.values() == {"n": [1, 2]}


def test_a_wipe_that_is_not_committed_keeps_nothing(kind: Kind, store: Store) -> None:
    with store.begin() as transaction:
        transaction.move_by_hand({STUDIES: 0})
        kept = transaction.set_aside(keep=True)
        transaction.wipe()

    assert store.values() == {"n": [1, 2]}
    assert use(kind) == [("one", 7), ("two", 7)]
    with store.begin() as transaction, pytest.raises(StoreMissing, match="is not kept any more"):
        transaction.restore(str(kept))


def test_of_an_undo_that_is_not_committed_nothing_is_seen(kind: Kind, store: Store) -> None:
    operations.reset(store, {STUDIES: 3}, wipe=True)
    build(store, kind)

    undo(store, 1, dry_run=True)

    assert (position(store), store.values(), len(store.history())) == (3, {"n": [1, 2]}, 1)
    undo(store, 1)
    assert position(store) == 10


def test_what_is_larger_than_is_set_is_not_kept(kind: Kind, store: Store) -> None:
    small = opened(kind, undo_mb=1)
    blob = (
        "zeroblob(2000000)"
        if kind.name == "sqlite"
        else "(SELECT string_agg(random()::text, '') FROM generate_series(1, 300000))"
    )
    kind.outside(f"CREATE TABLE ballast AS SELECT {blob} AS b")

    reason = small.why_final()
    operations.reset(small, {STUDIES: 0}, wipe=True)

    assert reason is not None
    assert reason.endswith("than `undo_mb` (1) of its settings")
    assert store.why_final() is None
    with pytest.raises(AxeError, match="was not kept, because it is larger"):
        undo(small, 1)


def test_a_later_wipe_takes_what_was_kept_of_an_earlier_one(kind: Kind, store: Store) -> None:
    operations.reset(store, {STUDIES: 0}, wipe=True)
    operations.reset(opened(kind, undo_mb=0), {STUDIES: 0}, wipe=True)

    with pytest.raises(AxeError, match=r"\(reset and wipe\) stands no longer"):
        undo(store, 1)
    if kind.name == "sqlite":
        assert list(kind.path().parent.glob("*undo*")) == []
    else:
        assert kind.outside("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'axe\\_\\_undo%%'") == [(0,)]


def test_the_history_and_the_dead_letters_are_those_of_now(store: Store) -> None:
    """What stands in the copy is older: what was done since is not undone with the state."""
    operations.reset(store, {STUDIES: 0}, wipe=True)
    letter = dict.fromkeys(("key", "value", "timestamp", "error", "version"))
    letter |= {"topic": "studies", "partition": 0, "offset": 4, "headers": "[]", "reason": "no", "attempts": 1}
    operations.import_letters(store, [{**letter, "rejected_at": "2026-03-01T12:00:00.000Z", "status": "rejected"}])

    undo(store, 1, reason="too early")

    assert [(row["id"], row["action"]) for row in store.history()] == [
        (1, "reset and wipe"),
        (2, "import"),
        (3, "undo"),
    ]
    assert store.history()[-1]["reason"] == "too early"
    assert [row["status"] for row in store.dead_letters(which=Letters())] == ["rejected"]


def test_a_reset_that_waited_for_a_batch_goes_back_to_behind_it(kind: Kind) -> None:
    """Else the events of that batch would take effect twice after the undo."""
    if kind.name == "sqlite":
        pytest.skip("a writer waits there before it reads anything")
    worker, operator = opened(kind), opened(kind)
    with worker.begin() as transaction:
        held = transaction.take_over({STUDIES: 10}, {}, ME)
        transaction.commit()
    waiting = threading.Thread(target=operations.reset, args=(operator, {STUDIES: 3}))
    with worker.begin() as transaction:
        transaction.advance({STUDIES: Move(10, held[STUDIES].epoch, 15, None)}, ME)
        waiting.start()
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while kind.outside(blocked) == [(0,)]:
            assert waiting.is_alive(), "it did not wait"
        transaction.commit()
    waiting.join(20)

    undo(operator, 1)

    assert position(operator) == 15
