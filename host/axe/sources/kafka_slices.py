"""How many records to ask a Kafka client for next: by the size of those before, so that a slice is never gigabytes."""

from __future__ import annotations

from confluent_kafka import Message

SLICE_EVENTS = 1000
# The size of records is not known yet; a slice of the usual length could be gigabytes.
_FIRST_SLICE_EVENTS = 16
# One key in so many is measured: keys are as long as one another, and looking at each costs a tenth of decoding.
_KEYS_APART = 16


class Slices:
    """What one client's records are like."""

    def __init__(self) -> None:
        self._mean_size = 0.0

    def size(self, messages: list[Message]) -> int:
        """Add up the bytes of keys and values, of keys about; the length of a message is that of its value."""
        if not messages:
            return 0
        some = messages[::_KEYS_APART]
        keys = sum(map(len, filter(None, map(Message.key, some)))) * len(messages) // len(some)
        size = sum(map(len, messages)) + keys
        mean = size / len(messages)
        self._mean_size = mean if self._mean_size == 0.0 else (self._mean_size + mean) / 2
        return size

    def next(self, events: int, size: int) -> int:
        """Return how many records to ask for, where so many events and bytes are left to be fetched."""
        if events < 1 or size < 1:
            return 0
        if self._mean_size == 0.0:
            return min(events, _FIRST_SLICE_EVENTS)
        return min(events, SLICE_EVENTS, max(1, int(size / max(self._mean_size, 1.0))))
