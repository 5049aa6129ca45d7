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


@pytest.mark.parametrize(
    ("setting", "said"),
    [('"security.protocol" = "SSLL"', "security.protocol"), ('"fetch.mn.bytes" = 1', "fetch.mn.bytes")],
)
def test_a_wrong_property_of_kafka_is_a_fault_of_the_configuration(project: Project, setting: str, said: str) -> None:
    project.configure(f"[kafka]\n{setting}\n", source="kafka://127.0.0.1:1")
    project.install("counter")

    done = project.axe("run", "--until-end")

    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if "cannot start" in line]
    assert said in line
    assert "axe-counter" not in done.stderr


def test_a_broken_processor_is_said_once(project: Project) -> None:
    project.install("bad", "1 / 0")
    project.install("counter")
    project.publish("studies", {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 1
    assert done.stderr.count("ZeroDivisionError") == 1


def test_every_row_tells_whether_the_processor_gave_up(project: Project) -> None:
    project.install("bad", "1 / 0")
    project.install("counter")
    project.publish("studies", {})

    rows = project.json("run", "--until-end", code=1)["processors"]

    assert {row["name"]: row["gave_up"] for row in rows} == {"bad": False, "counter": False}
