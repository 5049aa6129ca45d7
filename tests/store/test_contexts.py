"""What a process does first decides what each statement of a handler costs from then on: seen in a new process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

from sqlalchemy import Column, Integer, MetaData, Table, insert

import axe
from axe.sources.memory import memory_log

seen = Table("seen", MetaData(), Column("n", Integer))
contexts = []

class Handler:
    @axe.hookimpl
    def on_start(self, state):
        seen.create(state.connection, checkfirst=True)

    @axe.hookimpl
    def on_event(self, event, state):
        contexts.append(state.connection.execute(insert(seen), {"n": 1}).context)

memory_log("here").append("topic", b"1")
app = axe.App({"source": "memory:here", "state": f"sqlite:{sys.argv[1]}"})
app.processors.add(id="p", topics=("topic",), handler=Handler())
app.start(until_end=True)
(attributes,) = map(vars, contexts)
print(sys.getsizeof(attributes), sys.getsizeof(dict(attributes)))
"""


def test_the_attributes_of_a_statement_take_little_room(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "state")]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    compact, free = map(int, done.stdout.split())
    # CPython shares the names among all objects of the class, or keeps a dict for each.
    assert compact < free / 2, done.stdout
