"""Bugs, planted into the product at run time in a process whose environment asks for one."""

from __future__ import annotations

import os


def plant_what_is_asked_for() -> None:
    """Plant the bug that ``AXE_TEST_PLANTED`` names, if it names one."""
    if name := os.environ.get("AXE_TEST_PLANTED"):
        raise KeyError(name)
