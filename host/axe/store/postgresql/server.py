"""A server's database, where each processor has a schema."""

from __future__ import annotations

from sqlalchemy import URL

from .database import PostgresDatabase
from .register import Register


class PostgresServer:
    """One database of a server, with a register that says whose schemas there are."""

    def __init__(self, url: URL) -> None:
        self._register = Register(url)

    @property
    def name(self) -> str:
        """The store's name, as consumer groups carry it."""
        return self._register.url.database or "postgres"

    @property
    def host_is_alone(self) -> bool:
        """Other hosts may share the server."""
        return False

    def prepare(self) -> None:
        """Make the register, once."""
        self._register.prepare()

    def processors(self) -> list[str]:
        """List the processors that have, or had, a schema here."""
        return self._register.processors()

    def host_lock(self) -> None:
        """Do nothing: several hosts may share a server, and owner and epoch keep them apart."""

    def database(self, processor: str) -> PostgresDatabase:
        """Name the database of a processor; nothing is opened yet."""
        return PostgresDatabase(self._register, processor)
