"""What not every database stores in a text."""

from __future__ import annotations


def unstorable(text: str) -> bool:
    """Tell whether a text holds NUL, or half a surrogate pair."""
    return (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)) or "\0" in text


def clean(text: str) -> str:
    """Write NUL and halves of surrogate pairs as escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
