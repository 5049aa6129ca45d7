"""Undo: what was done by hand is taken back, in one transaction of the store, and that goes into the history, too.

A reset can be taken back for as long as nothing was processed since: then the state is what it was, or, after a wipe,
what was kept of it. ``docs/how-to/reset.md`` says what that means for a plugin.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn

from .errors import AxeError
from .event import TopicPartition
from .failpoints import failpoint
from .letters import DISCARDED, RETRY, by_status, numbers
from .operations import marked_as, who
from .store import Letters, Reversible, Store, StoredPosition, Transaction

_PAUSES = ("pause", "resume")
_RESETS = ("reset", "reset and wipe")
_MOVES = (*_RESETS, "skip", "rebuild")
_MARKS = {"retry": RETRY, "discard": DISCARDED}


class Change(NamedTuple):
    """One thing that an undo changes."""

    what: str
    before: object
    after: object


class Undone(NamedTuple):
    """What an undo has changed, or would change, and what has to be known about it."""

    action: str
    changes: list[Change]
    notes: list[str]


class _History:
    """The history of a processor, as far as it was committed, and one row of it."""

    def __init__(self, store: Store, number: int) -> None:
        self._rows = store.history()
        self.name = store.processor
        self.number = number
        self.row = next((row for row in self._rows if row["id"] == number), None)
        self.taken_back = {
            _part(row, "before").get("undone"): row["id"] for row in self._rows if row["action"] == "undo"
        }

    @property
    def action(self) -> str:
        """What the row says was done."""
        assert self.row is not None
        return str(self.row["action"])

    @property
    def before(self) -> dict[str, Any]:
        """What was, before the row."""
        assert self.row is not None
        return _part(self.row, "before")

    @property
    def after(self) -> dict[str, Any]:
        """What the row made of it."""
        assert self.row is not None
        return _part(self.row, "after")

    def since(self, actions: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Return the rows behind it that still stand, the newest first; only those of these actions, if any is given.

        An undo is none: what it took back stands no longer, and that is all that it did.
        """
        rows = [row for row in reversed(self._rows) if row["id"] > self.number and row["action"] != "undo"]
        return [
            row for row in rows if row["id"] not in self.taken_back and (actions is None or row["action"] in actions)
        ]

    def refuse_if_undone(self) -> None:
        if self.number in self.taken_back:
            self.refuse(f"was taken back already, by {self.name}:{self.taken_back[self.number]}")

    def refuse(self, why: str) -> NoReturn:
        action = "" if self.row is None else f" ({self.action})"
        message = f"{self.name}:{self.number}{action} {why}"
        raise AxeError(message)


def undo(
    store: Store, number: int, *, reason: str | None = None, in_order: bool = False, dry_run: bool = False
) -> Undone:
    """Take back what a row of the history has done; with ``dry_run`` nothing is changed.

    ``in_order`` says that the processor keeps the order of each key: then a discard stands.

    Raises:
        AxeError: it cannot be taken back; says why.
    """
    history = _History(store, number)
    if history.row is None:
        history.refuse(f"is not in the history; `axe history {store.processor}` lists what is")
    action = history.action
    if in_order and action == "discard":
        history.refuse('cannot be taken back with `order = "key"`: later events of its keys may have taken effect')
    take_back = _pause if action in _PAUSES else _marks if action in _MARKS else _reset if action in _RESETS else None
    if take_back is None:
        history.refuse(_WHY_NOT.get(action, "is nothing that can be taken back"))
    with store.begin() as transaction:
        changes, notes = take_back(store, transaction, number)
        if not dry_run:
            before, after = _audited(changes, "before"), _audited(changes, "after")
            transaction.audit(who(), "undo", reason, {"undone": number, **before}, after)
            failpoint("before_commit")
            transaction.commit()
            failpoint("after_commit")
    return Undone(action, changes, notes)


_WHY_NOT = {
    "undo": "is an undo; do again what it took back",
    "import": "has added dead letters, which stay; discard those that are not wanted",
    "retried": "has taken effect in the state; `axe reset --wipe` builds that anew",
    "retry failed": "has changed nothing but the reason of a dead letter",
    "retry waits": "has changed nothing but what a dead letter waits for",
    "trim": "has deleted dead letters, as `dead_letters` says",
    "skip": "was done by `on_misfit`, because what it left is gone; `axe reset` moves the processor",
    "rebuild": "was done by `on_misfit`, because the state did not fit any more; `axe reset` moves the processor",
}


def _part(row: Mapping[str, Any], part: str) -> dict[str, Any]:
    found = json.loads(row[part] or "null")
    return found if isinstance(found, dict) else {}


def _pause(store: Store, transaction: Transaction, number: int) -> tuple[list[Change], list[str]]:
    """Take back a pause or a resume."""
    paused = bool(_History(store, number).before["paused"])
    # First of all: from here on nobody else sets anything, and what is committed is what is set.
    transaction.set_control({"paused": int(paused)})
    history, control = _History(store, number), store.control()
    history.refuse_if_undone()
    for row in history.since(_PAUSES):
        history.refuse(f"stands no longer: {store.processor}:{row['id']} ({row['action']}) came after it")
    action, name = history.action, store.processor
    if action == "resume" and not paused and history.before["status"] == "failed":
        history.refuse(f"let a processor go on that had failed; `axe pause {name}` holds it")
    if control.paused == paused:
        state = "paused" if paused else "not paused"
        history.refuse(f"left nothing to take back: {name} is {state}, as it was before")
    values: dict[str, object] = {}
    if not paused and history.before["status"] == "failed":
        # The pause has only hidden it.
        values["status"] = "failed"
    elif not paused and control.status == "paused":
        values["status"] = "stopped"
    if paused and "last_error" in history.before:
        values["last_error"] = history.before["last_error"]
    if values:
        transaction.set_control(values)
    return [Change("paused", control.paused, paused)], []


def _marks(store: Store, transaction: Transaction, number: int) -> tuple[list[Change], list[str]]:
    """Give dead letters the statuses back that a discard or a retry took, those to which nothing has happened since."""
    # Also where nothing is to be retried: in this order a reset takes what it changes.
    transaction.direct(RETRY)
    history = _History(store, number)
    history.refuse_if_undone()
    marked = _MARKS[history.action]
    meant = by_status(history.before)
    touched = {one for row in history.since() for ids in by_status(_part(row, "before")).values() for one in ids}
    changes = []
    left = 0
    for status, ids in meant.items():
        which = Letters(ids=tuple(one for one in ids if one not in touched), statuses=(marked,))
        found = transaction.mark_dead_letters(which, status) if which.ids else []
        left += len(ids) - len(found)
        if found:
            changes.append(Change(f"rejections {numbers(found)}", marked, status))
    if not changes:
        history.refuse(f"left nothing to take back: none of its dead letters is {marked} since then")
    note = f"{left} of its dead letters are left as they are: something has happened to them since"
    return changes, [note] if left else []


def _reset(store: Store, transaction: Transaction, number: int) -> tuple[list[Change], list[str]]:
    """Take back a reset: the positions, what was set, the dead letters, and after a wipe the state."""
    history = _History(store, number)
    was = history.before.get("was")
    if was is None:
        history.refuse("was done by an older axe, which did not note what an undo needs")
    if not isinstance(transaction, Reversible):
        history.refuse("cannot be taken back where its state lies: that kind of store knows no undo")
    rows = {
        TopicPartition(topic, partition): None if row is None else StoredPosition(*row)
        for topic, partition, row in was["positions"]
    }
    transaction.put_back(rows)
    # Nobody else writes the positions any more, nor, from here on, what is set: what is committed is what there is.
    transaction.set_control({"version": was["version"], "cluster_id": was["cluster_id"]})
    history = _History(store, number)
    history.refuse_if_undone()
    wiped = "kept" in was
    now = store.positions()
    _refuse_if_processed(history, now, wiped=wiped)
    changes = [
        Change(str(at), None if at not in now else now[at].position, None if row is None else row.position)
        for at, row in sorted(rows.items())
    ]
    if wiped:
        if was["kept"] is None:
            history.refuse(f"cannot be taken back: what it dropped was not kept, because {was['final']}")
        transaction.restore(was["kept"])
        changes.append(Change("state", "what was built since the wipe", "what the wipe dropped"))
    for status, ids in by_status(history.before).items():
        given = marked_as(status)
        if found := transaction.mark_dead_letters(Letters(ids=tuple(ids), statuses=(given,)), status):
            changes.append(Change(f"rejections {numbers(found)}", given, status))
    return changes, _put_back_control(store, transaction, was, wiped=wiped)


def _refuse_if_processed(history: _History, now: Mapping[TopicPartition, StoredPosition], *, wiped: bool) -> None:
    name, after = history.name, history.after
    for row in history.since(_MOVES):
        history.refuse(f"stands no longer: {name}:{row['id']} ({row['action']}) came after it; undo that first")
    for at, (position, *_) in sorted(now.items()):
        reset_to = after.get(str(at))
        if reset_to is None and wiped:
            history.refuse(f"cannot be taken back: {at} was taken up since, and may be in the state")
        if reset_to not in (None, position):
            moved = f"from {reset_to} to {position}"
            history.refuse(f"cannot be taken back: {at} was read on since, {moved}; `axe reset` moves it")
    for row in history.since(("retried",)):
        ids = ", ".join(numbers(ids) for ids in by_status(_part(row, "before")).values())
        history.refuse(f"cannot be taken back: dead letter {ids} was retried since, and is in the state")


def _put_back_control(store: Store, transaction: Transaction, was: Mapping[str, Any], *, wiped: bool) -> list[str]:
    """Let the worker do about it what is left to do; return what has to be known."""
    values: dict[str, object] = {"pending": was["pending"]}
    notes = []
    if store.control().pending != ("wipe" if wiped or was["pending"] == "wipe" else "reset"):
        # A worker has adopted the reset, hooks included.
        values["pending"] = "start" if wiped else "reset"
        notes.append(
            "a worker has seen the reset: on_start is called again, so that it finds the state of before"
            if wiped
            else "a worker has seen the reset: what on_reset did to the state stays, and it is called again"
        )
    if was["status"] in ("failed", "paused"):
        values["last_error"] = was["last_error"]
    if was["status"] == "failed":
        values["status"] = "failed"
    transaction.set_control(values)
    return notes


def _audited(changes: Iterable[Change], side: Literal["before", "after"]) -> dict[str, object]:
    """Write changes as the rows of the history have them: positions and what is set, of dead letters the ids."""
    found: dict[str, Any] = {}
    for change in changes:
        value = getattr(change, side)
        what, _, ids = change.what.partition(" ")
        if what != "rejections":
            found[change.what] = value
        else:
            found[value] = f"{found[value]}, {ids}" if value in found else ids
    return found
