"""kill -9 in the middle of a wipe, and of its undo: the state is what it was before, or what it is to be."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from abc import ABC, abstractmethod
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


class Wiped(Site, ABC):
    """A processor with a state in objects of its database, and the command line in processes that die."""

    leaves_a_copy = False
    """Whether a wipe does that was killed before its commit."""

    def __init__(self, folder: Path, state: str | None = None) -> None:
        super().__init__(folder, "studies", state=state)
        (folder / "topics").mkdir()
        self.append(*range(EVENTS))
        config = folder / "axe.toml"
        config.write_text(f'source = "file:{folder / "topics"}"\nstate = "{self.state}"\n[log]\nlevel = "error"\n')
        self.work()

    def append(self, *numbers: int) -> None:
        with (self.folder / "topics" / "studies.jsonl").open("a") as file:
            file.writelines(f"{n}\n" for n in numbers)

    def work(self) -> None:
        """Read to the end."""
        self.app = axe.App(self.folder / "axe.toml")
        self.app.processors.add(id="p", topic="studies", handler=keep)
        self.app.start(until_end=True)

    def axe(self, *words: str, failpoints: str = "") -> int:
        command = [sys.executable, "-m", "axe", *words, "--yes", "--config", str(self.folder / "axe.toml"), "--json"]
        environment = {**os.environ, "AXE_FAILPOINTS": failpoints}
        return subprocess.run(command, env=environment, timeout=100, stdout=subprocess.DEVNULL).returncode

    def wipe(self, failpoints: str = "") -> int:
        return self.axe("reset", "p", "--to", "earliest", "--wipe", failpoints=failpoints)

    def undo(self, failpoints: str = "") -> int:
        # Of a server's numbers one is gone with each transaction that was killed.
        ((number,),) = self.sql("SELECT max(id) FROM axe_audit WHERE action = 'reset and wipe'")
        return self.axe("undo", f"p:{number}", failpoints=failpoints)

    @abstractmethod
    def copies(self) -> list[Any]:
        """What is kept of wipes."""

    @abstractmethod
    def plugins_own(self) -> tuple[Any, ...]:
        """What a wipe drops, as the database lists it."""

    @property
    def everything(self) -> tuple[Any, ...]:
        return (
            *self.plugins_own(),
            self.sql("SELECT position FROM axe_offsets"),
            self.sql("SELECT key, value FROM axe_values"),
            self.sql("SELECT version, status, paused, pending FROM axe_processor"),
            self.sql("SELECT action FROM axe_audit ORDER BY id"),
        )

    @abstractmethod
    def found(self, word: str) -> list[Any]:
        """Look a word up where only an index finds it."""


class OnSqlite(Wiped):
    """Tables, one of them virtual, and more bytes than are copied at once."""

    leaves_a_copy = True

    def copies(self) -> list[Path]:
        return sorted((self.folder / "state").glob("p.db-undo-*"))

    def plugins_own(self) -> tuple[Any, ...]:
        return (
            self.sql("PRAGMA integrity_check"),
            self.sql("PRAGMA journal_mode"),
            self.sql("SELECT name FROM sqlite_master WHERE name NOT LIKE 'axe%' ORDER BY name"),
        )

    def found(self, word: str) -> list[Any]:
        return self.sql(f"SELECT rowid FROM words WHERE words MATCH '{word}'")


class OnPostgresql(Wiped):
    """One of each kind that is moved in a statement of its own."""

    def copies(self) -> list[Any]:
        return self.sql("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'axe__undo_')")

    def plugins_own(self) -> tuple[Any, ...]:
        here = "= 'axe_p'::regnamespace"
        return (
            self.sql(f"SELECT relname, relkind::text FROM pg_class WHERE relnamespace {here} ORDER BY 1"),
            self.sql(f"SELECT typname FROM pg_type WHERE typnamespace {here} AND typtype IN ('e', 'd') ORDER BY 1"),
            self.sql(f"SELECT proname FROM pg_proc WHERE pronamespace {here} ORDER BY 1"),
        )

    def found(self, word: str) -> list[Any]:
        return self.sql(f"SELECT n FROM shown WHERE word = '{word}'")


_ON_POSTGRESQL = """
    CREATE TYPE kind AS ENUM ('plain', 'other');
    CREATE FUNCTION usual() RETURNS kind LANGUAGE sql AS $$ SELECT 'plain'::axe_p.kind $$;
    CREATE SEQUENCE numbers;
    CREATE TABLE words (
        n serial PRIMARY KEY, word text, kind kind DEFAULT usual(), at bigint DEFAULT nextval('numbers')
    );
    CREATE INDEX by_word ON words (word);
    CREATE VIEW shown AS SELECT n, word FROM words WHERE kind = 'plain' AND at = n
"""


def keep(event: Event, state: State) -> None:
    run = state.connection.exec_driver_sql
    if event.offset == 0 and state.connection.dialect.name == "sqlite":
        run("CREATE VIRTUAL TABLE words USING fts5 (word)")
        run(f"CREATE TABLE ballast AS SELECT zeroblob({BALLAST}) AS b")
    elif event.offset == 0:
        run(_ON_POSTGRESQL)
    run(f"INSERT INTO words (word) VALUES ('word{event.value}')")
    state["n"] = state.get("n", 0) + 1


@pytest.fixture
def sqlite(tmp_path: Path) -> OnSqlite:
    return OnSqlite(tmp_path)


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Wiped:
    if request.param == "sqlite":
        return OnSqlite(tmp_path)
    return OnPostgresql(tmp_path, request.getfixturevalue("postgresql_url"))


both = pytest.mark.parametrize("site", ["sqlite", "postgresql"], indirect=True)


@both
@pytest.mark.parametrize("failpoint", ["in_set_aside", "after_set_aside", "before_commit"])
def test_a_wipe_that_was_killed_before_its_commit_is_none_and_leaves_nothing_behind(
    site: Wiped, failpoint: str
) -> None:
    before = site.everything

    assert site.wipe(f"{failpoint}=kill") == -signal.SIGKILL

    assert site.everything == before
    assert bool(site.copies()) == site.leaves_a_copy
    assert site.wipe() == 0
    assert len(site.copies()) == 1
    assert site.undo() == 0
    assert (site.everything[:-1], site.copies()) == (before[:-1], [])


@both
def test_a_wipe_that_was_killed_after_its_commit_is_done_and_can_be_undone(site: Wiped) -> None:
    before = site.everything

    assert site.wipe("after_commit=kill") == -signal.SIGKILL

    assert site.everything[-4:] == ([(0,)], [], [(1, "stopped", 0, "wipe")], [("reset and wipe",)])
    assert site.undo() == 0
    assert (site.everything[:-1], site.copies()) == (before[:-1], [])


@both
@pytest.mark.parametrize("failpoint", ["in_set_aside", "after_set_aside"])
def test_a_further_wipe_that_was_killed_takes_nothing_from_the_undo_of_the_first(site: Wiped, failpoint: str) -> None:
    """It drops what the first one kept, and only with its commit."""
    before = site.everything
    assert site.wipe() == 0
    wiped = site.everything

    assert site.wipe(f"{failpoint}=kill") == -signal.SIGKILL

    assert site.everything == wiped
    assert site.undo() == 0
    assert site.everything[:-1] == before[:-1]


@pytest.mark.parametrize(
    ("site", "failpoint"),
    [
        ("sqlite", "before_commit"),
        ("sqlite", "before_restore"),
        ("sqlite", "in_restore"),
        ("sqlite", "after_restore"),
        ("sqlite", "after_commit"),
        ("postgresql", "before_restore"),
        ("postgresql", "in_restore"),
        ("postgresql", "before_commit"),
        ("postgresql", "after_commit"),
    ],
    indirect=["site"],
)
def test_an_undo_that_was_killed_is_done_or_can_be_done_again(site: Wiped, failpoint: str) -> None:
    before = site.everything
    assert site.wipe() == 0
    wiped = site.everything

    assert site.undo(f"{failpoint}=kill") == -signal.SIGKILL

    if failpoint in ("after_restore", "after_commit"):
        assert site.everything == (*before[:-1], [("reset and wipe",), ("undo",)])
        assert site.undo() == 1
    else:
        assert (site.everything, len(site.copies())) == (wiped, 1)
        assert site.undo() == 0
    assert site.everything == (*before[:-1], [("reset and wipe",), ("undo",)])
    assert [site.found(f"word{n}") for n in range(EVENTS)] == [[(n + 1,)] for n in range(EVENTS)]
    site.append(EVENTS)
    site.work()
    assert site.values == {"n": EVENTS + 1}
    assert site.found(f"word{EVENTS}") == [(EVENTS + 1,)]


def test_copies_are_for_their_owner_only_and_taken_for_no_processor(sqlite: OnSqlite) -> None:
    assert sqlite.wipe() == 0

    (copy,) = sqlite.copies()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with sqlite.app.opened(sqlite.app.processors.bound()[0], create=False):
        assert sqlite.app._place.processors() == ["p"]
    # A folder whose register is gone is judged by its databases.
    (sqlite.folder / "state" / "p.db").rename(sqlite.folder / "aside")
    (sqlite.folder / "state" / "axe-store.json").unlink()
    for path in (sqlite.folder / "state").glob("p.db-[!u]*"):
        path.unlink()
    assert sqlite.app._place.processors() == []


def test_a_copy_that_the_disk_has_no_room_for_leaves_the_state_as_it_is(sqlite: OnSqlite) -> None:
    """A limit of the file's size stands for the disk."""
    before = sqlite.everything
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, -1)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from axe.cli import main; main()"
    words = ["reset", "p", "--to", "earliest", "--wipe", "--yes", "--config", str(sqlite.folder / "axe.toml")]

    done = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True, timeout=100)

    assert done.returncode == 1
    assert done.stderr.startswith("axe: ")
    assert done.stderr.count("\n") == 1
    assert (sqlite.everything, sqlite.copies()) == (before, [])


def test_an_undo_keeps_what_another_program_reads(sqlite: OnSqlite) -> None:
    """A reader's snapshot is not torn, and it sees the whole afterwards."""
    assert sqlite.wipe() == 0
    with contextlib.closing(sqlite3.connect(f"file:{sqlite.folder}/state/p.db?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM axe_values").fetchone() == (0,)

        assert sqlite.undo() == 0

        assert reader.execute("SELECT count(*) FROM axe_values").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT value FROM axe_values").fetchone() == (str(EVENTS),)
