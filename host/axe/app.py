"""App: the Python face of axe. Processors run as threads of the caller's process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import assembly
from .config import Config, load
from .errors import ConfigError
from .event import Failure, Rejection
from .handles import Processors, Topics
from .hooks import hookimpl
from .log import get_logger
from .parts import Parts
from .places import Places
from .plugins import installed_plugins
from .processor import Processor
from .runner import Runner
from .sources import Source
from .store import Store
from .telling import keep_secret


class _Callbacks:
    """The callbacks of an App, as a plugin of each of its processors."""

    def __init__(self) -> None:
        self.failures: list[Callable[[Failure], object]] = []
        self.rejections: list[Callable[[Rejection], object]] = []

    @hookimpl
    def on_error(self, failure: Failure) -> None:
        for callback in self.failures:
            callback(failure)

    @hookimpl
    def on_reject(self, rejection: Rejection) -> None:
        for callback in self.rejections:
            callback(rejection)


class App:
    """Runs what was added to it, and with ``discover=True`` what is installed, in threads of this process.

    ``config`` is the path of an ``axe.toml``, a mapping of the same form, or None for the file that
    AXE_CONFIG names or ``axe.toml`` here.

    Raises:
        ConfigError: the configuration is wrong.
    """

    def __init__(self, config: str | Path | Mapping[str, Any] | None = None, *, discover: bool = False) -> None:
        self.config: Config = load(config)
        keep_secret(self.config.secrets)
        self._callbacks = _Callbacks()
        self._place = Places(self.config)
        self.plugins: tuple[tuple[str, Any], ...] = (("axe-app", self._callbacks),)
        self.processors = Processors(self)
        self.topics = Topics(self)
        self._runners: list[Runner] = []
        self._threads: list[threading.Thread] = []
        self._locks = ExitStack()
        self._stop_asked = self._has_ended = False
        if discover:
            self.plugins += tuple(installed_plugins(self.config))
            for processor in assembly.installed(self.config, self.plugins):
                self.processors.keep(processor)

    def on_error(self, callback: Callable[[Failure], object]) -> Callable[[Failure], object]:
        """Call back with each failure; usable as a decorator."""
        self._callbacks.failures.append(callback)
        return callback

    def on_reject(self, callback: Callable[[Rejection], object]) -> Callable[[Rejection], object]:
        """Call back with each rejection, after its dead letter is committed; usable as a decorator."""
        self._callbacks.rejections.append(callback)
        return callback

    def start(self, *, until_end: bool = False) -> None:
        """Run until ``stop()`` or SIGTERM, or with ``until_end`` until what is there now has been read.

        A processor that failed when it last ran is tried again: the handler is in your hands here.

        Raises:
            ConfigError: nothing was added, or a setting cannot be used.
            HostRunning: another host, or App, runs on the same state folder.
        """
        previous: Any = None
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            previous = signal.signal(signal.SIGTERM, lambda *_: self.stop())
        try:
            self._launch(until_end=until_end)
            try:
                self._wait()
            except KeyboardInterrupt:
                self.stop()
                raise
            finally:
                self._end()
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, previous)

    def stop(self) -> None:
        """Ask for an orderly end; batches at hand are finished. Usable from any thread.

        Before the first ``start`` it makes that end at once: another thread may be about to call it. After an
        end it does nothing.
        """
        self._stop_asked = not self._has_ended
        for runner in self._runners:
            runner.stop()

    def __enter__(self) -> Self:
        """Run in the background."""
        self._launch(until_end=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and wait for the end."""
        self.stop()
        self._end()

    def _launch(self, *, until_end: bool) -> None:
        self._has_ended = False
        if self._threads:
            message = "this App runs already"
            raise ConfigError(message)
        if not self.processors:
            message = "nothing to run: add a processor with app.processors.add(id=…, topic=…, handler=…)"
            raise ConfigError(message)
        enabled = [one for one in self.processors.bound() if self.config.processor(one.name).enabled]
        if not enabled:
            message = f"nothing to run: `enabled = false` in the table of {', '.join(self.processors)}"
            raise ConfigError(message)
        for name in set(self.processors) - {one.name for one in enabled}:
            get_logger().info("processor is disabled", processor=name)
        try:
            self._lock(enabled)
            self._runners = self._made(enabled, until_end=until_end)
        except BaseException:
            self._end()
            raise
        self._threads = [
            threading.Thread(target=runner.run, name=f"axe {runner.processor.name}", daemon=True)
            for runner in self._runners
        ]
        for thread in self._threads:
            thread.start()
        if self._stop_asked:
            # It came when there was nobody to be told.
            self.stop()

    def _lock(self, processors: Iterable[Processor]) -> None:
        """Say that a host runs at each place: beside ``axe run`` both would take the positions over in turns."""
        for place in self._place.distinct(one.name for one in processors):
            lock = place.host_lock()
            if lock is not None:
                self._locks.callback(lock.close)

    def _made(self, processors: Collection[Processor], *, until_end: bool) -> list[Runner]:
        """Make the runners, all of them or none: sources that nobody would read are closed again."""
        with ExitStack() as opened:
            runners, neighbours = [], assembly.Neighbours(len(processors))
            for processor in processors:
                source = self.source(processor, neighbours)
                opened.callback(source.close)
                parts = Parts(
                    processor,
                    self._place.store(processor.name),
                    source,
                    self.config,
                    alone=self._place.of(processor.name).host_is_alone,
                    turn=neighbours.turn(),
                )
                runners.append(Runner(parts, until_end=until_end, retry_failed=True))
            # From here on each runner closes its own.
            opened.pop_all()
        return runners

    def _wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        """Wait for the runners, and let others run here."""
        self._wait()
        self._runners, self._threads = [], []
        self._locks.close()
        self._stop_asked, self._has_ended = False, True

    # --- for the handles

    def opened(self, processor: Processor, *, create: bool) -> AbstractContextManager[Store | None]:
        """Open a processor's store for a ``with`` block; see ``Places.opened``."""
        return self._place.opened(processor.name, create=create, version=processor.version)

    def source(self, processor: Processor, neighbours: assembly.Neighbours | None = None) -> Source:
        """Open a source for the processor; without ``neighbours`` it reads for itself."""
        return assembly.source(self.config, processor.name, self._place, processor, neighbours)
