"""Positions: how far one processor has read, in rows of ``axe_offsets`` beside its own state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, select, update

from ..errors import PositionConflict
from ..event import TopicPartition
from . import tables
from .compiled import Compiled
from .protocol import StoredPosition
from .upsert import insert_or_update

_at = tables.offsets.c
_SELECT = select(_at.topic, _at.partition, _at.position, _at.epoch, _at.owner, _at.topic_id, _at.event_at)
POSITIONS = Compiled(_SELECT)
ADVANCE = Compiled(
    update(tables.offsets)
    .where(_at.topic == bindparam("topic_"), _at.partition == bindparam("partition_"))
    # A worker that lost the partition may still hold an open batch. Offsets have gaps, so the position alone
    # does not tell it from the new owner; owner and epoch do.
    .where(_at.position == bindparam("seen"), _at.epoch == bindparam("epoch_"), _at.owner == bindparam("owner_"))
    .values(
        position=bindparam("to"),
        event_at=bindparam("event_at_"),
        updated_at=bindparam("now"),
    )
)


def read_positions(connection: Connection) -> dict[TopicPartition, StoredPosition]:
    """Read every row of ``axe_offsets``."""
    return to_positions(connection.execute(_SELECT))


def to_positions(rows: Iterable[Any]) -> dict[TopicPartition, StoredPosition]:
    """Make positions of the rows of ``POSITIONS``."""
    return {TopicPartition(topic, partition): StoredPosition(*rest) for topic, partition, *rest in rows}


def take_over(
    connection: Connection, starts: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None], owner: str
) -> dict[TopicPartition, StoredPosition]:
    """Own these partitions from now on; new ones begin at the given starts.

    Every epoch goes up, so that nothing that an earlier owner has begun can be committed: not in a partition that
    only that one reads either, for the values are one for all of them.
    """
    offsets = tables.offsets
    known = read_positions(connection)
    for at in sorted({*starts, *known}):
        taken: dict[str, Any] = {"epoch": offsets.c.epoch + 1}
        if at not in starts:
            connection.execute(update(offsets).where(*_is(at)).values(taken))
            continue
        start, topic_id = starts[at], topic_ids.get(at.topic)
        taken["owner"] = owner
        if at in known:
            taken["topic_id"] = topic_id or known[at].topic_id
            connection.execute(update(offsets).where(*_is(at)).values(taken))
        else:
            values: dict[str, Any] = {"position": start, "epoch": 1, "owner": owner, "attempts": 0}
            _make(connection, at, {**values, "topic_id": topic_id, "updated_at": tables.timestamp()}, meanwhile=taken)
    held = read_positions(connection)
    for at in sorted(set(held) - set(starts) - set(known)):
        # Made while we waited for a row of the same worker's.
        connection.execute(update(offsets).where(*_is(at)).values(epoch=offsets.c.epoch + 1))
    return {at: row for at, row in held.items() if at in starts}


def note_attempt(connection: Connection, at: TopicPartition, offset: int, *, epoch: int, owner: str) -> int:
    """Note that an event is about to be tried; return how often it was, this time included.

    Raises:
        PositionConflict: the partition is not this owner's any more.
    """
    offsets = tables.offsets
    attempts = case((offsets.c.attempt_offset == offset, offsets.c.attempts + 1), else_=1)
    mine = (*_is(at), offsets.c.epoch == epoch, offsets.c.owner == owner)
    noted = connection.execute(update(offsets).where(*mine).values(attempt_offset=offset, attempts=attempts))
    if noted.rowcount != 1:
        message = f"{at} is no longer ours in epoch {epoch}"
        raise PositionConflict(message)
    return int(connection.scalar(select(offsets.c.attempts).where(*_is(at))) or 0)


def move_by_hand(
    connection: Connection, targets: Mapping[TopicPartition, int]
) -> tuple[dict[TopicPartition, int | None], bool]:
    """Set positions whoever owns them, and raise their epochs.

    Returns the positions before, and whether every stored partition was among the targets.
    """
    offsets = tables.offsets
    stored = read_positions(connection)
    for at, position in sorted(targets.items()):
        values: dict[str, Any] = {"position": position, "updated_at": tables.timestamp(), "attempts": 0}
        values |= {"topic_id": None, "event_at": None, "attempt_offset": None}
        if at in stored:
            values["epoch"] = offsets.c.epoch + 1
            connection.execute(update(offsets).where(*_is(at)).values(values))
        else:
            _make(connection, at, {**values, "epoch": 1}, meanwhile={**values, "epoch": offsets.c.epoch + 1})
    before = {at: stored[at].position if at in stored else None for at in targets}
    # Asked again: a worker may have made one while we waited for its rows.
    return before, set(read_positions(connection)) <= set(targets)


def put_back(connection: Connection, rows: Mapping[TopicPartition, StoredPosition | None]) -> None:
    """Give partitions the position, topic id and event time of these rows, and raise their epochs.

    None forgets the partition: whoever owns it makes it anew, where a new one begins.
    """
    offsets = tables.offsets
    for at, row in sorted(rows.items()):
        if row is None:
            connection.execute(delete(offsets).where(*_is(at)))
            continue
        values: dict[str, Any] = {"position": row.position, "topic_id": row.topic_id, "event_at": row.event_at}
        values |= {"epoch": offsets.c.epoch + 1, "updated_at": tables.timestamp()}
        values |= {"attempts": 0, "attempt_offset": None}
        connection.execute(update(offsets).where(*_is(at)).values(values))


def _make(connection: Connection, at: TopicPartition, values: dict[str, Any], *, meanwhile: dict[str, Any]) -> None:
    """Make a row, or change it: another transaction may make it at this moment, and commit before us."""
    made = insert_or_update(connection.dialect.name, tables.offsets).values(
        topic=at.topic, partition=at.partition, **values
    )
    connection.execute(made.on_conflict_do_update(index_elements=["topic", "partition"], set_=meanwhile))


def _is(at: TopicPartition) -> tuple[Any, Any]:
    return tables.offsets.c.topic == at.topic, tables.offsets.c.partition == at.partition
