"""The mirror: positions that a consumer group shows to outsiders, committed after the fact and never read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from ..event import TopicPartition
from ..log import get_logger

log = get_logger()

_LOOK_TIMEOUT_S = 1.0


class Mirror:
    """What one consumer shows of its positions in its group; without a group, nothing."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._failed = self._looked_for_others = False

    def commit(self, consumer: Consumer, positions: Mapping[TopicPartition, int], store_id: str) -> None:
        """Commit the positions in the background; never raises."""
        if not self._group or not positions:
            return
        if not self._looked_for_others:
            self._looked_for_others = True
            self._warn_of_others(consumer, positions, store_id)
        try:
            consumer.commit(
                offsets=[
                    KafkaPartition(at.topic, at.partition, position, metadata=store_id)
                    for at, position in positions.items()
                ],
                asynchronous=True,
            )
        except (KafkaException, RuntimeError) as error:
            self._warn(str(error))

    def note(self, error: KafkaError | None, _partitions: list[KafkaPartition]) -> None:
        """Hear what came of a commit: the client's callback, which must not raise."""
        if error is None:
            self._failed = False
        else:
            self._warn(error.str())

    def held(
        self, consumer: Consumer, partitions: Iterable[TopicPartition], timeout_s: float
    ) -> dict[TopicPartition, tuple[int, str]]:
        """Read what the group holds: position and store id; partitions without are left out.

        Raises:
            KafkaException: nobody answered.
        """
        wanted = [KafkaPartition(at.topic, at.partition) for at in partitions]
        if not self._group or not wanted:
            return {}
        return {
            TopicPartition(one.topic, one.partition): (one.offset, one.metadata or "")
            for one in consumer.committed(wanted, timeout=timeout_s)
            if one.error is None and one.offset >= 0
        }

    def _warn_of_others(self, consumer: Consumer, positions: Iterable[TopicPartition], store_id: str) -> None:
        """Say it where another store mirrors to the same group: lag monitors would see the two take turns."""
        try:
            ids = {found for _, found in self.held(consumer, positions, _LOOK_TIMEOUT_S).values()} - {store_id, ""}
        except (KafkaException, RuntimeError):
            return  # It is for display only.
        for other in sorted(ids):
            log.warning(
                "another store mirrors its positions to the same consumer group",
                group=self._group,
                other_store=other,
                what_to_do="give one of the two another `group`, unless its state was moved here",
            )

    def _warn(self, reason: str) -> None:
        # Once an outage, not once a commit.
        if not self._failed:
            self._failed = True
            log.warning("positions are not mirrored to the consumer group", group=self._group, reason=reason)
