"""The database of one processor on PostgreSQL: a schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine

from ...errors import CommitRefused, StoreError, StoreMissing
from ..compiled import Compiled
from ..connection import StateConnection, concluded, snapshot, throw_away
from . import kept
from .engine import loss, make_engine
from .guard import GUARD, HandlerCursor
from .register import Register, schema_name, take_turns
from .wipe import drop_plugin_objects

_WRITE = "SET TRANSACTION READ WRITE"


class PostgresDatabase:
    """One schema. Row locks keep writers apart; the guard keeps the commit the host's."""

    def __init__(self, register: Register, processor: str) -> None:
        self.location = f"{register} schema {schema_name(processor)}"
        self._register = register
        self._processor = processor
        self._writing: Engine | None = None
        self._reading: Engine | None = None
        self._connection: StateConnection | None = None
        self._driver: psycopg.Connection[Any] | None = None
        self._transaction_id: str | None = None

    def connect(self, *, create: bool) -> str:
        """Make sure that the schema exists."""
        had = self._processor in self._register.processors()
        if not self._register.has_schema(self._processor):
            if had:
                message = (
                    f"the schema {schema_name(self._processor)} at {self._register} existed and is gone; restore it "
                    "from a backup, or delete its row from axe.axe_stores to begin anew from an empty state"
                )
                raise StoreMissing(message)
            if not create:
                message = f"{self._processor} has no schema at {self._register}: it has not run yet"
                raise StoreMissing(message)
            self._register.prepare()
            self._register.create(self._processor)
        if self._writing is None:
            schema = schema_name(self._processor)
            self._writing = make_engine(self._register.url, schema)
            self._reading = make_engine(self._register.url, schema, reading=True)
        return self._register.store_id()

    def is_registered(self) -> bool:
        """Look into the server's register."""
        return self._processor in self._register.processors()

    def registered(self) -> None:
        """Enter the processor in the server's register and set the guard on its positions."""
        if not self.is_registered():
            assert self._writing is not None
            with self._writing.begin() as connection:
                connection.exec_driver_sql(_WRITE)
                take_turns(connection)
                connection.exec_driver_sql(GUARD)
            self._register.add(self._processor)

    def begin(self) -> StateConnection:
        """Begin, and note the transaction's id.

        The connection's transactions are read-only but for those begun here: should plugin code end this one
        all the same, nothing that it then writes can become durable alone.
        """
        assert self._writing is not None
        try:
            if self._driver is not None and self._driver.info.transaction_status is not TransactionStatus.IDLE:
                # A handler kept a cursor and used it between two batches. That is no part of any.
                self._discard()
            if self._connection is None:
                self._connection = StateConnection(self._writing)
            Connection.begin(self._connection)
            self._driver = self._connection.connection.driver_connection
            assert self._driver is not None
            with psycopg.Cursor(self._driver) as cursor:
                cursor.execute(f"{_WRITE}; SELECT pg_current_xact_id()::text")
                cursor.nextset()
                self._transaction_id = cursor.fetchone()[0]  # type: ignore[index] # one row
        except BaseException as error:
            self._discard()
            if (trouble := self.trouble(error)) is not None:
                raise trouble from error
            raise
        return self._connection

    def is_undisturbed(self, connection: StateConnection) -> bool:
        """Say so of a connection that was seen before: a server does not tell."""
        before, connection.version = connection.version, 0
        return before is not None

    @contextmanager
    def plugin_code(self, connection: StateConnection) -> Iterator[None]:
        """Forbid a commit until the handlers have returned."""
        connection.exec_driver_sql("SET LOCAL axe.guarded = 'on'")
        self._guard(connection)
        try:
            yield
        finally:
            self._guard(None)
        if self.is_open(connection):
            # A handler may have looked into another schema.
            schema = schema_name(self._processor)
            connection.exec_driver_sql(f"SET LOCAL axe.guarded = 'off'; SET search_path TO {schema}")

    def _guard(self, connection: StateConnection | None) -> None:
        assert self._driver is not None
        self._driver.axe_guarded = connection  # type: ignore[attr-defined] # ours, for HandlerCursor

    def cursor(self, connection: StateConnection) -> Any:  # noqa: ARG002 # there is one
        """Make a cursor that stays open."""
        assert self._driver is not None
        return HandlerCursor(self._driver)

    def settle(self, connection: StateConnection) -> None:
        """Take turns with others that make tables."""
        take_turns(connection)

    def is_open(self, connection: StateConnection) -> bool:  # noqa: ARG002 # there is one
        """Compare the transaction's id with the one noted at the beginning."""
        try:
            assert self._driver is not None
            with psycopg.Cursor(self._driver) as cursor:
                cursor.execute("SELECT pg_current_xact_id_if_assigned()::text")
                row = cursor.fetchone()
        except Exception:  # noqa: BLE001 # an aborted transaction answers with an error
            return False
        return row is not None and row[0] == self._transaction_id

    def commit(self, connection: StateConnection) -> None:
        """COMMIT."""
        assert self._driver is not None
        try:
            self._driver.commit()
        except psycopg.DatabaseError as error:
            if self.trouble(error) is not None:
                raise
            message = f"the database refused the commit: {' '.join(str(error).split())}"
            raise CommitRefused(message) from error
        concluded(connection)

    def rollback(self) -> None:
        """ROLLBACK, and begin with a new connection next time: rollbacks are rare, doubt is expensive."""
        self._discard()

    def renew(self) -> None:
        """Close the writing connection."""
        self._discard()

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        driver, self._driver = self._driver, None
        # Closing rolls back what was open. Asking for it would wait for the answer of a server that may be gone.
        throw_away(connection, driver, undo_first=False)

    def read(self) -> AbstractContextManager[Connection]:
        """Read in a read-only transaction with one snapshot."""
        return snapshot(self._reading, self.trouble)

    def glance(self, statement: Compiled) -> list[Any]:
        """Read with the driver's own cursor: each statement is its own snapshot."""
        engine = self._reading
        assert engine is not None
        try:
            pooled = engine.raw_connection()
            try:
                rows: list[Any] = statement.run(pooled.cursor(), engine.dialect).fetchall()
            except BaseException:
                # SQLAlchemy would look whether it can be used again.
                pooled.invalidate()
                raise
            finally:
                pooled.close()
        except Exception as error:
            if (known := self.trouble(error)) is not None:
                raise known from error
            raise
        return rows

    def drop_plugin_objects(self, connection: StateConnection) -> None:
        """Drop what the catalogue lists beside our own."""
        drop_plugin_objects(connection)

    def why_final(self, limit: int) -> str | None:
        """Ask how much room the plugin's tables and the values take."""
        with self.read() as connection:
            return kept.why_not(connection, limit)

    def set_aside(self, connection: StateConnection, *, keep: bool) -> str | None:
        """Move it into a schema of its own."""
        return kept.set_aside(connection, schema_name(self._processor), self._processor, keep=keep)

    def restore(self, connection: StateConnection, name: str) -> None:
        """Move it back, once what was made since is dropped."""
        drop_plugin_objects(connection)
        kept.restore(connection, schema_name(self._processor), self._processor, name)

    def trouble(self, error: BaseException) -> StoreError | None:
        """Tell whether the server or the connection is at fault."""
        return loss(str(self._register), error)

    def hurt(self, connection: StateConnection, error: BaseException) -> StoreError | None:  # noqa: ARG002 # there is one
        """Tell whether our own connection is lost or has given up; else the error came from another one."""
        if self._driver is not None and self._driver.info.transaction_status is TransactionStatus.INTRANS:
            return None
        return self.trouble(error)

    def close(self) -> None:
        """Close the connections."""
        self._discard()
        for engine in (self._reading, self._writing):
            if engine is not None:
                engine.dispose()
        self._reading = self._writing = None
