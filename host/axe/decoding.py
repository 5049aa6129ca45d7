"""From the records of a topic to events, or to what else becomes of them."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from .config import Config
from .decode import Decoded, JsonReader, RecordReader, event_type_of, key_decoder, reader_of
from .errors import AxeError, DecodeError, PluginError, SourceUnavailable, StoreUnavailable
from .event import RECORD_FORM, Event, Form, Record, Reject, Rejection
from .hooks import Decoder, never_runs
from .processor import Processor
from .telling import said, told, trace_of


class Refused(NamedTuple):
    """An event that goes to the dead letters; ``blocked_by`` is the offset of that of its key that it waits for."""

    record: Record
    reason: str
    error: str | None
    attempts: int = 1
    blocked_by: int | None = None

    def rejection(self, processor: str) -> Rejection:
        """Say it in the public words."""
        return Rejection(processor, self.record, self.reason, self.error, self.attempts)


class Failed(NamedTuple):
    """An event whose handler, or a decoder of a plugin, raised something that is no rejection."""

    record: Record
    exception: BaseException

    def refused(self, attempts: int) -> Refused:
        """Say what becomes of it where it is set aside after so many attempts."""
        return Refused(self.record, told(self.exception), trace_of(self.exception), attempts)


Item = Event | Refused | Failed


def reason_of(reject: Reject) -> str:
    """Return what a handler gave as the reason."""
    try:
        # A subclass need not have called our constructor.
        return said(getattr(reject, "reason", None) or reject)
    except BaseException:  # noqa: BLE001 # the plugin boundary
        return said(reject)


class TopicDecoder:
    """How the records of one topic become events; the ``Origin`` of those."""

    def __init__(
        self, topic: str, types: frozenset[str] | None, processor: Processor, config: Config, form: Form
    ) -> None:
        settings = config.topic(topic)
        given = config.topics.get(topic)
        asked = {name: getattr(settings, name) for name in settings.__struct_fields__} if given is not None else {}
        own = _own_decoder(topic, asked, processor)
        self.form = form
        self._own = own
        self._read = reader_of(config, topic)
        self._few_are_wanted = False
        self._decode_key = key_decoder(settings.key, topic=topic)
        self._rule = event_type_of(settings.event_type, topic=topic)
        self._types = types
        self._json = self._read if isinstance(self._read, JsonReader) else None
        self._peek = self._json.peek(self._rule.field) if self._json and self._rule.field else _nothing
        self.items = self._way()
        """Turn records into events, refusals and failures; those that nobody wants are left out."""

    def _way(self) -> Callable[[Sequence[Any]], list[Item]]:
        """Choose how: where no decoder of a plugin is asked, types and keys are read when they are needed."""
        if self._own is not None or self._decode_key is not None:
            return self._each
        if self._types is None:
            if isinstance(self._read, JsonReader | RecordReader):
                return functools.partial(self._all_at_once, reader=self._read)
            return self._every
        if self._json is not None and self._rule.field is not None:
            return functools.partial(self._wanted, json=self._json)
        return self._each

    @property
    def has_own(self) -> bool:
        """Whether a decoder of a plugin reads the values."""
        return self._own is not None

    def type_of(self, raw: Any) -> str | None:
        """Tell the event type of a record that a decoder of axe's own reads."""
        kind = self._rule.from_headers(self.form.headers(raw) or ())
        content = self.form.value(raw)
        return self._rule.from_value(self._read(content)) if kind is None and content is not None else kind

    def item(self, record: Record) -> Item | None:
        """Turn one record into an event, in whatever form the source has its own; None where nobody wants it."""
        plain = copy.copy(self)
        plain.form = RECORD_FORM
        items = plain._items_of(record)  # noqa: SLF001 # our own
        return items[0] if items else None

    def _each(self, records: Sequence[Any]) -> list[Item]:
        """Turn records into events one by one."""
        return [item for item in map(self._item, records) if item is not None]

    def _all_at_once(self, records: Sequence[Any], reader: JsonReader | RecordReader) -> list[Item]:
        """Turn records into events, whatever their types: as long as all is well, without a look at each."""
        values: list[Any] = list(map(self.form.value, records))
        with suppress(Exception):
            if max(map(len, values)) <= reader.quick_bytes:
                return list(map(Event, records, map(reader.quick, values), itertools.repeat(self)))
        return self._every(records)

    def _every(self, records: Sequence[Any]) -> list[Item]:
        """Turn records into events, whatever their types."""
        items: list[Item] = []
        append, read = items.append, self._read
        content: Any
        for raw, content in zip(records, map(self.form.value, records), strict=True):
            try:
                value = read(content)
                append(Event(raw, value.value if type(value) is Decoded else value, self))
            except Exception:  # noqa: BLE001 # a tombstone, or whatever: the careful way tells
                items += self._items_of(raw)
        return items

    def _wanted(self, records: Sequence[Any], json: JsonReader) -> list[Item]:
        """Turn records of JSON into events of the wanted types; where those are few, others are not decoded."""
        items: list[Item] = []
        append, quick, length, peek = items.append, json.quick, json.quick_bytes, self._peek
        field, kind_of, types, form = self._rule.field, self._rule.from_headers, self._types or frozenset(), self.form
        value: Any
        for raw, value, headers in zip(records, map(form.value, records), map(form.headers, records), strict=True):
            try:
                kind = kind_of(headers) if headers else None
                if kind is None and self._few_are_wanted and len(value) <= length:
                    kind = peek(value).field
                    if kind not in types:
                        continue
                if kind is None or kind in types:
                    decoded = quick(value) if len(value) <= length else json(value)
                    kind = decoded.get(field) if kind is None else kind
                    if kind in types:
                        append(Event(raw, decoded, self, kind))
            except Exception:  # noqa: BLE001 # a tombstone, which has no length, or whatever: the careful way tells
                items += self._items_of(raw)
        self._few_are_wanted = 2 * len(items) < len(records)
        return items

    def _items_of(self, raw: Any) -> list[Item]:
        """Take one record the careful way: it is no event like the others, or none at all."""
        if self._types is not None and self._is_peeked_and_unwanted(raw, self._types):
            # Else a broken one of another type would be refused or not by how many around it are wanted.
            return []
        item = self._item(raw)
        return [] if item is None else [item]

    def _is_peeked_and_unwanted(self, raw: Any, types: frozenset[str]) -> bool:
        content = self.form.value(raw)
        if self._json is None or content is None or len(content) > self._json.quick_bytes:
            return False
        if (headers := self.form.headers(raw)) and self._rule.from_headers(headers) is not None:
            return False
        try:
            kind = self._peek(content).field
        except ValueError:
            return False
        return type(kind) is str and kind not in types

    def _item(self, raw: Any) -> Item | None:
        form = self.form
        try:
            return self._event(raw)
        except DecodeError as error:
            return Refused(form.record(raw), said(error), None)
        except Reject as error:
            return Refused(form.record(raw), reason_of(error), None)
        except (SourceUnavailable, StoreUnavailable):
            # Of a registry, perhaps, that cannot be reached: no event is at fault.
            raise
        except BaseException as error:  # noqa: BLE001 # a decoder of a plugin may raise anything
            return Failed(form.record(raw), error)

    def _event(self, raw: Any) -> Event | None:
        form = self.form
        headers = form.headers(raw)
        kind = self._rule.from_headers(headers) if headers else None
        # A type that the headers name and nobody wants need not be decoded.
        if kind is not None and self._types is not None and kind not in self._types:
            return None
        if self._own is not None:
            value = self._own(form.record(raw))
        else:
            content = form.value(raw)
            value = None if content is None else self._read(content)
        if kind is None:
            kind = self._rule.from_value(value)
            if self._types is not None and kind not in self._types:
                return None
        if type(value) is Decoded:
            value = value.value
        if self._decode_key is None or (key := form.key(raw)) is None:
            return Event(raw, value, self, kind)
        return Event(raw, value, self, kind, self._decode_key(key))


def _own_decoder(topic: str, settings: dict[str, Any], processor: Processor) -> Decoder | None:
    try:
        answer: Any = processor.hooks.hook.deserializer(topic=topic, settings=settings)
    except AxeError:
        raise
    except BaseException as error:
        message = f"the deserializer hook failed for the topic {topic}: {told(error)}"
        raise PluginError(message) from error
    if answer is None:
        return None
    reason = never_runs(answer) if callable(answer) else "cannot be called"
    if reason is not None:
        message = f"the deserializer hook answers for the topic {topic} with a {type(answer).__name__} that {reason}"
        raise PluginError(message)
    decoder: Decoder = answer
    return decoder


def _nothing(_: bytes) -> Any:
    return None
