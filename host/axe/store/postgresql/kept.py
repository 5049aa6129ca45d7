"""What a wipe drops, kept in a schema beside the processor's: moved there and back, in the transactions at hand."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, text

from ...errors import StoreMissing
from ...failpoints import failpoint

_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'm')
  AND (relname NOT LIKE 'axe\\_%' OR relname = 'axe_values')
"""
# Its multirange type, which is made with it, stays where it is.
_RANGES = "SELECT typname FROM pg_type WHERE typnamespace = current_schema()::regnamespace AND typtype = 'r' LIMIT 1"

# Indexes, sequences of columns, and the types of rows go with their tables, and only so; what an extension brought
# stays where it is.
_MOVES = """
SELECT format('ALTER %s %I.%I SET SCHEMA %I', k.word, CAST(:origin AS text), relname, CAST(:target AS text))
FROM pg_class c JOIN (VALUES ('r', 'TABLE'), ('p', 'TABLE'), ('v', 'VIEW'), ('m', 'MATERIALIZED VIEW'),
                             ('S', 'SEQUENCE'), ('f', 'FOREIGN TABLE')) k (kind, word) ON k.kind = relkind::text
WHERE relnamespace = CAST(:origin AS regnamespace) AND (relname NOT LIKE 'axe\\_%' OR relname = 'axe_values')
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
                  AND (deptype = 'e' OR relkind = 'S' AND deptype IN ('a', 'i')))
UNION ALL
SELECT format('ALTER %s %I.%I SET SCHEMA %I', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
              CAST(:origin AS text), typname, CAST(:target AS text))
FROM pg_type t WHERE typnamespace = CAST(:origin AS regnamespace) AND typname NOT LIKE 'axe\\_%'
  AND (typtype IN ('d', 'e')
       OR typtype = 'c' AND EXISTS (SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c'))
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = t.oid AND deptype = 'e')
UNION ALL
SELECT format('ALTER ROUTINE %s SET SCHEMA %I', p.oid::regprocedure, CAST(:target AS text))
FROM pg_proc p WHERE pronamespace = CAST(:origin AS regnamespace) AND proname NOT LIKE 'axe\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid
                  AND deptype IN ('e', 'i'))
"""


def kept_schema(processor: str) -> str:
    """Return the schema for what a wipe of this processor drops; no processor has a schema of such a name."""
    return f"axe__undo_{hashlib.sha256(processor.encode()).hexdigest()[:16]}"


def why_not(connection: Connection, limit: int) -> str | None:
    """Say why what a wipe would drop cannot be kept; None where it can."""
    size = connection.scalar(text(_SIZE)) or 0
    if size > limit:
        return f"it is larger ({-(-size // 2**20)} MiB) than `undo_mb` ({limit // 2**20}) of its settings"
    if (name := connection.scalar(text(_RANGES))) is not None:
        return f"it has the range type {name}, which cannot be moved aside"
    return None


def set_aside(connection: Connection, schema: str, processor: str, *, keep: bool) -> str | None:
    """Move what a wipe would drop into a schema of its own, in the place of what was there."""
    kept = kept_schema(processor)
    connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{kept}" CASCADE')
    if not keep:
        return None
    connection.exec_driver_sql(f'CREATE SCHEMA "{kept}"')
    _move(connection, schema, kept, "in_set_aside")
    connection.exec_driver_sql(f'CREATE TABLE axe_values (LIKE "{kept}".axe_values INCLUDING ALL)')
    failpoint("after_set_aside")
    return kept


def restore(connection: Connection, schema: str, processor: str, kept: str) -> None:
    """Move back what was set aside, to where nothing of the plugin's is.

    Raises:
        StoreMissing: there is nothing.
    """
    is_there = connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": kept})
    if kept != kept_schema(processor) or not is_there:
        message = f"what the wipe dropped is not kept any more: the schema {kept} is gone"
        raise StoreMissing(message)
    failpoint("before_restore")
    connection.exec_driver_sql("DROP TABLE axe_values")
    _move(connection, kept, schema, "in_restore")
    connection.exec_driver_sql(f'DROP SCHEMA "{kept}"')


def _move(connection: Connection, origin: str, target: str, place: str) -> None:
    for move in connection.scalars(text(_MOVES), {"origin": origin, "target": target}).all():
        connection.exec_driver_sql(move)
        failpoint(place)
