"""``axe rejections``: what people do with dead letters, beside a worker that runs or not."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from .conftest import COUNTING, Project, wait_for

# Refuses what is bad until somebody has mended it: until there is a file of that name.
MENDABLE = (
    COUNTING
    + """\
            if event.value.get("bad") and not pathlib.Path("mended").exists():
                raise axe.Reject(event.value["bad"])
            state["sum"] = state.get("sum", 0) + event.value["n"]
            if event.value.get("deadly"):
                {die}
"""
)
WAYS = {"exit": "os._exit(3)", "endless": "time.sleep(3600)"}


def events(count: int, *bad: int, **more: Any) -> list[dict[str, Any]]:
    return [{"n": n, **({"bad": f"reason {n % 2}", **more} if n in bad else {})} for n in range(count)]


def rejected(project: Project) -> list[tuple[int, str]]:
    return [(row["offset"], row["status"]) for row in project.json("rejections", "list", "counter")["rejections"]]


def mend(project: Project) -> None:
    (project.folder / "mended").touch()


@pytest.fixture
def refused(project: Project) -> Project:
    """A processor that has read six events and refused 1, 2 and 4."""
    project.install("counter", MENDABLE.format(die="pass"))
    project.publish("studies", *events(6, 1, 2, 4))
    project.work()
    return project


def test_a_running_host_retries_at_once(refused: Project) -> None:
    with refused.running("run"):
        wait_for(lambda: refused.json("status")["processors"][0]["status"] == "running", "it does not run")
        mend(refused)
        said = refused.json("rejections", "retry", "counter", "--all")
        wait_for(lambda: {status for _, status in rejected(refused)} == {"retried"}, "it was not retried")

    assert said == {
        "processor": "counter",
        "rejections": [1, 2, 3],
        "dry_run": False,
        "note": "its worker retries them now",
    }
    assert refused.json("state", "counter") == {"count": 6, "sum": 15}
    assert refused.json("status")["processors"][0]["rejections"] == 0


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (["1"], [1]),
        (["3", "1", "3"], [1, 3]),
        (["--reason", "reason 0"], [2, 3]),
        (["--reason", "reason"], []),
        (["--topic", "studies"], [1, 2, 3]),
        (["--topic", "others"], []),
        (["--topic", "studies", "--reason", "reason 1"], [1]),
        (["--all"], [1, 2, 3]),
    ],
    ids=str,
)
def test_what_is_meant_is_marked_and_retried_by_the_next_run(
    refused: Project, choice: list[str], meant: list[int]
) -> None:
    assert refused.json("rejections", "retry", "counter", *choice, "--dry-run")["rejections"] == meant
    assert {status for _, status in rejected(refused)} == {"rejected"}

    said = refused.json("rejections", "retry", "counter", *choice)
    assert said["rejections"] == meant
    assert said["note"] == ("retried when it runs again" if meant else "no rejection is meant")
    assert refused.json("status")["processors"][0]["rejections"] == 3
    mend(refused)
    refused.work()

    assert [number for number, (_, status) in enumerate(rejected(refused), 1) if status == "retried"] == meant
    assert refused.json("state", "counter")["count"] == 3 + len(meant)
    assert refused.json("status")["processors"][0]["rejections"] == 3 - len(meant)


@pytest.mark.parametrize(
    "words", [[], ["1", "--all"], ["--all", "--topic", "studies"], ["1", "--reason", "reason 1"]], ids=str
)
def test_it_has_to_be_said_which_ones(refused: Project, words: list[str]) -> None:
    done = refused.axe("rejections", "retry", "counter", *words)

    assert done.returncode == 2
    assert done.stderr == (
        "axe: say which rejections: either their numbers, or --reason TEXT and --topic TOPIC, or --all\n"
    )


def test_one_that_is_not_there_is_named_and_none_is_marked(refused: Project) -> None:
    done = refused.axe("rejections", "retry", "counter", "1", "7")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "axe: counter has no rejection 7; `axe rejections list counter` lists them\n"
    assert {status for _, status in rejected(refused)} == {"rejected"}


def test_a_paused_processor_says_when_it_will_retry(refused: Project) -> None:
    refused.json("pause", "counter")

    said = refused.json("rejections", "retry", "counter", "1")

    assert said["note"] == "retried once `axe resume counter` lets it go on"
    assert "retried once `axe resume counter`" in refused.axe("rejections", "retry", "counter", "2").stdout


def test_a_processor_that_never_ran_has_none_and_gets_no_database(project: Project) -> None:
    project.install("counter")

    assert project.json("rejections", "retry", "counter", "--all")["rejections"] == []

    assert not (project.folder / "state").exists()


# --- list and show


TIMES = ("2026-03-01T12:00:00.000Z", "2026-03-02T12:00:00.000Z", "2026-03-03T12:00:00.000Z")


@pytest.fixture
def dated(refused: Project) -> Project:
    """The three letters were refused on three days, and the first is discarded."""
    refused.json("rejections", "discard", "counter", "1", "--yes")
    with contextlib.closing(sqlite3.connect(refused.folder / "state" / "counter.db")) as connection, connection:
        for number, at in enumerate(TIMES, 1):
            connection.execute("UPDATE axe_dead_letters SET rejected_at = ? WHERE id = ?", (at, number))
    return refused


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ([], [1, 2, 3]),
        (["--status", "discarded"], [1]),
        (["--status", "retried"], []),
        (["--topic", "studies"], [1, 2, 3]),
        (["--topic", "other"], []),
        (["--reason", "son 0"], [2, 3]),
        (["--reason", "REASON"], []),
        (["--reason", "%"], []),
        (["--since", "2026-03-02T12:00:00Z"], [2, 3]),
        (["--until", "2026-03-02T13:00:00+01:00"], [1]),
        (["--since", "2026-03-02", "--until", "2026-03-03"], [2]),
        (["--since", "-1h30m"], []),
        (["--until", "-1h30m"], [1, 2, 3]),
        (["--reason", "reason", "--limit", "2"], [1, 2]),
    ],
    ids=str,
)
def test_a_list_has_what_is_asked_for(dated: Project, filters: list[str], ids: list[int]) -> None:
    assert [row["id"] for row in dated.json("rejections", "list", *filters)["rejections"]] == ids


def test_groups_are_counted_by_reason(dated: Project) -> None:
    groups = dated.json("rejections", "list", "--group")["groups"]

    frequent = {"reason": "reason 0", "count": 2, "first": TIMES[1], "last": TIMES[2], "example": 2}
    other = {"reason": "reason 1", "count": 1, "first": TIMES[0], "last": TIMES[0], "example": 1}
    assert groups == [{"processor": "counter", **frequent}, {"processor": "counter", **other}]
    lines = dated.axe("rejections", "list", "--group", "--limit", "1").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["processor", "rejections"], ["counter", "2"]]


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["yesterday", "earliest", "12", "-9999999999w"])
def test_what_is_no_time_is_refused(refused: Project, option: str, text: str) -> None:
    done = refused.axe("rejections", "list", option, text)

    assert done.returncode == 2
    assert done.stderr == (
        f"axe: {option} {text!r} is neither an ISO time (2026-03-01T12:00:00Z) nor how long ago (-1h30m)\n"
    )


def test_a_letter_is_shown_decoded_with_its_history(refused: Project) -> None:
    refused.json("rejections", "retry", "counter", "2", "3", "--why", "mended, I thought")
    refused.work()
    refused.json("rejections", "discard", "counter", "1", "--yes")

    shown = refused.json("rejections", "show", "counter", "2")

    assert (shown["decoded"], shown["not_decoded"]) == ({"n": 2, "bad": "reason 0"}, None)
    assert (shown["version"], shown["attempts"]) == (1, 2)
    retry, failed = shown["history"]
    assert (retry["action"], retry["reason"], retry["before"]) == ("retry", "mended, I thought", {"rejected": "2-3"})
    assert (failed["action"], failed["before"]["reason"]) == ("retry failed", "reason 0")
    assert [row["action"] for row in refused.json("rejections", "show", "counter", "1")["history"]] == ["discard"]
    text = refused.axe("rejections", "show", "counter", "2").stdout
    assert '{"n": 2, "bad": "reason 0"}' in text
    assert "; mended, I thought" in text


def test_avro_is_decoded_with_the_schema_of_the_configuration(project: Project) -> None:
    schema = {"type": "record", "name": "study", "fields": [{"name": "phase", "type": "string"}]}
    (project.folder / "study.avsc").write_text(json.dumps(schema))
    project.configure('[topics.studies]\ndecode = ["avro"]\nschema = "study.avsc"\n')
    project.install("counter", COUNTING + '            raise axe.Reject("no")\n')
    (project.folder / "data" / "studies.jsonl").write_bytes(b"\x04II\n\xff\xfe\n")

    project.work()

    assert project.json("rejections", "show", "counter", "1")["decoded"] == {"phase": "II"}
    broken = project.json("rejections", "show", "counter", "2")
    assert broken["decoded"] is None
    assert broken["not_decoded"] == broken["reason"]


# --- discard


def test_what_is_discarded_counts_no_longer_and_stays(refused: Project) -> None:
    said = refused.json("rejections", "discard", "counter", "--reason", "reason 0", "--why", "test data", "--yes")

    plan = [{"reason": "reason 0", "rejections": [2, 3]}]
    assert said == {"processor": "counter", "rejections": [2, 3], "dry_run": False, "plan": plan}
    assert rejected(refused) == [(1, "rejected"), (2, "discarded"), (4, "discarded")]
    assert refused.json("status")["processors"][0]["rejections"] == 1


def test_a_discard_needs_a_word_where_nobody_can_be_asked_and_shows_its_plan(refused: Project) -> None:
    done = refused.axe("rejections", "discard", "counter", "--all")
    assert done.returncode == 2
    assert done.stderr == (
        "axe: this takes rejections off the list and nobody is there to be asked: add --yes, or --dry-run to see "
        "the plan\n"
    )

    plan = refused.axe("rejections", "discard", "counter", "--all", "--dry-run").stdout.splitlines()

    assert [line.split() for line in plan] == [
        ["processor", "rejections", "ids", "reason"],
        ["counter", "1", "1", "reason", "1"],
        ["counter", "2", "2-3", "reason", "0"],
    ]
    assert {status for _, status in rejected(refused)} == {"rejected"}


@pytest.mark.parametrize(("answer", "status"), [("y", "discarded"), ("n", "rejected"), ("", "rejected")])
def test_a_discard_asks_on_a_terminal(refused: Project, answer: str, status: str) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb+", buffering=0) as terminal, os.fdopen(theirs, "rb", buffering=0) as its_end:
        terminal.write(f"{answer}\n".encode())
        command = [sys.executable, "-P", "-m", "axe", "rejections", "discard", "counter", "1"]
        done = subprocess.run(
            command, cwd=refused.folder, env=refused.environment, stdin=its_end, stdout=its_end, stderr=its_end
        )
        said = os.read(terminal.fileno(), 10_000).decode()

    assert done.returncode == (0 if status == "discarded" else 1)
    assert "Do without these events? [y/N]" in said
    assert rejected(refused)[0] == (1, status)


def test_what_is_discarded_is_not_retried_with_all_others_but_by_its_number(refused: Project) -> None:
    refused.json("rejections", "discard", "counter", "1", "--yes")
    mend(refused)

    assert refused.json("rejections", "retry", "counter", "--all")["rejections"] == [2, 3]
    assert refused.json("rejections", "retry", "counter", "1")["rejections"] == [1]
    refused.work()

    assert refused.json("state", "counter") == {"count": 6, "sum": 15}


def test_a_letter_that_is_to_be_retried_can_be_discarded(refused: Project) -> None:
    refused.json("rejections", "retry", "counter", "--all")

    assert refused.json("rejections", "discard", "counter", "2", "--yes")["rejections"] == [2]
    mend(refused)
    refused.work()

    assert rejected(refused) == [(1, "retried"), (2, "discarded"), (4, "retried")]
    again = refused.axe("rejections", "discard", "counter", "1", "--yes")
    assert again.stderr == "axe: the rejection 1 of counter is retried, which cannot become discarded; leave it out\n"


def test_an_event_that_is_refused_again_after_a_reset_is_rejected_again(refused: Project) -> None:
    refused.json("rejections", "discard", "counter", "--all", "--yes")

    refused.json("reset", "counter", "--to", "2", "--yes")
    refused.work()

    assert rejected(refused) == [(1, "discarded"), (2, "rejected"), (4, "rejected")]


# --- files, history


def contents(project: Project, name: str = "counter") -> list[Any]:
    with contextlib.closing(sqlite3.connect(project.folder / "state" / f"{name}.db")) as connection:
        found = connection.execute("SELECT * FROM axe_dead_letters ORDER BY id").fetchall()
    return [row[1:] for row in found]


def test_what_was_exported_is_imported_as_it_was(project: Project) -> None:
    project.install("counter", COUNTING + '            raise axe.Reject("no\\x00 é" * event.offset)\n')
    envelope = {"key": "k", "headers": ["a", "1", "a", "2"], "ts": 1_700_000_000_123, "payload": '{"é": 1}'}
    (project.folder / "data" / "studies.kcat").write_text(f"{json.dumps({**envelope, 'payload': None})}\n" * 2)
    with (project.folder / "data" / "studies.kcat").open("a") as file:
        file.write(f"{json.dumps(envelope)}\n")
    project.work()
    project.json("rejections", "discard", "counter", "2", "--yes")
    before = contents(project)
    assert len(before) == 3

    exported = project.json("rejections", "export", "counter", "letters.jsonl")
    assert exported == {"processor": "counter", "exported": 3, "file": "letters.jsonl"}
    project.configure(state="sqlite:elsewhere")
    first = project.json("rejections", "import", "counter", "letters.jsonl")
    again = project.json("rejections", "import", "counter", "letters.jsonl")

    assert first == {"processor": "counter", "imported": 3, "present": 0}
    assert again == {"processor": "counter", "imported": 0, "present": 3}
    shutil.move(project.folder / "elsewhere", project.folder / "state" / "elsewhere")
    assert contents(project, "elsewhere/counter") == before


def test_an_import_adds_what_is_not_there_and_leaves_the_rest(refused: Project) -> None:
    refused.json("rejections", "retry", "counter", "3")
    refused.json("rejections", "export", "counter", "letters.jsonl")
    refused.json("rejections", "discard", "counter", "1", "--yes")
    with contextlib.closing(sqlite3.connect(refused.folder / "state" / "counter.db")) as connection, connection:
        connection.execute("DELETE FROM axe_dead_letters WHERE id > 1")

    assert refused.json("rejections", "import", "counter", "letters.jsonl")["imported"] == 2

    # Nothing is handled because of an import.
    assert rejected(refused) == [(1, "discarded"), (2, "rejected"), (4, "rejected")]
    mend(refused)
    refused.json("rejections", "retry", "counter", "--all")
    refused.work()
    assert refused.json("state", "counter")["count"] == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"processor": "other"}, "it is one of 'other'"),
        ({"topic": "../x"}, "'../x' is no name of a topic"),
        ({"offset": -1}, "Expected `int` >= 0 - at `$.offset`"),
        ({"value": "%"}, "Invalid base64 encoded string - at `$.value`"),
        ({"encoding": "hex"}, "Invalid enum value 'hex' - at `$.encoding`"),
        ({"status": "lost"}, "'lost' is no status"),
        ({"rejected_at": "2026-03-01"}, "'2026-03-01' is no time in UTC"),
        ({"timestamp": ""}, "'' is no time in UTC"),
        ({"more": 1}, "Object contains unknown field `more`"),
    ],
    ids=str,
)
def test_a_bad_line_is_named_and_nothing_is_imported(refused: Project, change: dict[str, Any], said: str) -> None:
    refused.json("rejections", "export", "counter", "letters.jsonl")
    path = refused.folder / "letters.jsonl"
    good, bad, last = path.read_text().splitlines()
    path.write_text("\n".join((good, json.dumps(json.loads(bad) | change), last)))
    with contextlib.closing(sqlite3.connect(refused.folder / "state" / "counter.db")) as connection, connection:
        connection.execute("DELETE FROM axe_dead_letters")

    done = refused.axe("rejections", "import", "counter", "letters.jsonl")

    assert done.returncode == 1
    assert done.stderr == f"axe: line 2 is no dead letter of counter: {said}; nothing was imported\n"
    assert rejected(refused) == []


def test_an_export_overwrites_nothing_and_is_for_its_owner(refused: Project) -> None:
    refused.json("rejections", "export", "counter", "letters.jsonl")
    assert (refused.folder / "letters.jsonl").stat().st_mode & 0o777 == 0o600

    done = refused.axe("rejections", "export", "counter", "letters.jsonl")

    assert (done.returncode, done.stderr) == (1, "axe: letters.jsonl: File exists\n")


def test_the_history_has_what_was_done_to_all_processors(refused: Project) -> None:
    refused.install("other", COUNTING)
    refused.json("pause", "counter")
    refused.json("pause", "other")
    refused.json("rejections", "discard", "counter", "2", "3", "--why", "test data", "--yes")

    rows = refused.json("history")["history"]

    assert [(row["processor"], row["action"]) for row in rows] == [
        ("counter", "pause"),
        ("other", "pause"),
        ("counter", "discard"),
    ]
    assert (rows[2]["before"], rows[2]["reason"]) == ({"rejected": "2-3"}, "test data")
    assert [row["id"] for row in refused.json("history", "counter")["history"]] == [1, 2]
    assert "rejected: 2-3" in refused.axe("history", "counter").stdout.splitlines()[2]
    assert refused.axe("history", "nobody").returncode == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_retry_that_ends_its_worker_is_given_up_after_three_deaths(project: Project, way: str) -> None:
    project.configure("[processors.counter]\nhandler_timeout_s = 0.5\n")
    project.install("counter", MENDABLE.format(die=WAYS[way]))
    project.publish("studies", *events(6, 1), *events(6, 3, deadly=True), *events(6, 4))
    project.work()
    project.json("rejections", "retry", "counter", "--all")
    mend(project)
    project.publish("studies", {"n": 1})

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    # In the dark, and then three times counted.
    assert done.stderr.count("worker died, starting it again") == 4
    assert rejected(project) == [(1, "retried"), (9, "rejected"), (16, "retried")]
    [row] = [row for row in project.json("rejections", "list")["rejections"] if row["status"] == "rejected"]
    assert row["reason"].startswith("WorkerDied: its worker died 3 times")
    assert row["attempts"] == 4
    assert project.json("state", "counter") == {"count": 18, "sum": 43}
