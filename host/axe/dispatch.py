"""From a record to an event, and through the handler to an outcome; knows no Kafka and no SQL."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .config import Config
from .decode import Decoded, event_type_of, key_decoder, reader
from .errors import DecodeError
from .event import Event, Record, Reject, Rejection
from .failpoints import failpoint, is_set
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
        if self._on_event is not None and is_set("mid_handler"):
            self._on_event = _interrupted(self._on_event)
        self._on_batch = processor.on_batch
        self._topics = {topic: _Topic(topic, types, processor, config) for topic, types in processor.types.items()}

    def decode(self, records: Iterable[Record]) -> list[Item]:
        """Turn records into events; those that nobody wants are left out, those that do not decode are refused."""
        items: list[Item] = []
        topics = self._topics
        for record in records:
            topic = topics[record.topic]
            if topic.is_plain and not record.headers and record.value is not None:
                # The usual record, without a call that can be spared: it is worth a third of the time.
                try:
                    value = topic.read(record.value)
                except DecodeError as error:
                    items.append(Refused(record, str(error), None))
                    continue
                kind = value.get("type") if type(value) is dict else None
                if type(kind) is not str or not kind:
                    kind = None
                if topic.types is None or kind in topic.types:
                    items.append(Event(record, value, kind, record.key))
            else:
                item = topic.item(record)
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

    def handle_all(self, events: Iterable[Event], state: Any, end: Callable[[], None]) -> Iterator[Outcome]:
        """Run the handler on events in order, calling ``end`` after each; yield what did not go well.

        One ``try`` around the loop, entered anew after each exception, costs a healthy event nothing.
        """
        assert self._on_event is not None
        on_event, start_event = self._on_event, state.start_event
        rest = iter(events)
        while True:
            item: Any = None
            try:
                for item in rest:
                    start_event()
                    on_event(item, state)
                    if state.has_session:
                        end()
            except Reject as reject:
                yield Refused(item.record, reject.reason, traceback.format_exc())
            except Exception as error:  # noqa: BLE001 # the plugin boundary
                yield Failed(item.record, error)
            else:
                return

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


def _interrupted(handler: Callable[[Event, Any], None]) -> Callable[[Event, Any], None]:
    def handle(event: Event, state: Any) -> None:
        handler(event, state)
        failpoint("mid_handler")

    return handle


class _Topic:
    """How the records of one topic become events."""

    def __init__(self, topic: str, types: frozenset[str] | None, processor: Processor, config: Config) -> None:
        settings = config.topic(topic)
        given = config.topics.get(topic)
        asked = {name: getattr(settings, name) for name in settings.__struct_fields__} if given is not None else {}
        own: Callable[[Record], Any] | None = processor.hooks.hook.deserializer(topic=topic, settings=asked)
        self._own = own
        self.read = reader(
            topic,
            decode=settings.decode,
            schema=None if settings.schema is None else config.resolve(settings.schema),
            max_bytes=settings.max_bytes,
            max_depth=settings.max_depth,
        )
        self._decode_key = key_decoder(settings.key)
        self._rule = event_type_of(settings.event_type, topic=topic)
        self.types = types
        # JSON, keys as bytes, the event type by the common rule.
        chain = tuple(settings.decode) or ("json",)
        self.is_plain = own is None and chain == ("json",) and self._decode_key is None and not settings.event_type

    def item(self, record: Record) -> Item | None:
        kind = self._rule.from_headers(record) if record.headers else None
        # A type that the headers name and nobody wants need not be decoded.
        if kind is not None and self.types is not None and kind not in self.types:
            return None
        try:
            if self._own is not None:
                value = self._own(record)
            else:
                value = None if record.value is None else self.read(record.value)
            if kind is None:
                kind = self._rule.from_value(value)
                if self.types is not None and kind not in self.types:
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
