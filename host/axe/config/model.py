"""What can be configured, with its defaults: plain frozen values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ..errors import ConfigError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
"""What a processor or plugin may be called: its name becomes a file, a schema and a process title."""

TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
"""What a topic may be called: Kafka's own rule, and a name that can be that of a file."""

# The upper bounds are beyond any use; they keep infinities and overflows out of the C code
# that waits and allocates.
SECONDS_OF_30_YEARS = 1e9
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=SECONDS_OF_30_YEARS)]
_PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=SECONDS_OF_30_YEARS)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[host]`: how the processors are spread over processes, and how long the host waits."""

    workers: Literal["processes", "threads"] | Annotated[int, msgspec.Meta(ge=1, le=10_000)] = "processes"
    shutdown_s: _Seconds = 10
    wait_s: _Seconds = 60
    stuck_s: _PositiveSeconds = 300


class TopicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[topics.NAME]`: how the records of a topic decode."""

    key: tuple[str, ...] = ()
    decode: tuple[str, ...] = ("json",)
    schema: str | None = None
    event_type: str | None = None
    max_bytes: _Count = 16_000_000
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`batch`: what ends a batch, whichever comes first."""

    events: _Count = 1000
    bytes: _Count = 4_000_000
    time_s: _Seconds = 0.5


class FloodConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`flood`: how many of the latest events may be rejected before the processor pauses."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    events: _Count = 100


class LettersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`dead_letters`: how long dead letters are kept, how many of them, and which topic they go to as well.

    None: for ever, all, nowhere.
    """

    days: Annotated[float, msgspec.Meta(gt=0, le=36_525)] | None = None
    rows: _Count | None = None
    topic: str | None = None


class MisfitConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`on_misfit`: what to do where the stored positions do not fit the log, or the state the processor."""

    behind_retention: Literal["halt", "skip", "rebuild"] = "halt"
    beyond_end: Literal["halt", "skip", "rebuild"] = "halt"
    topic_recreated: Literal["halt", "skip", "rebuild"] = "halt"
    cluster_changed: Literal["halt", "rebuild"] = "halt"
    version_changed: Literal["halt", "rebuild"] = "halt"


class FailureConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`failures.NAME`: what failures of one kind mean; None where that is left to the processor's settings."""

    on_failure: Literal["stop", "reject", "pause"] | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    backoff_s: tuple[_Seconds, _Seconds] | None = None


class ProcessorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[processors.NAME]`: what one processor reads, where its state lies, what a failure means."""

    enabled: bool = True
    topics: tuple[str, ...] | None = None
    state: str | None = None
    start: str = "earliest"
    on_failure: Literal["stop", "reject", "pause"] = "stop"
    retries: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 3
    order: Literal["partition", "key"] = "partition"
    handler_timeout_s: _PositiveSeconds = 300
    memory_mb: _Count | None = None
    cache_mb: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 16
    undo_mb: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 256
    group: str | None = None
    backoff_s: tuple[_Seconds, _Seconds] = (0.1, 30)
    failures: dict[str, FailureConfig] = {}
    batch: BatchConfig = BatchConfig()
    flood: FloodConfig = FloodConfig()
    dead_letters: LettersConfig = LettersConfig()
    on_misfit: MisfitConfig = MisfitConfig()
    plugins: tuple[str, ...] | None = None
    settings: dict[str, Any] = {}

    def of_failure(self, kind: type[BaseException]) -> ProcessorConfig:
        """Return the settings for a failure of this kind, by its name or that of what it inherits from.

        The nearest one that ``failures`` names counts, with its module or without.
        """
        for one in kind.__mro__:
            given = self.failures.get(f"{one.__module__}.{one.__qualname__}") or self.failures.get(one.__name__)
            if given is not None:
                said = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not None}
                return msgspec.structs.replace(self, **said)
        return self

    def __repr__(self) -> str:
        # The generated one would carry `state` and `settings`, secrets included, into any log.
        return "<ProcessorConfig>"


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[log]`: what is said on stderr, and in which form."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration.

    ``base`` is the folder that relative paths are relative to; ``path`` is the file, None
    for a mapping. ``secrets`` are the values to keep out of anything shown: what came from
    ``{ env = … }`` and ``{ file = … }``, and what stands under a key that sounds secret.
    """

    source: str
    state: str
    block: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    host: HostConfig = HostConfig()
    kafka: dict[str, str | int | float | bool] = {}
    topics: dict[str, TopicConfig] = {}
    processors: dict[str, ProcessorConfig] = {}
    plugins: dict[str, dict[str, Any]] = {}
    log: LogConfig = LogConfig()
    base: Path
    path: Path | None = None
    secrets: frozenset[str] = frozenset()

    def processor(self, name: str) -> ProcessorConfig:
        """Return the settings of a processor; the defaults where the file says nothing."""
        return self.processors.get(name, ProcessorConfig())

    def topic(self, name: str) -> TopicConfig:
        """Return the settings of a topic; the defaults where the file says nothing."""
        return self.topics.get(name, TopicConfig())

    def resolve(self, path: str | Path) -> Path:
        """Make a path of the configuration absolute: relative ones start at ``base``, ``~`` is home."""
        path = Path(path)
        return self.base / (path.expanduser() if path.parts[:1] == ("~",) else path)

    def __repr__(self) -> str:
        # See ProcessorConfig.__repr__.
        return f"<Config {self.path or 'from a mapping'}>"


def tables_in(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return which settings of a table are tables with settings of their own."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
    return {name: of for name, of in kinds.items() if isinstance(of, type) and issubclass(of, msgspec.Struct)}


def parse_start(text: str) -> Literal["earliest", "latest"] | datetime:
    """Read a place in time: ``earliest``, ``latest``, or an ISO time, UTC where it names no zone.

    Raises:
        ConfigError: it is none of them.
    """
    match text.strip().lower():
        case "earliest":
            return "earliest"
        case "latest":
            return "latest"
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        message = "expected earliest, latest or an ISO time such as 2026-03-01T12:00:00Z"
        raise ConfigError(message) from None
