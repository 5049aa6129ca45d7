"""Each target with as many inputs as there is time for at every change; `python -m tests.fuzz` feeds them more."""

from __future__ import annotations

import pytest

from .planted import PLANTED
from .running import TARGETS, feed_apart

INPUTS = {
    "configuration": 1000,
    "names": 1000,
    "json": 5000,
    "avro": 5000,
    "files": 1000,
    "folder": 15,
    "payloads": 20_000,
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str) -> None:
    outcome = feed_apart(TARGETS[name], seed=1, inputs=INPUTS[name])

    assert outcome.finding is None, f"{outcome.finding.error}\n{outcome.finding.example}"
    assert outcome.inputs >= INPUTS[name]
    print(outcome)  # shown with -rP


@pytest.mark.parametrize(
    ("name", "said", "smallest"),
    [
        ("raises", "ValueError: no a, please", True),
        ("slow", "it took 0.05 s", True),
        ("large", " MB", True),
        ("ends-the-process", "its process ended with 3", False),
        ("hangs", "nothing came for 3 s", False),
    ],
)
def test_what_is_wrong_is_found(name: str, said: str, smallest: bool) -> None:
    finding = feed_apart(PLANTED[name], seed=1, seconds=30, hang_s=3 if name == "hangs" else 60).finding

    assert finding is not None
    assert said in finding.error
    assert finding.example == "'a'" if smallest else "a" in finding.example
