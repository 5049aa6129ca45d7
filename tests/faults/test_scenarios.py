"""Scenarios with their short numbers; `python -m tests.faults` runs all of them, longer, and shows the figures."""

from __future__ import annotations

import pytest

from .conftest import Lent
from .registry import ELSEWHERE
from .runner import Outcome, registered, round_of

SCENARIOS = registered()
# Those wait for a service to come back, within limits that a busy machine does not keep: the programme alone runs them.
_NOT_IN_EVERY_RUN = ("F6", "F7", "F8")
STEADY = [name for name, one in SCENARIOS.items() if one.short and one.row not in _NOT_IN_EVERY_RUN]
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 16, 17, 18, 19, 21, 22, 23, 26, 28, 29)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", STEADY)
def test_the_promise_holds_through(lent: Lent, name: str) -> None:
    scenario = SCENARIOS[name]
    outcome = Outcome(name, scenario.row, seed=1)

    round_of(scenario, lent, outcome, scenario.short)

    if outcome.verdict == "skipped":
        pytest.skip(outcome.reason)
    assert outcome.verdict == "held", outcome.reason
    assert outcome.faults >= 1
    print(outcome.document())  # the figures of the run, shown with -rP


def test_every_row_of_the_table_has_a_scenario_or_says_why_not() -> None:
    rows = {one.row for one in SCENARIOS.values()} | set(ELSEWHERE)

    assert rows == {f"F{number}" for number in ROWS}
