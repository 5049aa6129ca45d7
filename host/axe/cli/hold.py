"""``axe pause`` and ``axe resume``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .session import Session, table

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="The processors.")]


def pause(ctx: typer.Context, names: Names) -> None:
    """Hold processors after the batch at hand, over restarts too."""
    from .. import operations

    session: Session = ctx.obj
    rows = []
    for name in session.require_known(names):
        # One that never ran gets its database now: the word has to be kept somewhere.
        with session.store(name, create=True) as store:
            assert store is not None
            operations.pause(store)
        rows.append({"name": name, "paused": True})
    _show(session, rows)


def resume(ctx: typer.Context, names: Names) -> None:
    """Let paused or failed processors go on where they stopped."""
    from .. import operations

    session: Session = ctx.obj
    rows = []
    for name in session.require_known(names):
        with session.store(name) as store:
            if store is not None:
                operations.resume(store)
        rows.append({"name": name, "paused": False})
    _show(session, rows)


def _show(session: Session, rows: list[dict[str, Any]]) -> None:
    lines = [(row["name"], "paused" if row["paused"] else "resumed") for row in rows]
    session.show({"processors": rows}, table(("processor", ""), lines))
