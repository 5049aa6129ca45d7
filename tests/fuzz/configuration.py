"""Targets: the text of the configuration, and names that become paths, schemas and topics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import strategies as st

from axe.config import NAME, TOPIC, load, masked_url
from axe.decode import check_topic
from axe.errors import AxeError, ConfigError, SourceUnavailable, TopicMissing
from axe.sources.folder import FolderSource
from axe.store import open_place
from axe.store.postgresql.register import schema_name

from .mutation import mutated
from .target import Check, Target

_CANARY = "canary-of-the-environment"
_LONGEST_MESSAGE = 2000

_WHOLE = """\
source = "kafka://localhost:9092"
state = "postgresql+psycopg://axe:pw@localhost/axe?sslmode=require"
block = ["name", "pattern-*", "[ab]?-x"]
allow = ["axe-studies"]

[host]
workers = 4
shutdown_s = 2.5
wait_s = 60

[kafka]
"security.protocol" = "SASL_SSL"
sasl.username = "me"
"sasl.password" = { env = "AXE_FUZZ_SECRET" }
"ssl.ca.location" = "ca.pem"

[topics.studies]
key = ["string"]
decode = ["avro"]
schema = "study.avsc"
event_type = "header:type"
max_bytes = 1000
max_depth = 20

[topics."a.b"]
event_type = "value:kind"

[processors.study-counter]
enabled = true
topics = ["studies/study_created", "other"]
state = "sqlite:elsewhere"
start = 2026-03-01T12:00:00Z
on_failure = "reject"
retries = 3
backoff_s = [0.1, 30]
handler_timeout_s = 3e2
memory_mb = 1_024
cache_mb = 0
group = "axe"
plugins = ["sentry"]
batch = { events = 1000, bytes = 4_000_000, time_s = 0.5 }
flood = { share = 0.5, events = 100 }
on_misfit.behind_retention = "skip"
settings = { token = { env = "AXE_FUZZ_SECRET" }, nested = [{ a = [1, 2.5, 1979-05-27, 07:32:00] }] }

[processors.study-counter.failures."json.JSONDecodeError"]
on_failure = "pause"
backoff_s = [0, 1]

[plugins.sentry]
dsn = { env = "AXE_FUZZ_SECRET" }

[log]
format = "json"
level = "debug"
"""
_SMALL = 'source = "file:topics"\nstate = "sqlite:state"\n'
_TOKENS = [
    b"[", b"]", b"[[", b"]]", b"{", b"}", b"=", b".", b",", b"#", b"\n", b'"', b"'", b'"""', b"'''", b"\\", b"\r",
    b"\\u0000", b"\\ud800", b"\\U0010ffff", b"\xff", b"\x00", b"\xc3\xa4", "\u2028".encode(), b"\x1b[31m", b"\x7f",
    b"inf", b"-nan", b"1e999", b"-0", b"0x7fffffffffffffffff", b"9" * 400, b"true", b"1979-05-27T07:32:00+99:99",
    b"[" * 1200, b"a." * 900 + b"b = 1\n", b"{ a = " * 300, b"\n[processors.x]\n", b"\n[topics.x]\n", b"\n[kafka]\n",
    b"\n[[processors]]\n", b'"test.mock.num.brokers" = 3\n', b'{ env = "AXE_FUZZ_SECRET" }', b'{ env = "NOWHERE" }',
    b'{ file = "gone" }', b'{ file = "/" }', b'{ file = "~nobody-of-this-name/x" }', b"source", b"state", b"settings",
    b"failures", b"batch", b"decode", b"schema", b"../../etc", b"sqlite:", b"memory:", b"postgresql://[::1", b"kafka://",
    b'failures."a b" = {}', b"\xef\xbb\xbf", b"__proto__", b"start = 12:00:00\n", b"plugins = [1]\n",
]  # fmt: skip


@contextmanager
def _configuration(folder: Path) -> Iterator[Check]:
    path = folder / "axe.toml"
    os.environ["AXE_FUZZ_SECRET"] = _CANARY

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            config = load(path)
        except ConfigError as error:
            _look_at(str(error))
            return
        assert _CANARY not in repr(config)
        assert _CANARY not in masked_url(config.source)
        for topic in config.topics:
            with _said_in_one_line():
                check_topic(config, topic)
        for name in [*config.processors, "another"]:
            config.processor(name).of_failure(UnicodeDecodeError)
        for state in (config.state, *(one.state for one in config.processors.values() if one.state)):
            if state != "memory:":
                with _said_in_one_line():
                    open_place(state, config.base)

    yield check


@contextmanager
def _said_in_one_line() -> Iterator[None]:
    """Take an error of the configuration that is said as it should be."""
    try:
        yield
    except ConfigError as error:
        _look_at(str(error))


def _look_at(message: str) -> None:
    assert message.isprintable(), f"not one line: {message!r}"
    assert len(message) < _LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]}"
    assert _CANARY not in message


_NAME_CHARACTERS = st.sampled_from("abz019-_.ABZ/\\~\x00\n ä:*?'\"%$[]")
_NAMES = (
    st.text(_NAME_CHARACTERS, max_size=70)
    | st.from_regex(NAME)
    | st.from_regex(TOPIC)
    | st.sampled_from(["..", ".", "", "../x", "/etc/passwd", "x/../../y", "~", "a" * 63, "a" * 64, "0", "axe-store"])
    | st.text(max_size=300)
)  # fmt: skip
_PAIRS = st.lists(st.tuples(_NAMES, _NAMES), min_size=5, max_size=20)


@contextmanager
def _names(folder: Path) -> Iterator[Check]:
    (folder / "topics").mkdir()
    (folder / "outside.jsonl").write_bytes(b"{}\n")
    place, source, root = open_place("sqlite:state", folder), FolderSource(folder / "topics"), folder.resolve()

    def check(pair: tuple[str, str]) -> None:
        for name in pair:
            if NAME.match(name):
                _is_inside(Path(str(place.database(name).location)), root / "state")
                assert len(schema_name(name).encode()) <= 63
            for topic in (name, f"{name}.jsonl"):
                try:
                    found = source.partitions(topic)
                except (TopicMissing, ConfigError, SourceUnavailable) as error:
                    _look_at(str(error))
                else:
                    raise AssertionError(f"the empty folder has the topic {topic!r}: {found}")
        first, second = pair
        if first != second and NAME.match(first) and NAME.match(second):
            assert schema_name(first) != schema_name(second)
            assert place.database(first).location != place.database(second).location
        table = {"source": "memory:", "state": "memory:", "topics": {first: {}}, "processors": {second: {}}}
        try:
            config = load(table)
        except ConfigError as error:
            config = None
            _look_at(str(error))
        assert (config is not None) == bool(NAME.match(second) and TOPIC.match(first))
        with suppress(AxeError):
            load({"source": "memory:", "state": "memory:", "plugins": {first: {}}, "block": [second]})

    yield check


def _is_inside(path: Path, folder: Path) -> None:
    resolved = path.resolve()
    assert resolved.parent == folder, f"{path} leads out of {folder}"


CONFIGURATION = Target(
    "configuration",
    "axe.toml of any bytes: a Config, or a ConfigError of one line without secrets",
    mutated(st.sampled_from([_WHOLE.encode(), _SMALL.encode(), _SMALL.encode() + _WHOLE[-700:].encode()]), _TOKENS),
    _configuration,
)
NAMES = Target(
    "names",
    "names of processors and topics: refused, or a path inside its folder and a schema of its own",
    _PAIRS,
    _names,
)
