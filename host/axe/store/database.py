"""What differs from one kind of database to the next: the protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Connection

from ..errors import StoreError
from .compiled import Compiled
from .connection import StateConnection


class Database(Protocol):
    """The database of one processor. The writing side is used from one thread."""

    location: str
    """Where it lies, fit to be shown: no secret is in it."""

    def connect(self, *, create: bool) -> str:
        """Make sure that the database exists and is one of ours; return the id of its store.

        Raises:
            StoreMissing: it existed and is gone, or ``create`` is false and it never existed.
            StoreError: it cannot be used, for the reason that the class names.
        """

    def is_registered(self) -> bool:
        """Tell whether ``registered`` was ever called for it: then it has tables, or they were taken away."""

    def registered(self) -> None:
        """Note that the database has its tables now: from here on it may not go missing."""

    def begin(self) -> StateConnection:
        """Begin a write transaction, alone on the database."""

    def is_undisturbed(self, connection: StateConnection) -> bool:
        """Tell, inside a transaction, whether nobody else has committed since this was asked of the same connection.

        Where nothing tells, the answer is yes; of a new connection it is no.
        """

    def plugin_code(self, connection: StateConnection) -> AbstractContextManager[None]:
        """Guard the transaction while code of a plugin runs."""

    def cursor(self, connection: StateConnection) -> Any:
        """Make a cursor of the driver; closing it has no effect, for a handler may well do so."""

    def settle(self, connection: StateConnection) -> None:
        """Keep other processes from making the same tables until the end of the transaction."""

    def is_open(self, connection: StateConnection) -> bool:
        """Tell whether the driver is still in the transaction that ``begin`` opened."""

    def commit(self, connection: StateConnection) -> None:
        """Commit on the driver's connection.

        Raises:
            CommitRefused: a deferred constraint is not met.
        """

    def rollback(self) -> None:
        """Undo everything; never raises. A connection that does not come clean is discarded."""

    def renew(self) -> None:
        """Close the writing connection, outside of a transaction; the next one is new."""

    def read(self) -> AbstractContextManager[Connection]:
        """Give a connection that cannot write, in one snapshot."""

    def glance(self, statement: Compiled) -> list[Any]:
        """Return the rows of one statement that only reads, as quickly as can be."""

    def drop_plugin_objects(self, connection: StateConnection) -> None:
        """Drop every table, view, index and trigger whose name is not ours."""

    def why_final(self, limit: int) -> str | None:
        """Say why what a wipe drops could not be kept in this many bytes; None where it could."""

    def set_aside(self, connection: StateConnection, *, keep: bool) -> str | None:
        """Keep what a wipe is about to drop, in the place of what was kept before; return its name."""

    def restore(self, connection: StateConnection, name: str) -> None:
        """Put back what was set aside, with the commit of this transaction.

        Raises:
            StoreMissing: it is not kept any more.
        """

    def trouble(self, error: BaseException) -> StoreError | None:
        """Name the trouble of the database itself behind an error (full disk, lost server), if it is one."""

    def hurt(self, connection: StateConnection, error: BaseException) -> StoreError | None:
        """Name the trouble behind an error out of a handler, which may use databases of its own as well."""

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
