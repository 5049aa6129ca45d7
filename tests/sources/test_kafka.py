"""What only Kafka does: transactions, compaction, retention, outages, its client's properties."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from axe.errors import BehindRetention, ConfigError, SourceUnavailable, TopicMissing
from axe.event import TopicPartition
from axe.sources import Bounds
from axe.sources.kafka import KafkaSource
from axe.sources.kafka_client import Trouble, translated, trouble

from ..services import free_port
from ..services.kafka import SASL_PASSWORD, SASL_USER, KafkaBroker, open_kafka
from .reading import DEADLINE_S, fetch_some, read_to_end, wait_for_error

Open = Callable[..., KafkaSource]


@pytest.fixture
def open_source() -> Iterator[Open]:
    """Opens sources that are closed after the test."""
    opened: list[KafkaSource] = []

    def open_one(brokers: str, group: str = "axe.tests", **properties: Any) -> KafkaSource:
        named = {name.replace("__", "."): value for name, value in properties.items()}
        opened.append(KafkaSource(brokers, group=group, properties=named, client_id="tests"))
        return opened[-1]

    yield open_one
    for source in opened:
        source.close()


@pytest.fixture
def source(kafka: KafkaBroker, open_source: Open) -> KafkaSource:
    return open_source(kafka.bootstrap)


@pytest.fixture(scope="module")
def own_kafka(kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """A broker that tests may stop; not the one that others use meanwhile."""
    if not kafka.is_ours:
        pytest.skip("these tests stop the broker; they do not use the one of AXE_TEST_KAFKA")
    broker = open_kafka()
    yield broker
    broker.close()


def open_transaction(kafka: KafkaBroker, topic: str, *values: bytes) -> Producer:
    """A producer that has written these values, in a transaction that is still open."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.flush()
    return producer


def test_the_end_is_reached_past_a_commit_marker(kafka: KafkaBroker, source: KafkaSource, topic: str) -> None:
    kafka.create_topic(topic)
    at = TopicPartition(topic, 0)
    open_transaction(kafka, topic, b"a", b"b").commit_transaction()

    source.assign({at: 0})
    records, reached = read_to_end(source, [at])

    assert [record.value for record in records] == [b"a", b"b"]
    assert reached == {at: 3}
    assert source.bounds([at]) == {at: Bounds(0, 3)}


def test_the_end_moves_past_an_aborted_transaction_without_records(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, b"a")
    at = TopicPartition(topic, 0)
    source.assign({at: 0})
    read_to_end(source, [at])
    open_transaction(kafka, topic, b"never").abort_transaction()

    assert read_to_end(source, [at]) == ([], {at: 3})


def test_a_position_at_a_marker_reaches_the_end(kafka: KafkaBroker, source: KafkaSource, topic: str) -> None:
    kafka.create_topic(topic)
    at = TopicPartition(topic, 0)
    open_transaction(kafka, topic, b"a").commit_transaction()

    source.assign({at: 1})

    assert read_to_end(source, [at]) == ([], {at: 2})


def test_an_open_transaction_is_beyond_the_end_until_it_commits(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, b"a")
    at = TopicPartition(topic, 0)
    producer = open_transaction(kafka, topic, b"b")
    source.assign({at: 0})

    assert source.bounds([at]) == {at: Bounds(0, 1)}
    assert [record.value for record in read_to_end(source, [at])[0]] == [b"a"]

    producer.commit_transaction()
    assert [record.value for record in read_to_end(source, [at])[0]] == [b"b"]


def test_the_end_of_a_compacted_log_is_reached_across_its_gaps(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    compacting = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.001",
        "delete.retention.ms": "0",
    }
    kafka.create_topic(topic, config=compacting)
    at = TopicPartition(topic, 0)
    deadline = time.monotonic() + 60
    offsets = [0]
    # Only closed segments are compacted, and only a later record closes one.
    while offsets[0] == 0:
        assert time.monotonic() < deadline, "the broker did not compact the log"
        kafka.produce(topic, b"a", None, key=b"k")
        source.assign({at: 0})
        records, reached = read_to_end(source, [at])
        offsets = [record.offset for record in records]

    assert reached == {at: source.bounds([at])[at].end}
    assert len(offsets) < reached[at]
    for position in range(offsets[0] + 1):
        source.assign({at: position})
        assert read_to_end(source, [at])[1] == reached


def test_a_log_whose_records_were_all_deleted_has_reached_its_end(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, b"a", b"b", b"c")
    at = TopicPartition(topic, 0)
    kafka.delete_before(topic, 3)

    source.assign({at: 3})

    assert source.bounds([at]) == {at: Bounds(3, 3)}
    assert read_to_end(source, [at]) == ([], {at: 3})


def test_a_position_before_the_begin_is_refused_with_the_numbers(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, *(b"%d" % number for number in range(100)))
    kafka.delete_before(topic, 60)

    source.assign({TopicPartition(topic, 0): 18})
    error = wait_for_error(source, BehindRetention)

    for part in (f"{topic}[0]", "position is 18", "60 to 100", "42 offsets"):
        assert part in str(error)


def test_keys_headers_and_times_come_as_they_are(kafka: KafkaBroker, source: KafkaSource, topic: str) -> None:
    kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [("type", b"x"), ("empty", b""), ("null", None), ("type", b"twice")]
    producer.produce(topic, b"v", key=b"\xff\x00", headers=headers, timestamp=1_700_000_000_123)
    producer.flush()

    source.assign({TopicPartition(topic, 0): 0})
    record = fetch_some(source)[0]

    assert record.key == b"\xff\x00"
    assert record.headers == tuple(headers)
    assert record.timestamp_ms == 1_700_000_000_123


def test_offsets_by_time_cover_the_middle_and_the_end(kafka: KafkaBroker, source: KafkaSource, topic: str) -> None:
    kafka.create_topic(topic, 2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(10):
        producer.produce(topic, b"v", partition=0, timestamp=1_700_000_000_000 + number * 1000)
    producer.flush()
    filled, empty = source.partitions(topic)

    assert source.offsets_at([filled, empty], 1_700_000_004_500) == {filled: 5, empty: 0}
    assert source.offsets_at([filled], 1_800_000_000_000) == {filled: 10}
    assert source.offsets_at([filled], -1) == {filled: 0}


def test_a_deleted_topic_is_noticed_under_a_reader(
    kafka: KafkaBroker, source: KafkaSource, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axe.sources.kafka_topics.WATCH_EVERY_S", 0.1)
    kafka.create_topic(topic)
    kafka.produce(topic, b"a")
    at = TopicPartition(topic, 0)
    source.assign({at: 0})
    read_to_end(source, [at])

    kafka.delete_topic(topic)

    assert topic in str(wait_for_error(source, TopicMissing))


def read_and_make_anew(kafka: KafkaBroker, source: KafkaSource, topic: str) -> TopicPartition:
    """Have a reader at 3000 of a topic that was then made anew, with 100 records."""
    kafka.create_topic(topic)
    kafka.produce(topic, *[b"old"] * 3000)
    at = TopicPartition(topic, 0)
    source.assign({at: 0})
    read_to_end(source, [at], events=10_000)
    kafka.delete_topic(topic)
    kafka.create_topic(topic)
    kafka.produce(topic, *[b"new"] * 100)
    return at


def refusal(source: KafkaSource) -> Message:
    """Take the broker's refusal of a position out of the client."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < deadline, "the broker refused nothing"
        message = source._consumer.poll(0.2)
        if message is not None and message.error() and message.error().code() == KafkaError._AUTO_OFFSET_RESET:
            return message


class Late:
    """A client whose next poll brings something that was under way."""

    def __init__(self, client: Any, message: Message) -> None:
        self._client = client
        self._messages = [message]

    def poll(self, timeout_s: float) -> Message | None:
        return self._messages.pop() if self._messages else self._client.poll(timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_refusal_that_waits_in_the_client_does_not_outlive_its_assignment(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    at = read_and_make_anew(kafka, source, topic)
    # A pause, because nothing but taking it out tells that it waits in the client.
    time.sleep(2)

    source.assign({at: 0})

    assert [record.offset for record in read_to_end(source, [at])[0]] == list(range(100))


def test_a_late_refusal_of_another_position_is_no_error_of_ours(
    kafka: KafkaBroker, source: KafkaSource, topic: str
) -> None:
    at = read_and_make_anew(kafka, source, topic)
    late = refusal(source)
    source.assign({at: 0})
    source._consumer = Late(source._consumer, late)

    with pytest.raises(SourceUnavailable, match="position is 0, the log spans 0 to 100"):
        source.fetch(events=1000, size=1_000_000, timeout_s=1)

    source.assign({at: 0})
    assert [record.offset for record in read_to_end(source, [at])[0]] == list(range(100))


def test_the_bounds_of_a_missing_partition_name_it(kafka: KafkaBroker, source: KafkaSource, topic: str) -> None:
    kafka.create_topic(topic)

    with pytest.raises(TopicMissing, match=topic):
        source.bounds([TopicPartition(topic, 7)])


def mirrored(source: KafkaSource, *partitions: TopicPartition) -> dict[TopicPartition, tuple[int, str]]:
    """Ask for what the group holds; on a fresh broker its coordinator is not there at once."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return source.mirrored(partitions)
        except SourceUnavailable:
            assert time.monotonic() < deadline


def test_mirrored_positions_carry_the_store_id(kafka: KafkaBroker, open_source: Open, topic: str) -> None:
    kafka.create_topic(topic, 2)
    source = open_source(kafka.bootstrap, group=topic)
    first, second = source.partitions(topic)
    assert mirrored(source, first, second) == {}

    source.mirror({first: 42}, "store-1")

    deadline = time.monotonic() + DEADLINE_S
    while not mirrored(source, first):
        assert time.monotonic() < deadline
    assert mirrored(source, first, second) == {first: (42, "store-1")}


def test_another_store_in_the_same_group_is_said_once(
    kafka: KafkaBroker, open_source: Open, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.create_topic(topic)
    at = TopicPartition(topic, 0)
    first, second = open_source(kafka.bootstrap, group=topic), open_source(kafka.bootstrap, group=topic)
    first.mirror({at: 1}, "store-1")
    deadline = time.monotonic() + DEADLINE_S
    while not mirrored(first, at):
        assert time.monotonic() < deadline

    for position in (2, 3):
        second.mirror({at: position}, "store-2")

    said = [line.getMessage() for line in caplog.records if "another store" in line.getMessage()]
    assert len(said) == 1
    assert "store-1" in said[0]


def test_an_unreachable_broker_is_named_within_seconds(
    open_source: Open, topic: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KafkaSource.call_timeout_s <= 5
    monkeypatch.setattr(KafkaSource, "call_timeout_s", 1.0)
    brokers = f"127.0.0.1:{free_port()}"
    source = open_source(brokers)
    at = TopicPartition(topic, 0)
    source.assign({at: 0})

    calls: list[Callable[[], object]] = [
        source.cluster_id,
        lambda: source.partitions(topic),
        lambda: source.topic_id(topic),
        lambda: source.bounds([at]),
        lambda: source.offsets_at([at], 0),
        lambda: source.mirrored([at]),
        lambda: source.fetch(events=1, size=1, timeout_s=1),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match=brokers):
            call()
        # The client's own limits begin at 60.
        assert time.monotonic() - began < 20

    assert capfd.readouterr().err == ""


def complaints(source: KafkaSource, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ask a few times; all that the source says of it."""
    monkeypatch.setattr(KafkaSource, "call_timeout_s", 1.0)
    said = set()
    for _ in range(4):
        with pytest.raises(SourceUnavailable) as caught:
            source.cluster_id()
        said.add(str(caught.value))
    return said


def test_a_host_without_an_address_is_said_as_such(open_source: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = complaints(open_source("nowhere.invalid:9092"), monkeypatch)

    assert said.startswith("no answer from nowhere.invalid:9092: Failed to resolve 'nowhere.invalid:9092': ")
    assert said.endswith("; start the broker, or correct `source`")


def test_a_port_where_nobody_listens_is_said_as_such(open_source: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = complaints(open_source(f"127.0.0.1:{free_port()}"), monkeypatch)

    assert said.endswith("failed: Connection refused; start the broker, or correct `source`")


def test_tls_to_a_broker_without_is_said_as_such(
    kafka: KafkaBroker, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = complaints(open_source(kafka.bootstrap, security__protocol="SSL"), monkeypatch)

    # Whether the broker's answer or its hanging up is seen first is a race: "handshake failed", or "closed by peer".
    assert all(": SSL " in line and "`security.protocol` under [kafka]" in line for line in said)


def test_a_broker_that_wants_a_password_leads_to_the_protocol(
    own_kafka: KafkaBroker, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = complaints(open_source(own_kafka.sasl_bootstrap), monkeypatch)

    # By chance it hangs up while the client waits or while it writes.
    assert "Disconnected: connection closed by peer; " in said or "Broken pipe; " in said
    assert "`security.protocol` under [kafka]" in said


@pytest.mark.parametrize("cause", ["Disconnected: connection closed by peer", "Send failed: Broken pipe"])
def test_a_broker_that_hangs_up_may_want_another_protocol(cause: str) -> None:
    away = KafkaError(KafkaError._TRANSPORT)

    said = str(translated(away, "", "somewhere:9092", cause))

    assert said.endswith(f"{cause}; start the broker, or correct `source`, or `security.protocol` under [kafka]")


def test_a_refusal_says_the_same_each_time(
    own_kafka: KafkaBroker, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"sasl__mechanisms": "SCRAM-SHA-256", "sasl__username": "a", "sasl__password": "b"}
    source = open_source(own_kafka.sasl_bootstrap, security__protocol="SASL_PLAINTEXT", **wrong)

    (said,) = complaints(source, monkeypatch)

    assert "Unsupported SASL mechanism" in said
    assert "in state" not in said


def test_a_client_that_gets_nothing_of_a_log_that_goes_on_is_made_anew(
    kafka: KafkaBroker, source: KafkaSource, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axe.sources.kafka_stalls.STALLED_S", 2.0)
    monkeypatch.setattr("axe.sources.kafka_stalls._ASK_EVERY_S", 0.5)
    kafka.create_topic(topic, partitions=2)
    stuck, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    source.assign({stuck: 0, other: 0})
    read_to_end(source, [stuck, other])
    # As librdkafka may be after leaders have moved: alive, and deaf on one partition.
    source._consumer.pause([KafkaPartition(topic, 0)])
    kafka.produce(topic, b"unheard", partition=0)

    with pytest.raises(
        SourceUnavailable, match=rf"{topic}\[0\]: nothing came .* offset 0 on, .* goes on to 1; "
    ) as told:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            kafka.produce(topic, b"heard", partition=1)
            source.fetch(events=10, size=1_000_000, timeout_s=0.2)

    source.assign({stuck: 0})
    assert [message.value() for message in source.fetch(events=10, size=1_000_000, timeout_s=10).records] == [
        b"unheard"
    ]
    assert "connecting anew" in str(told.value)


def test_records_that_wait_in_the_client_are_no_reason_to_connect_anew(
    kafka: KafkaBroker, source: KafkaSource, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axe.sources.kafka_stalls.STALLED_S", 0.5)
    monkeypatch.setattr("axe.sources.kafka_stalls._ASK_EVERY_S", 0.2)
    kafka.create_topic(topic, partitions=2)
    parts = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    source.assign(dict.fromkeys(parts, 0))
    read_to_end(source, parts)
    for part in parts:
        kafka.produce(topic, *[b"v"] * 100, partition=part.partition)

    taken: list[Message] = []
    while len(taken) < 200:
        taken += source.fetch(events=1, size=1_000_000, timeout_s=10).records
        time.sleep(0.02)  # what a slow handler takes

    assert len({(message.partition(), message.offset()) for message in taken}) == 200


def test_ends_without_a_record_are_no_reason_to_connect_anew(
    kafka: KafkaBroker, source: KafkaSource, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axe.sources.kafka_stalls.STALLED_S", 1.0)
    monkeypatch.setattr("axe.sources.kafka_stalls._ASK_EVERY_S", 0.3)
    kafka.create_topic(topic)
    open_transaction(kafka, topic, b"a").abort_transaction()
    unfinished = open_transaction(kafka, topic, b"b")
    at = TopicPartition(topic, 0)
    source.assign({at: 0})

    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert not source.fetch(events=10, size=1_000_000, timeout_s=0.2).records

    unfinished.abort_transaction()


def test_records_come_again_after_the_broker_was_away(own_kafka: KafkaBroker, open_source: Open, topic: str) -> None:
    own_kafka.create_topic(topic)
    own_kafka.produce(topic, b"before")
    at = TopicPartition(topic, 0)
    source = open_source(own_kafka.bootstrap)
    source.assign({at: 0})
    read_to_end(source, [at])

    own_kafka.kill()
    assert own_kafka.bootstrap in str(wait_for_error(source, SourceUnavailable))
    own_kafka.start()
    own_kafka.produce(topic, b"after")

    deadline = time.monotonic() + 30
    values: list[bytes | None] = []
    source.assign({at: 1})
    while not values:
        assert time.monotonic() < deadline
        try:
            values += map(source.form.value, source.fetch(events=10, size=1000, timeout_s=0.5).records)
        except SourceUnavailable:
            source.assign({at: 1})
    assert values == [b"after"]


def test_a_quiet_reader_stops_complaining_once_the_broker_is_back(
    own_kafka: KafkaBroker, open_source: Open, topic: str
) -> None:
    own_kafka.create_topic(topic)
    at = TopicPartition(topic, 0)
    source = open_source(own_kafka.bootstrap)
    source.assign({at: 0})
    read_to_end(source, [at])
    own_kafka.stop()
    wait_for_error(source, SourceUnavailable)

    own_kafka.start()

    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        try:
            source.fetch(events=10, size=1000, timeout_s=0.1)
            break
        except SourceUnavailable:
            continue


def test_a_frozen_broker_is_an_outage_and_not_a_silence(own_kafka: KafkaBroker, open_source: Open, topic: str) -> None:
    own_kafka.create_topic(topic)
    at = TopicPartition(topic, 0)
    source = open_source(own_kafka.bootstrap, socket__timeout__ms=1500)
    source.assign({at: 0})
    read_to_end(source, [at])

    own_kafka.pause()
    try:
        wait_for_error(source, SourceUnavailable, deadline_s=30)
        with pytest.raises(SourceUnavailable):
            source.bounds([at])
    finally:
        own_kafka.resume()


def test_a_wrong_password_is_said_as_such_and_not_shown(own_kafka: KafkaBroker, open_source: Open, topic: str) -> None:
    secret = "canary-password"
    source = open_source(
        own_kafka.sasl_bootstrap,
        security__protocol="SASL_PLAINTEXT",
        sasl__mechanisms="PLAIN",
        sasl__username=SASL_USER,
        sasl__password=secret,
    )

    with pytest.raises(SourceUnavailable, match=r"refuses this client.*uthentication") as caught:
        source.partitions(topic)

    assert secret not in str(caught.value)
    assert own_kafka.sasl_bootstrap in str(caught.value)


def test_the_properties_of_the_configuration_reach_the_client(
    own_kafka: KafkaBroker, open_source: Open, topic: str
) -> None:
    own_kafka.create_topic(topic)
    source = open_source(
        own_kafka.sasl_bootstrap,
        security__protocol="SASL_PLAINTEXT",
        sasl__mechanisms="PLAIN",
        sasl__username=SASL_USER,
        sasl__password=SASL_PASSWORD,
    )

    assert source.partitions(topic)
    assert source.topic_id(topic)


def test_a_property_that_breaks_the_promise_is_refused_by_the_source_too() -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaSource("127.0.0.1:9", group="g", properties={"enable.auto.commit": "canary"}, client_id="tests")

    assert '"enable.auto.commit" is refused: positions' in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fetch.min.bites", 1),
        ("fetch.min.bytes", "many"),
        ("check.crcs", "perhaps"),
        ("error_cb", "print"),
        ("ssl.ca.location", ["a", "b"]),
        ("security.protocol", "tls"),
    ],
)
def test_an_unknown_property_or_a_bad_value_is_named_in_one_line(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaSource("127.0.0.1:9", group="g", properties={name: value}, client_id="tests")

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unverified_certificates_are_said_at_every_start(open_source: Open, caplog: pytest.LogCaptureFixture) -> None:
    open_source("127.0.0.1:9", enable__ssl__certificate__verification=False)

    assert [line.levelname for line in caplog.records] == ["WARNING"]


def test_every_error_of_the_client_means_something() -> None:
    codes = {
        name: code for name, code in vars(KafkaError).items() if isinstance(code, int) and not name.startswith("__")
    }
    assert len(codes) > 100

    meanings = {name: trouble(KafkaError(code)) for name, code in codes.items()}

    assert meanings["OFFSET_OUT_OF_RANGE"] is Trouble.POSITION
    assert meanings["_AUTO_OFFSET_RESET"] is Trouble.POSITION
    assert meanings["UNKNOWN_TOPIC_OR_PART"] is Trouble.MISSING
    assert meanings["_AUTHENTICATION"] is Trouble.DENIED
    assert meanings["_ALL_BROKERS_DOWN"] is Trouble.UNAVAILABLE
    assert meanings["_BAD_COMPRESSION"] is Trouble.DAMAGED
    # Whatever speaks of authorization is for a person to mend, not an outage.
    denied = {name for name in meanings if "AUTHORIZATION_FAILED" in name and "TRANSACTIONAL" not in name}
    assert {meanings[name] for name in denied} == {Trouble.DENIED}


def test_no_group_means_no_mirror(kafka: KafkaBroker, open_source: Open, topic: str) -> None:
    kafka.create_topic(topic)
    source = open_source(kafka.bootstrap, group="")
    at = TopicPartition(topic, 0)

    source.mirror({at: 5}, "store-1")

    assert source.mirrored([at]) == {}
    other = open_source(kafka.bootstrap, group="axe")
    assert mirrored(other, at) == {}


def test_the_offsets_of_the_group_are_never_read_back(kafka: KafkaBroker, open_source: Open, topic: str) -> None:
    kafka.create_topic(topic)
    kafka.produce(topic, b"a", b"b", b"c")
    at = TopicPartition(topic, 0)
    source = open_source(kafka.bootstrap, group=topic)
    source.mirror({at: 3}, "store-1")
    deadline = time.monotonic() + DEADLINE_S
    while not mirrored(source, at):
        assert time.monotonic() < deadline

    source.assign({at: 1})

    assert [record.offset for record in read_to_end(source, [at])[0]] == [1, 2]
