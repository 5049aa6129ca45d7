"""``axe rejections export`` and ``import``: dead letters in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .letters import Name
from .session import Session, table


def export(
    ctx: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
) -> None:
    """Write the dead letters of a processor into a file, one JSON object a line."""
    from ..letter_files import lines_of

    session: Session = ctx.obj
    (name,) = session.require_known([name])
    with session.store(name) as store:
        found = [] if store is None else store.dead_letters()
    # Like the database, it is for its owner: what was refused may be anything.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
        written.writelines(f"{line}\n" for line in lines_of(name, found))
    document = {"processor": name, "exported": len(found), "file": str(file)}
    session.show(document, table(("processor", "#exported", "file"), [(name, len(found), str(file))]))


def import_(
    ctx: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `axe rejections export` has written.")],
) -> None:
    """Add the dead letters of a file to those of the same processor; those that are there stay as they are."""
    from .. import operations
    from ..letter_files import letters_of

    session: Session = ctx.obj
    (name,) = session.require_known([name])
    with file.open("rb") as lines:
        letters = letters_of(name, lines)
    with session.store(name, create=True) as store:
        assert store is not None
        added = operations.import_letters(store, letters)
    present = len(letters) - added
    document = {"processor": name, "imported": added, "present": present}
    session.show(document, table(("processor", "#imported", "#there already"), [(name, added, present)]))
