"""Stamps: when a process was how far, by the clock and by its own CPU time; and the speed between two of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple


class Stamp(NamedTuple):
    """A moment; ``time.perf_counter`` is one clock for all processes of a machine."""

    at_s: float
    cpu_s: float
    position: int


class Stamps(list[Stamp]):
    """Those of one process, in order."""

    def __call__(self, position: int) -> None:
        """Note that everything before a position is committed."""
        self.append(Stamp(time.perf_counter(), time.process_time(), position))

    def told(self, *, every: bool = False) -> dict[str, Any]:
        """Return what a parent wants to know: the ends, or every one, and the most memory there was."""
        return {"stamps": self if every else [self[0], self[-1]], "peak_mb": peak_mb()}


def peak_mb() -> float | None:
    """Return the most memory that this process had; None where the system does not tell.

    Not ``getrusage``: on Linux its figure begins with the size of the parent.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("VmHWM:")), None)


class Speed(NamedTuple):
    """What one round of one way gave."""

    events_per_s: float
    cpu_us: float
    peak_mb: float | None = None


def speed(told: dict[str, Any], *, events: int | None = None) -> Speed:
    """Return the speed between the first stamp and the last: without imports, connecting and closing."""
    first, last = Stamp(*told["stamps"][0]), Stamp(*told["stamps"][-1])
    done = events or last.position - first.position
    return Speed(done / max(last.at_s - first.at_s, 1e-9), (last.cpu_s - first.cpu_s) / done * 1e6, told.get("peak_mb"))
