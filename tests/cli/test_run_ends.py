"""How ``axe run`` ends, and what it leaves behind: nothing that runs, and nothing half done."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from pathlib import Path

import psutil
import pytest

from .conftest import COUNTER, Project, is_alive, wait_for, workers

SLOW = """
    import time
    from pathlib import Path

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def on_event(self, event, state):
            Path("began").touch()
            time.sleep(2)
            state["count"] = state.get("count", 0) + 1
    """


def fork_server(host: psutil.Process) -> psutil.Process:
    return workers(host)[0].parent()


def test_a_sigterm_to_all_processes_at_once_lets_the_batch_at_hand_be_finished(project: Project) -> None:
    """`timeout`, `kill -- -PGID` and systemd send it to the fork server, too."""
    project.install("counter", SLOW)
    project.publish("studies", {})
    with project.running("run") as host:
        wait_for((project.folder / "began").exists, "the handler did not begin")

        os.killpg(host.pid, signal.SIGTERM)

        assert host.wait(10) == 0, project.log()
    assert project.axe("state", "counter", "count").stdout.split()[-1:] == ["1"], project.log()


def test_workers_outlive_a_fork_server_that_is_killed_and_end_in_order(project: Project) -> None:
    project.install("counter", SLOW)
    project.publish("studies", {})
    with project.running("run") as host:
        wait_for((project.folder / "began").exists, "the handler did not begin")
        [worker] = workers(host)
        server = fork_server(host)
        server.kill()
        wait_for(lambda: not is_alive(server), "the fork server does not end")

        host.terminate()

        assert host.wait(10) == 0, project.log()
        assert not is_alive(worker)
    assert "worker died" not in project.log()
    assert project.axe("state", "counter", "count").stdout.split()[-1:] == ["1"], project.log()


def test_a_worker_that_dies_after_its_fork_server_is_started_again(project: Project) -> None:
    project.install("counter")
    with project.running("run") as host:
        [worker] = wait_for(lambda: workers(host), "no worker came up")
        fork_server(host).kill()
        worker.kill()

        wait_for(lambda: [one for one in workers(host) if one.pid != worker.pid], "no other worker came up")

        host.terminate()
        assert host.wait(10) == 0, project.log()


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_no_worker_outlives_a_host_that_is_killed_while_it_imports(project: Project, code: str) -> None:
    project.install("loop", f"open('began', 'w').close()\n{code}")
    with project.running("run") as host:
        wait_for((project.folder / "began").exists, "the import did not begin")
        [worker] = workers(host)

        host.kill()

        wait_for(lambda: not is_alive(worker), "a worker outlived its host by two seconds", 2)


LINGERING = """
import os, subprocess

beside = subprocess.Popen(["sleep", "60"])
open("began", "w").write(f"{os.getpid()} {beside.pid}")
"""


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_no_probe_outlives_a_host_that_is_killed_nor_what_the_import_started(project: Project, code: str) -> None:
    project.configure("[processors.counter]\nplugins = []\n")
    project.install("counter")
    project.install("beside", LINGERING + code, group="axe.plugins")
    began = project.folder / "began"
    with project.running("run") as host:
        wait_for(lambda: began.exists() and began.read_text(), "the import did not begin")
        left = [psutil.Process(int(pid)) for pid in began.read_text().split()]
        folder = Path(json.loads(left[0].cmdline()[-1])[3]).parent
        assert folder.exists()

        host.kill()

        wait_for(lambda: not any(map(is_alive, left)), "a probe outlived its host by two seconds", 2)
    assert not folder.exists()


@pytest.mark.parametrize("state", ["sqlite:other", "sqlite:./common/../other"])
def test_a_second_host_is_refused_where_it_meets_the_first_on_a_processors_own_state(
    project: Project, state: str
) -> None:
    project.configure('[processors.counter]\nstate = "sqlite:other"\n', state="sqlite:common")
    project.install("counter")
    project.install("second")
    project.publish("studies", {})
    other = project.folder / "other.toml"
    own = f'[processors.counter]\nstate = "{state}"\n'
    other.write_text(f'source = "file:data"\nstate = "sqlite:elsewhere"\n{own}[processors.second]\nstate = "{state}"\n')
    with project.running("run") as host:
        wait_for((project.folder / "other" / "counter.db").exists, "it does not run")

        refused = project.axe("--config", "other.toml", "run")

        assert refused.returncode == 1
        assert "another host" in refused.stderr
        host.terminate()
        assert host.wait(10) == 0, project.log()
    assert project.axe("--config", "other.toml", "run", "--until-end").returncode == 0


def test_a_worker_that_is_asked_to_end_while_it_imports_ends_after_it(project: Project) -> None:
    project.install("counter", "import time\nopen('began', 'w').close()\ntime.sleep(1)\n" + textwrap.dedent(COUNTER))
    with project.running("run") as host:
        wait_for((project.folder / "began").exists, "the import did not begin")
        [worker] = workers(host)

        worker.terminate()

        assert host.wait(10) == 0, project.log()
    assert "worker died" not in project.log()
