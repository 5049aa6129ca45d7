"""Records from Apache Kafka: all partitions assigned by hand, at positions that the store keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from ..config import tls_warnings
from ..errors import BehindRetention, BeyondEnd, SourceUnavailable
from ..event import TopicPartition
from ..log import get_logger
from . import Fetched
from .kafka_client import FORM, Trouble, check_properties, client_settings, connection_settings, kafka_error, trouble
from .kafka_letters import KafkaLetters
from .kafka_lookups import KafkaLookups
from .kafka_mirror import Mirror
from .kafka_slices import Slices
from .kafka_stalls import StallWatch
from .kafka_topics import TopicWatch

log = get_logger()

CLOSE_TIMEOUT_S = 5.0


class KafkaSource(KafkaLookups):
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
        self._group = group
        self._mirror = Mirror(group)
        settings = client_settings(brokers, group=group, properties=properties, client_id=client_id)
        super().__init__(brokers, {**settings, "on_commit": self._mirror.note})
        self._assigned: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}
        self._slices = Slices()
        self._letter_topic = functools.partial(
            KafkaLetters, brokers=brokers, properties=properties, client_id=client_id
        )
        connection = connection_settings(brokers, properties=properties, client_id=client_id)
        self._topics = TopicWatch(brokers, {**connection, "error_cb": self._note_error}, self.call_timeout_s)
        self._stalls = StallWatch(self._topics.client, self.call_timeout_s)

    def topic_id(self, topic: str) -> str | None:
        """Return the id that the cluster gave to this making of the topic (Kafka 2.8 and newer)."""
        try:
            return self._topics.id_of(topic)
        except TimeoutError as error:
            raise SourceUnavailable(f"no answer from {self._brokers} about topic {topic}") from error
        except KafkaException as error:
            self._raise(kafka_error(error), f"topic {topic}")

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
            return self._mirror.held(self._consumer, partitions, self.call_timeout_s)
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
