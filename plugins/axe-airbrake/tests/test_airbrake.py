"""What the real notifier sends, seen by a server of our own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from axe import ConfigError, Decision, Failure, Record
from axe_airbrake import Airbrake

CANARY = "hunter2-canary"
RECORD = Record(
    "studies", 3, 1042, key=b"key-" + CANARY.encode(), value=b'{"name": "' + CANARY.encode() + b'", "bad": "\xff"}',
    headers=(("note", b"header-" + CANARY.encode()), ("none", None)),
)  # fmt: skip


class FakeAirbrake:
    """A server that keeps every request made to it."""

    def __init__(self) -> None:
        requests: list[tuple[str, str, bytes]] = []
        released = threading.Event()
        released.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                released.wait(10)
                requests.append((self.path, self.headers["Authorization"], body))
                self.send_response(201)
                self.send_header("Content-Length", "10")
                self.end_headers()
                self.wfile.write(b'{"id":"1"}')

            do_GET = do_PUT = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.requests = requests
        self.released = released
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def notices(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many notices and return them."""
        deadline = time.monotonic() + 10
        while len(self.requests) < count:
            assert time.monotonic() < deadline, f"{len(self.requests)} of {count} notices came"
            time.sleep(0.005)
        return [json.loads(body) for _, _, body in self.requests]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[FakeAirbrake]:
    server = FakeAirbrake()
    yield server
    server.close()


def make(server: FakeAirbrake, **settings: Any) -> Airbrake:
    return Airbrake({"project_id": 7, "project_key": "projectkey", "host": server.host, **settings})


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


def test_a_failure_says_where_it_happened(server: FakeAirbrake) -> None:
    make(server, environment="test").on_error(failure())

    [notice] = server.notices(1)
    assert notice["params"] == {
        "processor": "study-counter", "topic": "studies", "partition": 3, "offset": 1042, "attempt": 4,
        "decision": "stop",
    }  # fmt: skip
    assert (notice["context"]["environment"], notice["context"]["component"]) == ("test", "study-counter")
    [error] = notice["errors"]
    assert (error["type"], error["message"]) == ("KeyError", "'phase'")
    assert error["backtrace"][0]["function"] == "handler"
    assert server.requests[0][:2] == ("/api/v3/projects/7/notices", "Bearer projectkey")


def test_a_failure_without_a_record_is_reported_too(server: FakeAirbrake) -> None:
    make(server, payload=True).on_error(failure(record=None))

    assert server.notices(1)[0]["params"] == {"processor": "study-counter", "attempt": 4, "decision": "stop"}


def test_no_payload_and_no_local_variable_leaves_by_default(server: FakeAirbrake) -> None:
    make(server).on_error(failure())

    server.notices(1)
    assert CANARY.encode() not in server.requests[0][2]


def test_the_payload_leaves_on_request(server: FakeAirbrake) -> None:
    make(server, payload=True).on_error(failure())

    assert server.notices(1)[0]["params"]["record"] == {
        "key": f"key-{CANARY}",
        "value": f'{{"name": "{CANARY}", "bad": "\\xff"}}',
        "headers": [f"note: header-{CANARY}", "none: None"],
    }


def test_an_exception_that_was_never_raised_is_reported(server: FakeAirbrake) -> None:
    make(server).on_error(failure(exception=RuntimeError("died three times")))

    assert server.notices(1)[0]["errors"] == [
        {"type": "RuntimeError", "message": "died three times", "backtrace": []}
    ]  # fmt: skip


def test_causes_are_reported_but_not_those_that_were_hidden(server: FakeAirbrake) -> None:
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

    reporter.on_error(failure(exception=shown))
    reporter.on_error(failure(exception=hidden))

    assert [[error["message"] for error in notice["errors"]] for notice in server.notices(2)] == [
        ["second", "'first'"], ["alone"],
    ]  # fmt: skip


def test_causes_that_go_in_a_circle_end(server: FakeAirbrake) -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one

    make(server).on_error(failure(exception=one))

    assert [error["message"] for error in server.notices(1)[0]["errors"]] == ["one", "other"]


def test_the_end_waits_for_what_has_not_left_yet(server: FakeAirbrake) -> None:
    reporter = make(server)
    for _ in range(20):
        reporter.on_error(failure())

    reporter.on_stop()

    assert len(server.requests) == 20


def test_an_airbrake_that_does_not_answer_holds_nobody_up(server: FakeAirbrake) -> None:
    server.released.clear()
    reporter, one, begin = make(server), failure(), time.monotonic()

    for _ in range(300):
        reporter.on_error(one)
    reported = time.monotonic()
    reporter.on_stop()

    assert reported - begin < 3
    assert time.monotonic() - reported < 3
    server.released.set()
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
