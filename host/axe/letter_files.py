"""Dead letters in files: one JSON object a line, in which nothing of a letter is lost but its number."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from .config import TOPIC
from .errors import AxeError
from .letters import BLOCKED, REJECTED, RETRY, STATUSES, record_of

_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_ENCODING = "base64"


class _Line(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A line; bytes are base64, which ``encoding`` says."""

    processor: str
    topic: str
    partition: _Count
    offset: _Offset
    encoding: Literal["base64"]
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: str | None
    reason: str
    error: str | None
    attempts: _Count
    rejected_at: str
    status: str
    version: _Count | None
    # Where it comes from an older axe, it has none.
    published_at: str | None = None


def lines_of(processor: str, letters: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Write letters as lines, without their ends."""
    for letter in letters:
        record = record_of(letter)
        line = {"processor": processor, "topic": record.topic, "partition": record.partition, "offset": record.offset}
        line |= {"encoding": _ENCODING, "key": _written(record.key), "value": _written(record.value)}
        line["headers"] = [[name, _written(value)] for name, value in record.headers]
        kept = ("timestamp", "reason", "error", "attempts", "rejected_at", "status", "version", "published_at")
        yield json.dumps({**line, **{name: letter[name] for name in kept}})


def letters_of(processor: str, lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Read lines as letters, with the columns of ``axe_dead_letters`` that they have.

    What was marked for a retry, or waits for another one, is rejected: where it came from, it may be retried.

    Raises:
        AxeError: a line is none, or of another processor; names it by its number.
    """
    return [_letter(processor, line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _letter(processor: str, text: bytes, number: int) -> dict[str, Any]:
    try:
        line = msgspec.json.decode(text, type=_Line)
        _check(line, processor)
    except (msgspec.DecodeError, ValueError) as error:
        message = f"line {number} is no dead letter of {processor}: {error}; nothing was imported"
        raise AxeError(message) from error
    headers = json.dumps([[name, _written(value)] for name, value in line.headers])
    letter = {name: getattr(line, name) for name in line.__struct_fields__ if name not in ("processor", "encoding")}
    return {**letter, "headers": headers, "status": REJECTED if line.status in (RETRY, BLOCKED) else line.status}


def _check(line: _Line, processor: str) -> None:
    """Look for what the types do not tell; raises ValueError."""
    if line.processor != processor:
        message = f"it is one of {line.processor!r:.100}"
        raise ValueError(message)
    if not TOPIC.match(line.topic):
        message = f"{line.topic!r:.100} is no name of a topic"
        raise ValueError(message)
    if line.status not in STATUSES:
        message = f"{line.status!r:.100} is no status"
        raise ValueError(message)
    for at in (line.rejected_at, line.timestamp, line.published_at):
        if at is None:
            continue
        if not at.endswith("Z"):
            message = f"{at!r:.100} is no time in UTC"
            raise ValueError(message)
        datetime.fromisoformat(at)


def _written(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()
