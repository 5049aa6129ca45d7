"""Connections to a processor's database: one that writes, which handlers get and only the host ends, and readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, Self

from sqlalchemy import Connection, Engine

from ..errors import StateError, StoreError


class StateConnection(Connection):
    """A connection whose transaction only the host ends.

    The host calls the methods of ``Connection`` itself; a handler meets these refusals.
    """

    handed_out = False
    """Whether a handler got hold of it: it may have kept it, so that any event may have used SQL."""

    guard: Callable[[], None] | None = None
    """What sets the guard on handlers' SQL, where it need not be set before one gets hold of the connection."""

    host_writes = False
    """Whether the host itself writes its tables at the moment, between two events of a guarded transaction."""

    version: int | None = None
    """What ``is_undisturbed`` has seen last; None if values may have been written that it would not see."""

    savepoint: str | None = None
    """The name of the host's savepoint, while there is one."""

    def entered(self) -> Self:
        """Let SQLAlchemy know of the transaction that the driver is in, which costs a tenth of an empty one."""
        if not self.in_transaction():
            Connection.begin(self)
        return self

    def hand_out(self) -> None:
        """Note that a handler gets hold of it."""
        self.entered()
        guard = self.guard
        if not self.handed_out and guard is not None:
            guard()
        self.handed_out = True

    def commit(self) -> NoReturn:
        """Refuse: the host commits state and position together."""
        refuse("commit()")

    def rollback(self) -> NoReturn:
        """Refuse: an exception out of the handler undoes the event."""
        refuse("rollback()")

    def begin(self) -> NoReturn:
        """Refuse: the transaction is open already."""
        refuse("begin()")

    def close(self) -> NoReturn:
        """Refuse: the connection is the host's."""
        refuse("close()")

    def detach(self) -> NoReturn:
        """Refuse: the connection is the host's."""
        refuse("detach()")


def refuse(what: str) -> NoReturn:
    """Say that only the host ends the transaction."""
    message = (
        f"{what} is not a handler's to call: axe commits the state together with the position, and undoes "
        "the event when the handler raises; use begin_nested() for a part that may fail"
    )
    raise StateError(message)


def concluded(connection: StateConnection) -> None:
    """Let SQLAlchemy know that the transaction was committed on the driver's connection."""
    transaction = connection.get_transaction()
    if transaction is not None:
        transaction.close()


def throw_away(connection: StateConnection | None, driver: Any, *, undo_first: bool) -> None:
    """Close a connection and its driver's for good, whatever they say to that.

    With ``undo_first`` what is open is rolled back before; else closing has to do it.
    """
    if connection is None:
        return
    if driver is not None:
        if undo_first:
            with suppress(Exception):
                driver.rollback()
        with suppress(Exception):
            driver.close()
    with suppress(Exception):
        connection.invalidate()
        Connection.close(connection)


@contextmanager
def snapshot(engine: Engine | None, trouble: Callable[[BaseException], StoreError | None]) -> Iterator[Connection]:
    """Give a connection of an engine for readers, in one transaction; ``trouble`` names what is the database's own."""
    assert engine is not None
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    except Exception as error:
        if (known := trouble(error)) is not None:
            raise known from error
        raise
