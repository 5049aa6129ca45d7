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
from contextlib import ExitStack, suppress
from multiprocessing import connection
from typing import Any

import msgspec

from .config import NAME, Config, did_you_mean, masked_url, tls_warnings
from .discovery import PLUGINS, Found, FoundStatus, discover
from .errors import ConfigError, StoreUnavailable
from .log import get_logger
from .places import Places, PluginPlace, all_built_in
from .plugins import Plugins, unknown_picks, uses
from .probe import Probed, import_limit_s, no_end, probe, seen
from .process import Group, Import, WorkerProcess, start_fork_server
from .rows import Rows
from .services import Services
from .store import Place

__all__ = ["Host", "HostResult", "start_fork_server"]

_TICK_S = 0.2
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_DEATHS_UNTIL_END = 10
_DEATHS_TO_TELL = 2

Progress = Callable[[list[dict[str, Any]]], None]


class HostResult(msgspec.Struct):
    """How a run ended: a row for each processor, the exit code, and a row for each broken plugin."""

    processors: list[dict[str, Any]]
    exit_code: int
    plugins: list[dict[str, Any]] = []


class Host:
    """Runs what is installed, each processor in a worker process of its own unless configured otherwise.

    Raises:
        ConfigError: nothing is installed, ``only`` names what is not, AXE_PROBE_S is no limit, or a topic is
            to be decoded in a way that cannot be.
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
        self._import_limit_s = import_limit_s()
        start_fork_server()
        self._check_topics()

        self._signals, self._again = 0, False
        self._found = found = discover(config)
        self._plugins, self._probed = self._looked_at(found.plugins)
        self._places = Places(config, lambda: self._plugins)
        self._rows = Rows(self._places)
        self._services = Services(self, config, self._rows.broken, given_up=lambda: self._signals > 0)
        self._groups: list[Group] = []
        self._choose(list(found.processors), only)
        for one in found.plugins:
            probed = self._probed.get(one.name)
            if one.status is FoundStatus.BROKEN:
                self._rows.broken(one, one.reason or "")
            elif one.status is FoundStatus.FOUND and probed is not None and probed.reason is not None:
                self._rows.broken(one, probed.reason)

    def _check_topics(self) -> None:
        """Refuse what no worker could decode, before each of them does."""
        if self.config.topics:
            # Not for others: the decoders bring libraries that the host does without.
            from .decode import check_topic

            for topic in self.config.topics:
                check_topic(self.config, topic)

    def _looked_at(self, found: Sequence[Found]) -> tuple[Plugins, dict[str, Probed]]:
        """Tell which packages may be used, and import those aside that may have to open what is not built in.

        An import that ends its process, or does not end, would take the host with it.
        """
        usable = tuple(one for one in found if one.status is FoundStatus.FOUND)
        if all_built_in(self.config):
            return Plugins(usable), {}
        probed = probe(self.config.path, [(PLUGINS, one.name) for one in usable])
        return seen(usable, probed), probed

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
                self._rows.broken(one, one.reason or "")
            else:
                ready.append(one)
                self._rows.of(one.name)
        if not ready and not self._rows.names:
            message = "every installed processor is blocked or disabled: see `axe processors`"
            raise ConfigError(message)
        self._groups = [Group(members) for members in self._shared_out(ready)]

    def _shared_out(self, ready: list[Found]) -> list[list[Found]]:
        workers = self.config.host.workers
        count = len(ready) if workers == "processes" else 1 if workers == "threads" else workers
        return [members for index in range(count) if (members := ready[index::count])]

    # --- life

    def run(self) -> HostResult:
        """Run until a signal, or with ``until_end`` until every processor has ended.

        Raises:
            HostRunning: another host runs on a state folder of these processors.
            ConfigError: nobody knows the source, or a state.
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
        rows, plugins = self._rows.processors, self._rows.plugins
        bad = plugins or any(row["status"] in ("failed", "broken") or row["gave_up"] for row in rows)
        code = 2 if self._rows.misconfigured else 1 if bad or self._signals > 1 else 0
        return HostResult(rows, code, plugins)

    def _startup(self, locks: ExitStack) -> None:
        self._places.openers.require_source()
        for place in self._places.distinct(name for name in self._rows.names if NAME.match(name)):
            self._prepare(place)
            if (lock := place.host_lock()) is not None:
                locks.callback(lock.close)
        for line in (*tls_warnings(self.config.kafka), *unknown_picks(self.config, self._found.plugins)):
            self._log.warning(line)
        for received in (signal.SIGTERM, signal.SIGINT):
            signal.signal(received, self._signalled)
        signal.signal(signal.SIGHUP, self._hung_up)
        for group in self._groups:
            self._launch(group)
        names = [found.name for group in self._groups for found in group.members]
        self._log.info("axe runs", processors=", ".join(names), state=self._states(names), stop="Ctrl-C or SIGTERM")
        unused = [one for one in self._plugins.usable if not any(uses(self.config, name, one) for name in names)]
        self._services.probe(unused, known=self._probed)

    def _states(self, names: Sequence[str]) -> str:
        """Say where the states of these processors lie."""
        urls = dict.fromkeys(self.config.processor(name).state or self.config.state for name in names)
        return ", ".join(map(masked_url, urls))

    def _prepare(self, place: Place | PluginPlace) -> None:
        """Make the place; a server that is away now is for the workers to wait for, each with its own status."""
        try:
            place.prepare()
        except StoreUnavailable as error:
            if place.host_is_alone:
                # A folder is here or it is not.
                raise
            self._log.warning("database cannot be reached, the workers wait for it", reason=str(error))

    def _main_loop(self) -> None:
        while self._signals == 0 and (
            self._services.are_probed or any(group.worker is not None or group.restart_at for group in self._groups)
        ):
            self._listen(_TICK_S)
            self._services.hear()
            for group in self._groups:
                self._tend(group)
            if self._on_progress is not None:
                self._on_progress(self._rows.processors)

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
        self._services.join()

    def _signalled(self, *_: object) -> None:
        self._signals += 1

    def _hung_up(self, *_: object) -> None:
        self._again = True
        self._signals += 1

    # --- workers

    def _launch(self, group: Group) -> None:
        group.worker = WorkerProcess(
            group.members, self._plugins, self.config, until_end=self._until_end, debug=self._debug
        )
        group.restart_at = None

    def _listen(self, timeout_s: float) -> None:
        workers = [group.worker for group in self._groups if group.worker is not None]
        connection.wait([sign for worker in workers for sign in worker.signs], timeout=timeout_s)
        for group in self._groups:
            self._drain(group)

    def _drain(self, group: Group) -> None:
        if group.worker is not None:
            for message in group.worker.heard():
                self._hear(group, message)

    def _hear(self, group: Group, message: dict[str, Any]) -> None:
        if message["kind"] in ("importing", "ready", "broken"):
            self._hear_of_import(group, message)
            return
        row = self._rows.of(message["name"])
        match message["kind"]:
            case "misconfigured":
                self._rows.cannot_start(message["name"], message["error"])
                group.done.add(message["name"])
            case "status":
                row["status"], row["reason"] = message["status"], message["error"]
            case "progress":
                group.note_progress(row, message)
            case "ended":
                row["status"], row["reason"] = message["status"], message["error"]
                row["gave_up"] = not message["succeeded"] and self._signals == 0
                row["stages"] = message["stages"]
                group.done.add(message["name"])

    def _hear_of_import(self, group: Group, message: dict[str, Any]) -> None:
        found: Found = message["found"]
        if message["kind"] == "importing":
            group.importing = Import(found, time.monotonic())
            return
        group.importing = None
        group.killed_importing.pop(found, None)
        if message["kind"] == "broken":
            self._leave_out(group, found, message["error"])
        elif "services" in message["hooks"]:
            self._services.start(found)

    def _tend(self, group: Group) -> None:
        worker, importing, limit_s = group.worker, group.importing, self._import_limit_s
        if worker is not None and not worker.is_alive():
            self._collect(group)
        elif worker is not None and importing is not None and time.monotonic() - importing.since > limit_s:
            worker.kill()
            self._collect(group, fault=no_end(limit_s))
        if group.restart_at is not None and time.monotonic() >= group.restart_at:
            self._launch(group)

    def _collect(self, group: Group, *, fault: str | None = None) -> None:
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
        if self._give_up_or_note(group, left, code):
            return
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (group.deaths - 1))
        self._log.error("worker died, starting it again", processors=group.names, code=code, pause_s=pause)
        group.restart_at = time.monotonic() + pause

    def _give_up_or_note(self, group: Group, left: list[str], code: int | None) -> bool:
        """Leave word of a worker that dies again and again, which cannot do so itself; return whether it was the last.

        The first death may be chance: a person, a test, or the kernel for want of memory.
        """
        gives_up = self._until_end and group.deaths >= _DEATHS_UNTIL_END
        if group.deaths < _DEATHS_TO_TELL:
            return False
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        reason = f"its worker died {group.deaths} times{how} without progress"
        for name in left:
            status = "failed" if gives_up else "retrying"
            self._rows.of(name).update(status=status, reason=reason, gave_up=gives_up)
            # Whatever is wrong with the database, the next worker tells it better.
            with suppress(Exception), self._places.opened(name, create=False) as store:
                if store is not None:
                    store.set_status(status, reason, unless_directed=True)
        return gives_up

    def _leave_out(self, group: Group, found: Found, reason: str) -> None:
        """Run on without a plugin: no worker that is started from now on imports it."""
        self._rows.broken(found, reason)
        if found.group == PLUGINS:
            self._plugins = self._plugins.without(found.name)
        else:
            group.done.add(found.name)
