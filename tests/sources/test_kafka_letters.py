"""A topic of Kafka for dead letters: what arrives there, and what is said of what does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import Event, Record, Reject, State, TopicPartition
from axe.errors import ConfigError
from axe.sources import Outgoing, Report, open_source
from axe.sources.kafka_letters import KafkaLetters

from ..services import free_port
from ..services.kafka import SASL_USER, KafkaBroker, open_kafka
from ..site import Keeping, Site, at, until
from .reading import read_to_end

DEADLINE_S = 40.0

Open = Callable[..., KafkaLetters]


@pytest.fixture
def open_topic() -> Iterator[Open]:
    """Opens topics that are closed after the test."""
    opened: list[KafkaLetters] = []

    def open_one(brokers: str, name: str, **properties: Any) -> KafkaLetters:
        named = {key.replace("__", "."): value for key, value in properties.items()}
        opened.append(KafkaLetters(name, brokers=brokers, properties=named, client_id="tests"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def outgoing(*values: bytes | None, key: bytes | None = None) -> list[Outgoing]:
    return [Outgoing(number, key, value, []) for number, value in enumerate(values, 1)]


def heard(topic: KafkaLetters, count: int) -> list[Report]:
    reports: list[Report] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(reports) < count:
        assert time.monotonic() < deadline, f"{len(reports)} of {count} reports came"
        reports += topic.reports(0.2)
    return reports


def records(kafka: KafkaBroker, topic: str) -> list[Record]:
    source = open_source(f"kafka://{kafka.bootstrap}", group="tests", properties={}, client_id="tests", base=Path())
    try:
        first = TopicPartition(topic, 0)
        source.assign({first: 0})
        return read_to_end(source, [first], size=10**9)[0]
    finally:
        source.close()


def test_letters_arrive_as_they_are_and_in_order(kafka: KafkaBroker, open_topic: Open, topic: str) -> None:
    kafka.create_topic(topic)
    letters = open_topic(kafka.bootstrap, topic)
    odd = [("h", b"\xff"), ("h", None), ("", b""), ("schlüssel", b"x")]

    letters.send([
        Outgoing(7, b"\x00\xfe", b"\xff", odd),
        Outgoing(8, None, None, []),
        Outgoing(9, b"", b"", []),
    ])  # fmt: skip

    assert heard(letters, 3) == [Report(7), Report(8), Report(9)]
    found = records(kafka, topic)
    assert [(one.key, one.value) for one in found] == [(b"\x00\xfe", b"\xff"), (None, None), (b"", b"")]
    assert list(found[0].headers) == odd


def test_a_topic_that_is_not_there_is_not_made_and_gets_the_letters_when_it_is(
    kafka: KafkaBroker, open_topic: Open, topic: str
) -> None:
    letters = open_topic(kafka.bootstrap, topic)
    letters.send(outgoing(b"a", b"b"))

    reports = heard(letters, 2)

    assert {one.is_its_own for one in reports} == {False}
    assert f"topic {topic} does not exist on {kafka.bootstrap}" in (reports[0].problem or "")
    assert topic not in kafka.admin.list_topics(timeout=10).topics
    letters.close()
    kafka.create_topic(topic)
    letters.send(outgoing(b"a", b"b"))
    assert heard(letters, 2) == [Report(1), Report(2)]
    assert [one.value for one in records(kafka, topic)] == [b"a", b"b"]


def test_a_letter_that_is_too_large_for_the_topic_is_told_from_a_topic_that_takes_nothing(
    kafka: KafkaBroker, open_topic: Open, topic: str
) -> None:
    kafka.create_topic(topic, config={"max.message.bytes": "1000"})
    letters = open_topic(kafka.bootstrap, topic)

    letters.send(outgoing(b"x" * 5000))
    (report,) = heard(letters, 1)
    letters.send(outgoing(b"small"))

    assert report.is_its_own
    assert f"topic {topic} does not take it" in (report.problem or "")
    assert heard(letters, 1) == [Report(1)]


def test_without_a_broker_the_reason_is_said(open_topic: Open) -> None:
    brokers = f"127.0.0.1:{free_port()}"
    letters = open_topic(brokers, "refused", message__timeout__ms=1500)

    letters.send(outgoing(b"a"))

    (report,) = heard(letters, 1)
    assert not report.is_its_own
    assert f"no answer from {brokers} (topic refused)" in (report.problem or "")


def test_a_wrong_password_is_said_without_it(kafka: KafkaBroker, open_topic: Open) -> None:
    if not kafka.is_ours:
        pytest.skip("the broker of AXE_TEST_KAFKA has no listener for this test")
    given = {"security__protocol": "SASL_PLAINTEXT", "sasl__mechanism": "PLAIN", "sasl__username": SASL_USER}
    letters = open_topic(kafka.sasl_bootstrap, "refused", **given, sasl__password="wrong22", message__timeout__ms=1500)

    letters.send(outgoing(b"a"))

    (report,) = heard(letters, 1)
    assert "refuses this client (topic refused)" in (report.problem or "")
    assert "wrong22" not in (report.problem or "")


def test_properties_of_consumers_and_of_transactions_do_not_matter(
    kafka: KafkaBroker, open_topic: Open, topic: str
) -> None:
    kafka.create_topic(topic)
    given = {"transactional__id": "theirs", "acks": "0", "enable__idempotence": False, "fetch__min__bytes": 1}
    letters = open_topic(kafka.bootstrap, topic, **given)

    letters.send(outgoing(b"a"))

    assert heard(letters, 1) == [Report(1)]


def test_a_property_that_no_idempotent_producer_takes_is_a_wrong_configuration(open_topic: Open) -> None:
    with pytest.raises(ConfigError, match=r"\[kafka\] .*retries.*\(for the topic refused\)"):
        open_topic("127.0.0.1:9", "refused", retries=0)


# --- a whole processor

CHILD = """
import json, sys
import axe

class Handler:
    topics = (sys.argv[2],)

    @axe.hookimpl
    def on_event(self, event, state):
        state["n"] = state.get("n", 0) + 1
        if event.offset % 3 == 0:
            raise axe.Reject("a third")

app = axe.App(json.loads(sys.argv[1]))
app.processors.add(id="p", handler=Handler())
app.start(until_end=True)
"""


class KafkaSite(Site):
    """A processor ``p`` that reads a topic of Kafka, and whose refusals go to another one."""

    def __init__(self, folder: Path, topic: str, kafka: KafkaBroker) -> None:
        super().__init__(folder, topic, flood={"share": 1}, dead_letters={"topic": f"{topic}-refused"})
        self.kafka, self.out = kafka, f"{topic}-refused"
        kafka.create_topic(topic)

    @property
    def config(self) -> dict[str, Any]:
        source = f"kafka://{self.kafka.bootstrap}"
        return {"source": source, "state": self.state, "processors": {"p": self.settings}}

    def add(self, handler: Any, *, topics: tuple[str, ...] | None = None, **more: Any) -> axe.App:
        self.app = axe.App(self.config)
        self.app.processors.add(id="p", topics=topics or (self.topic,), handler=handler, **more)
        return self.app

    def child(self, failpoints: str = "") -> int:
        environment = {**os.environ, "AXE_FAILPOINTS": failpoints}
        command = [sys.executable, "-c", CHILD, json.dumps(self.config), self.topic]
        return subprocess.run(command, env=environment, timeout=60).returncode

    @property
    def published(self) -> list[int]:
        found = records(self.kafka, self.out)
        return [int(dict(one.headers)["__connect.errors.offset"] or b"") for one in found]

    @property
    def unpublished(self) -> int:
        return int(self.sql("SELECT count(*) FROM axe_dead_letters WHERE published_at IS NULL")[0][0])


def test_a_death_between_the_topic_and_the_note_loses_nothing(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    site = KafkaSite(tmp_path, topic, kafka)
    kafka.create_topic(site.out)
    kafka.produce(topic, *["{}"] * 30)

    assert site.child("after_publish=kill") == -signal.SIGKILL
    assert site.published
    assert site.unpublished == 10
    assert site.child() == 0

    assert sorted(set(site.published)) == list(range(0, 30, 3))
    assert site.published[-10:] == list(range(0, 30, 3))
    assert site.unpublished == 0
    assert site.sql("SELECT value FROM axe_values") == [("20",)]


def test_a_death_before_anything_was_sent_loses_nothing(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    site = KafkaSite(tmp_path, topic, kafka)
    kafka.create_topic(site.out)
    kafka.produce(topic, *["{}"] * 9)

    assert site.child("after_commit=kill") == -signal.SIGKILL
    assert site.child() == 0

    assert site.published == [0, 3, 6]


def test_events_go_on_while_the_topic_is_missing_and_letters_go_out_later(
    kafka: KafkaBroker, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = KafkaSite(tmp_path, topic, kafka)
    kafka.produce(topic, *["{}"] * 10)

    with site.add(Keeping(at(1, 5, error=Reject))):
        until(lambda: "dead letters are not published" in caplog.text, 40)
        kafka.produce(topic, *["{}"] * 10)
        until(lambda: site.offset == 20)
        assert site.app.processors["p"].status == "running"
        assert site.unpublished == 2
        kafka.create_topic(site.out)
        until(lambda: site.unpublished == 0, 40)

    assert site.published == [1, 5]
    assert caplog.text.count("dead letters are not published") == 1


def test_one_letter_that_the_topic_does_not_take_holds_up_no_other(
    kafka: KafkaBroker, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = KafkaSite(tmp_path, topic, kafka)
    kafka.create_topic(site.out, config={"max.message.bytes": "5000"})
    kafka.produce(topic, "{}", "{}", json.dumps("x" * 10_000), "{}", "{}")

    site.run(Keeping(at(0, 2, 3, 4, error=Reject)))

    assert sorted(site.published) == [0, 3, 4]
    assert site.unpublished == 1
    assert caplog.text.count("dead letter cannot be published") == 1


@pytest.mark.slow
def test_letters_that_were_refused_while_the_broker_went_away_are_there_when_it_is_back(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    if not kafka.is_ours:
        pytest.skip("this test stops the broker")
    broker = open_kafka()
    try:
        site = KafkaSite(tmp_path, topic, broker)
        broker.create_topic(site.out)
        broker.produce(topic, *["{}"] * 3)
        handling, is_gone = threading.Event(), threading.Event()

        def sick(event: Event, state: State) -> None:
            handling.set()
            is_gone.wait(60)
            raise Reject("no")

        with site.add(Keeping(sick)):
            assert handling.wait(40)
            broker.kill()
            is_gone.set()
            until(lambda: site.app.processors["p"].status == "waiting", 40)
            assert site.unpublished > 0
            broker.start()
            broker.produce(topic, "{}")
            until(lambda: site.offset == 4 and site.unpublished == 0, 60)
        assert sorted(set(site.published)) == [0, 1, 2, 3]
    finally:
        broker.close()
