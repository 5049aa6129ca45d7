"""What `axe run --until-end` says on a terminal while it runs."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from axe.cli.run import Pace

from .conftest import Project


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def said_after(seconds: float, *first: int, then: tuple[int, int]) -> str:
    """What is said of events and lag, some seconds after it was said of the first ones."""
    clock = Clock()
    pace = Pace(clock)
    pace.said(*first)
    clock.now += seconds
    return pace.said(*then)


def test_at_first_there_is_neither_a_rate_nor_a_time_left() -> None:
    assert Pace(Clock()).said(0, 500) == "0 events  0/s  lag 500"


def test_the_rate_and_the_time_left_follow_from_what_was_done_since() -> None:
    assert said_after(2, 0, 10_000, then=(2000, 8000)) == "2,000 events  1,000/s  lag 8,000  0:00:08 left"


def test_only_the_last_five_seconds_count() -> None:
    clock = Clock()
    pace = Pace(clock)
    events = 0
    for per_second in (1000, 1000, 1000, 10, 10, 10, 10, 10):
        pace.said(events, None)
        clock.now += 1
        events += per_second

    assert pace.said(events, None) == "3,050 events  10/s"


def test_the_time_left_counts_records_that_are_no_events_of_the_processor() -> None:
    assert said_after(1, 0, 36_000, then=(0, 35_990)) == "0 events  0/s  lag 35,990  0:59:59 left"


def test_where_the_lag_grows_or_nothing_is_left_no_time_is_told() -> None:
    assert said_after(1, 5, 10, then=(5, 20)) == "5 events  0/s  lag 20"
    assert said_after(2, 5, 10, then=(25, 0)) == "25 events  10/s  lag 0"


def test_on_a_terminal_the_run_shows_it(project: Project) -> None:
    slow = "import time\nclass Counter:\n  topics = ('studies',)\n  def __call__(self, event): time.sleep(0.05)\n"
    project.configure("[processors.counter.batch]\nevents = 2\n")
    project.install("counter", slow)
    project.publish("studies", *range(30))
    ours, theirs = pty.openpty()

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "axe", "run", "--until-end"],
        cwd=project.folder,
        env=project.environment | {"TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass

    assert process.wait(60) == 0
    assert re.search(rb"counter .*[1-9]\d* events  [1-9]\d*/s  lag \d+  0:00:0\d left", shown)
