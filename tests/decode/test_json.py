"""The chain of a topic, and its usual link: JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axe.config import load
from axe.decode import check_topic, key_decoder, reader
from axe.errors import ConfigError, DecodeError

CANARY = b"hunter2-secret"

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)  # fmt: skip


NESTED = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\', max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet="[]a", max_size=2), inner, max_size=4),
    max_leaves=40,
)


def json_reader(max_bytes: int = 1_000_000, max_depth: int = 64) -> Callable[[bytes], Any]:
    return reader("studies", decode=["json"], schema=None, max_bytes=max_bytes, max_depth=max_depth)


def read(value: bytes, **limits: int) -> Any:
    return json_reader(**limits)(value)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(JSON_VALUES)
def test_what_was_written_as_json_is_read_back(value: Any) -> None:
    assert read(json.dumps(value).encode()) == value
    assert read(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(value: bytes) -> None:
    try:
        read(value, max_depth=3)
    except DecodeError:
        pass


@given(st.text(alphabet='[]{}",:\\ 1a', max_size=60))
def test_text_made_of_brackets_and_quotes_decodes_within_the_depth_or_is_refused(text: str) -> None:
    try:
        value = read(text.encode(), max_depth=3)
    except DecodeError:
        return
    assert depth_of(value) <= 3


@settings(max_examples=500)
@given(NESTED, st.integers(1, 5))
def test_a_value_is_too_deep_exactly_when_it_nests_deeper_than_the_limit(value: Any, max_depth: int) -> None:
    written = json.dumps(value).encode()
    if depth_of(value) > max_depth:
        with pytest.raises(DecodeError, match="nested deeper"):
            read(written, max_depth=max_depth)
    else:
        assert read(written, max_depth=max_depth) == value


def test_depth_is_seen_behind_neighbours_that_are_nearly_as_deep() -> None:
    value: Any = []
    for _ in range(4):
        value = [value, value, "]"]
    written = json.dumps(value).encode()

    assert read(written, max_depth=5) == value
    with pytest.raises(DecodeError, match="nested deeper than max_depth = 4"):
        read(written, max_depth=4)


def test_an_empty_chain_means_json() -> None:
    decode = reader("studies", decode=[], schema=None, max_bytes=100, max_depth=9)

    assert decode(b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not JSON: it ends too early"),
        (b'{"a": tru}', "not JSON: invalid character at byte 10"),
        (b"NaN", "not JSON: invalid character at byte 0"),
        (b"[Infinity]", "not JSON: invalid character at byte 1"),
        (b"{} {}", "not JSON: trailing characters at byte 4"),
        (b'{"a": "\xff"}', "not JSON: a string that is not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON: invalid character at byte 0"),
        (b"9" * 5000, "not JSON: integer value out of range"),
        (b"1e999", "not JSON: number out of range"),
    ],
)
def test_the_reason_says_what_is_wrong(value: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as raised:
        read(value)

    assert str(raised.value) == reason


@pytest.mark.parametrize("tail", [b"", b"\xff", b'", x', b'"}}', b'\\x"'])
def test_no_reason_holds_any_of_the_payload(tail: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        read(b'{"password": "' + CANARY + tail)

    assert CANARY.decode() not in str(raised.value)


def test_a_value_of_more_bytes_than_the_limit_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match="^11 bytes, more than max_bytes = 10$"):
        read(b'"123456789"', max_bytes=10)
    assert read(b'"12345678"', max_bytes=10) == "12345678"


@pytest.mark.parametrize("value", [b"[" * 1_000_000, b'{"a":' * 200_000, b'["' + b"\\\\" + b'",' + b"[" * 500_000])
def test_deep_nesting_is_refused_and_harms_nobody(value: bytes) -> None:
    with pytest.raises(DecodeError, match="nested deeper than max_depth = 64"):
        read(value, max_bytes=2_000_000)


def test_a_depth_limit_beyond_what_the_parser_can_is_no_crash() -> None:
    levels = sys.getrecursionlimit() * 2

    with pytest.raises(DecodeError, match="nested deeper"):
        read(b"[" * levels + b"]" * levels, max_depth=levels)


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    value = ["[" * 500, '\\"[{' * 100, "\\", [{}] * 500]

    assert read(json.dumps(value).encode(), max_depth=3) == value


def test_an_unknown_link_is_refused_with_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(ConfigError) as raised:
        reader("studies", decode=["jsn"], schema=None, max_bytes=1, max_depth=1)

    assert str(raised.value) == ('topics.studies.decode: there is no decoder "jsn"; did you mean "json"?')


@pytest.mark.parametrize(
    "table", [{"decode": ["a\rb"]}, {"event_type": "\r"}, {"decode": ["avro"], "schema": "\x1b[31m"}]
)
def test_what_is_wrong_with_a_topic_is_said_in_one_line(table: dict[str, Any]) -> None:
    config = load({"source": "memory:", "state": "memory:", "topics": {"studies": table}})

    with pytest.raises(ConfigError) as raised:
        check_topic(config, "studies")

    assert str(raised.value).isprintable()


def test_a_link_after_the_one_that_yields_the_value_is_refused() -> None:
    with pytest.raises(ConfigError, match='"json" yields the value, so it must be the last decoder'):
        reader("studies", decode=["json", "raw"], schema=None, max_bytes=1, max_depth=1)


def test_a_schema_that_no_link_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a schema is set \(study.avsc\), but none of the decoders"):
        reader("studies", decode=["json"], schema=Path("study.avsc"), max_bytes=1, max_depth=1)


def test_raw_and_string_give_the_bytes_and_the_text() -> None:
    value = "né".encode()

    assert reader("s", decode=["raw"], schema=None, max_bytes=9, max_depth=1)(value) == "né".encode()
    assert reader("s", decode=["string"], schema=None, max_bytes=9, max_depth=1)(value) == "né"
    for link in ("raw", "string"):
        with pytest.raises(DecodeError, match="3 bytes, more than max_bytes = 2"):
            reader("s", decode=[link], schema=None, max_bytes=2, max_depth=1)(value)


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(DecodeError, match="not UTF-8: invalid start byte at byte 1"):
        reader("s", decode=["string"], schema=None, max_bytes=9, max_depth=1)(b"a\xff")


def test_keys_stay_bytes_unless_the_topic_says_how_they_decode() -> None:
    assert key_decoder([]) is None
    as_text, as_json = key_decoder(["string"]), key_decoder(["json"])
    assert as_text is not None and as_json is not None
    assert as_text(b"st-1") == "st-1"
    assert as_json(b'{"id": 1}') == {"id": 1}
    with pytest.raises(DecodeError, match=r"^key: not JSON: it ends too early$"):
        as_json(b'{"id"')


def test_a_key_cannot_be_avro_for_want_of_a_schema() -> None:
    with pytest.raises(ConfigError, match='key: "avro" needs a schema'):
        key_decoder(["avro"])
