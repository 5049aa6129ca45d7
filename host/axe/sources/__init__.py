"""Where records come from: the protocol, and the source that a URL names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..config import kind_of_url
from ..errors import ConfigError
from ..event import Form, TopicPartition

BUILT_IN = ("kafka", "file", "memory")
"""The schemes that ``open_source`` knows: no plugin need be imported for them."""

_LAST_PORT = 65535


class Bounds(NamedTuple):
    """The offsets that a partition's log spans: ``begin`` is its first, ``end`` one past its last.

    On Kafka ``end`` is the last stable offset: what a reader of committed records can reach.
    """

    begin: int
    end: int


class Fetched(NamedTuple):
    """What one fetch brought.

    ``records`` are in order within each partition, in the form of the source: ``source.form.record``
    makes a ``Record`` of one. ``reached`` names the partitions whose end
    was reached, with the position there: it may lie past the last record, where the log ends
    in control records or in a gap that compaction left.
    """

    records: list[Any]
    reached: Mapping[TopicPartition, int]


class Outgoing(NamedTuple):
    """A dead letter on its way to a topic, by its number."""

    number: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Report(NamedTuple):
    """What became of a dead letter that was sent: nothing is wrong, or this."""

    number: int
    problem: str | None = None
    is_its_own: bool = False
    """Whether the topic does not take this letter, or one that went with it, and would take others."""


class LetterTopic(Protocol):
    """A topic that dead letters are produced to. Used from one thread; nothing here waits unless it says so."""

    def send(self, letters: Iterable[Outgoing]) -> None:
        """Send letters in this order, in the background; each gets a report, whatever becomes of it."""

    def reports(self, timeout_s: float = 0) -> list[Report]:
        """Tell what became of letters since the last call; wait for the first so long at most."""

    def close(self) -> None:
        """Let go of everything, and of what is under way; the next ``send`` begins anew."""


class Interrupted(Exception):
    """Nothing is wrong, but reading cannot go on as it was: assign again."""


class Source(Protocol):
    """One reader of a log. Used from one thread; it keeps no position that outlives it.

    Every method may raise SourceUnavailable, which means: wait and try again. What was assigned is let go of by that.
    """

    form: Form
    """How to read what ``fetch`` returns; ``RECORD_FORM`` where that is a list of ``Record``."""

    def cluster_id(self) -> str | None:
        """Tell which log this is, so that a position is never used with another one."""

    def partitions(self, topic: str) -> list[TopicPartition]:
        """List the partitions of a topic, in order.

        Raises:
            TopicMissing: the topic does not exist.
        """

    def topic_id(self, topic: str) -> str | None:
        """Tell one making of a topic from the next; None where the source cannot."""

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Look up where the logs of these partitions begin and end now."""

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Find the first offset at or after a time (milliseconds since 1970, UTC), else the end."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read from these positions on; replaces what was assigned before."""

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        """Return what is there, up to about these limits; wait up to the timeout for the first.

        ``size`` is in bytes of keys and values; at least one record is returned whatever its size.

        Raises:
            PositionError: the log no longer holds the position.
        """

    def mirror(self, positions: Mapping[TopicPartition, int], store_id: str) -> None:
        """Tell outsiders (lag monitors) how far the processor is; never read back, never raises."""

    def close(self) -> None:
        """Let go of everything; safe to call twice."""


def open_source(url: str, *, group: str, properties: Mapping[str, Any], client_id: str, base: Path) -> Source:
    """Open the source that a URL names; a ``file:`` folder is relative to ``base``.

    ``group``, ``properties`` and ``client_id`` are for Kafka alone. Nothing is connected yet.

    Raises:
        ConfigError: the URL or a property is wrong.
    """
    scheme, colon, rest = url.partition(":")
    # Imported where needed: the host and the file sources do without the Kafka client and its threads.
    match scheme if colon else "":
        case "kafka":
            from .kafka import KafkaSource

            return KafkaSource(_brokers(rest), group=group, properties=properties, client_id=client_id)
        case "file":
            from .folder import FolderSource

            if not rest:
                raise ConfigError('source "file:" names no folder; write file:FOLDER')
            return FolderSource(base / rest)
        case "memory":
            from .memory import MemorySource, memory_log

            return MemorySource(memory_log(rest))
    raise unknown_kind(url)


def letter_topic(source: Source, name: str) -> LetterTopic:
    """Open a topic for dead letters in the log that a source reads: by its own method of that name, if it has one.

    Raises:
        ConfigError: it has none, or its client does not take a property.
    """
    opened: Callable[[str], LetterTopic] | None = getattr(source, "letter_topic", None)
    if opened is None:
        raise ConfigError(f"a topic for dead letters ({name}) needs a Kafka source; take `topic` out of `dead_letters`")
    return opened(name)


def is_built_in(url: str) -> bool:
    """Tell whether ``open_source`` knows a URL's kind: no plugin need be imported for it."""
    return url.partition(":")[0] in BUILT_IN


def unknown_kind(url: str) -> ConfigError:
    """Say that neither axe nor a plugin knows a URL."""
    known = "kafka://HOST:PORT, file:FOLDER, memory:NAME, and what an installed plugin's open_source hook knows"
    return ConfigError(f"`source` is of the unknown kind {kind_of_url(url)}; known are {known}")


def _brokers(rest: str) -> str:
    brokers = rest.removeprefix("//").removesuffix("/")
    if not rest.startswith("//") or not all(brokers.split(",")):
        raise ConfigError("a Kafka source is written kafka://HOST:PORT or kafka://HOST:PORT,HOST:PORT")
    if "@" in brokers or "/" in brokers or "?" in brokers:
        raise ConfigError("a Kafka source holds hosts and ports only; credentials and options go under [kafka]")
    for broker in brokers.split(","):
        port = broker.rpartition(":")[2]
        # The client would take it modulo 65536.
        if port.isdecimal() and not 0 < int(port) <= _LAST_PORT:
            raise ConfigError(f"a Kafka source names the port {port}; ports go from 1 to {_LAST_PORT}")
    return brokers
