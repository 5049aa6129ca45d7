"""kill -9 of `axe run` and of its workers, on a real Kafka, with the oracle as judge."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from axe import TopicPartition
from tests import oracle
from tests.services.kafka import KafkaBroker

# A short run here; AXE_TEST_KILLS=10000 makes a long one of the same.
KILLS = int(os.environ.get("AXE_TEST_KILLS", "100"))
SEED = int(os.environ.get("AXE_TEST_SEED", "7"))
PARTITIONS = 2
ROOT = Path(__file__).parents[2]


class AxeRun:
    """`axe run` as a user starts it, with the oracle installed as a plugin."""

    def __init__(self, folder: Path, bootstrap: str, topic: str) -> None:
        site = folder / "site"
        info = site / "axe_oracle-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: axe-oracle\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[axe.processors]\noracle = axe_oracle:made\n")
        (site / "axe_oracle.py").write_text(f"from tests.oracle import Oracle\nmade = Oracle(('{topic}',))\n")
        self._config = folder / "axe.toml"
        self._config.write_text(f'source = "kafka://{bootstrap}"\nstate = "sqlite:state"\n')
        self.database = folder / "state" / "oracle.db"
        self._log = folder / "log"
        self._environment = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"}

    def start(self, *options: str) -> psutil.Popen:
        with self._log.open("a") as log:
            command = [sys.executable, "-m", "axe", "--config", str(self._config), "run", "--only", "oracle", *options]
            return psutil.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=ROOT)

    def log(self) -> str:
        return self._log.read_text()[-4000:]


@pytest.fixture
def events(kafka: KafkaBroker, topic: str) -> dict[TopicPartition, list[bytes]]:
    """Thirty thousand events in two partitions."""
    kafka.create_topic(topic, PARTITIONS)
    input_: dict[TopicPartition, list[bytes]] = {}
    for partition in range(PARTITIONS):
        values = [json.dumps({"n": n, "pad": "x" * 80}).encode() for n in range(150 * KILLS)]
        kafka.produce(topic, *values, partition=partition)
        input_[TopicPartition(topic, partition)] = list(values)
    return input_


def workers(host: psutil.Process) -> list[psutil.Process]:
    """Find the worker processes below a host; the fork server stands between."""
    try:
        return [child for child in host.children(recursive=True) if child.cmdline()[:1] == ["axe [oracle]"]]
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
def test_nothing_is_lost_twice_or_out_of_order_when_hosts_and_workers_are_killed(
    kafka: KafkaBroker, tmp_path: Path, topic: str, events: dict[TopicPartition, list[bytes]]
) -> None:
    chance = random.Random(SEED)
    run = AxeRun(tmp_path, kafka.bootstrap, topic)
    killed = {"host": 0, "worker": 0}
    host = run.start()
    while sum(killed.values()) < KILLS:
        wait_until(lambda: workers(host) or not host.is_running(), 30, f"no worker came up\n{run.log()}")
        time.sleep(chance.uniform(0.0, 0.6))
        found = workers(host)
        if not found:
            continue
        if chance.random() < 0.3:
            host.kill()
            host.wait()
            killed["host"] += 1
            wait_until(lambda: not any(map(is_alive, found)), 2, "a worker outlived its host by two seconds")
            host = run.start()
        else:
            found[0].send_signal(signal.SIGKILL)
            killed["worker"] += 1
            wait_until(lambda: not any(map(is_alive, found)), 5, "a killed worker is still there")
    wait_until(lambda: workers(host), 30, f"no worker came up\n{run.log()}")
    host.terminate()
    assert host.wait(timeout=20) == 0, run.log()

    last = run.start("--until-end")
    assert last.wait(timeout=120) == 0, run.log()

    judged = oracle.verify(run.database, events)
    assert judged.events == PARTITIONS * 150 * KILLS
    assert killed["host"] > 0
    assert killed["worker"] > 0
    print(f"{killed} kills, {judged}")  # the figures of the run, shown with -rP


def test_a_drained_host_exits_with_0_within_its_time(
    kafka: KafkaBroker, tmp_path: Path, topic: str, events: dict[TopicPartition, list[bytes]]
) -> None:
    run = AxeRun(tmp_path, kafka.bootstrap, topic)
    host = run.start()
    wait_until(lambda: run.database.exists() and workers(host), 30, f"no worker came up\n{run.log()}")

    host.terminate()

    assert host.wait(timeout=10) == 0, run.log()
    assert not workers(host)
