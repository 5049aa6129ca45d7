"""How long ``axe run`` waits before it starts a worker again that has died."""

from __future__ import annotations

import re

from .conftest import Project, wait_for

DEADLY = """
    import os
    import time

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def on_event(self, event, state):
            {in_handler}
            state["count"] = state.get("count", 0) + 1

        @axe.hookimpl
        def on_commit(self):
            time.sleep(0.06)
            os.kill(os.getpid(), 9)
    """


def pauses(stderr: str) -> list[float]:
    return [float(pause) for pause in re.findall(r"pause_s=([\d.]+)", stderr)]


def test_a_worker_that_dies_soon_after_a_commit_is_started_again_at_once(project: Project) -> None:
    project.configure("[processors.counter]\nbatch = { events = 1 }\n")
    project.install("counter", DEADLY.format(in_handler=""))
    project.publish("studies", *[{}] * 7)

    done = project.axe("run", "--until-end")

    assert pauses(done.stderr) == [0.1] * 7, done.stderr
    assert project.axe("state", "counter", "count").stdout.split()[-1:] == ["7"]


def test_a_worker_that_dies_before_it_did_anything_waits_longer_each_time(project: Project) -> None:
    project.install("counter", DEADLY.format(in_handler="os.kill(os.getpid(), 9)"))
    project.publish("studies", {})

    with project.running("run"):
        found = wait_for(lambda: pauses(project.log())[2:] and pauses(project.log()), "three deaths")

    assert found[:3] == [0.1, 0.2, 0.4]


STUCK_ONCE = """
    import pathlib
    import time

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def on_event(self, event, state):
            state["count"] = state.get("count", 0) + 1
            if event.offset == 1 and not pathlib.Path("stuck").exists():
                pathlib.Path("stuck").touch()
                self.wait()

        def wait(self):
            time.sleep(60)
    """


def test_a_handler_that_is_stuck_is_named_by_its_place_and_its_worker_starts_again(project: Project) -> None:
    project.install("counter", STUCK_ONCE)
    project.configure("[processors.counter]\nhandler_timeout_s = 0.5")
    project.publish("studies", {}, {}, {})

    done = project.axe("run", "--until-end")

    assert done.returncode == 0
    [line] = [line for line in done.stderr.splitlines() if "handler takes too long" in line]
    assert "studies[0]@" in line
    assert re.search(r"where='?\S*m_\w+\.py:\d+ in wait", line)
    assert "Thread 0x" not in done.stderr
    assert project.json("state", "counter") == {"count": 3}
