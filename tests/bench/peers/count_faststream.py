"""FastStream on confluent-kafka: count by phase into SQLite, an event or a batch at a time; acknowledged after it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path

import msgspec
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage
from marks import Marks, settings

UPSERT = "INSERT INTO counts VALUES (?, ?) ON CONFLICT (phase) DO UPDATE SET n = n + excluded.n"

asked = settings()
marks = Marks(asked["end"])
decode_json = msgspec.json.Decoder().decode
db = sqlite3.connect(Path(asked["folder"]) / "counts.db", isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE counts (phase TEXT PRIMARY KEY, n INTEGER)")
broker = KafkaBroker(asked["brokers"], config=asked["fetch"], apply_types=False)
app = FastStream(broker, logger=None)
given = {"group_id": asked["group"], "auto_offset_reset": "earliest", "ack_policy": AckPolicy.ACK}


async def decode(message: KafkaMessage) -> object:
    """Decode with the fastest decoder there is."""
    body = message.body
    return [decode_json(one) for one in body] if isinstance(body, list) else decode_json(body)


async def count(events: list[dict[str, str]]) -> None:
    """Count the events of a batch in one transaction."""
    counts = Counter(event["phase"] for event in events)
    db.execute("BEGIN IMMEDIATE")
    db.executemany(UPSERT, counts.items())
    db.execute("COMMIT")
    if marks.handle(len(events)):
        app.exit()


async def count_one(event: dict[str, str]) -> None:
    """Count one event in one transaction."""
    await count([event])


if asked["batch"]:
    broker.subscriber(asked["topic"], batch=True, max_records=1000, decoder=decode, **given)(count)
else:
    broker.subscriber(asked["topic"], decoder=decode, **given)(count_one)
asyncio.run(app.run())
marks.tell(counts=dict(db.execute("SELECT phase, n FROM counts")))
