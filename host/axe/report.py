"""What a processor is doing, as a snapshot: positions, ends, lag, rejections, last error, workers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .errors import AxeError, TopicMissing
from .event import TopicPartition
from .sources import Bounds, Source
from .store import Store

_ALIVE_S = 15


def snapshot(store: Store, source: Source | None) -> dict[str, Any]:
    """Describe one processor; ``end`` and ``lag`` are None where the source cannot be asked."""
    control, stored = store.control(), store.positions()
    bounds = _bounds(source, list(stored))
    positions = []
    for at, row in sorted(stored.items()):
        end = bounds[at].end if at in bounds else None
        lag = None if end is None else max(0, end - row.position)
        shown = {"topic": at.topic, "partition": at.partition, "position": row.position, "end": end, "lag": lag}
        positions.append({**shown, "epoch": row.epoch, "event_at": row.event_at})
    lags = [shown["lag"] for shown in positions]
    now = datetime.now(UTC)
    workers = [
        {"pid": row["pid"], "host": row["host"], "heartbeat_at": row["heartbeat_at"]}
        for row in store.workers()
        if (now - datetime.fromisoformat(row["heartbeat_at"])).total_seconds() < _ALIVE_S
    ]
    status = control.status
    if control.paused:
        status = "paused"
    elif not workers and status in ("running", "retrying", "waiting"):
        # The last word of a worker that was killed.
        status = "stopped"
    return {
        "name": store.processor,
        "version": control.version,
        "status": status,
        "lag": None if None in lags else sum(lags),
        "lag_s": _lag_s(positions, now),
        "rejections": store.count_dead_letters(),
        "positions": positions,
        "last_error": control.last_error,
        "workers": workers,
        "database": store.location,
    }


def _bounds(source: Source | None, partitions: list[TopicPartition]) -> dict[TopicPartition, Bounds]:
    if source is None or not partitions:
        return {}
    found: dict[TopicPartition, Bounds] = {}
    for topic in sorted({at.topic for at in partitions}):
        try:
            there = set(source.partitions(topic))
            found |= source.bounds([at for at in partitions if at in there])
        except TopicMissing:
            continue
        except AxeError:
            break
    return found


def _lag_s(positions: list[dict[str, Any]], now: datetime) -> float | None:
    """Return the age of the last event before the oldest position that lags, in seconds."""
    behind = [shown for shown in positions if shown["lag"]]
    if not behind:
        return None if any(shown["lag"] is None for shown in positions) else 0.0
    ages = [(now - datetime.fromisoformat(shown["event_at"])).total_seconds() for shown in behind if shown["event_at"]]
    return round(max(ages), 3) if ages else None
