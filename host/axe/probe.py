"""Probe: what a plugin is, learned by importing it in a process of its own, with a time limit.

``probe`` is the parent's side. The child, ``python -m axe.probe``, imports one plugin, binds it as a
worker would, and writes what it learned into a file: nothing that a plugin does at import (an endless
loop, ``os._exit``, a crash, printing) reaches the parent or another plugin.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from .errors import AxeError, ConfigError
from .telling import keep_secret, said, told

if TYPE_CHECKING:
    from .discovery import Found
    from .plugins import Plugins

LIMIT_S = 30.0
_LOOK_S = 0.01
_GRACE_S = 5.0


class Probed(NamedTuple):
    """What the probe of one plugin learned; ``reason`` says why it is broken, None if it is not."""

    topics: tuple[str, ...] = ()
    version: int | None = None
    reason: str | None = None
    hooks: tuple[str, ...] = ()
    """Which hooks a package of ``axe.plugins`` implements."""


def import_limit_s() -> float:
    """Return how long the import of one plugin may take; AXE_PROBE_S sets it.

    Raises:
        ConfigError: that is no number of seconds.
    """
    said = os.environ.get("AXE_PROBE_S") or str(LIMIT_S)
    with contextlib.suppress(ValueError):
        if 0 < (limit_s := float(said)) < math.inf:
            return limit_s
    message = f"AXE_PROBE_S: expected a number of seconds above 0, got {said!r}"
    raise ConfigError(message)


def no_end(limit_s: float) -> str:
    """Say that an import was stopped."""
    return f"its import does not end: stopped after {limit_s:g} s"


def ended_process(code: int | None) -> str:
    """Say how an import ended its process, as far as that is known."""
    return f"its import ended the process{how_ended(code)}"


def how_ended(code: int | None) -> str:
    """Say in parentheses how a process ended; nothing where nobody knows."""
    return "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"


def probe(
    config: Path | None,
    plugins: Sequence[tuple[str, str]],
    *,
    limit_s: float | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> dict[str, Probed]:
    """Import each (group, name) aside, several at a time; ``config`` is the configuration's file.

    ``limit_s`` is for each of them, 30 seconds if nothing else is set. When ``given_up`` says so, nobody
    waits any more for those that have no result yet.
    """
    limit_s = limit_s or import_limit_s()
    waiting, running = list(plugins), list[_Child]()
    found: dict[str, Probed] = {}
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="axe-probe-") as folder:
        try:
            while (waiting or running) and not given_up():
                while waiting and len(running) < max(2, os.cpu_count() or 2):
                    group, name = waiting.pop(0)
                    result = Path(folder) / str(next(numbers))
                    running.append(_Child(config, group, name, result, limit_s))
                for child in list(running):
                    if (probed := child.outcome()) is not None:
                        found[child.name] = probed
                        running.remove(child)
                time.sleep(_LOOK_S)
        finally:
            for child in running:
                child.kill()
    return found


def seen(found: Sequence[Found], probed: Mapping[str, Probed]) -> Plugins:
    """Tell from the probes of packages of ``axe.plugins`` which of them may be used, and for what."""
    from .plugins import Plugins

    faults = [(one, probed[one.name].reason) for one in found]
    return Plugins(
        usable=tuple(one for one, reason in faults if reason is None),
        open_source=tuple(one for one in found if "open_source" in probed[one.name].hooks),
        open_store=tuple(one for one in found if "open_store" in probed[one.name].hooks),
        faults=tuple(said if said.startswith(str(one)) else f"{one}: {said}" for one, said in faults if said),
    )


class _Child:
    def __init__(self, config: Path | None, group: str, name: str, result: Path, limit_s: float) -> None:
        self.name = name
        self._result = result
        self._limit_s = limit_s
        self._until = time.monotonic() + limit_s
        # The same packages in the same order as here, and not the working directory by accident.
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder)  # noqa: PTH100
        request = json.dumps([str(config) if config else None, group, name, str(result), limit_s])
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-m", "axe.probe", request],
            stdin=subprocess.PIPE,  # nothing is written: its end is ours
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    def outcome(self) -> Probed | None:
        """Return what came of it, None while it works."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self._until:
                return None
            self.kill()
            return Probed(reason=no_end(self._limit_s))
        self.kill()  # what it left behind
        try:
            topics, version, reason, hooks = json.loads(self._result.read_text())
        except (OSError, ValueError):
            return Probed(reason=ended_process(code))
        return Probed(tuple(topics), version, reason, tuple(hooks))

    def kill(self) -> None:
        """End it, and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def _learn(config_path: str | None, group: str, name: str) -> Probed:
    """Import and bind one plugin, in the child."""
    from .config import load as load_config
    from .discovery import PROCESSORS, FoundStatus, discover, load, load_plugin

    config = load_config(config_path)
    keep_secret(config.secrets)
    discovered = discover(config)
    among = discovered.processors if group == PROCESSORS else discovered.plugins
    # A name that is claimed twice has been told of already; of those that may run there is one.
    entry = next((one for one in among if one.name == name and one.status is FoundStatus.FOUND), None)
    if entry is None:
        return Probed(reason="it is not installed, or may not run")
    if group != PROCESSORS:
        return Probed(hooks=load_plugin(entry, config.plugins.get(name, {}))[1])
    # Not for a plugin: it takes as long to import as the rest of this process.
    from . import assembly

    processor = assembly.bind(config, name, load(entry))
    return Probed(processor.subscriptions, processor.version)


def _end_with_parent(folder: Path) -> None:
    """End, with what the import started, when nobody waits for the result any more."""
    # The plugin gets a stdin on which there is nothing.
    parent, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        os.read(parent, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="axe parent", daemon=True).start()


def _main(request: str) -> NoReturn:
    config, group, name, result, limit_s = json.loads(request)
    _end_with_parent(Path(result).parent)
    # An import may hold the interpreter so that no thread of ours runs.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit_s + _GRACE_S)
    try:
        probed = _learn(config, group, name)
    except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, it is the finding
        probed = Probed(reason=said(error) if isinstance(error, AxeError) else told(error))
    aside = Path(f"{result}.new")
    aside.write_text(json.dumps(probed))
    aside.replace(result)
    # Threads and exit handlers that the import started do not keep us.
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])
