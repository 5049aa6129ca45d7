"""Scenarios on PostgreSQL: it restarts, connections are cut, a frozen worker wakes up after another took over."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from .brokers import SAID_S, outages
from .registry import scenario
from .running import AxeRun, Feed, is_alive, wait_until, workers
from .trial import Trial

_SERVICES = ("kafka", "postgresql")
# Each event is a question to the server, and a proxy in Python does not pass on thousands a second.
_EVERY_S = 0.1
# A simple query of the protocol: its letter, its length, its text.
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


def _on_postgresql(trial: Trial, feed: Feed, *, port: int | None = None, name: str = "axe", **options: Any) -> AxeRun:
    """Make a run whose state is a new database, with the proxy at this port before it."""
    url = trial.postgresql.create_database()
    through = url if port is None else re.sub(r"@/(\w+)\?.*", rf"@127.0.0.1:{port}/\1", url)
    return trial.axe(feed, name=name, state=through, looked_at=url, **options)


def _says_so(run: AxeRun) -> Callable[[], bool]:
    """Return a question: whether it has said once more since the last yes that it waits."""
    said = 0

    def ask() -> bool:
        nonlocal said
        before, said = said, run.count("] waiting")
        return said > before

    return ask


@scenario("F8", "PostgreSQL dies (immediate shutdown) and is started again", needs=_SERVICES, short=1, long=200)
def postgresql_restarted(trial: Trial) -> None:
    feed = trial.feed(200, every_s=_EVERY_S)
    run = _on_postgresql(trial, feed)
    outages(trial, run, feed, trial.postgresql.stop, trial.postgresql.start, waits=_says_so(run))


@scenario("F7", "connections to PostgreSQL are reset, and every new one", needs=_SERVICES, short=1, long=200)
def postgresql_reset(trial: Trial) -> None:
    feed = trial.feed(200, every_s=_EVERY_S)
    proxy = trial.proxy(trial.postgresql.socket_path)
    run = _on_postgresql(trial, feed, port=proxy.port)
    outages(trial, run, feed, proxy.reset, proxy.restore, waits=_says_so(run))


@scenario("F7", "PostgreSQL's packets are held up for seconds, and come then", needs=_SERVICES, short=1, long=100)
def postgresql_held_up(trial: Trial) -> None:
    feed = trial.feed(200, every_s=_EVERY_S)
    proxy = trial.proxy(trial.postgresql.socket_path)
    run = _on_postgresql(trial, feed, port=proxy.port)

    def hold() -> None:
        proxy.swallow()
        time.sleep(trial.chance.uniform(2, 8))

    # A client that waits for an answer does not know that it is late.
    outages(trial, run, feed, hold, proxy.restore, waits=lambda: True)


@scenario("F7", "connections to Kafka and PostgreSQL are reset at once", needs=_SERVICES, short=1, long=100)
def both_reset(trial: Trial) -> None:
    feed = trial.feed(200, every_s=_EVERY_S)
    kafka = trial.proxy(("127.0.0.1", trial.kafka.behind_proxy), trial.kafka.proxied_port)
    postgresql = trial.proxy(trial.postgresql.socket_path)
    run = _on_postgresql(trial, feed, port=postgresql.port, brokers=f"127.0.0.1:{kafka.port}")

    def cut() -> None:
        kafka.reset()
        postgresql.reset()

    def restore() -> None:
        kafka.restore()
        postgresql.restore()

    outages(trial, run, feed, cut, restore, waits=_says_so(run))


@scenario(
    "F8", "PostgreSQL is cut off between COMMIT and its reply, or before it", needs=_SERVICES, short=8, long=2_000
)
def commit_reply_lost(trial: Trial) -> None:
    feed = trial.feed(200, every_s=_EVERY_S)
    proxy = trial.proxy(trial.postgresql.socket_path)
    run = _on_postgresql(trial, feed, port=proxy.port)

    def watch(data: bytes) -> str | None:
        if _COMMIT not in data or trial.faults >= trial.times or trial.chance.random() > 0.1:
            return None
        trial.fault()
        # Cut before it, the transaction is undone; after it, it is durable and nobody was told.
        return "after" if trial.chance.random() < 0.7 else "before"

    with feed:
        host = run.start()
        wait_until(lambda: run.position() > 0, 60, f"nothing was committed\n{run.log()}")
        (worker,) = workers(host)
        proxy.watch = watch
        wait_until(lambda: trial.faults >= trial.times, 60 + 5 * trial.times, f"few commits\n{run.log()}")
        proxy.watch = None
        with trial.recovery(run, lambda: feed.written):
            pass
        assert [one.pid for one in workers(host)] == [worker.pid], "the worker was started again"
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    trial.judge(run.location, feed.input)


def _zombie(trial: Trial, feed: Feed, place: str) -> tuple[AxeRun, psutil.Process, psutil.Process]:
    """Start a host whose worker freezes at a named place; return both once it has."""
    environment = {"AXE_FAILPOINTS": f"{place}=freeze@0.05"}
    run = _on_postgresql(trial, feed, name=f"first-{trial.faults}", environment=environment)
    host = run.start()
    found: list[psutil.Process] = []

    def is_frozen() -> bool:
        found[:] = workers(host)
        return bool(found) and found[0].status() == psutil.STATUS_STOPPED and run.position() > 0

    wait_until(is_frozen, 60, f"the worker does not freeze\n{run.log()}")
    return run, host, found[0]


def _is_gone(frozen: psutil.Process) -> bool:
    # It freezes again where it gets as far as that, and a frozen process does not see that its host is gone.
    with suppress(psutil.NoSuchProcess):
        frozen.resume()
    return not is_alive(frozen)


@scenario("F6", "a frozen worker wakes up after a takeover: it commits nothing", needs=_SERVICES, short=1, long=500)
def zombie(trial: Trial) -> None:
    while trial.faults < trial.times:
        feed = trial.feed(200, every_s=_EVERY_S)
        with feed:
            first, first_host, frozen = _zombie(trial, feed, "after_poll")
            second = trial.axe(feed, name=f"second-{trial.faults}", state=first.location)
            with trial.recovery(first):
                second_host = second.start()
            trial.fault()
            committed = f"SELECT count(*) FROM seen WHERE run = '{frozen.pid}'"
            before = first.ask(committed, -1)
            frozen.resume()
            until = time.monotonic() + 3
            while time.monotonic() < until:
                after = first.ask(committed, -1)
                assert after == before, f"the zombie has committed {after - before} events after it woke up"
                time.sleep(0.1)
            assert first.position() > 0
            first_host.kill()
            first_host.wait(timeout=5)
            wait_until(lambda: _is_gone(frozen), 5, "the zombie outlived its host")
            second_host.terminate()
            assert second_host.wait(timeout=20) == 0, second.log()
        second.finish()
        trial.judge(first.location, feed.input)


@scenario("F6", "a worker frozen in a transaction: the other host waits, says so", needs=_SERVICES, short=1, long=50)
def zombie_in_a_transaction(trial: Trial) -> None:
    while trial.faults < trial.times:
        feed = trial.feed(200, every_s=_EVERY_S)
        with feed:
            first, first_host, frozen = _zombie(trial, feed, "before_commit")
            second = trial.axe(feed, name=f"second-{trial.faults}", state=first.location)
            second_host = second.start()
            trial.fault()
            wait_until(lambda: second.count("holds rows of the processor"), SAID_S, f"it says nothing\n{second.log()}")
            first_host.kill()
            first_host.wait(timeout=5)
            # Frozen, it does not see that its host is gone.
            frozen.kill()
            with trial.recovery(first):
                pass
            second_host.terminate()
            assert second_host.wait(timeout=20) == 0, second.log()
        second.finish()
        trial.judge(first.location, feed.input)
