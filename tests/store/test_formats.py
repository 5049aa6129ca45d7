"""Databases of an older format are brought to the present one by the first worker that opens them."""

from __future__ import annotations

import threading

import pytest

from axe import Record, Rejection, operations
from axe.errors import StoreFormat
from axe.store import Letters, tables
from axe.store.sql import Store

from .kind import ME, NAME, STUDIES, Kind

# The one table that was otherwise, as axe made it in format 1.
_LETTERS_OF_1 = """
    CREATE TABLE axe_dead_letters (
        id {number}, topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL, key {binary},
        value {binary}, headers TEXT NOT NULL, timestamp TEXT, reason TEXT NOT NULL, error TEXT,
        attempts INTEGER NOT NULL, rejected_at TEXT NOT NULL, status TEXT NOT NULL,
        UNIQUE (topic, partition, "offset")
    )"""


@pytest.fixture
def old(kind: Kind) -> Kind:
    """A database of format 1 with a dead letter in it."""
    store = kind.opened()
    with store.begin() as transaction:
        transaction.take_over({STUDIES: 10}, {"studies": "id-1"}, ME)
        transaction.commit()
    store.close()
    kind.outside("DROP TABLE axe_dead_letters")
    number, binary = ("SERIAL PRIMARY KEY", "BYTEA") if kind.name == "postgresql" else ("INTEGER PRIMARY KEY", "BLOB")
    kind.outside(_LETTERS_OF_1.format(number=number, binary=binary))
    kind.outside(
        'INSERT INTO axe_dead_letters (topic, partition, "offset", headers, reason, attempts, rejected_at, status) '
        "VALUES ('studies', 0, 3, '[]', 'no phase', 1, '2026-03-01T12:00:00.000Z', 'rejected')"
    )
    kind.outside("UPDATE axe_processor SET format = 1")
    return kind


def format_of(kind: Kind) -> int:
    return int(kind.outside("SELECT format FROM axe_processor")[0][0])


def refuse(store: Store, offset: int) -> None:
    with store.begin() as transaction:
        transaction.add_dead_letter(Rejection(NAME, Record("studies", 0, offset), "again"))
        transaction.commit()


def test_a_worker_brings_it_up_and_nothing_is_lost(old: Kind) -> None:
    store = old.opened()

    (letter,) = store.dead_letters()
    assert (letter["reason"], letter["attempts"], letter["version"], letter["tries"]) == ("no phase", 1, None, 0)
    assert format_of(old) == tables.FORMAT
    assert store.positions()[STUDIES].position == 10
    refuse(store, 3)
    refuse(store, 4)
    assert [(row["offset"], row["attempts"], row["version"]) for row in store.dead_letters()] == [(3, 2, 1), (4, 1, 1)]


def test_a_command_that_reads_changes_nothing_and_goes_on_working(old: Kind) -> None:
    store = old.store()
    store.open(create=False)

    (letter,) = store.dead_letters()

    assert (letter["reason"], letter["version"], letter["tries"]) == ("no phase", None, 0)
    assert store.count_dead_letters() == 1
    assert store.count_going_letters(until="2026-04", rows=None) == (1, 0, 1)
    assert store.control().version == 1
    assert format_of(old) == 1


def test_one_of_format_2_is_read_as_it_is_and_brought_up_by_a_worker(old: Kind) -> None:
    for column in ("version INTEGER", "tries INTEGER DEFAULT 0 NOT NULL"):
        old.outside(f"ALTER TABLE axe_dead_letters ADD COLUMN {column}")
    old.outside("UPDATE axe_dead_letters SET version = 4")
    old.outside("UPDATE axe_processor SET format = 2")
    store = old.store()
    store.open(create=False)

    (letter,) = store.dead_letters()
    assert (letter["version"], letter["tries"], letter["published_at"]) == (4, 0, None)
    assert format_of(old) == 2
    (letter,) = old.opened().unpublished_letters(limit=5, size=5)

    assert (letter["version"], letter["published_at"]) == (4, None)
    assert format_of(old) == tables.FORMAT


def test_marking_a_letter_waits_for_a_worker_that_understands(old: Kind) -> None:
    store = old.store()
    store.open(create=False)

    with pytest.raises(StoreFormat, match=r"has format 1, of an older axe; start `axe run` anew"):
        operations.retry(store, Letters())

    assert store.control().pending is None
    operations.pause(store)
    assert store.control().paused


def test_one_that_was_brought_up_is_like_a_new_one(old: Kind) -> None:
    old.opened().close()
    old.opened("other").close()

    columns = "SELECT name, type, \"notnull\" FROM pragma_table_info('axe_dead_letters') ORDER BY name"
    if old.name == "postgresql":
        columns = (
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_schema = "
            "current_schema() AND table_name = 'axe_dead_letters' AND column_name <> 'id' ORDER BY 1"
        )
    made, brought_up = old.outside(columns, "other"), old.outside(columns)
    assert [row for row in made if row[0] != "id"] == [row for row in brought_up if row[0] != "id"]


def test_an_older_axe_beside_it_can_still_refuse_events(old: Kind) -> None:
    old.opened().close()

    old.outside(
        'INSERT INTO axe_dead_letters (topic, partition, "offset", headers, reason, attempts, rejected_at, status) '
        "VALUES ('studies', 0, 5, '[]', 'by the old one', 1, '2026-03-01T12:00:00.000Z', 'rejected')"
    )

    assert [(row["offset"], row["version"], row["tries"]) for row in old.opened().dead_letters()] == [
        (3, None, 0),
        (5, None, 0),
    ]


def test_workers_that_come_at_once_bring_it_up_once(old: Kind) -> None:
    stores = [old.store() for _ in range(4)]
    errors: list[BaseException] = []

    def come(store: Store) -> None:
        try:
            store.open()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=come, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert format_of(old) == tables.FORMAT


def test_one_that_cannot_be_brought_up_stays_as_it_was(old: Kind) -> None:
    """Half way up it would be of no format at all."""
    old.outside("ALTER TABLE axe_dead_letters ADD COLUMN tries INTEGER")

    with pytest.raises(Exception, match="tries"):
        old.opened()

    assert format_of(old) == 1
    columns = "SELECT 1 FROM pragma_table_info('axe_dead_letters') WHERE name = 'version'"
    if old.name == "postgresql":
        columns = (
            "SELECT 1 FROM information_schema.columns WHERE table_schema = current_schema() "
            "AND table_name = 'axe_dead_letters' AND column_name = 'version'"
        )
    assert old.outside(columns) == []
