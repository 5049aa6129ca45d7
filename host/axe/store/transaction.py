"""The one write transaction of a processor: positions, values, dead letters, the plugin's SQL; all or nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import delete, func, insert, update

from ..errors import PositionConflict, StoreError, TransactionEnded
from ..event import Record, Rejection, TopicPartition
from . import dead_letters, formats, tables
from .compiled import Compiled
from .connection import StateConnection
from .control import CONTROL, to_control
from .database import Database
from .positions import ADVANCE, POSITIONS, move_by_hand, note_attempt, put_back, take_over, to_positions
from .protocol import Control, Letters, Move, StoredPosition
from .publishing import note_published
from .state import State
from .text import clean
from .trimming import trim
from .value_cache import ValueCache


class Transaction:
    """One write transaction: positions, values, dead letters and the plugin's SQL, all or nothing."""

    def __init__(self, database: Database, cache: ValueCache) -> None:
        self._database = database
        self._cache = cache
        self._connection: StateConnection | None = database.begin()
        self._cursor: Any = None
        self._state: State | None = None
        self._moved: dict[TopicPartition, Move] = {}
        self._owner: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rollback()

    @property
    def connection(self) -> StateConnection:
        """The connection, for the host's own statements."""
        assert self._connection is not None
        return self._connection.entered()

    @property
    def state(self) -> State:
        """What handlers get."""
        if self._state is None:
            connection = self._connection
            assert connection is not None
            if not self._moved:
                # Whoever moved no position is told by nothing what others have written.
                self._bypass_cache()
            elif not self._database.is_undisturbed(connection):
                self._cache.clear()
            self._state = State(connection, lambda: self._database.cursor(connection), self._cache)
        return self._state

    def _bypass_cache(self) -> None:
        """Read values from the database in this transaction, and know nothing of them in the next one."""
        self._cache.clear()
        self._cache = ValueCache(0)
        if self._state is not None:
            self._state.bypass(self._cache)

    @contextmanager
    def plugin_code(self) -> Iterator[None]:
        """Guard the transaction while code of a plugin runs."""
        assert self._connection is not None
        with self._database.plugin_code(self._connection):
            yield

    def settle(self) -> None:
        """Keep other processes from making the same tables until the end of the transaction."""
        self._database.settle(self.connection)

    def control(self) -> Control:
        """Read what people have set; it cannot change before the end of this transaction on SQLite."""
        return to_control(self.run(CONTROL).fetchone())

    def take_over(
        self, starts: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None], owner: str
    ) -> dict[TopicPartition, StoredPosition]:
        """Own these partitions from now on; new ones begin at the given starts."""
        self._bypass_cache()
        return take_over(self.connection, starts, topic_ids, owner)

    def advance(self, moves: Mapping[TopicPartition, Move], owner: str) -> None:
        """Move positions by compare-and-set on (position, epoch, owner).

        In sorted order: two transactions that update the same rows in different orders deadlock.

        Raises:
            PositionConflict: another worker or an operator moved one since we read it.
        """
        now = tables.timestamp()
        self._owner = owner
        for at, move in sorted(moves.items()):
            before = self._moved.get(at)
            seen = move.seen if before is None else before.position
            given = {
                "topic_": at.topic,
                "partition_": at.partition,
                "seen": seen,
                "epoch_": move.epoch,
                "owner_": owner,
            }
            given |= {"to": move.position, "event_at_": move.event_at, "now": now}
            if self.run(ADVANCE, **given).rowcount != 1:
                message = f"the position of {at} is no longer {seen} of epoch {move.epoch}"
                raise PositionConflict(message)
            self._moved[at] = move

    def note_attempt(self, at: TopicPartition, offset: int, *, epoch: int, owner: str) -> int:
        """Note that an event is about to be tried; return how often it was, this time included."""
        return note_attempt(self.connection, at, offset, epoch=epoch, owner=owner)

    def add_dead_letter(self, rejection: Rejection, blocked_by: int | None = None) -> None:
        """Store an event that was refused, or waits for another one, with its bytes."""
        dead_letters.add_dead_letter(self.connection, rejection, blocked_by)

    def blocker(self, record: Record, known: int) -> int | None:
        """Return the offset of the first letter of a record's key that is open."""
        return dead_letters.blocker(self.connection, record, known)

    def release(self, ids: Iterable[int]) -> list[int]:
        """Mark for a retry what waits for letters that are settled: of each key the first."""
        return dead_letters.release(self.connection, ids)

    def block(self, record: Record) -> None:
        """Let those letters of a key that wait wait for this record, which is the first now."""
        dead_letters.block(self.connection, record)

    def restore_dead_letter(self, letter: Mapping[str, Any]) -> bool:
        """Add a dead letter as it is, unless there is one of the same event."""
        formats.require(self.connection, self._database.location)
        return dead_letters.restore_dead_letter(self.connection, letter)

    def mark_dead_letters(self, which: Letters, status: str) -> list[int]:
        """Give dead letters another status; return their ids in order.

        Raises:
            StoreFormat: the database is that of an older axe.
        """
        formats.require(self.connection, self._database.location)
        return dead_letters.mark_dead_letters(self.connection, which, status)

    def trim_dead_letters(self, *, until: str | None, rows: int | None, limit: int, size: int) -> dict[str, list[int]]:
        """Delete dead letters that are too old or too many; return their ids by the status that they had."""
        return trim(self.connection, until=until, rows=rows, limit=limit, size=size)

    def note_published(self, letters: Iterable[Mapping[str, Any]]) -> None:
        """Note that a topic has these dead letters, unless they were refused again."""
        note_published(self.connection, letters)

    def note_retry(self, number: int) -> int:
        """Note that the retry of a dead letter is about to be begun; return how often it was since it was marked."""
        return dead_letters.note_retry(self.connection, number)

    def move_by_hand(self, targets: Mapping[TopicPartition, int]) -> tuple[dict[TopicPartition, int | None], bool]:
        """Set positions whoever owns them; returns those before, and whether that was every one."""
        return move_by_hand(self.connection, targets)

    def set_control(self, values: Mapping[str, object]) -> None:
        """Change columns of the one row of ``axe_processor``."""
        self.connection.execute(update(tables.processor).values(dict(values)))

    def direct(self, pending: str) -> None:
        """Let the worker see to something, unless something is pending already."""
        # Without a condition: a row that is being adopted at this moment is waited for, and looked at after that.
        column = tables.processor.c.pending
        self.connection.execute(update(tables.processor).values(pending=func.coalesce(column, pending)))

    def adopted(self, *, version: int, cluster_id: str | None, status: str) -> None:
        """Note that what was pending is done, for which version and cluster the state is built, and the status."""
        values = {"pending": None, "version": version, "cluster_id": cluster_id, "status": status}
        self.connection.execute(update(tables.processor).values(values))

    def hold(self, *, paused: int, last_error: str) -> None:
        """Pause the processor, with the error that led to it."""
        self.connection.execute(
            update(tables.processor).values(paused=paused, status="paused", last_error=clean(last_error))
        )

    def wipe(self) -> None:
        """Drop the plugin's tables and the values; dead letters and history stay."""
        self._bypass_cache()
        self._database.drop_plugin_objects(self.connection)
        self.connection.execute(delete(tables.values))

    def put_back(self, rows: Mapping[TopicPartition, StoredPosition | None]) -> None:
        """Give partitions the position, topic id and event time of these rows; None forgets one."""
        put_back(self.connection, rows)

    def set_aside(self, *, keep: bool) -> str | None:
        """Keep what a wipe is about to drop, and nothing of earlier wipes."""
        return self._database.set_aside(self.connection, keep=keep)

    def restore(self, kept: str) -> None:
        """Drop what was built since a wipe, and put back what it dropped.

        Raises:
            StoreMissing: it is not kept any more.
        """
        self._bypass_cache()
        self._database.restore(self.connection, kept)

    def audit(self, who: str, action: str, reason: str | None, before: object, after: object) -> None:
        """Note what was done by hand."""
        row = {"at": tables.timestamp(), "who": who, "action": action, "reason": reason}
        row |= {"before": json.dumps(before), "after": json.dumps(after)}
        self.connection.execute(insert(tables.audit).values(row))

    # --- one event alone

    def savepoint(self) -> None:
        """Remember this point, so that the next event can be undone alone."""
        assert self._connection is not None
        if not self.state.isolated:
            # What an event writes is read again by the next one, which may find it undone.
            self._bypass_cache()
            self.state.isolated = True
        # Not a name that a handler could use as well.
        self._connection.savepoint = f"axe_{secrets.token_hex(4)}"
        self._execute(f"SAVEPOINT {self._connection.savepoint}")

    def keep_event(self) -> None:
        """Let the event since the savepoint stand.

        Raises:
            TransactionEnded: the handler ended the transaction.
            StateError: a value is not JSON.
        """
        self.check_open()
        assert self._connection is not None
        self._connection.host_writes = True
        try:
            self.state.write()
        finally:
            self._connection.host_writes = False
        # Else each further event would look at what all before it have touched.
        self.state.forget()
        self._release()

    def undo_event(self) -> None:
        """Undo everything since the savepoint.

        Raises:
            TransactionEnded: the transaction, and with it the savepoint, is gone.
        """
        assert self._connection is not None
        try:
            self.state.drop_session()
            while (nested := self._connection.get_nested_transaction()) is not None:
                nested.close()
            self.state.forget()
            self._execute(f"ROLLBACK TO SAVEPOINT {self._connection.savepoint}")
            self._release()
        except Exception as error:
            message = "the transaction ended while the handler ran"
            raise TransactionEnded(message) from error
        self.check_open()

    def _release(self) -> None:
        assert self._connection is not None
        self._execute(f"RELEASE SAVEPOINT {self._connection.savepoint}")
        # The connection lives on: a handler that knows the name could leave a savepoint open with it.
        self._connection.savepoint = None

    def trouble(self, error: BaseException) -> StoreError | None:
        """Name the trouble of the database behind an error out of a handler, if it is not the handler's own."""
        assert self._connection is not None
        return self._database.hurt(self._connection, error)

    def run(self, statement: Compiled, **given: Any) -> Any:
        """Run a statement of the host on the driver's own cursor, which is returned; the next one uses it again."""
        connection = self._connection
        assert connection is not None
        if self._cursor is None:
            self._cursor = connection.connection.cursor()
        return statement.run(self._cursor, connection.dialect, **given)

    def _execute(self, sql: str) -> None:
        cursor = self.connection.connection.cursor()
        try:
            cursor.execute(sql)
        finally:
            cursor.close()

    # --- the end

    def check_open(self) -> None:
        """Make sure that the driver is still in the transaction.

        Raises:
            TransactionEnded: it is not: the handler ended it, or swallowed an error that did.
        """
        assert self._connection is not None
        if not self._database.is_open(self._connection):
            message = (
                "the transaction was ended by the handler, or by a database error that it swallowed; "
                "let database errors pass and leave commit and rollback to axe"
            )
            raise TransactionEnded(message)

    def commit(self) -> None:
        """Write the values, verify that transaction and positions are ours, and commit.

        Raises:
            TransactionEnded, PositionConflict, StateError: nothing was committed.
        """
        assert self._connection is not None
        # Before anything is written: in a transaction that PostgreSQL has given up, writing fails with other words.
        self.check_open()
        met: Mapping[str, str | None] = {}
        if self._state is not None:
            self._state.write()
            met = self._state.end()
        if self._moved:
            stored = to_positions(self.run(POSITIONS))
            for at, move in self._moved.items():
                row = stored.get(at)
                if row is None or (row.position, row.epoch, row.owner) != (move.position, move.epoch, self._owner):
                    message = f"the position of {at} was changed inside its own transaction"
                    raise TransactionEnded(message)
        self._database.commit(self._connection)
        self._connection = None
        self._cache.keep(met)

    def rollback(self) -> None:
        """Undo everything; nothing to do after the commit."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._state is not None:
                self._state.end()
            # After a commit that raised, nobody knows what is stored.
            self._cache.clear()
            self._database.rollback()
