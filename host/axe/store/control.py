"""The one row of ``axe_processor``: what people and workers have set about the processor as a whole."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from . import tables
from .compiled import Compiled
from .protocol import Control

_row = tables.processor.c
CONTROL = Compiled(select(_row.version, _row.cluster_id, _row.status, _row.paused, _row.pending, _row.last_error))


def to_control(row: Any) -> Control:
    """Make the values of the row of ``CONTROL``."""
    version, cluster_id, status, paused, pending, last_error = row
    return Control(version, cluster_id, status, bool(paused), pending, last_error)
