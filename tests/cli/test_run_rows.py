"""What ``axe run`` says of processors that cannot run."""

from __future__ import annotations

import pytest

from .conftest import Project


def test_an_impossible_name_has_no_database(project: Project) -> None:
    project.install("Imp.Name")
    project.install("counter")
    project.publish("studies", {})

    rows = {row["name"]: row for row in project.json("run", "--until-end", code=1)["processors"]}

    assert (rows["Imp.Name"]["status"], rows["Imp.Name"]["database"]) == ("broken", None)
    assert rows["counter"]["database"].endswith("counter.db")


def test_a_profile_shows_where_the_time_of_each_processor_went(project: Project) -> None:
    project.install("counter")
    project.publish("studies", *({} for _ in range(50)))

    done = project.axe("run", "--until-end", "--profile")

    [line] = [line for line in done.stdout.splitlines() if line.startswith("counter") and line.endswith("%")]
    *stages, together = (float(number.replace(",", "")) for number in line.split()[1:-1])
    assert min(stages) > 0
    assert sum(stages) == pytest.approx(together, abs=0.05)
    assert "µs an event" in done.stdout


def test_the_stages_of_a_run_are_in_its_document(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {})

    [row] = project.json("run", "--until-end")["processors"]

    assert set(row["stages"]) == {"fetch", "decode", "store", "dispatch", "commit"}


def test_a_name_that_two_distributions_claim_has_the_reasons_of_both(project: Project) -> None:
    project.install("counter")
    project.install("counter", distribution="axe-other")
    project.install("second")
    project.publish("studies", {})

    done = project.json("run", "--until-end", code=1)

    [row] = [row for row in done["processors"] if row["name"] == "counter"]
    assert "axe-counter 1.0: the name counter is claimed by" in row["reason"]
    assert "axe-other 1.0: the name counter is claimed by" in row["reason"]
