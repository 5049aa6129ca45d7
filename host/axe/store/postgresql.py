"""PostgreSQL: a schema per processor in one database."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from ..errors import CommitRefused, StoreError, StoreMissing, StoreUnavailable
from .connection import StateConnection, refuse
from .tables import timestamp

_MAX_IDENTIFIER = 63
_HASHED = re.compile(r"axe_.+_[0-9a-f]{8}")
# Connection, resources, shutdown, time limits, and the conflicts of two transactions: try again.
_LOST = re.compile(r"^(08|53|57P|25P03|55P03|40P01|40001)")

# Whoever commits a transaction that moved a position must be the host: a COMMIT by a plugin fails here,
# and takes everything back with it. Raised only while the host has set the flag, not for other programs.
_WRITE = "SET TRANSACTION READ WRITE"
_GUARD = """
CREATE OR REPLACE FUNCTION axe_guard_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('axe.guarded', true) = 'on' THEN
    RAISE EXCEPTION 'only axe ends the transaction of an event; take the COMMIT out of the plugin';
  END IF;
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS axe_guard ON axe_offsets;
CREATE CONSTRAINT TRIGGER axe_guard AFTER INSERT OR UPDATE ON axe_offsets DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION axe_guard_commit();
"""

# What a wipe drops beside tables and views: types, domains, functions; none that an extension brought.
_DROP_THE_REST = """
SELECT format('DROP %s IF EXISTS %I CASCADE', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, typname)
FROM pg_type t WHERE typnamespace = current_schema()::regnamespace AND typname NOT LIKE 'axe\\_%'
  AND (typtype IN ('d', 'e', 'r')
       OR typtype = 'c' AND EXISTS (SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c'))
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = t.oid AND deptype = 'e')
UNION ALL
SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure)
FROM pg_proc p WHERE pronamespace = current_schema()::regnamespace AND proname NOT LIKE 'axe\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype IN ('e', 'i'))
"""

# Comments, and what stands in quotes: no statement of the handler's.
_NO_STATEMENT = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_ENDING = re.compile(r"\s*(COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)
_NAMED = re.compile(r'\b(?:SAVEPOINT|TO)\s+"?(\w+)"?\s*\Z', re.IGNORECASE)
_OF_SQLALCHEMY = re.compile(r"sa_savepoint_\d+")
# Behind another statement of the same string: it would take the guard away together with the positions.
_ENDING_LATER = re.compile(r";\s*(ROLLBACK|ABORT)\b", re.IGNORECASE)


class _HandlerCursor(psycopg.Cursor[Any]):
    """The cursor of the writing connection: it does not end transactions while plugin code runs.

    And it is not closed by a handler, which would take it away from the next event.
    """

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        """Execute, unless it would end the transaction, or leave a savepoint that a later event could use."""
        self._check(query)
        return super().execute(query, *arguments, **options)

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        """As ``execute``."""
        self._check(query)
        super().executemany(query, *arguments, **options)

    def stream(self, query: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        """As ``execute``."""
        self._check(query)
        return super().stream(query, *arguments, **options)

    def _check(self, query: Any) -> None:
        guarded: StateConnection | None = getattr(self.connection, "axe_guarded", None)
        if guarded is None:
            return
        if isinstance(query, bytes):
            sql = query.decode(errors="replace")
        else:
            sql = query if isinstance(query, str) else query.as_string(self.connection)
        plain = _NO_STATEMENT.sub(" ", sql)
        if ending := _ENDING.match(plain):
            named = _NAMED.search(plain)
            if named is None or not (named[1] == guarded.savepoint or _OF_SQLALCHEMY.fullmatch(named[1])):
                refuse(ending[1].upper())
        elif ending := _ENDING_LATER.search(plain):
            refuse(ending[1].upper())

    def close(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


def schema_name(processor: str) -> str:
    """Return the schema of a processor: ``-`` becomes ``__``.

    Names that could meet another one's schema, or are too long for PostgreSQL, end in a part of their hash.
    """
    schema = "axe_" + processor.replace("-", "__")
    doubtful = "__" in processor or "-_" in processor or "_-" in processor or _HASHED.fullmatch(schema)
    if doubtful or len(schema) > _MAX_IDENTIFIER:
        schema = f"{schema[:52]}_{hashlib.sha256(processor.encode()).hexdigest()[:8]}"
    return schema


class PostgresServer:
    """One database of a server, with a schema ``axe`` that says whose schemas there are."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = _engine(url, None)

    def __str__(self) -> str:
        return f"{self.url.host or 'localhost'}:{self.url.port or 5432}/{self.url.database}"

    @property
    def name(self) -> str:
        """The store's name, as consumer groups carry it."""
        return self.url.database or "postgres"

    @property
    def host_is_alone(self) -> bool:
        """Other hosts may share the server."""
        return False

    def prepare(self) -> None:
        """Make the schema ``axe`` and the store's id, once."""
        with self._connection() as connection:
            # Two workers that make a schema at once collide in the catalogue: take turns.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('axe'))"))
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
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('axe'))"))
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

    def host_lock(self) -> None:
        """Do nothing: several hosts may share a server, and owner and epoch keep them apart."""

    def database(self, processor: str) -> PostgresDatabase:
        """Name the database of a processor; nothing is opened yet."""
        return PostgresDatabase(self, processor)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise _unavailable(str(self), error.orig) from error


class PostgresDatabase:
    """One schema. Row locks keep writers apart; the trigger above keeps the commit the host's."""

    def __init__(self, server: PostgresServer, processor: str) -> None:
        self.location = f"{server} schema {schema_name(processor)}"
        self._server = server
        self._processor = processor
        self._writing: Engine | None = None
        self._reading: Engine | None = None
        self._connection: StateConnection | None = None
        self._driver: psycopg.Connection[Any] | None = None
        self._transaction_id: str | None = None

    def connect(self, *, create: bool) -> str:
        """Make sure that the schema exists."""
        had = self._processor in self._server.processors()
        if not self._server.has_schema(self._processor):
            if had:
                message = (
                    f"the schema {schema_name(self._processor)} at {self._server} existed and is gone; restore it from "
                    "a backup, or delete its row from axe.axe_stores to begin anew from an empty state"
                )
                raise StoreMissing(message)
            if not create:
                message = f"{self._processor} has no schema at {self._server}: it has not run yet"
                raise StoreMissing(message)
            self._server.prepare()
            self._server.create(self._processor)
        if self._writing is None:
            schema = schema_name(self._processor)
            self._writing = _engine(self._server.url, schema)
            self._reading = _engine(self._server.url, schema, reading=True)
        return self._server.store_id()

    def is_registered(self) -> bool:
        """Look into the server's register."""
        return self._processor in self._server.processors()

    def registered(self) -> None:
        """Enter the processor in the server's register and set the guard on its positions."""
        if not self.is_registered():
            assert self._writing is not None
            with self._writing.begin() as connection:
                connection.exec_driver_sql(_WRITE)
                self.settle(connection)
                connection.exec_driver_sql(_GUARD)
            self._server.add(self._processor)

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
        self._driver.axe_guarded = connection  # type: ignore[attr-defined] # ours, for _HandlerCursor

    def cursor(self, connection: StateConnection) -> Any:  # noqa: ARG002 # there is one
        """Make a cursor that stays open."""
        assert self._driver is not None
        return _HandlerCursor(self._driver)

    def settle(self, connection: Connection) -> None:
        """Take turns: two workers that make the same tables at once collide in the catalogue."""
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('axe'))"))

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
        transaction = connection.get_transaction()
        if transaction is not None:
            transaction.close()

    def rollback(self) -> None:
        """ROLLBACK, and begin with a new connection next time: rollbacks are rare, doubt is expensive."""
        self._discard()

    def renew(self) -> None:
        """Close the writing connection."""
        self._discard()

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        driver, self._driver = self._driver, None
        if connection is None:
            return
        # It is thrown away, whatever it says to that. Closing rolls back what was open.
        if driver is not None:
            with suppress(Exception):
                driver.close()
        with suppress(Exception):
            connection.invalidate()
            Connection.close(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read in a read-only transaction with one snapshot."""
        assert self._reading is not None
        try:
            with self._reading.connect() as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            if (trouble := self.trouble(error)) is not None:
                raise trouble from error
            raise

    def drop_plugin_objects(self, connection: StateConnection) -> None:
        """Drop what the catalogue lists beside our own."""
        kinds = {
            "r": "TABLE",
            "p": "TABLE",
            "v": "VIEW",
            "m": "MATERIALIZED VIEW",
            "S": "SEQUENCE",
            "f": "FOREIGN TABLE",
        }
        found = connection.execute(
            text(
                "SELECT relkind::text, relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
                "AND relkind IN ('r','p','v','m','S','f') AND relname NOT LIKE 'axe\\_%' "
                # The sequence of an identity column goes with its table, and only so.
                "ORDER BY relkind = 'S'"
            )
        ).all()
        quoted = connection.dialect.identifier_preparer.quote_identifier
        for kind, name in found:
            connection.exec_driver_sql(f"DROP {kinds[kind]} IF EXISTS {quoted(name)} CASCADE")
        for drop in connection.scalars(text(_DROP_THE_REST)).all():
            connection.exec_driver_sql(drop)

    def trouble(self, error: BaseException) -> StoreError | None:
        """Tell by SQLSTATE whether the server or the connection is at fault."""
        # A commit and a handler's cursor raise the driver's own errors, which SQLAlchemy did not see.
        original = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(original, psycopg.Error):
            return None
        state = original.sqlstate
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        lost = lost or (isinstance(original, psycopg.OperationalError) and state is None)
        if lost or (state and _LOST.match(state)):
            return _unavailable(str(self._server), original)
        return None

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


def _engine(url: URL, schema: str | None, *, reading: bool = False) -> Engine:
    options = "-c lock_timeout=20s -c idle_in_transaction_session_timeout=10min"
    arguments: dict[str, Any] = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5}
    if schema is not None:
        options += f" -c search_path={schema} -c default_transaction_read_only=on"
        if reading:
            options += " -c default_transaction_isolation=repeatable\\ read"
        else:
            arguments["cursor_factory"] = _HandlerCursor
    arguments["options"] = options
    pool = NullPool if schema is None else QueuePool
    return create_engine(url, connect_args=arguments, poolclass=pool, hide_parameters=True)


def _unavailable(server: str, error: BaseException | None) -> StoreUnavailable:
    lines = str(error or "").strip().splitlines() or ["no answer"]
    return StoreUnavailable(f"PostgreSQL at {server} cannot be used: {lines[0]}")
