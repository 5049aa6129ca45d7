"""Scenarios on SQLite: a full disk, other programs at the same file, files that are damaged or gone, resets killed."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from .ordeals import full_disk, no_room
from .registry import scenario
from .running import AxeRun, wait_until, workers
from .trial import Trial


@scenario("F10", "a full disk: it waits, says so, and goes on when there is room", short=1, long=50)
def disk_full(trial: Trial) -> None:
    for number in range(trial.times):
        for ordeal in (full_disk, no_room):
            folder = trial.folder / f"{ordeal.__name__}-{number}"
            folder.mkdir()
            ordeal(folder, None, lambda: trial.postgresql)
        trial.fault()


@scenario("F13", "others read, pause and wipe the same SQLite file meanwhile", needs=("kafka",), short=2, long=500)
def many_at_one_file(trial: Trial) -> None:
    feed = trial.feed(1000)
    run = trial.axe(feed)
    with feed:
        host = run.start()
        for _ in range(trial.times):
            before = run.position()
            wait_until(lambda: run.position() > before, 60, f"it stands still\n{run.log()}")
            reset = ("reset", "oracle", "--to", "earliest", "--wipe", "--yes")
            commands = [run.command(*words) for words in (reset, ("status",), ("state", "oracle"), ("status",))]
            with closing(sqlite3.connect(f"file:{run.location}?mode=ro", uri=True)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM seen").fetchone()
                assert [command.wait(60) for command in commands] == [0, 0, 0, 0], run.log()
            trial.fault()
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    assert not run.count("locked"), "somebody met a locked database"
    assert not run.count("event failed"), "an event failed"
    trial.judge(run.location, feed.input)


def _refused(run: AxeRun, path: Path, words: str) -> None:
    before = run.count(words)
    content = path.read_bytes() if path.exists() else None
    assert run.start("--until-end").wait(timeout=60) == 1, f"it ran all the same\n{run.log()}"
    assert run.count(words) > before, f"it does not say {words!r}\n{run.log()}"
    assert (path.read_bytes() if path.exists() else None) == content, "the file was changed"


@scenario("F14", "the state file is gone, emptied or corrupted: refused by name", needs=("kafka",), short=3, long=3)
def file_damaged(trial: Trial) -> None:
    feed = trial.feed(500)
    run = trial.axe(feed)
    run.finish()
    path = Path(run.location)
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    content = path.read_bytes()
    for harm, words in ((None, "existed and is gone"), (b"", "oracle.db"), (b"\xff" * len(content), "oracle.db")):
        path.unlink(missing_ok=True)
        if harm is not None:
            path.write_bytes(harm)
        _refused(run, path, words)
        trial.fault()
    path.write_bytes(content)
    with suppress(FileNotFoundError):
        path.chmod(0o600)
    run.command("resume", "oracle").wait(30)
    feed.produce(100)
    run.finish()
    trial.judge(run.location, feed.input)


@scenario("F28", "`axe reset --wipe` is killed half-way: before or after", needs=("kafka",), short=4, long=500)
def reset_killed(trial: Trial) -> None:
    feed = trial.feed(1000)
    run = trial.axe(feed)
    run.finish()
    began = time.monotonic()
    assert run.command("reset", "oracle", "--to", "earliest", "--wipe", "--yes").wait(60) == 0
    longest = time.monotonic() - began
    run.finish()
    with feed:
        host = run.start()
        for _ in range(trial.times):
            wait_until(lambda: workers(host), 45, f"no worker\n{run.log()}")
            reset = run.command("reset", "oracle", "--to", "earliest", "--wipe", "--yes")
            time.sleep(trial.chance.uniform(0.5, 1.0) * longest)
            reset.kill()
            reset.wait()
            trial.fault()
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    assert not run.count("event failed"), "an event failed"
    trial.judge(run.location, feed.input)
