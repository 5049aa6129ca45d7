"""From `axe.toml`, or a mapping, to a checked configuration."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError
from .file import find_file, read_toml
from .masking import looks_secret, passwords_of
from .model import (
    NAME,
    TOPIC,
    Config,
    FailureConfig,
    HostConfig,
    LogConfig,
    ProcessorConfig,
    TopicConfig,
    parse_start,
    tables_in,
)
from .properties import flattened, refusal
from .wording import described, did_you_mean, join, join_steps, kind_of, member

_PATTERN = re.compile(r"[a-z0-9_*?\[\]!-]{1,200}\Z")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,200}[A-Za-z0-9])?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_EXCEPTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
_PROPERTY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\Z")
_URL = re.compile(r"[a-z][a-z0-9+._-]*:")

_DEEPEST = 64
_LARGEST_SECRET_FILE = 1 << 20
_TOO_LONG_TO_SHOW = 10**18

_NOT_IN_FILE = frozenset({"base", "path", "secrets"})


def load(config: str | Path | Mapping[str, Any] | None = None) -> Config:
    """Read and check the configuration.

    ``None`` takes the file that ``AXE_CONFIG`` names, else ``axe.toml`` of the working
    directory. A mapping is taken as it is; its relative paths start at the working directory.

    Raises:
        ConfigError: there is none, it cannot be read, or something in it is wrong.
    """
    if isinstance(config, Mapping):
        return _Loader("configuration", Path.cwd(), None).load(config)
    path, variable = find_file(config)
    return _Loader(str(path), path.parent, path).load(read_toml(path, variable))


_Table = TypeVar("_Table", HostConfig, TopicConfig, ProcessorConfig, FailureConfig, LogConfig)


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
            if not TOPIC.match(name):
                raise self.error(join("topics", name), "is no name of a topic (letters, digits, '.', '_', '-')")
        for name in processors:
            self.check_name(join("processors", name), name)
        return Config(
            source=self.url("source", table, "kafka://localhost:9092"),
            state=self.url("state", table, "sqlite:state"),
            block=block or (),
            allow=self.names("allow", table, _DISTRIBUTION, "name of a distribution"),
            host=self.struct("host", table.get("host", {}), HostConfig),
            kafka=self.kafka(table.get("kafka", {})),
            topics={k: self.struct(join("topics", k), v, TopicConfig) for k, v in topics.items()},
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
        path = join("processors", name)
        table = self.table(path, value)
        if isinstance(table.get("start"), date | time):
            # TOML has times of its own, and nobody should have to know that ours goes in quotes.
            table["start"] = table["start"].isoformat()
        kinds = table.pop("failures", None) or {}
        config = self.struct(path, table, ProcessorConfig)
        config = msgspec.structs.replace(config, failures=self.failures(f"{path}.failures", kinds))
        try:
            parse_start(config.start)
        except ConfigError as error:
            raise self.error(f"{path}.start", str(error)) from None
        self.check_pauses(f"{path}.backoff_s", config.backoff_s)
        if config.topics == ():
            raise self.error(f"{path}.topics", "names no topic; name one, or leave the setting out")
        for index, topic in enumerate(config.topics or ()):
            if not (TOPIC.match(topic.partition("/")[0]) and not topic.endswith("/")):
                raise self.error(f"{path}.topics[{index}]", "expected a topic, or topic/event type")
        if config.dead_letters.topic is not None and not TOPIC.match(config.dead_letters.topic):
            raise self.error(f"{path}.dead_letters.topic", "is no name of a topic (letters, digits, '.', '_', '-')")
        for index, plugin in enumerate(config.plugins or ()):
            self.check_name(f"{path}.plugins[{index}]", plugin, shown=False)
        return config

    def failures(self, path: str, table: object) -> dict[str, FailureConfig]:
        """Read what failures of some kinds mean; nobody knows here which exceptions there are."""
        found = {}
        for name, value in self.table(path, table).items():
            if not _EXCEPTION.match(name):
                raise self.error(
                    join(path, name), "is no name of an exception, such as ValueError or json.JSONDecodeError"
                )
            found[name] = self.struct(join(path, name), value, FailureConfig)
            self.check_pauses(f"{join(path, name)}.backoff_s", found[name].backoff_s or (0, 0))
        return found

    def check_pauses(self, path: str, pauses: tuple[float, float]) -> None:
        if pauses[0] > pauses[1]:
            raise self.error(path, "expected the shorter pause first, then the longest one")

    def plugins(self, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        plugins = {}
        for name, value in self.tables("plugins", table).items():
            path = join("plugins", name)
            self.check_name(path, name)
            plugins[name] = self.settings(path, value)
        return plugins

    def settings(self, path: str, value: object) -> dict[str, Any]:
        """Resolve what stands in a table of settings; the table itself is never a reference."""
        return {key: self.resolved(join(path, key), item, key) for key, item in self.table(path, value).items()}

    def kafka(self, value: object) -> dict[str, str | int | float | bool]:
        flat: dict[str, str | int | float | bool] = {}
        for name, item in flattened(self.settings("kafka", value)):
            path = join("kafka", name)
            if not _PROPERTY.match(name):
                raise self.error(path, "is no property of librdkafka, such as security.protocol")
            if name in flat:
                raise self.error(path, "is written twice, with and without quotes; keep one")
            if reason := refusal(name):
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
        inner = {key: item for key, item in tables_in(kind).items() if key in table}
        for key, its_kind in inner.items():
            self.refuse_unknown_keys(f"{path}.{key}", table[key], its_kind.__struct_fields__)
            table[key] = self.settings(f"{path}.{key}", table[key])
        # TOML has no None; in a mapping it stands for a setting that is not written.
        plain = {
            key: item if key in inner else self.resolved(join(path, key), item, key)
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
            expected = member(expected, step)
            found = found[int(step)] if isinstance(found, list | tuple) else found[step]
        if isinstance(found, list | tuple):
            return self.error(join_steps(path, steps), f"expected {described(expected)}, got {len(found)} items")
        return self.wrong_type(join_steps(path, steps), described(expected), found)

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
                inner: self.resolved(join(path, inner), item, inner, secret=secret, depth=depth + 1)
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
            else:
                self.secrets.update(passwords_of(value))
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
        got = kind_of(found)
        if isinstance(found, int | float) and not isinstance(found, bool) and "number" in expected:
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
                advice = did_you_mean(key, known, f"known are {', '.join(known)}")
                raise self.error(join(path, key), f"unknown setting; {advice}")
