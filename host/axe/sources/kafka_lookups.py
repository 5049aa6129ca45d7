"""A client of Kafka's brokers: what it can ask them, and what it is told of their troubles."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from ..errors import ConfigError, SourceUnavailable, TopicMissing
from ..event import TopicPartition
from . import Bounds
from .kafka_client import ClientLog, Failures, Trouble, kafka_error, translated, trouble, unusable
from .kafka_slices import SLICE_EVENTS

PROBE_TIMEOUT_S = 1.0

# Logical offsets of the protocol's ListOffsets request, which offsets_for_times passes on.
_LATEST, _EARLIEST = -1, -2
# Each cluster has it; asking for one topic's metadata is cheap where asking for all is not.
_ANY_TOPIC = "__consumer_offsets"


class KafkaLookups:
    """A client, what the log holds as far as it can ask, and the outage that it was told of."""

    call_timeout_s = 5.0

    def __init__(self, brokers: str, settings: Mapping[str, Any]) -> None:
        """Make the client; connects in the background.

        Raises:
            ConfigError: a property is unknown, or has a value that the client does not take.
        """
        self._brokers = brokers
        # Set by the callbacks, which run inside poll and must not raise: an exception there would
        # lose the records that the poll has already taken off the queue.
        self._outage: KafkaError | None = None
        self._refusal: KafkaError | None = None
        self._failures = Failures()
        self._settings = {**settings, "error_cb": self._note_error}
        self._consumer = self._connect()
        self._closed = False

    def _connect(self) -> Consumer:
        try:
            return Consumer(self._settings, logger=ClientLog(self._failures.note))
        except KafkaException as error:
            raise ConfigError(f"[kafka] {unusable(kafka_error(error))}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"[kafka] {error}") from error

    def _close(self, consumer: Consumer) -> threading.Thread:
        closing = threading.Thread(target=consumer.close, name="axe close kafka", daemon=True)
        closing.start()
        return closing

    # What the log holds

    def cluster_id(self) -> str | None:
        """Return the cluster's own id."""
        try:
            metadata = self._consumer.list_topics(_ANY_TOPIC, timeout=self.call_timeout_s)
        except KafkaException as error:
            self._raise(kafka_error(error), "")
        self._answered()
        cluster_id: str | None = metadata.cluster_id
        return cluster_id

    def partitions(self, topic: str) -> list[TopicPartition]:
        """List the partitions of a topic, in order; never creates it."""
        try:
            metadata = self._consumer.list_topics(topic, timeout=self.call_timeout_s)
        except KafkaException as error:
            self._raise(kafka_error(error), f"topic {topic}")
        self._answered()
        found = metadata.topics.get(topic)
        if found is None or not (found.partitions or found.error):
            raise TopicMissing(f"topic {topic} does not exist on {self._brokers}")
        if found.error is not None:
            self._raise(found.error, f"topic {topic}")
        return [TopicPartition(topic, number) for number in sorted(found.partitions)]

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
            found = self._consumer.offsets_for_times(asked, timeout=self.call_timeout_s)
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

    # Troubles

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

    def _drop_waiting(self) -> None:
        """Empty the client's queue while nothing is assigned.

        It forgets the records of an earlier assignment by itself, but not the errors. None is lost: what is
        still so comes again, for the client begins anew with each assignment.
        """
        while self._consumer.consume(SLICE_EVENTS, 0):
            pass
