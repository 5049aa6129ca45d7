"""The link ``avro``: what was written is read back, and hostile bytes and schemas are refused."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axe.decode import Decoded, reader
from axe.errors import ConfigError, DecodeError

from .avro_numbers import number

PHASE = {"type": "enum", "name": "Phase", "symbols": ["I", "II", "III", "IV"]}
STUDY = {
    "type": "record",
    "name": "StudyCreated",
    "namespace": "org.studies",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "phase", "type": ["null", PHASE]},
        {"name": "patients", "type": "long"},
        {"name": "ratio", "type": "double"},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
        {"name": "sites", "type": {"type": "array", "items": {
            "type": "record", "name": "Site",
            "fields": [{"name": "code", "type": "bytes"}, {"name": "phase", "type": "Phase"}],
        }}},
        {"name": "labels", "type": {"type": "map", "values": ["null", "string", "boolean"]}},
    ],
}  # fmt: skip
CLOSED = {"type": "record", "name": "org.studies.StudyClosed", "fields": [{"name": "id", "type": "string"}]}

STUDIES = st.fixed_dictionaries(
    {
        "id": st.text(),
        "phase": st.sampled_from([None, "I", "II", "III", "IV"]),
        "patients": st.integers(-(2**63), 2**63 - 1),
        "ratio": st.floats(allow_nan=False),
        "digest": st.binary(min_size=4, max_size=4),
        "sites": st.lists(
            st.fixed_dictionaries({"code": st.binary(), "phase": st.sampled_from(["I", "II", "III", "IV"])}), max_size=3
        ),
        "labels": st.dictionaries(st.text(), st.none() | st.text() | st.booleans(), max_size=3),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schemas")


def build(folder: Path, schema: Any, max_bytes: int = 1_000_000, max_depth: int = 64) -> Callable[[bytes], Any]:
    path = folder / "study.avsc"
    path.write_text(json.dumps(schema))
    return reader("studies", decode=["avro"], schema=path, max_bytes=max_bytes, max_depth=max_depth)


def written(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


@given(STUDIES)
def test_what_was_written_as_avro_is_read_back_with_the_record_name(folder: Path, value: Any) -> None:
    read = build(folder, STUDY)

    assert read(written(STUDY, value)) == Decoded(value, "StudyCreated")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("string", "text"),
        ({"type": "long"}, 7),
        (PHASE, "III"),
        ({"type": "array", "items": PHASE}, ["I", "IV"]),
        ({"type": "map", "values": "int"}, {"a": 1}),
        (["null", "string"], "text"),
        (["null", "string"], None),
    ],
)
def test_a_schema_that_is_no_record_gives_values_without_a_type(folder: Path, schema: Any, value: Any) -> None:
    assert build(folder, schema)(written(schema, value)) == Decoded(value, None)


def test_of_a_union_of_records_the_chosen_one_names_the_type(folder: Path) -> None:
    schema = [CLOSED, {"type": "record", "name": "Moved", "fields": [
        {"name": "from", "type": ["null", "org.studies.StudyClosed"]},
    ]}]  # fmt: skip
    read = build(folder, schema)

    assert read(number(0) + b"\x02a") == Decoded({"id": "a"}, "StudyClosed")
    assert read(number(1) + number(1) + b"\x02a") == Decoded({"from": {"id": "a"}}, "Moved")


@pytest.mark.parametrize("index", [-1, -2, -3, 2, 3, 2**40, -(2**62)])
def test_an_index_of_a_union_beyond_its_branches_is_refused(folder: Path, index: int) -> None:
    outer = build(folder, [CLOSED, "null"])
    inner = build(folder, {"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "boolean"]}]})

    for read in (outer, inner):
        with pytest.raises(DecodeError):
            read(number(index) + b"\x00")


@pytest.mark.parametrize("index", [-1, -4, -5, 4, 2**40])
@pytest.mark.parametrize(
    "schema",
    [
        PHASE,
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": PHASE}]},
        {"type": "record", "name": "R", "fields": [
            {"name": "n", "type": {"type": "array", "items": PHASE}}, {"name": "a", "type": "Phase"},
        ]},
    ],
)  # fmt: skip
def test_an_index_of_an_enum_beyond_its_symbols_is_refused(folder: Path, schema: Any, index: int) -> None:
    before = number(0) if isinstance(schema, dict) and len(schema.get("fields", ())) == 2 else b""

    with pytest.raises(DecodeError, match="an index of an enum or a union is out of range"):
        build(folder, schema)(before + number(index))


def test_bytes_left_over_after_the_value_are_refused(folder: Path) -> None:
    with pytest.raises(DecodeError, match="2 bytes left over after the value"):
        build(folder, CLOSED)(b"\x02axx")


def test_a_value_that_ends_too_early_is_refused_at_every_byte(folder: Path) -> None:
    value = {"id": "abc", "phase": "II", "patients": 300, "ratio": 0.5, "digest": b"1234",
             "sites": [{"code": b"x", "phase": "I"}], "labels": {"a": "b"}}  # fmt: skip
    read, whole = build(folder, STUDY), written(STUDY, value)

    for end in range(len(whole)):
        with pytest.raises(DecodeError):
            read(whole[:end])


def test_a_value_of_more_bytes_than_the_limit_is_refused(folder: Path) -> None:
    with pytest.raises(DecodeError, match="^12 bytes, more than max_bytes = 10$"):
        build(folder, CLOSED, max_bytes=10)(b"\x00" * 12)


@pytest.mark.parametrize("size", [-1, -5, 2**31, 2**33, 2**40, 2**62, -(2**63)])
@pytest.mark.parametrize(
    "schema", ["string", "bytes", {"type": "array", "items": "long"}, {"type": "map", "values": "null"}]
)
def test_a_length_far_beyond_the_data_is_refused_without_allocating(folder: Path, schema: Any, size: int) -> None:
    read = build(folder, schema)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            read(number(size) + b"\x02a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


FUZZED: list[Any] = [
    STUDY,
    [CLOSED, STUDY, "null"],
    {"type": "record", "name": "Logical", "fields": [
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}},
    ]},
    {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "map", "values": {"type": "array", "items": ["null", "float", PHASE]}},
]  # fmt: skip


@pytest.mark.parametrize("schema", FUZZED, ids=range(len(FUZZED)))
def test_any_bytes_decode_or_are_refused(folder: Path, schema: Any) -> None:
    read = build(folder, schema)

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.binary(max_size=60) | st.lists(st.integers(-4, 4).map(number) | st.binary(max_size=3)).map(b"".join))
    def fuzz(value: bytes) -> None:
        try:
            assert isinstance(read(value), Decoded)
        except DecodeError:
            pass

    fuzz()


@given(value=STUDIES, place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_flipped_byte_gives_another_study_or_is_refused(folder: Path, value: Any, place: int, byte: int) -> None:
    read, whole = build(folder, STUDY), bytearray(written(STUDY, value))
    whole[place % len(whole)] = byte

    try:
        found = read(bytes(whole))
    except DecodeError:
        return
    assert found.value["phase"] in (None, "I", "II", "III", "IV")


def test_no_reason_holds_any_of_the_payload(folder: Path) -> None:
    uuid = build(folder, {"type": "string", "logicalType": "uuid"})

    with pytest.raises(DecodeError) as raised:
        uuid(number(7) + b"hunter2")

    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("amount", "scale"), [("123.45", 2), ("-999.99", 2), ("0", 0), ("99999", 0), ("0.00001", 5)])
def test_a_decimal_is_read_exactly(folder: Path, amount: str, scale: int) -> None:
    for kind in ({"type": "bytes"}, {"type": "fixed", "name": "F", "size": 8}):
        schema = {**kind, "logicalType": "decimal", "precision": 5, "scale": scale}
        assert build(folder, schema)(written(schema, Decimal(amount))) == Decoded(Decimal(amount), None)


@given(
    st.integers(1, 60).flatmap(lambda digits: st.tuples(st.just(digits), st.integers(1 - 10**digits, 10**digits - 1)))
)
def test_every_decimal_within_its_precision_is_read(folder: Path, drawn: tuple[int, int]) -> None:
    precision, unscaled = drawn
    schema = {"type": "bytes", "logicalType": "decimal", "precision": precision}
    raw = unscaled.to_bytes(30, "big", signed=True)
    short = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)

    for data in (raw, short):
        assert build(folder, schema)(number(len(data)) + data).value == Decimal(unscaled)


def test_a_decimal_beyond_its_precision_is_refused_and_not_rounded(folder: Path) -> None:
    read = build(folder, {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2})

    with pytest.raises(DecodeError, match="more digits than its precision 5"):
        read(number(3) + (100_000).to_bytes(3, "big"))


@pytest.mark.timeout(10)
def test_a_huge_decimal_is_refused_at_once(folder: Path) -> None:
    """Converting it first would take minutes for a megabyte, hours for twelve."""
    read = build(folder, {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2})

    with pytest.raises(DecodeError, match="more digits than its precision 5"):
        read(number(900_000) + b"\x7f" * 900_000)


# --- schemas


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
EMPTY = {"type": "record", "name": "Empty", "fields": []}
NO_BYTES: list[Any] = [
    "null",
    EMPTY,
    {"type": "fixed", "name": "Zero", "size": 0},
    {"type": "record", "name": "Nulls", "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": EMPTY}]},
]


@pytest.mark.parametrize(
    "schema",
    [
        NODE,
        {"type": "record", "name": "Tree", "fields": [{"name": "below", "type": {"type": "array", "items": "Tree"}}]},
        ["null", {"type": "record", "name": "A", "fields": [
            {"name": "b", "type": {"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]}},
        ]}],
    ],
)  # fmt: skip
def test_a_recursive_schema_is_refused_by_name(folder: Path, schema: Any) -> None:
    with pytest.raises(ConfigError, match=r"study\.avsc: (Node|Tree|A) contains itself"):
        build(folder, schema)


@pytest.mark.parametrize("items", NO_BYTES)
def test_an_array_whose_items_take_no_bytes_is_refused(folder: Path, items: Any) -> None:
    with pytest.raises(ConfigError, match=r"study\.avsc: the items of an array take no bytes"):
        build(folder, {"type": "array", "items": items})


@pytest.mark.parametrize("values", NO_BYTES)
def test_a_map_needs_a_byte_an_entry_whatever_its_values_take(folder: Path, values: Any) -> None:
    read = build(folder, {"type": "map", "values": values})

    assert set(read(number(2) + b"\x02a\x02b\x00").value) == {"a", "b"}
    with pytest.raises(DecodeError):
        read(number(2**50) + b"\x02a")


def test_a_schema_deeper_than_the_limit_is_refused(folder: Path) -> None:
    schema: Any = "int"
    for _ in range(6):
        schema = {"type": "array", "items": schema}

    assert build(folder, schema, max_depth=6)(b"\x00") == Decoded([], None)
    with pytest.raises(ConfigError, match="nests deeper than max_depth = 5"):
        build(folder, schema, max_depth=5)


def test_records_that_multiply_without_recursion_are_refused(folder: Path) -> None:
    schema: Any = EMPTY
    for level in range(30):
        name = schema["name"]
        schema = {"type": "record", "name": f"L{level}", "fields": [
            {"name": "a", "type": schema}, {"name": "b", "type": name},
        ]}  # fmt: skip

    with pytest.raises(ConfigError, match="holds more than 100000 fields"):
        build(folder, schema)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"Unknown"', "unknown type Unknown"),
        ("7", "schema"),
        ("{}", "not an Avro schema"),
        ('{"type": ["null"]}', "schema"),
        ('{"type": "record", "name": "R", "fields": 7}', "not an Avro schema"),
        ('{"type": "enum", "name": "E", "symbols": ["a b"]}', "symbol"),
        ('{"type": "fixed", "name": "F", "size": -1}', "the size of F"),
        ('{"type": "bytes", "logicalType": "decimal"}', "a decimal needs a precision"),
        ('{"type": "record", "name": "axe__value", "fields": []}', "redefined"),
    ],
)
def test_a_file_that_holds_no_usable_schema_is_refused_by_its_name(folder: Path, text: str, reason: str) -> None:
    path = folder / "broken.avsc"
    path.write_text(text)

    with pytest.raises(ConfigError, match=rf"broken\.avsc: .*{reason}"):
        reader("studies", decode=["avro"], schema=path, max_bytes=10, max_depth=10)


def test_a_missing_schema_file_and_a_missing_setting_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.avsc: No such file"):
        reader("studies", decode=["avro"], schema=folder / "absent.avsc", max_bytes=10, max_depth=10)
    with pytest.raises(ConfigError, match="needs the setting `schema`"):
        reader("studies", decode=["avro"], schema=None, max_bytes=10, max_depth=10)
