"""What the public values say of themselves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from axe import Decision, Event, Failure, Record, Rejection
from axe.config import load
from axe.dispatch import Dispatcher
from axe.event import are_flat, twins
from axe.processor import Processor
from axe.testing import make_event

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


def fetched(value: bytes, **setting: Any) -> Event:
    """Make an event as a runner does."""
    config = load({"source": "memory:", "state": "memory:", "topics": {"studies": setting}})
    processor = Processor("counter", lambda event: None, topics=("studies",))
    [[event]] = Dispatcher(processor, config).decode([Record("studies", 3, 1042, b"ST-1", value)])
    assert isinstance(event, Event)
    return event


def test_the_type_stays_whatever_a_handler_does_to_the_value() -> None:
    event = fetched(b'{"type": "created", "n": 1}')

    event.value.pop("type")

    assert (event.type, event.value) == ("created", {"n": 1})
    event.value["type"] = "deleted"
    assert event.type == "created"


def test_an_event_can_be_copied_and_sent_to_another_process() -> None:
    for event in (fetched(b'{"type": "created"}', key=["string"]), make_event({"n": 1}, type="made", key=b"k")):
        for same in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
            for name in ("topic", "partition", "offset", "key", "value", "headers", "timestamp", "type", "record"):
                assert getattr(same, name) == getattr(event, name)


CONSTANTS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(CONSTANTS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(VALUES)
def test_a_twin_is_equal_and_can_be_changed_alone(value: Any) -> None:
    event = make_event(copy.deepcopy(value))
    held = value.values() if isinstance(value, dict) else [value]

    assert are_flat([event]) == (not any(isinstance(one, dict | list) for one in held))
    if are_flat([event]):
        [twin] = twins([event])
        assert (twin.value, twin.record, twin.type) == (value, event.record, event.type)
        if isinstance(value, dict):
            twin.value.clear()
        assert event.value == value
