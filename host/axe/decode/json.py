"""The link ``json``: strict JSON through msgspec, bounded in size and depth."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import msgspec

from ..errors import DecodeError
from .value import Limits, too_large

_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MALFORMED = re.compile(r"JSON is malformed: (?P<what>.*) \(byte (?P<byte>\d+)\)")


def json_reader(limits: Limits) -> Callable[[bytes], Any]:
    """Build the link ``json``.

    NaN and Infinity, bytes after the value, text that is not UTF-8 and lone surrogates are
    refused. Of a key that an object holds twice, the last value counts.
    """
    parse = msgspec.json.Decoder().decode
    # A value that nests deeper than max_depth has two brackets a level or is malformed, so a
    # short one needs no look at its brackets: one comparison is all that the usual event pays.
    unchecked = min(limits.max_bytes, 2 * limits.max_depth + 1)

    def read(value: bytes) -> Any:
        if len(value) > unchecked:
            _check(value, limits)
        try:
            return parse(value)
        except (ValueError, RecursionError) as error:
            raise DecodeError(_reason(error, limits)) from error

    return read


def _check(value: bytes, limits: Limits) -> None:
    if len(value) > limits.max_bytes:
        raise too_large(value, limits)
    # Brackets in strings count here too; only then is it worth telling them apart.
    if value.count(b"[") + value.count(b"{") > limits.max_depth and _is_deeper(value, limits.max_depth):
        raise DecodeError(_too_deep(limits))


def _is_deeper(value: bytes, max_depth: int) -> bool:
    """Tell whether brackets outside strings nest deeper than ``max_depth``.

    Works with whole-string operations, because a loop over twelve megabytes in Python takes
    seconds: cut out the strings, keep the brackets, then take away the innermost pairs, a
    level at a time. Reads malformed JSON like the parser up to its first fault.
    """
    if b"\\" in value:
        value = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(value.split(b'"')[::2])
    brackets = outside_strings.translate(_AS_SQUARE, _NO_BRACKETS)
    left = brackets
    for _ in range(max_depth):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    if not left or left.startswith(b"[" * (max_depth + 1)):
        return bool(left)
    # Deeper, or unbalanced: the parser names the latter better than we could, so count.
    return max(accumulate(1 if bracket == ord("[") else -1 for bracket in brackets)) > max_depth


def _reason(error: Exception, limits: Limits) -> str:
    """Say what is wrong without a byte of the payload."""
    if isinstance(error, RecursionError):
        return _too_deep(limits)
    if isinstance(error, UnicodeDecodeError):
        # Its position counts from the start of a string somewhere in the value.
        return "not JSON: a string that is not UTF-8"
    message = str(error)
    if found := _MALFORMED.fullmatch(message):
        return f"not JSON: {found['what']} at byte {found['byte']}"
    if message == "Input data was truncated":
        return "not JSON: it ends too early"
    return f"not JSON: {message[:1].lower()}{message[1:]}"


def _too_deep(limits: Limits) -> str:
    return f"nested deeper than max_depth = {limits.max_depth}"
