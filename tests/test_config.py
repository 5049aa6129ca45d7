"""What a configuration may say, and what is said about one that is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axe.config import (
    BatchConfig,
    Config,
    HostConfig,
    LogConfig,
    ProcessorConfig,
    TopicConfig,
    load,
    looks_secret,
    masked_url,
    parse_start,
    tls_warnings,
)
from axe.errors import ConfigError

CANARY = "canary-3c1f s3cret!"
BASE = {"source": "memory:", "state": "memory:"}

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AXE_CONFIG", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str, name: str = "axe.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return to_file


def refusal(table: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load({**BASE, **table})
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- finding it


def test_axe_toml_of_the_working_directory_is_the_default(write: Write) -> None:
    path = write('source = "file:topics"\nstate = "sqlite:state"')

    config = load()

    assert (config.source, config.state, config.path, config.base) == (
        "file:topics",
        "sqlite:state",
        path,
        path.parent,
    )


def test_the_environment_names_another_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('source = "file:here"\nstate = "sqlite:state"')
    other = write('source = "file:there"\nstate = "sqlite:state"', "other/there.toml")
    monkeypatch.setenv("AXE_CONFIG", "other/there.toml")

    config = load()

    assert (config.source, config.base) == ("file:there", other.parent)


def test_an_explicit_file_wins_over_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXE_CONFIG", "nowhere.toml")
    path = write('source = "file:topics"\nstate = "sqlite:state"', "mine.toml")

    assert load(path).path == path
    assert load("mine.toml").path == path


def test_an_empty_variable_is_an_unset_one(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXE_CONFIG", "")
    write('source = "file:topics"\nstate = "sqlite:state"')

    assert load().source == "file:topics"


@pytest.mark.parametrize(
    ("asked", "variable", "parts"),
    [
        (None, None, ["no configuration at", "axe.toml", "--config FILE", "AXE_CONFIG", "source =", "state ="]),
        (None, "gone.toml", ["AXE_CONFIG names", "gone.toml", "does not exist"]),
        ("gone.toml", None, ["no configuration at", "gone.toml", "--config FILE"]),
    ],
)
def test_a_missing_file_says_where_it_was_looked_for_and_what_to_write(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, variable: str | None, parts: list[str]
) -> None:
    if variable:
        monkeypatch.setenv("AXE_CONFIG", variable)

    with pytest.raises(ConfigError) as caught:
        load(asked)

    assert all(part in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'source = "file:topics"\nstate = \n', "not valid TOML.*line 2"),
        (b'source = "a:"\nsource = "b:"\n', "not valid TOML.*line 2"),
        (b'source = "\xff"', "not UTF-8 at byte 10"),
        (b"a = " + b"[" * 20_000, "nested too deeply|not valid TOML"),
        (b"", "source: is missing"),
    ],
)
def test_a_file_that_is_no_configuration_says_why(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "axe.toml").write_bytes(content)

    with pytest.raises(ConfigError, match=problem) as caught:
        load()

    assert str(tmp_path / "axe.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", [".", "a\0b", "axe.toml/axe.toml"])
def test_a_path_that_is_no_file_says_so(write: Write, path: str) -> None:
    write("")

    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "axe.toml").write_bytes(b'\xef\xbb\xbfsource = "memory:"\nstate = "memory:"')

    assert load().source == "memory:"


# --- what it says


def test_everything_has_a_default_but_source_and_state() -> None:
    config = load(BASE)

    assert config == Config(source="memory:", state="memory:", base=Path.cwd())
    assert config.host == HostConfig(workers="processes", shutdown_s=10, wait_s=60)
    assert config.processor("any") == ProcessorConfig()
    assert config.processor("any").batch == BatchConfig(events=1000, bytes=4_000_000, time_s=0.5)
    assert config.topic("any") == TopicConfig(decode=("json",))
    assert config.log == LogConfig()


def test_the_whole_of_it_is_understood(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", "https://key@sentry.invalid/1")
    write("""
        source = "kafka://localhost:9092"
        state  = "sqlite:state"
        block  = ["name", "pattern-*", "[ab]?-x"]
        allow  = ["axe-studies", "Axe.Other"]

        [host]
        workers = 4
        shutdown_s = 2.5

        [kafka]
        "security.protocol" = "SASL_SSL"
        "socket.nagle.disable" = true
        socket.timeout.ms = 5000

        [topics.studies]
        key = ["string"]
        decode = ["gzip", "json"]
        schema = "study.avsc"
        event_type = "header:type"

        [topics."with.dots"]
        max_depth = 7

        [processors.study-counter]
        enabled = false
        topics = ["studies", "studies/study_created"]
        state = "postgresql+psycopg://db/x"
        start = 2026-03-01T12:00:00Z
        on_failure = "pause"
        retries = 0
        handler_timeout_s = 5
        memory_mb = 1024
        cache_mb = 0
        group = "my.group"
        backoff_s = [0, 3]
        batch = { events = 1, time_s = 0 }
        plugins = ["sentry"]
        settings = { deep = { list = [1, "two", { three = 3 }] } }

        [plugins.sentry]
        dsn = { env = "SENTRY_DSN" }

        [log]
        format = "json"
        level = "debug"
    """)

    config = load()

    assert (config.block, config.allow) == (("name", "pattern-*", "[ab]?-x"), ("axe-studies", "Axe.Other"))
    assert config.host == HostConfig(workers=4, shutdown_s=2.5)
    assert config.kafka == {
        "security.protocol": "SASL_SSL",
        "socket.nagle.disable": True,
        "socket.timeout.ms": 5000,
    }
    assert config.topic("studies") == TopicConfig(
        key=("string",), decode=("gzip", "json"), schema="study.avsc", event_type="header:type"
    )
    assert config.topic("with.dots").max_depth == 7
    assert config.processor("study-counter") == ProcessorConfig(
        enabled=False,
        topics=("studies", "studies/study_created"),
        state="postgresql+psycopg://db/x",
        start="2026-03-01T12:00:00+00:00",
        on_failure="pause",
        retries=0,
        handler_timeout_s=5,
        memory_mb=1024,
        cache_mb=0,
        group="my.group",
        backoff_s=(0, 3),
        batch=BatchConfig(events=1, time_s=0),
        plugins=("sentry",),
        settings={"deep": {"list": [1, "two", {"three": 3}]}},
    )
    assert config.plugins == {"sentry": {"dsn": "https://key@sentry.invalid/1"}}
    assert config.log == LogConfig(format="json", level="debug")


def test_relative_paths_start_at_the_folder_of_the_file(write: Write, tmp_path: Path) -> None:
    path = write('source = "file:topics"\nstate = "sqlite:state"', "conf/axe.toml")

    config = load(path)

    assert config.resolve("state") == tmp_path / "conf" / "state"
    assert config.resolve("/var/state") == Path("/var/state")
    assert config.resolve("~/state") == Path.home() / "state"


def test_relative_paths_of_a_mapping_start_at_the_working_directory() -> None:
    assert load(BASE).resolve("state") == Path.cwd() / "state"


def test_none_in_a_mapping_is_a_setting_that_is_not_written() -> None:
    config = load({**BASE, "allow": None, "processors": {"a": {"memory_mb": None, "retries": None}}})

    assert config.allow is None
    assert config.processor("a") == ProcessorConfig()


def test_loading_leaves_the_mapping_as_it_was() -> None:
    table = {**BASE, "processors": {"a": {"settings": {"x": [1]}, "batch": {"events": 1}}}}

    config = load(table)
    config.processor("a").settings["x"].append(2)

    assert table == {**BASE, "processors": {"a": {"settings": {"x": [1]}, "batch": {"events": 1}}}}


# --- what is wrong with it


@pytest.mark.parametrize(
    ("table", "path", "nearest"),
    [
        ({"sauce": "x"}, "sauce", "source"),
        ({"bloc": []}, "bloc", "block"),
        ({"processor": {}}, "processor", "processors"),
        ({"host": {"worker": 1}}, "host.worker", "workers"),
        ({"topics": {"studies": {"decoder": []}}}, "topics.studies.decoder", "decode"),
        ({"topics": {"a.b": {"decoder": []}}}, 'topics."a.b".decoder', "decode"),
        ({"processors": {"study-counter": {"retrys": 1}}}, "processors.study-counter.retrys", "retries"),
        ({"processors": {"a": {"batch": {"event": 1}}}}, "processors.a.batch.event", "events"),
        ({"processors": {"a": {"flood": {"shar": 1}}}}, "processors.a.flood.shar", "share"),
        ({"processors": {"a": {"on_misfit": {"beyond": "skip"}}}}, "processors.a.on_misfit.beyond", "beyond_end"),
        ({"processors": {"a": {"dead_letters": {"day": 1}}}}, "processors.a.dead_letters.day", "days"),
        (
            {"processors": {"a": {"failures": {"KeyError": {"retrys": 1}}}}},
            "processors.a.failures.KeyError.retrys",
            "retries",
        ),
        ({"log": {"levle": 1}}, "log.levle", "level"),
    ],
)
def test_an_unknown_setting_names_the_nearest_known_one(table: dict[str, Any], path: str, nearest: str) -> None:
    assert refusal(table) == f"configuration: {path}: unknown setting; did you mean {nearest}?"


@pytest.mark.parametrize("key", ["base", "path", "secrets", "zzzzzz"])
def test_an_unknown_setting_that_is_near_to_none_lists_what_is_known(key: str) -> None:
    assert "known are source, state, block" in refusal({key: "x"}) or "did you mean" in refusal({key: "x"})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"source": 3}, 'source: expected text such as "kafka://localhost:9092", got a number'),
        ({"source": None}, 'source: expected text such as "kafka://localhost:9092", got nothing'),
        ({"state": "folder"}, "state: does not begin with a scheme"),
        ({"block": "x"}, "block: expected a list of text, got text"),
        ({"block": ["a", 3]}, "block[1]: expected text, got a number"),
        ({"block": ["Not-A-Name"]}, "block[0]: is no name of a processor or plugin, or a pattern such as study-*"),
        ({"allow": ["-x"]}, "allow[0]: is no name of a distribution"),
        ({"host": []}, "host: expected a table, got a list"),
        (
            {"host": {"workers": "many"}},
            "at least 1, at most 10000, got another text",
        ),
        ({"host": {"workers": 0}}, "got 0"),
        ({"host": {"workers": True}}, "got true or false"),
        ({"host": {"shutdown_s": -1}}, "host.shutdown_s: expected a number of at least 0, got -1"),
        ({"host": {"shutdown_s": float("nan")}}, "got nan"),
        ({"host": {"wait_s": float("inf")}}, "got inf"),
        ({"topics": {"a b": {}}}, "is no name of a topic"),
        ({"topics": {"..": {}}}, "is no name of a topic"),
        ({"topics": {"a": {"decode": "json"}}}, "topics.a.decode: expected a list of text, got text"),
        ({"topics": {"a": {"decode": ["json", 1]}}}, "topics.a.decode[1]: expected text, got a number"),
        ({"topics": {"a": {"max_bytes": 0}}}, "topics.a.max_bytes: expected a whole number of at least 1, got 0"),
        ({"topics": {"env": "a"}}, "topics.env: expected a table, got text"),
        ({"processors": {"Study": {}}}, "processors.Study: is no name"),
        ({"processors": {"a/b": {}}}, 'processors."a/b": is no name'),
        ({"processors": {"x" * 64: {}}}, "is no name"),
        ({"processors": {"a\n": {}}}, 'processors."a\\n": is no name'),
        ({"processors": {"a": {"enabled": 1}}}, "processors.a.enabled: expected true or false, got a number"),
        ({"processors": {"a": {"retries": 1.5}}}, "processors.a.retries: expected a whole number of at least 0"),
        ({"processors": {"a": {"retries": 10**5000}}}, "got a larger one"),
        ({"processors": {"a": {"handler_timeout_s": 0}}}, "expected a number above 0, got 0"),
        ({"processors": {"a": {"memory_mb": "1G"}}}, "expected a whole number of at least 1, got text"),
        ({"processors": {"a": {"cache_mb": -1}}}, "a.cache_mb: expected a whole number of at least 0, got -1"),
        ({"processors": {"a": {"cache_mb": 1.5}}}, "a.cache_mb: expected a whole number of at least 0, got 1.5"),
        ({"processors": {"a": {"backoff_s": [1]}}}, "expected a list of 2, each a number of at least 0, got 1 items"),
        ({"processors": {"a": {"backoff_s": [1, -1]}}}, "processors.a.backoff_s[1]: expected a number"),
        ({"processors": {"a": {"backoff_s": [9, 1]}}}, "expected the shorter pause first"),
        ({"processors": {"a": {"batch": 5}}}, "processors.a.batch: expected a table, got a number"),
        ({"processors": {"a": {"batch": {"events": 0}}}}, "processors.a.batch.events: expected a whole number"),
        (
            {"processors": {"a": {"flood": {"share": 2}}}},
            "processors.a.flood.share: expected a number above 0, at most 1",
        ),
        ({"processors": {"a": {"on_misfit": "skip"}}}, "processors.a.on_misfit: expected a table, got text"),
        ({"processors": {"a": {"dead_letters": {"topic": "a b"}}}}, "a.dead_letters.topic: is no name of a topic"),
        ({"processors": {"a": {"dead_letters": 30}}}, "processors.a.dead_letters: expected a table, got a number"),
        ({"processors": {"a": {"dead_letters": {"days": 0}}}}, "days: expected a number above 0, at most 36525, got 0"),
        ({"processors": {"a": {"dead_letters": {"days": 1e9}}}}, "a number above 0, at most 36525, got 1000000000.0"),
        (
            {"processors": {"a": {"dead_letters": {"rows": 0}}}},
            "dead_letters.rows: expected a whole number of at least 1, got 0",
        ),
        ({"processors": {"a": {"dead_letters": {"rows": 1.5}}}}, "expected a whole number of at least 1, got 1.5"),
        (
            {"processors": {"a": {"on_misfit": {"version_changed": "skip"}}}},
            'processors.a.on_misfit.version_changed: expected "halt" or "rebuild", got another text',
        ),
        ({"processors": {"a": {"failures": 5}}}, "processors.a.failures: expected a table, got a number"),
        ({"processors": {"a": {"failures": {"KeyError": "reject"}}}}, "failures.KeyError: expected a table, got text"),
        ({"processors": {"a": {"failures": {"a b": {}}}}}, 'processors.a.failures."a b": is no name of an exception'),
        (
            {"processors": {"a": {"failures": {"json.JSONDecodeError": {"backoff_s": [2, 1]}}}}},
            'processors.a.failures."json.JSONDecodeError".backoff_s: expected the shorter pause first',
        ),
        ({"processors": {"a": {"start": "noon"}}}, "processors.a.start: expected earliest, latest or an ISO time"),
        ({"processors": {"a": {"on_failure": "ignore"}}}, '"reject"'),
        ({"processors": {"a": {"topics": ["/x"]}}}, "processors.a.topics[0]: expected a topic, or topic/event type"),
        ({"processors": {"a": {"topics": ["x/"]}}}, "processors.a.topics[0]: expected a topic"),
        ({"processors": {"a": {"plugins": ["X"]}}}, "processors.a.plugins[0]: expected a name"),
        ({"processors": {"a": {"settings": 5}}}, "processors.a.settings: expected a table, got a number"),
        ({"processors": {"a": {1: 5}}}, "processors.a: has a key that is no text"),
        ({"plugins": {"sentry": "x"}}, "plugins.sentry: expected a table, got text"),
        ({"plugins": {"Sentry": {}}}, "plugins.Sentry: is no name"),
        ({"kafka": {"a.b": [1]}}, 'kafka."a.b": expected text, a number, true or false, got a list'),
        ({"kafka": {"a.b": {}}}, 'kafka."a.b": expected text, a number, true or false, got a table'),
        ({"kafka": {"a b": 1}}, "is no property of librdkafka"),
        ({"kafka": {"a.b": 1, "a": {"b": 2}}}, "is written twice"),
        ({"log": {"level": "loud"}}, '"warning"'),
    ],
)
def test_a_wrong_value_says_where_it_is_and_what_was_expected(table: dict[str, Any], said: str) -> None:
    assert said in refusal(table)


@pytest.mark.parametrize("missing", ["source", "state"])
def test_a_missing_source_or_state_says_what_to_write(missing: str) -> None:
    table = {key: value for key, value in BASE.items() if key != missing}

    with pytest.raises(ConfigError, match=f'{missing}: is missing; write for example {missing} = "'):
        load(table)


def test_settings_that_are_too_deep_are_refused_and_so_are_cycles() -> None:
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle

    assert "nested too deeply" in refusal({"plugins": {"x": cycle}})
    assert "nested too deeply" in refusal({"kafka": cycle})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("plugin.library.paths", "loads code"),
        ("ssl.engine.location", "loads code"),
        ("ssl.providers", "loads code"),
        ("sasl.kerberos.kinit.cmd", "runs a command"),
        ("test.mock.num.brokers", "mock"),
        ("enable.auto.commit", "committed with the state"),
        ("auto.commit.enable", "committed with the state"),
        ("enable.auto.offset.store", "committed with the state"),
        ("auto.offset.reset", "use `start`"),
        ("group.id", "use `group`"),
        ("bootstrap.servers", "`source`"),
        ("metadata.broker.list", "`source`"),
        ("enable.partition.eof", "everything"),
        ("isolation.level", "aborted"),
        ("allow.auto.create.topics", "no topics"),
        ("default.topic.config", "under [kafka]"),
        ("topic.auto.offset.reset", "use `start`"),
        ("stats.some_cb", "takes a function"),
    ],
)
def test_properties_that_run_code_or_break_the_promise_are_refused_with_the_reason(name: str, reason: str) -> None:
    first, _, rest = name.partition(".")

    assert f'kafka."{name}": is refused' in refusal({"kafka": {name: "x"}})
    assert reason in refusal({"kafka": {name: "x"}})
    assert reason in refusal({"kafka": {first: {rest: "x"}}})


# --- secrets


def test_secrets_come_from_the_environment_and_from_files(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", CANARY)
    write(f"{CANARY} \r\n", "conf/secret.txt")
    path = write(
        """
        source = { env = "A_URL" }
        state = "memory:"
        allow = [{ env = "A_NAME" }]
        [kafka]
        "sasl.password" = { file = "secret.txt" }
        sasl.username = { env = "A_SECRET" }
        [topics.t]
        schema = { env = "A_SECRET" }
        [processors.p]
        settings = { list = [{ env = "A_SECRET" }], deep = { er = { file = "secret.txt" } } }
        [plugins.x]
        dsn = { env = "A_SECRET" }
        """,
        "conf/axe.toml",
    )
    monkeypatch.setenv("A_URL", "kafka://user:pass-word@h")
    monkeypatch.setenv("A_NAME", "axe-studies")

    config = load(path)

    assert (config.source, config.allow) == ("kafka://user:pass-word@h", ("axe-studies",))
    assert config.kafka == {"sasl.password": f"{CANARY} ", "sasl.username": CANARY}
    assert config.topic("t").schema == CANARY
    assert config.processor("p").settings == {"list": [CANARY], "deep": {"er": f"{CANARY} "}}
    assert config.plugins == {"x": {"dsn": CANARY}}
    assert {CANARY, f"{CANARY} "} <= config.secrets


def test_a_table_of_settings_may_have_a_key_named_env_or_file() -> None:
    config = load(
        {
            **BASE,
            "plugins": {"x": {"env": "production"}},
            "processors": {"p": {"settings": {"file": "study.txt"}}},
        }
    )

    assert config.plugins == {"x": {"env": "production"}}
    assert config.processor("p").settings == {"file": "study.txt"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"state": {"env": "NOT_SET"}}, "state: the environment variable NOT_SET is not set"),
        (
            {"plugins": {"x": {"a": [{"env": "NOT_SET"}]}}},
            "plugins.x.a[0]: the environment variable NOT_SET is not set",
        ),
        ({"kafka": {"sasl.password": {"file": "gone"}}}, "kafka.\"sasl.password\": the file 'gone' cannot be read"),
        ({"plugins": {"x": {"a": {"file": "."}}}}, "plugins.x.a: the file '.' cannot be read"),
        ({"plugins": {"x": {"a": {"file": "a\0"}}}}, "it is no path"),
    ],
)
def test_a_secret_that_is_not_there_names_the_setting_and_where_it_should_come_from(
    table: dict[str, Any], said: str
) -> None:
    assert said in refusal(table)


@pytest.mark.parametrize("content", [b"\xff", b"x" * (1 << 20) + b"x"])
def test_a_file_that_can_be_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)

    assert "plugins.x.a: the file 'secret' is" in refusal({"plugins": {"x": {"a": {"file": "secret"}}}})


def test_a_secret_written_where_its_name_belongs_is_not_repeated() -> None:
    assert CANARY not in refusal({"state": {"env": CANARY}})


def test_a_wrong_value_is_never_shown() -> None:
    for table in (
        {"state": CANARY},
        {"block": [CANARY]},
        {"host": {"workers": CANARY}},
        {"processors": {"p": {"on_failure": CANARY}}},
        {"processors": {"p": {"start": CANARY}}},
        {"processors": {"p": {"retries": CANARY}}},
        {"processors": {"p": {"topics": [CANARY]}}},
        {"processors": {"p": {"plugins": [CANARY]}}},
        {"log": CANARY},
    ):
        assert CANARY not in refusal(table)


def test_a_configuration_does_not_show_its_secrets_when_printed() -> None:
    config = load(
        {
            **BASE,
            "state": f"postgresql://u:{CANARY}@h/d",
            "plugins": {"x": {"dsn": CANARY}},
            "processors": {"p": {"state": f"sqlite:{CANARY}", "settings": {"token": CANARY}}},
        }
    )

    assert CANARY not in f"{config!r} {config} {config.processor('p')!r}"


def test_values_under_keys_that_sound_secret_and_passwords_of_urls_are_known_as_secrets() -> None:
    config = load(
        {
            **BASE,
            "state": "postgresql://u:p%40ss@h/d",
            "kafka": {"sasl": {"password": "in-the-file"}},
            "plugins": {"x": {"credentials": {"name": "n-ame", "list": ["l-ist"]}, "plain": "p-lain"}},
            "topics": {"t": {"key": ["string"]}},
        }
    )

    assert config.secrets == {"p%40ss", "p@ss", "in-the-file", "n-ame", "l-ist"}


TEXT = st.text(max_size=6) | st.sampled_from([CANARY, "earliest", "json", "memory:", "a", "*"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.datetimes() | st.binary(max_size=3)
KEYS = st.text(max_size=5) | st.sampled_from(
    [
        *Config.__struct_fields__,
        *HostConfig.__struct_fields__,
        *TopicConfig.__struct_fields__,
        *ProcessorConfig.__struct_fields__,
        *BatchConfig.__struct_fields__,
        "env",
        "study-counter",
        "security.protocol",
    ]
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)
LIKELY = st.fixed_dictionaries(
    {"source": st.just("memory:") | NESTED, "state": st.just("memory:") | NESTED},
    optional={
        "block": NESTED,
        "allow": NESTED,
        "log": NESTED,
        "kafka": NESTED,
        "host": st.dictionaries(st.sampled_from(HostConfig.__struct_fields__), NESTED, max_size=1),
        "topics": st.dictionaries(
            st.just("t") | KEYS, st.dictionaries(st.sampled_from(TopicConfig.__struct_fields__), NESTED, max_size=1)
        ),
        "processors": st.dictionaries(
            st.just("p") | KEYS,
            st.dictionaries(st.sampled_from(ProcessorConfig.__struct_fields__), NESTED, max_size=2),
        ),
        "plugins": st.dictionaries(st.just("x") | KEYS, NESTED, max_size=2),
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, NESTED, max_size=5) | LIKELY)
def test_any_mapping_loads_or_says_in_one_line_what_is_wrong_without_its_values(table: dict[str, Any]) -> None:
    try:
        config = load(table)
    except ConfigError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 1000
        assert CANARY not in message
    else:
        assert CANARY not in repr(config)


# --- the small ones


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", "earliest"),
        (" Latest ", "latest"),
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01 12:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_start_is_a_word_or_a_time_in_utc(text: str, start: object) -> None:
    assert parse_start(text) == start


@pytest.mark.parametrize("text", ["", "now", "12:00", "2026-13-01", "0001-01-01T00:00:00+10:00", "5"])
def test_a_start_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected earliest, latest or an ISO time"):
        parse_start(text)


@pytest.mark.parametrize(
    ("kafka", "lines"),
    [
        ({}, 0),
        ({"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}, 0),
        ({"enable.ssl.certificate.verification": False}, 1),
        ({"enable.ssl.certificate.verification": "FALSE"}, 1),
        ({"ssl.endpoint.identification.algorithm": "none"}, 1),
        ({"enable.ssl.certificate.verification": "0", "ssl.endpoint.identification.algorithm": "None"}, 2),
    ],
)
def test_verification_that_is_turned_off_is_said(kafka: dict[str, object], lines: int) -> None:
    assert len(tls_warnings(kafka)) == lines


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:state", "sqlite:state"),
        ("memory:", "memory:"),
        ("kafka://a:9092,b:9092", "kafka://a:9092,b:9092"),
        ("kafka://u:pw@a:9092,b:9092", "kafka://u:***@a:9092,b:9092"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg://u:pw@h:5432/d?sslmode=require", "postgresql+psycopg://u:***@h:5432/d?sslmode=require"),
        ("postgresql://u:p/w?x#y@z@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=pw&sslmode=x", "postgresql://h/d?user=u&password=***&sslmode=x"),
        ("postgresql://h/d?pass%77ord=pw", "postgresql://h/d?pass%77ord=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dpw", "mssql+pyodbc:///?odbc_connect=***"),
        ("host=h password='p w'", "host=h password=***"),
        ("mysql://:pw@h", "mysql://:***@h"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize("key", ["password", "SSLPassword", "sasl.oauthbearer.client.secret", "api-key", "x_key"])
def test_some_keys_sound_secret(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize("key", ["key", "topic", "monkey", "processor", "ssl.ca.location", "keys"])
def test_others_do_not(key: str) -> None:
    assert not looks_secret(key)


def test_the_configuration_needs_none_of_the_packages_that_take_long_to_import() -> None:
    code = "import sys, axe.config.loading; print(*{name.partition('.')[0] for name in sys.modules})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    slow = {"confluent_kafka", "fastavro", "pydantic", "rich", "sqlalchemy", "stevedore", "structlog", "typer"}
    assert not slow & set(done.stdout.split())


def test_a_processor_without_any_topic_is_refused() -> None:
    assert "processors.p.topics: names no topic" in refusal({"processors": {"p": {"topics": []}}})
