"""Dead letters in a topic of Kafka: a producer beside the source, with the source's own properties."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ..errors import ConfigError
from . import Outgoing, Report
from .kafka_client import ClientLog, Failures, Trouble, kafka_error, producer_settings, translated, trouble

# What the topic has against a letter, or against one that went in the same batch; another letter may pass.
_ITS_OWN: Final = frozenset({
    KafkaError._INVALID_ARG,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_MSG,
})  # fmt: skip


class KafkaLetters:
    """A topic for dead letters; see the protocol ``LetterTopic``.

    The producer is idempotent. It waits by itself for a broker that is away, for half a minute.
    """

    def __init__(self, name: str, *, brokers: str, properties: Mapping[str, Any], client_id: str) -> None:
        """Make the client at once, so that a wrong property is said before anything is rejected.

        Raises:
            ConfigError: a property has a value that the client does not take.
        """
        self._name = name
        self._brokers = brokers
        self._settings = producer_settings(brokers, properties=properties, client_id=client_id)
        self._failures = Failures()
        # Set by a callback, which runs inside poll and must not raise.
        self._refusal: KafkaError | None = None
        self._reports: list[Report] = []
        self._producer: Producer | None = self._made()

    def _made(self) -> Producer:
        settings = {**self._settings, "error_cb": self._note_error}
        try:
            return Producer(settings, logger=ClientLog(self._failures.note))
        except KafkaException as error:
            raise ConfigError(f"[kafka] {kafka_error(error).str()} (for the topic {self._name})") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"[kafka] {error} (for the topic {self._name})") from error

    def send(self, letters: Iterable[Outgoing]) -> None:
        """Send letters in this order, in the background, without their own times: old ones would be deleted at once."""
        if self._producer is None:
            self._refusal = None
            try:
                self._producer = self._made()
            except ConfigError as error:
                # It was made before, with the same properties: the system lacks something.
                self._reports += [Report(letter.number, str(error)) for letter in letters]
                return
        for letter in letters:
            try:
                self._producer.produce(
                    self._name,
                    letter.value,
                    letter.key,
                    headers=list(letter.headers),
                    on_delivery=functools.partial(self._delivered, letter.number),
                )
            except KafkaException as error:
                self._note(letter.number, kafka_error(error))
            except (BufferError, TypeError, ValueError) as error:
                self._reports.append(Report(letter.number, str(error), is_its_own=not isinstance(error, BufferError)))
        self._producer.poll(0)

    def reports(self, timeout_s: float = 0) -> list[Report]:
        """Tell what became of letters since the last call; wait for the first so long at most."""
        if self._producer is not None:
            self._producer.poll(0 if self._reports else timeout_s)
        found, self._reports = self._reports, []
        return found

    def close(self) -> None:
        """Let go of the client, without waiting for its threads: they may be waiting for a name server."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer.purge(blocking=False)
        producer.poll(0)
        self._reports = []
        # With its last reference it ends its threads, and waits for them.
        last_one = [producer]
        del producer
        threading.Thread(target=last_one.clear, name="axe close kafka letters", daemon=True).start()

    # Callbacks, out of poll: they must not raise

    def _delivered(self, number: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._failures.forget()
            self._reports.append(Report(number))
        else:
            self._note(number, error)

    def _note(self, number: int, error: KafkaError) -> None:
        is_its_own = error.code() in _ITS_OWN
        if is_its_own:
            problem = f"topic {self._name} does not take it: {error.str()}"
        else:
            # "Message timed out" does not say why nobody answered; the connections do.
            is_silence = trouble(error) is Trouble.UNAVAILABLE
            cause = (self._refusal or error) if is_silence else error
            problem = str(translated(cause, f"topic {self._name}", self._brokers, str(self._failures)))
        self._reports.append(Report(number, problem, is_its_own))

    def _note_error(self, error: KafkaError) -> None:
        self._failures.note(error.str())
        if trouble(error) is Trouble.DENIED:
            self._refusal = error
