"""Dead letters in a topic as well: after their commit, in order, at least once, and never in the way of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import axe
from axe import Reject, State, TopicPartition, operations, relay
from axe.errors import ConfigError
from axe.event import RECORD_FORM, Event, Record
from axe.sources.memory import MemorySource
from axe.store import Letters, SqlStore
from axe.telling import keep_secret

from .site import Keeping, Site, at, until

OUT = "refused"


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Site:
    return made(tmp_path, topic, request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None)


@pytest.fixture
def sqlite(tmp_path: Path, topic: str) -> Site:
    return made(tmp_path, topic, None)


def made(folder: Path, topic: str, state: str | None) -> Site:
    site = Site(folder, topic, state=state, flood={"share": 1}, dead_letters={"topic": OUT})
    site.log.create_topic(OUT)
    return site


def put(site: Site, *values: object) -> None:
    for value in values:
        site.log.append(site.topic, value)


def published(site: Site) -> list[Record]:
    """What lies in the topic."""
    source = MemorySource(site.log)
    source.assign(dict.fromkeys(source.partitions(OUT), 0))
    return [RECORD_FORM.record(raw) for raw in source.fetch(events=10_000, size=10**9, timeout_s=0).records]


def offsets(site: Site) -> list[int]:
    return [int(dict(record.headers)["__connect.errors.offset"] or b"") for record in published(site)]


def marked(site: Site) -> list[bool]:
    return [at is not None for (at,) in site.sql("SELECT published_at FROM axe_dead_letters ORDER BY id")]


def test_what_is_refused_is_in_the_topic_once_and_in_order(site: Site) -> None:
    put(site, *range(8))

    site.run(Keeping(at(1, 4, 6, error=Reject)))
    site.run(Keeping())

    assert offsets(site) == [1, 4, 6]
    assert marked(site) == [True] * 3
    assert site.seen == [0, 2, 3, 5, 7]


def test_it_has_the_bytes_and_headers_of_the_record_and_kafka_connects_words(sqlite: Site) -> None:
    log = sqlite.log
    log.append(sqlite.topic, b"\xff\x00{", key=b"\xfe", headers=[("h", b"\x80"), ("h", None)], timestamp_ms=1_500)
    log.append(sqlite.topic, None)

    sqlite.run(Keeping(at(1, error=Reject)))

    bad, tombstone = published(sqlite)
    assert (bad.key, bad.value) == (b"\xfe", b"\xff\x00{")
    assert bad.headers[:2] == (("h", b"\x80"), ("h", None))
    ours = dict(bad.headers[2:])
    assert ours["__connect.errors.topic"] == sqlite.topic.encode()
    assert (ours["__connect.errors.partition"], ours["__connect.errors.offset"]) == (b"0", b"0")
    assert ours["__connect.errors.connector.name"] == b"p"
    ((reason, rejected_at),) = sqlite.sql("SELECT reason, rejected_at FROM axe_dead_letters WHERE id = 1")
    assert ours["__connect.errors.exception.message"] == reason.encode()
    assert "__connect.errors.exception.class.name" not in ours
    assert (ours["axe.attempts"], ours["axe.rejected_at"]) == (b"1", rejected_at.encode())
    assert ours["axe.timestamp"] == b"1970-01-01T00:00:01.500Z"
    assert (tombstone.key, tombstone.value) == (None, None)
    assert dict(tombstone.headers)["__connect.errors.exception.class.name"] == b"axe.event.Reject"
    assert bad.timestamp_ms is not None
    assert bad.timestamp_ms > 1_700_000_000_000, "the time of the record would have it deleted by retention"


def test_an_exception_has_its_kind_and_traceback_without_the_secrets_of_the_configuration(sqlite: Site) -> None:
    keep_secret({"hunter22"})
    sqlite.settings |= {"retries": 0, "on_failure": "reject"}
    put(sqlite, 1)

    def sick(event: Event, state: State) -> None:
        raise axe.errors.StoreError("no login\nwith hunter22")

    sqlite.run(Keeping(sick))

    (record,) = published(sqlite)
    ours = dict(record.headers)
    assert ours["__connect.errors.exception.class.name"] == b"axe.errors.StoreError"
    assert ours["__connect.errors.exception.message"] == b"StoreError: no login with ***"
    assert b"in sick" in (ours["__connect.errors.exception.stacktrace"] or b"")
    assert b"hunter22" not in b"".join(value or b"" for value in ours.values())


def test_a_running_worker_publishes_soon_and_goes_on(site: Site) -> None:
    put(site, 0)
    with site.add(Keeping(at(1, 2, error=Reject))):
        until(lambda: site.offset == 1)
        put(site, 1, 2, 3)
        until(lambda: marked(site) == [True, True])

    assert offsets(site) == [1, 2]


def test_what_was_refused_before_there_was_a_topic_goes_out_as_well(site: Site) -> None:
    site.settings["dead_letters"] = {}
    put(site, *range(4))
    site.run(Keeping(at(0, 2, error=Reject)))
    assert published(site) == []

    site.settings["dead_letters"] = {"topic": OUT}
    site.run(Keeping())

    assert offsets(site) == [0, 2]


def test_what_is_refused_again_is_published_again(site: Site) -> None:
    put(site, *range(3))
    site.run(Keeping(at(1, error=Reject)))
    site.operate(lambda store: operations.retry(store, Letters()))

    site.run(Keeping(at(1, error=RuntimeError)))

    assert offsets(site) == [1, 1]
    assert [dict(record.headers)["axe.attempts"] for record in published(site)] == [b"1", b"2"]
    assert marked(site) == [True]


def test_what_is_retried_or_discarded_before_it_went_out_does_not_go_out(site: Site) -> None:
    site.settings["dead_letters"] = {}
    put(site, *range(4))
    site.run(Keeping(at(0, 1, 2, error=Reject)))
    site.operate(lambda store: operations.discard(store, Letters(ids=(1,))))
    site.operate(lambda store: operations.retry(store, Letters(ids=(2,))))

    site.settings["dead_letters"] = {"topic": OUT}
    site.run(Keeping())

    assert offsets(site) == [2]


def test_a_topic_that_is_not_there_is_said_once_and_the_letters_go_out_when_it_is(
    sqlite: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(relay, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(relay, "_LONGEST_PAUSE_S", 0.01)
    sqlite.log.delete_topic(OUT)
    put(sqlite, *range(3))

    def said(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    with sqlite.add(Keeping(at(0, 1, error=Reject))):
        until(lambda: said("dead letters are not published"))
        put(sqlite, 3)
        until(lambda: sqlite.offset == 4)
        assert sqlite.status == "running"
        assert marked(sqlite) == [False, False]
        sqlite.log.create_topic(OUT)
        until(lambda: marked(sqlite) == [True, True])

    assert offsets(sqlite) == [0, 1]
    assert said("dead letters are not published") == 1
    assert said(f"topic {OUT} does not exist in memory") == 1
    assert said("dead letters are published again") == 1


def test_a_processor_that_too_many_rejections_have_paused_publishes_them(site: Site) -> None:
    site.settings["flood"] = {"share": 0.5, "events": 4}
    put(site, *range(20))

    with site.add(Keeping(at(*range(20), error=Reject))):
        until(lambda: site.app.processors["p"].status == "paused")
        until(lambda: marked(site) and all(marked(site)))

    assert offsets(site) == list(range(len(marked(site))))


def test_many_go_out_in_pages(sqlite: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_LETTERS", 7)
    monkeypatch.setattr(relay, "_BYTES", 20)
    put(sqlite, *("x" * (n % 5) * 4 for n in range(60)))

    sqlite.run(Keeping(at(*range(60), error=Reject)))

    assert offsets(sqlite) == list(range(60))
    assert all(marked(sqlite))


def test_another_worker_that_has_not_taken_over_publishes_nothing(
    tmp_path: Path, topic: str, postgresql_url: str
) -> None:
    """Of two that see a paused processor one sends, the owner."""
    first, second = made(tmp_path, topic, postgresql_url), Site(tmp_path, topic, state=postgresql_url)
    second.settings = first.settings = {**first.settings, "flood": {"share": 0.5, "events": 4}}
    put(first, *range(9))

    with first.add(Keeping(at(*range(9), error=Reject))):
        until(lambda: first.app.processors["p"].status == "paused")
        with second.add(Keeping()):
            until(lambda: all(marked(first)))
            until(lambda: second.app._runners[0].status.value == "paused")

    assert offsets(first) == list(range(len(marked(first))))


def test_what_another_letter_took_the_place_of_is_not_noted_as_published(site: Site) -> None:
    put(site, *range(2))
    site.settings["dead_letters"] = {}
    site.run(Keeping(at(0, error=Reject)))

    def refused_meanwhile(store: SqlStore) -> None:
        (sent,) = store.unpublished_letters(limit=10, size=10)
        with store.begin() as transaction:
            transaction.add_dead_letter(axe.Rejection("p", Record(site.topic, 0, 0), "again"))
            transaction.commit()
        with store.begin() as transaction:
            transaction.note_published([sent])
            transaction.commit()

    site.operate(refused_meanwhile)

    assert marked(site) == [False]


def test_an_exported_letter_that_was_published_is_not_published_again(sqlite: Site) -> None:
    from axe.letter_files import letters_of, lines_of

    put(sqlite, *range(2))
    sqlite.run(Keeping(at(0, error=Reject)))
    lines: list[bytes] = []
    sqlite.operate(lambda store: lines.extend(line.encode() for line in lines_of("p", store.dead_letters())))

    (letter,) = letters_of("p", lines)

    assert letter["published_at"] is not None
    old = lines[0].replace(f', "published_at": "{letter["published_at"]}"'.encode(), b"")
    assert old != lines[0]
    assert letters_of("p", [old])[0]["published_at"] is None


@pytest.mark.parametrize("source", ["file:topics", "memory:{topic}"])
def test_a_topic_that_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, topic: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics").mkdir()
    letters = {"topic": topic if source.startswith("memory") else OUT}
    config = {"source": source.format(topic=topic), "state": "memory:", "processors": {"p": {"dead_letters": letters}}}
    app = axe.App(config)
    app.processors.add(id="p", topic=f"{topic}/created", handler=Keeping())

    said = "reads .* itself" if source.startswith("memory") else "needs a Kafka source"
    with pytest.raises(ConfigError, match=rf"processors.p.dead_letters.topic: .*{said}"):
        app.start(until_end=True)


def test_letters_of_neighbours_that_read_together_go_to_the_topics_of_each(tmp_path: Path, topic: str) -> None:
    site = made(tmp_path, topic, None)
    site.log.create_topic("others")
    put(site, *range(3))
    config: dict[str, Any] = {"source": f"memory:{topic}", "state": site.state}
    config["processors"] = {"p": site.settings, "q": {**site.settings, "dead_letters": {"topic": "others"}}}
    app = axe.App(config)
    for name, sick in (("p", 0), ("q", 2)):
        app.processors.add(id=name, topic=topic, handler=Keeping(at(sick, error=Reject)))

    app.start(until_end=True)

    source = MemorySource(site.log)
    source.assign({TopicPartition("others", 0): 0})
    (other,) = source.fetch(events=10, size=10**9, timeout_s=0).records
    assert offsets(site) == [0]
    assert dict(other.headers)["__connect.errors.connector.name"] == b"q"
