"""The flood guard: a processor that rejects too much of what it reads is paused, rather than emptying its topic."""

from __future__ import annotations

from collections import deque

from .config import FloodConfig


class Flood:
    """How many of the latest events were rejected, at least as many as the setting says.

    Events are counted as they are handled, some at a time; the oldest of those fall out as soon as enough are left.
    """

    def __init__(self, settings: FloodConfig) -> None:
        self._settings = settings
        self.clear()

    def clear(self) -> None:
        """Begin anew: what was known says nothing of what comes."""
        self._parts: deque[tuple[int, int]] = deque()
        self.events = self.rejected = 0

    def copy(self) -> Flood:
        """Return another one that goes on from here, for events that may yet be undone."""
        other = Flood(self._settings)
        other._parts = self._parts.copy()
        other.events, other.rejected = self.events, self.rejected
        return other

    def count(self, events: int, rejected: int) -> bool:
        """Count some more; return whether too many of the latest ones were rejected."""
        parts = self._parts
        parts.append((events, rejected))
        self.events += events
        self.rejected += rejected
        while self.events - parts[0][0] >= self._settings.events:
            gone, gone_rejected = parts.popleft()
            self.events -= gone
            self.rejected -= gone_rejected
        return self.events >= self._settings.events and self.rejected > self._settings.share * self.events
