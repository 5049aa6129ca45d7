"""``axe run`` with processors whose import takes their process with it: the others run."""

from __future__ import annotations

import textwrap

import pytest

from .conftest import COUNTER, Project, wait_for

FAULTS = [
    ("import os; os._exit(9)", "its import ended the process (exit code 9)"),
    ("import os; os.kill(os.getpid(), 11)", "its import ended the process (signal 11)"),
    ("while True: pass", "its import does not end: stopped after 4 s"),
]


@pytest.mark.parametrize("workers", ['"processes"', '"threads"'])
@pytest.mark.parametrize(("code", "reason"), FAULTS)
def test_such_a_processor_is_broken_and_its_neighbours_run(
    project: Project, workers: str, code: str, reason: str
) -> None:
    project.import_limit_s = 4
    project.configure(f"[host]\nworkers = {workers}\n")
    for name in ("counter", "second"):
        project.install(name)
    project.install("bad", code)
    project.publish("studies", {}, {})

    done = project.axe("run", "--until-end", "--json")

    assert done.returncode == 1
    assert f'"axe-bad 1.0: {reason}"' in done.stdout, done.stderr
    assert done.stderr.count(reason) == 1
    for name in ("counter", "second"):
        assert project.axe("state", name, "count").stdout.split()[-1:] == ["2"], done.stderr


KILLED_ONCE = """
import os, pathlib

if not pathlib.Path("killed").exists():
    pathlib.Path("killed").touch()
    os.kill(os.getpid(), 9)
from the_counter import Counter
"""


def test_a_worker_that_is_killed_while_it_imports_is_started_again(project: Project) -> None:
    """By the kernel or a person, and not by the import: that proves nothing about the processor."""
    project.install("counter", KILLED_ONCE)
    (project.site / "the_counter.py").write_text(textwrap.dedent(COUNTER))
    project.publish("studies", {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr


def test_a_host_that_drains_does_not_wait_for_an_import(project: Project) -> None:
    project.install("loop", "open('began', 'w').close()\nwhile True: pass")
    with project.running("run") as host:
        wait_for((project.folder / "began").exists, "the import did not begin")

        host.terminate()

        assert host.wait(15) == 0, project.log()
