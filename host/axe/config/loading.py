"""From `axe.toml`, or a mapping, to a checked configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError
from .file import find_file, read_toml
from .model import (
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
from .references import References
from .wording import described, join, join_steps, member

_PATTERN = re.compile(r"[a-z0-9_*?\[\]!-]{1,200}\Z")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,200}[A-Za-z0-9])?\Z")
_EXCEPTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
_PROPERTY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\Z")
_URL = re.compile(r"[a-z][a-z0-9+._-]*:")

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


class _Loader(References):
    """One load: turns tables into structs."""

    def __init__(self, where: str, base: Path, path: Path | None) -> None:
        super().__init__(where, base)
        self.path = path

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
