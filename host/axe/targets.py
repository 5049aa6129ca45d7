"""Targets: where a reset is to go, worked out for each partition before anything is moved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from .config import parse_start
from .errors import ConfigError, TopicMissing
from .event import TopicPartition
from .sources import Source

Target = int | str | datetime | timedelta | Mapping[TopicPartition, int]
"""Where to: what ``read_target`` takes."""

_Place = int | Literal["earliest", "latest"] | datetime | dict[TopicPartition, int]


def plan(
    source: Source, stored: Iterable[TopicPartition], topics: Collection[str], to: Target, *, wipe: bool
) -> dict[TopicPartition, int]:
    """Work out the offsets that a target means now for the partitions of these topics; nothing is changed.

    ``stored`` are all partitions that the processor has positions of.

    Raises:
        ConfigError: it is no target, lies outside the log, or would not do for a wipe.
    """
    place = read_target(to)
    known = set(stored)
    partitions: list[TopicPartition] = []
    for topic in topics:
        try:
            partitions += source.partitions(topic)
        except TopicMissing as error:
            if not (wipe and any(at.topic == topic for at in known)):
                raise ConfigError(str(error)) from error
    targets = _resolved(source, partitions, place)
    if wipe:
        # What was read from a partition that is gone is dropped, too; should it come back, it is read whole.
        targets |= dict.fromkeys({at for at in known if at.topic in topics} - set(partitions), 0)
        refuse_to_leave(known - set(targets))
    return targets


def read_target(to: object) -> _Place:
    """Read a target: an offset, "earliest", "latest", a time, a time back from now, or offsets by partition.

    A time is a ``datetime`` or ISO text, in UTC where it names no zone; a ``timedelta`` counts back from now.

    Raises:
        ConfigError: it is none of them.
    """
    if isinstance(to, str):
        try:
            return parse_start(to)
        except ConfigError:
            raise _no_target(to) from None
    if isinstance(to, timedelta):
        try:
            return datetime.now(UTC) - to
        except OverflowError:
            message = f"{to} is longer ago than a clock can tell"
            raise ConfigError(message) from None
    if isinstance(to, datetime):
        return to.replace(tzinfo=UTC) if to.tzinfo is None else to
    if isinstance(to, Mapping):
        if not to or not all(_is_partition(at) and _is_offset(offset) for at, offset in to.items()):
            raise _no_target(to)
        return {TopicPartition(*at): offset for at, offset in to.items()}
    if not _is_offset(to):
        raise _no_target(to)
    return to  # type: ignore[return-value] # just checked


def _is_offset(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_partition(value: object) -> bool:
    match value:
        case (str(), partition):
            return _is_offset(partition)
    return False


def _no_target(to: Any) -> ConfigError:
    message = (
        f"{to!r:.100} is no place in a log; give an offset, 'earliest', 'latest', an ISO time such as "
        "2026-03-01T12:00:00Z, a datetime, a timedelta back from now, or {TopicPartition: offset}"
    )
    return ConfigError(message)


def _resolved(source: Source, partitions: list[TopicPartition], to: _Place) -> dict[TopicPartition, int]:
    if isinstance(to, datetime):
        # Before 1970 there is no record, and Kafka takes negative times for "earliest" and "latest".
        return source.offsets_at(partitions, max(0, int(to.timestamp() * 1000)))
    bounds = source.bounds(partitions)
    if isinstance(to, str):
        return {at: bound.begin if to == "earliest" else bound.end for at, bound in bounds.items()}
    targets = to if isinstance(to, dict) else dict.fromkeys(partitions, to)
    for at, offset in targets.items():
        if at not in bounds:
            message = f"{at} is not among what is to be moved: {', '.join(map(str, sorted(bounds))) or 'nothing'}"
            raise ConfigError(message)
        if not bounds[at].begin <= offset <= bounds[at].end:
            message = f"{at} holds the offsets {bounds[at].begin} to {bounds[at].end}; {offset} is outside"
            raise ConfigError(message)
    return targets


def refuse_to_leave(left: Iterable[TopicPartition]) -> None:
    """Refuse a wipe that would leave the positions of these partitions.

    Raises:
        ConfigError: there are some.
    """
    if left := sorted(left):
        message = (
            f"a wipe drops what was built from {', '.join(map(str, left))} too, and this would not read it again; "
            "move every partition of the processor, or leave the wipe out"
        )
        raise ConfigError(message)
