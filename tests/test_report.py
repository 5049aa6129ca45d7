"""What is said about a processor, whoever works on it and whatever can be asked."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import TopicPartition, report
from axe.sources.memory import MemorySource, memory_log
from axe.store import Store, open_place, tables
from axe.store.sql import Store as SqlStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = SqlStore(open_place(f"sqlite:{tmp_path / 'state'}", tmp_path).database("p"), "p")
    made.open()
    yield made
    made.close()


def heartbeat(store: Any, *, age_s: float, pid: int, host: str | None = None, status: str = "running") -> None:
    """Let a worker have written long ago what it does."""
    store.set_status(status)
    store.heartbeat("w", host or socket.gethostname(), pid, status, alone=True)
    at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    with store.begin() as transaction:
        transaction.connection.execute(tables.workers.update().values(heartbeat_at=at))
        transaction.commit()


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("status", ["running", "retrying", "waiting"])
def test_a_worker_of_this_machine_that_lives_is_not_stopped_however_long_it_is_silent(
    store: Store, status: str
) -> None:
    # The first process of the machine: it lives, and began before.
    heartbeat(store, age_s=20, pid=1, status=status)

    shown = report.snapshot(store, None)

    assert (shown["status"], [worker["pid"] for worker in shown["workers"]]) == (status, [1])


def test_a_worker_of_this_machine_that_was_killed_is_stopped(store: Store) -> None:
    heartbeat(store, age_s=20, pid=ended_pid())

    assert (report.snapshot(store, None)["status"], report.status(store)) == ("stopped", "stopped")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only /proc tells when a process began")
def test_a_process_that_began_after_the_last_heartbeat_is_another_one(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as young:
        heartbeat(store, age_s=3600, pid=young.pid)

        assert report.status(store) == "stopped"


def test_a_worker_elsewhere_that_is_silent_is_stopped(store: Store) -> None:
    heartbeat(store, age_s=20, pid=1, host="elsewhere")

    assert report.status(store) == "stopped"


def test_before_there_are_positions_there_is_no_lag(store: Store) -> None:
    shown = report.snapshot(store, MemorySource(memory_log("empty")))

    assert (shown["positions"], shown["lag"], shown["lag_s"]) == ([], None, None)


def test_without_the_source_there_is_no_lag_even_where_one_partition_can_be_told(store: Store, topic: str) -> None:
    memory_log(topic).append("there", 1)
    with store.begin() as transaction:
        transaction.move_by_hand({TopicPartition("gone", 0): 0, TopicPartition("there", 0): 1})
        transaction.commit()

    shown = report.snapshot(store, MemorySource(memory_log(topic)))

    assert [at["lag"] for at in shown["positions"]] == [None, 0]
    assert (shown["lag"], shown["lag_s"]) == (None, None)
    assert report.snapshot(store, None)["lag_s"] is None


def test_a_handle_tells_the_status_and_the_last_error(tmp_path: Path, topic: str) -> None:
    memory_log(topic).append("t", 1)
    app = axe.App({"source": f"memory:{topic}", "state": f"sqlite:{tmp_path}", "processors": {"p": {"retries": 0}}})
    processor = app.processors.add(id="p", topic="t", handler=lambda event: 1 / 0)
    assert (processor.status, processor.last_error) == ("stopped", None)

    app.start(until_end=True)

    assert processor.status == "failed"
    assert processor.last_error == "t[0]@0: ZeroDivisionError: division by zero"
