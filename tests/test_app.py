"""App as a caller meets it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import TopicPartition
from axe.errors import ConfigError
from axe.sources.memory import MemoryLog, MemorySource, memory_log


def _count(event: axe.Event, state: Any) -> None:
    state["n"] = state.get("n", 0) + 1


def an_app(folder: Path, name: str, **settings: Any) -> axe.App:
    """An App on the log in memory of that name."""
    return axe.App({"source": f"memory:{name}", "state": f"sqlite:{folder / 'state'}", **settings})


def filled(name: str, topics: Iterable[str], events: int = 3) -> MemoryLog:
    """A log with events of 2026-03-01T00:00Z, 01:00Z, 02:00Z in each topic."""
    log = memory_log(name)
    for topic in topics:
        for hour in range(events):
            at = datetime(2026, 3, 1, hour, tzinfo=UTC)
            log.append(topic, hour, timestamp_ms=int(at.timestamp() * 1000))
    return log


def test_a_database_that_is_gone_does_not_read_as_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "studies.jsonl").write_text("1\n2\n")
    app = axe.App({"source": f"file:{tmp_path}", "state": f"sqlite:{tmp_path / 'state'}"})
    counter = app.processors.add(id="counter", topic="studies", handler=lambda event, state: None)
    assert (counter.offset, dict(counter.state)) == (0, {})
    app.start(until_end=True)
    (tmp_path / "state" / "counter.db").unlink()

    with pytest.raises(axe.StoreMissing, match="existed and is gone"):
        _ = counter.offset


# --- where a reset may go


@pytest.mark.parametrize(
    ("to", "offset"),
    [
        (1, 1),
        ("earliest", 0),
        ("latest", 3),
        ("2026-03-01T01:00:00Z", 1),
        ("2026-03-01T01:00", 1),
        (datetime(2026, 3, 1, 1, tzinfo=UTC), 1),
        (datetime(2026, 3, 1, 1), 1),
        (datetime(1969, 12, 31, tzinfo=UTC), 0),
        (timedelta(days=36500), 0),
        (timedelta(0), 3),
        ({("t", 0): 2}, 2),
        ({TopicPartition("t", 0): 2}, 2),
    ],
    ids=str,
)
def test_a_reset_goes_to_an_offset_a_word_a_time_or_a_duration_back(
    tmp_path: Path, topic: str, to: Any, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    filled(topic, ["t"])
    counter = an_app(tmp_path, topic).processors.add(id="counter", topic="t", handler=_count)

    counter.reset(to)

    assert counter.offset == offset


@pytest.mark.parametrize(
    "to",
    ["earlyest", "3", "", "soon", 1.5, True, None, {}, {"tp": "earliest"}, {("t", 0): True}, {("t",): 1}, [1], b"1"],
    ids=repr,
)
def test_a_reset_to_anything_else_is_refused_with_what_is_accepted(tmp_path: Path, topic: str, to: Any) -> None:
    filled(topic, ["t"])
    counter = an_app(tmp_path, topic).processors.add(id="counter", topic="t", handler=_count)

    with pytest.raises(ConfigError, match="is no place in a log; give an offset, 'earliest'"):
        counter.reset(to)

    assert counter.positions == {}


def test_a_refused_reset_makes_no_database(tmp_path: Path, topic: str) -> None:
    filled(topic, ["t"])
    counter = an_app(tmp_path, topic).processors.add(id="counter", topic="t", handler=_count)

    with pytest.raises(ConfigError, match="4 is outside"):
        counter.offset = 4

    assert not (tmp_path / "state").exists()


# --- a wipe concerns everything that was read


def a_wipe_of_two(tmp_path: Path, topic: str) -> Any:
    filled(topic, ["a", "b"])
    app = an_app(tmp_path, topic)
    both = app.processors.add(id="both", topics=("a", "b"), handler=_count)
    app.start(until_end=True)
    assert dict(both.state) == {"n": 6}
    return both


def test_a_wipe_that_moves_only_some_partitions_is_refused_and_changes_nothing(tmp_path: Path, topic: str) -> None:
    both = a_wipe_of_two(tmp_path, topic)

    with pytest.raises(ConfigError, match=r"drops what was built from b\[0\] too"):
        both.reset({("a", 0): 0}, wipe=True)  # type: ignore[dict-item] # a tuple will do

    assert (dict(both.state), set(both.positions.values())) == ({"n": 6}, {3})


def test_a_wipe_of_everything_also_moves_what_is_no_longer_read_or_there(tmp_path: Path, topic: str) -> None:
    a_wipe_of_two(tmp_path, topic)
    memory_log(topic).delete_topic("b")
    app = an_app(tmp_path, topic)
    app.processors.add(id="both", topic="a", handler=_count)

    app.processors["both"].reset("earliest", wipe=True)

    assert app.processors["both"].positions == {TopicPartition("a", 0): 0, TopicPartition("b", 0): 0}


# --- the readers of a topic


def test_a_reset_of_a_topic_leaves_the_other_topics_of_its_readers_alone(tmp_path: Path, topic: str) -> None:
    filled(topic, ["a", "b"])
    app = an_app(tmp_path, topic)
    app.processors.add(id="both", topics=("a", "b"), handler=_count)
    app.start(until_end=True)

    app.topics["a"].reset(1)

    assert app.processors["both"].positions == {TopicPartition("a", 0): 1, TopicPartition("b", 0): 3}


def test_a_reset_of_a_topic_with_a_wipe_is_refused_where_a_reader_has_others(tmp_path: Path, topic: str) -> None:
    filled(topic, ["a", "b"])
    app = an_app(tmp_path, topic)
    app.processors.add(id="a-alone", topic="a", handler=_count)
    app.processors.add(id="both", topics=("a", "b"), handler=_count)
    app.start(until_end=True)

    with pytest.raises(ConfigError, match=r"built from b\[0\] too"):
        app.topics["a"].reset(0, wipe=True)

    assert app.processors["a-alone"].offset == 3


# --- what is added and what is there


def test_topics_can_be_asked_for_and_listed(tmp_path: Path, topic: str) -> None:
    app = an_app(tmp_path, topic)
    app.processors.add(id="one", topic="b", handler=_count)
    app.processors.add(id="two", topics=["a/created", "b"], handler=_count)

    assert list(app.topics) == ["a", "b"]
    assert ("a" in app.topics, "c" in app.topics, len(app.topics)) == (True, False, 2)
    assert [list(readers) for readers in app.topics.values()] == [["two"], ["one", "two"]]


def test_a_text_is_one_topic(tmp_path: Path, topic: str) -> None:
    added = an_app(tmp_path, topic).processors.add(id="p", topics="ab", handler=_count)

    assert added.topics == ("ab",)


@pytest.mark.parametrize("name", ["a b!", "", "..", "a\n", "x" * 250, "ü"])
def test_an_impossible_topic_is_refused_when_it_is_added(tmp_path: Path, topic: str, name: str) -> None:
    with pytest.raises(axe.PluginError, match="topic"):
        an_app(tmp_path, topic).processors.add(id="p", topic=name, handler=_count)


# --- running


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def test_beside_another_host_on_the_same_folder_an_app_does_not_run(tmp_path: Path, topic: str) -> None:
    filled(topic, ["t"])
    one, two = an_app(tmp_path, topic), an_app(tmp_path, topic)
    first = one.processors.add(id="first", topic="t", handler=_count)
    second = two.processors.add(id="second", topic="t", handler=_count)

    with one:
        until(lambda: first.offset == 3)
        with pytest.raises(axe.HostRunning, match="another host"):
            two.start(until_end=True)
        second.reset(0)

    two.start(until_end=True)
    assert dict(second.state) == {"n": 3}


def test_an_app_holds_every_folder_that_its_processors_use_or_none(tmp_path: Path, topic: str) -> None:
    filled(topic, ["t"])
    own = {"processors": {"p": {"state": f"sqlite:{tmp_path / 'own'}"}}}
    both, common, apart = an_app(tmp_path, topic, **own), an_app(tmp_path, topic), an_app(tmp_path, topic, **own)
    for app, names in ((both, ["p", "q", "r"]), (common, ["q"]), (apart, ["p"])):
        for name in names:
            app.processors.add(id=name, topic="t", handler=_count)

    with both:
        for other in (common, apart):
            with pytest.raises(axe.HostRunning):
                other.start(until_end=True)
    with apart:
        with pytest.raises(axe.HostRunning):
            both.start(until_end=True)
        common.start(until_end=True)
    both.start(until_end=True)


def test_an_app_that_runs_is_not_disturbed_by_a_second_start(tmp_path: Path, topic: str) -> None:
    log = filled(topic, ["t"])
    app = an_app(tmp_path, topic)
    p = app.processors.add(id="p", topic="t", handler=_count)

    with app:
        with pytest.raises(ConfigError, match="runs already"):
            app.start(until_end=True)
        log.append("t", 3)
        until(lambda: p.offset == 4)


def test_a_stop_after_the_end_stops_no_later_start(tmp_path: Path, topic: str) -> None:
    log, seen = memory_log(topic), list[int]()
    app = axe.App({"source": f"memory:{topic}", "state": f"sqlite:{tmp_path}"})
    app.processors.add(id="p", topic=topic, handler=lambda event: seen.append(event.value))
    for n in range(2):
        log.append(topic, n)
        app.start(until_end=True)
        app.stop()

    assert seen == [0, 1]


def test_a_stop_that_comes_before_the_start_is_not_forgotten_and_counts_once(tmp_path: Path, topic: str) -> None:
    filled(topic, ["t"])
    app = an_app(tmp_path, topic)
    p = app.processors.add(id="p", topic="t", handler=_count)
    app.stop()

    app.start()  # returns

    app.start(until_end=True)
    assert p.offset == 3


def test_what_is_added_runs_whatever_is_blocked_and_not_where_it_is_disabled(tmp_path: Path, topic: str) -> None:
    filled(topic, ["t"])
    settings: dict[str, Any] = {"block": ["*"], "allow": [], "processors": {"off": {"enabled": False}}}
    app = an_app(tmp_path, topic, **settings)
    for name in ("on", "off"):
        app.processors.add(id=name, topic="t", handler=_count)

    app.start(until_end=True)

    assert {name: dict(one.state) for name, one in app.processors.items()} == {"on": {"n": 3}, "off": {}}


def test_where_everything_is_disabled_there_is_nothing_to_run(tmp_path: Path, topic: str) -> None:
    app = an_app(tmp_path, topic, processors={"off": {"enabled": False}})
    app.processors.add(id="off", topic="t", handler=_count)

    with pytest.raises(ConfigError, match=r"`enabled = false` in the table of off"):
        app.start()


class NotedSource(MemorySource):
    """A reader of a log in memory that notes whether it is open."""

    is_open = True

    def close(self) -> None:
        self.is_open = False
        super().close()


class Opening:
    """Reads from sources of its own, and knows them."""

    def __init__(self, log: MemoryLog) -> None:
        self.log, self.opened = log, list[NotedSource]()

    @axe.hookimpl
    def open_source(self) -> NotedSource:
        self.opened.append(NotedSource(self.log))
        return self.opened[-1]

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        _count(event, state)


def test_where_one_processor_cannot_begin_the_sources_of_all_are_closed_and_the_folder_is_free(
    tmp_path: Path, topic: str
) -> None:
    opening = Opening(filled(topic, ["t", "sick"]))
    app = an_app(tmp_path, topic, topics={"sick": {"decode": ["jsn"]}})
    app.processors.add(id="p", topic="t", handler=opening)
    app.processors.add(id="q", topic="sick", handler=opening)

    with pytest.raises(ConfigError, match='did you mean "json"'):
        app.start(until_end=True)

    assert [source.is_open for source in opening.opened] == [False, False]
    other = an_app(tmp_path, topic)
    other.processors.add(id="p", topic="t", handler=_count)
    other.start(until_end=True)


def test_a_folder_that_is_written_in_two_ways_is_one(tmp_path: Path, topic: str) -> None:
    filled(topic, ["t"])
    own = {"q": {"state": f"sqlite:{tmp_path}/elsewhere/../state"}}
    (tmp_path / "elsewhere").mkdir()
    app = an_app(tmp_path, topic, processors=own)
    for name in ("p", "q"):
        app.processors.add(id=name, topic="t", handler=_count)

    app.start(until_end=True)

    assert {name: dict(one.state) for name, one in app.processors.items()} == {"p": {"n": 3}, "q": {"n": 3}}
