"""Dead letters that are deleted: the oldest, and none that a worker or another letter waits for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, text

from . import tables
from .dead_letters import chosen, of_format
from .protocol import Going, Letters

_of = tables.dead_letters.c
_AWAITED = ("retry", "blocked")
"""Statuses of letters that a worker is to handle yet."""
# The format since which letters can wait for others.
_BLOCKING = 3
SIZE = func.coalesce(func.length(_of.key), 0) + func.coalesce(func.length(_of.value), 0)
"""How many bytes a letter has; other columns are short, or made by axe."""
_OLDEST_FIRST = (_of.rejected_at, _of.id)


def trim(connection: Connection, *, until: str | None, rows: int | None, limit: int, size: int) -> dict[str, list[int]]:
    """Delete letters that were rejected before ``until``, and the oldest of more than ``rows``; return their ids.

    Those stand under the status that they had. At most ``limit`` letters, and so many that they have ``size`` bytes.
    """
    excess = _excess(connection, rows)
    oldest = select(_of.id, _of.status, _of.rejected_at, SIZE).where(*_may_go()).order_by(*_OLDEST_FIRST)
    if excess <= 0:
        if until is None:
            return {}
        oldest = oldest.where(_of.rejected_at < until)
    # Locked: on PostgreSQL somebody could mark them for a retry meanwhile. Who is about to is not waited for.
    found = connection.execute(oldest.limit(limit).with_for_update(skip_locked=True)).all()
    going: dict[str, list[int]] = {}
    for index, (number, status, rejected_at, _) in enumerate(within(found, size)):
        if index < excess or (until is not None and rejected_at < until):
            going.setdefault(status, []).append(number)
    if going:
        ids = tuple(number for numbers in going.values() for number in numbers)
        connection.execute(delete(tables.dead_letters).where(*chosen(Letters(ids=ids))))
    return going


def count(connection: Connection, *, until: str | None, rows: int | None, format_: int) -> Going:
    """Count what ``trim`` would delete of a database of this format, called until nothing is left."""
    may_go = _may_go(format_)
    too_old = 0 if until is None else _count(connection, *may_go, _of.rejected_at < until)
    excess = _excess(connection, rows)
    too_many = max(0, min(excess, _count(connection, *may_go)) - too_old) if excess > too_old else 0
    columns = (_of.status, of_format(_of.published_at, format_))
    going = select(*columns).where(*may_go).order_by(*_OLDEST_FIRST).limit(too_old + too_many).subquery()
    unpublished = select(func.count()).select_from(going).where(text(tables.UNPUBLISHED))
    return Going(too_old, too_many, connection.scalar(unpublished) or 0)


def _excess(connection: Connection, rows: int | None) -> int:
    return 0 if rows is None else _count(connection) - rows


def _count(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(tables.dead_letters).where(*conditions)) or 0


def _may_go(format_: int = tables.FORMAT) -> list[ColumnElement[bool]]:
    """Return the conditions for a letter to be deleted at all."""
    settled = _of.status.not_in(_AWAITED)
    if format_ < _BLOCKING:
        return [settled]
    waiting = tables.dead_letters.alias()
    same_place = (waiting.c.topic == _of.topic, waiting.c.partition == _of.partition)
    for_it = select(waiting.c.id).where(*same_place, waiting.c.status == "blocked", waiting.c.blocked_by == _of.offset)
    return [settled, ~for_it.exists()]


def within(rows: Iterable[Any], size: int) -> Iterable[Any]:
    """Yield rows, whose last column is how many bytes they stand for, until they are so many; the first in any case."""
    for row in rows:
        yield row
        size -= row[-1]
        if size <= 0:
            return
