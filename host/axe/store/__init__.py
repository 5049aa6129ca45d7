"""Where state and positions live: the store of each processor, and the place that a URL names."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ..config import kind_of_url
from ..errors import ConfigError
from .database import Database
from .protocol import (
    ALIVE_S,
    Control,
    Going,
    HandlerState,
    KeepsWiped,
    Letters,
    Move,
    Reversible,
    Store,
    StoredPosition,
    Transaction,
)
from .sql import Store as SqlStore

__all__ = [
    "ALIVE_S",
    "Control",
    "Going",
    "HandlerState",
    "KeepsWiped",
    "Letters",
    "Move",
    "Place",
    "Reversible",
    "SqlStore",
    "Store",
    "StoredPosition",
    "Transaction",
    "is_built_in",
    "open_place",
    "unknown_kind",
]


class Place(Protocol):
    """A folder or a server that holds the databases of many processors."""

    @property
    def name(self) -> str:
        """The store's name, as consumer groups carry it."""

    @property
    def host_is_alone(self) -> bool:
        """Whether one host at most works here, so that rows of other workers are leftovers."""

    def prepare(self) -> None:
        """Make the place if it does not exist."""

    def processors(self) -> list[str]:
        """List the processors that have, or had, a database here."""

    def database(self, processor: str) -> Database:
        """Name the database of a processor; nothing is opened yet."""

    def host_lock(self) -> Any:
        """Say that this host runs here; refuse a second one where only one may."""


_temporary: list[tempfile.TemporaryDirectory[str]] = []


def is_built_in(url: str) -> bool:
    """Tell whether a ``state`` URL is for ``open_place`` alone; no plugin need be imported for it."""
    return url.partition(":")[0].partition("+")[0] in ("memory", "sqlite", "postgresql")


def unknown_kind(url: str) -> ConfigError:
    """Say that nobody knows a ``state`` URL."""
    message = (
        f"`state` is of the unknown kind {kind_of_url(url)}; known are sqlite:FOLDER, "
        "postgresql+psycopg://…, memory:, and what an installed plugin's open_store hook knows"
    )
    return ConfigError(message)


def open_place(url: str, base: Path) -> Place:
    """Name the place of a ``state`` setting; a ``sqlite:`` folder is relative to ``base``.

    ``memory:`` is a folder that is gone at the end of the process.

    Raises:
        ConfigError: the URL is wrong, or its driver is not installed.
    """
    if url == "memory:":
        from .sqlite import SqliteFolder

        _temporary.append(tempfile.TemporaryDirectory(prefix="axe-"))
        return SqliteFolder(Path(_temporary[-1].name))
    if url.startswith("sqlite:") and not url.startswith("sqlite://"):
        from .sqlite import SqliteFolder

        folder = url.removeprefix("sqlite:")
        if not folder:
            message = 'state "sqlite:" names no folder; write sqlite:FOLDER'
            raise ConfigError(message)
        return SqliteFolder(base / folder)
    if not is_built_in(url):
        raise unknown_kind(url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        message = "`state` is no URL of a database; write sqlite:FOLDER, postgresql+psycopg://… or memory:"
        # Without the cause, which quotes what it takes for the port: a part of the password, perhaps.
        raise ConfigError(message) from None
    if parsed.get_backend_name() != "postgresql":
        message = f"`state` names {kind_of_url(url)}; write sqlite:FOLDER, postgresql+psycopg://… or memory:"
        raise ConfigError(message)
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        message = f"`state` names {kind_of_url(url)}; the driver that axe uses is written postgresql+psycopg://…"
        raise ConfigError(message)
    try:
        from .postgresql import PostgresServer
    except ModuleNotFoundError as error:
        message = "the driver for PostgreSQL is missing: pip install 'axe-host[postgresql]'"
        raise ConfigError(message) from error
    return PostgresServer(parsed.set(drivername="postgresql+psycopg"))
