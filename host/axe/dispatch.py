"""From a record to an event, and through the handler to an outcome; knows no Kafka and no SQL."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .config import Config
from .decode import Decoded, decoder, event_type_of, key_decoder
from .errors import DecodeError
from .event import Event, Record, Reject, Rejection
from .processor import Processor


class Refused(NamedTuple):
    """An event that goes to the dead letters."""

    record: Record
    reason: str
    error: str | None

    def rejection(self, processor: str, attempts: int = 1) -> Rejection:
        """Say it in the public words."""
        return Rejection(processor, self.record, self.reason, self.error, attempts)


class Failed(NamedTuple):
    """An event whose handler raised something that is no rejection."""

    record: Record
    exception: Exception


Item = Event | Refused
Outcome = Refused | Failed | None


class Dispatcher:
    """Decodes the records of one processor and hands its events to it."""

    def __init__(self, processor: Processor, config: Config) -> None:
        self._on_event = processor.on_event
        self._on_batch = processor.on_batch
        self._topics = {topic: _Topic(topic, types, processor, config) for topic, types in processor.types.items()}

    def decode(self, records: Iterable[Record]) -> list[Item]:
        """Turn records into events; those that nobody wants are left out, those that do not decode are refused."""
        items: list[Item] = []
        for record in records:
            item = self._topics[record.topic].item(record)
            if item is not None:
                items.append(item)
        return items

    def handle(self, event: Event, state: Any) -> Outcome:
        """Run the handler on one event; the outcome is None when it went well."""
        try:
            if self._on_event is not None:
                self._on_event(event, state)
            elif self._on_batch is not None:
                self._on_batch([event], state)
        except Reject as reject:
            return Refused(event.record, reject.reason, traceback.format_exc())
        except Exception as error:  # noqa: BLE001 # the plugin boundary
            return Failed(event.record, error)
        return None

    @property
    def takes_batches(self) -> bool:
        """Whether the handler takes many events at once."""
        return self._on_batch is not None

    def handle_batch(self, events: list[Event], state: Any) -> bool:
        """Run the batch handler; False when it raised, whatever it was."""
        assert self._on_batch is not None
        try:
            self._on_batch(events, state)
        except Exception:  # noqa: BLE001 # the events come again one at a time, which names the sick one
            return False
        return True


class _Topic:
    """How the records of one topic become events."""

    def __init__(self, topic: str, types: frozenset[str] | None, processor: Processor, config: Config) -> None:
        settings = config.topic(topic)
        given = config.topics.get(topic)
        asked = {name: getattr(settings, name) for name in settings.__struct_fields__} if given is not None else {}
        own: Callable[[Record], Any] | None = processor.hooks.hook.deserializer(topic=topic, settings=asked)
        self._decode = own or decoder(
            topic,
            decode=settings.decode,
            schema=None if settings.schema is None else config.resolve(settings.schema),
            max_bytes=settings.max_bytes,
            max_depth=settings.max_depth,
        )
        self._decode_key = key_decoder(settings.key)
        self._rule = event_type_of(settings.event_type, topic=topic)
        self._types = types

    def item(self, record: Record) -> Item | None:
        kind = self._rule.from_headers(record) if record.headers else None
        # A type that the headers name and nobody wants need not be decoded.
        if kind is not None and self._types is not None and kind not in self._types:
            return None
        try:
            value = self._decode(record)
            if kind is None:
                kind = self._rule.from_value(value)
                if self._types is not None and kind not in self._types:
                    return None
            if type(value) is Decoded:
                value = value.value
            key: Any = record.key
            if self._decode_key is not None and key is not None:
                key = self._decode_key(key)
        except (DecodeError, Reject) as error:
            return Refused(record, str(error), None)
        except Exception as error:  # noqa: BLE001 # a decoder of a plugin may raise anything
            return Refused(record, f"{type(error).__name__}: {error}", traceback.format_exc())
        return Event(record, value, kind, key)
