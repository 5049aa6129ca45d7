"""Writes the events of the example: ``python -m axe_studies.example FOLDER``.

The same bytes on every machine and every Python, so that what the example says can be tested.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar

EVENTS = 12_000
WITHOUT_PHASE = frozenset({40, 700, 1500})
"""Which studies, in the order of their creation, have no phase: one early, to be met at once."""

_TREATMENTS = ("Aspirin", "Metformin", "Losartan", "Insulin glargine", "Rituximab", "Vitamin D")
_AGAINST = ("placebo", "standard care", "watchful waiting", "a low dose")
_CONDITIONS = ("hypertension", "type 2 diabetes", "asthma", "migraine", "rheumatoid arthritis", "psoriasis")
_SPONSORS = ("Northwind Biotech", "Harbour Trials", "Meridian Health", "University of Eastport")
_SITES = ("Eastport", "Lakeside", "Millbrook", "Westhaven", "Stonebridge")

T = TypeVar("T")


def events() -> Iterator[dict[str, Any]]:
    """Yield the events in order: studies are created, changed, joined by patients, and closed."""
    random = Random(2024)
    at = datetime(2024, 1, 2, 8, 0, tzinfo=UTC)
    created = 0
    running: list[str] = []
    for _ in range(EVENTS):
        at += timedelta(seconds=60 + _below(random, 3600))
        dice = random.random()
        if dice < 0.2 or not running:
            created += 1
            running.append(f"ST-{created:05d}")
            yield _event("study_created", running[-1], at, **_study(random, created))
            continue
        study = _pick(random, running)
        if dice < 0.4:
            patients = 10 * (1 + _below(random, 90))
            reason = _pick(random, ("a slow start", "interim results", "a request of the sponsor"))
            yield _event("study_updated", study, at, patients=patients, reason=f"amended after {reason}")
        elif dice < 0.9:
            patient, site = f"P-{_below(random, 10**6):06d}", _pick(random, _SITES)
            yield _event(
                "patient_enrolled", study, at, patient=patient, site=site, arm=_pick(random, "AB"), visit="screening"
            )
        else:
            running.remove(study)
            outcome = _pick(random, ("completed as planned", "stopped early", "withdrawn"))
            yield _event("study_closed", study, at, outcome=outcome, reported=random.random() < 0.5)


def write(folder: Path) -> Path:
    """Write ``studies.jsonl`` into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "studies.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for event in events():
            lines.write(json.dumps(event, separators=(",", ":")) + "\n")
    return path


def _event(kind: str, study: str, at: datetime, **rest: Any) -> dict[str, Any]:
    return {"type": kind, "id": study, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), **rest}


def _study(random: Random, number: int) -> dict[str, Any]:
    title = f"{_pick(random, _TREATMENTS)} or {_pick(random, _AGAINST)} in {_pick(random, _CONDITIONS)}"
    phase = _pick(random, ("I", "II", "II", "III", "III", "IV"))
    return {
        "title": title,
        "phase": None if number in WITHOUT_PHASE else phase,
        "sponsor": _pick(random, _SPONSORS),
    }


def _below(random: Random, end: int) -> int:
    # Only random() is promised to give the same numbers in every version of Python.
    return int(random.random() * end)


def _pick(random: Random, choices: Sequence[T]) -> T:
    return choices[_below(random, len(choices))]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m axe_studies.example FOLDER")
    print(write(Path(sys.argv[1])))
