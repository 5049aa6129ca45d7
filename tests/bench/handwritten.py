"""What somebody would write by hand: consume, decode, count, one SQLite transaction a batch.

The yardstick of the ``count`` and ``latency`` measurements. It has axe's fetch settings, and none of
what axe is for: no rejections, no retries, no reset, no second processor, no guard.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, TopicPartition

SETTINGS = {
    "group.id": "handwritten",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "check.crcs": True,
    "queued.min.messages": 20_000,
    "fetch.queue.backoff.ms": 1,
}
BATCH_EVENTS = 1000


def count_by_phase(brokers: str, topic: str, database: Path, *, end: int, committed: Callable[[int], None]) -> None:
    """Count until the position ``end`` is committed; ``committed`` hears of each commit's position."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE IF NOT EXISTS counts (phase TEXT PRIMARY KEY, value TEXT NOT NULL)")
    db.execute("CREATE TABLE IF NOT EXISTS position (topic TEXT PRIMARY KEY, position INTEGER NOT NULL)")
    row = db.execute("SELECT position FROM position WHERE topic = ?", (topic,)).fetchone()
    position = 0 if row is None else row[0]
    counts = {phase: json.loads(value) for phase, value in db.execute("SELECT phase, value FROM counts")}
    decode = msgspec.json.Decoder().decode
    consumer = Consumer({**SETTINGS, "bootstrap.servers": brokers})
    consumer.assign([TopicPartition(topic, 0, position)])
    while position < end:
        # Waiting for the first alone: consume(n, timeout) waits for all n.
        first = consumer.poll(0.25)
        if first is None:
            continue
        messages = [first, *consumer.consume(BATCH_EVENTS - 1, 0)]
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(message.error())
            phase = decode(message.value())["phase"]
            counts[phase] = counts.get(phase, 0) + 1
        position = messages[-1].offset() + 1
        db.execute("BEGIN IMMEDIATE")
        db.executemany("REPLACE INTO counts VALUES (?, ?)", [(phase, json.dumps(n)) for phase, n in counts.items()])
        db.execute("REPLACE INTO position VALUES (?, ?)", (topic, position))
        db.execute("COMMIT")
        committed(position)
    consumer.close()
    db.close()


def stamped(times: list[tuple[float, int]]) -> Callable[[int], None]:
    """Note when each position was committed."""
    return lambda position: times.append((time.perf_counter(), position))
