"""From records to events: whatever the way it is done, the same records are wanted, refused and left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axe import Event, Record
from axe.config import load
from axe.dispatch import Dispatcher
from axe.errors import ConfigError
from axe.processor import Processor

VALUES: list[bytes | None] = [
    b'{"type": "wanted", "n": 1}',
    b'{"type": "other", "n": 1}',
    b'{"type": "other", "bad": "\xff"}',
    b'{"type": "wanted", "bad": "\xff"}',
    b'{"type": "other", "type": "wanted"}',
    b'{"type": "wanted", "type": "other"}',
    b'{"type": ""}',
    b'{"type": ["wanted"]}',
    b'{"type": 5}',
    b'{"n": 1}',
    b"[1, 2]",
    b'"wanted"',
    b'{"type": "other"',
    b"junk",
    b"",
    b'{"type": "wanted", "long": "' + b"x" * 5000 + b'"}',
    b'{"type": "other", "long": "' + b"x" * 5000 + b'"}',
    b'{"type": "other", "deep": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    None,
]
HEADERS: list[tuple[tuple[str, bytes | None], ...]] = [
    (),
    (("type", b"wanted"),),
    (("type", b"other"),),
    (("event_type", b"wanted"),),
    (("type", b""),),
    (("type", b"\xff"),),
    (("else", b"wanted"),),
]

records = st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(HEADERS)), max_size=12)


def dispatcher(*subscriptions: str, **setting: Any) -> Dispatcher:
    config = load({"source": "memory:", "state": "memory:", "topics": {"t": setting}})
    return Dispatcher(Processor("p", lambda event: None, topics=subscriptions), config)


def outcomes(made_by: Dispatcher, made_of: list[Record]) -> list[tuple[Any, ...]]:
    return [
        ("event", item.offset, item.type, item.value) if isinstance(item, Event) else ("refused", item.record.offset)
        for item in made_by.decode(made_of)
    ]


@given(drawn=records, rule=st.sampled_from([None, "value:type", "header:type"]))
def test_what_becomes_of_a_record_does_not_depend_on_its_neighbours(drawn: list[Any], rule: str | None) -> None:
    setting = {} if rule is None else {"event_type": rule}
    made_of = [Record("t", 0, n, None, value, headers) for n, (value, headers) in enumerate(drawn)]
    mixed, before = dispatcher("t/wanted", **setting), [Record("t", 0, 99, None, VALUES[1])] * 3

    first = outcomes(mixed, made_of)
    mixed.decode(before)  # among few that are wanted others are told by a glance
    second = outcomes(mixed, made_of)

    assert first == second == [row for one in made_of for row in outcomes(dispatcher("t/wanted", **setting), [one])]


@given(drawn=records)
def test_a_filter_leaves_what_it_wants_as_it_is_without_one(drawn: list[Any]) -> None:
    made_of = [Record("t", 0, n, None, value, headers) for n, (value, headers) in enumerate(drawn)]

    every = [row for row in outcomes(dispatcher("t"), made_of) if row[0] == "event"]
    wanted = [row for row in outcomes(dispatcher("t/wanted"), made_of) if row[0] == "event"]

    assert wanted == [row for row in every if row[2] == "wanted"]


def test_a_key_that_nobody_decodes_is_named_by_its_setting() -> None:
    with pytest.raises(ConfigError, match=r'topics\.t\.key: there is no decoder "jsn"; did you mean "json"\?'):
        dispatcher("t", key=["jsn"])


@pytest.mark.parametrize("few", [False, True])
def test_a_broken_record_is_refused_unless_it_says_that_it_is_of_another_type(few: bool) -> None:
    made_by = dispatcher("t/wanted")
    made_by.decode([Record("t", 0, 0, None, VALUES[1 if few else 0])])

    found = outcomes(made_by, [Record("t", 0, n, None, value) for n, value in enumerate(VALUES[2:4])])

    assert found == [("refused", 1)]
