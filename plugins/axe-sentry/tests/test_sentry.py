"""What the real SDK sends, seen by a server of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk

from axe import ConfigError, Decision
from axe.testing import CANARY, RecordingServer, sample_failure
from axe_sentry import Sentry

Make = Callable[..., Sentry]


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def make(server: RecordingServer) -> Iterator[Make]:
    made: list[Sentry] = []

    def make(**settings: Any) -> Sentry:
        made.append(Sentry({"dsn": f"{server.url.replace('://', '://publickey@')}/7", **settings}))
        return made[-1]

    yield make
    for reporter in made:
        reporter._client.close(timeout=0.5)


def events(server: RecordingServer, count: int) -> list[dict[str, Any]]:
    """Wait for so many reports and return them, each parsed out of its envelope."""
    return [json.loads(request.body.split(b"\n")[2]) for request in server.wait_for(count)]


def test_a_failure_says_where_it_happened(server: RecordingServer, make: Make) -> None:
    make(environment="test", release="studies@1").on_error(sample_failure())

    [event] = events(server, 1)
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


def test_a_failure_without_a_record_is_reported_too(server: RecordingServer, make: Make) -> None:
    make(payload=True).on_error(sample_failure(record=None))

    [event] = events(server, 1)
    assert event["tags"] == {"processor": "study-counter", "decision": "stop"}


def test_no_payload_and_no_local_variable_leaves_by_default(server: RecordingServer, make: Make) -> None:
    make().on_error(sample_failure())

    [request] = server.wait_for(1)
    body = request.body
    assert CANARY.encode() not in body
    assert b"argv" not in body and b'"vars"' not in body and b'"modules"' not in body


def test_the_payload_leaves_on_request(server: RecordingServer, make: Make) -> None:
    make(payload=True).on_error(sample_failure())

    [event] = events(server, 1)
    assert event["extra"] == {
        "key": f"key-{CANARY}",
        "value": f'{{"name": "{CANARY}", "bad": "\\xff"}}',
        "headers": [f"note: header-{CANARY}", "none: None"],
    }


def test_an_exception_that_was_never_raised_is_reported(server: RecordingServer, make: Make) -> None:
    make().on_error(sample_failure(exception=RuntimeError("died three times")))

    assert events(server, 1)[0]["exception"]["values"][0]["value"] == "died three times"


def test_the_same_failure_is_reported_at_the_first_attempt_and_at_the_end(server: RecordingServer, make: Make) -> None:
    reporter, first = make(), sample_failure(attempt=1, decision=Decision.RETRY)

    reporter.on_error(first)
    reporter.on_error(sample_failure(exception=first.exception))

    assert {event["tags"]["decision"] for event in events(server, 2)} == {"retry", "stop"}


def test_a_processor_that_uses_sentry_itself_is_left_alone(server: RecordingServer, make: Make) -> None:
    scope, hook = sentry_sdk.get_isolation_scope(), sys.excepthook
    scope.set_tag("patient", CANARY)
    scope.add_breadcrumb(message=CANARY)
    try:
        make().on_error(sample_failure())
        [event] = events(server, 1)
    finally:
        scope.clear()

    assert "patient" not in event["tags"] and not event.get("breadcrumbs", {}).get("values")
    assert not sentry_sdk.get_client().is_active()
    assert sys.excepthook is hook


def test_the_end_waits_for_what_has_not_left_yet(server: RecordingServer, make: Make) -> None:
    reporter = make()
    for _ in range(20):
        reporter.on_error(sample_failure())

    reporter.on_stop()

    assert len(server.requests) == 20


def test_an_unreachable_sentry_holds_nobody_up(make: Make, server: RecordingServer) -> None:
    reporter = make(dsn="http://publickey@127.0.0.1:1/7")
    one, begin = sample_failure(), time.monotonic()

    for _ in range(300):
        reporter.on_error(one)
    reported = time.monotonic()
    reporter.on_stop()

    assert reported - begin < 30
    assert time.monotonic() - reported < 15


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


def test_the_sdk_is_not_imported_before_the_settings_are_known_to_be_right() -> None:
    """It costs each worker 7 MB, also where the package is installed and not configured."""
    tried = "import sys, axe_sentry\ntry: axe_sentry.Sentry({})\nexcept Exception: print('sentry_sdk' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, check=True)

    assert found.stdout == "False\n"
