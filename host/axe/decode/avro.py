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
import json
from collections.abc import Callable
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import fastavro
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType

from ..errors import ConfigError, DecodeError
from .value import Decoded, Limits, too_large

_WRAPPER = "axe__value"
_DECIMAL = "axe-decimal"
_RECORDS = ("record", "error")
_MAX_PRECISION = 10_000
# Records that hold each other, none of them recursive, can still multiply: thirty names are
# enough for a thousand million fields in no bytes at all.
_MAX_FIELDS = 100_000


def avro_reader(limits: Limits, schema: Path | None) -> Callable[[bytes], Decoded]:
    """Build the link ``avro`` from a schema file (``.avsc``); its values are ``Decoded``.

    The event type is the short name of the record; of a union of records, that of the one
    chosen by the data; None for a schema that is no record.

    Raises:
        ConfigError: the file is missing, is no schema, or has a schema that bytes from outside
            could misuse.
    """
    if schema is None:
        raise ConfigError('decode "avro" needs the setting schema: the file of the writer\'s schema')
    top, named = _load(schema)
    _SchemaCheck(schema, limits.max_depth, named).check(top, 1)
    _require_guards()
    named_guarded = {name: _guarded(named_schema) for name, named_schema in named.items()}
    branches = [
        (_wrapped(_guarded(branch), named_guarded), _record_name(branch, named))
        for branch in (top if isinstance(top, list) else [top])
    ]
    return _union_reader(branches, limits) if isinstance(top, list) else _plain_reader(*branches[0], limits)


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
    except Exception as error:  # fastavro promises no set of exceptions for bytes that do not fit
        raise DecodeError(f"not Avro of this schema: {_reason(error)}") from error
    left = size - stream.tell()
    if left:
        raise DecodeError(f"not Avro of this schema: {left} bytes left over after the value")
    return Decoded(found["value"], name)  # type: ignore[index, call-overload]  # a record by construction


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


# --- the schema


def _load(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read and parse a schema file; return the schema and the named ones within it."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"schema {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"schema {path}: not JSON: {error}") from error
    named: dict[str, Any] = {}
    outer = {"type": "record", "name": _WRAPPER, "fields": [{"name": "value", "type": schema}]}
    try:
        parsed: Any = fastavro.parse_schema(outer, named)
    except UnknownType as error:
        raise ConfigError(f"schema {path}: unknown type {error.name}") from error
    except SchemaParseException as error:
        raise ConfigError(f"schema {path}: {error}") from error
    except Exception as error:  # any JSON can stand in the file, and fastavro checks little of it
        raise ConfigError(f"schema {path}: not an Avro schema: {type(error).__name__}: {error}") from error
    del named[_WRAPPER]
    return parsed["fields"][0]["type"], named


def _wrapped(schema: Any, named: dict[str, Any]) -> dict[str, Any]:
    """Make a schema the one field of a record, marked as fastavro marks what it has parsed.

    The record adds no byte to the encoding. It is there because fastavro keeps the mark on
    records only and would parse any other schema again for each value.
    """
    fields = [{"name": "value", "type": schema}]
    return {
        "type": "record",
        "name": _WRAPPER,
        "fields": fields,
        "__fastavro_parsed": True,
        "__named_schemas": named,
    }


def _record_name(schema: Any, named: dict[str, Any]) -> str | None:
    meant = named.get(schema) if isinstance(schema, str) else schema
    if isinstance(meant, dict) and meant["type"] in _RECORDS:
        return str(meant["name"]).rpartition(".")[2]
    return None


# --- what stands between fastavro and the data


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


def _read_decimal(data: bytes, writer_schema: Any = None, reader_schema: Any = None) -> Decimal:
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


# --- what a schema may be


class _Shape(NamedTuple):
    """Of a type: the fewest bytes of a value, how deep it nests, how many values it holds at least."""

    size: int = 1
    depth: int = 0
    values: int = 1


class _SchemaCheck:
    """Refuses, by name, what bytes from outside could misuse."""

    def __init__(self, path: Path, max_depth: int, named: dict[str, Any]) -> None:
        self._path = path
        self._max_depth = max_depth
        self._named = named
        self._open: list[str] = []
        self._known: dict[str, _Shape] = {}

    def check(self, schema: Any, depth: int) -> _Shape:
        """Check a parsed schema that stands at ``depth``."""
        if isinstance(schema, list):
            branches = [self.check(branch, depth) for branch in schema]
            return _Shape(
                depth=max((branch.depth for branch in branches), default=0),
                values=max((branch.values for branch in branches), default=1),
            )
        if isinstance(schema, str):
            return self._check_name(schema, depth)
        match schema["type"]:
            case "array":
                items = self.check(schema["items"], depth + 1)
                if items.size == 0:
                    self._refuse("the items of an array take no bytes, so ten bytes could ask for gigabytes")
                return self._within(_Shape(depth=items.depth + 1), depth)
            case "map":  # a key takes a byte, so the values may take none
                return self._within(_Shape(depth=self.check(schema["values"], depth + 1).depth + 1), depth)
            case "record" | "error":
                return self._check_record(schema, depth)
            case "fixed":
                if type(schema["size"]) is not int or schema["size"] < 0:
                    self._refuse(f"the size of {schema['name']} is no number of bytes")
                self._check_decimal(schema)
                return _Shape(size=schema["size"])
            case "bytes":
                self._check_decimal(schema)
                return _Shape()
            case "null":
                return _Shape(size=0)
            case _:
                return _Shape()

    def _check_name(self, name: str, depth: int) -> _Shape:
        if name in self._open:
            self._refuse(f"{name} contains itself; data could nest it until the process dies")
        if name in self._known:
            return self._within(self._known[name], depth)
        if name in self._named:
            return self.check(self._named[name], depth)
        return _Shape(size=0 if name == "null" else 1)

    def _check_record(self, schema: dict[str, Any], depth: int) -> _Shape:
        name = schema["name"]
        self._within(_Shape(), depth)
        self._open.append(name)
        fields = [self.check(field["type"], depth + 1) for field in schema["fields"]]
        self._open.pop()
        shape = _Shape(
            size=sum(field.size for field in fields),
            depth=1 + max((field.depth for field in fields), default=0),
            values=1 + sum(field.values for field in fields),
        )
        if shape.values > _MAX_FIELDS:
            self._refuse(f"{name} holds more than {_MAX_FIELDS} fields, those of the records within it included")
        self._known[name] = shape
        return self._within(shape, depth)

    def _check_decimal(self, schema: dict[str, Any]) -> None:
        if schema.get("logicalType") != "decimal":
            return
        precision, scale = schema.get("precision"), schema.get("scale", 0)
        if type(precision) is not int or not 0 < precision <= _MAX_PRECISION or type(scale) is not int:
            self._refuse(f"a decimal needs a precision from 1 to {_MAX_PRECISION} and a whole scale")

    def _within(self, shape: _Shape, depth: int) -> _Shape:
        if depth + shape.depth - 1 > self._max_depth or depth > self._max_depth:
            self._refuse(f"it nests deeper than max_depth = {self._max_depth}")
        return shape

    def _refuse(self, reason: str) -> NoReturn:
        raise ConfigError(f"schema {self._path}: {reason}")
