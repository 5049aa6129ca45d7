"""The links without a format: bytes as they are, and text."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DecodeError
from .value import Limits, too_large


def bytes_reader(limits: Limits) -> Callable[[bytes], bytes]:
    """Build the link ``raw``: the bytes themselves."""
    max_bytes = limits.max_bytes

    def read(value: bytes) -> bytes:
        if len(value) > max_bytes:
            raise too_large(value, limits)
        return value

    return read


def string_reader(limits: Limits) -> Callable[[bytes], str]:
    """Build the link ``string``: strict UTF-8."""
    max_bytes = limits.max_bytes

    def read(value: bytes) -> str:
        if len(value) > max_bytes:
            raise too_large(value, limits)
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"not UTF-8: {error.reason} at byte {error.start}") from error

    return read
