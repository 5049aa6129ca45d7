"""Dead letters: the rows of refused events, bytes and headers included."""

from __future__ import annotations

import base64
import json
from typing import Any

from sqlalchemy import Connection, Select, insert, literal, null, select, update

from ..event import Rejection
from . import tables
from .text import clean

_TRIES_SINCE = 2
"""The format that has ``version`` and ``tries``."""


def add_dead_letter(connection: Connection, rejection: Rejection) -> None:
    """Store a refused event with its bytes; one that was refused before updates its row."""
    letters, record = tables.dead_letters, rejection.record
    values: dict[str, Any] = {
        "key": record.key,
        "value": record.value,
        "headers": _headers_to_json(record.headers),
        "timestamp": tables.timestamp_of_ms(record.timestamp_ms),
        "reason": clean(rejection.reason),
        "error": None if rejection.error is None else clean(rejection.error),
        "rejected_at": tables.timestamp(),
        "status": "rejected",
        "version": select(tables.processor.c.version).scalar_subquery(),
        "tries": 0,
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
    columns: list[Any] = list(tables.dead_letters.c)
    if format_ < _TRIES_SINCE:
        known = [column for column in columns if column.name not in ("version", "tries")]
        columns = [*known, null().label("version"), literal(0).label("tries")]
    return select(*columns).order_by(tables.dead_letters.c.id)


def headers_from_json(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """Read back the headers of a dead letter."""
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(text))


def _headers_to_json(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    return json.dumps([[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers])
