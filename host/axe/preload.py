"""What the fork server does before the first fork, so that the workers share it.

Workers share memory as long as they do not write to it. So what each of them would write alike belongs here:
imports, and what a library sets up once a process. Nothing here may start a thread or make a Kafka client:
neither survives a fork.
"""

from __future__ import annotations

import gc

# What is imported stays: looking through it again and again takes a tenth of the time.
gc.disable()

import contextlib
import multiprocessing.popen_forkserver  # noqa: F401 # a worker reads its arguments with it
import tempfile
from pathlib import Path

from . import worker  # noqa: F401
from .errors import StoreError
from .sources import folder, kafka, kafka_client  # noqa: F401
from .store import SqlStore, sqlite


def _rehearse() -> None:
    """Open a database: what SQLAlchemy and SQLite make when they are used first is made before the fork."""
    # Without a place for it workers are a little bigger.
    with contextlib.suppress(OSError, StoreError), tempfile.TemporaryDirectory(prefix="axe-") as path:
        store = SqlStore(sqlite.SqliteFolder(Path(path)).database("rehearsal"), "rehearsal")
        store.open()
        store.close()


kafka_client.set_up_library()
_rehearse()
gc.collect()
# A full collection writes to each object that it looks at, 9 MB in every worker; these it no longer looks at.
gc.freeze()
gc.enable()
