"""The host: finds processors, puts the parts together, runs them until a signal, and ends in order.

It imports no processor and holds no consumer; ``axe.plugins`` packages with a ``services`` or an
``open_store`` hook are the exception, by design.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from .config import NAME, Config, did_you_mean, masked_url, tls_warnings
from .discovery import PLUGINS, Found, FoundStatus, discover
from .errors import ConfigError, StoreUnavailable
from .fork_server import start_fork_server
from .log import get_logger
from .places import Places, PluginPlace, all_built_in
from .plugins import Plugins, unknown_picks, uses
from .probe import Probed, probe, seen
from .process import WorkerProcess
from .rows import Rows
from .services import Services
from .store import Place
from .supervision import Group, Supervisor

_TICK_S = 0.2
# Words of workers, their ends and signals are heard at once in any case.
_QUIET_TICK_S = 1.0

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
        start_fork_server()
        self._check_topics()

        self._signals, self._again = 0, False
        # Waiting begins anew after a signal: what ends it is something to read.
        self._signalled_at, self._signals_to = multiprocessing.Pipe(duplex=False)
        self._found = found = discover(config)
        self._plugins, self._probed = self._looked_at(found.plugins)
        self._places = Places(config, lambda: self._plugins)
        self._rows = Rows(self._places)
        self._services = Services(self, config, self._rows.broken, given_up=lambda: self._signals > 0)
        ready = self._chosen(list(found.processors), only)
        self._names = [one.name for one in ready]
        self._supervisor = Supervisor(
            [Group(members) for members in self._shared_out(ready)],
            rows=self._rows,
            places=self._places,
            services=self._services,
            launch=self._launch,
            leave_out=self._leave_out,
            is_ending=lambda: self._signals > 0,
            until_end=until_end,
        )
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

    def _chosen(self, found: list[Found], only: Sequence[str] | None) -> list[Found]:
        """Return what is to run, with a row for each; what is broken has only that."""
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
        return ready

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
        self._supervisor.start()
        names = self._names
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
        while self._signals == 0 and (self._services.are_probed or self._supervisor.is_busy):
            hurried = self._on_progress is not None or self._services.are_probed or self._supervisor.is_unsettled
            self._supervisor.tend(_TICK_S if hurried else _QUIET_TICK_S, wake=self._signalled_at)
            self._services.hear()
            if self._on_progress is not None:
                self._on_progress(self._rows.processors)

    def _shutdown(self) -> None:
        deadline = time.monotonic() + self.config.host.shutdown_s
        self._supervisor.stop(is_forced=lambda: self._signals > 1 or time.monotonic() > deadline, tick_s=_TICK_S / 2)
        self._services.join()

    def _signalled(self, *_: object) -> None:
        self._signals += 1
        self._signals_to.send_bytes(b"!")

    def _hung_up(self, *_: object) -> None:
        self._again = True
        self._signalled()

    # --- workers

    def _launch(self, members: Sequence[Found]) -> WorkerProcess:
        return WorkerProcess(members, self._plugins, self.config, until_end=self._until_end, debug=self._debug)

    def _leave_out(self, found: Found, reason: str) -> None:
        self._rows.broken(found, reason)
        if found.group == PLUGINS:
            self._plugins = self._plugins.without(found.name)
