"""The one row of ``axe_processor``: what people and workers have set about the processor as a whole."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from . import tables
from .compiled import Compiled
from .protocol import Control

_row = tables.processor.c
_SELECT = select(_row.version, _row.cluster_id, _row.status, _row.paused, _row.pending, _row.last_error)
CONTROL = Compiled(_SELECT)


def read_control(connection: Connection) -> Control:
    """Read the one row of ``axe_processor``."""
    return to_control(connection.execute(_SELECT).one())


def to_control(row: Any) -> Control:
    """Make the values of the row of ``CONTROL``."""
    version, cluster_id, status, paused, pending, last_error = row
    return Control(version, cluster_id, status, bool(paused), pending, last_error)
