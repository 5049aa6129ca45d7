"""The flood guard: a processor that rejects too much of what it reads is paused, rather than emptying its topic."""

from __future__ import annotations

from collections import deque

from .config import FloodConfig
from .errors import TooManyRejections


class Flood:
    """How many of the latest events were rejected: of exactly so many as the setting says, once there are."""

    def __init__(self, settings: FloodConfig) -> None:
        self._settings = settings
        self.clear()

    def clear(self) -> None:
        """Begin anew: what was known says nothing of what comes."""
        # Runs of events of which all were rejected, or none.
        self._runs: deque[tuple[int, bool]] = deque()
        self.events = self.rejected = 0

    def copy(self) -> Flood:
        """Return another one that goes on from here, for events that may yet be undone."""
        other = Flood(self._settings)
        other._runs = self._runs.copy()
        other.events, other.rejected = self.events, self.rejected
        return other

    def add(self, events: int, *, rejected: bool) -> None:
        """Count some more, of which all were rejected, or none."""
        self._runs.append((events, rejected))
        self.events += events
        self.rejected += events * rejected
        while (excess := self.events - self._settings.events) > 0:
            oldest, were_rejected = self._runs.popleft()
            gone = min(oldest, excess)
            if gone < oldest:
                self._runs.appendleft((oldest - gone, were_rejected))
            self.events -= gone
            self.rejected -= gone * were_rejected

    @property
    def is_on(self) -> bool:
        """Whether too many of the latest events were rejected."""
        return self.events == self._settings.events and self.rejected > self._settings.share * self.events

    def trouble(self, reason: str) -> TooManyRejections:
        """Say it, with the reason of the last rejection."""
        return TooManyRejections(
            f"{self.rejected} of the last {self.events} events were rejected, the last one for: {reason[:200]}; "
            "see `axe rejections list`"
        )
