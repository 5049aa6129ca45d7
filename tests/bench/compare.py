"""Comparing: several ways to do a job, round after round in turn, and what their medians are of each other."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .stamps import Speed

EXACTLY_ONCE = "exactly once"
AT_LEAST_ONCE = "at least once"

# A person sees that it gets on, also where the output is piped.
progress = Console(stderr=True, highlight=False, soft_wrap=True)


class Way(NamedTuple):
    """One way to do a job; ``run`` raises when what was counted is wrong."""

    name: str
    guarantee: str
    run: Callable[[], Speed]


class Wanted(NamedTuple):
    """What a figure should be: at least ``bound``, or at most where ``is_limit``; no bound, no judgement."""

    row: str
    bound: float | None
    is_limit: bool = False
    unit: str = "times"

    def judged(self, figure: float | None, *, by_cpu: float | None = None, note: str | None = None) -> dict[str, Any]:
        """Put a figure beside it; ``by_cpu`` is the same by CPU time, which suffers less from what else runs."""
        reached = None
        if figure is not None and self.bound is not None:
            reached = figure <= self.bound if self.is_limit else figure >= self.bound
        sign = "≤" if self.is_limit else "≥"
        wanted = None if self.bound is None else f"{sign} {self.bound:g} {self.unit}"
        shown = None if figure is None else round(figure, 3)
        told = {"row": self.row, "figure": shown, "unit": self.unit, "wanted": wanted, "reached": reached}
        return {**told, "by_cpu": None if by_cpu is None else round(by_cpu, 3), "note": note}

    def compared(self, summary: dict[str, Any], way: str, against: str) -> dict[str, Any]:
        """Put the speed of one way, of that of another, beside it."""
        by_cpu = ratio(summary, against, way, "cpu_us")
        return self.judged(ratio(summary, way, against), by_cpu=by_cpu)


def measure(job: str, ways: list[Way], *, rounds: int) -> dict[str, Any]:
    """Run the ways in turn, ``rounds`` times, so that what else the machine does falls on all of them.

    Before that the first way runs once for nothing: the broker's caches are cold. A way that fails is shown with the
    reason and not tried again; its rounds before that do not count.
    """
    with contextlib.suppress(RuntimeError):
        ways[0].run()
    found: dict[str, list[Speed]] = {way.name: [] for way in ways}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for way in ways:
            if way.name in failed:
                continue
            try:
                speed = way.run()
            except Exception as error:  # the others can be measured all the same
                failed[way.name] = f"{type(error).__name__}: {error}"
                progress.print(f"{job}, round {number} of {rounds}, {way.name}: {failed[way.name]}", markup=False)
                continue
            found[way.name].append(speed)
            progress.print(f"{job}, round {number} of {rounds}, {way.name}: {speed.events_per_s:,.0f} events/s")
    return {
        "job": job,
        "rounds": rounds,
        "ways": {way.name: _median(way, found[way.name], failed.get(way.name)) for way in ways},
    }


def _median(way: Way, speeds: list[Speed], failed: str | None) -> dict[str, Any]:
    summary: dict[str, Any] = {"guarantee": way.guarantee}
    if failed is not None or not speeds:
        return {**summary, "invalid": failed or "no round"}
    each = [one.events_per_s for one in speeds]
    peaks = [one.peak_mb for one in speeds if one.peak_mb is not None]
    return {
        **summary,
        "events_per_s": round(statistics.median(each)),
        "slowest": round(min(each)),
        "fastest": round(max(each)),
        "cpu_us": round(statistics.median(one.cpu_us for one in speeds), 3),
        "peak_mb": round(statistics.median(peaks), 1) if peaks else None,
    }


def ratio(summary: dict[str, Any], way: str, against: str, figure: str = "events_per_s") -> float | None:
    """Return the ratio of two medians; None where one of them was not measured."""
    one, other = summary["ways"].get(way, {}).get(figure), summary["ways"].get(against, {}).get(figure)
    return None if one is None or other is None else one / other


def tables(found: list[dict[str, Any]], judged: list[dict[str, Any]]) -> list[Table]:
    """Return what was measured and what was wanted of it as tables."""
    speeds = Table("job", "way", "guarantee", title="Speed: medians, and the slowest and fastest round")
    for title in ("events/s", "spread", "CPU µs/event", "peak MB"):
        speeds.add_column(title, justify="right")
    for summary in found:
        for name, way in summary["ways"].items():
            start = (summary["job"], name, way["guarantee"])
            if "invalid" in way:
                speeds.add_row(*start, "[red]invalid[/]", escape(way["invalid"][:80]))
                continue
            spread = f"{way['slowest']:,} - {way['fastest']:,}"
            peak = "" if way["peak_mb"] is None else f"{way['peak_mb']:,.0f}"
            speeds.add_row(*start, f"{way['events_per_s']:,}", spread, f"{way['cpu_us']:.2f}", peak)
        speeds.add_section()
    wanted = Table("row", title="What was wanted")
    for title in ("figure", "by CPU time", "wanted"):
        wanted.add_column(title, justify="right")
    wanted.add_column("reached")
    for row in judged:
        shown = "not measured" if row["figure"] is None else f"{row['figure']:g} {row['unit']}"
        words = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}
        note = f" ({row['note']})" if row["note"] else ""
        by_cpu = "" if row["by_cpu"] is None else f"{row['by_cpu']:g}"
        wanted.add_row(row["row"] + note, shown, by_cpu, row["wanted"] or "", words[row["reached"]])
    return [speeds, wanted] if found else [wanted]
