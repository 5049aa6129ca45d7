"""The proof of the harness: each planted bug is caught by the ordeals named for it, and none without a bug."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.services import ServiceMissing

from .ordeals import ORDEALS, caught
from .planted import BUGS
from .trial import Services


def prove() -> bool:
    """Plant each bug, show what came to light by which ordeal; tell whether all of them did."""
    services, table, good = Services(), Table(box=None, pad_edge=False), True
    console = Console(stderr=True, highlight=False)
    for column in ("planted", "ordeal", "verdict", "what came to light"):
        table.add_column(column)
    ordeals = [(name, ordeal) for name, bug in BUGS.items() for ordeal in bug.ordeals]
    try:
        for bug, ordeal in [*((None, ordeal) for ordeal in ORDEALS), *ordeals]:
            with tempfile.TemporaryDirectory(prefix="axe-planted-") as folder:
                try:
                    found = caught(ordeal, Path(folder), bug, lambda: services.postgresql)
                except ServiceMissing as missing:
                    table.add_row(bug or "nothing", ordeal, "skipped", str(missing))
                    continue
            is_right = (found is None) == (bug is None)
            good = good and is_right
            verdict = ("caught" if found else "held") if is_right else ("NOT CAUGHT" if bug else "BROKEN")
            table.add_row(bug or "nothing", ordeal, verdict, (found or "")[:90])
            console.print(f"{bug or 'nothing'} / {ordeal}: {verdict} {(found or '')[:300]}", markup=False)
    finally:
        services.close()
    Console(width=150, highlight=False).print(table)
    return good
