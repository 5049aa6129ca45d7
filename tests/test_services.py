"""The services that tests start: theirs alone, fresh, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .services import is_required
from .services.kafka import KafkaBroker
from .services.postgresql import PostgresqlServer

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_database(postgresql_url: str, turn: int) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgresql_url)
    with engine.begin() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
        connection.exec_driver_sql("CREATE TABLE left_behind (id int)")
    engine.dispose()


def test_a_required_service_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXE_TEST_REQUIRE", "kafka, postgresql")

    assert is_required("kafka") and is_required("postgresql")
    assert not is_required("redis")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_broker_ends_with_the_tests_that_started_it(kafka: KafkaBroker) -> None:
    if not kafka.is_ours:
        pytest.skip("the broker of AXE_TEST_KAFKA is not ours")

    pid, folder = start_and_kill("kafka", "open_kafka", "it._process.pid, it.folder")

    wait_for_end(pid)
    shutil.rmtree(folder)


def test_a_database_server_ends_with_the_tests_that_started_it(postgresql: PostgresqlServer) -> None:
    if not postgresql.is_ours:
        pytest.skip("the server of AXE_TEST_POSTGRESQL is not ours")

    pid, folder = start_and_kill("postgresql", "open_postgresql", "it._server.get_pid(), it._folder")

    wait_for_end(pid)
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline, f"{folder} was left behind"


def start_and_kill(module: str, opener: str, shown: str) -> tuple[int, Path]:
    code = (
        f"import signal; from tests.services.{module} import {opener}\n"
        f"it = {opener}(); print({shown}, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        owner.kill()
        owner.wait()
    return int(pid), Path(folder)


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 15
    while is_running(pid):
        assert time.monotonic() < deadline, "the service outlived its owner"


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # One that nobody has waited for yet is a zombie.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
