"""The link ``avro``: bare Avro values of one schema, through fastavro made safe for bytes from outside.

fastavro trusts what it reads. These are the places where a few bytes would cost more than a
rejection, and what stands there instead:

- a recursive schema lets the data choose the depth and overflows the C stack: refused at start;
- an array whose items take no bytes lets ten bytes ask for gigabytes: refused at start;
- the index of an enum or a union goes to a Python list, where -1 is the last: the lists become
  dictionaries, which know no negative index;
- a decimal without a bound on its digits is converted in quadratic time (12 MB: hours), and one
  with more digits than its precision is rounded silently: our own reader checks first;
- bytes left over are ignored: refused.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS

from ..errors import ConfigError, DecodeError
from .avro_schema import WRAPPER, load_schema
from .value import Decoded, Limits, too_large

_DECIMAL = "axe-decimal"


def avro_reader(limits: Limits, schema: Path | None) -> Callable[[bytes], Decoded]:
    """Build the link ``avro`` from a schema file (``.avsc``); its values are ``Decoded``.

    The event type is the short name of the record; of a union of records, that of the one
    chosen by the data; None for a schema that is no record.

    Raises:
        ConfigError: the file is missing, is no schema, or has a schema that bytes from outside
            could misuse.
    """
    if schema is None:
        raise ConfigError('"avro" needs the setting `schema` beside it: the file of the writer\'s schema')
    loaded = load_schema(schema, limits.max_depth)
    top, named = loaded
    _require_guards()
    named_guarded = {name: _guarded(named_schema) for name, named_schema in named.items()}
    if isinstance(top, dict) and top["type"] in ("record", "error"):
        return RecordReader(_marked(_guarded(top), named_guarded), loaded.record_name(top), limits)
    branches = [
        (_wrapped(_guarded(branch), named_guarded), loaded.record_name(branch))
        for branch in (top if isinstance(top, list) else [top])
    ]
    return _union_reader(branches, limits) if isinstance(top, list) else _plain_reader(*branches[0], limits)


class RecordReader:
    """The link ``avro`` for a record, which is what most topics have.

    ``quick`` gives the value alone, for bytes of at most ``quick_bytes``; it raises what ``__call__`` explains.
    """

    def __init__(self, record: dict[str, Any], name: str | None, limits: Limits) -> None:
        self._record = record
        self._name = name
        self._limits = limits
        self.quick = _quick_reader(record)
        self.quick_bytes = limits.max_bytes

    def __call__(self, value: bytes) -> Decoded:
        """Read one value.

        Raises:
            DecodeError: it is too large, or not of this schema.
        """
        if len(value) > self.quick_bytes:
            raise too_large(value, self._limits)
        stream = io.BytesIO(value)
        try:
            found = fastavro.schemaless_reader(stream, self._record, None)
        except Exception as error:
            raise _misfit(error) from error
        if left := len(value) - stream.tell():
            raise _left_over(left)
        return Decoded(found, self._name)


def _quick_reader(record: dict[str, Any]) -> Callable[[bytes], Any]:
    reader, stream_of = fastavro.schemaless_reader, io.BytesIO

    def read(value: bytes) -> Any:
        stream = stream_of(value)
        found = reader(stream, record, None)
        if stream.tell() != len(value):
            raise _left_over(len(value) - stream.tell())
        return found

    return read


def _plain_reader(wrapper: dict[str, Any], name: str | None, limits: Limits) -> Callable[[bytes], Decoded]:
    max_bytes = limits.max_bytes

    def read(value: bytes) -> Decoded:
        if len(value) > max_bytes:
            raise too_large(value, limits)
        return _read(io.BytesIO(value), wrapper, name, len(value))

    return read


def _union_reader(branches: list[tuple[dict[str, Any], str | None]], limits: Limits) -> Callable[[bytes], Decoded]:
    # fastavro would tell the record's name with return_record_name, but then also wrap the
    # records of every union further down; so the outer index is read here.
    max_bytes = limits.max_bytes

    def read(value: bytes) -> Decoded:
        if len(value) > max_bytes:
            raise too_large(value, limits)
        index, start = _read_index(value)
        if not 0 <= index < len(branches):
            raise DecodeError(f"not Avro of this schema: union index {index} of {len(branches)}")
        wrapper, name = branches[index]
        stream = io.BytesIO(value)
        stream.seek(start)
        return _read(stream, wrapper, name, len(value))

    return read


def _read(stream: io.BytesIO, wrapper: dict[str, Any], name: str | None, size: int) -> Decoded:
    try:
        found = fastavro.schemaless_reader(stream, wrapper, None)
    except Exception as error:
        raise _misfit(error) from error
    if left := size - stream.tell():
        raise _left_over(left)
    return Decoded(found["value"], name)  # type: ignore[index, call-overload]  # a record by construction


def _misfit(error: Exception) -> DecodeError:
    # fastavro promises no set of exceptions for bytes that do not fit.
    return DecodeError(f"not Avro of this schema: {_reason(error)}")


def _left_over(left: int) -> DecodeError:
    return DecodeError(f"not Avro of this schema: {left} bytes left over after the value")


def _read_index(value: bytes) -> tuple[int, int]:
    """Read the zig-zag number at the start; return it and where it ends."""
    number = 0
    for place, byte in enumerate(value[:10]):
        number |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return (number >> 1) ^ -(number & 1), place + 1
    raise DecodeError("not Avro of this schema: no union index")


def _reason(error: Exception) -> str:
    """Say what is wrong without a byte of the payload, which some of the messages quote."""
    match error:
        case EOFError():
            return "it ends too early"
        case KeyError():
            return "an index of an enum or a union is out of range"
        case IndexError():
            return "it ends within a number"
        case UnicodeDecodeError():
            return "a string is not UTF-8"
        case DecodeError():
            return str(error)
        case ValueError() | OverflowError():
            return "a value is out of range for its logical type"
        case _:
            return type(error).__name__


# --- what stands between fastavro and the data


def _wrapped(schema: Any, named: dict[str, Any]) -> dict[str, Any]:
    """Make a schema the one field of a record that is marked as parsed.

    The record adds no byte to the encoding. It is there because fastavro keeps the mark on
    records only and would parse any other schema again for each value.
    """
    fields = [{"name": "value", "type": schema}]
    return _marked({"type": "record", "name": WRAPPER, "fields": fields}, named)


def _marked(record: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """Mark a record as fastavro marks what it has parsed."""
    return {**record, "__fastavro_parsed": True, "__named_schemas": named}


def _guarded(schema: Any) -> Any:
    """Rebuild a parsed schema so that fastavro refuses what it would pass silently.

    Symbols and branches become dictionaries by index, decimals go to our own reader.
    """
    if isinstance(schema, list):
        return {"type": "union", **{index: _guarded(branch) for index, branch in enumerate(schema)}}
    if not isinstance(schema, dict):
        return schema
    match schema["type"]:
        case "enum":
            return {**schema, "symbols": dict(enumerate(schema["symbols"]))}
        case "array":
            return {**schema, "items": _guarded(schema["items"])}
        case "map":
            return {**schema, "values": _guarded(schema["values"])}
        case "record" | "error":
            return {**schema, "fields": [{**field, "type": _guarded(field["type"])} for field in schema["fields"]]}
        case "bytes" | "fixed" if schema.get("logicalType") == "decimal":
            return {**schema, "logicalType": _DECIMAL}
        case _:
            return schema


@functools.cache
def _require_guards() -> None:
    """Check once that this fastavro looks symbols and branches up in what it is given.

    Nothing promises that it does; a release that stops it must not go unnoticed.
    """
    enum = {"type": "enum", "name": "e", "symbols": ["a", "b"]}
    for guarded, good in ((_guarded(enum), "a"), (_guarded(["null", "boolean"]), None)):
        wrapper = _wrapped(guarded, {})
        found: Any = fastavro.schemaless_reader(io.BytesIO(b"\x00"), wrapper, None)
        try:
            fastavro.schemaless_reader(io.BytesIO(b"\x01\x00"), wrapper, None)
        except KeyError:
            if found == {"value": good}:
                continue
        raise ConfigError(f"fastavro {fastavro.__version__} passes negative indexes; install another version")


def _read_decimal(data: bytes, writer_schema: Any = None, reader_schema: Any = None) -> Decimal:  # noqa: ARG001 # fastavro passes both
    """Read a decimal exactly, refusing more digits than the schema's precision."""
    precision = writer_schema["precision"]
    limit = 10**precision
    room = limit.bit_length() // 8 + 1
    # Converting more bytes than can be needed takes quadratic time. Those that only repeat the
    # sign are legal, and the rule for a fixed; one of them is kept, for it is the sign.
    if len(data) > room:
        excess = data[:-room]
        if excess.strip(b"\x00") and excess.strip(b"\xff"):
            raise DecodeError(f"a decimal has more digits than its precision {precision}")
        data = data[-room - 1 :]
    unscaled = int.from_bytes(data, "big", signed=True)
    if abs(unscaled) >= limit:
        raise DecodeError(f"a decimal has more digits than its precision {precision}")
    return Decimal(unscaled).scaleb(-writer_schema.get("scale", 0), Context(prec=precision))


for _kind in ("bytes", "fixed"):
    LOGICAL_READERS[f"{_kind}-{_DECIMAL}"] = _read_decimal
