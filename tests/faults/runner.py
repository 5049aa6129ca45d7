"""Runs scenarios one after the other, shows how far they are, and puts together what they found."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.oracle import Damaged
from tests.services import ServiceMissing

from .registry import SCENARIOS, Scenario
from .trial import Services, Trial, quantile

FAMILIES = ("kills", "brokers", "databases", "files", "topics")


@dataclass
class Outcome:
    """What came of one scenario."""

    scenario: str
    row: str
    seed: int
    verdict: str = "held"
    reason: str = ""
    faults: int = 0
    events: int = 0
    lost: int = 0
    twice: int = 0
    disorder: int = 0
    seconds: float = 0.0
    recoveries_s: list[float] = field(default_factory=list, repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def recovery(self) -> dict[str, float] | None:
        """How long it took to go on: median, 99 of a hundred, longest."""
        if not self.recoveries_s:
            return None
        found = {"p50": quantile(self.recoveries_s, 0.5), "p99": quantile(self.recoveries_s, 0.99)}
        return {name: round(value, 2) for name, value in {**found, "max": max(self.recoveries_s)}.items()}

    def add(self, trial: Trial, seconds: float) -> None:
        """Take in what a round has counted."""
        self.faults += trial.faults
        self.events += trial.events
        self.recoveries_s += trial.recoveries_s
        self.notes += [note for note in trial.notes if note not in self.notes]
        self.seconds = round(self.seconds + seconds, 1)

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "recoveries_s": len(self.recoveries_s), "recovery_s": self.recovery}


def registered() -> dict[str, Scenario]:
    """Return all scenarios, in the order of their rows."""
    for name in FAMILIES:
        importlib.import_module(f"{__package__}.{name}")
    return dict(sorted(SCENARIOS.items(), key=lambda item: int(item[1].row[1:])))


def run(
    scenarios: Iterable[Scenario], *, seed: int, times: int | None, minutes: float | None, keep: bool = False
) -> list[Outcome]:
    """Run each: with so many faults, or its short number; with ``minutes`` again and again until they are over."""
    services = Services()
    console = Console(stderr=True, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} faults")
    found = []
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console, disable=not sys.stderr.isatty()) as bars:
            for one in scenarios:
                outcome = Outcome(one.name, one.row, seed)
                number = times or max(1, one.short)
                task = bars.add_task(one.name, total=number)
                until = time.monotonic() + 60 * (minutes or 0)
                for at in range(seed, sys.maxsize):
                    outcome.seed = at
                    round_of(
                        one, services, outcome, number, keep=keep, on_fault=lambda n: bars.update(task, completed=n)
                    )
                    if outcome.verdict != "held" or time.monotonic() >= until:
                        break
                found.append(outcome)
                if not sys.stderr.isatty():
                    console.print(f"{one.name}: {outcome.verdict} {outcome.reason[:2000]}", markup=False)
    finally:
        services.close()
    return found


def round_of(
    one: Scenario, services: Services, outcome: Outcome, times: int, *, keep: bool = False, on_fault: Any = None
) -> None:
    """Run a scenario once, with the seed of its outcome, and note there what came of it."""
    folder = Path(tempfile.mkdtemp(prefix=f"axe-{one.name}-"))
    trial = Trial(services, folder, times=times, seed=outcome.seed, on_fault=on_fault)
    began = time.monotonic()
    try:
        with trial.stack:
            one.run(trial)
    except ServiceMissing as missing:
        outcome.verdict, outcome.reason = "skipped", str(missing)
    except Damaged as damage:
        outcome.lost, outcome.twice, outcome.disorder = damage.lost, damage.twice, damage.disorder
        outcome.verdict, outcome.reason = "broken", str(damage)
    except Exception as error:
        outcome.verdict, outcome.reason = "broken", f"{type(error).__name__}: {error}"
    outcome.add(trial, time.monotonic() - began)
    if outcome.verdict != "broken" or not keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        outcome.notes.append(f"kept: {folder}")


def table_of(outcomes: Iterable[Outcome]) -> Table:
    """Show what came of all."""
    table = Table(box=None, pad_edge=False)
    for column in ("row", "scenario", "verdict"):
        table.add_column(column, no_wrap=True)
    for column in ("faults", "events", "lost", "twice", "disorder", "p50 s", "p99 s", "max s", "took s"):
        table.add_column(column, justify="right")
    for one in outcomes:
        recovery = one.recovery or {}
        numbers = [f"{number:,}" for number in (one.faults, one.events, one.lost, one.twice, one.disorder)]
        times = [str(recovery.get(name, "")) for name in ("p50", "p99", "max")]
        table.add_row(one.row, one.scenario, one.verdict, *numbers, *times, str(one.seconds))
    return table


def write_json(path: Path, outcomes: Iterable[Outcome], **more: Any) -> None:
    """Write it for machines."""
    path.write_text(json.dumps({**more, "scenarios": [one.document() for one in outcomes]}, indent=2) + "\n")
