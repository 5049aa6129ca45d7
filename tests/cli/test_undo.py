"""``axe undo``: what was done by hand is taken back, beside a worker that runs or not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from .conftest import COUNTING, Project, wait_for

# Keeps its events in tables of its own, one of them virtual where there are such, and says which hooks were called.
KEEPING = """
    import pathlib

    import axe

    class Keeping:
        topics = ("studies",)

        @axe.hookimpl
        def on_start(self, state):
            self.say("on_start")
            run = state.connection.exec_driver_sql
            run("CREATE TABLE IF NOT EXISTS seen (n integer PRIMARY KEY, word text NOT NULL)")
            run("CREATE INDEX IF NOT EXISTS seen_word ON seen (word)")
            if state.connection.dialect.name == "sqlite":
                run("CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (word)")
            else:
                run("CREATE TABLE IF NOT EXISTS words (word text, id serial PRIMARY KEY)")

        @axe.hookimpl
        def on_reset(self, state):
            self.say("on_reset")

        @axe.hookimpl
        def on_event(self, event, state):
            if event.value.get("bad"):
                raise axe.Reject("it is bad")
            word = f"word{event.offset}"
            state.connection.exec_driver_sql(f"INSERT INTO seen VALUES ({event.offset}, '{word}')")
            state.connection.exec_driver_sql(f"INSERT INTO words (word) VALUES ('{word}')")
            state["words"] = state.get("words", []) + [row[0] for row in self.found(state, word)]
            state["count"] = state.get("count", 0) + 1

        def found(self, state, word):
            match = "MATCH" if state.connection.dialect.name == "sqlite" else "="
            return state.connection.exec_driver_sql(f"SELECT word FROM words WHERE word {match} '{word}'")

        def say(self, hook):
            with open("hooks", "a") as file:
                print(hook, file=file)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest) -> str:
    url: str = "sqlite:state" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def read(project: Project, state: str) -> Project:
    """A processor that has read six events and refused 1 and 4."""
    return _having_read(project, state)


@pytest.fixture
def on_sqlite(project: Project) -> Project:
    """The same, where databases do not differ."""
    return _having_read(project, "sqlite:state")


def _having_read(project: Project, state: str) -> Project:
    project.configure(state=state)
    project.install("counter", KEEPING, attribute=":Keeping")
    project.publish("studies", *({"bad": n in (1, 4)} for n in range(6)))
    project.work()
    return project


STATE = {"count": 4, "words": ["word0", "word2", "word3", "word5"]}


def position(project: Project) -> int:
    return int(project.json("status")["processors"][0]["positions"][0]["position"])


def status(project: Project) -> str:
    return str(project.json("status")["processors"][0]["status"])


def letters(project: Project) -> list[str]:
    return [row["status"] for row in project.json("rejections", "list", "counter")["rejections"]]


def hooks(project: Project) -> list[str]:
    """What was called since this was asked last."""
    found = (project.folder / "hooks").read_text().split()
    (project.folder / "hooks").write_text("")
    return found


def wait_for_hooks(project: Project, wanted: list[str], what: str) -> None:
    """Wait until these were called; of two, one may be called before somebody looks and the other one after that."""
    wait_for(lambda: (project.folder / "hooks").read_text().split() == wanted, what)
    hooks(project)


def undo(project: Project, which: str = "counter:1", *words: str) -> Any:
    return project.json("undo", which, "--yes", *words)


def refusal(project: Project, which: str, *words: str, code: int = 1) -> str:
    done = project.axe("undo", which, "--yes", *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("axe: ").rstrip()


# --- pause and resume


def test_a_pause_is_taken_back_and_stands_in_the_history(on_sqlite: Project) -> None:
    on_sqlite.json("pause", "counter")

    said = undo(on_sqlite, "counter:1", "--why", "too early")

    change = {"what": "paused", "from": True, "to": False}
    assert said == {
        "processor": "counter", "id": 1, "action": "pause", "dry_run": False, "changes": [change], "notes": [],
    }  # fmt: skip
    assert status(on_sqlite) == "stopped"
    row = on_sqlite.json("history")["history"][1]
    assert (row["action"], row["reason"]) == ("undo", "too early")
    assert (row["before"], row["after"]) == ({"undone": 1, "paused": True}, {"paused": False})
    assert refusal(on_sqlite, "counter:1") == "counter:1 (pause) was taken back already, by counter:2"
    assert refusal(on_sqlite, "counter:2") == "counter:2 (undo) is an undo; do again what it took back"


def test_a_resume_is_taken_back_beside_a_running_worker(on_sqlite: Project) -> None:
    with on_sqlite.running("run"):
        on_sqlite.json("pause", "counter")
        wait_for(lambda: status(on_sqlite) == "paused", "it was not paused")
        on_sqlite.json("resume", "counter")
        wait_for(lambda: status(on_sqlite) == "running", "it did not go on")
        assert refusal(on_sqlite, "1") == "counter:1 (pause) stands no longer: counter:2 (resume) came after it"

        undo(on_sqlite, "2")
        on_sqlite.publish("studies", {})
        wait_for(lambda: status(on_sqlite) == "paused", "it was not paused again")
        undo(on_sqlite, "1")
        wait_for(lambda: position(on_sqlite) == 7, "it did not go on again")


def test_a_processor_that_failed_before_a_pause_has_failed_after_the_undo(project: Project, state: str) -> None:
    project.configure("[processors.counter]\nretries = 0\n", state=state)
    project.install("counter", COUNTING + '            raise OSError("it is sick")\n')
    project.publish("studies", {})
    project.json("run", "--until-end", code=1)
    project.json("pause", "counter")
    project.json("run", "--until-end", code=1)
    assert status(project) == "paused"

    undo(project)

    row = project.json("status")["processors"][0]
    assert row["status"] == "failed"
    assert "it is sick" in row["last_error"]
    project.json("resume", "counter")
    assert refusal(project, "counter:3") == (
        "counter:3 (resume) let a processor go on that had failed; `axe pause counter` holds it"
    )


def test_what_changed_nothing_is_not_taken_back(on_sqlite: Project) -> None:
    on_sqlite.json("resume", "counter")

    assert (
        refusal(on_sqlite, "1")
        == "counter:1 (resume) left nothing to take back: counter is not paused, as it was before"
    )


# --- dead letters


def test_a_discard_is_taken_back_by_the_statuses_that_letters_had(read: Project) -> None:
    read.json("rejections", "retry", "counter", "2")
    read.json("rejections", "discard", "counter", "--all", "--yes")
    assert letters(read) == ["discarded", "discarded"]

    undo(read, "counter:2")

    assert letters(read) == ["rejected", "retry"]
    row = read.json("history")["history"][-1]
    assert row["before"] == {"undone": 2, "discarded": "1, 2"}
    assert row["after"] == {"rejected": "1", "retry": "2"}
    assert [one["action"] for one in read.json("rejections", "show", "counter", "1")["history"]] == ["discard", "undo"]
    undo(read, "counter:1")
    assert letters(read) == ["rejected", "rejected"]


def test_letters_to_which_something_happened_since_are_left_as_they_are(on_sqlite: Project) -> None:
    on_sqlite.json("rejections", "discard", "counter", "--all", "--yes")
    on_sqlite.json("rejections", "retry", "counter", "2")

    said = undo(on_sqlite)

    assert letters(on_sqlite) == ["rejected", "retry"]
    assert said["notes"] == ["1 of its dead letters are left as they are: something has happened to them since"]


def test_a_retry_that_the_worker_has_done_is_not_taken_back(on_sqlite: Project) -> None:
    on_sqlite.json("rejections", "retry", "counter", "--all")
    on_sqlite.work()

    assert refusal(on_sqlite, "1") == (
        "counter:1 (retry) left nothing to take back: none of its dead letters is retry since then"
    )
    assert refusal(on_sqlite, "2") == "counter:2 (retry failed) has changed nothing but the reason of a dead letter"


def test_a_discarded_letter_whose_event_comes_again_is_left_to_that(on_sqlite: Project) -> None:
    """It may have taken effect: rejected, and retried after that, it would do so twice."""
    on_sqlite.json("rejections", "discard", "counter", "--all", "--yes")
    on_sqlite.json("reset", "counter", "--to", "3", "--yes")

    undo(on_sqlite, "1")

    assert letters(on_sqlite) == ["rejected", "reset"]
    undo(on_sqlite, "2")
    assert letters(on_sqlite) == ["rejected", "discarded"]


# --- resets


@pytest.mark.parametrize("words", [[], ["--wipe"]], ids=str)
def test_a_reset_that_no_worker_has_seen_never_was(read: Project, words: list[str]) -> None:
    read.json("rejections", "retry", "counter", "2")
    before = read.json("status")["processors"]
    read.json("reset", "counter", "--to", "2", "--yes", *words)
    assert letters(read) == ["rejected", "reset"]

    said = undo(read, "2")

    moved, *others = said["changes"]
    assert moved == {"what": "studies[0]", "from": 2, "to": 6}
    assert others[-1] == {"what": "rejections 2", "from": "reset", "to": "retry"}
    assert said["notes"] == []
    assert letters(read) == ["rejected", "retry"]
    after = read.json("status")["processors"]
    epochs = [rows[0]["positions"][0].pop("epoch") for rows in (before, after)]
    assert (before, epochs[1] > epochs[0]) == (after, True)
    assert read.json("state", "counter") == STATE
    hooks(read)
    read.publish("studies", {})
    read.work()
    assert hooks(read) == ["on_start"]
    assert read.json("state", "counter") == {"count": 5, "words": [*STATE["words"], "word6"]}
    assert position(read) == 7


def test_a_reset_beside_a_running_worker_is_taken_back(read: Project) -> None:
    with read.running("run"):
        wait_for(lambda: status(read) == "running", "it does not run")
        hooks(read)
        # Back to the end: there is nothing to be processed.
        read.json("reset", "counter", "--to", "latest", "--yes")
        wait_for_hooks(read, ["on_reset"], "the worker has not seen the reset")

        said = undo(read)

        wait_for_hooks(read, ["on_reset"], "the worker has not seen the undo")
        read.publish("studies", {})
        wait_for(lambda: position(read) == 7, "it does not go on")
    assert said["notes"] == [
        "a worker has seen the reset: what on_reset did to the state stays, and it is called again"
    ]
    assert read.json("state", "counter")["count"] == 5


def test_a_wipe_beside_a_running_worker_is_taken_back_with_all_that_it_dropped(read: Project) -> None:
    with read.running("run"):
        wait_for(lambda: status(read) == "running", "it does not run")
        hooks(read)
        read.json("reset", "counter", "--to", "latest", "--wipe", "--yes")
        wait_for_hooks(read, ["on_reset", "on_start"], "the worker has not seen the wipe")
        assert read.json("state", "counter") == {}

        said = undo(read)

        assert read.json("state", "counter") == STATE
        wait_for_hooks(read, ["on_start"], "the worker has not seen the undo")
        read.publish("studies", {})
        wait_for(lambda: position(read) == 7, "it does not go on")
        wait_for(lambda: status(read) == "running", "it does not say so")
        assert read.json("status")["processors"][0]["workers"]
    assert {"what": "state", "from": "what was built since the wipe", "to": "what the wipe dropped"} in said["changes"]
    assert read.json("state", "counter") == {"count": 5, "words": [*STATE["words"], "word6"]}
    assert [row["action"] for row in read.json("history")["history"]] == ["reset and wipe", "undo"]
    assert letters(read) == ["rejected", "rejected"]


@pytest.mark.parametrize("words", [[], ["--wipe"]], ids=str)
def test_what_was_processed_since_stands(read: Project, words: list[str]) -> None:
    read.json("reset", "counter", "--to", "latest", "--yes", *words)
    read.publish("studies", {})
    read.work()
    before = read.json("state", "counter"), position(read), letters(read)

    said = refusal(read, "1")

    action = "reset and wipe" if words else "reset"
    assert said == (
        f"counter:1 ({action}) cannot be taken back: studies[0] was read on since, from 6 to 7; `axe reset` moves it"
    )
    assert (read.json("state", "counter"), position(read), letters(read)) == before


def test_resets_are_taken_back_in_order_and_of_wipes_the_last(read: Project) -> None:
    for target in ("0", "2"):
        read.json("reset", "counter", "--to", target, "--wipe", "--yes")
    assert refusal(read, "1").endswith("stands no longer: counter:2 (reset and wipe) came after it; undo that first")

    undo(read, "2")

    assert (position(read), read.json("state", "counter")) == (0, {})
    assert "what the wipe dropped is not kept any more" in refusal(read, "1")
    read.work()
    assert read.json("state", "counter") == STATE


def test_a_wipe_that_cannot_be_taken_back_says_so_before_it_is_done(read: Project, state: str) -> None:
    read.configure("[processors.counter]\nundo_mb = 0\n", state=state)
    words = ("reset", "counter", "--to", "earliest", "--wipe")

    planned = read.axe(*words, "--dry-run")
    done = read.json(*words, "--yes")

    warning = "axe: counter: `axe undo` will not take this wipe back, because `undo_mb` is 0\n"
    assert planned.stderr == warning
    assert done["final"] == {"counter": "`undo_mb` is 0"}
    assert refusal(read, "1") == (
        "counter:1 (reset and wipe) cannot be taken back: what it dropped was not kept, because `undo_mb` is 0"
    )


def test_a_processor_of_another_version_has_its_version_back(on_sqlite: Project) -> None:
    """The state that comes back was built by the old one, and the new one has to be told so."""
    on_sqlite.json("reset", "counter", "--to", "latest", "--wipe", "--yes")
    (module,) = on_sqlite.site.glob("m_*.py")
    module.write_text(module.read_text().replace('topics = ("studies",)', 'topics = ("studies",)\n    version = 2'))
    on_sqlite.work()
    assert on_sqlite.json("status")["processors"][0]["version"] == 2

    undo(on_sqlite)

    on_sqlite.json("run", "--until-end", code=1)
    row = on_sqlite.json("status")["processors"][0]
    assert (row["version"], row["status"]) == (1, "failed")
    assert "built by version 1, version 2 is installed" in row["last_error"]


def test_a_failure_that_a_reset_passed_over_is_there_again(project: Project, state: str) -> None:
    project.configure("[processors.counter]\nretries = 0\n", state=state)
    project.install("counter", COUNTING + '            raise OSError("it is sick")\n')
    project.publish("studies", {})
    project.json("run", "--until-end", code=1)
    project.json("reset", "counter", "--to", "latest", "--yes")
    assert status(project) == "stopped"

    undo(project)

    row = project.json("status")["processors"][0]
    assert (row["status"], row["positions"][0]["position"]) == ("failed", 0)
    assert "it is sick" in row["last_error"]


def test_a_processor_that_was_reset_before_its_first_start_begins_where_new_ones_do(
    project: Project, state: str
) -> None:
    project.configure(state=state)
    project.install("counter", KEEPING, attribute=":Keeping")
    project.publish("studies", {}, {})
    project.json("reset", "counter", "--to", "latest", "--yes")

    undo(project)

    project.work()
    assert project.json("state", "counter")["count"] == 2


# --- what is meant


def test_a_number_that_several_histories_have_has_to_be_said_with_a_name(project: Project) -> None:
    for name in ("counter", "other"):
        project.install(name)
        project.json("pause", name)
    project.json("resume", "other")

    assert (
        refusal(project, "1", code=2)
        == "1 is in more than one history; say which one: counter:1 (pause), other:1 (pause)"
    )
    assert undo(project, "2")["processor"] == "other"
    assert undo(project, "counter:1")["processor"] == "counter"


@pytest.mark.parametrize(
    ("which", "code", "said"),
    [
        ("9", 2, "9 is in no history; `axe history` shows what is"),
        ("counter:9", 1, "counter:9 is not in the history; `axe history counter` lists what is"),
        ("countr:1", 2, "there is no processor countr; did you mean counter?"),
        ("counter", 2, "'counter' is no id of the history; `axe history` shows them, such as study-counter:3"),
    ],
)
def test_what_is_not_there_is_named(project: Project, which: str, code: int, said: str) -> None:
    project.install("counter")
    project.json("pause", "counter")

    assert refusal(project, which, code=code) == said


def test_a_dry_run_shows_the_plan_and_changes_nothing(on_sqlite: Project) -> None:
    on_sqlite.json("reset", "counter", "--to", "0", "--wipe", "--yes")

    shown = on_sqlite.axe("undo", "counter:1", "--dry-run").stdout

    assert [line.split() for line in shown.splitlines()][:2] == [
        ["processor", "what", "from", "to"],
        ["counter", "studies[0]", "0", "6"],
    ]
    assert (position(on_sqlite), on_sqlite.json("state", "counter")) == (0, {})
    assert len(on_sqlite.json("history")["history"]) == 1


def test_it_asks_on_a_terminal_and_needs_a_word_elsewhere(project: Project) -> None:
    project.install("counter")
    project.json("pause", "counter")
    refused = project.axe("undo", "counter:1")
    assert refused.returncode == 2
    assert "add --yes, or --dry-run" in refused.stderr

    ours, theirs = pty.openpty()
    try:
        asked = subprocess.Popen(
            [sys.executable, "-P", "-m", "axe", "undo", "counter:1"],
            cwd=project.folder,
            env=project.environment,
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.write(ours, b"y\n")
        assert asked.wait(30) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert status(project) == "stopped"


def test_the_history_shows_ids_to_be_copied(on_sqlite: Project) -> None:
    on_sqlite.json("reset", "counter", "--to", "0", "--wipe", "--yes")

    lines = on_sqlite.axe("history").stdout.splitlines()

    assert lines[1].split()[0] == "counter:1"
    assert "studies[0]: 6" in lines[1]
    assert "was" not in lines[1]
