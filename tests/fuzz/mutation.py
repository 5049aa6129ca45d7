"""Bytes that begin as something valid and are then spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

VARIANTS = 25
"""How many a seed gives: drawing each edit by itself would take most of the time."""


def mutated(
    whole: st.SearchStrategy[bytes], tokens: Sequence[bytes] = (), *, most: int = 8, count: int = VARIANTS
) -> st.SearchStrategy[list[bytes]]:
    """Draw valid bytes, and spoil them again and again in a few places, with pieces of their own language too."""
    pieces = list(tokens)

    def variants(drawn: tuple[bytes, int]) -> list[bytes]:
        chance = Random(drawn[1])
        return [drawn[0], *(spoilt(drawn[0], pieces, chance, most) for _ in range(count - 1))]

    return st.tuples(whole, st.integers(0, 2**64)).map(variants)


def spoilt(whole: bytes, pieces: Sequence[bytes], chance: Random, most: int) -> bytes:
    """Change bytes in a few places."""
    value = bytearray(whole)
    for _ in range(chance.randint(1, most)):
        at, length = chance.randint(0, len(value)), chance.choice((1, 1, 2, 5, 40))
        piece = chance.choice(pieces) if pieces and chance.random() < 0.7 else chance.randbytes(chance.randint(1, 4))
        match chance.randrange(12):
            case 0 | 1 | 2:
                value[at : at + length] = piece
            case 3 | 4 | 5:
                value[at:at] = piece
            case 6:
                del value[at : at + length]
            case 7:
                value[at:at] = value[at : at + length] * 3
            case 8:
                # Another place, as if lines were moved.
                value[at:at] = value[(start := chance.randint(0, len(value))) : start + length]
            case 9:
                value[at : at + 1] = bytes([chance.randrange(256)])
            case 10:
                value[at : at + len(piece)] = piece
            case _ if chance.random() < 0.2:
                del value[at:]
    return bytes(value)


def smaller(value: bytes, is_still_one: object) -> bytes:
    """Take out of bytes what is not needed for a finding, piece by piece."""
    assert callable(is_still_one)
    size = len(value) // 2
    while size:
        at = 0
        while at < len(value):
            without = value[:at] + value[at + size :]
            if is_still_one(without):
                value = without
            else:
                at += size
        size //= 2
    return value
