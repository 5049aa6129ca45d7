"""What the real SDK sends, seen by a server of our own."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sentry_sdk

from axe import ConfigError, Decision, Failure, Record
from axe_sentry import Sentry

CANARY = "hunter2-canary"
RECORD = Record(
    "studies", 3, 1042, key=b"key-" + CANARY.encode(), value=b'{"name": "' + CANARY.encode() + b'", "bad": "\xff"}',
    headers=(("note", b"header-" + CANARY.encode()), ("none", None)),
)  # fmt: skip


class FakeSentry:
    """A server that keeps what is posted to it, unzipped."""

    def __init__(self) -> None:
        bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                match self.headers.get("Content-Encoding"):
                    case "gzip":
                        body = gzip.decompress(body)
                    case "deflate":
                        body = zlib.decompress(body)
                bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.bodies = bodies
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://publickey@127.0.0.1:{self._server.server_address[1]}/7"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def events(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many reports and return them, each parsed out of its envelope."""
        deadline = time.monotonic() + 10
        while len(self.bodies) < count:
            assert time.monotonic() < deadline, f"{len(self.bodies)} of {count} reports came"
            time.sleep(0.005)
        return [json.loads(body.split(b"\n")[2]) for body in self.bodies]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[FakeSentry]:
    server = FakeSentry()
    yield server
    server.close()


Make = Callable[..., Sentry]


@pytest.fixture
def make(server: FakeSentry) -> Iterator[Make]:
    made: list[Sentry] = []

    def make(**settings: Any) -> Sentry:
        made.append(Sentry({"dsn": server.dsn, **settings}))
        return made[-1]

    yield make
    for reporter in made:
        reporter._client.close(timeout=0.5)


def failure(record: Record | None = RECORD, **changed: Any) -> Failure:
    def handler(event: Record | None) -> None:
        local_secret = f"local-{CANARY}"
        raise KeyError("phase" if local_secret else "")

    try:
        handler(record)
    except KeyError as error:
        parts = {"exception": error, "attempt": 4, "decision": Decision.STOP, **changed}
        return Failure("study-counter", record, **parts)
    raise AssertionError


def test_a_failure_says_where_it_happened(server: FakeSentry, make: Make) -> None:
    make(environment="test", release="studies@1").on_error(failure())

    [event] = server.events(1)
    assert event["tags"] == {
        "processor": "study-counter", "topic": "studies", "partition": "3", "offset": "1042", "decision": "stop",
    }  # fmt: skip
    assert event["contexts"]["axe"] == {
        "processor": "study-counter", "topic": "studies", "partition": 3, "offset": 1042, "attempt": 4,
        "decision": "stop",
    }  # fmt: skip
    assert (event["environment"], event["release"], event["level"]) == ("test", "studies@1", "error")
    [exception] = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("KeyError", "'phase'")
    assert exception["stacktrace"]["frames"][-1]["function"] == "handler"


def test_a_failure_without_a_record_is_reported_too(server: FakeSentry, make: Make) -> None:
    make(payload=True).on_error(failure(record=None))

    [event] = server.events(1)
    assert event["tags"] == {"processor": "study-counter", "decision": "stop"}


def test_no_payload_and_no_local_variable_leaves_by_default(server: FakeSentry, make: Make) -> None:
    make().on_error(failure())

    server.events(1)
    [body] = server.bodies
    assert CANARY.encode() not in body
    assert b"argv" not in body and b'"vars"' not in body and b'"modules"' not in body


def test_the_payload_leaves_on_request(server: FakeSentry, make: Make) -> None:
    make(payload=True).on_error(failure())

    [event] = server.events(1)
    assert event["extra"] == {
        "key": f"key-{CANARY}",
        "value": f'{{"name": "{CANARY}", "bad": "\\xff"}}',
        "headers": [f"note: header-{CANARY}", "none: None"],
    }


def test_an_exception_that_was_never_raised_is_reported(server: FakeSentry, make: Make) -> None:
    make().on_error(failure(exception=RuntimeError("died three times")))

    assert server.events(1)[0]["exception"]["values"][0]["value"] == "died three times"


def test_the_same_failure_is_reported_at_the_first_attempt_and_at_the_end(server: FakeSentry, make: Make) -> None:
    reporter, first = make(), failure(attempt=1, decision=Decision.RETRY)

    reporter.on_error(first)
    reporter.on_error(failure(exception=first.exception))

    assert {event["tags"]["decision"] for event in server.events(2)} == {"retry", "stop"}


def test_a_processor_that_uses_sentry_itself_is_left_alone(server: FakeSentry, make: Make) -> None:
    scope, hook = sentry_sdk.get_isolation_scope(), sys.excepthook
    scope.set_tag("patient", CANARY)
    scope.add_breadcrumb(message=CANARY)
    try:
        make().on_error(failure())
        [event] = server.events(1)
    finally:
        scope.clear()

    assert "patient" not in event["tags"] and not event.get("breadcrumbs", {}).get("values")
    assert not sentry_sdk.get_client().is_active()
    assert sys.excepthook is hook


def test_the_end_waits_for_what_has_not_left_yet(server: FakeSentry, make: Make) -> None:
    reporter = make()
    for _ in range(20):
        reporter.on_error(failure())

    reporter.on_stop()

    assert len(server.bodies) == 20


def test_an_unreachable_sentry_holds_nobody_up(make: Make, server: FakeSentry) -> None:
    reporter = make(dsn="http://publickey@127.0.0.1:1/7")
    one, begin = failure(), time.monotonic()

    for _ in range(300):
        reporter.on_error(one)
    reported = time.monotonic()
    reporter.on_stop()

    assert reported - begin < 3
    assert time.monotonic() - reported < 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "plugins.sentry.dsn: missing"),
        ({"dsn": ""}, "plugins.sentry.dsn: missing"),
        ({"dns": "x"}, 'plugins.sentry.dns: unknown setting; did you mean "dsn"'),
        ({"dsn": 7}, "plugins.sentry.dsn: must be a text"),
        ({"dsn": "http://k@h/1", "payload": "yes"}, "plugins.sentry.payload: must be true or false"),
        ({"dsn": f"http://{CANARY}"}, "plugins.sentry.dsn: not a Sentry DSN"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_without_its_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Sentry(settings)

    assert str(raised.value).startswith(message)
    assert CANARY not in str(raised.value)
