"""The handles of an App: its processors and topics, as the caller's code asks for them and moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from . import assembly, operations, report
from .errors import ConfigError
from .event import TopicPartition
from .processor import Processor, Status
from .store import Letters, Store
from .targets import Target, plan

if TYPE_CHECKING:
    from .app import App


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

    def reset(self, to: Target, *, wipe: bool = False) -> None:
        """Move the positions: to an offset, "earliest", "latest", a time, or {TopicPartition: offset}.

        A time is a ``datetime`` or ISO text, UTC where it names no zone; a ``timedelta`` counts back from now.
        ``wipe`` also drops the values and tables. Works while the processor runs and at rest.

        Raises:
            ConfigError: it is no such place, lies outside the log, or leaves out a partition that a wipe concerns.
        """
        _reset(self._app, [self._processor], to, wipe=wipe)

    def retry(self, *ids: int, reason: str | None = None, topic: str | None = None) -> list[int]:
        """Have events that were refused handled again, before the next batch; return the ids of their dead letters.

        Those with these ids, or all that were rejected for this reason (the whole text) and in this topic. Works
        while the processor runs and at rest.

        Raises:
            AxeError: one of the ids cannot be retried; nothing is changed.
        """
        in_order = self._app.config.processor(self._processor.name).order == "key"
        return self._on_letters(partial(operations.retry, in_order=in_order), ids, reason, topic)

    def discard(self, *ids: int, reason: str | None = None, topic: str | None = None) -> list[int]:
        """Do without events that were refused; otherwise like ``retry``."""
        return self._on_letters(operations.discard, ids, reason, topic)

    def _on_letters(
        self,
        operation: Callable[[Store, Letters], list[int]],
        ids: tuple[int, ...],
        reason: str | None,
        topic: str | None,
    ) -> list[int]:
        with self._app.opened(self._processor, create=False) as store:
            return [] if store is None else operation(store, Letters(ids=ids or None, reason=reason, topic=topic))


def _reset(app: App, processors: Iterable[Processor], to: Target, *, wipe: bool, topic: str | None = None) -> None:
    """Move processors, in one topic or in all that they read, once it is known where each of them goes."""
    plans = []
    for processor in processors:
        with app.opened(processor, create=False) as store:
            stored = set() if store is None else set(store.positions())
        topics = {*processor.types, *(at.topic for at in stored if wipe)} if topic is None else {topic}
        source = app.source(processor)
        try:
            plans.append((processor, plan(source, stored, sorted(topics), to, wipe=wipe)))
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

    def reset(self, to: Target, *, wipe: bool = False) -> None:
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
