"""The tables that axe keeps in each processor's database; contract: names with ``axe_`` are ours."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint, text

FORMAT = 3
"""Raised when a table changes; ``formats`` brings older databases up, and one of a higher format is refused."""

PREFIX = "axe_"

UNPUBLISHED = "published_at IS NULL AND status = 'rejected'"
"""Of dead letters: to be produced to a topic yet, where there is one. An index has it, so it is written in one way."""

metadata = MetaData()

processor = Table(
    "axe_processor",
    metadata,
    Column("processor", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("format", Integer, nullable=False),
    Column("store_id", Text, nullable=False),
    Column("cluster_id", Text),
    Column("status", Text, nullable=False),
    Column("paused", Integer, nullable=False, default=0),
    # What the worker has still to do about an operation: null, "retry", "start", "reset" or "wipe".
    Column("pending", Text),
    Column("last_error", Text),
)

workers = Table(
    "axe_workers",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("heartbeat_at", Text, nullable=False),
)

offsets = Table(
    "axe_offsets",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    Column("attempt_offset", BigInteger),
    Column("attempts", Integer, nullable=False, default=0),
    Column("topic_id", Text),
    Column("event_at", Text),
    Column("updated_at", Text, nullable=False),
)

values = Table(
    "axe_values",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

dead_letters = Table(
    "axe_dead_letters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", Text, nullable=False),
    Column("timestamp", Text),
    Column("reason", Text, nullable=False),
    Column("error", Text),
    Column("attempts", Integer, nullable=False),
    Column("rejected_at", Text, nullable=False),
    Column("status", Text, nullable=False),
    # Of the processor that refused it; null where an older axe wrote the row.
    Column("version", Integer),
    # Retries that were begun and whose end nobody stored, since it was marked.
    Column("tries", Integer, nullable=False, default=0, server_default="0"),
    # The offset of the event of the same key that it waits for, or waited for until it was marked for a retry.
    Column("blocked_by", BigInteger),
    # When a topic had it, as it was refused last.
    Column("published_at", Text),
    UniqueConstraint("topic", "partition", "offset"),
    Index("axe_dead_letters_by_status", "status", "topic", "partition", "offset"),
    Index("axe_dead_letters_by_age", "rejected_at", "id"),
    Index("axe_dead_letters_unpublished", "id", sqlite_where=text(UNPUBLISHED), postgresql_where=text(UNPUBLISHED)),
)

audit = Table(
    "axe_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text),
    Column("before", Text),
    Column("after", Text),
)


def timestamp(at: datetime | None = None) -> str:
    """Write a time (now, if none is given) the way every ``…_at`` column holds it: ISO 8601, UTC, milliseconds."""
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp_of_ms(timestamp_ms: int | None) -> str | None:
    """Write a record's time (milliseconds since 1970, UTC) in the same form; None for one that no calendar has.

    Producers that write microseconds by mistake are in the year 55,000.
    """
    if timestamp_ms is None:
        return None
    try:
        return timestamp(datetime.fromtimestamp(timestamp_ms / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return None
