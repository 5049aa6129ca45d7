"""The SQLAlchemy connection that handlers get: inside a transaction that only the host ends."""

from __future__ import annotations

from typing import NoReturn

from sqlalchemy import Connection

from ..errors import StateError


class StateConnection(Connection):
    """A connection whose transaction only the host ends.

    The host calls the methods of ``Connection`` itself; a handler meets these refusals.
    """

    handed_out = False
    """Whether a handler got hold of it: it may have kept it, so that any event may have used SQL."""

    host_writes = False
    """Whether the host itself writes its tables at the moment, between two events of a guarded transaction."""

    savepoint: str | None = None
    """The name of the host's savepoint, while there is one."""

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
