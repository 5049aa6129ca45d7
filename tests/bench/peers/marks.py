"""When a peer had handled how many events; imported by the programs beside it, in the peers' own environments."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def settings() -> dict[str, Any]:
    """Return what the measurement asks for."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    return asked


class Marks:
    """Counts handled events; the speed is that between the first quarter and the last event.

    The first quarter is warm-up, and nobody's last commit is waited for; both favour the peers.
    """

    def __init__(self, end: int) -> None:
        self.handled = 0
        self._end = end
        self._next = end // 4
        self._stamps: list[tuple[float, float, int]] = []

    def handle(self, count: int = 1) -> bool:
        """Note that so many more events were handled; tell whether these were the last."""
        self.handled += count
        if self.handled < self._next:
            return False
        self._stamps.append((time.perf_counter(), time.process_time(), self.handled))
        self._next = self._end
        return self.handled >= self._end

    def tell(self, **further: Any) -> None:
        """Print the result as the last line."""
        stamps = [self._stamps[0], self._stamps[-1]]
        # On a line of its own, whatever stands before it.
        print("\n" + json.dumps({"stamps": stamps, **further}), flush=True)
