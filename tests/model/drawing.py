"""What the machine draws: each thing out of one number, so that it varies as a whole and gets simpler with the number.

Hypothesis prefers what it has drawn before, and in a dozen small choices for each event that leaves sequences in which
hardly anything happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st

from .handler import SQL, SQL_WAYS, WAYS
from .model import ALWAYS, OPS, TOMBSTONE, WANTED, Policy, Spec
from .world import LOOP, Setup

T = TypeVar("T")

# Within so many, Hypothesis draws evenly.
_NUMBERS = st.integers(0, 2**24 - 1)


class Digits:
    """A number, taken apart digit by digit, each of a base of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def pick(self, options: Sequence[T]) -> T:
        self.number, digit = divmod(self.number, len(options))
        return options[digit]


class Published(NamedTuple):
    """An event, how often it comes in a row, its type, and whether that stands in a header."""

    spec: Spec
    times: int
    kind: str
    in_header: bool


class Shape(NamedTuple):
    """What a processor reads, and what about its workers lasts for the whole of a sequence."""

    partitions: int
    two_topics: bool
    filters: bool
    alone: bool
    """Whether workers come one after the other, never beside each other."""
    looks: bool
    """Whether they look at the store in every round, or only with each batch."""
    plain: bool
    """Whether events use values alone, and no SQL."""


def _shape(digits: Digits) -> Shape:
    return Shape(
        partitions=digits.pick((1, 2)),
        two_topics=digits.pick((False, True)),
        filters=digits.pick((False, True)),
        alone=digits.pick((False, False, True)),
        looks=digits.pick((True, False)),
        plain=digits.pick((False, True)),
    )


def _do(digits: Digits) -> list[str]:
    ops = [digits.pick(list(OPS)) for _ in range(4)]
    return list(dict.fromkeys(ops[: digits.pick((1, 2, 3, 4, 0))]))


def _published(numbers: tuple[int, int]) -> Published:
    do, digits = _do(Digits(numbers[0])), Digits(numbers[1])
    kind = digits.pick(("well", "well", "reject", "reject", "fail", "fail", "fail", "kill", "junk", "tombstone"))
    times, type_ = digits.pick((1, 1, 1, 1, 2, 2, 5, 70)), digits.pick((WANTED, WANTED, "other"))
    in_header, early = digits.pick((True, False)), digits.pick((False, True))
    fails, way = digits.pick((1, 2, ALWAYS)), digits.pick(WAYS)
    spec: Spec = {"do": do}
    match kind:
        case "junk":
            spec = {"do": [], "form": "junk"}
        case "tombstone":
            spec = TOMBSTONE
        case "reject":
            spec |= {"end": "reject", "early": early}
        case "kill":
            spec |= {"kills": 1 if fails == 1 else ALWAYS}
        case "fail":
            spec |= {"fails": fails, "way": way, "early": early}
            if answer := digits.pick((None, None, "retry", "reject", "pause", "stop")):
                spec["answer"] = (digits.pick((1, 2, 3)), answer)
            if digits.pick((False, False, True)):
                spec["end"] = "reject"
    return Published(spec, times, type_, in_header)


def without_sql(spec: Spec) -> Spec:
    """Let an event use values alone: whoever uses SQL makes axe more careful about all events."""
    plain = {**spec, "do": [op for op in spec["do"] if op not in SQL]}
    if spec.get("way") in SQL_WAYS:
        plain["way"] = "raise"
    return plain


def _policy(digits: Digits) -> Policy:
    return Policy(
        on_failure=digits.pick(("reject", "stop", "pause")),
        retries=digits.pick((0, 1, 2)),
        flood=digits.pick((None, None, 4)),
        mended=digits.pick((False, False, False, True)),
    )


def _setup(digits: Digits) -> Setup:
    return Setup(
        batch=digits.pick((1000, 3, 1)),
        cache_mb=digits.pick((16, 0)),
        many=digits.pick((False, True)),
        generous=digits.pick((False, True)),
    )


def _reset(digits: Digits) -> tuple[Any, bool]:
    """Where to, for each partition if not for all: None leaves it, and what is too large begins again at 0."""
    wipe = digits.pick((False, True))
    target: Any = digits.pick(("earliest", "latest", None))
    if target is None:
        target = [digits.pick((None, 0, 1, 2, 3, 5, 50)) for _ in range(3)]
    return target, wipe


_KINDS = ("kill", "kill", "store", "store", "source", "interrupt", "append", "pause", "resume")
_KINDS += ("reset", "reset", "takeover", "takeover", "takeover")


def _action(number: int) -> tuple[Any, ...]:
    digits = Digits(number)
    match kind := digits.pick(_KINDS):
        case "append":
            return kind, digits.pick((0, 1, 2)), [Published({"do": _do(digits)}, 1, WANTED, in_header=True)]
        case "reset":
            return kind, *_reset(digits)
        case "takeover":
            kill_at = digits.pick((None, None, 3, 6, *range(LOOP, LOOP + 10)))
            return kind, _policy(digits), _setup(digits), kill_at
    return (kind,)


SHAPES = _NUMBERS.map(lambda number: _shape(Digits(number)))
EVENTS = st.lists(st.tuples(_NUMBERS, _NUMBERS).map(_published), min_size=1, max_size=6)
WORKERS = _NUMBERS.map(lambda number: (_policy(digits := Digits(number)), _setup(digits)))
RESETS = _NUMBERS.map(lambda number: _reset(Digits(number)))
PARTITIONS = st.integers(0, 2)
# At the start, and in the loop.
_POINTS = st.one_of(st.integers(LOOP, LOOP + 20), st.integers(0, 9))
PLANS = st.one_of(st.just({}), st.dictionaries(_POINTS, _NUMBERS.map(_action), min_size=1, max_size=4))
