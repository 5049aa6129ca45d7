"""What running processors cost when nothing happens: CPU, start, memory. All of it against `axe run`."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from ..services.kafka import KafkaBroker
from . import broker as bench
from .count import ALONE, AXE, COUNTER, install
from .events import event

START_LIMIT_S = 60.0


class Running:
    """An `axe run` with a number of processors that all read one topic."""

    def __init__(self, folder: Path, brokers: str, topic: str, processors: int) -> None:
        self.configuration = folder / "axe.toml"
        self.configuration.write_text(f'source = "kafka://{brokers}"\nstate = "sqlite:state"\n{ALONE}')
        self.names = [f"bench-{number}" for number in range(processors)]
        install(folder, dict.fromkeys(self.names, COUNTER.format(topic=topic)))
        self.env = bench.environment()
        self.env["PYTHONPATH"] = f"{folder}:{self.env['PYTHONPATH']}"
        only = [word for name in self.names for word in ("--only", name)]
        self.log = (folder / "log").open("w")
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*AXE, "--config", str(self.configuration), "run", *only], env=self.env, stdout=self.log, stderr=self.log
        )
        self._wait_until_read(folder)
        self.ready_s = time.perf_counter() - started

    def _wait_until_read(self, folder: Path) -> None:
        """Wait until each processor has committed the one event that is there."""
        import sqlite3

        deadline = time.monotonic() + START_LIMIT_S
        left = list(self.names)
        while left:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"not up: {left}\n{(folder / 'log').read_text()[-2000:]}")
            database = folder / "state" / f"{left[0]}.db"
            try:
                with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
                    row = db.execute("SELECT max(position) FROM axe_offsets").fetchone()
            except sqlite3.Error:
                row = None
            if row and row[0]:
                left.pop(0)
            else:
                time.sleep(0.02)

    def processes(self) -> list[psutil.Process]:
        """Return the host and everything that it started."""
        host = psutil.Process(self.process.pid)
        return [host, *host.children(recursive=True)]

    def cpu_s(self) -> float:
        """Add up the CPU time of them all."""
        return sum(sum(one.cpu_times()[:2]) for one in self.processes())

    def pss_mb(self) -> float:
        """Add up their proportional set sizes; Linux only."""
        return sum(one.memory_full_info().pss for one in self.processes()) / 1e6

    def stop(self) -> None:
        """Drain."""
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@contextmanager
def running(kafka: KafkaBroker, processors: int) -> Iterator[Running]:
    """Run a number of processors on a topic with one event."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    kafka.produce(topic, event(0))
    with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
        host = Running(Path(folder), kafka.bootstrap, topic, processors)
        try:
            yield host
        finally:
            host.stop()
    kafka.delete_topic(topic)


def idle(kafka: KafkaBroker, *, processors: int = 10, seconds: float = 20) -> dict[str, float]:
    """Measure the CPU that idle processors take, in percent of one core."""
    with running(kafka, processors) as host:
        time.sleep(5)
        before, started = host.cpu_s(), time.perf_counter()
        time.sleep(seconds)
        used = host.cpu_s() - before
        return {"processors": processors, "cpu_percent": round(used / (time.perf_counter() - started) * 100, 2)}


def start(kafka: KafkaBroker, *, processors: int = 10, rounds: int = 5) -> dict[str, float]:
    """Measure `axe --help`, and from `axe run` to ten processors that have read."""
    helps = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        subprocess.run([*AXE, "--help"], env=bench.environment(), check=True, capture_output=True)
        helps.append(time.perf_counter() - started)
    with running(kafka, processors) as host:
        return {"help_s": round(statistics.median(helps[1:]), 3), "up_and_read_s": round(host.ready_s, 2)}


def memory(kafka: KafkaBroker) -> dict[str, float]:
    """Measure what one more worker process costs, in MB of proportional set size."""
    sizes = {}
    for processors in (2, 10):
        with running(kafka, processors) as host:
            time.sleep(3)
            sizes[processors] = host.pss_mb()
    return {
        "two_mb": round(sizes[2], 1),
        "ten_mb": round(sizes[10], 1),
        "each_mb": round((sizes[10] - sizes[2]) / 8, 1),
    }


def shown(name: str, summary: dict[str, Any]) -> str:
    """Write a summary as a line."""
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in summary.items())
