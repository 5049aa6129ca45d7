"""Bugs, planted into the product at run time in a process whose environment asks for one: does the oracle notice?

Each replaces one function of the product by what somebody might have written.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple


class Bug(NamedTuple):
    """What is wrong, how to plant it, and the ordeals that have to bring it to light."""

    says: str
    plant: Callable[[], None]
    ordeals: tuple[str, ...]


BUGS: dict[str, Bug] = {}


def bug(says: str, *ordeals: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a function that plants a bug."""

    def enter(plant: Callable[[], None]) -> Callable[[], None]:
        BUGS[plant.__name__.replace("_", "-")] = Bug(says, plant, ordeals)
        return plant

    return enter


def plant_what_is_asked_for() -> None:
    """Plant the bug that ``AXE_TEST_PLANTED`` names, if it names one."""
    if name := os.environ.get("AXE_TEST_PLANTED"):
        BUGS[name].plant()


@bug("the position is committed in a transaction of its own, before the effects", "deaths-in-a-batch")
def position_first() -> None:
    from axe.store.transaction import Transaction

    advance = Transaction.advance

    def early(self: Any, moves: Any, owner: str) -> None:
        advance(self, moves, owner)
        driver = self.connection.connection.driver_connection
        driver.commit()
        driver.execute("BEGIN IMMEDIATE")

    Transaction.advance = early  # type: ignore[method-assign]


@bug("the position is committed in a transaction of its own, after the effects", "deaths-after-a-commit")
def position_last() -> None:
    from axe.store.transaction import Transaction

    advance, commit = Transaction.advance, Transaction.commit

    def later(self: Any, moves: Any, owner: str) -> None:
        self.late = {**getattr(self, "late", {}), **moves}
        self.late_owner = owner

    def twice(self: Any) -> None:
        late = getattr(self, "late", {})
        _and_then(self, commit, (lambda: advance(self, late, self.late_owner)) if late else None)

    Transaction.advance, Transaction.commit = later, twice  # type: ignore[method-assign]


def _and_then(
    transaction: Any, commit: Callable[[Any], None], more: Callable[[], object] | None, place: str = "after_commit"
) -> None:
    """Commit, and do something else in another transaction; the process may die in between."""
    from axe.failpoints import failpoint

    commit(transaction)
    if more is not None:
        failpoint(place)
        transaction._connection = transaction._database.begin()
        transaction._cursor = transaction._state = None
        transaction._moved = {}
        more()
        commit(transaction)


@bug("dead letters are written in a transaction of their own", "deaths-at-a-rejection")
def letters_outside() -> None:
    from axe.store.transaction import Transaction

    add, commit = Transaction.add_dead_letter, Transaction.commit

    def later(self: Any, rejection: Any, blocked_by: Any) -> None:
        self.late = [*getattr(self, "late", []), (rejection, blocked_by)]

    def twice(self: Any) -> None:
        late = getattr(self, "late", [])
        _and_then(self, commit, (lambda: [add(self, *one) for one in late]) if late else None, place="in_reject")

    Transaction.add_dead_letter, Transaction.commit = later, twice  # type: ignore[method-assign]


@bug("values are written in a transaction of their own, after the commit", "deaths-after-a-commit")
def values_after_the_commit() -> None:
    from axe.store.state import State
    from axe.store.transaction import Transaction

    commit, write = Transaction.commit, State.write

    def twice(self: Any) -> None:
        state = self._state
        if state is None or not self._moved:
            commit(self)
            return
        live, stored, driver = state._live, state._stored, state._driver

        def late() -> None:
            state._live, state._stored, state._driver = live, stored, driver
            write(state)

        State.write = lambda _: None  # type: ignore[method-assign]
        try:
            _and_then(self, commit, late)
        finally:
            State.write = write  # type: ignore[method-assign]

    Transaction.commit = twice  # type: ignore[method-assign]


@bug("batches look neither at the epoch nor at what is pending", "wipe-at-the-end")
def forget_the_epoch() -> None:
    from sqlalchemy import bindparam, update

    from axe import batch, upkeep
    from axe.store import sql, tables, transaction
    from axe.store.compiled import Compiled

    at = tables.offsets.c
    there = at.topic == bindparam("topic_"), at.partition == bindparam("partition_")
    moved = update(tables.offsets).where(*there, at.position == bindparam("seen"))
    transaction.ADVANCE = Compiled(moved.values(position=bindparam("to"), updated_at=bindparam("now")))
    to_positions = transaction.to_positions

    def whatever_epoch(rows: Any) -> Any:
        return {at: row._replace(epoch=_Same(row.epoch)) for at, row in to_positions(rows).items()}

    transaction.to_positions = sql.to_positions = whatever_epoch
    batch.obey = upkeep.obey = lambda control: None  # type: ignore[attr-defined]


class _Same(int):
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@bug("positions are moved by whoever sees them, without owner and epoch", "zombie-that-nobody-overtook")
def forget_the_fence() -> None:
    from axe.store import transaction

    forget_the_epoch()
    to_positions = transaction.to_positions

    def whoevers(rows: Any) -> Any:
        return {at: row._replace(owner=_Anybody(row.owner or "")) for at, row in to_positions(rows).items()}

    transaction.to_positions = whoevers


class _Anybody(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@bug("a worker that lost the partitions takes them again, though their owner is alive", "zombie")
def forget_the_owner() -> None:
    from axe.presence import Presence

    Presence.is_lost = lambda self: False  # type: ignore[method-assign]


@bug("a rollback commits", "peace")
def swallow_the_rollback() -> None:
    from axe.store.sqlite.database import SqliteDatabase

    rollback = SqliteDatabase.rollback

    def kept(self: Any) -> None:
        self._driver.commit()
        rollback(self)

    SqliteDatabase.rollback = kept  # type: ignore[method-assign]


@bug("an event that fails is passed over", "failures")
def skip_after_an_error() -> None:
    from axe.batch import Batches

    process = Batches._process_isolated

    def skipping(self: Any, records: Any) -> Any:
        if process(self, records) is not None:
            self._reading._waiting = self._reading._waiting[1:]

    Batches._process_isolated = skipping  # type: ignore[method-assign]


@bug("what was fetched and not done does not come again", "failures")
def never_put_back() -> None:
    from axe.reading import Reading

    Reading.put_back = lambda self, records: None  # type: ignore[method-assign]


@bug("values that were kept in memory outlive a rollback", "failures")
def keep_the_cache() -> None:
    from axe.store.value_cache import ValueCache

    ValueCache.clear = lambda self: None  # type: ignore[method-assign]


@bug("a commit that was lost counts as done", "short-runs")
def lose_commits() -> None:
    from axe.store.connection import concluded
    from axe.store.sqlite.database import SqliteDatabase

    commit = SqliteDatabase.commit

    def sure(self: Any, connection: Any) -> None:
        if random.random() < 0.3:
            self._driver.rollback()
            concluded(connection)
            self._lock.release()
        else:
            commit(self, connection)

    SqliteDatabase.commit = sure  # type: ignore[method-assign]


def _begin_beside(step: int) -> None:
    from axe.reading import Reading

    hold = Reading.hold

    def beside(self: Any, held: Any) -> None:
        hold(self, held)
        self._source.assign({at: max(0, position + step) if position else 0 for at, position in self.next.items()})

    Reading.hold = beside  # type: ignore[method-assign]


@bug("a restart begins one event too far", "peace")
def seek_too_far() -> None:
    _begin_beside(1)


@bug("a restart applies the last event again", "peace")
def apply_the_last_again() -> None:
    _begin_beside(-1)


@bug("what a wipe leaves to be done is not done", "wipe")
def ignore_what_is_pending() -> None:
    from axe.adoption import Adoption

    run = Adoption._run_pending
    Adoption._run_pending = lambda self, transaction, pending: run(self, transaction, None)  # type: ignore[method-assign]


@bug("a refused event keeps its effects", "peace")
def keep_what_is_refused() -> None:
    from axe.store.transaction import Transaction

    Transaction.undo_event = Transaction.keep_event  # type: ignore[method-assign]


@bug("dead letters are forgotten", "peace")
def forget_the_letters() -> None:
    from axe.store.transaction import Transaction

    Transaction.add_dead_letter = lambda self, rejection, blocked_by: None  # type: ignore[method-assign]


@bug("a database that is gone is made anew", "gone")
def begin_anew_in_silence() -> None:
    from axe.store.sqlite.register import Register

    Register.has = lambda self, processor: False  # type: ignore[method-assign]
