"""From records to events, and through the handler to an outcome; knows no Kafka and no SQL."""

from __future__ import annotations

import itertools
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .config import Config
from .decoding import Failed, Item, Refused, TopicDecoder, reason_of
from .event import RECORD_FORM, Event, Form, Record, Reject, are_flat, twins
from .failpoints import failpoint, is_set
from .processor import Processor
from .sources.convoy import Chunk
from .telling import trace_of

if TYPE_CHECKING:
    from .store.protocol import HandlerState

Outcome = Refused | Failed | None

# Events that are made before the first of them is handled. A thousand, and what they are made of, fill the caches of a
# core: each would be fetched from memory again, 12 to 20 % of the CPU time of a batch.
_AT_ONCE = 64


class Dispatcher:
    """Decodes the records of one processor and hands its events to it."""

    def __init__(self, processor: Processor, config: Config, form: Form = RECORD_FORM) -> None:
        self._on_event = processor.on_event
        if self._on_event is not None and is_set("mid_handler"):
            self._on_event = _interrupted(self._on_event)
        self._on_batch = processor.on_batch
        self._form = form
        self._topics = {
            topic: TopicDecoder(topic, types, processor, config, form) for topic, types in processor.types.items()
        }
        # The configuration of a topic is the same for all of a process; decoders of plugins are a processor's own.
        shares = not any(topic.has_own for topic in self._topics.values())
        self._reads_only = processor.reads_only
        # A batch handler wants all of them, and a decoder of a plugin may wait for something: before the transaction.
        self._at_once = _AT_ONCE if shares and self._on_batch is None else sys.maxsize
        self._shared_as = processor.events_as if shares else None
        self._calls = 0
        self._rest: Iterator[Event] = iter(())

    @property
    def progress(self) -> tuple[int, int]:
        """What changes from one call of the handler to the next; may be asked from another thread."""
        return self._calls, operator.length_hint(self._rest)

    def record(self, raw: Any) -> Record:
        """Make the record of what a source fetched."""
        return self._form.record(raw)

    def decode(self, records: Sequence[Any]) -> Iterator[list[Item]]:
        """Turn records into events, some at a time, when they are asked for.

        Those that nobody wants are left out, those that do not decode are refused; no list is empty.

        Raises:
            SourceUnavailable, StoreUnavailable: out of a decoder of a plugin, which needs something that is away.
        """
        held, made_of = self._prepared(records)
        for start in range(0, len(held), self._at_once):
            if items := made_of(held[start : start + self._at_once]):
                yield items

    def _prepared(self, records: Sequence[Any]) -> tuple[Sequence[Any], Callable[[Sequence[Any]], list[Item]]]:
        """Return what items are made of, and how."""
        if type(records) is not Chunk or self._shared_as not in records.shared_as:
            return records, self._decoded
        # Records that neighbours have, too, are decoded once for all.
        if self._shared_as not in records.decoded:
            items = self._decoded(records)
            if not self._reads_only and not are_flat(items):
                # Copies would cost more than decoding: each has its own.
                records.decoded[self._shared_as] = None
                return items, list
            records.decoded[self._shared_as] = items
        shared = records.decoded[self._shared_as]
        if shared is None:
            return records, self._decoded
        return shared, list if self._reads_only else twins

    def _decoded(self, records: Sequence[Any]) -> list[Item]:
        if len(self._topics) == 1:
            (topic,) = self._topics.values()
            return topic.items(records)
        items: list[Item] = []
        for name, run in itertools.groupby(records, self._form.topic):
            items += self._topics[name].items(list(run))
        return items

    def item(self, record: Record) -> Item | None:
        """Turn one record, of whatever source, into an event; None where it is none of the processor's.

        Raises:
            SourceUnavailable, StoreUnavailable: as ``decode``.
        """
        topic = self._topics.get(record.topic)
        return None if topic is None else topic.item(record)

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
    return Refused(event.record, reason_of(reject), trace_of(reject))


def _interrupted(handler: Callable[[Event, Any], None]) -> Callable[[Event, Any], None]:
    def handle(event: Event, state: Any) -> None:
        handler(event, state)
        failpoint("mid_handler")

    return handle
