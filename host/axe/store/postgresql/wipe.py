"""What a wipe drops of a schema: everything that is not ours."""

from __future__ import annotations

from sqlalchemy import Connection, text

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


def drop_plugin_objects(connection: Connection) -> None:
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
