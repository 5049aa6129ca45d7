"""The client's configuration, its log lines, its messages and what its errors mean: where librdkafka meets axe."""

from __future__ import annotations

import contextlib
import enum
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from ..config import refusal
from ..errors import ConfigError, SourceError, SourceUnavailable, TopicMissing
from ..event import Form
from ..log import get_logger

log = get_logger()

# Of every client, whatever it does.
_CONNECTION: Final[Mapping[str, Any]] = {
    # Metrics for the broker (KIP-714): their histograms take 0.4 MB in each client.
    "enable.metrics.push": False,
    "reconnect.backoff.max.ms": 2_000,
    # A frozen broker keeps its connections open; only an unanswered request tells.
    "socket.timeout.ms": 10_000,
    "socket.keepalive.enable": True,
}

# Bounds: about 16 MB of records wait in the client, whatever the number of partitions. With its own
# default of fetch.queue.backoff.ms (1 s) a consumer that drains its queue sits idle: a fifth of the throughput.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "allow.auto.create.topics": False,
    "check.crcs": True,
    "fetch.queue.backoff.ms": 2,
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 16_384,
    # A handler has its own time limit; librdkafka's would take the partitions away from a slow one.
    "max.poll.interval.ms": 86_400_000,
}

# Partitions are chosen as by clients in Java. A topic that does not exist is said after a few
# seconds; how large a record may be, the broker says.
_PRODUCER_DEFAULTS: Final[Mapping[str, Any]] = {
    "allow.auto.create.topics": False,
    "message.max.bytes": 100_000_000,
    "message.timeout.ms": 30_000,
    "partitioner": "murmur2_random",
    "topic.metadata.propagation.max.ms": 5_000,
}

# Not the user's to change: nothing is lost by the client, nor written twice by it, and no transaction is begun.
_PRODUCER_FIXED: Final[Mapping[str, Any]] = {"enable.idempotence": True, "acks": "all"}
_PRODUCER_WITHOUT: Final = frozenset({"transactional.id"})

# Not the user's to change: positions live in the processor's database, and an end is always reported.
_FIXED: Final[Mapping[str, Any]] = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
}


def check_properties(properties: Mapping[str, Any]) -> None:
    """Refuse librdkafka properties that run code, break axe's promise, or have a setting of their own.

    Raises:
        ConfigError: names the property and the reason; never shows a value, which may be a secret.
    """
    for name, value in properties.items():
        reason = refusal(name)
        if reason is not None:
            raise ConfigError(f'[kafka] "{name}" is refused: {reason}')
        if not isinstance(value, str | int | float):
            raise ConfigError(f'[kafka] "{name}" must be a string, a number or a boolean')


def connection_settings(
    brokers: str, *, properties: Mapping[str, Any], client_id: str
) -> dict[str, str | int | float | bool]:
    """Merge what axe sets for clients of any kind with what the user may set."""
    return {**_CONNECTION, **properties, "bootstrap.servers": brokers, "client.id": client_id}


def client_settings(
    brokers: str, *, group: str, properties: Mapping[str, Any], client_id: str
) -> dict[str, str | int | float | bool]:
    """Merge what axe sets with what the user may set; ``properties`` must have passed ``check_properties``."""
    return {
        **_DEFAULTS,
        **connection_settings(brokers, properties=properties, client_id=client_id),
        **_FIXED,
        # The client refuses to start without a group, also where nothing is ever committed.
        "group.id": group or "axe",
    }


def producer_settings(
    brokers: str, *, properties: Mapping[str, Any], client_id: str
) -> dict[str, str | int | float | bool]:
    """Merge, for a producer, what axe sets with what the user may set; ``properties`` must have been checked.

    Those of consumers alone, the client leaves out.
    """
    given = {name: value for name, value in properties.items() if name not in _PRODUCER_WITHOUT}
    connection = connection_settings(brokers, properties=given, client_id=client_id)
    return {**_PRODUCER_DEFAULTS, **connection, **_PRODUCER_FIXED}


def set_up_library() -> None:
    """Let librdkafka do what it does once a process, setting OpenSSL up above all, without making a client.

    In the fork server it is done for all workers, 2 MB in each. The library finds out that these settings
    contradict each other after that, and before it starts a thread.
    """
    with contextlib.suppress(KafkaException):
        Consumer({"group.id": "axe", "session.timeout.ms": 2, "max.poll.interval.ms": 1})


def _timestamp_ms(message: Message) -> int | None:
    kind, timestamp_ms = message.timestamp()
    return timestamp_ms if kind else None


FORM = Form(
    topic=Message.topic,  # type: ignore[arg-type]  # a message without an error has these three
    partition=Message.partition,  # type: ignore[arg-type]
    offset=Message.offset,  # type: ignore[arg-type]
    key=Message.key,
    value=Message.value,
    headers=Message.headers,  # type: ignore[arg-type]  # a list when received
    timestamp_ms=_timestamp_ms,
)
"""How to read a message of the client: nothing is taken out of it before somebody asks."""


# What librdkafka tells of a connection: its name, the reason, and "(after 2ms in state CONNECT)"; a log line has
# the names of client and thread before that.
_FAILURE = re.compile(
    r"(?:FAIL .*?\]: )?(?:\w+://)?(?P<broker>\S+)/\w+: (?P<reason>.+?)"
    r"(?:: receive 0 after POLLIN)?(?: \(average rtt [^)]*\))? \(after \d+ms in state (?P<state>\w+)[^)]*\)"
)
_SHOWN_FAILURES = 3


class Failures:
    """Why no broker answers: what the client last told of each connection, in words that stay the same."""

    def __init__(self) -> None:
        self._of_brokers: dict[str, tuple[str, str]] = {}

    def note(self, text: str) -> None:
        """Hear an error or a log line of the client; what tells of no connection is left out."""
        found = _FAILURE.fullmatch(text)
        # For the same step of connecting the client has several wordings, of which the first is the fullest.
        if found is not None and self._of_brokers.get(found["broker"], ("",))[0] != found["state"]:
            self._of_brokers[found["broker"]] = (found["state"], found["reason"])

    def forget(self) -> None:
        """Begin anew: somebody has answered."""
        self._of_brokers.clear()

    def __str__(self) -> str:
        reasons = [reason for _, (_, reason) in sorted(self._of_brokers.copy().items())]
        return "; ".join(dict.fromkeys(reasons[:_SHOWN_FAILURES]))


def _ignore(_line: str) -> None:
    pass


class ClientLog:
    """Take librdkafka's log lines, which otherwise go to stderr as they are.

    Lost connections are said once, by the SourceUnavailable that follows, and not by each attempt; so is what a
    producer asks for again by itself.
    ``on_line`` hears each line.
    """

    _QUIET = ("FAIL", "ERROR", "REQTMOUT", "CONFWARN", "GETPID")

    def __init__(self, on_line: Callable[[str], None] = _ignore) -> None:
        self._on_line = on_line

    def log(self, level: int, message: str, *args: object, **_: object) -> None:
        """Log one line; called by the client from inside a poll, so it must not raise."""
        with contextlib.suppress(Exception):
            line = message % args if args else message
            self._on_line(line)
            if level >= logging.WARNING and not line.startswith(self._QUIET):
                log.warning("kafka client", line=line)
            else:
                log.debug("kafka client", line=line)


class Trouble(enum.Enum):
    """What an error of the client means to a reader."""

    UNAVAILABLE = "wait and try again"
    DENIED = "wait and try again; a person has to change credentials or permissions"
    MISSING = "the topic or partition does not exist"
    POSITION = "the log no longer holds the position"
    DAMAGED = "a record cannot be read; it stays so until a person acts"


_TROUBLES: Final[Mapping[int, Trouble]] = {
    **dict.fromkeys(
        (
            KafkaError._AUTHENTICATION,
            KafkaError._SSL,
            KafkaError.SASL_AUTHENTICATION_FAILED,
            KafkaError.UNSUPPORTED_SASL_MECHANISM,
            KafkaError.ILLEGAL_SASL_STATE,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            KafkaError.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
        ),
        Trouble.DENIED,
    ),
    **dict.fromkeys(
        (
            KafkaError._UNKNOWN_TOPIC,
            KafkaError._UNKNOWN_PARTITION,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.UNKNOWN_TOPIC_ID,
            KafkaError.INCONSISTENT_TOPIC_ID,
            KafkaError.TOPIC_EXCEPTION,
        ),
        Trouble.MISSING,
    ),
    **dict.fromkeys(
        (
            KafkaError._AUTO_OFFSET_RESET,
            KafkaError._LOG_TRUNCATION,
            KafkaError._NO_OFFSET,
            KafkaError.OFFSET_OUT_OF_RANGE,
        ),
        Trouble.POSITION,
    ),
    **dict.fromkeys(
        (
            KafkaError._BAD_MSG,
            KafkaError._BAD_COMPRESSION,
            KafkaError._UNDERFLOW,
            KafkaError._UNSUPPORTED_FEATURE,
            KafkaError.INVALID_MSG,
            KafkaError.INVALID_MSG_SIZE,
            KafkaError.INVALID_RECORD,
            KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        ),
        Trouble.DAMAGED,
    ),
}


def kafka_error(exception: KafkaException) -> KafkaError:
    """Return what an exception of the client carries."""
    found: KafkaError = exception.args[0]
    return found


def trouble(error: KafkaError) -> Trouble:
    """Tell what an error means; one that nobody foresaw is waited out, loudly, rather than skipped."""
    return _TROUBLES.get(error.code(), Trouble.UNAVAILABLE)


_ACCESS: Final = "let the administrator of the cluster grant this user the access"
_WAYS_IN: Final[Mapping[int, str]] = {
    KafkaError._SSL: "correct `security.protocol`, or `ssl.certificate.location` and `ssl.key.location`, under [kafka]",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "correct `sasl.mechanisms` under [kafka]",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _ACCESS,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _ACCESS,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _ACCESS,
}


def _refused(code: int, reason: str, about: str, brokers: str) -> SourceUnavailable:
    """Say who refuses whom, and what a person may do about it."""
    if "certificate verify failed" in reason:
        # The client does not tell which of the three it was.
        return SourceUnavailable(
            f"the certificate of {brokers} is refused{about}: certificate verify failed; it has to be signed by an "
            "authority of `ssl.ca.location` under [kafka], to name the host as `source` does, and not to have expired"
        )
    way_in = _WAYS_IN.get(code, "correct `sasl.username`, `sasl.password` or `sasl.mechanisms` under [kafka]")
    return SourceUnavailable(f"{brokers} refuses this client{about}: {reason}; {way_in}")


def unusable(error: KafkaError) -> str:
    """Say why no client can be made of the properties."""
    reason = error.str()
    # All that OpenSSL says of a wrong password is that of the lines of the file it can make nothing.
    if "ssl.key" in reason:
        return f"{reason}; the file has to be there and to hold a key in PEM, and `ssl.key.password` to be its password"
    if "ssl.ca.location" in reason or "ssl.certificate" in reason:
        return f"{reason}; the file has to be there and to hold certificates in PEM"
    return reason


# A broker that wants TLS or SASL says nothing to a client without; it hangs up, be the client waiting or writing.
_HUNG_UP = ("Disconnected", "Broken pipe", "Connection reset")


def translated(error: KafkaError, subject: str, brokers: str, failures: str = "") -> SourceError:
    """Make an error of ours from one of the client's; position errors need the log's bounds, and are not made here.

    ``failures`` is what is known of the connections, where nobody answers.
    """
    about = f" ({subject})" if subject else ""
    match trouble(error):
        case Trouble.MISSING:
            return TopicMissing(f"{subject or 'what was asked for'} does not exist on {brokers}: {error.str()}")
        case Trouble.DENIED:
            # Without how long it took: the runner logs a reason once, as long as it is the same.
            found = _FAILURE.fullmatch(error.str())
            return _refused(error.code(), found["reason"] if found else error.str(), about, brokers)
        case Trouble.DAMAGED:
            return SourceUnavailable(f"{subject} cannot be read from {brokers}: {error.str()}")
    # "Failed to get metadata: Local: Broker transport failure": the last part is the cause.
    cause = failures or error.str().rpartition(": ")[2].lower()
    if "alert" in cause:
        return _refused(KafkaError._SSL, cause, about, brokers)
    hung_up = any(words in cause for words in _HUNG_UP)
    way_out = "`source`, or `security.protocol` under [kafka]" if hung_up else "`source`"
    return SourceUnavailable(f"no answer from {brokers}{about}: {cause}; start the broker, or correct {way_out}")
