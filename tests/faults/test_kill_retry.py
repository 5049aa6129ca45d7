"""kill -9 in the middle of a retry: the event of a dead letter takes effect once, whatever died in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import axe
from axe import Event, Reject, State, operations
from axe.store import Letters

from ..site import Site

EVENTS, SICK = 12, (3, 4, 5, 8, 11)
FAILPOINTS = ("after_begin", "after_advance", "mid_handler", "before_commit", "after_commit")

# The table has no key that a second effect could collide with.
CHILD = """
import json, random, sys
import axe

class Keeping:
    topics = ("studies",)

    @axe.hookimpl
    def on_start(self, state):
        state.connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS seen (n integer)")

    @axe.hookimpl
    def on_event(self, event, state):
        state.connection.exec_driver_sql(f"INSERT INTO seen VALUES ({event.offset})")
        state["n"] = state.get("n", 0) + 1
        state.setdefault("order", []).append(event.offset)

random.seed(sys.argv[2])
app = axe.App(json.loads(sys.argv[1]))
app.processors.add(id="p", handler=Keeping())
app.start(until_end=True)
"""

pytestmark = pytest.mark.timeout(300)


class Retried(Site):
    """A folder of events of which some were refused, and are marked to be retried by a process that dies."""

    def __init__(self, folder: Path, state: str, **settings: object) -> None:
        super().__init__(folder, "studies", state=state)
        (folder / "topics").mkdir()
        lines = [json.dumps({"key": "a", "payload": str(n)}) for n in range(EVENTS)]
        (folder / "topics" / "studies.kcat").write_text("\n".join([*lines, ""]))
        self.config = {"source": f"file:{folder / 'topics'}", "state": state, "log": {"level": "error"}}
        self.config["processors"] = {"p": settings}
        self.app = axe.App(self.config)
        self.app.processors.add(id="p", topic="studies", handler=refuse_some)
        self.app.start(until_end=True)
        self.operate(lambda store: operations.retry(store, Letters()))

    def child(self, failpoints: str = "", seed: int = 0) -> int:
        """Let a process read to the end, or die on the way; return how it ended."""
        environment = {**os.environ, "AXE_FAILPOINTS": failpoints}
        command = [sys.executable, "-c", CHILD, json.dumps(self.config), str(seed)]
        return subprocess.run(command, env=environment, timeout=60).returncode

    @property
    def seen_in_order(self) -> list[int]:
        return [row[0] for row in self.sql("SELECT n FROM seen ORDER BY n")]

    @property
    def statuses(self) -> list[str]:
        return [row[0] for row in self.sql('SELECT status FROM axe_dead_letters ORDER BY "offset"')]


def refuse_some(event: Event, state: State) -> None:
    state.connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS seen (n integer)")
    if event.offset in SICK:
        raise Reject("not yet")
    state.connection.exec_driver_sql(f"INSERT INTO seen VALUES ({event.offset})")
    state["n"] = state.get("n", 0) + 1
    state.setdefault("order", []).append(event.offset)


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        request.getfixturevalue("postgresql_url") if request.param == "postgresql" else f"sqlite:{tmp_path / 'state'}"
    )


@pytest.fixture
def site(tmp_path: Path, state: str) -> Retried:
    return Retried(tmp_path, state)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_retry_that_was_killed_midway_takes_effect_once(site: Retried, failpoint: str) -> None:
    assert site.child(f"{failpoint}=kill") == -signal.SIGKILL
    done = 1 if failpoint == "after_commit" else 0
    assert len(site.seen_in_order) == EVENTS - len(SICK) + done
    assert site.statuses == ["retried"] * done + ["retry"] * (len(SICK) - done)

    assert site.child() == 0

    assert site.seen_in_order == list(range(EVENTS))
    assert site.statuses == ["retried"] * len(SICK)
    assert site.sql("SELECT value FROM axe_values WHERE key = 'n'") == [(str(EVENTS),)]
    assert site.sql("SELECT count(*) FROM axe_audit WHERE action = 'retried'") == [(len(SICK),)]


def test_retries_that_are_killed_here_and_there_take_effect_once(site: Retried) -> None:
    """Not so often at one of them that it would be taken for deadly."""
    everywhere = ",".join(f"{name}=kill@0.06" for name in FAILPOINTS)
    ends = []
    for seed in range(12):
        ends.append(site.child(everywhere, seed))
        if ends[-1] == 0:
            break

    assert site.child() == 0
    assert set(ends) == {0, -signal.SIGKILL}
    assert site.seen_in_order == list(range(EVENTS))
    assert site.sql("SELECT value FROM axe_values WHERE key = 'n'") == [(str(EVENTS),)]


@pytest.mark.parametrize("failpoint", ["after_advance", "before_commit", "after_commit"])
def test_what_waits_for_a_retry_that_is_killed_follows_in_order(tmp_path: Path, state: str, failpoint: str) -> None:
    site = Retried(tmp_path, state, order="key")
    assert site.statuses == ["retry"] + ["blocked"] * (EVENTS - SICK[0] - 1)
    ends = []
    for seed in range(12):
        ends.append(site.child(f"{failpoint}=kill@0.2", seed))
        if ends[-1] == 0:
            break

    assert site.child() == 0
    assert -signal.SIGKILL in ends
    assert site.sql("SELECT value FROM axe_values WHERE key = 'order'") == [(f"[{','.join(map(str, range(EVENTS)))}]",)]
    assert site.statuses == ["retried"] * (EVENTS - SICK[0])
