"""The fork server: what it has done before the first fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

FOUND = """
import gc, os, sys
import axe.preload
print(len(os.listdir("/proc/self/task")), gc.get_freeze_count() > 10_000, "axe.worker" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_the_fork_server_has_no_thread_and_collects_nothing_of_what_it_shares() -> None:
    """Neither a thread nor a Kafka client survives a fork, and a collection would write to every shared page."""
    found = subprocess.run([sys.executable, "-c", FOUND], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["1", "True", "True"]
    assert found.stderr == ""
