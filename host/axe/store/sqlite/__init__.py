"""SQLite: a folder with a database for each processor."""

from .folder import SqliteFolder

__all__ = ["SqliteFolder"]
