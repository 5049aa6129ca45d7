"""What a processor is doing, as a snapshot: positions, ends, lag, rejections, last error, workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import AxeError, TopicMissing
from .event import TopicPartition
from .sources import Bounds, Source
from .store import ALIVE_S, Control, Store

_CLOCK_SLACK_S = 2


def snapshot(store: Store, source: Source | None) -> dict[str, Any]:
    """Describe one processor.

    ``end`` and ``lag`` are None where the source cannot be asked, ``lag`` also before there are positions.
    """
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
        if _is_alive(row, now)
    ]
    return {
        "name": store.processor,
        "version": control.version,
        "status": _status(control, is_alive=bool(workers)),
        "lag": None if not lags or None in lags else sum(lags),
        "lag_s": _lag_s(positions, now),
        "rejections": store.count_dead_letters(),
        "positions": positions,
        "last_error": control.last_error,
        "workers": workers,
        "database": store.location,
    }


def status(store: Store) -> str:
    """Tell what a processor is doing, as ``snapshot`` does."""
    now = datetime.now(UTC)
    return _status(store.control(), is_alive=any(_is_alive(row, now) for row in store.workers()))


def _status(control: Control, *, is_alive: bool) -> str:
    if control.paused:
        return "paused"
    if not is_alive and control.status in ("running", "retrying", "waiting"):
        # The last word of a worker that was killed.
        return "stopped"
    return control.status


def _is_alive(worker: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a worker is there: by its heartbeat, or on this machine by its process.

    A handler that takes minutes keeps its worker from writing, and is no reason to call it stopped.
    """
    heartbeat = datetime.fromisoformat(worker["heartbeat_at"])
    if (now - heartbeat).total_seconds() < ALIVE_S:
        return True
    if worker["host"] != socket.gethostname():
        return False
    try:
        os.kill(worker["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    began = _began_at(worker["pid"])
    # One that began later has only got the same number.
    return began is None or began <= heartbeat.timestamp() + _CLOCK_SLACK_S


def _began_at(pid: int) -> float | None:
    """Return when a process began, in seconds since 1970; None where the system does not say (macOS)."""
    try:
        # The name of the command, in parentheses, may hold anything; the fields behind it are counted from 3.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(boot.split()[1]) + int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


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
    if not positions or any(shown["lag"] is None for shown in positions):
        return None
    behind = [shown for shown in positions if shown["lag"]]
    if not behind:
        return 0.0
    ages = [(now - datetime.fromisoformat(shown["event_at"])).total_seconds() for shown in behind if shown["event_at"]]
    return round(max(ages), 3) if ages else None
