"""Where the event type of a record is found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axe.decode import Decoded, event_type_of
from axe.errors import ConfigError

Headers = tuple[tuple[str, bytes | None], ...]


def named(*headers: tuple[str, bytes | None]) -> Headers:
    return headers


def test_the_header_type_wins_over_event_type_wherever_they_stand() -> None:
    rule = event_type_of(None)

    assert rule.from_headers(named(("event_type", b"b"), ("type", b"a"))) == "a"
    assert rule.from_headers(named(("type", b"a"), ("event_type", b"b"))) == "a"
    assert rule.from_headers(named(("event_type", b"b"))) == "b"


def test_a_header_wins_over_the_value() -> None:
    assert event_type_of(None).of(named(("event_type", b"a")), {"type": "b"}) == "a"


def test_without_headers_the_field_type_of_an_object_counts() -> None:
    assert event_type_of(None).of(named(), {"type": "study_created"}) == "study_created"


@pytest.mark.parametrize("value", [None, 1, "type", ["type"], {}, {"type": 1}, {"type": None}, {"type": ""}, b"type"])
def test_a_value_that_names_no_type_has_none(value: Any) -> None:
    assert event_type_of(None).of(named(("other", b"x")), value) is None


def test_the_name_of_an_avro_record_counts_and_not_its_field() -> None:
    assert event_type_of(None).from_value(Decoded({"type": "field"}, "StudyCreated")) == "StudyCreated"


def test_of_a_header_that_occurs_twice_the_last_counts() -> None:
    assert event_type_of(None).from_headers(named(("type", b"a"), ("type", b"b"))) == "b"


@pytest.mark.parametrize("value", [None, b"", b"\xff"])
def test_a_header_without_text_counts_as_absent(value: bytes | None) -> None:
    assert event_type_of(None).of(named(("type", value), ("event_type", b"b")), None) == "b"


def test_a_header_rule_looks_nowhere_else() -> None:
    rule = event_type_of("header:kind")

    assert rule.of(named(("type", b"a"), ("kind", b"k")), {"type": "b"}) == "k"
    assert rule.of(named(("type", b"a")), {"type": "b"}) is None


def test_a_value_rule_looks_nowhere_else() -> None:
    rule = event_type_of("value:kind")

    assert rule.of(named(("type", b"a")), {"type": "b", "kind": "k"}) == "k"
    assert rule.of(named(("type", b"a")), {"type": "b"}) is None
    assert rule.of(named(), Decoded({"kind": "k"}, "StudyCreated")) == "k"


@pytest.mark.parametrize("rule", ["", "type", "header", "header:", ":type", "Header:type", "field:type"])
def test_a_rule_of_another_form_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match=r'topics\.studies\.event_type: ".*" is neither "header:NAME" nor'):
        event_type_of(rule, topic="studies")


@given(st.lists(st.tuples(st.sampled_from(["type", "event_type", "x"]), st.none() | st.binary(max_size=4))), st.text())
def test_any_headers_give_a_text_or_none(headers: list[tuple[str, bytes | None]], field: str) -> None:
    found = event_type_of(None).of(named(*headers), {"type": field})

    assert found != ""
