"""What can be asked for: every scenario with its row of the table of faults, and what it must show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .trial import Trial


@dataclass(frozen=True)
class Scenario:
    """One scenario: ``short`` is how many faults a run of the tests injects, ``long`` how many one by hand does.

    One whose short number is 0 takes too long for a run of the tests.
    """

    name: str
    row: str
    says: str
    needs: tuple[str, ...]
    short: int
    long: int
    run: Callable[[Trial], None]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    row: str, says: str, *, needs: tuple[str, ...] = (), short: int, long: int
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Enter a function under its name, with dashes."""

    def enter(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
        name = run.__name__.replace("_", "-")
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, row, says, needs, short, long, run)
        return run

    return enter


ELSEWHERE = {
    "F5": "rebalances: the product has no consumer groups yet",
    "F19": "events that end or hang their worker: tests/cli/test_run_deadly.py",
    "F23": "broken plugins: tests/test_discovery.py, tests/cli/test_run_plugins.py, tests/cli/test_run_imports.py",
}
"""Rows of the table that no scenario here covers: why, or which tests do."""
