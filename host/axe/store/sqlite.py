"""SQLite: a file per processor in a folder, one writer at a time by an OS lock."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from ..errors import (
    CommitRefused,
    HostRunning,
    StoreCorrupt,
    StoreError,
    StoreFormat,
    StoreMissing,
    StoreUnavailable,
)
from .connection import StateConnection
from .files import unavailable
from .locks import FileLock, WriterLock
from .tables import FORMAT, PREFIX, timestamp

WRITE_WAIT_S = 30.0

_READING_PRAGMAS = frozenset({
    "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list",
    "foreign_key_check", "data_version", "page_size", "database_list", "collation_list", "function_list",
    "compile_options",
})  # fmt: skip
_TRANSACTION_CODES = frozenset({sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})
# For these the first argument is the name of the table.
_WRITING_CODES = frozenset({
    sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE,
})  # fmt: skip
# For these the second argument is the name of the table.
_SCHEMA_CODES = frozenset({
    sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_DROP_TRIGGER,
})  # fmt: skip


class SqliteFolder:
    """A folder of databases, with a file that says whose they are and which must exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._register = folder / "axe-store.json"

    @property
    def name(self) -> str:
        """The store's name, as consumer groups carry it."""
        return self.folder.name

    @property
    def host_is_alone(self) -> bool:
        """The lock of ``host_lock`` sees to it."""
        return True

    def prepare(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            StoreUnavailable: it cannot be made or written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(self.folder))
        except OSError as error:
            message = f"the state folder {self.folder} cannot be used: {error.strerror}; set `state` or its permissions"
            raise StoreUnavailable(message) from error

    def processors(self) -> list[str]:
        """List the processors that have, or had, a database here."""
        return sorted(self._read()["processors"])

    def store_id(self) -> str:
        """Return the id of this store; made when it is asked for first."""
        found = self._read()
        return str((found if "store_id" in found else self._change(None))["store_id"])

    def has(self, processor: str) -> bool:
        """Tell whether a processor has, or had, a database here."""
        return processor in self._read()["processors"]

    def add(self, processor: str) -> None:
        """Note that a processor has its database from now on."""
        if not self.has(processor):
            self._change(processor)

    def host_lock(self) -> FileLock:
        """Take the lock that says that one host runs on this folder.

        Raises:
            HostRunning: another one does.
            StoreUnavailable: the folder cannot be used.
        """
        self.prepare()
        lock = FileLock(self.folder / "axe.lock")
        try:
            if not lock.try_acquire():
                holder = lock.holder() or "unknown process"
                message = f"another host ({holder}) runs on {self.folder}; stop it, or use another `state` folder"
                raise HostRunning(message)  # noqa: TRY301 # the lock is closed below
            lock.sign(f"process {os.getpid()}")
        except BaseException:
            lock.close()
            raise
        return lock

    def database(self, processor: str) -> SqliteDatabase:
        """Name the database of a processor; nothing is opened yet."""
        return SqliteDatabase(self, processor)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._register.read_text())
        except FileNotFoundError:
            return {"processors": {}}
        except NotADirectoryError as error:
            message = f"the state folder {self.folder} is a file, or lies below one; let `state` name a folder"
            raise StoreUnavailable(message) from error
        except OSError as error:
            raise unavailable(self._register, error) from error
        except ValueError as error:
            message = f"{self._register} cannot be read ({error}); restore it from a backup"
            raise StoreCorrupt(message) from error
        if not isinstance(found, dict) or not isinstance(found.get("processors"), dict) or "store_id" not in found:
            message = f"{self._register} is not what axe wrote; restore it from a backup"
            raise StoreCorrupt(message)
        if found.get("format", FORMAT) > FORMAT:
            message = f"{self._register} was written by a newer axe; install that version"
            raise StoreFormat(message)
        return found

    def _change(self, processor: str | None) -> dict[str, dict[str, str]]:
        # Several workers add themselves at the same moment.
        lock = FileLock(self.folder / "axe-store.lock")
        aside = self._register.with_name(f"{self._register.name}.{os.getpid()}")
        try:
            lock.acquire(time.monotonic() + WRITE_WAIT_S)
            content: dict[str, object] = {"format": FORMAT, "store_id": uuid.uuid4().hex, **self._read()}
            if processor is not None:
                content["processors"] = {**self._read()["processors"], processor: timestamp()}
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(content, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._register)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise unavailable(self._register, error) from error
        finally:
            lock.close()
        return self._read()


class _HandlerCursor(sqlite3.Cursor):
    """The cursor that handlers share; one that closes it would take it away from the next event."""

    def close(self) -> None:
        """Do nothing."""


class SqliteDatabase:
    """One file. Writers hold the lock beside it from BEGIN to the end of COMMIT; readers take none."""

    def __init__(self, folder: SqliteFolder, processor: str) -> None:
        self.path = folder.folder / f"{processor}.db"
        self.location = str(self.path)
        self._folder = folder
        self._processor = processor
        self._uri = f"file:{quote(str(self.path))}"
        self._writing: Engine | None = None
        self._reading: Engine | None = None
        self._connection: StateConnection | None = None
        self._driver: sqlite3.Connection | None = None
        self._lock: WriterLock | None = None

    def connect(self, *, create: bool) -> str:
        """Make sure that the file exists and is a database of ours."""
        had = self._folder.has(self._processor)
        if not self._size():
            if had:
                message = (
                    f"the database {self.path} existed and is gone; restore it from a backup, or take "
                    f'"{self._processor}" out of axe-store.json beside it to begin anew from an empty state'
                )
                raise StoreMissing(message)
            if not create:
                message = f"{self._processor} has no database at {self.path}: it has not run yet"
                raise StoreMissing(message)
            self._folder.prepare()
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            except OSError as error:
                raise unavailable(self.path, error) from error
        store_id = self._folder.store_id()
        if self._reading is None:
            self._reading = create_engine("sqlite://", creator=self._reader, poolclass=QueuePool, hide_parameters=True)
            event.listen(self._reading, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return store_id

    def _size(self) -> int | None:
        """Look how long the file is; None if there is none."""
        try:
            return self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unavailable(self.path, error) from error

    def is_registered(self) -> bool:
        """Look into the folder's register."""
        return self._folder.has(self._processor)

    def registered(self) -> None:
        """Enter the processor in the folder's register."""
        self._folder.add(self._processor)

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._uri}?mode=ro", uri=True, check_same_thread=False, timeout=5)

    def _writer(self) -> sqlite3.Connection:
        # In this mode Python itself begins a transaction before a statement that writes outside of one.
        # While plugin code runs the authorizer denies that BEGIN, so that nothing a handler writes after
        # a transaction that SQLite ended by itself (a full disk) can become durable alone.
        connection = sqlite3.connect(
            f"{self._uri}?mode=rw", uri=True, isolation_level="IMMEDIATE", check_same_thread=False, timeout=5
        )
        connection.execute("PRAGMA journal_mode=WAL")
        # A power cut may take the last commits, state and position together: they are read again.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _writers(self) -> tuple[Engine, WriterLock]:
        """Return the way to write, made when it is asked for first: who only reads leaves no trace."""
        if self._writing is None or self._lock is None:
            self._lock = WriterLock(self.path, wait_s=WRITE_WAIT_S)
            self._writing = create_engine("sqlite://", creator=self._writer, poolclass=NullPool, hide_parameters=True)
            event.listen(self._writing, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return self._writing, self._lock

    def begin(self) -> StateConnection:
        """Take the lock, then BEGIN IMMEDIATE."""
        engine, lock = self._writers()
        lock.acquire()
        try:
            if self._driver is not None and _in_transaction(self._driver):
                # A handler kept a cursor and wrote with it between two batches. That is no part of any.
                self._discard()
            if self._connection is None:
                if self._size() is None:
                    message = f"the database {self.path} is gone; stop axe and restore it from a backup"
                    raise StoreMissing(message)  # noqa: TRY301 # below it would skip the release
                self._connection = StateConnection(engine)
            Connection.begin(self._connection)
            self._driver = self._connection.connection.driver_connection
        except BaseException as error:
            self._discard()
            lock.release()
            if (trouble := self.trouble(error)) is not None:
                raise trouble from error
            raise
        return self._connection

    @contextmanager
    def plugin_code(self, connection: StateConnection) -> Iterator[None]:
        """Deny what would end the transaction or change our tables.

        Set and cleared around each batch: setting it makes SQLite prepare cached statements again, and
        only statements that are prepared are asked about.
        """
        driver = self._driver
        assert driver is not None

        def authorize(  # noqa: PLR0911 # one for each kind of statement
            action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
        ) -> int:
            if action in _TRANSACTION_CODES:
                return sqlite3.SQLITE_DENY
            if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() not in _READING_PRAGMAS:
                return sqlite3.SQLITE_DENY
            # A savepoint that an event leaves open would be seen only when a later one rolls it back;
            # begin_nested() has these names, and we look whether it was ended.
            if action == sqlite3.SQLITE_SAVEPOINT and not (second or "").startswith("sa_savepoint_"):
                return sqlite3.SQLITE_OK if second == connection.savepoint else sqlite3.SQLITE_DENY
            # Statements that the host prepared stay prepared: they write values, which is no way out.
            if action in _WRITING_CODES and (first or "").lower().startswith(PREFIX) and not connection.host_writes:
                return sqlite3.SQLITE_DENY
            if action in _SCHEMA_CODES and (second or "").lower().startswith(PREFIX):
                return sqlite3.SQLITE_DENY
            # Statements that change the schema begin no transaction by themselves.
            if not driver.in_transaction and action not in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ):
                return sqlite3.SQLITE_DENY
            return sqlite3.SQLITE_OK

        driver.set_authorizer(authorize)
        try:
            yield
        finally:
            # A handler may have closed the connection: the transaction is over then, which is seen later.
            with suppress(sqlite3.Error):
                driver.set_authorizer(None)

    def cursor(self, connection: StateConnection) -> Any:  # noqa: ARG002 # there is one
        """Make a cursor that stays open."""
        assert self._driver is not None
        return self._driver.cursor(_HandlerCursor)

    def settle(self, connection: StateConnection) -> None:
        """Do nothing: there is one writer."""

    def is_open(self, connection: StateConnection) -> bool:  # noqa: ARG002 # there is one
        """Ask the driver."""
        return self._driver is not None and _in_transaction(self._driver)

    def commit(self, connection: StateConnection) -> None:
        """COMMIT, the checkpoint that may come with it included, then release the lock."""
        assert self._lock is not None
        assert self._driver is not None
        try:
            self._driver.commit()
        except sqlite3.IntegrityError as error:
            message = f"the database refused the commit: {error}"
            raise CommitRefused(message) from error
        transaction = connection.get_transaction()
        if transaction is not None:
            transaction.close()
        self._lock.release()

    def rollback(self) -> None:
        """ROLLBACK, and begin with a new connection next time: rollbacks are rare, doubt is expensive."""
        assert self._lock is not None
        self._discard()
        self._lock.release()

    def renew(self) -> None:
        """Close the writing connection, under the lock: closing may write a checkpoint."""
        _, lock = self._writers()
        with lock.held():
            self._discard()

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        driver, self._driver = self._driver, None
        if connection is None:
            return
        # It is thrown away, whatever it says to that. Closing alone would not end the transaction while
        # somebody, a handler perhaps, keeps a cursor in the middle of its rows.
        if driver is not None:
            with suppress(Exception):
                driver.rollback()
            with suppress(Exception):
                driver.close()
        with suppress(Exception):
            connection.invalidate()
            Connection.close(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read through a connection that was opened read-only."""
        assert self._reading is not None
        try:
            with self._reading.connect() as connection, connection.begin():
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            if (trouble := self.trouble(error)) is not None:
                raise trouble from error
            raise

    def drop_plugin_objects(self, connection: StateConnection) -> None:
        """Drop what sqlite_master lists beside our own."""
        quoted = connection.dialect.identifier_preparer.quote_identifier
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for kind in ("view", "trigger", "table"):
            # A virtual table takes its shadow tables along, so look again each time.
            while True:
                name = connection.scalar(
                    text(
                        "SELECT name FROM sqlite_master WHERE type = :kind AND name NOT LIKE 'axe\\_%' ESCAPE '\\' "
                        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC LIMIT 1"
                    ),
                    {"kind": kind},
                )
                if name is None:
                    break
                connection.exec_driver_sql(f"DROP {kind.upper()} {quoted(name)}")

    def trouble(self, error: BaseException) -> StoreError | None:
        """Tell by SQLite's own error name, which does not change with its wording."""
        original = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(original, sqlite3.Error):
            return None
        name = getattr(original, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_FULL"):
            return StoreUnavailable(f"the disk of {self.path} is full; make room")
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return StoreUnavailable(f"{self.path} cannot be written ({original}); see to the disk and the permissions")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreUnavailable(f"{self.path} is held by a program that is not axe ({original}); stop that program")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return StoreCorrupt(f"{self.path} is damaged ({original}); restore it from a backup")
        return None

    def hurt(self, connection: StateConnection, error: BaseException) -> StoreError | None:  # noqa: ARG002 # see trouble
        """Tell a full or failing disk; what else a handler met was a database of its own, or ours says it again."""
        original = error.orig if isinstance(error, DBAPIError) else error
        name = getattr(original, "sqlite_errorname", "") or ""
        return self.trouble(error) if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")) else None

    def close(self) -> None:
        """Close what writes under the lock: the last connection to close writes a checkpoint."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.dispose()
        writing, self._writing = self._writing, None
        lock, self._lock = self._lock, None
        if writing is None or lock is None:
            return
        try:
            lock.acquire()
            self._discard()
            writing.dispose()
        finally:
            lock.close()


def _in_transaction(driver: sqlite3.Connection) -> bool:
    try:
        return driver.in_transaction
    except sqlite3.Error:  # a handler closed it
        return False
