"""Dead letters that a topic is to have as well: which those are, and that it has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, text, update

from . import tables
from .trimming import SIZE

_of = tables.dead_letters.c
# As it was when it was sent: refused again meanwhile, it is another letter.
_PUBLISHED = (
    update(tables.dead_letters)
    .where(_of.id == bindparam("id_"), _of.rejected_at == bindparam("at"), _of.attempts == bindparam("attempts_"))
    .values(published_at=bindparam("now"))
)


def unpublished(*, limit: int, but: Sequence[int]) -> Select[Any]:
    """Select id and size of letters that a topic is to have, in the order of their ids, without some of them."""
    # In words: with parameters no database sees that its index holds just these.
    found = select(_of.id, SIZE).where(text(tables.UNPUBLISHED)).order_by(_of.id).limit(limit)
    if but:
        found = found.where(_of.id.not_in(bindparam(None, but, expanding=True, literal_execute=True)))
    return found


def note_published(connection: Connection, letters: Iterable[Mapping[str, Any]]) -> None:
    """Note that the topic has these letters, as they are given here."""
    now = tables.timestamp()
    rows = [{"id_": one["id"], "at": one["rejected_at"], "attempts_": one["attempts"], "now": now} for one in letters]
    connection.execute(_PUBLISHED, rows)
