"""The properties of librdkafka under ``[kafka]``: how they may be written, which may not be set, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_LOADS_CODE = "it loads code; remove it"
_POSITIONS = "positions are committed with the state and nowhere else; remove it"
_BROKERS = "the brokers stand in `source`"
_FUNCTION = "it takes a function, which no configuration can hold; remove it"

_REFUSED: Final[Mapping[str, str]] = {
    "plugin.library.paths": _LOADS_CODE,
    "ssl.engine.location": _LOADS_CODE,
    "ssl.providers": _LOADS_CODE,
    "sasl.kerberos.kinit.cmd": "it runs a command; run kinit beside axe instead",
    "enable.auto.commit": _POSITIONS,
    "auto.commit.enable": _POSITIONS,
    "enable.auto.offset.store": _POSITIONS,
    "auto.offset.reset": "a lost position is never replaced by a guess; "
    "use `start` in the processor's table for where a new one begins",
    "enable.partition.eof": "without it axe cannot tell that it has read everything; remove it",
    "isolation.level": "records of aborted transactions would take effect; axe reads committed ones",
    "allow.auto.create.topics": "axe creates no topics; remove it",
    "default.topic.config": "write the property itself under [kafka]",
    "group.id": "each processor has its own group; use `group` in the processor's table",
    "bootstrap.servers": _BROKERS,
    "metadata.broker.list": _BROKERS,
    "logger": _FUNCTION,
    "on_commit": _FUNCTION,
    "on_delivery": _FUNCTION,
}


def refusal(name: str) -> str | None:
    """Say why a property is refused, and what to do; None for one that may be set."""
    if name.startswith("test.mock."):
        return "it replaces the brokers by a mock; remove it"
    if name.endswith("_cb"):
        return _FUNCTION
    return _REFUSED.get(name.removeprefix("topic."))


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names: TOML makes tables of `security.protocol` without quotes."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
