"""``axe rejections``: the dead letters."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import typer

from ..errors import AxeError
from . import letters
from .session import EPILOG, Session, table

app = typer.Typer(
    help="Look at the events that were refused, and settle them.", no_args_is_help=True, rich_markup_mode=None
)
app.command(epilog=EPILOG)(letters.retry)
app.command(epilog=EPILOG)(letters.discard)

_SHORT = ("id", "topic", "partition", "offset", "timestamp", "reason", "attempts", "rejected_at", "status")


@app.command("list", epilog=EPILOG)
def list_(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only those of this processor.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many of each processor, oldest first.")
    ] = None,
) -> int:
    """List the dead letters, without their contents."""
    session: Session = ctx.obj
    rows: list[dict[str, Any]] = []

    def collect(one: str) -> None:
        with session.store(one) as store:
            letters = [] if store is None else store.dead_letters(limit=limit)
        rows.extend({"processor": one, **{key: letter[key] for key in _SHORT}} for letter in letters)

    failed = session.each(session.with_database() if name is None else session.require_known([name]), collect)
    lines = [
        (row["processor"], row["id"], _record(row), row["rejected_at"], row["attempts"], row["status"], row["reason"])
        for row in rows
    ]
    columns = ("processor", "#id", "record", "rejected at", "#attempts", "status", "reason")
    session.show({"rejections": rows}, table(columns, lines))
    return 1 if failed else 0


@app.command(epilog=EPILOG)
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The processor.")],
    number: Annotated[int, typer.Argument(metavar="ID", help="The number in `axe rejections list`.")],
) -> None:
    """Show one dead letter with its bytes.

    Key, value and headers are shown as text where they are UTF-8, else as base64.
    """
    session: Session = ctx.obj
    (name,) = session.require_known([name])
    with session.store(name) as store:
        letters = [] if store is None else store.dead_letters(only=number)
    if not letters:
        message = f"{name} has no rejection {number}; `axe rejections list {name}` lists them"
        raise AxeError(message)
    document = _document(name, letters[0])
    lines = []
    for field, content in document.items():
        if field == "headers":
            lines += [(f"header {header['name']}", _plain(header, "value")) for header in content]
        elif not field.endswith("_encoding"):
            lines.append((field, _plain(document, field)))
    session.show(document, table(("field", "content"), lines))


def _document(name: str, letter: dict[str, Any]) -> dict[str, Any]:
    from ..store.dead_letters import headers_from_json

    document = {"processor": name, **{key: letter[key] for key in _SHORT}, "error": letter["error"]}
    document |= {**_shown("key", letter["key"]), **_shown("value", letter["value"])}
    headers = headers_from_json(letter["headers"])
    return {**document, "headers": [{"name": header, **_shown("value", value)} for header, value in headers]}


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
