"""``python -m tests.faults [SCENARIO …]``: injects faults into real parts and judges what is left; see --list."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .proofs import prove
from .registry import ELSEWHERE, Scenario
from .runner import registered, run, table_of, write_json


def main() -> None:
    """Run what was asked for."""
    known = registered()
    asked = _arguments(known)
    # Piped, a table is as wide as it has to be.
    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    if asked.list:
        console.print(_list(known))
        return
    if asked.planted:
        sys.exit(not prove())
    chosen = [one for one in known.values() if not asked.what or {one.name, one.row} & set(asked.what)]
    outcomes = run(chosen, seed=asked.seed, times=asked.times, minutes=asked.minutes, keep=asked.keep)
    console.print(table_of(outcomes))
    for outcome in outcomes:
        for line in filter(None, [outcome.reason, *outcome.notes]):
            console.print(f"{outcome.scenario} (seed {outcome.seed}): {line}", markup=False)
    if asked.json is not None:
        write_json(asked.json, outcomes, command=sys.argv[1:])
    sys.exit(any(outcome.verdict == "broken" for outcome in outcomes))


def _arguments(known: dict[str, Scenario]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="SCENARIO", help="a name or a row (F3); all by default")
    parser.add_argument("--seed", type=int, default=1, help="of whatever is left to chance (default %(default)s)")
    parser.add_argument("--times", type=int, help="faults of each scenario (default: its short number)")
    parser.add_argument("--minutes", type=float, help="repeat each scenario for so long, each time with the next seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a scenario that breaks")
    parser.add_argument("--planted", action="store_true", help="plant bugs and see whether each is caught")
    parser.add_argument("--list", action="store_true", help="show the scenarios, and what covers the other rows")
    asked = parser.parse_args()
    if unknown := set(asked.what) - set(known) - {one.row for one in known.values()}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --list shows what there is")
    return asked


def _list(known: dict[str, Scenario]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("row", "scenario", "what it shows", "needs", "short", "long"):
        table.add_column(column)
    for one in known.values():
        table.add_row(one.row, one.name, one.says, ", ".join(one.needs), str(one.short), str(one.long))
    for row, why in ELSEWHERE.items():
        table.add_row(row, "", why)
    return table


if __name__ == "__main__":
    main()
