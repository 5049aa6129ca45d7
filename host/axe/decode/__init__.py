"""Decoding: from the bytes of a record to the value of an event, through a chain of links.

A topic's ``decode`` setting names the links, outermost first. The last one yields the value;
those before it turn bytes into bytes. Every link is bounded before it starts to work, because
a record comes from outside and has not been looked at by anybody yet.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Config, one_line
from ..errors import ConfigError, DecodeError
from .avro import RecordReader, avro_reader
from .event_type import EventTypeRule, event_type_of
from .json import JsonReader
from .plain import bytes_reader, string_reader
from .value import Decoded, Limits

__all__ = [
    "DEFAULT_LINK",
    "Decoded",
    "EventTypeRule",
    "JsonReader",
    "RecordReader",
    "check_topic",
    "event_type_of",
    "key_decoder",
    "reader",
    "reader_of",
]

DEFAULT_LINK = "json"
_MAX_KEY_BYTES = 12_000_000
_MAX_KEY_DEPTH = 128


class _Link(NamedTuple):
    """One kind of link: how it is built, whether it ends a chain, whether it reads ``schema``."""

    build: Callable[[Limits, Path | None], Callable[[bytes], Any]]
    ends: bool
    takes_schema: bool = False


def _without_schema(build: Callable[[Limits], Callable[[bytes], Any]]) -> _Link:
    return _Link(lambda limits, _schema: build(limits), ends=True)


# A link that turns bytes into bytes (gzip, a registry's framing) stands here with ends=False.
_LINKS: dict[str, _Link] = {
    "avro": _Link(avro_reader, ends=True, takes_schema=True),
    "json": _without_schema(JsonReader),
    "raw": _without_schema(bytes_reader),
    "string": _without_schema(string_reader),
}


def reader(
    topic: str, *, decode: Sequence[str], schema: Path | None, max_bytes: int, max_depth: int
) -> Callable[[bytes], Any]:
    """Build what turns the value bytes of ``topic`` into the value of an event; not for tombstones.

    An empty ``decode`` means JSON. The result of a format that names its own event type is a
    ``Decoded``. Files are read here and never again.

    The callable raises DecodeError, with a reason that holds nothing of the payload.

    Raises:
        ConfigError: a link is unknown or in the wrong place, or its schema cannot be used.
    """
    return _chain(decode or (DEFAULT_LINK,), f"topics.{topic}.decode", Limits(max_bytes, max_depth), schema)


def reader_of(config: Config, topic: str) -> Callable[[bytes], Any]:
    """Build what the table of a topic says; see ``reader``.

    Raises:
        ConfigError: it says something impossible.
    """
    settings = config.topic(topic)
    schema = None if settings.schema is None else config.resolve(settings.schema)
    return reader(
        topic, decode=settings.decode, schema=schema, max_bytes=settings.max_bytes, max_depth=settings.max_depth
    )


def check_topic(config: Config, topic: str) -> None:
    """Build everything that the table of a topic asks for, and let it go again.

    Raises:
        ConfigError: something cannot be built; names the setting.
    """
    settings = config.topic(topic)
    reader_of(config, topic)
    key_decoder(settings.key, topic=topic)
    event_type_of(settings.event_type, topic=topic)


def key_decoder(
    key: Sequence[str], *, topic: str = "", max_bytes: int = _MAX_KEY_BYTES, max_depth: int = _MAX_KEY_DEPTH
) -> Callable[[bytes], Any] | None:
    """Build what decodes the keys of a topic; None where they stay bytes, for an empty ``key``.

    ``topic`` is for the message of a ConfigError.

    A record without a key is not for it. Its DecodeErrors begin with ``key:``.

    Raises:
        ConfigError: a link is unknown, in the wrong place, or needs a schema.
    """
    if not key:
        return None
    where = f"topics.{topic}.key" if topic else "key"
    for name in key:
        if name in _LINKS and _LINKS[name].takes_schema:
            raise ConfigError(f'{where}: "{name}" needs a schema, and there is none for keys; use "raw" or "string"')
    read = _chain(key, where, Limits(max_bytes, max_depth), None)

    def decode_key(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError as error:
            raise DecodeError(f"key: {error}") from error

    return decode_key


def _chain(names: Sequence[str], where: str, limits: Limits, schema: Path | None) -> Callable[[bytes], Any]:
    links = [_link(name, where) for name in names]
    for name, link in zip(names[:-1], links[:-1], strict=True):
        if link.ends:
            raise ConfigError(f'{where}: "{name}" yields the value, so it must be the last decoder, not before others')
    if not links[-1].ends:
        raise ConfigError(f'{where}: "{names[-1]}" yields bytes; end the chain with one of {_listed(only_ends=True)}')
    if schema is not None and not any(link.takes_schema for link in links):
        raise ConfigError(f"{where}: a schema is set ({one_line(schema.name)}), but none of the decoders reads one")

    try:
        steps = [link.build(limits, schema) for link in links]
    except ConfigError as error:
        message = one_line(f"{where}: {error}")
        raise ConfigError(message) from error
    if len(steps) == 1:
        return steps[0]

    def read(value: bytes) -> Any:
        for step in steps:
            value = step(value)
        return value

    return read


def _link(name: str, where: str) -> _Link:
    link = _LINKS.get(name)
    if link is not None:
        return link
    near = difflib.get_close_matches(name, _LINKS, n=1)
    advice = f'did you mean "{near[0]}"?' if near else f"known are {_listed()}"
    raise ConfigError(f'{where}: there is no decoder "{one_line(name[:100])}"; {advice}')


def _listed(*, only_ends: bool = False) -> str:
    return ", ".join(f'"{name}"' for name, link in sorted(_LINKS.items()) if link.ends or not only_ends)
