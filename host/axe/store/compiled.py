"""Statements that run with every batch: compiled once for a dialect, run on the driver's own cursor.

SQLAlchemy takes 30 µs for what the driver does in 3; a batch may be one event.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect


class Compiled:
    """A statement and its forms for the dialects that it was run on."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._forms: dict[str, tuple[str, tuple[str, ...] | None]] = {}

    def run(self, cursor: Any, dialect: Dialect, **given: Any) -> Any:
        """Execute it with these parameters; returns the cursor."""
        sql, order = self._forms.get(dialect.name) or self._compile(dialect)
        cursor.execute(sql, given if order is None else [given[name] for name in order])
        return cursor

    def run_many(self, cursor: Any, dialect: Dialect, given: list[dict[str, Any]]) -> None:
        """Execute it for each set of parameters."""
        sql, order = self._forms.get(dialect.name) or self._compile(dialect)
        cursor.executemany(sql, given if order is None else [[one[name] for name in order] for one in given])

    def _compile(self, dialect: Dialect) -> tuple[str, tuple[str, ...] | None]:
        made = self._statement(dialect.name) if callable(self._statement) else self._statement
        compiled = made.compile(dialect=dialect)
        form = (str(compiled), tuple(compiled.positiontup) if dialect.positional else None)
        self._forms[dialect.name] = form
        return form
