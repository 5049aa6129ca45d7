"""The schemas of the link ``avro``: read from a file, and refused where data could misuse them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from ..errors import ConfigError

WRAPPER = "axe__value"
"""The name of the record that a schema is wrapped in; see ``avro.py``."""

_RECORDS = ("record", "error")
_MAX_PRECISION = 10_000
# Records that hold each other, none of them recursive, can still multiply: thirty names are
# enough for a thousand million fields in no bytes at all.
_MAX_FIELDS = 100_000


class AvroSchema(NamedTuple):
    """A parsed schema, and the named ones within it, which it refers to by name."""

    top: Any
    named: dict[str, Any]

    def record_name(self, schema: Any) -> str | None:
        """Return the short name of a schema that is a record, or a reference to one; else None."""
        meant = self.named.get(schema) if isinstance(schema, str) else schema
        if isinstance(meant, dict) and meant["type"] in _RECORDS:
            return str(meant["name"]).rpartition(".")[2]
        return None


def load_schema(path: Path, max_depth: int) -> AvroSchema:
    """Read a schema file.

    Raises:
        ConfigError: the file is missing, holds no schema, or one that data could misuse.
    """
    schema = _parse(path)
    _SchemaCheck(path, max_depth, schema.named).check(schema.top, 1)
    return schema


def _parse(path: Path) -> AvroSchema:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"schema {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"schema {path}: not JSON: {error}") from error
    named: dict[str, Any] = {}
    outer = {"type": "record", "name": WRAPPER, "fields": [{"name": "value", "type": schema}]}
    try:
        parsed: Any = fastavro.parse_schema(outer, named)
    except UnknownType as error:
        raise ConfigError(f"schema {path}: unknown type {error.name}") from error
    except SchemaParseException as error:
        raise ConfigError(f"schema {path}: {error}") from error
    except Exception as error:  # any JSON can stand in the file, and fastavro checks little of it
        raise ConfigError(f"schema {path}: not an Avro schema: {type(error).__name__}: {error}") from error
    del named[WRAPPER]
    return AvroSchema(parsed["fields"][0]["type"], named)


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
