"""Two workers of one processor on one PostgreSQL: one of them moves positions, the other waits its turn."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import axe
from axe import TopicPartition, operations
from axe.assembly import Places
from axe.config import load

from .site import Keeping, Site, at, until


@pytest.fixture
def sites(tmp_path: Path, topic: str, postgresql_url: str) -> tuple[Site, Site]:
    """Two programs with the same configuration."""
    return Site(tmp_path, topic, state=postgresql_url), Site(tmp_path, topic, state=postgresql_url)


def status_of(site: Site) -> str:
    return str(site.app._runners[0].status.value)


def test_the_second_worker_takes_over_and_the_first_one_takes_its_place_when_it_is_gone(
    sites: tuple[Site, Site],
) -> None:
    first, second = sites
    first.log.append(first.topic, 0)
    with first.add(Keeping()):
        until(lambda: first.offset == 1)
        with second.add(Keeping()):
            until(lambda: status_of(first) == "unassigned")
            assert first.status == "running", "the loser must not write over the winner's status"
            first.log.append(first.topic, 1)
            until(lambda: first.offset == 2)
        first.log.append(first.topic, 2)
        until(lambda: first.offset == 3)

    assert first.seen == [0, 1, 2]
    assert first.status == "stopped"


def test_events_go_through_one_of_two_workers_however_often_they_change(sites: tuple[Site, Site]) -> None:
    log = sites[0].log
    log.create_topic(sites[0].topic, 1)
    stop = threading.Event()

    def produce() -> None:
        n = 0
        while not stop.wait(0.002):
            log.append(sites[0].topic, n)
            n += 1

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        with sites[0].add(Keeping()):
            for _ in range(4):
                with sites[1].add(Keeping()):
                    time.sleep(0.4)
                time.sleep(0.4)
    finally:
        stop.set()
        producer.join()
    sites[0].run(Keeping())

    assert sites[0].seen == list(range(sites[0].offset))
    assert sites[0].offset > 100


def test_two_workers_may_begin_at_the_same_moment(sites: tuple[Site, Site]) -> None:
    first, second = sites

    class Slow(Keeping):
        @axe.hookimpl
        def on_start(self, state: axe.State) -> None:
            super().on_start(state)
            time.sleep(0.5)

    for n in range(5):
        first.log.append(first.topic, n)
    with first.add(Slow()), second.add(Slow()):
        until(lambda: first.offset == 5)
        until(lambda: sorted((status_of(first), status_of(second))) == ["running", "unassigned"])

    assert first.seen == list(range(5))
    assert (first.failures, second.failures) == ([], [])


def test_a_worker_is_known_before_it_owns_anything(sites: tuple[Site, Site]) -> None:
    """Else the other one could write its status over the new owner's."""
    first, second = sites
    known: list[int] = []

    class Looking(Keeping):
        @axe.hookimpl
        def on_start(self, state: axe.State) -> None:
            super().on_start(state)
            known.append(first.sql("SELECT count(*) FROM axe_workers")[0][0])

    first.log.append(first.topic, 0)
    with first.add(Keeping()):
        until(lambda: first.offset == 1)
        with second.add(Looking()):
            until(lambda: known)

    assert known == [2]


def test_a_worker_that_lost_the_processor_does_not_pause_it(sites: tuple[Site, Site]) -> None:
    first, second = sites
    first.settings.update(on_failure="pause", retries=0)
    reporting, go = threading.Event(), threading.Event()

    def report(failure: axe.Failure) -> None:
        reporting.set()
        go.wait(20)

    for n in range(3):
        first.log.append(first.topic, n)
    first.add(Keeping(at(1)))
    first.app.on_error(report)
    with first.app:
        assert reporting.wait(20)
        with second.add(Keeping()):
            until(lambda: second.offset == 3)
            go.set()
            until(lambda: status_of(first) == "unassigned")
            assert status_of(second) == "running"
            assert second.sql("SELECT paused, last_error FROM axe_processor") == [(0, None)]


def test_resets_of_a_position_that_others_are_about_to_make_wait_for_them(sites: tuple[Site, Site]) -> None:
    site = sites[0]
    in_on_start = threading.Event()

    class Slow(Keeping):
        @axe.hookimpl
        def on_start(self, state: axe.State) -> None:
            super().on_start(state)
            in_on_start.set()
            time.sleep(1)

    for n in range(5):
        site.log.append(site.topic, n)
    with site.add(Slow()):
        assert in_on_start.wait(20)
        site.app.processors["p"].reset(3)
        until(lambda: site.offset == 5)

    assert site.seen in ([3, 4], [0, 1, 2, 3, 4, 3, 4])


def test_two_first_resets_at_the_same_moment_take_turns(sites: tuple[Site, Site]) -> None:
    site = sites[0]
    for n in range(5):
        site.log.append(site.topic, n)
    processor, first = site.add(Keeping()).processors.bound()[0], TopicPartition(site.topic, 0)
    with site.app.opened(processor, create=True) as one, site.app.opened(processor, create=True) as other:
        assert one is not None
        assert other is not None
        second = threading.Thread(target=lambda: operations.reset(other, {first: 2}))
        with one.begin() as transaction:
            transaction.move_by_hand({first: 1})
            second.start()
            time.sleep(0.3)
            transaction.commit()
        second.join(20)

    assert site.offset == 2


def test_many_workers_may_make_the_database_at_the_same_moment(postgresql_url: str) -> None:
    config = load({"source": "memory:", "state": postgresql_url})
    errors: list[BaseException] = []

    def make() -> None:
        store = Places(config).store("p")
        try:
            store.open()
            store.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_a_failing_event_and_a_reset_of_several_partitions_do_not_deadlock(sites: tuple[Site, Site]) -> None:
    site = sites[0]
    site.settings.update(on_failure="reject", retries=0)
    site.log.create_topic(site.topic, 3)
    for partition in range(3):
        for n in range(4):
            site.log.append(site.topic, n, partition=partition)
    inside = threading.Event()

    def sick(event: object, state: object) -> None:
        inside.set()
        time.sleep(0.05)
        at(2)(event, state)  # type: ignore[arg-type]

    with site.add(Keeping(sick)):
        inside.wait(20)
        for _ in range(5):
            site.operate(lambda store: operations.reset(store, dict.fromkeys(store.positions(), 0)))
            time.sleep(0.1)
        until(lambda: sum(site.app.processors["p"].positions.values()) == 12, 30)

    assert site.status == "stopped"
    assert {TopicPartition(site.topic, n) for n in range(3)} == set(site.app.processors["p"].positions)


def test_a_worker_of_another_version_fails_once_and_leaves_the_other_alone(sites: tuple[Site, Site]) -> None:
    first, second = sites
    first.log.append(first.topic, 0)
    with first.add(Keeping()):
        until(lambda: first.offset == 1)
        with second.add(Keeping(), version=2):
            until(lambda: status_of(second) == "failed")
            time.sleep(2.5)
            first.log.append(first.topic, 1)
            until(lambda: first.offset == 2)

    assert len(second.failures) == 1
    assert first.seen == [0, 1]
