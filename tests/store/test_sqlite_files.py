"""The files of a SQLite folder, when the operating system refuses them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from axe.errors import HostRunning, StoreCorrupt, StoreForeign, StoreMissing, StoreUnavailable
from axe.store import SqlStore, open_place
from axe.store.sqlite import SqliteFolder
from axe.store.sqlite.locks import FileLock, WriterLock
from axe.store.sqlite.register import Register

NAME = "study-counter"


@contextlib.contextmanager
def limited(what: int, soft: int) -> Iterator[None]:
    """Lower a limit of this process for a ``with`` block."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    lowest_free = os.dup(0)
    os.close(lowest_free)
    with limited(resource.RLIMIT_NOFILE, lowest_free):
        yield


def open_files_of(folder: Path) -> list[str]:
    return [file.path for file in psutil.Process().open_files() if file.path.startswith(str(folder))]


@pytest.fixture
def folder(tmp_path: Path) -> SqliteFolder:
    made = SqliteFolder(tmp_path / "state")
    made.prepare()
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """A store that has opened what reading needs, and nothing to write with."""
    made, reading = (SqlStore(open_place("sqlite:state", tmp_path).database(NAME), NAME) for _ in range(2))
    made.open()
    reading.open()
    yield reading
    made.close()
    reading.close()


# --- what cannot be opened


def test_a_lock_file_that_cannot_be_opened_is_to_be_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.lock").mkdir()

    with pytest.raises(StoreUnavailable, match=r"a\.lock cannot be used: Is a directory; move that folder away"):
        FileLock(tmp_path / "a.lock")


def test_a_process_without_descriptors_is_told_so(tmp_path: Path) -> None:
    with (
        no_descriptors_left(),
        pytest.raises(StoreUnavailable, match=r"a\.lock cannot be used: Too many open files; raise the limit"),
    ):
        FileLock(tmp_path / "a.lock")


def test_a_writer_lock_whose_second_file_cannot_be_opened_keeps_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "a.db-lock").mkdir()

    with pytest.raises(StoreUnavailable, match=r"a\.db-lock"):
        WriterLock(tmp_path / "a.db", wait_s=1)

    assert open_files_of(tmp_path) == []


def test_a_writer_without_descriptors_waits_and_goes_on(store: SqlStore) -> None:
    with no_descriptors_left(), pytest.raises(StoreUnavailable, match="Too many open files"):
        store.begin()

    store.set_status("paused")

    assert store.control().status == "paused"


@pytest.mark.parametrize("lock", ["axe.lock", "axe-store.lock"])
def test_the_locks_of_a_folder_name_their_trouble(folder: SqliteFolder, lock: str) -> None:
    (folder.folder / lock).mkdir()

    with pytest.raises(StoreUnavailable, match=f"{lock} cannot be used: Is a directory"):
        folder.host_lock() if lock == "axe.lock" else Register(folder.folder).store_id()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    lock = FileLock(tmp_path / "a.lock")
    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(StoreUnavailable, match=r"a\.lock cannot be used: No locks available; .* local disk"):
        lock.try_acquire()
    lock.close()


# --- the signature, which is for a message only


def test_a_lock_that_cannot_be_signed_is_held_and_let_go(tmp_path: Path) -> None:
    first, second = WriterLock(tmp_path / "a.db", wait_s=0), WriterLock(tmp_path / "a.db", wait_s=0)

    with limited(resource.RLIMIT_FSIZE, 0):
        first.acquire()
    with pytest.raises(StoreUnavailable, match="held by another process"):
        second.acquire()
    first.release()

    second.acquire()
    second.close()
    first.close()


def test_a_lock_that_cannot_be_signed_does_not_name_who_held_it_before(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "a.lock")
    lock.sign("process 1")

    with limited(resource.RLIMIT_FSIZE, 0):
        lock.sign("process 2")

    assert lock.holder() == ""
    lock.close()


def test_a_host_whose_lock_cannot_be_signed_runs_alone_all_the_same(folder: SqliteFolder) -> None:
    with limited(resource.RLIMIT_FSIZE, 0):
        lock = folder.host_lock()

    with pytest.raises(HostRunning, match=r"another host \(unknown process\)"):
        folder.host_lock()
    lock.close()
    folder.host_lock().close()


# --- the register and the databases


def test_a_register_that_no_descriptor_is_left_for_is_not_damaged(folder: SqliteFolder) -> None:
    Register(folder.folder).add(NAME)

    with no_descriptors_left(), pytest.raises(StoreUnavailable, match=r"axe-store\.json .*Too many open files"):
        folder.processors()


def test_a_register_that_is_gone_is_not_made_anew_beside_databases(store: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "state" / "axe-store.json").unlink()

    with pytest.raises(StoreMissing, match=rf"axe-store\.json is gone, and databases lie beside it: {NAME}\.db"):
        SqlStore(open_place("sqlite:state", tmp_path).database("other"), "other").open()


def test_a_database_of_somebody_else_is_not_taken_over(folder: SqliteFolder) -> None:
    Register(folder.folder).store_id()
    with contextlib.closing(sqlite3.connect(folder.folder / f"{NAME}.db")) as theirs:
        theirs.execute("CREATE TABLE customers (n integer)")

    with pytest.raises(StoreForeign, match=r"is not axe's: it holds customers; move it away"):
        SqlStore(folder.database(NAME), NAME).open()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "junk",
        "[]",
        "{}",
        '{"store_id": "a", "processors": []}',
        '{"store_id": 1, "processors": {}, "format": ""}',
    ],
)
def test_a_register_that_somebody_edited_into_nonsense_is_refused(folder: SqliteFolder, content: str) -> None:
    (folder.folder / "axe-store.json").write_text(content)

    with pytest.raises(StoreCorrupt, match=r"axe-store\.json .*; restore it from a backup"):
        SqlStore(folder.database(NAME), NAME).open()


def test_a_register_that_cannot_be_written_leaves_nothing_beside_it(folder: SqliteFolder) -> None:
    with (
        limited(resource.RLIMIT_FSIZE, 0),
        pytest.raises(StoreUnavailable, match=r"axe-store\.json cannot be used: File too large"),
    ):
        Register(folder.folder).store_id()

    assert [path.name for path in folder.folder.iterdir()] == ["axe-store.lock"]


def test_a_database_that_cannot_be_made_is_to_be_waited_for(folder: SqliteFolder) -> None:
    """As a link into a disk that is not mounted."""
    (folder.folder / f"{NAME}.db").symlink_to(folder.folder / "mnt" / "there.db")

    with pytest.raises(StoreUnavailable, match=rf"{NAME}\.db cannot be used: No such file or directory"):
        SqlStore(folder.database(NAME), NAME).open()


def test_a_database_that_cannot_be_looked_at_is_not_gone(store: SqlStore, tmp_path: Path) -> None:
    path = tmp_path / "state" / f"{NAME}.db"
    path.rename(path.with_name("aside"))
    path.symlink_to(path)

    with pytest.raises(StoreUnavailable, match="symbolic links"):
        store.begin()
    with pytest.raises(StoreUnavailable, match="symbolic links"):
        SqlStore(open_place("sqlite:state", tmp_path).database(NAME), NAME).open()

    path.unlink()
    path.with_name("aside").rename(path)
    store.set_status("paused")
    assert store.control().status == "paused"
