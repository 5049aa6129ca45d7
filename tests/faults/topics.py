"""Scenarios: topics that change under a processor, records that are nonsense, slow handlers, offsets of the group."""

from __future__ import annotations

import itertools
import random

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.cimpl import NewPartitions

from axe import TopicPartition
from tests.services.kafka import _silent

from .registry import scenario
from .running import wait_until
from .trial import Trial


@scenario("F16", "a topic is made anew, shorter and longer: refused by name", needs=("kafka",), short=2, long=50)
def topic_made_anew(trial: Trial) -> None:
    feed = trial.feed(200)
    run = trial.axe(feed)
    run.finish()
    for count in itertools.islice(itertools.cycle((50, 400)), trial.times):
        before = run.count("was made anew")
        trial.kafka.delete_topic(feed.topic)
        trial.kafka.create_topic(feed.topic, 2)
        feed.produce(count)
        assert run.start("--until-end").wait(timeout=60) == 1, run.log()
        assert run.count("was made anew") > before, run.log()
        trial.fault()
        assert run.command("reset", "oracle", "--to", "earliest", "--wipe", "--yes").wait(60) == 0, run.log()
        run.finish()
    # Dead letters of an earlier making of the topic outlive the wipe, where the new one is shorter.
    if trial.times % 2 == 0:
        trial.judge(run.location, feed.input)


@scenario("F16", "partitions are added while it runs: read from their begin", needs=("kafka",), short=1, long=20)
def partitions_added(trial: Trial) -> None:
    feed = trial.feed(200)
    run = trial.axe(feed)
    with feed:
        host = run.start()
        for number in range(trial.times):
            count = 3 + number
            trial.kafka.admin.create_partitions([NewPartitions(feed.topic, count)])[feed.topic].result(30)
            trial.fault()
            sql = "SELECT count(*) FROM axe_offsets"
            wait_until(lambda: run.ask(sql, 0) == count, 60, f"they are not picked up\n{run.log()}")
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    trial.judge(run.location, feed.input)


@scenario("F17", "retention went past the position: halts with the size of the gap", needs=("kafka",), short=1, long=50)
def retention(trial: Trial) -> None:
    feed = trial.feed(200)
    run = trial.axe(feed)
    run.finish()
    begin = 200
    for number in range(trial.times):
        gap = trial.chance.randrange(1, 300)
        feed.produce(500)
        trial.kafka.delete_before(feed.topic, begin + gap)
        assert run.start("--until-end").wait(timeout=60) == 1, run.log()
        assert run.count(f"the log begins at {begin + gap}: {gap} are gone"), run.log()
        trial.fault()
        assert run.command("reset", "oracle", "--to", "earliest", "--wipe", "--yes").wait(60) == 0, run.log()
        run.finish()
        begin = 200 + 500 * (number + 1)
        log = feed.input
        first = TopicPartition(feed.topic, 0)
        rows = run.ask(f"SELECT min(off) FROM seen WHERE part = {first.partition}", -1)
        assert rows >= begin - 500 + gap, rows
        assert run.position() == sum(map(len, log.values()))


FUZZ = """
import axe

class Handler:
    def __init__(self, topics):
        self.topics = topics

    @axe.hookimpl
    def on_event(self, event, state):
        state["decoded"] = state.get("decoded", 0) + 1
        key = f"{event.partition}"
        assert event.offset > state.get(key, -1), "out of order"
        state[key] = event.offset
"""


def _fuzzed(chance: random.Random, whole: bytes) -> bytes:
    """Return it as it is, or with a byte changed, or cut, or noise: more than half of them decode."""
    value, kind = bytearray(whole), chance.random()
    if kind < 0.25:
        value[chance.randrange(len(value))] = chance.randrange(256)
    elif kind < 0.3:
        del value[chance.randrange(len(value)) :]
    elif kind < 0.35:
        return chance.randbytes(chance.randrange(99))
    return bytes(value)


@scenario("F18", "payloads of any bytes: each is decoded or rejected", needs=("kafka",), short=5_000, long=1_000_000)
def payload_fuzz(trial: Trial) -> None:
    feed = trial.feed(0)
    run = trial.axe(feed, handler=FUZZ)
    whole = b'{"n": 1, "text": "\\u00e4 \xc3\xa4", "list": [1, 2.5, null, true, {"a": []}]}'
    values = [_fuzzed(trial.chance, whole) for _ in range(trial.times)]
    trial.kafka.produce(feed.topic, *values)
    for _ in range(100):
        # Where most of the latest hundred were refused it pauses, which is right, and goes on when told to.
        run.start("--until-end").wait(timeout=120)
        if run.position() == len(values):
            break
        assert run.status() == "paused", run.log()
        run.command("resume", "oracle").wait(30)
    decoded = int(run.ask("SELECT value FROM axe_values WHERE key = 'decoded'", 0))
    refused = int(run.ask("SELECT count(*) FROM axe_dead_letters", 0))
    assert decoded + refused == len(values), f"{decoded} decoded, {refused} refused of {len(values)}"
    assert decoded > 0 and refused > 0
    assert not run.count("worker died"), run.log()
    trial.faults, trial.events = len(values), len(values)


SLOW = """
import time
from tests.oracle import Oracle
import axe

class Handler(Oracle):
    @axe.hookimpl
    def on_event(self, event, state):
        super().on_event(event, state)
        if event.offset % 20 == 10:
            time.sleep(3)
"""


@scenario("F22", "a handler slower than max.poll.interval.ms: no event twice", needs=("kafka",), short=2, long=50)
def slow_handler(trial: Trial) -> None:
    feed = trial.feed(20 * trial.times)
    settings = '[kafka]\n"max.poll.interval.ms" = 2000\n"session.timeout.ms" = 2000\n'
    run = trial.axe(feed, handler=SLOW, settings=settings)
    run.finish(60 + 10 * trial.times)
    trial.faults = trial.times
    trial.judge(run.location, feed.input)


@scenario("F29", "the group's offsets are lost or wrong: the database decides", needs=("kafka",), short=3, long=100)
def group_offsets(trial: Trial) -> None:
    feed = trial.feed(200)
    group = f"group-{feed.topic}"
    run = trial.axe(feed, settings=f'[processors.oracle]\ngroup = "{group}"\n')
    run.finish()
    for _ in range(trial.times):
        consumer = Consumer({"bootstrap.servers": trial.kafka.bootstrap, "group.id": group}, logger=_silent)
        places = [KafkaPartition(feed.topic, number) for number in range(2)]
        shown = [place.offset for place in consumer.committed(places, timeout=30)]
        assert sum(shown) == run.position(), f"the group shows {shown}: this changes the offsets of nobody"
        for place in places:
            place.offset = trial.chance.choice((0, 7, 150, 10**6))
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()
        trial.fault()
        feed.produce(100)
        run.finish()
        trial.judge(run.location, feed.input, complete=False)
    trial.judge(run.location, feed.input)
