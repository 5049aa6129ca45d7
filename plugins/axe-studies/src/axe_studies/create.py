"""A processor that keeps a table: each study as a row, changed by the events that follow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, DateTime, MetaData, String, Table, delete, insert, update

from axe import Event, State, hookimpl

metadata = MetaData()
studies = Table(
    "studies",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("title", String(400), nullable=False),
    Column("phase", String(10)),
    Column("sponsor", String(200)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
)


class CreateStudy:
    """Keeps the table ``studies`` up to date."""

    # The whole topic, not "studies/study_created": a tombstone has no value and so no type.
    topics = ("studies",)
    version = 1

    @hookimpl
    def on_start(self, state: State) -> None:
        """Create the table where it does not exist yet."""
        metadata.create_all(state.connection)

    @hookimpl
    def on_event(self, event: Event, state: State) -> None:
        """Write what the event says, in the transaction that moves the position past it."""
        if event.value is None:
            forget(state.connection, event.key)
        elif event.type == "study_created":
            save(state.connection, event.value)
        elif event.type == "study_closed":
            close(state.connection, event.value)


def save(connection: Connection, study: dict[str, Any]) -> None:
    """Insert a study, or write over the one with its id.

    After a reset the same event comes again, and it must not matter.
    """
    row = {name: study[name] for name in ("title", "phase", "sponsor")}
    row["created_at"] = datetime.fromisoformat(study["at"])
    if connection.execute(update(studies).where(studies.c.id == study["id"]).values(row)).rowcount == 0:
        connection.execute(insert(studies).values(id=study["id"], **row))


def close(connection: Connection, study: dict[str, Any]) -> None:
    """Note when a study was closed; one that was never created stays unknown."""
    closed_at = datetime.fromisoformat(study["at"])
    connection.execute(update(studies).where(studies.c.id == study["id"]).values(closed_at=closed_at))


def forget(connection: Connection, key: bytes | str | None) -> None:
    """Delete the study that a tombstone names by its key."""
    if key is not None:
        study_id = key.decode() if isinstance(key, bytes) else key
        connection.execute(delete(studies).where(studies.c.id == study_id))
