"""What people do to a processor: reset, pause, resume, retry, discard. One function each, one transaction in the store.

What takes it back is in ``undo``.

They work beside a running worker, which sees the change with its next commit or within a second, and
run no code of the plugin: what a plugin has to do about a reset, its worker runs.
"""

from __future__ import annotations

import getpass
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .errors import AxeError
from .event import TopicPartition
from .failpoints import failpoint
from .letters import BLOCKED, DISCARDED, REJECTED, RESET, RETRY, numbers
from .store import KeepsWiped, Letters, Reversible, Store, Transaction
from .targets import refuse_to_leave

_ACTIONS = {RETRY: "retry", DISCARDED: "discard"}


def reset(
    store: Store, targets: Mapping[TopicPartition, int], *, wipe: bool = False, reason: str | None = None
) -> dict[TopicPartition, int | None]:
    """Move positions, and with ``wipe`` drop what the plugin built; returns the positions before.

    The epoch goes up, so that a batch that is under way loses its compare-and-set and counts for nothing. Dead
    letters of events that are read again are those of the stream from now on, and no longer to be retried.

    Raises:
        ConfigError: a wipe that would leave the position of a partition; nothing is changed.
    """
    with store.begin() as transaction:
        _, is_all = transaction.move_by_hand(targets)
        # As committed, and nobody else may write them any more: while we waited for its rows a worker may have.
        rows = store.positions()
        before = {at: rows[at].position if at in rows else None for at in targets}
        if wipe and not is_all:
            refuse_to_leave(set(rows) - set(targets))
        # Not before: on PostgreSQL another operator, or a worker, may write until this one has the row.
        transaction.set_control({"last_error": None})
        control = store.control()
        values: dict[str, object] = {}
        values["pending"] = "wipe" if wipe or control.pending == "wipe" else "reset"
        if control.status == "failed":
            values["status"] = "stopped"
        if is_all:
            # No position is left that was stored for another cluster.
            values["cluster_id"] = None
        transaction.set_control(values)
        was = {**control._asdict(), "positions": [(*at, rows.get(at)) for at in sorted(targets)]}
        if wipe:
            was |= _wipe(store, transaction)
        changed = let_come_again(transaction, before, targets)
        _audit_reset(transaction, reason, before, targets, changed, was)
        failpoint("before_commit")
        transaction.commit()
    failpoint("after_commit")
    return before


def why_final(store: Store) -> str | None:
    """Say why a wipe could not be undone; None where it could."""
    return store.why_final() if isinstance(store, KeepsWiped) else "where its state lies nothing is kept of it"


def _wipe(store: Store, transaction: Transaction) -> dict[str, str | None]:
    """Wipe, and return what is kept for an undo, or why nothing is."""
    final, kept = why_final(store), None
    if isinstance(transaction, Reversible):
        kept = transaction.set_aside(keep=final is None)
    transaction.wipe()
    return {"kept": kept, "final": final}


def _audit_reset(
    transaction: Transaction,
    reason: str | None,
    before: Mapping[TopicPartition, int | None],
    after: Mapping[TopicPartition, int],
    changed: Mapping[str, Iterable[int]],
    was: Mapping[str, object],
) -> None:
    """Note a reset, with what its undo needs beside the positions."""
    letters_before = {status: numbers(ids) for status, ids in changed.items()}
    marked: dict[str, list[int]] = {}
    for status, ids in changed.items():
        marked.setdefault(marked_as(status), []).extend(ids)
    action = "reset and wipe" if "kept" in was else "reset"
    letters_after = {status: numbers(ids) for status, ids in marked.items()}
    transaction.audit(
        who(),
        action,
        reason,
        {**as_audited(before), **letters_before, "was": was},
        {**as_audited(after), **letters_after},
    )


def marked_as(status: str) -> str:
    """Return what a reset makes of dead letters of a status, where it changes them; see ``let_come_again``."""
    return REJECTED if status == RESET else RESET


def let_come_again(
    transaction: Transaction, before: Mapping[TopicPartition, int | None], targets: Mapping[TopicPartition, int]
) -> dict[str, list[int]]:
    """Give dead letters whose events are read again to those: retried as well, they would take effect twice.

    Returns the ids of those that this changed, by the status that they had.
    """
    changed: dict[str, list[int]] = {}
    for at, position in sorted(targets.items()):
        here, was = Letters(topic=at.topic, partition=at.partition), before[at]
        if was is not None and was < position:
            # An earlier reset was to bring these, and this one passes over them.
            passed = here._replace(statuses=(RESET,), begin=was, end=position)
            changed.setdefault(RESET, []).extend(transaction.mark_dead_letters(passed, REJECTED))
        # Those discarded, too: by their numbers they can be retried.
        for status in (REJECTED, RETRY, DISCARDED, BLOCKED):
            again = here._replace(statuses=(status,), begin=position)
            changed.setdefault(status, []).extend(transaction.mark_dead_letters(again, RESET))
    return {status: ids for status, ids in changed.items() if ids}


def pause(store: Store, reason: str | None = None) -> None:
    """Hold the processor after the batch at hand, over restarts too."""
    _set_paused(store, 1, "pause", reason)


def resume(store: Store, reason: str | None = None) -> None:
    """Let a paused or failed processor go on where it stopped."""
    _set_paused(store, 0, "resume", reason)


def _set_paused(store: Store, paused: int, action: str, reason: str | None) -> None:
    with store.begin() as transaction:
        control = transaction.control()
        values: dict[str, object] = {"paused": paused}
        if not paused:
            values["last_error"] = None
            if control.status in ("failed", "paused"):
                values["status"] = "stopped"
        transaction.set_control(values)
        before: dict[str, object] = {"paused": control.paused, "status": control.status}
        if control.last_error is not None and not paused:
            # Which the resume takes away.
            before["last_error"] = control.last_error
        transaction.audit(who(), action, reason, before, {"paused": bool(paused)})
        transaction.commit()


def retry(
    store: Store, which: Letters, *, reason: str | None = None, in_order: bool = False, dry_run: bool = False
) -> list[int]:
    """Have dead letters handled again by the worker, before its next batch; return their numbers.

    Of a group those that are ``rejected``; those that are named may be blocked or, unless ``in_order`` of their keys,
    discarded as well. One that waits for another of its key goes on waiting. With ``dry_run`` nothing is changed.

    Raises:
        AxeError: one that is named is neither; nothing is changed.
    """
    where = (REJECTED,) if which.ids is None else (REJECTED, BLOCKED) if in_order else (REJECTED, BLOCKED, DISCARDED)
    return _mark(store, which, RETRY, where, reason=reason, dry_run=dry_run)


def discard(store: Store, which: Letters, *, reason: str | None = None, dry_run: bool = False) -> list[int]:
    """Do without the events of dead letters that are missing in the state; return their numbers.

    What waits for one of them, by its key, is retried. Their rows stay, and one whose event is refused again is
    rejected again. With ``dry_run`` nothing is changed.

    Raises:
        AxeError: one that is named is neither; nothing is changed.
    """
    return _mark(store, which, DISCARDED, (REJECTED, RETRY, BLOCKED), reason=reason, dry_run=dry_run)


def import_letters(store: Store, letters: Sequence[Mapping[str, Any]]) -> int:
    """Add dead letters that are not there, by topic, partition and offset; return how many those were."""
    with store.begin() as transaction:
        added = sum(transaction.restore_dead_letter(letter) for letter in letters)
        if added:
            # A worker that keeps the order of keys has to know which of them wait now.
            transaction.direct(RETRY)
            transaction.audit(who(), "import", None, None, {"imported": added, "present": len(letters) - added})
            transaction.commit()
    return added


def _mark(
    store: Store, which: Letters, status: str, where: Collection[str], *, reason: str | None, dry_run: bool
) -> list[int]:
    """Give letters that have one of some statuses another one, in one transaction; with ``dry_run`` undo it."""
    with store.begin() as transaction:
        # Before the letters: a reset takes them in this order, too.
        transaction.direct(RETRY)
        marked = {one: transaction.mark_dead_letters(which._replace(statuses=(one,)), status) for one in where}
        ids = sorted(itertools.chain.from_iterable(marked.values()))
        if which.ids is not None and (left := sorted(set(which.ids) - set(ids))):
            raise _not_to_be_marked(store, left, status)
        if ids and not dry_run:
            before = {one: numbers(found) for one, found in marked.items() if found}
            after = {status: numbers(ids)}
            if status == DISCARDED and (released := transaction.release(ids)):
                after[RETRY] = numbers(released)
            transaction.audit(who(), _ACTIONS[status], reason, before, after)
            transaction.commit()
    return ids


def _not_to_be_marked(store: Store, left: list[int], status: str) -> AxeError:
    there = store.dead_letters(which=Letters(ids=tuple(left[:1])))
    what = f"the rejection {left[0]} of {store.processor}"
    if not there:
        return AxeError(
            f"{store.processor} has no rejection {left[0]}; `axe rejections list {store.processor}` lists them"
        )
    return AxeError(f"{what} is {there[0]['status']}, which cannot become {status}; leave it out")


def who() -> str:
    """Name the user, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def as_audited(positions: Mapping[TopicPartition, int | None]) -> dict[str, int | None]:
    """Write positions as the rows of ``axe_audit`` hold them."""
    return {str(at): position for at, position in positions.items()}
