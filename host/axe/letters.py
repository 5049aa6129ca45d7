"""Dead letters as the rest of axe sees them: which ones are meant, the record of one, and numbers of many in a word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from .event import Record
from .store.dead_letters import headers_from_json

REJECTED, RETRY, BLOCKED = "rejected", "retry", "blocked"
"""Refused; to be retried by the worker; waiting for one of the same key: events that are missing in the state."""
RETRIED, DISCARDED, RESET = "retried", "discarded", "reset"
"""Handled at last; not wanted; read again, by a reset."""
STATUSES = (REJECTED, RETRY, BLOCKED, RETRIED, DISCARDED, RESET)
_EXCEPTION = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?")
"""A line of a traceback that names the exception."""


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


def published_headers(processor: str, letter: Mapping[str, Any]) -> list[tuple[str, bytes | None]]:
    """Return the headers of a letter in a topic: those of the record, then what became of it in Kafka Connect's words.

    KIP-298 has these. The text is the one that is stored, in which secrets of the configuration are blotted out.
    Connect's names of stages, classes and tasks have nothing here that they could name. Of headers of one name the
    last one counts.
    """
    said = {"topic": letter["topic"], "partition": letter["partition"], "offset": letter["offset"]}
    said |= {"connector.name": processor, "exception.message": letter["reason"]}
    if letter["error"] is not None:
        kind = _kind_of(letter["reason"], letter["error"])
        said |= {} if kind is None else {"exception.class.name": kind}
        said["exception.stacktrace"] = letter["error"]
    named = {f"__connect.errors.{name}": content for name, content in said.items()}
    named |= {"axe.attempts": letter["attempts"], "axe.rejected_at": letter["rejected_at"]}
    if letter["timestamp"] is not None:
        named["axe.timestamp"] = letter["timestamp"]
    ours = [(name, str(content).encode()) for name, content in named.items()]
    return [*headers_from_json(letter["headers"]), *ours]


def _kind_of(reason: str, traceback: str) -> str | None:
    """Find the kind of exception that a reason was made of, with its module, where the traceback names it."""
    reason = " ".join(reason.split())
    for line in reversed(traceback.splitlines()):
        if (found := _EXCEPTION.fullmatch(line)) is not None:
            name, text = found["name"], " ".join((found["text"] or "").split())
            short = name.rpartition(".")[2]
            # A message of several lines may have one that looks like it.
            if reason == short or reason.startswith(f"{short}: {text}") or (text and reason.startswith(text)):
                return name
    return None


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
    return any(_is_among(number, before[status]) for status in STATUSES if isinstance(before.get(status), str))


def by_status(part: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the ids that ``before`` or ``after`` of a row of the history has, by status."""
    return {status: _ids(part[status]) for status in STATUSES if isinstance(part.get(status), str)}


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
