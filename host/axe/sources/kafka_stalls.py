"""Whether a Kafka client still gets what the log has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # documented there

from ..event import TopicPartition

if TYPE_CHECKING:  # The public module does not export the type, so it may move.
    from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo

Positions = Mapping[TopicPartition, int]

_ASK_EVERY_S = 10.0
# Longer than a request may take, be it held back by a quota.
STALLED_S = 30.0


class Stall(NamedTuple):
    """A partition whose log goes on to ``end`` while nothing comes from ``position`` on."""

    at: TopicPartition
    position: int
    end: int
    seconds: float


class StallWatch:
    """Asks now and then where the logs end, and compares with how far the client has come.

    When a partition's leader moves away and back within milliseconds, librdkafka may go on asking the broker in
    between, for ever and without telling (seen with 2.16.1; its pull request 5593). Only a new client asks the right
    one. The question is asked in the background; its answer is looked at by a later fetch.
    """

    def __init__(self, client: Callable[[], AdminClient], timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._asked: Mapping[KafkaPartition, Future[ListOffsetsResultInfo]] = {}
        self._positions: Positions = {}
        self._stands: dict[TopicPartition, tuple[int, float]] = {}
        self._emptied_at = self._emptied_before = self._ask_at = 0.0

    def begin(self) -> None:
        """Forget what was seen: positions have been assigned."""
        self._asked, self._stands = {}, {}
        self._ask_at = time.monotonic() + _ASK_EVERY_S

    def note_empty(self) -> None:
        """Note that nothing waits in the client: whatever it had got until now was taken."""
        self._emptied_at = time.monotonic()

    def check(self, positions: Callable[[], Positions]) -> Stall | None:
        """Ask if it is time to, and look at the answers that are there; never waits."""
        now = time.monotonic()
        if self._asked:
            if all(answer.done() for answer in self._asked.values()):
                answers, self._asked = self._asked, {}
                return self._compare(answers, now)
        elif now >= self._ask_at:
            self._ask_at = now + _ASK_EVERY_S
            self._positions, self._emptied_before = positions(), self._emptied_at
            latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            if wanted := {KafkaPartition(*at): latest for at in self._positions}:
                # Up to the first open transaction: the consumer is given no more.
                committed = IsolationLevel.READ_COMMITTED
                options = {"isolation_level": committed, "request_timeout": self._timeout_s}
                self._asked = self._client().list_offsets(wanted, **options)
        return None

    def _compare(self, answers: Mapping[KafkaPartition, Future[ListOffsetsResultInfo]], now: float) -> Stall | None:
        stands: dict[TopicPartition, tuple[int, float]] = {}
        for one, answer in answers.items():
            at = TopicPartition(one.topic, one.partition)
            try:
                end = answer.result(0).offset
            except KafkaException:
                continue  # An outage is for the consumer to report.
            position = self._positions[at]
            if position >= end:
                continue
            before, since = self._stands.get(at, (position, now))
            stands[at] = position, since if before == position else now
            # What came until then was taken before the question.
            seconds = self._emptied_before - stands[at][1]
            if seconds >= STALLED_S:
                return Stall(at, position, end, seconds)
        self._stands = stands
        return None
