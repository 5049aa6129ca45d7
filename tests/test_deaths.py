"""Events that are tried one at a time after the death of a worker: what counts as one, and what does not."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe
from axe.errors import SourceUnavailable

from .site import Keeping, Site


def leave_without_leave(site: Site) -> None:
    """Make the owner of the positions a worker that died."""
    with contextlib.closing(sqlite3.connect(site.folder / "state" / "p.db")) as connection, connection:
        connection.execute("UPDATE axe_offsets SET owner = 'dead'")
        connection.execute("INSERT INTO axe_workers VALUES ('dead', 'h', 1, 'running', '2026-01-01T00:00:00.000Z')")


def test_an_outage_is_no_death_however_often_it_comes_back(tmp_path: Path, topic: str) -> None:
    site = Site(tmp_path, topic)
    for n in range(3):
        site.log.append(topic, n)
    site.run(Keeping())
    leave_without_leave(site)
    for n in range(3):
        site.log.append(topic, n)
    outages: list[int] = []

    class AwayAtFirst(Keeping):
        @axe.hookimpl
        def deserializer(self, topic: str) -> Callable[[axe.Record], Any]:
            def decode(record: axe.Record) -> Any:
                if record.offset == 3 and len(outages) < 5:
                    outages.append(record.offset)
                    raise SourceUnavailable("the registry is away")
                return record.value

            return decode

    site.run(AwayAtFirst())

    assert (site.failures, site.seen) == ([], list(range(6)))
    assert len(outages) == 5
