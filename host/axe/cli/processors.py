"""``axe processors``: what is installed, and whether it could run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from .session import Session, table

if TYPE_CHECKING:
    from ..discovery import Found
    from ..probe import Probed

_PLUGIN_COLUMNS = ("name", "distribution", "version", "hooks", "status", "reason")


def processors(ctx: typer.Context) -> None:
    """List what is installed and what is broken.

    Processors and plugins: ready, blocked or broken, and why. Each is imported in a process of its own.
    """
    session: Session = ctx.obj
    rows, plugins = described(session), described_plugins(session)
    tables = [
        table(
            ("processor", "distribution", "version", "topics", "status", "reason"),
            (
                (
                    row["name"],
                    f"{row['distribution']} {row['distribution_version']}",
                    row["version"],
                    ", ".join(row["topics"]),
                    row["status"],
                    row["reason"] or "",
                )
                for row in rows
            ),
        )
    ]
    if plugins:
        tables.append(plugins_table(plugins))
    session.show({"processors": rows, "plugins": plugins}, *tables)
    if not rows:
        session.warn("no processor is installed: pip install a package that has one")


def plugins_table(rows: list[dict[str, Any]]) -> Any:
    """Make the table of packages of ``axe.plugins``, with those of its columns that the rows have."""
    columns = [column for column in _PLUGIN_COLUMNS if column in rows[0]]
    return table(("plugin", *columns[1:]), [[_shown(row[column]) for column in columns] for row in rows])


def _shown(cell: Any) -> str:
    return ", ".join(cell) if isinstance(cell, list) else cell or ""


def described(session: Session) -> list[dict[str, Any]]:
    """Describe every installed processor; each import runs aside."""
    from ..discovery import FoundStatus

    found = session.discovered.processors
    probed = session.probe([one.name for one in found if one.status is FoundStatus.FOUND])
    return [
        {
            "name": one.name,
            "distribution": one.distribution,
            "distribution_version": one.version,
            "version": what.version,
            "topics": list(what.topics),
            "status": status,
            "reason": what.reason,
        }
        for one, what, status in _judged(found, probed)
    ]


def described_plugins(session: Session) -> list[dict[str, Any]]:
    """Describe every installed package of ``axe.plugins``; each import runs aside."""
    return [
        {
            "name": one.name,
            "distribution": one.distribution,
            "version": one.version,
            "hooks": list(what.hooks),
            "status": status,
            "reason": what.reason,
        }
        for one, what, status in _judged(session.discovered.plugins, session.probed_plugins)
    ]


def _judged(found: Iterable[Found], probed: Mapping[str, Probed]) -> Iterator[tuple[Found, Probed, str]]:
    """Yield what is installed with what is known of it, and whether it could run."""
    from ..discovery import FoundStatus
    from ..probe import Probed

    for one in found:
        if one.status is FoundStatus.FOUND:
            yield one, probed[one.name], "broken" if probed[one.name].reason else "ready"
        else:
            yield one, Probed(reason=one.reason), one.status.value
