"""Processors side by side in one process: what they share, and what none of them can do to another."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import Event, State
from axe.dispatch import Dispatcher
from axe.errors import PluginError
from axe.sources import memory
from axe.sources.memory import memory_log


def log_of(topic: str, count: int) -> memory.MemoryLog:
    log = memory_log(topic)
    log.create_topic(topic)
    for number in range(count):
        log.append(topic, json.dumps({"n": number, "type": "even" if number % 2 == 0 else "odd"}).encode())
    return log


def app_of(folder: Path, topic: str, handlers: dict[str, Any], **configuration: Any) -> axe.App:
    app = axe.App({"source": f"memory:{topic}", "state": f"sqlite:{folder / 'state'}", **configuration})
    for name, handler in handlers.items():
        app.processors.add(id=name, handler=handler)
    return app


def handler_of(topics: str, on_event: Callable[[Event, State], object], **attributes: Any) -> Any:
    """Make an object with a handler and these attributes."""
    made = type("Handler", (), {"__call__": lambda _self, event, state: on_event(event, state), **attributes})()
    made.topics = (topics,)
    return made


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what the sources of the log in memory hand out."""
    counts: list[int] = []
    fetch = memory.MemorySource.fetch

    def counting(self: memory.MemorySource, **given: Any) -> Any:
        found = fetch(self, **given)
        counts.append(len(found.records))
        return found

    monkeypatch.setattr(memory.MemorySource, "fetch", counting)
    return counts


def count(event: Event, state: State) -> None:
    state["seen"] = [*state.get("seen", []), event.value["n"]]


def together(number: int, on_event: Callable[[Event, State], object]) -> Callable[[Event, State], object]:
    """Let nobody begin before so many have come: one would be through before another is there."""
    begin = threading.Barrier(number)

    def first_waits(event: Event, state: State) -> None:
        if event.offset == 0:
            begin.wait(20)
        on_event(event, state)

    return first_waits


def test_a_topic_is_fetched_once_for_all(tmp_path: Path, topic: str, fetched: list[int]) -> None:
    log_of(topic, 500)
    on_event = together(5, count)
    app = app_of(tmp_path, topic, {f"p{number}": handler_of(topic, on_event) for number in range(5)})

    app.start(until_end=True)

    assert all(dict(app.processors[f"p{number}"].state) == {"seen": list(range(500))} for number in range(5))
    # All of them begin at the same place, but one may have begun before another came.
    assert sum(fetched) < 3 * 500


def test_who_changes_a_value_changes_it_for_nobody_else(tmp_path: Path, topic: str) -> None:
    log_of(topic, 200)

    def clear(event: Event, _state: State) -> None:
        event.value.clear()

    handlers = {"a": handler_of(topic, clear), "b": handler_of(topic, count), "c": handler_of(topic, clear)}
    app = app_of(tmp_path, topic, handlers)
    app.start(until_end=True)

    assert dict(app.processors["b"].state) == {"seen": list(range(200))}


def values_of(folder: Path, topic: str, **attributes: Any) -> list[set[int]]:
    """Run two processors together; the identities of the values that each got."""
    log_of(topic, 1000)
    got: list[list[Any]] = [[], []]
    begin = together(2, lambda _event, _state: None)

    def keep(event: Event, state: State, mine: list[Any]) -> None:
        begin(event, state)
        mine.append(event.value)

    handlers = {
        f"p{number}": handler_of(topic, functools.partial(keep, mine=mine), **attributes)
        for number, mine in enumerate(got)
    }
    app_of(folder, topic, handlers).start(until_end=True)
    return [{id(value) for value in mine} for mine in got]


def test_values_are_shared_by_handlers_that_only_read(tmp_path: Path, topic: str) -> None:
    one, other = values_of(tmp_path, topic, reads_only=True)

    assert len(one & other) > 100


def test_values_are_shared_by_nobody_else(tmp_path: Path, topic: str) -> None:
    one, other = values_of(tmp_path, topic)

    assert one & other == set()


def spoil(value: Any) -> None:
    """Change a value and whatever is in it, as far as that can be changed."""
    held = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for one in [value, *held]:
        if isinstance(one, dict):
            one.clear()
        elif isinstance(one, list):
            one.append("spoilt")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the records that decoders turn into events."""
    counts: list[int] = []
    decode = Dispatcher._decoded

    def counting(self: Dispatcher, records: Sequence[Any]) -> Any:
        counts.append(len(records))
        return decode(self, records)

    monkeypatch.setattr(Dispatcher, "_decoded", counting)
    return counts


def test_flat_values_are_decoded_once_for_all(tmp_path: Path, topic: str, decoded: list[int]) -> None:
    log_of(topic, 2000)
    wrong: list[Any] = []

    def clear(event: Event, _state: State) -> None:
        kind = "odd" if event.offset % 2 else "even"
        if event.value != {"n": event.offset, "type": kind} or event.type != kind:
            wrong.append(event)
        event.value.clear()

    on_event = together(3, clear)
    app_of(tmp_path, topic, {f"p{number}": handler_of(topic, on_event) for number in range(3)}).start(until_end=True)

    assert wrong == []
    assert sum(decoded) < 2 * 2000


@pytest.mark.parametrize(
    "value",
    [b'{"in": {"n": 1}}', b'{"in": [1]}', b"[[1]]", b"[1]", b'{"in": [], "n": null}'],
    ids=["dict in dict", "list in dict", "list in list", "list", "empty list in dict"],
)
def test_what_is_in_a_value_is_nobody_elses_either(tmp_path: Path, topic: str, value: bytes) -> None:
    log = memory_log(topic)
    log.create_topic(topic)
    for _ in range(300):
        log.append(topic, value)
    wrong: list[Any] = []

    def check(event: Event, _state: State) -> None:
        if event.value != json.loads(value):
            wrong.append(event.value)

    def check_and_spoil(event: Event, state: State) -> None:
        check(event, state)
        spoil(event.value)

    begin = together(4, lambda _event, _state: None)

    def after_all(on_event: Callable[[Event, State], object], **attributes: Any) -> Any:
        return handler_of(topic, lambda event, state: (begin(event, state), on_event(event, state)), **attributes)

    handlers = {name: after_all(check_and_spoil) for name in ("a", "b")}
    handlers |= {name: after_all(check, reads_only=True) for name in ("c", "d")}
    app_of(tmp_path, topic, handlers).start(until_end=True)

    assert wrong == []


@pytest.mark.parametrize("key", [b'{"n": 7}', b"[7]", b"7"], ids=["dict", "list", "number"])
def test_keys_are_nobody_elses_either(tmp_path: Path, topic: str, key: bytes) -> None:
    log = memory_log(topic)
    log.create_topic(topic)
    for _ in range(300):
        log.append(topic, b"1", key=key)
    wrong: list[Any] = []

    def check_and_spoil(event: Event, _state: State) -> None:
        if event.key != json.loads(key):
            wrong.append(event.key)
        spoil(event.key)

    on_event = together(2, check_and_spoil)
    handlers = {name: handler_of(topic, on_event) for name in ("a", "b")}
    app_of(tmp_path, topic, handlers, topics={topic: {"key": ["json"]}}).start(until_end=True)

    assert wrong == []


def test_decoders_of_plugins_are_each_ones_own(tmp_path: Path, topic: str) -> None:
    log_of(topic, 300)
    seen: dict[str, set[Any]] = {"a": set(), "b": set()}

    def decodes_as(name: str) -> Any:
        class Handler:
            topics = (topic,)

            @axe.hookimpl
            def deserializer(self) -> Callable[[axe.Record], str]:
                return lambda _record: name

            @axe.hookimpl
            def on_event(self, event: Event, state: State) -> None:
                on_event(event, state)
                seen[name].add(event.value)

        return Handler()

    on_event = together(2, lambda _event, _state: None)
    app_of(tmp_path, topic, {name: decodes_as(name) for name in seen}).start(until_end=True)

    assert seen == {"a": {"a"}, "b": {"b"}}


def test_refused_records_among_shared_ones_are_refused_by_each(tmp_path: Path, topic: str) -> None:
    log = log_of(topic, 150)
    log.append(topic, b"{")
    for number in range(151, 300):
        log.append(topic, json.dumps({"n": number}).encode())
    on_event = together(2, count)
    app = app_of(tmp_path, topic, {name: handler_of(topic, on_event) for name in ("a", "b")})
    refused: list[tuple[str, int]] = []
    app.on_reject(lambda rejection: refused.append((rejection.processor, rejection.record.offset)))
    app.start(until_end=True)

    assert sorted(refused) == [("a", 150), ("b", 150)]
    for name in ("a", "b"):
        assert dict(app.processors[name].state) == {"seen": [n for n in range(300) if n != 150]}


def test_events_of_other_types_are_not_shared(tmp_path: Path, topic: str) -> None:
    log_of(topic, 300)
    seen: dict[str, list[int]] = {"even": [], "odd": []}
    handlers = {
        kind: handler_of(f"{topic}/{kind}", lambda event, _, kind=kind: seen[kind].append(event.value["n"]))
        for kind in seen
    }
    for handler in handlers.values():
        handler.reads_only = True

    app_of(tmp_path, topic, handlers).start(until_end=True)

    assert seen == {"even": list(range(0, 300, 2)), "odd": list(range(1, 300, 2))}


def test_reads_only_is_true_or_false(tmp_path: Path, topic: str) -> None:
    with pytest.raises(PluginError, match="reads_only is yes; it is True where"):
        app_of(tmp_path, topic, {"p": handler_of(topic, count, reads_only="yes")})


def test_a_sick_event_of_one_is_nothing_to_the_others(tmp_path: Path, topic: str) -> None:
    log_of(topic, 300)

    def refuses(event: Event, state: State) -> None:
        if event.value["n"] % 100 == 7:
            raise axe.Reject("seven")
        count(event, state)

    def fails(event: Event, state: State) -> None:
        if event.value["n"] == 150:
            raise ValueError
        count(event, state)

    handlers = {"a": handler_of(topic, refuses), "b": handler_of(topic, fails), "c": handler_of(topic, count)}
    for handler in handlers.values():
        handler.reads_only = True
    app = app_of(tmp_path, topic, handlers, processors={"b": {"retries": 1, "backoff_s": [0, 0]}})
    app.start(until_end=True)

    assert app.processors["a"].state["seen"] == [n for n in range(300) if n % 100 != 7]
    assert app.processors["b"].state["seen"] == list(range(150))
    assert app.processors["c"].state["seen"] == list(range(300))


def test_one_that_hangs_does_not_hold_up_the_others(tmp_path: Path, topic: str) -> None:
    log = log_of(topic, 1)
    let_go = threading.Event()
    hangs = handler_of(topic, lambda _event, _state: let_go.wait(60))
    app = app_of(tmp_path, topic, {"hangs": hangs, "p": handler_of(topic, count), "q": handler_of(topic, count)})
    with app:
        try:
            for number in range(1, 50):
                log.append(topic, json.dumps({"n": number}).encode())
                time.sleep(0.01)
            deadline = time.monotonic() + 10
            while any(app.processors[name].offset < 50 for name in "pq"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            let_go.set()


def test_a_reset_of_one_moves_it_alone(tmp_path: Path, topic: str) -> None:
    log = log_of(topic, 100)
    app = app_of(tmp_path, topic, {"p": handler_of(topic, count), "q": handler_of(topic, count)})
    with app:
        deadline = time.monotonic() + 20
        while app.processors["p"].offset < 100 or app.processors["q"].offset < 100:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        app.processors["p"].offset = 40
        while len(app.processors["p"].state["seen"]) < 160:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        log.append(topic, b'{"n": 100}')
        while app.processors["p"].offset < 101 or app.processors["q"].offset < 101:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    assert app.processors["p"].state["seen"] == [*range(100), *range(40, 101)]
    assert app.processors["q"].state["seen"] == list(range(101))
