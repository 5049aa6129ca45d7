"""For the tests of a plugin: a processor, a log in memory, and what became of its events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from .app import App
from .decode import event_type_of
from .event import RECORD_FORM, Event, Failure, Record, Rejection
from .sources.memory import memory_log

__all__ = ["Harness", "make_event"]

_WAIT_S = 10.0


class _Made:
    """The origin of events that a test makes."""

    form = RECORD_FORM

    def type_of(self, raw: Any, value: Any) -> str | None:
        """Find the type as axe does for topics that say nothing about it."""
        return event_type_of(None).of(raw.headers, value)


def make_event(  # noqa: PLR0913 # all that an event has, by name
    value: Any,
    *,
    topic: str = "topic",
    partition: int = 0,
    offset: int = 0,
    key: bytes | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
    type: str | None = None,  # noqa: A002 # the word of the contract
    timestamp_ms: int | None = None,
) -> Event:
    """Make an event for a handler that is called by hand; ``value`` is what it finds decoded, None a tombstone.

    The record's bytes are the value as JSON. Without ``type`` the headers name the type, else the value's
    field ``type``.
    """
    content = None if value is None else msgspec.json.encode(value)
    record = Record(topic, partition, offset, key, content, tuple(headers), timestamp_ms)
    return Event(value, record, _Made(), msgspec.UNSET if type is None else type)


class Harness:
    """Runs one processor on a log in memory, with a real store that is gone at the end.

    ```python
    with Harness(StudyCounter()) as harness:
        harness.send("studies", {"phase": "I"}, type="study_created")
        assert harness.state["I"] == 1
    ```

    ``topic`` and ``settings`` are as in ``App.processors.add``. ``rejections`` and ``failures`` hold what
    the handler refused and failed at; a failed event is not retried.
    """

    def __init__(self, handler: Any, *, topic: str | None = None, settings: dict[str, Any] | None = None) -> None:
        name = uuid.uuid4().hex
        self.rejections: list[Rejection] = []
        self.failures: list[Failure] = []
        self._log = memory_log(name)
        config = {"source": f"memory:{name}", "state": "memory:", "processors": {"harness": {"retries": 0}}}
        self._app = App(config)
        self._app.on_reject(self.rejections.append)
        self._app.on_error(self.failures.append)
        self._processor = self._app.processors.add(id="harness", topic=topic, handler=handler, settings=settings)
        for read in self._processor.topics:
            self._log.create_topic(read, 1)

    @property
    def state(self) -> Mapping[str, Any]:
        """The values as they are committed now."""
        return self._processor.state

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        type: str | None = None,  # noqa: A002 # the word of the contract
    ) -> Record:
        """Append one event and wait until it is handled, rejected or has failed.

        Bytes are sent as they are, None as a tombstone, anything else as JSON.

        Raises:
            TimeoutError: none of it within 10 seconds.
        """
        record = self._log.append(topic, value, key=key, headers=headers, type=type)
        deadline = time.monotonic() + _WAIT_S
        while self._processor.positions.get(record.at, 0) <= record.offset:
            if any(failure.record == record for failure in self.failures):
                break
            if time.monotonic() > deadline:
                message = f"{record} was not handled within {_WAIT_S:.0f} seconds"
                raise TimeoutError(message)
            time.sleep(0.002)
        return record

    def __enter__(self) -> Self:
        """Start."""
        self._app.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._app.__exit__(kind, error, trace)
