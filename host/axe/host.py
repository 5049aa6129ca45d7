"""The host: finds processors, starts workers, restarts those that die, and ends in order.

It imports no processor and holds no consumer; ``axe.plugins`` packages with a ``services`` or an
``open_store`` hook are the exception, by design.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

import msgspec

from . import assembly
from .config import Config, did_you_mean, tls_warnings
from .discovery import Found, FoundStatus, discover
from .errors import AxeError, ConfigError
from .log import get_logger
from .process import WorkerProcess, start_fork_server

__all__ = ["Host", "HostResult", "start_fork_server"]

_TICK_S = 0.2
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_DEATHS_UNTIL_END = 10

Progress = Callable[[list[dict[str, Any]]], None]


class HostResult(msgspec.Struct):
    """How a run ended: a row for each processor, and the exit code."""

    processors: list[dict[str, Any]]
    exit_code: int


class Host:
    """Runs what is installed, each processor in a worker process of its own unless configured otherwise.

    Raises:
        ConfigError: nothing is installed, or ``only`` names what is not.
    """

    def __init__(
        self,
        config: Config,
        *,
        only: Sequence[str] | None = None,
        until_end: bool = False,
        on_progress: Progress | None = None,
        debug: bool = False,
    ) -> None:
        self.config = config
        self._until_end = until_end
        self._debug = debug
        self._on_progress = on_progress
        self._log = get_logger()
        start_fork_server()

        self._places = assembly.Places(config)
        self._signals = 0
        self._again = False
        found = discover(config)
        self._plugins = [one for one in found.plugins if one.status is FoundStatus.FOUND]
        self._rows: dict[str, dict[str, Any]] = {}
        self._groups: list[_Group] = []
        self._choose(list(found.processors), only)
        for one in found.plugins:
            if one.status is FoundStatus.BROKEN:
                self._log.error("plugin is broken", plugin=one.name, reason=one.reason)

    def _choose(self, found: list[Found], only: Sequence[str] | None) -> None:
        if not found:
            message = (
                "no processor is installed: pip install a package with an entry point under axe.processors "
                "into the environment of axe"
            )
            raise ConfigError(message)
        names = [one.name for one in found]
        for name in only or ():
            if name not in names:
                advice = did_you_mean(name, names, f"installed are {', '.join(sorted(set(names)))}")
                message = f"no processor {name} is installed; {advice}"
                raise ConfigError(message)
        ready = []
        for one in found:
            if (only and one.name not in only) or one.status is FoundStatus.BLOCKED:
                continue
            if one.status is FoundStatus.BROKEN:
                self._broken(one.name, f"{one.distribution} {one.version}: {one.reason}")
            else:
                ready.append(one)
                self._row(one.name)
        if not ready and not self._rows:
            message = "every installed processor is blocked or disabled: see `axe processors`"
            raise ConfigError(message)
        self._groups = [_Group(members) for members in self._shared_out(ready)]

    def _shared_out(self, ready: list[Found]) -> list[list[Found]]:
        workers = self.config.host.workers
        count = len(ready) if workers == "processes" else 1 if workers == "threads" else workers
        return [members for index in range(count) if (members := ready[index::count])]

    # --- life

    def run(self) -> HostResult:
        """Run until a signal, or with ``until_end`` until every processor has ended.

        Raises:
            HostRunning: another host runs on this state folder.
        """
        lock = self._startup()
        try:
            self._main_loop()
        finally:
            self._shutdown()
            if lock is not None:
                lock.close()
        if self._again:
            # A new process image sees what was installed since, in the fork server too.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 # our own command line
        bad = any(row["status"] in ("failed", "broken") or row.get("gave_up") for row in self._rows.values())
        return HostResult(list(self._rows.values()), 1 if bad or self._signals > 1 else 0)

    def _startup(self) -> Any:
        place = self._places.of()
        place.prepare()
        lock = place.host_lock()
        for line in tls_warnings(self.config.kafka):
            self._log.warning(line)
        for received in (signal.SIGTERM, signal.SIGINT):
            signal.signal(received, self._signalled)
        signal.signal(signal.SIGHUP, self._hung_up)
        for group in self._groups:
            self._launch(group)
        self._start_services()
        return lock

    def _start_services(self) -> None:

        for name, plugin in assembly.load_plugins(self.config, self._plugins, ""):
            services = getattr(plugin, "services", None)
            if services is not None:
                try:
                    services(self)
                except Exception:  # noqa: BLE001 # the plugin boundary
                    self._log.error("service failed to start", plugin=name, exc_info=True)

    def _main_loop(self) -> None:
        while self._signals == 0 and any(group.worker is not None or group.restart_at for group in self._groups):
            self._listen(_TICK_S)
            for group in self._groups:
                self._tend(group)
            if self._on_progress is not None:
                self._on_progress(list(self._rows.values()))

    def _shutdown(self) -> None:
        deadline = time.monotonic() + self.config.host.shutdown_s
        for group in self._groups:
            group.restart_at = None
            if group.worker is not None:
                group.worker.tell_to_stop()
        while any(group.worker is not None for group in self._groups):
            self._listen(_TICK_S / 2)
            forced = self._signals > 1 or time.monotonic() > deadline
            for group in self._groups:
                if group.worker is not None and not group.worker.is_alive():
                    self._collect(group)
                elif group.worker is not None and forced:
                    self._log.warning("worker is killed, its last batch is undone", processors=group.names)
                    group.worker.kill()

    def _signalled(self, *_: object) -> None:
        self._signals += 1

    def _hung_up(self, *_: object) -> None:
        self._again = True
        self._signals += 1

    # --- workers

    def _launch(self, group: _Group) -> None:
        group.worker = WorkerProcess(
            group.members, self._plugins, self.config, until_end=self._until_end, debug=self._debug
        )
        group.restart_at = None

    def _listen(self, timeout_s: float) -> None:
        workers = [group.worker for group in self._groups if group.worker is not None]
        connection.wait([sign for worker in workers for sign in worker.signs], timeout=timeout_s)
        for group in self._groups:
            self._drain(group)

    def _drain(self, group: _Group) -> None:
        if group.worker is not None:
            for message in group.worker.heard():
                self._hear(group, message)

    def _hear(self, group: _Group, message: dict[str, Any]) -> None:
        row = self._row(message["name"])
        match message["kind"]:
            case "broken":
                self._broken(message["name"], message["error"])
                group.done.add(message["name"])
            case "status":
                row["status"], row["reason"] = message["status"], message["error"]
            case "progress":
                progress = {key: message[key] for key in ("position", "end", "lag")}
                if message["events"] > group.events.get(message["name"], 0):
                    group.deaths = 0
                before = row["events"] - group.events.get(message["name"], 0)
                refused = row["rejections"] - group.rejections.get(message["name"], 0)
                group.events[message["name"]] = message["events"]
                group.rejections[message["name"]] = message["rejections"]
                row.update(progress, events=before + message["events"], rejections=refused + message["rejections"])
            case "ended":
                row["status"], row["reason"] = message["status"], message["error"]
                row["gave_up"] = not message["succeeded"] and self._signals == 0
                group.done.add(message["name"])

    def _tend(self, group: _Group) -> None:
        if group.worker is not None and not group.worker.is_alive():
            self._collect(group)
        if group.restart_at is not None and time.monotonic() >= group.restart_at:
            self._launch(group)

    def _collect(self, group: _Group) -> None:
        """A worker has ended: in order, or is it to be started again?"""
        assert group.worker is not None
        self._drain(group)
        code = group.worker.let_go()
        group.worker = None
        group.events.clear()
        group.rejections.clear()
        left = [found.name for found in group.members if found.name not in group.done]
        if not left or self._signals:
            return
        group.deaths += 1
        if self._until_end and group.deaths >= _DEATHS_UNTIL_END:
            for name in left:
                self._row(name).update(status="failed", reason=f"its worker died {group.deaths} times without progress")
            return
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (group.deaths - 1))
        self._log.error("worker died, starting it again", processors=group.names, code=code, pause_s=pause)
        group.members = [found for found in group.members if found.name not in group.done]
        group.restart_at = time.monotonic() + pause

    # --- rows

    def _row(self, name: str) -> dict[str, Any]:
        if name not in self._rows:
            row = {"name": name, "status": "unassigned", "events": 0, "rejections": 0, "reason": None}
            row |= {"position": None, "end": None, "lag": None}
            try:
                row["database"] = self._places.store(name).location
            except AxeError:
                row["database"] = None
            self._rows[name] = row
        return self._rows[name]

    def _broken(self, name: str, reason: str) -> None:
        row = self._row(name)
        if row["status"] != "broken":
            self._log.error("processor is broken and does not run", processor=name, reason=reason)
        row["status"], row["reason"] = "broken", reason


class _Group:
    """The processors of one worker process, and the process."""

    def __init__(self, members: list[Found]) -> None:
        self.members = members
        self.worker: WorkerProcess | None = None
        self.restart_at: float | None = None
        self.deaths = 0
        self.done: set[str] = set()
        self.events: dict[str, int] = {}
        self.rejections: dict[str, int] = {}

    @property
    def names(self) -> str:
        return ", ".join(found.name for found in self.members)
