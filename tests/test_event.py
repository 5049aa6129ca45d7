"""What the public values say of themselves."""

from __future__ import annotations

from axe import Decision, Failure, Record, Rejection

RECORD = Record("studies", 3, 1042, key=b"ST-1", value=b"\xff and more", headers=(("note", b"read"), ("none", None)))
PLACE = {"topic": "studies", "partition": 3, "offset": 1042}


def test_a_failure_says_where_it_happened_without_its_payload() -> None:
    failure = Failure("counter", RECORD, KeyError("phase"), 4, Decision.STOP)

    assert failure.where() == {"processor": "counter", "attempt": 4, "decision": "stop", **PLACE}


def test_a_rejection_says_where_it_happened_without_its_payload() -> None:
    rejection = Rejection("counter", RECORD, "no phase", attempts=2)

    assert rejection.where() == {"processor": "counter", "attempts": 2, **PLACE}


def test_the_payload_comes_on_request_as_text_and_cut() -> None:
    where = Rejection("counter", RECORD, "no phase").where(payload_bytes=3)

    assert where["record"] == {"key": "ST-", "value": "\\xff a", "headers": ["note: rea", "none: None"]}


def test_a_failure_without_a_record_has_no_place_in_a_log() -> None:
    failure = Failure("counter", None, OSError(), 1, Decision.STOP)

    assert failure.where(payload_bytes=100) == {"processor": "counter", "attempt": 1, "decision": "stop"}
