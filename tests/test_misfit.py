"""Positions that do not fit the log: the processor stops, or goes on as ``on_misfit`` says and leaves word of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axe import Reject, TopicPartition, operations
from axe.store import SqlStore

from .site import Keeping, Site, at, until

ALL_KINDS = ("behind_retention", "beyond_end", "topic_recreated", "cluster_changed", "version_changed")


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Iterator[Site]:
    state = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Site(tmp_path, topic, state=state)


def append(site: Site, count: int) -> None:
    for n in range(count):
        site.log.append(site.topic, {"n": n})


def run(site: Site, handler: Keeping | None = None, *, version: int = 1, **on_misfit: str) -> Keeping:
    """Read to the end with a policy; returns the handler."""
    site.settings["on_misfit"] = on_misfit
    handler = handler or Keeping()
    site.run(handler, version=version)
    return handler


def behind_retention(site: Site) -> None:
    append(site, 10)
    site.log.truncate_before(site.topic, 15)


def beyond_end(site: Site) -> None:
    """As after an unclean election: the same topic, its end cut off."""
    records = site.log._topic(site.topic).partitions[0].records
    del records[4:]


def topic_recreated(site: Site) -> None:
    site.log.recreate(site.topic)
    append(site, 3)


def cluster_changed(site: Site) -> None:
    site.log.cluster_id = "another"


MISFITS: dict[str, Any] = {
    "behind_retention": behind_retention,
    "beyond_end": beyond_end,
    "topic_recreated": topic_recreated,
    "cluster_changed": cluster_changed,
    "version_changed": lambda site: None,
}


def audited(site: Site) -> list[tuple[str, str, str, Any, Any]]:
    rows = site.sql('SELECT who, action, reason, "before", "after" FROM axe_audit ORDER BY id')
    return [(who, action, reason, json.loads(before), json.loads(after)) for who, action, reason, before, after in rows]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_misfit_stops_the_processor_and_changes_nothing(site: Site, kind: str) -> None:
    append(site, 10)
    run(site)
    MISFITS[kind](site)

    others = {other: "rebuild" for other in ALL_KINDS if other != kind}
    run(site, version=2 if kind == "version_changed" else 1, **others)

    assert site.status == "failed"
    assert site.sql("SELECT position FROM axe_offsets") == [(10,)]
    assert site.seen == list(range(10))
    assert audited(site) == []


@pytest.mark.parametrize(
    ("kind", "onward", "seen"),
    [
        ("behind_retention", 15, [*range(10), *range(15, 20)]),
        ("beyond_end", 4, list(range(10))),
        ("topic_recreated", 0, [*range(10), *range(3)]),
    ],
)
def test_skip_goes_on_with_what_the_log_has_and_records_the_gap(
    site: Site, kind: str, onward: int, seen: list[int]
) -> None:
    append(site, 10)
    run(site)
    MISFITS[kind](site)

    handler = run(site, **{kind: "skip"})

    assert site.status == "stopped"
    assert site.seen == seen
    assert "on_reset" not in handler.calls
    [(who, action, reason, before, after)] = audited(site)
    assert (who, action) == ("axe", "skip")
    assert f"{site.topic}" in reason
    assert before == {f"{site.topic}[0]": 10}
    assert after == {f"{site.topic}[0]": onward}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_rebuild_drops_the_state_and_reads_what_the_log_has(site: Site, kind: str) -> None:
    append(site, 10)
    run(site)
    MISFITS[kind](site)
    bounds = site.log._topic(site.topic).partitions[0]

    handler = run(site, version=2 if kind == "version_changed" else 1, **{kind: "rebuild"})

    assert site.status == "stopped"
    assert site.seen == list(range(bounds.begin, bounds.end))
    assert site.values == {"n": bounds.end - bounds.begin}
    assert handler.calls[:2] == ["on_reset", "on_start"]
    assert [row[:2] for row in audited(site)] == [("axe", "rebuild")]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_was_decided_once_is_not_decided_again(site: Site, kind: str) -> None:
    append(site, 10)
    run(site)
    MISFITS[kind](site)
    version = 2 if kind == "version_changed" else 1
    run(site, version=version, **{kind: "rebuild"})
    seen = site.seen

    run(site, version=version)

    assert site.status == "stopped"
    assert site.seen == seen


def test_a_rebuild_takes_a_gap_along(site: Site) -> None:
    append(site, 10)
    run(site)
    behind_retention(site)

    run(site, version=2, behind_retention="skip", version_changed="rebuild")

    assert site.seen == list(range(15, 20))
    assert [row[1] for row in audited(site)] == ["rebuild"]


def test_a_misfit_that_halts_wins_over_one_that_does_not(site: Site) -> None:
    append(site, 10)
    run(site)
    behind_retention(site)

    run(site, version=2, version_changed="rebuild")

    assert site.status == "failed"
    assert site.seen == list(range(10))


def test_a_topic_made_anew_while_it_is_read_is_gone_on_with(site: Site) -> None:
    append(site, 10)
    site.settings["on_misfit"] = {"topic_recreated": "skip"}
    app = site.add(Keeping())

    with app:
        until(lambda: site.offset == 10)
        topic_recreated(site)
        until(lambda: site.seen == [*range(10), *range(3)])

    assert site.status == "stopped"
    assert [row[1] for row in audited(site)] == ["skip"]


def test_a_paused_processor_is_not_moved(site: Site) -> None:
    append(site, 10)
    run(site)
    behind_retention(site)
    site.operate(operations.pause)

    run(site, behind_retention="rebuild")

    assert site.seen == list(range(10))
    assert site.sql("SELECT position FROM axe_offsets") == [(10,)]


def test_what_a_person_decides_at_that_moment_stands(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    append(site, 10)
    run(site)
    behind_retention(site)
    asked, moved = SqlStore.workers, []

    def workers(store: SqlStore) -> Any:
        """Be between the worker's look at the positions and its transaction, once."""
        if not moved:
            moved.append(True)
            site.operate(lambda one: operations.reset(one, {TopicPartition(site.topic, 0): 18}))
        return asked(store)

    monkeypatch.setattr(SqlStore, "workers", workers)
    run(site, behind_retention="skip")

    assert moved
    assert site.seen == [*range(10), 18, 19]
    assert [row[1] for row in audited(site)] == ["reset"]


def test_a_rebuild_leaves_no_dead_letter_to_be_retried_whose_event_came_again(site: Site) -> None:
    append(site, 10)
    run(site, Keeping(at(3, 7, error=Reject)))
    assert [offset for offset, _ in site.dead_letters] == [3, 7]

    run(site, Keeping(at(7, error=Reject)), version=2, version_changed="rebuild")

    assert site.seen == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert site.sql('SELECT "offset", status FROM axe_dead_letters ORDER BY id') == [(3, "reset"), (7, "rejected")]
