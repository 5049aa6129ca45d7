"""What the real notifier sends, seen by a server of our own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from axe import ConfigError
from axe.testing import CANARY, RecordingServer, sample_failure
from axe_airbrake import Airbrake


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer(status=201, answer=b'{"id":"1"}') as server:
        yield server


def make(server: RecordingServer, **settings: Any) -> Airbrake:
    return Airbrake({"project_id": 7, "project_key": "projectkey", "host": server.url, **settings})


def notices(server: RecordingServer, count: int) -> list[dict[str, Any]]:
    """Wait for so many notices and return them."""
    return [json.loads(request.body) for request in server.wait_for(count)]


def test_a_failure_says_where_it_happened(server: RecordingServer) -> None:
    make(server, environment="test").on_error(sample_failure())

    [notice] = notices(server, 1)
    assert notice["params"] == {
        "processor": "study-counter", "topic": "studies", "partition": 3, "offset": 1042, "attempt": 4,
        "decision": "stop",
    }  # fmt: skip
    assert (notice["context"]["environment"], notice["context"]["component"]) == ("test", "study-counter")
    [error] = notice["errors"]
    assert (error["type"], error["message"]) == ("KeyError", "'phase'")
    assert error["backtrace"][0]["function"] == "handler"
    [request] = server.requests
    assert (request.path, request.headers["Authorization"]) == ("/api/v3/projects/7/notices", "Bearer projectkey")


def test_a_failure_without_a_record_is_reported_too(server: RecordingServer) -> None:
    make(server, payload=True).on_error(sample_failure(record=None))

    assert notices(server, 1)[0]["params"] == {"processor": "study-counter", "attempt": 4, "decision": "stop"}


def test_no_payload_and_no_local_variable_leaves_by_default(server: RecordingServer) -> None:
    make(server).on_error(sample_failure())

    [request] = server.wait_for(1)
    assert CANARY.encode() not in request.body


def test_the_payload_leaves_on_request(server: RecordingServer) -> None:
    make(server, payload=True).on_error(sample_failure())

    assert notices(server, 1)[0]["params"]["record"] == {
        "key": f"key-{CANARY}",
        "value": f'{{"name": "{CANARY}", "bad": "\\xff"}}',
        "headers": [f"note: header-{CANARY}", "none: None"],
    }


def test_an_exception_that_was_never_raised_is_reported(server: RecordingServer) -> None:
    make(server).on_error(sample_failure(exception=RuntimeError("died three times")))

    assert notices(server, 1)[0]["errors"] == [
        {"type": "RuntimeError", "message": "died three times", "backtrace": []}
    ]  # fmt: skip


def test_causes_are_reported_but_not_those_that_were_hidden(server: RecordingServer) -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        shown = error
    try:
        try:
            raise KeyError(CANARY)
        except KeyError:
            raise ValueError("alone") from None
    except ValueError as error:
        hidden = error
    reporter = make(server)

    reporter.on_error(sample_failure(exception=shown))
    reporter.on_error(sample_failure(exception=hidden))

    assert [[error["message"] for error in notice["errors"]] for notice in notices(server, 2)] == [
        ["second", "'first'"], ["alone"],
    ]  # fmt: skip


def test_causes_that_go_in_a_circle_end(server: RecordingServer) -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one

    make(server).on_error(sample_failure(exception=one))

    assert [error["message"] for error in notices(server, 1)[0]["errors"]] == ["one", "other"]


def test_the_end_waits_for_what_has_not_left_yet(server: RecordingServer) -> None:
    reporter = make(server)
    for _ in range(20):
        reporter.on_error(sample_failure())

    reporter.on_stop()

    assert len(server.requests) == 20


def test_an_airbrake_that_does_not_answer_holds_nobody_up(server: RecordingServer) -> None:
    server.answering.clear()
    reporter, one, begin = make(server), sample_failure(), time.monotonic()

    for _ in range(300):
        reporter.on_error(one)
    reported = time.monotonic()
    reporter.on_stop()

    # Each would have waited for seconds.
    assert reported - begin < 30
    assert time.monotonic() - reported < 15
    server.answering.set()
    reporter.on_stop()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "plugins.airbrake.project_id: missing"),
        ({"project_id": 7}, "plugins.airbrake.project_key: missing"),
        ({"project_kye": CANARY}, 'plugins.airbrake.project_kye: unknown setting; did you mean "project_key"'),
        ({"project_id": "7"}, "plugins.airbrake.project_id: must be a whole number"),
        ({"project_id": 7, "project_key": "k", "payload": 1}, "plugins.airbrake.payload: must be true or false"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_without_its_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Airbrake(settings)

    assert str(raised.value).startswith(message)
    assert CANARY not in str(raised.value)
