"""The broker of the measurements, and filling a topic of it quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

ROOT = Path(__file__).parents[2]


def fill(brokers: str, topic: str, values: Iterable[bytes]) -> None:
    """Append many events in big batches, uncompressed."""
    producer = Producer(
        {"bootstrap.servers": brokers, "linger.ms": 20, "batch.size": 500_000, "queue.buffering.max.messages": 200_000}
    )
    for value in values:
        while True:
            try:
                producer.produce(topic, value, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("events were not written")


def environment() -> dict[str, str]:
    """Return the environment in which a child finds axe and these modules."""
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "host"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def child(job: str, settings: dict[str, Any]) -> subprocess.Popen[str]:
    """Start one measurement."""
    command = [sys.executable, "-m", "tests.bench.one", job, json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment())


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a measurement and return what it found."""
    said, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a measurement ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
