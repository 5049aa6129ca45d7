"""A log in memory, a place for the state, and an App of one processor: for tests of the loop."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, text

import axe
from axe import Event, Failure, Rejection, State
from axe.sources.memory import MemoryLog, memory_log


class Site:
    """A log in memory, a folder for the state, and an App of one processor ``p``."""

    def __init__(self, folder: Path, topic: str, *, state: str | None = None, **processor: Any) -> None:
        self.folder, self.topic = folder, topic
        self.state = state or f"sqlite:{folder / 'state'}"
        self.settings: dict[str, Any] = {"backoff_s": [0, 0], "retries": 2, **processor}
        self.host: dict[str, Any] = {}
        self.failures: list[Failure] = []
        self.rejections: list[Rejection] = []
        self.app: axe.App

    @property
    def log(self) -> MemoryLog:
        return memory_log(self.topic)

    def add(self, handler: Any, *, topics: tuple[str, ...] | None = None, **more: Any) -> axe.App:
        """Make an App anew, as a program that starts again does."""
        config = {
            "source": f"memory:{self.topic}",
            "state": self.state,
            "processors": {"p": self.settings},
            "host": self.host,
        }
        self.app = axe.App(config)
        self.app.on_error(self.failures.append)
        self.app.on_reject(self.rejections.append)
        self.app.processors.add(id="p", topics=topics or (self.topic,), handler=handler, **more)
        return self.app

    def run(self, handler: Any, **more: Any) -> None:
        """Read what is there."""
        self.add(handler, **more).start(until_end=True)

    @property
    def values(self) -> dict[str, Any]:
        return dict(self.app.processors["p"].state)

    @property
    def offset(self) -> int:
        return self.app.processors["p"].offset

    def sql(self, statement: str) -> list[Any]:
        """Ask the database from outside."""
        if self.state.startswith("sqlite:"):
            path = f"file:{self.folder}/state/p.db?mode=ro"
            with contextlib.closing(sqlite3.connect(path, uri=True)) as connection:
                return connection.execute(statement).fetchall()
        engine = create_engine(self.state, connect_args={"options": "-c search_path=axe_p"}, poolclass=NullPool)
        with engine.connect() as reading:
            return [tuple(row) for row in reading.exec_driver_sql(statement)]

    @property
    def seen(self) -> list[int]:
        return [row[0] for row in self.sql("SELECT n FROM seen ORDER BY at")]

    @property
    def dead_letters(self) -> list[tuple[int, str]]:
        return self.sql('SELECT "offset", reason FROM axe_dead_letters ORDER BY "offset"')

    @property
    def status(self) -> str:
        return str(self.sql("SELECT status FROM axe_processor")[0][0])

    def operate(self, operation: Callable[[Any], object]) -> None:
        """Do what a command in another process would do."""
        with self.app.opened(self.app.processors.bound()[0], create=False) as store:
            assert store is not None
            operation(store)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def count(event: Event, state: State) -> None:
    state["n"] = state.get("n", 0) + 1
    state.setdefault("offsets", []).append(event.offset)


class Keeping:
    """Notes each event in a table and a value, after what ``sick`` does to it."""

    def __init__(self, sick: Callable[[Event, State], object] = lambda event, state: None) -> None:
        self.sick = sick
        self.calls: list[str] = []

    @axe.hookimpl
    def on_start(self, state: State) -> None:
        self.calls.append("on_start")
        postgresql = state.connection.dialect.name == "postgresql"
        number = "bigint GENERATED ALWAYS AS IDENTITY" if postgresql else "integer PRIMARY KEY"
        self._insert = f"INSERT INTO seen (n) VALUES ({'%s' if postgresql else '?'})"
        state.connection.execute(text(f"CREATE TABLE IF NOT EXISTS seen (n integer, at {number})"))

    @axe.hookimpl
    def on_reset(self, state: State) -> None:
        self.calls.append("on_reset")

    @axe.hookimpl
    def on_stop(self) -> None:
        self.calls.append("on_stop")

    @axe.hookimpl
    def on_event(self, event: Event, state: State) -> None:
        state.cursor.execute(self._insert, (event.offset,))
        state["n"] = state.get("n", 0) + 1
        self.sick(event, state)


class KeepingOne(Keeping):
    """Has a row, too, that an event can collide with."""

    @axe.hookimpl
    def on_start(self, state: State) -> None:
        super().on_start(state)
        state.cursor.execute("CREATE TABLE IF NOT EXISTS one (n integer UNIQUE)")
        state.cursor.execute("INSERT OR IGNORE INTO one VALUES (1)")


class KeepingChild(Keeping):
    """Has a table, too, whose rows are refused at the commit and not before: they need a parent."""

    @axe.hookimpl
    def on_start(self, state: State) -> None:
        super().on_start(state)
        state.cursor.execute("CREATE TABLE IF NOT EXISTS parent (id integer PRIMARY KEY)")
        state.cursor.execute(
            "CREATE TABLE IF NOT EXISTS child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
        )


def at(*offsets: int, error: type[Exception] = RuntimeError) -> Callable[[Event, State], None]:
    def sick(event: Event, state: State) -> None:
        if event.offset in offsets:
            raise error(f"sick at {event.offset}")

    return sick
