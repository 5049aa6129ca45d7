"""Where the time of a processor goes: a stopwatch for the stages of its batches."""

from __future__ import annotations

import time

STAGES = ("fetch", "decode", "store", "dispatch", "commit")


class Stages:
    """The wall time of one processor's batches by stage, in seconds.

    ``fetch`` takes records off the source, ``decode`` makes events of them, ``store`` begins the transaction and
    moves the positions, ``dispatch`` is the handler, ``commit`` writes the values and ends it. A few looks at the
    clock a batch, so that it runs always. What is undone counts as well: it took its time.
    """

    def __init__(self) -> None:
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._since = 0.0

    def start(self) -> None:
        """Begin a round: what went before it belongs to no stage."""
        self._since = time.perf_counter()

    def end(self, stage: str) -> None:
        """Add the time since the stage before to this one."""
        now = time.perf_counter()
        self._spent[stage] += now - self._since
        self._since = now

    def per_event_us(self, events: int) -> dict[str, float] | None:
        """Return the microseconds of each stage for an event; None where there was none."""
        return {stage: seconds / events * 1e6 for stage, seconds in self._spent.items()} if events else None
