"""What running processors cost when nothing happens: CPU, start, memory. All of it against `axe run`."""

from __future__ import annotations

import sqlite3
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
from .compare import Wanted
from .events import event
from .installed import ALONE, AXE, entry_points

START_LIMIT_S = 60.0
# A module of its own for each processor, as packages have.
COUNTER = """
from axe import hookimpl


class Counter:
    topics = ("{topic}",)

    @hookimpl
    def on_event(self, event, state):
        phase = event.value["phase"]
        state[phase] = state.get(phase, 0) + 1
"""


class Running:
    """An `axe run` with a number of processors that all read one topic."""

    def __init__(self, folder: Path, brokers: str, topic: str, processors: int, workers: str) -> None:
        self.configuration = folder / "axe.toml"
        self.configuration.write_text(
            f'source = "kafka://{brokers}"\nstate = "sqlite:state"\n{ALONE}[host]\nworkers = "{workers}"\n'
        )
        self.names = [f"bench-{number}" for number in range(processors)]
        for name in self.names:
            (folder / f"{name.replace('-', '_')}.py").write_text(COUNTER.format(topic=topic))
        entry_points(folder, {name: f"{name.replace('-', '_')}:Counter" for name in self.names})
        only = [word for name in self.names for word in ("--only", name)]
        self.log = (folder / "log").open("w")
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*AXE, "--config", str(self.configuration), "run", *only],
            cwd=bench.ROOT,
            env=bench.environment(folder),
            stdout=self.log,
            stderr=self.log,
        )
        self.first_s = self.all_s = 0.0
        self._wait_until_read(folder, started)

    def _wait_until_read(self, folder: Path, started: float) -> None:
        """Wait until each processor has committed the one event that is there."""
        deadline = time.monotonic() + START_LIMIT_S
        left = set(self.names)
        while left:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"not up: {sorted(left)}\n{(folder / 'log').read_text()[-2000:]}")
            for name in sorted(left):
                if _has_read(folder / "state" / f"{name}.db"):
                    left.discard(name)
                    self.first_s = self.first_s or time.perf_counter() - started
            time.sleep(0.01)
        self.all_s = time.perf_counter() - started

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


def _has_read(database: Path) -> bool:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
            row = db.execute("SELECT max(position) FROM axe_offsets").fetchone()
    except sqlite3.Error:
        return False
    return bool(row[0])


@contextmanager
def running(kafka: KafkaBroker, processors: int, workers: str = "processes") -> Iterator[Running]:
    """Run a number of processors on a topic with one event."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    kafka.produce(topic, event(0))
    with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
        host = Running(Path(folder), kafka.bootstrap, topic, processors, workers)
        try:
            yield host
        finally:
            host.stop()
    kafka.delete_topic(topic)


def idle(kafka: KafkaBroker, *, processors: int = 10, seconds: float = 20) -> list[dict[str, Any]]:
    """Measure the CPU that idle processors take, in percent of one core."""
    with running(kafka, processors) as host:
        # Workers look less often once nothing has moved for five seconds.
        time.sleep(8)
        before, started = host.cpu_s(), time.perf_counter()
        time.sleep(seconds)
        used = (host.cpu_s() - before) / (time.perf_counter() - started) * 100
    return [Wanted(f"{processors} idle processors", 2, is_limit=True, unit="% of a core").judged(used)]


def start(kafka: KafkaBroker, *, processors: int = 20, rounds: int = 5) -> list[dict[str, Any]]:
    """Measure `axe --help`, and from `axe run` to the first commit, and to one of each processor."""
    helps, firsts, alls = [], [], []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([*AXE, "--help"], env=bench.environment(), check=True, capture_output=True)
        helps.append(time.perf_counter() - started)
        with running(kafka, processors) as host:
            firsts.append(host.first_s)
            alls.append(host.all_s)
    installed = f"start, {processors} installed plugins"
    return [
        Wanted("axe --help", None, unit="s").judged(statistics.median(helps)),
        Wanted(f"{installed}, first commit", 2, is_limit=True, unit="s").judged(statistics.median(firsts)),
        Wanted(f"{installed}, each has committed", None, unit="s").judged(statistics.median(alls)),
    ]


def memory(kafka: KafkaBroker) -> list[dict[str, Any]]:
    """Measure what one further processor costs, in MB of proportional set size."""
    rows = []
    for workers, bound in (("processes", 12), ("threads", 2)):
        sizes = {}
        for processors in (2, 10):
            with running(kafka, processors, workers) as host:
                time.sleep(3)
                sizes[processors] = host.pss_mb()
        row = Wanted(f"PSS of a further processor, {workers}", bound, is_limit=True, unit="MB")
        rows.append(row.judged((sizes[10] - sizes[2]) / 8))
    return rows
