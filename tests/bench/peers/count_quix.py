"""Quix Streams: count by phase, which is the record's key, in its state (RocksDB and a changelog topic)."""

from __future__ import annotations

from typing import Any

from marks import Marks, settings
from quixstreams import Application, State

asked = settings()
marks = Marks(asked["end"])
app = Application(
    broker_address=asked["brokers"],
    consumer_group=asked["group"],
    auto_offset_reset="earliest",
    processing_guarantee=asked["guarantee"],
    consumer_extra_config=asked["fetch"],
    state_dir=asked["folder"],
    loglevel="WARNING",
)


def count(_value: dict[str, Any], state: State) -> None:
    """Count one event."""
    state.set("n", state.get("n", 0) + 1)
    marks.handle()


events = app.topic(asked["topic"], key_deserializer="str", value_deserializer="json")
app.dataframe(events).update(count, stateful=True)
app.run(count=asked["end"], collect=False)
marks.tell()
