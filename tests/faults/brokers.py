"""Scenarios: the broker dies, stops, freezes; the network to it is cut."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from .registry import scenario
from .running import AxeRun, Feed, wait_until, workers
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
        host = run.start()
        wait_until(lambda: run.position() > 0, 60, f"nothing was committed\n{run.log()}")
        (worker,) = workers(host)
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
