"""From records to events: whatever the way it is done, the same records are wanted, refused and left out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
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

SCHEMA = {
    "type": "record",
    "name": "Study",
    "namespace": "studies",
    "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": "long"}],
}
# Good, left over, cut short, not UTF-8, too large, empty, a tombstone.
AVRO: list[bytes | None] = [
    b"\x04S1\x0e",
    b"\x04S1\x0e\x00",
    b"\x04S1",
    b"\x02\xff\x0e",
    b"\x64" + b"x" * 50 + b"\x0e",
    b"",
    None,
]

records = st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(HEADERS)), max_size=12)


def dispatcher(*subscriptions: str, **setting: Any) -> Dispatcher:
    config = load({"source": "memory:", "state": "memory:", "topics": {"t": setting}})
    return Dispatcher(Processor("p", lambda event: None, topics=subscriptions), config)


def outcomes(made_by: Dispatcher, made_of: list[Record]) -> list[tuple[Any, ...]]:
    return [
        ("event", item.offset, item.type, item.value) if isinstance(item, Event) else ("refused", item.record.offset)
        for part in made_by.decode(made_of)
        for item in part
    ]


@given(drawn=records, rule=st.sampled_from([None, "value:type", "header:type"]))
def test_what_becomes_of_a_record_does_not_depend_on_its_neighbours(drawn: list[Any], rule: str | None) -> None:
    setting = {} if rule is None else {"event_type": rule}
    made_of = [Record("t", 0, n, None, value, headers) for n, (value, headers) in enumerate(drawn)]
    mixed, before = dispatcher("t/wanted", **setting), [Record("t", 0, 99, None, VALUES[1])] * 3

    first = outcomes(mixed, made_of)
    outcomes(mixed, before)  # among few that are wanted others are told by a glance
    second = outcomes(mixed, made_of)

    assert first == second == [row for one in made_of for row in outcomes(dispatcher("t/wanted", **setting), [one])]


@pytest.mark.parametrize("subscription", ["t", "t/wanted"])
def test_many_records_come_in_parts_none_of_which_is_empty(subscription: str) -> None:
    drawn = [VALUES[0]] * 100 + [VALUES[1]] * 300 + VALUES * 10
    made_of = [Record("t", 0, n, None, value) for n, value in enumerate(drawn)]
    made_by = dispatcher(subscription)

    parts = list(made_by.decode(made_of))

    assert len(parts) > 1
    assert all(parts)
    each = [row for one in made_of for row in outcomes(made_by, [one])]
    assert outcomes(made_by, made_of) == each


@given(drawn=st.lists(st.sampled_from(AVRO), max_size=12))
def test_what_becomes_of_avro_does_not_depend_on_its_neighbours(drawn: list[bytes | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (schema := Path(folder) / "t.avsc").write_text(json.dumps(SCHEMA))
        made_by = dispatcher("t", decode=["avro"], schema=str(schema), max_bytes=40)
    made_of = [Record("t", 0, offset, None, value) for offset, value in enumerate(drawn)]

    together = outcomes(made_by, made_of)

    assert together == [outcome for record in made_of for outcome in outcomes(made_by, [record])]
    good = [("event", offset, "Study", {"id": "S1", "n": 7}) for offset, v in enumerate(drawn) if v == AVRO[0]]
    assert [one for one in together if one[0] == "event" and one[3] is not None] == good


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
    outcomes(made_by, [Record("t", 0, 0, None, VALUES[1 if few else 0])])

    found = outcomes(made_by, [Record("t", 0, n, None, value) for n, value in enumerate(VALUES[2:4])])

    assert found == [("refused", 1)]
