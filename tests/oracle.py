"""The oracle: a processor that keeps a record of everything it did, and the judge of that record.

The table has no unique key: an event that took effect twice stands in it twice. The chain of hashes in
the values notices an order that is wrong, and values that are of another moment than the table.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine, text

from axe import Event, Reject, State, TopicPartition, hookimpl

NAME = "oracle"
REJECT_EVERY = 97
# After a rejection events are handled one by one for a while: in the rest of each stretch none is refused, so that
# batches go the fast way again.
STRETCH, REJECTING = 3000, 500

Input = Mapping[TopicPartition, Sequence[bytes]]


class Judgement(NamedTuple):
    """What ``verify`` found in order: the events behind the positions, those applied, those refused."""

    events: int
    applied: int
    rejected: int
    runs: int


class Damaged(AssertionError):
    """Events were lost, took effect twice, or did so out of order; how many of each, in one partition."""

    def __init__(self, at: TopicPartition, seen: Sequence[int], wanted: Sequence[int]) -> None:
        lost = sorted(set(wanted) - set(seen))
        alien = sorted(set(seen) - set(wanted))
        twice = sorted(offset for offset, times in Counter(seen).items() if times > 1)
        # Each event that comes right after a later one.
        disorder = [after for before, after in itertools.pairwise(seen) if after < before]
        self.lost, self.twice, self.disorder = len(lost), len(twice), len(disorder)
        super().__init__(
            f"{at}: lost {lost[:9]}, twice {twice[:9]}, past the position or refused {alien[:9]}, "
            f"out of order {disorder[:9]}"
        )


class Oracle:
    """Notes each event in a table and in a chain of hashes, and refuses every 97th of some."""

    version = 1

    def __init__(self, topics: Sequence[str] = ("studies",)) -> None:
        self.topics = tuple(topics)
        self._insert = ""

    @hookimpl
    def on_start(self, state: State) -> None:
        postgresql = state.connection.dialect.name == "postgresql"
        number = "seq bigint GENERATED ALWAYS AS IDENTITY" if postgresql else "seq integer PRIMARY KEY"
        state.connection.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS seen ({number}, topic text, part integer, off bigint, run text)"
        )
        values = "%s, %s, %s, %s" if postgresql else "?, ?, ?, ?"
        self._insert = f"INSERT INTO seen (topic, part, off, run) VALUES ({values})"

    @hookimpl
    def on_event(self, event: Event, state: State) -> None:
        rejected = is_rejected(event.offset)
        if rejected and event.offset % 2:
            raise Reject("refused before anything was done")
        key = f"{event.topic}/{event.partition}"
        if event.offset % 3 == 0:
            state.connection.execute(
                text("INSERT INTO seen (topic, part, off, run) VALUES (:topic, :part, :off, :run)"),
                {"topic": event.topic, "part": event.partition, "off": event.offset, "run": str(os.getpid())},
            )
        else:
            state.cursor.execute(self._insert, (event.topic, event.partition, event.offset, str(os.getpid())))
        state[key] = link(state.get(key, ""), event.offset, event.record.value or b"")
        count = state.setdefault("counts", {})
        count[key] = count.get(key, 0) + 1
        if rejected:
            raise Reject("refused after the table and the chain were touched")


def is_rejected(offset: int) -> bool:
    """Tell whether the oracle refuses the event."""
    return offset % STRETCH < REJECTING and offset % STRETCH % REJECT_EVERY == REJECT_EVERY - 1


def link(chain: str, offset: int, value: bytes) -> str:
    """Add an event to the chain."""
    return hashlib.sha256(b"%s %d %s" % (chain.encode(), offset, value)).hexdigest()[:24]


def verify(
    location: str | Path,
    events: Input,
    *,
    complete: bool = True,
    schema: str = f"axe_{NAME}",
    begins: Mapping[TopicPartition, int] | None = None,
    kept_letters: bool = False,
) -> Judgement:
    """Judge a database, the path of a SQLite file or the URL of a PostgreSQL database, against the input.

    With ``complete`` every event has to be behind the positions; without, what is behind them is judged.
    ``begins`` says from where on the state was built, where that is not the first offset; ``kept_letters`` that what
    was refused before a wipe is still among the dead letters.

    Raises:
        AssertionError: an event was lost, took effect twice or out of order, or a number does not add up.
    """
    rows, values, positions, letters = _read(str(location), schema)
    assert set(positions) <= set(events), f"positions of unknown partitions: {set(positions) - set(events)}"
    applied = rejected = behind = 0
    counts: dict[str, int] = json.loads(values.get("counts", "{}"))
    for at, log in events.items():
        begin = (begins or {}).get(at, 0)
        position = positions.get(at, begin)
        assert position <= len(log), f"{at}: the position {position} is past the end {len(log)}"
        if complete:
            assert position == len(log), f"{at}: the position is {position} of {len(log)}"
        seen = [offset for topic, part, offset, _ in rows if (topic, part) == at]
        wanted = [offset for offset in range(begin, position) if not is_rejected(offset)]
        if seen != wanted:
            raise Damaged(at, seen, wanted)
        chain = ""
        for offset in wanted:
            chain = link(chain, offset, log[offset])
        key = f"{at.topic}/{at.partition}"
        assert json.loads(values.get(key, '""')) == chain, f"{at}: the chain at {position} is not that of the input"
        assert counts.get(key, 0) == len(wanted), f"{at}: {counts.get(key)} counted, {len(wanted)} expected"
        refused = [(offset, value) for topic, part, offset, value in letters if (topic, part) == at]
        since = 0 if kept_letters else begin
        expected = [(offset, log[offset]) for offset in range(since, position) if is_rejected(offset)]
        assert refused == expected, f"{at}: the dead letters are not those of the input"
        applied, rejected, behind = applied + len(seen), rejected + len(refused), behind + position
    assert len(rows) == applied, "the table has rows of unknown partitions"
    assert len(letters) == rejected, "there are dead letters of unknown partitions"
    return Judgement(behind, applied, rejected, len({run for _, _, _, run in rows}))


_SEEN = "SELECT topic, part, off, run FROM seen ORDER BY seq"
_VALUES = "SELECT key, value FROM axe_values"
_POSITIONS = 'SELECT topic, "partition", position FROM axe_offsets'
_LETTERS = 'SELECT topic, "partition", "offset", value FROM axe_dead_letters ORDER BY topic, "partition", "offset"'

_Read = tuple[list[Any], dict[str, str], dict[TopicPartition, int], list[Any]]


def _read(location: str, schema: str) -> _Read:
    """Read everything in one snapshot, through a connection that cannot write."""
    if "://" not in location:
        connection = sqlite3.connect(f"file:{location}?mode=ro", uri=True, timeout=30)
        try:
            connection.execute("BEGIN")
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found = [connection.execute(sql).fetchall() for sql in (_SEEN, _VALUES, _POSITIONS, _LETTERS)]
        finally:
            connection.close()
    else:
        options = f"-c search_path={schema} -c default_transaction_isolation=repeatable\\ read"
        engine = create_engine(location, connect_args={"options": f"{options} -c default_transaction_read_only=on"})
        with engine.connect() as reading:
            found = [
                [tuple(row) for row in reading.exec_driver_sql(sql)] for sql in (_SEEN, _VALUES, _POSITIONS, _LETTERS)
            ]
        engine.dispose()
    seen, values, positions, letters = found
    letters = [(topic, part, offset, bytes(value)) for topic, part, offset, value in letters]
    return seen, dict(values), {TopicPartition(t, p): position for t, p, position in positions}, letters
