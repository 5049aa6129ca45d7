"""A worker process as its host sees it: how it is started, whether it is there, how it ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any

from .config import Config
from .discovery import Found
from .fork_server import signals_blocked, start_fork_server
from .plugins import Plugins

_REAPED_S = 1.0
# What multiprocessing says when the fork server is gone, which alone knows.
_UNKNOWN_CODE = 255


class WorkerProcess:
    """A worker that has been started; it belongs to the thread that made it."""

    def __init__(
        self,
        members: Sequence[Found],
        plugins: Plugins,
        config: Config,
        *,
        until_end: bool,
        debug: bool,
    ) -> None:
        from .worker import work

        context = start_fork_server()
        ours, theirs = multiprocessing.Pipe()
        self._process: Any = context.Process(
            target=work,
            args=(list(members), plugins, config, theirs),
            kwargs={"until_end": until_end, "debug": debug},
        )
        with _no_main(), signals_blocked():
            self._process.start()
        theirs.close()
        self._line: connection.Connection | None = ours
        self._pid = int(self._process.pid or 0)
        self._pidfd: int | None = None
        # Where there is no pidfd, or the worker has ended already, its number has to do.
        with suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(self._pid)

    @property
    def signs(self) -> list[Any]:
        """What becomes ready when it says something or ends, for ``multiprocessing.connection.wait``."""
        end = self._process.sentinel if self._pidfd is None else self._pidfd
        return [end] if self._line is None else [self._line, end]

    def is_alive(self) -> bool:
        """Tell whether it is there, whatever became of the fork server, from which multiprocessing would know."""
        if self._pidfd is not None:
            return not connection.wait([self._pidfd], 0)
        if self._process.is_alive():
            return True
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    def heard(self) -> Iterator[dict[str, Any]]:
        """Yield what it has said since."""
        try:
            while self._line is not None and self._line.poll():
                yield self._line.recv()
        except (EOFError, OSError):
            self._hang_up()

    def tell_to_stop(self) -> None:
        """Ask for an orderly end."""
        if self._line is not None:
            with suppress(OSError):
                self._line.send("stop")

    def kill(self) -> None:
        """End it at once; whatever is under way is undone."""
        with suppress(ProcessLookupError):
            if self._pidfd is None:
                os.kill(self._pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def let_go(self) -> int | None:
        """Close what belongs to it once it has ended; return its exit code, None where nobody knows."""
        self._hang_up()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        # The fork server tells a moment after the end.
        self._process.join(_REAPED_S)
        code: int | None = self._process.exitcode
        if code is not None:
            self._process.close()
        return None if code == _UNKNOWN_CODE else code

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


@contextmanager
def _no_main() -> Iterator[None]:
    """Hide the file of the command, which a worker would run again, and import the command line by it."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file
