"""``axe processors``: what is installed, and whether it could run."""

from __future__ import annotations

from typing import Any

import typer

from .session import Session, table


def processors(ctx: typer.Context) -> None:
    """List the installed processors: ready, blocked or broken, and why."""
    session: Session = ctx.obj
    rows = described(session)
    session.show(
        {"processors": rows},
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
        ),
    )
    if not rows:
        session.warn("no processor is installed: pip install a package that has one")


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
