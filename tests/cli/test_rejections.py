"""``axe rejections``: what people do with dead letters, beside a worker that runs or not."""

from __future__ import annotations

import os
import pty
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
    project.json("run", "--until-end")
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
    refused.json("run", "--until-end")

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
    refused.json("run", "--until-end")

    assert refused.json("state", "counter") == {"count": 6, "sum": 15}


def test_a_letter_that_is_to_be_retried_can_be_discarded(refused: Project) -> None:
    refused.json("rejections", "retry", "counter", "--all")

    assert refused.json("rejections", "discard", "counter", "2", "--yes")["rejections"] == [2]
    mend(refused)
    refused.json("run", "--until-end")

    assert rejected(refused) == [(1, "retried"), (2, "discarded"), (4, "retried")]
    again = refused.axe("rejections", "discard", "counter", "1", "--yes")
    assert again.stderr == "axe: the rejection 1 of counter is retried, which cannot become discarded; leave it out\n"


def test_an_event_that_is_refused_again_after_a_reset_is_rejected_again(refused: Project) -> None:
    refused.json("rejections", "discard", "counter", "--all", "--yes")

    refused.json("reset", "counter", "--to", "2", "--yes")
    refused.json("run", "--until-end")

    assert rejected(refused) == [(1, "discarded"), (2, "rejected"), (4, "rejected")]


@pytest.mark.parametrize("way", WAYS)
def test_a_retry_that_ends_its_worker_is_given_up_after_three_deaths(project: Project, way: str) -> None:
    project.configure("[processors.counter]\nhandler_timeout_s = 0.5\n")
    project.install("counter", MENDABLE.format(die=WAYS[way]))
    project.publish("studies", *events(6, 1), *events(6, 3, deadly=True), *events(6, 4))
    project.json("run", "--until-end")
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
