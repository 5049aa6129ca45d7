"""The peers as ways of a comparison: count by phase, counted by the same oracle, beside axe and the loop by hand.

Each program beside this file runs in an environment of its own and prints when it had handled how many events. What
it counted is taken from what it keeps: its changelog topic, its database, or what it emits at the end.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from ...services import ServiceMissing
from .. import events
from ..compare import AT_LEAST_ONCE, EXACTLY_ONCE, Wanted, Way, measure, progress
from ..handwritten import SETTINGS
from ..jobs import Bench, Found
from ..stamps import Speed, speed
from . import environments

TIMEOUT_S = 240
HERE = Path(__file__).parent
FETCH = {name: SETTINGS[name] for name in ("queued.min.messages", "fetch.queue.backoff.ms")}


class Asked(NamedTuple):
    """One round of a peer."""

    brokers: str
    topic: str
    group: str
    folder: str
    end: int


class Peer(NamedTuple):
    """A peer: how many of the events it gets, what makes its environment, its command, and where its counts are."""

    name: str
    guarantee: str
    share: float
    prepare: Callable[[], Any]
    command: Callable[[Any, Asked], list[str]]
    changelog: Callable[[Asked], str] | None = None
    count: Callable[[bytes], int] = int


def _python(name: str, requirements: list[str], program: str, **given: Any) -> dict[str, Any]:
    def command(interpreter: Path, asked: Asked) -> list[str]:
        return [str(interpreter), str(HERE / program), json.dumps({**asked._asdict(), "fetch": FETCH, **given})]

    return {"prepare": lambda: environments.python(name, requirements), "command": command}


def _java(guarantee: str) -> dict[str, Any]:
    def command(class_path: str, asked: Asked) -> list[str]:
        given = (asked.brokers, asked.topic, asked.group, asked.folder, str(asked.end), guarantee)
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", "-Xmx1g", quiet, "-cp", class_path, "CountByPhase", *given]

    return {
        "prepare": environments.java,
        "command": command,
        "changelog": lambda asked: f"{asked.group}-counts-changelog",
        "count": lambda value: int.from_bytes(value, "big"),
    }


def _quix(guarantee: str) -> dict[str, Any]:
    given = _python("quix", ["quixstreams~=3.28", "orjson"], "count_quix.py", guarantee=guarantee)
    return {**given, "changelog": lambda asked: f"changelog__{asked.group}--{asked.topic}--default"}


def _faststream(*, batch: bool) -> dict[str, Any]:
    return _python("faststream", ["faststream[confluent]~=0.7", "msgspec"], "count_faststream.py", batch=batch)


# The slow ones get fewer events: theirs is a rate all the same.
PEERS = [
    Peer("Kafka Streams, exactly_once_v2", EXACTLY_ONCE, 1, **_java("exactly_once_v2")),
    Peer("Kafka Streams, at_least_once", AT_LEAST_ONCE, 1, **_java("at_least_once")),
    Peer(
        "Bytewax",
        EXACTLY_ONCE,
        1,
        **_python("bytewax", ["bytewax~=0.21", "confluent-kafka>=2.11", "msgspec"], "count_bytewax.py"),
    ),
    Peer("Quix Streams, exactly-once", EXACTLY_ONCE, 1, **_quix("exactly-once")),
    Peer("Quix Streams, at-least-once", AT_LEAST_ONCE, 1, **_quix("at-least-once")),
    Peer("FastStream, batches", AT_LEAST_ONCE, 1, **_faststream(batch=True)),
    Peer("FastStream, per event", AT_LEAST_ONCE, 0.02, **_faststream(batch=False)),
    Peer(
        "Faust",
        AT_LEAST_ONCE,
        0.02,
        **_python("faust", ["faust-streaming[rocksdb]~=0.15", "orjson"], "count_faust.py", guarantee="at_least_once"),
        changelog=lambda asked: f"{asked.group}-counts-changelog",
    ),
]


def peers(at: Bench) -> Found:
    """Count by phase in all of them."""
    with ExitStack() as topics:
        made: dict[int, str] = {}

        def topic_of(count: int) -> str:
            if count not in made:
                made[count] = topics.enter_context(at.topic(events.events(count), key=events.phase))
            return made[count]

        own = topic_of(at.events)
        ways = [at.hand("count", own), at.axe("axe run, on_event", "OnEvent", own)]
        ways += [_way(at, peer, topic_of) for peer in PEERS]
        found = measure("count by phase, peers", ways, rounds=at.rounds)
    rows = (
        ("axe, of Kafka Streams exactly once", 2, PEERS[0].name),
        ("axe, of Quix exactly once", 10, "Quix Streams, exactly-once"),
    )
    judged = [Wanted(row, bound).compared(found, "axe run, on_event", against) for row, bound, against in rows]
    others = [peer.name for peer in PEERS if peer.name not in [against for *_, against in rows]]
    judged += [Wanted(f"axe, of {name}", None).compared(found, "axe run, on_event", name) for name in others]
    return found, judged


def _way(at: Bench, peer: Peer, topic_of: Callable[[int], str]) -> Way:
    try:
        progress.print(f"{peer.name}: looking for its environment, or making it")
        environment = peer.prepare()
    except ServiceMissing as missing:
        # Shown with the reason, like a round that failed.
        def refuse(missing: ServiceMissing = missing) -> Speed:
            raise missing

        return Way(peer.name, peer.guarantee, refuse)

    def run() -> Speed:
        count = max(1000, int(at.events * peer.share))
        topic = topic_of(count)
        with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
            asked = Asked(at.kafka.bootstrap, topic, f"peer-{Path(folder).name[-8:]}", folder, count)
            told = _told(peer.command(environment, asked), folder)
            counts = told["counts"] if peer.changelog is None else _kept(peer, asked)
            if counts != events.counts(range(count)):
                raise RuntimeError(f"wrong counts: {counts}"[:300])
            return speed(told)

    return Way(peer.name, peer.guarantee, run)


def _told(command: list[str], folder: str) -> dict[str, Any]:
    log = Path(folder) / "bench.log"
    with log.open("w") as to:
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=to, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"did not end within {TIMEOUT_S} s: {log.read_text()[-300:]}") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"ended with {done.returncode}: {log.read_text()[-300:]}")
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def _kept(peer: Peer, asked: Asked) -> dict[str, int]:
    """Read the last value of each phase in the changelog, as a restart would."""
    assert peer.changelog is not None
    found: dict[str, int] = {}
    consumer = Consumer(
        {
            "bootstrap.servers": asked.brokers,
            "group.id": "bench-oracle",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(peer.changelog(asked), 0, 0)])
    while (message := consumer.poll(30)) is not None:
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                break
            raise RuntimeError(error)
        value, key = message.value(), message.key()
        if value is not None and key is not None:
            [phase] = [one for one in events.PHASES if one in _words(key)]
            found[phase] = peer.count(value)
    consumer.close()
    return found


def _words(key: bytes) -> list[str]:
    """Take a changelog's key apart: a phase, or with Quix a phase and the name of the value."""
    return [word.strip('"') for word in key.decode().split("|")]
