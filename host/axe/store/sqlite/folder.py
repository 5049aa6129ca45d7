"""A folder of databases, one for each processor."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import HostRunning
from .database import SqliteDatabase
from .files import make_folder
from .locks import FileLock
from .register import Register


class SqliteFolder:
    """A folder of databases, with a register that says whose they are and which must exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._register = Register(folder)

    @property
    def name(self) -> str:
        """The store's name, as consumer groups carry it."""
        return self.folder.name

    @property
    def host_is_alone(self) -> bool:
        """The lock of ``host_lock`` sees to it."""
        return True

    def prepare(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            StoreUnavailable: it cannot be made or written.
        """
        make_folder(self.folder)

    def processors(self) -> list[str]:
        """List the processors that have, or had, a database here."""
        return self._register.processors()

    def host_lock(self) -> FileLock:
        """Take the lock that says that one host runs on this folder.

        Raises:
            HostRunning: another one does.
            StoreUnavailable: the folder cannot be used.
        """
        self.prepare()
        lock = FileLock(self.folder / "axe.lock")
        try:
            if not lock.try_acquire():
                holder = lock.holder() or "unknown process"
                message = f"another host ({holder}) runs on {self.folder}; stop it, or use another `state` folder"
                raise HostRunning(message)  # noqa: TRY301 # the lock is closed below
            lock.sign(f"process {os.getpid()}")
        except BaseException:
            lock.close()
            raise
        return lock

    def database(self, processor: str) -> SqliteDatabase:
        """Name the database of a processor; nothing is opened yet."""
        return SqliteDatabase(self.folder, self._register, processor)
