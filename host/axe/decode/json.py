"""The link ``json``: strict JSON through msgspec, bounded in size and depth."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import DecodeError
from .value import Limits, too_large

_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"\\'))
_MALFORMED = re.compile(r"JSON is malformed: (?P<what>.*) \(byte (?P<byte>\d+)\)")


class JsonReader:
    """The link ``json``.

    NaN and Infinity, bytes after the value, text that is not UTF-8 and lone surrogates are
    refused. Of a key that an object holds twice, the last value counts.

    ``quick`` is the parser itself, for values of at most ``quick_bytes``: a value that nests deeper
    than ``max_depth`` has two brackets a level or is malformed, so a short one needs no look at its
    brackets. It raises ValueError for what ``__call__`` explains.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.quick: Callable[[bytes], Any] = msgspec.json.Decoder().decode
        self.quick_bytes = min(limits.max_bytes, 2 * limits.max_depth + 1)

    def peek(self, field: str) -> Callable[[bytes], Any]:
        """Build what reads one field of an object, in half the time of parsing it all.

        The result has it as ``field``, None where it is not there. For values of at most ``quick_bytes``, and
        only to tell whether one is worth parsing: what else is in it is hardly looked at. Raises ValueError
        for what is no object.
        """
        form = msgspec.defstruct("Form", [("field", Any, None)], rename={"field": field}, gc=False)
        return msgspec.json.Decoder(form).decode

    def __call__(self, value: bytes) -> Any:
        """Parse one value.

        Raises:
            DecodeError: it is too large, too deep, or not JSON.
        """
        if len(value) > self.quick_bytes:
            _check(value, self._limits)
        try:
            return self.quick(value)
        except (ValueError, RecursionError) as error:
            raise DecodeError(_reason(error, self._limits)) from error


def _check(value: bytes, limits: Limits) -> None:
    if len(value) > limits.max_bytes:
        raise too_large(value, limits)
    marks = value.translate(_AS_SQUARE, _NO_MARKS)
    # Brackets in strings count here too; only when there are many are they worth telling apart.
    if marks.count(b"[") > limits.max_depth and _is_deeper(value, marks, limits.max_depth):
        raise DecodeError(_too_deep(limits))


def _is_deeper(value: bytes, marks: bytes, max_depth: int) -> bool:
    """Tell whether the brackets outside strings nest deeper than ``max_depth``.

    Works with whole-string operations, because a loop over megabytes in Python takes seconds:
    cut out the strings, then take away the innermost pairs of brackets, a level at a time.
    Reads malformed JSON as the parser does, up to its first fault.
    """
    if b"\\" in marks:
        # From the left, as the parser pairs them: what is left before a quote escapes it.
        marks = value.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_AS_SQUARE, _NO_MARKS + b"\\")
    # A string without brackets is a pair of quotes now. Taking pairs away keeps the parity of
    # the quotes before each bracket, so if no quote is left, no bracket was in a string.
    marks = marks.replace(b'""', b"")
    if b'"' in marks:
        marks = b"".join(marks.split(b'"')[::2])
    too_many = b"[" * (max_depth + 1)
    for _ in range(max_depth):
        if marks.startswith(too_many):
            return True
        fewer = marks.replace(b"[]", b"")
        if len(fewer) == len(marks):
            # Nothing left, or unbalanced: the parser stops at that, and says so better.
            return False
        marks = fewer
    return b"[]" in marks or marks.startswith(too_many)


def _reason(error: Exception, limits: Limits) -> str:
    """Say what is wrong without a byte of the payload."""
    if isinstance(error, RecursionError):
        return _too_deep(limits)
    message = str(error)
    # msgspec's own words since 0.23. The position of the error before counts from the start of a string somewhere.
    if isinstance(error, UnicodeDecodeError) or message == "Invalid UTF-8 encoded string":
        return "not JSON: a string that is not UTF-8"
    if found := _MALFORMED.fullmatch(message):
        return f"not JSON: {found['what']} at byte {found['byte']}"
    if message == "Input data was truncated":
        return "not JSON: it ends too early"
    return f"not JSON: {message[:1].lower()}{message[1:]}"


def _too_deep(limits: Limits) -> str:
    return f"nested deeper than max_depth = {limits.max_depth}"
