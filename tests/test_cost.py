"""A guard: what an event costs in CPU time, of what a loop written by hand costs in the same process.

No benchmark; ``python -m tests.bench`` is. It is here so that a change that makes the loop a third slower is
noticed by whoever makes it. Everything in memory but SQLite; the best batch of some hundred on both sides, which
a busy machine leaves alone.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

import axe

from .bench.events import events
from .site import Site

EVENTS, BATCH, ROUNDS = 30_000, 1000, 30
# 2.7 to 3.1 when it was written, busy or not. A third more is 3.9.
AT_MOST = 3.7


def by_hand(values: list[bytes], database: Path) -> list[float]:
    """Decode, count, and one transaction of counts and position a batch; the seconds of CPU time of each."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE counts (phase TEXT PRIMARY KEY, value TEXT NOT NULL)")
    db.execute("CREATE TABLE position (topic TEXT PRIMARY KEY, position INTEGER NOT NULL)")
    decode, left, counts, position = msgspec.json.Decoder().decode, iter(values), dict[str, int](), 0
    spent = []
    began = time.thread_time()
    while batch := list(itertools.islice(left, BATCH)):
        for value in batch:
            phase = decode(value)["phase"]
            counts[phase] = counts.get(phase, 0) + 1
        position += len(batch)
        db.execute("BEGIN IMMEDIATE")
        db.executemany("REPLACE INTO counts VALUES (?, ?)", [(phase, json.dumps(n)) for phase, n in counts.items()])
        db.execute("REPLACE INTO position VALUES (?, ?)", ("t", position))
        db.execute("COMMIT")
        began, before = time.thread_time(), began
        spent.append(began - before)
    db.close()
    return spent


def by_axe(values: list[bytes], site: Site) -> list[float]:
    """Count the same with a processor; the seconds that its thread took for each whole batch."""
    commits: list[tuple[float, int]] = []

    class Counter:
        @axe.hookimpl
        def on_event(self, event: axe.Event, state: axe.State) -> None:
            phase = event.value["phase"]
            state[phase] = state.get(phase, 0) + 1

        @axe.hookimpl
        def on_commit(self, report: Any) -> None:
            commits.append((time.thread_time(), report.events))

    for value in values:
        site.log.append(site.topic, value)
    site.run(Counter())
    assert sum(site.values.values()) == len(values)
    return [ended - began for (began, _), (ended, events) in itertools.pairwise(commits) if events == BATCH]


def test_an_event_costs_no_more_of_a_loop_by_hand_than_it_did(tmp_path: Path, topic: str) -> None:
    values = list(events(EVENTS))
    hand, mine = [], []
    # A machine that is fast and slow by turns needs more rounds until both have had a fast batch.
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        hand += by_hand(values, folder / "hand.db")
        mine += by_axe(values, Site(folder, f"{topic}-{number}"))
        ratio = min(mine) / min(hand)
        if number > 2 and ratio < AT_MOST:
            break

    assert ratio < AT_MOST, f"{ratio:.2f}"
    assert ratio > 1, "then something is not measured"
