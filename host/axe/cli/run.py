"""``axe run``: the host, with its progress and its result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .session import Session, clean, console, table

Rows = list[dict[str, Any]]


def run(
    ctx: typer.Context,
    *,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop once every processor has read what was there at the start.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Run this processor; repeatable.")] = None,
) -> int:
    """Run the installed processors until stopped."""
    session: Session = ctx.obj
    session.guard_stdout()

    from ..host import Host, start_fork_server

    # Two processes import the libraries, and this way at the same time.
    start_fork_server()
    names = _runnable(session, only or [])
    with _progress(session, shown=until_end) as on_progress:
        result = Host(session.config, only=names or None, until_end=until_end, on_progress=on_progress).run()
    rows = [
        (row["name"], row["status"], row["events"], row["rejections"], row["database"]) for row in result.processors
    ]
    session.show(
        {"processors": result.processors}, table(("processor", "status", "#events", "#rejections", "database"), rows)
    )
    for row in result.processors:
        if row.get("reason") and not session.json:
            session.warn(f"{row['name']} {row['status']}: {row['reason']}")
    return result.exit_code


def _runnable(session: Session, only: list[str]) -> tuple[str, ...]:
    """Check that there is something to run, and the names of ``--only``."""
    from ..discovery import FoundStatus

    installed = session.installed()
    require_installed(session)
    if only:
        session.require_known(only)
    for name in only:
        if name not in installed:
            message = f"{name} has a database, but is not installed; install its distribution to run it"
            raise ConfigError(message)
        if installed[name].status is FoundStatus.BLOCKED:
            message = f"{name} is blocked: {installed[name].reason}"
            raise ConfigError(message)
    if all(found.status is FoundStatus.BLOCKED for found in installed.values()):
        message = "every installed processor is blocked: `axe processors` says by what"
        raise ConfigError(message)
    return tuple(dict.fromkeys(only))


def require_installed(session: Session) -> None:
    """Refuse to go on where no processor is installed."""
    if not session.installed():
        message = f"no processor is installed for {sys.executable}: pip install a package that has one"
        raise ConfigError(message)


@contextmanager
def _progress(session: Session, *, shown: bool) -> Iterator[Callable[[Rows], None] | None]:
    """Show bars on stderr for a ``with`` block, where it is a terminal."""
    if not shown or session.json or not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.text import Text

    bars = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[said]}", markup=False),
        console=console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    tasks: dict[str, progress.TaskID] = {}

    def update(rows: Rows) -> None:
        for row in rows:
            name, events, lag, rate = row["name"], row["events"] or 0, row.get("lag"), row.get("rate") or 0.0
            if name not in tasks:
                tasks[name] = bars.add_task(Text(clean(name)).plain, total=None, said="")
            left = "" if lag is None else f"  lag {lag:,}{_time_left(lag, rate)}"
            total = None if lag is None else max(events + lag, 1)
            done = 1 if total == 1 and lag == 0 else events
            bars.update(tasks[name], total=total, completed=done, said=f"{events:,} events  {rate:,.0f}/s{left}")

    with bars:
        yield update


def _time_left(lag: int, rate: float) -> str:
    if not lag or rate <= 0:
        return ""
    minutes, seconds = divmod(round(lag / rate), 60)
    hours, minutes = divmod(minutes, 60)
    return f"  {hours}:{minutes:02}:{seconds:02} left"
