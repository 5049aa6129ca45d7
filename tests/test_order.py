"""Order by key: what comes after an event that was set aside waits with it, if it has the same key."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import axe
from axe import Event, Reject, State, operations
from axe.errors import AxeError
from axe.sources.memory import memory_log
from axe.store import Letters
from axe.undo import undo

from .site import Keeping, Site, until

ALL = Letters()


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Site:
    state = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Site(tmp_path, topic, state=state, order="key", flood={"share": 1})


@pytest.fixture
def sqlite(tmp_path: Path, topic: str) -> Site:
    return Site(tmp_path, topic, order="key", flood={"share": 1})


class Valued:
    """Notes each event in a value, without SQL: batches are handled the fast way."""

    def __init__(self, sick: set[int]) -> None:
        self.sick = sick

    @axe.hookimpl
    def on_event(self, event: Event, state: State) -> None:
        state.setdefault("seen", []).append(event.offset)
        if event.offset in self.sick:
            raise Reject(f"no {event.offset}")


class Batched(Valued):
    """The same, many at once: of those of whole batches, one that is sick is found alone."""

    on_event = None  # type: ignore[assignment]

    @axe.hookimpl
    def on_batch(self, events: Sequence[Event], state: State) -> None:
        for event in events:
            super().on_event(event, state)


class WithSql(Valued):
    """The same, with SQL: an event that was refused is undone alone."""

    @axe.hookimpl
    def on_event(self, event: Event, state: State) -> None:
        state.cursor.execute("SELECT 1")
        super().on_event(event, state)


HANDLERS: list[Callable[[set[int]], Any]] = [Valued, Batched, WithSql]


def put(site: Site, keys: str) -> None:
    """Publish an event for each letter, which is its key; a dot has none."""
    for key in keys:
        site.log.append(site.topic, {}, key=None if key == "." else key)


def letters(site: Site) -> list[tuple[Any, ...]]:
    """Offset, status and what it waits for, of each."""
    return site.sql('SELECT "offset", status, blocked_by FROM axe_dead_letters ORDER BY "offset"')


def settle(site: Site, operation: Callable[..., list[int]], *offsets: int) -> list[int]:
    """Retry or discard the letters of events, or all."""
    done: list[int] = []

    def settle(store: Any) -> None:
        ids = tuple(letter["id"] for letter in store.dead_letters() if letter["offset"] in offsets)
        done.extend(operation(store, Letters(ids=ids) if offsets else ALL))

    site.operate(settle)
    return done


@pytest.mark.parametrize("handler", HANDLERS)
def test_later_events_of_its_key_wait_and_others_do_not(site: Site, handler: Callable[[set[int]], Any]) -> None:
    put(site, "abab.ab.")

    site.run(handler({2}))

    assert site.values["seen"] == [0, 1, 3, 4, 6, 7]
    assert letters(site) == [(2, "rejected", None), (5, "blocked", 2)]
    assert (site.offset, len(site.rejections)) == (8, 1)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_retry_brings_them_in_order_and_before_what_comes_next(
    site: Site, handler: Callable[[set[int]], Any]
) -> None:
    put(site, "abaa")
    site.run(handler({0}))
    assert site.values["seen"] == [1]
    settle(site, operations.retry)
    put(site, "aa")

    site.run(handler(set()))

    assert site.values["seen"] == [1, 0, 2, 3, 4, 5]
    assert [status for _, status, _ in letters(site)] == ["retried"] * 3


def test_one_that_is_refused_then_holds_the_rest(site: Site) -> None:
    put(site, "aaaa")
    site.run(Valued({0}))
    settle(site, operations.retry)

    site.run(Valued({2}))

    assert site.values["seen"] == [0, 1]
    assert letters(site) == [(0, "retried", None), (1, "retried", None), (2, "rejected", None), (3, "blocked", 2)]
    settle(site, operations.retry)
    site.run(Valued(set()))
    assert site.values["seen"] == [0, 1, 2, 3]


def test_one_that_is_refused_again_goes_on_holding_them(site: Site) -> None:
    put(site, "aa")
    site.run(Valued({0}))
    settle(site, operations.retry)
    put(site, "a")

    site.run(Valued({0}))

    assert letters(site) == [(0, "rejected", None), (1, "blocked", 0), (2, "blocked", 0)]


def test_a_discard_lets_them_go_on(site: Site) -> None:
    put(site, "abaa")
    site.run(Valued({0}))
    settle(site, operations.discard, 0)
    put(site, "a")

    site.run(Valued(set()))

    assert site.values["seen"] == [1, 2, 3, 4]
    assert letters(site)[0] == (0, "discarded", None)
    history = site.sql("SELECT action, after FROM axe_audit ORDER BY id")
    assert history[0] == ("discard", '{"discarded": "1", "retry": "2"}')


def test_discarding_all_brings_none_of_them(site: Site) -> None:
    put(site, "abaa")
    site.run(Valued({0}))
    assert settle(site, operations.discard) == [1, 2, 3]
    put(site, "a")

    site.run(Valued(set()))

    assert site.values["seen"] == [1, 4]


def test_one_that_waits_may_be_discarded_alone(site: Site) -> None:
    put(site, "aaa")
    site.run(Valued({0}))
    settle(site, operations.discard, 1)
    settle(site, operations.retry)

    site.run(Valued(set()))

    assert site.values["seen"] == [0, 2]


def test_one_that_waits_is_not_retried_before_what_it_waits_for(site: Site) -> None:
    put(site, "aaa")
    site.run(Valued({0}))
    settle(site, operations.retry, 2)

    site.run(Valued(set()))

    assert dict(site.values) == {}
    assert letters(site) == [(0, "rejected", None), (1, "blocked", 0), (2, "blocked", 0)]


def test_a_discarded_one_is_not_retried_late(sqlite: Site) -> None:
    put(sqlite, "aa")
    sqlite.run(Valued({0}))
    handle = sqlite.app.processors["p"]
    handle.discard(1)

    with pytest.raises(AxeError, match="is discarded, which cannot become retry"):
        handle.retry(1)


def test_a_running_worker_sees_a_retry_and_a_discard(site: Site) -> None:
    put(site, "abab")
    sick = {0, 1}
    with site.add(Valued(sick)):
        until(lambda: site.offset == 4)
        sick.clear()
        settle(site, operations.retry, 0)
        settle(site, operations.discard, 1)
        until(lambda: "blocked" not in str(letters(site)) and "retry'" not in str(letters(site)))
        put(site, "ab")
        until(lambda: site.offset == 6)

    seen = site.values["seen"]
    assert sorted(seen) == [0, 2, 3, 4, 5]
    assert [offset for offset in seen if offset % 2 == 0] == [0, 2, 4]
    assert [offset for offset in seen if offset % 2] == [3, 5]


def test_what_does_not_decode_blocks_its_key_too(site: Site) -> None:
    put(site, "a")
    site.log.append(site.topic, b"{junk", key="a")
    put(site, "ab")

    site.run(Valued(set()))

    assert site.values["seen"] == [0, 3]
    assert letters(site) == [(1, "rejected", None), (2, "blocked", 1)]


def test_what_fails_and_is_set_aside_blocks_its_key_too(site: Site) -> None:
    site.settings |= {"on_failure": "reject", "retries": 0}
    put(site, "abab")

    def fail(event: Event, state: State) -> None:
        if event.offset == 0:
            raise RuntimeError("sick")

    site.run(Keeping(fail))

    assert site.seen == [1, 3]
    assert letters(site) == [(0, "rejected", None), (2, "blocked", 0)]


def test_a_reset_brings_those_behind_it_again_and_the_key_stays_blocked(site: Site) -> None:
    put(site, "aaab")
    site.run(Valued({0}))
    site.app.processors["p"].reset(2)

    site.run(Valued(set()))

    assert site.values["seen"] == [3, 3]
    assert letters(site) == [(0, "rejected", None), (1, "blocked", 0), (2, "blocked", 0)]


def test_a_reset_before_all_of_them_opens_the_key(site: Site) -> None:
    put(site, "aaab")
    site.run(Valued({0}))
    site.app.processors["p"].reset(0, wipe=True)

    site.run(Valued(set()))

    assert site.values["seen"] == [0, 1, 2, 3]
    assert {status for _, status, _ in letters(site)} == {"reset"}


def test_what_others_wait_for_is_kept_however_few_letters_may_stay(site: Site) -> None:
    site.settings["dead_letters"] = {"rows": 1}
    put(site, "abba")

    site.run(Valued({0, 1}))
    site.run(Valued(set()))

    assert letters(site) == [(0, "rejected", None), (1, "rejected", None), (2, "blocked", 1), (3, "blocked", 0)]
    settle(site, operations.discard, 0, 3)
    site.run(Valued(set()))
    assert letters(site) == [(1, "rejected", None), (2, "blocked", 1)]


def test_those_that_wait_are_no_flood(sqlite: Site) -> None:
    sqlite.settings["flood"] = {"share": 0.5, "events": 10}
    put(sqlite, "b" * 20 + "a" * 100)

    sqlite.run(Valued({20}))

    assert (sqlite.status, sqlite.offset, len(letters(sqlite))) == ("stopped", 120, 100)


def test_they_count_as_missing_and_say_what_they_wait_for(sqlite: Site) -> None:
    put(sqlite, "aaa")
    sqlite.run(Valued({0}))

    counted: list[int] = []
    sqlite.operate(lambda store: counted.append(store.count_dead_letters()))

    assert counted == [3]
    assert sqlite.dead_letters[1] == (
        1, f"waits for {sqlite.topic}[0]@0, an event of the same key that was set aside"
    )  # fmt: skip


def test_that_some_wait_is_said_once(sqlite: Site, caplog: pytest.LogCaptureFixture) -> None:
    sqlite.settings["batch"] = {"events": 1}
    put(sqlite, "aaaa")

    sqlite.run(Valued({0}))

    assert caplog.text.count("events wait for others of their keys") == 1
    assert "axe rejections list p --status blocked" in caplog.text


def test_keys_of_another_partition_are_others(sqlite: Site) -> None:
    sqlite.log.create_topic(sqlite.topic, 2)
    for partition in (0, 1, 0, 1):
        sqlite.log.append(sqlite.topic, {}, key="a", partition=partition)

    def refuse(event: Event, state: State) -> None:
        if (event.partition, event.offset) == (0, 0):
            raise Reject("no")
        state.setdefault("seen", []).append([event.partition, event.offset])

    sqlite.run(refuse)

    assert sorted(sqlite.values["seen"]) == [[1, 0], [1, 1]]


def test_without_the_setting_nothing_waits(sqlite: Site) -> None:
    del sqlite.settings["order"]
    put(sqlite, "aaa")

    sqlite.run(Valued({0}))

    assert sqlite.values["seen"] == [1, 2]


@settings(deadline=None, max_examples=int(os.environ.get("AXE_TEST_EXAMPLES", "15")))
@given(data=st.data(), handler=st.sampled_from(HANDLERS))
def test_no_key_is_ever_applied_out_of_order(
    data: st.DataObject, handler: Callable[[set[int]], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is refused, retried and discarded: the events of a key take effect in their order, each once."""
    folder = tmp_path_factory.mktemp("site")
    batch = {"events": data.draw(st.sampled_from([1, 3, 1000]))}
    site = Site(folder, f"law-{folder.name}", order="key", flood={"share": 1}, batch=batch)
    memory_log(site.topic)
    keys = ""
    site.log.create_topic(site.topic, 1)
    site.run(handler(set()))
    for _ in range(data.draw(st.integers(1, 8))):
        which = data.draw(st.sampled_from(["publish", "publish", "retry", "discard"]))
        if which == "publish":
            new = data.draw(st.text("ab.", min_size=1, max_size=8))
            put(site, new)
            keys += new
        elif offsets := [offset for offset, status, _ in letters(site) if status in ("rejected", "blocked")]:
            chosen = data.draw(st.lists(st.sampled_from(offsets), unique=True))
            settle(site, operations.retry if which == "retry" else operations.discard, *chosen)
        site.run(handler(data.draw(st.sets(st.integers(0, len(keys))))))

        seen = site.values.get("seen", [])
        missing = {offset for offset, status, _ in letters(site) if status != "retried"}
        assert sorted(seen) == [offset for offset in range(len(keys)) if offset not in missing]
        for key in "ab":
            mine = [offset for offset in seen if keys[offset] == key]
            assert mine == sorted(mine)
            rows = [(offset, status) for offset, status, _ in letters(site) if keys[offset] == key]
            still_open = [row for row in rows if row[1] in ("rejected", "retry", "blocked")]
            assert [status for _, status in still_open] == ["rejected"][: len(still_open)] + ["blocked"] * (
                len(still_open) - 1
            )
            assert all(offset < still_open[0][0] for offset in mine if still_open)


@pytest.mark.parametrize("wipe", [False, True])
def test_a_reset_that_is_undone_blocks_the_key_again(site: Site, wipe: bool) -> None:
    put(site, "aaab")
    site.run(Valued({0}))
    was = letters(site)
    site.app.processors["p"].reset(0, wipe=wipe)
    assert {status for _, status, _ in letters(site)} == {"reset"}

    site.operate(lambda store: undo(store, store.history()[-1]["id"]))
    put(site, "a")
    site.run(Valued(set()))

    assert letters(site) == [*was, (4, "blocked", 0)]
    assert site.values["seen"] == [3]


def test_a_discard_is_not_taken_back_late(site: Site) -> None:
    put(site, "aa")
    site.run(Valued({0}))
    settle(site, operations.discard, 0)

    with pytest.raises(AxeError, match='cannot be taken back with `order = "key"`'):
        site.operate(lambda store: undo(store, store.history()[-1]["id"], in_order=True))


def test_a_retry_of_one_that_waits_is_taken_back(site: Site) -> None:
    put(site, "aa")
    site.run(Valued({0}))
    was = letters(site)
    settle(site, operations.retry, 1)

    site.operate(lambda store: undo(store, store.history()[-1]["id"], in_order=True))

    assert letters(site) == was
