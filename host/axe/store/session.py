"""The session of one event."""

from __future__ import annotations

from typing import NoReturn

from sqlalchemy.orm import Session

from .connection import refuse


class StateSession(Session):
    """A session whose transaction only the host ends."""

    def commit(self) -> NoReturn:
        """Refuse: the host commits state and position together."""
        refuse("session.commit()")

    def rollback(self) -> NoReturn:
        """Refuse: an exception out of the handler undoes the event."""
        refuse("session.rollback()")

    def close(self) -> NoReturn:
        """Refuse: the host closes it at the end of the event."""
        refuse("session.close()")

    def finish(self) -> None:
        """Flush, and let the session's savepoint stand; for the host."""
        super().commit()

    def discard(self) -> None:
        """Let go of everything, leaving the transaction as it is; for the host."""
        super().close()
