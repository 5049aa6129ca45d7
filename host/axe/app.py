"""App: the Python face of axe. Processors run as threads of the caller's process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import assembly, operations, report
from .config import Config, load
from .errors import ConfigError
from .event import Failure, Rejection, TopicPartition
from .hooks import hookimpl
from .log import get_logger
from .processor import Processor, Status
from .runner import Runner
from .sources import Source
from .store import Store


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


class ProcessorHandle:
    """One processor of an App: its positions and its state."""

    def __init__(self, app: App, processor: Processor) -> None:
        self._app = app
        self._processor = processor

    @property
    def id(self) -> str:
        """The processor's name."""
        return self._processor.name

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it reads."""
        return tuple(self._processor.types)

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to read of each partition; empty before its first start."""
        with self._app.opened(self._processor, create=False) as store:
            return {} if store is None else {at: row.position for at, row in store.positions().items()}

    @property
    def offset(self) -> int:
        """The next offset to read; setting it moves every partition there.

        Raises:
            ConfigError: on reading, where there are several partitions; see ``positions``.
        """
        positions = self.positions
        if len(positions) > 1:
            message = f"{self.id} reads {len(positions)} partitions; use .positions, which has the offset of each"
            raise ConfigError(message)
        return next(iter(positions.values()), 0)

    @offset.setter
    def offset(self, to: int) -> None:
        self.reset(to)

    @property
    def status(self) -> str:
        """What it is doing, in the words of ``axe status``; "stopped" before its first start."""
        with self._app.opened(self._processor, create=False) as store:
            return Status.STOPPED.value if store is None else report.status(store)

    @property
    def last_error(self) -> str | None:
        """The failure that it last stopped, paused or was retried at, until it is resumed or reset."""
        with self._app.opened(self._processor, create=False) as store:
            return None if store is None else store.control().last_error

    @property
    def state(self) -> Mapping[str, Any]:
        """The values as they are committed now, read-only."""
        return _Values(self._app, self._processor)

    def reset(self, to: operations.Target, *, wipe: bool = False) -> None:
        """Move the positions: to an offset, "earliest", "latest", a time, or {TopicPartition: offset}.

        A time is a ``datetime`` or ISO text, UTC where it names no zone; a ``timedelta`` counts back from now.
        ``wipe`` also drops the values and tables. Works while the processor runs and at rest.

        Raises:
            ConfigError: it is no such place, lies outside the log, or leaves out a partition that a wipe concerns.
        """
        _reset(self._app, [self._processor], to, wipe=wipe)


def _reset(
    app: App, processors: Iterable[Processor], to: operations.Target, *, wipe: bool, topic: str | None = None
) -> None:
    """Move processors, in one topic or in all that they read, once it is known where each of them goes."""
    plans = []
    for processor in processors:
        with app.opened(processor, create=False) as store:
            stored = set() if store is None else set(store.positions())
        topics = {*processor.types, *(at.topic for at in stored if wipe)} if topic is None else {topic}
        source = app.source(processor)
        try:
            plans.append((processor, operations.plan(source, stored, sorted(topics), to, wipe=wipe)))
        finally:
            source.close()
    for processor, targets in plans:
        with app.opened(processor, create=True) as store:
            assert store is not None
            operations.reset(store, targets, wipe=wipe)


class _Values(Mapping[str, Any]):
    def __init__(self, app: App, processor: Processor) -> None:
        self._app = app
        self._processor = processor

    def _read(self, key: str | None = None) -> dict[str, Any]:
        with self._app.opened(self._processor, create=False) as store:
            return {} if store is None else store.values(key)

    def __getitem__(self, key: str) -> Any:
        return self._read(key)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


class Processors(Mapping[str, ProcessorHandle]):
    """The processors of an App, by name."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._found: dict[str, Processor] = {}

    def add(
        self,
        *,
        id: str,  # noqa: A002 # the public name of contract and docs
        topic: str | None = None,
        topics: str | Iterable[str] = (),
        handler: Any,
        version: int | None = None,
        settings: dict[str, Any] | None = None,
    ) -> ProcessorHandle:
        """Add a processor: a function, an object with hooks or ``__call__``, a class or a module.

        Its table of the configuration counts as for one that is installed; with ``enabled = false`` it can be
        looked at and reset, and does not run. ``block`` and ``allow`` are about what is installed.
        ``topic`` is a topic or topic/event_type; without ``topic`` and ``topics`` the handler's own count.

        Raises:
            PluginError: the handler is none; says why.
            ConfigError: the name is taken.
        """
        if id in self._found:
            message = f"there is a processor {id} already; choose another id"
            raise ConfigError(message)
        listed = (topics,) if isinstance(topics, str) else tuple(topics)
        subscriptions = (*(() if topic is None else (topic,)), *listed) or None
        self.keep(
            assembly.bind(
                self._app.config,
                id,
                handler,
                topics=subscriptions,
                version=version,
                settings=settings,
                plugins=self._app.plugins,
            )
        )
        return self[id]

    def keep(self, processor: Processor) -> None:
        """Take in a processor that is made already, for the host's use."""
        self._found[processor.name] = processor

    def bound(self) -> list[Processor]:
        """Return the processors themselves, for the host's use."""
        return list(self._found.values())

    def __getitem__(self, name: str) -> ProcessorHandle:
        return ProcessorHandle(self._app, self._found[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class TopicHandle(Mapping[str, ProcessorHandle]):
    """The processors that read one topic."""

    def __init__(self, app: App, topic: str) -> None:
        self._app = app
        self._topic = topic
        self._readers = {one.name: one for one in app.processors.bound() if topic in one.types}

    def reset(self, to: operations.Target, *, wipe: bool = False) -> None:
        """Move every processor of the topic, in this topic alone; see ``ProcessorHandle.reset``.

        Where one of them cannot go there, none is moved.

        Raises:
            ConfigError: as there; also for a wipe of a processor that has read other topics, too.
        """
        _reset(self._app, self._readers.values(), to, wipe=wipe, topic=self._topic)

    def __getitem__(self, name: str) -> ProcessorHandle:
        return ProcessorHandle(self._app, self._readers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


class Topics(Mapping[str, TopicHandle]):
    """The topics that the processors of an App read, by name."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __getitem__(self, topic: str) -> TopicHandle:
        readers = TopicHandle(self._app, topic)
        if not readers:
            raise KeyError(topic)
        return readers

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({topic for processor in self._app.processors.bound() for topic in processor.types}))

    def __len__(self) -> int:
        return len(list(iter(self)))


class App:
    """Runs what was added to it, and with ``discover=True`` what is installed, in threads of this process.

    ``config`` is the path of an ``axe.toml``, a mapping of the same form, or None for the file that
    AXE_CONFIG names or ``axe.toml`` here.

    Raises:
        ConfigError: the configuration is wrong.
    """

    def __init__(self, config: str | Path | Mapping[str, Any] | None = None, *, discover: bool = False) -> None:
        self.config: Config = load(config)
        self._callbacks = _Callbacks()
        self._place = assembly.Places(self.config)
        self.plugins: tuple[tuple[str, Any], ...] = (("axe-app", self._callbacks),)
        self.processors = Processors(self)
        self.topics = Topics(self)
        self._runners: list[Runner] = []
        self._threads: list[threading.Thread] = []
        self._locks = ExitStack()
        self._stop_asked = self._has_ended = False
        if discover:
            self.plugins += tuple(assembly.installed_plugins(self.config))
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
            self._runners = [self._runner(processor, until_end=until_end) for processor in enabled]
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
        places = {id(place): place for place in (self._place.of(one.name) for one in processors)}
        for place in places.values():
            lock = place.host_lock()
            if lock is not None:
                self._locks.callback(lock.close)

    def _runner(self, processor: Processor, *, until_end: bool) -> Runner:
        return Runner(
            processor,
            self._place.store(processor.name),
            self.source(processor),
            self.config,
            until_end=until_end,
            retry_failed=True,
            alone=self._place.of(processor.name).host_is_alone,
        )

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

    def source(self, processor: Processor) -> Source:
        """Open a source of the processor's own."""
        return assembly.source(self.config, processor.name, self._place, processor)
