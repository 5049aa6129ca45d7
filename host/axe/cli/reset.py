"""``axe reset``: move positions, with a plan first."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import ConfigError
from .session import Session, table

if TYPE_CHECKING:
    from ..event import TopicPartition
    from ..targets import Target

_DURATION = re.compile(r"-(?:\d+(?:\.\d+)?[wdhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms])")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_LARGEST_OFFSET = 2**63


class _Plan(NamedTuple):
    """What is to happen to one processor."""

    name: str
    version: int
    before: dict[TopicPartition, int | None]
    after: dict[TopicPartition, int]
    final: str | None
    """Why `axe undo` cannot take a wipe back; None where it can, and where there is none."""


def reset(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="The processors.")] = None,
    *,
    to: Annotated[
        str, typer.Option(metavar="WHERE", help="earliest, latest, an offset, an ISO time, or how long ago: -1h30m.")
    ],
    topic: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="All that read this topic, in this topic; instead of names.")
    ] = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Also drop what was built: values and tables.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
) -> None:
    """Move positions, while the processors run or not.

    The plan is shown first, from where to where. If one partition cannot go there, none is moved.
    """
    from .. import operations

    session: Session = ctx.obj
    if bool(names) == (topic is not None):
        message = "say which processors: either their names, or --topic TOPIC"
        raise ConfigError(message)
    target = parse_target(to)
    # All of them before the first is moved: where one cannot go there, none is.
    plans = [_plan(session, name, topic, target, wipe=wipe) for name in _chosen(session, names or [], topic)]
    rows = [row for plan in plans for row in _rows(plan, wipe=wipe)]
    moved = _table(rows)
    final = {plan.name: plan.final for plan in plans if plan.final is not None}
    document: dict[str, Any] = {"dry_run": dry_run, "wipe": wipe, "plan": rows, "final": final}
    for name, reason in final.items():
        session.warn(f"{name}: `axe undo` will not take this wipe back, because {reason}")
    if dry_run:
        session.show(document, moved)
        return
    if not yes:
        what = "Move these positions and drop what was built?" if wipe else "Move these positions?"
        session.ask(what, moved, does="this moves positions")
    for plan in plans:
        with session.store(plan.name, create=True, version=plan.version) as store:
            assert store is not None
            operations.reset(store, plan.after, wipe=wipe)
    session.show(document, *([moved] if yes else []))


def parse_target(text: str) -> Target:
    """Read what ``--to`` says.

    Raises:
        ConfigError: it is no place in a log.
    """
    from ..config import parse_start

    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < len(str(_LARGEST_OFFSET)):
        return int(text)
    if _DURATION.fullmatch(text):
        try:
            return sum((timedelta(**{_UNITS[u]: float(n)}) for n, u in _PART.findall(text)), timedelta())
        except OverflowError:
            message = f"--to {text} is longer ago than a clock can tell"
            raise ConfigError(message) from None
    try:
        return parse_start(text)
    except ConfigError:
        message = f"--to {text!r} is none of earliest, latest, an offset, an ISO time (2026-03-01T12:00:00Z), -1h30m"
        raise ConfigError(message) from None


def _chosen(session: Session, names: list[str], topic: str | None) -> list[str]:
    """Return the processors that are meant: those named, or every reader of the topic."""
    if topic is None:
        return session.require_known(names)
    readers = [name for name in session.known() if topic in {at for at, _ in _topics(session, name, quiet=True)}]
    if not readers:
        message = f"no processor reads the topic {topic}; `axe processors` lists the topics"
        raise ConfigError(message)
    return readers


def _topics(session: Session, name: str, *, quiet: bool = False) -> list[tuple[str, int]]:
    """List the topics of a processor with its version: from its positions, else by importing it aside."""
    with session.store(name) as store:
        stored = [] if store is None else sorted({at.topic for at in store.positions()})
        version = 1 if store is None else store.control().version
    if stored:
        return [(topic, version) for topic in stored]
    from ..discovery import FoundStatus

    found = session.installed().get(name)
    if found is None or found.status is not FoundStatus.FOUND:
        reason = "it is not installed" if found is None else str(found.reason)
    else:
        probed = session.probe([name])[name]
        if probed.reason is None:
            topics = dict.fromkeys(one.partition("/")[0] for one in probed.topics)
            return [(topic, probed.version or 1) for topic in topics]
        reason = probed.reason
    if quiet:
        return []
    message = f"{name} has not read anything yet, and what it reads cannot be told: {reason}"
    raise ConfigError(message)


def _plan(session: Session, name: str, only: str | None, target: Target, *, wipe: bool) -> _Plan:
    """Work out where one processor would go; nothing is changed."""
    from .. import operations, targets

    topics = _topics(session, name)
    with session.store(name) as store:
        stored = {} if store is None else store.positions()
        final = operations.why_final(store) if wipe and store is not None else None
    chosen = [one for one, _ in topics if only in (None, one)]
    after = targets.plan(session.source, stored, chosen, target, wipe=wipe)
    before = {at: stored[at].position if at in stored else None for at in after}
    return _Plan(name, topics[0][1], before, after, final)


def _rows(plan: _Plan, *, wipe: bool) -> list[dict[str, Any]]:
    return [
        {"processor": plan.name, "partition": str(at), "from": plan.before[at], "to": position, "wipe": wipe}
        for at, position in sorted(plan.after.items())
    ]


def _table(rows: list[dict[str, Any]]) -> Any:
    lines = [[*list(row.values())[:-1], "yes" if row["wipe"] else "no"] for row in rows]
    return table(("processor", "partition", "#from", "#to", "wipe"), lines)
