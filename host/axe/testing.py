"""For the tests of a plugin: a processor on a log in memory, and what a reporter sends."""

from __future__ import annotations

import threading
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from .app import App
from .decode import event_type_of
from .event import Decision, Event, Failure, NoOrigin, Record, Rejection
from .sources.memory import memory_log

__all__ = ["CANARY", "Harness", "RecordingServer", "Request", "make_event", "sample_failure"]

CANARY = "hunter2-canary"
"""What a report must not contain unless its settings ask for the payload."""

_WAIT_S = 10.0


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
    return Event(record, value, NoOrigin(), event_type_of(None).of(record.headers, value) if type is None else type)


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

        def is_done() -> bool:
            failed = any(failure.record == record for failure in self.failures)
            return failed or self._processor.positions.get(record.at, 0) > record.offset

        _wait(is_done, f"{record} to be handled")
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


def sample_failure(**changed: Any) -> Failure:
    """Make a failure of a processor ``study-counter`` at ``studies[3]@1042``, for the tests of a reporter.

    Key, value and headers of the record, and a local variable in the traceback, contain ``CANARY``.
    ``changed`` replaces fields of the Failure.
    """
    canary = CANARY.encode()
    value = b'{"name": "' + canary + b'", "bad": "\xff"}'
    headers = (("note", b"header-" + canary), ("none", None))
    record = Record("studies", 3, 1042, b"key-" + canary, value, headers)

    def handler(_event: Record) -> None:
        local = f"local-{CANARY}"
        raise KeyError("phase" if local else "")

    try:
        handler(record)
    except KeyError as error:
        fields = {"record": record, "exception": error, "attempt": 4, "decision": Decision.STOP}
        return Failure(**{"processor": "study-counter", **fields, **changed})
    raise AssertionError


class Request(NamedTuple):
    """One request that a ``RecordingServer`` got; ``body`` is unzipped."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class RecordingServer:
    """An HTTP server on this machine that keeps what is sent to it, for the tests of what sends reports.

    ```python
    with RecordingServer() as server:
        Pager({"url": server.url}).on_error(sample_failure())
        [request] = server.wait_for(1)
    ```

    Each request is answered with ``status`` and ``answer``; while ``answering`` is cleared, none is.
    """

    def __init__(self, *, status: int = 200, answer: bytes = b"{}") -> None:
        self.requests: list[Request] = []
        self.answering = threading.Event()
        self.answering.set()
        recording = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") in ("gzip", "deflate"):
                    body = zlib.decompress(body, wbits=zlib.MAX_WBITS | 32)  # either of them, by its first bytes
                recording.answering.wait(_WAIT_S)
                recording.requests.append(Request(self.command, self.path, dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST  # noqa: N815 # the names that http.server calls

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def wait_for(self, count: int) -> list[Request]:
        """Return the requests once there are so many.

        Raises:
            TimeoutError: they did not come within 10 seconds.
        """
        _wait(lambda: len(self.requests) >= count, f"{count} requests")
        return list(self.requests)

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what still waits, and stop."""
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            message = f"waited {_WAIT_S:.0f} seconds for {what}"
            raise TimeoutError(message)
        time.sleep(0.002)
