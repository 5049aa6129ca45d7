"""Targets with something wrong in them, each of which has to be found: at an "a"."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from .target import Check, Target


def _with(harm: Callable[[], object], name: str, limit_s: float = 5.0) -> Target:
    @contextmanager
    def opened(_: Path) -> Iterator[Check]:
        yield lambda value: harm() if "a" in value else None

    return Target(name, "something is wrong with it", st.lists(st.text("abc"), max_size=3), opened, limit_s=limit_s)


def _refuse() -> None:
    raise ValueError("no a, please")


PLANTED = {
    one.name: one
    for one in (
        _with(_refuse, "raises"),
        _with(lambda: time.sleep(0.05), "slow", limit_s=0.02),
        _with(lambda: b"a" * 300_000_000, "large"),
        _with(lambda: os._exit(3), "ends-the-process"),
        _with(lambda: time.sleep(600), "hangs"),
    )
}
