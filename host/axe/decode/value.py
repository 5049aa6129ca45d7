"""What the links of a chain share: the limits they keep to and the envelope they may return."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import DecodeError


class Decoded(NamedTuple):
    """A value whose format also names the event type, as Avro does by the name of the record.

    Decoders return it in place of the bare value, which is how the two are told apart.
    """

    value: Any
    type: str | None


class Limits(NamedTuple):
    """How large and how deeply nested a value may be."""

    max_bytes: int
    max_depth: int


def too_large(value: bytes, limits: Limits) -> DecodeError:
    """Make the error for a value with more bytes than the limit."""
    return DecodeError(f"{len(value)} bytes, more than max_bytes = {limits.max_bytes}")
