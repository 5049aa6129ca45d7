"""kill -9 at any moment: every event takes effect once, in order, whatever died in between."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import axe

from ..oracle import NAME, Oracle, verify
from .site import Site

FAILPOINTS = ("after_poll", "after_begin", "after_advance", "mid_handler", "before_commit", "after_commit", "in_reject")

# Many processes one after the other: on a busy machine each takes seconds to come up.
pytestmark = pytest.mark.timeout(600)


def kill_at_random(site: Site, *, kills: int, seed: int, each: int) -> None:
    """Kill and restart, with new events each time; look at the state now and then meanwhile."""
    chance = random.Random(seed)
    site.append(each)
    process = site.start("--until-end")
    began = time.monotonic()
    assert process.wait(timeout=60) == 0
    # A machine may be too slow to get to the first event in less.
    longest = max(0.3, time.monotonic() - began)
    for number in range(kills):
        site.append(each)
        process = site.start()
        time.sleep(chance.uniform(0.0, longest))  # the moment of death is the point here
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if number % 10 == 9:
            verify(site.location, site.events, complete=False)
    site.finish()


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, f"sqlite:{tmp_path / 'state'}", batch=25)
    yield site
    site.close()


@pytest.fixture
def postgresql_site(tmp_path: Path, postgresql_url: str) -> Iterator[Site]:
    site = Site(tmp_path, postgresql_url, batch=25)
    yield site
    site.close()


@pytest.mark.slow
def test_forty_kills_lose_nothing_and_repeat_nothing_on_sqlite(sqlite_site: Site) -> None:
    sqlite_site.append(20_000)

    kill_at_random(sqlite_site, kills=40, seed=1, each=1_000)

    assert verify(sqlite_site.location, sqlite_site.events).runs > 10


@pytest.mark.slow
def test_kills_lose_nothing_and_repeat_nothing_on_postgresql(postgresql_site: Site) -> None:
    postgresql_site.append(4_000)

    kill_at_random(postgresql_site, kills=12, seed=2, each=600)

    assert verify(postgresql_site.location, postgresql_site.events).runs > 3


def die_at(site: Site, failpoint: str, probability: float, *, times: int) -> None:
    """Let the process die at a named place, several times, and judge after each death."""
    deaths = 0
    for seed in range(1, times + 1):
        site.append(1_000)
        process = site.start(
            "--until-end", AXE_FAILPOINTS=f"{failpoint}=kill@{probability}", AXE_TEST_SEED=str(seed * 7919)
        )
        code = process.wait(timeout=180)
        assert code in (0, -signal.SIGKILL)
        deaths += code == -signal.SIGKILL
        if (site.folder / "state" / f"{NAME}.db").exists() and deaths > 1:
            verify(site.location, site.events, complete=False)
    assert deaths, "the place was never passed"
    site.finish()


def test_a_death_while_letting_go_after_a_reset_loses_nothing(sqlite_site: Site) -> None:
    sqlite_site.append(2_000)
    sqlite_site.finish()
    process = sqlite_site.start(AXE_FAILPOINTS="in_revoke=kill")
    app = axe.App(json.loads(sqlite_site.config.read_text()))
    processor = app.processors.add(id=NAME, handler=Oracle())
    sqlite_site.append(100)
    deadline = time.monotonic() + 60
    while sum(processor.positions.values()) < 2_100:
        assert time.monotonic() < deadline, "the process does not read"
        time.sleep(0.02)

    processor.reset(0, wipe=True)

    assert process.wait(timeout=60) == -signal.SIGKILL
    sqlite_site.append(500)
    sqlite_site.finish()


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_death_at_a_named_place_loses_nothing_on_sqlite(sqlite_site: Site, failpoint: str) -> None:
    die_at(sqlite_site, failpoint, 0.004 if failpoint == "mid_handler" else 0.1, times=3)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_death_at_a_named_place_loses_nothing_on_postgresql(postgresql_site: Site, failpoint: str) -> None:
    die_at(postgresql_site, failpoint, 0.004 if failpoint == "mid_handler" else 0.1, times=2)


def test_a_process_that_was_frozen_by_its_death_holds_no_lock(sqlite_site: Site) -> None:
    """The writer's lock is the operating system's: it goes with the process."""
    sqlite_site.append(200)
    process = sqlite_site.start(AXE_FAILPOINTS="before_commit=freeze")
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()

    sqlite_site.finish()
