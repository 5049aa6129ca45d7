"""The broker of the measurements, filling its topics quickly, and children with the right surroundings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from ..services.kafka import KafkaBroker

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900.0
# As a broker in production, unlike that of the tests: the optimizing compiler, more memory.
JAVA_OPTIONS = ("-Xmx1g", "-XX:TieredStopAtLevel=4")


def topic_of(
    kafka: KafkaBroker,
    values: Iterable[bytes],
    *,
    key: Callable[[int], bytes] | None = None,
    header: Callable[[int], str] | None = None,
) -> str:
    """Make a topic with these events and return its name."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    fill(kafka.bootstrap, topic, values, key=key, header=header)
    return topic


def fill(
    brokers: str,
    topic: str,
    values: Iterable[bytes],
    *,
    key: Callable[[int], bytes] | None = None,
    header: Callable[[int], str] | None = None,
) -> None:
    """Append many events in big batches, uncompressed."""
    producer = Producer(
        {"bootstrap.servers": brokers, "linger.ms": 20, "batch.size": 500_000, "queue.buffering.max.messages": 200_000}
    )
    for number, value in enumerate(values):
        given: dict[str, Any] = {}
        if key is not None:
            given["key"] = key(number)
        if header is not None:
            given["headers"] = [("type", header(number).encode())]
        while True:
            try:
                producer.produce(topic, value, partition=0, **given)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("events were not written")


def environment(*first: Path) -> dict[str, str]:
    """Return the environment in which a child finds axe, these modules, and what is in the folders given."""
    path = os.pathsep.join(
        filter(None, (*map(str, first), str(ROOT), str(ROOT / "host"), os.environ.get("PYTHONPATH")))
    )
    return {**os.environ, "PYTHONPATH": path}


def child(job: str, settings: dict[str, Any]) -> subprocess.Popen[str]:
    """Start one measurement in a process of its own; ``result`` waits for it."""
    command = [sys.executable, "-m", "tests.bench.one", job, json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment())


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a measurement and return what it found."""
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"a measurement did not end within {TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        raise RuntimeError(f"a measurement ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
