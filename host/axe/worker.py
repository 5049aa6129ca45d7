"""A worker process: the runners of its processors in threads, its limits, and its line to the host."""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, TypeVar

import setproctitle

from . import assembly, log
from .config import Config
from .discovery import Found, load, load_plugin
from .errors import AxeError, ConfigError
from .parts import Parts
from .places import Places
from .plugins import Plugins, uses
from .processor import Processor, Status
from .runner import Runner
from .telling import runs_at, stack_at

T = TypeVar("T")

_TICK_S = 0.2
# When nothing has moved for a while: ten idle workers save 0.4 % of a core by it. Not at once: the host hears
# of progress with a tick, and takes a worker that dies before it for one that gets nowhere.
_QUIET_TICK_S = 1.0
_QUIET_AFTER_S = 5.0
# Until the first commits of a start: one that is killed soon after them got somewhere, and starts again at once.
_FIRST_TICK_S = 0.02
_FIRST_AFTER_S = 5.0
_ORPHAN_S = 1.0
STUCK_EXIT_CODE = 70


def work(
    processors: list[Found],
    plugins: Plugins,
    config: Config,
    line: connection.Connection,
    *,
    until_end: bool,
    debug: bool,
) -> None:
    """Run these processors until the host says stop, is gone, or all of them have ended."""
    log.configure(config.log, debug=debug, secrets=config.secrets)
    _Worker(processors, plugins, config, line, until_end=until_end, debug=debug).run()


class _Worker:
    def __init__(
        self,
        processors: list[Found],
        plugins: Plugins,
        config: Config,
        line: connection.Connection,
        *,
        until_end: bool,
        debug: bool = False,
    ) -> None:
        self._config = config
        self._debug = debug
        self._until_end = until_end
        # Connections take one writer at a time, and runners speak from their threads.
        self._line = line
        self._speaking = threading.Lock()
        self._places = Places(config, lambda: plugins)
        self._runners: dict[str, Runner] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = False
        # Wakes the main loop: with the name of a runner that has ended, with None when one begins to run.
        self._woken, self._wakes = multiprocessing.Pipe(duplex=False)
        self._waking = threading.Lock()
        self._told: dict[str, dict[str, Any]] = {}
        # What each runner was at, and since when.
        self._seen_at: dict[str, tuple[object, float]] = {}
        self._neighbours = assembly.Neighbours(len(processors))
        self._found = processors
        self._plugins = plugins

    def run(self) -> None:
        """Startup, main loop, end."""
        setproctitle.setproctitle(f"axe [{', '.join(found.name for found in self._found)}]")
        # Ctrl-C reaches the whole group; the host hears it, too, and tells us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        # The fork server lives with both blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        self._limit_memory()
        # Before any import: one that does not end must not outlive the host.
        threading.Thread(target=self._end_with_host, name="axe host", daemon=True).start()
        # All imports before the first runner: what one of them does to this process interrupts nobody's work.
        for processor in [self._bind(found) for found in self._found]:
            if processor is not None:
                self._start(processor)
        self._watch()

    def _limit_memory(self) -> None:
        limits = [self._config.processor(found.name).memory_mb for found in self._found]
        if len(limits) == 1 and limits[0] is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limits[0] * 2**20, limits[0] * 2**20))

    def _bind(self, found: Found) -> Processor | None:
        plugins = []
        for plugin in self._plugins.usable:
            if uses(self._config, found.name, plugin):
                settings = self._config.plugins.get(plugin.name, {})
                made = self._imported(plugin, functools.partial(load_plugin, plugin, settings))
                plugins += [] if made is None else [(plugin.name, made)]
        return self._imported(
            found, lambda: (assembly.bind(self._config, found.name, load(found), plugins=plugins), ())
        )

    def _imported(self, found: Found, make: Callable[[], tuple[T, tuple[str, ...]]]) -> T | None:
        """Import a plugin between two words to the host, which ends this process when the second one does not come."""
        self._tell("importing", found.name, found=found)
        try:
            made, hooks = make()
        except AxeError as error:
            self._tell("broken", found.name, found=found, error=str(error))
        except KeyboardInterrupt:
            # The plugin's own: Ctrl-C does not reach this process.
            self._tell("broken", found.name, found=found, error=f"{found} cannot be imported: KeyboardInterrupt")
        else:
            self._tell("ready", found.name, found=found, hooks=hooks)
            return made
        return None

    def _start(self, processor: Processor) -> None:
        name, source = processor.name, None
        try:
            place, store = self._places.of(name), self._places.store(name)
            source = assembly.source(self._config, name, self._places, processor, self._neighbours)
            parts = Parts(
                processor,
                store,
                source,
                self._config,
                alone=place.host_is_alone,
                turn=self._neighbours.turn(),
                on_status=functools.partial(self._on_status, name),
            )
        except AxeError as error:
            if source is not None:
                source.close()
            [found] = [found for found in self._found if found.name == name]
            # Whose fault it is: the reason must not be taken for the plugin's.
            kind = "misconfigured" if isinstance(error, ConfigError) else "broken"
            self._tell(kind, name, found=found, error=str(error))
            return
        self._runners[name] = runner = Runner(parts, until_end=self._until_end)
        if self._stopping:
            runner.stop()
        thread = threading.Thread(target=self._run, args=(name,), name=f"axe {name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _run(self, name: str) -> None:
        try:
            self._runners[name].run()
        finally:
            self._wake(name)

    def _on_status(self, name: str, status: Status, error: str | None) -> None:
        self._tell("status", name, status=status.value, error=error)
        if status is Status.RUNNING:
            self._wake(None)

    def _wake(self, ended: str | None) -> None:
        with self._waking:
            self._wakes.send(ended)

    def _watch(self) -> None:
        """Listen to the host and tell it how far we are, until everything has ended."""
        listened = [self._line, self._woken]
        left = set(self._runners)
        moved_at, running_at = time.monotonic(), float("-inf")
        while left:
            ready = connection.wait(listened, timeout=self._pause_s(moved_at, running_at))
            if self._line in ready:
                # Either a word of the host, and there is only one, or its end, which is seen to elsewhere.
                self._stop()
                if not self._heard():
                    listened.remove(self._line)
            if self._woken in ready:
                ended = self._woken.recv()
                left.discard(ended)
                running_at = time.monotonic() if ended is None else running_at
            for name, runner in self._runners.items():
                if self._progress(name, runner) or runner.handling is not None:
                    moved_at = time.monotonic()
                self._end_if_stuck(name, runner)
        for name, runner in self._runners.items():
            self._progress(name, runner)
            how = {"status": runner.status.value, "error": runner.error, "succeeded": runner.succeeded}
            self._tell("ended", name, **how, stages=runner.stages)

    def _pause_s(self, moved_at: float, running_at: float) -> float:
        now = time.monotonic()
        if now - running_at < _FIRST_AFTER_S and any(runner.events == 0 for runner in self._runners.values()):
            return _FIRST_TICK_S
        return _QUIET_TICK_S if now - moved_at > _QUIET_AFTER_S else _TICK_S

    def _heard(self) -> bool:
        try:
            self._line.recv()
        except (EOFError, OSError):
            return False
        return True

    def _stop(self) -> None:
        self._stopping = True
        for runner in list(self._runners.values()):
            runner.stop()

    def _end_with_host(self) -> None:
        """Wait for the end of the host, and end this process soon after it, whatever its code is doing."""
        parent = multiprocessing.parent_process()
        if parent is None:
            return
        connection.wait([parent.sentinel])
        self._stop()
        deadline = time.monotonic() + _ORPHAN_S
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        # Whatever is under way is undone; a successor may be at work already.
        os._exit(1)

    def _progress(self, name: str, runner: Runner) -> bool:
        """Tell the host how far a processor is; return whether there was something to tell."""
        positions, ends = runner.positions, runner.ends
        progress = {
            "events": runner.events,
            "rejections": runner.rejections,
            "position": sum(positions.values()) if positions else None,
            "end": sum(ends.values()) if ends else None,
            "lag": sum(max(0, end - positions.get(at, 0)) for at, end in ends.items()) if ends else None,
        }
        if self._told.get(name) == progress:
            # An idle worker wakes nobody.
            return False
        self._told[name] = progress
        self._tell("progress", name, **progress)
        return True

    def _end_if_stuck(self, name: str, runner: Runner) -> None:
        handling, pulse, now = runner.handling, runner.pulse, time.monotonic()
        is_at = pulse if handling is None else handling
        before, since = self._seen_at.get(name, (None, now))
        settings, host = self._config.processor(name), self._config.host
        if is_at is None or is_at != before:
            self._seen_at[name] = (is_at, now)
        elif now - since > (host.stuck_s if handling is None else settings.handler_timeout_s):
            positions = ", ".join(f"{at}@{position}" for at, position in sorted(runner.positions.items()))
            frame = sys._current_frames().get(self._threads[name].ident or 0)  # noqa: SLF001 # its public name
            limit = {"stuck_s": host.stuck_s} if handling is None else {"handler_timeout_s": settings.handler_timeout_s}
            log.get_logger(processor=name).error(
                f"{'loop is stuck' if handling is None else 'handler takes too long'}, worker ends itself",
                **limit,
                at_or_behind=positions,
                where=None if frame is None else runs_at(frame),
                calls=None if frame is None else stack_at(frame),
            )
            if self._debug:
                faulthandler.dump_traceback(sys.stderr)
            os._exit(STUCK_EXIT_CODE)

    def _tell(self, kind: str, name: str, **content: Any) -> None:
        try:
            with self._speaking:
                self._line.send({"kind": kind, "name": name, **content})
        except OSError:
            # The host is gone; the main loop sees it by the sentinel.
            return
