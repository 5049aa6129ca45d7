"""What the scenarios run: `axe run` as a user starts it, a feed of events, and how to look at both from outside."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from axe import TopicPartition
from tests.oracle import NAME
from tests.services import tied_to_parent
from tests.services.kafka import KafkaBroker, KafkaCluster, _silent
from tests.services.mock_kafka import MockCluster

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
# Five hundred events a second and partition.
FEED, FEED_EVERY_S = 10, 0.02


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something that has to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers(host: psutil.Process) -> list[psutil.Process]:
    """Find the worker processes below a host; the fork server stands between."""
    try:
        return [
            child
            for child in host.children(recursive=True)
            if "".join(child.cmdline()[:1]).startswith(f"axe [{NAME}") and is_alive(child)
        ]
    except psutil.Error:
        return []


class AxeRun:
    """`axe run` as a user starts it, with the oracle installed as a plugin, or as several in one worker."""

    def __init__(  # what differs from scenario to scenario, by name
        self,
        folder: Path,
        source: str,
        topic: str,
        *,
        processors: int = 1,
        state: str = "sqlite:state",
        looked_at: str | None = None,
        settings: str = "",
        handler: str = "from tests.oracle import Oracle as Handler",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``looked_at`` is the URL by which tests look into the state, where axe's own goes through a proxy."""
        folder.mkdir(exist_ok=True)
        self.names = [NAME] if processors == 1 else [f"{NAME}-{number}" for number in range(processors)]
        site = folder / "site"
        info = site / "axe_oracle-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: axe-oracle\nVersion: 1.0\n")
        entries = [f"{name} = axe_oracle:made" for name in self.names]
        (info / "entry_points.txt").write_text("\n".join(["[axe.processors]", *entries, ""]))
        (site / "axe_oracle.py").write_text(f"{handler}\nmade = Handler(('{topic}',))\n")
        self._config = folder / "axe.toml"
        # The reporters that are installed beside the tests have no settings here.
        self._config.write_text(
            f'source = "{source}"\nstate = "{state}"\nblock = ["sentry", "airbrake"]\n'
            f'[host]\nworkers = "{"processes" if processors == 1 else "threads"}"\n{settings}'
        )
        self._sessions: list[int] = []
        is_sqlite = state.startswith("sqlite:")
        self.databases = [folder / "state" / f"{name}.db" for name in self.names] if is_sqlite else []
        self.location = str(self.databases[0]) if is_sqlite else looked_at or state
        self._log = folder / "log"
        self._log.touch()
        path = [str(site), str(ROOT), str(ROOT / "host"), os.environ.get("PYTHONPATH", "")]
        self._environment = {**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(path)}

    def start(self, *options: str) -> psutil.Popen:
        """Start the host, in a session of its own."""
        only = [word for name in self.names for word in ("--only", name)]
        with self._log.open("a") as log:
            host = self._axe("run", *only, *options, output=log)
        self._sessions.append(host.pid)
        return host

    def command(self, *words: str) -> psutil.Popen:
        """Start another command on the same configuration."""
        with self._log.open("a") as log:
            process = self._axe(*words, output=log)
        self._sessions.append(process.pid)
        return process

    def _axe(self, *words: str, output: Any) -> psutil.Popen:
        # A run of scenarios that is killed itself leaves no host behind.
        command = tied_to_parent([sys.executable, "-m", "axe", "--config", str(self._config), *words])
        return psutil.Popen(
            command,
            env=self._environment,
            stdin=-3,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
        )

    def finish(self, seconds: float = 120) -> None:
        """Read to the end."""
        last = self.start("--until-end")
        assert last.wait(timeout=seconds) == 0, self.log()

    def position(self) -> int:
        """How far the first has committed, over all partitions."""
        return int(self.ask("SELECT coalesce(sum(position), 0) FROM axe_offsets", 0))

    def status(self) -> str:
        """What the first says that it does."""
        return str(self.ask("SELECT status FROM axe_processor", ""))

    def ask(self, sql: str, default: Any) -> Any:
        """Ask the database of the first for one value; the default where there is none yet, or it is away."""
        try:
            if self.databases:
                with closing(sqlite3.connect(f"file:{self.location}?mode=ro", uri=True)) as database:
                    return database.execute(sql).fetchone()[0]
            url = self.location.replace("postgresql+psycopg:", "postgresql:")
            options = f"-c search_path=axe_{NAME}"
            with psycopg.connect(url, options=options, connect_timeout=2, autocommit=True) as connection:
                row = connection.execute(sql).fetchone()
                return default if row is None else row[0]
        except (sqlite3.Error, psycopg.Error, TypeError):
            return default

    def close(self) -> None:
        """Kill whatever is left of the hosts, the fork servers and the workers."""
        for session in self._sessions:
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)

    def log(self) -> str:
        """Return the end of what was said."""
        return self._log.read_text()[-4000:]

    def count(self, words: str) -> int:
        """Count how often something was said."""
        return self._log.read_text().count(words)


class Feed:
    """Produces events without a pause into every partition, so that there is always work.

    What an outage keeps from the broker waits in the client. The truth about the input is what the log holds.
    """

    def __init__(
        self, kafka: KafkaBroker | KafkaCluster | MockCluster, topic: str, *, every_s: float = FEED_EVERY_S
    ) -> None:
        self.topic = topic
        self.written = 0
        """How many the broker has said to have."""
        self.refused: list[KafkaError] = []
        self._every_s = every_s
        self._kafka = kafka
        self._number = 0
        settings = {"bootstrap.servers": kafka.bootstrap, "linger.ms": 1, "enable.idempotence": True}
        self._producer = Producer({**settings, "message.timeout.ms": 300_000}, logger=_silent)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def produce(self, count: int, *, partitions: int = PARTITIONS) -> None:
        """Append so many to each partition, and wait for them."""
        for _ in range(count):
            self._one_each(partitions)
        left = self._producer.flush(60)
        assert not left and not self.refused, f"{left} events were not written, {self.refused[:3]}"

    def _one_each(self, partitions: int = PARTITIONS) -> None:
        value = json.dumps({"n": self._number, "pad": "x" * 80}).encode()
        self._number += 1
        for partition in range(partitions):
            with suppress(BufferError):
                self._producer.produce(self.topic, value, partition=partition, on_delivery=self._note)
        self._producer.poll(0)

    def _note(self, error: KafkaError | None, _: object) -> None:
        if error is None:
            self.written += 1
        else:
            self.refused.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(60)
        self._producer.flush(60)

    def _run(self) -> None:
        while not self._enough.wait(self._every_s):
            for _ in range(FEED):
                self._one_each()

    @property
    def input(self) -> dict[TopicPartition, list[bytes]]:
        """What the log holds, by an independent reader."""
        assert not self.refused, self.refused[:3]
        return read_log(self._kafka.bootstrap, self.topic)


def read_log(bootstrap: str, topic: str) -> dict[TopicPartition, list[bytes]]:
    """Read a topic from its begin to where it ends now; a record that was deleted is empty."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "reader", "fetch.queue.backoff.ms": 5}
    consumer = Consumer({**settings, "enable.auto.commit": False}, logger=_silent)
    try:
        log: dict[TopicPartition, list[bytes]] = {}
        ends: dict[TopicPartition, int] = {}
        for number in sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions):
            at = TopicPartition(topic, number)
            begin, ends[at] = consumer.get_watermark_offsets(KafkaPartition(topic, number), timeout=30)
            log[at] = [b""] * begin
        consumer.assign([KafkaPartition(at.topic, at.partition, len(values)) for at, values in log.items()])
        deadline = time.monotonic() + 120
        while any(len(log[at]) < end for at, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic} cannot be read"
            for message in consumer.consume(1000, 0.2):
                assert message.error() is None, message.error()
                values = log[TopicPartition(topic, message.partition() or 0)]
                assert message.offset() == len(values), "the log has a gap"
                values.append(message.value() or b"")
        return log
    finally:
        consumer.close()
