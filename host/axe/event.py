"""Records, events, and what can become of them: plain frozen values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What decoders make that nobody can change.
_CONSTANTS = frozenset({
    type(None), bool, int, float, str, bytes, date, time, datetime, timedelta, Decimal, UUID,
})  # fmt: skip

Headers = tuple[tuple[str, bytes | None], ...]


class TopicPartition(NamedTuple):
    """One partition of a topic, shown as ``studies[3]``."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(msgspec.Struct, frozen=True, gc=False):
    """The bytes of one record as they were fetched, shown as ``studies[3]@1042``.

    ``value`` is None for a tombstone. ``timestamp_ms`` counts from 1970-01-01 UTC and is
    None where the source has no time for the record.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None

    @property
    def at(self) -> TopicPartition:
        """The partition that the record lies in."""
        return TopicPartition(self.topic, self.partition)

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Form(NamedTuple):
    """How to read what a source holds for a record, without making a ``Record`` of it first.

    Most handlers look at the value alone, and making a record costs as much as decoding it.
    """

    topic: Callable[[Any], str]
    partition: Callable[[Any], int]
    offset: Callable[[Any], int]
    key: Callable[[Any], bytes | None]
    value: Callable[[Any], bytes | None]
    headers: Callable[[Any], Iterable[tuple[str, bytes | None]] | None]
    timestamp_ms: Callable[[Any], int | None]

    def last(self, records: Sequence[Any], partitions: Collection[TopicPartition]) -> dict[TopicPartition, Any]:
        """Return the last record of each partition that has one; they are of these partitions."""
        if len(partitions) == 1 and records:
            # The usual case, without a look at each record.
            return dict.fromkeys(partitions, records[-1])
        places = zip(map(self.topic, records), map(self.partition, records), strict=True)
        return {TopicPartition(*at): raw for at, raw in dict(zip(places, records, strict=True)).items()}

    def record(self, raw: Any) -> Record:
        """Make the record."""
        if type(raw) is Record:
            return raw
        return Record(
            topic=self.topic(raw),
            partition=self.partition(raw),
            offset=self.offset(raw),
            key=self.key(raw),
            value=self.value(raw),
            headers=tuple(self.headers(raw) or ()),
            timestamp_ms=self.timestamp_ms(raw),
        )


RECORD_FORM = Form(*(attrgetter(name) for name in Form._fields))
"""The form of sources that hold records as they are."""


class Origin(Protocol):
    """What the events of one topic have in common: the form of their records, and how their type is told."""

    form: Form

    def type_of(self, raw: Any) -> str | None:
        """Tell the event type of a record, which a handler may long have changed the value of."""


class Event(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A decoded record: what a handler receives.

    ``value`` is None for a tombstone; it is the handler's to change, unless that says ``reads_only``. All else is
    read from the record when it is asked for. A test makes one with ``axe.testing.make_event``.
    """

    _raw: Any
    value: Any
    _origin: Origin
    _type: str | msgspec.UnsetType | None = msgspec.UNSET
    _key: Any = msgspec.UNSET

    @property
    def topic(self) -> str:
        """The topic that the event was published to."""
        return self._origin.form.topic(self._raw)

    @property
    def partition(self) -> int:
        """The number of its partition."""
        return self._origin.form.partition(self._raw)

    @property
    def offset(self) -> int:
        """The record's number in its partition."""
        return self._origin.form.offset(self._raw)

    @property
    def key(self) -> Any:
        """The record's key: its bytes, unless the topic's ``key`` setting says how keys decode."""
        return self._origin.form.key(self._raw) if self._key is msgspec.UNSET else self._key

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """The record's headers in order; a name may occur more than once."""
        return tuple(self._origin.form.headers(self._raw) or ())

    @property
    def timestamp(self) -> datetime | None:
        """The record's time, aware, in UTC; None where it has none, or one that no calendar has."""
        timestamp_ms = self._origin.form.timestamp_ms(self._raw)
        try:
            return None if timestamp_ms is None else _EPOCH + timedelta(milliseconds=timestamp_ms)
        except OverflowError:
            return None

    @property
    def type(self) -> str | None:
        """The event type, None where the record names none."""
        if self._type is msgspec.UNSET:
            # Once: where no header names it, the value is decoded again.
            msgspec.structs.force_setattr(self, "_type", self._origin.type_of(self._raw))
        return self._type  # type: ignore[return-value] # set above

    @property
    def record(self) -> Record:
        """The bytes as they were fetched."""
        return self._origin.form.record(self._raw)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave behind what belongs to a source and its configuration: events can be copied and pickled."""
        return Event, (self.record, self.value, NoOrigin(), self.type, self.key)

    def __repr__(self) -> str:
        return f"<Event {self.record} type={self.type!r} value={self.value!r}>"


def are_flat(items: Iterable[object]) -> bool:
    """Tell whether all are events whose values hold nothing that can be changed, but a dict around them."""
    for item in items:
        if type(item) is not Event:
            return False
        value = item.value
        held = value.values() if type(value) is dict else (value,)
        if not _CONSTANTS.issuperset(map(type, held)):
            return False
        if item._key is not msgspec.UNSET and type(item._key) not in _CONSTANTS:  # noqa: SLF001 # our own
            return False
    return True


def twins(events: Iterable[Any]) -> list[Any]:
    """Make flat events once more, with values that can be changed without changing those."""
    return [
        Event(
            one._raw,  # noqa: SLF001 # our own, as below
            one.value.copy() if type(one.value) is dict else one.value,
            one._origin,  # noqa: SLF001
            one._type,  # noqa: SLF001
            one._key,  # noqa: SLF001
        )
        for one in events
    ]


class NoOrigin:
    """The origin of events that were made from a ``Record`` and know their type."""

    form = RECORD_FORM

    def type_of(self, raw: Any) -> str | None:  # noqa: ARG002 # the protocol's
        """Return None; nobody asks."""
        return None


class Decision(enum.Enum):
    """What to do with an event whose handler failed."""

    RETRY = "retry"
    REJECT = "reject"
    PAUSE = "pause"
    STOP = "stop"


class Rejection(msgspec.Struct, frozen=True):
    """An event that was refused and now lies in the dead letters of its processor.

    ``reason`` is one line for people; ``error`` is the traceback where an exception led to
    the rejection; ``attempts`` counts how often the event was tried.
    """

    processor: str
    record: Record
    reason: str
    error: str | None = None
    attempts: int = 1

    def where(self, *, payload_bytes: int | None = None) -> dict[str, Any]:
        """Say where it happened: processor, attempts, topic, partition and offset; see ``Failure.where``."""
        return _where(self.processor, self.record, payload_bytes, attempts=self.attempts)


class Failure(msgspec.Struct, frozen=True):
    """An exception that was no rejection, and what was decided about it.

    ``record`` is None where no single event was the cause, as in ``on_start``.
    ``attempt`` counts from 1.
    """

    processor: str
    record: Record | None
    exception: BaseException
    attempt: int
    decision: Decision

    def where(self, *, payload_bytes: int | None = None) -> dict[str, Any]:
        """Say where it happened, in a plain dict that a report may send as it is.

        ``processor``, ``attempt`` and ``decision``, and where there is a record its ``topic``, ``partition``
        and ``offset``. With ``payload_bytes`` also ``record``: its ``key``, ``value`` and ``headers`` as text,
        each cut after so many bytes. Ask for that only where the settings of a reporter do.
        """
        decision = self.decision.value
        return _where(self.processor, self.record, payload_bytes, attempt=self.attempt, decision=decision)


class CommitReport(msgspec.Struct, frozen=True):
    """What one commit made durable: handed to ``on_commit`` hooks.

    ``positions`` are the next offsets to read; ``seconds`` is the wall time of the batch
    from its first handler call to the end of the commit.
    """

    processor: str
    positions: dict[TopicPartition, int]
    events: int
    rejections: int
    seconds: float


class Reject(Exception):
    """Raised by a handler to refuse an event: it goes to the dead letters, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = str(reason)


def _where(processor: str, record: Record | None, payload_bytes: int | None, **more: Any) -> dict[str, Any]:
    where: dict[str, Any] = {"processor": processor, **more}
    if record is not None:
        where |= {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        if payload_bytes is not None:
            where["record"] = _payload(record, payload_bytes)
    return where


def _payload(record: Record, limit: int) -> dict[str, Any]:
    def text(raw: bytes | None) -> str | None:
        return None if raw is None else raw[:limit].decode(errors="backslashreplace")

    headers = [f"{name}: {text(value)}" for name, value in record.headers]
    return {"key": text(record.key), "value": text(record.value), "headers": headers}
