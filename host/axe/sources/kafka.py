"""Records from Apache Kafka: all partitions assigned by hand, at positions that the store keeps."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from ..config import tls_warnings
from ..errors import BehindRetention, BeyondEnd, ConfigError, SourceUnavailable, TopicMissing
from ..event import TopicPartition
from ..log import get_logger
from . import Bounds, Fetched
from .kafka_client import (
    FORM,
    ClientLog,
    Failures,
    Trouble,
    check_properties,
    client_settings,
    connection_settings,
    kafka_error,
    translated,
    trouble,
    unusable,
)
from .kafka_letters import KafkaLetters
from .kafka_mirror import Mirror
from .kafka_slices import SLICE_EVENTS, Slices
from .kafka_stalls import StallWatch
from .kafka_topics import TopicWatch

log = get_logger()

CALL_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 1.0

# Logical offsets of the protocol's ListOffsets request, which offsets_for_times passes on.
_LATEST, _EARLIEST = -1, -2
# Each cluster has it; asking for one topic's metadata is cheap where asking for all is not.
_ANY_TOPIC = "__consumer_offsets"


class KafkaSource:
    """A reader of Kafka topics; see the protocol ``Source``.

    The client reconnects by itself and outlives any outage. While no broker can be reached,
    ``fetch`` raises SourceUnavailable after its timeout, so that somebody is told.
    """

    form = FORM

    def __init__(self, brokers: str, *, group: str, properties: Mapping[str, Any], client_id: str) -> None:
        """Make the client; connects in the background.

        Raises:
            ConfigError: a property is refused, unknown, or has a value that the client does not take.
        """
        check_properties(properties)
        for line in tls_warnings(properties):
            log.warning(line)
        self._brokers = brokers
        self._group = group
        self._mirror = Mirror(group)
        # Set by the callbacks, which run inside poll and must not raise: an exception there would
        # lose the records that the poll has already taken off the queue.
        self._outage: KafkaError | None = None
        self._refusal: KafkaError | None = None
        self._failures = Failures()
        self._assigned: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}
        self._slices = Slices()
        settings = client_settings(brokers, group=group, properties=properties, client_id=client_id)
        self._connect = functools.partial(self._new_consumer, settings)
        self._consumer = self._connect()
        self._closed = False
        self._letter_topic = functools.partial(
            KafkaLetters, brokers=brokers, properties=properties, client_id=client_id
        )
        connection = connection_settings(brokers, properties=properties, client_id=client_id)
        self._topics = TopicWatch(brokers, {**connection, "error_cb": self._note_error}, CALL_TIMEOUT_S)
        self._stalls = StallWatch(self._topics.client, CALL_TIMEOUT_S)

    def _new_consumer(self, settings: Mapping[str, Any]) -> Consumer:
        try:
            return Consumer(
                {**settings, "error_cb": self._note_error, "on_commit": self._mirror.note},
                logger=ClientLog(self._failures.note),
            )
        except KafkaException as error:
            raise ConfigError(f"[kafka] {unusable(kafka_error(error))}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"[kafka] {error}") from error

    # What the log holds

    def cluster_id(self) -> str | None:
        """Return the cluster's own id."""
        try:
            metadata = self._consumer.list_topics(_ANY_TOPIC, timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            self._raise(kafka_error(error), "")
        self._answered()
        cluster_id: str | None = metadata.cluster_id
        return cluster_id

    def partitions(self, topic: str) -> list[TopicPartition]:
        """List the partitions of a topic, in order; never creates it."""
        try:
            metadata = self._consumer.list_topics(topic, timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            self._raise(kafka_error(error), f"topic {topic}")
        self._answered()
        found = metadata.topics.get(topic)
        if found is None or not (found.partitions or found.error):
            raise TopicMissing(f"topic {topic} does not exist on {self._brokers}")
        if found.error is not None:
            self._raise(found.error, f"topic {topic}")
        return [TopicPartition(topic, number) for number in sorted(found.partitions)]

    def topic_id(self, topic: str) -> str | None:
        """Return the id that the cluster gave to this making of the topic (Kafka 2.8 and newer)."""
        try:
            return self._topics.id_of(topic)
        except TimeoutError as error:
            raise SourceUnavailable(f"no answer from {self._brokers} about topic {topic}") from error
        except KafkaException as error:
            self._raise(kafka_error(error), f"topic {topic}")

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Look up where the logs begin and end; two requests a broker, however many partitions."""
        wanted = list(partitions)
        begins = self._list_offsets(wanted, _EARLIEST)
        ends = self._list_offsets(wanted, _LATEST)
        return {at: Bounds(begins[at], ends[at]) for at in wanted}

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Find the first offset at or after a time, else the end."""
        wanted = list(partitions)
        # Below zero they would be logical offsets.
        found = self._list_offsets(wanted, max(timestamp_ms, 0))
        after_last = [at for at, offset in found.items() if offset < 0]
        return {**found, **(self._list_offsets(after_last, _LATEST) if after_last else {})}

    def _list_offsets(self, partitions: list[TopicPartition], query: int) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        names = ", ".join(map(str, partitions[:5])) + (", …" if partitions[5:] else "")
        asked = [KafkaPartition(at.topic, at.partition, query) for at in partitions]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            if trouble(kafka_error(error)) is Trouble.MISSING:
                self._confirm(partitions)
            self._raise(kafka_error(error), names)
        for one in found:
            if one.error is not None:
                self._raise(one.error, f"{one.topic}[{one.partition}]")
        self._answered()
        return {TopicPartition(one.topic, one.partition): one.offset for one in found}

    def _confirm(self, partitions: list[TopicPartition]) -> NoReturn:
        """Tell a missing partition from one whose leader is not known: the client's answer is the same for both."""
        exist = {at for topic in {at.topic for at in partitions} for at in self.partitions(topic)}
        for at in partitions:
            if at not in exist:
                raise TopicMissing(f"{at} does not exist on {self._brokers}")
        raise SourceUnavailable(f"no leader of {partitions[0].topic} answers on {self._brokers}")

    # Reading

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read from these positions on; replaces what was assigned before."""
        self._topics.watch({at.topic for at in positions})
        self._stalls.begin()
        wanted = [KafkaPartition(at.topic, at.partition, position) for at, position in positions.items()]
        try:
            self._consumer.unassign()
            self._drop_waiting()
            self._assigned, self._reached = dict(positions), {}
            self._consumer.assign(wanted)
        except KafkaException as error:
            self._raise(kafka_error(error), "the assignment")

    def _drop_waiting(self) -> None:
        """Empty the client's queue while nothing is assigned.

        It forgets the records of an earlier assignment by itself, but not the errors. None is lost: what is
        still so comes again, for the client begins anew with each assignment.
        """
        while self._consumer.consume(SLICE_EVENTS, 0):
            pass

    def fetch(self, *, events: int, size: int, timeout_s: float) -> Fetched:
        """Return what is there, up to about these limits; wait up to the timeout for the first.

        After an exception call ``assign`` again: records may have been taken off the queue.
        """
        taken: list[Message] = []
        reached: dict[TopicPartition, int] = {}
        # Not consume(n, timeout): it waits for all n. And not a truth test: a tombstone is falsy.
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first]
        if first is None:
            self._complain_if_away()
        while messages:
            if any(map(Message.error, messages)):
                messages = self._without_ends(messages, reached)
            taken += messages
            size -= self._slices.size(messages)
            if (wanted := self._slices.next(events - len(taken), size)) < 1:
                break
            try:
                messages = self._consumer.consume(wanted, 0)
            except KafkaException as error:
                self._raise(kafka_error(error), "fetching")
        if not messages:
            self._stalls.note_empty()
        if taken:
            self._answered()
        self._topics.check()
        self._check_stall()
        return Fetched(taken, reached)

    def _check_stall(self) -> None:
        if (stall := self._stalls.check(self._positions)) is not None:
            old, self._consumer = self._consumer, self._connect()
            self._close(old)
            raise SourceUnavailable(
                f"{stall.at}: nothing came for {stall.seconds:.0f} s from offset {stall.position} on, though the log "
                f"goes on to {stall.end}; connecting anew"
            )

    def _positions(self) -> dict[TopicPartition, int]:
        """Return how far the client has come: past what was taken, and past ends without a record."""
        asked = [KafkaPartition(*at) for at in self._assigned]
        taken = {TopicPartition(one.topic, one.partition): one.offset for one in self._consumer.position(asked)}
        return {at: max(begin, taken[at], self._reached.get(at, 0)) for at, begin in self._assigned.items()}

    def _without_ends(self, messages: list[Message], reached: dict[TopicPartition, int]) -> list[Message]:
        """Take out what is no record: ends are noted, errors raised."""
        records = []
        for message in messages:
            if (error := message.error()) is None:
                records.append(message)
            else:
                self._note_end(message, error, reached)
        return records

    def _note_end(self, message: Message, error: KafkaError, reached: dict[TopicPartition, int]) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:
            self._raise(error, "fetching")
        at = TopicPartition(topic, partition)
        if error.code() == KafkaError._PARTITION_EOF:
            # Past control records and gaps: the offset of the end, not of the last record plus one.
            reached[at] = self._reached[at] = offset
        elif trouble(error) is Trouble.POSITION:
            self._raise_position(at, error)
        else:
            self._raise(error, f"{at}@{offset}" if offset >= 0 else str(at))

    def _raise_position(self, at: TopicPartition, error: KafkaError) -> NoReturn:
        # Not the offset that the error names: an answer that was under way while we assigned anew still has
        # the old one, which in a topic made anew may lie far past the end.
        (consumed,) = self._consumer.position([KafkaPartition(at.topic, at.partition)])
        position = consumed.offset if consumed.offset >= 0 else self._assigned.get(at, 0)
        begin, end = self.bounds([at])[at]
        where = f"{at}: the position is {position}, the log spans {begin} to {end}"
        if position < begin:
            raise BehindRetention(
                f"{where}: {begin - position} offsets were deleted unread; reset the processor to go on"
            )
        if position > end or error.code() == KafkaError._LOG_TRUNCATION:
            raise BeyondEnd(f"{where}: {max(position - end, 0)} offsets past the end; reset the processor to go on")
        # The log changed between the two questions, or the error is of an earlier assignment.
        raise SourceUnavailable(f"{where}; the broker refused it: {error.str()}")

    # What outsiders see

    def mirror(self, positions: Mapping[TopicPartition, int], store_id: str) -> None:
        """Commit the positions to the consumer group, in the background; never read back, never raises."""
        self._mirror.commit(self._consumer, positions, store_id)

    def mirrored(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Read what the group holds: position and store id; partitions without are left out.

        Never a position to start from.
        """
        try:
            return self._mirror.held(self._consumer, partitions, CALL_TIMEOUT_S)
        except KafkaException as error:
            self._raise(kafka_error(error), f"group {self._group}")

    def letter_topic(self, name: str) -> KafkaLetters:
        """Open a topic of the same cluster for dead letters, with a client of its own."""
        return self._letter_topic(name)

    def close(self) -> None:
        """Let go of the client; waits a limited time, because closing can hang on a sick broker."""
        if self._closed:
            return
        self._closed = True
        self._topics.close()
        closing = self._close(self._consumer)
        closing.join(CLOSE_TIMEOUT_S)
        if closing.is_alive():
            log.warning("kafka client does not close", brokers=self._brokers, waited_s=CLOSE_TIMEOUT_S)

    def _close(self, consumer: Consumer) -> threading.Thread:
        closing = threading.Thread(target=consumer.close, name="axe close kafka", daemon=True)
        closing.start()
        return closing

    # Errors

    def _note_error(self, error: KafkaError) -> None:
        self._failures.note(error.str())
        if trouble(error) is Trouble.DENIED:
            self._refusal = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN or error.fatal():
            self._outage = error

    def _answered(self) -> None:
        self._outage = self._refusal = None
        self._failures.forget()

    def _complain_if_away(self) -> None:
        """Raise while the brokers are away; the client tells when they go, but not when they are back."""
        if self._refusal is None and self._outage is None:
            return
        try:
            self._consumer.list_topics(_ANY_TOPIC, timeout=PROBE_TIMEOUT_S)
        except KafkaException as error:
            self._raise(kafka_error(error), "fetching")
        self._answered()

    def _raise(self, error: KafkaError, subject: str) -> NoReturn:
        cause = error
        if trouble(error) is Trouble.UNAVAILABLE and not self._closed:
            # The call itself says only that nothing answered; why, the callbacks know, and they are called by a poll.
            # And records that wait in the client hold on to the broker that they came from: should that one be left
            # out of an answer (it is, for a moment, when it was frozen), the client looks for no other until they go.
            self._consumer.unassign()
            self._drop_waiting()
            cause = self._refusal or error
        raise translated(cause, subject, self._brokers, str(self._failures)) from KafkaException(error)
