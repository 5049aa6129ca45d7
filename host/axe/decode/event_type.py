"""The event type of a record: from its headers, else from its value.

Split in two, so that a record whose headers name a type that nobody wants need not be decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..config import one_line
from ..errors import ConfigError
from .value import Decoded


class EventTypeRule(NamedTuple):
    """Where the event type of a topic's records stands.

    Ask ``from_headers`` first; only for None decode the value and ask ``from_value``, with what
    the decoder returned. ``field`` is where that looks in a JSON object, None where it never looks.
    """

    from_headers: Callable[[Iterable[tuple[str, bytes | None]]], str | None]
    from_value: Callable[[Any], str | None]
    field: str | None

    def of(self, headers: Iterable[tuple[str, bytes | None]], decoded: Any) -> str | None:
        """Return the event type of a record that is decoded already."""
        found = self.from_headers(headers) if headers else None
        return self.from_value(decoded) if found is None else found


def event_type_of(rule: str | None, *, topic: str = "") -> EventTypeRule:
    """Read a topic's ``event_type`` setting; None gives the rule that holds without one.

    That rule: the header ``type``, else the header ``event_type``, else the field ``type`` of a
    JSON object, else the name of the Avro record. ``header:NAME`` and ``value:FIELD`` look
    there and nowhere else. A header that is empty or not UTF-8 and a field that is not a
    string count as absent; of a header that occurs twice, the last counts.

    Raises:
        ConfigError: the rule is neither.
    """
    if rule is None:
        return EventTypeRule(type_from_headers, type_from_value, "type")
    place, _, name = rule.partition(":")
    if name and place == "header":
        return EventTypeRule(lambda headers: _header(headers, name), _nothing, None)
    if name and place == "value":
        return EventTypeRule(_nothing, lambda decoded: _field(decoded, name), name)
    where = f"topics.{topic}.event_type" if topic else "event_type"
    raise ConfigError(f'{where}: "{one_line(rule[:100])}" is neither "header:NAME" nor "value:FIELD"')


def type_from_headers(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """Return the event type that the headers name, by the rule for topics that have none."""
    kind = other = None
    for name, value in headers:
        if name == "type":
            kind = _text(value) or kind
        elif name == "event_type":
            other = _text(value) or other
    return other if kind is None else kind


def type_from_value(decoded: Any) -> str | None:
    """Return the event type that a decoder's result names, by the rule for topics that have none."""
    if type(decoded) is Decoded:
        return decoded.type
    if type(decoded) is dict:
        found = decoded.get("type")
        return found if isinstance(found, str) and found else None
    return None


def _header(headers: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    found = None
    for header, value in headers:
        if header == name:
            found = _text(value) or found
    return found


def _text(value: bytes | None) -> str | None:
    try:
        return value.decode() if value else None
    except UnicodeDecodeError:
        return None


def _field(decoded: Any, name: str) -> str | None:
    value = decoded.value if type(decoded) is Decoded else decoded
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None


def _nothing(_: Any) -> None:
    return None
