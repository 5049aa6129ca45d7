"""kill -9 of `axe run` and of its workers, on a real Kafka, with the oracle as judge."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import psutil
import pytest

from axe import TopicPartition
from tests import oracle
from tests.services.kafka import KafkaBroker

# A short run here; AXE_TEST_KILLS=10000 makes a long one of the same.
KILLS = int(os.environ.get("AXE_TEST_KILLS", "100"))
SEED = int(os.environ.get("AXE_TEST_SEED", "7"))
PARTITIONS = 2
# Five hundred events a second and partition.
FEED, FEED_EVERY_S = 10, 0.02
ROOT = Path(__file__).parents[2]


class AxeRun:
    """`axe run` as a user starts it, with the oracle installed as a plugin, or as several in one worker."""

    def __init__(self, folder: Path, bootstrap: str, topic: str, processors: int = 1) -> None:
        self.names = [f"oracle-{number}" for number in range(processors)]
        site = folder / "site"
        info = site / "axe_oracle-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: axe-oracle\nVersion: 1.0\n")
        entries = [f"{name} = axe_oracle:made" for name in self.names]
        (info / "entry_points.txt").write_text("\n".join(["[axe.processors]", *entries, ""]))
        (site / "axe_oracle.py").write_text(f"from tests.oracle import Oracle\nmade = Oracle(('{topic}',))\n")
        self._config = folder / "axe.toml"
        # The reporters that are installed beside the tests have no settings here.
        self._config.write_text(
            f'source = "kafka://{bootstrap}"\nstate = "sqlite:state"\nblock = ["sentry", "airbrake"]\n'
            f'[host]\nworkers = "{"processes" if processors == 1 else "threads"}"\n'
        )
        self._sessions: list[int] = []
        self.databases = [folder / "state" / f"{name}.db" for name in self.names]
        self._log = folder / "log"
        self._environment = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"}

    def start(self, *options: str) -> psutil.Popen:
        with self._log.open("a") as log:
            only = [word for name in self.names for word in ("--only", name)]
            command = [sys.executable, "-m", "axe", "--config", str(self._config), "run", *only, *options]
            host = psutil.Popen(
                command, env=self._environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        self._sessions.append(host.pid)
        return host

    def position(self) -> int:
        """How far the first has committed, over all partitions."""
        try:
            with closing(sqlite3.connect(f"file:{self.databases[0]}?mode=ro", uri=True)) as database:
                return int(database.execute("SELECT coalesce(sum(position), 0) FROM axe_offsets").fetchone()[0])
        except sqlite3.Error:
            return 0

    def close(self) -> None:
        """Kill whatever is left of the hosts, the fork servers and the workers."""
        for session in self._sessions:
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)

    def log(self) -> str:
        return self._log.read_text()[-4000:]


class Feed:
    """Produces events without a pause into every partition, so that there is always work."""

    def __init__(self, kafka: KafkaBroker, topic: str) -> None:
        self.input: dict[TopicPartition, list[bytes]] = {TopicPartition(topic, n): [] for n in range(PARTITIONS)}
        self._kafka = kafka
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def produce(self, count: int) -> None:
        """Append so many to each partition."""
        for at, values in self.input.items():
            new = [json.dumps({"n": len(values) + n, "pad": "x" * 80}).encode() for n in range(count)]
            self._kafka.produce(at.topic, *new, partition=at.partition)
            values.extend(new)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(60)

    def check(self) -> None:
        """Say whether it has produced all the time."""
        assert self._failure is None, self._failure

    def _run(self) -> None:
        try:
            while not self._enough.wait(FEED_EVERY_S):
                self.produce(FEED)
        except BaseException as error:
            self._failure = error


class Recovery:
    """Measures the time from a kill to the first commit after it, where no other kill comes first."""

    def __init__(self, run: AxeRun) -> None:
        self._run = run
        self._since: tuple[float, int] | None = None
        self.times_s: list[float] = []
        self.superseded = 0

    def killed(self, at: float) -> None:
        """Note a kill, after the process is gone: what it has committed, it has committed."""
        self.superseded += self._since is not None
        self._since = at, self._run.position()

    def look(self) -> None:
        """See whether there is a commit since."""
        if self._since is not None and self._run.position() > self._since[1]:
            self.times_s.append(time.monotonic() - self._since[0])
            self._since = None

    def __str__(self) -> str:
        ordered = sorted(self.times_s)
        p50, p99 = ordered[len(ordered) // 2], ordered[max(0, -(-99 * len(ordered) // 100) - 1)]
        return (
            f"first commit after a kill: p50 {p50:.2f} s, p99 {p99:.2f} s, longest {ordered[-1]:.2f} s "
            f"({len(ordered)} kills; {self.superseded} more were followed by a kill before a commit)"
        )


@pytest.fixture
def feed(kafka: KafkaBroker, topic: str) -> Feed:
    """Thirty thousand events in two partitions, and more as time goes by."""
    kafka.create_topic(topic, PARTITIONS)
    feed = Feed(kafka, topic)
    feed.produce(150 * KILLS)
    return feed


@pytest.fixture
def run(kafka: KafkaBroker, tmp_path: Path, topic: str, request: pytest.FixtureRequest) -> Iterator[AxeRun]:
    run = AxeRun(tmp_path, kafka.bootstrap, topic, getattr(request, "param", 1))
    yield run
    run.close()


def workers(host: psutil.Process) -> list[psutil.Process]:
    """Find the worker processes below a host; the fork server stands between."""
    try:
        return [
            child for child in host.children(recursive=True) if "".join(child.cmdline()[:1]).startswith("axe [oracle-0")
        ]
    except psutil.Error:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.timeout(60 + 6 * KILLS)
@pytest.mark.parametrize("run", [1, 3], indirect=True, ids=["one", "three in one worker"])
def test_nothing_is_lost_twice_or_out_of_order_when_hosts_and_workers_are_killed(run: AxeRun, feed: Feed) -> None:
    chance = random.Random(SEED)
    recovery = Recovery(run)
    killed = {"host": 0, "worker": 0}
    kills = KILLS if len(run.names) == 1 else max(5, KILLS // 4)

    def gone(processes: list[psutil.Process]) -> bool:
        return not any(map(is_alive, processes))

    def came_up() -> bool:
        recovery.look()
        return bool(workers(host)) or not host.is_running()

    with feed:
        host = run.start()
        while sum(killed.values()) < kills:
            # A worker that is killed before it did anything is started again after up to 30 s.
            wait_until(came_up, 45, f"no worker came up\n{run.log()}")
            until = time.monotonic() + chance.uniform(0.0, 0.6)
            while (left := until - time.monotonic()) > 0:
                recovery.look()
                time.sleep(min(left, 0.02))
            found = workers(host)
            if not found:
                continue
            at = time.monotonic()
            if chance.random() < 0.3:
                host.kill()
                host.wait()
                killed["host"] += 1
                wait_until(lambda: gone(found), 2, "a worker outlived its host by two seconds")
                recovery.killed(at)
                host = run.start()
            else:
                found[0].send_signal(signal.SIGKILL)
                killed["worker"] += 1
                wait_until(lambda: gone(found), 5, "a killed worker is still there")
                recovery.killed(at)
        wait_until(lambda: workers(host), 45, f"no worker came up\n{run.log()}")
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    feed.check()

    last = run.start("--until-end")
    assert last.wait(timeout=120) == 0, run.log()

    for database in run.databases:
        judged = oracle.verify(database, feed.input)
        assert judged.events == sum(map(len, feed.input.values()))
    assert killed["host"] > 0
    assert killed["worker"] > 0
    print(f"{killed} kills, {judged}\n{recovery}")  # the figures of the run, shown with -rP


def test_a_drained_host_exits_with_0_within_its_time(run: AxeRun, feed: Feed) -> None:
    host = run.start()
    wait_until(lambda: run.databases[0].exists() and workers(host), 30, f"no worker came up\n{run.log()}")

    host.terminate()

    assert host.wait(timeout=10) == 0, run.log()
    assert not workers(host)
