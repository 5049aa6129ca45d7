"""Targets: JSON and Avro of any bytes."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fastavro
from fastavro.utils import generate_one
from hypothesis import strategies as st

from axe.decode import Decoded, JsonReader, reader
from axe.decode.value import Limits
from axe.errors import AxeError, ConfigError, DecodeError
from tests.decode.avro_numbers import number as avro_number

from .mutation import mutated, spoilt
from .target import Check, Target

_MAX_BYTES, _MAX_DEPTH = 100_000, 12
_LONGEST_REASON = 300

# --- JSON

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["type", "["]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
_WHOLE = st.builds(
    lambda value, is_ascii, indent: json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode(),
    _VALUES | st.fixed_dictionaries({"type": _VALUES, "n": _VALUES}),
    st.booleans(),
    st.none() | st.just(1),
)
_TOKENS = [
    b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"[[[[[[", b"]]]]]]", b'{"a":', b'{"a":{"a":', b"[" * 13,
    b"[" * 5000, b'{"":' * 4000, b"null", b"tru", b"-", b"-0", b"1e400", b"1e-400", b"0.1" + b"3" * 400, b"9" * 30,
    b"9" * 5000, b"18446744073709551616", b"-9223372036854775809", b"NaN", b"Infinity", b"01", b"+1", b".5", b"1.",
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\x41"', b'"\x01"', b"\xff", b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xef\xbb\xbf", b"\x00", b" ", b"\n", b"\x0b", b"/**/", b'"type":', b'"a":1,"a":2', b'"' + b"x" * 90_000 + b'"',
]  # fmt: skip


@contextmanager
def _json(_: Path) -> Iterator[Check]:
    bounded = JsonReader(Limits(_MAX_BYTES, _MAX_DEPTH))
    peek = bounded.peek("type")

    def check(value: bytes) -> None:
        theirs = _by_the_standard_library(value)
        try:
            ours = bounded(value)
        except DecodeError as error:
            _look_at(error)
            if len(value) <= 100:
                # Short ones may go to the parser alone; it must refuse them, too.
                assert len(value) > bounded.quick_bytes or _is_refused(bounded.quick, value)
            return
        assert len(value) <= _MAX_BYTES
        assert _depth(ours) <= _MAX_DEPTH
        assert not isinstance(theirs, Exception), f"the standard library refuses it: {theirs}"
        assert _is_same(ours, theirs), f"{ours!r} and not {theirs!r}"
        if isinstance(ours, dict):
            assert _is_same(peek(value).field, ours.get("type"))

    yield check


def _is_refused(read: Callable[[bytes], Any], value: bytes) -> bool:
    try:
        read(value)
    except (ValueError, RecursionError):
        return True
    return False


def _by_the_standard_library(value: bytes) -> Any:
    try:
        return json.loads(value.decode())
    except (ValueError, RecursionError) as error:
        return error


def _is_same(ours: Any, theirs: Any) -> bool:
    """Compare as JSON does: 1 is not true, and 1.0 is not 1."""
    if isinstance(ours, float) and isinstance(theirs, int | float) and not isinstance(theirs, bool):
        return math.copysign(1, ours) == math.copysign(1, theirs) and ours == theirs
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_is_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_is_same, ours, theirs))
    return bool(ours == theirs)


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


def _look_at(error: AxeError) -> None:
    assert str(error).isprintable(), repr(str(error))
    assert len(str(error)) < _LONGEST_REASON, str(error)[:_LONGEST_REASON]


# --- Avro

_PLAIN = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
    {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 9000},
    {"type": "int", "logicalType": "date"}, {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"}, {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"}, {"type": "long", "logicalType": "timestamp-nanos"},
    {"type": "long", "logicalType": "local-timestamp-millis"}, {"type": "string", "logicalType": "uuid"},
    {"type": "string", "logicalType": "nobody-knows"}, {"type": "int", "logicalType": "decimal"},
]  # fmt: skip


@st.composite
def _schemas(draw: st.DrawFn) -> Any:
    """Draw a schema: names are given once, and may be used again, within themselves too."""
    given: list[str] = []

    def named(kind: str) -> dict[str, Any]:
        given.append(f"{kind[0].upper()}{len(given)}")
        return {"type": kind, "name": given[-1]}

    def schema(room: int) -> Any:  # noqa: PLR0911 # a kind each
        kinds = ["plain"] * 3 + ["enum", "fixed"] + (["known"] if given else [])
        kind = draw(st.sampled_from(kinds + (["array", "map", "union", "record", "record"] if room else [])))
        match kind:
            case "known":
                return draw(st.sampled_from(given))
            case "enum":
                return named("enum") | {"symbols": ["A", "B", "C"][: draw(st.integers(1, 3))]}
            case "fixed":
                size = draw(st.integers(0, 9))
                made = named("fixed") | {"size": size}
                is_decimal = size and draw(st.booleans())
                return made | {"logicalType": "decimal", "precision": 2 * size} if is_decimal else made
            case "array":
                return {"type": "array", "items": schema(room - 1)}
            case "map":
                return {"type": "map", "values": schema(room - 1)}
            case "union":
                branches = ["null", *(schema(room - 1) for _ in range(draw(st.integers(1, 3))))]
                return [one for one in branches if not isinstance(one, list)]
            case "record":
                made = named("record")
                return made | {
                    "fields": [{"name": f"f{n}", "type": schema(room - 1)} for n in range(draw(st.integers(0, 4)))]
                }
        return draw(st.sampled_from(_PLAIN))

    return schema(draw(st.integers(0, 4)))


_PIECES = [
    *map(avro_number, (0, 1, 2, 3, -1, -2, 64, 10**6, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)),
    b"\x80" * 11, b"\xff" * 10 + b"\x01", b"\x00" * 20, b"\xff", b"a", "ä".encode(), b"\xed\xa0\x80",
    b"\x00\x00\xc0\x7f", b"\x01\x00\x00\x00\x00\x00\xf0\x7f", b"00000000-0000-4000-8000-000000000000",
]  # fmt: skip
_A_SCHEMA = 30


@contextmanager
def _avro(folder: Path) -> Iterator[Check]:
    path = folder / "drawn.avsc"

    def check(drawn: tuple[Any, int]) -> None:
        schema, number = drawn
        path.write_text(json.dumps(schema))
        try:
            read = reader("t", decode=["avro"], schema=path, max_bytes=_MAX_BYTES, max_depth=_MAX_DEPTH)
        except ConfigError as error:
            _look_at(error)
            return
        parsed = fastavro.parse_schema(schema, {})
        for payload in _payloads(parsed, number):
            try:
                _read(read, parsed, payload)
            except BaseException as error:
                error.add_note(f"payload: {payload[:2000]!r}")
                raise

    yield check


def _read(read: Callable[[bytes], Any], parsed: Any, payload: bytes) -> None:
    try:
        value = read(payload)
    except DecodeError as error:
        _look_at(error)
        return
    assert isinstance(value, Decoded)
    assert len(payload) <= _MAX_BYTES
    assert _depth(value.value) <= _MAX_DEPTH
    # What stands between fastavro and the data refuses, and changes nothing.
    assert repr(value.value) == repr(fastavro.schemaless_reader(io.BytesIO(payload), parsed, None))


def _payloads(parsed: Any, number: int) -> Iterator[bytes]:
    """Make up values of the schema, spoil them, and add noise."""
    chance = random.Random(number)
    whole = []
    random.seed(number)  # fastavro's generator has no other
    # It does not know every schema.
    with suppress(Exception):
        for _ in range(3):
            out = io.BytesIO()
            fastavro.schemaless_writer(out, parsed, generate_one(parsed))
            whole.append(out.getvalue())
    yield from whole
    for _ in range(_A_SCHEMA - len(whole)):
        begin = chance.choice(whole) if whole and chance.random() < 0.7 else b"".join(chance.choices(_PIECES, k=9))
        yield spoilt(begin, _PIECES, chance, 3)
    yield (chance.choice(_PIECES) * _MAX_BYTES)[: _MAX_BYTES - chance.randint(-1, 9)]


JSON = Target(
    "json",
    "JSON of any bytes: a value within the bounds, the one that the standard library reads, or a DecodeError",
    mutated(_WHOLE, _TOKENS) | st.lists(st.binary(max_size=60), max_size=20),
    _json,
)
AVRO = Target(
    "avro",
    "schemas and encodings of any kind, recursive ones too: a value that fastavro reads alike, or refused",
    st.lists(st.tuples(_schemas(), st.integers(0, 2**32)), min_size=1, max_size=3),
    _avro,
    weight=_A_SCHEMA,
    limit_s=_A_SCHEMA * 1.0,
)
