"""Dead letters are kept for some time, or in some number; none that is still to be handled is deleted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from axe import Reject, TopicPartition, operations, retention
from axe.config import LettersConfig
from axe.errors import PositionConflict
from axe.event import RECORD_FORM
from axe.letters import concerns
from axe.log import get_logger
from axe.reading import Reading
from axe.retention import Retention, too_old_before
from axe.sources.memory import MemorySource
from axe.store import Going, Letters, SqlStore
from axe.store.tables import timestamp

from .site import Keeping, Site, at, until


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Site:
    state = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Site(tmp_path, topic, state=state, flood={"share": 1})


def run(site: Site, handler: Any = None, **dead_letters: Any) -> None:
    site.settings["dead_letters"] = dead_letters
    site.run(handler or Keeping())


def have(site: Site, ages: dict[int, float], status: str = "rejected", size: int = 1) -> None:
    """Add letters of these offsets, rejected so many days ago."""
    site.log.append(site.topic, "one")
    run(site)
    given = {"topic": site.topic, "partition": 0, "key": None, "value": b"x" * size, "headers": "[]", "error": None}
    given |= {"timestamp": None, "reason": "no", "attempts": 1, "status": status, "version": 1}
    now = datetime.now(UTC)
    letters = [
        {**given, "offset": offset, "rejected_at": timestamp(now - timedelta(days=age))} for offset, age in ages.items()
    ]
    site.operate(lambda store: operations.import_letters(store, letters))


def left(site: Site) -> list[int]:
    return [offset for offset, _ in site.dead_letters]


def trims(site: Site) -> list[tuple[str, str, Any, Any]]:
    rows = site.sql("SELECT who, reason, before, after FROM axe_audit WHERE action = 'trim' ORDER BY id")
    return [(who, reason, json.loads(before), json.loads(after)) for who, reason, before, after in rows]


def test_without_a_setting_all_are_kept(site: Site) -> None:
    have(site, dict.fromkeys(range(3), 10000))

    run(site)

    assert left(site) == [0, 1, 2]
    assert trims(site) == []


def test_what_is_too_old_is_deleted_and_noted(site: Site) -> None:
    have(site, {0: 40, 1: 5, 2: 31, 3: 29, 4: 30.5})

    run(site, days=30)

    assert left(site) == [1, 3]
    assert trims(site) == [("axe", "dead_letters: days = 30", {"rejected": "1, 3, 5"}, {"deleted": 3})]


def test_of_too_many_the_oldest_are_deleted(site: Site) -> None:
    have(site, {0: 1, 1: 5, 2: 3, 3: 2, 4: 4})

    run(site, rows=2)

    assert left(site) == [0, 3]
    assert trims(site) == [("axe", "dead_letters: rows = 2", {"rejected": "2-3, 5"}, {"deleted": 3})]


def test_both_limits_count_and_what_is_within_both_stays(site: Site) -> None:
    have(site, {0: 1, 1: 5, 2: 3, 3: 2, 4: 4})

    run(site, days=4.5, rows=3)
    assert left(site) == [0, 2, 3]
    run(site, days=4.5, rows=3)

    assert left(site) == [0, 2, 3]
    assert len(trims(site)) == 1


@pytest.mark.parametrize("limits", [{"days": 4.5}, {"rows": 3}, {"days": 4.5, "rows": 3}, {"days": 1, "rows": 8}, {}])
def test_what_is_counted_before_is_what_goes(
    site: Site, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the statuses, however many transactions it takes, and no matter what was published."""
    monkeypatch.setattr(retention, "_LETTERS", 2)
    monkeypatch.setattr(retention, "_NEXT_S", 0)
    have(site, {0: 1, 1: 9, 2: 3, 3: 7})
    have(site, {4: 5, 5: 2}, "discarded")
    have(site, {6: 20, 7: 0.5, 8: 30}, "blocked")
    settings, counted = LettersConfig(**limits), list[Going]()

    def publish_one_and_count(store: SqlStore) -> None:
        with store.begin() as transaction:
            transaction.note_published(store.dead_letters(which=Letters(begin=3, end=4)))
            transaction.commit()
        counted.append(store.count_going_letters(until=too_old_before(settings), rows=settings.rows))

    site.operate(publish_one_and_count)
    before = {row[0]: row[1:] for row in site.sql('SELECT "offset", status, published_at FROM axe_dead_letters')}
    site.settings["dead_letters"] = limits
    with site.add(Keeping()):
        until(lambda: site.app.processors["p"].status == "running")
        until(lambda: sum(after["deleted"] for *_, after in trims(site)) == sum(counted[0][:2]))
    run(site, **limits)

    gone = [row for offset, row in before.items() if offset not in left(site)]
    assert len(gone) == counted[0].too_old + counted[0].too_many
    assert gone.count(("rejected", None)) == counted[0].unpublished


@pytest.mark.parametrize("status", ["retry", "blocked"])
def test_one_that_is_to_be_handled_yet_is_never_deleted(site: Site, status: str) -> None:
    have(site, {0: 50, 1: 40})
    have(site, {2: 60, 3: 70}, status)
    going: dict[str, list[int]] = {}

    def trim(store: SqlStore) -> None:
        with store.begin() as transaction:
            until = timestamp(datetime.now(UTC) - timedelta(days=1))
            going.update(transaction.trim_dead_letters(until=until, rows=1, limit=100, size=1000))
            transaction.commit()

    site.operate(trim)

    assert going == {"rejected": [1, 2]}
    assert left(site) == [2, 3]


def test_whatever_else_became_of_it_counts_by_its_age(site: Site) -> None:
    for offset, status in enumerate(("rejected", "retried", "discarded", "reset")):
        have(site, {offset: 10 + offset}, status)

    run(site, days=1)

    assert left(site) == []
    ((_, _, before, after),) = trims(site)
    assert before == {"rejected": "1", "retried": "2", "discarded": "3", "reset": "4"}
    assert after == {"deleted": 4}


def test_one_that_was_refused_again_is_as_old_as_that(site: Site) -> None:
    have(site, {0: 10, 1: 10})
    first = TopicPartition(site.topic, 0)
    site.operate(lambda store: operations.reset(store, {first: 0}))

    run(site, Keeping(at(0, error=Reject)), days=1)

    assert left(site) == [0]


def test_it_is_done_in_bounded_transactions_with_batches_in_between(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_LETTERS", 4)
    monkeypatch.setattr(retention, "_NEXT_S", 0)
    have(site, dict.fromkeys(range(10), 10.0))
    site.settings["dead_letters"] = {"days": 1}

    with site.add(Keeping()):
        until(lambda: left(site) == [])

    assert [after["deleted"] for *_, after in trims(site)] == [4, 4, 2]


def test_large_ones_are_deleted_a_few_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BYTES", 2500)
    monkeypatch.setattr(retention, "_NEXT_S", 0)
    have(site, dict.fromkeys(range(4), 10.0), size=1000)
    site.settings["dead_letters"] = {"rows": 1}

    with site.add(Keeping()):
        until(lambda: left(site) == [3])

    assert [after["deleted"] for *_, after in trims(site)] == [3]


def test_a_running_worker_looks_now_and_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOK_S", 0)
    have(site, {0: 0.5})
    site.settings["dead_letters"] = {"rows": 2}

    with site.add(Keeping(at(1, 2, 3, error=Reject))):
        until(lambda: site.app.processors["p"].status == "running")
        for n in range(3):
            site.log.append(site.topic, n)
        until(lambda: left(site) == [2, 3])

    assert sum(after["deleted"] for *_, after in trims(site)) == 2


def test_a_paused_processor_deletes_nothing(site: Site) -> None:
    have(site, {0: 10})
    site.operate(operations.pause)

    run(site, days=1)
    assert left(site) == [0]
    site.operate(operations.resume)
    run(site, days=1)

    assert left(site) == []


def test_who_lost_the_positions_meanwhile_deletes_nothing(site: Site) -> None:
    have(site, {0: 10})
    first = TopicPartition(site.topic, 0)
    reading = Reading(MemorySource(site.log), RECORD_FORM)

    def tend_as_the_one_before(store: SqlStore) -> None:
        for worker in ("before", "now"):
            with store.begin() as transaction:
                held = transaction.take_over({first: 0}, {}, worker)
                transaction.set_control({"pending": None})
                transaction.commit()
            if worker == "before":
                reading.hold(held)
        settings = LettersConfig(days=1)
        retention = Retention(settings, get_logger(), store=store, reading=reading, worker="before")
        with pytest.raises(PositionConflict):
            retention.tend()

    site.operate(tend_as_the_one_before)

    assert left(site) == [0]
    assert trims(site) == []


def test_the_history_of_a_letter_knows_its_end(site: Site) -> None:
    have(site, {0: 10, 1: 10})
    run(site, days=1)
    rows: list[Any] = []

    site.operate(lambda store: rows.extend(store.history()))

    (row,) = [row for row in rows if row["action"] == "trim"]
    assert [number for number in range(5) if concerns(row, number)] == [1, 2]
