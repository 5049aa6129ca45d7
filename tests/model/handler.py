"""The processor of the machine: it does what each event says, by every way that a state has."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import text

import axe
from axe import Decision, Event, Failure, Reject, Rejection, State
from axe.errors import WorkerDied
from axe.event import CommitReport

from .model import TOMBSTONE, At, Policy, Spec, fails, kills, name


class Worker(Protocol):
    """What the handler knows of its worker."""

    policy: Policy
    lets_go_of_each: bool
    """Whether what one event set is no longer its own when the next one comes."""

    def died_at(self, at: At, offset: int) -> int:
        """How many workers died of the event itself."""

    def die(self, at: At, offset: int) -> None:
        """End here; raises."""

    def accused(self, at: At, offset: int) -> None:
        """An event is said to have killed its workers."""


class Handler:
    """``judged`` counts how often each event was found to have failed."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.judged: dict[tuple[At, int], int] = {}
        self.rejections: list[tuple[str, int, int]] = []
        self.events = self.calls = 0
        self._kept: list[Any] = []
        self._insert = ""

    @axe.hookimpl
    def on_start(self, state: State) -> None:
        self._postgresql = state.connection.dialect.name == "postgresql"
        number = "seq bigint GENERATED ALWAYS AS IDENTITY" if self._postgresql else "seq integer PRIMARY KEY"
        self._insert = f"INSERT INTO seen (topic, part, off) VALUES ({'%s, %s, %s' if self._postgresql else '?, ?, ?'})"
        for table in (
            f"seen ({number}, topic text, part integer, off bigint)",
            "one (n integer UNIQUE)",
            "parent (id integer PRIMARY KEY)",
            "child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        ):
            state.connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {table}")
        state.connection.exec_driver_sql("INSERT INTO one VALUES (1) ON CONFLICT DO NOTHING")

    @axe.hookimpl
    def on_reset(self, state: State) -> None:
        state["resets"] = state.get("resets", 0) + 1

    @axe.hookimpl
    def decide(self, failure: Failure) -> Decision | None:
        record = failure.record
        assert record is not None
        at, offset = (record.topic, record.partition), record.offset
        if isinstance(failure.exception, WorkerDied):
            self.worker.accused(at, offset)
        self.judged[at, offset] = self.judged.get((at, offset), 0) + 1
        spec = _spec_of(record.value)
        asked_at, answer = spec.get("answer", (0, "retry"))
        return Decision(answer) if failure.attempt == asked_at else None

    @axe.hookimpl
    def on_reject(self, rejection: Rejection) -> None:
        record = rejection.record
        self.rejections.append((record.topic, record.partition, record.offset))

    @axe.hookimpl
    def on_commit(self, report: CommitReport) -> None:
        self.events += report.events

    def handle(self, event: Event, state: State) -> None:
        self.calls += 1
        at, offset = (event.topic, event.partition), event.offset
        spec: Spec = TOMBSTONE if event.value is None else event.value
        for kept in self._kept:
            kept.append("long after")
        self._kept.clear()
        way = _WAYS[spec.get("way", "raise")] if self.judged.get((at, offset), 0) < self._fails(spec) else None
        if self.worker.died_at(at, offset) < kills(spec, self.worker.policy):
            self.worker.die(at, offset)
        if spec.get("early"):
            self._end(spec, way, state)
        # What it does to the event itself grows the list: it is not to be done.
        for op in list(spec["do"]):
            _OPS[op](self, at, offset, spec, state)
        self._end(spec, way, state)

    def _fails(self, spec: Spec) -> int:
        return fails(spec, self.worker.policy)

    def _end(self, spec: Spec, way: Callable[[Handler, State], None] | None, state: State) -> None:
        if way is not None:
            way(self, state)
        elif spec.get("end") == "reject":
            raise Reject("not wanted")

    # --- what events do

    def count(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state["n"] = state.get("n", 0) + 1

    def chain(self, at: At, offset: int, spec: Spec, state: State) -> None:
        key = f"chain {name(at)}"
        state[key] = [*state.get(key, []), offset]

    def nest(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state.setdefault("nest", {}).setdefault(name(at), []).append(offset)

    def set(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state[f"last {name(at)}"] = offset

    def remove(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state.pop(f"last {name(at)}", None)

    def keep(self, at: At, offset: int, spec: Spec, state: State) -> None:
        kept = [offset]
        state[f"kept {name(at)}"] = kept
        if self.worker.lets_go_of_each:
            self._kept.append(kept)

    def own(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state[f"own {name(at)}"] = spec["do"]
        spec["do"].append("count")

    def tmp(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state[f"tmp {name(at)} {offset % 3}"] = True

    def sweep(self, at: At, offset: int, spec: Spec, state: State) -> None:
        for key in state:
            if key.startswith(f"tmp {name(at)} "):
                del state[key]

    def cursor(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state.cursor.execute(self._insert, (*at, offset))

    def connection(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state.connection.execute(_INSERT, {"topic": at[0], "part": at[1], "off": offset})

    def session(self, at: At, offset: int, spec: Spec, state: State) -> None:
        state.session.execute(_INSERT, {"topic": at[0], "part": at[1], "off": offset})

    def undone(self, at: At, offset: int, spec: Spec, state: State) -> None:
        with state.connection.begin_nested() as nested:
            state.connection.execute(_INSERT, {"topic": at[0], "part": at[1], "off": offset})
            nested.rollback()

    # --- how they fail

    def raises(self, state: State) -> None:
        raise RuntimeError("sick")

    def exits(self, state: State) -> None:
        raise SystemExit("sick")

    def sets_what_is_no_json(self, state: State) -> None:
        state["sick"] = {"a set"}

    def breaks_sql(self, state: State) -> None:
        state.cursor.execute("INSERT INTO sick VALUES (1)")

    def leaves_a_savepoint(self, state: State) -> None:
        state.connection.begin_nested()

    def ends_the_transaction(self, state: State) -> None:
        with contextlib.suppress(Exception):
            state.cursor.execute(f"INSERT {'' if self._postgresql else 'OR ROLLBACK '}INTO one VALUES (1)")

    def is_refused_at_the_commit(self, state: State) -> None:
        state.cursor.execute("INSERT INTO child VALUES (99)")


_INSERT = text("INSERT INTO seen (topic, part, off) VALUES (:topic, :part, :off)")
SQL = ("cursor", "connection", "session", "undone")
_OPS = {
    op: getattr(Handler, op)
    for op in (
        *("count", "chain", "nest", "set", "remove", "keep", "own", "tmp", "sweep"),
        *SQL,
    )
}
_WAYS: dict[str, Callable[[Handler, State], None]] = {
    "raise": Handler.raises,
    "exit": Handler.exits,
    "value": Handler.sets_what_is_no_json,
    "sql": Handler.breaks_sql,
    "savepoint": Handler.leaves_a_savepoint,
    "end": Handler.ends_the_transaction,
    "commit": Handler.is_refused_at_the_commit,
}
WAYS = tuple(_WAYS)
SQL_WAYS = ("sql", "savepoint", "end", "commit")


class OneByOne(Handler):
    @axe.hookimpl
    def on_event(self, event: Event, state: State) -> None:
        self.handle(event, state)


class Many(Handler):
    @axe.hookimpl
    def on_batch(self, events: list[Event], state: State) -> None:
        while events:
            self.handle(events.pop(0), state)


def _spec_of(raw: bytes | None) -> Spec:
    try:
        spec: Spec = TOMBSTONE if raw is None else json.loads(raw)
    except ValueError:
        # Workers may be killed at what does not decode, too.
        return {}
    return spec
