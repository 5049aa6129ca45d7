"""Values that are kept from one batch to the next, through the whole loop: what a handler reads is what is stored."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axe import Event, Reject, State

from .site import Site, until


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Site:
    """On either database; each event in a batch of its own, unless a test says otherwise."""
    state = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Site(tmp_path, topic, state=state, batch={"events": 1}, on_failure="reject", retries=1)


class Chain:
    """Each event makes the value of one key longer, and notes what it read before."""

    def __init__(self, sick: Callable[[Event, State], object] = lambda event, state: None) -> None:
        self.sick = sick
        self.read: list[Any] = []

    def __call__(self, event: Event, state: State) -> None:
        read = state.get("chain", "")
        self.read.append(read)
        state["chain"] = f"{read}{event.value}"
        state.setdefault("list", []).append(event.value)
        self.sick(event, state)


def put(site: Site, values: str) -> None:
    for value in values:
        site.log.append(site.topic, value)


@pytest.mark.parametrize("cache_mb", [16, 0])
@pytest.mark.parametrize("events", [1, 3, 1000])
def test_the_values_are_those_of_the_events_in_order(site: Site, cache_mb: int, events: int) -> None:
    site.settings |= {"batch": {"events": events}, "cache_mb": cache_mb}
    put(site, "abcdefgh")

    site.run(Chain())

    assert site.values == {"chain": "abcdefgh", "list": list("abcdefgh")}


@pytest.mark.parametrize("events", [1, 3, 1000])
@pytest.mark.parametrize("error", [Reject, RuntimeError, SystemExit])
def test_a_refused_event_leaves_nothing_for_the_next_batch(site: Site, error: type[BaseException], events: int) -> None:
    def sick(event: Event, _state: State) -> None:
        if event.value in "ce":
            raise error("sick")

    site.settings["batch"] = {"events": events}
    put(site, "abcdefgh")

    site.run(Chain(sick))

    assert site.values == {"chain": "abdfgh", "list": list("abdfgh")}


def test_an_event_that_fails_and_is_tried_again_counts_once(site: Site) -> None:
    failed = []

    def sick(event: Event, _state: State) -> None:
        if event.value == "c" and not failed:
            failed.append(event)
            raise RuntimeError("once")

    put(site, "abcde")

    site.run(Chain(sick))

    assert site.values["chain"] == "abcde"


def test_a_wipe_while_it_runs_is_seen(site: Site) -> None:
    with site.add(Chain()):
        put(site, "abc")
        until(lambda: site.offset == 3)
        site.app.processors["p"].reset(1, wipe=True)
        until(lambda: site.offset == 3 and site.values.get("chain") == "bc")
        put(site, "d")
        until(lambda: site.offset == 4)

    assert site.values == {"chain": "bcd", "list": list("bcd")}


def test_a_second_worker_takes_over_and_gives_back(tmp_path: Path, topic: str, postgresql_url: str) -> None:
    first, second = (Site(tmp_path, topic, state=postgresql_url) for _ in range(2))
    put(first, "ab")
    with first.add(Chain()):
        until(lambda: first.offset == 2)
        with second.add(Chain()):
            until(lambda: first.app._runners[0].status.value == "unassigned")
            put(first, "cd")
            until(lambda: first.offset == 4)
        put(first, "e")
        until(lambda: first.offset == 5)

    assert first.values == {"chain": "abcde", "list": list("abcde")}


def test_a_change_by_hand_is_seen_by_the_next_batch(tmp_path: Path, topic: str) -> None:
    site = Site(tmp_path, topic)
    with site.add(Chain()):
        put(site, "ab")
        until(lambda: site.offset == 2)
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "p.db")) as db, db:
            db.execute("UPDATE axe_values SET value = '\"by hand \"' WHERE key = 'chain'")
        put(site, "c")
        until(lambda: site.offset == 3)

    assert site.values["chain"] == "by hand c"


def test_a_value_is_asked_for_once(tmp_path: Path, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a batch, and not again after a heartbeat or a status."""
    from axe.store import state

    asked = []
    load = state.LOAD.run
    monkeypatch.setattr("axe.presence._HEARTBEAT_S", 0)
    monkeypatch.setattr(state.LOAD, "run", lambda *args, **given: asked.append(given["key_"]) or load(*args, **given))
    site = Site(tmp_path, topic, batch={"events": 1})
    put(site, "abcdefgh")

    site.run(Chain())

    assert asked == ["chain", "list"]
