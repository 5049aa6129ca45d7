"""Targets: files of any lines, and payloads of any bytes through a processor."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import axe
from axe.errors import SourceUnavailable
from axe.event import TopicPartition
from axe.sources.folder import FolderSource
from axe.sources.memory import memory_log

from .mutation import mutated
from .target import Check, Target

_DEADLINE_S = 30.0
_AT = TopicPartition("studies", 0)

_JSON_LINES = (
    b'{"type": "study_created", "phase": "I", "n": 1}\n{"a": [1, 2.5, null, true, {"b": "\\u00e4 \xc3\xa4"}]}\n'
    b'null\n"null"\n\n[]\r\n12\n"text"\n'
)
_ENVELOPES = (
    b'{"topic":"t","partition":0,"offset":7,"tstype":"create","ts":1700000000123,"broker":1,'
    b'"headers":["type","x","none",null],"key":"k","payload":"{\\"n\\": 1}"}\n'
    b'{"key":null,"payload":null}\n{"payload":""}\n{"payload":{"n":[1]},"key":5}\r\n\n{"ts":-1,"payload":"\\ud83d\\ude00"}\n'
)
_TOKENS = [
    b"\n", b"\n\n", b"\r\n", b"\r", b"\x00", b"\xff", b"\x0b", b"\x0c", b"\x1c", b"\x85", "\u2028".encode(), b'"',
    b"\\",
    b"{", b"}", b"[" * 200, b"null", b"\nnull\n", b"NaN", b'"headers":[1]', b'"headers":["a"]', b'"ts":1e30',
    b'"key":{}', b'"payload":[', b'"payload":"\\ud800"', b'"headers":["\\udc00","x"]', b'"payload":null,"payload":"2"',
    b'"ts":99999999999999999999', b'"ts":9223372036854775807', b"x" * 3000, b'{"type":7}',
]  # fmt: skip
_FILES = st.one_of(
    st.tuples(st.just(ending), mutated(st.just(whole), _TOKENS), st.lists(st.integers(0, 400), max_size=4)).map(
        lambda drawn: [(drawn[0], content, drawn[2]) for content in drawn[1]]
    )
    for ending, whole in (("jsonl", _JSON_LINES), ("kcat", _ENVELOPES))
)


@contextmanager
def _files(folder: Path) -> Iterator[Check]:
    def check(drawn: tuple[str, bytes, list[int]]) -> None:
        ending, content, cuts = drawn
        for old in folder.iterdir():
            old.unlink()
        path = folder / f"studies.{ending}"
        path.write_bytes(b"")
        source, position, found = FolderSource(folder), 0, {}
        source.assign({_AT: 0})
        # As if somebody appended while it is read.
        ends = sorted({cut % (len(content) + 1) for cut in cuts} | {len(content)})
        begin = 0
        for end in ends:
            with path.open("ab") as file:
                file.write(content[begin:end])
            begin = end
            position = _read_on(source, position, found)
        lines = content.split(b"\n")[:-1]
        assert position == len(lines) == source.bounds([_AT])[_AT].end
        assert list(found) == list(range(len(lines))), f"of {len(lines)} lines: {list(found)}"
        if ending == "jsonl":
            bare = [line.removesuffix(b"\r") for line in lines]
            assert list(found.values()) == [None if line == b"null" else line for line in bare]

    yield check


def _read_on(source: FolderSource, position: int, found: dict[int, bytes | str | None]) -> int:
    """Read to the end; a line that is refused is noted and passed over, as an operator would."""
    while True:
        try:
            records = source.fetch(events=100, size=1000, timeout_s=0).records
        except SourceUnavailable as error:
            said = str(error)
            assert said.isprintable(), repr(said)
            named = re.search(r"line (\d+) \(from 0\) is no envelope .* reset the processor to (\d+)", said)
            assert named is not None, said
            assert (int(named[1]), int(named[2])) == (position, position + 1), said
            found[position] = said
            position += 1
            source.assign({_AT: position})
            continue
        if not records:
            return position
        for record in records:
            assert record.offset == position, f"{record.offset} after {position - 1}"
            found[position] = record.value
            position += 1


class _Counter:
    """Counts what it is given, and looks at the order."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.topics = topics

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        key = f"{event.topic}/{event.partition}"
        count, last = state.get(key, [0, -1])
        assert event.offset > last, f"{event.offset} after {last}"
        state[key] = [count + 1, event.offset]


_SETTINGS: Mapping[str, Any] = {
    "state": "memory:",
    "processors": {"counter": {"flood": {"share": 1}, "retries": 0, "batch": {"time_s": 5}}},
    "log": {"level": "error"},
}


@contextmanager
def _folder(folder: Path) -> Iterator[Check]:
    def check(content: bytes) -> None:
        path = folder / "studies.jsonl"
        path.write_bytes(content)
        app = axe.App({**_SETTINGS, "source": f"file:{folder}"})
        counter = app.processors.add(id="counter", handler=_Counter(("studies",)))
        rejections: list[axe.Rejection] = []
        app.on_reject(rejections.append)
        app.start(until_end=True)
        lines = content.split(b"\n")[:-1]
        assert counter.status == "stopped", counter.last_error
        assert counter.offset == len(lines)
        handled = counter.state.get("studies/0", (0, -1))[0]
        assert handled + len(rejections) == len(lines), f"{handled} and {len(rejections)} of {len(lines)}"
        assert all(
            rejection.record.value == lines[rejection.record.offset].removesuffix(b"\r") for rejection in rejections
        )

    yield check


_AVRO = {
    "type": "record",
    "name": "Study",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "phase", "type": ["null", {"type": "enum", "name": "Phase", "symbols": ["I", "II"]}]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "sites", "type": {"type": "array", "items": "long"}},
    ],
}
_STUDY = b"\x06abc\x02\x02\x80\x80\x80\xc4\xb0\x62\x04\x02\x04\x00"
_PLAIN = [*_JSON_LINES.split(b"\n"), _STUDY, _STUDY]
_WELL_FORMED = [line for line in _JSON_LINES.split(b"\n") if line]
_BATCH = 1000
_BATCHES = st.tuples(
    *(mutated(st.sampled_from(_PLAIN), _TOKENS, most=3, count=50) for _ in range(20)), st.integers(0, 2**32)
).map(lambda drawn: [_dealt(drawn)])


def _dealt(drawn: Any) -> list[tuple[str, bytes | None]]:
    """Deal payloads out to topics."""
    chance = random.Random(drawn[-1])
    values = [value for some in drawn[:-1] for value in some]
    chance.shuffle(values)
    return [_one_of(chance, value) for value in values]


def _one_of(chance: random.Random, value: bytes) -> tuple[str, bytes | None]:
    topic, luck = chance.choice(("json", "avro", "text")), chance.random()
    if luck < 0.02:
        return topic, None
    # A refused one takes a hundred times as long as one that is handled.
    return topic, value if luck < 0.3 else _STUDY if topic == "avro" else chance.choice(_WELL_FORMED)


@contextmanager
def _payloads(folder: Path) -> Iterator[Check]:
    (folder / "study.avsc").write_text(json.dumps(_AVRO))
    name = uuid.uuid4().hex
    log = memory_log(name)
    topics = ("json", "avro", "text")
    for topic in topics:
        log.create_topic(topic)
    decode = {
        "json": {"decode": ["json"], "max_depth": 12, "max_bytes": 2000},
        "avro": {"decode": ["avro"], "schema": str(folder / "study.avsc"), "max_bytes": 2000},
        "text": {"decode": ["string"], "max_bytes": 2000},
    }
    app = axe.App({**_SETTINGS, "source": f"memory:{name}", "topics": decode})
    counter = app.processors.add(id="counter", handler=_Counter(topics))
    rejected = dict.fromkeys(topics, 0)

    @app.on_reject
    def note(rejection: axe.Rejection) -> None:
        rejected[rejection.record.topic] += 1

    sent = dict.fromkeys(topics, 0)

    def check(batch: list[tuple[str, bytes | None]]) -> None:
        for topic, value in batch:
            log.append(topic, value)
            sent[topic] += 1
        deadline = time.monotonic() + _DEADLINE_S
        while counter.status in ("running", "stopped") and sum(counter.positions.values()) < sum(sent.values()):
            assert time.monotonic() < deadline, f"it stands at {counter.positions} of {sent}"
            time.sleep(0.05)
        assert counter.status == "running", f"{counter.status}: {counter.last_error}"
        # Rejections are told of after the commit.
        while _handled(counter.state, topics) + sum(rejected.values()) < sum(sent.values()):
            assert time.monotonic() < deadline, f"{dict(counter.state)} handled, {rejected} refused of {sent}"
            time.sleep(0.05)
        for topic in topics:
            handled = counter.state.get(f"{topic}/0", (0, -1))[0]
            assert handled + rejected[topic] == sent[topic], f"{topic}: {handled} and {rejected} of {sent}"

    with app:
        yield check


def _handled(state: Mapping[str, Any], topics: tuple[str, ...]) -> int:
    return sum(int(state.get(f"{topic}/0", (0, -1))[0]) for topic in topics)


FILES = Target(
    "files",
    "files of any lines that grow while they are read: each line a record, or refused by its number",
    _FILES,
    _files,
)
FOLDER = Target(
    "folder",
    "files of any lines through an App: each line handled or a dead letter with its bytes",
    mutated(st.just(_JSON_LINES), _TOKENS, count=5),
    _folder,
    drawn=3,
    limit_s=20,
)
PAYLOADS = Target(
    "payloads",
    "payloads of any bytes through one processor: each handled or refused, in order, and the numbers add up",
    _BATCHES,
    _payloads,
    drawn=1,
    weight=_BATCH,
    limit_s=_DEADLINE_S,
)
