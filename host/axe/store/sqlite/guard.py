"""What plugin code may not do on SQLite: an authorizer that says no, and a cursor that stays open."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..connection import StateConnection
from ..tables import PREFIX

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


@contextmanager
def guarded(driver: sqlite3.Connection, connection: StateConnection) -> Iterator[None]:
    """Deny what would end the transaction or change our tables, from when a handler gets hold of the connection.

    Set and cleared around each batch, and not where handlers use no SQL: setting it makes SQLite prepare
    all cached statements again, a quarter of what a batch costs beside its events.
    """
    connection.guard = lambda: driver.set_authorizer(_authorizer(driver, connection))
    if connection.handed_out:
        connection.guard()
    try:
        yield
    finally:
        connection.guard = None
        # A handler may have closed the connection: the transaction is over then, which is seen later.
        with suppress(sqlite3.Error):
            driver.set_authorizer(None)


def _authorizer(driver: sqlite3.Connection, connection: StateConnection) -> Callable[..., int]:
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

    return authorize


def in_transaction(driver: sqlite3.Connection) -> bool:
    """Tell whether a transaction is open."""
    try:
        return driver.in_transaction
    except sqlite3.Error:  # a handler closed it
        return False


def was_used(driver: sqlite3.Connection, changes: int) -> bool:
    """Tell whether somebody wrote with a connection, committed or not, since it had changed so many rows."""
    try:
        return driver.in_transaction or driver.total_changes != changes
    except sqlite3.Error:  # a handler closed it
        return True


class HandlerCursor(sqlite3.Cursor):
    """The cursor that handlers share; one that closes it would take it away from the next event."""

    is_hosts = False

    def close(self) -> None:
        """Do nothing."""
