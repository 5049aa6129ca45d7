"""What the machine drives: a database, and workers on it that die, lose their store or source, or meet others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from axe import TopicPartition, config
from axe.errors import SourceUnavailable, StoreUnavailable
from axe.parts import Parts
from axe.processor import Processor, Status
from axe.runner import Runner
from axe.sources import Fetched, Interrupted
from axe.sources.memory import MemoryLog, MemorySource
from axe.store import SqlStore, open_place

from .handler import Handler, Many, OneByOne
from .model import At, Letter, Policy

LOOP = 100


class Dead(Exception):
    """The worker was killed here: from now on it changes nothing any more."""


class Setup(NamedTuple):
    """How a worker is set up, as far as the model need not know."""

    batch: int
    cache_mb: int
    many: bool
    generous: bool


class Worker:
    """One process of a worker, as it were.

    It passes points: before a transaction begins, before and after the commit, before records are fetched. ``plan``
    says what happens at which of them; what needs the database for itself waits until no transaction is open.
    """

    def __init__(
        self, world: World, policy: Policy, setup: Setup, plan: dict[int, Callable[[Worker], None]] | None = None
    ) -> None:
        self.world, self.policy, self.plan = world, policy, dict(plan or {})
        self.is_dead = False
        self.outage = 0
        self.passed = 0
        self.lets_go_of_each = not setup.many
        self.handler: Handler = (Many if setup.many else OneByOne)(self)
        settings = {
            "on_failure": policy.on_failure,
            "retries": policy.retries,
            "backoff_s": [0, 0],
            "batch": {"events": setup.batch, "time_s": 1e6},
            "flood": {"share": 0.5, "events": policy.flood} if policy.flood else {"share": 1},
        }
        loaded = config.load({"source": "memory:", "state": "memory:", "processors": {world.name: settings}})
        parts = Parts(
            Processor(world.name, self.handler, topics=world.topics, version=1),
            self._store(setup.cache_mb),
            Source(world.memory, self, generous=setup.generous),
            loaded,
            alone=world.alone,
        )
        self.runner = Runner(parts, until_end=True)

    def _store(self, cache_mb: int) -> SqlStore:
        database: Any = self.world.place.database(self.world.name)
        begin, commit = database.begin, database.commit

        def begin_if_alive() -> Any:
            self.pass_point()
            return begin()

        def commit_if_alive(connection: Any) -> None:
            self.pass_point(inside=True)
            commit(connection)
            self.world.check()
            self.pass_point()

        database.begin, database.commit = begin_if_alive, commit_if_alive
        return SqlStore(database, self.world.name, cache_mb=cache_mb)

    def run(self) -> None:
        self.runner.run()

    @property
    def is_done(self) -> bool:
        return self.runner.status is Status.STOPPED and not self.is_dead

    def pass_point(self, *, inside: bool = False, fetches: bool = False) -> None:
        """Do what is planned for this point; those from the first fetch on are counted from ``LOOP``."""
        if self.is_dead or self.world.faults:
            raise Dead
        self.passed += 1
        if fetches:
            self.passed = max(self.passed, LOOP)
        for point in sorted(self.plan):
            if point < self.passed and not (inside and getattr(self.plan[point], "needs_the_database", False)):
                self.plan.pop(point)(self)
                if self.is_dead:
                    raise Dead

    # --- for the handler

    def died_at(self, at: At, offset: int) -> int:
        return self.world.killed.get((at, offset), 0)

    def die(self, at: At, offset: int) -> None:
        if not self.is_dead:
            self.world.killed[at, offset] = self.died_at(at, offset) + 1
            kill(self)
        raise Dead

    def accused(self, at: At, offset: int) -> None:
        # The first death of all makes those that follow count the next ones; where workers come beside each other,
        # a takeover does so, too, and who takes over cannot tell that the one before it lives on.
        world = self.world
        is_true = (
            world.deaths_at(at, offset) + world.takeovers >= 3 and world.deaths + world.takeovers >= 3 + world.alone
        )
        if not (self.is_dead or is_true):
            self.world.faults.append(AssertionError(f"{at}@{offset} is said to have killed three workers"))


# --- what can be planned


def kill(worker: Worker) -> None:
    worker.is_dead = True
    worker.world.deaths += 1
    worker.world.died()


def lose_the_store(worker: Worker) -> None:
    raise StoreUnavailable("the store is away")


def lose_the_source(worker: Worker) -> None:
    worker.outage = 2


def interrupt(worker: Worker) -> None:
    worker.outage = -1


class Source(MemorySource):
    """A log that may be away, and that may give more than it is asked for."""

    def __init__(self, log: MemoryLog, worker: Worker, *, generous: bool) -> None:
        super().__init__(log)
        self._worker = worker
        self._generous = generous

    def partitions(self, topic: str) -> list[TopicPartition]:
        self._look()
        return super().partitions(topic)

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        self._worker.pass_point(fetches=True)
        self._look()
        return super().fetch(events=max(events, 3) if self._generous else events, size=size, timeout_s=0)

    def _look(self) -> None:
        if self._worker.outage < 0:
            self._worker.outage = 0
            raise Interrupted
        if self._worker.outage:
            self._worker.outage -= 1
            raise SourceUnavailable("the source is away")


# --- what is stored


class Stored(NamedTuple):
    """Everything that one look at the database finds, in one snapshot."""

    positions: dict[At, int]
    epochs: dict[At, int]
    owners: dict[At, str | None]
    status: str
    paused: bool
    pending: str | None
    last_error: str | None
    values: dict[str, Any]
    rows: dict[At, list[int]]
    letters: dict[tuple[str, int, int], Letter]


_LOOKS = (
    "SELECT topic, partition, position, epoch, owner FROM axe_offsets",
    "SELECT status, paused, pending, last_error FROM axe_processor",
    "SELECT key, value FROM axe_values",
    'SELECT topic, partition, "offset", value, attempts FROM axe_dead_letters',
    "SELECT topic, part, off FROM seen ORDER BY seq",
)


class World:
    """One database, one log, and what is known about both beside the model."""

    def __init__(self, folder: Path, url: str, name: str, topics: tuple[str, ...], *, alone: bool) -> None:
        self.topics, self.alone = topics, alone
        self.folder, self.name = folder, name
        self.place = open_place(url, folder)
        self.memory = MemoryLog()
        self.faults: list[BaseException] = []
        self.killed: dict[tuple[At, int], int] = {}
        self.deaths = self.takeovers = 0
        self.check: Callable[[], None] = lambda: None
        self.died: Callable[[], None] = lambda: None
        self.deaths_at: Callable[[At, int], int] = lambda at, offset: 0
        self._reading: Any = None
        self._url = url

    def store(self) -> SqlStore:
        """Open the store as a command in another process does."""
        store = SqlStore(self.place.database(self.name), self.name)
        store.open(create=True)
        return store

    def look(self) -> Stored:
        """Read behind axe's back."""
        connection = self._connection()
        try:
            connection.execute("BEGIN")
            found = [connection.execute(sql).fetchall() for sql in _LOOKS[:-1]]
            rows = connection.execute(_LOOKS[-1]).fetchall() if self._has_table(connection) else []
        finally:
            connection.rollback()
        offsets, [(status, paused, pending, last_error)], values, letters = found
        seen: dict[At, list[int]] = {}
        for topic, partition, offset in rows:
            seen.setdefault((topic, partition), []).append(offset)
        return Stored(
            positions={(topic, partition): position for topic, partition, position, *_ in offsets},
            epochs={(topic, partition): epoch for topic, partition, _, epoch, _ in offsets},
            owners={(topic, partition): owner for topic, partition, *_, owner in offsets},
            status=status,
            paused=bool(paused),
            pending=pending,
            last_error=last_error,
            values={key: json.loads(text) for key, text in values},
            rows=seen,
            letters={
                (topic, partition, offset): Letter(None if raw is None else bytes(raw), attempts)
                for topic, partition, offset, raw, attempts in letters
            },
        )

    def _connection(self) -> Any:
        if self._reading is None:
            if self._url.startswith("sqlite:"):
                path = self.folder / self._url.removeprefix("sqlite:") / f"{self.name}.db"
                self._reading = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            else:
                dsn = self._url.replace("postgresql+psycopg", "postgresql")
                options = f"-c search_path=axe_{self.name} -c default_transaction_isolation=repeatable\\ read"
                self._reading = psycopg.connect(dsn, options=options, autocommit=True)
        return self._reading

    def _has_table(self, connection: Any) -> bool:
        if isinstance(connection, sqlite3.Connection):
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'seen'").fetchone()
        else:
            found = connection.execute("SELECT to_regclass('seen')").fetchone()
        return found is not None and found[0] is not None

    def close(self) -> None:
        """Leave nothing behind on a server that others use, too."""
        if self._reading is not None:
            if not self._url.startswith("sqlite:"):
                self._reading.execute(f"DROP SCHEMA axe_{self.name} CASCADE")
            self._reading.close()
