"""The one write transaction of a processor: positions, values, dead letters, the plugin's SQL; all or nothing."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import PositionConflict, StoreError, TransactionEnded
from ..event import Rejection, TopicPartition
from . import tables
from .compiled import Compiled
from .connection import StateConnection
from .database import Database
from .protocol import Control, Move, StoredPosition
from .state import State
from .text import clean


class Transaction:
    """One write transaction: positions, values, dead letters and the plugin's SQL, all or nothing."""

    def __init__(self, database: Database, processor: str) -> None:
        self._database = database
        self._processor = processor
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
    def connection(self) -> Connection:
        """The connection, for the host's own statements."""
        assert self._connection is not None
        return self._connection

    @property
    def state(self) -> State:
        """What handlers get."""
        if self._state is None:
            connection = self._connection
            assert connection is not None
            self._state = State(connection, lambda: self._database.cursor(connection))
        return self._state

    @contextmanager
    def plugin_code(self) -> Iterator[None]:
        """Guard the transaction while code of a plugin runs."""
        assert self._connection is not None
        with self._database.plugin_code(self._connection):
            yield

    def settle(self) -> None:
        """Keep other processes from making the same tables until the end of the transaction."""
        assert self._connection is not None
        self._database.settle(self._connection)

    def control(self) -> Control:
        """Read what people have set; it cannot change before the end of this transaction on SQLite."""
        return _to_control(self._run(_CONTROL).fetchone())

    def take_over(
        self, starts: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None], owner: str
    ) -> dict[TopicPartition, StoredPosition]:
        """Own these partitions from now on; new ones begin at the given starts.

        The epoch goes up, so that nothing that an earlier owner has begun can be committed.
        """
        offsets = tables.offsets
        known = read_positions(self.connection)
        for at, start in sorted(starts.items()):
            topic_id = topic_ids.get(at.topic)
            taken: dict[str, Any] = {"owner": owner, "epoch": offsets.c.epoch + 1}
            if at in known:
                taken["topic_id"] = topic_id or known[at].topic_id
                self.connection.execute(update(offsets).where(*_is(at)).values(taken))
            else:
                values: dict[str, Any] = {"position": start, "epoch": 1, "owner": owner, "attempts": 0}
                values |= {"topic_id": topic_id}
                values |= {"topic": at.topic, "partition": at.partition, "updated_at": tables.timestamp()}
                # Another worker may make the row at this moment, and commit it before us.
                make = postgresql.insert if self.connection.dialect.name == "postgresql" else sqlite.insert
                made: Any = make(offsets).values(values)
                self.connection.execute(made.on_conflict_do_update(index_elements=["topic", "partition"], set_=taken))
        return {at: held for at, held in read_positions(self.connection).items() if at in starts}

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
            if self._run(_ADVANCE, **given).rowcount != 1:
                message = f"the position of {at} is no longer {seen} of epoch {move.epoch}"
                raise PositionConflict(message)
            self._moved[at] = move

    def add_dead_letter(self, rejection: Rejection) -> None:
        """Store a refused event with its bytes; one that was refused before updates its row."""
        letters, record = tables.dead_letters, rejection.record
        values: dict[str, Any] = {
            "key": record.key,
            "value": record.value,
            "headers": _headers_to_json(record.headers),
            "timestamp": tables.timestamp_of_ms(record.timestamp_ms),
            "reason": clean(rejection.reason),
            "error": None if rejection.error is None else clean(rejection.error),
            "rejected_at": tables.timestamp(),
            "status": "rejected",
        }
        place = (
            letters.c.topic == record.topic,
            letters.c.partition == record.partition,
            letters.c.offset == record.offset,
        )
        attempts = letters.c.attempts + rejection.attempts
        updated = self.connection.execute(update(letters).where(*place).values(**values, attempts=attempts))
        if updated.rowcount == 0:
            values |= {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            self.connection.execute(insert(letters).values(**values, attempts=rejection.attempts))

    def move_by_hand(self, targets: Mapping[TopicPartition, int]) -> tuple[dict[TopicPartition, int | None], bool]:
        """Set positions whoever owns them, and raise their epochs.

        Returns the positions before, and whether every stored partition was among the targets.
        """
        offsets = tables.offsets
        stored = read_positions(self.connection)
        for at, position in sorted(targets.items()):
            values: dict[str, Any] = {"position": position, "updated_at": tables.timestamp(), "attempts": 0}
            values |= {"topic_id": None, "event_at": None, "attempt_offset": None}
            if at in stored:
                values["epoch"] = offsets.c.epoch + 1
                self.connection.execute(update(offsets).where(*_is(at)).values(values))
            else:
                values |= {"topic": at.topic, "partition": at.partition, "epoch": 1}
                self.connection.execute(insert(offsets).values(values))
        before = {at: stored[at].position if at in stored else None for at in targets}
        return before, set(stored) <= set(targets)

    def set_control(self, values: Mapping[str, object]) -> None:
        """Change columns of the one row of ``axe_processor``."""
        self.connection.execute(update(tables.processor).values(dict(values)))

    def adopted(self, *, version: int, cluster_id: str | None) -> None:
        """Note that what was pending is done, and for which version and cluster the state is built now."""
        values = {"pending": None, "version": version, "cluster_id": cluster_id, "status": "running"}
        self.connection.execute(update(tables.processor).values(values))

    def hold(self, *, paused: int, last_error: str) -> None:
        """Pause the processor, with the error that led to it."""
        self.connection.execute(
            update(tables.processor).values(paused=paused, status="paused", last_error=clean(last_error))
        )

    def wipe(self) -> None:
        """Drop the plugin's tables and the values; dead letters and history stay."""
        assert self._connection is not None
        self._database.drop_plugin_objects(self._connection)
        self.connection.execute(delete(tables.values))

    def audit(self, who: str, action: str, reason: str | None, before: object, after: object) -> None:
        """Note what was done by hand."""
        row = {"at": tables.timestamp(), "who": who, "action": action, "reason": reason}
        row |= {"before": json.dumps(before), "after": json.dumps(after)}
        self.connection.execute(insert(tables.audit).values(row))

    # --- one event alone

    def savepoint(self) -> None:
        """Remember this point, so that the next event can be undone alone."""
        assert self._connection is not None
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

    def _run(self, statement: Compiled, **given: Any) -> Any:
        connection = self.connection
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
        if self._state is not None:
            self._state.write()
            self._state.end()
        if self._moved:
            stored = _to_positions(self._run(_POSITIONS))
            for at, move in self._moved.items():
                row = stored.get(at)
                if row is None or (row.position, row.epoch, row.owner) != (move.position, move.epoch, self._owner):
                    message = f"the position of {at} was changed inside its own transaction"
                    raise TransactionEnded(message)
        self._database.commit(self._connection)
        self._connection = None

    def rollback(self) -> None:
        """Undo everything; nothing to do after the commit."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._state is not None:
                self._state.end()
            self._database.rollback()


_row, _at = tables.processor.c, tables.offsets.c
_SELECT_CONTROL = select(_row.version, _row.cluster_id, _row.status, _row.paused, _row.pending, _row.last_error)
_SELECT_POSITIONS = select(_at.topic, _at.partition, _at.position, _at.epoch, _at.owner, _at.topic_id, _at.event_at)
_CONTROL = Compiled(_SELECT_CONTROL)
_POSITIONS = Compiled(_SELECT_POSITIONS)
_ADVANCE = Compiled(
    update(tables.offsets)
    .where(_at.topic == bindparam("topic_"), _at.partition == bindparam("partition_"))
    # A worker that lost the partition may still hold an open batch. Offsets have gaps, so the position alone
    # does not tell it from the new owner; owner and epoch do.
    .where(_at.position == bindparam("seen"), _at.epoch == bindparam("epoch_"), _at.owner == bindparam("owner_"))
    .values(
        position=bindparam("to"),
        event_at=func.coalesce(bindparam("event_at_"), _at.event_at),
        updated_at=bindparam("now"),
    )
)


def read_control(connection: Connection) -> Control:
    """Read the one row of ``axe_processor``."""
    return _to_control(connection.execute(_SELECT_CONTROL).one())


def _to_control(row: Any) -> Control:
    version, cluster_id, status, paused, pending, last_error = row
    return Control(version, cluster_id, status, bool(paused), pending, last_error)


def read_positions(connection: Connection) -> dict[TopicPartition, StoredPosition]:
    """Read every row of ``axe_offsets``."""
    return _to_positions(connection.execute(_SELECT_POSITIONS))


def _to_positions(rows: Iterable[Any]) -> dict[TopicPartition, StoredPosition]:
    return {TopicPartition(topic, partition): StoredPosition(*rest) for topic, partition, *rest in rows}


def headers_from_json(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """Read back the headers of a dead letter."""
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(text))


def _headers_to_json(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    return json.dumps([[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers])


def _is(at: TopicPartition) -> tuple[Any, Any]:
    return tables.offsets.c.topic == at.topic, tables.offsets.c.partition == at.partition
