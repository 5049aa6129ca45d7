"""Reading a source to its end, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from axe.event import Record, TopicPartition
from axe.sources import Source

DEADLINE_S = 20.0


def read_to_end(
    source: Source, partitions: Iterable[TopicPartition], *, events: int = 1000, size: int = 1_000_000
) -> tuple[list[Record], dict[TopicPartition, int]]:
    """Fetch until each partition has told that it reached the end that its bounds name."""
    ends = {at: bounds.end for at, bounds in source.bounds(partitions).items()}
    records: list[Record] = []
    reached: dict[TopicPartition, int] = {}
    deadline = time.monotonic() + DEADLINE_S
    while any(reached.get(at, -1) < end for at, end in ends.items()):
        assert time.monotonic() < deadline, f"the end {ends} was not reached: {reached}, {len(records)} records"
        fetched = source.fetch(events=events, size=size, timeout_s=0.5)
        records += map(source.form.record, fetched.records)
        reached.update(fetched.reached)
    return records, reached


def fetch_some(source: Source, count: int = 1, deadline_s: float = DEADLINE_S) -> list[Record]:
    """Fetch until there are so many records."""
    records: list[Record] = []
    deadline = time.monotonic() + deadline_s
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        fetched = source.fetch(events=count - len(records), size=1_000_000, timeout_s=0.2)
        records += map(source.form.record, fetched.records)
    return records


def wait_for_error(
    source: Source, expected: type[Exception], deadline_s: float = DEADLINE_S, again: Callable[[], None] | None = None
) -> Exception:
    """Fetch until it raises this; returns the exception."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        try:
            source.fetch(events=10, size=1_000_000, timeout_s=0.2)
        except expected as error:
            return error
        if again is not None:
            again()
    raise AssertionError(f"{expected.__name__} was not raised")
