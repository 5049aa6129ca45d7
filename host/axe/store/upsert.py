"""An insert that updates the row that is there: SQLAlchemy has it in each dialect, not for all of them."""

from __future__ import annotations

import importlib
from typing import Any

from sqlalchemy import Table


def insert_or_update(dialect: str, table: Table) -> Any:
    """Begin an ``INSERT`` that says what to do about a row that is there, by the name of a dialect.

    Its module is imported when it is needed: that of PostgreSQL takes a tenth of all imports of a worker.
    """
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
