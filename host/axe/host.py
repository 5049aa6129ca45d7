"""The host: finds processors, starts workers, restarts those that die, and ends in order.

It imports no processor and holds no consumer; ``axe.plugins`` packages with a ``services`` or an
``open_store`` hook are the exception, by design. Which have ``services`` it hears from the workers, which
import them anyway, and of packages that no worker uses from a probe.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import connection
from typing import Any, NamedTuple

import msgspec

from . import assembly
from .config import NAME, Config, did_you_mean, tls_warnings
from .discovery import PLUGINS, Found, FoundStatus, discover, load_plugin
from .errors import AxeError, ConfigError, PluginError
from .hooks import new_plugin_manager, notify, register
from .log import get_logger
from .probe import Probed, ended_process, import_limit_s, no_end, probe
from .process import WorkerProcess, start_fork_server

__all__ = ["Host", "HostResult", "start_fork_server"]

_TICK_S = 0.2
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_DEATHS_UNTIL_END = 10
_KILLS_AT_ONE_IMPORT = 5

Progress = Callable[[list[dict[str, Any]]], None]


class HostResult(msgspec.Struct):
    """How a run ended: a row for each processor, the exit code, and a row for each broken plugin."""

    processors: list[dict[str, Any]]
    exit_code: int
    plugins: list[dict[str, Any]] = []


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
        self._plugin_rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._serving: set[str] = set()
        self._probed: queue.SimpleQueue[tuple[Found, Probed]] = queue.SimpleQueue()
        self._probing: threading.Thread | None = None
        self._groups: list[_Group] = []
        self._choose(list(found.processors), only)
        for one in found.plugins:
            if one.status is FoundStatus.BROKEN:
                self._broken(one, one.reason or "")

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
                self._broken(one, one.reason or "")
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
            HostRunning: another host runs on a state folder of these processors.
        """
        with ExitStack() as locks:
            self._startup(locks)
            try:
                self._main_loop()
            finally:
                self._shutdown()
        if self._again:
            # A new process image sees what was installed since, in the fork server too.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 # our own command line
        rows, plugins = list(self._rows.values()), list(self._plugin_rows.values())
        bad = plugins or any(row["status"] in ("failed", "broken") or row.get("gave_up") for row in rows)
        return HostResult(rows, 1 if bad or self._signals > 1 else 0, plugins)

    def _startup(self, locks: ExitStack) -> None:
        for place in self._places.distinct(name for name in self._rows if NAME.match(name)):
            place.prepare()
            if (lock := place.host_lock()) is not None:
                locks.callback(lock.close)
        for line in tls_warnings(self.config.kafka):
            self._log.warning(line)
        for received in (signal.SIGTERM, signal.SIGINT):
            signal.signal(received, self._signalled)
        signal.signal(signal.SIGHUP, self._hung_up)
        for group in self._groups:
            self._launch(group)
        self._probe_unused()

    def _main_loop(self) -> None:
        while self._signals == 0 and (
            self._probing is not None or any(group.worker is not None or group.restart_at for group in self._groups)
        ):
            self._listen(_TICK_S)
            self._hear_probe()
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
                elif group.worker is not None and group.importing is not None:
                    group.worker.kill()  # which may never hear of the end, and has nothing to finish
                elif group.worker is not None and forced:
                    self._log.warning("worker is killed, its last batch is undone", processors=group.names)
                    group.worker.kill()
        if self._probing is not None:
            self._probing.join()

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
        if message["kind"] in ("importing", "ready", "broken"):
            self._hear_of_import(group, message)
            return
        row = self._row(message["name"])
        match message["kind"]:
            case "status":
                row["status"], row["reason"] = message["status"], message["error"]
            case "progress":
                progress = {key: message[key] for key in ("position", "end", "lag")}
                if group.has_got_on(message["name"], message["events"], message["position"]):
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

    def _hear_of_import(self, group: _Group, message: dict[str, Any]) -> None:
        found: Found = message["found"]
        if message["kind"] == "importing":
            group.importing = _Import(found, time.monotonic())
            return
        group.importing = None
        group.killed_importing.pop(found, None)
        if message["kind"] == "broken":
            self._leave_out(group, found, message["error"])
        elif "services" in message["hooks"]:
            self._serve(found)

    def _tend(self, group: _Group) -> None:
        if group.worker is not None and not group.worker.is_alive():
            self._collect(group)
        elif group.worker is not None and group.importing is not None:
            limit_s = import_limit_s()
            if time.monotonic() - group.importing.since > limit_s:
                group.worker.kill()
                self._collect(group, fault=no_end(limit_s))
        if group.restart_at is not None and time.monotonic() >= group.restart_at:
            self._launch(group)

    def _collect(self, group: _Group, *, fault: str | None = None) -> None:
        """A worker has ended: in order, or is it to be started again? ``fault`` says what its import did."""
        assert group.worker is not None
        self._drain(group)
        code = group.worker.let_go()
        group.worker = None
        group.events.clear()
        group.rejections.clear()
        importing, group.importing = group.importing, None
        if importing is not None and not self._signals and (fault := fault or group.fault_of(importing.found, code)):
            self._leave_out(group, importing.found, fault)
        else:
            fault = None
        left = [found.name for found in group.members if found.name not in group.done]
        if not left or self._signals:
            return
        group.members = [found for found in group.members if found.name not in group.done]
        if fault is not None:
            # Its cause is gone.
            group.restart_at = time.monotonic()
            return
        group.deaths += 1
        if self._until_end and group.deaths >= _DEATHS_UNTIL_END:
            for name in left:
                self._row(name).update(status="failed", reason=f"its worker died {group.deaths} times without progress")
            return
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (group.deaths - 1))
        self._log.error("worker died, starting it again", processors=group.names, code=code, pause_s=pause)
        group.restart_at = time.monotonic() + pause

    # --- rows

    def _row(self, name: str) -> dict[str, Any]:
        if name not in self._rows:
            row = {"name": name, "status": "unassigned", "events": 0, "rejections": 0, "reason": None}
            row |= {"position": None, "end": None, "lag": None}
            row["database"] = None
            # An impossible name never has one, and asking for it could lead anywhere.
            if NAME.match(name):
                with suppress(AxeError):
                    row["database"] = self._places.store(name).location
            self._rows[name] = row
        return self._rows[name]

    def _leave_out(self, group: _Group, found: Found, reason: str) -> None:
        """Run on without a plugin: no worker that is started from now on imports it."""
        self._broken(found, reason)
        if found.group == PLUGINS:
            self._plugins = [plugin for plugin in self._plugins if plugin.name != found.name]
        else:
            group.done.add(found.name)

    def _broken(self, found: Found, reason: str) -> None:
        """Note what is broken, and say it once."""
        if not reason.startswith(str(found)):
            reason = f"{found.distribution} {found.version}: {reason}"
        if found.group == PLUGINS:
            row = {"name": found.name, "distribution": found.distribution, "version": found.version}
            row |= {"status": "broken", "reason": reason}
            if self._plugin_rows.setdefault((found.name, found.distribution), row) is row:
                self._log.error("plugin is broken and left out", plugin=found.name, reason=reason)
            return
        row = self._row(found.name)
        before = row["reason"] if row["status"] == "broken" else None
        if before is None or reason not in before:
            self._log.error("processor is broken and does not run", processor=found.name, reason=reason)
            # Of several distributions that claim the name each has its own.
            row["reason"] = reason if before is None else f"{before}; {reason}"
        row["status"] = "broken"

    # --- services

    def _serve(self, plugin: Found) -> None:
        """Call the ``services`` of a plugin, once; only here and only for it is a plugin imported into the host."""
        if plugin.name in self._serving or self._signals:
            return
        self._serving.add(plugin.name)
        manager = new_plugin_manager()
        try:
            register(manager, load_plugin(plugin, self.config.plugins.get(plugin.name, {}))[0], plugin.name)
        except PluginError as error:
            self._broken(plugin, str(error))
        notify(manager, "services", self._log, host=self)

    def _probe_unused(self) -> None:
        """Learn about packages that no worker imports, while the workers start."""
        names = [found.name for group in self._groups for found in group.members]
        unused = [one for one in self._plugins if not any(assembly.uses(self.config, name, one) for name in names)]
        if not unused:
            return

        def learn() -> None:
            asked = [(PLUGINS, one.name) for one in unused]
            probed = probe(self.config.path, asked, given_up=lambda: self._signals > 0)
            for one in unused:
                if one.name in probed:
                    self._probed.put((one, probed[one.name]))

        self._probing = threading.Thread(target=learn, name="axe probe", daemon=True)
        self._probing.start()

    def _hear_probe(self) -> None:
        if self._probing is None or self._probing.is_alive():
            return
        self._probing = None
        while not self._probed.empty():
            plugin, probed = self._probed.get()
            if probed.reason is not None:
                self._broken(plugin, probed.reason)
            elif "services" in probed.hooks:
                self._serve(plugin)


class _Import(NamedTuple):
    """What a worker imports at the moment, and since when."""

    found: Found
    since: float


class _Group:
    """The processors of one worker process, and the process."""

    def __init__(self, members: list[Found]) -> None:
        self.members = members
        self.worker: WorkerProcess | None = None
        self.restart_at: float | None = None
        self.deaths = 0
        self.importing: _Import | None = None
        self.killed_importing: Counter[Found] = Counter()
        self.done: set[str] = set()
        self.furthest: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self.rejections: dict[str, int] = {}

    @property
    def names(self) -> str:
        return ", ".join(found.name for found in self.members)

    def has_got_on(self, name: str, events: int, position: int | None) -> bool:
        """Tell whether a processor has done something since it was last heard of; not that it has begun again."""
        furthest = self.furthest.get(name)
        if position is not None:
            self.furthest[name] = position if furthest is None else max(position, furthest)
        moved = furthest is not None and position is not None and position > furthest
        return moved or events > self.events.get(name, 0)

    def fault_of(self, imported: Found, code: int | None) -> str | None:
        """Say what an import did to end the worker; None where it may well have been innocent."""
        if code is None or code == -signal.SIGKILL:
            # By a person, a test, or the kernel for want of memory: chance, unless it comes back.
            self.killed_importing[imported] += 1
            if self.killed_importing[imported] < _KILLS_AT_ONE_IMPORT:
                return None
        return ended_process(code)
