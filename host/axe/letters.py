"""Dead letters as the rest of axe sees them: which ones are meant, the record of one, and numbers of many in a word."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from .event import Record
from .store.dead_letters import headers_from_json

REJECTED, RETRY, RETRIED, DISCARDED, RESET = "rejected", "retry", "retried", "discarded", "reset"
"""Refused; to be retried by the worker; handled at last; not wanted; read again, by a reset."""
_STATUSES = (REJECTED, RETRY, RETRIED, DISCARDED, RESET)


def record_of(letter: Mapping[str, Any]) -> Record:
    """Make the record again that was refused."""
    key, value, at = letter["key"], letter["value"], letter["timestamp"]
    return Record(
        topic=letter["topic"],
        partition=letter["partition"],
        offset=letter["offset"],
        key=None if key is None else bytes(key),
        value=None if value is None else bytes(value),
        headers=headers_from_json(letter["headers"]),
        timestamp_ms=None if at is None else round(datetime.fromisoformat(at).timestamp() * 1000),
    )


def numbers(ids: Iterable[int]) -> str:
    """Write the numbers of letters, runs of them as ``1-500``: a group may be all there are."""
    runs = []
    for _, run in groupby(enumerate(sorted(ids)), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        runs.append(str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}")
    return ", ".join(runs)


def concerns(row: Mapping[str, Any], number: int) -> bool:
    """Tell whether a row of the history is about a letter: ``before`` has its number, under the status it had."""
    before = json.loads(row["before"] or "null")
    if not isinstance(before, dict):
        return False
    return any(_is_among(number, before[status]) for status in _STATUSES if isinstance(before.get(status), str))


def by_status(part: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the ids that ``before`` or ``after`` of a row of the history has, by status."""
    return {status: _ids(part[status]) for status in _STATUSES if isinstance(part.get(status), str)}


def _ids(text: str) -> list[int]:
    found: list[int] = []
    for run in text.split(", "):
        first, _, last = run.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _is_among(number: int, text: str) -> bool:
    for run in text.split(", "):
        first, _, last = run.partition("-")
        if int(first) <= number <= int(last or first):
            return True
    return False
