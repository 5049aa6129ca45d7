"""A folder of events and a process that runs the oracle on it: the smallest place where something can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from axe import TopicPartition

from ..oracle import NAME, verify

CHILD = Path(__file__).parent / "child.py"
PARTITIONS = 2


class Site:
    """A folder of events that grows, a place for the state, and the process that is killed."""

    def __init__(self, folder: Path, state: str, *, batch: int, planted: str | None = None) -> None:
        self.folder = folder
        self.state = state
        self.location: str = state if "://" in state else str(folder / "state" / f"{NAME}.db")
        self.events: dict[TopicPartition, list[bytes]] = {TopicPartition("studies", n): [] for n in range(PARTITIONS)}
        self.config = folder / "config.json"
        (folder / "topics" / "studies").mkdir(parents=True)
        settings: dict[str, Any] = {
            "source": f"file:{folder / 'topics'}",
            "state": state,
            "processors": {NAME: {"batch": {"events": batch}, "retries": 1000, "backoff_s": [0, 0]}},
            "log": {"level": "error"},
            "host": {"wait_s": 3},
        }
        self.config.write_text(json.dumps(settings))
        self.planted = planted
        """The bug of the processes that are started here; see ``planted``."""
        self.started: list[subprocess.Popen[str]] = []

    def append(self, count: int) -> None:
        """Add events, spread over the partitions."""
        for at, log in self.events.items():
            lines = [b'{"n":%d,"p":%d}' % (len(log) + n, at.partition) for n in range(count // PARTITIONS)]
            log.extend(lines)
            with (self.folder / "topics" / "studies" / f"{at.partition}.jsonl").open("ab") as file:
                file.write(b"".join(line + b"\n" for line in lines))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the process and wait until it is about to run."""
        planted = {} if self.planted is None else {"AXE_TEST_PLANTED": self.planted}
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, str(CHILD), str(self.config), *arguments],
                env={**os.environ, **planted, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def log(self) -> str:
        """Return what the processes have said."""
        return (self.folder / "log").read_text()

    def finish(self) -> None:
        """Read to the end and judge."""
        process = self.start("--until-end")
        assert process.wait(timeout=180) == 0, self.log()[-4000:]
        verify(self.location, self.events)

    def close(self) -> None:
        """Leave no process behind."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
