"""The database of one processor on SQLite: a file, with one writer at a time by an OS lock."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from ...errors import CommitRefused, StoreBusy, StoreCorrupt, StoreError, StoreMissing, StoreUnavailable
from ..compiled import Compiled
from ..connection import StateConnection, concluded, snapshot, throw_away
from . import locks
from .contexts import settle_contexts
from .files import make_folder, unavailable
from .guard import HandlerCursor, guarded, in_transaction, was_used
from .kept import Kept
from .register import Register


class SqliteDatabase:
    """One file. Writers hold the lock beside it from BEGIN to the end of COMMIT; readers take none."""

    def __init__(self, folder: Path, register: Register, processor: str) -> None:
        self.path = folder / f"{processor}.db"
        self.location = str(self.path)
        self._register = register
        self._processor = processor
        self._uri = f"file:{quote(str(self.path))}"
        self._writing: Engine | None = None
        self._reading: Engine | None = None
        self._glancing: sqlite3.Connection | None = None
        self._connection: StateConnection | None = None
        self._driver: sqlite3.Connection | None = None
        self._lock: locks.WriterLock | None = None
        self._identity: tuple[int, int] | None = None
        self._changes = 0
        self._kept = Kept(self.path)

    def connect(self, *, create: bool) -> str:
        """Make sure that the file exists and is a database of ours."""
        had = self._register.has(self._processor)
        found = self._stat()
        if found is None or found.st_size == 0:
            if had:
                message = (
                    f"the database {self.path} existed and is gone; restore it from a backup, or take "
                    f'"{self._processor}" out of axe-store.json beside it to begin anew from an empty state'
                )
                raise StoreMissing(message)
            if not create:
                message = f"{self._processor} has no database at {self.path}: it has not run yet"
                raise StoreMissing(message)
            make_folder(self.path.parent)
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            except OSError as error:
                raise unavailable(self.path, error) from error
        store_id = self._register.store_id()
        if self._reading is None:
            settle_contexts()
            self._reading = create_engine("sqlite://", creator=self._reader, poolclass=QueuePool, hide_parameters=True)
            event.listen(self._reading, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return store_id

    def _stat(self) -> os.stat_result | None:
        """Look at the file; None if there is none."""
        try:
            return self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unavailable(self.path, error) from error

    def is_registered(self) -> bool:
        """Look into the folder's register."""
        return self._register.has(self._processor)

    def registered(self) -> None:
        """Enter the processor in the folder's register."""
        self._register.add(self._processor)

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

    def _writers(self) -> tuple[Engine, locks.WriterLock]:
        """Return the way to write, made when it is asked for first: who only reads leaves no trace."""
        if self._writing is None or self._lock is None:
            self._lock = locks.WriterLock(self.path, wait_s=locks.WAIT_S)
            self._writing = create_engine("sqlite://", creator=self._writer, poolclass=NullPool, hide_parameters=True)
        return self._writing, self._lock

    def begin(self) -> StateConnection:
        """Take the lock, then BEGIN IMMEDIATE."""
        engine, lock = self._writers()
        lock.acquire()
        try:
            if self._driver is not None and was_used(self._driver, self._changes):
                # A handler kept a cursor and wrote with it between two batches. That is no part of any.
                self._discard()
            self._check_file()
            if self._connection is None:
                self._connection = StateConnection(engine)
            if self._connection.handed_out:
                # Who kept it gets on with it.
                self._connection.entered()
            self._driver = self._connection.connection.driver_connection
            assert self._driver is not None
            # Not by a listener of the engine: with one each statement of a handler costs a quarter more.
            self._driver.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._discard()
            lock.release()
            if (trouble := self.trouble(error)) is not None:
                raise trouble from error
            raise
        return self._connection

    def _check_file(self) -> None:
        """Refuse to write into a file that is no longer there: SQLite itself would, and nobody would find it."""
        found = self._stat()
        identity = None if found is None else (found.st_dev, found.st_ino)
        self._identity = self._identity or identity
        if identity is None or identity != self._identity:
            what = "is gone" if identity is None else "was replaced"
            message = f"the database {self.path} {what} while axe ran; stop axe, and restore it from a backup"
            raise StoreMissing(message)

    def is_undisturbed(self, connection: StateConnection) -> bool:
        """Ask SQLite for what changes when another connection, of whatever program, has committed."""
        assert self._driver is not None
        before = connection.version
        (connection.version,) = self._driver.execute("PRAGMA data_version").fetchone()
        return before == connection.version

    def plugin_code(self, connection: StateConnection) -> AbstractContextManager[None]:
        """Set the authorizer while code of a plugin runs."""
        assert self._driver is not None
        return guarded(self._driver, connection)

    def cursor(self, connection: StateConnection) -> Any:  # noqa: ARG002 # there is one
        """Make a cursor that stays open."""
        assert self._driver is not None
        return self._driver.cursor(HandlerCursor)

    def settle(self, connection: StateConnection) -> None:
        """Do nothing: there is one writer."""

    def is_open(self, connection: StateConnection) -> bool:  # noqa: ARG002 # there is one
        """Ask the driver."""
        return self._driver is not None and in_transaction(self._driver)

    def commit(self, connection: StateConnection) -> None:
        """COMMIT, the checkpoint that may come with it included, then release the lock."""
        assert self._lock is not None
        assert self._driver is not None
        if self._kept.is_restoring:
            self._kept.restore(self._driver, self._reopened)
            self._lock.release()
            return
        try:
            self._driver.commit()
        except sqlite3.IntegrityError as error:
            message = f"the database refused the commit: {error}"
            raise CommitRefused(message) from error
        concluded(connection)
        self._changes = self._driver.total_changes
        self._kept.committed()
        self._lock.release()

    def rollback(self) -> None:
        """ROLLBACK, and begin with a new connection next time: rollbacks are rare, doubt is expensive."""
        assert self._lock is not None
        self._kept.given_up()
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
        # Closing alone would not end the transaction while somebody, a handler perhaps, keeps a cursor in the
        # middle of its rows.
        throw_away(connection, driver, undo_first=True)

    def read(self) -> AbstractContextManager[Connection]:
        """Read through a connection that was opened read-only."""
        return snapshot(self._reading, self.trouble)

    def glance(self, statement: Compiled) -> list[Any]:
        """Read on a connection of the driver that is kept for this: each statement is its own snapshot.

        A connection of SQLAlchemy costs several times the statement, and every idle processor looks each second.
        """
        assert self._reading is not None
        try:
            if self._glancing is None:
                self._glancing = self._reader()
            rows: list[Any] = statement.run(self._glancing.cursor(), self._reading.dialect).fetchall()
        except Exception as error:
            self._look_away()
            if (known := self.trouble(error)) is not None:
                raise known from error
            raise
        return rows

    def _look_away(self) -> None:
        glancing, self._glancing = self._glancing, None
        if glancing is not None:
            glancing.close()

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

    def why_final(self, limit: int) -> str | None:
        """Look at how large the file is, and how much room there is for another."""
        with self.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
            size = connection.exec_driver_sql("PRAGMA page_size").scalar() or 0
        return self._kept.why_not(pages * size, limit)

    def set_aside(self, connection: StateConnection, *, keep: bool) -> str | None:  # noqa: ARG002 # there is one
        """Copy what is committed, which is what was before this transaction."""
        return self._kept.make(self._reader if keep else None)

    def restore(self, connection: StateConnection, name: str) -> None:  # noqa: ARG002 # there is one
        """Leave it to the commit."""
        self._kept.restore_at_commit(name)

    def _reopened(self) -> sqlite3.Connection:
        """Give the transaction up, under the lock, and connect anew."""
        self._discard()
        return self._writer()

    def trouble(self, error: BaseException) -> StoreError | None:
        """Tell by SQLite's own error name, which does not change with its wording."""
        original = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(original, sqlite3.Error):
            return None
        name = getattr(original, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_FULL"):
            return StoreUnavailable(f"the disk of {self.path} is full; make room")
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return StoreUnavailable(f"{self.path} cannot be used ({original}); see to the disk and the permissions")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreBusy(f"{self.path} is held by a program that is not axe ({original}); stop that program")
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
        self._look_away()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.dispose()
        writing, self._writing, self._identity = self._writing, None, None
        lock, self._lock = self._lock, None
        if writing is None or lock is None:
            return
        try:
            lock.acquire()
            self._discard()
            writing.dispose()
        finally:
            lock.close()
