"""Latency: produce to committed, on a topic where little happens."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import uuid
from typing import Any

from confluent_kafka import Producer

from ..services.kafka import KafkaBroker
from . import broker as bench
from .events import event

WARM_UP = 20


def measure(kafka: KafkaBroker, *, count: int = 200, pause_s: float = 0.05) -> dict[str, Any]:
    """Produce one event after the other and note when its position is committed."""
    return {way: _one_way(kafka, way, count + WARM_UP, pause_s) for way in ("hand", "axe")}


def _one_way(kafka: KafkaBroker, way: str, count: int, pause_s: float) -> dict[str, float]:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 0})
    with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
        settings = {"brokers": kafka.bootstrap, "topic": topic, "end": count, "folder": folder, "times": True}
        reader = bench.child(way, settings)
        waiting = threading.Event()
        waiting.wait(3)
        produced = []
        for number in range(count):
            produced.append(time.perf_counter())
            producer.produce(topic, event(number), partition=0)
            producer.flush(10)
            waiting.wait(pause_s)
        commits = bench.result(reader)["times"]
    kafka.delete_topic(topic)
    delays = []
    for offset, at in enumerate(produced):
        committed = next(moment for moment, position in commits if position > offset)
        delays.append((committed - at) * 1000)
    delays = sorted(delays[WARM_UP:])
    return {
        "p50_ms": round(statistics.median(delays), 2),
        "p99_ms": round(delays[int(len(delays) * 0.99)], 2),
        "max_ms": round(delays[-1], 2),
    }


def shown(summary: dict[str, Any]) -> str:
    """Write a summary as a table."""
    lines = ["latency, produce to committed, ms", f"{'':8}{'p50':>9}{'p99':>9}{'max':>9}"]
    lines += [f"{way:8}{one['p50_ms']:>9}{one['p99_ms']:>9}{one['max_ms']:>9}" for way, one in summary.items()]
    return "\n".join(lines)
