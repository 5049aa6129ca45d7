"""``axe status``: how far every processor is."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from ..errors import AxeError, ConfigError, StoreUnavailable
from .session import Session, console, table

_WATCH_S = 2.0


def status(
    ctx: typer.Context,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show what each processor does and how far it is.

    Status, positions, lag, rejections, last error and workers, also of processors that are no longer installed.
    """
    session: Session = ctx.obj
    if not watch:
        rows = snapshots(session)
        session.show({"processors": rows}, _table(rows))
        if not rows:
            session.warn("no processor is installed and none has a database")
        return
    if session.json:
        message = "--watch shows a table over and over, --json one document: leave one of them out"
        raise ConfigError(message)
    _watch(session)


def _watch(session: Session) -> None:
    from rich.live import Live

    if not sys.stdout.isatty():
        while True:
            session.show(None, _table(snapshots(session)))
            time.sleep(_WATCH_S)
    with Live(console=console(), auto_refresh=False, redirect_stderr=False) as live:
        while True:
            live.update(_table(snapshots(session)), refresh=True)
            time.sleep(_WATCH_S)


def snapshots(session: Session) -> list[dict[str, Any]]:
    """Describe every processor that is installed or has a database; imports nothing of them."""
    from ..discovery import FoundStatus
    from ..report import snapshot

    installed, rows = session.installed(), []
    source = session.reachable_source()
    for name in session.known():
        try:
            note = None
            with session.store(name) as store:
                if store is None:
                    row, note = _never_ran(name), "has not run yet"
                else:
                    row = snapshot(store, source)
        except AxeError as error:
            away = isinstance(error, StoreUnavailable)
            row = {**_never_ran(name), "status": "unassigned" if away else "failed", "last_error": str(error)}
            row |= {"lag": None, "lag_s": None}
        if name not in installed:
            note = "no plugin: it has a database, but is not installed"
        elif installed[name].status is not FoundStatus.FOUND:
            note = f"{installed[name]} is {installed[name].status.value}: {installed[name].reason}"
        rows.append({**row, "note": note})
    return rows


def _never_ran(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": None,
        "status": "stopped",
        "lag": None,
        "lag_s": None,
        "rejections": 0,
        "positions": [],
        "last_error": None,
        "workers": [],
        "database": None,
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    lines = []
    for row in rows:
        positions = ", ".join(f"{at['topic']}[{at['partition']}]@{at['position']}" for at in row["positions"])
        worker = ", ".join(f"{one['host']}:{one['pid']}" for one in row["workers"])
        said = "; ".join(filter(None, (row["last_error"], row["note"])))
        lag, lag_s = row["lag"], row["lag_s"]
        lines.append(
            (row["name"], row["status"], positions or None, lag, lag_s, row["rejections"], worker or None, said)
        )
    return table(("processor", "status", "positions", "#lag", "#lag s", "#rejections", "worker", "last error"), lines)
