"""kill -9 in the middle of a wipe, and of its undo: the state is what it was before, or what it is to be."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import Event, State

from ..site import Site

EVENTS = 5
# More than is copied in one go.
BALLAST = 40_000_000

pytestmark = pytest.mark.timeout(300)


class Wiped(Site):
    """A processor with a state in tables, one of them virtual, and the command line in processes that die."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "studies")
        (folder / "topics").mkdir()
        (folder / "topics" / "studies.jsonl").write_text("".join(f"{n}\n" for n in range(EVENTS)))
        config = folder / "axe.toml"
        config.write_text(f'source = "file:{folder / "topics"}"\nstate = "{self.state}"\n[log]\nlevel = "error"\n')
        self.app = axe.App(config)
        self.app.processors.add(id="p", topic="studies", handler=keep)
        self.app.start(until_end=True)

    def axe(self, *words: str, failpoints: str = "") -> int:
        command = [sys.executable, "-m", "axe", *words, "--yes", "--config", str(self.folder / "axe.toml"), "--json"]
        environment = {**os.environ, "AXE_FAILPOINTS": failpoints}
        return subprocess.run(command, env=environment, timeout=100, stdout=subprocess.DEVNULL).returncode

    def wipe(self, failpoints: str = "") -> int:
        return self.axe("reset", "p", "--to", "earliest", "--wipe", failpoints=failpoints)

    def undo(self, failpoints: str = "") -> int:
        return self.axe("undo", "p:1", failpoints=failpoints)

    def copies(self) -> list[Path]:
        return sorted((self.folder / "state").glob("p.db-undo-*"))

    @property
    def everything(self) -> tuple[Any, ...]:
        return (
            self.sql("PRAGMA integrity_check"),
            self.sql("PRAGMA journal_mode"),
            self.sql("SELECT position FROM axe_offsets"),
            self.sql("SELECT key, value FROM axe_values"),
            self.sql("SELECT name FROM sqlite_master WHERE name NOT LIKE 'axe%' ORDER BY name"),
            self.sql("SELECT action FROM axe_audit ORDER BY id"),
        )

    def found(self, word: str) -> list[Any]:
        return self.sql(f"SELECT rowid FROM words WHERE words MATCH '{word}'")


def keep(event: Event, state: State) -> None:
    if event.offset == 0:
        state.connection.exec_driver_sql("CREATE VIRTUAL TABLE words USING fts5 (word)")
        state.connection.exec_driver_sql(f"CREATE TABLE ballast AS SELECT zeroblob({BALLAST}) AS b")
    state.connection.exec_driver_sql(f"INSERT INTO words VALUES ('word{event.value}')")
    state["n"] = state.get("n", 0) + 1


@pytest.fixture
def site(tmp_path: Path) -> Wiped:
    return Wiped(tmp_path)


@pytest.mark.parametrize("failpoint", ["in_set_aside", "after_set_aside"])
def test_a_wipe_that_was_killed_before_its_commit_is_none_and_leaves_nothing_behind(
    site: Wiped, failpoint: str
) -> None:
    before = site.everything

    assert site.wipe(f"{failpoint}=kill") == -signal.SIGKILL

    assert site.everything == before
    assert site.copies()
    assert site.wipe() == 0
    assert len(site.copies()) == 1
    assert site.undo() == 0
    assert (site.everything[:-1], site.copies()) == (before[:-1], [])


@pytest.mark.parametrize("failpoint", ["before_restore", "in_restore", "after_restore"])
def test_an_undo_that_was_killed_is_done_or_can_be_done_again(site: Wiped, failpoint: str) -> None:
    before = site.everything
    assert site.wipe() == 0
    wiped = site.everything

    assert site.undo(f"{failpoint}=kill") == -signal.SIGKILL

    if failpoint == "after_restore":
        assert site.everything == (*before[:-1], [("reset and wipe",), ("undo",)])
        assert site.undo() == 1
    else:
        assert site.everything == wiped
        assert site.undo() == 0
    assert site.everything == (*before[:-1], [("reset and wipe",), ("undo",)])
    assert [site.found(f"word{n}") for n in range(EVENTS)] == [[(n + 1,)] for n in range(EVENTS)]


def test_copies_are_for_their_owner_only_and_taken_for_no_processor(site: Wiped) -> None:
    assert site.wipe() == 0

    (copy,) = site.copies()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with site.app.opened(site.app.processors.bound()[0], create=False):
        assert site.app._place.processors() == ["p"]
    # A folder whose register is gone is judged by its databases.
    (site.folder / "state" / "p.db").rename(site.folder / "aside")
    (site.folder / "state" / "axe-store.json").unlink()
    for path in (site.folder / "state").glob("p.db-[!u]*"):
        path.unlink()
    assert site.app._place.processors() == []


def test_a_copy_that_the_disk_has_no_room_for_leaves_the_state_as_it_is(site: Wiped) -> None:
    """A limit of the file's size stands for the disk."""
    before = site.everything
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, -1)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from axe.cli import main; main()"
    words = ["reset", "p", "--to", "earliest", "--wipe", "--yes", "--config", str(site.folder / "axe.toml")]

    done = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True, timeout=100)

    assert done.returncode == 1
    assert done.stderr.startswith("axe: ")
    assert done.stderr.count("\n") == 1
    assert (site.everything, site.copies()) == (before, [])


def test_an_undo_keeps_what_another_program_reads(site: Wiped) -> None:
    """A reader's snapshot is not torn, and it sees the whole afterwards."""
    assert site.wipe() == 0
    with contextlib.closing(sqlite3.connect(f"file:{site.folder}/state/p.db?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM axe_values").fetchone() == (0,)

        assert site.undo() == 0

        assert reader.execute("SELECT count(*) FROM axe_values").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT value FROM axe_values").fetchone() == (str(EVENTS),)
