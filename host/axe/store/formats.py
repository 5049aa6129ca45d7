"""Formats of the tables: what an older axe made is brought to the present one, step by step."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from ..errors import StoreFormat
from . import tables

_STEPS = {
    # What makes each format of the one before it. An axe of that one can go on beside it until it is restarted.
    2: (
        "ALTER TABLE axe_dead_letters ADD COLUMN version INTEGER",
        "ALTER TABLE axe_dead_letters ADD COLUMN tries INTEGER DEFAULT 0 NOT NULL",
    ),
    3: (
        "ALTER TABLE axe_dead_letters ADD COLUMN blocked_by BIGINT",
        'CREATE INDEX axe_dead_letters_by_status ON axe_dead_letters (status, topic, partition, "offset")',
        "ALTER TABLE axe_dead_letters ADD COLUMN published_at TEXT",
        "CREATE INDEX axe_dead_letters_by_age ON axe_dead_letters (rejected_at, id)",
        f"CREATE INDEX axe_dead_letters_unpublished ON axe_dead_letters (id) WHERE {tables.UNPUBLISHED}",
    ),
}


def bring_up(connection: Connection) -> None:
    """Bring the tables to the present format, in the caller's transaction; nothing to do where they have it."""
    # Locked: two workers may both have found the old one.
    found = connection.scalar(select(tables.processor.c.format).with_for_update()) or 0
    for number in range(found + 1, tables.FORMAT + 1):
        for statement in _STEPS[number]:
            connection.exec_driver_sql(statement)
    if found < tables.FORMAT:
        connection.execute(update(tables.processor).values(format=tables.FORMAT))


def require(connection: Connection, location: str) -> None:
    """Make sure that the tables have the present format.

    Raises:
        StoreFormat: they do not, so that a worker that is there is an older axe, which would not understand.
    """
    found = connection.scalar(select(tables.processor.c.format)) or 0
    if found < tables.FORMAT:
        message = f"{location} has format {found}, of an older axe; start `axe run` anew, which brings it up to date"
        raise StoreFormat(message)
