"""What somebody would write by hand: consume, decode, keep, one SQLite transaction of state and position a batch.

The yardsticks of the measurements. They have axe's fetch settings, and none of what axe is for: no rejections, no
retries, no reset, no second processor, no guard. Each job is a function that makes a ``Keep``, which does the work of
one batch inside of its transaction; ``run`` is the loop around it.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import msgspec
from confluent_kafka import Consumer, Message, TopicPartition
from sqlalchemy import Column, Integer, MetaData, StaticPool, Table, Text, create_engine
from sqlalchemy.dialects.sqlite import insert

from .events import KEPT_TYPE, SCHEMA

SETTINGS = {
    "group.id": "handwritten",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "check.crcs": True,
    "queued.min.messages": 20_000,
    "fetch.queue.backoff.ms": 1,
}
BATCH_EVENTS = 1000

SAVE = "INSERT INTO kept VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
UPSERT = "INSERT INTO counts VALUES (?, 1) ON CONFLICT (phase) DO UPDATE SET n = n + 1"
counts_table = Table("counts", MetaData(), Column("phase", Text, primary_key=True), Column("n", Integer))
# Put together once: that is most of what Core costs.
core_upsert = insert(counts_table).values(n=1)
core_upsert = core_upsert.on_conflict_do_update(index_elements=["phase"], set_={"n": counts_table.c.n + 1})

Keep = Callable[[list[Message]], None]
decode_json = msgspec.json.Decoder().decode


def run(job: str, brokers: str, topic: str, database: Path, *, end: int, committed: Callable[[int], None]) -> None:
    """Do a job until the position ``end`` is committed; ``committed`` hears of each commit's position."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    db.execute("CREATE TABLE IF NOT EXISTS counts (phase TEXT PRIMARY KEY, n INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS position (topic TEXT PRIMARY KEY, position INTEGER NOT NULL)")
    row = db.execute("SELECT position FROM position WHERE topic = ?", (topic,)).fetchone()
    position = 0 if row is None else row[0]
    keep = JOBS[job](db)
    consumer = Consumer({**SETTINGS, "bootstrap.servers": brokers})
    consumer.assign([TopicPartition(topic, 0, position)])
    while position < end:
        # Waiting for the first alone: consume(n, timeout) waits for all n.
        first = consumer.poll(0.25)
        if first is None:
            continue
        messages = [first, *consumer.consume(BATCH_EVENTS - 1, 0)]
        position = messages[-1].offset() + 1
        if errors := list(filter(None, map(Message.error, messages))):
            raise RuntimeError(errors)
        db.execute("BEGIN IMMEDIATE")
        keep(messages)
        db.execute("REPLACE INTO position VALUES (?, ?)", (topic, position))
        db.execute("COMMIT")
        committed(position)
    consumer.close()
    db.close()


def count(db: sqlite3.Connection, decode: Callable[[bytes], Any] = decode_json) -> Keep:
    """Count by phase in memory, and write what is counted with each batch."""
    counts = {phase: json.loads(value) for phase, value in db.execute("SELECT key, value FROM kept")}

    def keep(messages: list[Message]) -> None:
        for value in map(Message.value, messages):
            phase = decode(value)["phase"]
            counts[phase] = counts.get(phase, 0) + 1
        db.executemany(SAVE, [(phase, json.dumps(n)) for phase, n in counts.items()])

    return keep


def count_kept_type(db: sqlite3.Connection) -> Keep:
    """As ``count``, of the events whose header names one type; the others are not decoded."""
    keep_all, wanted = count(db), [("type", KEPT_TYPE.encode())]
    return lambda messages: keep_all([message for message in messages if message.headers() == wanted])


def count_avro(db: sqlite3.Connection) -> Keep:
    """As ``count``, out of Avro."""
    schema = fastavro.parse_schema(SCHEMA)
    return count(db, lambda value: fastavro.schemaless_reader(io.BytesIO(value), schema, None))


def count_keys(db: sqlite3.Connection) -> Keep:
    """Count by id, with more ids than fit in memory: read the batch's, write them back."""

    def keep(messages: list[Message]) -> None:
        ids = [decode_json(value)["id"] for value in map(Message.value, messages)]
        marks = ", ".join("?" * len(ids))
        counts = dict(db.execute(f"SELECT key, value FROM kept WHERE key IN ({marks})", ids).fetchall())
        for id_ in ids:
            counts[id_] = f"{int(counts.get(id_, '0')) + 1:0100d}"
        db.executemany(SAVE, counts.items())

    return keep


def count_keys_in_memory(db: sqlite3.Connection) -> Keep:
    """As ``count_keys``, with all ids in memory from the start: nothing is read any more."""
    known: dict[str, str] = dict(db.execute("SELECT key, value FROM kept"))

    def keep(messages: list[Message]) -> None:
        ids = [decode_json(value)["id"] for value in map(Message.value, messages)]
        for id_ in ids:
            known[id_] = f"{int(known.get(id_, '0')) + 1:0100d}"
        db.executemany(SAVE, [(id_, known[id_]) for id_ in dict.fromkeys(ids)])

    return keep


def upsert(db: sqlite3.Connection) -> Keep:
    """One statement an event on the driver's cursor."""
    execute = db.cursor().execute

    def keep(messages: list[Message]) -> None:
        for value in map(Message.value, messages):
            execute(UPSERT, (decode_json(value)["phase"],))

    return keep


def upsert_core(db: sqlite3.Connection) -> Keep:
    """One statement an event through SQLAlchemy Core, which takes part in the loop's transaction."""
    # AUTOCOMMIT: it begins and commits nothing by itself.
    engine = create_engine("sqlite://", creator=lambda: db, poolclass=StaticPool, isolation_level="AUTOCOMMIT")
    execute = engine.connect().execute

    def keep(messages: list[Message]) -> None:
        for value in map(Message.value, messages):
            execute(core_upsert, {"phase": decode_json(value)["phase"]})

    return keep


JOBS: dict[str, Callable[[sqlite3.Connection], Keep]] = {
    "count": count,
    "kept-type": count_kept_type,
    "avro": count_avro,
    "keys": count_keys,
    "keys-in-memory": count_keys_in_memory,
    "cursor": upsert,
    "core": upsert_core,
}
