"""The example's events: as they are described, and the same each time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from axe_studies import example

SHIPPED = Path(__file__).parent.parent / "example" / "topics" / "studies.jsonl"


def test_writing_the_events_again_gives_the_file_that_is_shipped(tmp_path: Path) -> None:
    assert example.write(tmp_path).read_bytes() == SHIPPED.read_bytes()


def test_the_events_are_what_the_example_says_of_them() -> None:
    lines = SHIPPED.read_bytes().splitlines()
    events = [json.loads(line) for line in lines]
    types = Counter(event["type"] for event in events)
    phases = Counter(event["phase"] for event in events if event["type"] == "study_created")

    assert len(events) == 12_000
    assert 120 <= sum(map(len, lines)) / len(lines) <= 180
    assert set(types) == {"study_created", "study_updated", "study_closed", "patient_enrolled"}
    assert set(phases) == {"I", "II", "III", "IV", None}
    assert phases[None] == 3


def test_no_study_is_touched_before_it_is_created_or_after_it_is_closed() -> None:
    running: set[str] = set()
    for event in example.events():
        if event["type"] == "study_created":
            assert event["id"] not in running
            running.add(event["id"])
        else:
            assert event["id"] in running
            if event["type"] == "study_closed":
                running.remove(event["id"])
