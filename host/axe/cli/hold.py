"""``axe pause`` and ``axe resume``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .session import Session, table

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="The processors.")]


def pause(ctx: typer.Context, names: Names) -> int:
    """Hold processors after the batch at hand, over restarts too."""
    from .. import operations

    session: Session = ctx.obj

    def hold(name: str) -> None:
        # One that never ran gets its database now: the word has to be kept somewhere.
        with session.store(name, create=True) as store:
            assert store is not None
            operations.pause(store)

    return _done(session, names, hold, paused=True)


def resume(ctx: typer.Context, names: Names) -> int:
    """Let paused or failed processors go on where they stopped."""
    from .. import operations

    session: Session = ctx.obj

    def let_go(name: str) -> None:
        with session.store(name) as store:
            if store is not None:
                operations.resume(store)

    return _done(session, names, let_go, paused=False)


def _done(session: Session, names: list[str], work: Callable[[str], None], *, paused: bool) -> int:
    """Do it to each of them, show those where it was done, and return the exit code."""
    known = session.require_known(names)
    failed = session.each(known, work)
    rows = [{"name": name, "paused": paused} for name in known if name not in failed]
    lines = [(row["name"], "paused" if row["paused"] else "resumed") for row in rows]
    session.show({"processors": rows}, table(("processor", ""), lines))
    return 1 if failed else 0
