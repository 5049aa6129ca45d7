"""Whether a topic is still the one that was assigned."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from ..errors import TopicMissing, TopicRecreated
from .kafka_client import ClientLog, Trouble, kafka_error, trouble

if TYPE_CHECKING:  # The public module does not export the type, so it may move.
    from confluent_kafka.admin._topic import TopicDescription

# How long a topic that was deleted, or deleted and made again, may go unnoticed.
WATCH_EVERY_S = 5.0

# What a broker older than 2.8 answers.
_NO_TOPIC_ID = "A" * 22


class TopicWatch:
    """Asks now and then whether the assigned topics are still the same ones.

    The consumer says nothing when a topic is deleted; and when it is made again the consumer
    goes on at the old offset in the new topic, past records that nobody has read (seen). The
    question is asked in the background; its answer is looked at by a later fetch.
    """

    def __init__(self, brokers: str, settings: dict[str, Any], timeout_s: float) -> None:
        self._brokers = brokers
        self._settings = settings
        self._timeout_s = timeout_s
        self._client: AdminClient | None = None
        self._known: dict[str, str | None] = {}
        self._watched: list[str] = []
        self._asked: Mapping[str, Future[TopicDescription]] = {}
        self._ask_at = 0.0

    def id_of(self, topic: str) -> str | None:
        """Look the id of a topic up; the watch compares with the last one that was asked for here.

        Raises:
            KafkaException: as the client says.
            TimeoutError: no answer, not even an error.
        """
        # The client has a time limit of its own; this one is for when it fails to keep it.
        found = _topic_id(self._ask([topic])[topic].result(self._timeout_s + 1))
        self._known[topic] = found
        return found

    def watch(self, topics: Iterable[str]) -> None:
        """Watch these topics instead of the ones before."""
        self._watched = sorted(set(topics))
        self._asked = {}
        self._ask_at = time.monotonic() + WATCH_EVERY_S

    def check(self) -> None:
        """Ask if it is time to, and look at the answers that are there; never waits.

        Raises:
            TopicMissing: a topic was deleted.
            TopicRecreated: a topic was deleted and made again.
        """
        if self._asked:
            if all(answer.done() for answer in self._asked.values()):
                answers, self._asked = self._asked, {}
                for topic, answer in answers.items():
                    self._compare(topic, answer)
        elif self._watched and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + WATCH_EVERY_S
            self._asked = self._ask(self._watched)

    def close(self) -> None:
        """Let go of the client."""
        self._watched = []
        self._client = None

    def _compare(self, topic: str, answer: Future[TopicDescription]) -> None:
        try:
            found = _topic_id(answer.result(0))
        except KafkaException as error:
            if trouble(kafka_error(error)) is Trouble.MISSING:
                raise TopicMissing(f"topic {topic} was deleted on {self._brokers}") from error
            return  # An outage is for the consumer to report.
        if self._known.setdefault(topic, found) != found:
            raise TopicRecreated(f"topic {topic} was deleted and made again; reset the processor to read the new one")

    def client(self) -> AdminClient:
        """Return the client that asks, made when it is needed first."""
        if self._client is None:
            self._client = AdminClient(self._settings, logger=ClientLog())
        return self._client

    def _ask(self, topics: list[str]) -> Mapping[str, Future[TopicDescription]]:
        return self.client().describe_topics(TopicCollection(topics), request_timeout=self._timeout_s)


def _topic_id(description: TopicDescription) -> str | None:
    found = str(description.topic_id)
    return None if found == _NO_TOPIC_ID else found
