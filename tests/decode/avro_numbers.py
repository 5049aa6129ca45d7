"""Numbers as Avro writes them, for tests that make bytes by hand."""

from __future__ import annotations


def number(value: int) -> bytes:
    """Write a number as Avro does: zig-zag, seven bits a byte."""
    left = (value << 1) ^ (value >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])
