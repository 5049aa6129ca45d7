"""The events that are measured: about 150 bytes of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator

PHASES = ("I", "II", "III", "IV")


def event(number: int) -> bytes:
    """Make one event; the same number gives the same bytes."""
    return json.dumps(
        {
            "type": "study_created",
            "id": f"ST-{number:08d}",
            "phase": PHASES[number % 4],
            "title": "Metformin or placebo in type 2 diabetes",
            "sponsor": "Harbour Trials",
        },
        separators=(",", ":"),
    ).encode()


def events(count: int) -> Iterator[bytes]:
    """Make many."""
    return (event(number) for number in range(count))
