"""Words for what is wrong with a setting or a name: what was expected and what stands there, never its value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any

import msgspec

from .model import SECONDS_OF_30_YEARS

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_LONGEST_KEY = 60
_LONGEST_WORD = 100  # the search is quadratic in it
_KINDS: tuple[tuple[Any, str], ...] = (
    (type(None), "nothing"),
    (bool, "true or false"),  # before int, which it is one of
    ((int, float), "a number"),
    (str, "text"),
    ((list, tuple), "a list"),
    (Mapping, "a table"),
    ((date, time), "a date or time"),
)


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Advise the nearest of the known words, else what is said otherwise."""
    near = difflib.get_close_matches(word[:_LONGEST_WORD], list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise


def one_line(text: str) -> str:
    """Show text in one line, whatever it holds."""
    return text if text.isprintable() else ascii(text)[1:-1]


def join(path: str, key: str) -> str:
    """Write a setting's path as TOML would: `processors.study-counter`, `kafka."security.protocol"`."""
    if not _BARE_KEY.match(key):
        # One line, of bounded length, whatever the key holds.
        key = ascii(key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…")[1:-1].replace('"', '\\"')
        key = f'"{key}"'
    return f"{path}.{key}" if path else key


def join_steps(path: str, steps: list[str]) -> str:
    """Go on with a path by the steps of msgspec's own: keys, and numbers of items."""
    for step in steps:
        path = f"{path}[{step}]" if step.isdigit() else join(path, step)
    return path


def kind_of(value: object) -> str:
    """Name the kind of a value in the words of TOML, never the value."""
    return next((words for kind, words in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def member(expected: Any, step: str) -> Any:
    """Follow one step of a path through msgspec's description of a type."""
    for kind in expected.types if isinstance(expected, msgspec.inspect.UnionType) else (expected,):
        match kind:
            case msgspec.inspect.StructType():
                return next(field.type for field in kind.fields if field.encode_name == step)
            case msgspec.inspect.VarTupleType():
                return kind.item_type
            case msgspec.inspect.TupleType():
                return kind.item_types[int(step)]
    return expected


def described(expected: Any) -> str:  # noqa: PLR0911 - one return for each kind of type
    """Say what a setting takes, in words."""
    match expected:
        case msgspec.inspect.UnionType():
            return " or ".join(described(kind) for kind in expected.types if not _is_none(kind))
        case msgspec.inspect.LiteralType():
            return " or ".join(f'"{value}"' for value in expected.values)
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return _described_number(expected)
        case msgspec.inspect.VarTupleType():
            return f"a list of {described(expected.item_type)}"
        case msgspec.inspect.TupleType():
            return f"a list of {len(expected.item_types)}, each {described(expected.item_types[0])}"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.StrType():
            return "text"
    return "a table"


def _described_number(expected: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    words = "a whole number" if isinstance(expected, msgspec.inspect.IntType) else "a number"
    if expected.gt is not None:
        words += f" above {expected.gt:g}"
    if expected.ge is not None:
        words += f" of at least {expected.ge:g}"
    if expected.le is not None and expected.le < SECONDS_OF_30_YEARS:
        words += f", at most {expected.le:g}"
    return words


def _is_none(kind: object) -> bool:
    return isinstance(kind, msgspec.inspect.NoneType)
