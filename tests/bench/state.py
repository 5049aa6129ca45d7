"""What each way to keep state costs an event: ``python -m tests.bench.state``; the figures of docs/state.md.

CPU time of the whole process, without what an event costs whose handler does nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import axe
from axe.sources.memory import memory_log

from .events import PHASES, event

EVENTS = 10_000
ROUNDS = 3

metadata = MetaData()
counts = Table("counts", metadata, Column("phase", Text, primary_key=True), Column("n", Integer, nullable=False))
prepared = text("UPDATE counts SET n = n + 1 WHERE phase = :phase")


class _Base(DeclarativeBase):
    pass


class _Count(_Base):
    __tablename__ = "counts"
    phase: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]


def _nothing(_event: axe.Event, _state: axe.State) -> None:
    pass


def _mapping(event: axe.Event, state: axe.State) -> None:
    phase = event.value["phase"]
    state[phase] = state.get(phase, 0) + 1


def _mapping_new_key(event: axe.Event, state: axe.State) -> None:
    state[event.value["id"]] = 1


def _cursor(event: axe.Event, state: axe.State) -> None:
    state.cursor.execute("UPDATE counts SET n = n + 1 WHERE phase = ?", (event.value["phase"],))


def _connection_text(event: axe.Event, state: axe.State) -> None:
    state.connection.execute(prepared, {"phase": event.value["phase"]})


def _connection_core(event: axe.Event, state: axe.State) -> None:
    phase = event.value["phase"]
    state.connection.execute(update(counts).where(counts.c.phase == phase).values(n=counts.c.n + 1))


def _session(event: axe.Event, state: axe.State) -> None:
    row = state.session.get_one(_Count, event.value["phase"])
    row.n += 1


WAYS: dict[str, Callable[[axe.Event, axe.State], None]] = {
    "nothing": _nothing,
    "mapping, four keys": _mapping,
    "mapping, a new key each": _mapping_new_key,
    "cursor": _cursor,
    "connection, text()": _connection_text,
    "connection, Core": _connection_core,
    "session": _session,
}


class _Handler:
    topics = ("events",)

    def __init__(self, way: Callable[[axe.Event, axe.State], None]) -> None:
        self._way = way

    @axe.hookimpl
    def on_start(self, state: axe.State, settings: dict[str, Any]) -> None:
        metadata.create_all(state.connection)
        state.cursor.executemany("INSERT INTO counts VALUES (?, 0)", [(phase,) for phase in PHASES])

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        self._way(event, state)


def _cost_us(way: str) -> float:
    app = axe.App({"source": "memory:bench-state", "state": "memory:"})
    app.processors.add(id="bench", handler=_Handler(WAYS[way]))
    started = time.process_time()
    app.start(until_end=True)
    if app.processors["bench"].offset != EVENTS:
        raise SystemExit(f"{way}: it did not come to the end")
    return (time.process_time() - started) / EVENTS * 1e6


def measure() -> dict[str, float]:
    """Return the CPU microseconds that each way adds to an event; ``nothing`` is the event itself."""
    log = memory_log("bench-state")
    for number in range(EVENTS):
        log.append("events", event(number))
    found = {way: statistics.median(_cost_us(way) for _ in range(ROUNDS)) for way in WAYS}
    nothing = found["nothing"]
    return {
        "an event whose handler does nothing": round(nothing, 1),
        **{way: round(cost - nothing, 1) for way, cost in found.items() if way != "nothing"},
    }


if __name__ == "__main__":
    for way, cost in measure().items():
        print(f"{way:40}{cost:>8} µs")
