"""A ``source`` URL that only the ``open_source`` hook of an installed package knows."""

from __future__ import annotations

import json

import pytest

from .conftest import Project
from .test_run_imports import FAULTS

DRAWER = """
    from pathlib import Path

    import axe
    from axe.sources import open_source

    class Drawer:
        @axe.hookimpl
        def open_source(self, url):
            if url.startswith("drawer:"):
                return open_source("file:data", group="", properties={}, client_id="", base=Path())
    """


def test_it_is_read_by_workers_and_commands_whatever_a_processor_picks(project: Project) -> None:
    project.configure("[processors.counter]\nplugins = []\n", source="drawer:")
    project.install("drawer", DRAWER, attribute=":Drawer", group="axe.plugins")
    project.install("counter")
    project.publish("studies", {"n": 1}, {"n": 2})

    project.json("run", "--until-end")

    assert project.json("state", "counter") == {"count": 2}
    assert project.json("status")["processors"][0]["lag"] == 0
    assert project.json("reset", "counter", "--to", "earliest", "--dry-run")["plan"][0]["to"] == 0


@pytest.mark.parametrize(("code", "reason"), FAULTS)
def test_a_package_whose_import_takes_its_process_with_it_is_left_out_by_workers_and_commands(
    project: Project, code: str, reason: str
) -> None:
    project.import_limit_s = 4
    project.configure("[processors.counter]\nplugins = []\n", source="drawer:")
    project.install("drawer", DRAWER, attribute=":Drawer", group="axe.plugins")
    project.install("bad", code, attribute=":Bad", group="axe.plugins")
    project.install("counter")
    project.publish("studies", {"n": 1}, {"n": 2})

    done = project.axe("run", "--until-end")

    assert done.returncode == 1
    assert done.stderr.count(reason) == 1
    assert project.json("state", "counter") == {"count": 2}
    assert project.json("status")["processors"][0]["lag"] == 0


def test_where_the_package_that_knows_it_is_broken_the_rest_is_still_told(project: Project) -> None:
    project.install("drawer", "1 / 0", attribute=":Drawer", group="axe.plugins")
    project.install("counter")
    project.publish("studies", {})
    project.work()
    project.configure(source="drawer:")
    said = (
        'no plugin that works knows the `source` "drawer:"; broken: plugin drawer (axe-drawer 1.0) cannot be imported'
    )

    status = project.axe("status", "--json")
    findings = {one["subject"]: one for one in project.json("check", code=1)["findings"]}

    [row] = json.loads(status.stdout)["processors"]
    assert (row["lag"], row["positions"][0]["position"], row["positions"][0]["end"]) == (None, 1, None)
    assert said in status.stderr
    assert said in findings["source drawer:"]["message"]
    assert findings["database of counter"]["result"] == "ok"


@pytest.mark.parametrize("command", ["run", "status", "check"])
def test_a_url_that_nobody_knows_is_refused_with_the_known_kinds(project: Project, command: str) -> None:
    project.configure(source="fault://name:canary@host")
    project.install("beside", "class Beside: pass", attribute=":Beside", group="axe.plugins")
    project.install("counter")

    done = project.axe(command)

    assert done.returncode == 2, done.stderr
    assert '`source` is of the unknown kind "fault"; known are kafka://HOST:PORT, file:FOLDER' in done.stderr
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr


def test_a_run_whose_only_package_that_may_know_it_is_broken_says_so(project: Project) -> None:
    project.configure(source="drawer:")
    project.install("drawer", "1 / 0", attribute=":Drawer", group="axe.plugins")
    project.install("counter")

    done = project.axe("run")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        'axe: no plugin that works knows the `source` "drawer:"; broken: plugin drawer (axe-drawer 1.0) cannot'
    )
