"""``python -m tests.fuzz [TARGET …]``: feeds each for its share of the time; a finding is shown with its seed."""

from __future__ import annotations

import argparse
import random
import sys

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .running import TARGETS, Outcome, feed_apart


def main() -> None:
    """Feed what was asked for."""
    asked = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    if asked.list:
        table = Table(box=None, pad_edge=False)
        for column in ("target", "what it shows"):
            table.add_column(column)
        for one in TARGETS.values():
            table.add_row(one.name, one.says)
        console.print(table)
        return
    chosen = [TARGETS[name] for name in asked.targets or TARGETS]
    print(f"seed {asked.seed}", flush=True)
    outcomes = []
    columns = TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} inputs"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        for target in chosen:
            task = bars.add_task(target.name, total=None)
            outcome = feed_apart(
                target,
                seed=asked.seed,
                seconds=60 * asked.minutes / len(chosen),
                progress=lambda count, task=task: bars.update(task, completed=count),  # type: ignore[misc]
            )
            bars.stop_task(task)
            outcomes.append(outcome)
            if not sys.stderr.isatty():
                print(f"{target.name}: {outcome.inputs:,} inputs, {_verdict(outcome)}", file=sys.stderr, flush=True)
    console.print(_table(outcomes))
    for outcome in outcomes:
        if (found := outcome.finding) is not None:
            console.print(f"\n{outcome.target}: {found.example}\n{found.error}", markup=False, soft_wrap=True)
            again = f"python -m tests.fuzz {outcome.target} --seed {found.seed}"
            console.print(f"again: {again}", markup=False)
    sys.exit(any(outcome.finding is not None for outcome in outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all by default")
    parser.add_argument("--minutes", type=float, default=5, help="of all targets together (default %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="the first one (default: drawn)")
    parser.add_argument("--list", action="store_true", help="show the targets")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --list shows what there is")
    return asked


def _verdict(outcome: Outcome) -> str:
    return "held" if outcome.finding is None else f"a finding with seed {outcome.finding.seed}"


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("target")
    for column in ("inputs", "inputs/s", "took s"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for one in outcomes:
        numbers = f"{one.inputs:,}", f"{one.per_second:,.0f}", f"{one.seconds:,.0f}"
        table.add_row(one.target, *numbers, _verdict(one))
    return table


if __name__ == "__main__":
    main()
