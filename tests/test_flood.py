"""The flood guard: too many rejections pause the processor, and nothing is lost by that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import axe
from axe import Decision, Event, State, operations
from axe.config import FloodConfig
from axe.errors import TooManyRejections
from axe.flood import Flood

from .site import Keeping, Site


@pytest.fixture
def site(tmp_path: Path, topic: str) -> Site:
    return Site(tmp_path, topic)


class Strict:
    """Takes what is good."""

    @axe.hookimpl
    def on_event(self, event: Event, state: State) -> None:
        if not event.value:
            raise axe.Reject("not good")
        state["n"] = state.get("n", 0) + 1


class StrictBatch:
    """The same for many at once, of which bad ones do not decode."""

    @axe.hookimpl
    def on_batch(self, events: list[Event], state: State) -> None:
        state["n"] = state.get("n", 0) + len(events)


class StrictSql(Keeping):
    """The same, after SQL: each event runs alone."""

    @axe.hookimpl
    def on_event(self, event: Event, state: State) -> None:
        super().on_event(event, state)
        if not event.value:
            raise axe.Reject("not good")


def published(site: Site, *values: Any) -> None:
    for value in values:
        site.log.append(site.topic, value)


HANDLERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "events": (Strict, 0),
    "batches": (StrictBatch, b"{"),
    "one by one": (StrictSql, 0),
}


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("kind", HANDLERS)
def test_a_processor_pauses_in_a_flood_and_goes_on_behind_what_it_rejected(site: Site, kind: str, batch: int) -> None:
    handler, bad = HANDLERS[kind]
    site.settings["batch"] = {"events": batch}
    published(site, *[1] * 150, *[bad] * 500, *[1] * 100)

    site.run(handler())

    first = [offset for offset, _ in site.dead_letters]
    assert first == list(range(150, site.offset))
    # Half of a hundred, and what is looked at together.
    most = 51 + (500 if (kind, batch) == ("batches", 1000) else min(batch, 64))
    assert 51 <= len(first) <= most
    assert site.values["n"] == 150
    assert site.status == "paused"
    [failure] = site.failures
    assert isinstance(failure.exception, TooManyRejections)
    assert (failure.record, failure.decision) == (None, Decision.PAUSE)
    assert "events were rejected, the last one for: " in str(failure.exception)
    assert site.app.processors["p"].last_error == str(failure.exception)

    starts = 0
    while site.status == "paused":
        starts += 1
        site.operate(operations.resume)
        site.run(handler())
    # It counts anew after each: at least a hundred events.
    assert starts >= 3 or (kind, batch) == ("batches", 1000)
    assert site.dead_letters[-1][0] == 649
    assert len(site.dead_letters) == 500
    assert site.values["n"] == 250


def test_half_of_them_is_not_too_much(site: Site) -> None:
    published(site, *[1, 0] * 300)

    site.run(Strict())

    assert (site.status, len(site.dead_letters)) == ("stopped", 300)


def test_less_than_a_hundred_say_nothing(site: Site) -> None:
    published(site, *[0] * 99)

    site.run(Strict())

    assert (site.status, len(site.dead_letters)) == ("stopped", 99)


@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize("batch", [1, 30, 1000])
def test_a_flood_that_is_over_when_there_are_a_hundred_pauses_nothing(site: Site, kind: str, batch: int) -> None:
    handler, bad = HANDLERS[kind]
    site.settings["batch"] = {"events": batch}
    published(site, *[bad] * 67, *[1] * 200)

    site.run(handler())

    # A batch handler gets its events at once: whether bad ones come before good ones is not looked at.
    assert site.status == "stopped" or (kind, batch) == ("batches", 1000), site.app.processors["p"].last_error
    assert len(site.dead_letters) == 67


@pytest.mark.parametrize(("flood", "status"), [({"share": 1}, "stopped"), ({"share": 0.9, "events": 10}, "paused")])
def test_the_settings_say_how_much_is_too_much(site: Site, flood: dict[str, Any], status: str) -> None:
    site.settings["flood"] = flood
    published(site, *[0] * 300)

    site.run(Strict())

    assert site.status == status


def test_a_stop_right_after_it_leaves_the_processor_paused(site: Site) -> None:
    published(site, *[0] * 300)
    site.add(Strict())
    site.app.on_error(lambda failure: site.app.stop())

    site.app.start()

    assert site.status == "paused"
    assert site.app.processors["p"].last_error


def test_a_flood_within_what_is_looked_at_together_is_seen(site: Site) -> None:
    site.settings["flood"] = {"events": 10}
    published(site, *[1] * 500, *[0] * 20, *[1] * 500)

    site.run(Strict())

    assert (site.status, len(site.dead_letters)) == ("paused", 20)


class Failing:
    """Fails at everything."""

    @axe.hookimpl
    def on_event(self) -> None:
        raise KeyError("phase")


def test_events_that_fail_and_are_set_aside_count_as_well(site: Site) -> None:
    site.settings |= {"on_failure": "reject", "retries": 0}
    published(site, *[1] * 300)

    site.run(Failing())

    assert (site.status, len(site.dead_letters)) == ("paused", 100)
    assert "KeyError: 'phase'" in str(site.app.processors["p"].last_error)


def test_a_flood_that_is_undone_is_not_counted_twice(site: Site) -> None:
    """A batch of which an event fails is done again: what was counted of it does not stay."""
    failed: list[int] = []

    class Unlucky(Strict):
        @axe.hookimpl
        def on_event(self, event: Event, state: State) -> None:
            if event.offset % 100 == 99 and event.offset not in failed:
                failed.append(event.offset)
                raise OSError("once")
            super().on_event(event, state)

    published(site, *[1, 1, 0] * 200)

    site.run(Unlucky())

    assert (site.status, len(site.dead_letters)) == ("stopped", 200)


@given(
    runs=st.lists(st.tuples(st.integers(1, 70), st.booleans())),
    events=st.integers(1, 150),
    share=st.floats(0.01, 1),
)
def test_it_looks_at_the_latest_events_alone(runs: list[tuple[int, bool]], events: int, share: float) -> None:
    flood = Flood(FloodConfig(events=events, share=share))
    every: list[bool] = []
    for count, rejected in runs:
        # Of a batch that is undone nothing stays.
        flood.copy().add(count, rejected=not rejected)
        flood.add(count, rejected=rejected)
        every += [rejected] * count

        latest = every[-events:]
        assert (flood.events, flood.rejected) == (len(latest), sum(latest))
        assert flood.is_on == (len(latest) == events and sum(latest) > share * events)
