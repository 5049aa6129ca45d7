"""One writer at a time: operating system locks beside a SQLite database.

SQLite serialises writers by itself, but a waiting one polls and may starve, and versions before
3.51.3 can corrupt a WAL file when two connections write and checkpoint at once
(https://sqlite.org/wal.html#walresetbug). A lock of ours around every write transaction, the
checkpoint in its commit included, is safe on every version and costs a microsecond.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import StoreBusy
from .files import unavailable

WAIT_S = 30.0
"""How long a writer waits for another one."""

_POLL_S = 0.001

_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive ``flock`` on a file, which names its holder by what is written in it.

    Raises:
        StoreUnavailable: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise unavailable(path, error) from error
        _open_locks.add(self)

    def try_acquire(self) -> bool:
        """Take the lock if it is free.

        Raises:
            StoreUnavailable: files cannot be locked there.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise unavailable(self.path, error) from error
        return True

    def acquire(self, deadline: float) -> None:
        """Take the lock, waiting until ``deadline`` (of ``time.monotonic``).

        Raises:
            StoreBusy: somebody held it all the time.
            StoreUnavailable: files cannot be locked there.
        """
        while not self.try_acquire():
            if time.monotonic() > deadline:
                raise StoreBusy(
                    f"{self.path.name} has been held by {self.holder() or 'another process'} for too long; "
                    "see what that process does, or stop it"
                )
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Let others take the lock."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def sign(self, holder: str) -> None:
        """Write who holds the lock, for the message of those who wait; where that fails, nobody is named."""
        try:
            os.pwrite(self._fd, holder.encode().ljust(64), 0)
        except OSError:
            # A full disk is no reason to give up the lock. But who signed before us does not hold it.
            with suppress(OSError):
                os.ftruncate(self._fd, 0)

    def holder(self) -> str:
        """Read who signed last; empty if that is not known."""
        try:
            return os.pread(self._fd, 64, 0).decode(errors="replace").strip()
        except OSError:
            return ""

    def close(self) -> None:
        """Release the lock and close its file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _open_locks.discard(self)


class WriterLock:
    """The right to write to one database: a lock behind a turnstile.

    With the lock alone a busy worker takes it again before a waiting operator wakes up. Everybody
    passes the turnstile first, and who waits for the lock keeps the turnstile closed, so that an
    operator waits for one batch at most.

    Raises:
        StoreUnavailable: a file cannot be opened.
    """

    def __init__(self, database: Path, *, wait_s: float) -> None:
        self._turnstile = FileLock(database.with_name(database.name + "-turn"))
        try:
            self._lock = FileLock(database.with_name(database.name + "-lock"))
        except BaseException:
            self._turnstile.close()
            raise
        self._wait_s = wait_s
        self._name = f"process {os.getpid()}"

    def acquire(self) -> None:
        """Take the right to write.

        Raises:
            StoreBusy: not within ``wait_s``; names the holder.
        """
        deadline = time.monotonic() + self._wait_s
        self._turnstile.acquire(deadline)
        try:
            self._lock.acquire(deadline)
        finally:
            self._turnstile.release()
        self._lock.sign(self._name)

    def release(self) -> None:
        """Give the right back."""
        self._lock.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the right for a ``with`` block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Close the files."""
        self._lock.close()
        self._turnstile.close()


def _close_in_child() -> None:
    # A forked child shares the parent's open file and with it the lock: it would hold the lock
    # on after the parent died.
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
