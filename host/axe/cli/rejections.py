"""``axe rejections``: the dead letters."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from ..errors import AxeError, ConfigError, DecodeError
from . import letter_files, letters
from .history import read_event
from .reset import parse_target
from .session import EPILOG, Session, table

app = typer.Typer(
    help="Look at the events that were refused, and settle them.", no_args_is_help=True, rich_markup_mode=None
)
app.command(epilog=EPILOG)(letters.retry)
app.command(epilog=EPILOG)(letters.discard)
app.command(epilog=EPILOG)(letter_files.export)
app.command("import", epilog=EPILOG)(letter_files.import_)

_SHORT = (
    *("id", "topic", "partition", "offset", "timestamp", "reason", "attempts", "rejected_at", "status", "version"),
    "blocked_by",
)
_Status = Literal["rejected", "retry", "blocked", "retried", "discarded", "reset"]


@app.command("list", epilog=EPILOG)
def list_(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only those of this processor.")] = None,
    *,
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Only those of this topic.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Only those with this in their reason.")] = None,
    status: Annotated[_Status | None, typer.Option(help="Only those with this status.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only those rejected since an ISO time, or so long ago: -1h30m.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only those rejected before an ISO time, or so long ago.")
    ] = None,
    group: Annotated[bool, typer.Option("--group", help="A line for each reason, the most frequent first.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many lines of each processor, oldest first.")
    ] = None,
) -> int:
    """List the dead letters, without their contents."""
    from ..store import Letters

    session: Session = ctx.obj
    which = Letters(
        topic=topic,
        contains=reason or None,
        statuses=None if status is None else (status,),
        since=_time("--since", since),
        until=_time("--until", until),
    )
    rows: list[dict[str, Any]] = []

    def collect(one: str) -> None:
        with session.store(one) as store:
            found = [] if store is None else store.dead_letters(limit=None if group else limit, which=which)
        rows.extend(_groups(one, found)[:limit] if group else _letters(one, found))

    failed = session.each(session.with_database() if name is None else session.require_known([name]), collect)
    _show_groups(session, rows) if group else _show_letters(session, rows)
    return 1 if failed else 0


def _time(option: str, text: str | None) -> str | None:
    """Read a time, and write it as the tables do."""
    from ..store.tables import timestamp
    from ..targets import read_target

    if text is None:
        return None
    at: object = None
    with suppress(ConfigError):
        at = read_target(parse_target(text))
    if not isinstance(at, datetime):
        message = f"{option} {text!r} is neither an ISO time (2026-03-01T12:00:00Z) nor how long ago (-1h30m)"
        raise ConfigError(message)
    return timestamp(at.astimezone(UTC))


def _letters(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"processor": name, **{key: letter[key] for key in _SHORT}} for letter in found]


def _groups(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the letters of each reason; those that are most frequent first."""
    groups: dict[str, dict[str, Any]] = {}
    for letter in found:
        at, reason = letter["rejected_at"], letter["reason"]
        new = {"processor": name, "reason": reason, "count": 0, "first": at, "last": at, "example": letter["id"]}
        group = groups.setdefault(reason, new)
        group["count"] += 1
        group["first"], group["last"] = min(group["first"], at), max(group["last"], at)
    return sorted(groups.values(), key=lambda group: -group["count"])


def _show_letters(session: Session, rows: list[dict[str, Any]]) -> None:
    lines = [
        (row["processor"], row["id"], _record(row), row["rejected_at"], row["attempts"], row["status"], row["reason"])
        for row in rows
    ]
    columns = ("processor", "#id", "record", "rejected at", "#attempts", "status", "reason")
    session.show({"rejections": rows}, table(columns, lines))


def _show_groups(session: Session, rows: list[dict[str, Any]]) -> None:
    names = ("processor", "count", "first", "last", "example", "reason")
    lines = [[row[name] for name in names] for row in rows]
    columns = ("processor", "#rejections", "first", "last", "#example", "reason")
    session.show({"groups": rows}, table(columns, lines))


@app.command(epilog=EPILOG)
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The processor.")],
    number: Annotated[int, typer.Argument(metavar="ID", help="The number in `axe rejections list`.")],
) -> None:
    """Show one dead letter with its bytes, its decoded value and its history.

    Key, value and headers are shown as text where they are UTF-8, else as base64. The value is decoded as the
    configuration of its topic says, without the plugin: what a decoder of a plugin reads stays bytes.
    """
    session: Session = ctx.obj
    (name,) = session.require_known([name])
    with session.store(name) as store:
        found = [] if store is None else store.dead_letters(only=number)
        history = [] if store is None else store.history()
    if not found:
        message = f"{name} has no rejection {number}; `axe rejections list {name}` lists them"
        raise AxeError(message)
    document = _document(session, name, found[0], history)
    lines = []
    for field, content in document.items():
        if field == "headers":
            lines += [(f"header {header['name']}", _plain(header, "value")) for header in content]
        elif field == "history":
            lines += [(f"history {row['id']}", _event(row)) for row in content]
        elif field == "decoded":
            lines.append((field, json.dumps(content, ensure_ascii=False, default=str)))
        elif not field.endswith("_encoding"):
            lines.append((field, _plain(document, field)))
    session.show(document, table(("field", "content"), lines))


def _document(session: Session, name: str, letter: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    from ..letters import concerns
    from ..store.dead_letters import headers_from_json

    document = {"processor": name, **{key: letter[key] for key in (*_SHORT, "published_at", "error")}}
    document |= {**_shown("key", letter["key"]), **_shown("value", letter["value"]), **_decoded(session, letter)}
    headers = headers_from_json(letter["headers"])
    document["headers"] = [{"name": header, **_shown("value", value)} for header, value in headers]
    document["history"] = [read_event(row) for row in history if concerns(row, letter["id"])]
    return document


def _decoded(session: Session, letter: dict[str, Any]) -> dict[str, Any]:
    """Decode the value as the topic's table says; or say why that fails."""
    from ..decode import Decoded, reader_of

    value = None
    try:
        if letter["value"] is not None:
            value = reader_of(session.config, letter["topic"])(bytes(letter["value"]))
    except (ConfigError, DecodeError) as error:
        return {"decoded": None, "not_decoded": str(error)}
    return {"decoded": value.value if isinstance(value, Decoded) else value, "not_decoded": None}


def _event(row: dict[str, Any]) -> str:
    """Write what was done to a letter in one line."""
    said = f"{row['at']} {row['action']} by {row['who']}"
    before = row["before"]
    why = row["reason"] or (before.get("reason") and f"it was rejected for: {before['reason']}")
    return f"{said}; {why}" if why else said


def _shown(field: str, content: bytes | None) -> dict[str, str | None]:
    """Write bytes as text with the encoding that gives them back: utf-8 or base64."""
    if content is None:
        return {field: None, f"{field}_encoding": None}
    try:
        return {field: bytes(content).decode(), f"{field}_encoding": "utf-8"}
    except UnicodeDecodeError:
        return {field: base64.b64encode(content).decode(), f"{field}_encoding": "base64"}


def _plain(document: dict[str, Any], field: str) -> str | None:
    content = document[field]
    if content is None:
        return None
    return f"base64: {content}" if document.get(f"{field}_encoding") == "base64" else str(content)


def _record(row: dict[str, Any]) -> str:
    return f"{row['topic']}[{row['partition']}]@{row['offset']}"
