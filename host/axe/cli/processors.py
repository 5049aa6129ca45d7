"""``axe processors``: what is installed, and whether it could run."""

from __future__ import annotations

from typing import Any

import typer

from .session import Session, table

_PLUGIN_COLUMNS = ("name", "distribution", "version", "hooks", "status", "reason")


def processors(ctx: typer.Context) -> None:
    """List what is installed, processors and plugins: ready, blocked or broken, and why."""
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
    from ..probe import Probed

    found = session.discovered.processors
    probed = session.probe([one.name for one in found if one.status is FoundStatus.FOUND])
    rows: list[dict[str, Any]] = []
    for one in found:
        status, what = one.status.value, Probed(reason=one.reason)
        if one.status is FoundStatus.FOUND:
            what = probed[one.name]
            status = "broken" if what.reason else "ready"
        rows.append(
            {
                "name": one.name,
                "distribution": one.distribution,
                "distribution_version": one.version,
                "version": what.version,
                "topics": list(what.topics),
                "status": status,
                "reason": what.reason,
            }
        )
    return rows


def described_plugins(session: Session) -> list[dict[str, Any]]:
    """Describe every installed package of ``axe.plugins``; each import runs aside."""
    from ..discovery import FoundStatus
    from ..probe import Probed

    found, probed = session.discovered.plugins, session.probed_plugins
    rows: list[dict[str, Any]] = []
    for one in found:
        status, what = one.status.value, Probed(reason=one.reason)
        if one.status is FoundStatus.FOUND:
            what = probed[one.name]
            status = "broken" if what.reason else "ready"
        row: dict[str, Any] = {"name": one.name, "distribution": one.distribution, "version": one.version}
        if (hooks := getattr(what, "hooks", None)) is not None:
            row["hooks"] = list(hooks)
        rows.append({**row, "status": status, "reason": what.reason})
    return rows
