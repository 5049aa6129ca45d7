"""Ordeals: short runs of a child process on a folder, in which a planted bug has to come to light."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

import axe
from tests.services import ServiceMissing
from tests.services.postgresql import PostgresqlServer

from ..oracle import NAME, Oracle, verify
from .running import wait_until
from .site import Site

Postgresql = Callable[[], PostgresqlServer]
ORDEALS: dict[str, Callable[[Path, str | None, Postgresql], None]] = {}
_ALIVE_S = 60


def caught(ordeal: str, folder: Path, planted: str | None, postgresql: Postgresql) -> str | None:
    """Go through an ordeal; return what it brought to light, None if nothing."""
    try:
        ORDEALS[ordeal](folder, planted, postgresql)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return str(error) or type(error).__name__
    return None


def _ordeal(run: Callable[[Site], None]) -> Callable[[Site], None]:
    """Enter an ordeal on SQLite."""

    def go(folder: Path, planted: str | None, _: Postgresql) -> None:
        with _site(folder, f"sqlite:{folder / 'state'}", planted) as site:
            run(site)

    ORDEALS[run.__name__.replace("_", "-")] = go
    return run


@contextmanager
def _site(folder: Path, state: str, planted: str | None) -> Iterator[Site]:
    site = Site(folder, state, batch=25, planted=planted)
    try:
        yield site
    finally:
        site.close()


def _to_the_end(site: Site, **environment: str) -> None:
    process = site.start("--until-end", **environment)
    assert process.wait(timeout=_ALIVE_S) == 0, "it did not get to the end"


@_ordeal
def peace(site: Site) -> None:
    """Two starts, and events that are refused after they touched the database."""
    for _ in range(2):
        site.append(1_000)
        _to_the_end(site)
        verify(site.location, site.events)


@_ordeal
def short_runs(site: Site) -> None:
    """Run after run to the end of a few events: each is the last one of its run."""
    for seed in range(1, 11):
        site.append(4)
        _to_the_end(site, AXE_TEST_SEED=str(seed))
        verify(site.location, site.events)


@_ordeal
def failures(site: Site) -> None:
    """Handlers raise now and then; after each the next thousand events are handled one by one."""
    site.append(3_000)
    _to_the_end(site, AXE_FAILPOINTS="mid_handler=raise@0.002")
    site.append(4_000)
    _to_the_end(site, AXE_FAILPOINTS="mid_handler=raise@0.0003", AXE_TEST_SEED="3")
    verify(site.location, site.events)


def _deaths(site: Site, place: str, probability: float, times: int) -> None:
    for seed in range(1, times + 1):
        site.append(800)
        code = site.start("--until-end", AXE_FAILPOINTS=f"{place}=kill@{probability}", AXE_TEST_SEED=str(seed)).wait(
            timeout=_ALIVE_S
        )
        assert code in (0, -signal.SIGKILL), f"it ended with {code}"
    site.finish()


@_ordeal
def deaths_in_a_batch(site: Site) -> None:
    """The process dies in the middle of a batch."""
    _deaths(site, "before_commit", 0.1, 3)


@_ordeal
def deaths_after_a_commit(site: Site) -> None:
    """The process dies right after a commit."""
    _deaths(site, "after_commit", 0.15, 6)


@_ordeal
def deaths_at_a_rejection(site: Site) -> None:
    """The process dies while it refuses an event."""
    _deaths(site, "in_reject", 0.4, 4)


@_ordeal
def wipe(site: Site) -> None:
    """Somebody wipes and rewinds while it runs."""
    site.append(1_000)
    process = site.start()
    processor = _from_outside(site)
    wait_until(lambda: _total(processor) == 1_000, 30, "it does not read")
    processor.reset(0, wipe=True)
    wait_until(lambda: _total(processor) == 1_000, 15, "it does not read again")
    process.terminate()
    process.wait(timeout=20)
    site.finish()


@_ordeal
def wipe_at_the_end(site: Site) -> None:
    """Somebody wipes and leaves the positions where they are: at the end."""
    site.append(1_000)
    process = site.start()
    processor = _from_outside(site)
    wait_until(lambda: _total(processor) == 1_000, 30, "it does not read")
    begins = dict(processor.positions)
    # What was refused before the wipe stays among the dead letters.
    processor.reset("latest", wipe=True)
    site.append(200)
    wait_until(lambda: _total(processor) == 1_200, 15, "it does not read on")
    process.terminate()
    process.wait(timeout=20)
    assert "event failed" not in site.log(), "an event was handled without what on_start makes"
    verify(site.location, site.events, begins=begins, kept_letters=True)


@_ordeal
def gone(site: Site) -> None:
    """The database is gone: nobody may make another one in silence."""
    site.append(400)
    _to_the_end(site)
    for path in Path(site.location).parent.glob(f"{NAME}.db*"):
        path.unlink()
    site.start("--until-end").wait(timeout=_ALIVE_S)
    assert not Path(site.location).exists(), "a database that is gone was made anew"


@contextmanager
def _small_disk(folder: Path, planted: str | None) -> Iterator[tuple[Site, Path]]:
    """Keep the state where there is less than a megabyte."""
    room = folder / "room"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=768k", "axe", str(room)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        raise ServiceMissing("a small disk", "run as root, where mounting is allowed")
    try:
        with _site(folder, f"sqlite:{room / 'state'}", planted) as site:
            site.location = str(room / "state" / f"{NAME}.db")
            yield site, room
    finally:
        subprocess.run(["umount", "-l", str(room)], check=True)


def full_disk(folder: Path, planted: str | None, _: Postgresql) -> None:
    """There is no room for a while."""
    with _small_disk(folder, planted) as (site, room):
        site.append(8_000)
        process = site.start()
        wait_until(lambda: shutil.disk_usage(room).free < 8192, 30, "the disk does not fill")
        wait_until(lambda: "waiting" in site.log(), 30, "it does not say that it waits")
        subprocess.run(["mount", "-o", "remount,size=64m", str(room)], check=True)
        processor = _from_outside(site)
        wait_until(lambda: _total(processor) == 8_000, 30, "it does not go on")
        process.terminate()
        assert process.wait(timeout=20) == 0, site.log()[-2000:]
        assert "event failed" not in site.log(), "a full disk was taken for the failure of an event"
        verify(site.location, site.events)


def no_room(folder: Path, planted: str | None, _: Postgresql) -> None:
    """There is no room for the last events: whoever is told that all are done was told a lie."""
    with _small_disk(folder, planted) as (site, room):
        site.append(400)
        _to_the_end(site)
        with suppress(OSError), (room / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        site.append(2)
        site.start("--until-end").wait(timeout=30)
        assert "gave up waiting" in site.log(), "it took the last events for done"
        (room / "ballast").unlink()
        site.finish()


ORDEALS["no-room"] = no_room
ORDEALS["full-disk"] = full_disk


def _zombie(folder: Path, planted: str | None, postgresql: Postgresql, *, second: dict[str, str]) -> None:
    """Freeze a process between two batches, let another one take over, wake it up."""
    url = postgresql().create_database()
    with _site(folder, url, planted) as site:
        site.append(2_000)
        first = site.start(AXE_FAILPOINTS="after_poll=freeze@0.2", AXE_TEST_SEED="5")
        frozen = psutil.Process(first.pid)
        wait_until(lambda: frozen.status() == psutil.STATUS_STOPPED, 30, "it does not freeze")
        before = _owners(url)
        site.planted = None
        site.start(**second)
        wait_until(lambda: _owners(url) != before, 30, "nobody took over")
        if not second:
            wait_until(lambda: _committed(url) > 1_500, 30, "the second one does not read")
        mine = _committed(url, first.pid)
        site.append(400)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            # It freezes again and again where it gets as far.
            frozen.resume()
            time.sleep(0.05)
            assert _committed(url, first.pid) == mine, "the zombie has committed after it woke up"


def zombie(folder: Path, planted: str | None, postgresql: Postgresql) -> None:
    """The other one has read on."""
    _zombie(folder, planted, postgresql, second={})


def zombie_that_nobody_overtook(folder: Path, planted: str | None, postgresql: Postgresql) -> None:
    """The other one has taken over, and read nothing yet: the positions are as the zombie knows them."""
    _zombie(folder, planted, postgresql, second={"AXE_FAILPOINTS": "after_poll=freeze"})


ORDEALS["zombie"] = zombie
ORDEALS["zombie-that-nobody-overtook"] = zombie_that_nobody_overtook


def _from_outside(site: Site) -> Any:
    app = axe.App(json.loads(site.config.read_text()))
    return app.processors.add(id=NAME, handler=Oracle())


def _total(processor: Any) -> int:
    with suppress(axe.AxeError):
        return sum(processor.positions.values())
    return -1


def _ask(url: str, sql: str) -> str:
    plain = url.replace("postgresql+psycopg:", "postgresql:")
    with closing(psycopg.connect(plain, options=f"-c search_path=axe_{NAME}", autocommit=True)) as connection:
        try:
            return str((connection.execute(sql.encode()).fetchone() or ("",))[0])
        except psycopg.Error:
            return ""


def _owners(url: str) -> str:
    return _ask(url, "SELECT string_agg(owner, ' ' ORDER BY \"partition\") FROM axe_offsets")


def _committed(url: str, pid: int | None = None) -> int:
    where = "" if pid is None else f" WHERE run = '{pid}'"
    return int(_ask(url, f"SELECT count(*) FROM seen{where}") or 0)
