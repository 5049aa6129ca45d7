"""Dead letters: the rows of refused events, bytes and headers included."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    bindparam,
    func,
    insert,
    literal,
    null,
    select,
    true,
    update,
)

from ..event import Record, Rejection
from . import tables
from .protocol import Letters
from .text import clean
from .upsert import insert_or_update

OPEN = ("rejected", "retry", "blocked")
"""Statuses of letters whose events are missing in the state."""

_SINCE: dict[str, tuple[int, ColumnElement[Any]]] = {
    "version": (2, null()),
    "tries": (2, literal(0)),
    "blocked_by": (3, null()),
    "published_at": (3, null()),
}
"""Columns that the first format did not have: since which, and what stands for them before."""

_of = tables.dead_letters.c
_CONDITIONS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    # In the statement itself, which may have any number of them, and of parameters some thousands.
    "ids": lambda ids: _of.id.in_(bindparam(None, ids, expanding=True, literal_execute=True)),
    "statuses": _of.status.in_,
    "topic": lambda topic: _of.topic == topic,
    "partition": lambda partition: _of.partition == partition,
    "begin": lambda offset: _of.offset >= offset,
    "end": lambda offset: _of.offset < offset,
    "reason": lambda reason: _of.reason == reason,
    # Not by LIKE, which takes letters of either case for the same on SQLite alone.
    "contains": lambda part: func.replace(_of.reason, part, "") != _of.reason if part else true(),
    "since": lambda at: _of.rejected_at >= at,
    "until": lambda at: _of.rejected_at < at,
}


def add_dead_letter(connection: Connection, rejection: Rejection, blocked_by: int | None = None) -> None:
    """Store an event that was refused, or waits for another one, with its bytes; one that is there updates its row."""
    letters, record = tables.dead_letters, rejection.record
    values: dict[str, Any] = {
        "key": record.key,
        "value": record.value,
        "headers": _headers_to_json(record.headers),
        "timestamp": tables.timestamp_of_ms(record.timestamp_ms),
        "reason": clean(rejection.reason),
        "error": None if rejection.error is None else clean(rejection.error),
        "rejected_at": tables.timestamp(),
        "status": "rejected" if blocked_by is None else "blocked",
        "blocked_by": blocked_by,
        "version": select(tables.processor.c.version).scalar_subquery(),
        "tries": 0,
        "published_at": None,
    }
    place = (
        letters.c.topic == record.topic,
        letters.c.partition == record.partition,
        letters.c.offset == record.offset,
    )
    attempts = letters.c.attempts + rejection.attempts
    updated = connection.execute(update(letters).where(*place).values(**values, attempts=attempts))
    if updated.rowcount == 0:
        values |= {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        connection.execute(insert(letters).values(**values, attempts=rejection.attempts))


def letters_of(format_: int) -> Select[Any]:
    """Select the dead letters of a database of this format, in the order of their rejection."""
    columns = [of_format(column, format_) for column in tables.dead_letters.c]
    return select(*columns).order_by(tables.dead_letters.c.id)


def of_format(column: ColumnElement[Any], format_: int) -> ColumnElement[Any]:
    """Return a column of the dead letters, or what stands for it in a database of an older format."""
    since, before = _SINCE.get(str(column.key), (1, column))
    return column if format_ >= since else before.label(column.key)


def chosen(which: Letters) -> list[ColumnElement[bool]]:
    """Return the conditions for letters to be meant; see ``Letters.takes``."""
    return [_CONDITIONS[name](given) for name, given in which._asdict().items() if given is not None]


def mark_dead_letters(connection: Connection, which: Letters, status: str) -> list[int]:
    """Give letters another status; return their ids in order."""
    letters = tables.dead_letters
    # Locked: on PostgreSQL another transaction could change them, or add to them, between the two statements.
    meant = select(letters.c.id).where(*chosen(which)).order_by(letters.c.id).with_for_update()
    found = list(connection.scalars(meant))
    if found:
        these = chosen(Letters(ids=tuple(found)))
        waits_for = _first_before() if status == "blocked" else null()
        connection.execute(update(letters).where(*these).values(status=status, tries=0, blocked_by=waits_for))
    return found


def _first_before() -> ScalarSelect[Any]:
    """Select the offset of the first open letter before another one of its key."""
    first = tables.dead_letters.alias()
    here = (first.c.topic == _of.topic, first.c.partition == _of.partition, first.c.key == _of.key)
    earlier = (first.c.offset < _of.offset, first.c.status.in_(OPEN))
    return select(func.min(first.c.offset)).where(*here, *earlier).correlate(tables.dead_letters).scalar_subquery()


def restore_dead_letter(connection: Connection, letter: Mapping[str, Any]) -> bool:
    """Add a letter as it is, unless there is one of the same event; tell whether it was added."""
    texts = {name: clean(letter[name]) for name in ("reason", "error") if letter[name] is not None}
    made = insert_or_update(connection.dialect.name, tables.dead_letters).values(**{**letter, **texts})
    return bool(connection.execute(made.on_conflict_do_nothing()).rowcount)


def note_retry(connection: Connection, number: int) -> int:
    """Note that a retry is about to be begun; return how often it was, 0 where the letter is not marked any more."""
    letters = tables.dead_letters
    marked = (letters.c.id == number, letters.c.status == "retry")
    noted = connection.execute(update(letters).where(*marked).values(tries=letters.c.tries + 1))
    return int(connection.scalar(select(letters.c.tries).where(*marked)) or 0) if noted.rowcount else 0


def first_of_each_key(connection: Connection) -> list[tuple[str, int, bytes, int]]:
    """Return topic, partition and key of the letters that are open, and the first offset of each."""
    columns = (_of.topic, _of.partition, _of.key)
    statement = select(*columns, func.min(_of.offset)).where(_of.status.in_(OPEN), _of.key.is_not(None))
    rows = connection.execute(statement.group_by(*columns))
    return [(topic, partition, bytes(key), offset) for topic, partition, key, offset in rows]


def blocker(connection: Connection, record: Record, known: int) -> int | None:
    """Return the offset of the first letter of a key that is open; ``known`` is the one that was the first."""
    # Locked: on PostgreSQL whoever settles it looks for those that wait when this transaction has ended.
    here = (_of.topic == record.topic, _of.partition == record.partition, _of.status.in_(OPEN))
    still = select(_of.offset).where(*here, _of.offset == known).with_for_update()
    if connection.scalar(still) is not None:
        return known
    others = select(_of.offset).where(*here, _of.key == record.key).order_by(_of.offset).limit(1)
    offset: int | None = connection.scalar(others.with_for_update())
    return offset


def release(connection: Connection, ids: Iterable[int]) -> list[int]:
    """Mark for a retry what waits for letters that are settled: of each key the first; return their ids."""
    letters = tables.dead_letters
    waits = select(_of.id).where(_of.status == "blocked")
    found: list[int] = []
    if connection.scalar(waits.limit(1)) is None:
        return found
    for topic, partition, key, offset in connection.execute(
        select(_of.topic, _of.partition, _of.key, _of.offset).where(*chosen(Letters(ids=tuple(ids))))
    ).all():
        here = (_of.topic == topic, _of.partition == partition, _of.key == key)
        number = connection.scalar(waits.where(*here, _of.offset > offset).order_by(_of.offset).limit(1))
        before = select(_of.id).where(*here, _of.status.in_(OPEN), _of.offset < offset).limit(1)
        if number is not None and connection.scalar(before) is None:
            connection.execute(update(letters).where(_of.id == number).values(status="retry", tries=0))
            found.append(number)
    return found


def block(connection: Connection, record: Record) -> None:
    """Let those letters of a key that wait wait for this one, which is the first now."""
    here = (_of.topic == record.topic, _of.partition == record.partition, _of.key == record.key)
    waiting = (_of.status == "blocked", _of.offset > record.offset)
    connection.execute(update(tables.dead_letters).where(*here, *waiting).values(blocked_by=record.offset))


def headers_from_json(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """Read back the headers of a dead letter."""
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(text))


def _headers_to_json(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    return json.dumps([[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers])
