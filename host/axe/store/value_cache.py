"""What one batch knew of the stored values, for the next ones: their JSON texts, up to a number of bytes.

Why it does not lie: whoever else writes the values of a processor (a wipe, a takeover) raises the epoch of every
position that is stored, in the same transaction, and a batch moves a position by compare-and-set on the epoch before
its handler runs. So a batch that gets as far as reading a value is the only one to have written any since the
takeover, which empties this. What was written comes in only after the database has committed it, and whatever leaves
a doubt empties it: a rollback, a new connection, an event that is undone alone. On SQLite another program may change
the values between two batches: the database tells. On PostgreSQL nothing does.

It holds texts and never what they decode to: a handler may change a list in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN: Any = object()
"""What ``find`` returns of a key that may or may not have a value."""

# Of a dict of a million strings, beside the strings: 21 to 44 for its row, the rest is rounding of the allocator.
_ENTRY_BYTES = 64


class ValueCache:
    """Texts by key, None for a key that has no value; never more than ``limit_bytes`` of memory.

    Two generations: what is met goes into the young one, which becomes the old one when it has half of the bytes, and
    the old one is dropped. So what was met within the last half is found, and nothing is kept in order.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._young: dict[str, str | None] = {}
        self._old: dict[str, str | None] = {}
        self._young_bytes = 0
        self._old_bytes = 0

    @property
    def bytes(self) -> int:
        """How much memory it takes, as far as it is counted."""
        return self._young_bytes + self._old_bytes

    def find(self, key: str) -> Any:
        """Return the text of a key, None if it has no value, or ``UNKNOWN``."""
        text = self._young.get(key, UNKNOWN)
        return self._old.get(key, UNKNOWN) if text is UNKNOWN else text

    def keep(self, stored: Mapping[str, str | None]) -> None:
        """Take in what is stored: the keys that a batch has met, once it is committed."""
        if self._half == 0:
            return
        try:
            for key, text in stored.items():
                before = self._young.get(key, UNKNOWN)
                if before is not text:
                    self._put(key, before, text)
        except BaseException:
            # What it has not come to would be older than what is stored.
            self.clear()
            raise

    def _put(self, key: str, before: str | None, text: str | None) -> None:
        if type(before) is type(text) is str and _are_alike(before, text):
            self._young[key] = text
            return
        size = _size(key, text)
        if size > self._half:
            # It would take the place of all others.
            self._young_bytes -= _size(key, self._young.pop(key, UNKNOWN))
            self._old_bytes -= _size(key, self._old.pop(key, UNKNOWN))
            return
        if self._young_bytes + size > self._half:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
        elif before is not UNKNOWN:
            self._young_bytes -= _size(key, before)
        self._young[key] = text
        self._young_bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
        self._young_bytes = self._old_bytes = 0


def _are_alike(one: str, other: str) -> bool:
    """Tell, without counting, whether two strings take the same memory: most are one more than a number before."""
    return len(one) == len(other) and one.isascii() and other.isascii()


def _size(key: str, text: str | None) -> int:
    """Count an entry; the same each time it is asked for."""
    return 0 if text is UNKNOWN else _ENTRY_BYTES + _bytes(key) + (16 if text is None else _bytes(text))


def _bytes(text: str) -> int:
    """Count what a string may come to take: one that is not ASCII grows by its UTF-8 when somebody asks for that."""
    if text.isascii():
        return text.__sizeof__()
    # A new one has not grown yet.
    return f"{text} ".__sizeof__() + len(text.encode(errors="surrogatepass"))
