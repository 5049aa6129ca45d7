"""Latency: produce to committed, on a topic where little happens."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from ..services.kafka import KafkaBroker
from . import broker as bench
from . import installed
from .compare import Wanted, progress
from .events import event
from .stamps import Stamp

WARM_UP = 20
# Called for the stamps once everything is produced.
Told = Callable[[], dict[str, Any]]


def measure(kafka: KafkaBroker, *, rounds: int, count: int = 200, pause_s: float = 0.05) -> list[dict[str, Any]]:
    """Produce one event after the other and note when its position is committed; in turn, all rounds together."""
    ways = {"hand-written": _hand, "axe run": _axe}
    delays: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            found = _one_way(kafka, way, count + WARM_UP, pause_s)
            delays[name] += found
            shown = ", ".join(f"p{percent} {_percentile(found, percent):.2f} ms" for percent in (50, 99))
            progress.print(f"latency, round {number} of {rounds}, {name}: {shown}")
    rows = [
        Wanted(f"produce → committed, {name}, p{percent}", bound, is_limit=True, unit="ms").judged(
            _percentile(found, percent)
        )
        for name, found in delays.items()
        for percent, bound in ((50, None), (99, 10 if name == "axe run" else None))
    ]
    hand, axe = (_percentile(found, 99) for found in delays.values())
    return [*rows, Wanted("p99 of axe run, of hand-written", 2, is_limit=True).judged(axe / hand)]


def _percentile(delays: list[float], percent: int) -> float:
    return statistics.quantiles(delays, n=100)[percent - 1]


def _one_way(kafka: KafkaBroker, way: Callable[[dict[str, Any]], Any], count: int, pause_s: float) -> list[float]:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 0})
    with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
        settings = {"brokers": kafka.bootstrap, "topic": topic, "end": count, "folder": folder, "every": True}
        with way(settings) as told:
            waiting = threading.Event()
            waiting.wait(3)
            produced = []
            for number in range(count):
                produced.append(time.perf_counter())
                producer.produce(topic, event(number), partition=0)
                producer.flush(10)
                waiting.wait(pause_s)
            commits = [Stamp(*stamp) for stamp in told()["stamps"]]
    kafka.delete_topic(topic)
    if commits[-1].position < count:
        raise RuntimeError(f"only {commits[-1].position} of {count} events were committed")
    delays = []
    for offset, at in enumerate(produced):
        committed = next(stamp.at_s for stamp in commits if stamp.position > offset)
        delays.append((committed - at) * 1000)
    return delays[WARM_UP:]


@contextmanager
def _hand(settings: dict[str, Any]) -> Iterator[Told]:
    reader = bench.child("hand:count", settings)
    yield lambda: bench.result(reader)


@contextmanager
def _axe(settings: dict[str, Any]) -> Iterator[Told]:
    folder = Path(settings["folder"])
    host = installed.start(folder, settings["brokers"], [settings["topic"]], "OnEvent")
    try:
        yield lambda: installed.stop(folder, host)
    finally:
        if host.poll() is None:
            host.kill()
        host.wait()
