"""A target: what is fed, with what, and what counts as a finding. And how one is fed, in this process."""

from __future__ import annotations

import os
import resource
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .mutation import smaller

LIMIT_BYTES = 200_000_000

Check = Callable[[Any], object]


@dataclass(frozen=True)
class Target:
    """Something that takes inputs from outside.

    ``inputs`` draws some at a time. ``open`` is given an empty folder and yields the check of one: whatever that
    raises is a finding, and so is more than its time or 200 MB.
    """

    name: str
    says: str
    inputs: st.SearchStrategy[list[Any]]
    open: Callable[[Path], AbstractContextManager[Check]]
    drawn: int = 40
    """How often one seed draws."""
    weight: int = 1
    """How many inputs one that is checked is."""
    limit_s: float = 1.0


@dataclass
class Finding:
    """An input that was too much, as small as it could be made, and what came of it."""

    seed: int
    example: str
    error: str


class Feeder:
    """Feeds one target, round after round, and keeps the input at hand where a crash leaves it."""

    def __init__(self, target: Target, current: Path, say: Callable[[int], None]) -> None:
        self.target = target
        self._say = say
        self._said_at = 0.0
        self.inputs = 0
        self._current = os.open(current, os.O_WRONLY | os.O_CREAT, 0o600)

    def feed(self, first: int, is_enough: Callable[[int], bool]) -> Finding | None:
        """Feed rounds from the seed ``first`` on until ``is_enough``, which hears of the number of inputs."""
        with tempfile.TemporaryDirectory(prefix="axe-fuzz-") as folder, self.target.open(Path(folder)) as check:
            number = first
            while not is_enough(self.inputs):
                if (finding := self._round(check, number)) is not None:
                    return finding
                number += 1
        return None

    def _round(self, check: Check, number: int) -> Finding | None:
        last: list[Any] = [None]

        def feed(values: list[Any]) -> None:
            for value in values:
                last[0] = value
                self._keep(value)
                self.inputs += self.target.weight
                self._bounded(check, value)

        run = settings(
            max_examples=self.target.drawn,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )(seed(number)(given(self.target.inputs)(feed)))
        try:
            run()
        except Exception as error:
            # The smallest one is tried last.
            return Finding(number, *self._smallest(check, last[0], error))
        return None

    def _bounded(self, check: Check, value: Any) -> None:
        if time.monotonic() > self._said_at + 1:
            self._said_at = time.monotonic()
            self._say(self.inputs)
        reset_peak()
        base, began = peak_bytes(), time.perf_counter()
        check(value)
        took_s, grown = time.perf_counter() - began, peak_bytes() - base
        if took_s > self.target.limit_s:
            # A machine that does other work as well is no finding: the second time tells.
            began = time.perf_counter()
            check(value)
            took_s = min(took_s, time.perf_counter() - began)
        assert took_s < self.target.limit_s, f"it took {took_s:.2f} s"
        assert grown < LIMIT_BYTES, f"it took {grown // 1_000_000} MB"

    def _smallest(self, check: Check, value: Any, error: Exception) -> tuple[str, str]:
        """Return the input and what came of it; bytes are made smaller still."""
        last = [error]

        def is_still_one(less: bytes) -> bool:
            self._keep(less)
            try:
                self._bounded(check, less)
            except Exception as same:
                if type(same) is type(error):
                    last[0] = same
                    return True
            return False

        if isinstance(value, bytes):
            value = smaller(value, is_still_one)
        return repr(value), "".join(traceback.format_exception(last[0], limit=-4))

    def _keep(self, value: Any) -> None:
        text = repr(value).encode(errors="backslashreplace")
        os.pwrite(self._current, text, 0)
        os.ftruncate(self._current, len(text))


def reset_peak() -> None:
    """Forget the most memory that this process has had, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the most memory that this process has had, since ``reset_peak`` where the system tells."""
    with suppress(OSError):
        # Not what getrusage says: that begins with what the process had that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
