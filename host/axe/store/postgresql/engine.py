"""Connections to a server, and what it looks like when it is away."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from ...errors import SessionLost, StoreBusy, StoreUnavailable
from .guard import HandlerCursor

# Resources, and the conflicts of two transactions: try again. Not the limit that a session has set itself.
_AWAY = re.compile(r"^(53(?!400)|40P01|40001)")
_SESSION_LOST = re.compile(r"^(08|57P|25P03)")
_LOCK_NOT_AVAILABLE = "55P03"
_LOST_MS = 30_000


def make_engine(url: URL, schema: str | None = None, *, reading: bool = False) -> Engine:
    """Make the connections to a processor's schema, which write only where the host says so; or to the register."""
    options = "-c lock_timeout=20s -c idle_in_transaction_session_timeout=10min"
    arguments: dict[str, Any] = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5}
    # Keepalives do not run while an answer is waited for, and the system gives up on lost packets after 15 minutes.
    arguments["tcp_user_timeout"] = _LOST_MS
    if schema is not None:
        options += f" -c search_path={schema} -c default_transaction_read_only=on"
        if reading:
            options += " -c default_transaction_isolation=repeatable\\ read"
        else:
            arguments["cursor_factory"] = HandlerCursor
    arguments["options"] = options
    pool = NullPool if schema is None else QueuePool
    return create_engine(url, connect_args=arguments, poolclass=pool, hide_parameters=True)


def loss(server: str, error: BaseException) -> StoreUnavailable | None:
    """Tell by SQLSTATE whether the server or the connection is at fault."""
    # A commit and a handler's cursor raise the driver's own errors, which SQLAlchemy did not see.
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    state = original.sqlstate or ""
    if state == _LOCK_NOT_AVAILABLE:
        return StoreBusy(f"PostgreSQL at {server}: another worker, or a program, holds rows of the processor")
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    lost = lost or (isinstance(original, psycopg.OperationalError) and not state)
    if lost or _SESSION_LOST.match(state):
        return SessionLost(_cannot_be_used(server, original))
    return unavailable(server, original) if _AWAY.match(state) else None


def unavailable(server: str, error: BaseException | None) -> StoreUnavailable:
    """Say that a server cannot be used, with the first line of its error."""
    return StoreUnavailable(_cannot_be_used(server, error))


def _cannot_be_used(server: str, error: BaseException | None) -> str:
    lines = str(error or "").strip().splitlines() or ["no answer"]
    return f"PostgreSQL at {server} cannot be used: {lines[0]}; see to the server, or to the URL in `state`"
