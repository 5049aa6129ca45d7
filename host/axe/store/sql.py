"""The store of one processor in a SQL database: what is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, inspect, select, update

from ..errors import StoreCorrupt, StoreError, StoreForeign, StoreFormat, StoreMissing
from ..event import TopicPartition
from . import formats, tables, trimming
from .compiled import Compiled
from .control import CONTROL, to_control
from .database import Database
from .dead_letters import OPEN, chosen, first_of_each_key, letters_of
from .positions import POSITIONS, to_positions
from .protocol import ALIVE_S, Control, Going, Letters, StoredPosition
from .publishing import unpublished
from .text import clean
from .transaction import Transaction
from .value_cache import ValueCache

# Every few seconds of every processor, however quiet it is.
_LEAVE_ALL = Compiled(delete(tables.workers))
_LEAVE = Compiled(delete(tables.workers).where(tables.workers.c.worker == bindparam("worker_")))
_ARRIVE = Compiled(insert(tables.workers).values({one.name: bindparam(one.name) for one in tables.workers.c}))


class Store:
    """One processor's database. Every method may raise a StoreError that says what to do.

    ``cache_mb`` is how much of the values it keeps in memory from one batch to the next, ``undo_mb`` how much
    a wipe may drop and yet be undone.
    """

    def __init__(self, database: Database, processor: str, *, cache_mb: int = 0, undo_mb: int = 0) -> None:
        self.processor = processor
        self.location = database.location
        self.store_id = ""
        self._database = database
        self._cache = ValueCache(cache_mb * 2**20)
        self._undo_mb = undo_mb
        self._format = tables.FORMAT

    # --- opening

    def open(self, *, version: int = 1, create: bool = True) -> None:
        """Open the database, make its tables if it is new, and refuse one that is not this processor's.

        Without ``create`` tables of an older format are read as they are, else they are brought to the present one.

        Raises:
            StoreMissing: it existed and is gone, or is not to be created.
            StoreForeign: it belongs to another store or another processor.
            StoreFormat: a newer axe wrote it.
            StoreCorrupt: it cannot be read.
        """
        self.store_id = self._database.connect(create=create)
        # Asked before looking: somebody may be making the tables at this moment.
        had_tables = self._database.is_registered()
        with self._database.read() as connection:
            names = inspect(connection).get_table_names()
            row = connection.execute(select(tables.processor)).first() if tables.processor.name in names else None
        if row is None:
            if had_tables:
                message = f"{self.location} holds no processor: it was cut short or emptied; restore it from a backup"
                raise StoreCorrupt(message)
            if not create:
                message = f"{self.processor} has not run yet: {self.location} is empty"
                raise StoreMissing(message)
            if others := sorted(name for name in names if not name.startswith(tables.PREFIX)):
                # A wipe would drop them.
                message = f"{self.location} is not axe's: it holds {', '.join(others[:5])}; move it away"
                raise StoreForeign(message)
            self._make_tables(version)
        else:
            self._check_identity(row)
            self._format = row.format
            if create and row.format < tables.FORMAT:
                self._bring_up()
        if create:
            self._database.registered()

    def _make_tables(self, version: int) -> None:
        with self.begin() as transaction:
            connection = transaction.connection
            transaction.settle()
            tables.metadata.create_all(connection)
            # A worker and an operator may both have found nothing.
            if connection.execute(select(tables.processor)).first() is None:
                row = {"processor": self.processor, "version": version, "format": tables.FORMAT, "paused": 0}
                row |= {"store_id": self.store_id, "status": "stopped"}
                connection.execute(insert(tables.processor).values(row))
            transaction.commit()

    def _bring_up(self) -> None:
        with self.begin() as transaction:
            transaction.settle()
            formats.bring_up(transaction.connection)
            transaction.commit()
        self._format = tables.FORMAT

    def _check_identity(self, row: Row[Any]) -> None:
        if row.format > tables.FORMAT:
            message = f"{self.location} has format {row.format}, this axe knows {tables.FORMAT}; install the newer axe"
            raise StoreFormat(message)
        if row.processor != self.processor:
            message = (
                f"{self.location} is the database of the processor {row.processor}, not of {self.processor}; "
                "put back the right one"
            )
            raise StoreForeign(message)
        if row.store_id != self.store_id:
            message = (
                f"{self.location} belongs to the store {row.store_id}, but lies in the store {self.store_id}; "
                "it was copied here: put back the right one"
            )
            raise StoreForeign(message)

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        self._cache.clear()
        self._database.close()

    # --- reading, which disturbs no writer

    def control(self) -> Control:
        """Read what is set about the processor."""
        (row,) = self._database.glance(CONTROL)
        return to_control(row)

    def positions(self) -> dict[TopicPartition, StoredPosition]:
        """Read every partition's position."""
        return to_positions(self._database.glance(POSITIONS))

    def values(self, key: str | None = None) -> dict[str, Any]:
        """Read the values, or that of one key."""
        statement = select(tables.values.c.key, tables.values.c.value).order_by(tables.values.c.key)
        if key is not None:
            statement = statement.where(tables.values.c.key == key)
        with self._database.read() as connection:
            return {name: json.loads(text) for name, text in connection.execute(statement)}

    def dead_letters(
        self, *, only: int | None = None, limit: int | None = None, which: Letters | None = None
    ) -> list[dict[str, Any]]:
        """Read the dead letters in the order of their rejection, or the one with an id."""
        statement = letters_of(self._format).where(*chosen(which or Letters()))
        if only is not None:
            statement = statement.where(tables.dead_letters.c.id == only)
        if limit is not None:
            statement = statement.limit(limit)
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]  # noqa: SLF001 # its public name

    def unpublished_letters(self, *, limit: int, size: int, but: Sequence[int] = ()) -> list[dict[str, Any]]:
        """Read the first dead letters that a topic is to have yet, in the order of their ids."""
        with self._database.read() as connection:
            found = trimming.within(connection.execute(unpublished(limit=limit, but=but)).all(), size)
            ids = tuple(number for number, _ in found)
            rows = connection.execute(letters_of(self._format).where(*chosen(Letters(ids=ids)))) if ids else ()
            return [dict(row._mapping) for row in rows]  # noqa: SLF001

    def count_dead_letters(self) -> int:
        """Count the dead letters that wait for somebody, or for a worker."""
        letters = tables.dead_letters
        statement = select(func.count()).select_from(letters).where(letters.c.status.in_(OPEN))
        with self._database.read() as connection:
            return int(connection.scalar(statement) or 0)

    def count_going_letters(self, *, until: str | None, rows: int | None) -> Going:
        """Count the dead letters that are too old or too many, as ``trim_dead_letters`` would delete them."""
        with self._database.read() as connection:
            return trimming.count(connection, until=until, rows=rows, format_=self._format)

    def first_of_each_key(self) -> list[tuple[str, int, bytes, int]]:
        """Return topic, partition and key of those of them that have a key, and the first offset of each."""
        with self._database.read() as connection:
            return first_of_each_key(connection)

    def history(self) -> list[dict[str, Any]]:
        """Read what was done by hand, and what came of it, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.audit).order_by(tables.audit.c.id))
            return [dict(row._mapping) for row in rows]  # noqa: SLF001

    def workers(self) -> list[dict[str, Any]]:
        """Read who works on the processor, by their own account."""
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(select(tables.workers))]  # noqa: SLF001

    def why_final(self) -> str | None:
        """Say why a wipe of now could not be undone; None where it could."""
        return self._database.why_final(self._undo_mb * 2**20) if self._undo_mb else "`undo_mb` is 0"

    # --- writing

    def renew(self) -> None:
        """Go on with a new connection: one that a hook kept is closed."""
        self._cache.clear()
        self._database.renew()

    def begin(self) -> Transaction:
        """Begin the one write transaction; leave it as a context manager."""
        return Transaction(self._database, self._cache)

    def set_status(
        self, status: str, last_error: str | None = None, *, worker: str | None = None, unless_directed: bool = False
    ) -> None:
        """Write what the processor is doing; an error that led to it replaces the last one, "" leaves none."""
        values: dict[str, str | None] = {"status": status}
        if last_error is not None:
            values["last_error"] = clean(last_error) or None
        statement = update(tables.processor).values(values)
        if unless_directed:
            statement = statement.where(tables.processor.c.pending.is_(None), tables.processor.c.paused == 0)
        if worker is not None:
            fresh = tables.timestamp(datetime.now(UTC) - timedelta(seconds=ALIVE_S))
            owned_by_others = select(tables.offsets.c.owner).join(
                tables.workers, tables.workers.c.worker == tables.offsets.c.owner
            )
            owned_by_others = owned_by_others.where(
                tables.offsets.c.owner != worker, tables.workers.c.heartbeat_at > fresh
            )
            statement = statement.where(~owned_by_others.exists())
        with self.begin() as transaction:
            transaction.connection.execute(statement)
            transaction.commit()

    def heartbeat(self, worker: str, host: str, pid: int, status: str, *, alone: bool) -> None:
        """Write that a worker is there; ``alone`` removes what dead workers left."""
        with self.begin() as transaction:
            if alone:
                transaction.run(_LEAVE_ALL)
            else:
                transaction.run(_LEAVE, worker_=worker)
            row = {"worker": worker, "host": host, "pid": pid, "status": status, "heartbeat_at": tables.timestamp()}
            transaction.run(_ARRIVE, **row)
            transaction.commit()

    def leave(self, worker: str) -> None:
        """Take a worker's row out."""
        with self.begin() as transaction:
            transaction.run(_LEAVE, worker_=worker)
            transaction.commit()

    def trouble(self, error: BaseException) -> StoreError | None:
        """Name the trouble of the database itself behind an error, if that is what it is."""
        return self._database.trouble(error)
