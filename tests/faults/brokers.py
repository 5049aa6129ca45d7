"""Scenarios: the broker dies, stops, freezes; the network to it is cut; leaders move; a registry is away."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import psutil

from tests.services.kafka import KafkaCluster
from tests.services.mock_kafka import MockCluster
from tests.services.registry import SchemaRegistry

from .registry import scenario
from .running import PARTITIONS, AxeRun, Feed, wait_until, workers
from .trial import Trial

# librdkafka gives up a silent request after socket.timeout.ms, 10 s, and tells of it once it has tried again.
SAID_S = 60


def outages(
    trial: Trial,
    run: AxeRun,
    feed: Feed,
    begin: Callable[[], object],
    end: Callable[[], object],
    *,
    waits: Callable[[], bool] | None = None,
) -> None:
    """Let something be away again and again, while events go on; what was written meanwhile is there 60 s later.

    An outage lasts until the run has said that it waits, and a little longer.
    """
    is_waiting = waits or (lambda: run.status() == "waiting")
    with feed:
        host, worker = _started(run)
        for _ in range(trial.times):
            before = run.position()
            wait_until(lambda: run.position() > before, 60, f"it stands still\n{run.log()}")
            time.sleep(trial.chance.uniform(0.0, 0.5))
            begin()
            try:
                wait_until(is_waiting, SAID_S, f"it does not say that it waits\n{run.log()}")
                time.sleep(trial.chance.uniform(0.0, 1.0))
            finally:
                end()
            with trial.recovery(run, lambda: feed.written):
                trial.fault()
            assert _is_the_same(worker, workers(host)), f"the worker was started again\n{run.log()}"
        wait_until(lambda: run.status() == "running", 30, f"it still says: {run.status()}")
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    trial.judge(run.location, feed.input)


def _started(run: AxeRun) -> tuple[psutil.Popen, psutil.Process]:
    """Start a host; return it and its worker, once that has committed."""
    host = run.start()
    wait_until(lambda: run.position() > 0, 60, f"nothing was committed\n{run.log()}")
    (worker,) = workers(host)
    return host, worker


def _on(cluster: KafkaCluster | MockCluster, trial: Trial, **options: Any) -> tuple[Feed, AxeRun]:
    """Make a feed into several brokers, which end with the trial, and a run that reads it."""
    trial.stack.callback(cluster.close)
    topic = f"faults-{uuid.uuid4().hex[:12]}"
    cluster.create_topic(topic, PARTITIONS)
    feed = Feed(cluster, topic)
    feed.produce(100)
    return feed, trial.axe(feed, brokers=cluster.bootstrap, **options)


def _is_the_same(worker: psutil.Process, found: list[psutil.Process]) -> bool:
    return [one.pid for one in found] == [worker.pid]


@scenario("F3", "the broker is killed and comes back", needs=("kafka",), short=1, long=200)
def broker_killed(trial: Trial) -> None:
    feed = trial.feed(200)
    outages(trial, trial.axe(feed), feed, trial.kafka.kill, trial.kafka.start)


@scenario("F3", "the broker is stopped by SIGTERM and comes back", needs=("kafka",), short=1, long=200)
def broker_stopped(trial: Trial) -> None:
    feed = trial.feed(200)
    outages(trial, trial.axe(feed), feed, trial.kafka.stop, trial.kafka.start)


@scenario("F3", "the broker is frozen and goes on", needs=("kafka",), short=1, long=200)
def broker_frozen(trial: Trial) -> None:
    feed = trial.feed(200)
    outages(trial, trial.axe(feed), feed, trial.kafka.pause, trial.kafka.resume)


@scenario("F7", "connections to Kafka are reset, and every new one", needs=("kafka",), short=2, long=200)
def kafka_reset(trial: Trial) -> None:
    feed = trial.feed(200)
    proxy = trial.proxy(("127.0.0.1", trial.kafka.behind_proxy), trial.kafka.proxied_port)
    run = trial.axe(feed, brokers=f"127.0.0.1:{proxy.port}")
    outages(trial, run, feed, proxy.reset, proxy.restore)


@scenario("F7", "connections to Kafka swallow what is sent, and stay dead", needs=("kafka",), short=1, long=100)
def kafka_swallowed(trial: Trial) -> None:
    feed = trial.feed(200)
    proxy = trial.proxy(("127.0.0.1", trial.kafka.behind_proxy), trial.kafka.proxied_port)
    run = trial.axe(feed, brokers=f"127.0.0.1:{proxy.port}")
    outages(trial, run, feed, proxy.swallow, lambda: proxy.restore(keep=False))


MOCKED = """
from axe.sources.kafka_topics import TopicWatch
from tests.oracle import Oracle as Handler

# The mock cluster names no controller, and the client asks nobody else for the ids of topics.
TopicWatch.id_of = lambda self, topic: None
TopicWatch.watch = lambda self, topics: None
"""
# Events of a move: the mock cluster keeps 5 MB of a partition, and one is a hundred bytes.
_A_MOVE = 4
_CATCH_UP_EVERY = 10


@scenario("F4", "leaders move among three brokers of librdkafka's mock cluster", short=100, long=5_000)
def leader_moves(trial: Trial) -> None:
    cluster = MockCluster(3)
    feed, run = _on(cluster, trial, handler=MOCKED)
    host, worker = _started(run)
    leaders = dict.fromkeys(range(PARTITIONS), 0)
    for number in range(trial.times):
        partition = trial.chance.randrange(PARTITIONS)
        leaders[partition] = trial.chance.choice([one for one in cluster.brokers if one != leaders[partition]])
        cluster.move_leader(feed.topic, partition, leaders[partition])
        trial.fault()
        feed.produce(_A_MOVE)
        if number % _CATCH_UP_EVERY == 0:
            with trial.recovery(run, lambda: feed.written):
                pass
    with trial.recovery(run, lambda: feed.written):
        pass
    assert _is_the_same(worker, workers(host)), f"the worker was started again\n{run.log()}"
    host.terminate()
    assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    trial.judge(run.location, feed.input)


# What the next leader has to take, and the processor to commit.
_GOES_ON = 200


@scenario("F4", "of three brokers one dies, stops or freezes, another leads, and it leads again", short=1, long=200)
def leader_gone(trial: Trial) -> None:
    cluster = KafkaCluster(3)
    feed, run = _on(cluster, trial)
    topic = feed.topic
    with feed:
        host, worker = _started(run)
        for _ in range(trial.times):
            partition = trial.chance.randrange(PARTITIONS)
            meant = cluster.leader(topic, partition)
            broker = cluster.brokers[meant]
            leave, come_back = trial.chance.choice(
                [
                    (broker.kill, broker.start),
                    (broker.stop, broker.start),
                    (broker.pause, broker.resume),
                ]
            )
            leave()
            trial.fault()
            try:
                wait_until(lambda: cluster.leader(topic, partition) not in (meant, -1), 60, "no other broker leads")
                with trial.recovery(run, lambda: feed.written + _GOES_ON):
                    pass
            finally:
                come_back()
            wait_until(lambda: cluster.is_whole(topic), 60, "the broker that was away does not catch up")
            wait_until(lambda: cluster.leads_again(topic, partition, meant), 60, "it does not lead again")
            trial.fault()
            with trial.recovery(run, lambda: feed.written + _GOES_ON):
                pass
            assert _is_the_same(worker, workers(host)), f"the worker was started again\n{run.log()}"
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    trial.judge(run.location, feed.input)


# What a decoder that asks a registry looks like from outside: each hundred events come with a new schema.
REGISTERED = """
import json
import os
import urllib.request

from tests.oracle import Oracle
import axe

class Handler(Oracle):
    @axe.hookimpl
    def deserializer(self, topic, settings):
        known = {}

        def read(record):
            value = json.loads(record.value)
            number = value["n"] // 100
            if number not in known:
                url = f"{os.environ['TEST_REGISTRY']}/schemas/ids/{number}"
                try:
                    with urllib.request.urlopen(url, timeout=2) as answer:
                        known[number] = json.load(answer)["schema"]
                except OSError as error:
                    raise axe.SourceUnavailable(f"the schema registry does not answer: {error}") from error
            return value

        return read
"""


@scenario("F21", "a schema registry is away: waited for, no dead letters", needs=("kafka",), short=1, long=100)
def registry_down(trial: Trial) -> None:
    registry = SchemaRegistry()
    trial.stack.callback(registry.stop)
    feed = trial.feed(200)
    run = trial.axe(feed, handler=REGISTERED, environment={"TEST_REGISTRY": registry.url})
    outages(trial, run, feed, registry.stop, registry.start)
    assert run.count("the schema registry does not answer"), run.log()
