"""``axe history``: what was done by hand."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .session import Session, table

_NOT_SHOWN = ("error", "was")


def history(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only that of this processor.")] = None,
) -> int:
    """Show what was done by hand, the newest last.

    `axe undo ID` takes some of it back.
    """
    session: Session = ctx.obj
    rows: list[dict[str, Any]] = []

    def collect(one: str) -> None:
        with session.store(one) as store:
            found = [] if store is None else store.history()
        rows.extend({"processor": one, **read_event(row)} for row in found)

    failed = session.each(session.with_database() if name is None else session.require_known([name]), collect)
    # Those of one processor are in their order already, whatever its clocks say.
    if name is None:
        rows.sort(key=lambda row: row["at"])
    lines = [
        (
            f"{row['processor']}:{row['id']}",
            row["at"],
            row["action"],
            row["who"],
            row["reason"],
            _text(row["before"]),
            _text(row["after"]),
        )
        for row in rows
    ]
    columns = ("id", "at", "action", "who", "reason", "before", "after")
    session.show({"history": rows}, table(columns, lines))
    return 1 if failed else 0


def read_event(row: dict[str, Any]) -> dict[str, Any]:
    """Read the JSON of a row of the history."""
    return {**row, **{part: json.loads(row[part] or "null") for part in ("before", "after")}}


def _text(part: Any) -> str | None:
    """Write a part in one line; tracebacks, and what an undo needs, are in the document."""
    if not isinstance(part, dict):
        return None if part is None else json.dumps(part, ensure_ascii=False)
    return ", ".join(f"{key}: {value}" for key, value in part.items() if key not in _NOT_SHOWN and value is not None)
