"""``axe undo``: take back what was done by hand."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .session import Session, table

_REFERENCE = re.compile(r"(?:([^:]*):)?([0-9]{1,18})")


def undo(
    ctx: typer.Context,
    which: Annotated[
        str, typer.Argument(metavar="ID", help="As `axe history` shows it: NAME:NUMBER; the number alone may do.")
    ],
    *,
    why: Annotated[str | None, typer.Option(metavar="TEXT", help="What to write into the history.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
) -> None:
    """Take back a pause, a discard, a reset.

    Or a resume, or a retry that has not begun. A reset for as long as nothing was processed since. The plan is
    shown first.
    """
    from ..undo import undo as take_back

    session: Session = ctx.obj
    name, number = _found(session, which)
    in_order = session.config.processor(name).order == "key"
    with session.store(name) as store:
        if store is None:
            raise _unknown(which)
        plan = take_back(store, number, in_order=in_order, dry_run=True)
        rows = [{"what": one.what, "from": one.before, "to": one.after} for one in plan.changes]
        shown = table(("processor", "what", "from", "to"), [(name, *map(_text, row.values())) for row in rows])
        document: dict[str, Any] = {"processor": name, "id": number, "action": plan.action, "dry_run": dry_run}
        for note in plan.notes:
            session.warn(note)
        if not dry_run:
            if not yes:
                session.ask(f"Take {name}:{number} ({plan.action}) back?", shown, does="this takes something back")
            take_back(store, number, reason=why, in_order=in_order)
    session.show({**document, "changes": rows, "notes": plan.notes}, *([shown] if yes or dry_run else []))


def _text(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _found(session: Session, which: str) -> tuple[str, int]:
    """Read which row of whose history is meant.

    Raises:
        ConfigError: it is none, or there are several of that number.
    """
    read = _REFERENCE.fullmatch(which.strip())
    if read is None:
        message = f"{which[:100]!r} is no id of the history; `axe history` shows them, such as study-counter:3"
        raise ConfigError(message)
    number = int(read[2])
    if read[1] is not None:
        (name,) = session.require_known([read[1]])
        return name, number
    found = [(name, row["action"]) for name in session.with_database() for row in _rows(session, name, number)]
    if not found:
        raise _unknown(which)
    if len(found) > 1:
        choices = ", ".join(f"{name}:{number} ({action})" for name, action in found)
        message = f"{number} is in more than one history; say which one: {choices}"
        raise ConfigError(message)
    return found[0][0], number


def _rows(session: Session, name: str, number: int) -> list[dict[str, Any]]:
    with session.store(name) as store:
        return [] if store is None else [row for row in store.history() if row["id"] == number]


def _unknown(which: str) -> ConfigError:
    return ConfigError(f"{which} is in no history; `axe history` shows what is")
