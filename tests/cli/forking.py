"""Commands in interpreters that are forked, with the libraries of ``axe`` imported already, instead of started.

Most of the time of a short command goes into imports. ``Forks`` keeps a process that has done those, and has it
fork one child for each command; this file run as a script is that process. Exit codes, exit handlers, threads that
are waited for and flushing are those of a command that was started.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

HOST = str(Path(__file__).parents[2] / "host")

# As `python -m axe` does it.
AXE = "import runpy; runpy.run_module('axe', run_name='__main__', alter_sys=True)"

# These do something when they are imported.
_NOT_IMPORTED = ("axe.__main__", "axe.preload")
# What commands import late, and what they have others import late. Where one is missing, only time is lost.
_IMPORTED_LATE = (
    "encodings.utf_8_sig",
    "rich._emoji_codes",
    "rich.console",
    "rich.live",
    "rich.progress",
    "rich.table",
    "rich.text",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
    "typer._adapters",
    "typer._click.decorators",
)


class Forks:
    """Starts commands one after the other, each in a child of one process."""

    def __init__(self) -> None:
        self._line, theirs = multiprocessing.Pipe()
        # A pipe, because of what an interpreter makes of its stdout when it starts; nothing is written to it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": HOST},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._turn = threading.Lock()

    def run(
        self, code: str, words: Sequence[str], *, folder: Path, environment: Mapping[str, str], limit_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -P -c code words…`` there, with this environment and no other; its ``PYTHON…`` are those here.

        It fails, as a test does, when that takes longer than the limit.
        """
        with self._turn, ThreadPoolExecutor(2) as pool:
            self._line.send((code, list(words), str(folder), dict(environment)))
            ends = [os.pipe(), os.pipe()]
            for _, theirs in ends:
                reduction.send_handle(self._line, theirs, self._process.pid)
                os.close(theirs)
            said = [pool.submit(_all_of, ours) for ours, _ in ends]
            child = self._line.recv()
            ended = self._line.poll(limit_s)
            if not ended:
                os.kill(child, signal.SIGKILL)
            returned = self._line.recv()
            out, err = (one.result() for one in said)
        assert ended, f"{words} took more than {limit_s} s; it said {out!r} and {err!r}"
        return subprocess.CompletedProcess(list(words), returned, out, err)

    def close(self) -> None:
        self._line.close()
        self._process.communicate(timeout=20)


def _all_of(end: int) -> str:
    with open(end, encoding="utf-8") as file:
        return file.read()


# --- the process that forks


def _import_all() -> None:
    import axe

    for module in pkgutil.walk_packages(axe.__path__, "axe."):
        if module.name not in _NOT_IMPORTED:
            importlib.import_module(module.name)
    for name in _IMPORTED_LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    # Nothing survives a fork but the thread that forks.
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def _serve(line: Connection) -> str:
    """Fork a child for each command, until nobody asks any more; return only in the children, what to run."""
    while True:
        try:
            code, words, folder, environment = line.recv()
        except (EOFError, KeyboardInterrupt):
            os._exit(0)
        streams = [reduction.recv_handle(line) for _ in range(2)]
        if (child := os.fork()) == 0:
            line.close()
            _settle(streams, words, Path(folder), environment)
            return str(code)
        for stream in streams:
            os.close(stream)
        line.send(child)
        line.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _settle(streams: list[int], words: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Make this process what a new one would be there."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv[:] = ["-c", *words]
    given = environment["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [*given, *(entry for entry in sys.path if entry not in {HOST, *given})]
    importlib.invalidate_caches()


def _main() -> None:
    _import_all()
    code = _serve(Connection(int(sys.argv[1])))
    main: Any = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    try:
        exec(compile(code, "<string>", "exec"), vars(main))
        returned = 0
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        returned = end.code or 0
    _end(returned)


def _end(code: int) -> NoReturn:
    """End as an interpreter does, except that what was imported is not taken apart: that would take most of the time.

    Whatever else was raised, the interpreter's own end is left to tell of it.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
