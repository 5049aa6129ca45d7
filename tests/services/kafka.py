"""Apache Kafka brokers, one alone or several together, run from the jars of Maven Central."""

from __future__ import annotations

import atexit
import base64
import fcntl
import hashlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from confluent_kafka import ElectionType, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from . import ServiceMissing, cache_folder, free_port, tied_to_parent

POM = Path(__file__).with_name("kafka-pom.xml")
START_TIMEOUT_S = 60.0
# Whom the SASL listener knows.
SASL_USER, SASL_PASSWORD = "axe", "right"
STOP_TIMEOUT_S = 20.0

# Who connects by the listener PROXIED is sent to another port, where a test may put a proxy.
_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},PROXIED://127.0.0.1:{behind},\
  CONTROLLER://127.0.0.1:{controller}{more}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},PROXIED://127.0.0.1:{front}{more}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,PROXIED:PLAINTEXT,\
  CONTROLLER:PLAINTEXT{protocols}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_{user}="{password}";
log.dirs={folder}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
log.cleaner.backoff.ms=100
log.initial.task.delay.ms=100
"""


def jars(pom: Path = POM) -> Path:
    """Return the folder with the jars that a pom names, downloading them once.

    Raises:
        ServiceMissing: Java or Maven is not installed, or the download failed.
    """
    if shutil.which("java") is None:
        raise ServiceMissing("kafka", "install Java 17 or newer (Debian: default-jre-headless)")
    folder = cache_folder() / f"kafka-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    # Several test workers start at once; the first one downloads.
    with (cache_folder() / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _download(pom, folder)
    return folder


def _download(pom: Path, folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise ServiceMissing("kafka", "install Maven (Debian: maven), which fetches the broker's jars")
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={unfinished}", "-DincludeScope=runtime"]
    done = subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *goal], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(unfinished)
        raise ServiceMissing("kafka", f"Maven could not fetch the broker's jars: {done.stdout[-500:]}")
    unfinished.rename(folder)


class Listener(NamedTuple):
    """A further way into a broker: its name, its security protocol, and the properties that are its alone."""

    name: str
    protocol: str
    properties: Mapping[str, str]

    def lines(self) -> str:
        """Return the properties as the broker's file has them."""
        return "".join(f"listener.name.{self.name.lower()}.{key}={value}\n" for key, value in self.properties.items())


class Node(NamedTuple):
    """A broker's place among those that vote together: its number, everybody's controller ports, their cluster's id."""

    number: int
    voters: Mapping[int, int]
    cluster: str

    @classmethod
    def together(cls, number: int) -> list[Self]:
        """Make the places of so many brokers."""
        voters = {one: free_port() for one in range(1, number + 1)}
        # A leading "-" would look like an option.
        cluster = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        return [cls(one, voters, cluster) for one in voters]


class KafkaBroker:
    """A broker that tests write to, and that they may stop, freeze and start again on the same data.

    With ``AXE_TEST_KAFKA`` it is one that already runs, and ``stop`` and its like are refused.
    """

    def __init__(
        self,
        *,
        external: str | None = None,
        java_options: Iterable[str] = (),
        listeners: Iterable[Listener] = (),
        node: Node | None = None,
    ) -> None:
        """One with a ``node`` is begun, but not waited for: it answers when most of the others do."""
        self.is_ours = external is None
        self._process: subprocess.Popen[bytes] | None = None
        self._producer: Producer | None = None
        self._admin: AdminClient | None = None
        self._java_options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *java_options]
        if external is not None:
            self.bootstrap = external
            return
        self._jars = jars()
        self._port = free_port()
        sasl_port = free_port()
        self.bootstrap = f"127.0.0.1:{self._port}"
        self.sasl_bootstrap = f"127.0.0.1:{sasl_port}"
        self.behind_proxy, self.proxied_port = free_port(), free_port()
        (alone,) = Node.together(1)
        self.node = node or alone
        more = list(listeners)
        self.addresses = {one.name: f"127.0.0.1:{free_port()}" for one in more}
        """Those of the further listeners."""
        self.folder = Path(tempfile.mkdtemp(prefix="axe-kafka-"))
        atexit.register(self.close)
        self._properties = self.folder / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(
                port=self._port,
                sasl=sasl_port,
                behind=self.behind_proxy,
                front=self.proxied_port,
                node=self.node.number,
                controller=self.node.voters[self.node.number],
                voters=",".join(f"{number}@127.0.0.1:{port}" for number, port in self.node.voters.items()),
                folder=self.folder,
                user=SASL_USER,
                password=SASL_PASSWORD,
                more="".join(f",{name}://{address}" for name, address in self.addresses.items()),
                protocols="".join(f",{one.name}:{one.protocol}" for one in more),
            )
            + "".join(map(Listener.lines, more)),
            encoding="utf-8",
        )
        formatted = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", self.node.cluster, "-c", str(self._properties)),
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode != 0:
            raise RuntimeError(f"the broker's folder could not be formatted: {formatted.stderr[-2000:]}")
        self.begin() if node else self.start()

    def _java(self, *command: str) -> list[str]:
        return ["java", *self._java_options, "-cp", f"{self._jars}/*", *command]

    def start(self) -> None:
        """Start the broker, on the same port and data as before, and wait until it answers."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start the broker."""
        self._refuse_external()
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                tied_to_parent(self._java("kafka.Kafka", str(self._properties))),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._running().poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the broker did not start: {self.log()[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=0.5).close()
            return bool(self.admin.list_topics(timeout=1.0).brokers)
        except (OSError, KafkaException):
            return False

    def stop(self) -> None:
        """Stop the broker in order, and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        self._refuse_external()
        if self._process is None:
            return
        # A frozen process takes no SIGTERM.
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Freeze the broker: connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        self._refuse_external()
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process

    def _refuse_external(self) -> None:
        if not self.is_ours:
            raise ServiceMissing("kafka", "this test stops the broker; it cannot use the one of AXE_TEST_KAFKA")

    def log(self) -> str:
        """Return what the broker wrote."""
        return (self.folder / "broker.log").read_text(encoding="utf-8", errors="replace")

    @property
    def admin(self) -> AdminClient:
        """A client for what has no method here."""
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}, logger=_silent)
        return self._admin

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None, *, copies: int = 1
    ) -> None:
        """Create a topic and wait until it can be used."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=copies, config=dict(config or {}))
        self.admin.create_topics([topic])[name].result(30)
        # The broker leads the new partitions a moment after it has said that they exist. Seldom this client
        # goes on asking in vain; then the test finds out by itself.
        asked = {KafkaPartition(name, number): OffsetSpec.latest() for number in range(partitions)}
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            answers = self.admin.list_offsets(asked, request_timeout=2).values()
            if not any(answer.exception(5) for answer in answers):
                break
            time.sleep(0.02)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        self.admin.delete_topics([name])[name].result(30)

    def delete_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """Delete the records before an offset, as retention does."""
        at = KafkaPartition(topic, partition, offset)
        self.admin.delete_records([at])[at].result(30)

    def produce(self, topic: str, *values: bytes | str | None, partition: int = 0, key: bytes | None = None) -> None:
        """Append records and wait until the broker has them; None is a tombstone."""
        if self._producer is None:
            self._producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 1}, logger=_silent)
        failed: list[object] = []
        for value in values:
            self._producer.produce(
                topic,
                value=value,
                key=key,
                partition=partition,
                on_delivery=lambda error, _message: failed.append(error) if error is not None else None,
            )
            self._producer.poll(0)
        if self._producer.flush(30) or failed:
            raise RuntimeError(f"records were not written: {failed[:3]}")

    def close(self) -> None:
        """Stop the broker and remove its folder; one that is not ours goes on."""
        self._producer = None
        self._admin = None
        if self.is_ours:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


class KafkaCluster:
    """Brokers that vote together, each with a copy of every partition."""

    def __init__(self, number: int = 3) -> None:
        self.brokers = {node.number: KafkaBroker(node=node) for node in Node.together(number)}
        for broker in self.brokers.values():
            broker.wait()
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers.values())
        self._next = itertools.cycle(self.brokers.values())

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic; a record is written when a majority has it."""
        first, *_ = self.brokers.values()
        copies = len(self.brokers)
        first.create_topic(name, partitions, {"min.insync.replicas": str(copies // 2 + 1)}, copies=copies)

    def leader(self, topic: str, partition: int) -> int:
        """Return the number of the broker that leads a partition, -1 while none does, or nobody tells."""
        described = self._described(topic).get(partition)
        return -1 if described is None else int(described.leader)

    def is_whole(self, topic: str) -> bool:
        """Tell whether every broker is up to date with every partition."""
        described = self._described(topic).values()
        return bool(described) and all(len(one.isrs) == len(self.brokers) for one in described)

    def _described(self, topic: str) -> dict[int, Any]:
        for _ in self.brokers:
            with suppress(KafkaException):
                partitions: dict[int, Any] = self._admin().list_topics(topic, timeout=2).topics[topic].partitions
                return partitions
        return {}

    def _admin(self) -> AdminClient:
        # A client that knows all of them goes on asking one that is frozen; a new one asks the one that it is told.
        return AdminClient({"bootstrap.servers": next(self._next).bootstrap, "log_level": 0}, logger=_silent)

    def leads_again(self, topic: str, partition: int, number: int) -> bool:
        """Tell whether a broker leads that was meant to when the topic was made; if it does not, ask that it does."""
        if self.leader(topic, partition) == number:
            return True
        admin = self._admin()
        # Refused as long as the broker is not up to date to those who decide.
        with suppress(KafkaException):
            admin.elect_leaders(ElectionType.PREFERRED, [KafkaPartition(topic, partition)]).result(30)
        return False

    def close(self) -> None:
        """End all of them."""
        for broker in self.brokers.values():
            broker.close()


def open_kafka() -> KafkaBroker:
    """Start a broker, or use the one that ``AXE_TEST_KAFKA`` names.

    Raises:
        ServiceMissing: neither is possible here.
    """
    return KafkaBroker(external=os.environ.get("AXE_TEST_KAFKA") or None)


class _Silent:
    """Take librdkafka's own log lines, so that they do not spill into the tests' output."""

    def log(self, *_: object, **__: object) -> None:
        """Forget the line."""


_silent = _Silent()
