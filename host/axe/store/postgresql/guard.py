"""What keeps plugin code from ending a transaction on PostgreSQL, which has no authorizer.

``docs/architecture.md`` tells how the parts stand in for one; the transaction's id is compared in ``database.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

import psycopg

from .. import tables
from ..connection import StateConnection, refuse

# Whoever commits a transaction that moved a position must be the host: a COMMIT by a plugin fails here,
# and takes everything back with it. Raised only while the host has set the flag, not for other programs.
GUARD = """
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

# Comments, and what stands in quotes: no statement of the handler's.
_NO_STATEMENT = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_ENDING = re.compile(r"\s*(COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)
_NAMED = re.compile(r'\b(?:SAVEPOINT|TO)\s+"?(\w+)"?\s*\Z', re.IGNORECASE)
_OF_SQLALCHEMY = re.compile(r"sa_savepoint_\d+")
# Behind another statement of the same string: it would take the guard away together with the positions.
_ENDING_LATER = re.compile(r";\s*(ROLLBACK|ABORT)\b", re.IGNORECASE)


class HandlerCursor(psycopg.Cursor[Any]):
    """The cursor of the writing connection: it does not end transactions while plugin code runs.

    And it is not closed by a handler, which would take it away from the next event.
    """

    is_hosts = False
    """Whether the state itself reads and writes values with it."""

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

    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        """As ``execute``."""
        self._check(statement)
        return super().copy(statement, *arguments, **options)

    def _check(self, query: Any) -> None:
        guarded: StateConnection | None = getattr(self.connection, "axe_guarded", None)
        if guarded is None:
            return
        if isinstance(query, bytes):
            sql = query.decode(errors="replace")
        else:
            sql = query if isinstance(query, str) else query.as_string(self.connection)
        if not self.is_hosts and tables.values.name in sql.lower():
            # Nothing denies it here that values are written: what is known of them may be old from here on.
            guarded.version = None
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
