"""Faust (faust-streaming): count by phase, which is the record's key, in a table (RocksDB and a changelog topic)."""

from __future__ import annotations

import os
import signal

import faust
from marks import Marks, settings

asked = settings()
marks = Marks(asked["end"])
app = faust.App(
    asked["group"],
    broker=f"kafka://{asked['brokers']}",
    store="rocksdb://",
    datadir=asked["folder"],
    processing_guarantee=asked["guarantee"],
    topic_partitions=1,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    # What is printed is the result.
    worker_redirect_stdouts=False,
)
events = app.topic(asked["topic"], key_serializer="raw", value_serializer="json")
counts = app.Table("counts", default=int, key_type=str, value_type=int)


@app.agent(events)
async def count(stream: faust.Stream) -> None:
    """Count one event after the other."""
    async for event in stream:
        counts[event["phase"]] += 1
        if marks.handle():
            marks.tell()
            # As an operator would; it commits what was handled.
            os.kill(os.getpid(), signal.SIGTERM)


faust.Worker(app, loglevel="ERROR").execute_from_commandline()
