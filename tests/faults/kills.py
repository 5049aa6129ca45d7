"""Scenarios: kill -9 of workers and hosts, SIGTERM in the middle."""

from __future__ import annotations

import signal
import time

import psutil

from .registry import scenario
from .running import AxeRun, Feed, is_alive, wait_until, workers
from .trial import Trial

# A worker that is killed before it did anything is started again after up to 30 s.
_COMES_UP_S = 45


class Recovery:
    """Measures the time from a kill to the first commit after it, where no other kill comes first."""

    def __init__(self, trial: Trial, run: AxeRun) -> None:
        self._trial = trial
        self._run = run
        self._since: tuple[float, int] | None = None
        self.superseded = 0

    def killed(self, at: float) -> None:
        """Note a kill, after the process is gone: what it has committed, it has committed."""
        self.superseded += self._since is not None
        self._since = at, self._run.position()

    def look(self) -> None:
        """See whether there is a commit since."""
        if self._since is not None and self._run.position() > self._since[1]:
            self._trial.recoveries_s.append(time.monotonic() - self._since[0])
            self._since = None


@scenario("F1", "kill -9 of a worker", needs=("kafka",), short=4, long=10_000)
def kill_worker(trial: Trial) -> None:
    feed = trial.feed(500)
    kill_and_judge(trial, trial.axe(feed), feed, share_of_hosts=0)


@scenario("F2", "kill -9 of the host: no orphan 2 s later, a restart goes on", needs=("kafka",), short=2, long=2_000)
def kill_host(trial: Trial) -> None:
    feed = trial.feed(500)
    kill_and_judge(trial, trial.axe(feed), feed, share_of_hosts=1)


def kill_and_judge(trial: Trial, run: AxeRun, feed: Feed, *, share_of_hosts: float) -> dict[str, int]:
    """Kill at random moments and start again what does not start by itself; judge every database at the end.

    Returns how many of each were killed.
    """
    recovery = Recovery(trial, run)
    killed = {"host": 0, "worker": 0}

    def gone(processes: list[psutil.Process]) -> bool:
        return not any(map(is_alive, processes))

    def came_up() -> bool:
        recovery.look()
        return bool(workers(host)) or not host.is_running()

    with feed:
        host = run.start()
        while sum(killed.values()) < trial.times:
            wait_until(came_up, _COMES_UP_S, f"no worker came up\n{run.log()}")
            until = time.monotonic() + trial.chance.uniform(0.0, 0.6)
            while (left := until - time.monotonic()) > 0:
                recovery.look()
                time.sleep(min(left, 0.02))
            found = workers(host)
            if not found:
                continue
            at = time.monotonic()
            if trial.chance.random() < share_of_hosts:
                host.kill()
                host.wait()
                killed["host"] += 1
                wait_until(lambda: gone(found), 2, "a worker outlived its host by two seconds")
                recovery.killed(at)
                host = run.start()
            else:
                found[0].send_signal(signal.SIGKILL)
                killed["worker"] += 1
                wait_until(lambda: gone(found), 5, "a killed worker is still there")
                recovery.killed(at)
            trial.fault()
        wait_until(lambda: workers(host), _COMES_UP_S, f"no worker came up\n{run.log()}")
        host.terminate()
        assert host.wait(timeout=20) == 0, run.log()
    run.finish()
    trial.notes.append(f"{recovery.superseded} kills came before a commit")
    for database in run.databases:
        trial.judge(database, feed.input)
    return killed


@scenario("F26", "SIGTERM in the middle: exit 0 within 10 s, all is left in order", needs=("kafka",), short=2, long=100)
def sigterm(trial: Trial) -> None:
    feed = trial.feed(500)
    run = trial.axe(feed)
    with feed:
        for _ in range(trial.times):
            before = run.position()
            host = run.start()
            wait_until(lambda: run.position() > before, 30, f"nothing was committed\n{run.log()}")
            time.sleep(trial.chance.uniform(0.0, 0.5))
            found = workers(host)
            began = time.monotonic()
            host.terminate()
            assert host.wait(timeout=10) == 0, run.log()
            trial.recoveries_s.append(time.monotonic() - began)
            assert not any(map(is_alive, found)), "a worker outlived its host"
            trial.fault()
            trial.judge(run.location, feed.input, complete=False)
    run.finish()
    trial.judge(run.location, feed.input)


SLOW = """
import time
from tests.oracle import Oracle
import axe

class Handler(Oracle):
    @axe.hookimpl
    def on_event(self, event, state):
        super().on_event(event, state)
        if event.offset == 300:
            open({began!r}, "w").close()
            time.sleep(600)
"""


@scenario("F26", "a second SIGTERM forces, where a handler hangs", needs=("kafka",), short=1, long=20)
def second_sigterm(trial: Trial) -> None:
    for number in range(trial.times):
        feed = trial.feed(400)
        began = trial.folder / f"began-{number}"
        run = trial.axe(
            feed,
            name=f"axe-{number}",
            handler=SLOW.format(began=str(began)),
            settings="shutdown_s = 300\n[processors.oracle]\nhandler_timeout_s = 300\n",
        )
        host = run.start()
        wait_until(began.exists, 30, f"the handler did not begin\n{run.log()}")
        found = workers(host)
        host.terminate()
        # Long enough to see that the first one waits for the handler.
        time.sleep(1)
        assert host.is_running(), "the first SIGTERM did not wait"
        host.terminate()
        host.wait(timeout=10)
        wait_until(lambda: not any(map(is_alive, found)), 2, "a worker outlived its host by two seconds")
        trial.fault()
        trial.judge(run.location, feed.input, complete=False)
