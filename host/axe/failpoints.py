"""Named places where a test may kill, freeze or fail the process; off unless AXE_FAILPOINTS is set.

``AXE_FAILPOINTS="before_commit=kill@0.01,mid_handler=raise"``: at each pass of the place, with this
probability (1 if none is given), do this.
"""

from __future__ import annotations

import os
import random
import signal
import threading

NAMES = (
    "after_poll",
    "after_begin",
    "after_advance",
    "mid_handler",
    "before_commit",
    "after_commit",
    "in_revoke",
    "in_reject",
    "after_publish",
    "in_set_aside",
    "after_set_aside",
    "before_restore",
    "in_restore",
    "after_restore",
)
_ACTIONS = ("kill", "raise", "freeze")


class FailpointReached(Exception):
    """Raised by a failpoint that was set to ``raise``."""


def _parse(text: str) -> dict[str, tuple[str, float]]:
    points = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.strip().partition("=")
        action, _, probability = rest.partition("@")
        if name not in NAMES or action not in _ACTIONS:
            message = f"AXE_FAILPOINTS: {part!r} is not NAME=ACTION[@PROBABILITY] with a name of {NAMES}"
            raise ValueError(message)
        points[name] = (action, float(probability or 1))
    return points


_points = _parse(os.environ.get("AXE_FAILPOINTS", ""))


def is_set(name: str) -> bool:
    """Tell whether anything is set for a place."""
    return name in _points


def failpoint(name: str) -> None:
    """Do what is set for this place; nothing by default."""
    if not _points or name not in _points:
        return
    action, probability = _points[name]
    if random.random() >= probability:  # noqa: S311 # no secret depends on it
        return
    if action == "raise":
        raise FailpointReached(name)
    # To this thread: where another one takes the signal of a process, this one runs on for a while before it stops.
    signal.pthread_kill(threading.get_ident(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
