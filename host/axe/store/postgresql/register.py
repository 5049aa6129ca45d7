"""The register of a server: the schema ``axe``, which says whose schemas there are."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from ..tables import timestamp
from .engine import make_engine, unavailable

_MAX_IDENTIFIER = 63
_HASHED = re.compile(r"axe_.+_[0-9a-f]{8}")


def schema_name(processor: str) -> str:
    """Return the schema of a processor: ``-`` becomes ``__``.

    Names that could meet another one's schema, or are too long for PostgreSQL, end in a part of their hash.
    """
    schema = "axe_" + processor.replace("-", "__")
    doubtful = "__" in processor or "-_" in processor or "_-" in processor or _HASHED.fullmatch(schema)
    if doubtful or len(schema) > _MAX_IDENTIFIER:
        schema = f"{schema[:52]}_{hashlib.sha256(processor.encode()).hexdigest()[:8]}"
    return schema


def take_turns(connection: Connection) -> None:
    """Be alone until the end of the transaction: two that make the same things at once collide in the catalogue."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('axe'))"))


class Register:
    """The schemas of a server's database: which store it is, and which schemas have to be there."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = make_engine(url)

    def __str__(self) -> str:
        return f"{self.url.host or 'localhost'}:{self.url.port or 5432}/{self.url.database}"

    def prepare(self) -> None:
        """Make the schema ``axe`` and the store's id, once."""
        with self._connection() as connection:
            take_turns(connection)
            connection.execute(text("CREATE SCHEMA IF NOT EXISTS axe"))
            connection.execute(text("CREATE TABLE IF NOT EXISTS axe.axe_store (store_id text PRIMARY KEY)"))
            connection.execute(
                text("CREATE TABLE IF NOT EXISTS axe.axe_stores (processor text PRIMARY KEY, created_at text)")
            )
            connection.execute(
                text("INSERT INTO axe.axe_store SELECT :id WHERE NOT EXISTS (SELECT 1 FROM axe.axe_store)"),
                {"id": uuid.uuid4().hex},
            )

    def processors(self) -> list[str]:
        """List the processors that have, or had, a schema here."""
        with self._connection() as connection:
            if not connection.scalar(text("SELECT to_regclass('axe.axe_stores') IS NOT NULL")):
                return []
            return list(connection.scalars(text("SELECT processor FROM axe.axe_stores ORDER BY processor")))

    def store_id(self) -> str:
        """Return the id of this store."""
        with self._connection() as connection:
            return str(connection.scalar(text("SELECT store_id FROM axe.axe_store")))

    def create(self, processor: str) -> None:
        """Make the schema of a processor."""
        with self._connection() as connection:
            take_turns(connection)
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema_name(processor)}"'))

    def add(self, processor: str) -> None:
        """Note that a processor has its schema from now on."""
        with self._connection() as connection:
            connection.execute(
                text("INSERT INTO axe.axe_stores VALUES (:processor, :at) ON CONFLICT DO NOTHING"),
                {"processor": processor, "at": timestamp()},
            )

    def has_schema(self, processor: str) -> bool:
        """Tell whether the processor's schema exists."""
        with self._connection() as connection:
            return bool(
                connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": schema_name(processor)})
            )

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise unavailable(str(self), error.orig) from error
