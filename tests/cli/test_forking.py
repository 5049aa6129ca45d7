"""Forked commands are what started ones are; and each command is started here, so that its imports are its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import COUNTER, Project
from .forking import Forks

SURROUNDINGS = "import os, sys; print(os.getcwd(), sorted(os.environ.items()), sys.argv, sys.path, sys.flags)"
STREAMS = """
import sys
for s in (sys.stdin, sys.stdout, sys.stderr):
    print(s.encoding, s.errors, s.isatty(), s.line_buffering, s.fileno())
print(repr(sys.stdin.read()))
print("to stderr", file=sys.stderr, end="")
"""
DESCRIPTORS = """
import os
def is_open(number):
    try: return bool(os.fstat(number))
    except OSError: return False
print([number for number in range(64) if is_open(number)])
"""
SIGNALS = """
import signal
print([(n, signal.getsignal(n)) for n in sorted(signal.valid_signals())], signal.pthread_sigmask(0, []))
"""
LATE = """
import atexit, threading, time
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("late"))).start()
print("unflushed", end="")
"""
LOGGING = """
import gc, logging, structlog, warnings
print(logging.root.handlers, logging.root.level, structlog.is_configured(), gc.isenabled(), warnings.filters)
"""
DYING = "import os, signal; print('heard', flush=True); print('lost'); os.kill(os.getpid(), signal.SIGTERM)"
MAIN = "import sys, threading; m = sys.modules['__main__']; print(m.__name__, hasattr(m, '__file__'), m.__spec__)"


@pytest.mark.parametrize(
    "code",
    [
        SURROUNDINGS, STREAMS, DESCRIPTORS, SIGNALS, LATE, LOGGING, DYING, MAIN,
        "1 / 0", "raise SystemExit(7)", "raise SystemExit('why')", "raise KeyboardInterrupt", "import os; os._exit(3)",
    ],
)  # fmt: skip
def test_what_is_forked_is_like_what_is_started(forks: Forks, tmp_path: Path, project: Project, code: str) -> None:
    environment = project.environment | {"TZ": "Asia/Tokyo"}

    forked = forks.run(code, ["a", "b c"], folder=tmp_path, environment=environment)

    command = [sys.executable, "-P", "-c", code, "a", "b c"]
    started = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    # Where a traceback begins is where they differ.
    assert forked.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]


def test_nothing_of_a_forked_command_is_left_for_the_next(forks: Forks, project: Project) -> None:
    leaving = "import axe, os, sys; axe.left = os.environ['LEFT'] = 'x'; os.chdir('/'); sys.path.clear()"
    looking = "import axe, os, sys; print(hasattr(axe, 'left'), 'LEFT' in os.environ, os.getcwd(), len(sys.path) > 2)"

    forks.run(leaving, [], folder=project.folder, environment=project.environment)
    done = forks.run(looking, [], folder=project.folder, environment=project.environment)

    assert done.stdout == f"False False {project.folder} True\n", done.stderr


def test_one_that_does_not_end_is_ended_and_fails(forks: Forks, project: Project) -> None:
    code = "import time; print('begun', flush=True); time.sleep(60)"

    with pytest.raises(AssertionError, match="took more than 2 s; it said 'begun"):
        forks.run(code, [], folder=project.folder, environment=project.environment, limit_s=2)

    assert forks.run("print(1)", [], folder=project.folder, environment=project.environment).stdout == "1\n"


@pytest.fixture(scope="module")
def used(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A processor that has read and refused, with a history; those who share it do not change it."""
    project = Project(tmp_path_factory.mktemp("used"), forks)
    project.install("counter", COUNTER)
    project.install("bad", "import no_such_module", group="axe.plugins")
    project.publish("studies", {}, {"bad": True}, {"bad": True})
    project.work()
    project.json("pause", "counter")
    return project


@pytest.mark.parametrize(
    "words",
    [
        "--version", "--help", "status --nonsense", "--debug --config none.toml status",
        "processors", "check", "status", "state counter", "history",
        "reset counter --to earliest --wipe --dry-run", "undo 1 --dry-run",
        "rejections list", "rejections show counter 1", "rejections export counter --all",
        "rejections retry counter --all --dry-run", "rejections discard counter --all --dry-run",
    ],
)  # fmt: skip
def test_a_command_says_the_same_forked_and_started(used: Project, words: str) -> None:
    forked, started = used.axe(*words.split()), used.started(*words.split())

    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    # The first of them is the frame that called.
    assert forked.stderr.splitlines()[-5:] == started.stderr.splitlines()[-5:]


def test_commands_that_change_something_can_be_started(project: Project) -> None:
    project.install("counter")
    project.publish("studies", {}, {"bad": True}, {"bad": True}, {"bad": True})
    project.work()
    commands = (
        "pause counter", "resume counter", "rejections retry counter 1", "rejections discard counter 2 --yes",
        "reset counter --to 3 --yes", "undo 5 --yes",
    )  # fmt: skip

    done = {words: project.started(*words.split()) for words in commands}

    assert {words: one.stderr for words, one in done.items() if one.returncode} == {}
    actions = [row["action"] for row in project.json("history")["history"]]
    assert sorted(actions) == ["discard", "pause", "reset", "resume", "retry", "undo"]
