"""What a wipe drops, kept beside the database: a copy of the whole file, from which an undo puts it back."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from ...errors import StoreMissing
from ...failpoints import failpoint
from .. import tables
from .files import unavailable

_PAGES = 2_000
"""How much is copied between two passes of a failpoint; nobody sees a part of it in between."""

_OURS = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name LIKE 'axe\\_%' ESCAPE '\\' AND name <> ?"


class Kept:
    """The copies of one database: ``<processor>.db-undo-`` and a part that no other copy has.

    The history names the copy of each wipe. One that was made for a wipe that never was committed, because its
    process died, is named nowhere, and gone with the next wipe. Everything here happens under the writer's lock.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._prefix = f"{database.name}-undo-"
        # The copy that the commit at hand leaves as the only one, "" for none; and the one that it puts back.
        self._keeps: str | None = None
        self._restores: str | None = None

    def why_not(self, size: int, limit: int) -> str | None:
        """Say why a database of this size cannot be kept; None where it can."""
        if size > limit:
            return f"it is larger ({-(-size // 2**20)} MiB) than `undo_mb` ({limit // 2**20}) of its settings"
        if shutil.disk_usage(self._database.parent).free < size:
            return f"the disk of {self._database.parent} has no room for a copy of it ({-(-size // 2**20)} MiB)"
        return None

    def make(self, reader: Callable[[], sqlite3.Connection] | None) -> str | None:
        """Copy what is committed, as ``reader`` sees it, and return the name of the copy; None without.

        From the commit on there is no other.
        """
        self._keeps = ""
        if reader is None:
            return None
        name = self._prefix + secrets.token_hex(4)
        path = self._database.with_name(name)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise unavailable(path, error) from error
        try:
            with closing(reader()) as source, closing(_opened(path)) as copy:
                source.backup(copy, pages=_PAGES, progress=lambda *_: failpoint("in_set_aside"))
                # In one file: it came with the journal mode of its source.
                copy.execute("PRAGMA journal_mode=DELETE")
        except BaseException:
            self._remove(name)
            raise
        failpoint("after_set_aside")
        self._keeps = name
        return name

    def committed(self) -> None:
        """Remove what is kept of earlier wipes, if there was another one."""
        keeps, self._keeps = self._keeps, None
        if keeps is not None:
            self._remove(self._prefix, but=keeps or None)

    def given_up(self) -> None:
        """Remove what was kept for a wipe that is none."""
        keeps, self._keeps, self._restores = self._keeps, None, None
        if keeps:
            self._remove(keeps)

    def _remove(self, prefix: str, *, but: str | None = None) -> None:
        for path in self._database.parent.glob(f"{prefix}*"):
            if but is None or not path.name.startswith(but):
                # What cannot be removed is in nobody's way.
                with suppress(OSError):
                    path.unlink()

    @property
    def is_restoring(self) -> bool:
        """Whether the commit at hand puts something back."""
        return self._restores is not None

    def restore_at_commit(self, name: str) -> None:
        """Note which copy the commit at hand puts back.

        Raises:
            StoreMissing: it is not there.
        """
        if not name.startswith(self._prefix) or not self._database.with_name(name).exists():
            message = f"what the wipe dropped is not kept any more: {self._database.with_name(name)} is gone"
            raise StoreMissing(message)
        self._restores = name

    def restore(self, now: sqlite3.Connection, reopened: Callable[[], sqlite3.Connection]) -> None:
        """Make the database what the copy has, but for our own tables, which stay as ``now`` sees them.

        Those go into the copy first; killed there, the next undo does it anew. Then the copy is written over the
        database in one transaction of SQLite's, whatever is in it: virtual tables are pages like others. ``reopened``
        gives up the transaction of ``now`` and makes a connection for that.
        """
        name, self._restores = self._restores, None
        assert name is not None
        with closing(_opened(self._database.with_name(name))) as copy:
            _take_ours(copy, now)
            failpoint("before_restore")
            with closing(reopened()) as database:
                copy.backup(database, pages=_PAGES, progress=lambda *_: failpoint("in_restore"))
        failpoint("after_restore")
        self._remove(self._prefix)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)


def _take_ours(copy: sqlite3.Connection, now: sqlite3.Connection) -> None:
    """Put our tables of now in the place of those that a copy has; the values are the plugin's."""
    values = (tables.values.name,)
    copy.execute("BEGIN IMMEDIATE")
    for table, _ in copy.execute(_OURS, values).fetchall():
        copy.execute(f'DROP TABLE "{table}"')
    for table, sql in now.execute(_OURS, values).fetchall():
        # As it is, whatever its format: that of the copy may be an older one.
        copy.execute(sql)
        rows = now.execute(f'SELECT * FROM "{table}"')  # noqa: S608 # a name of ours
        places = ", ".join("?" * len(rows.description))
        copy.executemany(f'INSERT INTO "{table}" VALUES ({places})', rows)  # noqa: S608
    copy.execute("COMMIT")
