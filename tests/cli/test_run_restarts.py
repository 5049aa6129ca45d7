"""How long ``axe run`` waits before it starts a worker again that has died."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from .conftest import COUNTING, Project, wait_for

DEADLY = (
    COUNTING
    + """
        @axe.hookimpl
        def on_commit(self):
            time.sleep(0.06)
            os.kill(os.getpid(), 9)
"""
)


def pauses(stderr: str) -> list[float]:
    return [float(pause) for pause in re.findall(r"pause_s=([\d.]+)", stderr)]


def test_a_worker_that_dies_soon_after_a_commit_is_started_again_at_once(project: Project) -> None:
    project.configure("[processors.counter]\nbatch = { events = 1 }\n")
    project.install("counter", DEADLY)
    project.publish("studies", *[{}] * 7)

    done = project.axe("run", "--until-end")

    assert pauses(done.stderr) == [0.1] * 7, done.stderr
    assert project.axe("state", "counter", "count").stdout.split()[-1:] == ["7"]


# Unlike a deadly event, which is found.
DEADLY_START = """
    import os

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def on_start(self, state):
            {die}

        @axe.hookimpl
        def on_event(self, event, state):
            pass
    """


def test_a_worker_that_dies_before_it_did_anything_waits_longer_each_time(project: Project) -> None:
    project.install("counter", DEADLY_START.format(die="os.kill(os.getpid(), 9)"))
    project.publish("studies", {})

    with project.running("run"):
        found = wait_for(lambda: pauses(project.log())[2:] and pauses(project.log()), "three deaths")

    assert found[:3] == [0.1, 0.2, 0.4]


STUCK_ONCE = (
    COUNTING
    + """\
            if event.offset == 1 and not pathlib.Path("stuck").exists():
                pathlib.Path("stuck").touch()
                self.wait()

        def wait(self):
            time.sleep(60)
"""
)


def test_a_handler_that_is_stuck_is_named_by_its_place_and_its_worker_starts_again(project: Project) -> None:
    project.install("counter", STUCK_ONCE)
    project.configure("[processors.counter]\nhandler_timeout_s = 0.5")
    project.publish("studies", {}, {}, {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 0
    [line] = [line for line in done.stderr.splitlines() if "handler takes too long" in line]
    assert "studies[0]@" in line
    assert re.search(r"where='?\S*m_\w+\.py:\d+ in wait", line)
    assert re.search(r"calls='\S*m_\w+\.py:\d+ in on_event > \S*m_\w+\.py:\d+ in wait", line)
    assert "Thread 0x" not in done.stderr
    assert project.json("state", "counter") == {"count": 3}


STUCK_REPORTER = (
    COUNTING
    + """\
            if event.value.get("sick"):
                raise RuntimeError("sick")

        @axe.hookimpl
        def on_error(self, failure):
            if not pathlib.Path("stuck").exists():
                pathlib.Path("stuck").touch()
                self.report()

        def report(self):
            time.sleep(600)
"""
)


def test_a_loop_that_is_stuck_outside_of_the_handler_is_named_and_starts_again(project: Project) -> None:
    project.install("counter", STUCK_REPORTER)
    project.configure('[host]\nstuck_s = 1\n[processors.counter]\non_failure = "reject"\nretries = 0\n')
    project.publish("studies", {}, {"sick": True}, {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "loop is stuck, worker ends itself" in line]
    assert "stuck_s=1" in line
    assert re.search(r"where='?\S*m_\w+\.py:\d+ in report", line)
    assert project.json("state", "counter") == {"count": 2}


SLOW_START = (
    COUNTING
    + """\
            pass

        @axe.hookimpl
        def on_start(self, state):
            time.sleep(2.5)
"""
)


def test_a_long_start_of_a_plugin_is_no_stuck_loop(project: Project) -> None:
    project.install("counter", SLOW_START)
    project.configure("[host]\nstuck_s = 1\n")
    project.publish("studies", {})

    done = project.axe("run", "--until-end")

    assert (done.returncode, "worker ends itself" in done.stderr) == (0, False)
    assert project.json("state", "counter") == {"count": 1}


def test_a_worker_that_dies_again_and_again_is_told_of_by_status(project: Project) -> None:
    project.install("counter", DEADLY_START.format(die="os.kill(os.getpid(), 9)"))
    project.publish("studies", {})

    with project.running("run"):
        wait_for(lambda: pauses(project.log())[2:], "three deaths")
        [row] = project.json("status")["processors"]

    assert "times (signal 9) without progress" in row["last_error"]


WITHOUT_PAUSES = """
import axe.supervision
from axe.cli import main

axe.supervision._FIRST_PAUSE_S = 0.001
main(["run", "--until-end", "--json"])
"""


def test_a_run_to_the_end_that_gives_up_leaves_the_status_failed(project: Project) -> None:
    project.install("counter", DEADLY_START.format(die="os._exit(7)"))
    project.publish("studies", {})

    command = [sys.executable, "-P", "-c", WITHOUT_PAUSES]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)

    assert done.returncode == 1, done.stderr
    [row] = json.loads(done.stdout)["processors"]
    reason = "its worker died 10 times (exit code 7) without progress"
    assert (row["status"], row["gave_up"], row["reason"]) == ("failed", True, reason)
    [told] = project.json("status")["processors"]
    assert (told["status"], told["last_error"]) == ("failed", reason)


def test_workers_start_and_wait_where_the_server_of_the_databases_is_away(project: Project) -> None:
    project.configure("[host]\nwait_s = 0.5\n", state="postgresql+psycopg://127.0.0.1:1/none")
    project.install("counter")

    done = project.axe("run", "--until-end", "--only", "counter")

    assert done.returncode == 1
    assert "the workers wait for it" in done.stderr
    assert "counter waiting" in done.stderr
