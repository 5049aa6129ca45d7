"""The configuration: `axe.toml`, checked before anything is opened.

Whatever is wrong is a ConfigError of one line that names the setting by its path, says what
was expected, and shows no value that could be a secret.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, unquote_plus

import msgspec

from .errors import ConfigError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
"""What a processor or plugin may be called: its name becomes a file, a schema and a process title."""

_PATTERN = re.compile(r"[a-z0-9_*?\[\]!-]{1,200}\Z")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,200}[A-Za-z0-9])?\Z")
_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PROPERTY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\Z")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_URL = re.compile(r"[a-z][a-z0-9+._-]*:")
# A raw password may hold "/", "?", "#" and "@", so the last "@" ends it, not urllib's idea of it.
_URL_PASSWORD = re.compile(r"(://[^:/@?#\s]*):(.*)@", re.DOTALL)
_SECRET_KEY = re.compile(
    r"passw|pwd|passphrase|secret|token|credential|cookie|authorization|dsn|api_?key|ssl_?key|odbc_connect"
    r"|jaas|oauthbearer\.config|user\.info|[._-]key$|\.pem$"
)

_DEEPEST = 64
_LARGEST_SECRET_FILE = 1 << 20
_TOO_LONG_TO_SHOW = 10**18

_REFUSED_PROPERTIES = {
    **dict.fromkeys(("plugin.library.paths", "ssl.engine.location", "ssl.providers"), "it loads code; remove it"),
    "sasl.kerberos.kinit.cmd": "it runs a command; run kinit beside axe instead",
    **dict.fromkeys(
        ("enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store"),
        "positions are committed with the state and nowhere else; remove it",
    ),
    "auto.offset.reset": "a lost position is never replaced by a guess; "
    "use `start` in the processor's table for where a new one begins",
    "group.id": "each processor has its own group; use `group` in the processor's table",
    "bootstrap.servers": "the brokers stand in `source`",
    "metadata.broker.list": "the brokers stand in `source`",
}

# The upper bounds are beyond any use; they keep infinities and overflows out of the C code
# that waits and allocates.
_SECONDS_OF_30_YEARS = 1e9
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_SECONDS_OF_30_YEARS)]
_PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=_SECONDS_OF_30_YEARS)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[host]`: how the processors are spread over processes, and how long the host waits."""

    workers: Literal["processes", "threads"] | Annotated[int, msgspec.Meta(ge=1, le=10_000)] = "processes"
    shutdown_s: _Seconds = 10
    wait_s: _Seconds = 60


class TopicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[topics.NAME]`: how the records of a topic decode."""

    key: tuple[str, ...] = ()
    decode: tuple[str, ...] = ("json",)
    schema: str | None = None
    event_type: str | None = None
    max_bytes: _Count = 16_000_000
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`batch`: what ends a batch, whichever comes first."""

    events: _Count = 1000
    bytes: _Count = 4_000_000
    time_s: _Seconds = 0.5


class ProcessorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[processors.NAME]`: what one processor reads, where its state lies, what a failure means."""

    enabled: bool = True
    topics: tuple[str, ...] | None = None
    state: str | None = None
    start: str = "earliest"
    on_failure: Literal["stop", "reject", "pause"] = "stop"
    retries: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 3
    handler_timeout_s: _PositiveSeconds = 300
    memory_mb: _Count | None = None
    group: str | None = None
    backoff_s: tuple[_Seconds, _Seconds] = (0.1, 30)
    batch: BatchConfig = BatchConfig()
    plugins: tuple[str, ...] | None = None
    settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        # The generated one would carry `state` and `settings`, secrets included, into any log.
        return "<ProcessorConfig>"


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[log]`: what is said on stderr, and in which form."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration.

    ``base`` is the folder that relative paths are relative to; ``path`` is the file, None
    for a mapping. ``secrets`` are the values to keep out of anything shown: what came from
    ``{ env = … }`` and ``{ file = … }``, and what stands under a key that sounds secret.
    """

    source: str
    state: str
    block: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    host: HostConfig = HostConfig()
    kafka: dict[str, str | int | float | bool] = {}
    topics: dict[str, TopicConfig] = {}
    processors: dict[str, ProcessorConfig] = {}
    plugins: dict[str, dict[str, Any]] = {}
    log: LogConfig = LogConfig()
    base: Path
    path: Path | None = None
    secrets: frozenset[str] = frozenset()

    def processor(self, name: str) -> ProcessorConfig:
        """Return the settings of a processor; the defaults where the file says nothing."""
        return self.processors.get(name, ProcessorConfig())

    def topic(self, name: str) -> TopicConfig:
        """Return the settings of a topic; the defaults where the file says nothing."""
        return self.topics.get(name, TopicConfig())

    def resolve(self, path: str | Path) -> Path:
        """Make a path of the configuration absolute: relative ones start at ``base``, ``~`` is home."""
        path = Path(path)
        return self.base / (path.expanduser() if path.parts[:1] == ("~",) else path)

    def __repr__(self) -> str:
        # See ProcessorConfig.__repr__.
        return f"<Config {self.path or 'from a mapping'}>"


def load(config: str | Path | Mapping[str, Any] | None = None) -> Config:
    """Read and check the configuration.

    ``None`` takes the file that ``AXE_CONFIG`` names, else ``axe.toml`` of the working
    directory. A mapping is taken as it is; its relative paths start at the working directory.

    Raises:
        ConfigError: there is none, it cannot be read, or something in it is wrong.
    """
    if isinstance(config, Mapping):
        return _Loader("configuration", Path.cwd(), None).load(config)
    path, asked = _find(config)
    return _Loader(str(path), path.parent, path).load(_read_toml(path, asked))


def parse_start(text: str) -> Literal["earliest", "latest"] | datetime:
    """Read a place in time: ``earliest``, ``latest``, or an ISO time, UTC where it names no zone.

    Raises:
        ConfigError: it is none of them.
    """
    match text.strip().lower():
        case "earliest":
            return "earliest"
        case "latest":
            return "latest"
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        message = "expected earliest, latest or an ISO time such as 2026-03-01T12:00:00Z"
        raise ConfigError(message) from None


def tls_warnings(kafka: Mapping[str, object]) -> list[str]:
    """List what to say aloud at every start: each way in which `[kafka]` weakens TLS."""
    said = []
    values = {name: str(value).strip().lower() for name, value in kafka.items()}
    if values.get("enable.ssl.certificate.verification") in {"false", "0", "f"}:
        said.append(
            'TLS certificates of the brokers are not verified ([kafka] "enable.ssl.certificate.verification"): '
            "anybody in between can read and change events; remove the setting"
        )
    if values.get("ssl.endpoint.identification.algorithm") == "none":
        said.append(
            'The host names of the brokers are not verified ([kafka] "ssl.endpoint.identification.algorithm"): '
            "any holder of a certificate can pose as a broker; remove the setting"
        )
    return said


def looks_secret(key: str) -> bool:
    """Tell whether the value under this key should never be shown."""
    return _SECRET_KEY.search(key.lower()) is not None


def masked_url(url: str) -> str:
    """Show a URL without its secrets: the password, and values of the query that sound secret.

    Where a URL can be read in two ways, the reading that hides more is taken.
    """
    return _masked_query(_URL_PASSWORD.sub(r"\1:***@", url, count=1))


def _masked_query(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        start, key, value = match.groups()
        # A secret goes on to the next separator, blanks included: it may be quoted.
        return f"{start}{key}={'***' if looks_secret(unquote_plus(key)) else _masked_query(value)}"

    return re.sub(r"([?&;#\s]|^)([^=&;?#\s]+)=([^&;]*)", mask, text)


def _find(config: str | Path | None) -> tuple[Path, str]:
    """Return the file to read, absolute, and how it was asked for."""
    if config is not None:
        return Path(config).absolute(), "--config"
    if named := os.environ.get("AXE_CONFIG"):
        return Path(named).absolute(), "AXE_CONFIG"
    return Path.cwd() / "axe.toml", ""


def _read_toml(path: Path, asked: str) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError:
        where = f"{asked} names {path}, which does not exist" if asked else f"no configuration at {path}"
        advice = 'write one with the lines source = "file:FOLDER" and state = "sqlite:FOLDER"'
        message = f"{where}: {advice}, or name another with --config FILE or AXE_CONFIG"
        raise ConfigError(message) from None
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        raise ConfigError(message) from None
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: not valid TOML: {str(error).splitlines()[0]}"
        raise ConfigError(message) from None
    except RecursionError:
        message = f"{path}: nested too deeply; flatten it"
        raise ConfigError(message) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        message = f"{path}: cannot be read ({reason}); name another with --config FILE or AXE_CONFIG"
        raise ConfigError(message) from error


_Table = TypeVar("_Table", HostConfig, TopicConfig, ProcessorConfig, LogConfig)


class _Loader:
    """One load: turns tables into structs and remembers the secrets it saw on the way."""

    def __init__(self, where: str, base: Path, path: Path | None) -> None:
        self.where = where
        self.base = base
        self.path = path
        self.secrets: set[str] = set()

    def load(self, table: Mapping[str, Any]) -> Config:
        self.refuse_unknown_keys("", table, [f for f in Config.__struct_fields__ if f not in _NOT_IN_FILE])
        block = self.names("block", table, _PATTERN, "name of a processor or plugin, or a pattern such as study-*")
        topics, processors = self.tables("topics", table), self.tables("processors", table)
        for name in topics:
            if not _TOPIC.match(name):
                raise self.error(_join("topics", name), "is no name of a topic (letters, digits, '.', '_', '-')")
        for name in processors:
            self.check_name(_join("processors", name), name)
        return Config(
            source=self.url("source", table, "kafka://localhost:9092"),
            state=self.url("state", table, "sqlite:state"),
            block=block or (),
            allow=self.names("allow", table, _DISTRIBUTION, "name of a distribution"),
            host=self.struct("host", table.get("host", {}), HostConfig),
            kafka=self.kafka(table.get("kafka", {})),
            topics={k: self.struct(_join("topics", k), v, TopicConfig) for k, v in topics.items()},
            processors={k: self.processor(k, v) for k, v in processors.items()},
            plugins=self.plugins(table),
            log=self.struct("log", table.get("log", {}), LogConfig),
            base=self.base,
            path=self.path,
            secrets=frozenset(self.secrets),
        )

    # --- the parts

    def url(self, path: str, table: Mapping[str, Any], example: str) -> str:
        if path not in table:
            raise self.error(path, f'is missing; write for example {path} = "{example}"')
        url = self.resolved(path, table[path], path)
        if not isinstance(url, str):
            raise self.wrong_type(path, f'text such as "{example}"', url)
        if not _URL.match(url):
            raise self.error(path, f'does not begin with a scheme; write for example {path} = "{example}"')
        return url

    def names(self, path: str, table: Mapping[str, Any], form: re.Pattern[str], what: str) -> tuple[str, ...] | None:
        if table.get(path) is None:
            return None
        names = self.resolved(path, table[path], path)
        if not isinstance(names, list):
            raise self.wrong_type(path, "a list of text", names)
        for index, name in enumerate(names):
            if not isinstance(name, str):
                raise self.wrong_type(f"{path}[{index}]", "text", name)
            if not form.match(name):
                raise self.error(f"{path}[{index}]", f"is no {what}")
        return tuple(names)

    def tables(self, path: str, table: Mapping[str, Any]) -> dict[str, Any]:
        return self.table(path, table.get(path, {}))

    def table(self, path: str, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self.wrong_type(path, "a table", value)
        for key in value:
            if not isinstance(key, str):
                raise self.error(path or "the top level", "has a key that is no text")
        return dict(value)

    def processor(self, name: str, value: object) -> ProcessorConfig:
        path = _join("processors", name)
        table = self.table(path, value)
        if isinstance(table.get("start"), date | time):
            # TOML has times of its own, and nobody should have to know that ours goes in quotes.
            table["start"] = table["start"].isoformat()
        config = self.struct(path, table, ProcessorConfig)
        try:
            parse_start(config.start)
        except ConfigError as error:
            raise self.error(f"{path}.start", str(error)) from None
        if config.backoff_s[0] > config.backoff_s[1]:
            raise self.error(f"{path}.backoff_s", "expected the shorter pause first, then the longest one")
        for index, topic in enumerate(config.topics or ()):
            if not (_TOPIC.match(topic.partition("/")[0]) and not topic.endswith("/")):
                raise self.error(f"{path}.topics[{index}]", "expected a topic, or topic/event type")
        for index, plugin in enumerate(config.plugins or ()):
            self.check_name(f"{path}.plugins[{index}]", plugin, shown=False)
        return config

    def plugins(self, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        plugins = {}
        for name, value in self.tables("plugins", table).items():
            path = _join("plugins", name)
            self.check_name(path, name)
            plugins[name] = self.settings(path, value)
        return plugins

    def settings(self, path: str, value: object) -> dict[str, Any]:
        """Resolve what stands in a table of settings; the table itself is never a reference."""
        return {key: self.resolved(_join(path, key), item, key) for key, item in self.table(path, value).items()}

    def kafka(self, value: object) -> dict[str, str | int | float | bool]:
        flat: dict[str, str | int | float | bool] = {}
        for name, item in _flattened(self.settings("kafka", value)):
            path = _join("kafka", name)
            if not _PROPERTY.match(name):
                raise self.error(path, "is no property of librdkafka, such as security.protocol")
            if name in flat:
                raise self.error(path, "is written twice, with and without quotes; keep one")
            if reason := _refusal(name):
                raise self.error(path, f"is refused: {reason}")
            if not isinstance(item, str | int | float) or (isinstance(item, float) and not math.isfinite(item)):
                raise self.wrong_type(path, "text, a number, true or false", item)
            flat[name] = item
        return flat

    # --- from tables to structs

    def struct(self, path: str, value: object, kind: type[_Table]) -> _Table:
        table = self.table(path, value)
        self.refuse_unknown_keys(path, table, kind.__struct_fields__)
        settings = self.settings(f"{path}.settings", table.pop("settings")) if "settings" in table else None
        batch = self.table(f"{path}.batch", table["batch"]) if "batch" in table else None
        if batch is not None:
            self.refuse_unknown_keys(f"{path}.batch", batch, BatchConfig.__struct_fields__)
            table["batch"] = self.settings(f"{path}.batch", batch)
        # TOML has no None; in a mapping it stands for a setting that is not written.
        plain = {
            key: item if key == "batch" else self.resolved(_join(path, key), item, key)
            for key, item in table.items()
            if item is not None
        }
        if settings is not None:
            plain["settings"] = settings
        try:
            return msgspec.convert(plain, kind)
        except msgspec.ValidationError as error:
            raise self.explained(path, plain, kind, error) from None

    def explained(
        self, path: str, table: dict[str, Any], kind: type[msgspec.Struct], error: msgspec.ValidationError
    ) -> ConfigError:
        # msgspec's own message quotes the value when it is none of the allowed ones.
        place = re.search(r" - at `\$\.?(.*)`\Z", str(error))
        steps = re.findall(r"[^.\[\]]+", place[1]) if place else []
        expected: Any = msgspec.inspect.type_info(kind)
        found: Any = table
        for step in steps:
            expected = _member(expected, step)
            found = found[int(step)] if isinstance(found, list | tuple) else found[step]
        if isinstance(found, list | tuple):
            return self.error(_join_steps(path, steps), f"expected {_described(expected)}, got {len(found)} items")
        return self.wrong_type(_join_steps(path, steps), _described(expected), found)

    def resolved(self, path: str, value: object, key: str, *, secret: bool = False, depth: int = 0) -> Any:
        """Put the secrets in the place of their references, lists and inner tables included."""
        secret = secret or looks_secret(key)
        if depth > _DEEPEST:
            raise self.error(path, "is nested too deeply; flatten it")
        if isinstance(value, Mapping):
            table = self.table(path, value)
            if len(table) == 1 and isinstance(table.get("env"), str):
                return self.remember(self.from_environment(path, table["env"]))
            if len(table) == 1 and isinstance(table.get("file"), str):
                return self.remember(self.from_file(path, table["file"]))
            return {
                inner: self.resolved(_join(path, inner), item, inner, secret=secret, depth=depth + 1)
                for inner, item in table.items()
            }
        if isinstance(value, list | tuple):
            return [
                self.resolved(f"{path}[{index}]", item, key, secret=secret, depth=depth + 1)
                for index, item in enumerate(value)
            ]
        if isinstance(value, str):
            if secret:
                self.remember(value)
            elif password := _URL_PASSWORD.search(value):
                self.remember(password[2])
                self.remember(unquote(password[2]))
        return value

    def remember(self, secret: str) -> str:
        self.secrets.add(secret)
        return secret

    def from_environment(self, path: str, name: str) -> str:
        if not _VARIABLE.match(name):
            # Not shown: somebody may have written the secret itself here.
            raise self.error(path, "`env` must be the name of an environment variable")
        if name not in os.environ:
            raise self.error(path, f"the environment variable {name} is not set; set it and start again")
        return os.environ[name]

    def from_file(self, path: str, name: str) -> str:
        try:
            with (self.base / Path(name).expanduser()).open("rb") as file:
                content = file.read(_LARGEST_SECRET_FILE + 1)
            if len(content) > _LARGEST_SECRET_FILE:
                raise self.error(path, f"the file {name!r} is larger than a secret can be")
            return content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise self.error(path, f"the file {name!r} is not UTF-8 text") from None
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no path"
            raise self.error(path, f"the file {name!r} cannot be read ({reason})") from None

    # --- what is wrong

    def error(self, path: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.where}: {path}: {problem}")

    def wrong_type(self, path: str, expected: str, found: object) -> ConfigError:
        got = _kind(found)
        if isinstance(found, int | float) and "number" in expected:
            got = str(found) if isinstance(found, float) or abs(found) < _TOO_LONG_TO_SHOW else "a larger one"
        elif isinstance(found, str) and '"' in expected:
            got = "another text"
        return self.error(path, f"expected {expected}, got {got}")

    def check_name(self, path: str, name: str, *, shown: bool = True) -> None:
        if not NAME.match(name):
            what = "is no name" if shown else "expected a name"
            raise self.error(path, f"{what}: a small letter, then at most 62 of a-z, 0-9, '_' and '-'")

    def refuse_unknown_keys(self, path: str, table: Mapping[str, Any], known: tuple[str, ...] | list[str]) -> None:
        for key in self.table(path, table):
            if key not in known:
                near = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.5)
                advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self.error(_join(path, key), f"unknown setting; {advice}")


_NOT_IN_FILE = frozenset({"base", "path", "secrets"})


def _refusal(name: str) -> str | None:
    if name.startswith("test.mock."):
        return "it replaces the brokers by a mock; remove it"
    return _REFUSED_PROPERTIES.get(name.removeprefix("topic."))


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names: TOML makes tables of `security.protocol` without quotes."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _join(path: str, key: str) -> str:
    if not _BARE_KEY.match(key):
        # One line, of bounded length, whatever the key holds.
        key = ascii(key if len(key) <= 60 else f"{key[:60]}…")[1:-1].replace('"', '\\"')
        key = f'"{key}"'
    return f"{path}.{key}" if path else key


def _join_steps(path: str, steps: list[str]) -> str:
    for step in steps:
        path = f"{path}[{step}]" if step.isdigit() else _join(path, step)
    return path


def _kind(value: object) -> str:
    """Name the kind of a value in the words of TOML, never the value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a table"
        case date() | time():
            return "a date or time"
    return f"a {type(value).__name__}"


def _member(expected: Any, step: str) -> Any:
    """Follow one step of a path through msgspec's description of a type."""
    for kind in expected.types if isinstance(expected, msgspec.inspect.UnionType) else (expected,):
        match kind:
            case msgspec.inspect.StructType():
                return next(field.type for field in kind.fields if field.encode_name == step)
            case msgspec.inspect.VarTupleType():
                return kind.item_type
            case msgspec.inspect.TupleType():
                return kind.item_types[int(step)]
    return expected


def _described(expected: Any) -> str:
    """Say what a setting takes, in words."""
    match expected:
        case msgspec.inspect.UnionType():
            return " or ".join(_described(kind) for kind in expected.types if not _is_none(kind))
        case msgspec.inspect.LiteralType():
            return " or ".join(f'"{value}"' for value in expected.values)
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return _described_number(expected)
        case msgspec.inspect.VarTupleType():
            return f"a list of {_described(expected.item_type)}"
        case msgspec.inspect.TupleType():
            return f"a list of {len(expected.item_types)}, each {_described(expected.item_types[0])}"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.StrType():
            return "text"
    return "a table"


def _described_number(expected: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    words = "a whole number" if isinstance(expected, msgspec.inspect.IntType) else "a number"
    if expected.gt is not None:
        words += f" above {expected.gt:g}"
    if expected.ge is not None:
        words += f" of at least {expected.ge:g}"
    if expected.le is not None and expected.le < _SECONDS_OF_30_YEARS:
        words += f", at most {expected.le:g}"
    return words


def _is_none(kind: object) -> bool:
    return isinstance(kind, msgspec.inspect.NoneType)
