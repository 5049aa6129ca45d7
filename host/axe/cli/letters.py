"""``axe rejections retry`` and ``discard``: what becomes of dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .session import Session, table

if TYPE_CHECKING:
    from ..store import Letters, Store

_WHEN = {
    "paused": "retried once `axe resume {name}` lets it go on",
    "failed": "retried once `axe resume {name}` lets it go on",
    "stopped": "retried when it runs again",
    "running": "its worker retries them now",
    "retrying": "its worker retries them now",
    "waiting": "retried once what it waits for is there",
}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The processor.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Their numbers in `axe rejections list`.")]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="All that were rejected for this reason; the whole text.")
]
Topic = Annotated[str | None, typer.Option(metavar="TOPIC", help="All of this topic.")]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]
Why = Annotated[str | None, typer.Option(metavar="TEXT", help="What to write into the history.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which ones are meant and change nothing.")]


def retry(
    ctx: typer.Context,
    name: Name,
    ids: Ids = None,
    *,
    reason: Reason = None,
    topic: Topic = None,
    all_: All = False,
    why: Why = None,
    dry_run: DryRun = False,
) -> None:
    """Have events that were refused handled again, by the worker and before its next batch.

    In the handler's own transaction, so that each takes effect once; nothing is published. What is refused again
    stays rejected, for its new reason, and is not retried by itself.
    """
    from .. import operations

    session: Session = ctx.obj
    (name,) = session.require_known([name])
    which = which_ones(ids, reason, topic, all_=all_)
    found: list[int] = []
    note = "it has not run yet"
    in_order = session.config.processor(name).order == "key"
    with session.store(name) as store:
        if store is not None:
            found = operations.retry(store, which, reason=why, in_order=in_order, dry_run=dry_run)
            note = _note(store, found)
    show(session, name, found, {"dry_run": dry_run, "note": note})


def discard(
    ctx: typer.Context,
    name: Name,
    ids: Ids = None,
    *,
    reason: Reason = None,
    topic: Topic = None,
    all_: All = False,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
) -> None:
    """Do without events that were refused: they count no longer. What waits for them, by its key, is retried.

    Their dead letters stay. One whose event is refused again, after a reset, is rejected again.
    """
    from .. import operations
    from ..store import Letters

    session: Session = ctx.obj
    (name,) = session.require_known([name])
    which = which_ones(ids, reason, topic, all_=all_)
    with session.store(name) as store:
        found = [] if store is None else operations.discard(store, which, dry_run=True)
        letters = store.dead_letters(which=Letters(ids=tuple(found))) if store is not None and found else []
    plan = _by_reason(letters)
    shown = _table(name, plan)
    if found and not dry_run:
        if not yes:
            session.ask("Do without these events?", shown, does="this takes rejections off the list")
        with session.store(name) as store:
            assert store is not None
            # Those that were shown and no others, whatever was refused meanwhile.
            operations.discard(store, Letters(ids=tuple(found)), reason=why)
    document = {"processor": name, "rejections": found, "dry_run": dry_run, "plan": plan}
    session.show(document, *([shown] if yes or dry_run or not found else []))


def _by_reason(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids: dict[str, list[int]] = {}
    for letter in letters:
        ids.setdefault(letter["reason"], []).append(letter["id"])
    return [{"reason": reason, "rejections": found} for reason, found in ids.items()]


def _table(name: str, plan: list[dict[str, Any]]) -> Any:
    from ..letters import numbers

    lines = [(name, len(row["rejections"]), numbers(row["rejections"]), row["reason"]) for row in plan]
    return table(("processor", "#rejections", "ids", "reason"), lines)


def which_ones(ids: Sequence[int] | None, reason: str | None, topic: str | None, *, all_: bool) -> Letters:
    """Read which dead letters somebody means.

    Raises:
        ConfigError: nothing was said, or too much.
    """
    from ..store import Letters

    if sum((bool(ids), reason is not None or topic is not None, all_)) != 1:
        message = "say which rejections: either their numbers, or --reason TEXT and --topic TOPIC, or --all"
        raise ConfigError(message)
    return Letters(ids=tuple(dict.fromkeys(ids)) if ids else None, reason=reason, topic=topic)


def show(session: Session, name: str, found: list[int], more: dict[str, Any]) -> None:
    """Print what was done to which letters."""
    from ..letters import numbers

    line = (name, len(found), numbers(found) or None, more["note"])
    document = {"processor": name, "rejections": found, **more}
    session.show(document, table(("processor", "#rejections", "ids", ""), [line]))


def _note(store: Store, found: list[int]) -> str:
    from .. import report

    if not found:
        return "no rejection is meant"
    return _WHEN.get(report.status(store), _WHEN["stopped"]).format(name=store.processor)
