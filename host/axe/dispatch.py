"""From a record to an event, and through the handler to an outcome; knows no Kafka and no SQL."""

from __future__ import annotations

import itertools
import operator
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .config import Config
from .decode import Decoded, JsonReader, event_type_of, key_decoder, reader
from .errors import AxeError, DecodeError, PluginError
from .event import RECORD_FORM, Event, Form, Record, Reject, Rejection
from .failpoints import failpoint, is_set
from .hooks import Decoder
from .processor import Processor

if TYPE_CHECKING:
    from .store.protocol import HandlerState


class Refused(NamedTuple):
    """An event that goes to the dead letters."""

    record: Record
    reason: str
    error: str | None
    attempts: int = 1

    def rejection(self, processor: str) -> Rejection:
        """Say it in the public words."""
        return Rejection(processor, self.record, self.reason, self.error, self.attempts)


class Failed(NamedTuple):
    """An event whose handler raised something that is no rejection."""

    record: Record
    exception: BaseException


Item = Event | Refused
Outcome = Refused | Failed | None

# Bytes that do not decode, or a tombstone, which has no length: what it is, the careful way tells.
_CAREFULLY = (ValueError, TypeError, AttributeError, DecodeError)


class Dispatcher:
    """Decodes the records of one processor and hands its events to it."""

    def __init__(self, processor: Processor, config: Config, form: Form = RECORD_FORM) -> None:
        self._on_event = processor.on_event
        if self._on_event is not None and is_set("mid_handler"):
            self._on_event = _interrupted(self._on_event)
        self._on_batch = processor.on_batch
        self._form = form
        self._topics = {
            topic: _Topic(topic, types, processor, config, form) for topic, types in processor.types.items()
        }
        self._calls = 0
        self._rest: Iterator[Event] = iter(())

    @property
    def progress(self) -> tuple[int, int]:
        """What changes from one call of the handler to the next; may be asked from another thread."""
        return self._calls, operator.length_hint(self._rest)

    def record(self, raw: Any) -> Record:
        """Make the record of what a source fetched."""
        return self._form.record(raw)

    def decode(self, records: Sequence[Any]) -> list[Item]:
        """Turn records into events; those that nobody wants are left out, those that do not decode are refused."""
        if len(self._topics) == 1:
            (topic,) = self._topics.values()
            return topic.items(records)
        items: list[Item] = []
        for name, run in itertools.groupby(records, self._form.topic):
            items += self._topics[name].items(list(run))
        return items

    def handle(self, event: Event, state: HandlerState) -> Outcome:
        """Run the handler on one event; the outcome is None when it went well."""
        self._calls += 1
        try:
            if self._on_event is not None:
                self._on_event(event, state)
            elif self._on_batch is not None:
                self._on_batch([event], state)
            state.end_event()
        except Reject as reject:
            return _refused(event, reject)
        except BaseException as error:  # noqa: BLE001 # the plugin boundary, sys.exit() included
            return Failed(event.record, error)
        return None

    def handle_all(self, events: Sequence[Event], state: HandlerState) -> Iterator[tuple[Refused | Failed, int]]:
        """Run the handler on events in order; yield what did not go well, and how many changes there were before it.

        One ``try`` around the loop, entered anew after each exception, costs a healthy event nothing.
        """
        assert self._on_event is not None
        on_event, changes = self._on_event, state.changes
        self._calls += 1
        self._rest = rest = iter(events)
        while True:
            event: Any = None
            mark = 0
            try:
                for event in rest:
                    mark = len(changes)
                    on_event(event, state)
                    if state.watched:
                        state.end_event()
            except Reject as reject:
                yield _refused(event, reject), mark
            except BaseException as error:  # noqa: BLE001 # the plugin boundary, sys.exit() included
                yield Failed(event.record, error), mark
            else:
                return

    @property
    def takes_batches(self) -> bool:
        """Whether the handler takes many events at once."""
        return self._on_batch is not None

    def handle_batch(self, events: list[Event], state: HandlerState) -> bool:
        """Run the batch handler; False when it raised, whatever it was."""
        assert self._on_batch is not None
        self._calls += 1
        try:
            # A list of its own: the handler may consume it.
            self._on_batch(list(events), state)
            state.end_event()
        except BaseException:  # noqa: BLE001 # the events come again one at a time, which names the sick one
            return False
        return True


def _refused(event: Event, reject: Reject) -> Refused:
    # A subclass need not have called our constructor.
    reason = getattr(reject, "reason", None) or reject
    return Refused(event.record, said(reason), traceback.format_exc())


def _nothing(_: bytes) -> Any:
    return None


def said(what: object) -> str:
    """Write what a plugin gave as a text; even that may fail."""
    try:
        return str(what)
    except BaseException:  # noqa: BLE001 # the plugin boundary
        return f"a {type(what).__name__} whose text cannot be shown"


def _interrupted(handler: Callable[[Event, Any], None]) -> Callable[[Event, Any], None]:
    def handle(event: Event, state: Any) -> None:
        handler(event, state)
        failpoint("mid_handler")

    return handle


def _own_decoder(topic: str, settings: dict[str, Any], processor: Processor) -> Decoder | None:
    try:
        decoder: Decoder | None = processor.hooks.hook.deserializer(topic=topic, settings=settings)
    except AxeError:
        raise
    except BaseException as error:
        message = f"the deserializer hook failed for the topic {topic}: {type(error).__name__}: {said(error)}"
        raise PluginError(message) from error
    return decoder


class _Topic:
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
        self._read = reader(
            topic,
            decode=settings.decode,
            schema=None if settings.schema is None else config.resolve(settings.schema),
            max_bytes=settings.max_bytes,
            max_depth=settings.max_depth,
        )
        self._few_are_wanted = False
        self._decode_key = key_decoder(settings.key)
        self._rule = event_type_of(settings.event_type, topic=topic)
        self._types = types
        # Where only JSON is to be decoded, the type and the key are read when they are needed.
        plain = own is None and self._decode_key is None and (types is None or self._rule.field is not None)
        self._json = self._read if plain and isinstance(self._read, JsonReader) else None
        self._peek = self._json.peek(self._rule.field) if self._json and self._rule.field else _nothing

    def type_of(self, raw: Any) -> str | None:
        """Tell the event type of a record that is plain JSON."""
        kind = self._rule.from_headers(self.form.headers(raw))
        content = self.form.value(raw)
        return self._rule.from_value(self._read(content)) if kind is None and content is not None else kind

    def items(self, records: Sequence[Any]) -> list[Item]:
        """Turn records into events and refusals."""
        if self._json is None:
            return [item for item in map(self._item, records) if item is not None]
        return self._every(records, self._json) if self._types is None else self._wanted(records, self._json)

    def _every(self, records: Sequence[Any], json: JsonReader) -> list[Item]:
        """Turn records of plain JSON into events, whatever their types, which are read when somebody asks."""
        items: list[Item] = []
        append, quick, length = items.append, json.quick, json.quick_bytes
        value: Any
        for raw, value in zip(records, map(self.form.value, records), strict=True):
            try:
                append(Event(raw, quick(value) if len(value) <= length else json(value), self))
            except _CAREFULLY:
                items += self._items_of(raw)
        return items

    def _wanted(self, records: Sequence[Any], json: JsonReader) -> list[Item]:
        """Turn records of plain JSON into events of the wanted types; where those are few, others are not decoded."""
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
            except _CAREFULLY:
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
        headers = form.headers(raw)
        kind = self._rule.from_headers(headers) if headers else None
        # A type that the headers name and nobody wants need not be decoded.
        if kind is not None and self._types is not None and kind not in self._types:
            return None
        try:
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
        except (DecodeError, Reject) as error:
            return Refused(form.record(raw), said(error), None)
        except BaseException as error:  # noqa: BLE001 # a decoder of a plugin may raise anything
            return Refused(form.record(raw), f"{type(error).__name__}: {said(error)}", traceback.format_exc())
