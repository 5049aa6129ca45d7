"""The values of a state as they are stored: a key and its JSON text in a row of ``axe_values``."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, select

from ..errors import StateError
from . import tables
from .compiled import Compiled
from .upsert import insert_or_update

_SAFE = (str, bool, type(None))
_NO_JSON = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)

_encode = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode


def to_json(key: str, value: Any) -> str:
    """Write a value as JSON text.

    Raises:
        StateError: JSON does not give it back as it is.
    """
    try:
        encoded = _encode(value)
        if type(value) in _SAFE or from_json(encoded) == value:
            return encoded.decode()
    except _NO_JSON:
        pass
    raise _no_value(key, value)


def copied(key: str, value: Any) -> Any:
    """Return the value as it will be read.

    Raises:
        StateError: as in ``to_json``.
    """
    try:
        copy = from_json(_encode(value))
        if copy == value:
            return copy
    except _NO_JSON:
        pass
    raise _no_value(key, value)


def _no_value(key: str, value: Any) -> StateError:
    # Infinity is written as null, and a tuple is read as a list.
    message = (
        f"state[{key!r}] is set to a {type(value).__name__} that JSON does not give back as it was; "
        "a value is a string, number, boolean, None, list, or dict with string keys, all the way down"
    )
    return StateError(message)


def _upsert(dialect: str) -> Any:
    upsert = insert_or_update(dialect, tables.values)
    upsert = upsert.on_conflict_do_update(index_elements=["key"], set_={"value": upsert.excluded.value})
    return upsert.values(key=bindparam("key"), value=bindparam("value"))


_MATCHES = tables.values.c.key == bindparam("key_")
LOAD = Compiled(select(tables.values.c.value).where(_MATCHES))
KEYS = Compiled(select(tables.values.c.key))
REMOVE = Compiled(delete(tables.values).where(_MATCHES))
SAVE = Compiled(_upsert)
