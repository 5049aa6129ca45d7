"""The judge proves itself: each kind of damage is noticed."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

import axe
from axe import TopicPartition

from ..oracle import NAME, Input, Judgement, Oracle, verify

STUDIES = TopicPartition("studies", 0)
EVENTS: Input = {STUDIES: [b'{"n":%d}' % n for n in range(400)]}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database that the oracle has filled in peace."""
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "studies.jsonl").write_bytes(b"".join(line + b"\n" for line in EVENTS[STUDIES]))
    app = axe.App({"source": f"file:{folder}", "state": f"sqlite:{folder / 'state'}"})
    app.processors.add(id=NAME, handler=Oracle())
    app.start(until_end=True)
    with contextlib.closing(sqlite3.connect(folder / "state" / f"{NAME}.db")) as connection:
        return connection.serialize()


@pytest.fixture
def database(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "copy.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        source = sqlite3.connect(":memory:")
        # A serialized database in WAL mode is read as one in memory with the journal's version bytes set back.
        source.deserialize(content[:18] + b"\x01\x01" + content[20:])
        source.backup(connection)
        source.close()
    return path


def test_a_run_in_peace_is_judged_well(database: Path) -> None:
    assert verify(database, EVENTS) == Judgement(400, 396, 4, 1)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM seen WHERE off = 7", r"lost \[7\]"),
        ("INSERT INTO seen (topic, part, off, run) VALUES ('studies', 0, 7, 'x')", r"twice \[7\]"),
        ("UPDATE seen SET off = 15 - off WHERE off IN (7, 8)", "out of order"),
        ("UPDATE axe_offsets SET position = 399", "399 of 400"),
        ("UPDATE axe_values SET value = '\"x\"' WHERE key = 'studies/0'", "chain"),
        ("UPDATE axe_values SET value = '{}' WHERE key = 'counts'", "counted"),
        ('DELETE FROM axe_dead_letters WHERE "offset" = 96', "dead letters"),
        ("UPDATE axe_dead_letters SET value = x'00'", "dead letters"),
        ("INSERT INTO seen (topic, part, off, run) VALUES ('studies', 0, 96, 'x')", r"refused \[96\]"),
        ("INSERT INTO seen (topic, part, off, run) VALUES ('other', 0, 1, 'x')", "unknown partitions"),
    ],
)
def test_damage_is_noticed(database: Path, damage: str, found: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(damage)

    with pytest.raises(AssertionError, match=found):
        verify(database, EVENTS)
