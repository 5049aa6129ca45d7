"""PostgreSQL: a server's database with a schema for each processor."""

from .register import schema_name
from .server import PostgresServer

__all__ = ["PostgresServer", "schema_name"]
